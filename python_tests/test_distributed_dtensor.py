"""DTensors in, DTensors out: matrices, and the states of models that FSDP2 has sharded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dtensors
import oracle
import pytest
import torch
from dtensors import SIZES
from oracle import Ranks, assert_same_bits
from ranks import Pool
from test_distributed import exact_updates

import cgsv_ext
from cgsv_ext.distributed import exchanges

worlds = pytest.mark.parametrize("world", [2, 4])
D = sum(SIZES)


def importance(n: int) -> torch.Tensor:
    return 2.0 ** -torch.arange(n)


def check(answers: list[dict[str, Any]], x: torch.Tensor, segments: list[int] | None) -> cgsv_ext.RewardStep:
    one = cgsv_ext.reward_step(x, importance(len(x)), segments=segments)
    for answer in answers:
        assert_same_bits(answer["step"], one._replace(selection=None))
    return one


@pytest.mark.parametrize("dtype", oracle.DTYPES, ids=oracle.name)
@pytest.mark.parametrize(
    ("kind", "world", "placements", "collectives"),
    [
        ("columns", 2, ("(Shard(dim=1),)", "(Shard(dim=0),)"), 7),
        ("columns", 4, ("(Shard(dim=1),)", "(Shard(dim=0),)"), 7),
        ("agents", 2, ("(Shard(dim=0),)", "(Replicate(),)"), 4),
        ("agents", 4, ("(Shard(dim=0),)", "(Replicate(),)"), 4),
        ("replicated", 2, ("(Replicate(),)", "(Replicate(),)"), 0),
        (
            "replicated and sharded",
            4,
            ("(Replicate(), Shard(dim=1))", "(Replicate(), Shard(dim=0))"),
            7,
        ),
    ],
)
def test_a_matrix_gives_the_bits_of_one_machine(
    pool: Pool, dtype: torch.dtype, kind: str, world: int, placements: tuple[str, str], collectives: int
) -> None:
    for d, segments in ((67, None), (67, [20, 0, 40, 7]), (3, None)):
        x = exact_updates(5, d, 4).to(dtype)
        answers = pool(world, dtensors.matrix, x, importance(5), kind, segments)
        one = check(answers, x, segments)
        for answer in answers:
            assert answer["placements"] == placements
            assert_same_bits(answer["norms"], one.norms)
            assert_same_bits(answer["aggregate"], cgsv_ext.aggregate(x, importance(5), gamma=0.5).aggregate)
            assert_same_bits(answer["parameters"], one.rewards + 0.0)
            expected = 9 if collectives == 7 and dtype == torch.float64 else collectives
            assert (answer["collectives"], answer["later"]) == (expected, 2 if collectives else 0)
            if kind == "columns":
                assert answer["selected"]
                downloads = cgsv_ext.download(one.aggregate, one.selection, segments=segments)
                assert_same_bits(answer["download"], downloads)


@worlds
@pytest.mark.parametrize("form", ["list", "dict"])
@pytest.mark.parametrize("segments", [None, [24, 15, 7], [0, 46, 0]], ids=str)
def test_states_of_fsdp2_give_the_bits_of_one_machine(
    pool: Pool, world: int, form: str, segments: list[int] | None
) -> None:
    """Ties go by index in the whole state, whatever rank holds it: parameter first, then row."""
    x = exact_updates(4, D, 11)
    answers = pool(world, dtensors.fsdp, x, importance(4), form, segments)
    one = check(answers, x, segments)
    assert one.rewards is not None
    for answer in answers:
        assert_same_bits(answer["parameters"], x + 2 * one.rewards)
        assert_same_bits(answer["download"], one.rewards)
        assert answer["alike"]
        assert answer["keys"]
        assert answer["bumped"]
        assert answer["selected"]
        assert answer["later"] == 0
        count = None if segments is None else len(segments)
        assert answer["sent"] == [tuple(c[:3]) for c in exchanges(4, segments=count, tensors=len(SIZES))]
    assert [sum(answer["shards"][k] for answer in answers) for k in range(len(SIZES))] == SIZES
    assert min(min(answer["shards"]) for answer in answers) == 0


def test_states_replicated_along_another_dimension_of_the_mesh(pool: Pool) -> None:
    x = exact_updates(4, D, 3)
    check(pool(4, dtensors.fsdp, x, importance(4), "replicated and sharded", None), x, None)


def test_states_that_every_rank_holds_are_not_sent(pool: Pool) -> None:
    x = exact_updates(4, D, 5)
    answers = pool(2, dtensors.replicated_state, x, importance(4))
    check(answers, x, None)
    assert all(answer["sent"] == 0 for answer in answers)


@worlds
@pytest.mark.parametrize("kind", ["nan", "infinite", "signed zeros", "few values", "all equal", "all nan"])
def test_hard_aggregates_in_several_tensors(pool: Pool, world: int, kind: str) -> None:
    u = oracle.hard(kind, D, torch.float32, seed=2)
    quotas = torch.arange(0, D + 1, 5)
    expected = torch.where(Ranks(u).keep(quotas), u, 0) + 0.0
    for got in pool(world, dtensors.hard_download, u, quotas):
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("what", dtensors.REFUSED)
def test_what_is_refused_says_why_on_every_rank(pool: Pool, what: str) -> None:
    answers = pool.errors(4, dtensors.refused, what)
    assert len(set(answers)) == 1
    kind, text = answers[0]
    assert kind is (TypeError if what == "a plain tensor" else ValueError)
    assert text.startswith("reward_step(): expected ")
    assert dtensors.REFUSED[what] in text


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 3), (3, 1)])
def test_a_checkpoint_is_loaded_on_another_number_of_ranks(
    pool: Pool, tmp_path: Path, before: int, after: int
) -> None:
    x = oracle.updates_of("integers", 4, 131, torch.float32, 1)
    rewards, r = pool(before, dtensors.saved, str(tmp_path), x, importance(4))[0]
    for got, again in pool(after, dtensors.loaded, str(tmp_path), 4, 131):
        assert_same_bits(got, rewards + 0.0)
        assert_same_bits(again, r)
