"""The server: one upload beside a plain copy of it, and a round with all its parts."""

from __future__ import annotations

import floor
import pytest
import torch
from cases import Size, resnet_50
from lap import Lap
from pytest_benchmark.fixture import BenchmarkFixture
from race import Entrant, Race

from cgsv_ext import RewardServer

ROUND = Size(50, 1_000_000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def bench_upload(dtype: torch.dtype, race: Race) -> None:
    """One after the other into two rows, as in a server with one agent, whose updates replace each other."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(count, generator=generator).to(dtype) for count in resnet_50()]
    update = {f"parameter {i}": part for i, part in enumerate(parts)}
    server = RewardServer({name: part.float() for name, part in update.items()})
    server.join("a")
    d = server.template.size
    rows = [torch.zeros(d), torch.zeros(d)]

    def copy_parts() -> None:
        rows.reverse()
        start = 0
        for part in update.values():
            rows[0][start : start + part.numel()].copy_(part)
            start += part.numel()

    need = floor.pack_row_(d, dtype.itemsize)
    entrants = [
        Entrant("upload", lambda: server.upload("a", update), need),
        floor.copy(need),
        Entrant("row[a:b].copy_(part), part by part", copy_parts, need),
        Entrant("copy_ and norm", lambda: (copy_parts(), torch.linalg.vector_norm(rows[0])), need),
    ]
    case = Size(1, d).case("upload", dtype=str(dtype).removeprefix("torch."), kind="ResNet-50, 161 parts")
    race(case, entrants, base="row[a:b].copy_(part), part by part")


@pytest.mark.full
@pytest.mark.parametrize("size", [ROUND], ids=Size.label)
def bench_round(size: Size, benchmark: BenchmarkFixture) -> None:
    """All that a round takes, and each part of it in the same round; quotas from D / 10 to D."""
    n, d = size
    common, *noises = torch.randn(n + 1, d, generator=torch.Generator().manual_seed(0))
    cosines = torch.linspace(0.95, 0.1, n)
    updates = [c * common + (1 - c * c).sqrt() * noise for c, noise in zip(cosines, noises, strict=True)]
    server = RewardServer(d, alpha=0.0)
    for agent in range(n):
        server.join(agent)
    need = {
        f"{n} uploads": 2 * 4 * n * d,
        "step": floor.lean(n, d) - 4 * n * d,
        f"{n} downloads": floor.download(n, d) + (n - 1) * d * 4,
    }
    copy = floor.copy(2 * 4 * n * d)
    lap = Lap()

    def upload() -> None:
        for agent in range(n):
            server.upload(agent, updates[agent])

    def download() -> None:
        for agent in range(n):
            server.download(agent)

    def acknowledge() -> None:
        for agent in range(n):
            server.acknowledge(agent, server.round)

    def one() -> None:
        def all_of_it() -> None:
            lap(f"{n} uploads", upload)
            lap("step", server.step)
            lap(f"{n} downloads", download)
            lap(f"{n} acknowledgements", acknowledge)

        lap("round", all_of_it)
        upload()
        server.step()
        lap("encode_all", server.encode_all)
        lap("encode_all, bfloat16", lambda: server.encode_all(dtype=torch.bfloat16))
        acknowledge()
        lap("copy", copy.call)

    one()
    one()  # the first one's quotas are still another's
    upload()
    server.step()
    for what, dtype in (("encode_all", torch.float32), ("encode_all, bfloat16", torch.bfloat16)):
        need[what] = 4 * d + sum(map(len, server.encode_all(dtype=dtype).values()))
    acknowledge()
    lap.seconds.clear()
    benchmark.pedantic(one, rounds=15)
    need["round"] = sum(need[what] for what in (f"{n} uploads", "step", f"{n} downloads"))
    rows = lap.rows({**need, "copy": copy.nbytes})
    rows.sort(key=lambda row: row["what"] != "round")
    benchmark.extra_info["case"] = {**size.case("round"), "base": "round"}
    benchmark.extra_info["rows"] = rows
