"""Rounds of a server: what comes in, what is refused, and that what comes out is reward_step's to the bit."""

from __future__ import annotations

import logging
import math
import pickle
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import DTYPES, assert_same_bits
from server_model import assert_same_state, copied, fetch, joined, play, random_updates
from torch import Tensor, nn

import cgsv_ext
from cgsv_ext import _files
from cgsv_ext.server import Refusal, Refused, RewardServer, Round
from cgsv_ext.wire import decode

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)
SHAPES = [(3, 4), (), (7,), (0, 2), (2, 2, 2)]
D = 28


def like(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {f"p{i}": torch.zeros(shape, dtype=dtype) for i, shape in enumerate(SHAPES)}


def by_name(flat: Tensor) -> dict[str, Tensor]:
    """A flat update as a state dict, its tensors in another order and with memory of their own."""
    sizes = [math.prod(shape) for shape in SHAPES]
    parts = [p.clone().view(shape) for p, shape in zip(flat.split(sizes), SHAPES, strict=True)]
    return {f"p{i}": part for i, part in reversed(list(enumerate(parts)))}


# What a round is


@dtypes
@settings(max_examples=25)
@given(
    n=st.integers(1, 6),
    rounds=st.integers(1, 6),
    segments=st.sampled_from([None, "layers"]),
    kind=st.sampled_from(oracle.KINDS),
    options=st.fixed_dictionaries(
        {
            "gamma": st.sampled_from([0.5, 7.0]),
            "alpha": st.sampled_from([0.95, 0.0, 1.0]),
            "beta": st.sampled_from([1.0, 30.0, math.inf]),
            "floor": st.sampled_from([1e-3, 0.0, None]),
        }
    ),
    seed=st.integers(0, 999),
)
def test_when_all_take_part_a_round_is_a_reward_step(
    device: torch.device,
    dtype: torch.dtype,
    n: int,
    rounds: int,
    segments: Any,
    kind: str,
    options: dict[str, Any],
    seed: int,
) -> None:
    agents = [f"agent {i}" if i % 2 else i for i in range(n)]
    server = joined(RewardServer(like(dtype), device=device, segments=segments, **options), agents)
    sizes = server.template.sizes if segments else None
    importance = torch.zeros(n, dtype=torch.float64, device=device)
    for t in range(1, rounds + 1):
        x = oracle.updates_of(kind, n, D, dtype, seed + t).to(device)
        if t % 3 == 2:
            x[0] = 0
        expected = cgsv_ext.reward_step(x, importance, segments=sizes, **options)
        importance = expected.importance
        for i in torch.randperm(n, generator=oracle.generator(seed + t)).tolist():
            norm = server.upload(agents[i], by_name(x[i]) if t % 2 else x[i].cpu())
            assert norm == expected.norms[i].item()
        assert server.uploaded == tuple(agents)
        record = server.step()
        assert server.uploaded == ()
        assert record == Round(
            round=t,
            agents=tuple(agents),
            importance=tuple(importance.tolist()),
            cosines=tuple(expected.cosines.tolist()),
            quotas=tuple(expected.quotas.reshape(n, -1).sum(1).tolist()),
            norms=tuple(expected.norms.tolist()),
            valid=tuple(expected.valid.tolist()),
            share=1.0 if importance.any() else 0.0,
            refused=0,
            seconds=record.seconds,
        )
        assert list(server.importance.values()) == importance.tolist()
        assert server.round == t
        assert_same_bits(server.aggregate, expected.aggregate)
        rewards = cgsv_ext.download(expected.aggregate, expected.selection, segments=sizes)
        for agent, reward, quota in zip(agents, rewards, record.quotas, strict=True):
            assert server.pending(agent) == ((t,) if quota else ())
            got = server.download(agent)
            assert (got.round, got.since) == (t, t - 1)
            assert_same_bits(got.flat, reward)
            server.acknowledge(agent, t)


def test_rewards_come_in_the_structure_of_the_template() -> None:
    module = nn.Linear(3, 2)
    server = joined(RewardServer(module), "ab")
    play(server, random_updates("ab", 8, 0))
    reward = server.download("a")
    assert isinstance(reward.values, dict)
    assert {name: value.shape for name, value in reward.values.items()} == {"weight": (2, 3), "bias": (2,)}
    assert_same_bits(torch.cat([v.flatten() for v in reward.values.values()]), reward.flat)
    reward.values["weight"].zero_()  # the caller's own: neither the server's nor another's
    assert not reward.flat[:6].any()
    assert server.download("a").flat[:6].any()


def test_the_order_of_uploads_does_not_matter(device: torch.device) -> None:
    states = []
    for order in ("abcde", "edcba", "cebad"):
        server = joined(RewardServer(D, device=device), "abcde")
        for t in range(3):
            updates = random_updates("abcde", D, t, torch.float32)
            play(server, {agent: updates[agent] for agent in order if (t, agent) != (1, "b")})
        states.append(copied(server.state_dict()))
    for state in states[1:]:
        assert_same_state(state, states[0])


@dtypes
def test_an_update_is_rounded_to_the_dtype_of_the_server(device: torch.device, dtype: torch.dtype) -> None:
    for given_dtype in DTYPES:
        x = oracle.normal(2, D, dtype=given_dtype)
        one, two = (joined(RewardServer(D, dtype=dtype, device=device), "ab") for _ in range(2))
        assert (
            play(one, {"a": x[0], "b": x[1].to(device)})[:-1]
            == play(two, dict(zip("ab", x.to(dtype), strict=True)))[:-1]
        )
        assert_same_bits(one.download("b").flat, two.download("b").flat)


def test_what_is_strided_expanded_or_requires_grad_is_read_as_it_is() -> None:
    server = joined(RewardServer([torch.zeros(3, 4), torch.zeros(5)]), "abc")
    wide = oracle.normal(4, 6)
    update = [wide[:, ::2].T, oracle.normal(1).expand(5)]
    plain = [part.clone(memory_format=torch.contiguous_format) for part in update]
    negative = [torch.complex(p, -p).conj().imag for p in plain]
    play(server, {"a": update, "b": [p.requires_grad_() for p in plain], "c": negative})
    aggregate = server.aggregate
    assert aggregate is not None
    other = joined(RewardServer([torch.zeros(3, 4), torch.zeros(5)]), "abc")
    play(other, dict.fromkeys("abc", torch.cat([p.detach().flatten() for p in plain])))
    assert_same_bits(aggregate, other.aggregate)


def test_an_update_is_copied() -> None:
    server, other = (joined(RewardServer(D), "ab") for _ in range(2))
    updates = random_updates("ab", D, 0, torch.float32)
    play(other, updates)
    for agent, update in updates.items():
        server.upload(agent, update)
        update.zero_()
    server.step()
    assert_same_bits(server.aggregate, other.aggregate)


def test_a_second_upload_replaces_the_first() -> None:
    server, other = (joined(RewardServer(D), "ab") for _ in range(2))
    for t in range(3):
        wrong, right = (random_updates("ab", D, t + k, torch.float32) for k in (50, 0))
        for update in (wrong["b"], wrong["a"], right["a"]):
            server.upload("a", update)
        assert server.uploaded == ("a",)
        assert (
            play(server, {"b": wrong["b"], "a": right["a"]})[:-1]
            == play(other, right | {"b": wrong["b"]})[:-1]
        )
        assert_same_state(server.state_dict(), other.state_dict())


def test_a_round_without_updates_does_not_take_place() -> None:
    server = joined(RewardServer(D), "ab")
    for t in range(2):
        text = f"step(): expected the update of at least one agent for round {t + 1}, got none"
        before = copied(server.state_dict())
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            server.step()
        assert_same_state(server.state_dict(), before)
        play(server, random_updates("ab", D, 0))


def test_an_update_of_who_leaves_is_gone() -> None:
    server = joined(RewardServer(D), "abc")
    updates = random_updates("abc", D, 0)
    for agent, update in updates.items():
        server.upload(agent, update)
    server.leave("b")
    server.join("b")
    assert server.uploaded == ("a", "c")
    assert server.step().agents == ("a", "c")
    server.leave("b")
    with pytest.raises(Refused, match="expected an agent that has joined, got one that has not"):
        server.upload("b", updates["b"])
    server.join("b")
    assert server.pending("b") == ()
    assert server.download("b").since == 1
    assert not server.download("b").flat.any()


def test_zero_updates_are_taken_and_worth_nothing() -> None:
    server = joined(RewardServer(D), "ab")
    record = play(server, {"a": torch.zeros(D), "b": torch.ones(D)})
    assert record.valid == (False, True)
    assert record.norms[0] == record.cosines[0] == 0
    assert record.importance[0] < record.importance[1]
    assert play(server, dict.fromkeys("ab", torch.zeros(D))).valid == (False, False)
    assert server.aggregate is not None
    assert not server.aggregate.any()


# What is refused


def spoilt(value: float) -> dict[str, Tensor]:
    update = by_name(torch.ones(D))
    update["p2"][3] = value
    return update


REFUSALS: dict[str, tuple[Any, str]] = {
    "nan": (spoilt(math.nan), "expected finite numbers, got NaN or infinity in 'p2'"),
    "inf": (spoilt(math.inf), "expected finite numbers, got NaN or infinity in 'p2'"),
    "-inf": (spoilt(-math.inf), "expected finite numbers, got NaN or infinity in 'p2'"),
    "flat nan": (torch.full((D,), math.nan), "expected finite numbers, got NaN or infinity"),
    "size": (
        torch.ones(D + 1),
        f"expected 5 tensors by name or in order, or a flat one of {D} elements, "
        f"got a tensor of shape ({D + 1},)",
    ),
    "dtype": (
        torch.ones(D, dtype=torch.int64),
        "expected the update to be one of float64, float32, bfloat16, float16, got torch.int64",
    ),
    "name": (spoilt(1) | {"q": torch.ones(1)}, "expected the template's 5 tensors, got an unknown 'q'"),
    "shape": (spoilt(1) | {"p1": torch.ones(1)}, "expected 'p1' of shape (), got (1,)"),
    "no tensor": (spoilt(1) | {"p1": 1.0}, "expected 'p1' to be a tensor, got float"),
    "nothing": (None, f"expected 5 tensors by name or in order, or a flat one of {D} elements, got NoneType"),
    "long": (torch.full((D,), 200.0), "expected a norm of at most 1000, got 1058.3"),
    "float64": (
        torch.full((D,), 1e300, dtype=torch.float64),
        "expected numbers whose squares a float64 can hold, and that float32 can, got 1e+300",
    ),
}


@pytest.mark.parametrize("former", [False, True], ids=["nothing before", "an update before"])
@pytest.mark.parametrize(("update", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_what_is_refused_names_agent_and_reason_and_the_round_goes_on(
    device: torch.device, caplog: pytest.LogCaptureFixture, update: Any, reason: str, former: bool
) -> None:
    server, other = (joined(RewardServer(like(), max_norm=1000, device=device), ["a", 7]) for _ in range(2))
    good = random_updates(["a", 7], D, 0, torch.float32)
    if former:
        for each in (server, other):
            each.upload("a", good["a"])
    with (
        caplog.at_level(logging.WARNING, "cgsv_ext.server"),
        pytest.raises(Refused, match=rf"^upload\(\): agent 'a': {re.escape(reason)}") as caught,
    ):
        server.upload("a", update)
    assert isinstance(caught.value, ValueError)
    refusal = Refusal(1, "a", str(caught.value).removeprefix("upload(): agent 'a': "))
    assert server.log == (refusal,)
    (entry,) = caplog.records
    assert entry.getMessage() == f"round 1: update of agent 'a' refused: {refusal.reason}"
    assert server.uploaded == other.uploaded == (("a",) if former else ())
    record = play(server, {7: good[7]})
    assert record[:-1] == play(other, {7: good[7]})._replace(refused=1)[:-1]
    assert_same_state(server.state_dict(), other.state_dict())
    assert server.log == (refusal, record)
    assert play(server, {7: good[7]}).refused == 0


@pytest.mark.parametrize("agent", ["b", 8, 7.0, True, None, ("a",), ["a"], torch.ones(1)], ids=repr)
def test_who_has_not_joined_is_refused(agent: Any) -> None:
    server = joined(RewardServer(D), ["a", 7, 1])
    with pytest.raises(
        Refused, match=r"^upload\(\): agent .*: expected an agent that has joined, got one that has not$"
    ):
        server.upload(agent, torch.ones(D))
    (refusal,) = server.log
    assert isinstance(refusal, Refusal)
    assert refusal.agent == agent if isinstance(agent, (str, int)) else str(agent)
    assert server.uploaded == ()


@pytest.mark.parametrize(
    ("dtype", "value", "text"),
    [
        (torch.float16, 65519.0, None),
        (torch.float16, 65520.0, "float16 can, got 65520"),
        (torch.bfloat16, 3.4e38, "bfloat16 can, got 3.4e+38"),
        (torch.float32, 3.4e38, None),
        (torch.float64, 1e153, None),
        (torch.float64, 1e154, "float64 can, got 1e+154"),
    ],
    ids=str,
)
def test_a_number_too_large_for_the_server_is_refused(
    device: torch.device, dtype: torch.dtype, value: float, text: str | None
) -> None:
    server = joined(RewardServer(D, dtype=dtype, device=device), "a")
    update = torch.full((D,), value, dtype=torch.float64)
    if text is None:
        assert server.upload("a", update) == pytest.approx(value * math.sqrt(D), rel=1e-3)
        return
    with pytest.raises(
        Refused, match=rf"expected numbers whose squares a float64 can hold, and that {re.escape(text)}$"
    ):
        server.upload("a", update)


def test_a_norm_may_be_as_long_as_the_limit() -> None:
    server = joined(RewardServer(4, max_norm=2.0), "a")
    assert server.upload("a", torch.ones(4)) == 2.0
    with pytest.raises(Refused, match=r"expected a norm of at most 2, got 2.002$"):
        server.upload("a", torch.full((4,), 1.001))


def test_an_update_is_refused_while_a_reward_is_neither_acknowledged_nor_lost() -> None:
    server = joined(RewardServer(D), "ab")
    updates = random_updates("ab", D, 0)
    server.download("a")  # nothing
    play(server, updates)
    server.upload("a", updates["a"])  # not fetched: trained without it
    reward = server.download("a")
    text = "expected the reward downloaded to be acknowledged first, with acknowledge('a', 1), got "
    with pytest.raises(Refused, match=re.escape(text)):
        server.upload("a", updates["a"])
    play(server, {"b": updates["b"]})  # the update handed in before still counts
    assert server.pending("a") == (1, 2)
    assert server.download("a").round == 2
    server.acknowledge("a", reward.round)
    with pytest.raises(Refused, match=r"acknowledge\('a', 2\)"):
        server.upload("a", updates["a"])
    server.acknowledge("a", 2)
    server.upload("a", updates["a"])


def test_an_update_is_refused_while_too_many_rewards_wait() -> None:
    server = joined(RewardServer(D, max_pending=3), "ab")
    updates = random_updates("ab", D, 0)
    for _ in range(3):
        play(server, updates)
        fetch(server, "b")
    text = "expected fewer than 3 rewards waiting, got 3: download and acknowledge them first"
    with pytest.raises(Refused, match=re.escape(text)):
        server.upload("a", updates["a"])
    assert play(server, {"b": updates["b"]}).agents == ("b",)
    assert server.pending("a") == (1, 2, 3)
    server.acknowledge("a", 1)
    server.upload("a", updates["a"])


def test_the_log_is_bounded_and_what_was_read_of_it_stays_as_it_was() -> None:
    server = joined(RewardServer(D, log_length=3), "a")
    for t in range(5):
        play(server, {"a": torch.ones(D)})
        if t == 2:
            log = server.log
        fetch(server, "a")
    assert [record.round for record in server.log] == [3, 4, 5]
    assert [record.round for record in log] == [1, 2, 3]
    for _ in range(4):
        with pytest.raises(Refused):
            server.upload("b", torch.ones(D))
    assert [type(record) for record in server.log] == [Refusal] * 3
    assert play(server, {"a": torch.ones(D)}).refused == 4


# Rewards, fetched one way or another


@dtypes
@pytest.mark.parametrize("segments", [None, "layers"])
def test_rewards_added_at_once_are_those_fetched_every_round(
    device: torch.device, dtype: torch.dtype, segments: Any
) -> None:
    start = by_name(oracle.normal(D, seed=99, dtype=dtype).to(device))
    early, late = ({name: p.clone() for name, p in start.items()} for _ in range(2))
    one, two = (joined(RewardServer(like(dtype), device=device, segments=segments), "abc") for _ in range(2))
    for t in range(5):
        updates = random_updates("abc", D, t, dtype)
        for server in (one, two):
            play(server, {agent: updates[agent] for agent in ("abc", "bc", "ac")[t % 3]})
        reward = one.download("a", into=early)
        assert (reward.since, reward.round) == (t, t + 1)
        assert one.pending("a") == ()
    reward = two.download("a", into=late)
    assert (reward.since, reward.round) == (0, 5)
    assert two.pending("a") == ()
    for name, p in start.items():
        assert_same_bits(late[name], early[name], name)
        assert not p.numel() or not torch.equal(late[name], p)
    two.download("a", into=late)
    assert all(torch.equal(late[name], early[name]) for name in start)
    one.upload("a", torch.ones(D))


def test_a_sum_is_that_of_the_rounds_in_their_order() -> None:
    server = joined(RewardServer(D), "abc")
    total = torch.zeros(D)
    for t in range(6):
        updates = random_updates("abc", D, t, torch.float32)
        play(server, {agent: updates[agent] for agent in ("abc", "bc")[t % 2]})
        fetch(server, "b")
        total = total + glance(server, "c", t)
        assert_same_bits(glance(server, "c", 0), total)
    assert server.pending("a") == (1, 3, 5)


def glance(server: RewardServer, agent: Any, since: int) -> Tensor:
    """What an agent is owed of later rounds, from a copy of the server, so that it may go on uploading."""
    other = RewardServer(server.template)
    other.load_state_dict(server.state_dict())
    other.acknowledge(agent, since)
    return other.download(agent).flat


def test_what_is_downloaded_stays_until_it_is_acknowledged() -> None:
    server = joined(RewardServer(D), "ab")
    for t in range(4):
        play(server, random_updates("ab", D, t))
    first, second = server.download("a"), server.download("a")
    assert_same_bits(first.flat, second.flat)
    assert server.pending("a") == (1, 2, 3, 4)
    server.acknowledge("a", 2)
    assert server.pending("a") == (3, 4)
    for t in (2, 1, 0):  # settled long ago
        server.acknowledge("a", t)
    assert server.pending("a") == (3, 4)
    rest = server.download("a")
    assert (rest.since, rest.round) == (2, 4)
    server.acknowledge("a", 4)
    server.acknowledge("a", 4)
    assert server.pending("a") == ()
    nothing = server.download("a")
    assert (nothing.since, nothing.round) == (4, 4)
    assert not nothing.flat.any()
    assert server.pending("b") == (1, 2, 3, 4)


def test_a_round_is_forgotten_when_nobody_is_owed_it() -> None:
    server = joined(RewardServer(D), "abc")
    for t in range(2):
        play(server, random_updates("abc", D, t))
    fetch(server, "a")
    fetch(server, "b")
    assert len(server.state_dict()["ledger"]) == 2
    server.leave("c")
    assert server.state_dict()["ledger"] == []


def test_who_has_all_it_is_owed_is_not_refused_for_a_message_that_was_lost() -> None:
    """The message names a round it was not in, so that it would never acknowledge that round."""
    server = joined(RewardServer(like()), "ab")
    play(server, random_updates("ab", D, 0))
    kept = server.download("a").round  # it keeps the reward, and its answer is lost
    play(server, random_updates("b", D, 1))
    server.download("a")  # this one is lost
    server.acknowledge("a", kept - 1)
    with pytest.raises(Refused, match="to be acknowledged first"):
        server.upload("a", torch.ones(D))
    server.acknowledge("a", kept)
    assert server.pending("a") == ()
    server.upload("a", torch.ones(D))


@pytest.mark.parametrize("round", [2, -1, 10**30])
def test_a_round_that_has_not_been_is_not_acknowledged(round: int) -> None:
    server = joined(RewardServer(D), "ab")
    play(server, random_updates("ab", D, 0))
    text = f"acknowledge(): agent 'a': expected a round up to 1, the last this server knows of, got {round}"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        server.acknowledge("a", round)
    assert server.pending("a") == (1,)


def test_a_model_that_does_not_fit_gets_nothing_and_acknowledges_nothing() -> None:
    server = joined(RewardServer(nn.Linear(3, 2)), "ab")
    other = nn.Linear(2, 3)
    before = other.weight.detach().clone()
    for _ in range(2):  # with nothing owed as well
        with pytest.raises(
            ValueError, match=r"^download\(\): agent 'a': expected 'weight' of shape \(2, 3\), got \(3, 2\)$"
        ):
            server.download("a", into=other)
        play(server, random_updates("ab", 8, 0))
    assert torch.equal(other.weight, before)
    assert server.pending("a") == (1, 2)
    server.upload("a", torch.ones(8))  # nothing was handed out


@pytest.mark.parametrize("agent", ["c", 1.0, None, ["a"]], ids=repr)
@pytest.mark.parametrize("op", ["leave", "pending", "download", "acknowledge", "encode"])
def test_strangers_are_told_so(op: str, agent: Any) -> None:
    server = joined(RewardServer(D), ["a", 1])
    arguments = (agent, 0) if op == "acknowledge" else (agent,)
    name = "download" if op == "encode" else op
    with pytest.raises(
        ValueError, match=rf"^{name}\(\): expected an agent that has joined, got {re.escape(repr(agent))}$"
    ):
        getattr(server, op)(*arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((True,), TypeError, "expected agent_id to be a string or an integer, got True"),
        ((1.5,), TypeError, "expected agent_id to be a string or an integer, got 1.5"),
        ((None,), TypeError, "expected agent_id to be a string or an integer, got None"),
        (("a",), ValueError, "expected a new agent, got 'a', who has joined already"),
        (("c", 0), ValueError, "expected samples in [1, 2^63), got 0"),
        (("c", 1.5), TypeError, "expected samples to be an integer, got 1.5"),
        (("c", True), TypeError, "expected samples to be an integer, got True"),
        (("c",), ValueError, "expected samples of all agents or of none, got None for 'c' and 10 for 'a'"),
    ],
    ids=str,
)
def test_who_cannot_join(arguments: tuple[Any, ...], error: type[Exception], text: str) -> None:
    server = RewardServer(D)
    server.join("a", 10)
    server.join(1, 20)
    with pytest.raises(error, match=rf"^join\(\): {re.escape(text)}$"):
        server.join(*arguments)
    assert server.agents == ("a", 1)


@pytest.mark.parametrize("round", [1.0, True, None, "1"], ids=repr)
def test_a_round_is_an_integer(round: Any) -> None:
    server = joined(RewardServer(D), "a")
    with pytest.raises(TypeError, match=r"^acknowledge\(\): expected round to be an integer, got "):
        server.acknowledge("a", round)


# Settings


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"gamma": 0}, ValueError, "expected gamma to be finite and > 0, got 0"),
        ({"gamma": "big"}, TypeError, "expected gamma to be a number, got str"),
        ({"alpha": 1.5}, ValueError, "expected alpha"),
        ({"beta": -1.0}, ValueError, "expected beta"),
        ({"beta": None}, TypeError, "expected beta to be a number, got NoneType"),
        ({"floor": -1e-3}, ValueError, "expected floor"),
        ({"floor": math.nan}, ValueError, "expected floor"),
        ({"segments": "rows"}, ValueError, "expected segments to be one of None, 'layers', got 'rows'"),
        ({"segments": [D]}, ValueError, f"expected segments to be one of None, 'layers', got [{D}]"),
        ({"absent": None}, ValueError, "expected absent to be one of 'keep', 'decay', got None"),
        ({"dtype": torch.int64}, ValueError, "expected dtype to be one of None, torch.float64, "),
        ({"max_norm": 0.0}, ValueError, "expected max_norm > 0, got 0"),
        ({"max_norm": math.nan}, ValueError, "expected max_norm > 0, got nan"),
        ({"max_norm": "1"}, TypeError, "expected max_norm to be a number, got str"),
        ({"max_pending": 0}, ValueError, "expected max_pending in [1, 2^63), got 0"),
        ({"max_pending": 1.5}, TypeError, "expected max_pending to be an integer, got 1.5"),
        ({"log_length": 0}, ValueError, "expected log_length in [1, 2^63), got 0"),
        ({"log_length": None}, TypeError, "expected log_length to be an integer, got None"),
        ({"device": "meta"}, ValueError, "expected a device that holds data, got meta"),
        ({"device": "nowhere"}, ValueError, "expected a device that is there, got 'nowhere'"),
    ],
    ids=str,
)
def test_a_bad_setting_is_refused_at_once(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=rf"^RewardServer\(\): {re.escape(text)}"):
        RewardServer(D, **options)


# Saving


def block(path: Path) -> None:
    """Let a folder stand where the file should go; even root cannot replace it by a file."""
    path.unlink(missing_ok=True)
    path.mkdir()


def test_a_round_that_cannot_be_saved_has_not_been_and_can_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "server"
    server, other = joined(RewardServer(D, path=path), "abc"), joined(RewardServer(D), "abc")
    seen: list[Round] = []
    server.on_round(seen.append)
    for t, present in enumerate(["ab", "abc", "bc"]):
        updates = random_updates(present, D, t)
        for agent, update in updates.items():
            server.upload(agent, update)
        with pytest.raises(Refused):
            server.upload("nobody", update)
        before = copied(server.state_dict())
        block(path)
        with pytest.raises(OSError, match=str(path)):
            server.step()
        assert_same_state(server.state_dict(), before)
        assert server.uploaded == tuple(present)
        assert server.pending("b") == other.pending("b")
        assert len(seen) == t
        shutil.rmtree(path)
        record = server.step()
        assert seen[-1] == record
        assert record[:-1] == play(other, updates)._replace(refused=1)[:-1]
        assert_same_state(server.state_dict(), other.state_dict())
        again = RewardServer(D, path=path)
        again.load()
        assert_same_state(again.state_dict(), server.state_dict())


def test_a_server_refuses_what_it_cannot_do() -> None:
    server = joined(RewardServer(D), "ab")
    with pytest.raises(TypeError, match=r"on_round\(\): expected a function, got int"):
        server.on_round(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"encode_all\(\): expected agents, got one string, 'ab'"):
        server.encode_all("ab")
    for copy in (deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="make another, and load_state_dict"):
            copy(server)


@pytest.mark.parametrize("left", ["server", "server.previous"])
def test_a_server_that_did_not_load_the_file_does_not_overwrite_it(left: str, tmp_path: Path) -> None:
    path = tmp_path / "server"
    before = joined(RewardServer(D, path=path), "ab")
    for t in range(2):
        play(before, random_updates("ab", D, t))
    if left == "server.previous":
        path.unlink()
    server = joined(RewardServer(D, path=path), "ab")
    for _ in range(2):
        with pytest.raises(FileExistsError, match=f"got {tmp_path / left}; load\\(\\) it"):
            play(server, random_updates("ab", D, 2))
        assert (tmp_path / "server.previous").exists()
    assert server.round == 0
    server.load()
    play(server, random_updates("ab", D, 2))
    assert server.round == 3
    # Whoever saves, or brings a state along, has decided.
    joined(another := RewardServer(D, path=path), "ab").save()
    play(another, random_updates("ab", D, 0))
    assert another.round == 1
    last = RewardServer(D, path=path)
    last.load_state_dict(before.state_dict())
    play(last, random_updates("ab", D, 2))
    assert last.round == 3


def test_a_round_is_saved_before_anybody_hears_of_it(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "server"
    server = joined(RewardServer(D, path=path), "ab")
    rounds = []

    def look(record: Round) -> None:
        other = RewardServer(D, path=path)
        other.load()
        rounds.append((other.round, other.pending("a")))

    server.on_round(look)
    for t in range(2):
        play(server, random_updates("ab", D, t))
    assert rounds == [(1, (1,)), (2, (1, 2))]


def test_a_round_is_seen_by_nobody_while_it_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = joined(RewardServer(D, path=tmp_path / "server"), "ab")
    saving, go_on = threading.Event(), threading.Event()

    def full_disk(*_: object, **__: object) -> None:
        saving.set()
        assert go_on.wait(30)
        raise OSError("no space left")

    monkeypatch.setattr(_files, "write", full_disk)
    for agent, x in random_updates("ab", D, 0).items():
        server.upload(agent, x)
    with ThreadPoolExecutor(4) as threads:
        played = threads.submit(server.step)
        assert saving.wait(30)
        looks = (lambda: server.round, lambda: server.aggregate, lambda: server.pending("a"))
        seen = [threads.submit(look) for look in looks]
        time.sleep(0.05)  # they must wait
        assert not any(each.done() for each in seen)
        go_on.set()
        with pytest.raises(OSError, match="no space left"):
            played.result()
        assert [each.result() for each in seen] == [0, None, ()]


def test_what_is_done_to_the_aggregate_is_done_to_a_copy() -> None:
    server = joined(RewardServer(D), "ab")
    play(server, random_updates("ab", D, 0))
    before = server.aggregate, server.download("a").flat.clone()
    server.aggregate.mul_(100)
    assert_same_bits(server.aggregate, before[0])
    assert_same_bits(server.download("a").flat, before[1])


def test_what_is_said_of_a_refused_update_has_bounds() -> None:
    server = joined(RewardServer({"p": torch.zeros(2)}), "a")
    with pytest.raises(Refused) as refused:
        server.upload("a", {"p": torch.zeros(2), "x" * 10**6: torch.zeros(1)})
    with pytest.raises(Refused) as unknown:
        server.upload("x" * 10**6, torch.zeros(2))
    assert all(len(str(error.value)) < 2000 for error in (refused, unknown))
    assert all(len(record.agent) + len(record.reason) < 2000 for record in server.log)


def test_an_update_is_refused_after_a_restart_as_it_was_before() -> None:
    server = joined(RewardServer(D), "ab")
    updates = random_updates("ab", D, 0)
    play(server, updates)
    server.download("a")
    again = RewardServer(D)
    again.load_state_dict(server.state_dict())
    with pytest.raises(Refused, match=r"expected the reward downloaded to be acknowledged first"):
        again.upload("a", updates["a"])
    again.acknowledge("a", 1)
    again.upload("a", updates["a"])


# Callbacks


def test_a_callback_that_raises_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    server = joined(RewardServer(D), "ab")
    seen: list[Round] = []

    def angry(record: Round) -> None:
        raise RuntimeError("no")

    for callback in (angry, seen.append, angry, seen.append):
        server.on_round(callback)
    records = [play(server, random_updates("ab", D, t)) for t in range(2)]
    assert seen == [records[0]] * 2 + [records[1]] * 2
    errors = [entry for entry in caplog.records if entry.levelno == logging.ERROR]
    assert len(errors) == 4
    assert all(entry.name == "cgsv_ext.server" and entry.exc_info for entry in errors)
    assert "angry" in errors[0].getMessage()


def test_a_callback_may_call_the_server() -> None:
    server = joined(RewardServer(D), "ab")
    got: dict[str, list[Tensor]] = {"a": [], "b": []}
    server.on_round(lambda record: [got[str(agent)].append(fetch(server, agent)) for agent in record.agents])
    for t in range(2):
        play(server, random_updates("ab", D, t))
    assert [len(rewards) for rewards in got.values()] == [2, 2]
    assert server.pending("a") == ()


# Bytes


def test_encoded_rewards_are_those_downloaded(device: torch.device) -> None:
    server = joined(RewardServer(like(), device=device, segments="layers"), "abcd")
    for t, present in enumerate(["abcd", "abc", "ab"]):
        play(server, random_updates(present, D, t))
        for agent in present.replace("d", ""):
            fetch(server, agent)
    play(server, random_updates("abcd", D, 9))
    fetch(server, "a")
    named = server.encode_all(["c", "a", "c"])
    assert set(named) == {"c"}
    server.upload("b", torch.ones(D))  # what was not asked for is not handed out
    with pytest.raises(ValueError, match=r"encode_all\(\): expected an agent that has joined, got 'x'"):
        server.encode_all(["b", "x"])
    assert named["c"] == server.encode_all()["c"]
    everybody = server.encode_all()
    assert set(everybody) == {"b", "c", "d"}  # the last of more than this round, and not of the first row
    assert [len(server.pending(agent)) for agent in "bcd"] == [1, 1, 2]
    assert [decode(everybody[agent]).since for agent in "bcd"] == [3, 2, 0]
    for agent, data in everybody.items():
        with pytest.raises(Refused, match="to be acknowledged first"):
            server.upload(agent, torch.ones(D))
        expected = server.download(agent)
        for message in (data, server.encode(agent)):
            got = decode(message, size=D)
            assert (got.round, got.since) == (expected.round, expected.since)
            assert_same_bits(got.flat, expected.flat.cpu())
        server.acknowledge(agent, got.round)
        server.upload(agent, torch.ones(D))
    assert server.encode_all() == {}
    nothing = decode(server.encode("a"), size=D)
    assert (nothing.since, nothing.round) == (4, 4)
    assert not nothing.flat.any()
