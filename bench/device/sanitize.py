"""compute-sanitizer's four tools over `exercise`, side by side."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import results

TOOLS = ["memcheck", "racecheck", "initcheck", "synccheck"]
FOUND = 9
"""Exit status of compute-sanitizer where its tool found something."""

REFUSED = re.compile(
    r"^.*(not supported|Failed to initialize|Unable to|Internal Sanitizer Error).*$", re.I | re.M
)


class Verdict(NamedTuple):
    status: str
    words: str


def _program() -> str | None:
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda", *map(str, Path("/usr/local").glob("cuda-*"))]
    folders = [os.environ.get("PATH", ""), *(f"{home}/bin" for home in homes if home)]
    return shutil.which("compute-sanitizer", path=os.pathsep.join(folders))


def verdict(status: int | None, log: str) -> Verdict:
    """What a run's exit status (None: it took too long) and output say."""
    finished = results.OUTCOME in log
    summary = re.findall(r"^=+ ((?:ERROR|RACECHECK) SUMMARY: .*)$", log, re.MULTILINE)
    if status == 0 and finished:
        return Verdict("passed", summary[-1] if summary else "no summary")
    if status is None:
        return Verdict("failed", "took too long")
    if status == FOUND or (summary and not re.search(r": 0 (errors|hazards)", summary[-1])):
        first = re.search(r"^=+ (?:Invalid|Uninit|Barrier|Race|Error|Warning|Program).*$", log, re.MULTILINE)
        words = [*summary[-1:], *([first[0].strip("= ")] if first else [])]
        return Verdict("failed", "; ".join(words) or f"exit status {status}")
    if refused := REFUSED.search(log):
        return Verdict("skipped", f"the tool does not work here: {refused[0].strip('= ')[:150]}")
    return Verdict("failed", f"exit status {status}, nothing summarised")


def _start(program: str, tool: str, port: int) -> subprocess.Popen[str]:
    command = [program, "--tool", tool, "--kernel-name", "kns=cgsv", "--error-exitcode", str(FOUND)]
    command += ["--report-api-errors", "no", "--print-limit", "20", "--launch-timeout", "60"]
    command += ["--port", str(port), sys.executable, str(Path(__file__).parent), "exercise"]
    # Each tensor its own allocation, or nothing would lie between one and the next.
    env = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _runs(program: str, tools: list[str], seconds: float) -> Iterator[tuple[str, Verdict, str]]:
    ending = monotonic() + seconds
    running = [(tool, _start(program, tool, 49152 + 100 * i)) for i, tool in enumerate(tools)]
    for tool, process in running:
        try:
            log, status = process.communicate(timeout=max(1, ending - monotonic()))[0], process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            log, status = process.communicate()[0], None
        yield tool, verdict(status, log), log


def main(argv: list[str]) -> int:
    parser = results.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="stop the tools after this time")
    parser.add_argument("tool", nargs="*", default=TOOLS, help=", ".join(TOOLS))
    options = parser.parse_args(argv)
    program = _program()
    if program is None or options.device != "cuda":
        results.say("compute-sanitizer is not installed" if program is None else "needs a GPU")
        return results.SKIPPED
    found: dict[str, Verdict] = {}
    for tool, said, log in _runs(program, options.tool, options.seconds):
        print(f"--- {tool}: {said.status}, {said.words}\n{log}", flush=True)
        found[tool] = said
    results.update(options.results, sanitizers={tool: said._asdict() for tool, said in found.items()})
    results.say("; ".join(f"{tool} {said.status} ({said.words})" for tool, said in found.items()))
    statuses = {said.status for said in found.values()}
    return 1 if "failed" in statuses else results.SKIPPED if statuses == {"skipped"} else 0
