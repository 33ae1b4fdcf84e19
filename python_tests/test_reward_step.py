"""One round as a whole: against the formulas, against its own steps, and through every door."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import DTYPES, Ranks, assert_same_bits, assert_same_selection, f64
from torch import Tensor

import cgsv_ext
from cgsv_ext import RewardStep, reference

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)

LARGE = 60_007 if "CGSV_SIMT_LIBRARY" in os.environ else 300_007


def check(
    step: RewardStep, x: Tensor, importance: Tensor, segments: list[int] | None, options: dict[str, Any]
) -> None:
    """All that is promised of a round, each step from what the one before returned."""
    n, d = x.shape
    plain = {key: options[key] for key in ("gamma", "alpha", "floor")}
    plain |= {key: options[key].tolist() for key in ("weights", "norms") if options.get(key) is not None}
    expected = oracle.mechanism(f64(x), importance.tolist(), **plain)

    np.testing.assert_allclose(f64(step.norms), expected.norms, rtol=1e-6)
    assert step.valid.tolist() == expected.valid.tolist()
    wrong = np.abs(f64(step.aggregate) - expected.aggregate) > 1e-6 * expected.spread + 2e-45
    assert not wrong.any()
    if expected.well_conditioned:
        np.testing.assert_allclose(f64(step.cosines), expected.cosines, rtol=0, atol=1e-6)
    before = [r if math.isfinite(r) else 0.0 for r in importance.tolist()]
    r = oracle.moving_average(before, step.cosines.tolist(), alpha=options["alpha"], floor=options["floor"])
    if options["floor"] is not None or step.importance.abs().max() < 1e3:
        np.testing.assert_allclose(f64(step.importance), r, rtol=1e-6, atol=1e-9)

    sizes = [d] if segments is None else segments
    quotas = torch.tensor(oracle.quotas(step.importance.tolist(), sizes, options["beta"]))
    assert (step.quotas.reshape(n, -1).cpu() - quotas).abs().max() <= (0 if x.is_cpu else 1)
    assert step.quotas.shape == ((n,) if segments is None else (n, len(segments)))

    ranks = Ranks(step.aggregate, segments)
    assert_same_selection(step.selection, ranks.selection(step.quotas))
    if step.rewards is not None:
        assert_same_bits(step.rewards, ranks.rewards(step.quotas, x.dtype))
    assert (step.aggregate.dtype, step.norms.dtype, step.cosines.dtype, step.importance.dtype) == (
        oracle.aggregate_dtype(x.dtype),
        torch.float64,
        torch.float64,
        torch.float64,
    )


def sizes_of(d: int, count: int, seed: int) -> list[int]:
    """`count` non-negative integers that sum to d."""
    cuts = torch.randint(0, d + 1, (count - 1,), generator=oracle.generator(seed)).sort().values.tolist()
    return [end - start for start, end in zip([0, *cuts], [*cuts, d], strict=True)]


@dtypes
@settings(max_examples=80)
@given(case=oracle.rounds(), layers=st.integers(0, 5))
def test_a_round_is_what_the_paper_says(
    device: torch.device, dtype: torch.dtype, case: dict[str, Any], layers: int
) -> None:
    x, importance, options = oracle.arguments(case, dtype, device)
    segments = sizes_of(case["d"], layers, case["seed"]) if layers else None
    check(cgsv_ext.reward_step(x, importance, segments=segments, **options), x, importance, segments, options)


@dtypes
@settings(max_examples=30)
@given(case=oracle.rounds(), layers=st.integers(0, 3))
def test_the_reference_agrees(
    device: torch.device, dtype: torch.dtype, case: dict[str, Any], layers: int
) -> None:
    x, importance, options = oracle.arguments(case, dtype, device)
    segments = sizes_of(case["d"], layers, case["seed"]) if layers else None
    check(
        reference.reward_step(x, importance, segments=segments, **options), x, importance, segments, options
    )


def step_by_step(
    x: Tensor,
    importance: Tensor,
    *,
    segments: list[int] | None = None,
    norms: Tensor | None = None,
    **options: Any,
) -> RewardStep:
    r = importance.double().nan_to_num(0, 0, 0)
    weights = options["weights"]
    if weights is None:
        weights = r if r.any() else torch.full_like(r, 1 / len(r))
    found = cgsv_ext.norms(x) if norms is None else norms.double()
    u, cosines, _ = cgsv_ext.aggregate(x, weights, gamma=options["gamma"], norms=found)
    r = cgsv_ext.update_importance(importance, cosines, alpha=options["alpha"], floor=options["floor"])
    q = cgsv_ext.quotas(r, x.shape[1] if segments is None else segments, beta=options["beta"])
    selection = cgsv_ext.select(u, q, segments=segments)
    rewards = cgsv_ext.download(u, selection, segments=segments, dtype=x.dtype)
    return RewardStep(rewards, r, cosines, q, u, selection, found, (found > 0) & found.isfinite())


@dtypes
@settings(max_examples=30)
@given(case=oracle.rounds(), layers=st.integers(0, 3), given_norms=st.booleans())
def test_a_round_is_its_steps_one_at_a_time(
    device: torch.device, dtype: torch.dtype, case: dict[str, Any], layers: int, given_norms: bool
) -> None:
    x, importance, options = oracle.arguments(case, dtype, device)
    options["segments"] = sizes_of(case["d"], layers, case["seed"]) if layers else None
    options["norms"] = cgsv_ext.norms(x) if given_norms else None
    expected = step_by_step(x, importance, **options)
    assert_same_bits(cgsv_ext.reward_step(x, importance, **options), expected)


@dtypes
def test_a_large_round_is_its_steps_one_at_a_time(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.updates_of("alike", 7, 300_011, dtype, 0).to(device)
    importance = torch.rand(7, generator=oracle.generator(0)).to(device)
    options: dict[str, Any] = oracle.HYPERPARAMETERS | {"weights": None}
    for segments in (None, [100_000, 0, 1, 200_010]):
        step = cgsv_ext.reward_step(x, importance, segments=segments, **options)
        assert_same_bits(step, step_by_step(x, importance, segments=segments, **options))
        check(step, x, importance, segments, options)


@pytest.mark.parametrize("kind", oracle.HARD)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=oracle.name)
def test_a_round_on_a_hard_aggregate(device: torch.device, dtype: torch.dtype, kind: str) -> None:
    """One agent of two sends the aggregate, the other all but nothing: the selection faces the former."""
    if "nan" in kind or "inf" in kind:
        pytest.skip("no agent that sends these takes part")
    u = oracle.hard(kind, 30_011, dtype).to(device)
    x = torch.stack([u, u, torch.ones_like(u)])
    importance = torch.tensor([0.5, 0.3, 0.2], device=device)
    weights = torch.tensor([1.0, 0.0, 0.0], device=device)
    options: dict[str, Any] = oracle.HYPERPARAMETERS | {"weights": weights}
    check(cgsv_ext.reward_step(x, importance, **options), x, importance, None, options)


def test_the_defaults_are_those_documented(device: torch.device) -> None:
    x = oracle.normal(4, 100).to(device)
    r = torch.tensor([0.1, 0.2, 0.3, 0.4], device=device)
    expected = cgsv_ext.reward_step(x, r, gamma=0.5, alpha=0.95, beta=1.0, floor=1e-3)
    assert_same_bits(cgsv_ext.reward_step(x, r), expected)
    check(expected, x, r, None, oracle.HYPERPARAMETERS)


# Doors: the same input in another form gives the same bits.


@dtypes
@pytest.mark.parametrize("d", [1, 33, 513, 5003])
def test_strided_listed_and_contiguous_updates_give_the_same_bits(
    device: torch.device, dtype: torch.dtype, d: int
) -> None:
    x = oracle.normal(4, d, dtype=dtype).to(device)
    r = torch.tensor([0.4, 0.1, 0.2, 0.3], device=device)
    expected = cgsv_ext.reward_step(x, r)
    for pad in (1, 3, 64):
        wide = torch.full((4, d + pad), math.nan, dtype=dtype, device=device)
        wide[:, pad:] = x
        assert_same_bits(cgsv_ext.reward_step(wide[:, pad:], r), expected)
    every_other = torch.full((8, d), math.nan, dtype=dtype, device=device)
    every_other[::2] = x
    assert_same_bits(cgsv_ext.reward_step(every_other[::2], r), expected)
    assert_same_bits(cgsv_ext.reward_step(list(x), r), expected)
    assert_same_bits(cgsv_ext.reward_step(tuple(row.clone()[None, :, None] for row in x), r), expected)


@dtypes
def test_one_agent_in_a_list(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.normal(6, 4, dtype=dtype).to(device)
    r = torch.ones(1, device=device)
    step = cgsv_ext.reward_step([x], r)
    assert step.rewards is not None
    assert step.rewards.shape == (1, 24)
    assert_same_bits(step, cgsv_ext.reward_step(x.view(1, 24), r))


@dtypes
def test_expanded_and_overlapping_rows_may_be_read(device: torch.device, dtype: torch.dtype) -> None:
    row = oracle.normal(1, 700, dtype=dtype).to(device)
    r = torch.tensor([0.5, 0.3, 0.2], device=device)
    assert_same_bits(cgsv_ext.reward_step(row.expand(3, 700), r), cgsv_ext.reward_step(row.repeat(3, 1), r))
    windows = row.flatten().unfold(0, 500, 100)
    assert_same_bits(cgsv_ext.reward_step(windows, r), cgsv_ext.reward_step(windows.contiguous(), r))


@dtypes
@pytest.mark.parametrize("shape", [(1, 1), (3, 100), (5, 5003), (9, LARGE)], ids=str)
@pytest.mark.parametrize("segmented", [False, True])
def test_out_dense_and_thresholds_agree(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, int], segmented: bool
) -> None:
    n, d = shape
    x = oracle.updates_of("integers", n, d, dtype, 1).to(device)
    r = torch.rand(n, generator=oracle.generator(1)).to(device)
    segments = sizes_of(d, 4, 1) if segmented else None
    dense = cgsv_ext.reward_step(x, r, segments=segments)
    out = torch.full((n, d), math.nan, dtype=dtype, device=device)
    into = cgsv_ext.reward_step(x, r, segments=segments, out=out)
    assert into.rewards is out
    assert_same_bits(into, dense)
    thresholds = cgsv_ext.reward_step(x, r, segments=segments, dense=False)
    assert thresholds.rewards is None
    assert_same_bits(thresholds, dense._replace(rewards=None))
    if n * d < 10**5:
        mask = reference.download(dense.aggregate, dense.selection, segments=segments, dtype=dtype)
        assert_same_bits(dense.rewards, mask)


@dtypes
def test_out_may_lie_between_other_data(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.normal(3, 1001, dtype=dtype).to(device)
    around = torch.full((3 * 1001 + 10,), 7.0, dtype=dtype, device=device)
    step = cgsv_ext.reward_step(x, torch.zeros(3, device=device), out=around[5:-5].view(3, 1001))
    assert_same_bits(step.rewards, cgsv_ext.reward_step(x, torch.zeros(3, device=device)).rewards)
    assert (around[:5] == 7).all()
    assert (around[-5:] == 7).all()


@dtypes
@pytest.mark.parametrize("d", [40, 2000])
def test_norms_known_already_change_nothing(device: torch.device, dtype: torch.dtype, d: int) -> None:
    x = oracle.normal(3, d, dtype=dtype).to(device)
    r = torch.tensor([0.5, 0.3, 0.2], device=device)
    expected = cgsv_ext.reward_step(x, r)
    assert_same_bits(cgsv_ext.reward_step(x, r, norms=expected.norms), expected)


@dtypes
def test_one_segment_is_the_whole(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.normal(3, 3000, dtype=dtype).to(device)
    r = torch.tensor([0.5, 0.3, 0.2], device=device)
    whole, one = cgsv_ext.reward_step(x, r), cgsv_ext.reward_step(x, r, segments=[3000])
    assert one.quotas.shape == one.selection.magnitude.shape == one.selection.last_index.shape == (3, 1)
    flat = one._replace(
        quotas=one.quotas[:, 0], selection=cgsv_ext.Selection(*(t[:, 0] for t in one.selection))
    )
    assert_same_bits(flat, whole)


# Symmetry


@dtypes
@pytest.mark.parametrize("d", [1, 100, 5003])
def test_identical_agents_get_identical_bits(device: torch.device, dtype: torch.dtype, d: int) -> None:
    x = oracle.normal(7, d, dtype=dtype)
    twins = [0, 3, 6]
    x[twins] = x[0].clone()
    r = torch.tensor([0.2, 0.1, 0.05, 0.2, 0.15, 0.1, 0.2], device=device)
    for norms in (None, cgsv_ext.norms(x.to(device))):
        step = cgsv_ext.reward_step(x.to(device), r, norms=norms)
        assert step.rewards is not None
        for t in (step.rewards, step.importance, step.cosines, step.quotas, step.norms, *step.selection):
            for twin in twins[1:]:
                assert_same_bits(t[twin], t[0])


@dtypes
def test_the_order_of_the_agents_does_not_matter(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.updates_of("alike", 6, 2000, dtype, 0).to(device)
    r = torch.rand(6, generator=oracle.generator(1)).to(device)
    order = torch.randperm(6, generator=oracle.generator(2)).to(device)
    plain, shuffled = cgsv_ext.reward_step(x, r), cgsv_ext.reward_step(x[order], r[order])
    torch.testing.assert_close(shuffled.importance, plain.importance[order], rtol=0, atol=1e-6)
    assert (shuffled.quotas - plain.quotas[order]).abs().max() <= 1
    torch.testing.assert_close(shuffled.aggregate, plain.aggregate, rtol=1e-6, atol=1e-8)


@dtypes
def test_rounds_may_follow_each_other(device: torch.device, dtype: torch.dtype) -> None:
    importance = torch.zeros(5, dtype=torch.float64, device=device)
    for t in range(6):
        x = oracle.updates_of("alike", 5, 401, dtype, t).to(device)
        step = cgsv_ext.reward_step(x, importance)
        check(step, x, importance, None, oracle.HYPERPARAMETERS)
        assert math.isclose(step.importance.sum().item(), 1, rel_tol=1e-9)
        importance = step.importance


@dtypes
def test_rows_that_are_2_to_the_31_elements_apart(device: torch.device, dtype: torch.dtype) -> None:
    """Only the pages that rows lie on are ever touched."""
    n, d, stride = 2, 1009, (1 << 31) + 513
    x = oracle.updates_of("normal", n, d, dtype, 0).to(device)
    try:
        memory = torch.empty(stride + d, dtype=dtype, device=device)
    except RuntimeError as error:  # where the system grants no more addresses than it has memory
        pytest.skip(f"{(stride + d) * dtype.itemsize / 2**30:.0f} GiB of addresses: {error!s:.60}")
    apart = memory.as_strided((n, d), (stride, 1)).copy_(x)
    r = torch.tensor([0.4, 0.6], device=device)
    step = cgsv_ext.reward_step(apart, r)
    assert_same_bits(step, cgsv_ext.reward_step(x, r))
    cgsv_ext.download_(apart, step.aggregate, step.selection)
    cgsv_ext.download_(x, step.aggregate, step.selection)
    assert_same_bits(apart.contiguous(), x)


@pytest.mark.large
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=oracle.name)
def test_more_than_2_to_the_31_columns(device: torch.device, dtype: torch.dtype) -> None:
    """Takes a minute or two."""
    d = (1 << 31) + 1003
    x = torch.zeros(1, d, dtype=dtype, device=device)
    x[0, 7], x[0, -1], x[0, -2] = 1, -2, 2
    x[0, 1 << 31] = 2
    one = torch.ones(1, device=device)
    step = cgsv_ext.reward_step(x, one, gamma=3.605551275463989, floor=None)
    assert step.quotas.tolist() == [d]
    assert step.selection.magnitude.tolist() == [0.0]
    assert step.selection.last_index.tolist() == [d - 3]
    assert step.aggregate.count_nonzero() == 4
    assert step.rewards is not None
    assert step.rewards[0, [7, 1 << 31, -2, -1]].tolist() == [1.0, 2.0, 2.0, -2.0]
    assert step.rewards.count_nonzero() == 4
    q = torch.tensor([1, 2, 3, 4, 5, d - 1], device=device)
    selection = cgsv_ext.select(step.aggregate, q)
    assert selection.last_index.tolist() == [1 << 31, d - 2, d - 1, 7, 0, d - 4]
    cgsv_ext.download_(step.rewards, step.aggregate, cgsv_ext.Selection(*(t[1:2] for t in selection)))
    assert step.rewards[0, [7, 1 << 31, -2, -1]].tolist() == [1.0, 4.0, 4.0, -2.0]


def test_results_are_saved_and_loaded(device: torch.device, tmp_path: Path) -> None:
    step = cgsv_ext.reward_step(oracle.normal(3, 8).to(device), torch.zeros(3, device=device))
    torch.save(step, tmp_path / "step.pt")
    loaded = torch.load(tmp_path / "step.pt")
    assert isinstance(loaded, cgsv_ext.RewardStep)
    assert_same_bits(loaded, step)
