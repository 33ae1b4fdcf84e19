"""A run that is interrupted ends with the bits of one that is not."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cgsv_ext import _files
from cgsv_ext.fl import FIGURE_2, MECHANISMS, run
from cgsv_ext.fl.mechanism import Outcome
from cgsv_ext.fl.record import Run

SGD = replace(FIGURE_2, rounds=5, steps=2, samples=40)
ADAM = replace(
    SGD,
    optimizer="Adam",
    lr=0.001,
    decay=0.9,
    steps=None,
    epochs=1,
    adversaries=("noise", "copier", "aggregate"),
)


class Interrupted(Exception):
    pass


def same_bits(a, b):
    """Every tensor of two runs, NaN where NaN."""
    assert a.tensors().keys() == b.tensors().keys()
    return all(
        torch.equal(x.nan_to_num(-1), b.tensors()[name].nan_to_num(-1)) for name, x in a.tensors().items()
    )


def interrupted(experiment, mechanism, path, after, every=1):
    """Leave a checkpoint behind, as a run does that ends in round ``after`` + 1."""

    def on_round(t, accuracy, importance):
        if t > after:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(experiment, mechanism, 1, on_round, checkpoint=path, every=every)
    return path


@pytest.fixture(scope="module")
def whole():
    return run(SGD, "CGSV", 1)


@pytest.mark.parametrize("experiment", [SGD, ADAM], ids=["SGD", "Adam, epochs, adversaries"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_resumed_run_has_the_bits_of_an_uninterrupted_one(mechanism, experiment, tmp_path):
    path = interrupted(experiment, mechanism, tmp_path / "checkpoint", 3)
    rounds = []
    resumed = run(experiment, mechanism, 1, lambda t, *_: rounds.append(t), checkpoint=path, every=1)
    assert rounds == [4, 5]
    uninterrupted = run(experiment, mechanism, 1)
    assert same_bits(resumed, uninterrupted)
    assert resumed.seconds.keys() == uninterrupted.seconds.keys()


@pytest.mark.parametrize("after", range(1, 5))
def test_it_may_end_after_any_round(after, tmp_path, whole):
    path = interrupted(SGD, "CGSV", tmp_path / "checkpoint", after)
    assert same_bits(run(SGD, "CGSV", 1, checkpoint=path), whole)


def test_the_last_checkpoint_stays_until_someone_has_stored_the_result(tmp_path, whole):
    """Asked for again, the run goes on from there to the same result."""
    path, rounds = tmp_path / "checkpoint", []
    for seen in ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 5]):
        assert same_bits(run(SGD, "CGSV", 1, lambda t, *_: rounds.append(t), checkpoint=path, every=2), whole)
        assert rounds == seen
        assert _files.read(path)["t"] == 4


def test_what_the_mechanism_does_not_read_may_differ(tmp_path):
    path = interrupted(replace(SGD, q=2.0, title="began"), "CGSV", tmp_path / "checkpoint", 3)
    asked = replace(SGD, q=3.0, title="asked")
    resumed = run(asked, "CGSV", 1, checkpoint=path)
    assert (resumed.experiment, resumed.experiment.title) == (asked, "asked")
    assert same_bits(resumed, run(asked, "CGSV", 1))


def test_it_is_written_every_so_many_rounds(tmp_path, whole):
    path, rounds = interrupted(SGD, "CGSV", tmp_path / "checkpoint", 3, every=2), []
    assert same_bits(run(SGD, "CGSV", 1, lambda t, *_: rounds.append(t), checkpoint=path, every=2), whole)
    assert rounds == [3, 4, 5]
    assert not interrupted(SGD, "CGSV", tmp_path / "never", 3, every=0).exists()


def test_times_add_up_over_interruptions(tmp_path):
    path = interrupted(SGD, "CGSV", tmp_path / "checkpoint", 3)
    state = _files.read(path)
    _files.write(path, state | {"seconds": dict.fromkeys(state["seconds"], 1000.0)})
    assert all(1000 < seconds < 1100 for seconds in run(SGD, "CGSV", 1, checkpoint=path).seconds.values())


def test_shapley_values_are_logged_on(tmp_path):
    def stop(t, *_):
        if t == 3:
            raise Interrupted

    path = tmp_path / "checkpoint"
    with pytest.raises(Interrupted):
        run(SGD, "CGSV", 1, stop, log_shapley=True, checkpoint=path, every=1)
    resumed = run(SGD, "CGSV", 1, log_shapley=True, checkpoint=path)
    assert same_bits(resumed, run(SGD, "CGSV", 1, log_shapley=True))
    assert not resumed.shapley.isnan().any()


def test_a_mechanism_is_told_the_servers_model_as_before(tmp_path, monkeypatch):
    told = []

    class Spy(MECHANISMS["CGSV"]):
        def step(self, updates: Tensor) -> Outcome:
            told.append(self.server.parameters.clone())
            return super().step(updates)

    monkeypatch.setitem(MECHANISMS, "CGSV", Spy)
    path = interrupted(SGD, "CGSV", tmp_path / "checkpoint", 3)
    del told[3:]
    run(SGD, "CGSV", 1, checkpoint=path)
    run(SGD, "CGSV", 1)
    assert all(torch.equal(a, b) for a, b in zip(told[:5], told[5:], strict=True))


@pytest.mark.parametrize(
    ("experiment", "mechanism", "seed", "named"),
    [
        (replace(SGD, lr=0.2), "CGSV", 1, r"lr \(0.1, not 0.2\)"),
        (replace(SGD, rounds=6), "CGSV", 1, "rounds"),
        (replace(SGD, beta=2.0), "CGSV", 1, r"beta \(the default, not 2.0\)"),
        (replace(SGD, floor=None), "CGSV", 1, r"floor \(the default, not None\)"),
        (SGD, "FedAvg", 1, "mechanism"),
        (SGD, "CGSV", 2, "seed"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_kept(experiment, mechanism, seed, named, tmp_path):
    path = interrupted(SGD, "CGSV", tmp_path / "checkpoint", 3)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=rf"run\(\): expected a checkpoint of this run.*differs in.*{named}"):
        run(experiment, mechanism, seed, checkpoint=path, every=1)
    assert path.read_bytes() == content


def test_something_else_is_refused_and_kept(tmp_path, whole):
    whole.save(tmp_path / "run")
    with pytest.raises(ValueError, match="expected a checkpoint"):
        run(SGD, "CGSV", 1, checkpoint=tmp_path / "run")
    assert (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "one bit"])
def test_a_damaged_checkpoint_is_passed_over(damage, tmp_path, whole):
    path = interrupted(SGD, "CGSV", tmp_path / "checkpoint", 3)
    content = path.read_bytes()
    weights = content.index(_files.read(path)["history"]["server"].numpy().tobytes())
    flipped = content[:weights] + bytes([content[weights] ^ 1]) + content[weights + 1 :]
    path.write_bytes({"truncated": content[:-100], "empty": b"", "one bit": flipped}[damage])
    with pytest.warns(UserWarning, match="the run starts anew"):
        assert same_bits(run(SGD, "CGSV", 1, checkpoint=path, every=1), whole)


@pytest.mark.parametrize("name", ["torch", "device", "data"])
def test_a_checkpoint_from_elsewhere_is_passed_over(name, tmp_path, whole):
    """Half of the rounds here and half there would be the bits of neither."""
    path = interrupted(SGD, "CGSV", tmp_path / "checkpoint", 3)
    state = _files.read(path)
    _files.write(path, state | {"origin": state["origin"] | {name: "another"}})
    with pytest.warns(UserWarning, match="another.*the run starts anew"):
        assert same_bits(run(SGD, "CGSV", 1, checkpoint=path), whole)


def killed(experiment, mechanism, folder, kills, seed):
    call = {
        "what": "run",
        "experiments": [asdict(experiment)],
        "mechanism": mechanism,
        "folder": str(folder),
        "kills": kills,
        "seed": seed,
    }
    command = [sys.executable, Path(__file__).parent / "killed.py", json.dumps(call)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert same_bits(Run.load(folder / "resumed"), Run.load(folder / "whole"))
    return int(done.stdout)


def test_killed_and_resumed(tmp_path):
    assert killed(replace(ADAM, rounds=12), "CGSV", tmp_path, 5, seed=0) == 5


@pytest.mark.stress
@pytest.mark.parametrize("experiment", [SGD, ADAM], ids=["SGD", "Adam, epochs, adversaries"])
@pytest.mark.parametrize("mechanism", ["CGSV", "CFFL", "RR", "standalone"])
def test_killed_many_times_and_resumed(mechanism, experiment, tmp_path):
    assert killed(replace(experiment, rounds=60), mechanism, tmp_path, 25, seed=1) >= 20
