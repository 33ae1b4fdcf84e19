"""The server's own model, w_0 + Σ u_N, which no agent gets whole."""

from __future__ import annotations

import logging
import secrets
import zlib
from pathlib import Path
from typing import NamedTuple

from flwr.app import ArrayRecord
from torch import Tensor

from .. import _files
from ..server import RewardServer
from .records import tensors

logger = logging.getLogger("flwr.cgsv_ext")


OTHERS = "start(): expected the initial_arrays with which the server's rounds began, got others"


class _Saved(NamedTuple):
    round: int
    run: str
    checksum: int
    values: dict[str, Tensor]


class ServerModel:
    """A model that moves by each round's aggregate, saved next to the server's state.

    Parameters
    ----------
    server : RewardServer
        Whose rounds it follows.
    initial : ArrayRecord
        w_0, with which all agents begin.

    Raises
    ------
    ValueError
        Where the arrays do not fit the server's template, or are not those its rounds began with.
    """

    initial: ArrayRecord
    run: str
    """By which agents know that a message is of the run whose rewards they have; empty where it is lost."""

    def __init__(self, server: RewardServer, initial: ArrayRecord) -> None:
        self.server = server
        self.initial = initial
        self.run = secrets.token_hex(8)
        self._values = tensors(initial)
        try:
            server.template.parts(self._values)
        except ValueError as error:
            raise ValueError(f"start(): initial_arrays: {error}") from None
        self._checksum = _checksum(initial)
        self._path = None if server.path is None else Path(f"{server.path}.model")
        if self._path is not None:
            self._load(self._path)

    def arrays(self) -> ArrayRecord:
        """The model as it is now."""
        values = self._values
        return ArrayRecord(
            values | {other: values[name] for other, name in self.server.template.ties.items()}
        )

    def move(self) -> None:
        """Follow the server's last round."""
        aggregate = self.server.aggregate
        if aggregate is not None:
            self.server.template.add_(self._values, aggregate)
        self._save()

    def check(self, initial: ArrayRecord) -> None:
        """Refuse other initial arrays than those the rounds began with."""
        if _checksum(initial) != self._checksum:
            raise ValueError(OTHERS)

    def _save(self) -> None:
        if self._path is not None:
            saved = _Saved(self.server.round, self.run, self._checksum, self._values)
            _files.write(self._path, list(saved), keep_previous=True)

    def _load(self, path: Path) -> None:
        round = self.server.round
        found = []
        for each in (path, _files.previous(path)):
            try:
                found.append(_Saved(*_files.read(each)))
            except FileNotFoundError:
                pass
            except _files.Unreadable as error:
                logger.warning("the server's model: %s", error)
        same = self._checksum
        found = [saved for saved in found if saved.round <= round and (round > 0 or saved.checksum == same)]
        if not found:
            if round > 0:
                self.run = ""
                logger.warning("the server's model is lost: it goes on from the initial arrays")
            self._save()
            return
        saved = max(found, key=lambda saved: saved.round)
        if saved.checksum != same:
            raise ValueError(OTHERS)
        self.run, self._values = saved.run, saved.values
        missing, aggregate = round - saved.round, self.server.aggregate
        if missing == 1 and aggregate is not None:  # the server was killed in between
            self.server.template.add_(self._values, aggregate)
        elif missing:
            logger.warning(
                "the server's model is that of round %d: rounds up to %d are lost", saved.round, round
            )


def _checksum(arrays: ArrayRecord) -> int:
    found = 0
    for name, array in arrays.items():
        found = zlib.crc32(array.data, zlib.crc32(name.encode(), found))
    return found
