"""The one interface of all mechanisms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

import cgsv_ext
from cgsv_ext.types import Selection

from ..experiment import Experiment

_GENERATOR = "generator"

SETTINGS = ("gamma", "alpha", "beta", "floor", "masks", "q")
"""The fields of Experiment that only mechanisms read; all others tell runs apart under every mechanism."""


@dataclass
class Server:
    """What a mechanism may know of a run, and ask for."""

    experiment: Experiment
    sizes: Tensor
    """(N,) int64: how many samples each agent holds, or says it holds."""
    layers: list[int]
    """D_l: sizes of the model's parameters, which sum to D."""
    parameters: Tensor
    """(D,) float32: w_{t-1}, the server's own model."""
    losses: Callable[[], Tensor]
    """() -> (N,) float64: the loss of each agent's model w_{i,t-1} on its own training data."""
    validate: Callable[[Tensor], Tensor]
    """(M, D) -> (M,) float64: accuracy of the models in the rows on the validation data."""
    generator: torch.Generator
    """Random numbers for the mechanism alone."""


class Outcome(NamedTuple):
    """What one round comes to; None where a mechanism has no such thing.

    Downloads are either parts of the aggregate, given by ``selection`` and never written out, or
    ``rewards`` as they stand.
    """

    aggregate: Tensor | None = None
    """(D,): what the server's own model moves by."""
    selection: Selection | None = None
    """Which entries of the aggregate each agent downloads."""
    segments: list[int] | None = None
    """Layer sizes, where the selection is one per layer."""
    rewards: Tensor | None = None
    """(N, D): v_i, where a selection does not say it."""
    importance: Tensor | None = None
    """(N,) float64: r_i, or what a mechanism has in its place. They sum to 1, or are all 0."""
    quotas: Tensor | None = None
    """(N,) int64: q_i, how many entries each agent downloads."""
    weights: Tensor | None = None
    """(N,): p_i, what the updates in the aggregate are weighed by."""
    unit: bool = True
    """Whether these weigh updates of equal length, as equation (1) does, or raw ones."""


class Mechanism(ABC):
    """One round of the server, and what it remembers.

    What is remembered are the attributes that are tensors, and where its random numbers stand. An agent
    whose update is not finite takes no part in a round, and no other agent notices more than that.
    """

    settings: ClassVar[tuple[str, ...]] = ()
    """Which of ``SETTINGS`` it reads: two runs that differ only in the others of these are the same."""

    def __init_subclass__(cls) -> None:
        """Refuse a setting that is not for mechanisms alone: runs without this one differ by it, too."""
        if others := [name for name in cls.settings if name not in SETTINGS]:
            raise ValueError(
                f"{cls.__name__}: expected settings among {', '.join(SETTINGS)}; got {', '.join(others)}; "
                "name no field that all runs depend on, and a new one in SETTINGS first"
            )

    def __init__(self, server: Server) -> None:
        self.server = server

    @abstractmethod
    def step(self, updates: Tensor) -> Outcome:
        """Decide on a round's updates, (N, D): Δw_i in row i. Updates are not changed."""

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all that is remembered."""
        return {name: value.clone() for name, value in self._state().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Remember what :meth:`state_dict` gave, on this mechanism's devices."""
        own = self._state()
        if own.keys() != state.keys():
            raise ValueError(
                f"load_state_dict(): expected the state of {type(self).__name__}, {sorted(own)}, "
                f"got {sorted(state)}; resume a run with the mechanism that began it"
            )
        for name, value in state.items():
            if name == _GENERATOR:
                self.server.generator.set_state(value.cpu())
            else:
                setattr(self, name, value.to(own[name].device, copy=True))

    def _state(self) -> dict[str, Tensor]:
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return tensors | {_GENERATOR: self.server.generator.get_state()}


def download_(parameters: Tensor, outcome: Outcome) -> None:
    """Take the gradient download step: w_i += v_i in every row of the (N, D) parameters."""
    if outcome.aggregate is not None and outcome.selection is not None:
        cgsv_ext.download_(parameters, outcome.aggregate, outcome.selection, segments=outcome.segments)
    elif outcome.rewards is not None:
        parameters += outcome.rewards
