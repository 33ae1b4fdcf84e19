from __future__ import annotations

from collections.abc import Iterator

import floor
import pytest
import torch
from cases import Size, resnet_50
from race import Entrant, Race
from torch import Tensor

from cgsv_ext import norms, pack_row_


def copy_parts(row: Tensor, parts: list[Tensor]) -> Tensor:
    start = 0
    for part in parts:
        row[start : start + part.numel()].copy_(part)
        start += part.numel()
    return row


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.full
@pytest.mark.parametrize(
    ("source", "dtype"),
    [(torch.float32, torch.float32), (torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)],
)
def bench_pack_row(source: torch.dtype, dtype: torch.dtype, threads: int, race: Race) -> None:
    sizes = resnet_50()
    size = Size(1, sum(sizes))
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(count, generator=generator).to(source) for count in sizes]
    row, other = torch.zeros(size.d, dtype=dtype), torch.zeros(size.d, dtype=dtype)
    need = floor.pack_row_(size.d, source.itemsize, dtype.itemsize)
    entrants = [
        Entrant("pack_row_", lambda: pack_row_(row, parts), need),
        floor.copy(need),
        Entrant("PyTorch, copy_ part by part", lambda: copy_parts(other, parts), need),
        Entrant("the same, then norms", lambda: norms(copy_parts(other, parts)[None]), need),
        Entrant(
            "the same, then vector_norm", lambda: torch.linalg.vector_norm(copy_parts(other, parts)), need
        ),
    ]
    kind = f"of {str(source).removeprefix('torch.')}, {threads} thread{'s' * (threads > 1)}"
    name = str(dtype).removeprefix("torch.")
    race(size.case("pack_row_") | {"dtype": name, "kind": kind}, entrants, base=entrants[2].what)
