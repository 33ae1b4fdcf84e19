"""CIFAR-10's photographs, from the six files of its binary version."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath

import numpy as np

from .dataset import Dataset
from .files import find, locate, opened
from .images import Bytes, Images, check_labels, from_images

FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
PLACES = (".", "cifar-10-batches-bin")
ARCHIVE = "cifar-10-binary.tar.gz"
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
"""Bytes of an image: its label, then all red, all green and all blue pixels, row by row."""


def cifar10(folder: Path | None, seed: int) -> Dataset:
    """Read CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 in colour, 10 classes.

    Parameters
    ----------
    folder : Path or None
        Has the six files of the binary version, or their folder ``cifar-10-batches-bin``, or the archive
        they come in, which is read without being unpacked to the disk.
    seed : int
        Decides which tenth of the training images is for validation; every class gives the same share.

    Returns
    -------
    Dataset
        As images of (3, 32, 32), each channel standardised by the training pixels.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is not what its name says.
    """
    names = [(each,) for each in FILES]
    if folder is not None and (folder / ARCHIVE).is_file() and find(folder, names, PLACES) is None:
        files = _unpacked(folder / ARCHIVE)
    else:
        paths = locate("cifar10", folder, names, PLACES, f"; or {ARCHIVE}")
        files = [(str(path), path.read_bytes()) for path in paths]
    batches = [_records(where, content) for where, content in files]
    if len({len(batch) for batch in batches}) > 1:
        raise ValueError(
            f"{Path(files[0][0]).parent}: expected as many images in each of {', '.join(FILES)} "
            f"(10000 in the official ones), got {', '.join(str(len(batch)) for batch in batches)}"
        )
    return from_images("cifar10", _images(np.concatenate(batches[:-1])), _images(batches[-1]), seed)


def _records(where: str, content: bytes) -> Bytes:
    if not content or len(content) % RECORD:
        raise ValueError(
            f"{where}: expected a multiple of {RECORD} bytes (a label and {RECORD - 1} pixels an image), "
            f"got {len(content)}"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    check_labels(where, records[:, 0])
    return records


def _images(records: Bytes) -> Images:
    return Images(records[:, 1:].reshape(-1, *SHAPE), records[:, 0])


def _unpacked(path: Path) -> list[tuple[str, bytes]]:
    """Names and contents of the six files, by the last part of their names, whatever folder they are in."""
    found: dict[str, bytes] = {}
    try:
        # As a stream, which allocates what has come, not what a header promises.
        with opened(path) as (file, _), tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                content = archive.extractfile(member) if name in FILES and member.isreg() else None
                if content is not None:
                    found[name] = content.read()
            while file.read(2**20):  # to the end, where gzip has its checksum
                pass
    except tarfile.TarError as error:
        raise ValueError(f"{path}: expected a whole and undamaged tar.gz archive, got: {error}") from error
    missing = [name for name in FILES if name not in found]
    if missing:
        raise ValueError(f"{path}: expected {', '.join(FILES)} in it, got no {', '.join(missing)}")
    return [(f"{path}/{name}", found[name]) for name in FILES]
