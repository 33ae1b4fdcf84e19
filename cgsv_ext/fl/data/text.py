"""From sentences to token numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .dataset import Dataset

PADDING, UNKNOWN = 0, 1
MIN_COUNT = 2
"""A word must be there so often in the training texts to get a number: of one met once nothing is learnt."""
MAX_WORDS = 20_000
"""The most words that get a number, the most frequent first; MR and SST stay below."""
MIN_LENGTH, MAX_LENGTH = 5, 64
"""Bounds of L: room for filters of 5 words, as in Kim (2014); a little more than the longest sentence."""

# After Kim (2014): n't and 's, 've, 're, 'd, 'll are words; of punctuation ( ) , ! ? and quotes are kept.
# Letters and digits are those of all languages.
_TOKEN = re.compile(r"[^\W_]+?(?=n't\b)|n't\b|'(?:s|ve|re|d|ll)\b|[^\W_]+|[(),!?]|['`]+")


class Texts(NamedTuple):
    """Texts with their labels."""

    texts: Sequence[str]
    labels: Sequence[int]


def tokens(text: str) -> list[str]:
    """Words and marks of a text, in lower case.

    >>> tokens("It doesn't move , but it's (almost) a well-made one .")
    ['it', 'does', "n't", 'move', ',', 'but', 'it', "'s", '(', 'almost', ')', 'a', 'well', 'made', 'one']
    """
    return _TOKEN.findall(text.lower())


def numbering(texts: Sequence[Sequence[str]]) -> dict[str, int]:
    """Give numbers from 2 on to the words of some texts, by falling frequency, then by the alphabet."""
    counts = Counter(word for text in texts for word in text)
    words = sorted((-count, word) for word, count in counts.items() if count >= MIN_COUNT)[:MAX_WORDS]
    return {word: number for number, (_, word) in enumerate(words, UNKNOWN + 1)}


def from_texts(name: str, train: Texts, validation: Texts, test: Texts, classes: int) -> Dataset:
    """Turn texts into rows of token numbers.

    The vocabulary and the length L of a row come from the training texts alone: L is the length of the
    longest, but at least 5 and at most 64 tokens. Longer texts lose their ends, shorter ones are padded at
    the end.

    Parameters
    ----------
    name : str
        The dataset's.
    train, validation, test : Texts
        The parts.
    classes : int
        How many classes there are.
    """
    found = [[tokens(text) for text in part.texts] for part in (train, validation, test)]
    numbers = numbering(found[0])
    length = min(max(MIN_LENGTH, *map(len, found[0])), MAX_LENGTH)
    x = [_rows(part, numbers, length) for part in found]
    y = [torch.tensor(part.labels, dtype=torch.int64) for part in (train, validation, test)]
    return Dataset(
        name, x[0], y[0], x[1], y[1], x[2], y[2], classes=classes, vocabulary=len(numbers) + UNKNOWN + 1
    )


def _rows(texts: Sequence[Sequence[str]], numbers: dict[str, int], length: int) -> Tensor:
    """Token numbers, (M, L) int64."""
    rows = [[numbers.get(word, UNKNOWN) for word in text[:length]] for text in texts]
    return torch.tensor([row + [PADDING] * (length - len(row)) for row in rows], dtype=torch.int64)
