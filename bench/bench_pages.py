"""What pages of 4 KiB cost, on which updates and rewards lie unless somebody asks for larger ones."""

from __future__ import annotations

import mmap

import floor
import pytest
import torch
from cases import FLAT, LARGE, Size, importance, updates
from race import Entrant, Race
from torch import Tensor

from cgsv_ext import reward_step

PAGES = {"2 MiB": "MADV_HUGEPAGE", "4 KiB": "MADV_NOHUGEPAGE"}


def _zeros(size: Size, advice: str) -> Tensor:
    """A matrix on pages of one size, where the system takes the advice."""
    memory = mmap.mmap(-1, 4 * size.n * size.d)
    memory.madvise(getattr(mmap, advice))
    return torch.frombuffer(memory, dtype=torch.float32).view(size).zero_()


@pytest.mark.full
@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="needs Linux")
@pytest.mark.parametrize("size", [LARGE, FLAT], ids=Size.label)
def bench_pages(size: Size, race: Race) -> None:
    x, r, need = updates(size), importance(size.n), floor.dense(*size)
    entrants = []
    for pages, advice in PAGES.items():
        own, out = _zeros(size, advice).copy_(x), _zeros(size, advice)
        entrants.append(Entrant(f"pages of {pages}", lambda x=own, out=out: reward_step(x, r, out=out), need))
    race(size.case("reward_step on pages"), [entrants[0], floor.copy(need), entrants[1]])
