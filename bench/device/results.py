"""The one JSON file that every stage adds its part to, and how a stage says how it went."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

Results = dict[str, Any]

SKIPPED = 77
"""Exit status of a stage that had nothing to do, as in automake."""

OUTCOME = "outcome: "
"""Begins the line in which a stage says in a few words how it went."""


def load(path: Path) -> Results:
    return json.loads(path.read_text()) if path.exists() else {}


def update(path: Path, **parts: Any) -> Results:
    """Replace these parts of the file, whole or not at all."""
    results = load(path) | parts
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(new, path)
    return results


def say(words: str) -> None:
    print(f"{OUTCOME}{words}", flush=True)


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all commands share."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("--results", type=Path, default=Path("results.json"), help="JSON file to add to")
    found.add_argument(
        "--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try, not to measure"
    )
    found.add_argument("--tiny", action="store_true", help="tiny sizes: to try, not to measure")
    return found
