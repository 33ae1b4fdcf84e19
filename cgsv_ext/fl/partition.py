"""Who holds which training samples (§4.1), and whose labels are wrong (Figure 2).

A partition is a function of the training labels that returns one tensor of sample indices per agent;
``PARTITIONS`` lists them under the paper's names. ``deal`` calls the one an experiment names.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from . import adversary
from .data import Dataset
from .experiment import Experiment
from .seeds import generator

Partition: TypeAlias = Callable[[Tensor, Experiment, torch.Generator], list[Tensor]]
"""((M,) int64 training labels, experiment, generator) -> for each of the N agents, int64 indices of samples.

An experiment's ``samples`` is the mean size of a shard; None deals all there are. No agent holds a sample
twice, and every agent holds at least one.
"""


def uniform(labels: Tensor, experiment: Experiment, generator: torch.Generator) -> list[Tensor]:
    """UNI: equally many samples for each agent, drawn at random, none held by two.

    Where N does not divide M, the first agents hold one more.
    """
    sizes = apportion(torch.ones(experiment.agents), _total(labels, experiment))
    return _cut(_shuffled(torch.arange(labels.numel()), generator), sizes)


def power_law(labels: Tensor, experiment: Experiment, generator: torch.Generator) -> list[Tensor]:
    """POW: sizes that grow from the first agent to the last as i ** exponent, none held by two.

    The paper says that sizes follow a power law and grow superlinearly, and leaves the exponent open. Each
    agent gets one sample first and the rest is dealt by the power law, so that nobody is left without.
    """
    shares = torch.arange(1, experiment.agents + 1, dtype=torch.float64) ** experiment.exponent
    sizes = [1 + size for size in apportion(shares, _total(labels, experiment) - experiment.agents)]
    return _cut(_shuffled(torch.arange(labels.numel()), generator), sizes)


def classes(labels: Tensor, experiment: Experiment, generator: torch.Generator) -> list[Tensor]:
    """CLA: equal sizes, but from 1 class for the first agent to all classes for the last.

    Agent i holds the first k_i classes in equal parts, with k_i the floor of N evenly spaced values from 1
    to the number of classes: 1, 3, 5, 7, 10 for five agents and ten classes (§4.1). The samples of a class
    are dealt in a random order to the agents who hold it, and dealt again when all have been: small
    datasets have too few of the first classes. So two agents may share a sample there.

    By default an agent gets ⌊M / N⌋ samples, or as many as the smallest class has. With fewer samples than
    k_i it holds a class for each sample.
    """
    decks = _decks(labels, generator)
    each = experiment.samples
    if each is None:
        each = min(_total(labels, experiment) // experiment.agents, min(len(deck) for deck in decks))
    dealt = [0] * len(decks)
    shards = []
    for count in torch.linspace(1, len(decks), experiment.agents, dtype=torch.float64).floor().int().tolist():
        hand = []
        for c, size in enumerate(apportion(torch.ones(count), each)):
            if size > len(decks[c]):
                raise ValueError(
                    f"classes(): expected at most {len(decks[c])} samples of a class for an agent, which are "
                    f"all there are, got {size}; set samples"
                )
            hand.append(decks[c][(dealt[c] + torch.arange(size)) % len(decks[c])])
            dealt[c] += size
        shards.append(torch.cat(hand))
    return shards


def dirichlet(labels: Tensor, experiment: Experiment, generator: torch.Generator) -> list[Tensor]:
    """DIR: equal sizes, each agent with a mix of classes of its own, none held by two.

    Agent i's mix is drawn from a Dirichlet distribution whose mean is the dataset's own mix and whose
    parameters sum to concentration · classes, hence are all equal to the concentration where classes are
    balanced (Hsu, Qi and Brown 2019, arXiv:1909.06335). A large concentration gives every agent all classes
    alike, a small one few classes.

    Agents take their samples in a random order. Where a class runs out, an agent takes the rest from the
    others in proportion to its mix; where those have run out, too, in proportion to what is left. So the last
    agents' mixes are blurred when all samples are dealt and the concentration is small.
    """
    decks = _decks(labels, generator)
    left = torch.tensor([len(deck) for deck in decks])
    prior = experiment.concentration * len(decks) * left / left.sum()
    source = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    mixes = torch.from_numpy(source.dirichlet(prior.double().numpy(), experiment.agents))
    sizes = apportion(torch.ones(experiment.agents), _total(labels, experiment))
    shards = [labels.new_empty(0)] * experiment.agents
    for i in torch.randperm(experiment.agents, generator=generator).tolist():
        counts = _within(mixes[i], sizes[i], left)
        left = left - counts
        ends = left + counts  # decks are dealt from their ends
        shards[i] = torch.cat([deck[a:b] for deck, a, b in zip(decks, left, ends, strict=True)])
    return shards


PARTITIONS: dict[str, Partition] = {
    "UNI": uniform,
    "POW": power_law,
    "CLA": classes,
    "DIR": dirichlet,
    "NOI": uniform,  # and noise_shares()
}


def deal(data: Dataset, experiment: Experiment, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Deal the training samples to the agents of an experiment, and then to its adversaries.

    The N agents' samples and labels do not depend on the adversaries, who get what
    :func:`cgsv_ext.fl.adversary.shards` gives them, with clean labels.

    Returns
    -------
    shards, labels : list of Tensor
        For each of the ``experiment.size`` agents and adversaries, int64 indices into the training samples
        and what it believes their labels to be; on the CPU.
    """
    truth, source = data.train_y.cpu(), generator(seed, "noise")
    shards = PARTITIONS[experiment.partition](truth, experiment, generator(seed, "partition"))
    labels = [
        corrupt(truth[shard], share, data.classes, source)
        for shard, share in zip(shards, noise_shares(experiment), strict=True)
    ]
    size = round(sum(len(shard) for shard in shards) / len(shards))
    others = adversary.shards(experiment, truth.numel(), size, seed)
    return shards + others, labels + [truth[shard] for shard in others]


class Holding(NamedTuple):
    """What an agent holds; a row of what ``describe`` returns."""

    agent: str
    size: int
    noise: float
    """The share of its labels that are wrong."""
    counts: tuple[int, ...]
    """How many samples of each class, by its own labels."""


def describe(data: Dataset, experiment: Experiment, seed: int) -> list[Holding]:
    """Say what each agent of an experiment holds, adversaries included; nothing is trained."""
    shards, labels = deal(data, experiment, seed)
    truth = data.train_y.cpu()
    return [
        Holding(
            name,
            size=own.numel(),
            noise=(own != truth[shard]).double().mean().item(),
            counts=tuple(own.bincount(minlength=data.classes).tolist()),
        )
        for name, shard, own in zip(experiment.agent_names, shards, labels, strict=True)
    ]


def noise_shares(experiment: Experiment) -> tuple[float, ...]:
    """Share of wrong labels of each of the N agents: as set, or in NOI from 70 % for the first to none."""
    if experiment.noise is not None:
        return experiment.noise
    first = 0.7 if experiment.partition == "NOI" else 0.0
    return tuple(torch.linspace(first, 0.0, experiment.agents, dtype=torch.float64).tolist())


def corrupt(labels: Tensor, share: float, classes: int, generator: torch.Generator) -> Tensor:
    """Labels with exactly ⌊share · n + ½⌋ of them replaced by another class, chosen at random.

    Parameters
    ----------
    labels : Tensor
        (n,) int64, one agent's labels; not changed.
    share : float
        In [0, 1].
    classes : int
        The number of classes; at least 2.
    generator : torch.Generator
        Decides which labels change and into what.

    Returns
    -------
    Tensor
        (n,) int64.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"corrupt(): expected a share in [0, 1], got {share}")
    n = labels.numel()
    chosen = torch.randperm(n, generator=generator)[: int(share * n + 0.5)]
    shift = torch.randint(1, classes, (chosen.numel(),), generator=generator)
    noisy = labels.clone()
    noisy[chosen] = (labels[chosen] + shift) % classes
    return noisy


def apportion(shares: Tensor, total: int) -> list[int]:
    """Integers in proportion to the shares that sum to the total, by largest remainders.

    A larger share never gets less, and of equal ones the first get more.
    """
    exact = shares.double() / shares.double().sum() * total
    sizes = exact.floor()
    order = (exact - sizes).argsort(descending=True, stable=True)
    sizes[order[: total - int(sizes.sum())]] += 1
    return sizes.long().tolist()


def _within(mix: Tensor, size: int, room: Tensor) -> Tensor:
    """Integers in proportion to the mix that sum to the size, none above its room."""
    counts = torch.zeros_like(room)
    while (missing := size - int(counts.sum())) > 0:  # every turn but the last exhausts a class
        free = room - counts
        shares = torch.where(free > 0, mix, 0.0)
        shares = shares if shares.sum() > 0 else free
        counts += torch.minimum(torch.tensor(apportion(shares, missing)), free)
    return counts


def _total(labels: Tensor, experiment: Experiment) -> int:
    """How many samples are dealt in all."""
    n, available = experiment.agents, labels.numel()
    total = available if experiment.samples is None else n * experiment.samples
    if not n <= total <= available:
        raise ValueError(
            f"partition: expected from {n} to {available} samples for {n} agents in all, got {total}; "
            "set agents or samples"
        )
    return total


def _decks(labels: Tensor, generator: torch.Generator) -> list[Tensor]:
    """The samples of each class that occurs, shuffled."""
    found = labels.bincount().nonzero().flatten()
    return [_shuffled((labels == c).nonzero().flatten(), generator) for c in found]


def _cut(order: Tensor, sizes: list[int]) -> list[Tensor]:
    """Consecutive parts of the given sizes."""
    ends = itertools.accumulate(sizes, initial=0)
    return [order[start:end] for start, end in itertools.pairwise(ends)]


def _shuffled(indices: Tensor, generator: torch.Generator) -> Tensor:
    return indices[torch.randperm(indices.numel(), generator=generator)]
