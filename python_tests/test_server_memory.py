"""A server's memory does not grow with the rounds it has played."""

import contextlib
import gc
import logging
import os
import random

import pytest
import torch

from cgsv_ext import Refused, RewardServer

D = 5000


@pytest.fixture(autouse=True)
def unheard(caplog):
    """Pytest would keep a record of every update that is refused."""
    caplog.set_level(logging.CRITICAL, "cgsv_ext.server")


def live_tensors():
    """How many tensors there are, and the bytes of all their storages."""
    gc.collect()
    tensors = [t for t in gc.get_objects() if type(t) is torch.Tensor and t.layout is torch.strided]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return len(tensors), sum(storages.values())


def resident():
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Life:
    """All that happens to a server: agents are away, upload twice, are refused, leave, never fetch."""

    def __init__(self, path=None):
        self.server = RewardServer(D, absent="decay", max_pending=4, log_length=50, path=path)
        self.chance, self.generator = random.Random(0), torch.Generator().manual_seed(0)
        for agent in range(8):
            self.server.join(agent)
        self.server.join("silent")
        self.next = 8

    def round(self):
        server, chance = self.server, self.chance
        for agent in server.agents:
            for _ in range(chance.choice((0, 1, 1, 2))):
                update = torch.randn(D, generator=self.generator)
                if chance.random() < 0.1:
                    update[0] = torch.nan
                with contextlib.suppress(Refused):
                    server.upload(agent, update)
        if not server.uploaded:
            server.upload(server.agents[-1], torch.ones(D))
        server.step()
        for agent in server.agents:
            if agent != "silent" and chance.random() < 0.8:
                reward = server.download(agent)
                if chance.random() < 0.5:
                    server.encode(agent)
                server.acknowledge(agent, reward.round)
        if chance.random() < 0.2:
            server.leave(chance.choice([agent for agent in server.agents if agent != "silent"]))
            server.join(self.next)
            self.next += 1

    def rounds(self, count):
        for _ in range(count):
            self.round()


def test_tensors_do_not_pile_up():
    life, counts = Life(), []
    for _ in range(6):
        life.rounds(60)
        for agent in life.server.agents:  # what is owed, and how much, differs from round to round
            if agent != "silent":
                life.server.acknowledge(agent, life.server.round)
        counts.append(live_tensors())
    assert len(life.server.pending("silent")) == 4
    assert counts[0] > (4, 4 * 4 * D)  # they are seen
    assert max(counts[1:]) <= counts[0]


def test_a_file_does_not_grow(tmp_path):
    life, sizes = Life(tmp_path / "server"), []
    for _ in range(4):
        life.rounds(20)
        for agent in life.server.agents:
            life.server.acknowledge(agent, life.server.round)
        life.server.save()
        sizes.append(os.path.getsize(tmp_path / "server"))
    assert max(sizes) < sizes[0] + 500
    assert sorted(os.listdir(tmp_path)) == ["server", "server.previous"]


@pytest.mark.stress
def test_ten_thousand_rounds():
    life = Life()
    life.rounds(1000)
    tensors, memory = live_tensors(), resident()
    life.rounds(10_000)
    grown = resident() - memory
    print(
        f"{life.server.round} rounds: {tensors} -> {live_tensors()} tensors and bytes, {grown / 1e6:+.2f} MB"
    )
    assert live_tensors()[0] <= tensors[0] + 20
    assert grown < 4e6
