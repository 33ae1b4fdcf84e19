"""A results file as Markdown: `tables RESULTS.json`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import goals
import results
from goals import Goal
from report import machine_table, milliseconds, table

Row = dict[str, Any]

TRIED = "**Tiny sizes, to try the harness: these figures measure nothing.**"

NOTES = """\
Medians by CUDA events around one call on a cold L2 cache, rows of one table in turn; ± is the distance of
the quartiles over the median. A floor is the time that the same run's device copy takes for the bytes a row
has to move, each once. Rows named warm are of a second call in a row."""


def _ratio(row: Row, name: str) -> str:
    value = row.get(name)
    return "" if value is None else f"{value:.2f}" if value < 20 else f"{value:,.0f}"


def _case(case: Row, met: dict[tuple[str, str], Goal]) -> str:
    title = f"### {case['name']}: {case['step']}, {case['size']}, {case['dtype']}"
    lines = []
    for row in case["rows"]:
        if "median" not in row:
            lines.append([row["what"], row.get("failed", ""), "", "", "", "", "", ""])
            continue
        goal = next(
            (met[case["name"], name] for name in _goal_names(row["what"]) if (case["name"], name) in met),
            None,
        )
        lines.append(
            [
                row["what"],
                milliseconds(row["median"]),
                f"{row['spread']:.0%}",
                str(row["rounds"]),
                f"{row['gb_per_s']:,.0f}" if row["bytes"] else "",
                _ratio(row, "of_floor"),
                _ratio(row, "of_base"),
                f"{goal.limit}: {'yes' if goal.met else 'no'}" if goal else "",
            ]
        )
    head = ["call", "ms", "±", "rounds", "GB/s", "of floor", f"of {case['base']}", "target, met"]
    parts = [title, table(head, lines)] if lines else [title]
    return "\n\n".join([*parts, *case.get("notes", [])])


def _goal_names(what: str) -> list[str]:
    return [what, f"{what}, of floor", f"{what}, of random"]


def goal_table(found: list[Goal]) -> str:
    rows = [[g.case, g.what, g.limit, f"{g.value:.4g}{g.unit}", "yes" if g.met else "**no**"] for g in found]
    return table(["case", "what", "target", "measured", "met"], rows)


def stage_table(stages: dict[str, Row]) -> str:
    rows = [
        [name, stage["status"], f"{stage['seconds']:.0f} s", stage["words"]] for name, stage in stages.items()
    ]
    return table(["stage", "result", "took", ""], rows)


def _kernel_tables(profile: list[Row]) -> Iterable[str]:
    head = ["kernel", "launches", "µs", "share", "grid", "block", "registers", "shared"]
    for call in profile:
        rows = [
            [
                f"`{kernel['name']}`",
                f"{kernel['launches']:g}",
                f"{kernel['microseconds']:.1f}",
                f"{kernel['share']:.0%}",
                *(
                    str(kernel[key] if kernel[key] is not None else "")
                    for key in ("grid", "block", "registers", "shared")
                ),
            ]
            for kernel in call["kernels"]
        ]
        busy = f"{call['busy_us']:.1f} µs in kernels, {call['span_us']:.1f} µs from the first to the last"
        yield f"### {call['case']}: {call['what']}\n\n{busy}\n\n{table(head, rows)}"


def _host_table(host: list[Row]) -> str:
    rows = [[one["name"], f"{one['median'] * 1e6:.1f}", f"{one['min'] * 1e6:.1f}"] for one in host]
    return table(["call and wait", "median µs", "min µs"], rows)


def markdown(found: results.Results) -> str:
    """The whole page."""
    reached = goals.check(found.get("cases", []))
    by_row = {(goal.case, goal.what): goal for goal in reached}
    parts = ["# Measured by `bench/device_check.sh`", *[TRIED] * bool(found.get("tiny"))]
    parts.append(machine_table(found.get("machine", {})))
    if "stages" in found:
        parts += ["## Stages", stage_table(found["stages"])]
    if reached:
        parts += ["## Targets", goal_table(reached)]
    if found.get("cases"):
        parts += ["## Times", NOTES, *(_case(case, by_row) for case in found["cases"])]
    if found.get("host"):
        parts += ["## What a call costs the host", _host_table(found["host"])]
    if found.get("profile"):
        parts += ["## Kernels", *_kernel_tables(found["profile"])]
    return "\n\n".join(parts) + "\n"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    print(markdown(results.load(parser.parse_args(argv).results)))
    return 0
