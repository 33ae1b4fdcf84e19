"""What sets each agent of an experiment apart, in a few words for legends."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..partition import noise_shares
from ..record import Run


def traits(runs: Sequence[Run]) -> list[str]:
    """Say of each agent what it holds: such as "20 % noise", "3 classes" or "57 samples".

    Said is what agents differ in: the share of wrong labels, or how many classes they hold where classes are
    what is dealt (CLA, DIR), and how many samples; where seeds disagree, from the least to the most. Agents
    that do not differ hold so many samples.

    Parameters
    ----------
    runs : sequence of Run
        Of one federation.
    """
    e = runs[0].experiment
    noise = noise_shares(e)
    sizes = [[run.histogram[i].sum().item() for run in runs] for i in range(e.agents)]
    classes = [[_held(run.histogram[i]) for run in runs] for i in range(e.agents)]
    noisy = any(noise)
    uneven = e.partition in ("CLA", "DIR")
    apart = max(max(each) for each in sizes) - min(min(each) for each in sizes) > 1
    found = []
    for share, size, count in zip(noise, sizes, classes, strict=True):
        words = [f"{100 * share:.0f} % noise" if share else "clean"] if noisy else []
        words += [_range(count, "class", "classes")] if uneven else []
        words += [_range(size, "sample", "samples")] if apart or not words else []
        found.append(", ".join(words))
    return [*found, *["adversary"] * len(e.adversaries)]


def _held(histogram: Tensor) -> int:
    return int((histogram > 0).sum())


def _range(values: Sequence[float], one: str, more: str) -> str:
    low, high = min(values), max(values)
    text = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return f"{text} {one if high == 1 else more}"
