"""The whole round on aggregates that are hard to select from, beside a random one, in turn."""

from __future__ import annotations

import floor
import pytest
import torch
from cases import ADVERSARIAL, LARGE, PAIR, Size, identical_updates, importance, sizes
from race import Entrant, Race
from torch import Tensor

from cgsv_ext import reward_step


@pytest.fixture(scope="module", params=sizes([Size(10, 1_000_000)], [LARGE, PAIR]), ids=Size.label)
def random(request: pytest.FixtureRequest) -> tuple[Size, Tensor, Tensor]:
    """(size, updates, out)."""
    size = request.param
    return size, identical_updates(size, "random"), torch.zeros(size)


@pytest.mark.parametrize("kind", ADVERSARIAL)
def bench_adversarial(kind: str, random: tuple[Size, Tensor, Tensor], race: Race) -> None:
    size, x, out = random
    y, r = identical_updates(size, kind), importance(size.n)
    need = floor.dense(*size)
    entrants = [
        Entrant(kind, lambda: reward_step(y, r, out=out), need),
        floor.copy(need),
        Entrant("random", lambda: reward_step(x, r, out=out), need),
    ]
    race(size.case("adversarial", kind=kind), entrants, base="random")
