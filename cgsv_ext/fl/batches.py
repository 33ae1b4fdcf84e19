"""Which samples make up the agents' batches of one round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .experiment import Experiment


class Batches(NamedTuple):
    """The batches of N agents in one round of at most S local steps."""

    samples: Tensor
    """(S, N, B) int64: indices into the agents' samples, which lie one agent after the other. A batch shorter
    than B is filled up with samples of the same agent, which do not count."""
    counts: list[list[int]]
    """(S, N): how many samples count; 0 for an agent who is done."""


def draw(experiment: Experiment, sizes: Sequence[int], generator: torch.Generator) -> Batches:
    """Draw the batches of a round.

    Parameters
    ----------
    experiment : Experiment
        Its ``steps`` batches are drawn with replacement, or its ``epochs`` passes are shuffled anew, the last
        batch of each being what is left.
    sizes : sequence of int
        |D_i| of each agent, adversaries last.
    generator : torch.Generator
        Decides; draws for honest agents come first, so that adversaries leave their batches as they are.

    Returns
    -------
    Batches
        On the generator's device.
    """
    own = torch.tensor(sizes, device=generator.device)
    starts = own.cumsum(0) - own
    parts = [part for part in (own[: experiment.agents], own[experiment.agents :]) if part.numel()]
    if experiment.epochs is None:
        return _with_replacement(experiment, parts, starts, generator)
    return _passes(experiment, parts, starts, generator)


def _with_replacement(
    e: Experiment, parts: list[Tensor], starts: Tensor, generator: torch.Generator
) -> Batches:
    steps, places = e.steps or 0, []
    for sizes in parts:
        u = torch.rand(
            steps, len(sizes), e.batch_size, generator=generator, device=sizes.device, dtype=torch.float64
        )
        places.append((u * sizes[:, None]).long())
    counts = [[e.batch_size] * len(starts)] * steps
    return Batches(torch.cat(places, 1) + starts[:, None], counts)


def _passes(e: Experiment, parts: list[Tensor], starts: Tensor, generator: torch.Generator) -> Batches:
    epochs, size, device = e.epochs or 0, e.batch_size, starts.device
    sizes = torch.cat(parts)
    a_pass = (sizes + size - 1) // size  # batches
    step = torch.arange(epochs * int(a_pass.max()), device=device)[:, None]
    epoch = step // a_pass
    place = (step % a_pass * size)[..., None] + torch.arange(size, device=device)
    counting = (epoch < epochs)[..., None] & (place < sizes[:, None])
    epoch, place = epoch.clamp(max=epochs - 1), place.where(counting, 0)
    samples, begin = [], 0
    for part in parts:
        among = slice(begin, begin := begin + len(part))
        u = torch.rand(
            epochs, len(part), int(part.max()), generator=generator, device=device, dtype=torch.float64
        )
        none = torch.arange(u.shape[2], device=device) >= part[:, None]
        order = u.masked_fill_(none, 2.0).argsort(-1)  # of each agent's samples in each pass
        agent = torch.arange(len(part), device=device)[:, None]
        samples.append(order[epoch[:, among, None], agent, place[:, among]])
    return Batches(torch.cat(samples, 1) + starts[:, None], counting.sum(-1).tolist())
