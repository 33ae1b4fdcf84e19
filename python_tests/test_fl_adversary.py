"""What adversaries hold and upload, and that honest agents are none the wiser."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cgsv_ext.fl.adversary import ADVERSARIES, Adversaries, Knowledge
from cgsv_ext.fl.data import load
from cgsv_ext.fl.partition import PARTITIONS, deal
from cgsv_ext.fl.presets import preset
from cgsv_ext.fl.rounds import run

UNI = preset("digits", "UNI", 4)
D = 30
KINDS = list(ADVERSARIES)


def joined_by(*names, **changes):
    return replace(UNI, adversaries=names, **changes)


def rounds(experiment, seed, first=0, last=3, state=None):
    """What a run's rounds look like to the adversaries: updates before and after, rewards, aggregates."""
    adversaries = Adversaries(experiment, seed)
    if state is not None:
        adversaries.load_state_dict(state)
    seen = []
    for t in range(first, last):
        source = torch.Generator().manual_seed(t)
        trained = torch.randn(experiment.size, D, generator=source)
        uploaded = trained.clone()
        adversaries.apply_(uploaded)
        rewards, aggregate = (
            torch.randn(experiment.size, D, generator=source),
            torch.randn(D, generator=source),
        )
        adversaries.observe(rewards, aggregate)
        seen.append((trained, uploaded, rewards.clone(), aggregate.clone()))
        rewards.zero_()  # what it has noted must be its own
        aggregate.zero_()
    return seen, adversaries.state_dict()


# What they upload


@given(names=st.lists(st.sampled_from(KINDS), max_size=6), agents=st.integers(1, 6))
def test_only_adversaries_rows_change(names, agents):
    for trained, uploaded, *_ in rounds(joined_by(*names, agents=agents), 0)[0]:
        assert torch.equal(uploaded[:agents], trained[:agents])
        assert len(uploaded) == agents + len(names)


@given(order=st.permutations(KINDS))
def test_uploads_are_what_they_say(order):
    """Every kind at once, in any order, against its definition; and round by round."""
    before = None
    for trained, uploaded, rewards, aggregate in rounds(joined_by(*order), 0)[0]:
        row = {name: 4 + i for i, name in enumerate(order)}
        downloads, last = (torch.zeros(4 + len(order), D), torch.zeros(D)) if before is None else before
        assert torch.equal(uploaded[row["copier"]], downloads[row["copier"]])
        assert torch.equal(uploaded[row["aggregate"]], last)
        assert torch.equal(uploaded[row["flipper"]], -trained[row["flipper"]])
        assert torch.equal(uploaded[row["x10"]], 10 * trained[row["x10"]])
        assert torch.equal(uploaded[row["x100"]], 100 * trained[row["x100"]])
        assert torch.equal(uploaded[row["sybil"]], trained[row["sybil"]])
        before = rewards, aggregate


def test_noise_is_as_long_as_the_median_honest_update_and_new_for_everyone_each_round():
    drawn = []
    for trained, uploaded, *_ in rounds(joined_by("noise", "noise", agents=5), 0)[0]:
        median = trained[:5].norm(dim=1).sort().values[2]
        torch.testing.assert_close(uploaded[5:].norm(dim=1), median.expand(2), rtol=1e-5, atol=0)
        drawn += list(uploaded[5:])
    cosines = torch.nn.functional.normalize(torch.stack(drawn)) @ torch.nn.functional.normalize(
        drawn[0], dim=0
    )
    assert cosines[1:].abs().max() < 0.7


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_noise_does_not_follow_an_honest_agent_that_diverges(broken):
    honest = torch.ones(3, D)
    honest[1] = broken
    source = torch.Generator().manual_seed(0)
    known = Knowledge(torch.zeros(1, D), honest, torch.zeros(1, D), torch.zeros(D), source)
    sent = ADVERSARIES["noise"].send(known)
    torch.testing.assert_close(sent.norm(), torch.tensor(float(D)).sqrt(), rtol=1e-5, atol=0)


def test_noise_has_no_direction():
    """The mean of unit vectors of D independent, centred entries is some 1/√n long."""
    e = joined_by(*["noise"] * 2000)
    uploaded = rounds(e, 0, last=1)[0][0][1][4:]
    unit = torch.nn.functional.normalize(uploaded)
    assert unit.mean(0).norm() < 3 / 2000**0.5
    torch.testing.assert_close(unit.T @ unit / 2000, torch.eye(D) / D, atol=4 / D / 2000**0.5, rtol=0)


def test_sybils_all_upload_the_first_ones_update():
    for trained, uploaded, *_ in rounds(joined_by("sybil", "noise", "sybil", "sybil"), 0)[0]:
        for row in (4, 6, 7):
            assert torch.equal(uploaded[row], trained[4])


def test_a_mechanism_without_an_aggregate_leaves_its_copiers_nothing():
    adversaries = Adversaries(joined_by("aggregate"), 0)
    updates = torch.randn(5, D)
    adversaries.observe(updates, None)
    adversaries.apply_(updates)
    assert not updates[4].any()


def test_every_device_sees_the_same(device):
    torch.manual_seed(0)
    updates, rewards, aggregate = (
        torch.randn(4 + len(KINDS), D),
        torch.randn(4 + len(KINDS), D),
        torch.randn(D),
    )
    found = {}
    for where in (torch.device("cpu"), device):
        adversaries, uploaded = Adversaries(joined_by(*KINDS), 0), updates.to(where, copy=True)
        adversaries.observe(rewards.to(where), aggregate.to(where))
        adversaries.apply_(uploaded)
        found[where.type] = uploaded.cpu()
    torch.testing.assert_close(found["cpu"], found[device.type])


# Repeatable, resumable


@pytest.mark.parametrize("name", KINDS)
def test_the_seed_decides(name):
    first, again, other = ([u for _, u, *_ in rounds(joined_by(name), seed)[0]] for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True)) == (name != "noise")


@pytest.mark.parametrize("names", [(), *[(name,) for name in KINDS], tuple(KINDS)])
@pytest.mark.parametrize("stop", [0, 1, 3])
def test_a_resumed_run_goes_on_with_the_same_bits(names, stop, tmp_path):
    e = joined_by(*names)
    whole, _ = rounds(e, 1, last=5)
    _, state = rounds(e, 1, last=stop)
    torch.save(state, tmp_path / "state.pt")
    rest, _ = rounds(e, 7, first=stop, last=5, state=torch.load(tmp_path / "state.pt", weights_only=True))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(whole[stop:], rest, strict=True))


# What they hold


@pytest.mark.parametrize("partition", PARTITIONS)
def test_honest_agents_hold_the_same_with_and_without_them(partition):
    data, e = load("digits", None, 0), replace(UNI, partition=partition, agents=6)
    shards, labels = deal(data, e, 1)
    more, own = deal(data, replace(e, adversaries=tuple(KINDS)), 1)
    assert len(more) == len(own) == 6 + len(KINDS)
    assert all(torch.equal(a, b) for a, b in zip(shards, more[:6], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(labels, own[:6], strict=True))


@pytest.mark.parametrize("partition", PARTITIONS)
def test_they_hold_clean_samples_of_the_average_size(partition):
    data, e = load("digits", None, 0), replace(UNI, partition=partition, adversaries=tuple(KINDS))
    shards, labels = deal(data, e, 1)
    average = sum(map(len, shards[:4])) / 4
    for shard, own in zip(shards[4:], labels[4:], strict=True):
        assert abs(len(shard) - average) <= 0.5
        assert len(shard.unique()) == len(shard)
        assert torch.equal(own, data.train_y[shard])


def test_only_sybils_share_their_samples():
    data = load("digits", None, 0)
    held = deal(data, joined_by("sybil", "noise", "sybil", "noise", "copier"), 1)[0][4:]
    same = [[torch.equal(a, b) for b in held] for a in held]
    expected = [[i == j or {i, j} == {0, 2} for j in range(5)] for i in range(5)]
    assert same == expected


def test_what_one_holds_does_not_depend_on_other_kinds():
    data = load("digits", None, 0)
    alone = deal(data, joined_by("flipper"), 1)[0][-1]
    last = deal(data, joined_by("sybil", "noise", "flipper"), 1)[0][-1]
    assert torch.equal(alone, last)


# In a run


@pytest.mark.parametrize("partition", ["UNI", "POW"])
def test_standalone_honest_agents_end_with_the_same_bits_with_and_without_them(partition):
    e = preset("digits", partition, 5, rounds=3)
    alone = run(e, "standalone", 1)
    joined = run(replace(e, adversaries=("noise", "sybil", "sybil")), "standalone", 1)
    assert torch.equal(joined.parameters[:5], alone.parameters)
    assert torch.equal(joined.accuracy[:, :5], alone.accuracy)


def test_standalone_adversaries_train_like_anyone():
    e = replace(preset("digits", "UNI", 3, rounds=10), adversaries=("noise", "flipper"))
    assert run(e, "standalone", 1).accuracy[-1].min() > 0.6


@pytest.mark.parametrize("mechanism", ["CGSV", "FedAvg"])
def test_runs_with_all_kinds_are_repeatable(mechanism):
    e = replace(preset("digits", "UNI", 3, rounds=3), adversaries=tuple(KINDS))
    first, again = run(e, mechanism, 1), run(e, mechanism, 1)
    assert torch.equal(first.parameters, again.parameters)
    assert torch.equal(first.importance, again.importance) or mechanism == "FedAvg"


def test_uploads_reach_the_mechanism():
    """Three honest updates and one a hundred times as long move the mean some 103 / 4 times as far."""
    e = preset("digits", "UNI", 3, rounds=1, steps=1)
    plain = run(e, "FedAvg", 1).reward_norm[0, 0]
    joined = run(replace(e, adversaries=("x100",)), "FedAvg", 1).reward_norm[0, 0]
    assert 15 < joined / plain < 40
