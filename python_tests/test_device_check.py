"""bench/device without a GPU: its stages, byte counts, verdicts and tables, on tiny sizes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import gpu
import oracle
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

BENCH = Path(__file__).resolve().parents[1] / "bench"
pytestmark = pytest.mark.skipif(not BENCH.exists(), reason="needs the repository's bench/")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Import a module of bench/device, and forget it and its like afterwards."""
    request.config.addinivalue_line("markers", "full: of bench/pytest.ini")
    before = set(sys.modules)
    for folder in (BENCH, BENCH / "device"):
        monkeypatch.syspath_prepend(folder)
    yield import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCH)):
            del sys.modules[name]


# Times


def test_a_tiny_run_writes_json_and_a_page(tmp_path: Path) -> None:
    arguments = [
        "bench",
        "sanitize",
        "--device",
        "cpu",
        "--tiny",
        "--work",
        str(tmp_path / "work"),
    ]
    cases = ["--case", "10x1M", "--case", "ops-10x1M"]
    command = [sys.executable, str(BENCH / "device"), "check", str(tmp_path / "out"), *arguments, *cases]
    # A worker of pytest-xdist does not benchmark, and this process may be one.
    own = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"}
    done = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert {name: stage["status"] for name, stage in found["stages"].items()} == {
        "bench": "passed",
        "sanitize": "skipped",
    }
    assert [case["name"] for case in found["cases"]] == ["10x1M", "ops-10x1M"]
    assert len(found["host"]) == 30
    page = (tmp_path / "out/results.md").read_text()
    assert "measure nothing" in page
    assert all(row["what"] in page for case in found["cases"] for row in case["rows"])
    # The caller may see the end only.
    assert "| sanitize | skipped |" in done.stdout[-500:]


@pytest.mark.parametrize("name", ["1000x10M-bf16", "ops-10x1M", "adversarial-10x1M", "peers-10x1M"])
def test_every_kind_of_case_runs(module: Any, name: str) -> None:
    [case] = module("gpu_cases").by_name([name])
    clock = module("clock").HostClock()
    found = module("measure").measure(case.tiny(), torch.device("cpu"), clock)
    assert found["notes"] == []
    assert [row["what"] for row in found["rows"] if "median" not in row] == []
    assert found["rows"][0]["of_base"] == 1


def test_bytes_are_those_of_the_floor(module: Any) -> None:
    """D (2 N b + N o + 8), and what each variant saves."""
    [case] = module("gpu_cases").by_name(["10x100M-bf16"])
    n, d = case.tiny().size
    need = {runner.what: runner.nbytes for runner in case.tiny().runners(torch.device("cpu"))}
    assert need["dense, out="] == d * (2 * n * 2 + n * 2 + 8)
    assert need["dense, out=, norms="] == need["dense, out="] - n * d * 2
    assert need["dense=False"] == d * (2 * n * 2 + 8)
    assert need["dense=False, download_"] == d * (2 * n * 2 + 2 * n * 2 + 8)


def test_ratios_are_to_the_copy_of_the_same_run(module: Any) -> None:
    rows = [
        {"what": "a", "bytes": 400, "median": 2.0},
        {"what": "copy", "bytes": 1000, "median": 1.0},
        {"what": "b", "bytes": 0, "median": 3.0},
        {"what": "c", "bytes": 10, "failed": "does not fit into the GPU's memory"},
    ]
    a, copy, b, _ = module("measure").with_ratios(rows, "a")
    assert (a["of_floor"], copy["of_floor"], b["of_base"]) == (5.0, 1.0, 1.5)
    assert "of_floor" not in b


def test_what_fails_or_does_not_fit_is_said(module: Any) -> None:
    cases, measure = module("gpu_cases"), module("measure")

    def full() -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    def wrong() -> None:
        raise ValueError("expected this, got that\nand more")

    runners = [cases.Runner("full", full), cases.Runner("wrong", wrong), cases.Runner("good", int)]
    rows = measure.time_in_turn(runners, module("clock").HostClock())
    assert [row.get("failed") for row in rows] == [
        "does not fit into the GPU's memory",
        "ValueError: expected this, got that",
        None,
    ]
    case = {"name": "x", "rows": rows, "notes": []}
    assert measure._broken([case]) == ["x: ValueError: expected this, got that"]


def test_no_case_is_named_twice(module: Any) -> None:
    cases = module("gpu_cases").CASES
    assert len({case.name for case in cases}) == len(cases)
    with pytest.raises(SystemExit, match="unknown case 1x1"):
        module("gpu_cases").by_name(["1x1"])


# Targets


def case_of(name: str, step: str, n: int, d: int, rows: dict[str, dict[str, float]]) -> dict[str, Any]:
    listed = [{"what": what, "median": 1.0, **row} for what, row in rows.items()]
    return {"name": name, "step": step, "n": n, "d": d, "dtype": "float32", "rows": listed}


def test_targets_are_met_or_not(module: Any) -> None:
    goals = module("goals")
    found = goals.check(
        [
            case_of("large", "reward_step", 10, 10**8, {"dense, out=": {"of_floor": 1.19}})
            | {
                "footprint": {"dense, out=": {"extra_bytes": 4 * 10**8 + 65 * 10**6, "nodes": ["kernel"] * 6}}
            },
            case_of("small", "reward_step", 10, 10**6, {"dense, out=": {"of_floor": 9.0, "median": 46e-6}}),
            case_of("pair", "reward_step", 2, 10**9, {"dense, out=": {"of_floor": 1.3}}),
            case_of("hard", "adversarial", 10, 10**6, {"constant": {"of_base": 1.4}, "copy": {"of_base": 9}}),
            case_of(
                "peers",
                "peers",
                10,
                10**6,
                {
                    "dense, out=": {"of_base": 1},
                    "copy": {"of_base": 0.5},
                    "PyTorch, one sort": {"of_base": 5},
                    "torch.compile, one sort": {"of_base": 3},
                    "PyTorch, paper-literal loop": {"of_base": 21},
                },
            ),
        ]
    )
    assert [(goal.case, goal.limit, goal.met) for goal in found] == [
        ("large", "≤ 1.2", True),
        ("large", "≤ 464 MB", False),
        ("large", "≤ 6", True),
        ("small", "≤ 45 µs", False),
        ("pair", "≤ 1.35", True),
        ("hard", "≤ 1.3", False),
        ("peers", "≥ 20 ×", True),
        ("peers", "≥ 4 ×", False),
    ]


# Profile and sanitizers


def test_a_trace_becomes_a_row_for_each_kernel(module: Any) -> None:
    def event(name: str, ts: float, dur: float, cat: str = "kernel") -> dict[str, Any]:
        return {"name": name, "ts": ts, "dur": dur, "cat": cat, "args": {"grid": [4, 1, 1]}}

    events = []
    for ts in (0.0, 100.0):
        events += [
            event("void at::native::reduce_kernel<512>(int)", ts, 20),
            event("void cgsv::cuda::(anonymous namespace)::norms<float>(cgsv::Rows, double*)", ts + 30, 10),
            event("write", ts + 45, 30),
            event("cudaLaunchKernel", ts, 5, "cuda_runtime"),
        ]
    found = module("kernels").by_kernel(events, 2)
    assert [(kernel["name"], kernel["launches"]) for kernel in found["kernels"]] == [
        ("norms<float>", 1),
        ("write", 1),
    ]
    assert [kernel["share"] for kernel in found["kernels"]] == [0.25, 0.75]
    assert (found["busy_us"], found["span_us"]) == (40, 45)


@pytest.mark.parametrize(
    ("status", "log", "expected"),
    [
        (0, "outcome: 9 calls\n========= ERROR SUMMARY: 0 errors\n", "passed"),
        (0, "outcome: 9 calls\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors)\n", "passed"),
        (9, "========= Invalid __global__ write\n========= ERROR SUMMARY: 3 errors\n", "failed"),
        (1, "Traceback\nAssertionError\n========= ERROR SUMMARY: 0 errors\n", "failed"),
        (1, "========= Error: Device not supported. Please refer to the guide\n", "skipped"),
        (None, "", "failed"),
    ],
)
def test_what_a_sanitizer_says(module: Any, status: int | None, log: str, expected: str) -> None:
    assert module("sanitize").verdict(status, log).status == expected


class Called(TorchDispatchMode):
    """Takes note of the package's ops."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "cgsv_ext":
            self.names.add(func._opname)
        return func(*args, **(kwargs or {}))


EVERY_OP = {
    name.split("::")[1].split(".")[0]
    for name in torch._C._dispatch_get_all_op_names()
    if name.startswith("cgsv_ext::")
}


def test_what_the_sanitizers_watch_is_every_op(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exercise = module("exercise")
    monkeypatch.setattr(exercise, "SHAPES", [(1, 1), (7, 600)])
    monkeypatch.setattr(exercise, "KINDS", ["nan"])
    with Called() as called:
        assert exercise.main(["--device", "cpu", "--results", str(tmp_path / "results.json")]) == 0
    assert called.names == EVERY_OP


def test_every_op_is_tested_and_timed_on_a_gpu(module: Any) -> None:
    x, r = oracle.normal(3, 700), torch.rand(3, dtype=torch.float64)
    with Called() as tested:
        for call in gpu.CALLS.values():
            call(x, r, torch.empty_like(x))
    assert tested.names == EVERY_OP
    [case] = module("gpu_cases").by_name(["ops-10x1M"])
    with Called() as timed:
        for runner in case.tiny().runners(torch.device("cpu")):
            runner.call()
    assert timed.names == EVERY_OP - {"reward_step"}  # which has cases of its own
    host = module("host")
    with Called() as timed_by_the_host:
        for what in host.CALLS:
            host._call(what, host.SIZES[0])()
    assert timed_by_the_host.names == EVERY_OP


def test_one_nan_is_as_good_as_another() -> None:
    """The CPU keeps a NaN's sign; the GPU gives 7fffffff, or 7fff, for all."""
    bits = torch.tensor([0x7FC00000, -0x400000, 0x7FFFFFFF, 0x3F800000], dtype=torch.int32)
    other = torch.tensor([0x7FFFFFFF, 0x7FC00000, -1, 0x3F800000], dtype=torch.int32)
    oracle.assert_same_but_nans(bits.view(torch.float32), other.view(torch.float32))
    half = (
        torch.tensor([0x7FC0, 0x3F80], dtype=torch.int16),
        torch.tensor([0x7FFF, 0x3F80], dtype=torch.int16),
    )
    oracle.assert_same_but_nans(*(t.view(torch.bfloat16) for t in half))
    oracle.assert_same_but_nans(torch.arange(3), torch.arange(3))
    for got, expected in ((0.0, -0.0), (math.nan, 0.0), (1.0, math.nan), (math.inf, math.nan)):
        with pytest.raises(AssertionError, match="differs"):
            oracle.assert_same_but_nans(torch.tensor([got]), torch.tensor([expected]))


# Stages


def test_a_stage_fails_or_ends_alone(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check = module("check")

    def python(code: str, seconds: float = 60) -> Any:
        return check.Stage(lambda plan, limit: [[sys.executable, "-c", code]], seconds, "")

    stages = {
        "good": python("print('outcome: fine')"),
        "bad": python("print('the reason'); raise SystemExit(3)"),
        "hung": python("import time; time.sleep(60)", 10),
        "idle": python("raise SystemExit(77)"),
        "last": python("print('outcome: still here')"),
    }
    monkeypatch.setattr(check, "STAGES", stages)
    monkeypatch.setattr(check, "_run", _impatient(check._run))
    arguments = [str(tmp_path / "out"), "--device", "cpu", "--work", str(tmp_path / "work")]
    assert check.main(arguments) == 1
    found = json.loads((tmp_path / "out/results.json").read_text())["stages"]
    statuses = [stage["status"] for stage in found.values()]
    assert statuses == ["passed", "failed", "failed", "skipped", "passed"]
    assert found["hung"]["words"].startswith("stopped after")
    assert (tmp_path / "out/last.log").read_text().endswith("outcome: still here\n")
    said = capsys.readouterr().out
    assert "bad failed:" in said
    assert "the reason" in said
    # One stage alone leaves what the others found.
    assert check.main([arguments[0], "good", *arguments[1:]]) == 0
    assert len(json.loads((tmp_path / "out/results.json").read_text())["stages"]) == 5


def _impatient(run: Any) -> Any:
    """Stages of at most a second and a half, if they are meant to hang."""
    return lambda command, log, env, cwd, seconds: run(
        command, log, env, cwd, min(seconds, 60) if seconds > 10 else 1.5
    )


SLOW = """
import time

def test_good():
    pass

def test_bad():
    assert not "a reason"

def test_hung():
    time.sleep(60)
"""


def test_a_stage_that_is_stopped_leaves_its_report(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = module("check")
    (tmp_path / "test_slow.py").write_text(SLOW)
    plan = check.Plan(tmp_path, tmp_path, "cpu", True, [])
    command = plan.pytest("tests", "-q", str(tmp_path / "test_slow.py"))
    monkeypatch.setattr(check, "STAGES", {"tests": check.Stage(lambda *_: [command], 5, "")})
    env = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    outcome = check.run_stage("tests", plan, 5, env)
    assert outcome.status == "failed"
    assert outcome.words.startswith("stopped after 5 s; ")
    assert "1 failures" in outcome.words
    assert outcome.seconds < 5 + check.GRACE
    assert "::test_bad: AssertionError: assert not 'a reason'" in check._failures("tests", plan)


def test_a_report_that_was_cut_off_is_none(module: Any, tmp_path: Path) -> None:
    check = module("check")
    plan = check.Plan(tmp_path, tmp_path, "cpu", True, [])
    (tmp_path / "tests.log").write_text("outcome: fine\nthe end\n")
    (tmp_path / "tests.xml").write_text('<testsuites><testsuite tests="3"><testcase')
    assert check._words(tmp_path / "tests.log", tmp_path, "tests") == "fine"
    assert check._failures("tests", plan).endswith("the end")


def test_the_build_is_for_this_gpu_alone(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = module("check")
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.5;8.0;9.0;10.0+PTX")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    plan = check.Plan(tmp_path, tmp_path, "cuda", False, [])
    assert check.environment(plan)["TORCH_CUDA_ARCH_LIST"] == "9.0"


def test_stages_fit_into_nine_minutes(module: Any) -> None:
    check = module("check")
    assert check.TOTAL + check.GRACE <= 540
    assert sum(check.STAGES[name].seconds for name in ("build", "cuda", "tests", "bench")) <= check.TOTAL


def test_the_script_is_a_shell_script() -> None:
    script = BENCH / "device_check.sh"
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert script.stat().st_mode & 0o111
