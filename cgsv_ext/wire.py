"""Rewards as bytes, for sending: of each download only what is in it, in the smallest form there is.

A message is a header (version, dtype, number of elements, rounds, checksum) and blocks of entries;
docs/wire.md specifies it. Entries of an agent's reward that are +0 take no bytes: a block says where its
entries belong by their indices, by a bitmap, or not at all, whichever is smallest, and an entry's value takes
4 bytes (float32) or 2 (bfloat16).

All agents' masks are nested, so their messages are prefixes of one stream: :func:`encode_all` writes it once.

The work is done by the CPU's threads: tensors on a GPU are copied to the CPU first. The bytes do not depend
on the number of threads or on the instruction set. Errors as in the rest of the package; :func:`decode`
trusts nothing in a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from . import _checks
from ._load import require
from ._ops import array
from .types import Reward, Selection, aggregate_dtype, dtype_name

__all__ = ["decode", "encode", "encode_all"]

_core = require().wire
_AGGREGATE = (torch.float32, torch.float64)
_FLOATING = (*_AGGREGATE, torch.bfloat16, torch.float16)

Bytes: TypeAlias = bytes | bytearray | memoryview | Tensor
"""A message: anything that gives a contiguous buffer of bytes, or a uint8 tensor."""


def _is_bfloat16(op: str, dtype: object) -> bool:
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{op}(): expected dtype to be a torch.dtype, got {type(dtype).__name__}")
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"{op}(): expected dtype float32 or bfloat16, got {dtype_name(dtype)}")
    return dtype == torch.bfloat16


def _rounds(op: str, round: object, since: Sequence[object]) -> tuple[int, list[int]]:
    last = _checks.integer(op, "round", round, 0)
    before = [_checks.integer(op, "since", value, 0) for value in since]
    for value in before:
        if value > last:
            raise ValueError(f"{op}(): expected rounds since ≤ round, got since {value} and round {last}")
    return last, before


def _vector(op: str, name: str, value: object, *dtypes: torch.dtype) -> Tensor:
    found = _checks.tensor(op, name, value)
    if found.is_meta:
        raise ValueError(f"{op}(): expected {name} with data, got meta")
    if found.dtype not in dtypes:
        names = [dtype_name(dtype) for dtype in (*dtypes, found.dtype)]
        raise ValueError(f"{op}(): expected {name} of {' or '.join(names[:-1])}, got {names[-1]}")
    if found.dim() != 1:
        raise ValueError(f"{op}(): expected {name} of shape (D,), got {tuple(found.shape)}")
    return found


def encode(reward: Reward, *, dtype: torch.dtype = torch.float32) -> bytes:
    """One agent's reward as a message.

    Parameters
    ----------
    reward : Reward
        As ``server.download(agent_id)`` returns it; ``flat`` is what is sent, (D,) of any floating dtype.
    dtype : torch.dtype
        float32: exact to the bit for a ``flat`` of float32 or shorter, else rounded. bfloat16: rounded to
        nearest even, through float32; a NaN stays a NaN.

    Returns
    -------
    bytes
        48 of header, and for n entries that are not +0 (once rounded) of b bytes each, rounded up to 8,
        ``16 + min(4 n + b n, ⌈D / 64⌉ · 8 + b n, b D)``, or none for n = 0 (8 n in place of 4 n where
        D > 2^32).

    Examples
    --------
    >>> message = cgsv_ext.encode(server.download("a"))
    >>> cgsv_ext.decode(message).flat
    """
    op = "encode"
    bf16 = _is_bfloat16(op, dtype)
    if not isinstance(reward, Reward):
        raise TypeError(f"{op}(): expected reward to be a Reward, got {type(reward).__name__}")
    flat = _vector(op, "reward.flat", reward.flat, *_FLOATING)
    last, since = _rounds(op, reward.round, [reward.since])
    message: bytes = _core.encode(array(flat, aggregate_dtype(flat.dtype)), bf16, last, since[0])
    return message


def encode_all(
    aggregate: Tensor,
    selection: Selection,
    *,
    segments: Sequence[int] | None = None,
    round: int = 0,
    since: int | Sequence[int] = 0,
    dtype: torch.dtype = torch.float32,
) -> list[bytes]:
    """All agents' rewards of one round as messages, each body a prefix of one stream.

    Message i decodes to ``download(aggregate, selection, dtype=dtype)[i]``, to the bit (but for the payload
    of a NaN rounded on a GPU). The rewards themselves are never formed.

    Parameters
    ----------
    aggregate : Tensor
        (D,) float32 or float64: u_N.
    selection : Selection
        As :func:`cgsv_ext.select` or ``reward_step`` returned it, or any whose masks are nested.
    segments : sequence of int, optional
        As they were handed to :func:`cgsv_ext.select`.
    round : int
        The round the rewards are of.
    since : int or sequence of int
        The last round before it that is not in the rewards, of all agents or one an agent.
    dtype : torch.dtype
        As for :func:`encode`.

    Returns
    -------
    list of bytes
        (N,). Agents with the same entries and `since` share one object. Together they take as much memory as
        they have bytes.

    Raises
    ------
    ValueError
        Also where two agents each keep an entry that the other does not.

    Examples
    --------
    >>> step = cgsv_ext.reward_step(updates, importance, dense=False)
    >>> messages = cgsv_ext.encode_all(step.aggregate, step.selection)
    """
    op = "encode_all"
    bf16 = _is_bfloat16(op, dtype)
    u = _vector(op, "aggregate", aggregate, *_AGGREGATE)
    magnitude, last_index = _checks.selection(op, selection, u, of="selection.")
    parts = _checks.segments(op, segments, u.numel())
    sizes = [u.numel()] if parts is None else parts
    _checks.per_agent(op, "selection.magnitude", magnitude, parts, u.dtype)
    _checks.per_agent(op, "selection.last_index", last_index, parts, torch.int64)
    n = magnitude.shape[0]
    if last_index.shape != magnitude.shape:
        raise ValueError(
            f"{op}(): expected selection.last_index of shape {tuple(magnitude.shape)}, "
            f"got {tuple(last_index.shape)}"
        )
    each = list(since) if isinstance(since, Sequence) else [since] * n
    if len(each) != n:
        raise ValueError(f"{op}(): expected since of {n} rounds, one an agent, got {len(each)}")
    last, before = _rounds(op, round, each)
    messages: list[bytes] = _core.encode_all(
        array(u),
        array(magnitude).reshape(n, len(sizes)),
        array(last_index).reshape(n, len(sizes)),
        sizes,
        bf16,
        last,
        before,
    )
    return messages


def decode(data: Bytes, *, size: int | None = None, limit: int | None = None) -> Reward:
    """The reward in a message, wherever it comes from.

    Parameters
    ----------
    data : bytes-like
        A message: bytes, bytearray, a contiguous memoryview or array of bytes, or a uint8 tensor. It must not
        change during the call.
    size : int, optional
        D, the number of elements it must be of. An agent knows it, and should say it.
    limit : int, optional
        The largest D that is accepted; 2^28 where no `size` is given. The result takes 4 · D bytes, whatever
        the length of the message.

    Returns
    -------
    Reward
        ``flat`` and ``values`` are one (D,) float32 tensor, on the CPU: exactly what was encoded, also where
        the message holds bfloat16. ``template.shaped(flat)`` gives it the model's structure.

    Raises
    ------
    ValueError
        ``decode(): expected …, got …`` for anything but a whole, unaltered message of the right size.
        Lengths and the checksum are checked before the result is allocated. Beyond the result the call takes
        no more than D / 8 bytes, or some times the message where that is more.

    Examples
    --------
    >>> reward = cgsv_ext.decode(message, size=template.size)
    >>> template.add_(model, reward.flat)
    """
    op = "decode"
    wanted = -1
    if size is not None:
        wanted = _checks.integer(op, "size", size, 0)
        if wanted > _core.most_elements:
            raise ValueError(f"{op}(): expected size ≤ 2^56, got {wanted}")
    most = (1 << 28 if size is None else wanted) if limit is None else _checks.integer(op, "limit", limit, 0)
    flat, round, since = _core.decode(_buffer(op, data), wanted, min(most, _core.most_elements))
    elements = torch.from_numpy(flat)
    return Reward(round, since, elements, elements)


def _buffer(op: str, data: Any) -> memoryview:
    if isinstance(data, Tensor):
        if data.dtype != torch.uint8 or data.dim() != 1:
            dtype = dtype_name(data.dtype)
            raise ValueError(
                f"{op}(): expected a uint8 tensor of shape (bytes,), got {dtype} of {tuple(data.shape)}"
            )
        data = array(data)
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"{op}(): expected data to be bytes-like, got {type(data).__name__}") from None
    if not view.c_contiguous or view.itemsize != 1:
        raise ValueError(f"{op}(): expected data to be contiguous bytes, got format {view.format!r}")
    return view.cast("B")
