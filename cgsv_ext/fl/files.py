"""Files that are whole or not there, and that hold nothing but tensors and plain data."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch


class Unreadable(Exception):
    """A file that is truncated, damaged, or was never written by :func:`write`."""


def write(path: Path, value: Any) -> None:
    """Write tensors and plain data to a file, at once: whoever looks sees the former file or the new one.

    Parameters
    ----------
    path : Path
        The file; its folder is made if need be.
    value
        Dicts, lists and tuples of tensors, strings, numbers, booleans and None.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(value, file)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name on an empty file
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read(path: Path) -> Any:
    """Read what :func:`write` wrote; no code in the file is ever run.

    Tensors are mapped, not copied, so those nobody looks at take no memory; writing them does not change the
    file.

    Raises
    ------
    FileNotFoundError
        Where there is no file.
    Unreadable
        Where the file is truncated, where a byte of its content changed, or where it is something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load checks no sum
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} does not match")
        return torch.load(path, weights_only=True, mmap=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, pickle and torch each have their own
        reason = str(error).partition("\n")[0]
        raise Unreadable(f"{path}: not a whole file of tensors and plain data ({reason})") from error
