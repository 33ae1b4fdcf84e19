"""Who holds which samples: sizes, classes, disjointness, noise."""

import pytest
import torch

from cgsv_ext.fl import PARTITIONS, digits
from cgsv_ext.fl.partition import corrupt, power_law, uniform
from cgsv_ext.fl.seeds import generator


@pytest.fixture(scope="module")
def labels():
    return digits(0).train_y


def split(name, labels, agents, samples=None, seed=0):
    return PARTITIONS[name](labels, agents, generator(seed, "partition"), samples)


def test_digits_hold_out_three_tenths_of_every_class():
    data = digits(3)
    train, test = data.train_y.bincount(), data.test_y.bincount()
    assert (len(data.train_y), len(data.test_y)) == (1257, 540)
    torch.testing.assert_close(test / (train + test), torch.full((10,), 0.3), atol=0.01, rtol=0)


def test_digits_are_standardised_by_training_pixels():
    x = digits(3).train_x
    assert x.dtype == torch.float32
    assert x.mean().abs() < 1e-5
    assert abs(x.std() - 1) < 1e-5


@pytest.mark.parametrize("name", PARTITIONS)
@pytest.mark.parametrize("agents", [1, 3, 5, 10])
def test_same_seed_same_partition(name, agents, labels):
    first, again, other = (split(name, labels, agents, seed=seed) for seed in (1, 1, 2))
    assert len(first) == agents
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("name", PARTITIONS)
def test_no_agent_holds_a_sample_twice(name, labels):
    assert all(len(shard.unique()) == len(shard) for shard in split(name, labels, 10, 120))


@pytest.mark.parametrize("partition", [uniform, power_law])
@pytest.mark.parametrize("samples", [None, 40])
def test_random_partitions_share_no_sample(partition, samples, labels):
    held = torch.cat(partition(labels, 7, generator(0, "x"), samples))
    assert len(held.unique()) == len(held) == (len(labels) if samples is None else 7 * samples)


def test_uni_sizes_differ_by_one_at_most(labels):
    sizes = [len(shard) for shard in split("UNI", labels, 5)]
    assert sum(sizes) == 1257
    assert max(sizes) - min(sizes) <= 1


def test_pow_sizes_follow_a_power_of_the_agent(labels):
    sizes = torch.tensor([len(shard) for shard in split("POW", labels, 5, 100)])
    expected = torch.arange(1, 6) ** 1.5
    torch.testing.assert_close(sizes.float(), 500 * expected / expected.sum(), atol=1, rtol=0)


@pytest.mark.parametrize(("agents", "counts"), [(5, [1, 3, 5, 7, 10]), (10, list(range(1, 11)))])
def test_cla_classes_are_evenly_spaced_and_sizes_equal(agents, counts, labels):
    shards = split("CLA", labels, agents, 120)
    assert [len(labels[shard].unique()) for shard in shards] == counts
    assert {len(shard) for shard in shards} == {120}
    for shard, count in zip(shards, counts, strict=True):
        held = labels[shard].bincount()
        assert held.max() - held[held > 0].min() <= 1, count


def test_cla_agents_share_samples_only_when_a_class_runs_out():
    plenty = torch.arange(10).repeat(1000)
    held = torch.cat(split("CLA", plenty, 5, 100))
    assert len(held.unique()) == len(held) == 500


def test_too_many_samples_are_refused(labels):
    with pytest.raises(ValueError, match="expected at most 1257 samples"):
        split("UNI", labels, 5, 252)
    with pytest.raises(ValueError, match=r"classes\(\): expected at most \d+ samples of class 0"):
        split("CLA", labels, 5, 300)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 1.0])
def test_noise_corrupts_exactly_its_share(share, labels):
    noisy = corrupt(labels, share, 10, generator(0, "noise"))
    assert (noisy != labels).sum() == round(share * len(labels))
    assert noisy.min() >= 0
    assert noisy.max() < 10


def test_noise_is_spread_over_all_other_classes():
    noisy = corrupt(torch.zeros(9000, dtype=torch.int64), 1.0, 10, generator(0, "noise"))
    counts = noisy.bincount(minlength=10)
    assert counts[0] == 0
    assert counts[1:].min() > 850


def test_noise_outside_zero_to_one_is_refused(labels):
    with pytest.raises(ValueError, match="expected a share in"):
        corrupt(labels, 1.5, 10, generator(0, "noise"))
