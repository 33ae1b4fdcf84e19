"""Fairness, gains, correlations, Theorem 2, orders and errors of means."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fl_runs import made_up, small
from hypothesis import given, settings
from hypothesis import strategies as st

from cgsv_ext.fl import FIGURE_2, rho, run
from cgsv_ext.fl.metrics import (
    correlations,
    fairness,
    gain,
    is_descending,
    mean_and_error,
    pearson,
    theorem_2,
)

numbers = st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=30)


@given(st.integers(0, 2**32), st.integers(2, 30), st.floats(-100, 100))
def test_rho_is_a_hundred_times_numpys_correlation(seed, agents, slope):
    random = np.random.default_rng(seed)
    x = random.normal(size=agents)
    y = slope * x + random.normal(size=agents)
    assert rho(x.tolist(), y.tolist()) == pytest.approx(100 * np.corrcoef(x, y)[0, 1], abs=1e-6)


@pytest.mark.parametrize(("slope", "expected"), [(2.0, 100.0), (-0.5, -100.0)])
def test_rho_of_a_straight_line(slope, expected):
    x = [0.1, 0.4, 0.6]
    assert rho(x, [slope * v + 1 for v in x]) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=10, unique=True))
def test_rho_never_leaves_its_range(x):
    found = rho(x, [3 * v for v in x])
    assert found is None or -100 <= found <= 100


def test_rho_is_undefined_without_spread():
    assert rho([0.1, 0.2], [0.9, 0.9]) is None
    assert rho([0.5, 0.5], [0.1, 0.9]) is None
    assert rho([0.1, 0.2], [math.nan, 0.9]) is None


def test_rho_is_the_same_in_any_unit():
    for scale in (1e-300, 1e300):
        assert rho([0.0, scale, scale / 2], [0.0, 1.0, 0.6]) == pytest.approx(
            rho([0, 1, 0.5], [0.0, 1.0, 0.6])
        )


def test_rho_is_undefined_where_all_agents_end_with_the_same_model():
    e = replace(FIGURE_2, rounds=3)
    fedavg, alone = (run(e, name, 100) for name in ("FedAvg", "standalone"))
    assert (fedavg.parameters == fedavg.server).all()
    assert fairness(fedavg, alone) is None


def test_gain_is_over_standalone_and_counts_who_loses():
    e = small(agents=4)
    alone = made_up(e, "standalone", 1, [0.5, 0.6, 0.7, 0.8])
    found = gain(made_up(e, "CGSV", 1, [0.7, 0.6, 0.6, 0.75]), alone)
    gains = np.array([0.2, 0.0, -0.1, -0.05])
    assert found.mean == pytest.approx(gains.mean())
    assert found.spread == pytest.approx(gains.std())
    assert found.losers == 2


def test_adversaries_count_for_nothing():
    e = small(agents=3, adversaries=("noise", "copier"))
    alone = made_up(e, "standalone", 1, [0.1, 0.2, 0.4, 0.9, 0.9])
    cgsv = made_up(e, "CGSV", 1, [0.2, 0.3, 0.5, 0.0, 0.0])
    assert fairness(cgsv, alone) == pytest.approx(100)
    assert gain(cgsv, alone) == pytest.approx((0.1, 0.0, 0), abs=1e-12)
    for name in ("importance", "training_loss", "distance"):
        getattr(cgsv, name)[..., 3:] = math.nan
    assert None not in correlations(cgsv.importance, cgsv, alone)
    assert theorem_2(cgsv).pairs == 2 * 3 * 2


@given(st.integers(0, 2**32), st.integers(2, 9))
@settings(max_examples=20)
def test_correlations_are_numpys(seed, agents):
    e = small(agents=agents, rounds=4)
    cgsv, alone = made_up(e, "CGSV", seed), made_up(e, "standalone", seed + 1)
    for importance in (cgsv.importance, cgsv.importance[-1:]):
        r = importance.numpy().mean(0)
        sides = [cgsv.accuracy[-1], -cgsv.training_loss, -cgsv.distance[-1], alone.accuracy[-1]]
        expected = [np.corrcoef(r, side.numpy())[0, 1] for side in sides]
        assert correlations(importance, cgsv, alone) == pytest.approx(expected, abs=1e-9)


def test_a_correlation_without_spread_or_importance_is_undefined():
    e = small()
    cgsv, alone = made_up(e, "CGSV", 1, [0.5, 0.5, 0.5]), made_up(e, "standalone", 1)
    assert correlations(cgsv.importance, cgsv, alone).accuracy is None
    assert correlations(cgsv.importance, cgsv, alone).standalone is not None
    fedavg = made_up(e, "FedAvg", 1)
    assert set(correlations(fedavg.importance, fedavg, alone)) == {None}
    assert theorem_2(fedavg) is None


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=50)
def test_theorem_2_counts_what_its_text_says(seed, agents, rounds, levels):
    e = small(agents=agents, rounds=rounds)
    random = torch.Generator().manual_seed(seed)

    # Few levels, so that both sides of ≥ and of ≤ are often equal.
    def draw():
        return torch.randint(0, levels + 1, (rounds, agents), generator=random).double()

    r, loss, distance, moved = draw(), draw(), draw(), draw() / 4
    found = theorem_2(made_up(e, "CGSV", 1, importance=r, loss=loss, distance=distance, reward_norm=moved))
    pairs = more = condition = conclusion = if_more = if_condition = 0
    for t, i, k in itertools.product(range(rounds), range(agents), range(agents)):
        if i == k:
            continue
        before = distance[t - 1] if t > 0 else torch.zeros(agents)
        first = bool(r[t, i] >= r[t, k])
        both = first and bool(before[k] - before[i] >= 2 * moved[t, i])
        holds = bool(loss[t, i] <= loss[t, k])
        pairs += 1
        more += first
        condition += both
        conclusion += holds
        if_more += first and holds
        if_condition += both and holds
    assert found == (pairs, more, condition, conclusion, if_more, if_condition)


def test_rho_and_correlations_are_pearsons_r():
    e = small()
    cgsv, alone = made_up(e, "CGSV", 1), made_up(e, "standalone", 2)
    r, ends, before = (x.tolist() for x in (cgsv.importance.mean(0), cgsv.accuracy[-1], alone.accuracy[-1]))
    assert fairness(cgsv, alone) == 100 * pearson(before, ends)
    assert correlations(cgsv.importance, cgsv, alone).accuracy == pearson(r, ends)
    assert math.isnan(pearson([0.5, 0.5], [0.1, 0.9]))
    assert math.isnan(pearson([0.1, 0.2], [math.nan, 0.9]))


def test_descending_compares_groups_only():
    order = ((3, 4), (0,), (1,), (2,))
    assert is_descending([0.3, 0.2, 0.1, 0.4, 0.5], order)
    assert is_descending([0.3, 0.2, 0.1, 0.5, 0.4], order)
    assert not is_descending([0.45, 0.2, 0.1, 0.4, 0.5], order)
    assert not is_descending([0.3, 0.2, 0.2, 0.4, 0.5], order)


@given(numbers)
def test_mean_and_standard_error_are_scipys(values):
    from scipy.stats import sem

    mean, error = mean_and_error(values)
    assert mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)
    assert error == pytest.approx(sem(values), rel=1e-9, abs=1e-9)


def test_one_value_has_no_error():
    assert mean_and_error([5.0]) == (5.0, None)
