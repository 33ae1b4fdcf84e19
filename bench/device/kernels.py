"""Where a step's time goes on the GPU: every kernel by torch's profiler, cold L2 cache."""

from __future__ import annotations

import gc
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import about
import clock
import gpu_cases
import results
import torch
from gpu_cases import Case, Inputs
from torch.profiler import ProfilerActivity, profile

from cgsv_ext import download_, reward_step

Event = dict[str, Any]
Call = Callable[[], object]

CALLS = 10
CASES = ["10x104242", "10x1M", "10x100M", "ragged", "100x10M", "2x1G", "10x100M-bf16", "1000x10M-bf16"]


def _calls(inputs: Inputs) -> Iterator[tuple[str, Call]]:
    x, r, out = inputs.x, inputs.r, inputs.out
    yield "dense, out=", lambda: reward_step(x, r, out=out)
    step = reward_step(x, r, dense=False)
    yield "download_", lambda: download_(out, step.aggregate, step.selection)


def _events(call: Call, flush: Call) -> list[Event]:
    """What the GPU did in CALLS calls, by the profiler's own trace."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        for _ in range(CALLS):
            flush()
            call()
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        found.export_chrome_trace(str(trace))
        events: list[Event] = json.loads(trace.read_text())["traceEvents"]
    return events


def short(name: str) -> str:
    """A kernel's name without its namespaces, parameters and return type."""
    name = re.sub(r"\(anonymous namespace\)::|\bcgsv::(cuda::)?|^void ", "", name)
    return re.sub(r"\((?:[^()]|\([^()]*\))*\)$", "", name)[:90]


def by_kernel(events: list[Event], calls: int) -> dict[str, Any]:
    """Launches, time and shape of each kernel, a call; torch's own kernels are the flush's."""
    work = [e for e in events if e.get("cat") in ("kernel", "gpu_memset", "gpu_memcpy")]
    work = sorted((e for e in work if "at::" not in e["name"]), key=lambda e: e["ts"])
    groups: dict[str, list[Event]] = {}
    for event in work:
        groups.setdefault(event["name"], []).append(event)
    busy = sum(e["dur"] for e in work) / calls
    kernels = []
    for name, some in groups.items():
        arguments = some[0].get("args", {})
        taken = sum(e["dur"] for e in some) / calls
        kernels.append(
            {
                "name": short(name),
                "launches": len(some) / calls,
                "microseconds": taken,
                "median_launch": median(e["dur"] for e in some),
                "share": taken / busy,
                "grid": arguments.get("grid"),
                "block": arguments.get("block"),
                "registers": arguments.get("registers per thread"),
                "shared": arguments.get("shared memory"),
            }
        )
    size, rest = divmod(len(work), calls)
    spans = [0.0]
    if work and not rest:
        parts = [work[i * size : (i + 1) * size] for i in range(calls)]
        spans = [part[-1]["ts"] + part[-1]["dur"] - part[0]["ts"] for part in parts]
    return {"kernels": kernels, "busy_us": busy, "span_us": median(spans)}


def _profiled(case: Case) -> list[dict[str, Any]]:
    flush, found = clock.Flush(), []
    for what, call in _calls(Inputs(case, torch.device("cuda"))):
        call()
        found.append({"case": case.name, "what": what, **by_kernel(_events(call, flush), CALLS)})
    return found


def main(argv: list[str]) -> int:
    parser = results.parser(__doc__)
    parser.add_argument("case", nargs="*", help="; ".join(CASES))
    options = parser.parse_args(argv)
    if options.device != "cuda":
        results.say("needs a GPU")
        return results.SKIPPED
    profiles: list[dict[str, Any]] = []
    left_out = []
    for case in gpu_cases.by_name(options.case or CASES):
        case = case.tiny() if options.tiny else case
        gc.collect()
        torch.cuda.empty_cache()
        if case.nbytes > torch.cuda.mem_get_info()[0]:
            left_out.append(case.name)
            continue
        profiles += _profiled(case)
        results.update(options.results, machine=about.describe(options.device), profile=profiles)
        for one in profiles[-2:]:
            print(json.dumps(one), flush=True)
    if profiles and not any(one["kernels"] for one in profiles):
        results.say("torch's profiler sees no kernels on this machine")
        return results.SKIPPED
    words = f"; not enough memory for {', '.join(left_out)}" if left_out else ""
    results.say(f"{len(profiles)} calls{words}")
    return 0
