"""Batched training is N separate trainings, each by torch.optim on its agent's own batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fl_models import SMALL, dataset, rows, samples
from hypothesis import given, settings
from hypothesis import strategies as st

from cgsv_ext.fl import CLA_10, FIGURE_2
from cgsv_ext.fl.agent import Agents, evaluate
from cgsv_ext.fl.batches import draw
from cgsv_ext.fl.model import base
from cgsv_ext.fl.rounds import federation
from cgsv_ext.fl.seeds import generator
from cgsv_ext.fl.threads import one_thread

SIZES = (3, 9, 5, 4)
STEPS = replace(FIGURE_2, agents=4, noise=None, steps=3, batch_size=4, lr=0.05, decay=0.5)
EPOCHS = replace(STEPS, steps=None, epochs=2)


@pytest.fixture(autouse=True)
def on_one_thread():
    with one_thread():
        yield


def some_agents(name="mlp", way=None, sizes=SIZES, device="cpu"):
    """Agents with disjoint shards of random data, in float64, all at the same w_0."""
    data, order = dataset(name, sum(sizes)), torch.randperm(sum(sizes), generator=generator(0, "order"))
    shards = order.split(list(sizes))
    initial = rows(name, 1)[0].to(device)
    return Agents(SMALL[name], data, shards, [data.train_y[shard] for shard in shards], initial, way)


def batches(experiment, sizes=SIZES, t=0):
    return draw(experiment, sizes, generator(1, f"batches {t}"))


def train(agents, experiment, rounds, start=0, one_by_one=False):
    step = agents.train_one_by_one if one_by_one else agents.train
    for t in range(start, start + rounds):
        step(experiment, t, generator(1, f"batches {t}"))
    return agents.parameters


@pytest.mark.parametrize("way", ["stacked", "vmap"])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("experiment", [STEPS, EPOCHS], ids=["steps", "epochs"])
@pytest.mark.parametrize("name", ["mlp", "deep mlp", "digits-cnn", "text-cnn"])
def test_batched_training_equals_the_plain_loop(name, experiment, optimizer, way):
    experiment = replace(experiment, optimizer=optimizer, lr=0.05 if optimizer == "SGD" else 0.001)
    batched, looped = some_agents(name, way), some_agents(name, way)
    start = batched.parameters.clone()
    train(batched, experiment, 2)
    train(looped, experiment, 2, one_by_one=True)
    assert (batched.parameters - start).norm(dim=1).min() > 1e-3
    torch.testing.assert_close(batched.parameters, looped.parameters)
    for name, value in batched.state_dict().items():
        torch.testing.assert_close(value, looped.state_dict()[name], msg=name)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("name", ["mnist-cnn", "cifar-cnn"])
def test_batched_training_of_large_networks_equals_the_plain_loop(name, optimizer):
    experiment = replace(EPOCHS, optimizer=optimizer, agents=2, epochs=1, batch_size=2, lr=0.01)
    batched, looped = some_agents(name, "stacked", (1, 3)), some_agents(name, "stacked", (1, 3))
    torch.testing.assert_close(train(batched, experiment, 1), train(looped, experiment, 1, one_by_one=True))


@pytest.mark.parametrize("experiment", [FIGURE_2, replace(CLA_10, partition="POW", steps=20)])
def test_batched_training_of_a_federation_equals_the_plain_loop(experiment):
    batched, looped = federation(experiment, 1), federation(experiment, 1)
    train(batched, experiment, 2)
    train(looped, experiment, 2, one_by_one=True)
    torch.testing.assert_close(batched.parameters, looped.parameters, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("experiment", [STEPS, EPOCHS], ids=["steps", "epochs"])
def test_plain_loop_is_torch_optim_kept_across_rounds(experiment, optimizer):
    """Each agent's optimizer outlives the undoing of its local training."""
    experiment = replace(experiment, optimizer=optimizer)
    agents = some_agents()
    expected = agents.parameters.clone()
    first = agents.sizes.cumsum(0) - agents.sizes
    for i, row in enumerate(expected):
        module = agents.model.module(row)
        optim = getattr(torch.optim, optimizer)(module.parameters(), lr=0.05)
        for t in range(3):
            undone = row.clone()
            for own, counts in zip(*batches(experiment, t=t), strict=True):
                if counts[i]:
                    place = own[i, : counts[i]]
                    assert ((place >= first[i]) & (place < first[i] + SIZES[i])).all()
                    x, y = agents.data.train_x[agents._samples[place]], agents._labels[place]
                    optim.zero_grad()
                    torch.nn.functional.cross_entropy(module(x), y).backward()
                    optim.step()
            optim.param_groups[0]["lr"] *= experiment.decay
            with torch.no_grad():
                row.copy_((row + undone) / 2)
    for t in range(3):
        undone = agents.parameters.clone()
        train(agents, experiment, 1, start=t, one_by_one=True)
        agents.parameters.add_(undone).div_(2)
    torch.testing.assert_close(agents.parameters, expected)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_rounds_in_either_way_may_take_turns(optimizer):
    experiment = replace(EPOCHS, optimizer=optimizer)
    mixed, looped = some_agents(), some_agents()
    for t in range(4):
        train(mixed, experiment, 1, start=t, one_by_one=t % 2 == 1)
    torch.testing.assert_close(mixed.parameters, train(looped, experiment, 4, one_by_one=True))


@pytest.mark.parametrize("way", ["stacked", "vmap", "loop"])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("experiment", [STEPS, EPOCHS], ids=["steps", "epochs"])
def test_agents_do_not_notice_what_others_hold(experiment, optimizer, way):
    experiment = replace(experiment, optimizer=optimizer)
    one, other = some_agents(way=way), some_agents(way=way)
    foreign = other._samples[SIZES[0] :]
    other.data.train_x[foreign] *= 3
    other._labels[SIZES[0] :] = 9
    other.parameters[1:] += 1
    one, other = train(one, experiment, 2), train(other, experiment, 2)
    assert torch.equal(one[0], other[0])
    assert (one[1:] != other[1:]).any(1).all()


@pytest.mark.parametrize("way", ["stacked", "loop"])
def test_adam_counts_each_agents_own_steps(way):
    agents = some_agents(way=way)
    train(agents, replace(EPOCHS, optimizer="Adam"), 2)
    assert agents.state_dict()["step"].tolist() == [2 * 2 * -(-size // 4) for size in SIZES]


@pytest.mark.parametrize("way", ["stacked", "loop"])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a_resumed_training_has_the_same_bits(optimizer, way):
    experiment = replace(EPOCHS, optimizer=optimizer)
    whole, first, rest = (some_agents(way=way) for _ in range(3))
    train(whole, experiment, 4)
    train(first, experiment, 2)
    rest.parameters.copy_(first.parameters)
    saved = first.state_dict()
    train(first, experiment, 1, start=2)  # what is saved is a copy
    rest.load_state_dict(saved)
    train(rest, experiment, 2, start=2)
    assert torch.equal(rest.parameters, whole.parameters)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in rest.state_dict().items())


def test_only_adam_remembers():
    agents = some_agents()
    assert agents.state_dict() == {}
    train(agents, STEPS, 1)
    assert agents.state_dict() == {}
    agents = some_agents()
    train(agents, replace(STEPS, optimizer="Adam"), 1)
    assert {name: value.shape[0] for name, value in agents.state_dict().items()} == {
        "step": 4,
        "exp_avg": 4,
        "exp_avg_sq": 4,
    }


@pytest.mark.parametrize("t", [0, 1, 3])
def test_learning_rate_decays_by_round(t):
    """One step of SGD moves by lr · decay^t along the gradient of the first step."""
    experiment = replace(STEPS, steps=1)
    moves = []
    for round_ in (0, t):
        agents = some_agents()
        start = agents.parameters.clone()
        agents.train(experiment, round_, generator(1, "batches"))
        moves.append(agents.parameters - start)
    torch.testing.assert_close(moves[1], moves[0] * 0.5**t)


SHARES = st.lists(st.integers(1, 12), min_size=1, max_size=6)


@settings(max_examples=40)
@given(SHARES, st.integers(1, 7), st.integers(1, 3))
def test_every_pass_visits_every_own_sample_once(sizes, batch_size, epochs):
    experiment = replace(EPOCHS, agents=len(sizes), batch_size=batch_size, epochs=epochs)
    found = batches(experiment, sizes)
    for i, size in enumerate(sizes):
        begin, a_pass = sum(sizes[:i]), -(-size // batch_size)
        counts = [step[i] for step in found.counts]
        short = size - (a_pass - 1) * batch_size
        assert counts[: epochs * a_pass] == ([batch_size] * (a_pass - 1) + [short]) * epochs
        assert not any(counts[epochs * a_pass :])
        for epoch in range(epochs):
            steps = range(epoch * a_pass, (epoch + 1) * a_pass)
            visited = torch.cat([found.samples[s, i, : counts[s]] for s in steps])
            assert visited.sort().values.tolist() == list(range(begin, begin + size))


def test_every_pass_has_an_order_of_its_own():
    found = batches(replace(EPOCHS, agents=2, batch_size=50), [50, 50]).samples
    orders = torch.stack([found[0, 0], found[1, 0], found[0, 1] - 50, found[1, 1] - 50])
    assert orders.unique(dim=0).shape[0] == 4
    assert not (orders == torch.arange(50)).all(1).any()


def test_steps_draw_from_own_samples_evenly():
    experiment, sizes = replace(STEPS, agents=3, steps=20, batch_size=1000), [3, 40, 1]
    found = batches(experiment, sizes)
    assert found.counts == [[1000] * 3] * 20
    for i, size in enumerate(sizes):
        often = found.samples[:, i].flatten().bincount(minlength=44)[sum(sizes[:i]) :][:size]
        assert often.sum() == 20_000
        assert (often.double() / 20_000 * size - 1).abs().max() < 0.3


@settings(max_examples=40)
@given(SHARES, SHARES, st.booleans())
def test_adversaries_leave_the_batches_of_honest_agents_as_they_are(honest, others, passes):
    experiment = replace(EPOCHS if passes else STEPS, agents=len(honest))
    without, with_them = batches(experiment, honest), batches(experiment, honest + others)
    steps = len(without.counts)
    assert [step[: len(honest)] for step in with_them.counts[:steps]] == without.counts
    assert torch.equal(with_them.samples[:steps, : len(honest)], without.samples)


def test_agents_without_samples_are_refused():
    with pytest.raises(ValueError, match=r"Agents\(\): expected at least one sample .* sizes \[3, 0\]"):
        some_agents(sizes=(3, 0))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("at_once", [1, 5000, 10**9])
def test_evaluation_in_parts_is_that_of_the_modules(name, at_once, monkeypatch):
    """Whatever fits at once: shares of right answers, and mean losses."""
    monkeypatch.setattr(base, "AT_ONCE", at_once)
    model, matrix, data = SMALL[name], rows(name, 2), dataset(name, 7)
    accuracies, losses = evaluate(model, matrix, data.test_x, data.test_y)
    for row, accuracy, loss in zip(matrix, accuracies, losses, strict=True):
        logits = model.module(row)(data.test_x)
        assert accuracy == (logits.argmax(1) == data.test_y).double().mean()
        torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, data.test_y))


def test_evaluation_takes_no_more_samples_at_once_than_memory_allows(monkeypatch):
    model, matrix, data = SMALL["mlp"], rows("mlp", 3), dataset("mlp", 100)
    monkeypatch.setattr(base, "AT_ONCE", 3 * 64 * 8 + 1)
    seen, logits = [], model.logits
    monkeypatch.setattr(
        model, "logits", lambda layers, x, way=None: seen.append(x.shape[1]) or logits(layers, x)
    )
    evaluate(model, matrix, data.test_x, data.test_y)
    assert seen == [8] * 12 + [4]


@pytest.mark.parametrize("way", ["stacked", "vmap", "loop"])
@pytest.mark.parametrize("at_once", [1, 10**9])
def test_losses_are_those_on_own_samples_and_labels(way, at_once, monkeypatch):
    monkeypatch.setattr(base, "AT_ONCE", at_once)
    agents = some_agents(way=way)
    agents.parameters.copy_(rows("mlp", 4))
    agents._labels[:3] = 9
    x, everything = agents.data.train_x[agents._samples], agents._labels
    own = zip(agents.parameters, x.split(SIZES), everything.split(SIZES), strict=True)
    expected = [torch.nn.functional.cross_entropy(agents.model.module(row)(a), y) for row, a, y in own]
    torch.testing.assert_close(agents.losses(), torch.stack(expected).detach())
    modules = [agents.model.module(row) for row in agents.parameters]
    expected = [torch.nn.functional.cross_entropy(module(x), everything) for module in modules]
    torch.testing.assert_close(agents.training_losses(), torch.stack(expected).detach())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("experiment", [STEPS, EPOCHS], ids=["steps", "epochs"])
@pytest.mark.parametrize("name", ["mlp", "digits-cnn", "text-cnn"])
def test_training_on_a_gpu_is_that_on_the_cpu(name, experiment, optimizer):
    experiment = replace(experiment, optimizer=optimizer, lr=0.001)
    ours, theirs = some_agents(name, device="cuda"), some_agents(name)
    train(ours, experiment, 2)
    train(theirs, experiment, 2)
    assert ours.parameters.is_cuda
    torch.testing.assert_close(ours.parameters.cpu(), theirs.parameters)
    torch.testing.assert_close(ours.losses().cpu(), theirs.losses())
    x, y = samples(name, 5).cuda(), torch.zeros(5, dtype=torch.int64, device="cuda")
    accuracy, loss = evaluate(ours.model, ours.parameters, x, y)
    assert accuracy.is_cuda
    assert loss.is_cuda
