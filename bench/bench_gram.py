from __future__ import annotations

import floor
import pytest
import torch
from cases import CNN, MIDDLE, TALL, Size, sizes, updates
from race import Entrant, Race
from torch import Tensor

from cgsv_ext import gram, norms


def normalised_product(x: Tensor) -> Tensor:
    unit = x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return unit @ unit.T


@pytest.mark.parametrize("size", sizes([CNN], [MIDDLE, TALL]), ids=Size.label)
def bench_gram(size: Size, race: Race) -> None:
    x = updates(size)
    need = floor.norms(*size)
    entrants = [
        Entrant("gram", lambda: gram(x), need),
        floor.copy(need),
        Entrant("norms, one read", lambda: norms(x), need),
        Entrant("PyTorch, product in float32", lambda: normalised_product(x), need),
        Entrant("PyTorch, product in float64", lambda: normalised_product(x.double()), need),
    ]
    race(size.case("gram"), entrants, base="norms, one read")
