from __future__ import annotations

import floor
import peers
import pytest
from cases import STEPS, Size, updates
from race import Entrant, Race

from cgsv_ext import norms, reference


@pytest.mark.parametrize("size", STEPS, ids=Size.label)
def bench_norms(size: Size, race: Race, quick: bool) -> None:
    x = updates(size)
    need = floor.norms(*size)
    entrants = [
        Entrant("norms", lambda: norms(x), need),
        floor.copy(need),
        Entrant("PyTorch, vector_norm", lambda: peers.norms(x), need),
        Entrant("reference", lambda: reference.norms(x), need),
    ]
    if not quick and (fused := peers.compiled(peers.norms, x)) is not None:
        entrants.append(Entrant("torch.compile, vector_norm", fused, need))
    race(size.case("norms"), entrants)
