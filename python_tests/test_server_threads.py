"""Uploads from many threads at once: results are those of a serial order, to the bit."""

import itertools
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from cgsv_ext import Refused, RewardServer
from cgsv_ext.server import server as server_module

D = 30_011
THREADS = 16


def update(agent, version, size=D):
    """What an agent uploads; no two versions have the same norm."""
    generator = torch.Generator().manual_seed(agent * 100_003 + version)
    return torch.randn(size, generator=generator)


def exactly(record):
    """All of a record but how long it took and who was refused."""
    return record._replace(seconds=0.0, refused=0)


@pytest.fixture
def eager():
    """Threads change places as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


# All at once


@pytest.mark.parametrize("seed", range(3))
def test_sixteen_threads_upload_as_one_after_the_other_would(seed, eager):
    """Also where some upload twice, and some of what they upload is refused."""
    chance = random.Random(seed)
    together, serial = (RewardServer(D, beta=2.0) for _ in range(2))
    for agent in range(THREADS):
        together.join(agent)
        serial.join(agent)
    for t in range(3):
        barrier = threading.Barrier(THREADS)
        twice, wrong = (chance.sample(range(THREADS), 6) for _ in range(2))

        def work(agent, t=t, twice=twice, wrong=wrong, barrier=barrier):
            barrier.wait()
            if agent in twice:
                together.upload(agent, update(agent, 100 + t))
            norm = together.upload(agent, update(agent, t))
            if agent in wrong:
                with pytest.raises(Refused, match=f"agent {agent}: expected finite numbers"):
                    together.upload(
                        agent, update(agent, t).index_fill(0, torch.tensor([D - 1]), float("nan"))
                    )
            return norm

        with ThreadPoolExecutor(THREADS) as pool:
            norms = list(pool.map(work, range(THREADS)))
        assert norms == [serial.upload(agent, update(agent, t)) for agent in range(THREADS)]
        record = together.step()
        assert exactly(record) == exactly(serial.step())
        assert record.refused == 6
        for agent in range(THREADS):
            own = together.download(agent)
            assert torch.equal(own.flat, serial.download(agent).flat)
            for server in (together, serial):
                server.acknowledge(agent, own.round)


# All at any time


class Storm:
    """Threads that upload, download and acknowledge for agents of their own, while one plays rounds.

    That one also has agents join and leave, so that rounds, joins and leaves have one order, and which upload
    a round has used is told by its norm: the rest of the serial order.
    """

    def __init__(self, seed, rounds, per_thread=3):
        self.server = RewardServer(D, absent="decay", max_pending=5, log_length=100_000)
        self.seed, self.rounds, self.per_thread = seed, rounds, per_thread
        self.over = threading.Event()
        self.uploads = {}
        """(agent, norm): version, start and end of what was accepted."""
        self.rewards = {}
        """Agent: what it downloaded, one after the other."""
        self.played = []
        """What the operator did: ("join" or "leave", agent) and ("step", record, start, end)."""
        self.refused = 0

    def run(self):
        with ThreadPoolExecutor(THREADS + 1) as pool:
            done = [pool.submit(self.operate), *(pool.submit(self.work, k) for k in range(THREADS))]
            for each in done:
                each.result()
        return self

    def operate(self):
        try:
            chance = random.Random(self.seed)
            waiting = list(range(THREADS * self.per_thread))
            chance.shuffle(waiting)
            while self.server.round < self.rounds:
                while waiting and (len(self.server.agents) < 10 or chance.random() < 0.3):
                    self.played.append(("join", waiting.pop()))
                    self.server.join(self.played[-1][1])
                if len(self.server.agents) > 10 and chance.random() < 0.2:
                    self.played.append(("leave", chance.choice(self.server.agents)))
                    self.server.leave(self.played[-1][1])
                time.sleep(chance.choice((0, 0.001, 0.004)))
                begun = time.perf_counter()
                try:
                    record = self.server.step()
                except ValueError:  # nobody has uploaded yet
                    continue
                self.played.append(("step", record, begun, time.perf_counter()))
        finally:
            self.over.set()

    def work(self, k):
        chance, version = random.Random(f"{self.seed} {k}"), 0
        own = range(k * self.per_thread, (k + 1) * self.per_thread)
        while not self.over.is_set():
            agent = chance.choice(own)
            try:
                if chance.random() < 0.6:
                    version += 1
                    self.upload(agent, version, wrong=chance.random() < 0.15)
                else:
                    self.fetch(agent)
            except ValueError:  # it has not joined, or has left, or still has to acknowledge
                self.refused += 1
            time.sleep(chance.choice((0, 0, 0.001)))

    def upload(self, agent, version, wrong):
        given = update(agent, version)
        if wrong:
            given[D // 2] = torch.inf
        begun = time.perf_counter()
        norm = self.server.upload(agent, given)
        assert not wrong
        self.uploads[agent, norm] = version, begun, time.perf_counter()

    def fetch(self, agent):
        reward = self.server.download(agent)
        self.server.acknowledge(agent, reward.round)
        self.rewards.setdefault(agent, []).append(reward)

    def check(self):
        """Do it all again, one after the other."""
        serial, given = RewardServer(D, absent="decay", max_pending=5), {}
        used, members = {}, set()
        for what, *of in self.played:
            if what == "join":
                serial.join(of[0])
                members.add(of[0])
            elif what == "leave":
                serial.leave(of[0])
                members.remove(of[0])
            else:
                record, begun, ended = of
                for agent, norm in zip(record.agents, record.norms, strict=True):
                    version, start, _ = self.uploads[agent, norm]
                    assert used.get(agent, 0) < version, "used twice, or after a later one"
                    assert start < ended
                    used[agent] = version
                    assert serial.upload(agent, update(agent, version)) == norm
                for (agent, _), (version, _, end) in self.uploads.items():
                    assert not (agent in members and end < begun and version > used.get(agent, 0)), "lost"
                assert exactly(serial.step()) == exactly(record)
                for agent in serial.agents:
                    given[agent, record.round] = serial.download(agent).flat
                    serial.acknowledge(agent, record.round)
        for agent, rewards in self.rewards.items():
            for before, after in itertools.pairwise(rewards):
                assert after.since == before.round
            for reward in rewards:
                parts = [given[agent, t] for t in range(reward.since + 1, reward.round + 1)]
                parts = [part for part in parts if part.any()]
                total = parts[0].clone() if parts else torch.zeros(D)
                for part in parts[1:]:
                    total += part
                assert torch.equal(reward.flat, total)
        return self


def test_a_storm_of_threads_has_a_serial_order(eager):
    storm = Storm(seed=0, rounds=25).run().check()
    assert storm.refused > 0
    assert any(what == "leave" for what, *_ in storm.played)


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(1, 11))
def test_storms_of_threads_have_a_serial_order(seed, eager):
    Storm(seed, rounds=300).run().check()


# Races, one step at a time


class Paused:
    """Uploads in threads of their own, each stopped when its row is written, until it is told to go on."""

    def __init__(self, server, patch):
        self.server, self.pool = server, ThreadPoolExecutor(4)
        self.held = threading.local()
        real = server_module.pack_row_

        def pack(row, parts):
            norm = real(row, parts)
            if hasattr(self.held, "reached"):
                self.held.reached.set()
                assert self.held.go.wait(10)
            return norm

        patch.setattr(server_module, "pack_row_", pack)

    def upload(self, agent, given):
        """Start one, and wait until it has been packed; what lets it end, and tells how it did."""
        reached, go = threading.Event(), threading.Event()

        def work():
            self.held.reached, self.held.go = reached, go
            try:
                return self.server.upload(agent, given)
            finally:
                del self.held.reached

        done = self.pool.submit(work)
        assert reached.wait(10)

        def end():
            go.set()
            return done.result(10)

        return end


@pytest.fixture
def server():
    server = RewardServer(D)
    for agent in range(3):
        server.join(agent)
    return server


@pytest.fixture
def paused(server, monkeypatch):
    return Paused(server, monkeypatch)


def serial(*rounds):
    """The record of the last of some rounds of three agents, each with these versions of their updates."""
    server = RewardServer(D)
    for agent in range(3):
        server.join(agent)
    for versions in rounds:
        for agent, version in enumerate(versions):
            server.upload(agent, update(agent, version))
        record = server.step()
    return exactly(record)


def test_an_upload_whose_agent_leaves_meanwhile_is_refused(server, paused):
    end = paused.upload(0, update(0, 1))
    server.leave(0)
    with pytest.raises(Refused, match=r"agent 0: expected an agent that has joined"):
        end()
    assert server.uploaded == ()
    assert 0 not in server.agents


def test_an_upload_of_who_left_and_joined_again_is_refused(server, paused):
    """It was the former member's."""
    end = paused.upload(0, update(0, 1))
    server.leave(0)
    server.join(0)
    with pytest.raises(Refused, match="left meanwhile"):
        end()
    assert server.uploaded == ()


def test_of_two_uploads_at_once_the_one_that_ends_last_counts(server, paused):
    for agent in (1, 2):
        server.upload(agent, update(agent, 0))
    first, second = (paused.upload(0, update(0, version)) for version in (1, 2))
    second()
    first()
    assert exactly(server.step()) == serial((1, 0, 0))


def test_the_round_takes_what_was_there_and_the_next_one_what_ends_later(server, paused):
    for agent in range(3):
        server.upload(agent, update(agent, 0))
    end = paused.upload(0, update(0, 1))
    assert exactly(server.step()) == serial((0, 0, 0))
    assert server.uploaded == ()
    assert end() == pytest.approx(update(0, 1).norm().item())
    assert server.uploaded == (0,)
    assert server.step().norms == (end(),)


def test_an_upload_that_ends_after_a_reward_was_downloaded_is_refused(server, paused):
    """It was made without the reward, which may be in the agent's parameters by now."""
    for agent in range(3):
        server.upload(agent, update(agent, 0))
    end = paused.upload(0, update(0, 1))
    server.step()
    reward = server.download(0)
    with pytest.raises(Refused, match=r"agent 0: expected the reward downloaded to be acknowledged"):
        end()
    server.acknowledge(0, reward.round)
    server.upload(0, update(0, 1))


def test_rows_that_are_written_belong_to_nobody_else(server, paused):
    """Neither to the round that is played meanwhile nor to another upload."""
    ends = [paused.upload(agent, update(agent, 1)) for agent in range(3)]
    for agent in range(3):
        server.upload(agent, update(agent, 0))
    assert exactly(server.step()) == serial((0, 0, 0))
    for agent in range(3):  # into rows that the round has given back
        server.upload(agent, update(agent, 2))
    for end in ends:
        end()
    assert exactly(server.step()) == serial((0, 0, 0), (1, 1, 1))
