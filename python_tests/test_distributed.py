"""A round whose columns are spread over ranks: what one machine finds, the same on every rank."""

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
from oracle import DTYPES, HARD, Ranks, assert_same_bits, f64
from ranks import Pool
from torch import Tensor

import cgsv_ext
from cgsv_ext import RewardStep

worlds = pytest.mark.parametrize("world", [2, 4])


def sizes_of(d: int, count: int, seed: int) -> list[int]:
    """`count` non-negative integers that sum to d; some of them zero."""
    g = oracle.generator(seed)
    cuts = torch.randint(0, d + 1, (count - 1,), generator=g)
    if seed % 3 == 0 and count > 1:  # the same place twice, or an end
        cuts = cuts[torch.randint(0, count - 1, (count - 1,), generator=g)] * (seed % 2)
    cuts = cuts.sort().values.tolist()
    return [end - start for start, end in zip([0, *cuts], [*cuts, d], strict=True)]


def a_case(
    x: Tensor, sizes: list[int], importance: Tensor, form: str = "matrix", **options: Any
) -> dict[str, Any]:
    return {"updates": x, "sizes": sizes, "importance": importance, "form": form, "options": options}


def whole(answers: list[tuple[RewardStep, Tensor]]) -> tuple[RewardStep, Tensor]:
    """One step of all ranks' columns, and the downloads; what every rank must have alike is."""
    first = answers[0][0]
    for step, _ in answers[1:]:
        for field in ("importance", "cosines", "quotas", "norms", "valid"):
            assert_same_bits(getattr(step, field), getattr(first, field), field)
    steps = [step for step, _ in answers]
    rewards = None if first.rewards is None else torch.cat([step.rewards for step in steps], dim=1)
    u = torch.cat([step.aggregate for step in steps])
    return first._replace(rewards=rewards, aggregate=u), torch.cat([v for _, v in answers], dim=1)


def check(case: dict[str, Any], answers: list[tuple[RewardStep, Tensor]]) -> None:
    """Against one machine, and against the formulas from each step's own results on."""
    x, importance, options = case["updates"], case["importance"], case["options"]
    n, d = x.shape
    step, downloads = whole(answers)
    one = cgsv_ext.reward_step(x, importance, **options)
    settings_ = oracle.HYPERPARAMETERS | options
    plain = {key: settings_[key] for key in ("gamma", "alpha", "floor")}
    plain |= {key: options[key].tolist() for key in ("weights", "norms") if options.get(key) is not None}
    expected = oracle.mechanism(f64(x), importance.tolist(), **plain)

    torch.testing.assert_close(step.norms, one.norms, rtol=1e-6, atol=0, equal_nan=True)
    assert torch.equal(step.valid, one.valid)
    wrong = np.abs(f64(step.aggregate) - f64(one.aggregate)) > 1e-6 * expected.spread + 2e-45
    assert not wrong.any()
    if expected.well_conditioned or d == 1:
        torch.testing.assert_close(step.cosines, one.cosines, rtol=0, atol=1e-6)
    before = [r if math.isfinite(r) else 0.0 for r in importance.tolist()]
    r = oracle.moving_average(
        before, step.cosines.tolist(), alpha=settings_["alpha"], floor=settings_["floor"]
    )
    if settings_["floor"] is not None or step.importance.abs().max() < 1e3:
        np.testing.assert_allclose(f64(step.importance), r, rtol=1e-6, atol=1e-9)

    segments = options.get("segments")
    quotas = torch.tensor(oracle.quotas(step.importance.tolist(), segments or [d], settings_["beta"]))
    assert torch.equal(step.quotas.reshape(n, -1), quotas)
    if expected.well_conditioned:
        assert (step.quotas - one.quotas).abs().max() <= 1 + 1e-6 * d

    ranks = Ranks(step.aggregate, segments)
    assert_same_bits(step.rewards, ranks.rewards(step.quotas, x.dtype))
    assert_same_bits(downloads, ranks.rewards(step.quotas, step.aggregate.dtype))


def in_all_dtypes(
    case: dict[str, Any], spread: str, world: int, layers: int, form: str
) -> list[dict[str, Any]]:
    """One of oracle's rounds, with its agents, "n", or columns, "d", spread over the ranks unevenly."""
    cases = []
    for k, dtype in enumerate(DTYPES):
        x, importance, options = oracle.arguments(case, dtype, torch.device("cpu"))
        options["segments"] = sizes_of(case["d"], layers, case["seed"]) if layers else None
        options["norms"] = cgsv_ext.norms(x) if case["seed"] % 5 == 0 else None
        cases.append(a_case(x, sizes_of(case[spread], world, case["seed"] + k), importance, form, **options))
    return cases


@worlds
@settings(max_examples=12)
@given(case=oracle.rounds(), layers=st.integers(0, 4), form=st.sampled_from(["matrix", "rows"]))
def test_a_round_is_that_of_one_machine(
    pool: Pool, world: int, case: dict[str, Any], layers: int, form: str
) -> None:
    cases = in_all_dtypes(case, "d", world, layers, form)
    for case, *answers in zip(cases, *pool(world, sharded.rounds, cases), strict=True):
        check(case, answers)


def exact_updates(n: int, d: int, seed: int) -> Tensor:
    """Rows of −2 … 2 whose squares sum to a power of 4: all sums are exact, and ties are everywhere."""
    g = oracle.generator(seed)
    x = torch.zeros(n, d)
    for row in x:
        k = int(torch.randint(0, int(math.log(d, 4)) + 1, (), generator=g))
        twos = int(torch.randint(0, 4 ** max(k - 1, 0) + 1, (), generator=g)) if k else 0
        values = torch.tensor([2.0] * twos + [1.0] * (4**k - 4 * twos))
        signs = torch.randint(0, 2, values.shape, generator=g) * 2 - 1
        row[torch.randperm(d, generator=g)[: len(values)]] = values * signs
    return x


@worlds
@settings(max_examples=12)
@given(
    n=st.integers(1, 6),
    d=st.integers(1, 3000),
    seed=st.integers(0, 10**6),
    layers=st.integers(0, 3),
    first=st.booleans(),
)
def test_sums_that_are_exact_give_the_bits_of_one_machine(
    pool: Pool, world: int, n: int, d: int, seed: int, layers: int, first: bool
) -> None:
    x = exact_updates(n, d, seed)
    importance = 2.0 ** -torch.arange(n) * (not first)
    options: dict[str, Any] = {"segments": sizes_of(d, layers, seed + 1) if layers else None}
    if first:
        options["weights"] = 2.0 ** -torch.arange(n).flip(0)
    cases = [a_case(x.to(dtype), sizes_of(d, world, seed), importance, **options) for dtype in DTYPES]
    for case, *answers in zip(cases, *pool(world, sharded.rounds, cases), strict=True):
        step, downloads = whole(answers)
        one = cgsv_ext.reward_step(case["updates"], importance, **options)
        assert_same_bits(step._replace(selection=one.selection), one)
        assert_same_bits(
            downloads, cgsv_ext.download(one.aggregate, one.selection, segments=options["segments"])
        )


def degenerate() -> dict[str, tuple[Tensor, dict[str, Any]]]:
    """Updates of three agents and 60 columns, and options; ranks hold 20, 0, 30 and 10 of them."""
    x = oracle.normal(3, 60, seed=4)

    def with_(value: float, rows: Any, columns: Any) -> Tensor:
        changed = x.clone()
        changed[rows, columns] = value
        return changed

    opposed = torch.stack([x[0], -x[0], torch.zeros(60)])
    everything = slice(None)
    return {
        "zeros on the first rank only": (with_(0, 1, slice(0, 20)), {}),
        "zeros everywhere": (with_(0, 1, everything), {}),
        "a NaN on one rank only": (with_(math.nan, 1, 33), {}),
        "an Inf on one rank only": (with_(math.inf, 0, 55), {}),
        "NaN and Inf, on different ranks": (
            with_(math.nan, 0, 3).index_put_((torch.tensor(2),), x[2] / 0),
            {},
        ),
        "no agent left": (with_(math.nan, everything, 59), {}),
        "no agent left, to the letter": (with_(math.nan, everything, 59), {"floor": None}),
        "u = 0": (opposed, {}),
        "u = 0, to the letter": (opposed, {"floor": None}),
        "u = 0 on one rank only": (torch.cat([opposed[:, :20], x[:, 20:]], 1), {}),
        "weights of nothing": (x, {"weights": torch.tensor([math.nan, 0.0, math.inf])}),
        "norms that leave one out": (x, {"norms": torch.tensor([1.0, math.nan, 2.0])}),
        "importance that is not finite": (x, {"importance": torch.tensor([math.nan, 0.5, math.inf])}),
        "negative importance": (x, {"importance": torch.tensor([-0.5, -0.25, -0.25]), "floor": None}),
        "vanilla": (x, {"beta": math.inf, "importance": torch.tensor([0.5, 0.0, 0.5]), "floor": None}),
        "an aggregate beyond float32": (x, {"gamma": 1e39}),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=oracle.name)
def test_degenerate_rounds_are_those_of_one_machine(pool: Pool, dtype: torch.dtype) -> None:
    cases = []
    for x, options in degenerate().values():
        options = {"gamma": 0.5, "beta": 1.0, "floor": 1e-3, **options}
        importance = options.pop("importance", torch.tensor([0.5, 0.3, 0.2]))
        cases.append(a_case(x.to(dtype), [20, 0, 30, 10], importance, **options))
    answers = pool(4, sharded.rounds, cases)
    for what, case, *parts in zip(degenerate(), cases, *answers, strict=True):
        step, _ = whole(parts)
        one = cgsv_ext.reward_step(case["updates"], case["importance"], **case["options"])
        assert torch.equal(step.valid, one.valid), what
        assert torch.equal(step.quotas, one.quotas), what
        for field in ("cosines", "importance", "norms", "aggregate", "rewards"):
            got, expected = getattr(step, field), getattr(one, field)
            torch.testing.assert_close(
                got,
                expected,
                rtol=1e-6,
                atol=1e-6,
                equal_nan=True,
                msg=lambda text, at=f"{what}, {field}": f"{at}: {text}",
            )
        assert torch.equal(step.rewards != 0, one.rewards != 0), what


@worlds
@pytest.mark.parametrize("dtype", oracle.AGGREGATE_DTYPES, ids=oracle.name)
def test_what_is_kept_of_a_given_aggregate_is_exact(pool: Pool, world: int, dtype: torch.dtype) -> None:
    """Ties, signed zeros, NaNs, infinities, subnormals, with segments and without."""
    cases = []
    for k, kind in enumerate(HARD):
        d = [1, 17, 700, 1025][k % 4]
        u = oracle.hard(kind, d, dtype, seed=k)
        q = oracle.some_quotas(d, 3, seed=k)
        cases.append({"aggregate": u, "quotas": q, "segments": None, "sizes": sizes_of(d, world, k)})
        segments = sizes_of(d, 3, k + 1)
        q = torch.stack([oracle.some_quotas(size, 2, seed=k + 2) for size in segments], dim=1)
        cases.append({"aggregate": u, "quotas": q, "segments": segments, "sizes": sizes_of(d, world, k + 7)})
    u = oracle.hard("nan", 40, dtype)
    oracle.bits(u)[u.isnan()] += torch.arange(int(u.isnan().sum())).to(
        oracle.BITS[u.itemsize]
    )  # all NaNs tie
    q = torch.arange(0, 41, 3)
    cases.append({"aggregate": u, "quotas": q, "segments": None, "sizes": sizes_of(40, world, 1)})
    for case, *kept in zip(cases, *pool(world, sharded.selections, cases), strict=True):
        expected = Ranks(case["aggregate"], case["segments"]).keep(case["quotas"])
        assert torch.equal(torch.cat(kept, dim=1), expected)


def test_a_group_of_one_and_of_three(pool: Pool) -> None:
    x = oracle.updates_of("integers", 4, 301, torch.float32, 3)
    for world in (1, 3):
        case = a_case(x, sizes_of(301, world, 1), torch.rand(4, generator=oracle.generator(1)))
        (answers,) = zip(*pool(world, sharded.rounds, [case]), strict=True)
        check(case, list(answers))


def test_rounds_may_follow_each_other(pool: Pool) -> None:
    """Importance goes from step to step on every rank."""
    for alone, together in zip(
        sharded.training(None), zip(*pool(4, sharded.training), strict=True), strict=True
    ):
        torch.testing.assert_close(together[0].importance, alone.importance, rtol=0, atol=1e-6)
        for step in together[1:]:
            assert_same_bits(step.importance, together[0].importance)


def test_the_steps_one_at_a_time_are_the_round(pool: Pool) -> None:
    for same in pool(4, sharded.one_at_a_time):
        assert same


def test_every_rank_goes_on_with_rank_0s_importance(pool: Pool) -> None:
    """One that differs in its last bits must not send a rank another way in the selection."""
    steps = pool(4, sharded.differing_importance)
    for step in steps[1:]:
        assert_same_bits(step.importance, steps[0].importance)
        assert_same_bits(step.quotas, steps[0].quotas)
    assert torch.equal(sum(step.rewards.count_nonzero(1) for step in steps), steps[0].quotas)
