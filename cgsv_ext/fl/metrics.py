"""What is measured on finished runs: fairness, what taking part was worth, and Theorem 2.

Adversaries, if any, are agents beyond the N and left out of all that takes a Run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .record import Run


def rho(standalone: Sequence[float], final: Sequence[float]) -> float | None:
    """Fairness as §4.1 measures it: 100 · Pearson's r of the agents' accuracies alone and together.

    Parameters
    ----------
    standalone : sequence of float
        N test accuracies of agents who trained alone.
    final : sequence of float
        N test accuracies of the same agents after federated learning.

    Returns
    -------
    float or None
        In [-100, 100]. None where it is undefined: either side has no spread, such as when all agents
        end with the same model, or holds a NaN.
    """
    r = pearson(standalone, final)
    return None if math.isnan(r) else 100 * r


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's r, in [-1, 1]; NaN where either side has no spread or holds a NaN."""
    if any(map(math.isnan, (*x, *y))) or min(x) == max(x) or min(y) == max(y):
        return math.nan
    x, y = _deviations(x), _deviations(y)
    xy = math.fsum(a * b for a, b in zip(x, y, strict=True))
    r = xy / math.sqrt(math.fsum(a * a for a in x) * math.fsum(b * b for b in y))
    return max(-1.0, min(1.0, r))  # rounding may carry r a little beyond 1


def _deviations(values: Sequence[float]) -> list[float]:
    """Deviations from the mean, the largest scaled to 1: their squares neither vanish nor overflow."""
    mean = math.fsum(values) / len(values)
    apart = [value - mean for value in values]
    largest = max(map(abs, apart))
    return [each / largest for each in apart]


def kendall(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's τ_b of two rankings, in [-1, 1]; NaN where either has no spread."""
    from scipy.stats import kendalltau

    return float(kendalltau(x, y).statistic)


def apart(x: Sequence[float], y: Sequence[float]) -> float:
    """ℓ1 distance after each side is divided by its sum, as in the paper's Figure 1."""
    x_sum, y_sum = math.fsum(x), math.fsum(y)
    if x_sum == 0 or y_sum == 0:
        return math.nan
    return math.fsum(abs(a / x_sum - b / y_sum) for a, b in zip(x, y, strict=True))


def is_descending(values: Sequence[float], groups: Sequence[Sequence[int]]) -> bool:
    """Whether every value of a group lies above every value of the next group.

    ``is_descending(r, [[3, 4], [0], [1], [2]])`` reads r_4, r_5 > r_1 > r_2 > r_3 (counted from 1).
    """
    ranges = [[values[i] for i in group] for group in groups]
    return all(min(above) > max(below) for above, below in itertools.pairwise(ranges))


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard error of the mean; a single value has no error."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)


def final_accuracy(run: Run) -> Tensor:
    """(N,) float64: the agents' test accuracies at the end."""
    return run.accuracy[-1, : run.experiment.agents]


def fairness(run: Run, alone: Run) -> float | None:
    """ρ of a run against the standalone run of the same federation and seed; None where undefined."""
    return rho(final_accuracy(alone).tolist(), final_accuracy(run).tolist())


class Gain(NamedTuple):
    """What taking part was worth, in accuracy over standalone (in [-1, 1], so 0.01 is a point)."""

    mean: float
    """Over the agents."""
    spread: float
    """Standard deviation over the agents (of all N, not of a sample): 0 if all gain alike."""
    losers: int
    """How many agents end with less than they would have had alone, which ρ does not show."""


def gain(run: Run, alone: Run) -> Gain:
    """Gain in test accuracy over the standalone run of the same federation and seed."""
    gains = final_accuracy(run) - final_accuracy(alone)
    return Gain(gains.mean().item(), gains.std(correction=0).item(), int((gains < 0).sum()))


class Correlations(NamedTuple):
    """Pearson's r, in [-1, 1], of the agents' importance with …; None where either side has no spread."""

    accuracy: float | None
    """… their test accuracy at the end (Appendix B.3)."""
    training: float | None
    """… their negative training loss at the end: F(w_{i,T}) on all agents' training data (Appendix B.3)."""
    closeness: float | None
    """… the negative distance of their models from the server's at the end."""
    standalone: float | None
    """… their test accuracy had they trained alone."""


def correlations(importance: Tensor, run: Run, alone: Run) -> Correlations:
    """Whether who matters more gets more.

    Parameters
    ----------
    importance : Tensor
        (T', N or more): r_i of one round or several, of which the mean is taken: ``run.importance`` for all,
        ``run.importance[-1:]`` for r_{i,T}.
    run, alone : Run
        A run, and the standalone run of the same federation and seed.
    """
    n = run.experiment.agents
    mean = importance.mean(0)[:n].tolist()

    def with_(values: Tensor) -> float | None:
        r = pearson(mean, values[:n].tolist())
        return None if math.isnan(r) else r

    return Correlations(
        with_(run.accuracy[-1]),
        with_(-run.training_loss),
        with_(-run.distance[-1]),
        with_(alone.accuracy[-1]),
    )


class Theorem2(NamedTuple):
    """How often Theorem 2's condition and conclusion hold: counts over rounds and ordered pairs i ≠ i'.

    With δ_{i,t} = ‖w_t - w_{i,t}‖, the condition is r_{i,t} ≥ r_{i',t} and
    δ_{i',t-1} - δ_{i,t-1} ≥ 2 ‖v_{i,t}‖, and the conclusion F(w_{i,t}) ≤ F(w_{i',t}). F is measured on
    clean test data here: training labels may be corrupted, and are then no measure of a model.
    """

    pairs: int
    """T N (N - 1)."""
    more_important: int
    """Pairs with r_{i,t} ≥ r_{i',t}, the first half of the condition."""
    condition: int
    conclusion: int
    """Over all pairs. One of the two orders holds in any case, so half of them or more."""
    conclusion_if_more_important: int
    conclusion_if_condition: int


def theorem_2(run: Run) -> Theorem2 | None:
    """Count over a run; None for a mechanism that has no importance or no server's model."""
    n, rounds = run.experiment.agents, run.experiment.rounds
    r, loss, moved = run.importance[:, :n], run.loss[:, :n], run.reward_norm[:, :n]
    # All start at w_0, so δ_{i,0} = 0.
    before = torch.cat([torch.zeros(1, n, dtype=torch.float64), run.distance[:-1, :n]])
    if r.isnan().any() or before.isnan().any():
        return None
    # (T, N, N) with i in the rows and i' in the columns.
    others = ~torch.eye(n, dtype=torch.bool).expand(rounds, n, n)
    more_important = (r[:, :, None] >= r[:, None, :]) & others
    condition = more_important & (before[:, None, :] - before[:, :, None] >= 2 * moved[:, :, None])
    conclusion = (loss[:, :, None] <= loss[:, None, :]) & others
    counted = [more_important, condition, conclusion, conclusion & more_important, conclusion & condition]
    return Theorem2(int(others.sum()), *(int(each.sum()) for each in counted))
