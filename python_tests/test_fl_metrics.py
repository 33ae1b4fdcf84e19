"""The fairness metric, orders and errors of means."""

import math

import pytest
import torch

from cgsv_ext.fl import FIGURE_2, rho, run
from cgsv_ext.fl.metrics import is_descending, mean_and_error


def test_rho_is_a_hundred_times_pearson():
    x, y = [0.1, 0.5, 0.7, 0.8], [0.3, 0.2, 0.9, 0.95]
    expected = 100 * torch.corrcoef(torch.tensor([x, y], dtype=torch.float64))[0, 1].item()
    assert rho(x, y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("slope", "expected"), [(2.0, 100.0), (-0.5, -100.0)])
def test_rho_of_a_straight_line(slope, expected):
    x = [0.1, 0.4, 0.6]
    assert rho(x, [slope * v + 1 for v in x]) == pytest.approx(expected)


def test_rho_is_undefined_without_spread():
    assert rho([0.1, 0.2], [0.9, 0.9]) is None
    assert rho([0.5, 0.5], [0.1, 0.9]) is None


def test_rho_is_undefined_where_all_agents_end_with_the_same_model():
    fedavg, alone = (run(FIGURE_2, name, 100) for name in ("FedAvg", "standalone"))
    assert (fedavg.parameters == fedavg.server).all()
    assert rho(alone.accuracy[-1].tolist(), fedavg.accuracy[-1].tolist()) is None


def test_descending_compares_groups_only():
    order = ((3, 4), (0,), (1,), (2,))
    assert is_descending([0.3, 0.2, 0.1, 0.4, 0.5], order)
    assert is_descending([0.3, 0.2, 0.1, 0.5, 0.4], order)
    assert not is_descending([0.45, 0.2, 0.1, 0.4, 0.5], order)
    assert not is_descending([0.3, 0.2, 0.2, 0.4, 0.5], order)


def test_mean_and_standard_error():
    mean, error = mean_and_error([1.0, 2.0, 3.0, 6.0])
    assert mean == 3.0
    assert error == pytest.approx(math.sqrt(14 / 3 / 4))
    assert mean_and_error([5.0]) == (5.0, None)
