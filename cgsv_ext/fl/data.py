"""Datasets: a seed in, training and test tensors out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Dataset(NamedTuple):
    """Features and labels, kept in memory once; agents refer to training samples by index."""

    name: str
    train_x: Tensor
    """(M, F) float32."""
    train_y: Tensor
    """(M,) int64, in [0, classes)."""
    test_x: Tensor
    """(M', F) float32."""
    test_y: Tensor
    """(M',) int64; always clean, whatever noise the agents' labels carry."""
    classes: int


def digits(seed: int, *, test_share: float = 0.3) -> Dataset:
    """Scikit-learn's bundled 8 x 8 handwritten digits: 1797 samples, 10 classes, no download.

    Parameters
    ----------
    seed : int
        Decides which samples are held out; every class gives the same share.
    test_share : float
        The share that is held out for test.

    Returns
    -------
    Dataset
        With F = 64 features, standardised by the mean and the deviation of all training pixels
        together.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        torch.tensor(x, dtype=torch.float32),
        torch.tensor(y, dtype=torch.int64),
        test_size=test_share,
        stratify=y,
        random_state=seed,
    )
    mean, deviation = train_x.mean(), train_x.std()
    train_x, test_x = (train_x - mean) / deviation, (test_x - mean) / deviation
    return Dataset("digits", train_x, train_y, test_x, test_y, classes=10)
