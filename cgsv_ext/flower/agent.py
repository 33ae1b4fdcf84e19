"""What an agent keeps from message to message, in a file that outlives it."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from .. import _files
from ..server import Template
from ..types import Reward
from ..wire import decode
from .records import ToAgent

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
        All arrays the server began with. Those that are not rewarded (buffers) are the agent's own.
    names : sequence of str
        Those that are rewarded, in the template's order.
    ties : sequence of str
        Other names of some of them, each followed by the name it stands for.
    run : str, optional
        Which run its rounds are of.
    since : int
        The round the server knows it has.
    message : Tensor, optional
        The reward that came since, as it came: (bytes,) uint8.
    """

    def __init__(
        self,
        arrays: dict[str, Tensor],
        names: Sequence[str],
        ties: Sequence[str] = (),
        run: str | None = None,
        since: int = UNTOLD,
        message: Tensor | None = None,
    ) -> None:
        self.names, self.ties, self.run, self.since = list(names), list(ties), run, since
        others = dict(zip(self.ties[::2], self.ties[1::2], strict=True))
        self.arrays = {name: value for name, value in arrays.items() if name not in others}
        self.template = Template(self._rewarded(arrays))
        self._others = others
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
        return found | {other: found[name] for other, name in self._others.items()}

    def receive(self, told: ToAgent) -> bool:
        """Take what the server sent to this agent.

        Returns
        -------
        bool
            Whether the parameters hold every reward the server has sent so far. Where not, the server does
            not know what the agent has: it will, once it has got an answer.
        """
        if told.reward is None:
            if self.since == UNTOLD:
                self.since = told.round
            return True
        message = torch.frombuffer(bytearray(told.reward), dtype=torch.uint8)
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
            self.arrays = {name: value for name, value in self.values().items() if name in self.arrays}
            self.since = reward.since
        elif reward.since != self.since:
            return False
        self._message, self._reward = message, reward
        return True

    def own(self, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
        """Those that are the agent's own, as they are after training."""
        kept = self.arrays.keys() - set(self.names)
        return {name: value for name, value in arrays.items() if name in kept}

    def update(self, before: dict[str, Tensor], after: dict[str, Tensor]) -> Tensor:
        """What training has added: Δw, (D,)."""
        old, new = (
            torch.cat([part.reshape(-1) for part in self.template.parts(self._rewarded(arrays))])
            for arrays in (before, after)
        )
        return new.sub_(old) if new.dtype == old.dtype else new - old

    def save(self, path: Path) -> None:
        """Write it to a file, whole or not at all."""
        _files.write(path, [self.arrays, self.names, self.ties, self.run, self.since, self._message])

    @classmethod
    def load(cls, path: Path) -> AgentState:
        """Read what :meth:`save` wrote."""
        return cls(*_files.read(path))

    def _rewarded(self, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: arrays[name] for name in self.names if name in arrays}

    def _decode(self, message: Tensor) -> Reward:
        return decode(message, size=self.template.size)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep the agent's other processes from its file: Flower starts one for each message."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
