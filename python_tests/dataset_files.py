"""Small files in the official formats of MNIST, CIFAR-10, MR and SST, with classes that can be learned.

Each writer returns what it wrote, so that a test can compare it with what the loader read.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Images(NamedTuple):
    """uint8 pixels, (M, H, W) or (M, 3, H, W), and uint8 labels, (M,)."""

    pixels: np.ndarray
    labels: np.ndarray


def idx(array: np.ndarray) -> bytes:
    """An array of uint8 as an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def blobs(shape: tuple[int, int, int], count: int, classes: int, rng: np.random.Generator) -> Images:
    """Images (C, H, W) of faint noise with a bright square whose place and colour depend on the class."""
    labels = rng.permutation(np.arange(count) % classes).astype(np.uint8)
    pixels = rng.integers(0, 60, (count, *shape), dtype=np.uint8)
    for image, label in zip(pixels, labels.tolist(), strict=True):
        row, column = 2 + 12 * (label // 5), 1 + 5 * (label % 5)
        image[label % shape[0], row : row + 9, column : column + 5] += 180
    return Images(pixels, labels)


def write_mnist(
    folder: Path,
    *,
    train: int = 400,
    test: int = 100,
    seed: int = 0,
    gzipped: bool = False,
    dots: bool = False,
) -> tuple[Images, Images]:
    """The four IDX files, (28, 28) each image; with ``dots`` under names such as train-images.idx3-ubyte."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    written = []
    for part, count in (("train", train), ("t10k", test)):
        pixels, labels = blobs((1, 28, 28), count, 10, rng)
        images = Images(pixels[:, 0], labels)
        for what, array in (("images-idx3", images.pixels), ("labels-idx1", labels)):
            name = f"{part}-{what}-ubyte"
            name = name.replace("-idx", ".idx") if dots else name
            content = idx(array)
            if gzipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, 1))
            else:
                (folder / name).write_bytes(content)
        written.append(images)
    return written[0], written[1]


def write_cifar10(folder: Path, *, batch: int = 80, seed: int = 0) -> tuple[Images, Images]:
    """data_batch_1.bin to data_batch_5.bin and test_batch.bin, ``batch`` images in each of the six."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    parts = []
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        part = blobs((3, 32, 32), batch, 10, rng)
        records = np.concatenate([part.labels[:, None], part.pixels.reshape(batch, -1)], axis=1)
        (folder / name).write_bytes(records.tobytes())
        parts.append(part)
    train = Images(*(np.concatenate(each) for each in zip(*parts[:5], strict=True)))
    return train, parts[5]


COMMON = (
    *("the", "film", ",", "a", "story", "of", "one", "man", "and", "his", "town", "is", "set", "in", "this"),
    *("quiet", "place", "-", "with", "some", "people"),
)
FEELINGS = (
    ("dreadful", "worst", "awful"),
    ("dull", "weak", "doesn't"),
    ("average", "plain", "middling"),
    ("nice", "charming", "good"),
    ("brilliant", "superb", "wonderful"),
)
"""Words that go with the five sentiments of SST; MR has the first and the last."""


def sentences(feeling: int, count: int, rng: np.random.Generator) -> list[list[str]]:
    """Sentences of 6 to 14 common words, two of which are replaced by words of the class."""
    found = []
    for _ in range(count):
        words = rng.choice(COMMON, rng.integers(6, 15)).tolist()
        for place in rng.choice(len(words), 2, replace=False):
            words[place] = str(rng.choice(FEELINGS[feeling]))
        found.append(words)
    return found


def write_mr(folder: Path, *, each: int = 200, seed: int = 0) -> tuple[list[str], list[str]]:
    """rt-polarity.pos and rt-polarity.neg, ``each`` lines in both; returns positive and negative texts."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    written = []
    for ending, feeling in (("pos", 4), ("neg", 0)):
        texts = [" ".join(words) + " caf\xe9 . " for words in sentences(feeling, each, rng)]
        (folder / f"rt-polarity.{ending}").write_bytes("".join(f"{t}\n" for t in texts).encode("latin-1"))
        written.append(texts)
    return written[0], written[1]


def tree(words: list[str], label: int, rng: np.random.Generator) -> str:
    """A random binary tree over the words; inner labels are random, the root's is given."""
    if len(words) == 1:
        return f"({label} {words[0]})"
    cut = int(rng.integers(1, len(words)))
    left, right = (tree(part, int(rng.integers(0, 5)), rng) for part in (words[:cut], words[cut:]))
    return f"({label} {left} {right})"


def write_sst(
    folder: Path, *, train: int = 300, dev: int = 60, test: int = 100, seed: int = 0
) -> dict[str, list[tuple[list[str], int]]]:
    """train.txt, dev.txt and test.txt of PTB trees; returns each file's sentences with their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    written = {}
    for name, count in (("train", train), ("dev", dev), ("test", test)):
        labels = rng.permutation(np.arange(count) % 5).tolist()
        written[name] = [(sentences(label, 1, rng)[0], label) for label in labels]
        lines = [tree(words, label, rng) for words, label in written[name]]
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return written


WRITERS = {"mnist": write_mnist, "cifar10": write_cifar10, "mr": write_mr, "sst": write_sst}
"""Dataset name -> writer; all have defaults for everything but the folder."""
