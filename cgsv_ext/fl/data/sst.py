"""Stanford sentiment treebank (SST): sentences of five sentiments, from the three files of trees."""

from __future__ import annotations

import re
from pathlib import Path

from .dataset import Dataset
from .files import locate
from .text import Texts, from_texts

FILES = ("train.txt", "dev.txt", "test.txt")
PLACES = (".", "trees")
CLASSES = 5
"""Very negative, negative, neutral, positive, very positive."""
BRACKETS = {"-LRB-": "(", "-RRB-": ")"}
"""How the Penn treebank writes words that are brackets."""

# A node opens with its label; a leaf is a word. Words may hold any space but the plain one.
_PIECE = re.compile(r"\(([0-4]) |([^() ]+)|(\))")


def sst(folder: Path | None, seed: int) -> Dataset:
    """Read SST, fine-grained: 8,544 training, 1,101 validation and 2,210 test sentences, 5 classes.

    A sentence is what the leaves of a tree say, and its label is the root's; labels of phrases are not
    used.

    Parameters
    ----------
    folder : Path or None
        Has ``train.txt``, ``dev.txt`` and ``test.txt``, or their folder ``trees``.
    seed : int
        Decides nothing: the split is the official one.

    Returns
    -------
    Dataset
        As token numbers, see :func:`~cgsv_ext.fl.data.text.from_texts`.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a line is no tree.
    """
    paths = locate("sst", folder, [(each,) for each in FILES], PLACES)
    train, dev, test = (_sentences(path) for path in paths)
    return from_texts("sst", train, dev, test, classes=CLASSES)


def _sentences(path: Path) -> Texts:
    try:
        content = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected text in UTF-8, got {error.reason} at byte {error.start}"
        ) from error
    texts, labels = [], []
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            try:
                words, label = read_tree(line.strip("\r "))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            texts.append(" ".join(BRACKETS.get(word, word) for word in words))
            labels.append(label)
    if not texts:
        raise ValueError(f"{path}: expected a tree a line, got none")
    return Texts(texts, labels)


def read_tree(line: str) -> tuple[list[str], int]:
    """Words and root label of a tree such as ``(3 (2 Very) (3 good))``.

    Raises
    ------
    ValueError
        If the line is not one whole tree whose nodes have labels from 0 to 4 and hold either one word or
        some nodes.
    """
    words: list[str] = []
    holds: list[str] = []  # for every open node: what it holds so far, a word, nodes or nothing
    end = 0
    for piece in _PIECE.finditer(line):
        label, word, _ = piece.groups()
        # Only sisters are apart; the space after a label belongs to the label.
        apart = " " if label and holds and holds[-1] else ""
        held = holds[-1] if holds else ""
        if (
            line[end : piece.start()] != apart
            or (not holds and piece.start() > 0)  # after the end of the tree
            or (label and held == "word")
            or (word and (held or not holds))
            or (not label and not word and not held)
        ):
            break
        end = piece.end()
        if label:
            if holds:
                holds[-1] = "nodes"
            holds.append("")
        elif word:
            holds[-1] = "word"
            words.append(word)
        else:
            holds.pop()
    if holds or end != len(line) or not words:
        raise ValueError(
            f"expected a tree such as (3 (2 Very) (3 good)) with labels from 0 to 4, got {_short(line)}, "
            f"which is none from character {end + 1} on: {_short(line[end:])}"
        )
    return words, int(line[1])


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]} …")
