"""The rounds: what is undone, what is downloaded, what is repeatable."""

import time
from dataclasses import replace

import pytest
import torch
from gpu import needs_cuda
from torch import Tensor

from cgsv_ext import reference
from cgsv_ext.fl import CLA_10, FIGURE_2, MECHANISMS, run
from cgsv_ext.fl.adversary import ADVERSARIES, Adversary, Knowledge
from cgsv_ext.fl.agent import Agents, evaluate
from cgsv_ext.fl.mechanism import Outcome
from cgsv_ext.fl.rounds import federation, plain_loop_seconds
from cgsv_ext.fl.seeds import generator
from cgsv_ext.fl.threads import one_thread

SHORT = replace(FIGURE_2, rounds=3)


def same_bits(a, b):
    """Every tensor of two runs, NaN where NaN."""
    assert a.tensors().keys() == b.tensors().keys()
    return all(
        torch.equal(x.nan_to_num(-1), b.tensors()[name].nan_to_num(-1)) for name, x in a.tensors().items()
    )


def spied(monkeypatch, name, experiment, seed=1, before=lambda server: None):
    """Run with a mechanism that notes each round's updates, outcome and w_{t-1}."""
    seen = []

    class Spy(MECHANISMS[name]):
        def step(self, updates: Tensor) -> Outcome:
            before(self.server)
            known = self.server.parameters.clone()
            outcome = super().step(updates)
            seen.append((updates.clone(), outcome, known))
            return outcome

    monkeypatch.setitem(MECHANISMS, name, Spy)
    return run(experiment, name, seed), seen


@pytest.mark.parametrize("name", MECHANISMS)
def test_same_seed_same_bits(name):
    first, again = (run(SHORT, name, 7) for _ in range(2))
    assert same_bits(first, again)


def test_an_unknown_mechanism_is_refused():
    with pytest.raises(ValueError, match=r"^run\(\): expected a mechanism among CGSV.*; got 'cgsv'"):
        run(SHORT, "cgsv", 7)


def test_another_seed_is_another_run():
    first, other = (run(SHORT, "CGSV", seed) for seed in (7, 8))
    assert not torch.equal(first.parameters, other.parameters)
    assert not torch.equal(first.histogram, other.histogram)


def test_bits_do_not_depend_on_threads():
    runs = []
    for count in (1, 2):
        torch.set_num_threads(count)
        runs.append(run(SHORT, "CGSV", 7))
        assert torch.get_num_threads() == count
    assert same_bits(*runs)


def test_bits_do_not_depend_on_global_random_numbers():
    torch.manual_seed(0)
    first = run(SHORT, "ECI", 7)
    torch.manual_seed(1)
    assert same_bits(first, run(SHORT, "ECI", 7))


def test_a_longer_run_begins_with_the_shorter_one():
    short, long = run(SHORT, "CGSV", 7), run(replace(SHORT, rounds=5), "CGSV", 7)
    assert torch.equal(long.importance[:3], short.importance)
    assert torch.equal(long.accuracy[:3], short.accuracy)


@pytest.mark.parametrize("name", ["CGSV", "FedAvg", "RR"])
def test_local_training_is_undone_and_rewards_are_added(name, monkeypatch):
    """From the recorded outcomes alone: w_{i,T} = w_0 + Σ_t v_{i,t} and w_T = w_0 + Σ_t u_{N,t}."""
    history, seen = spied(monkeypatch, name, SHORT)
    w = federation(SHORT, 1).parameters
    initial, server = w[0].clone(), w[0].clone()
    for t, (_, outcome, known) in enumerate(seen):
        assert torch.equal(known, server), "a mechanism is told w_{t-1}"
        rewards = outcome.rewards
        if rewards is None:
            rewards = reference.download(outcome.aggregate, outcome.selection)
        server, before = server + outcome.aggregate, w
        w = w + rewards
        rewards = (w - before).double()  # as far as float32 tells
        close = {"rtol": 1e-5, "atol": 1e-7, "equal_nan": True}
        torch.testing.assert_close(history.reward_norm[t], rewards.norm(dim=1), **close)
        apart = (rewards - outcome.aggregate.double()).norm(dim=1)
        torch.testing.assert_close(history.reward_distance[t], apart, **close)
        torch.testing.assert_close(history.distance[t], (w - server).double().norm(dim=1), **close)
        last = (w - server)[:, -(64 * 10 + 10) :].double().norm(dim=1)
        torch.testing.assert_close(history.last_layer_distance[t], last, **close)
        torch.testing.assert_close(history.server_distance[t], (server - initial).double().norm(), **close)
    assert torch.equal(history.parameters, w)
    assert torch.equal(history.server, server)


def test_updates_are_what_local_training_changed(monkeypatch):
    _, seen = spied(monkeypatch, "CGSV", replace(SHORT, rounds=1))
    agents = federation(SHORT, 1)
    start = agents.parameters.clone()
    with one_thread():
        agents.train(SHORT, 0, generator(1, "batches 0"))
    assert torch.equal(seen[0][0], agents.parameters - start)


def test_the_learning_rate_decays_from_round_to_round(monkeypatch):
    """With a rate that vanishes after the first round nothing is uploaded any more."""
    _, seen = spied(monkeypatch, "FedAvg", replace(SHORT, decay=1e-30))
    assert seen[0][0].norm() > 0
    assert torch.equal(seen[1][0], torch.zeros_like(seen[1][0]))


def test_standalone_is_training_without_rounds():
    history = run(SHORT, "standalone", 1)
    agents = federation(SHORT, 1)
    with one_thread():
        for t in range(SHORT.rounds):
            agents.train(SHORT, t, generator(1, f"batches {t}"))
    torch.testing.assert_close(history.parameters, agents.parameters, rtol=1e-4, atol=1e-5)
    assert history.distance.isnan().all()
    assert history.server_accuracy.isnan().all()


def test_mechanisms_meet_the_same_agents():
    """The first round's updates depend on the seed alone."""
    first = [run(replace(CLA_10, rounds=1), name, 3) for name in ("FedAvg", "standalone")]
    mean = first[1].parameters.mean(0)
    torch.testing.assert_close(first[0].parameters, mean.expand(10, -1), rtol=1e-4, atol=1e-5)


def test_a_mechanism_can_ask_for_losses_and_validation(monkeypatch):
    """Of the agents' models before their local training, and of any models on the validation data."""
    asked = []

    def ask(server):
        asked.append((server.losses(), server.validate(server.parameters[None])))

    _, seen = spied(monkeypatch, "FedAvg", SHORT, before=ask)
    agents = federation(SHORT, 1)
    data = agents.data
    for (losses, accuracy), (_, _, known) in zip(asked, seen, strict=True):
        agents.parameters.copy_(known)  # under FedAvg all have the server's model
        torch.testing.assert_close(losses, agents.losses(), rtol=1e-5, atol=1e-6)
        expected = evaluate(agents.model, known[None], data.validation_x, data.validation_y)[0]
        assert torch.equal(accuracy, expected)


def test_adversaries_upload_what_they_like_and_hear_of_the_last_round(monkeypatch):
    heard = []

    class Ear(Adversary):
        def send(self, known: Knowledge) -> Tensor:
            heard.append(known)
            return torch.full_like(known.trained, 0.5)

    monkeypatch.setitem(ADVERSARIES, "copier", Ear())
    experiment = replace(SHORT, adversaries=("copier",))
    history, seen = spied(monkeypatch, "CGSV", experiment)
    assert history.accuracy.shape == (3, 6)
    assert all((updates[5] == 0.5).all() and (updates[:5] != 0.5).any() for updates, _, _ in seen)
    assert not heard[0].downloads.any()
    for known, (_, outcome, _), norm in zip(heard[1:], seen, history.reward_norm, strict=False):
        assert torch.equal(known.aggregate, outcome.aggregate)
        torch.testing.assert_close(known.downloads[0].double().norm(), norm[5])


def test_adversaries_alone_train_honestly():
    plain, joined = (run(e, "standalone", 1) for e in (SHORT, replace(SHORT, adversaries=("flipper",))))
    assert joined.accuracy[-1, 5] > plain.accuracy[-1].min() - 0.2
    assert joined.accuracy.shape == (3, 6)


def test_every_round_is_recorded():
    seen = []
    history = run(SHORT, "CGSV", 1, lambda t, accuracy, importance: seen.append((t, accuracy, importance)))
    assert [t for t, _, _ in seen] == [1, 2, 3]
    assert torch.equal(torch.stack([accuracy for _, accuracy, _ in seen]), history.accuracy)
    torch.testing.assert_close(history.importance.sum(1), torch.ones(3, dtype=torch.float64))
    assert set(history.seconds) == {"training", "reward", "download"}
    assert all(seconds > 0 for seconds in history.seconds.values())
    assert (history.sparsity.amin(1) == 0).all(), "the most important agent downloads everything"
    agents = federation(SHORT, 1)
    data = agents.data
    accuracy, loss = evaluate(agents.model, history.parameters, data.test_x, data.test_y)
    assert torch.equal(history.accuracy[-1], accuracy)
    torch.testing.assert_close(history.loss[-1], loss)
    agents.parameters.copy_(history.parameters)
    torch.testing.assert_close(history.training_loss, agents.training_losses())


def test_clean_agents_gain_importance_over_noisy_ones():
    history = run(replace(FIGURE_2, rounds=20), "CGSV", 100)
    a1, a2, a3, a4, a5 = history.importance.mean(0).tolist()
    assert min(a4, a5) > a1 > a2 > a3


@needs_cuda
@pytest.mark.parametrize("name", MECHANISMS)
def test_on_a_gpu_the_round_stays_there_and_says_the_same(name):
    """The same random numbers, so the same run but for rounding; and the same bits when it is repeated."""
    cpu, gpu, again = (run(SHORT, name, 7, device=device) for device in ("cpu", "cuda", "cuda"))
    assert same_bits(gpu, again)
    assert torch.equal(cpu.histogram, gpu.histogram)
    assert (cpu.accuracy[0] - gpu.accuracy[0]).abs().max() <= 0.02
    assert all(tensor.device.type == "cpu" for tensor in gpu.tensors().values())
    assert all(seconds > 0 for seconds in gpu.seconds.values())


def test_the_plain_loop_is_timed_without_its_first_round(monkeypatch):
    """The first one imports and prepares: here it sleeps."""
    calls, train = [], Agents.train_one_by_one

    def slow_at_first(self, experiment, t, source):
        calls.append(t)
        time.sleep(0.3 if t == 0 else 0)
        train(self, experiment, t, source)

    monkeypatch.setattr(Agents, "train_one_by_one", slow_at_first)
    assert 0 < plain_loop_seconds(SHORT, 1, rounds=3) < 0.3
    assert calls == [0, 1, 2, 3]
