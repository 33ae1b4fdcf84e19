"""What the tests compare with: the formulas in numpy and float64, one agent at a time.

Nothing here calls the compiled ops or `cgsv_ext.reference`. Beside the formulas stand the inputs that are
hard to get right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from cgsv_ext import Selection

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
AGGREGATE_DTYPES = [torch.float32, torch.float64]
HYPERPARAMETERS = {"gamma": 0.5, "alpha": 0.95, "beta": 1.0, "floor": 1e-3}
BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}


def name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def aggregate_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


# Comparing


def bits(t: Tensor) -> Tensor:
    """The bits of t as integers, so that -0.0 differs from 0.0 and a NaN equals itself."""
    return t.detach().contiguous().view(BITS[t.element_size()])


def assert_same_bits(got: Any, expected: Any, what: str = "result") -> None:
    """The same dtype, shape and bits, for tensors and for (named) tuples of them."""
    if isinstance(expected, tuple):
        names = getattr(expected, "_fields", range(len(expected)))
        assert len(got) == len(expected)
        for field, g, e in zip(names, got, expected, strict=True):
            assert_same_bits(g, e, f"{what}.{field}")
    elif expected is None:
        assert got is None, what
    else:
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape), what
        if not torch.equal(bits(got), bits(expected)):
            wrong = (bits(got) != bits(expected)).nonzero()
            at = tuple(wrong[0].tolist())
            raise AssertionError(
                f"{what} differs in {len(wrong)} places, first at {at}: {got[at]}, not {expected[at]}"
            )


def assert_same_but_nans(got: Tensor, expected: Tensor) -> None:
    """The same dtype, shape and bits, and any NaN for a NaN: which one arithmetic gives differs by device."""
    assert_same_bits(_with_one_nan(got), _with_one_nan(expected))


def _with_one_nan(t: Tensor) -> Tensor:
    return t.masked_fill(t.isnan(), math.nan) if t.is_floating_point() else t


def f64(t: Tensor) -> np.ndarray:
    return t.detach().cpu().double().numpy()


# The mechanism


def mechanism(
    updates: np.ndarray,
    importance: Sequence[float],
    *,
    weights: Sequence[float] | None = None,
    norms: Sequence[float] | None = None,
    gamma: float = 0.5,
    alpha: float = 0.95,
    floor: float | None = 1e-3,
) -> SimpleNamespace:
    """Steps 1 to 4 in float64; `spread` is Σ_i |p_i u_ij|, what rounding errors are proportional to."""
    n, d = updates.shape
    before = [r if math.isfinite(r) else 0.0 for r in importance]
    if weights is not None:
        p = [w if math.isfinite(w) else 0.0 for w in weights]
    else:
        p = before if any(before) else [1 / n] * n
    with np.errstate(invalid="ignore", over="ignore"):
        found = np.array([math.sqrt(np.dot(x, x)) for x in updates]) if norms is None else np.array(norms)
    valid = [math.isfinite(norm) and norm > 0 for norm in found]
    u, spread = np.zeros(d), np.zeros(d)
    for i in range(n):
        if valid[i]:
            u += p[i] * (gamma * updates[i] / found[i])
            spread += abs(p[i]) * (gamma * np.abs(updates[i]) / found[i])
    length = math.sqrt(np.dot(u, u))
    cosines = np.zeros(n)
    for i in range(n):
        if valid[i] and length > 0:
            cosines[i] = np.clip(np.dot(updates[i] / found[i], u / length), -1, 1)
    new = moving_average(before, cosines, alpha=alpha, floor=floor)
    p_valid = sum(abs(p[i]) for i in range(n) if valid[i])
    return SimpleNamespace(
        norms=found,
        valid=np.array(valid),
        aggregate=u,
        spread=spread,
        cosines=cosines,
        importance=new,
        well_conditioned=length >= 0.01 * gamma * p_valid and p_valid > 0,
    )


def moving_average(
    importance: Iterable[float], cosines: Iterable[float], *, alpha: float, floor: float | None
) -> np.ndarray:
    """Equation (4)."""
    r = [alpha * r_i + (1 - alpha) * c for r_i, c in zip(importance, cosines, strict=True)]
    if floor is not None:
        r = [max(floor, r_i) for r_i in r]
    total = math.fsum(r)
    return np.array([r_i / total if total > 0 else 0.0 for r_i in r])


def quotas(importance: Sequence[float], sizes: Sequence[int], beta: float) -> list[list[int]]:
    """Equation (5), (N, S)."""
    t = [0.0 if r == 0 or not math.isfinite(r) else math.tanh(beta * r) for r in importance]
    largest = max(t)
    if largest <= 0:
        return [[0] * len(sizes) for _ in t]
    # The quotient of a negative one may be -inf, which has no floor.
    return [[math.floor(size * (t_i / largest)) if t_i > 0 else 0 for size in sizes] for t_i in t]


def ranking(u: np.ndarray) -> np.ndarray:
    """Indices by magnitude descending, NaN first, then by index ascending."""
    integer = {4: np.uint32, 8: np.uint64}[u.dtype.itemsize]
    infinity = np.array(np.inf, u.dtype).view(integer)
    key = np.abs(u).view(integer)
    key = np.where(np.isnan(u), infinity + integer(1), key)
    return np.argsort(infinity + integer(1) - key, kind="stable")


class Ranks:
    """The order of an aggregate's entries, and what follows from it for any quotas."""

    def __init__(self, u: Tensor, segments: Sequence[int] | None = None) -> None:
        self.u, self.segments = u, segments
        values = u.detach().cpu().numpy()
        self.order, self.start, start = [], [], 0
        for size in segments if segments is not None else [u.numel()]:
            self.order.append(start + ranking(values[start : start + size]))
            self.start.append(start)
            start += size

    def _table(self, quotas: Tensor) -> list[list[int]]:
        table = quotas.reshape(len(quotas), len(self.order)).tolist()
        return [
            [min(max(q, 0), len(order)) for q, order in zip(row, self.order, strict=True)] for row in table
        ]

    def selection(self, quotas: Tensor) -> Selection:
        magnitude = torch.full(quotas.shape, math.inf, dtype=self.u.dtype, device=self.u.device)
        last_index = torch.full_like(quotas, -1)
        flat_magnitude = magnitude.view(len(quotas), -1)
        flat_index = last_index.view(len(quotas), -1)
        for i, row in enumerate(self._table(quotas)):
            for s, q in enumerate(row):
                if q > 0:
                    j = int(self.order[s][q - 1])
                    flat_index[i, s] = j
                    flat_magnitude[i, s] = self.u[j].abs()
        return Selection(magnitude, last_index)

    def keep(self, quotas: Tensor) -> Tensor:
        """(N, D) bool."""
        keep = np.zeros((len(quotas), self.u.numel()), bool)
        for i, row in enumerate(self._table(quotas)):
            for s, q in enumerate(row):
                keep[i, self.order[s][:q]] = True
        return torch.from_numpy(keep).to(self.u.device)

    def rewards(self, quotas: Tensor, dtype: torch.dtype) -> Tensor:
        value = self.u.to(dtype)
        return torch.where(self.keep(quotas), value, torch.zeros((), dtype=dtype, device=value.device))


def assert_same_selection(got: Selection, expected: Selection) -> None:
    """Equal; NaN magnitudes equal each other whatever their bits."""
    assert got.magnitude.dtype == expected.magnitude.dtype
    assert torch.equal(got.last_index, expected.last_index)
    torch.testing.assert_close(got.magnitude, expected.magnitude, rtol=0, atol=0, equal_nan=True)


# Inputs


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def _uniform(d: int, g: torch.Generator) -> Tensor:
    return torch.rand(d, generator=g, dtype=torch.float64)


def _signs(d: int, g: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (d,), generator=g).double() * 2 - 1


def _pick(values: Sequence[float]) -> Callable[[int, torch.Generator], Tensor]:
    def pick(d: int, g: torch.Generator) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)[torch.randint(0, len(values), (d,), generator=g)]

    return pick


# Aggregates that defeat a careless selection: name -> f(d, generator), in float64.
HARD: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "normal": lambda d, g: torch.randn(d, generator=g, dtype=torch.float64),
    "few values": _pick([-1.0, 0.5, 2.0]),
    "all equal": lambda d, g: torch.full((d,), -0.75, dtype=torch.float64),
    "all zero": lambda d, g: torch.zeros(d, dtype=torch.float64),
    "signed zeros": _pick([0.0, -0.0]),
    "± pairs": lambda d, g: torch.randn((d + 1) // 2, generator=g).double().repeat(2)[:d] * _signs(d, g),
    "half precision": lambda d, g: torch.randn(d, generator=g).half().double(),
    "half zeros": lambda d, g: torch.randn(d, generator=g).double() * (_uniform(d, g) < 0.5),
    "one exponent": lambda d, g: (1 + _uniform(d, g)) * _signs(d, g),
    "one bin": lambda d, g: 1 + _uniform(d, g) / 256,
    "one bin, few values": lambda d, g: 1 + (_uniform(d, g) * 9).floor() * 2.0**-20,
    "one bin, forty values": lambda d, g: 1 + (_uniform(d, g) * 40).floor() * 2.0**-23,
    "all equal but a lesser one": lambda d, g: 1 + (torch.arange(d) != d // 2) * 2.0**-20,
    "all equal but a greater one": lambda d, g: 1 + (torch.arange(d) == d // 2) * 2.0**-20,
    "ascending": lambda d, g: torch.linspace(-1, 1, d, dtype=torch.float64).abs().sort().values,
    "descending": lambda d, g: torch.linspace(-1, 1, d, dtype=torch.float64).abs().sort().values.flip(0),
    "many bins": lambda d, g: torch.exp2(-_uniform(d, g) * 120),
    "subnormal": lambda d, g: (_uniform(d, g) * 99).floor() * 2.0**-149,
    "infinite": _pick([math.inf, -math.inf, 1.0, 3e38, 0.0]),
    "nan": _pick([math.nan, -math.nan, math.inf, 1.0, -2.0, 0.0]),
    "all nan": lambda d, g: torch.full((d,), math.nan, dtype=torch.float64),
    "one peak": lambda d, g: torch.arange(d).eq(d // 2).double(),
}


def hard(kind: str, d: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return HARD[kind](d, generator(seed)).to(dtype)


def some_quotas(d: int, count: int, seed: int = 0) -> Tensor:
    """The ends, their neighbours, out of range and `count` in between, in no order."""
    g = generator(seed)
    inside = torch.randint(0, d + 1, (count,), generator=g)
    ends = torch.tensor([0, 1, min(2, d), d - 1, d, d + 7, -5, d // 2, d // 2])
    q = torch.cat([inside, ends])
    return q[torch.randperm(len(q), generator=g)]


# Numbers of columns around the lengths of vectors, tiles, blocks and chunks.
COLUMNS = st.one_of(
    st.integers(1, 70),
    st.sampled_from([127, 128, 129, 511, 512, 513, 1023, 1024, 1025, 2047, 2048, 2049, 4095, 4096, 4097]),
    st.integers(1, 6000),
)

KINDS = ["normal", "alike", "sparse", "scaled", "opposed", "integers"]


def updates_of(kind: str, n: int, d: int, dtype: torch.dtype, seed: int) -> Tensor:
    """(n, d) updates: alike agents, mostly zeros, rows of very different length, cancelling, heavy ties."""
    g = generator(seed)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    if kind == "alike":
        x = x[:1] + 0.3 * x
    elif kind == "sparse":
        x *= torch.rand(n, d, generator=g) < 0.2
    elif kind == "scaled":
        exponent = 3 if dtype == torch.float16 else 29
        x *= 10.0 ** ((torch.rand(n, 1, generator=g, dtype=torch.float64) * 2 - 1) * exponent)
    elif kind == "opposed":
        x = x[:1] * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(n)[:n, None] + 0.2 * x
    elif kind == "integers":
        x = (x * 1.5).round()
    return x.to(dtype)


@st.composite
def rounds(draw: st.DrawFn) -> dict[str, Any]:
    """All that describes one round but its dtype and device."""
    n = draw(st.integers(1, 9))
    unit = st.floats(0, 1).map(lambda v: round(v, 3))
    return {
        "kind": draw(st.sampled_from(KINDS)),
        "n": n,
        "d": draw(COLUMNS),
        "seed": draw(st.integers(0, 10**6)),
        "importance": draw(st.one_of(st.just([0.0] * n), st.lists(unit, min_size=n, max_size=n))),
        "weights": draw(
            st.one_of(st.none(), st.lists(unit.map(lambda v: 2 * v - 0.25), min_size=n, max_size=n))
        ),
        "gamma": draw(st.sampled_from([0.5, 0.2, 1.0, 7.0])),
        "alpha": draw(st.sampled_from([0.95, 0.8, 0.0, 1.0, 0.5])),
        "beta": draw(st.sampled_from([1.0, 0.5, 2.0, 10.0, 1000.0, math.inf])),
        "floor": draw(st.sampled_from([1e-3, None, 0.0, 0.05])),
    }


def arguments(
    case: dict[str, Any], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Updates, importance and options for reward_step."""
    x = updates_of(case["kind"], case["n"], case["d"], dtype, case["seed"]).to(device)
    importance = torch.tensor(case["importance"], dtype=torch.float64, device=device)
    weights = case["weights"]
    if weights is not None:
        weights = torch.tensor(weights, dtype=torch.float64, device=device)
    options = {key: case[key] for key in HYPERPARAMETERS} | {"weights": weights}
    return x, importance, options
