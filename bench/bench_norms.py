from __future__ import annotations

import floor
import pytest
import torch
from cases import STEPS, Size, updates
from race import Entrant, Race

from cgsv_ext import norms


@pytest.mark.parametrize("size", STEPS, ids=Size.label)
def bench_norms(size: Size, race: Race) -> None:
    x = updates(size)
    need = floor.norms(*size)
    entrants = [
        Entrant("norms", lambda: norms(x), need),
        floor.copy(need),
        Entrant("PyTorch, vector_norm", lambda: torch.linalg.vector_norm(x, dim=1), need),
    ]
    race(size.case("norms"), entrants)
