"""From pixels and labels as read from files to tensors, standardised."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .dataset import Dataset
from .split import hold_out

CLASSES = 10
HELD_OUT = 0.1
"""The share of the official training set that becomes validation data."""

Bytes = npt.NDArray[np.uint8]


class Images(NamedTuple):
    """As the files have them."""

    pixels: Bytes
    """(M, C, H, W)."""
    labels: Bytes
    """(M,), in [0, 10)."""


def check_labels(where: str, labels: Bytes) -> None:
    """Refuse labels that are no class.

    Raises
    ------
    ValueError
        Naming the file, the first bad label and its sample.
    """
    wrong = np.flatnonzero(labels >= CLASSES)
    if len(wrong):
        raise ValueError(
            f"{where}: expected labels from 0 to {CLASSES - 1}, got {labels[wrong[0]]} for sample {wrong[0]}"
        )


def from_images(name: str, train: Images, test: Images, seed: int) -> Dataset:
    """Hold out validation images and standardise all pixels.

    Every channel is standardised by the mean and the deviation of its pixels in the images that are left
    for training.

    Parameters
    ----------
    name : str
        The dataset's.
    train, test : Images
        The official parts.
    seed : int
        Decides which training images are for validation.
    """
    kept, held = hold_out(name, train.labels, CLASSES, (HELD_OUT,), seed)
    pixels = train.pixels[kept], train.pixels[held], test.pixels
    labels = train.labels[kept], train.labels[held], test.labels
    mean, deviation = _moments(torch.from_numpy(pixels[0]))
    x = [torch.from_numpy(each.astype(np.float32)).sub_(mean).div_(deviation) for each in pixels]
    y = [torch.from_numpy(each.astype(np.int64)) for each in labels]
    return Dataset(name, x[0], y[0], x[1], y[1], x[2], y[2], classes=CLASSES)


def _moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, (C, 1, 1) float32 each.

    They come from counts of the 256 values, so that their bits do not depend on the number of threads.
    """
    values = torch.arange(256, dtype=torch.float64)
    counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in pixels.unbind(1)])
    shares = counts.double() / counts.sum(1, keepdim=True)
    mean = (shares * values).sum(1, keepdim=True)
    deviation = (shares * (values - mean).square()).sum(1, keepdim=True).sqrt()
    # A channel of one value becomes 0.
    deviation[deviation == 0] = 1
    return mean.float().unsqueeze(2), deviation.float().unsqueeze(2)
