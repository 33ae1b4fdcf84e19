"""Importance when not everybody takes part, against the rules written once more in plain Python."""

from __future__ import annotations

import math
from typing import Any

import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import assert_same_bits, f64
from server_model import Shares, assert_shares_are_whole, fetch, joined, play, random_updates
from torch import Tensor

from cgsv_ext.server import RewardServer

D = 40
KINDS = ["alike", "opposed", "sparse", "zero"]

# What may happen, an operation at a time: who joins, who leaves, who takes part and with what.
HISTORIES = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(1, 50)),
        st.tuples(st.just("leave"), st.integers(0, 6)),
        st.tuples(st.just("step"), st.integers(0, 127), st.sampled_from(KINDS), st.integers(0, 999)),
    ),
    min_size=3,
    max_size=14,
)
SETTINGS = st.fixed_dictionaries(
    {
        "alpha": st.sampled_from([0.95, 0.5, 0.0, 1.0]),
        "floor": st.sampled_from([1e-3, 0.2, 0.0, None]),
        "absent": st.sampled_from(["keep", "decay"]),
    }
)


def updates_of(kind: str, agents: list[int], seed: int) -> dict[int, Tensor]:
    if kind == "zero":
        return {agent: torch.zeros(D, dtype=torch.float64) for agent in agents}
    x = oracle.updates_of(kind, len(agents), D, torch.float64, seed)
    return {agent: x[i] for i, agent in enumerate(agents)}


@settings(max_examples=120)
@given(history=HISTORIES, options=SETTINGS, samples=st.booleans())
def test_importance_goes_round_by_the_rules(
    history: list[tuple[Any, ...]], options: dict[str, Any], samples: bool
) -> None:
    server, model = RewardServer(D, dtype=torch.float64, **options), Shares(**options)
    names = 0
    for what, *arguments in [("join", 3), ("join", 9), ("join", 2), *history]:
        if what == "join":
            told = arguments[0] if samples else None
            server.join(names, told)
            model.join(names, told)
            names += 1
        elif what == "leave" and arguments[0] < len(model.r):
            agent = list(model.r)[arguments[0]]
            server.leave(agent)
            model.leave(agent)
        elif what == "step":
            bits, kind, seed = arguments
            present = [agent for i, agent in enumerate(model.r) if bits >> i & 1]
            if not present:
                continue
            updates = updates_of(kind, present, seed)
            expected = oracle.mechanism(
                f64(torch.stack(list(updates.values()))), model.before(present), gamma=0.5
            )
            record = play(server, updates)
            if expected.well_conditioned:
                torch.testing.assert_close(
                    torch.tensor(record.cosines),
                    torch.from_numpy(expected.cosines).float(),
                    atol=1e-6,
                    rtol=0,
                )
            # From here with the server's own, so that what a small difference grows to is not in the way.
            share = model.play(dict(zip(present, record.cosines, strict=True)))
            size = math.fsum(map(abs, model.r.values()))
            if size < 1e3:
                assert math.isclose(record.share, share, abs_tol=1e-9 * max(1, size))
                assert math.isclose(math.fsum(record.importance), record.share, abs_tol=1e-9 * max(1, size))
            assert record.importance == tuple(server.importance[agent] for agent in present)
        assert list(server.importance) == list(model.r) == list(server.agents)
        assert_shares_are_whole(server.importance.values())
        size = math.fsum(map(abs, model.r.values()))
        if size > 1e3:  # without a floor all but nothing may have been normalised: no two computations agree
            return
        for agent, r in model.r.items():
            assert math.isclose(server.importance[agent], r, abs_tol=1e-9 * max(1, size)), agent


def test_a_first_step_leaves_the_absent_their_entry_share() -> None:
    server = joined(RewardServer(D, dtype=torch.float64), "abcd")
    record = play(server, random_updates("ab", D, 0))
    assert record.share == 0.5
    assert math.isclose(sum(record.importance), 0.5)
    assert server.importance["c"] == server.importance["d"] == 0.25


def test_a_first_step_leaves_the_absent_their_part_of_the_samples() -> None:
    server = RewardServer(D, dtype=torch.float64)
    for agent, samples in {"a": 10, "b": 20, "c": 70}.items():
        server.join(agent, samples)
    record = play(server, random_updates("ac", D, 0))
    assert math.isclose(record.share, 0.8)
    assert server.importance["b"] == 0.2


def test_a_later_joiner_gets_the_mean_or_its_part_of_the_samples() -> None:
    for samples, expected in (((None,) * 4), 0.25), ((10, 20, 30, 40), 0.4):
        server = RewardServer(D, dtype=torch.float64)
        for agent, n in zip("abc", samples, strict=False):
            server.join(agent, n)
        play(server, random_updates("abc", D, 0))
        before = server.importance
        server.join("d", samples[3])
        assert server.importance["d"] == expected
        for agent in "abc":
            assert math.isclose(server.importance[agent], before[agent] * (1 - expected))


def test_who_stays_takes_over_from_who_leaves_in_proportion() -> None:
    server = joined(RewardServer(D, dtype=torch.float64), "abc")
    play(server, random_updates("abc", D, 0))
    r = server.importance
    server.leave("b")
    assert math.isclose(server.importance["a"], r["a"] / (r["a"] + r["c"]))
    assert math.isclose(server.importance["c"], r["c"] / (r["a"] + r["c"]))
    for agent in "ac":
        server.leave(agent)
    server.join("d")
    assert server.importance == {"d": 0.0}


def test_nobody_is_left_with_less_than_nothing_by_who_leaves() -> None:
    """Without a floor an agent may hold more than all: what the others then hold cannot be scaled to 1."""
    server = joined(RewardServer(D, dtype=torch.float64, floor=None, alpha=0.0), "abc")
    x = random_updates("a", D, 0)["a"]
    play(server, {"a": x, "b": -0.2 * x, "c": x})  # u_N points to x; b's cosine is -1
    assert server.importance["b"] == -1.0
    server.leave("a")
    assert server.importance == {"b": 0.0, "c": 0.0}


def test_those_present_who_owe_start_anew_among_themselves() -> None:
    """Without a floor, s = Σ_S r may be negative; what the absent hold is scaled so that all hold 1."""
    server = joined(RewardServer(D, dtype=torch.float64, floor=None, alpha=0.0), "abc")
    x = random_updates("a", D, 0)["a"]
    play(server, {"a": x, "b": -0.2 * x, "c": x})
    assert server.importance == {"a": 1.0, "b": -1.0, "c": 1.0}
    record = play(server, {"b": x})
    assert record.importance == (1 / 3,)
    assert server.importance["a"] == server.importance["c"] == pytest.approx(1 / 3)


def test_those_present_who_owe_begin_as_in_a_first_round() -> None:
    options: dict[str, Any] = {"dtype": torch.float64, "floor": None, "alpha": 0.5}
    server, fresh = joined(RewardServer(D, **options), "abc"), joined(RewardServer(D, **options), "bc")
    play(server, random_updates("abc", D, 0))
    state = server.state_dict()
    for member, r in zip(state["members"], (1.25, -0.05, -0.2), strict=True):
        member["importance"] = r
    server.load_state_dict(state)
    x = random_updates("bc", D, 1)
    record, first = play(server, x), play(fresh, x)
    assert (record.cosines, record.quotas) == (first.cosines, first.quotas)
    assert record.importance == tuple(r * (2 / 3) for r in first.importance)


@pytest.mark.parametrize(("absent", "kept"), [("keep", 1.0), ("decay", 0.95**60)])
def test_an_agent_away_for_60_rounds_comes_back_with_what_it_had(absent: Any, kept: float) -> None:
    server = joined(RewardServer(D, dtype=torch.float64, absent=absent, max_pending=100), "abc")
    for t in range(3):
        play(server, random_updates("abc", D, t))
    owed, r = server.download("c").flat, server.importance["c"]
    assert server.pending("c") == (1, 2, 3)
    for t in range(60):
        play(server, random_updates("ab", D, 10 + t))
        fetch(server, "a")
    assert server.importance["c"] == pytest.approx(r * kept, rel=1e-12)
    if absent == "keep":
        assert server.importance["c"] == r
    assert server.pending("a") == ()
    assert server.pending("b") == tuple(range(1, 64))
    assert server.pending("c") == (1, 2, 3)
    reward = server.download("c")
    assert (reward.since, reward.round) == (0, 63)
    assert_same_bits(reward.flat, owed)
    server.acknowledge("c", 63)
    assert play(server, random_updates("abc", D, 99)).share == 1.0


@pytest.mark.parametrize("absent", ["keep", "decay"])
def test_the_absent_give_and_take_nothing_but_the_decay(absent: Any) -> None:
    server = joined(RewardServer(D, dtype=torch.float64, absent=absent), "abcd")
    play(server, random_updates("abcd", D, 0))
    before = server.importance
    record = play(server, random_updates("bd", D, 1))
    factor = 0.95 if absent == "decay" else 1.0
    for agent in "ac":
        assert server.importance[agent] == before[agent] * factor
    held = factor * (before["a"] + before["c"])
    assert record.share == pytest.approx(1 - held, rel=1e-12)
    assert math.fsum(record.importance) == pytest.approx(1 - held, rel=1e-12)


def test_quotas_follow_from_what_those_present_hold_among_themselves() -> None:
    server = joined(RewardServer(1000, dtype=torch.float64), "abcd")
    play(server, random_updates("abcd", 1000, 0))
    record = play(server, random_updates("bd", 1000, 1))
    among = [r / record.share for r in record.importance]
    assert max(record.quotas) == 1000
    expected = [row[0] for row in oracle.quotas(among, [1000], 1.0)]
    assert all(abs(q - e) <= 1 for q, e in zip(record.quotas, expected, strict=True))


@pytest.mark.parametrize("others", [(), ("c",)], ids=["all there", "one away"])
def test_a_round_that_is_worth_nothing_to_anybody(others: tuple[str, ...]) -> None:
    """Without a floor and a past, zero updates leave those present with 0; the absent then hold all."""
    server = joined(RewardServer(D, dtype=torch.float64, floor=None, alpha=0.0), ["a", "b", *others])
    play(server, random_updates(server.agents, D, 0))
    for agent in server.agents:
        fetch(server, agent)
    record = play(server, dict.fromkeys("ab", torch.zeros(D)))
    assert (record.importance, record.share, record.quotas) == ((0.0, 0.0), 0.0, (0, 0))
    assert record.valid == (False, False)
    assert server.importance == {"a": 0.0, "b": 0.0} | dict.fromkeys(others, 1.0)
    assert all(server.pending(agent) == () for agent in server.agents)
    # The next round is a first one, at least for those who were there.
    again = play(server, random_updates("ab", D, 1))
    assert again.share == pytest.approx(2 / 3 if others else 1)
    assert_shares_are_whole(server.importance.values())


def test_a_first_round_that_is_worth_nothing_settles_nothing() -> None:
    server = joined(RewardServer(D, dtype=torch.float64, floor=None), "abc")
    record = play(server, dict.fromkeys("ab", torch.zeros(D)))
    assert (record.importance, record.share) == ((0.0, 0.0), 0.0)
    assert server.importance == dict.fromkeys("abc", 0.0)
    assert play(server, random_updates("ab", D, 0)).share == pytest.approx(2 / 3)
