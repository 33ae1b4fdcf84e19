"""What cannot be avoided: the bytes a step must move, each read and written once, and a copy of as many.

`b`, `o`, `w` and `u` are the bytes of one element of updates, rewards, parameters and aggregate.
"""

from __future__ import annotations

import torch
from race import Entrant

LARGEST_COPY = 256 << 20
"""Bytes of the copy's source: far beyond any cache, so that a larger one would copy no faster."""


def dense(n: int, d: int, b: int = 4, o: int = 4, u: int = 4) -> int:
    """reward_step into `out`: the updates read twice, the rewards written, u written and read."""
    return d * (2 * n * b + n * o + 2 * u)


def lean(n: int, d: int, b: int = 4, u: int = 4) -> int:
    """reward_step with dense=False."""
    return dense(n, d, b, 0, u)


def in_place(n: int, d: int, b: int = 4, w: int = 4, u: int = 4) -> int:
    """reward_step with dense=False, then download_: parameters read and written instead of rewards."""
    return dense(n, d, b, 2 * w, u)


def norms(n: int, d: int, b: int = 4) -> int:
    return n * d * b


def pack_row_(d: int, b: int = 4, w: int = 4) -> int:
    return d * (b + w)


def aggregate(n: int, d: int, b: int = 4, u: int = 4) -> int:
    """With the norms given."""
    return d * (n * b + u)


def select(d: int, u: int = 4) -> int:
    return d * u


def download(n: int, d: int, o: int = 4, u: int = 4) -> int:
    return d * (n * o + u)


def download_(n: int, d: int, w: int = 4, u: int = 4) -> int:
    return d * (2 * n * w + u)


def copy(nbytes: int) -> Entrant:
    """torch's copy_ with all threads between two buffers in place, reading and writing `nbytes` in all.

    Of the same bytes rather than of one large buffer: what fits a cache is measured against that cache.
    """
    source = torch.ones(max(1, min(nbytes // 2, LARGEST_COPY) // 4))
    target = torch.zeros_like(source)
    return Entrant("copy", lambda: target.copy_(source), 2 * source.nbytes)
