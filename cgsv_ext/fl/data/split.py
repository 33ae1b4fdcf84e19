"""Holding out samples where a dataset does not say itself which are for validation or test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ..seeds import generator

Indices = npt.NDArray[np.int64]


def hold_out(
    name: str, labels: npt.NDArray[np.integer], classes: int, shares: Sequence[float], seed: int
) -> list[Indices]:
    """Choose samples at random, the same share of every class.

    Parameters
    ----------
    name : str
        The dataset's, for the error.
    labels : array
        (M,) integers in [0, classes).
    classes : int
        How many classes there are.
    shares : sequence of float
        What is held out, for one purpose each; less than 1 together.
    seed : int
        Decides which.

    Returns
    -------
    list of array
        First the indices that are kept, then those that are held out, int64, in a random order each. In
        every part a class has its share of the part, give or take one sample.

    Raises
    ------
    ValueError
        If a class has too few samples to be in every part.
    """
    counts = np.bincount(labels, minlength=classes)
    least = math.ceil(1 / min(*shares, 1 - sum(shares)) - 1e-6)
    if counts.min() < least:
        raise ValueError(
            f"{name}: expected at least {least} samples of every class, as "
            f"{' and '.join(f'{share:.0%}' for share in shares)} of each are held out, "
            f"got {counts.min()} of class {counts.argmin()}"
        )
    source = generator(seed, "held out")
    order = torch.randperm(len(labels), generator=source).numpy()
    # Every class is spread evenly over [0, 1], so that any stretch of it has the share of each.
    places = np.empty(len(labels))
    for c in range(classes):
        places[labels[order] == c] = (np.arange(counts[c]) + 0.5) / counts[c]
    order = order[np.argsort(places, kind="stable")]
    cuts = [math.ceil(len(labels) * share - 1e-6) for share in np.cumsum(shares)]
    *held, kept = np.split(order, cuts)
    return [part[torch.randperm(len(part), generator=source).numpy()] for part in (kept, *held)]
