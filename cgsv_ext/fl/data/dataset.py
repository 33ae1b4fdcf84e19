"""What every loader returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Dataset(NamedTuple):
    """Samples and labels, kept in memory once; agents refer to training samples by index.

    A sample is a tensor of features or pixels, float32, or of token numbers, int64, with 0 for padding.
    Validation and test labels are always clean, whatever noise the agents' labels carry.
    """

    name: str
    train_x: Tensor
    """(M, …): what is dealt to the agents."""
    train_y: Tensor
    """(M,) int64, in [0, classes)."""
    validation_x: Tensor
    """(M', …): the auxiliary data of the mechanisms that want some; no agent holds any of it."""
    validation_y: Tensor
    test_x: Tensor
    """(M'', …): what is reported."""
    test_y: Tensor
    classes: int
    vocabulary: int = 0
    """For texts: how many token numbers there are, padding included."""
