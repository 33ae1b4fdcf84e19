"""Every op on small inputs of every kind: what the sanitizers watch. Selections are compared with the CPU's.

Inputs are made on the CPU and copied, so that no kernel but the package's own touches them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import oracle
import partial_reference
import results
import torch
from torch import Tensor

import cgsv_ext
from cgsv_ext import Selection

ops = torch.ops.cgsv_ext

SHAPES = [(1, 1), (3, 1000), (10, 4099), (13, 2050), (70, 300), (5, 70_001)]
KINDS = ["normal", "few values", "one bin, few values", "half zeros", "nan", "many bins"]


def _rows(x: Tensor, device: torch.device, form: str) -> Any:
    """As a matrix, as rows that are misaligned in turn, or one by one."""
    if form == "separate":
        return [row.clone().to(device) for row in x]
    if form == "strided":
        n, d = x.shape
        around = torch.zeros(n, d + 3, dtype=x.dtype)
        around[:, 1 : d + 1] = x
        return around.to(device)[:, 1 : d + 1]
    return x.to(device)


def _rounds(device: torch.device) -> Iterator[Any]:
    for dtype in oracle.DTYPES:
        for n, d in SHAPES:
            x = oracle.updates_of("alike", n, d, dtype, d)
            if n > 5:
                x[1], x[2, d // 2] = 0, float("nan")
            r = torch.linspace(0.1, 1, n, dtype=torch.float64)
            given, segments = cgsv_ext.norms(x).to(device), [d // 3, 0, d - d // 3]
            for form in ("matrix", "strided", "separate") if n > 1 else ("matrix",):
                rows, weights = _rows(x, device, form), r.to(device)
                out = torch.full_like(x, 7).to(device)
                yield cgsv_ext.reward_step(rows, weights, out=out)
                yield cgsv_ext.reward_step(rows, weights, norms=given, dense=False, segments=segments)
                step = cgsv_ext.reward_step(rows, weights, dense=False)
                cgsv_ext.download_(rows, step.aggregate, step.selection, scale=0.5)
                yield step
            yield cgsv_ext.norms(x.to(device))
            row = torch.full_like(x[0], 7).to(device)
            yield cgsv_ext.pack_row_(row, [x[-1, 1:].half().to(device), x[0, :1].to(device)]), row
            yield cgsv_ext.aggregate(x.to(device), r.to(device), gamma=0.5)
            yield ops.partial_norms([x.to(device)])
            yield ops.partial_aggregate([x.to(device)], r.to(device), 0.5, given)
            yield ops.partial_dots([x.to(device)], step.aggregate)
            yield cgsv_ext.gram(_rows(x, device, "separate"))
            yield cgsv_ext.update_importance(r.to(device), r.to(device))
            yield cgsv_ext.quotas(r.to(device), segments)


def _selections(device: torch.device) -> Iterator[tuple[Any, Any]]:
    for dtype in oracle.AGGREGATE_DTYPES:
        for kind in KINDS:
            u, q = oracle.hard(kind, 20_011, dtype), oracle.some_quotas(20_011, 9)
            expected = cgsv_ext.select(u, q)
            got = cgsv_ext.select(u.to(device), q.to(device))
            yield Selection(*(t.cpu() for t in got)), expected
            for parts in (None, [7_000, 0, 13_011]):
                prefixes = partial_reference.keys(expected.magnitude) >> 20
                prefixes = prefixes if parts is None else prefixes[:, None].repeat(1, 3)
                counts = ops.histogram(u.to(device), prefixes.to(device), 10, 10, parts)
                yield counts.cpu(), ops.histogram(u, prefixes, 10, 10, parts)
            there = Selection(*(t.to(device) for t in expected))
            for to in (torch.float32, torch.bfloat16):
                v = cgsv_ext.download(u.to(device), there, dtype=to)
                yield v.cpu(), cgsv_ext.download(u, expected, dtype=to)


def main(argv: list[str]) -> int:
    options = results.parser(__doc__).parse_args(argv)
    device, count = torch.device(options.device), 0
    for result in _rounds(device):
        for t in result if isinstance(result, tuple) else (result,):
            for one in t if isinstance(t, tuple) else (t,):
                if one is not None:
                    one.cpu()
        count += 1
    for got, expected in _selections(device):
        if isinstance(expected, Selection):
            oracle.assert_same_selection(got, expected)
        else:
            oracle.assert_same_but_nans(got, expected)
        count += 1
    results.say(f"{count} calls")
    return 0
