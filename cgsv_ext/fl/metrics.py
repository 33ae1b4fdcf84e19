"""Fairness, and means with their errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence


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
        end with the same model.
    """
    if min(standalone) == max(standalone) or min(final) == max(final):
        return None
    n = len(standalone)
    mean_x, mean_y = math.fsum(standalone) / n, math.fsum(final) / n
    x, y = [v - mean_x for v in standalone], [v - mean_y for v in final]
    xy = math.fsum(a * b for a, b in zip(x, y, strict=True))
    return 100 * xy / math.sqrt(math.fsum(a * a for a in x) * math.fsum(b * b for b in y))


def kendall(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's τ_b of two rankings, in [-1, 1]; NaN where either has no spread."""
    from scipy.stats import kendalltau

    return float(kendalltau(x, y).statistic)


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's r, in [-1, 1]; NaN where either side has no spread."""
    r = rho(x, y)
    return math.nan if r is None else r / 100


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
