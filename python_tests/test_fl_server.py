"""The rounds: what is undone, what is downloaded, what is repeatable."""

from dataclasses import replace

import pytest
import torch

import cgsv_ext
from cgsv_ext import reference
from cgsv_ext.fl import CLA_10, FIGURE_2, MECHANISMS, run
from cgsv_ext.fl import server as server_module
from cgsv_ext.fl.mechanism import CGSV, FedAvg, Outcome, Standalone, download_
from cgsv_ext.fl.seeds import generator
from cgsv_ext.fl.threads import one_thread

SHORT = replace(FIGURE_2, rounds=4)
SIZES = torch.tensor([10, 20, 30, 40, 100])


def random_updates(agents=5, size=1000):
    return torch.randn(agents, size, generator=generator(0, "updates"))


class Spy:
    """A mechanism that notes each round's updates and outcome of another."""

    def __init__(self, inner):
        self.inner, self.updates, self.outcomes = inner, [], []

    def step(self, updates):
        outcome = self.inner.step(updates)
        self.updates.append(updates.clone())
        self.outcomes.append(outcome)
        return outcome


@pytest.fixture
def spied_run(monkeypatch):
    def spied(experiment, name, seed=1):
        spies = []

        def make(e, sizes):
            spies.append(Spy(mechanism(e, sizes)))
            return spies[0]

        mechanism = MECHANISMS[name]
        monkeypatch.setitem(MECHANISMS, name, make)
        return run(experiment, name, seed), spies[0]

    return spied


@pytest.mark.parametrize("name", MECHANISMS)
def test_same_seed_same_bits(name):
    first, again, other = (run(SHORT, name, seed) for seed in (7, 7, 8))
    for field in ("parameters", "server", "accuracy", "importance", "sparsity", "distance"):
        a, b = getattr(first, field), getattr(again, field)
        assert torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)), field
    assert not torch.equal(first.parameters, other.parameters)


def test_bits_do_not_depend_on_threads():
    threads = torch.get_num_threads()
    runs = []
    for count in (1, 2):
        torch.set_num_threads(count)
        runs.append(run(SHORT, "CGSV", 7))
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    assert torch.equal(runs[0].parameters, runs[1].parameters)


def test_a_longer_run_begins_with_the_shorter_one():
    short, long = run(SHORT, "CGSV", 7), run(replace(SHORT, rounds=6), "CGSV", 7)
    assert torch.equal(long.importance[:4], short.importance)
    assert torch.equal(long.accuracy[:4], short.accuracy)


@pytest.mark.parametrize("name", ["CGSV", "FedAvg"])
def test_local_training_is_undone_and_rewards_are_added(name, spied_run):
    """From the recorded outcomes alone: w_{i,T} = w_0 + Σ_t v_{i,t} and w_T = w_0 + Σ_t u_{N,t}."""
    history, spy = spied_run(SHORT, name)
    w = server_module.federation(SHORT, 1).parameters
    server = w[0].clone()
    for outcome in spy.outcomes:
        server += outcome.aggregate
        if outcome.selection is None:
            w += outcome.aggregate
        else:
            w += reference.download(outcome.aggregate, outcome.selection)
    assert torch.equal(history.parameters, w)
    assert torch.equal(history.server, server)


def test_updates_are_what_local_training_changed(spied_run):
    _, spy = spied_run(replace(SHORT, rounds=1), "CGSV")
    agents = server_module.federation(SHORT, 1)
    start = agents.parameters.clone()
    with one_thread():
        agents.train(SHORT.steps, SHORT.batch_size, SHORT.lr, generator(1, "batches"))
    assert torch.equal(spy.updates[0], agents.parameters - start)


def test_cgsv_is_the_reference_round_after_round():
    cgsv = CGSV(FIGURE_2, SIZES)
    weights, importance = SIZES.double() / SIZES.sum(), torch.zeros(5, dtype=torch.float64)
    for _ in range(3):
        updates = random_updates()
        settings = {"gamma": FIGURE_2.gamma, "alpha": FIGURE_2.alpha, "beta": FIGURE_2.beta}
        expected = reference.reward_step(updates, importance, weights=weights, **settings)
        outcome = cgsv.step(updates)
        torch.testing.assert_close(outcome.aggregate, expected.aggregate)
        torch.testing.assert_close(outcome.importance, expected.importance)
        assert (outcome.quotas - expected.quotas).abs().max() <= 1
        importance, weights = expected.importance, None


def test_fedavg_is_the_size_weighted_mean_for_everyone():
    updates = random_updates()
    outcome = FedAvg(FIGURE_2, SIZES).step(updates)
    expected = sum(0.005 * n * row for n, row in zip(SIZES.tolist(), updates, strict=True))
    torch.testing.assert_close(outcome.aggregate, expected)
    parameters = torch.zeros_like(updates)
    download_(parameters, outcome)
    assert torch.equal(parameters, outcome.aggregate.expand_as(updates))


def test_standalone_is_sgd_without_rounds():
    history = run(SHORT, "standalone", 1)
    agents = server_module.federation(SHORT, 1)
    with one_thread():
        agents.train(SHORT.rounds * SHORT.steps, SHORT.batch_size, SHORT.lr, generator(1, "batches"))
    torch.testing.assert_close(history.parameters, agents.parameters, rtol=1e-4, atol=1e-5)
    assert history.distance.isnan().all()
    assert Standalone(FIGURE_2, SIZES).step(random_updates()).aggregate is None


def test_selections_and_written_rewards_download_the_same():
    updates = random_updates()
    step = cgsv_ext.reward_step(updates, torch.arange(5.0))
    parts, whole = random_updates(), random_updates()
    download_(parts, Outcome(step.aggregate, selection=step.selection))
    download_(whole, Outcome(step.aggregate, rewards=step.rewards))
    assert torch.equal(parts, whole)


def test_mechanisms_meet_the_same_agents():
    """The first round's updates depend on the seed alone."""
    first = [run(replace(CLA_10, rounds=1), name, 3) for name in ("FedAvg", "standalone")]
    mean = first[1].parameters.mean(0)
    torch.testing.assert_close(first[0].parameters, mean.expand(10, -1), rtol=1e-4, atol=1e-5)


def test_every_round_is_recorded():
    seen = []
    history = run(SHORT, "CGSV", 1, lambda t, accuracy, importance: seen.append((t, accuracy, importance)))
    assert [t for t, _, _ in seen] == [1, 2, 3, 4]
    assert torch.equal(torch.stack([accuracy for _, accuracy, _ in seen]), history.accuracy)
    torch.testing.assert_close(history.importance.sum(1), torch.ones(4, dtype=torch.float64))
    assert set(history.seconds) == {"training", "reward", "download"}
    w, server = history.parameters.double(), history.server.double()
    torch.testing.assert_close(history.distance[-1], (w - server).norm(dim=1))
    assert (history.sparsity.amin(1) == 0).all(), "the most important agent downloads everything"


def test_clean_agents_gain_importance_over_noisy_ones():
    history = run(replace(FIGURE_2, rounds=20), "CGSV", 100)
    a1, a2, a3, a4, a5 = history.importance.mean(0).tolist()
    assert min(a4, a5) > a1 > a2 > a3
