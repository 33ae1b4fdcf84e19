"""Everything that needs a GPU, in stages: build, test, sanitize, measure, profile.

`check [OUTDIR] [STAGE...]` runs the stages named, or all, each under a time limit and with its output in
OUTDIR/STAGE.log, goes on after one that fails, and adds what it found to OUTDIR/results.json and .md. The
summary comes last. The exit status is 0 if no stage failed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple
from xml.etree import ElementTree

import goals
import results
import tables

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TOTAL, GRACE = 525, 15
"""Seconds for all stages, and those that a stage stopped has left to write its report.

pytest-xdist waits ten of them for a process that hangs.
"""


class Plan(NamedTuple):
    """What a run was asked for."""

    out: Path
    work: Path
    device: str
    tiny: bool
    cases: list[str]

    @property
    def results(self) -> Path:
        return self.out / "results.json"

    def own(self, command: str, *arguments: str) -> list[str]:
        """A command of this folder."""
        options = ["--results", str(self.results), "--device", self.device, *["--tiny"] * self.tiny]
        return [sys.executable, str(HERE), command, *options, *arguments]

    def pytest(self, report: str, *arguments: str) -> list[str]:
        """Started in the work folder, away from the source folder, which would hide the built package."""
        ini = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-p", "no:cacheprovider"]
        limits = ["-o", "faulthandler_timeout=60", f"--junitxml={self.work / report}.xml"]
        # Several processes with all threads each, or compilers of their own, would be in each other's way.
        own = ["env", "OMP_NUM_THREADS=2", "TORCHINDUCTOR_COMPILE_THREADS=1"]
        return [*own, sys.executable, "-m", "pytest", *ini, *limits, *arguments]


# --- the stages


def _build(plan: Plan, seconds: float) -> list[list[str]]:
    # Files left in build/lib* by an earlier build would be packed into this one.
    for old in [plan.work / "site", *ROOT.glob("build/lib*"), *ROOT.glob("build/bdist*")]:
        shutil.rmtree(old, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-v"]
    offline = ["--no-index", "--no-build-isolation", "--no-deps", "--upgrade"]
    return [[*pip, *offline, "--target", str(plan.work / "site"), str(ROOT)], plan.own("about")]


def _workers(most: int) -> list[str]:
    """Side by side, where pytest-xdist is installed."""
    return ["-n", str(min(most, os.cpu_count() or 1))] if importlib.util.find_spec("xdist") else []


def _cuda(plan: Plan, seconds: float) -> list[list[str]]:
    files = sorted(map(str, (ROOT / "python_tests").glob("test_cuda*.py")))
    return [plan.pytest("cuda", "-v", "--durations=5", "-m", "large or not large", *_workers(4), *files)]


def _tests(plan: Plan, seconds: float) -> list[list[str]]:
    """The tests of every file that take the fixture `device`."""
    chosen = f"{plan.device} and norms" if plan.tiny else plan.device
    size = "large or not large" if plan.device == "cuda" else "not slow"
    arguments = ["-q", "--durations=5", "-k", chosen, "-m", size, *_workers(8), "--ignore-glob=*test_cuda*"]
    return [plan.pytest("tests", *arguments, str(ROOT / "python_tests"))]


def _bench(plan: Plan, seconds: float) -> list[list[str]]:
    return [plan.own("host"), plan.own("measure", "--seconds", str(seconds - 45), *plan.cases)]


def _profile(plan: Plan, seconds: float) -> list[list[str]]:
    return [plan.own("kernels")]


def _sanitize(plan: Plan, seconds: float) -> list[list[str]]:
    return [plan.own("sanitize", "--seconds", str(seconds - 5))]


class Stage(NamedTuple):
    """Commands, one after the other, and the seconds they may take together."""

    commands: Callable[[Plan, float], list[list[str]]]
    seconds: float
    about: str


STAGES = {
    "build": Stage(_build, 170, "pip install without a network, for this GPU"),
    "cuda": Stage(_cuda, 80, "graphs, streams, memory, agreement with the CPU"),
    "tests": Stage(_tests, 120, "the tests of every op, on the GPU"),
    "bench": Stage(_bench, 150, "times against a copy and plain PyTorch"),
    "profile": Stage(_profile, 40, "every kernel"),
    "sanitize": Stage(_sanitize, 90, "memcheck, racecheck, initcheck, synccheck"),
}


def environment(plan: Plan) -> dict[str, str]:
    """What the stages share: the package as built, no network, a GPU's architecture to build for."""
    folders = [plan.work / "site"]
    if importlib.util.find_spec("hypothesis") is None:
        folders.append(HERE / "without_hypothesis")
    path = [*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}
    env.setdefault("MAX_JOBS", str(os.cpu_count()))
    if plan.device == "cuda":
        import torch

        env |= {"CGSV_CUDA": "1", "CUDA_MODULE_LOADING": "LAZY"}
        # All that the environment may ask for would take longer than the stage may.
        env["TORCH_CUDA_ARCH_LIST"] = "{}.{}".format(*torch.cuda.get_device_capability())
        # Lines for the sanitizers; registers and spills for the log.
        env.setdefault("NVCC_APPEND_FLAGS", "-lineinfo -Xptxas=-v")
    return env


# --- running them


class Outcome(NamedTuple):
    status: str
    seconds: float
    words: str


def _run(command: list[str], log: Path, env: dict[str, str], cwd: Path, seconds: float) -> int | None:
    """Exit status, None if it took too long: then it is interrupted, and all that it started is ended."""
    # What a shell starts in the background ignores it, and so would the command.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with log.open("a") as output:
        print("$", " ".join(command), file=output, flush=True)
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=env, cwd=cwd, start_new_session=True
        )
        try:
            return process.wait(max(1, seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # pytest writes its report then
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None


def _report(work: Path, name: str) -> ElementTree.Element:
    """What pytest wrote of a stage; empty if it did not, or did not end."""
    try:
        return ElementTree.parse(work / f"{name}.xml").getroot()
    except (OSError, ElementTree.ParseError):
        return ElementTree.Element("nothing")


def _words(log: Path, work: Path, name: str) -> str:
    """The outcomes that the commands printed, and the counts of a test run."""
    said = re.findall(rf"^{results.OUTCOME}(.*)$", log.read_text(errors="replace"), re.MULTILINE)
    suites = list(_report(work, name).iter("testsuite"))
    if suites:
        counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
        for suite in suites:
            for key in counts:
                counts[key] += int(suite.get(key, 0))
        said.append(", ".join(f"{count} {key}" for key, count in counts.items()))
        if counts["tests"] > 0 and counts["tests"] == counts["skipped"]:
            said.append("nothing ran")
    return "; ".join(said)


def run_stage(name: str, plan: Plan, seconds: float, env: dict[str, str]) -> Outcome:
    """One stage: passed, failed, skipped or too late."""
    begun, log = monotonic(), plan.out / f"{name}.log"
    log.write_text("")
    (plan.work / f"{name}.xml").unlink(missing_ok=True)
    statuses: list[int | None] = []
    for command in STAGES[name].commands(plan, seconds):
        statuses.append(_run(command, log, env, plan.work, seconds - (monotonic() - begun)))
        if name == "build" and statuses[-1] != 0:
            break
    words = _words(log, plan.work, name)
    nothing = set(statuses) == {results.SKIPPED} or words.endswith("nothing ran")
    if None in statuses:
        status, words = "failed", f"stopped after {seconds:.0f} s; {words}".rstrip("; ")
    elif any(status not in (0, results.SKIPPED) for status in statuses):
        status = "failed"
    else:
        status = "skipped" if nothing else "passed"
    return Outcome(status, monotonic() - begun, words)


# --- the summary


def _failures(name: str, plan: Plan) -> str:
    """The tests that failed, or the end of the log."""
    lines = []
    for test in _report(plan.work, name).iter("testcase"):
        for failure in [*test.iter("failure"), *test.iter("error")]:
            reason = (failure.get("message") or "").split("\n")[0][:110]
            lines.append(f"  {test.get('classname')}::{test.get('name')}: {reason}")
    if len(lines) > 15:
        lines[15:] = [f"  and {len(lines) - 15} more"]
    if not lines:
        text = (plan.out / f"{name}.log").read_text(errors="replace").splitlines()
        lines = ["  " + line[:200] for line in text if line.strip()][-20:]
    return "\n".join([f"{name} failed:", *lines])


def summary(plan: Plan, ran: dict[str, Outcome], found: results.Results) -> str:
    """What matters most comes last: a caller may see only the end."""
    reached = goals.check(found.get("cases", []))
    parts = [_failures(name, plan) for name, outcome in ran.items() if outcome.status == "failed"]
    if reached:
        missed = sum(not goal.met for goal in reached)
        parts.append(f"{tables.goal_table(reached)}\n\n{len(reached) - missed} of {len(reached)} targets met")
    parts.append(tables.stage_table(found["stages"]))
    parts.append(f"logs, results.json and results.md: {plan.out}")
    return "\n\n".join(parts)


def _plan(argv: list[str]) -> tuple[Plan, list[str]]:
    about = "\n".join(
        f"  {name:9} {stage.about}, at most {stage.seconds} s" for name, stage in STAGES.items()
    )
    parser = argparse.ArgumentParser(
        prog="bench/device_check.sh",
        description=f"{__doc__}\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("outdir", nargs="?", type=Path, default=ROOT / "build/device/out")
    parser.add_argument("stage", nargs="*", help=f"of {', '.join(STAGES)}; all of them for none")
    parser.add_argument("--case", action="append", default=[], help="only this case of the stage bench")
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try the script itself"
    )
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: to try the script itself")
    parser.add_argument("--work", type=Path, default=ROOT / "build/device", help="where the build goes")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.stage if name not in STAGES]:
        parser.error(f"unknown stage {', '.join(unknown)}; there are {', '.join(STAGES)}")
    if str(options.outdir) in STAGES:
        parser.error(f"expected OUTDIR before the stages, got {options.outdir}")
    plan = Plan(options.outdir.resolve(), options.work.resolve(), options.device, options.tiny, options.case)
    return plan, [name for name in STAGES if name in (options.stage or STAGES)]


def main(argv: list[str]) -> int:
    begun = monotonic()
    plan, names = _plan(argv)
    if plan.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            print(f"no GPU: torch {torch.__version__} sees none")
            return 2
    plan.out.mkdir(parents=True, exist_ok=True)
    plan.work.mkdir(parents=True, exist_ok=True)
    env = environment(plan)
    if "without_hypothesis" in env["PYTHONPATH"]:
        print("hypothesis is not installed: the tests that need it are skipped")
    stages: dict[str, Any] = results.load(plan.results).get("stages", {})
    ran: dict[str, Outcome] = {}
    for name in names:
        seconds = min(STAGES[name].seconds, TOTAL - (monotonic() - begun))
        if seconds < 10:
            ran[name] = Outcome("failed", 0, "no time was left")
        else:
            ran[name] = run_stage(name, plan, seconds, env)
        print(f"{name}: {ran[name].status} in {ran[name].seconds:.0f} s; {ran[name].words}", flush=True)
        stages[name] = ran[name]._asdict()
        found = results.update(plan.results, stages={key: stages[key] for key in STAGES if key in stages})
        plan.results.with_suffix(".md").write_text(tables.markdown(found))
    print(f"\n{summary(plan, ran, found)}")
    return 1 if any(outcome.status == "failed" for outcome in ran.values()) else 0
