"""What each agent is worth to the others: the cosine gradient Shapley value, exact and sampled.

The game of equation (2): a coalition S is worth ``v(S) = cos(u_S, u_N)``, with ``u_S = Σ_{i∈S} p_i u_i`` and
``u_i = Γ Δw_i / ‖Δw_i‖``. The paper has its exact value cost O(2^N · D). But ``⟨u_S, u_N⟩`` and ``‖u_S‖²``
are sums over entries of the Gram matrix (:func:`cgsv_ext.gram`), which takes one pass over the updates; after
that, nothing here depends on D. Γ cancels.

All functions take either ``updates`` or ``gram``, and ``weights``:

updates : Tensor or sequence of Tensor
    As in :func:`cgsv_ext.norms`.
weights : Tensor, optional
    (N,), any floating dtype, on the same device: p, 1/N by default. Any real numbers, also negative; only
    their ratios matter. One that is not finite counts as 0.
gram : Tensor, optional
    (N, N), any floating dtype: ``cgsv_ext.gram(updates)``, where it is at hand. The inner products of the
    updates themselves do as well: rows are divided by the lengths on the diagonal. The symmetric part counts.

Edge cases: ``v(∅) = 0``. A coalition whose updates cancel is worth 0: ``u_S`` counts as zero where
``‖u_S‖² ≤ 1e-12 · (Σ_{i∈S} |p_i|)²`` (with Γ = 1). Where ``u_N`` does, all is 0. An agent whose norm is zero
or not finite, or whose weight is 0, is a null player: its value is exactly 0 and it changes no one else's.

Results are float64 on the device of the input. All but the Gram matrix is the work of the CPU's threads, so
that for updates on a GPU a call waits for the GPU. The bits do not depend on the number of threads or on the
instruction set. Errors as in the rest of the package.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, isfinite, log
from numbers import Integral
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import _checks
from ._load import require
from ._ops import array, ops
from .types import Estimate, Updates, dtype_name

__all__ = ["approximate", "banzhaf", "exact", "leave_one_out", "sampled", "value"]

_core = require().shapley

Progress = Callable[[int, int], object]
"""Called as ``progress(done, total)``, in coalitions; an exception it raises stops the work."""


class _Game(NamedTuple):
    gram: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    device: torch.device


def _inputs(
    op: str, updates: Updates | None, weights: Tensor | None, gram: Tensor | None
) -> tuple[list[Tensor], int, Tensor | None]:
    """Tensors that hold the game (rows of updates, or [gram]), the number of agents, and the weights."""
    if (updates is None) == (gram is None):
        got = "neither" if gram is None else "both"
        raise ValueError(f"{op}(): expected exactly one of updates and gram, got {got}")
    if updates is not None:
        given = _checks.rows(op, "updates", updates)
        n = len(given)
        if n == 1:
            shape = tuple(given[0].shape)
            if len(shape) != 2 or 0 in shape:
                raise ValueError(f"{op}(): expected updates of shape (N, D), N ≥ 1 and D ≥ 1, got {shape}")
            n = shape[0]
    else:
        given = [_checks.floating(op, "gram", _checks.tensor(op, "gram", gram))]
        n = given[0].shape[0] if given[0].dim() else 0
        if given[0].shape != (n, n) or n == 0:
            raise ValueError(f"{op}(): expected gram of shape (N, N), N ≥ 1, got {tuple(given[0].shape)}")
    if given[0].is_meta:
        raise ValueError(f"{op}(): expected {'gram' if gram is not None else 'updates'} with data, got meta")
    if weights is not None:
        weights = _checks.floating(op, "weights", _checks.tensor(op, "weights", weights, given[0]))
        if weights.shape != (n,):
            raise ValueError(
                f"{op}(): expected weights of shape ({n},), one entry per agent, got {tuple(weights.shape)}"
            )
    return given, n, weights


def _call(op: str, function: Callable[..., Any], *arguments: object) -> Any:
    """Call another op, whose errors are then this one's."""
    try:
        return function(*arguments)
    except ValueError as error:
        raise ValueError(f"{op}(): {str(error).partition('(): ')[2]}") from None


def _game(op: str, given: list[Tensor], n: int, weights: Tensor | None, gram: Tensor | None) -> _Game:
    g = _call(op, ops.gram, given) if gram is None else given[0]
    w = np.full(n, 1 / n) if weights is None else array(weights, torch.float64)
    return _Game(array(g, torch.float64), w, g.device)


def _tensor(game: _Game, values: npt.NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values).to(game.device)


def exact(
    updates: Updates | None = None,
    weights: Tensor | None = None,
    *,
    gram: Tensor | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Exact cosine gradient Shapley values φ, equation (2).

    ``φ_i = (1 / N!) Σ_π [v(S_{π,i} ∪ {i}) − v(S_{π,i})]``, from all 2^N coalitions.

    Parameters
    ----------
    updates, weights, gram
        See :mod:`cgsv_ext.shapley`; at most 32 agents.
    progress : callable, optional
        Called as ``progress(done, total)``, in coalitions, every 2^24 of them: once up to N = 24, 256 times
        for N = 32. Ctrl-C is answered as often.

    Returns
    -------
    Tensor
        (N,) float64. They sum to v(N), which is 1 (0 where ``u_N`` counts as zero).
    """
    return _semivalue("exact", False, updates, weights, gram, progress)


def banzhaf(
    updates: Updates | None = None,
    weights: Tensor | None = None,
    *,
    gram: Tensor | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Exact Banzhaf values: the mean marginal contribution over all coalitions of the others.

    ``β_i = 2^{1−N} Σ_{S ∌ i} [v(S ∪ {i}) − v(S)]``. They need not sum to v(N).

    Parameters
    ----------
    updates, weights, gram, progress
        As in :func:`exact`, and the same work.

    Returns
    -------
    Tensor
        (N,) float64.
    """
    return _semivalue("banzhaf", True, updates, weights, gram, progress)


def _semivalue(
    op: str,
    banzhaf: bool,
    updates: Updates | None,
    weights: Tensor | None,
    gram: Tensor | None,
    progress: Progress | None,
) -> Tensor:
    given, n, weights = _inputs(op, updates, weights, gram)
    if progress is not None and not callable(progress):
        raise TypeError(f"{op}(): expected progress to be callable, got {type(progress).__name__}")
    if n > _core.most_agents:
        raise ValueError(
            f"{op}(): expected at most {_core.most_agents} agents, got {n}, whose 2^{n} coalitions would "
            f"take some {_duration(n)}; sampled() estimates Shapley values in O(N²) a permutation"
        )
    game = _game(op, given, n, weights, gram)
    return _tensor(game, _core.exact(game.gram, game.weights, banzhaf, progress))


def _duration(n: int) -> str:
    """How long 2^n coalitions would take here, from the time of 2^20."""
    tried = 20

    def trial() -> float:
        start = perf_counter()
        _core.exact(np.eye(tried), np.ones(tried), False, None)
        return perf_counter() - start

    left: float = min(trial() for _ in range(3)) * 2.0 ** (n - tried)
    for unit, length in (("seconds", 60), ("minutes", 60), ("hours", 24), ("days", 365)):
        if left < 2 * length:
            return f"{left:.0f} {unit}"
        left /= length
    return f"{left:.2g} years"


def sampled(
    updates: Updates | None = None,
    weights: Tensor | None = None,
    *,
    epsilon: float = 0.1,
    delta: float = 0.1,
    permutations: int | None = None,
    antithetic: bool = False,
    stratified: bool = False,
    generator: torch.Generator | None = None,
    gram: Tensor | None = None,
) -> Estimate:
    """Shapley values estimated from random permutations, in O(N²) each, whatever D is.

    The mean marginal contribution along permutations drawn uniformly is unbiased for φ. Their number is
    ``⌈ln(2/δ) / (2 ε²)⌉`` by default (Maleki et al. 2013, the paper's (ε, δ)-approximation): enough that each
    φ_i is within ε with probability 1 − δ by Hoeffding's inequality if marginal contributions span 1. Cosines
    can span 2, which would take four times as many; the standard errors say what was reached.

    Parameters
    ----------
    updates, weights, gram
        See :mod:`cgsv_ext.shapley`.
    epsilon, delta : float
        ε > 0 and δ in (0, 1); not used where `permutations` is given.
    permutations : int, optional
        How many, at least 1; rounded up to whole groups, see below.
    antithetic : bool
        Draw each permutation together with its reverse, so that who comes early in one comes late in the
        other. Groups of 2.
    stratified : bool
        Draw each permutation together with its N − 1 other rotations, so that each agent stands in each
        place equally often. Groups of N, or of 2N with `antithetic`.
    generator : torch.Generator, optional
        On the CPU; torch's own by default. The same state gives the same bits.

    Returns
    -------
    Estimate
        ``values`` (N,) float64; ``standard_errors`` (N,) float64, of the values, from the scatter of the
        groups (of single permutations without either option), NaN where there is only one;
        ``permutations``, the number drawn.

    Examples
    --------
    >>> estimate = cgsv_ext.shapley.sampled(updates, permutations=1000, antithetic=True)
    >>> estimate.values, estimate.standard_errors
    """
    op = "sampled"
    given, n, weights = _inputs(op, updates, weights, gram)
    epsilon, delta = _checks.number(op, "epsilon", epsilon), _checks.number(op, "delta", delta)
    if not (isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"{op}(): expected epsilon to be finite and > 0, got {epsilon:g}")
    if not 0 < delta < 1:
        raise ValueError(f"{op}(): expected delta in (0, 1), got {delta:g}")
    if permutations is None:
        permutations = _permutations_for(op, epsilon, delta)
    elif not isinstance(permutations, Integral) or isinstance(permutations, bool):
        raise TypeError(f"{op}(): expected permutations to be an int, got {type(permutations).__name__}")
    elif permutations < 1:
        raise ValueError(f"{op}(): expected permutations ≥ 1, got {permutations}")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"{op}(): expected a torch.Generator, got {type(generator).__name__}")
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(f"{op}(): expected a generator on the CPU, got one on {generator.device}")

    game = _game(op, given, n, weights, gram)
    size = (n if stratified else 1) * (2 if antithetic else 1)
    groups = -(-int(permutations) // size)
    batch = max(1, (1 << 20) // (size * n))  # so many groups take some MB at a time
    mean, squares = np.zeros(n), np.zeros(n)
    for done in range(0, groups, batch):
        count = min(batch, groups - done)
        drawn = _draw(count, n, antithetic, stratified, generator)
        part, part_squares = _core.sampled(game.gram, game.weights, drawn)
        # Chan et al.'s merging of means and of sums of squared distances from them.
        distance, total = part - mean, done + count
        mean = mean + distance * (count / total)
        squares = squares + part_squares + distance**2 * (done * (count / total))
    errors = np.sqrt(squares / (groups - 1) / groups) if groups > 1 else np.full(n, np.nan)
    return Estimate(_tensor(game, mean), _tensor(game, errors), groups * size)


def _permutations_for(op: str, epsilon: float, delta: float) -> int:
    """⌈ln(2/δ) / (2 ε²)⌉."""
    count = log(2 / delta) / 2 / epsilon / epsilon
    if count > 2**53:
        raise ValueError(f"{op}(): expected an epsilon that some 1e15 permutations reach, got {epsilon:g}")
    return ceil(count)


def _draw(groups: int, n: int, antithetic: bool, stratified: bool, generator: torch.Generator | None) -> Any:
    """(groups, size, n) int64: each group of permutations from one that is uniformly distributed."""
    order = torch.rand(groups, 1, n, dtype=torch.float64, generator=generator).argsort(dim=2)
    if stratified:
        places = torch.arange(n)
        order = order[:, 0, (places + places[:, None]) % n]
    if antithetic:
        order = torch.cat([order, order.flip(2)], dim=1)
    return array(order, torch.int64)


def approximate(
    updates: Updates | None = None, weights: Tensor | None = None, *, gram: Tensor | None = None
) -> Tensor:
    """The paper's approximation ψ, equation (3): ``ψ_i = cos(u_i, u_N)``.

    What the reward step pays by. docs/valuation.md says how near it comes to φ, and when.

    Parameters
    ----------
    updates, weights, gram
        See :mod:`cgsv_ext.shapley`; any number of agents. From updates it is :func:`cgsv_ext.aggregate`
        that computes them, in O(N · D) rather than the O(N² · D) of the Gram matrix, and as accurately.

    Returns
    -------
    Tensor
        (N,) float64; 0 for an agent whose norm is zero or not finite. Agent i's weight is in ``u_N``, not in
        ``u_i``: an agent of weight 0 may have a ψ that is not 0.
    """
    given, n, weights = _inputs("approximate", updates, weights, gram)
    if gram is None:
        norms = _call("approximate", ops.norms, given)
        valid = norms.isfinite() & (norms > 0)
        w = torch.ones_like(norms) if weights is None else weights.detach().double()
        w = torch.where(valid & w.isfinite(), w, 0.0)
        w = w / w.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
        u, cosines, _ = ops.aggregate(given, w, 1.0, norms)
        counts = torch.linalg.vector_norm(u, dtype=torch.float64) > 1e-6 * w.abs().sum()
        return torch.where(counts, cosines, 0.0)
    game = _game("approximate", given, n, weights, gram)
    return _tensor(game, _core.approximate(game.gram, game.weights))


def value(
    coalitions: Tensor,
    updates: Updates | None = None,
    weights: Tensor | None = None,
    *,
    gram: Tensor | None = None,
) -> Tensor:
    """Worth of any coalitions, ``v(S) = cos(u_S, u_N)``, in O(N²) each: for estimators of your own.

    Parameters
    ----------
    coalitions : Tensor
        (..., N) bool: who is in.
    updates, weights, gram
        See :mod:`cgsv_ext.shapley`.

    Returns
    -------
    Tensor
        (...) float64, in [−1, 1].

    Examples
    --------
    >>> gram = cgsv_ext.gram(updates)
    >>> cgsv_ext.shapley.value(torch.tensor([True, False, True]), gram=gram)
    """
    given, n, weights = _inputs("value", updates, weights, gram)
    members = _checks.tensor("value", "coalitions", coalitions, given[0])
    if members.dtype != torch.bool:
        raise ValueError(f"value(): expected coalitions of bool, got {dtype_name(members.dtype)}")
    if members.dim() == 0 or members.shape[-1] != n:
        raise ValueError(
            f"value(): expected coalitions of shape (..., {n}), one entry per agent, "
            f"got {tuple(members.shape)}"
        )
    game = _game("value", given, n, weights, gram)
    values = _core.value(game.gram, game.weights, array(members.reshape(-1, n), torch.bool))
    return _tensor(game, values).reshape(members.shape[:-1])


def leave_one_out(
    updates: Updates | None = None, weights: Tensor | None = None, *, gram: Tensor | None = None
) -> Tensor:
    """What is lost without each agent: ``v(N) − v(N ∖ {i})``, in O(N³).

    Parameters
    ----------
    updates, weights, gram
        See :mod:`cgsv_ext.shapley`.

    Returns
    -------
    Tensor
        (N,) float64. Blind to agents that can replace each other: each of two twins loses little.
    """
    given, n, weights = _inputs("leave_one_out", updates, weights, gram)
    game = _game("leave_one_out", given, n, weights, gram)
    coalitions = np.concatenate([~np.eye(n, dtype=bool), np.ones((1, n), dtype=bool)])
    values = _core.value(game.gram, game.weights, coalitions)
    return _tensor(game, values[-1] - values[:-1])
