"""Scikit-learn's handwritten digits, which need no file of yours."""

from __future__ import annotations

import torch

from .dataset import Dataset
from .split import hold_out

SHARES = 0.1, 0.2
"""What is held out for validation and for test."""


def digits(seed: int) -> Dataset:
    """Scikit-learn's bundled 8 x 8 handwritten digits: 1797 samples, 10 classes, no download.

    Parameters
    ----------
    seed : int
        Decides which samples are held out, 20 % for test and 10 % for validation; every class gives the
        same share.

    Returns
    -------
    Dataset
        As images of (1, 8, 8), standardised by the mean and the deviation of all training pixels
        together.
    """
    from sklearn.datasets import load_digits  # seconds, which other datasets do without

    pixels, labels = load_digits(return_X_y=True)
    parts = train, *_ = hold_out("digits", labels, 10, SHARES, seed)
    mean, deviation = pixels[train].mean(), pixels[train].std()
    x = [torch.tensor((pixels[part] - mean) / deviation).float().view(-1, 1, 8, 8) for part in parts]
    y = [torch.tensor(labels[part]) for part in parts]
    return Dataset("digits", x[0], y[0], x[1], y[1], x[2], y[2], classes=10)
