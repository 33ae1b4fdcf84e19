"""GB/s of dense float32 gradient that one core turns into messages and back: the tables of docs/wire.md.

    python bench/wire_core.py

By the CPU time of one thread, the least of several calls, so that other work on the machine shows little. An
agent's dense gradient is 4 · D bytes; encode_all counts N of them. glibc keeps freed memory, as in run.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import thread_time
from typing import Any

from run import keep_freed_memory

PERCENT = (1, 5, 10, 25, 50, 75, 90, 100)


def least(call: Callable[[], Any], times: int = 9) -> float:
    """Seconds."""
    found = []
    for _ in range(times):
        start = thread_time()
        call()
        found.append(thread_time() - start)
    return min(found)


def print_rows(head: Sequence[str], rows: list[list[str]]) -> None:
    for cells in [head, ["---"] * len(head), *rows]:
        print("| " + " | ".join(cells) + " |")
    print()


def main() -> None:
    keep_freed_memory()
    import torch

    import cgsv_ext
    from cgsv_ext import Reward

    torch.set_num_threads(1)
    dtypes = (torch.float32, torch.bfloat16)
    names = [f"{what}, {dtype}" for dtype in ("float32", "bfloat16") for what in ("encode", "decode")]

    d = 4_200_000
    u = torch.randn(d, generator=torch.Generator().manual_seed(0))
    rows = []
    for percent in PERCENT:
        flat = cgsv_ext.download(u, cgsv_ext.select(u, torch.tensor([d * percent // 100])))[0]
        row = [f"{percent} %"]
        for dtype in dtypes:
            reward = Reward(1, 0, flat, flat)
            message = cgsv_ext.encode(reward, dtype=dtype)
            for seconds in (
                least(partial(cgsv_ext.encode, reward, dtype=dtype)),
                least(partial(cgsv_ext.decode, message)),
            ):
                row.append(f"{4 * d / seconds / 1e9:.1f}")
        rows.append(row)
    print_rows(["quota", *names], rows)

    rows = []
    for n, d in ((10, 4_200_000), (50, 1_000_000)):
        v = u[:d]
        selection = cgsv_ext.select(v, (torch.linspace(0.1, 1, n, dtype=torch.float64) * d).long())
        row = [f"{n} × {d:,}"]
        for dtype in dtypes:
            last = cgsv_ext.encode_all(v, selection, dtype=dtype)[-1]
            together = least(partial(cgsv_ext.encode_all, v, selection, dtype=dtype), 5)
            row += [
                f"{4 * n * d / together / 1e9:.1f}",
                f"{4 * d / least(partial(cgsv_ext.decode, last)) / 1e9:.1f}",
            ]
        rows.append(row)
    print_rows(["N × D", *(name.replace("encode", "encode_all") for name in names)], rows)


if __name__ == "__main__":
    main()
