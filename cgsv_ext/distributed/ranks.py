"""All that is ever sent between ranks: small tensors gathered, counts added."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


class Collective(NamedTuple):
    """One collective as a rank sees it."""

    what: str
    """What is exchanged: ``terms``, ``norms``, ``products``, ``digit``, ``ties``, ``aggregate``."""
    kind: str
    """``gather`` or ``sum``."""
    bytes: int
    """Of the tensor that this rank puts in."""
    seconds: float = 0.0
    """From the call to its return, waiting for other ranks included. On a GPU that of the host."""

    def sent(self, ranks: int) -> float:
        """Bytes that a rank sends where collectives go round a ring, as gloo's and most of NCCL's do."""
        passes = ranks - 1 if self.kind == "gather" else 2 * (ranks - 1) / ranks
        return self.bytes * passes


_listeners: list[list[Collective]] = []


@contextmanager
def traffic() -> Iterator[list[Collective]]:
    """List the collectives that this rank takes part in, while in the context.

    Examples
    --------
    >>> with cgsv_ext.distributed.traffic() as sent:
    ...     step = cgsv_ext.reward_step(updates, importance, group=group)
    >>> len(sent), sum(collective.seconds for collective in sent)
    """
    heard: list[Collective] = []
    _listeners.append(heard)
    try:
        yield heard
    finally:
        _listeners[:] = [listener for listener in _listeners if listener is not heard]


class Ranks:
    """The ranks of a group, or this one alone, which sends nothing."""

    def __init__(self, op: str, group: dist.ProcessGroup | None) -> None:
        if group is not None and not isinstance(group, dist.ProcessGroup):
            # new_group() returns an integer to those that are not in the group.
            left_out = " (this process is not in it)" if isinstance(group, int) else ""
            raise TypeError(
                f"{op}(): expected group to be a ProcessGroup, got {type(group).__name__}{left_out}"
            )
        self.group = group
        self.size = 1 if group is None else dist.get_world_size(group)
        self.rank = 0 if group is None else dist.get_rank(group)

    def device(self) -> torch.device:
        """Where what the host must read is gathered: the CPU where the group can, which waits for no GPU."""
        if self.group is None or "cpu" in dist.get_backend_config(self.group):
            return torch.device("cpu")
        return torch.device("cuda", torch.cuda.current_device())

    def gather(self, what: str, own: Tensor) -> Tensor:
        """Every rank's tensor of this shape, (ranks, …), in rank order."""
        if self.group is None:
            return own.unsqueeze(0)
        start = time.perf_counter()
        every = own.new_empty((self.size, *own.shape))
        dist.all_gather(list(every.unbind(0)), own.contiguous(), group=self.group)
        _tell(what, "gather", own, start)
        return every

    def add_(self, what: str, own: Tensor) -> Tensor:
        """Sum over the ranks in place: of integers, or where the order of the sum may be the backend's."""
        if self.group is not None:
            start = time.perf_counter()
            dist.all_reduce(own, group=self.group)
            _tell(what, "sum", own, start)
        return own


def _tell(what: str, kind: str, own: Tensor, start: float) -> None:
    for heard in _listeners:
        size = own.numel() * own.element_size()
        heard.append(Collective(what, kind, size, time.perf_counter() - start))


def total(every: Tensor) -> Tensor:
    """Sum over the first dimension in rank order, so that every rank has the same bits."""
    first, *others = every.unbind(0)
    for other in others:
        first = first + other
    return first


def root(squares: Tensor) -> Tensor:
    """Square root, correctly rounded as the core's; torch's own on a CPU is not."""
    if squares.device.type == "cpu":
        return torch.from_numpy(np.asarray(np.sqrt(squares.numpy())))
    return squares.sqrt()
