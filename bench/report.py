"""From pytest-benchmark's output to the rows that are kept, and from these to the tables.

`python bench/report.py RESULTS.json` prints the tables again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import targets

Results = dict[str, Any]
Race = dict[str, Any]


def trim(raw: dict[str, Any], machine: dict[str, object]) -> Results:
    """What is worth keeping, with the ratios that the tables show."""
    infos = [benchmark["extra_info"] for benchmark in raw["benchmarks"]]
    return {
        "machine": machine,
        "races": [_with_ratios(info) for info in infos if "rows" in info],
        "memory": [info["case"] | {"bytes": info["extra_bytes"]} for info in infos if "extra_bytes" in info],
    }


def _with_ratios(info: dict[str, Any]) -> Race:
    """`of_floor`: to the time of a copy of the row's bytes. `of_base`: to the row that is compared with."""
    rows = {row["what"]: row for row in info["rows"]}
    copy, base = rows["copy"], rows[info["case"]["base"]]
    for row in rows.values():
        row["gb_per_s"] = row["bytes"] / row["min"] / 1e9
        for kind in ("min", "median"):
            floor = row["bytes"] * copy[kind] / copy["bytes"]
            row[f"of_floor_{kind}"] = row[kind] / floor if floor else None
            row[f"of_base_{kind}"] = row[kind] / base[kind]
    return info["case"] | {"rows": list(rows.values())}


# --- tables


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)


def milliseconds(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:.4f}" if ms < 0.1 else f"{ms:.3f}" if ms < 1 else f"{ms:.2f}" if ms < 10 else f"{ms:,.1f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 20 else f"{value:,.0f}"


def _pair(row: dict[str, Any], name: str) -> str:
    least, middle = _ratio(row[f"{name}_min"]), _ratio(row[f"{name}_median"])
    return f"{least} ({middle})" if least else ""


def readme_table(results: Results) -> str:
    """The reward step's medians: the part for a README."""
    head = [
        "N × D, float32",
        "time",
        "GB/s",
        "of floor",
        "faster than the paper-literal loop",
        "than one sort, broadcast mask",
        "than one sort, its fastest form",
    ]
    rows = []
    for race in targets.dense_races(results):
        step = race["rows"][0]
        rows.append(
            [
                race["size"],
                f"{milliseconds(step['median'])} ms",
                f"{step['bytes'] / step['median'] / 1e9:.1f}",
                _ratio(step["of_floor_median"]),
                *(
                    f"{targets.best_ratio(race, names, 'median'):,.1f} ×"
                    for names in (targets.PAPER_LOOP, targets.BROADCAST, targets.ONE_SORT)
                ),
            ]
        )
    return table(head, rows)


def _targets_table(results: Results) -> str:
    rows = [
        [t.size, t.what, t.limit, t.show(t.least), t.show(t.middle), t.verdict]
        for t in targets.check(results)
    ]
    return table(["N × D", "what", "target", "minima", "medians", "met"], rows)


def _race_table(race: Race) -> str:
    title = ", ".join(race[key] for key in ("step", "size", "dtype", "kind") if key in race)
    head = ["row", "min ms", "median ms", "rounds", "GB/s", "of floor", f"of {race['base']}"]
    rows = [
        [
            row["what"],
            milliseconds(row["min"]),
            milliseconds(row["median"]),
            str(row["rounds"]),
            f"{row['gb_per_s']:.1f}" if row["bytes"] else "",
            _pair(row, "of_floor"),
            _pair(row, "of_base"),
        ]
        for row in race["rows"]
    ]
    return f"### {title}\n\n{table(head, rows)}"


def machine_table(machine: dict[str, Any]) -> str:
    flat = {k: ", ".join(map(" ".join, v.items())) if isinstance(v, dict) else v for k, v in machine.items()}
    return table(["", ""], [[key, str(value)] for key, value in flat.items() if value is not None])


NOTES = """\
Rows of one table were timed in turn, so that their ratios were taken under the same conditions. A floor is
the time torch's `copy_`, with all threads, takes for the bytes that the row has to move, each once. Ratios
are those of minima, in parentheses those of medians; GB/s are of the minima. What fits a cache is copied
within that cache. glibc keeps freed memory, so no fresh pages are timed. "Met" takes minima and medians."""


FOR_README = """\
Medians; outputs preallocated; a floor as above. In its fastest form one sort is followed by a `hardshrink`
per agent, or compiled. Where magnitudes tie, these forms do not keep exactly q_i entries; one stable argsort
to ranks does (below)."""


def markdown(results: Results) -> str:
    memory = [[m["size"], f"{m['bytes'] / 2**20:.1f}"] for m in results["memory"]]
    parts = [
        "# Measured by `make bench`",
        NOTES,
        machine_table(results["machine"]),
        *(["## The reward step", FOR_README, readme_table(results)] if targets.dense_races(results) else []),
        "## Targets",
        _targets_table(results),
        *(["## Memory beyond inputs and `out`", table(["N × D, float32", "MiB"], memory)] if memory else []),
        "## All rows",
        *map(_race_table, results["races"]),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(markdown(json.loads(Path(path).read_text())))
