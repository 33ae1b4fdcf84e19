"""A server's state as plain data and tensors, and in files. What does not fit is refused before a change."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import fsum, inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..types import Selection, aggregate_dtype, dtype_name
from .ledger import Entry, Ledger
from .members import Member, Members
from .records import is_id

if TYPE_CHECKING:
    from .server import RewardServer

FORMAT = "cgsv_ext.RewardServer 1"

logger = logging.getLogger("cgsv_ext.server")


def pack(server: RewardServer) -> dict[str, Any]:
    """Return all that later rounds depend on."""
    return {
        "format": FORMAT,
        "template": server.template.description(),
        "settings": _settings(server),
        "round": server._round,
        # The ledger has it, as a rule.
        "aggregate": None if server._round in server._ledger else server._aggregate,
        "members": [
            {
                "agent": agent,
                "samples": member.samples,
                "settled": member.settled,
                "importance": member.importance,
                "fetched": member.fetched,
            }
            for agent, member in server._members.items()
        ],
        "ledger": [
            {
                "round": t,
                "aggregate": entry.aggregate,
                "magnitude": entry.selection.magnitude,
                "last_index": entry.selection.last_index,
                "owed": [[agent, i] for agent, i in entry.owed.items()],
            }
            for t, entry in server._ledger.items()
        ],
    }


def unpack(server: RewardServer, state: Mapping[str, Any]) -> None:
    """Put a state in place of the server's, all of it or nothing."""
    _expect(isinstance(state, Mapping), "a mapping", type(state).__name__)
    given = state.get("format")
    _expect(isinstance(given, str) and given == FORMAT, f"the format {FORMAT!r}", repr(given))
    _same("template", state.get("template"), server.template.description())
    _same("settings", state.get("settings"), _settings(server))
    t = _integer("round", state.get("round"), 0)
    members = _members(state.get("members"), t)
    ledger = _ledger(server, state.get("ledger"), t, members)
    aggregate = state.get("aggregate")
    if t in ledger or t == 0:
        _expect(aggregate is None, "no aggregate but the ledger's", _kind(aggregate))
        aggregate = ledger[t].aggregate if t in ledger else None
    elif aggregate is not None:
        aggregate = _aggregate(server, aggregate)

    server._round = t
    server._aggregate = aggregate
    server._members = members
    server._ledger = ledger


def save(server: RewardServer, path: str) -> None:
    """Write the state to a file."""
    from .. import _files  # the only part that needs safetensors

    with server._lock:
        _files.write(Path(path), pack(server), keep_previous=True)


def load(server: RewardServer, path: str) -> None:
    """Go on from a file, or from its previous version."""
    from .. import _files

    with server._lock:
        value, note = _files.read_latest(Path(path))
        server.load_state_dict(value)
        if note is not None:
            logger.warning("%s", note)
            # Agents may hold rewards of the round that is lost: its number is not used again.
            server._round += 1
            server._aggregate = None
        logger.info("went on from %s after round %d", path, server._round)


def _settings(server: RewardServer) -> dict[str, Any]:
    return {
        "gamma": server.gamma,
        "alpha": server.alpha,
        "beta": server.beta,
        "floor": server.floor,
        "dtype": dtype_name(server.dtype),
        "segments": "layers" if server.segments is not None else None,
        "absent": server.absent,
    }


def _members(rows: Any, round: int) -> Members:
    _expect(isinstance(rows, list), "a list of members", _kind(rows))
    members = Members()
    for row in rows:
        _expect(isinstance(row, dict), "a dict a member", _kind(row))
        agent, samples, r = row.get("agent"), row.get("samples"), row.get("importance")
        _expect(is_id(agent) and agent not in members, "distinct agents, strings or integers", repr(agent))
        if samples is not None:
            samples = _integer("samples", samples, 1)
        _expect(isinstance(r, float) and isfinite(r), "a finite importance", repr(r))
        settled = _integer("settled", row.get("settled"), 0, round)
        fetched = row.get("fetched")
        if fetched is not None:
            fetched = _integer("fetched", fetched, settled + 1, round)
        members[agent] = Member(samples, settled, r, fetched)
    told = {member.samples is None for member in members.values()}
    _expect(len(told) < 2, "samples of all agents or of none", "some")
    r = members.importances()
    size = sum(map(abs, r))  # without a floor they may be far from 0 and of either sign
    # Rounding over some million rounds stays far below this.
    good = size == 0 or (isfinite(size) and abs(fsum(r) - 1) < 1e-6 * size)
    _expect(good, "importances that sum to 1", f"{sum(r)}")
    return members


def _ledger(server: RewardServer, rows: Any, round: int, members: Members) -> Ledger:
    _expect(isinstance(rows, list), "a ledger in the form of a list", _kind(rows))
    ledger = Ledger(server.segments)
    for row in rows:
        _expect(isinstance(row, dict), "a dict a round", _kind(row))
        t = _integer("round", row.get("round"), max(ledger, default=0) + 1, round)
        aggregate = _aggregate(server, row.get("aggregate"))
        last_index = row.get("last_index")
        shape = () if server.segments is None else (len(server.segments),)
        _expect(isinstance(last_index, Tensor) and last_index.dim() > 0, "last_index", _kind(last_index))
        n = last_index.shape[0]
        last_index = _tensor(server, "last_index", last_index, (n, *shape), torch.int64)
        magnitude = _tensor(server, "magnitude", row.get("magnitude"), (n, *shape), aggregate.dtype)
        inside = bool(((last_index >= -1) & (last_index < aggregate.numel())).all())
        _expect(inside, f"last_index in [-1, {aggregate.numel()})", "others")
        place = aggregate[last_index.clamp(min=0)].abs().masked_fill(last_index < 0, inf)
        fits = torch.equal(magnitude.nan_to_num(-1, inf), place.nan_to_num(-1, inf))
        _expect(fits, "a magnitude that the aggregate has at last_index", "another")
        owed = row.get("owed")
        _expect(isinstance(owed, list) and len(owed) > 0, "somebody who is owed the round", _kind(owed))
        entry = Entry(aggregate, Selection(magnitude, last_index), {})
        for pair in owed:
            _expect(isinstance(pair, list) and len(pair) == 2, "pairs of agent and row", _kind(pair))
            agent, i = pair
            _expect(is_id(agent) and agent in members, "an agent that has joined", repr(agent))
            _expect(agent not in entry.owed, "each agent once", repr(agent))
            _expect(members[agent].settled < t, f"agents that have not acknowledged round {t}", repr(agent))
            entry.owed[agent] = _integer("row", i, 0, n - 1)
        ledger[t] = entry
    return ledger


def _aggregate(server: RewardServer, value: Any) -> Tensor:
    return _tensor(server, "aggregate", value, (server.template.size,), aggregate_dtype(server.dtype))


def _tensor(
    server: RewardServer, name: str, value: Any, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    dense = isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta
    if not (dense and value.shape == shape and value.dtype == dtype):
        raise _unexpected(f"{name} to be {dtype} of shape {shape}", _kind(value))
    # A copy, since what was read from a file may be mapped, and what was given may change.
    own: Tensor = value.detach().to(server.device, copy=True).contiguous()
    return own


def _integer(name: str, value: Any, least: int, most: int = 2**62) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    _expect(whole and least <= value <= most, f"{name} to be an integer in [{least}, {most}]", repr(value))
    return int(value)


def _same(name: str, found: Any, own: dict[str, Any]) -> None:
    _expect(isinstance(found, dict), f"{name} in the form of a dict", _kind(found))
    for key, value in own.items():
        given = found.get(key)  # may be anything, also what does not compare to one bool
        _expect(repr(given) == repr(value), f"the server's own {name}, {key} {value}", f"{given!r}")


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return type(value).__name__


def _expect(good: bool, expected: str, got: str) -> None:
    if not good:
        raise _unexpected(expected, got)


def _unexpected(expected: str, got: str) -> ValueError:
    return ValueError(f"load_state_dict(): expected {expected:.300}, got {got:.300}")
