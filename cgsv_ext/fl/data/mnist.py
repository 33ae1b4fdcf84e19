"""MNIST's handwritten digits, from the four IDX files."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from .dataset import Dataset
from .files import locate, opened
from .images import Bytes, Images, check_labels, from_images

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
PLACES = (".", "MNIST/raw")
"""The second is where torchvision puts them."""
SIDE = 28
MARGIN = 2
"""Background added on every side: on 32 x 32 pixels the paper's CNN has its D = 104,242."""


def mnist(folder: Path | None, seed: int) -> Dataset:
    """Read MNIST: 60,000 training and 10,000 test images of 28 x 28, 10 classes.

    Parameters
    ----------
    folder : Path or None
        Has the four files, compressed by gzip or not, with ``-idx`` or ``.idx`` in their names.
    seed : int
        Decides which tenth of the training images is for validation; every class gives the same share.

    Returns
    -------
    Dataset
        As images of (1, 32, 32), standardised by the training pixels, margins included.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is not what its name says.
    """
    found = locate("mnist", folder, [_names(each) for each in FILES], PLACES, ", as they are or with .gz")
    train, test = _part(*found[:2]), _part(*found[2:])
    return from_images("mnist", train, test, seed)


def _names(official: str) -> list[str]:
    stems = official, official.replace("-idx", ".idx")
    return [stem + ending for ending in ("", ".gz") for stem in stems]


def _part(images: Path, labels: Path) -> Images:
    x, y = read_idx(images, (SIDE, SIDE)), read_idx(labels, ())
    if len(x) != len(y):
        raise ValueError(
            f"{labels}: expected {len(x)} labels, one for each image in {images.name}, got {len(y)}"
        )
    check_labels(str(labels), y)
    sides = (MARGIN, MARGIN)
    return Images(np.pad(x, ((0, 0), sides, sides))[:, None], y)


def read_idx(path: Path, shape: tuple[int, ...]) -> Bytes:
    """Read an IDX file of bytes.

    Parameters
    ----------
    path : Path
        The file, compressed by gzip or not.
    shape : tuple of int
        What each of its M items has to be.

    Returns
    -------
    array
        (M, …) uint8, with ``shape`` for the dots.

    Raises
    ------
    ValueError
        If the file is something else, or its length is not what its header says. Nothing is allocated
        that a file of its size could not fill.
    """
    dimensions = 1 + len(shape)
    with opened(path) as (file, limit):
        header = file.read(4 + 4 * dimensions)
        magic = bytes([0, 0, 8, dimensions])
        if header[:4] != magic:
            raise ValueError(
                f"{path}: expected an IDX file of bytes in {dimensions} dimension(s), which begins with "
                f"{magic.hex(' ')}, got {header[:4].hex(' ') or 'an empty file'}"
            )
        if len(header) < 4 + 4 * dimensions:
            raise ValueError(
                f"{path}: expected a header of {4 + 4 * dimensions} bytes, got a file of {len(header)}"
            )
        count, *rest = struct.unpack(f">{dimensions}I", header[4:])
        if tuple(rest) != shape or not count:
            wanted, given = (" × ".join(map(str, each)) for each in (("M", *shape), (count, *rest)))
            raise ValueError(f"{path}: expected {wanted} values with M > 0, got a header that says {given}")
        size = count * math.prod(shape)
        content = file.read(size + 1) if size <= limit else b""
    if len(content) != size:
        got = "more" if len(content) > size else f"{len(content)}" if content else "a file too small for them"
        raise ValueError(f"{path}: expected {size} bytes after the header, as it says, got {got}")
    return np.frombuffer(content, np.uint8).reshape(count, *shape)
