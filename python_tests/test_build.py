"""What was built, what a bug report prints, and what a failed import says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

import cgsv_ext
from cgsv_ext import _load, collect_env

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python in `cwd`, away from the source folder."""
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=cwd, env=os.environ | (env or {}), capture_output=True, text=True, check=False
    )


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Return a folder with a copy of the package whose compiled library is missing."""
    package = Path(_load.__file__).parent
    shutil.copytree(package, tmp_path / "cgsv_ext", ignore=shutil.ignore_patterns("_C*", "__pycache__"))
    return tmp_path


# What was built


def test_build_info_describes_this_build() -> None:
    info = _load.build_info()
    assert info["version"] == metadata.version("cgsv_ext") == cgsv_ext.__version__
    assert re.match(r"\d+\.\d+", info["torch_built_with"])
    assert info["isa"] in info["isas_compiled"]
    assert info["cxx_standard"] >= 201703
    assert isinstance(info["cuda"], bool)
    if not info["cuda"]:
        assert info["cuda_version"] is None
        assert info["cuda_archs"] == []


def test_the_library_needs_nothing_of_torch_but_the_stable_shim() -> None:
    if shutil.which("nm") is None or shutil.which("readelf") is None:
        pytest.skip("needs nm and readelf (binutils)")
    library = str(_load.require().__file__)
    symbols = subprocess.check_output(["nm", "-D", "--undefined-only", library], text=True)
    assert "aoti_torch_" in symbols
    assert re.findall(r"\b_Z[A-Z]*(?:2at|3c10|5torch)\w*", symbols) == []
    assert "libtorch_python" not in subprocess.check_output(["readelf", "-d", library], text=True)


def test_build_json_lists_every_source() -> None:
    build = json.loads((ROOT / "csrc/build.json").read_text())
    tests = [build[kind] for kind in ("test", "simt_test", "host_test", "isa_test")]
    groups = [*tests, *build["core"].values(), *build["torch"].values()]
    listed = [source for group in groups for source in group]
    found = [
        str(path.relative_to(ROOT / "csrc"))
        for path in (ROOT / "csrc").rglob("*.c*")
        if path.suffix in (".cpp", ".cu") and "simt" not in path.parts  # which has a list of its own
    ]
    assert sorted(listed) == sorted(found)


# What a bug report prints


def test_collect_env_prints_what_a_bug_report_needs(tmp_path: Path) -> None:
    report = run("-m", "cgsv_ext.collect_env", cwd=tmp_path, env={"OMP_NUM_THREADS": "1"})
    assert report.returncode == 0, report.stderr
    lines = dict(re.findall(r"^(.+?): +(.*)$", report.stdout, re.MULTILINE))
    assert lines["torch"] == torch.__version__
    assert lines["extension isa"] == _load.build_info()["isa"]
    assert lines["OMP_NUM_THREADS"] == "1"
    for name in ("torch_built_with", "compiler", "cuda", "cuda_archs"):
        assert f"extension {name}" in lines
    assert all(name in lines for name in collect_env.PACKAGES)
    for name in ("torch CUDA", "torch threads", "GPUs", "CPU", "system", "glibc", "python", "numpy"):
        assert name in lines
    assert "not available" not in report.stdout


def test_collect_env_prints_when_the_library_does_not_load(broken: Path) -> None:
    report = run("-m", "cgsv_ext.collect_env", cwd=broken)
    assert report.returncode == 0, report.stderr
    assert "does not load" in report.stdout
    assert torch.__version__ in report.stdout
    assert "pip install --no-build-isolation" in report.stdout


@pytest.mark.parametrize(
    ("missing", "mend"), [("torch", 'install "torch>=2.10"'), ("numpy", "install numpy")]
)
def test_collect_env_prints_without(missing: str, mend: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from cgsv_ext.collect_env import main; main()"
    report = run("-c", code, cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    assert mend in report.stdout


# What a failed import says


def test_a_missing_library_is_an_import_error_that_names_the_mend(broken: Path) -> None:
    result = run("-c", "from cgsv_ext import reward_step", cwd=broken)
    assert result.returncode == 1
    assert "ImportError: cgsv_ext: the compiled library did not load" in result.stderr
    assert "pip install --no-build-isolation" in result.stderr


@pytest.mark.parametrize(
    ("message", "mend"),
    [
        ("No module named 'torch'", 'pip install "torch>=2.10"'),
        ("torch 2.9.1 is older than 2.10", 'pip install "torch>=2.10"'),
        ("No module named 'numpy'", "pip install numpy"),
        ("No module named 'cgsv_ext._C'", "--no-build-isolation -e ."),
        ("libcudart.so.13: cannot open shared object file", "--force-reinstall"),
        ("libtorch_cuda.so: cannot open shared object file", "--force-reinstall"),
        ("_C.so: undefined symbol: torch_call_dispatcher", "pip install --upgrade"),
        ("/lib/libc.so.6: version `GLIBC_2.38' not found", "--force-reinstall"),
    ],
)
def test_the_explanation_names_the_command_that_mends_each_cause(message: str, mend: str) -> None:
    text = _load.explain(ImportError(message))
    assert message in text
    assert mend in text
    assert "collect_env" in text


def test_an_unknown_failure_lists_every_cause() -> None:
    text = _load.explain(ImportError("something new"))
    assert all(cause in text for _, cause, _ in _load.CAUSES)


# What setup.py says when it cannot build


def setup(torch_version: str | None, cuda: str | None = None, **env: str) -> str:
    """Return the standard error of setup.py under a pretended torch."""
    pytest.importorskip("setuptools")
    pretend = f"SimpleNamespace(__version__={torch_version!r}, version=SimpleNamespace(cuda={cuda!r}))"
    code = (
        "import runpy, sys; from types import SimpleNamespace\n"
        f"sys.modules['torch'] = {pretend if torch_version else None}\n"
        "sys.argv = ['setup.py', '--name']; runpy.run_path('setup.py')"
    )
    result = run("-c", code, cwd=ROOT, env=env)
    assert result.returncode == 1
    return result.stderr


def test_setup_without_torch_names_the_command() -> None:
    text = setup(None)
    assert "expected torch >= 2.10" in text
    assert 'pip install "torch>=2.10"' in text
    assert "pip install --no-build-isolation ." in text


def test_setup_without_python_headers_names_the_command() -> None:
    code = (
        "import runpy, sys, sysconfig; from types import SimpleNamespace\n"
        "sys.modules['torch'] = SimpleNamespace(__version__='2.13.0')\n"
        "sysconfig.get_path = lambda *names, **schemes: '/nowhere'\n"
        "sys.argv = ['setup.py', '--name']; runpy.run_path('setup.py')"
    )
    result = run("-c", code, cwd=ROOT)
    assert result.returncode == 1
    assert "expected Python.h in /nowhere" in result.stderr
    assert re.search(r"apt-get install python3\.\d+-dev", result.stderr)


def test_setup_refuses_an_older_torch() -> None:
    assert "got torch 2.9.1" in setup("2.9.1")


def test_setup_refuses_cuda_with_a_cpu_only_torch() -> None:
    assert "install a CUDA build of torch" in setup("2.13.0", CGSV_CUDA="1")


def test_setup_refuses_an_unknown_choice_of_cuda() -> None:
    assert "expected CGSV_CUDA=auto, 0 or 1, got 'yes'" in setup("2.13.0", CGSV_CUDA="yes")


def test_setup_looks_behind_an_nvcc_that_is_a_wrapper(tmp_path: Path) -> None:
    home = tmp_path / "toolkit"
    for folder in ("bin", "include"):
        (home / folder).mkdir(parents=True)
    (home / "bin/nvcc").touch()
    (home / "include/cuda_runtime_api.h").write_text("#define CUDART_VERSION  12060\n")
    wrapper = tmp_path / "nvcc"
    wrapper.write_text(f"#!/bin/sh\necho '#$ TOP={home}/bin/..' >&2\n")
    wrapper.chmod(0o755)
    text = setup(
        "2.13.0", "13.0", CGSV_CUDA="1", CUDA_HOME="", CUDA_PATH="", PATH=f"{tmp_path}:{os.environ['PATH']}"
    )
    assert f"torch uses CUDA 13.0, {home} holds 12.6" in text
