"""A server that rewards agents who come, go, fail and return."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf, isfinite
from numbers import Integral
from typing import Any, Literal, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.nn import Module

from .. import _checks, wire
from ..pack import pack_row_
from ..reward import reward_step
from ..types import FLOATS, Reward, Structured, aggregate_dtype, dtype_name
from . import state
from .ledger import Entry, Ledger
from .members import Member, Members
from .records import AgentId, Refusal, Refused, Round, is_id
from .template import Template

logger = logging.getLogger("cgsv_ext.server")


class _Upload(NamedTuple):
    row: Tensor
    norm: float


class RewardServer:
    """Rewards agents round by round: updates come in one at a time, rewards wait until they are acknowledged.

    ::

        server = cgsv_ext.RewardServer(model, path="server.safetensors")
        server.join("a")
        ...
        server.upload("a", update)          # each agent that takes part in this round
        server.step()
        reward = server.download("a")       # everything it has not acknowledged
        server.acknowledge("a", reward.round)

    Parameters
    ----------
    template : Module, mapping of str to Tensor, sequence of Tensor, Tensor, or int
        What updates look like; see :class:`Template`.
    gamma, alpha, beta, floor
        As in :func:`~cgsv_ext.reward_step`.
    device : torch.device or str, optional
        Where rows are kept and rounds computed; the template's by default.
    dtype : torch.dtype, optional
        Of the rows; the template's by default.
    segments : {None, "layers"}
        Whether quotas apply to the whole update or to each tensor of the template.
    absent : {"keep", "decay"}
        Whether members that are not there in a round keep their importance, or keep α of it.
    max_norm : float, optional
        Updates that are longer are refused. Not needed for fairness: an update of any length moves the
        aggregate by at most Γ p_i, since all are brought to the same length.
    max_pending : int
        Rounds an agent may leave unacknowledged before its updates are refused; each may hold a vector of D
        elements in memory.
    log_length : int
        How many records :attr:`log` remembers.
    path : path-like, optional
        Where :meth:`step` saves the server before anybody can download what came of the round, and the
        default for :meth:`save` and :meth:`load`. Where there is a file already, :meth:`load` it.

    Notes
    -----
    Any number of threads may call any method at once. Updates are checked and copied side by side; all else
    happens one call after the other. The order of uploads does not change a bit of any result.
    """

    def __init__(
        self,
        template: Module | Structured | int,
        *,
        gamma: float = 0.5,
        alpha: float = 0.95,
        beta: float = 1.0,
        floor: float | None = 1e-3,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        segments: Literal["layers"] | None = None,
        absent: Literal["keep", "decay"] = "keep",
        max_norm: float | None = None,
        max_pending: int = 32,
        log_length: int = 10_000,
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        op = "RewardServer"
        self.template = template if isinstance(template, Template) else Template(template)
        self.gamma = _checks.gamma(op, gamma)
        self.alpha = _checks.alpha(op, alpha)
        self.beta = _checks.beta(op, beta)
        self.floor = _checks.floor(op, floor)
        _one_of("segments", segments, (None, "layers"))
        _one_of("absent", absent, ("keep", "decay"))
        _one_of("dtype", dtype, (None, *FLOATS))
        self.segments = self.template.sizes if segments == "layers" else None
        self.absent = absent
        try:
            self.device = torch.empty(0, device=device or self.template.device).device
        except (RuntimeError, AssertionError) as error:  # the latter where torch has no CUDA
            raise ValueError(f"{op}(): expected a device that is there, got {device!r} ({error})") from None
        if self.device.type == "meta":
            raise ValueError(f"{op}(): expected a device that holds data, got meta")
        _checks.tensor(op, "rows", torch.empty(0, device=self.device))
        self.dtype = dtype or self.template.dtype
        self.max_norm = inf if max_norm is None else _checks.number(op, "max_norm", max_norm)
        if not self.max_norm > 0:
            raise ValueError(f"{op}(): expected max_norm > 0, got {self.max_norm:g}")
        self.max_pending = _checks.integer(op, "max_pending", max_pending, 1)
        self.path = None if path is None else _path(op, path)

        self._round = 0
        self._new = True  # neither saved nor loaded
        self._aggregate: Tensor | None = None
        self._lock = threading.RLock()
        self._members = Members()
        self._ledger = Ledger(self.segments)
        self._uploads: dict[AgentId, _Upload] = {}
        self._spare: list[Tensor] = []
        self._refused = 0
        self._log: deque[Refusal | Round] = deque(maxlen=_checks.integer(op, "log_length", log_length, 1))
        self._callbacks: list[Callable[[Round], object]] = []

    @property
    def round(self) -> int:
        """How many rounds have been committed."""
        with self._lock:
            return self._round

    @property
    def aggregate(self) -> Tensor | None:
        """(D,), u_N of the last round, which the server's own model moves by; a copy.

        None before the first round, and where it was lost with the latest file.
        """
        with self._lock:
            return None if self._aggregate is None else self._aggregate.clone()

    # ------------------------------------------------------------------------------------------- members

    @property
    def agents(self) -> tuple[AgentId, ...]:
        """All members, in the order they joined."""
        with self._lock:
            return tuple(self._members)

    @property
    def importance(self) -> dict[AgentId, float]:
        """r of all members: they sum to 1, or are all zero before the first round."""
        with self._lock:
            return {agent: member.importance for agent, member in self._members.items()}

    def join(self, agent_id: AgentId, samples: int | None = None) -> None:
        """Add an agent.

        Before the first round its importance is 0, as everyone's. Later it is its part of all samples,
        or 1/n without samples, which the others give up in proportion to their own.

        Parameters
        ----------
        agent_id : str or int
            A name nobody has.
        samples : int, optional
            How much data it has, ≥ 1; told by all agents or by none.
        """
        if not is_id(agent_id):
            raise TypeError(f"join(): expected agent_id to be a string or an integer, got {agent_id!r:.100}")
        if samples is not None:
            samples = _checks.integer("join", "samples", samples, 1)
        with self._lock:
            if agent_id in self._members:
                raise ValueError(f"join(): expected a new agent, got {agent_id!r}, who has joined already")
            for other, member in itertools.islice(self._members.items(), 1):  # the rest is like the first
                if (member.samples is None) != (samples is None):
                    raise ValueError(
                        f"join(): expected samples of all agents or of none, got {samples} for {agent_id!r} "
                        f"and {member.samples} for {other!r}"
                    )
            self._members.join(agent_id, samples, self.round)
        logger.info("agent %r joined after round %d", agent_id, self.round)

    def leave(self, agent_id: AgentId) -> None:
        """Remove an agent, its update of this round and what it was owed.

        The others get its importance in proportion to their own.
        """
        with self._lock:
            self._member("leave", agent_id)
            self._members.leave(agent_id)
            self._ledger.settle(agent_id)
            self._take_back(self._uploads.pop(agent_id, None))
            del self._spare[len(self._members) :]  # as many as can be in use at once, as a rule
        logger.info("agent %r left after round %d", agent_id, self.round)

    def _member(self, op: str, agent: AgentId) -> Member:
        if is_id(agent) and (member := self._members.get(agent)):
            return member
        raise ValueError(f"{op}(): expected an agent that has joined, got {agent!r:.100}")

    # ------------------------------------------------------------------------------------------- a round

    @property
    def uploaded(self) -> tuple[AgentId, ...]:
        """Who takes part in the coming round, in the order they joined."""
        with self._lock:
            return tuple(agent for agent in self._members if agent in self._uploads)

    def upload(self, agent_id: AgentId, update: Structured) -> float:
        """Hand in an agent's update for the coming round; it replaces one handed in before.

        Parameters
        ----------
        agent_id : str or int
            Who.
        update : mapping of str to Tensor, sequence of Tensor, or Tensor
            Δw in the template's structure, its tensors in order, or flat with D elements; on any device, in
            any of the four floating dtypes. It is copied, rounded to the server's dtype, while its norm is
            computed.

        Returns
        -------
        float
            ‖Δw‖ as the server keeps it.

        Raises
        ------
        Refused
            A ValueError that names agent and reason: an unknown agent, a name, shape or dtype that does not
            fit, a number that is not finite, a norm above ``max_norm``, a reward that was downloaded and not
            acknowledged, or ``max_pending`` of them. What the agent handed in before stays.
        """
        row = None
        try:
            with self._lock:
                member = self._may_upload(agent_id)
                row = self._spare.pop() if self._spare else None
            if row is None:
                row = torch.empty(self.template.size, dtype=self.dtype, device=self.device)
            norm = self._write(row, update)
            with self._lock:
                if self._may_upload(agent_id) is not member:
                    raise Refused("expected an agent that stays, got one that left meanwhile")
                former = self._uploads.get(agent_id)
                self._uploads[agent_id] = _Upload(row, norm)
                row = None if former is None else former.row
                return norm
        except Refused as error:
            agent = agent_id if isinstance(agent_id, int) else str(agent_id)[:100]
            with self._lock:
                refusal = Refusal(self.round + 1, agent, str(error)[:1000])
                self._refused += 1
                self._log.append(refusal)
            logger.warning("round %d: update of agent %r refused: %s", *refusal)
            raise Refused(f"upload(): agent {agent!r}: {refusal.reason}") from None
        finally:
            if row is not None:
                with self._lock:
                    self._spare.append(row)

    def _may_upload(self, agent: AgentId) -> Member:
        member = self._members.get(agent) if is_id(agent) else None
        if member is None:
            raise Refused("expected an agent that has joined, got one that has not")
        if member.fetched is not None:
            raise Refused(
                f"expected the reward downloaded to be acknowledged first, with "
                f"acknowledge({agent!r}, {member.fetched}), got an update without"
            )
        if len(pending := self._ledger.pending(agent)) >= self.max_pending:
            raise Refused(
                f"expected fewer than {self.max_pending} rewards waiting, got {len(pending)}: "
                "download and acknowledge them first"
            )
        return member

    def _write(self, row: Tensor, update: Structured) -> float:
        """Check an update and copy it into a row; its norm."""
        try:
            parts = self.template.parts(update)
        except ValueError as error:
            raise Refused(str(error)) from error
        norm = float(pack_row_(row, [part.to(self.device).contiguous() for part in parts]))
        if not isfinite(norm):
            raise Refused(self._not_finite(parts))
        if norm > self.max_norm:
            raise Refused(f"expected a norm of at most {self.max_norm:g}, got {norm:g}")
        return norm

    def _not_finite(self, parts: Sequence[Tensor]) -> str:
        bad = [i for i, part in enumerate(parts) if not part.isfinite().all()]
        if bad:
            names = self.template.names
            where = "" if len(parts) == 1 else f" in {bad[0] if names is None else repr(names[bad[0]])}"
            return f"expected finite numbers, got NaN or infinity{where}"
        most = max(part.abs().max().item() for part in parts if part.numel())
        return (
            f"expected numbers whose squares a float64 can hold, and that {dtype_name(self.dtype)} can, "
            f"got {most:g}"
        )

    def _take_back(self, upload: _Upload | None) -> None:
        if upload is not None:
            self._spare.append(upload.row)

    def step(self) -> Round:
        """Play a round with those who uploaded: value their updates, and enter their rewards into the ledger.

        Returns
        -------
        Round
            What was decided, as plain numbers.

        Raises
        ------
        ValueError
            Where nobody has uploaded.
        OSError
            Where the server could not be saved to ``path``: the round has not taken place then, whatever is
            in the file; its updates are still there, and it can be tried again. A FileExistsError where
            there is the file of a server that this one did not :meth:`load`.
        """
        with self._lock:
            agents = self.uploaded
            if not agents:
                raise ValueError(
                    f"step(): expected the update of at least one agent for round {self.round + 1}, got none"
                )
            self._refuse_to_overwrite()
            start = time.perf_counter()
            record = self._play(agents, start)
            for agent in agents:
                self._take_back(self._uploads.pop(agent))
            self._refused = 0
            self._log.append(record)
            callbacks = tuple(self._callbacks)
        logger.info("round %d: %d agents, %d refused", record.round, len(agents), record.refused)
        for callback in callbacks:
            try:
                callback(record)
            except Exception:  # the round is done, whatever becomes of its record
                logger.exception("on_round(): %r failed in round %d", callback, record.round)
        return record

    def _refuse_to_overwrite(self) -> None:
        if self.path is None or not self._new:
            return
        for path in (self.path, f"{self.path}.previous"):
            if os.path.exists(path):
                raise FileExistsError(
                    f"step(): expected no file of another server, got {path}; "
                    "load() it before the first round, or delete it"
                )

    def _play(self, agents: tuple[AgentId, ...], start: float) -> Round:
        uploads = [self._uploads[agent] for agent in agents]
        played = reward_step(
            [upload.row for upload in uploads],
            self._vector(self._members.among(agents)),
            gamma=self.gamma,
            alpha=self.alpha,
            beta=self.beta,
            floor=self.floor,
            norms=self._vector([upload.norm for upload in uploads]),
            segments=self.segments,
            dense=False,
        )
        found: list[float] = played.importance.tolist()
        quotas: list[int] = played.quotas.reshape(len(agents), -1).sum(dim=1).tolist()

        owed = {agent: i for i, agent in enumerate(agents) if quotas[i] > 0}
        cosines, valid = tuple(played.cosines.tolist()), tuple(played.valid.tolist())

        before = self._round, self._aggregate, self._members.importances()
        t = self._round + 1
        try:
            share = self._members.settle(agents, found, self.alpha if self.absent == "decay" else 1.0)
            if owed:
                self._ledger[t] = Entry(played.aggregate, played.selection, owed)
            self._round, self._aggregate = t, played.aggregate
            record = Round(
                round=t,
                agents=agents,
                importance=tuple(self._members[agent].importance for agent in agents),
                cosines=cosines,
                quotas=tuple(quotas),
                norms=tuple(upload.norm for upload in uploads),
                valid=valid,
                share=share,
                refused=self._refused,
                seconds=time.perf_counter() - start,
            )
            if self.path is not None:
                self.save()
        except BaseException:
            self._round, self._aggregate, importances = before
            self._members.restore(importances)
            self._ledger.pop(t, None)
            raise
        return record

    # --------------------------------------------------------------------------------------------- rewards

    def pending(self, agent_id: AgentId) -> tuple[int, ...]:
        """Rounds of which an agent has not acknowledged its reward."""
        with self._lock:
            self._member("pending", agent_id)
            return self._ledger.pending(agent_id)

    def download(self, agent_id: AgentId, into: Module | Structured | None = None) -> Reward:
        """What an agent has earned and not acknowledged: Σ v_i over these rounds.

        Without `into` it stays in the ledger until it is acknowledged: who asks again gets it again, with
        whatever came since.

        Parameters
        ----------
        agent_id : str or int
            Who.
        into : Module, mapping of str to Tensor, sequence of Tensor, or Tensor, optional
            The agent's model, if it is in this process: the rewards are added to it in place, one round after
            the other, and are acknowledged.

        Returns
        -------
        Reward
            Zeros where nothing is owed. Memory of its own, which the caller may change.
        """
        with self._lock:
            member = self._member("download", agent_id)
            since = member.settled
            rounds = self._ledger.pending(agent_id)
            flat = self._ledger.sum(agent_id)
            if flat is None:
                flat = torch.zeros(self.template.size, dtype=aggregate_dtype(self.dtype), device=self.device)
            if into is None:
                member.fetched = self.round if rounds else member.fetched
            else:
                try:
                    self.template.targets(into)
                except ValueError as error:
                    raise ValueError(f"download(): agent {agent_id!r}: {error}") from None
                # As if it had come for each of them, to the bit.
                for t in rounds:
                    self.template.add_(into, self._ledger.reward(agent_id, t))
                self.acknowledge(agent_id, self.round)
            return Reward(self.round, since, flat, self.template.shaped(flat))

    def acknowledge(self, agent_id: AgentId, round: int) -> None:
        """Strike what an agent has got: all its rewards up to this round.

        Whoever restarts an agent acknowledges the last round that is in its parameters, then downloads. Doing
        so twice, or for a round acknowledged long ago, changes nothing.

        Parameters
        ----------
        agent_id : str or int
            Who.
        round : int
            ``reward.round`` of what it has added to its parameters.

        Raises
        ------
        ValueError
            For a round this server has not had: it was restored from a state older than the agent's.
        """
        with self._lock:
            member = self._member("acknowledge", agent_id)
            if not isinstance(round, Integral) or isinstance(round, bool):
                raise TypeError(f"acknowledge(): expected round to be an integer, got {round!r:.100}")
            if not 0 <= int(round) <= self._round:
                raise ValueError(
                    f"acknowledge(): agent {agent_id!r}: expected a round up to {self.round}, the last this "
                    f"server knows of, got {round}"
                )
            if round > member.settled:
                member.settled = int(round)
                self._ledger.settle(agent_id, round)
            # A message that was lost may have held nothing but what had come before.
            fetched = member.fetched
            if fetched is not None and all(t > fetched for t in self._ledger.pending(agent_id)):
                member.fetched = None

    def encode(self, agent_id: AgentId, *, dtype: torch.dtype = torch.float32) -> bytes:
        """Download as bytes, for :func:`~cgsv_ext.decode` on the agent's side."""
        return wire.encode(self.download(agent_id), dtype=dtype)

    def encode_all(
        self, agents: Iterable[AgentId] | None = None, *, dtype: torch.dtype = torch.float32
    ) -> dict[AgentId, bytes]:
        """Download for every agent that is owed something, or those of them that are named, as bytes.

        Those who are owed the last round and no other share one pass over the aggregate.
        """
        with self._lock:
            t = self.round
            if isinstance(agents, str):
                raise TypeError(f"encode_all(): expected agents, got one string, {agents!r:.100}")
            named = self._members if agents is None else dict.fromkeys(agents)
            for agent in named:
                self._member("encode_all", agent)
            pending = {agent: self._ledger.pending(agent) for agent in named}
            last = [agent for agent, rounds in pending.items() if rounds == (t,)]
            messages: dict[AgentId, bytes] = {}
            if last:
                shared = wire.encode_all(
                    self._ledger[t].aggregate,
                    self._ledger.rows(last, t),
                    segments=self.segments,
                    round=t,
                    since=[self._members[agent].settled for agent in last],
                    dtype=dtype,
                )
                messages.update(zip(last, shared, strict=True))
                for agent in last:
                    self._members[agent].fetched = t
            for agent, rounds in pending.items():
                if rounds and agent not in messages:
                    messages[agent] = self.encode(agent, dtype=dtype)
            return messages

    # --------------------------------------------------------------------------------------------- records

    @property
    def log(self) -> tuple[Refusal | Round, ...]:
        """Records of the latest rounds and of updates that were refused, oldest first."""
        with self._lock:
            return tuple(self._log)

    def on_round(self, callback: Callable[[Round], object]) -> None:
        """Have a function called with the record of each round to come.

        What it raises is logged and does not disturb the round.
        """
        if not callable(callback):
            raise TypeError(f"on_round(): expected a function, got {type(callback).__name__}")
        with self._lock:
            self._callbacks.append(callback)

    # ----------------------------------------------------------------------------------------------- state

    def __reduce__(self) -> NoReturn:
        """Neither copied nor pickled: uploads and callbacks may be on their way."""
        raise TypeError(
            "a RewardServer cannot be copied or pickled: make another, and load_state_dict() into it"
        )

    def state_dict(self) -> dict[str, Any]:
        """All that later rounds depend on, as tensors and plain data.

        Updates of the round that is open are not part of it: after a restart agents hand them in again.
        """
        with self._lock:
            return state.pack(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state; updates of an open round are dropped.

        Raises
        ------
        ValueError
            For a state of another template or other settings, or one that is damaged; nothing has changed.
        """
        with self._lock:
            state.unpack(self, state_dict)
            self._new = False
            for agent in tuple(self._uploads):
                self._take_back(self._uploads.pop(agent))
            self._refused = 0

    def save(self, path: str | os.PathLike[str] | None = None) -> None:
        """Write the state to a file, whole or not at all; the file before is kept as ``<path>.previous``."""
        state.save(self, self._path("save", path))
        self._new = False

    def load(self, path: str | os.PathLike[str] | None = None) -> None:
        """Go on from a file that :meth:`save` wrote; from its previous version where it is damaged.

        Raises
        ------
        FileNotFoundError
            Where there is neither.
        ValueError
            Where neither is whole, or as for :meth:`load_state_dict`.
        """
        state.load(self, self._path("load", path))

    def _path(self, op: str, path: str | os.PathLike[str] | None) -> str:
        path = self.path if path is None else path
        if path is None:
            raise ValueError(f"{op}(): expected a path here or when the server was made, got none")
        return _path(op, path)

    def _vector(self, numbers: Sequence[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64, device=self.device)


def _one_of(name: str, value: object, choices: tuple[object, ...]) -> None:
    if not any(value is each or (isinstance(each, str) and value == each) for each in choices):
        names = ", ".join(map(repr, choices))
        raise ValueError(f"RewardServer(): expected {name} to be one of {names}, got {value!r:.100}")


def _path(op: str, path: object) -> str:
    if not isinstance(path, (str, os.PathLike)) or not isinstance(name := os.fspath(path), str):
        raise TypeError(f"{op}(): expected path to be a string or a path, got {type(path).__name__}")
    return name
