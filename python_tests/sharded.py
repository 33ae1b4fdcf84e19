"""What each rank does in the tests of cgsv_ext.distributed: its part of inputs that all of them can make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from ranks import cuts
from torch import Tensor

import cgsv_ext
from cgsv_ext import RewardStep, reference


def pieces(segments: Sequence[int] | None, part: slice) -> list[int] | None:
    """How much of each segment lies in a part of the columns."""
    if segments is None:
        return None
    found, start = [], 0
    for size in segments:
        found.append(max(0, min(start + size, part.stop) - max(start, part.start)))
        start += size
    return found


def part_of(group: Any, d: int, sizes: Sequence[int]) -> slice:
    return cuts(d, sizes)[dist.get_rank(group)]


def rounds(group: Any, cases: Sequence[dict[str, Any]]) -> list[tuple[RewardStep, Tensor]]:
    """For each case one step on this rank's columns, and the download of its selection."""
    done = []
    for case in cases:
        part = part_of(group, case["updates"].shape[1], case["sizes"])
        x = case["updates"][:, part]
        if case["form"] == "rows":
            x = [row.clone() for row in x]
        options = dict(case["options"])
        segments = pieces(options.pop("segments", None), part)
        step = cgsv_ext.reward_step(x, case["importance"], segments=segments, group=group, **options)
        v = cgsv_ext.download(step.aggregate, step.selection, segments=segments, group=group)
        parameters = torch.zeros(len(case["updates"]), part.stop - part.start, dtype=step.aggregate.dtype)
        cgsv_ext.download_(parameters, step.aggregate, step.selection, segments=segments, group=group)
        assert torch.equal(parameters.nan_to_num(), v.nan_to_num())
        done.append((step, v))
    return done


def selections(group: Any, cases: Sequence[dict[str, Any]]) -> list[Tensor]:
    """For each case what agents keep of this rank's columns of a given aggregate, (N, D_rank) bool."""
    kept = []
    for case in cases:
        part = part_of(group, len(case["aggregate"]), case["sizes"])
        u, segments = case["aggregate"][part].clone(), pieces(case["segments"], part)
        selection = cgsv_ext.select(u, case["quotas"], segments=segments, group=group)
        kept.append(reference._keep(u, selection, segments))
    return kept
