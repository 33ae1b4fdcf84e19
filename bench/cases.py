"""The sizes and inputs that are timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor


class Size(NamedTuple):
    """N agents, D elements each."""

    n: int
    d: int

    def __str__(self) -> str:
        return f"{self.n} × {self.d:,}"

    def label(self) -> str:
        return f"{self.n}x{self.d}"

    def case(self, step: str, **more: str) -> dict[str, Any]:
        return {"step": step, "size": str(self), "n": self.n, "d": self.d, "dtype": "float32", **more}


def sizes(small: list[Size], large: list[Size]) -> list[Any]:
    """Parameters of a benchmark; the large ones only without --quick."""
    return [*small, *(pytest.param(size, marks=pytest.mark.full) for size in large)]


DIGITS, CNN, RESNET = Size(5, 21_840), Size(10, 104_242), Size(10, 431_080)
MIDDLE, LARGE, TALL, FLAT, PAIR = (
    Size(10, 4_200_000),
    Size(10, 10_000_000),
    Size(100, 1_000_000),
    Size(1_000, 100_000),
    Size(2, 16_800_000),
)

WHOLE = sizes([DIGITS, CNN, RESNET, MIDDLE], [LARGE, TALL, FLAT, PAIR])
"""Of reward_step."""
STEPS = sizes([CNN], [MIDDLE, FLAT])
"""Of the steps one by one."""


def updates(size: Size, dtype: torch.dtype = torch.float32) -> Tensor:
    """Independent normal entries, (N, D)."""
    return torch.empty(size, dtype=dtype).normal_(generator=torch.Generator().manual_seed(0))


def importance(n: int) -> Tensor:
    """An r that spreads the quotas from a tenth of D to all of it."""
    r = torch.linspace(0.1, 1, n, dtype=torch.float64)
    return r / r.sum()


def quotas(size: Size) -> Tensor:
    return (torch.linspace(0.1, 1, size.n, dtype=torch.float64) * size.d).long()


def _random(d: int, g: torch.Generator) -> Tensor:
    return torch.randn(d, generator=g)


ADVERSARIAL: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "constant": lambda d, g: torch.ones(d),
    "half zeros": lambda d, g: torch.randn(d, generator=g) * (torch.rand(d, generator=g) < 0.5),
    "one exponent": lambda d, g: 1 + torch.rand(d, generator=g),
    "sorted": lambda d, g: torch.randn(d, generator=g).sort().values,
    "few distinct": lambda d, g: torch.randint(1, 6, (d,), generator=g).float(),
}
"""Aggregates that are hard on a selection by histogram."""


def identical_updates(size: Size, kind: str) -> Tensor:
    """N times one vector, so that the aggregate is of its kind."""
    vector = {"random": _random, **ADVERSARIAL}[kind](size.d, torch.Generator().manual_seed(0))
    return vector.expand(size).contiguous()


def resnet_50() -> list[int]:
    """How many elements each of ResNet-50's parameters has, in the order of its state dict."""
    sizes, channels = [3 * 64 * 49, 64, 64], 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            wide = 4 * width
            weights = [channels * width, width * width * 9, width * wide]
            weights += [channels * wide] if block == 0 else []
            for weight, out in zip(weights, (width, width, wide, wide), strict=False):
                sizes += [weight, out, out]
            channels = wide
    return [*sizes, channels * 1000, 1000]
