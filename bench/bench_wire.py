"""Rewards to bytes and back; GB/s are those of the dense float32 gradient, 4 · D bytes an agent."""

from __future__ import annotations

import io

import floor
import pytest
import torch
from cases import MIDDLE, Size, quotas, sizes
from race import Entrant, Race
from torch import Tensor

import cgsv_ext
from cgsv_ext import Reward

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


def saved(flat: Tensor, dtype: torch.dtype) -> bytes:
    """Indices and values as PyTorch would send them."""
    places = flat.nonzero().squeeze(1)
    file = io.BytesIO()
    torch.save({"size": flat.numel(), "places": places.int(), "values": flat[places].to(dtype)}, file)
    return file.getvalue()


def loaded(message: bytes) -> Tensor:
    parts = torch.load(io.BytesIO(message), weights_only=True)
    flat = torch.zeros(parts["size"])
    flat[parts["places"].long()] = parts["values"].float()
    return flat


def _reward(d: int, percent: int) -> Reward:
    u = torch.randn(d, generator=torch.Generator().manual_seed(0))
    flat = cgsv_ext.download(u, cgsv_ext.select(u, torch.tensor([d * percent // 100])))[0]
    return Reward(1, 0, flat, flat)


def _case(size: Size, step: str, dtype: torch.dtype, **more: str) -> dict[str, object]:
    return size.case(step, **more) | {"dtype": str(dtype).removeprefix("torch.")}


@DTYPES
@pytest.mark.parametrize(
    "percent", [1, 50, 100, *(pytest.param(p, marks=pytest.mark.full) for p in (5, 10, 25, 75, 90))]
)
def bench_wire(percent: int, dtype: torch.dtype, race: Race) -> None:
    size = Size(1, 4_200_000)
    reward = _reward(size.d, percent)
    message, file = cgsv_ext.encode(reward, dtype=dtype), saved(reward.flat, dtype)
    need = 4 * size.d
    share = f"{percent} %, {len(message):,} bytes, by torch.save {len(file):,}"
    encoding = [
        Entrant("encode", lambda: cgsv_ext.encode(reward, dtype=dtype), need),
        floor.copy(2 * need),
        Entrant("PyTorch, nonzero and torch.save", lambda: saved(reward.flat, dtype), need),
        Entrant("decode", lambda: cgsv_ext.decode(message), need),
        Entrant("PyTorch, torch.load and scatter", lambda: loaded(file), need),
    ]
    race(_case(size, "wire", dtype, kind=share), encoding)


@DTYPES
@pytest.mark.parametrize("size", sizes([MIDDLE], [Size(50, 1_000_000)]), ids=Size.label)
def bench_wire_of_all(size: Size, dtype: torch.dtype, race: Race) -> None:
    """All agents' messages at once against one at a time, and the one of the most blocks read again."""
    u = torch.randn(size.d, generator=torch.Generator().manual_seed(0))
    selection = cgsv_ext.select(u, quotas(size))
    rewards = cgsv_ext.download(u, selection)
    last = cgsv_ext.encode_all(u, selection, dtype=dtype)[-1]
    need = 4 * size.n * size.d
    entrants = [
        Entrant("encode_all", lambda: cgsv_ext.encode_all(u, selection, dtype=dtype), need),
        floor.copy(2 * need),
        Entrant(
            "download, encode each",
            lambda: [
                cgsv_ext.encode(Reward(1, 0, v, v), dtype=dtype) for v in cgsv_ext.download(u, selection)
            ],
            need,
        ),
        Entrant("PyTorch, nonzero and torch.save each", lambda: [saved(v, dtype) for v in rewards], need),
        Entrant("decode the longest", lambda: cgsv_ext.decode(last), 4 * size.d),
    ]
    race(_case(size, "wire of all", dtype), entrants)
