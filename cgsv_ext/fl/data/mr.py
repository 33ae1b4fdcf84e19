"""Movie reviews (MR): single sentences, positive or negative, from the two polarity files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .dataset import Dataset
from .files import locate
from .split import Indices, hold_out
from .text import Texts, from_texts

FILES = ("rt-polarity.neg", "rt-polarity.pos")
"""In the order of their labels, 0 and 1."""
PLACES = (".", "rt-polaritydata")
SHARES = 0.1, 0.1
"""What is held out for validation and for test."""


def mr(folder: Path | None, seed: int) -> Dataset:
    """Read MR: 5,331 negative and 5,331 positive sentences, labels 0 and 1.

    Parameters
    ----------
    folder : Path or None
        Has the two files, or their folder ``rt-polaritydata``.
    seed : int
        Decides the split, as MR has no official one: 80 % for training, 10 % for validation, 10 % for
        test, of both classes alike and in a random order.

    Returns
    -------
    Dataset
        As token numbers, see :func:`~cgsv_ext.fl.data.text.from_texts`.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is not text with a sentence a line.
    """
    paths = locate("mr", folder, [(each,) for each in FILES], PLACES)
    found = [_sentences(path) for path in paths]
    texts = [text for part in found for text in part]
    labels = np.repeat([0, 1], [len(part) for part in found])

    def pick(indices: Indices) -> Texts:
        return Texts([texts[i] for i in indices], labels[indices].tolist())

    train, validation, test = (pick(part) for part in hold_out("mr", labels, 2, SHARES, seed))
    return from_texts("mr", train, validation, test, classes=2)


def _sentences(path: Path) -> list[str]:
    content = path.read_bytes()
    zero = content.find(0)
    if zero >= 0:
        raise ValueError(f"{path}: expected text in Latin-1, a sentence a line, got a zero byte at {zero}")
    if not content.endswith(b"\n"):
        raise ValueError(
            f"{path}: expected a sentence a line, the last one ended, too, got a file that is "
            + (f"cut off after {content[-20:]!r}" if content else "empty")
        )
    # Split as bytes: some Latin-1 characters would end a line of str.splitlines().
    return [line.decode("latin-1") for line in content.split(b"\n") if line.strip()]
