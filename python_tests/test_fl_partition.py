"""Who holds which samples: sizes, classes, disjointness, noise."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cgsv_ext.fl.data import Dataset, load
from cgsv_ext.fl.partition import (
    PARTITIONS,
    apportion,
    corrupt,
    deal,
    describe,
    noise_shares,
)
from cgsv_ext.fl.partition_plot import partition_plot
from cgsv_ext.fl.presets import preset
from cgsv_ext.fl.seeds import generator

DISJOINT = ["UNI", "POW", "DIR", "NOI"]
UNI = preset("digits", "UNI", 5)


@pytest.fixture(scope="module")
def labels():
    return load("digits", None, 0).train_y


def experiment(partition="UNI", agents=5, **changes):
    return replace(UNI, partition=partition, agents=agents, **changes)


def split(partition, labels, agents, seed=0, **changes):
    e = experiment(partition, agents, **changes)
    return PARTITIONS[partition](labels, e, generator(seed, "partition"))


def dataset(labels, classes):
    """A dataset of labels alone."""
    x = torch.zeros(len(labels), 1)
    return Dataset("labels", x, labels, x[:1], labels[:1], x[:1], labels[:1], classes)


def skewed(classes, smallest):
    """Labels of which class c has smallest + c² samples."""
    return torch.cat([torch.full((smallest + c * c,), c) for c in range(classes)])


# What holds for all partitions.


@given(partition=st.sampled_from(list(PARTITIONS)), agents=st.integers(3, 100), seed=st.integers(0, 9))
def test_digits_can_be_dealt_to_any_number_of_agents(partition, agents, seed):
    labels = load("digits", None, 0).train_y
    shards = split(partition, labels, agents, seed)
    assert len(shards) == agents
    assert all(shard.dtype == torch.int64 and len(shard) >= 1 for shard in shards)
    assert all(len(shard.unique()) == len(shard) for shard in shards)
    held = torch.cat(shards)
    assert held.min() >= 0
    assert held.max() < len(labels)
    if partition in DISJOINT:
        assert len(held.unique()) == len(held) == len(labels)


@given(
    partition=st.sampled_from(list(PARTITIONS)),
    agents=st.integers(1, 30),
    classes=st.integers(2, 20),
    smallest=st.integers(1, 40),
    concentration=st.sampled_from([1e-6, 0.1, 1.0, 1e6]),
    exponent=st.sampled_from([0.0, 1.0, 4.0]),
)
def test_any_number_of_classes_of_any_sizes_can_be_dealt(
    partition, agents, classes, smallest, concentration, exponent
):
    labels = skewed(classes, smallest)
    if len(labels) < agents:
        return
    shards = split(partition, labels, agents, concentration=concentration, exponent=exponent)
    assert all(len(shard) >= 1 and len(shard.unique()) == len(shard) for shard in shards)
    if partition in DISJOINT:
        assert torch.equal(torch.cat(shards).sort().values, torch.arange(len(labels)))


@pytest.mark.parametrize("partition", PARTITIONS)
def test_large_datasets_can_be_dealt_in_part(partition):
    labels = torch.arange(60_000) % 10
    held = torch.cat(split(partition, labels, 20, samples=600))
    assert len(held.unique()) == len(held) == 12_000


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("agents", [1, 3, 10])
def test_same_seed_same_partition(partition, agents, labels):
    first, again, other = (split(partition, labels, agents, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("partition", PARTITIONS)
def test_too_many_agents_are_refused(partition, labels):
    with pytest.raises(ValueError, match="expected from 1300 to 1257 samples for 1300 agents"):
        split(partition, labels, 1300)


@pytest.mark.parametrize("partition", DISJOINT)
def test_too_many_samples_are_refused(partition, labels):
    with pytest.raises(ValueError, match=r"from 5 to 1257 samples for 5 agents in all, got 1260; set"):
        split(partition, labels, 5, samples=252)


# UNI


@given(agents=st.integers(3, 100), samples=st.sampled_from([None, 12]))
def test_uni_sizes_differ_by_one_at_most(agents, samples):
    labels = load("digits", None, 0).train_y
    sizes = [len(shard) for shard in split("UNI", labels, agents, samples=samples)]
    assert sum(sizes) == (1257 if samples is None else 12 * agents)
    assert max(sizes) - min(sizes) <= 1


# POW


def test_pow_sizes_follow_a_power_of_the_agent(labels):
    sizes = torch.tensor([len(shard) for shard in split("POW", labels, 5, samples=100, exponent=2.5)])
    expected = torch.arange(1, 6) ** 2.5
    torch.testing.assert_close(sizes.float(), 1 + 495 * expected / expected.sum(), atol=1, rtol=0)


@given(agents=st.integers(2, 100), exponent=st.floats(0, 5))
def test_pow_sizes_never_fall_from_the_first_agent_to_the_last(agents, exponent):
    labels = load("digits", None, 0).train_y
    sizes = [len(shard) for shard in split("POW", labels, agents, exponent=exponent)]
    # An exponent of 0 is UNI, where the first agents hold the odd samples.
    assert all(b - a >= (0 if exponent > 0.01 else -1) for a, b in itertools.pairwise(sizes))


# CLA


@pytest.mark.parametrize(("agents", "counts"), [(5, [1, 3, 5, 7, 10]), (10, list(range(1, 11)))])
def test_cla_classes_are_evenly_spaced_and_sizes_equal(agents, counts, labels):
    shards = split("CLA", labels, agents, samples=120)
    assert [len(labels[shard].unique()) for shard in shards] == counts
    assert {len(shard) for shard in shards} == {120}
    for shard, count in zip(shards, counts, strict=True):
        held = labels[shard].bincount(minlength=10)
        assert held[:count].max() - held[:count].min() <= 1
        assert held[count:].sum() == 0


@given(agents=st.integers(1, 100), classes=st.integers(2, 12))
def test_cla_goes_from_one_class_to_all(agents, classes):
    labels = torch.arange(1200) % classes
    shards = split("CLA", labels, agents)
    counts = [len(labels[shard].unique()) for shard in shards]
    assert counts == np.linspace(1, classes, agents).astype(int).tolist()
    assert {len(shard) for shard in shards} == {min(1200 // agents, 1200 // classes)}


def test_cla_agents_share_samples_only_when_a_class_runs_out(labels):
    plenty = torch.arange(10).repeat(1000)
    held = torch.cat(split("CLA", plenty, 5, samples=100))
    assert len(held.unique()) == len(held) == 500
    # The first class of digits is dealt whole before anyone gets a sample of it a second time.
    often = torch.cat(split("CLA", labels, 10, samples=120)).bincount(minlength=len(labels))[labels == 0]
    assert often.min() >= 1
    assert often.max() - often.min() <= 1


def test_cla_refuses_to_give_an_agent_a_sample_twice(labels):
    with pytest.raises(ValueError, match=r"classes\(\): expected at most \d+ samples of a class for"):
        split("CLA", labels[labels < 2].repeat(4)[: len(labels)], 2, samples=600)


def test_cla_passes_over_classes_that_do_not_occur():
    labels = torch.arange(600) % 3 * 2
    shards = split("CLA", labels, 3)
    assert [labels[shard].unique().tolist() for shard in shards] == [[0], [0, 2], [0, 2, 4]]


# DIR


@given(agents=st.integers(3, 100))
def test_dir_sizes_differ_by_one_at_most(agents):
    labels = load("digits", None, 0).train_y
    sizes = [len(shard) for shard in split("DIR", labels, agents, concentration=0.1)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("classes", [2, 10])
def test_dir_with_a_large_concentration_is_stratified(classes):
    labels = skewed(classes, 200)
    expected = labels.bincount() / len(labels)
    for shard in split("DIR", labels, 10, concentration=1e6):
        found = labels[shard].bincount(minlength=classes) / len(shard)
        torch.testing.assert_close(found, expected, atol=0.03, rtol=0)


def test_dir_with_a_small_concentration_gives_few_classes():
    labels = torch.arange(10_000) % 10
    shards = split("DIR", labels, 20, concentration=1e-3, samples=50)
    counts = [len(labels[shard].unique()) for shard in shards]
    assert np.mean(counts) < 1.2


def test_dir_mixes_vary_as_the_distribution_says():
    """Under a symmetric Dirichlet(α) a class's share has mean 1/C and variance (C−1) / (C² (αC+1))."""
    labels, alpha, c = torch.arange(100_000) % 5, 0.5, 5
    shards = split("DIR", labels, 400, concentration=alpha, samples=50)
    shares = torch.stack([labels[shard].bincount(minlength=c) / 50 for shard in shards])
    torch.testing.assert_close(shares.mean(0), torch.full((c,), 1 / c), atol=0.06, rtol=0)
    variance = (c - 1) / (c**2 * (alpha * c + 1))
    torch.testing.assert_close(shares.var(0).mean().item(), variance, atol=0, rtol=0.1)


def test_dir_takes_every_class_to_its_end():
    """One class, wanted by all, is gone after the first agents; the rest share what is left."""
    labels = torch.cat([torch.zeros(30, dtype=torch.int64), torch.ones(70, dtype=torch.int64)])
    for seed in range(20):
        shards = split("DIR", labels, 10, seed, concentration=1e-6)
        assert [len(shard) for shard in shards] == [10] * 10
        assert len(torch.cat(shards).unique()) == 100


# Noise


@given(share=st.floats(0, 1), n=st.integers(1, 300), classes=st.integers(2, 20))
def test_noise_corrupts_exactly_its_share(share, n, classes):
    labels = torch.arange(n) % classes
    before = labels.clone()
    noisy = corrupt(labels, share, classes, generator(0, "noise"))
    assert (noisy != labels).sum() == int(share * n + 0.5)
    assert noisy.min() >= 0
    assert noisy.max() < classes
    assert torch.equal(labels, before)


def test_noise_is_spread_over_all_other_classes():
    noisy = corrupt(torch.zeros(9000, dtype=torch.int64), 1.0, 10, generator(0, "noise"))
    counts = noisy.bincount(minlength=10)
    assert counts[0] == 0
    assert counts[1:].min() > 850


def test_noise_outside_zero_to_one_is_refused(labels):
    with pytest.raises(ValueError, match="expected a share in"):
        corrupt(labels, 1.5, 10, generator(0, "noise"))


@pytest.mark.parametrize("agents", [3, 5, 100])
def test_noi_is_uni_with_noise_from_seventy_percent_to_none(agents, labels):
    data = dataset(labels, 10)
    shards, own = deal(data, experiment("NOI", agents), 3)
    plain, clean = deal(data, experiment("UNI", agents), 3)
    for i, (shard, other) in enumerate(zip(shards, plain, strict=True)):
        assert torch.equal(shard, other)
        assert torch.equal(clean[i], labels[other])
        wrong = int((own[i] != labels[shard]).sum())
        assert abs(wrong - 0.7 * (1 - i / (agents - 1)) * len(shard)) <= 0.5 + 1e-9


@pytest.mark.parametrize("partition", PARTITIONS)
def test_any_partition_can_be_noisy(partition, labels):
    noise = (0.2, 0.4, 0.6, 0.0, 0.0)
    data = dataset(labels, 10)
    e = experiment(partition, noise=noise)
    assert noise_shares(e) == noise
    shards, own = deal(data, e, 1)
    for shard, other in zip(shards, split(partition, labels, 5, seed=1), strict=True):
        assert torch.equal(shard, other)
    wrong = [int((mine != labels[shard]).sum()) for mine, shard in zip(own, shards, strict=True)]
    assert wrong == [int(s * len(shard) + 0.5) for s, shard in zip(noise, shards, strict=True)]


def test_more_noise_for_one_agent_leaves_the_others_labels_clean(labels):
    _, own = deal(dataset(labels, 10), experiment(noise=(0.0, 0.9, 0.0, 0.0, 0.0)), 1)
    _, clean = deal(dataset(labels, 10), experiment(), 1)
    assert [torch.equal(a, b) for a, b in zip(own, clean, strict=True)] == [True, False, True, True, True]


# What is told of them


@given(st.lists(st.floats(0.01, 1e3), min_size=1, max_size=50), st.integers(0, 10_000))
def test_apportioned_sizes_add_up_and_are_within_one(shares, total):
    sizes = np.array(apportion(torch.tensor(shares, dtype=torch.float64), total))
    exact = np.array(shares) / np.sum(shares) * total
    assert sizes.sum() == total
    assert np.abs(sizes - exact).max() < 1 + 1e-6
    assert (np.diff(sizes[np.lexsort((sizes, shares))]) >= 0).all()  # a larger share never gets less


@pytest.mark.parametrize("partition", PARTITIONS)
def test_describe_tells_what_is_dealt(partition, labels):
    data = dataset(labels, 10)
    e = experiment(partition, 7, adversaries=("noise", "sybil"))
    shards, own = deal(data, e, 5)
    rows = describe(data, e, 5)
    assert [row.agent for row in rows] == e.agent_names
    for row, shard, mine in zip(rows, shards, own, strict=True):
        assert row.size == len(shard) == sum(row.counts)
        assert row.counts == tuple(int((mine == c).sum()) for c in range(10))
        assert row.noise == pytest.approx(float((mine != labels[shard]).float().mean()))


@pytest.mark.parametrize(
    ("partition", "agents", "classes"), [("NOI", 5, 10), ("DIR", 100, 10), ("CLA", 12, 26)]
)
def test_the_plot_stacks_every_class_of_every_agent(partition, agents, classes):
    labels = torch.arange(2600) % classes
    rows = describe(dataset(labels, classes), experiment(partition, agents), 0)
    axes = partition_plot(rows, "title").axes[0]
    assert axes.get_title() == "title"
    assert len(axes.containers) == classes
    tops = {}
    for c, bars in enumerate(axes.containers):
        assert [bar.get_height() for bar in bars] == [row.counts[c] for row in rows]
        tops = {i: bar.get_y() + bar.get_height() for i, bar in enumerate(bars)}
    assert list(tops.values()) == [row.size for row in rows]
    written = [text.get_text() for text in axes.texts]
    assert written == [f"{row.noise:.0%}" for row in rows if row.noise]
