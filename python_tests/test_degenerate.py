"""First rounds, agents that send rubbish, rounds in which nothing is left: the special cases."""

from __future__ import annotations

import math

import oracle
import pytest
import torch
from oracle import DTYPES, Ranks, assert_same_bits
from torch import Tensor

import cgsv_ext
from cgsv_ext import RewardStep

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)
NAMES = ["nan", "inf", "-inf", "inf and nan", "zeros"]


def rubbish(kind: str, d: int, dtype: torch.dtype) -> Tensor:
    row = oracle.normal(d, seed=9, dtype=dtype)
    if kind == "zeros":
        return row * 0
    for j, value in zip((0, d // 2, d - 1), kind.split(" and ") * 3, strict=False):
        row[j] = float(value)
    return row


def assert_finite(step: RewardStep) -> None:
    assert step.rewards is not None
    for t in (step.rewards, step.importance, step.cosines, step.aggregate):
        assert t.isfinite().all()


# First rounds


@dtypes
def test_in_the_first_round_all_weigh_the_same(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.normal(4, 300, dtype=dtype).to(device)
    zeros = torch.zeros(4, device=device)
    quarter = torch.full((4,), 0.25, device=device)
    expected = cgsv_ext.aggregate(x, quarter, gamma=0.5)
    for importance in (
        zeros,
        -zeros,
        torch.full((4,), math.nan, device=device),
        torch.tensor([0.0, math.inf, -math.inf, math.nan], device=device),
    ):
        step = cgsv_ext.reward_step(x, importance)
        assert_same_bits((step.aggregate, step.cosines, step.norms), tuple(expected))
        # ... while the moving average starts from the importance as it is: zero.
        assert_same_bits(step.importance, cgsv_ext.update_importance(zeros, expected.cosines))


def test_degenerate_agents_count_among_the_n_of_the_first_round(device: torch.device) -> None:
    x = oracle.normal(4, 300).to(device)
    x[1] = 0
    step = cgsv_ext.reward_step(x, torch.zeros(4, device=device))
    expected = cgsv_ext.aggregate(x, torch.full((4,), 0.25, device=device), gamma=0.5)
    assert_same_bits(step.aggregate, expected.aggregate)


def test_weights_rule_over_importance_in_any_round(device: torch.device) -> None:
    x = oracle.normal(3, 300).to(device)
    weights = torch.tensor([0.5, -0.25, 2.0], device=device)
    expected = cgsv_ext.aggregate(x, weights, gamma=0.5)
    for r in ([0.0, 0.0, 0.0], [0.5, 0.3, 0.2]):
        importance = torch.tensor(r, device=device)
        step = cgsv_ext.reward_step(x, importance, weights=weights)
        assert_same_bits((step.aggregate, step.cosines), expected[:2])
        assert_same_bits(step.importance, cgsv_ext.update_importance(importance, step.cosines))


def test_zero_weights_are_weights_all_the_same(device: torch.device) -> None:
    x = oracle.normal(3, 300).to(device)
    step = cgsv_ext.reward_step(x, torch.ones(3, device=device), weights=torch.zeros(3, device=device))
    assert not step.aggregate.any()
    assert step.cosines.tolist() == [0.0, 0.0, 0.0]


def test_one_importance_that_is_not_zero_makes_it_no_first_round(device: torch.device) -> None:
    x = oracle.normal(3, 300).to(device)
    for r in ([0.0, 1e-300, 0.0], [0.0, -0.5, 0.0]):
        importance = torch.tensor(r, dtype=torch.float64, device=device)
        expected = cgsv_ext.aggregate(x, importance, gamma=0.5).aggregate
        assert_same_bits(cgsv_ext.reward_step(x, importance).aggregate, expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_and_importance_that_are_not_finite_count_as_zero(device: torch.device, bad: float) -> None:
    x = oracle.normal(3, 300).to(device)
    with_bad = torch.tensor([0.5, bad, 0.25], device=device)
    with_zero = torch.tensor([0.5, 0.0, 0.25], device=device)
    assert_same_bits(cgsv_ext.reward_step(x, with_bad), cgsv_ext.reward_step(x, with_zero))
    expected = cgsv_ext.reward_step(x, with_zero, weights=with_zero)
    assert_same_bits(cgsv_ext.reward_step(x, with_zero, weights=with_bad), expected)
    assert_same_bits(cgsv_ext.aggregate(x, with_bad, gamma=0.5), cgsv_ext.aggregate(x, with_zero, gamma=0.5))


# Degenerate agents


@dtypes
@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("d", [1, 40, 3001])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_an_agent_that_sends_rubbish_takes_no_part(
    device: torch.device, dtype: torch.dtype, kind: str, d: int, place: int
) -> None:
    honest = oracle.normal(3, d, seed=d, dtype=dtype) + 3
    x = torch.cat([honest[:place], rubbish(kind, d, dtype)[None], honest[place:]]).to(device)
    r = torch.tensor([0.4, 0.3, 0.2], device=device)
    importance = torch.cat([r[:place], torch.tensor([0.1], device=device), r[place:]])
    others = [i for i in range(4) if i != place]

    step = cgsv_ext.reward_step(x, importance)
    assert_finite(step)
    assert step.valid.tolist() == [i != place for i in range(4)]
    assert step.cosines[place] == 0
    assert step.norms[place] == 0 or not step.norms[place].isfinite()

    alone = cgsv_ext.reward_step(honest.to(device), r)
    torch.testing.assert_close(step.aggregate, alone.aggregate, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(step.cosines[others], alone.cosines, rtol=0, atol=1e-6)
    torch.testing.assert_close(step.norms[others], alone.norms, rtol=1e-6, atol=0)
    ratio = step.importance[others] / step.importance[others].sum()
    torch.testing.assert_close(ratio, alone.importance / alone.importance.sum(), rtol=1e-6, atol=0)

    silent = oracle.moving_average(importance.tolist(), step.cosines.tolist(), alpha=0.95, floor=1e-3)
    assert math.isclose(step.importance[place].item(), silent[place], rel_tol=1e-6)
    assert_same_bits(step.rewards, Ranks(step.aggregate).rewards(step.quotas, dtype))


@dtypes
@pytest.mark.parametrize("kind", NAMES)
def test_an_agent_that_sends_rubbish_changes_no_bit_but_its_own_norm(
    device: torch.device, dtype: torch.dtype, kind: str
) -> None:
    x = oracle.normal(5, 3001, dtype=dtype).to(device)
    r = torch.tensor([0.1, 0.2, 0.3, 0.2, 0.2], device=device)
    x[2] = 0
    zeros = cgsv_ext.reward_step(x, r)
    x[2] = rubbish(kind, 3001, dtype).to(device)
    step = cgsv_ext.reward_step(x, r)
    assert_same_bits(step._replace(norms=zeros.norms), zeros)


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=oracle.name)
def test_an_agent_that_sends_1e30_is_one_among_others(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.normal(4, 2000, dtype=torch.float64)
    loud = x.clone()
    loud[1] *= 1e30
    r = torch.tensor([0.4, 0.3, 0.2, 0.1], device=device)
    plain = cgsv_ext.reward_step(x.to(dtype).to(device), r)
    step = cgsv_ext.reward_step(loud.to(dtype).to(device), r)
    assert step.valid.all()
    rounding = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(step.importance, plain.importance, rtol=rounding, atol=1e-6)
    torch.testing.assert_close(step.cosines, plain.cosines, rtol=rounding, atol=1e-6)
    torch.testing.assert_close(step.aggregate, plain.aggregate, rtol=rounding, atol=rounding * 0.05)


@pytest.mark.parametrize("norm", [math.nan, math.inf, -math.inf, 0.0, -0.0, -3.0])
@pytest.mark.parametrize("rest", ["honest", "nan"])
def test_a_norm_given_that_is_not_finite_and_positive_marks_its_agent(
    device: torch.device, norm: float, rest: str
) -> None:
    x = oracle.normal(3, 700).to(device)
    r = torch.tensor([0.5, 0.3, 0.2], device=device)
    norms = cgsv_ext.norms(x)
    norms[1] = norm
    if rest == "nan":
        x[1, 5] = math.nan
    step = cgsv_ext.reward_step(x, r, norms=norms)
    assert_finite(step)
    assert step.valid.tolist() == [True, False, True]
    assert step.cosines[1] == 0
    assert_same_bits(step.norms, norms)
    x[1] = 0
    silent = cgsv_ext.reward_step(x, r)
    assert_same_bits(step._replace(norms=silent.norms), silent)
    u, cosines, found = cgsv_ext.aggregate(x, r, gamma=0.5, norms=norms)
    assert_same_bits((u, cosines, found), (step.aggregate, step.cosines, norms))


# Degenerate rounds


@dtypes
@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("floor", [1e-3, 0.0, None])
def test_a_round_of_rubbish_alone(
    device: torch.device, dtype: torch.dtype, kind: str, floor: float | None
) -> None:
    x = torch.stack([rubbish(kind, 500, dtype)] * 3).to(device)
    r = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64, device=device)
    step = cgsv_ext.reward_step(x, r, floor=floor)
    assert_finite(step)
    assert not step.valid.any()
    assert not step.aggregate.any()
    assert not oracle.bits(step.rewards).any()  # +0, all of them
    assert step.cosines.tolist() == [0.0, 0.0, 0.0]
    expected = oracle.moving_average(r.tolist(), [0.0] * 3, alpha=0.95, floor=floor)
    torch.testing.assert_close(step.importance.tolist(), expected.tolist(), rtol=1e-9, atol=0)
    assert step.quotas[:2].tolist() == [500, 500]


@pytest.mark.parametrize("floor", [0.0, None])
def test_rubbish_in_the_first_round_without_a_floor_leaves_nothing(
    device: torch.device, floor: float | None
) -> None:
    x = torch.zeros(3, 500, device=device)
    step = cgsv_ext.reward_step(x, torch.zeros(3, device=device), floor=floor)
    assert step.importance.tolist() == [0.0, 0.0, 0.0]
    assert step.quotas.tolist() == [0, 0, 0]
    assert step.selection.magnitude.tolist() == [math.inf] * 3
    assert step.selection.last_index.tolist() == [-1, -1, -1]


def test_a_sum_that_is_not_positive_starts_over(device: torch.device) -> None:
    x = oracle.normal(3, 500).to(device)
    weights = torch.tensor([-1.0, -1.0, -1.0], device=device)
    step = cgsv_ext.reward_step(x, torch.zeros(3, device=device), weights=weights, floor=None)
    assert (step.cosines < 0).all()
    assert step.importance.tolist() == [0.0, 0.0, 0.0]
    assert step.quotas.tolist() == [0, 0, 0]
    assert step.rewards is not None
    assert not oracle.bits(step.rewards).any()
    following = cgsv_ext.reward_step(x, step.importance, floor=None)
    third = torch.full((3,), 1 / 3, dtype=torch.float64, device=device)
    assert_same_bits(following.aggregate, cgsv_ext.aggregate(x, third, gamma=0.5).aggregate)


@dtypes
def test_infinite_beta_gives_all_of_the_aggregate(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.updates_of("alike", 4, 700, dtype, 0).to(device)
    x[2] = -x[0]
    step = cgsv_ext.reward_step(x, torch.zeros(4, device=device), beta=math.inf, floor=0.0)
    assert step.importance[2] == 0
    assert step.quotas.tolist() == [700, 700, 0, 700]
    assert step.rewards is not None
    for i in (0, 1, 3):
        assert_same_bits(step.rewards[i], step.aggregate.to(dtype))
    assert not oracle.bits(step.rewards[2]).any()


def test_without_a_floor_an_agent_may_get_nothing(device: torch.device) -> None:
    x = oracle.updates_of("alike", 3, 700, torch.float32, 0).to(device)
    x[1] = -x[1]
    step = cgsv_ext.reward_step(x, torch.zeros(3, device=device), floor=None)
    assert step.importance[1] < 0
    assert step.quotas[1] == 0
    assert step.quotas.max() == 700


@dtypes
@pytest.mark.parametrize("d", [1, 2])
def test_the_smallest_rounds(device: torch.device, dtype: torch.dtype, d: int) -> None:
    x = torch.tensor([[3.0, 4.0]], dtype=dtype, device=device)[:, :d]
    step = cgsv_ext.reward_step(x, torch.zeros(1, device=device), gamma=1.0)
    assert step.quotas.tolist() == [d]
    assert step.importance.tolist() == [1.0]
    torch.testing.assert_close(step.cosines.tolist(), [1.0], rtol=0, atol=1e-6)
    assert_same_bits(step.rewards, step.aggregate.to(dtype)[None])


@dtypes
def test_cancelling_updates_leave_zeros_that_are_kept_by_index(
    device: torch.device, dtype: torch.dtype
) -> None:
    x = oracle.normal(1, 400, dtype=dtype).to(device)
    step = cgsv_ext.reward_step(
        torch.cat([x, -x]), torch.tensor([0.5, 0.25], device=device), weights=torch.ones(2, device=device)
    )
    assert step.cosines.tolist() == [0.0, 0.0]
    assert step.quotas[0] == 400
    q = step.quotas[1].item()
    assert 0 < q < 400
    assert step.selection.magnitude.tolist() == [0.0, 0.0]
    assert step.selection.last_index.tolist() == [399, q - 1]
