"""What ranks must agree on before any of them computes, or all of them raise the same error.

A rank whose own arguments are bad takes part, too, and says why: it would leave the others waiting. Of what
is exchanged, the host reads this alone, and the sizes of segments.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import torch

from .ranks import Ranks

T = TypeVar("T")

_SIZES = struct.Struct("<qq")
BYTES = 1024
"""Of one rank's terms, whatever they are: ranks that disagree must still be able to exchange them."""
_TEXT = BYTES - _SIZES.size


class Shape(NamedTuple):
    """What may differ between ranks."""

    rows: int
    columns: int


def agree(
    op: str, ranks: Ranks, read: Callable[[], tuple[T, tuple[int, int], Mapping[str, object]]]
) -> tuple[T, list[Shape]]:
    """Read this rank's arguments, and compare their terms with the other ranks'.

    Parameters
    ----------
    op : str
        The function that was called, for errors.
    ranks : Ranks
        Who must agree.
    read : callable
        Checks the arguments and returns them, their shape and their terms: name to value, whose ``repr``
        is compared.

    Returns
    -------
    tuple
        What was read, and every rank's shape.

    Raises
    ------
    TypeError, ValueError
        On every rank, in the same words: what the lowest rank that refused its arguments says of them, or
        which of the terms differs.
    """
    problem: Exception | None = None
    try:
        found, (rows, columns), terms = read()
        shape = Shape(rows, columns)
        text = json.dumps({"function": op} | {name: repr(value) for name, value in terms.items()})
    except (TypeError, ValueError) as error:
        if ranks.group is None:
            raise
        problem, shape = error, Shape(-1, -1)
        text = f"{type(error).__name__}\n{error}"
    if ranks.group is None:
        return found, [shape]

    own = bytearray(_SIZES.pack(*shape) + text.encode()[:_TEXT].ljust(_TEXT))
    gathered = ranks.gather("terms", torch.frombuffer(own, dtype=torch.uint8).to(ranks.device()))
    every = [bytes(row) for row in gathered.cpu().numpy()]
    shapes = [Shape(*_SIZES.unpack(row[: _SIZES.size])) for row in every]
    texts = [row[_SIZES.size :].decode(errors="ignore").rstrip() for row in every]
    for rank, (rows, _) in enumerate(shapes):
        if rows < 0:
            kind, why = texts[rank].split("\n", 1)
            raise (TypeError if kind == "TypeError" else ValueError)(f"{why} (on rank {rank})") from problem
    for rank, text_there in enumerate(texts):
        if text_there != texts[0]:
            raise ValueError(f"{op}(): {_difference(json.loads(texts[0]), json.loads(text_there), rank)}")
    return found, shapes


def _difference(first: dict[str, str], other: dict[str, str], rank: int) -> str:
    """The first term that is not what rank 0 has."""
    name, value = next((name, value) for name, value in first.items() if other.get(name) != value)
    return (
        f"expected the same {name} on every rank, got {value} on rank 0 and {other.get(name)} on rank {rank}"
    )
