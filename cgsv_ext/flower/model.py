"""The server's own model, w_0 + Σ u_N, which no agent gets whole."""

from __future__ import annotations

import logging
import zlib
from pathlib import Path

from flwr.app import ArrayRecord
from torch import Tensor

from .. import _files
from ..server import RewardServer
from .records import tensors

logger = logging.getLogger("flwr.cgsv_ext")


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

    def __init__(self, server: RewardServer, initial: ArrayRecord) -> None:
        self.server = server
        self.initial = initial
        self.values: dict[str, Tensor] = tensors(initial)
        try:
            server.template.parts(self.values)
        except ValueError as error:
            raise ValueError(f"start(): initial_arrays: {error}") from None
        self._path = None if server.path is None else Path(f"{server.path}.model")
        self._checksum = 0
        for name, array in initial.items():
            self._checksum = zlib.crc32(array.data, zlib.crc32(name.encode(), self._checksum))
        if self._path is not None and server.round > 0:
            self._load(self._path)

    def move(self) -> None:
        """Follow the server's last round."""
        aggregate = self.server.aggregate
        if aggregate is not None:
            self.server.template.add_(self.values, aggregate)
        if self._path is not None:
            _files.write(self._path, [self.server.round, self._checksum, self.values], keep_previous=True)

    def _load(self, path: Path) -> None:
        round = self.server.round
        for each in (path, _files.previous(path)):
            try:
                saved, checksum, values = _files.read(each)
            except (FileNotFoundError, _files.Unreadable) as error:
                logger.warning("the server's model: %s", error)
                continue
            if checksum != self._checksum:
                raise ValueError(
                    f"start(): expected the initial_arrays of the rounds in {self.server.path}, got others"
                )
            if saved == round:
                self.values = values
                return
            aggregate = self.server.aggregate
            if saved == round - 1 and aggregate is not None:  # the server was killed in between
                self.values = values
                self.server.template.add_(values, aggregate)
                return
        logger.warning(
            "the server's model of round %d is lost: it goes on from the initial arrays; the agents' are "
            "not affected",
            round,
        )
