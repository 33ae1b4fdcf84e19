"""What an agent keeps from message to message, in a file that outlives it."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from .. import _files
from ..server import Template
from ..types import Reward
from ..wire import decode
from .records import Order

logger = logging.getLogger("flwr.cgsv_ext")

UNTOLD = -1
"""The round of an agent that has its initial parameters and was told of no round yet."""


class AgentState:
    """An agent's parameters: those of a round the server knows it has, and the reward that came since.

    They are kept apart until the server has heard of the reward. If the answer was lost, the next message
    holds it once more, together with what came since, and takes its place: so no reward is added twice.

    Parameters
    ----------
    arrays : dict of str to Tensor
        All arrays the server began with; those that are not rewarded (buffers) are the agent's own.
    names : list of str
        Those that are rewarded, in the template's order.
    """

    def __init__(
        self,
        arrays: dict[str, Tensor],
        names: list[str],
        since: int = UNTOLD,
        message: Tensor | None = None,
    ) -> None:
        self.arrays = arrays
        self.names = names
        self.since = since
        self.template = Template(self._rewarded(arrays))
        self._message = message
        self._reward = None if message is None else self._decode(message)

    @property
    def round(self) -> int:
        """The last round whose reward is in the parameters."""
        return self.since if self._reward is None else self._reward.round

    def values(self) -> dict[str, Tensor]:
        """All arrays, with the latest reward added, in memory of their own."""
        found = {name: value.clone() for name, value in self.arrays.items()}
        if self._reward is not None:
            self.template.add_(self._rewarded(found), self._reward.flat)
        return found

    def receive(self, order: Order) -> bool:
        """Take what the server sent to this agent.

        Returns
        -------
        bool
            Whether the parameters hold every reward the server has sent so far. Where not, the server does
            not know what the agent has: it will, once it has got an answer.
        """
        if order.reward is None:
            if self.since == UNTOLD:
                self.since = order.round
            return True
        message = torch.frombuffer(bytearray(order.reward), dtype=torch.uint8)
        reward = self._decode(message)
        if reward.round <= self.round:  # it came late, after the next one
            return True
        if self.round <= reward.since:
            if UNTOLD < self.round < reward.since:
                logger.warning(
                    "rewards of rounds %d to %d are lost: the server has been told that the agent has them, "
                    "and the agent's file is older",
                    self.round + 1,
                    reward.since,
                )
            self.arrays = self.values()
            self.since = reward.since
        elif reward.since != self.since:
            return False
        self._message, self._reward = message, reward
        return True

    def keep(self, arrays: dict[str, Tensor]) -> bool:
        """Keep the arrays that are the agent's own, as they are after training; whether there are any."""
        own = {name: arrays[name] for name in self.arrays if name not in self.names and name in arrays}
        self.arrays |= own
        return bool(own)

    def update(self, before: dict[str, Tensor], after: dict[str, Tensor]) -> Tensor:
        """What training has added: Δw, (D,)."""
        old, new = (
            [part.reshape(-1) for part in self.template.parts(self._rewarded(arrays))]
            for arrays in (before, after)
        )
        return torch.cat(new) - torch.cat(old)

    def _rewarded(self, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: arrays[name] for name in self.names if name in arrays}

    def save(self, path: Path) -> None:
        """Write it to a file, whole or not at all."""
        _files.write(path, [self.arrays, self.names, self.since, self._message])

    @classmethod
    def load(cls, path: Path) -> AgentState:
        """Read what :meth:`save` wrote."""
        arrays, names, since, message = _files.read(path)
        return cls(arrays, names, since, message)

    def _decode(self, message: Tensor) -> Reward:
        return decode(message, size=self.template.size)
