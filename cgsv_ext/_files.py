"""Files that are whole or not there, and that hold nothing but tensors and plain data.

They are in the safetensors format, of which nothing is ever run, and whose tensors are checked against the
size of the file before there is memory for them. Its metadata hold what they are part of, in JSON, and a
checksum.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

DTYPES = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.bfloat16, torch.float32, torch.float64}
)
"""Of tensors that can be written."""


class Unreadable(ValueError):
    """A file that is truncated, damaged, or was never written by :func:`write`."""


def write(path: Path, value: Any, *, keep_previous: bool = False) -> None:
    """Write tensors and plain data to a file, at once: whoever looks sees the former file or the new one.

    That holds when the process is killed, when the power fails, and when several write the same file: one
    after the other. One hidden file may be left beside it; the next write takes it over.

    Parameters
    ----------
    path : Path
        The file; its folder is made if need be.
    value
        Dicts, lists and tuples of dense tensors, strings, numbers, booleans and None.
    keep_previous : bool
        Keep what the file was before as ``NAME.previous``. At every moment one of the two is whole, also
        where something else has damaged one of them.

    Raises
    ------
    TypeError
        For any other value; the file is as it was.
    """
    tensors: list[Tensor] = []
    tree = _tree(value, tensors)
    content, name = _dump(tree, tensors), _hidden(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent) as folder:
        try:
            with name.open("wb") as file:  # always the same name: what killed writes leave does not pile up
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # else a power cut could leave the new name on an empty file
            kept = _keep(path) if keep_previous else None
            os.replace(name, path)
        except BaseException:
            name.unlink(missing_ok=True)
            raise
        os.fsync(folder)
        # Not before the new file is there for good: the one kept so far may be the only one that is whole.
        if kept is not None:
            os.replace(kept, previous(path))


def read(path: Path) -> Any:
    """Read what :func:`write` wrote: the same bits, on the CPU.

    What was a subclass of a dict, list or tuple comes back as a plain one.

    Raises
    ------
    FileNotFoundError
        Where there is no file.
    Unreadable
        Where the file is truncated, where a bit of what it holds changed, or where it is something else.
    """
    try:
        return _parse(path)
    except (OSError, MemoryError):  # says nothing about the file's content
        raise
    except Exception as error:  # safetensors, json, torch and every step here have their own
        reason = str(error).partition("\n")[0]
        raise Unreadable(f"{path}: not a whole file of tensors and plain data ({reason})") from error


def read_latest(path: Path) -> tuple[Any, str | None]:
    """Read a file written with ``keep_previous``, or the previous one where it is damaged or missing.

    Returns
    -------
    value
        What was written.
    note : str or None
        Which file was passed over and why; None where it is the latest.

    Raises
    ------
    FileNotFoundError
        Where neither is there.
    Unreadable
        Where no file can be read.
    """
    missing = f"{path}: not there"
    passed: list[str] = []
    # A write that was cut short may have left the previous version under its hidden name.
    for each in (path, _hidden(previous(path)), previous(path)):
        try:
            return read(each), f"{'; '.join(passed)}; {each.name} is used" if passed else None
        except FileNotFoundError:
            if each == path:
                passed.append(missing)
        except Unreadable as error:
            passed.append(str(error))
    if passed == [missing]:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    raise Unreadable("; ".join(passed))


def previous(path: Path) -> Path:
    """Where :func:`write` keeps what a file was before."""
    return path.with_name(f"{path.name}.previous")


def remove(path: Path) -> None:
    """Delete a file and all that :func:`write` may have left beside it."""
    names = (path, previous(path), _hidden(previous(path)), _hidden(path))
    if any(name.exists() for name in names):  # what is only read need not be writable
        with _locked(path.parent):
            for name in names:
                name.unlink(missing_ok=True)


# Replacing


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Open a folder and keep other writers out of it; a lock ends with its holder, however that ends."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # NFS locks no folders. Two who write one file at once can damage it there, which the checksum tells.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # closing is not enough where a process was forked meanwhile
        os.close(handle)


def _keep(path: Path) -> Path | None:
    """Give a file a second, hidden name; None where there is no file."""
    if not path.exists():
        return None
    kept = _hidden(previous(path))
    kept.unlink(missing_ok=True)
    try:
        os.link(path, kept)
    except OSError:  # a file system without hard links
        with kept.open("wb") as file:
            file.write(path.read_bytes())
            file.flush()
            os.fsync(file.fileno())
    return kept


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


# The format


def _tree(value: Any, tensors: list[Tensor]) -> Any:
    """Return the value as JSON can say it; its tensors are appended to the list."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, list):
        return [_tree(each, tensors) for each in value]
    if isinstance(value, tuple):
        return {"tuple": [_tree(each, tensors) for each in value]}
    if isinstance(value, dict):
        return {"dict": [[_tree(key, tensors), _tree(each, tensors)] for key, each in value.items()]}
    if isinstance(value, Tensor) and value.layout is torch.strided and value.dtype in DTYPES:
        tensors.append(value)
        return {"tensor": str(len(tensors) - 1)}
    what = f"{value.layout} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
    raise TypeError(f"write(): expected dicts, lists and tuples of dense tensors and plain data, got {what}")


def _value(node: Any, tensors: dict[str, Tensor]) -> Any:
    """What :func:`_tree` was given."""
    if isinstance(node, list):
        return [_value(each, tensors) for each in node]
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_value(each, tensors) for each in content)
    if kind == "dict":
        return {_value(key, tensors): _value(each, tensors) for key, each in content}
    raise ValueError(f"expected a tensor, tuple or dict, got {kind!r}")


def _dump(tree: Any, tensors: list[Tensor]) -> bytes:
    named, storages = {}, set()
    for i, tensor in enumerate(tensors):
        dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        storage = dense.untyped_storage().data_ptr()
        named[str(i)] = dense.clone() if storage in storages else dense  # safetensors refuses shared memory
        storages.add(storage)
    text = json.dumps(tree, separators=(",", ":"))
    return save(named, {"value": text, "crc32": _sum(text, named)})


def _parse(path: Path) -> Any:
    # pread opens the file once. To be mapped it is opened again, and may have been replaced by then.
    with safe_open(path, framework="pt", backend="pread") as file:
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
        metadata = file.metadata()
    if metadata["crc32"] != _sum(metadata["value"], tensors):
        raise ValueError("the checksum does not match")
    return _value(json.loads(metadata["value"]), tensors)


def _sum(text: str, tensors: dict[str, Tensor]) -> str:
    """CRC-32 of all that a value is made from; the format itself has no checksum."""
    found = zlib.crc32(text.encode())
    for name, tensor in sorted(tensors.items()):
        found = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), found)
        found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"
