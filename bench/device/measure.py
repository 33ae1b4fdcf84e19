"""Time the cases on the GPU and add them to the results: `measure [CASE...]`, all of them for none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from math import ceil
from time import monotonic
from typing import Any

import about
import clock
import gpu_cases
import results
import torch
from clock import Clock
from gpu_cases import Case, Inputs, Runner

BUDGET, MOST = 0.3, 100
"""Seconds and rounds of one call."""

Row = dict[str, Any]


def _fits(case: Case, device: torch.device) -> bool:
    return device.type != "cuda" or case.nbytes <= torch.cuda.mem_get_info(device)[0]


def _why(failure: Exception) -> str:
    if isinstance(failure, torch.cuda.OutOfMemoryError):
        return "does not fit into the GPU's memory"
    return f"{type(failure).__name__}: {failure}".splitlines()[0][:300]


def _made(case: Case, device: torch.device, notes: list[str]) -> Iterator[Runner]:
    """The runners up to the first that cannot be made."""
    try:
        yield from case.runners(device)
    except Exception as failure:
        notes.append(_why(failure))


def _timed(runner: Runner, timer: Clock) -> float:
    if runner.before is not None:
        runner.before()
    return timer.time(runner.call, runner.warm)


def _rounds(seconds: float) -> int:
    return max(1 if seconds > 1 else 3, min(MOST, ceil(BUDGET / max(seconds, 1e-9))))


def time_in_turn(runners: list[Runner], timer: Clock) -> list[Row]:
    """A row for each. Clocks drift, so every round runs each once, the slow ones in some rounds only."""
    rows: list[Row] = []
    able: list[tuple[Runner, int, list[float]]] = []
    for runner in runners:
        row: Row = {"what": runner.what, "bytes": runner.nbytes, "warm": runner.warm}
        rows.append(row)
        try:
            first = _timed(runner, timer)
            seconds = first if first > 1 else min(_timed(runner, timer) for _ in range(2))
        except Exception as failure:
            row["failed"] = _why(failure)
            continue
        able.append((runner, _rounds(seconds), []))
    most = max((rounds for _, rounds, _ in able), default=0)
    for turn in range(most):
        for runner, rounds, samples in able:
            if (turn + 1) * rounds // most > turn * rounds // most:
                samples.append(_timed(runner, timer))
    by_name = {runner.what: samples for runner, _, samples in able}
    for row in rows:
        if row["what"] in by_name:
            row |= clock.summary(by_name[row["what"]])
    return rows


def with_ratios(rows: list[Row], base: str) -> list[Row]:
    """To the floor, the time the same run's copy takes for a row's bytes, and to the row compared with."""
    timed = {row["what"]: row for row in rows if "median" in row}
    copy, first = timed.get("copy"), timed.get(base)
    for row in timed.values():
        row["gb_per_s"] = row["bytes"] / row["median"] / 1e9
        if copy and row["bytes"]:
            row["of_floor"] = row["median"] / (row["bytes"] * copy["median"] / copy["bytes"])
        if first:
            row["of_base"] = row["median"] / first["median"]
    return rows


def measure(case: Case, device: torch.device, timer: Clock) -> Row:
    """All that is known of one case."""
    n, d = case.size
    found: Row = {
        "name": case.name,
        "step": case.step,
        "size": str(case.size),
        "n": n,
        "d": d,
        "dtype": str(case.dtype).removeprefix("torch."),
        "base": case.base,
        "rows": [],
    }
    if not _fits(case, device):
        return found | {"notes": [f"not run: needs {case.nbytes / 1e9:.0f} GB of GPU memory"]}
    notes: list[str] = []
    runners = list(_made(case, device, notes))
    found["rows"] = with_ratios(time_in_turn(runners, timer), case.base)
    del runners
    if device.type == "cuda" and case.step == "reward_step":
        gc.collect()
        torch.cuda.empty_cache()
        try:
            found["footprint"] = gpu_cases.footprint(Inputs(case, device))
        except Exception as failure:
            notes.append(f"memory and nodes: {_why(failure)}")
    return found | {"notes": notes}


def _line(row: Row) -> str:
    if "median" not in row:
        return f"  {row['what']:40} {row.get('failed', '')}"
    floor = f"{row['of_floor']:8.2f} of floor" if "of_floor" in row else ""
    return f"  {row['what']:40} {row['median'] * 1e3:10.4f} ms ± {row['spread']:4.0%} {floor}"


def _broken(cases: list[Row]) -> list[str]:
    """What failed for another reason than memory: that is a bug, not a small GPU."""
    said = [(case["name"], words) for case in cases for words in case["notes"]]
    said += [(case["name"], row["failed"]) for case in cases for row in case["rows"] if "failed" in row]
    return [f"{name}: {words}" for name, words in said if "memory" not in words.partition(":")[0]]


def main(argv: list[str]) -> int:
    parser = results.parser(__doc__)
    parser.add_argument("case", nargs="*", help="; ".join(case.name for case in gpu_cases.CASES))
    parser.add_argument("--seconds", type=float, default=3600, help="begin no case after this time")
    options = parser.parse_args(argv)
    begun, device = monotonic(), torch.device(options.device)
    known: Row = {case["name"]: case for case in results.load(options.results).get("cases", [])}
    results.update(options.results, machine=about.describe(options.device))
    timer, done, late = clock.clock_for(device), [], []
    for case in gpu_cases.by_name(options.case):
        if monotonic() - begun > options.seconds:
            late.append(case.name)
            continue
        print(f"{case.name} ({monotonic() - begun:.0f} s)", flush=True)
        found = measure(case.tiny() if options.tiny else case, device, timer)
        print(*map(_line, found["rows"]), *found["notes"], sep="\n", flush=True)
        done.append(found)
        known[case.name] = found
        order = [known[one.name] for one in gpu_cases.CASES if one.name in known]
        results.update(options.results, cases=order, tiny=options.tiny)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    broken = _broken(done)
    words = [f"{len(done)} cases in {monotonic() - begun:.0f} s"]
    words += [f"no time for {', '.join(late)}"] * bool(late) + [f"failed: {'; '.join(broken)}"] * bool(broken)
    results.say("; ".join(words))
    return 1 if broken or late else 0
