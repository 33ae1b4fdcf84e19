"""Datasets: a name, a folder and a seed in; training, validation and test tensors out."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from .cifar10 import cifar10
from .dataset import Dataset
from .digits import digits
from .mnist import mnist
from .mr import mr
from .sst import sst

__all__ = ["DATASETS", "Dataset", "cifar10", "digits", "load", "mnist", "mr", "sst"]

Loader: TypeAlias = Callable[[Path | None, int], Dataset]
"""(folder of the files, seed) -> dataset."""

DATASETS: dict[str, Loader] = {
    "digits": lambda folder, seed: digits(seed),
    "mnist": mnist,
    "cifar10": cifar10,
    "mr": mr,
    "sst": sst,
}


def load(name: str, folder: str | os.PathLike[str] | None, seed: int) -> Dataset:
    """Read a dataset; a call with the arguments of the last one returns the same tensors.

    Parameters
    ----------
    name : str
        A name in ``DATASETS``.
    folder : path or None
        Where the files lie, under their official names; None for an embedded dataset.
    seed : int
        Decides which samples are held out where the dataset does not say so itself.

    Raises
    ------
    ValueError
        If the name is not known, a folder is needed and not given, or a file is not what its name says.
    OSError
        If a file or the folder is missing; the error names all files expected.
    """
    if name not in DATASETS:
        raise ValueError(f"load(): expected a dataset of {', '.join(DATASETS)}, got {name!r}")
    return _load(name, None if folder is None else Path(folder), seed)


# One, as CIFAR-10 takes 0.7 GB a seed, and reading it again takes a second.
@lru_cache(maxsize=1)
def _load(name: str, folder: Path | None, seed: int) -> Dataset:
    return DATASETS[name](folder, seed)
