"""Valuations from the Gram matrix: what they cost beyond it, whatever D is."""

from __future__ import annotations

import math

import floor
import numpy as np
import pytest
import torch
from cases import Size, sizes, updates
from race import Entrant, Race
from torch import Tensor

import cgsv_ext
from cgsv_ext import shapley


def with_numpy(gram: Tensor) -> np.ndarray:
    """The definition, all coalitions at once: 2^N · N numbers in memory."""
    n = len(gram)
    g = gram.numpy()
    coalitions = np.arange(2**n)
    members = (coalitions[:, None] >> np.arange(n) & 1).astype(float)
    square = ((members @ g) * members).sum(1)
    values = members @ g.sum(1) / np.sqrt(np.maximum(square, 1e-300)) / math.sqrt(g.sum())
    size = members.sum(1).astype(int)
    joining = np.array([0] + [1 / (n * math.comb(n - 1, k)) for k in range(n)] + [0])
    return members.T @ (values * (joining[size] + joining[size + 1])) - values @ joining[size + 1]


@pytest.mark.parametrize("size", sizes([Size(10, 1024), Size(20, 1024)], [Size(24, 1024)]), ids=Size.label)
def bench_shapley(size: Size, race: Race) -> None:
    gram = cgsv_ext.gram(updates(size))
    entrants = [
        Entrant("exact", lambda: shapley.exact(gram=gram)),
        floor.copy(8 * size.n**2),
        Entrant("banzhaf", lambda: shapley.banzhaf(gram=gram)),
        Entrant("sampled, 150 permutations", lambda: shapley.sampled(gram=gram, permutations=150)),
        Entrant("sampled, antithetic", lambda: shapley.sampled(gram=gram, permutations=150, antithetic=True)),
        Entrant("sampled, stratified", lambda: shapley.sampled(gram=gram, permutations=150, stratified=True)),
        Entrant("approximate", lambda: shapley.approximate(gram=gram)),
    ]
    if size.n <= 20:
        np.testing.assert_allclose(with_numpy(gram), shapley.exact(gram=gram).numpy(), atol=1e-12)
        entrants.append(Entrant("NumPy, all coalitions", lambda: with_numpy(gram)))
    race(size.case("shapley"), entrants)


@pytest.mark.full
def bench_shapley_of_thirty(race: Race) -> None:
    size = Size(30, 1024)
    gram = cgsv_ext.gram(updates(size))
    race(
        size.case("shapley"),
        [Entrant("exact", lambda: shapley.exact(gram=gram)), floor.copy(8 * size.n**2)],
    )


@pytest.mark.full
def bench_shapley_of_updates(race: Race) -> None:
    """From the updates: the Gram pass and what follows."""
    size = Size(20, 1_000_000)
    x = updates(size)
    need = floor.norms(*size)
    entrants = [
        Entrant("exact, from updates", lambda: shapley.exact(x), need),
        floor.copy(need),
        Entrant("gram", lambda: cgsv_ext.gram(x), need),
        Entrant("sampled, 150 permutations", lambda: shapley.sampled(x, permutations=150), need),
        Entrant("approximate", lambda: shapley.approximate(x), 2 * need),
        Entrant("PyTorch, v(N) once", lambda: torch.linalg.vector_norm(x.sum(0)), need),
    ]
    race(size.case("shapley of updates"), entrants, base="gram")
