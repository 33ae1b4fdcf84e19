"""A round whose agents are spread over ranks, each with all columns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracle
import pytest
import sharded
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import DTYPES, Ranks, assert_same_bits, f64
from ranks import Pool
from test_distributed import a_case, exact_updates, in_all_dtypes, sizes_of
from torch import Tensor

import cgsv_ext
from cgsv_ext import RewardStep, Selection

worlds = pytest.mark.parametrize("world", [2, 4])


def whole(answers: list[tuple[RewardStep, Tensor]]) -> tuple[RewardStep, Tensor]:
    """One step of all ranks' rows, and the downloads; what ranks must have alike is, the aggregate too."""
    first = answers[0][0]
    for step, _ in answers[1:]:
        for field in ("importance", "cosines", "quotas", "norms", "valid", "aggregate"):
            assert_same_bits(getattr(step, field), getattr(first, field), field)
    steps = [step for step, _ in answers]
    selection = Selection(
        *(torch.cat(parts) for parts in zip(*(step.selection for step in steps), strict=True))
    )
    rewards = torch.cat([step.rewards for step in steps])
    return first._replace(rewards=rewards, selection=selection), torch.cat([v for _, v in answers])


@worlds
@settings(max_examples=10)
@given(case=oracle.rounds(), layers=st.integers(0, 3), form=st.sampled_from(["matrix", "rows"]))
def test_a_round_is_that_of_one_machine(
    pool: Pool, world: int, case: dict[str, Any], layers: int, form: str
) -> None:
    cases = in_all_dtypes(case, "n", world, layers, form)
    for case, *answers in zip(cases, *pool(world, sharded.agent_rounds, cases), strict=True):
        check(case, answers)


def check(case: dict[str, Any], answers: list[tuple[RewardStep, Tensor]]) -> None:
    x, options = case["updates"], case["options"]
    step, downloads = whole(answers)
    one = cgsv_ext.reward_step(x, case["importance"], **options)
    plain = {key: options[key] for key in ("gamma", "alpha", "floor")}
    plain |= {key: options[key].tolist() for key in ("weights", "norms") if options.get(key) is not None}
    expected = oracle.mechanism(f64(x), case["importance"].tolist(), **plain)
    torch.testing.assert_close(step.norms, one.norms, rtol=1e-6, atol=0, equal_nan=True)
    # Partial sums are rounded to the aggregate's dtype before they are added.
    wrong = np.abs(f64(step.aggregate) - f64(one.aggregate)) > 1e-6 * expected.spread + 2e-45
    assert not wrong.any()
    if expected.well_conditioned:
        torch.testing.assert_close(step.cosines, one.cosines, rtol=0, atol=1e-6)
    r = oracle.moving_average(
        case["importance"].tolist(), step.cosines.tolist(), alpha=options["alpha"], floor=options["floor"]
    )
    if options["floor"] is not None or step.importance.abs().max() < 1e3:
        np.testing.assert_allclose(f64(step.importance), r, rtol=1e-6, atol=1e-9)
    segments = options["segments"]
    quotas = oracle.quotas(step.importance.tolist(), segments or [x.shape[1]], options["beta"])
    assert step.quotas.reshape(len(x), -1).tolist() == quotas
    ranks = Ranks(step.aggregate, segments)
    oracle.assert_same_selection(step.selection, ranks.selection(step.quotas))
    assert_same_bits(step.rewards, ranks.rewards(step.quotas, x.dtype))
    assert_same_bits(downloads, ranks.rewards(step.quotas, step.aggregate.dtype))


@worlds
@settings(max_examples=8)
@given(n=st.integers(1, 7), d=st.integers(1, 2000), seed=st.integers(0, 10**6))
def test_sums_that_are_exact_give_the_bits_of_one_machine(
    pool: Pool, world: int, n: int, d: int, seed: int
) -> None:
    x = exact_updates(n, d, seed)
    importance = 2.0 ** -torch.arange(n)
    cases = [a_case(x.to(dtype), sizes_of(n, world, seed), importance) for dtype in DTYPES]
    for case, *answers in zip(cases, *pool(world, sharded.agent_rounds, cases), strict=True):
        assert_same_bits(whole(answers)[0], cgsv_ext.reward_step(case["updates"], importance))


def test_agents_that_take_no_part(pool: Pool) -> None:
    x = oracle.normal(6, 50)
    x[1], x[3, 7], x[5, 0] = 0, math.nan, math.inf
    case = a_case(x, [2, 0, 3, 1], torch.rand(6, generator=oracle.generator(1)))
    (answers,) = zip(*pool(4, sharded.agent_rounds, [case]), strict=True)
    step, _ = whole(list(answers))
    one = cgsv_ext.reward_step(x, case["importance"])
    assert step.valid.tolist() == [True, False, True, False, True, False]
    assert torch.equal(step.quotas, one.quotas)
    torch.testing.assert_close(step.cosines, one.cosines, rtol=0, atol=1e-7)
    assert torch.equal(step.rewards != 0, one.rewards != 0)


def test_the_steps_one_at_a_time_are_the_round(pool: Pool) -> None:
    assert all(pool(2, sharded.agents_one_at_a_time))


def test_columns_must_be_the_same_everywhere(pool: Pool) -> None:
    text = "norms(): expected the same number of columns on every rank, got 5 on rank 0 and 6 on rank 1"
    assert pool.errors(2, sharded.uneven_rows) == [(ValueError, text)] * 2


def test_one_process_needs_no_group() -> None:
    x, r = oracle.normal(3, 100), torch.tensor([0.5, 0.3, 0.2])
    step, one = cgsv_ext.reward_step(x, r, dim="agents"), cgsv_ext.reward_step(x, r)
    torch.testing.assert_close(step.importance, one.importance)
    assert_same_bits(step.rewards, one.rewards)
