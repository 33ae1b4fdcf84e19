"""Who holds which training samples (§4.1), and whose labels are corrupted (Figure 2).

A partition is a function of the training labels that returns one tensor of sample indices per agent;
``PARTITIONS`` lists them under the paper's names.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Partition: TypeAlias = Callable[[Tensor, int, torch.Generator, int | None], list[Tensor]]
"""(labels, agents, generator, samples per agent on average or None for all) -> indices of each agent."""


def uniform(
    labels: Tensor, agents: int, generator: torch.Generator, samples: int | None = None
) -> list[Tensor]:
    """UNI: equally many samples for each agent, drawn at random, none held twice.

    Parameters
    ----------
    labels : Tensor
        (M,) int64, the training labels.
    agents : int
        N.
    generator : torch.Generator
        Decides who gets what.
    samples : int, optional
        Samples per agent; by default all M are dealt, and sizes differ by at most one.

    Returns
    -------
    list of Tensor
        N tensors of int64 indices into ``labels``.
    """
    return _deal(labels, torch.ones(agents, dtype=torch.float64), generator, samples)


def power_law(
    labels: Tensor,
    agents: int,
    generator: torch.Generator,
    samples: int | None = None,
    *,
    exponent: float = 1.5,
) -> list[Tensor]:
    """POW: sizes that grow from the first agent to the last as i ** exponent, none held twice.

    The paper says that sizes follow a power law and grow superlinearly, and leaves the exponent open.
    Parameters and result are those of :func:`uniform`; ``samples`` is the mean size.
    """
    shares = torch.arange(1, agents + 1, dtype=torch.float64) ** exponent
    return _deal(labels, shares, generator, samples)


def classes(
    labels: Tensor, agents: int, generator: torch.Generator, samples: int | None = None
) -> list[Tensor]:
    """CLA: equal sizes, but from 1 class for the first agent to all classes for the last.

    Agent i holds the first k_i classes in equal parts, with k_i the floor of N evenly spaced values
    from 1 to the number of classes: 1, 3, 5, 7, 10 for five agents and ten classes (§4.1). The samples
    of a class are dealt in a random order to the agents who hold it. When all have been dealt they are
    dealt again, because small datasets have too few of the first classes; so two agents may share a
    sample there, and no agent holds one twice.

    Parameters and result are those of :func:`uniform`; by default an agent gets ⌊M / N⌋ samples, or as
    many as the smallest class allows.
    """
    found = labels.bincount().nonzero().flatten()
    if samples is None:
        samples = min(labels.numel() // agents, int(labels.bincount()[found].min()))
    decks = [_shuffled(torch.nonzero(labels == c).flatten(), generator) for c in found]
    dealt = [0] * len(decks)
    shards = []
    for count in torch.linspace(1, len(decks), agents, dtype=torch.float64).floor().long().tolist():
        hand = []
        for c, size in enumerate(_sizes(torch.ones(count, dtype=torch.float64), samples)):
            deck = decks[c]
            if size > deck.numel():
                raise ValueError(
                    f"classes(): expected at most {deck.numel()} samples of class {int(found[c])} "
                    f"for one agent, got {size}"
                )
            hand.append(deck[(dealt[c] + torch.arange(size)) % deck.numel()])
            dealt[c] += size
        shards.append(torch.cat(hand))
    return shards


PARTITIONS: dict[str, Partition] = {"UNI": uniform, "POW": power_law, "CLA": classes}


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


def _deal(labels: Tensor, shares: Tensor, generator: torch.Generator, samples: int | None) -> list[Tensor]:
    """Random disjoint shards with sizes in proportion to the shares."""
    agents, available = shares.numel(), labels.numel()
    total = available if samples is None else samples * agents
    if total > available:
        raise ValueError(
            f"partition: expected at most {available} samples in all, got {agents} agents x {samples}"
        )
    order = torch.randperm(available, generator=generator)
    ends = itertools.accumulate(_sizes(shares, total), initial=0)
    return [order[start:end] for start, end in itertools.pairwise(ends)]


def _sizes(shares: Tensor, total: int) -> list[int]:
    """Integers in proportion to the shares that sum to the total."""
    ends = (shares.cumsum(0) / shares.sum() * total).round().long()
    return ends.diff(prepend=ends.new_zeros(1)).tolist()


def _shuffled(indices: Tensor, generator: torch.Generator) -> Tensor:
    return indices[torch.randperm(indices.numel(), generator=generator)]
