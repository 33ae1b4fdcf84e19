"""What a strategy does in a round on Flower's server, beside FedAvg: messages are made, replies are taken."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import floor
import pytest
import torch
from cases import Size
from lap import Lap
from pytest_benchmark.fixture import BenchmarkFixture

pytest.importorskip("flwr.serverapp.strategy", reason="needs Flower: pip install flwr")

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy

from cgsv_ext import RewardServer
from cgsv_ext.flower import GradientRewardStrategy
from cgsv_ext.flower.records import FromAgent

LAYERS = 20


class Nodes:
    """A grid that only says who is there."""

    def __init__(self, n: int) -> None:
        self.ids = list(range(1, n + 1))

    def get_node_ids(self) -> list[int]:
        return self.ids


def answers(messages: list[Message], content: Callable[[int], RecordDict]) -> list[Message]:
    replies = []
    for message in messages:
        node = message.metadata.dst_node_id
        reply = Message(content(node), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = node
        replies.append(reply)
    return replies


@pytest.mark.full
@pytest.mark.parametrize("size", [Size(10, 10_000_000)], ids=Size.label)
def bench_strategy(size: Size, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """In the server's process, without the network; bytes are those of all messages, both ways."""
    with suppress(ImportError):  # where a Message wants to know which task it is written by
        from flwr.supercore.task_identity import TaskIdentity

        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    n, d = size
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(d, generator=generator)
    updates = [common + i * torch.randn(d, generator=generator) for i in range(n)]
    layers = {f"layer {i}": torch.zeros(d // LAYERS) for i in range(LAYERS)}
    grid, lap = Nodes(n), Lap()
    copy = floor.copy(4 * n * d)
    need = {"copy": copy.nbytes}

    def fedavg_reply(node: int) -> RecordDict:
        parts = updates[node - 1].view(LAYERS, -1)
        arrays = ArrayRecord(dict(zip(layers, parts, strict=True)))
        return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})

    def rewarded(server: RewardServer) -> tuple[Strategy, Callable[[int], RecordDict]]:
        strategy = GradientRewardStrategy(server)
        strategy.begin(ArrayRecord(layers))

        def reply(node: int) -> RecordDict:
            content = RecordDict({"metrics": MetricRecord({"num-examples": 1})})
            FromAgent(str(node), server.round, updates[node - 1]).write(content)
            return content

        return strategy, reply

    entrants = {
        "GradientRewardStrategy": rewarded(RewardServer(layers)),
        "GradientRewardStrategy, saved": rewarded(RewardServer(layers, path=tmp_path / "server")),
        "FedAvg": (FedAvg(), fedavg_reply),
    }
    arrays, config = ArrayRecord(layers), ConfigRecord()

    def round_of(what: str, strategy: Strategy, content: Callable[[int], RecordDict]) -> None:
        made: list[Message] = []
        lap(
            f"{what}: configure_train", lambda: made.extend(strategy.configure_train(1, arrays, config, grid))
        )
        replies = answers(made, content)
        lap(f"{what}: aggregate_train", lambda: strategy.aggregate_train(1, replies))
        parts = [lap.seconds[f"{what}: {part}_train"][-1] for part in ("configure", "aggregate")]
        lap.seconds.setdefault(what, []).append(sum(parts))
        records = [record for message in (*made, *replies) for record in message.content.values()]
        need[what] = sum(record.count_bytes() for record in records)

    def one() -> None:
        for what, (strategy, content) in entrants.items():
            round_of(what, strategy, content)
        lap("copy", copy.call)

    one()
    one()
    lap.seconds.clear()
    benchmark.pedantic(one, rounds=5)
    rows = lap.rows(need)
    rows.sort(key=lambda row: row["what"] not in entrants)
    benchmark.extra_info["case"] = {**size.case("Flower strategy"), "base": "FedAvg"}
    benchmark.extra_info["rows"] = rows
