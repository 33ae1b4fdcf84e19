"""States a server takes over: its own, to the bit; none that is damaged, whatever the damage."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import assert_same_bits
from server_model import assert_same_state, assert_shares_are_whole, copied, fetch, play, random_updates
from torch import Tensor

from cgsv_ext.server import RewardServer

SHAPES = [(3, 4), (5,), (0,), (2, 2)]
D = 21


def made(segments: Any = "layers", **options: Any) -> RewardServer:
    return RewardServer([torch.zeros(shape) for shape in SHAPES], segments=segments, **options)


def used(samples: bool = True, last: bool = True, **options: Any) -> RewardServer:
    """A server with a past: all that a state can hold; `last`: whether its last round is owed to anybody."""
    server = made(**options)
    for i, agent in enumerate(["a", 7, "c"]):
        server.join(agent, 5 + i if samples else None)
    for t, agents in enumerate([("a", 7, "c"), ("a", "c"), ("a", 7)]):
        play(server, random_updates(agents, D, t, torch.float32))
        fetch(server, "a")
    server.acknowledge("c", 1)
    if not last:
        fetch(server, 7)
    return server


def leaves(state: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything in a state, containers too."""
    if path:
        yield path
    entries = (
        state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    )
    for key, value in entries:
        yield from leaves(value, (*path, key))


def at(state: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        state = state[key]
    return state


def replaced(state: Any, path: tuple[Any, ...], value: Any) -> Any:
    state = copied(state)
    at(state, path[:-1])[path[-1]] = value
    return state


PATHS = list(leaves(used().state_dict()))
SETTLED = list(leaves(used(last=False).state_dict()))

JUNK: dict[str, Any] = {
    "None": None,
    "True": True,
    "-1": -1,
    "0": 0,
    "1": 1,
    "2**80": 2**80,
    "0.25": 0.25,
    "1e308": 1e308,
    "nan": math.nan,
    "inf": math.inf,
    "text": "junk",
    "bytes": b"junk",
    "list": [],
    "lists": [[], [[]]],
    "dict": {},
    "tuple": (),
    "object": object(),
    "class": Tensor,
    "array": np.ones(3),
    "float tensor": torch.ones(3),
    "scalar": torch.tensor(1.0),
    "long": torch.ones(D, dtype=torch.long),
    "complex": torch.ones(D, dtype=torch.complex64),
    "double": torch.ones(D, dtype=torch.float64),
    "matrix": torch.ones(3, 4),
    "sparse": torch.ones(D).to_sparse(),
    "sparse matrix": torch.ones(3, 4).to_sparse(),
    "meta": torch.ones(D, device="meta"),
    "meta matrix": torch.ones(3, 4, dtype=torch.long, device="meta"),
}


class Target:
    """A server to put states into, good for many as long as they are refused."""

    def __init__(self) -> None:
        self.server = used()
        self.server.upload("a", torch.ones(D))
        self.before = copied(self.server.state_dict())

    def takes(self, state: Any) -> bool:
        """Whether a state is taken over, by a server that then works; or refused, and nothing changes."""
        try:
            self.server.load_state_dict(state)
        except ValueError as error:
            text = str(error)
        else:
            text = ""
        if text:
            assert re.match(r"load_state_dict\(\): expected .*, got ", text, re.DOTALL)
            assert_same_state(self.server.state_dict(), self.before)
            assert self.server.uploaded == ("a",)
            return False
        check_it_works(self.server)
        self.__init__()
        return True


def check_it_works(server: RewardServer) -> None:
    assert server.uploaded == ()
    assert_shares_are_whole(server.importance.values())
    for agent in server.agents:
        assert server.download(agent).flat.shape == (D,)
        server.acknowledge(agent, server.round)
        server.upload(agent, torch.ones(D))
    if server.agents:
        server.step()
    again = made()
    again.load_state_dict(server.state_dict())
    assert_same_state(again.state_dict(), server.state_dict())


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_any_part_replaced_by_junk_is_refused(junk: Any) -> None:
    """But for the few places where it is another good state."""
    for last, paths in ((True, PATHS), (False, SETTLED)):
        state, target = copied(used(last=last).state_dict()), Target()
        for path in paths:
            whole = at(state, path[:-1])
            good, whole[path[-1]] = whole[path[-1]], junk
            if target.takes(state):
                assert repr(junk) == repr(good) or could_be(path, junk), path
            whole[path[-1]] = good


def could_be(path: tuple[Any, ...], junk: Any) -> bool:
    """Whether a good state may have this there."""
    if path == ("aggregate",):
        return junk is None  # as after a round that was lost
    if path == ("ledger",):
        return isinstance(junk, list)  # an empty one: nobody is owed anything
    if path[-1] == "agent":  # of one who is owed nothing, or as whom another was entered
        return type(junk) in (int, str)
    if path[-1] == "fetched" and junk is None:  # of one who was given nothing, or has acknowledged it
        return True
    return type(junk) is int and (path[-1] in ("samples", "settled", "fetched", "round") or "owed" in path)


def test_any_part_that_is_missing_is_refused() -> None:
    """But for a key where None is meant, the last round of the ledger, and a pair that is owed."""
    for path in PATHS:
        state = copied(used().state_dict())
        whole = at(state, path[:-1])
        good = whole.pop(path[-1])
        if Target().takes(state):
            assert good is None or path[:-1] in (("ledger",), ("ledger", 2, "owed")) or path[-2] == "owed", (
                path
            )


@settings(max_examples=100)
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(PATHS),
            st.one_of(
                st.sampled_from(list(JUNK.values())),
                st.integers(-3, 9),
                st.floats(),
                st.sampled_from(["a", 7, "c"]),
                st.lists(
                    st.lists(st.one_of(st.integers(-1, 8), st.sampled_from(["a", "c"])), max_size=3),
                    max_size=3,
                ),
            ),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_a_state_is_good_or_refused(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    state = copied(used().state_dict())
    for path, junk in changes:
        try:
            at(state, path[:-1])[path[-1]] = junk
        # A change before took the place away, or put a tensor there.
        except (KeyError, IndexError, TypeError, ValueError):
            continue
    Target().takes(state)


@pytest.mark.parametrize("junk", [None, 1, "state", [], [("format", 1)], torch.ones(3)], ids=repr)
def test_what_is_no_state_at_all_is_refused(junk: Any) -> None:
    assert not Target().takes(junk)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("members", 0, "importance"), 0.9),
        (("members", 0, "agent"), 7),
        (("members", 1, "agent"), True),
        (("members", 1, "settled"), 4),
        (("members", 1, "settled"), 1),
        (("members", 2, "samples"), None),
        (("ledger", 0, "round"), 2),
        (("ledger", 1, "round"), 4),
        (("ledger", 0, "owed", 0, 0), "nobody"),
        (("ledger", 0, "owed", 0, 1), 3),
        (("ledger", 0, "owed", 0, 1), -1),
        (("ledger", 0, "owed"), []),
        (("ledger", 0, "owed"), [[7, 0], [7, 1]]),
        (("ledger", 0, "last_index"), torch.full((3, 4), D)),
        (("ledger", 0, "last_index"), torch.full((3, 4), -2)),
        (("ledger", 0, "last_index"), torch.full((3, 4), -1)),
        (("ledger", 0, "last_index"), torch.tensor(-1)),
        (("ledger", 0, "magnitude"), torch.full((3, 4), math.inf)),
        (("ledger", 0, "magnitude"), torch.full((3, 4), math.nan)),
        (("ledger", 0, "aggregate"), torch.ones(D)),
        (("aggregate",), torch.ones(D)),
        (("round",), 2),
        (("round",), 0),
        (("settings", "gamma"), 0.25),
        (("settings", "dtype"), "float64"),
        (("settings", "segments"), None),
        (("settings", "floor"), None),
        (("template", "one"), True),
        (("template", "names"), ["x", "y", "z", "w"]),
        (("template", "shapes"), [[12], [5], [0], [4]]),
        (("format",), "cgsv_ext.RewardServer 0"),
    ],
    ids=str,
)
def test_what_does_not_fit_together_is_refused(path: tuple[Any, ...], value: Any) -> None:
    assert not Target().takes(replaced(used().state_dict(), path, value))


def test_importances_that_cancel_are_not_nothing() -> None:
    for r in ([0.5, -0.5, 0.0], [1e308, 1e308, 1e308], [-1.0, 0.0, 0.0]):
        state = copied(used().state_dict())
        for member, importance in zip(state["members"], r, strict=True):
            member["importance"] = importance
        assert not Target().takes(state)


def test_a_server_takes_over_its_own_state_however_large_its_importances() -> None:
    """Without a floor, dividing by next to nothing makes r large: it sums to 1 to rounding of that size."""
    options: dict[str, Any] = {"floor": None, "alpha": 0.5, "dtype": torch.float64}
    server = made(**options)
    for agent in "abc":
        server.join(agent)
    state = copied(server.state_dict())
    large = 1e13 / 3
    for member, r in zip(state["members"], (large, -large, 1.0 + 2**-10), strict=True):
        member["importance"] = r
    server.load_state_dict(state)
    assert server.importance["a"] == large


@pytest.mark.parametrize("segments", [None, "layers"])
@pytest.mark.parametrize("samples", [False, True])
def test_a_state_goes_into_another_server_and_both_go_on_alike(
    device: torch.device, segments: Any, samples: bool
) -> None:
    first = used(samples, segments=segments, device=device)
    second = made(segments, device=device)
    second.join("somebody else")
    second.load_state_dict(first.state_dict())
    assert_same_state(second.state_dict(), first.state_dict())
    assert second.agents == first.agents == ("a", 7, "c")
    for server in (first, second):
        fetch(server, "c")
        server.join("d", 4 if samples else None)
        play(server, random_updates(["c", "d", 7], D, 9, torch.float32))
    assert_same_state(second.state_dict(), first.state_dict())
    for agent in first.agents:
        assert first.pending(agent) == second.pending(agent)
        got, expected = second.download(agent), first.download(agent)
        assert (got.round, got.since) == (expected.round, expected.since)
        assert_same_bits(got.flat, expected.flat)


def test_a_state_taken_over_shares_no_memory_with_what_was_given() -> None:
    server = used()
    state = copied(server.state_dict())
    other = made()
    other.load_state_dict(state)
    for path in PATHS:
        if isinstance(at(state, path), Tensor):
            at(state, path).zero_()
    assert_same_state(other.state_dict(), server.state_dict())


def test_an_open_round_is_not_part_of_a_state() -> None:
    server = used()
    empty = copied(server.state_dict())
    server.upload("a", torch.ones(D))
    assert_same_state(server.state_dict(), empty)
    server.load_state_dict(server.state_dict())
    assert server.uploaded == ()


@pytest.mark.parametrize(
    "options",
    [
        {"gamma": 1.0},
        {"alpha": 0.5},
        {"beta": math.inf},
        {"floor": None},
        {"dtype": torch.float64},
        {"absent": "decay"},
    ],
    ids=str,
)
def test_a_state_goes_only_where_the_settings_are_the_same(options: dict[str, Any]) -> None:
    other = made(**options)
    with pytest.raises(
        ValueError, match=rf"^load_state_dict\(\): expected the server's own settings, {next(iter(options))} "
    ):
        other.load_state_dict(used().state_dict())
    same = made(**options)
    same.join("a")
    other.load_state_dict(same.state_dict())


def test_limits_may_differ_from_those_a_state_was_made_with() -> None:
    other = made(max_pending=1, max_norm=2.0, log_length=1)
    other.load_state_dict(used().state_dict())
    assert other.round == 3


def test_a_file_holds_the_state(tmp_path: Any) -> None:
    server = used()
    server.save(tmp_path / "state")
    other = made(path=tmp_path / "state")
    other.load()
    assert_same_state(other.state_dict(), server.state_dict())
    for op in (made().save, made().load):
        with pytest.raises(
            ValueError,
            match=rf"^{op.__name__}\(\): expected a path here or when the server was made, got none$",
        ):
            op()
    with pytest.raises(FileNotFoundError):
        other.load(tmp_path / "nothing")


def test_a_damaged_file_gives_way_to_the_one_before(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "state"
    server = used()
    server.save(path)
    before = copied(server.state_dict())
    play(server, {"a": torch.ones(D)})
    server.save(path)
    path.write_bytes(path.read_bytes()[:-1])
    other = made()
    other.load(path)
    # Agents may hold rewards of the round that is lost, so no other gets its number.
    assert other.round == 4
    assert_same_state(other.state_dict() | {"round": 3, "aggregate": None}, before)
    assert other.pending("a") == ()
    other.acknowledge("a", 4)
    assert play(other, {"a": torch.ones(D)}).round == 5
    assert any(
        record.name == "cgsv_ext.server" and "previous" in record.getMessage() for record in caplog.records
    )
