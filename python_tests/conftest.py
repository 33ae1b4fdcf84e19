"""What every test file shares: the device, and how hypothesis behaves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# The same examples on every run, and nothing left behind in the source folder.
settings.register_profile("cgsv", deadline=None, derandomize=True, database=None)
settings.load_profile("cgsv")

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


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
