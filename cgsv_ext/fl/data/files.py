"""Finding and opening the files of a dataset; files from the outside are checked before they are believed."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

DEFLATE = 1032
"""The most bytes that one byte of a gzip file can stand for."""


def find(folder: Path, names: Sequence[Sequence[str]], places: Sequence[str] = (".",)) -> list[Path] | None:
    """Return the files of a dataset, or None if no place has them all.

    Parameters
    ----------
    folder : Path
        Where to look.
    names : sequence of sequences of str
        For every file the names it may have; the first is the official one.
    places : sequence of str
        Subfolders to look in, one after the other; all files must be in the same.
    """
    for place in places:
        found = [_first(folder / place, each) for each in names]
        if None not in found:
            return cast("list[Path]", found)
    return None


def locate(
    dataset: str,
    folder: Path | None,
    names: Sequence[Sequence[str]],
    places: Sequence[str] = (".",),
    hint: str = "",
) -> list[Path]:
    """Do what :func:`find` does, or explain what is missing.

    Parameters
    ----------
    dataset : str
        Its name, for the error.
    folder : Path or None
        Where to look.
    names, places
        See :func:`find`.
    hint : str
        What would do as well, for the error.

    Raises
    ------
    ValueError
        If there is no folder, or what is named is none.
    FileNotFoundError
        If the folder or a file is missing; the error names all files expected and the places looked in.
    """
    files = ", ".join(each[0] for each in names) + hint
    if folder is None:
        raise ValueError(f"load(): expected --data DIR with the files of {dataset} ({files}), got none")
    if not folder.is_dir():
        error = NotADirectoryError if folder.exists() else FileNotFoundError
        raise error(
            f"load(): expected --data DIR with the files of {dataset} ({files}), got no folder {folder}"
        )
    found = find(folder, names, places)
    if found is None:
        missing = min(
            ([each[0] for each in names if _first(folder / place, each) is None] for place in places), key=len
        )
        looked = " or ".join(str(folder / place) for place in places)
        raise FileNotFoundError(
            f"load(): expected the files of {dataset} ({files}) in {looked}, got no {', '.join(missing)}"
        )
    return found


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """Open a file, compressed by gzip or not, whatever its name says.

    Yields
    ------
    file, limit
        For reading bytes; and the most bytes it can hold, by its size on the disk.

    Raises
    ------
    ValueError
        If reading finds the compressed data damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not compressed:
            yield raw, size
            return
        try:
            with gzip.GzipFile(fileobj=raw) as file:
                yield cast("IO[bytes]", file), size * DEFLATE
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: expected whole and undamaged gzip data, got: {error}") from error
