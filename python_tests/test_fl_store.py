"""Finished runs in files: the same bits, told apart by what decides them, and never made twice."""

import contextlib
import io
import json
import pickle
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import deadly
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cgsv_ext import _files
from cgsv_ext.fl import ADVERSARIES, FIGURE_2, MECHANISMS, Experiment, Mechanism, run, store
from cgsv_ext.fl.progress import Progress
from cgsv_ext.fl.record import Run
from cgsv_ext.fl.store import Spec, Store, run_all
from cgsv_ext.fl.workers import Failure, work

SHORT = replace(FIGURE_2, rounds=2, steps=2, samples=40)
SPECS = [Spec(SHORT, mechanism, seed) for seed in (1, 2) for mechanism in ("CGSV", "FedAvg")]


def same(a, b):
    """All of two runs, NaN where NaN; but for times."""
    tensors = zip(a.tensors().items(), b.tensors().items(), strict=True)
    plain = all(
        getattr(a, name) == getattr(b, name)
        for name in ("experiment", "mechanism", "seed", "log_shapley", "origin")
    )
    return plain and all(n == m and x.dtype == y.dtype and bits(x) == bits(y) for (n, x), (m, y) in tensors)


def as_stored(run):
    """What a store keeps of a run: all but the models."""
    models = {"parameters": torch.zeros(run.experiment.size, 0), "server": torch.zeros(0)}
    return replace(run, **models)


def bits(x):
    return x.shape, x.contiguous().numpy().tobytes()


@pytest.fixture(scope="module")
def one():
    return run(replace(SHORT, noise=None, title="A title, with Δ"), "CGSV", 3)


@pytest.fixture
def fails(monkeypatch):
    """From now on nothing can be run."""

    def refuse(*arguments, **options):
        raise AssertionError("run again")

    return lambda: monkeypatch.setattr(store, "run", refuse)


# Files


def test_a_run_comes_back_with_its_bits(one, tmp_path):
    one.save(tmp_path / "new" / "run.pt")
    back = Run.load(tmp_path / "new" / "run.pt")
    assert same(one, back)
    assert back.experiment.title == one.experiment.title
    assert back.seconds == one.seconds


def test_any_value_comes_back(one, tmp_path):
    """Also those that compare unequal to themselves, or equal to others."""
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 5e-324], dtype=torch.float64)
    run = replace(one, accuracy=odd.repeat(2, 1), seed=2**40, seconds={"training": float("inf")})
    run.save(tmp_path / "run.pt")
    assert same(run, Run.load(tmp_path / "run.pt"))


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_detected(share, one, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "truncated.pt"
    one.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(_files.Unreadable, match=r"truncated\.pt"):
        Run.load(path)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_changes_a_value(place, bit, one, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "flipped.pt"
    one.save(path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    with contextlib.suppress(_files.Unreadable):
        assert same(one, Run.load(path))  # it was a space in the header, or the order of what is in it


def test_no_code_in_a_file_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save(Evil(), tmp_path / "torch.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("torch.pt", "pickle.pt"):
        with pytest.raises(_files.Unreadable, match=name):
            Run.load(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"format": "another"},
        {"invented": 1},
        {"experiment": {"dataset": "digits"}},
        {"accuracy": torch.zeros(3, 3)},
        {"server": None},
    ],
)
def test_a_file_of_another_version_is_not_read(change, one, tmp_path):
    one.save(tmp_path / "run.pt")
    _files.write(tmp_path / "run.pt", _files.read(tmp_path / "run.pt") | change)
    with pytest.raises(_files.Unreadable, match=r"run\.pt"):
        Run.load(tmp_path / "run.pt")


def test_a_file_that_is_not_there_is_no_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        Run.load(tmp_path / "run.pt")


# Keys

CHANGES = {
    "model": "cnn",
    "partition": "POW",
    "agents": 4,
    "rounds": 3,
    "batch_size": 16,
    "lr": 0.2,
    "steps": 3,
    "optimizer": "Adam",
    "decay": 0.9,
    "samples": 41,
    "exponent": 2.0,
    "concentration": 0.1,
    "noise": (0.2, 0.4, 0.6, 0.0, 0.1),
    "adversaries": ("copier",),
    "gamma": 0.3,
    "alpha": 0.9,
    "beta": 2.0,
    "floor": None,
    "masks": "layers",
    "q": 2.0,
}


def changed(**changes):
    return replace(SHORT, **({"noise": None} if "agents" in changes else {}) | changes)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_keys_differ_in_what_a_mechanism_reads_and_only_in_that(mechanism):
    others = {name for kind in MECHANISMS.values() for name in kind.settings}
    own = set(MECHANISMS[mechanism].settings)
    key = Spec(SHORT, mechanism, 1).key
    keys = {name: Spec(changed(**{name: value}), mechanism, 1).key for name, value in CHANGES.items()}
    assert {name for name in CHANGES if keys[name] == key} == others - own
    different = [value for name, value in keys.items() if name not in others - own]
    assert len(set(different)) == len(different)


def test_keys_differ_in_mechanism_seed_and_logging():
    specs = [
        *(Spec(SHORT, mechanism, seed) for mechanism in MECHANISMS for seed in (1, 2)),
        Spec(SHORT, "CGSV", 1, log_shapley=True),
    ]
    assert len({spec.key for spec in specs}) == len(specs)


def test_no_mechanism_takes_a_field_out_of_the_keys_of_others(monkeypatch):
    """Else runs of all of them with different rounds would be one, as soon as it is registered."""
    with pytest.raises(ValueError, match=r"Greedy: expected settings among gamma.*; got rounds, lr; name no"):

        class Greedy(Mechanism):
            settings = ("gamma", "rounds", "lr")

    monkeypatch.setattr(MECHANISMS["RR"], "settings", ("rounds",))
    assert Spec(SHORT, "CGSV", 1).key != Spec(changed(rounds=3), "CGSV", 1).key


def test_an_unknown_mechanism_is_refused():
    with pytest.raises(ValueError, match=r"^Spec: expected a mechanism among CGSV, FedAvg.*; got 'cgsv'"):
        Spec(SHORT, "cgsv", 1)


def test_what_is_equal_has_one_key():
    same = [SHORT, replace(SHORT, title="other"), replace(SHORT, beta=1), replace(SHORT, q=1)]
    assert len({Spec(each, "CGSV", 1).key for each in same}) == 1


def test_keys_stay_what_they_are():
    """Of this version: stored runs are found by them. A change wants another FORMAT."""
    experiment = Experiment(
        dataset="digits",
        model="mlp",
        partition="POW",
        agents=10,
        rounds=60,
        batch_size=64,
        lr=0.01,
        gamma=0.25,
        steps=25,
    )
    path = "digits-POW-10/CGSV-seed2021-3bbd0db2942f7b07.safetensors"
    assert Spec(experiment, "CGSV", 2021).path == Path(path)


def test_a_spec_says_what_is_special():
    assert str(Spec(SHORT, "FedAvg", 1)).endswith(" FedAvg seed 1")
    assert str(Spec(replace(SHORT, beta=2.0), "CGSV", 1)).endswith(" CGSV beta=2.0 seed 1")
    joined = replace(SHORT, adversaries=("sybil", "noise", "sybil", "sybil"))
    assert str(Spec(joined, "CGSV", 1)) == f"{SHORT.name} + 3 sybil + 1 noise CGSV seed 1"


def test_runs_with_different_adversaries_are_told_apart():
    said = {str(Spec(replace(SHORT, adversaries=(kind,)), "CGSV", 1)) for kind in ADVERSARIES}
    assert len(said) == len(ADVERSARIES)


# The store


def test_what_is_put_is_got(one, tmp_path):
    folder = Store(tmp_path / "runs")
    spec = Spec(one.experiment, "CGSV", 3)
    assert folder.get(spec) is None
    assert list(folder.runs()) == []
    folder.put(one)
    assert same(folder.get(spec), as_stored(one))
    assert [same(each, as_stored(one)) for each in folder.runs()] == [True]
    assert folder.get(replace(spec, seed=4)) is None


def test_models_are_not_stored(one, tmp_path):
    """They stay in the run that is put; a file of them is many times larger."""
    folder, spec = Store(tmp_path), Spec(one.experiment, "CGSV", 3)
    folder.put(one)
    assert one.parameters.numel() > 0
    assert one.server.numel() > 0
    assert (tmp_path / spec.path).stat().st_size < 20_000 < one.parameters.nbytes
    assert one.parameters.shape[0] == folder.get(spec).parameters.shape[0]


def test_a_file_with_models_is_read_all_the_same(one, tmp_path):
    spec = Spec(one.experiment, "CGSV", 3)
    one.save(tmp_path / spec.path)
    assert same(Store(tmp_path).get(spec), one)


def test_a_run_stands_for_all_its_mechanism_cannot_tell_apart(tmp_path):
    folder = Store(tmp_path)
    folder.put(run(SHORT, "FedAvg", 1))
    asked = replace(SHORT, beta=2.0, title="asked")
    got = folder.get(Spec(asked, "FedAvg", 1))
    assert (got.experiment.beta, got.experiment.title) == (2.0, "asked")
    assert folder.get(Spec(asked, "CGSV", 1)) is None


def test_damaged_and_foreign_files_are_named_and_passed_over(one, tmp_path):
    folder, spec = Store(tmp_path), Spec(one.experiment, "CGSV", 3)
    folder.put(one)
    path = tmp_path / spec.path
    torch.save({"someone": "else's"}, path.with_name("other.safetensors"))
    path.with_name("notes.txt").write_text("not a run")
    with pytest.warns(UserWarning, match=r"other\.safetensors.*not used"):
        assert len(list(folder.runs())) == 1
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=f"{path.name}.*not used"):
        assert folder.get(spec) is None


def test_a_renamed_file_is_not_believed(one, tmp_path):
    folder = Store(tmp_path)
    folder.put(one)
    spec, other = Spec(one.experiment, "CGSV", 3), Spec(one.experiment, "CGSV", 4)
    (tmp_path / spec.path).rename(tmp_path / other.path)
    with pytest.warns(UserWarning, match="not the run its name says"):
        assert folder.get(other) is None


# Running what is missing


def test_runs_come_in_the_order_asked_for_and_only_once(tmp_path, fails):
    other = replace(SHORT, title="again", q=3.0)  # to CGSV, the same
    asked = [SPECS[2], SPECS[0], SPECS[2], Spec(other, "CGSV", 1)]
    console = Console(file=io.StringIO(), width=200)
    runs = run_all(asked, Store(tmp_path), console=console)
    assert [each.mechanism for each in runs] == ["CGSV"] * 4
    assert [each.seed for each in runs] == [2, 1, 2, 1]
    assert runs[3].experiment.title == "again"
    assert len(list(tmp_path.rglob("*.safetensors"))) == len(console.file.getvalue().splitlines()) == 2
    assert same(runs[1], as_stored(run(SHORT, "CGSV", 1)))
    assert runs[0].seconds["plain loop"] > 0
    fails()
    assert all(same(a, b) for a, b in zip(run_all(asked, Store(tmp_path)), runs, strict=True))


def test_bits_do_not_depend_on_jobs_and_one_failure_is_one(tmp_path):
    """There are no 10,000 samples of the first agent's class."""
    broken = Spec(replace(SHORT, partition="CLA", noise=None, samples=10_000), "CGSV", 1)
    with pytest.raises(RuntimeError, match=r"(?s)1 of 5 runs failed.*seed 1:\nTraceback.*expected") as error:
        run_all([broken, *SPECS], Store(tmp_path / "two"), jobs=2)
    assert str(broken) in str(error.value)
    two = Store(tmp_path / "two")
    assert len(list(two.runs())) == 4
    for spec, here in zip(SPECS, run_all(SPECS, Store(tmp_path / "one")), strict=True):
        assert same(two.get(spec), here)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_task_that_fails_or_dies_leaves_the_others_alone(jobs):
    tasks = ["a", "fail", "b", *(["die"] if jobs > 1 else []), "c", "d"]
    heard = {}
    work(deadly.task, tasks, jobs, lambda place, message: heard.setdefault(tasks[place], []).append(message))
    assert heard.keys() == set(tasks)
    assert all(messages[0][:2] == ("began", task) for task, messages in heard.items())
    assert all(len(heard[task]) == 1 for task in "abcd")
    assert isinstance(heard["fail"][1], Failure)
    assert "ValueError: told to" in heard["fail"][1].traceback
    if jobs > 1:
        assert "exit code -9" in heard["die"][1].traceback
        assert {messages[0][2] for messages in heard.values()} == {1}, "one thread each"


def test_interrupted_it_goes_on_where_it_was(tmp_path, monkeypatch, fails):
    """Finished runs are not repeated, and the unfinished one goes on from its checkpoint."""
    folder, rounds = Store(tmp_path), []
    original = store.run

    def counting(experiment, mechanism, seed, on_round=None, **options):
        def count(t, *state):
            if on_round is not None:  # not the warm-up
                rounds.append((mechanism, seed, t))
                if len(rounds) == 6:
                    raise KeyboardInterrupt
                on_round(t, *state)

        return original(experiment, mechanism, seed, count, **options)

    monkeypatch.setattr(store, "run", counting)
    specs = [Spec(replace(spec.experiment, rounds=4), *(spec.mechanism, spec.seed)) for spec in SPECS]
    with pytest.raises(KeyboardInterrupt):
        run_all(specs, folder, every=1)
    assert len(list(folder.runs())) == 1
    assert folder.checkpoint(specs[1]).exists()
    runs = run_all(specs, folder, every=1)
    assert rounds[5:8] == [("FedAvg", 1, 2), ("FedAvg", 1, 2), ("FedAvg", 1, 3)]
    assert len(rounds) == 17
    assert not list(tmp_path.rglob("*.checkpoint"))
    assert all(same(each, as_stored(run(each.experiment, each.mechanism, each.seed))) for each in runs)


def rounds_done(spec, folder, stop_after=None):
    """Run it with a checkpoint every round, perhaps stopped: the rounds it did, but for those to warm up."""
    rounds, original = [], store.run

    def counting(experiment, mechanism, seed, on_round=None, **options):
        def count(t, *state):
            rounds.append(t)
            if t == stop_after:
                raise KeyboardInterrupt
            on_round(t, *state)

        return original(experiment, mechanism, seed, None if on_round is None else count, **options)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(store, "run", counting)
        run_all([spec], folder, every=1)
    return rounds


def test_an_unfinished_run_serves_all_its_mechanism_cannot_tell_apart(tmp_path):
    """It goes on, whatever is set that it does not read, and is the run that was asked for last."""
    folder, e = Store(tmp_path), replace(SHORT, rounds=3)
    assert rounds_done(Spec(replace(e, q=2.0, title="began"), "CGSV", 1), folder, stop_after=2) == [1, 2]
    asked = Spec(replace(e, q=1.0, title="asked"), "CGSV", 1)
    assert rounds_done(asked, folder) == [2, 3]
    (stored,) = folder.runs()
    assert (stored.experiment, stored.experiment.title) == (asked.experiment, "asked")
    assert same(stored, as_stored(run(asked.experiment, "CGSV", 1)))


def test_a_result_that_could_not_be_stored_is_not_run_from_the_start(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError("disk full")

    folder, spec = Store(tmp_path), SPECS[0]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", full)
        with pytest.raises(RuntimeError, match="disk full"):
            run_all([spec], folder, every=1)
    assert rounds_done(spec, folder) == [SHORT.rounds]
    assert same(folder.get(spec), as_stored(run(spec.experiment, "CGSV", 1)))
    assert not list(tmp_path.rglob("*.checkpoint"))


def test_a_checkpoint_beside_a_stored_run_is_cleared_away(tmp_path):
    """A process that is killed between the two leaves it."""
    folder, spec = Store(tmp_path), SPECS[0]
    rounds_done(spec, folder, stop_after=2)
    folder.put(run(spec.experiment, spec.mechanism, spec.seed))
    assert folder.checkpoint(spec).exists()
    assert rounds_done(spec, folder) == []
    assert not folder.checkpoint(spec).exists()


def test_a_killed_store_loses_nothing(tmp_path):
    experiments = [replace(SHORT, rounds=rounds) for rounds in (3, 5)]
    mechanisms = ["CGSV", "standalone"]
    call = {"what": "store", "experiments": [asdict(e) for e in experiments], "mechanisms": mechanisms}
    call |= {"folder": str(tmp_path), "seed": 0}
    command = [sys.executable, Path(__file__).parent / "killed.py", json.dumps(call)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3, "it was killed several times"
    for experiment in experiments:
        for mechanism in mechanisms:
            stored = Store(tmp_path).get(Spec(experiment, mechanism, 1))
            assert same(stored, as_stored(run(experiment, mechanism, 1)))
    assert not list(tmp_path.rglob("*.checkpoint"))


def test_runs_of_other_data_are_not_mixed_in(tmp_path, monkeypatch):
    run_all(SPECS[:1], Store(tmp_path))
    monkeypatch.setattr(store, "fingerprint", lambda data: "other")
    with pytest.raises(ValueError, match=r"run_all\(\): expected the digits data.*use another store"):
        run_all(SPECS, Store(tmp_path))


def test_missing_files_are_one_error_before_anything_runs(tmp_path, fails):
    fails()
    experiment = replace(SHORT, dataset="mnist", model="cnn")
    with pytest.raises((FileNotFoundError, ValueError)):
        run_all([Spec(experiment, "CGSV", 1)], Store(tmp_path), folder=tmp_path)


# Progress


def lines(specs, jobs, tell):
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    with Progress(specs, jobs, console) as progress:
        tell(progress)
    return console.file.getvalue().splitlines()


def test_a_line_per_finished_run():
    def tell(progress):
        progress.finish(0, 10.0, [0.5, 0.7], [0.5, 0.25])
        progress.finish(1, 10.0, [0.5, 0.7], [float("nan")] * 2)
        progress.fail(2)

    first, second, third = lines(SPECS, 1, tell)
    assert first == f"1/4  {SPECS[0]}  accuracy 60.0%  importance █▅  10.0 s, left 0:30"
    assert "importance" not in second
    assert third == f"{SPECS[2]}  failed"


def test_time_left_follows_work_and_the_runs_most_alike():
    """A run twice as long takes twice the time of its own mechanism, whatever others take."""
    long = replace(SHORT, rounds=4)
    specs = [Spec(e, mechanism, 1) for e in (SHORT, long) for mechanism in ("CGSV", "ECI")]
    with Progress(specs, 1, Console(quiet=True)) as progress:
        assert progress.left() is None
        progress.finish(0, 1.0, [0.5], [0.5])
        assert progress.left() == pytest.approx(1 + 2 + 2)
        progress.finish(1, 10.0, [0.5], [0.5])
        assert progress.left() == pytest.approx(2 + 20)
        progress.advance(2, 0, [], [])
        progress.advance(2, 2, [0.5], [0.5])
        assert progress.left() < 22
    with Progress(specs, 2, Console(quiet=True)) as progress:
        progress.finish(0, 1.0, [0.5], [0.5])
        assert progress.left() == pytest.approx((1 + 2 + 2) / 2)


def test_a_terminal_sees_a_bar():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Progress(SPECS, 1, console) as progress:
        progress.advance(0, 0, [], [])
        progress.advance(0, 1, [0.5], [0.5])
        progress.finish(0, 10.0, [0.5], [0.5])
    assert "1/4 runs" in console.file.getvalue()
