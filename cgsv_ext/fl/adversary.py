"""Agents who do not play along, which any run can be given: ``Experiment.adversaries`` names them.

An adversary is an agent like the others: it holds data, has a model, trains it, uploads an update and
downloads what the mechanism decides. Only what it uploads is not what it trained. ``ADVERSARIES`` lists the
kinds; §5 of the paper leaves open what its mechanism makes of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .experiment import Experiment
from .seeds import generator


class Knowledge(NamedTuple):
    """What the k adversaries of one kind may base a round's updates on; each kind says what it uses.

    All of the round before is zero in the first round.
    """

    trained: Tensor
    """(k, D): Δw_{i,t}, what honest training on their own data came to."""
    honest: Tensor
    """(N, D): this round's updates of the honest agents, which no agent sees in fact."""
    downloads: Tensor
    """(k, D): v_{i,t-1}, what each of them downloaded in the round before."""
    aggregate: Tensor
    """(D,): u_{N,t-1}, the aggregate of the round before, of which an agent sees only its download."""
    generator: torch.Generator
    """Random numbers for the adversaries alone; on the CPU."""


class Adversary(ABC):
    """A kind of adversary."""

    one_shard: ClassVar[bool] = False
    """Whether all of this kind hold the same samples."""

    @abstractmethod
    def send(self, known: Knowledge) -> Tensor:
        """What the k adversaries of this kind upload, (k, D) or broadcastable to it."""


class Noise(Adversary):
    """A free rider who uploads Gaussian noise, each round anew, as long as the median (finite) honest update.

    A rider can only guess that length; lengths do not matter to a mechanism that normalises.
    """

    def send(self, known: Knowledge) -> Tensor:
        """Draw a random direction, and scale it."""
        # Drawn on the CPU, so that every device sees the same.
        noise = torch.randn(known.trained.shape, generator=known.generator).to(known.trained)
        lengths = known.honest.norm(dim=1)
        length = lengths.where(lengths.isfinite(), torch.nan).nanmedian().nan_to_num(0.0)
        return functional.normalize(noise, dim=1).mul_(length)


class Copier(Adversary):
    """A free rider who uploads what it downloaded in the round before; all it needs is what it was given.

    Under a mechanism that gives it a part of the aggregate it returns that part. In the first round it has
    nothing and uploads zero.
    """

    def send(self, known: Knowledge) -> Tensor:
        """Give back v_{i,t-1}."""
        return known.downloads


class AggregateCopier(Adversary):
    """A free rider who uploads the whole aggregate of the round before, even if it was given only a part.

    It must have learnt the rest elsewhere: from the server, or from agents who together were given all.
    In the first round, and where a mechanism has no aggregate, it uploads zero.
    """

    def send(self, known: Knowledge) -> Tensor:
        """Give back u_{N,t-1}."""
        return known.aggregate.expand_as(known.trained)


class SignFlipper(Adversary):
    """A saboteur who trains honestly on its own data and uploads the opposite."""

    def send(self, known: Knowledge) -> Tensor:
        """Send −Δw_{i,t}."""
        return -known.trained


class Scaler(Adversary):
    """An agent who trains honestly and uploads a multiple, to weigh more in the aggregate.

    Parameters
    ----------
    factor : float
        The multiple.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def send(self, known: Knowledge) -> Tensor:
        """Send factor · Δw_{i,t}."""
        return known.trained * self.factor


class Sybil(Adversary):
    """One agent under several names: all hold the same data, the first trains, all upload its update."""

    one_shard = True

    def send(self, known: Knowledge) -> Tensor:
        """Send Δw of the first of them."""
        return known.trained[:1].expand_as(known.trained)


ADVERSARIES: dict[str, Adversary] = {
    "noise": Noise(),
    "copier": Copier(),
    "aggregate": AggregateCopier(),
    "flipper": SignFlipper(),
    "x10": Scaler(10.0),
    "x100": Scaler(100.0),
    "sybil": Sybil(),
}


def shards(experiment: Experiment, samples: int, size: int, seed: int) -> list[Tensor]:
    """Draw the adversaries' training samples, which honest agents and other adversaries may hold, too.

    What an adversary holds depends on its kind and on how many of it there are before it, and on no others.

    Parameters
    ----------
    experiment : Experiment
        Which names them.
    samples : int
        M, out of which each draws at random and without replacement.
    size : int
        How many each of them draws; the honest agents' average.
    seed : int
        Decides which.

    Returns
    -------
    list of Tensor
        For each adversary, (size,) int64 indices of training samples.
    """
    drawn = []
    for i, name in enumerate(experiment.adversaries):
        rank = 0 if ADVERSARIES[name].one_shard else experiment.adversaries[:i].count(name)
        drawn.append(torch.randperm(samples, generator=generator(seed, f"samples of {name} {rank}"))[:size])
    return drawn


class Adversaries:
    """All adversaries of a run, in the rows after the honest agents', as the experiment names them.

    Each round, ``apply_`` before the mechanism sees the updates and ``observe`` after the downloads.

    Parameters
    ----------
    experiment : Experiment
        Which names ``adversaries``, each a name in ``ADVERSARIES``.
    seed : int
        Decides their random numbers, from a stream of their own.
    """

    def __init__(self, experiment: Experiment, seed: int) -> None:
        names = experiment.adversaries
        self._first = experiment.agents
        self._places = {
            name: [i for i, other in enumerate(names) if other == name] for name in dict.fromkeys(names)
        }
        self._generator = generator(seed, "adversaries")
        self._downloads: Tensor | None = None
        self._aggregate: Tensor | None = None

    def apply_(self, updates: Tensor) -> None:
        """Overwrite the adversaries' rows of a round's updates with what they upload.

        Parameters
        ----------
        updates : Tensor
            (N + k, D): what all agents trained, Δw_{i,t} in row i. The first N rows are left alone.
        """
        honest, trained = updates[: self._first], updates[self._first :]
        downloads = (
            torch.zeros_like(trained) if self._downloads is None else self._downloads.to(trained.device)
        )
        aggregate = (
            updates.new_zeros(updates.shape[1])
            if self._aggregate is None
            else self._aggregate.to(trained.device)
        )
        for name, places in self._places.items():
            known = Knowledge(trained[places], honest, downloads[places], aggregate, self._generator)
            updates[[self._first + i for i in places]] = ADVERSARIES[name].send(known)

    def observe(self, downloads: Tensor, aggregate: Tensor | None) -> None:
        """Note what a round gave.

        Parameters
        ----------
        downloads : Tensor
            (N + k, D): v_{i,t} in row i; copied.
        aggregate : Tensor, optional
            (D,): u_{N,t}; copied.
        """
        if self._places:
            self._downloads = downloads[self._first :].clone()
            self._aggregate = None if aggregate is None else aggregate.clone()

    def state_dict(self) -> dict[str, Tensor]:
        """All that later rounds depend on."""
        state = {"generator": self._generator.get_state()}
        for name, value in (("downloads", self._downloads), ("aggregate", self._aggregate)):
            if value is not None:
                state[name] = value
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self._generator.set_state(state["generator"])
        self._downloads, self._aggregate = state.get("downloads"), state.get("aggregate")
