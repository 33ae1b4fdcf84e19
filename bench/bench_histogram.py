"""The digits of a selection that ranks count together, one after the other."""

from __future__ import annotations

import floor
import partial_reference
import pytest
import torch
from cases import STEPS, Size, quotas
from race import Entrant, Race

from cgsv_ext import select

ops = torch.ops.cgsv_ext


@pytest.mark.parametrize(("shift", "bits"), [(16, 15), (8, 8), (0, 8)], ids=["first", "second", "last"])
@pytest.mark.parametrize("size", STEPS, ids=Size.label)
def bench_histogram(size: Size, shift: int, bits: int, race: Race) -> None:
    u = torch.randn(size.d, generator=torch.Generator().manual_seed(0))
    prefixes = partial_reference.keys(select(u, quotas(size)).magnitude) >> (shift + bits)
    prefixes = prefixes[:1] if shift == 16 else prefixes
    need = floor.select(size.d)
    entrants = [
        Entrant("histogram", lambda: ops.histogram(u, prefixes, shift, bits, None), need),
        floor.copy(need),
        Entrant(
            "PyTorch, a bincount a prefix",
            lambda: partial_reference.histogram(u, prefixes, shift, bits),
            need,
        ),
    ]
    race(size.case("histogram") | {"kind": f"bits {shift} to {shift + bits - 1}"}, entrants)
