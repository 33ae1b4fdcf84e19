"""A server through all that may happen, in any order, against a model: every reward arrives exactly once.

Each round's updates live in a layer of their own, so rewards of different rounds share no entry: what an
agent's parameters hold says, exactly, which rounds it was given, and how often.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from oracle import assert_same_bits
from server_model import Shares, assert_same_state, assert_shares_are_whole
from torch import Tensor

import cgsv_ext
from cgsv_ext import reference
from cgsv_ext.server import Refused, RewardServer
from cgsv_ext.types import Reward
from cgsv_ext.wire import decode

PLAYS, SIZE = 48, 8
D = PLAYS * SIZE
MAX_PENDING = 4

WHO = st.integers(0, 5)
WHICH = st.integers(0, 63)
SEED = st.integers(0, 99)


@dataclass(eq=False)
class Agent:
    """What an agent keeps through all crashes: its parameters, and the last round that is in them."""

    id: int | str
    last: int
    parameters: Tensor = field(default_factory=lambda: torch.zeros(D))
    hand: Reward | None = None
    """A reward that has come and is not yet in the parameters."""
    met: bool = True
    """Whether it has told the server, since that started, where it stands."""
    applied: set[int] = field(default_factory=set)
    """Plays whose rewards must be in the parameters."""
    in_hand: set[int] = field(default_factory=set)
    given_up: set[int] = field(default_factory=set)
    """Plays it has acknowledged without having had them."""


@dataclass
class World:
    """All that a server must remember, in plain Python."""

    shares: Shares
    round: int = 0
    members: dict[Any, Agent] = field(default_factory=dict)
    settled: dict[Any, int] = field(default_factory=dict)
    owed: dict[Any, dict[int, int]] = field(default_factory=dict)
    """Of each agent: rounds not acknowledged, and which play each was."""
    earned: dict[Any, set[int]] = field(default_factory=dict)
    """Of each agent: all plays it was rewarded in."""
    fetched: dict[Any, int] = field(default_factory=dict)
    """Of agents that were given a reward and have not acknowledged it: the round of it."""

    def copy(self) -> World:
        shares = Shares(alpha=self.shares.alpha, floor=self.shares.floor, absent=self.shares.absent)
        shares.r, shares.samples = dict(self.shares.r), dict(self.shares.samples)
        return replace(
            self,
            shares=shares,
            members=dict(self.members),
            settled=dict(self.settled),
            owed={agent: dict(rounds) for agent, rounds in self.owed.items()},
            earned={agent: set(plays) for agent, plays in self.earned.items()},
            fetched=dict(self.fetched),
        )


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path, self.aside = self.folder / "server", self.folder / "aside"
        self.plays = 0
        self.rewards: dict[tuple[int, Any], Tensor] = {}
        self.open: dict[Any, Tensor] = {}
        self.names = 0

    @initialize(
        segments=st.sampled_from([None, "layers"]),
        absent=st.sampled_from(["keep", "decay"]),
        samples=st.booleans(),
    )
    def start(self, segments: Any, absent: str, samples: bool) -> None:
        self.options: dict[str, Any] = {
            "segments": segments,
            "absent": absent,
            "alpha": 0.5,
            "beta": 4.0,
            "max_pending": MAX_PENDING,
            "path": self.path,
        }
        self.samples = samples
        self.server = self.new_server()
        self.world = World(Shares(alpha=0.5, absent=absent))
        # What is in the latest file and its previous version; None where it is not there or damaged.
        self.saved = self.world
        self.previous: World | None = None
        self.put_aside: World | None = None
        for _ in range(3):
            self.join(False, 1)
        self.rounds(2, 63, 0)  # so that both files are there

    def new_server(self) -> RewardServer:
        return RewardServer([torch.zeros(SIZE)] * PLAYS, **self.options)

    def teardown(self) -> None:
        if hasattr(self, "server"):
            self.drain()
        shutil.rmtree(self.folder)

    def drain(self) -> None:
        """In the end everybody fetches what is left, and has had all it earned."""
        for agent in self.world.members.values():
            self.meet(agent)
            self.fetch(agent, self.server.download(agent.id))
            self.apply(agent)
            self.acknowledged(agent, agent.last)
            assert agent.applied | agent.given_up >= self.world.earned[agent.id]
        self.everything_is_as_it_should_be()
        assert self.server.state_dict()["ledger"] == []

    def member(self, who: int) -> Agent:
        members = list(self.world.members.values())
        return members[who % len(members)]

    # The model of what the server does

    def acknowledged(self, agent: Agent, t: int) -> None:
        """Acknowledge, here and there."""
        self.server.acknowledge(agent.id, t)
        world = self.world
        world.settled[agent.id] = max(world.settled[agent.id], t)
        for each in [each for each in world.owed[agent.id] if each <= t]:
            assert world.owed[agent.id].pop(each) in agent.applied | agent.given_up
        fetched = self.world.fetched.get(agent.id)
        if fetched is not None and all(each > fetched for each in world.owed[agent.id]):
            del world.fetched[agent.id]

    def meet(self, agent: Agent) -> None:
        """What an agent says first, after a restart of either side, or if it never said what it has added."""
        if not agent.met or agent.last > self.world.settled[agent.id]:
            self.acknowledged(agent, agent.last)
            agent.met = True

    def fetch(self, agent: Agent, reward: Reward) -> None:
        """Check a reward and hold it in the hand."""
        owed = self.world.owed[agent.id]
        expected = torch.zeros(D)
        for play in owed.values():
            expected += self.rewards[play, agent.id]
        assert (reward.since, reward.round) == (self.world.settled[agent.id], self.world.round)
        assert torch.equal(reward.flat, expected)
        agent.hand, agent.in_hand = reward, set(owed.values())
        if owed:
            self.world.fetched[agent.id] = self.world.round

    def saved_now(self) -> None:
        self.previous, self.saved = self.saved, self.world.copy()

    def started_with(self, world: World) -> None:
        """A new process: what was open is gone, and agents have to say where they stand."""
        self.world = world.copy()
        self.open = {}
        for agent in self.world.members.values():
            agent.met = False

    # Members

    @precondition(lambda self: len(self.world.members) < 6)
    @rule(number=st.booleans(), samples=st.integers(1, 9))
    def join(self, number: bool, samples: int) -> None:
        self.names += 1
        name = self.names if number else f"agent {self.names}"
        told = samples if self.samples else None
        self.enter(name, told)

    def enter(self, name: Any, told: int | None) -> None:
        self.server.join(name, told)
        world = self.world
        world.shares.join(name, told)
        world.members[name] = Agent(name, world.round)
        world.settled[name], world.owed[name], world.earned[name] = world.round, {}, set()

    @precondition(lambda self: len(self.world.members) > 1)
    @rule(who=WHO, back=st.booleans())
    def leave(self, who: int, back: bool) -> None:
        agent = self.member(who)
        self.server.leave(agent.id)
        world = self.world
        told = world.shares.samples[agent.id]
        world.shares.leave(agent.id)
        for kept in (world.members, world.settled, world.owed, world.earned):
            del kept[agent.id]
        self.world.fetched.pop(agent.id, None)
        self.open.pop(agent.id, None)
        if back:  # as somebody who starts anew
            self.enter(agent.id, told)

    # Rounds

    def update(self, seed: int) -> Tensor:
        """Like every other of this round, in the round's own layer."""
        start = self.plays * SIZE
        x = torch.zeros(D)
        x[start : start + SIZE] = oracle.normal(SIZE, seed=self.plays) + 0.5 * oracle.normal(
            SIZE, seed=1000 + seed
        )
        return x

    def hand_in(self, agent: Agent, update: Tensor) -> None:
        waiting = len(self.world.owed[agent.id])
        if agent.id in self.world.fetched:
            with pytest.raises(Refused, match="expected the reward downloaded to be acknowledged first"):
                self.server.upload(agent.id, update)
        elif waiting >= MAX_PENDING:
            with pytest.raises(
                Refused, match=f"expected fewer than {MAX_PENDING} rewards waiting, got {waiting}"
            ):
                self.server.upload(agent.id, update)
        else:
            assert self.server.upload(agent.id, update) > 0
            self.open[agent.id] = update

    @precondition(lambda self: self.world.members and self.plays < PLAYS)
    @rule(who=WHO, seed=SEED, listed=st.booleans())
    def upload(self, who: int, seed: int, listed: bool) -> None:
        agent = self.member(who)
        self.meet(agent)
        x = self.update(seed)
        if listed and agent.id not in self.world.fetched and len(self.world.owed[agent.id]) < MAX_PENDING:
            self.server.upload(agent.id, torch.ones(D))  # replaced by the next
            self.open[agent.id] = torch.ones(D)
            assert self.server.upload(agent.id, list(x.view(PLAYS, SIZE))) > 0
            self.open[agent.id] = x
        else:
            self.hand_in(agent, x)

    @precondition(lambda self: self.world.members)
    @rule(who=WHO, bad=st.sampled_from(["nan", "size", "dtype", "stranger"]))
    def upload_something_bad(self, who: int, bad: str) -> None:
        agent = self.member(who)
        x = torch.ones(D + (bad == "size"), dtype=torch.int64 if bad == "dtype" else torch.float64)
        if bad == "nan":
            x[7] = math.nan
        with pytest.raises(Refused):
            self.server.upload("stranger" if bad == "stranger" else agent.id, x)

    @precondition(lambda self: self.plays < PLAYS)
    @rule(order=SEED)
    def step(self, order: int) -> None:
        if not self.open:
            with pytest.raises(ValueError, match=r"^step\(\): expected the update of at least one agent"):
                self.server.step()
            return
        world = self.world
        twin = RewardServer(self.server.template, **self.options | {"path": None})
        twin.load_state_dict(self.server.state_dict())
        assert_same_state(twin.state_dict(), self.server.state_dict())

        present = [agent for agent in world.members if agent in self.open]
        r = [self.server.importance[agent] for agent in present]
        s = math.fsum(r)
        if len(present) < len(world.members):
            r = [each / s for each in r] if s > 0 else [0.0] * len(r)
        segments = self.server.segments
        options = {"alpha": 0.5, "beta": 4.0, "segments": segments, "dense": False}
        rows = torch.stack([self.open[agent] for agent in present])
        expected = cgsv_ext.reward_step(rows, torch.tensor(r, dtype=torch.float64), **options)

        record = self.server.step()
        world.round += 1
        assert (record.round, list(record.agents)) == (world.round, present)
        assert_same_bits(self.server.aggregate, expected.aggregate)
        assert list(record.cosines) == expected.cosines.tolist()
        plain = reference.reward_step(rows, torch.tensor(r, dtype=torch.float64), **options)
        torch.testing.assert_close(plain.aggregate, expected.aggregate, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(plain.cosines, expected.cosines, rtol=0, atol=1e-5)
        share = world.shares.play(dict(zip(present, record.cosines, strict=True)))
        assert math.isclose(record.share, share, rel_tol=1e-9)
        rewards = reference.download(expected.aggregate, expected.selection, segments=segments)
        for agent, reward, quota in zip(present, rewards, record.quotas, strict=True):
            if quota:
                self.rewards[self.plays, agent] = reward
                world.owed[agent][world.round] = self.plays
                world.earned[agent].add(self.plays)

        for i in torch.randperm(len(present), generator=oracle.generator(order)).tolist():
            twin.upload(present[i], self.open[present[i]])
        assert twin.step()[:-2] == record[:-2]
        assert_same_state(twin.state_dict(), self.server.state_dict())
        self.open = {}
        self.plays += 1
        self.saved_now()

    @precondition(lambda self: self.plays < PLAYS - 3)
    @rule(count=st.integers(1, 3), which=WHICH, seed=SEED)
    def rounds(self, count: int, which: int, seed: int) -> None:
        """Some upload, and nobody fetches anything in between."""
        for t in range(count):
            for i, agent in enumerate(self.world.members.values()):
                if which >> i & 1:
                    self.meet(agent)
                    self.hand_in(agent, self.update(seed + i + t))
            self.step(seed)

    @precondition(lambda self: self.plays < PLAYS - 3)
    @rule(count=st.integers(1, 3), seed=SEED)
    def rounds_of_all(self, count: int, seed: int) -> None:
        self.rounds(count, 63, seed)

    @precondition(lambda self: self.plays < PLAYS - 3)
    @rule(count=st.integers(1, 3), who=WHO, seed=SEED)
    def rounds_after_which_one_fetches(self, count: int, who: int, seed: int) -> None:
        self.rounds(count, 63, seed)
        self.download(who, False)
        self.add(who, True)

    # Rewards

    @precondition(lambda self: self.world.members)
    @rule(who=WHO, encoded=st.booleans())
    def download(self, who: int, encoded: bool) -> None:
        agent = self.member(who)
        self.meet(agent)
        if encoded:
            self.fetch(agent, decode(self.server.encode(agent.id), size=D))
        else:
            self.fetch(agent, self.server.download(agent.id))

    @precondition(lambda self: self.world.members and self.plays < PLAYS - 3)
    @rule(who=WHO, seed=SEED)
    def an_answer_and_a_message_are_lost(self, who: int, seed: int) -> None:
        agent = self.member(who)
        self.meet(agent)
        self.fetch(agent, self.server.download(agent.id))
        self.apply(agent)  # and the server does not hear of it
        self.rounds(1, 63 & ~(1 << list(self.world.members).index(agent.id)), seed)
        self.server.download(agent.id)
        if self.world.owed[agent.id]:
            self.world.fetched[agent.id] = self.world.round
        self.acknowledged(agent, agent.last)

    @rule()
    def encode_all(self) -> None:
        for agent in self.world.members.values():
            self.meet(agent)
        messages = self.server.encode_all()
        assert set(messages) == {agent for agent, owed in self.world.owed.items() if owed}
        for agent, message in messages.items():
            self.fetch(self.world.members[agent], decode(message, size=D))

    @precondition(lambda self: self.world.members)
    @rule(who=WHO, tell=st.booleans())
    def add(self, who: int, tell: bool) -> None:
        agent = self.member(who)
        self.apply(agent)
        if tell:
            self.meet(agent)
            self.acknowledged(agent, agent.last)

    def apply(self, agent: Agent) -> None:
        """Parameters and the round in them change together."""
        if agent.hand is not None:
            assert not agent.in_hand & agent.applied
            agent.parameters = agent.parameters + agent.hand.flat
            agent.last = agent.hand.round
            agent.applied |= agent.in_hand
            agent.hand = None

    @precondition(lambda self: self.world.members)
    @rule(who=WHO)
    def download_into(self, who: int) -> None:
        agent = self.member(who)
        self.meet(agent)
        since, owed = self.world.settled[agent.id], set(self.world.owed[agent.id].values())
        reward = self.server.download(agent.id, into=list(agent.parameters.view(PLAYS, SIZE)))
        assert (reward.since, reward.round) == (since, self.world.round)
        assert not owed & agent.applied
        assert self.server.pending(agent.id) == ()
        agent.applied |= owed
        agent.last, agent.hand = reward.round, None
        self.acknowledged(agent, agent.last)  # again: nothing changes

    @precondition(lambda self: self.world.members)
    @rule(who=WHO, t=st.integers(-2, 12))
    def acknowledge_any_round(self, who: int, t: int) -> None:
        """Also one that was never fetched, whose rewards are given up with it."""
        agent = self.member(who)
        self.meet(agent)
        if not 0 <= t <= self.world.round:
            with pytest.raises(ValueError, match=f"expected a round up to {self.world.round}, .* got {t}"):
                self.server.acknowledge(agent.id, t)
            return
        if t > agent.last:
            owed = self.world.owed[agent.id]
            agent.given_up |= {play for each, play in owed.items() if each <= t} - agent.applied
            agent.last, agent.hand = t, None
        self.acknowledged(agent, t)

    # Crashes

    @precondition(lambda self: self.world.members)
    @rule(who=WHO)
    def agent_crashes(self, who: int) -> None:
        agent = self.member(who)
        agent.hand, agent.met = None, False

    @rule()
    def save(self) -> None:
        self.server.save()
        self.saved_now()

    @rule()
    def server_crashes(self) -> None:
        self.server = self.new_server()
        self.server.load()
        self.started_with(self.saved)

    @precondition(lambda self: self.previous is not None)
    @rule()
    def server_crashes_and_its_file_is_damaged(self) -> None:
        """The round of the latest file may be lost; its number is not used again."""
        assert self.previous is not None
        self.path.write_bytes(self.path.read_bytes()[:-1])
        self.server = self.new_server()
        self.server.load()
        self.started_with(self.previous)
        self.world.round += 1
        # A copy of the round that is lost would be another past, whose numbers mean other rewards.
        if self.put_aside is not None and self.put_aside.round > self.previous.round:
            self.put_aside = None
        # The file of before is still the only good one, until the next is written.
        self.server.save()
        self.saved, self.previous = self.world.copy(), None

    @rule()
    def put_a_copy_aside(self) -> None:
        self.server.save(self.aside)
        self.put_aside = self.world.copy()

    @precondition(lambda self: self.put_aside is not None)
    @rule()
    def go_back_to_the_copy(self) -> None:
        """Agents that are ahead are told so, all of them before the next round."""
        assert self.put_aside is not None
        for file in (self.path, self.path.with_name("server.previous")):
            file.unlink(missing_ok=True)
        self.server = self.new_server()
        self.server.load(self.aside)
        self.server.save()
        self.started_with(self.put_aside)
        self.saved, self.previous = self.world.copy(), None
        for agent in self.world.members.values():
            agent.hand = None
            if agent.last > self.world.round:
                with pytest.raises(
                    ValueError, match=f"expected a round up to {self.world.round}, .* got {agent.last}"
                ):
                    self.server.acknowledge(agent.id, agent.last)
                agent.last = self.world.round  # what it has of rounds that never were, it keeps
            self.meet(agent)

    # What always holds

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        if not hasattr(self, "server"):
            return
        world, server = self.world, self.server
        assert server.round == world.round
        assert server.agents == tuple(world.members)
        assert set(server.uploaded) == set(self.open)
        importance = server.importance
        assert_shares_are_whole(importance.values())
        for name, agent in world.members.items():
            assert server.pending(name) == tuple(world.owed[name])
            assert server._members[name].fetched == world.fetched.get(name)
            assert math.isclose(importance[name], world.shares.r[name], abs_tol=1e-9)
            expected = torch.zeros(D)
            for play in agent.applied:
                part = slice(play * SIZE, (play + 1) * SIZE)
                expected[part] = self.rewards[play, name][part]
            assert torch.equal(agent.parameters, expected)


TestServer = Machine.TestCase
TestServer.settings = settings(max_examples=30, stateful_step_count=30)


@pytest.mark.stress
class TestServerForLong(Machine.TestCase):
    """Other histories every time, and longer ones."""

    settings = settings(max_examples=2000, stateful_step_count=100, derandomize=False)
