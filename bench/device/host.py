"""What each call costs the host and the device together, from the call to the end of its work, warm.

Timed by pytest-benchmark, on the GPU where there is one: `host --results RESULTS.json`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import partial_reference
import pytest
import torch
from cases import CNN, Size, importance, quotas, updates
from pytest_benchmark.fixture import BenchmarkFixture

import cgsv_ext

ops = torch.ops.cgsv_ext

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = [Size(2, 16), CNN]
CALLS = [
    "reward_step",
    "reward_step, dense=False",
    "norms",
    "partial_norms",
    "pack_row_",
    "aggregate",
    "partial_aggregate",
    "partial_dots",
    "update_importance",
    "quotas",
    "select",
    "histogram",
    "download",
    "download_",
    "gram",
]


def _call(what: str, size: Size) -> Callable[[], object]:
    x, r = updates(size).to(DEVICE), importance(size.n).to(DEVICE)
    q, out = quotas(size).to(DEVICE), torch.zeros(size, device=DEVICE)
    u, cosines, norms = cgsv_ext.aggregate(x, r, gamma=0.5)
    selection = cgsv_ext.select(u, q)
    parts, prefixes = x[0].chunk(100), partial_reference.keys(selection.magnitude) >> 16
    calls: dict[str, Callable[[], object]] = {
        "reward_step": lambda: cgsv_ext.reward_step(x, r, out=out),
        "reward_step, dense=False": lambda: cgsv_ext.reward_step(x, r, dense=False),
        "norms": lambda: cgsv_ext.norms(x),
        "partial_norms": lambda: ops.partial_norms([x]),
        "pack_row_": lambda: cgsv_ext.pack_row_(out[0], parts),
        "aggregate": lambda: cgsv_ext.aggregate(x, r, gamma=0.5),
        "partial_aggregate": lambda: ops.partial_aggregate([x], r, 0.5, norms),
        "partial_dots": lambda: ops.partial_dots([x], u),
        "update_importance": lambda: cgsv_ext.update_importance(r, cosines),
        "quotas": lambda: cgsv_ext.quotas(r, size.d),
        "select": lambda: cgsv_ext.select(u, q),
        "histogram": lambda: ops.histogram(u, prefixes, 8, 8, None),
        "download": lambda: cgsv_ext.download(u, selection, out=out),
        "download_": lambda: cgsv_ext.download_(out, u, selection),
        "gram": lambda: cgsv_ext.gram(x),
    }
    return calls[what]


@pytest.mark.parametrize("size", SIZES, ids=Size.label)
@pytest.mark.parametrize("what", CALLS)
def bench_call(what: str, size: Size, benchmark: BenchmarkFixture, quick: bool) -> None:
    call = _call(what, size)

    def until_done() -> None:
        call()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    benchmark.extra_info["name"] = f"{what}, {size}"
    benchmark.pedantic(until_done, rounds=2 if quick else 200, warmup_rounds=1 if quick else 20)


def main(argv: list[str]) -> int:
    import results

    options = results.parser(__doc__).parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "raw.json")
        ini = Path(__file__).resolve().parents[1] / "pytest.ini"
        arguments = [__file__, "-c", str(ini), f"--benchmark-json={raw}", "-q", *["--quick"] * options.tiny]
        status = pytest.main(arguments)
        timed = json.loads(raw.read_text())["benchmarks"] if raw.exists() else []
    rows = [
        {"name": one["extra_info"]["name"]} | {k: one["stats"][k] for k in ("median", "min")} for one in timed
    ]
    results.update(options.results, host=rows)
    results.say(f"{len(rows)} calls timed by the host's clock")
    return int(status)
