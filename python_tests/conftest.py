"""What every test file shares: the device, which library is tested, and how hypothesis behaves."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Federated learning and the command, which need the extra `fl`.
FL = ["test_cli.py", "test_figure_1.py", "test_fl_*"]
EXTRA = ("jinja2", "matplotlib", "rich", "scipy", "sklearn")
collect_ignore_glob = [] if all(map(importlib.util.find_spec, EXTRA)) else FL

# A library to test in place of the installed one: `make simt` names one whose ops, on CPU tensors, are the
# CUDA kernels. It is loaded before anyone imports cgsv_ext.
SIMT = os.environ.get("CGSV_SIMT_LIBRARY")
if SIMT:
    spec = importlib.util.spec_from_file_location("cgsv_ext._C", Path(SIMT))
    sys.modules["cgsv_ext._C"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["cgsv_ext._C"])
    # About the package, the CPU or a real GPU; not about the ops.
    collect_ignore_glob = [*FL, "test_build.py", "test_compile.py", "test_cuda_*", "test_device_*"]
    collect_ignore_glob += ["test_distributed*", "test_docs.py", "test_examples.py", "test_files.py"]
    collect_ignore_glob += ["test_flower*", "test_server*", "test_shapley.py", "test_wire.py"]

import ranks  # noqa: E402  (it imports cgsv_ext, too)

import cgsv_ext  # noqa: E402  (it must meet the library loaded above)

# The same examples on every run, and nothing left behind in the source folder.
# Fewer where every thread of a GPU is emulated.
settings.register_profile(
    "cgsv", deadline=None, derandomize=True, database=None, max_examples=25 if SIMT else 100
)
settings.load_profile("cgsv")

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() and cgsv_ext.build_info()["cuda"] else ["cpu"]


def pytest_report_header() -> str:
    """Say what is left out."""
    return f"left out: {', '.join(collect_ignore_glob) or 'nothing'}"


ON_REQUEST = ("large", "processes", "stress")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not asked for, and skip what says nothing where CUDA kernels run on the CPU."""
    asked = config.getoption("markexpr")
    unasked = [m for m in ON_REQUEST if m not in asked]
    left_out = [item for item in items if any(map(item.get_closest_marker, unasked))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    reasons = {"cpu_kernels": "about the CPU's own kernels", "slow_simulated": "takes minutes on the CPU"}
    for item in items if SIMT else []:
        for marker in item.iter_markers():
            if marker.name in reasons:
                item.add_marker(pytest.mark.skip(reason=reasons[marker.name]))


@pytest.fixture(scope="session", params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device that is there."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _same_threads_afterwards() -> Iterator[None]:
    """Undo what a test does to torch.set_num_threads."""
    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ranks.Pool]:
    """Four processes that are gloo ranks."""
    started = ranks.Pool(tmp_path_factory.mktemp("ranks"))
    yield started
    started.close()
