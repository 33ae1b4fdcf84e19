"""What the compiled ops cannot check for themselves: the types of Python arguments, and devices.

Shapes, dtypes, strides, overlaps and the ranges of hyperparameters are checked in csrc/torch/checks.cpp, in
the same words; here again what must be known before an op is called, or where none is. A wrong Python type is
a TypeError, everything else a ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

from ._load import build_info
from .types import FLOATS, Selection, States, Updates, dtype_name

_INTEGER = (Integral, torch.SymInt)
_DEVICES = ("cpu", "meta", *(["cuda"] if build_info()["cuda"] else []))


def tensor(op: str, name: str, value: object, like: Tensor | None = None) -> Tensor:
    """A dense tensor, on the device of `like`."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}(): expected {name} to be a tensor, got {type(value).__name__}")
    if value.layout is not torch.strided or value.is_nested or value.is_quantized:
        layout = "a nested tensor" if value.is_nested else value.dtype if value.is_quantized else value.layout
        raise ValueError(f"{op}(): expected {name} to be dense, got {layout}")
    if value.device.type not in _DEVICES:
        why = " (this build has no CUDA kernels)" if value.device.type == "cuda" else ""
        raise ValueError(
            f"{op}(): expected {name} on {' or '.join(_DEVICES)}, got one on {value.device}{why}"
        )
    if like is not None and value.device != like.device:
        raise ValueError(f"{op}(): expected {name} on {like.device}, got one on {value.device}")
    return value


def rows(op: str, name: str, value: Updates | States, like: Tensor | None = None) -> list[Tensor]:
    """Updates as the ops take them: [the (N, D) tensor], or N ≥ 2 tensors of D elements each."""
    if isinstance(value, Tensor):
        return [tensor(op, name, value, like)]
    if not isinstance(value, (Sequence, torch.nn.ParameterList)):
        raise TypeError(
            f"{op}(): expected {name} to be an (N, D) tensor or a sequence of N tensors, "
            f"got {type(value).__name__}"
        )
    if len(value) == 0:
        raise ValueError(f"{op}(): expected {name} of at least one agent, got an empty sequence")
    if isinstance(value[0], (Mapping, list, tuple)):
        raise TypeError(
            f"{op}(): expected {name}[0] to be a tensor, got {type(value[0]).__name__}; join an agent's "
            "tensors with torch.nn.utils.parameters_to_vector, or have a RewardServer take them as they are"
        )
    first = tensor(op, f"{name}[0]", value[0], like)
    found = [first] + [tensor(op, f"{name}[{i}]", row, first) for i, row in enumerate(value[1:], 1)]
    if len(found) > 1:
        return found
    if not first.is_contiguous():
        raise ValueError(f"{op}(): expected {name}[0] to be contiguous, got strides {first.stride()}")
    return [first.view(1, first.numel())]


def parts(op: str, name: str, value: Tensor | Sequence[Tensor], like: Tensor) -> list[Tensor]:
    """Any number of tensors, from one or a sequence of them."""
    if isinstance(value, Tensor):
        return [tensor(op, name, value, like)]
    if not isinstance(value, (Sequence, torch.nn.ParameterList)):
        raise TypeError(
            f"{op}(): expected {name} to be a tensor or a sequence of tensors, got {type(value).__name__}"
        )
    return [tensor(op, f"{name}[{i}]", part, like) for i, part in enumerate(value)]


def output(
    op: str, name: str, value: object, like: Tensor | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """A tensor to write to, which autograd has no claim on, of the dtype asked for, if one is."""
    out = tensor(op, name, value, like)
    if out.requires_grad:
        raise ValueError(f"{op}(): expected {name} not to require grad, got one that does")
    if dtype is not None and out.dtype != dtype:
        raise ValueError(f"{op}(): expected {name} of the dtype asked for, {dtype}, got {out.dtype}")
    return out


def floating(op: str, name: str, value: Tensor) -> Tensor:
    """A tensor of one of the four dtypes."""
    if value.dtype not in FLOATS:
        raise ValueError(
            f"{op}(): expected {name} of float64, float32, bfloat16 or float16, got {dtype_name(value.dtype)}"
        )
    return value


def number(op: str, name: str, value: object) -> float:
    """A real number."""
    if isinstance(value, float):
        return value
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{op}(): expected {name} to be a float64, got {value!r}") from None
    raise TypeError(f"{op}(): expected {name} to be a number, got {type(value).__name__}")


def _number(op: str, name: str, value: object, good: Callable[[float], bool], expected: str) -> float:
    found = number(op, name, value)
    if not good(found):
        raise ValueError(f"{op}(): expected {name} to be {expected}, got {found:g}")
    return found


def gamma(op: str, value: object) -> float:
    """Γ."""
    return _number(op, "gamma", value, lambda g: math.isfinite(g) and g > 0, "finite and > 0")


def alpha(op: str, value: object) -> float:
    """α."""
    return _number(op, "alpha", value, lambda a: 0 <= a <= 1, "in [0, 1]")


def beta(op: str, value: object) -> float:
    """β."""
    return _number(op, "beta", value, lambda b: b > 0, "> 0 (inf is allowed)")


def floor(op: str, value: object) -> float | None:
    """The least importance."""
    if value is None:
        return None
    return _number(op, "floor", value, lambda f: math.isfinite(f) and f >= 0, "None or finite and ≥ 0")


def integer(op: str, name: str, value: object, least: int) -> int:
    """An integer from `least` on."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{op}(): expected {name} to be an integer, got {value!r:.100}")
    if not least <= int(value) < 2**63:
        raise ValueError(f"{op}(): expected {name} in [{least}, 2^63), got {value!s:.100}")
    return int(value)


def lengths(op: str, name: str, value: object) -> list[int | torch.SymInt]:
    """A list of integers; those that a tracer made symbols of stay symbols."""
    if not isinstance(value, Sequence) or not all(isinstance(size, _INTEGER) for size in value):
        raise TypeError(f"{op}(): expected {name} to be a sequence of integers, got {value!r}")
    if not all(-(2**63) <= size < 2**63 for size in value):
        raise ValueError(f"{op}(): expected {name} to be 64-bit integers, got {value!r}")
    return [size if isinstance(size, torch.SymInt) else int(size) for size in value]


def segments(op: str, value: object, columns: int) -> list[int] | None:
    """Sizes of consecutive parts of so many columns."""
    if value is None:
        return None
    sizes = [int(size) for size in lengths(op, "segments", value)]
    if any(size < 0 for size in sizes) or sum(sizes) != columns:
        raise ValueError(
            f"{op}(): expected segments that are not negative and sum to D = {columns}, got {sizes}"
        )
    return sizes


def per_agent(op: str, name: str, value: Tensor, segments: Sequence[int] | None, dtype: torch.dtype) -> None:
    """(N,), or (N, S) with segments."""
    if value.dtype != dtype:
        raise ValueError(f"{op}(): expected {name} of {dtype_name(dtype)}, got {dtype_name(value.dtype)}")
    n, *rest = value.shape or (0,)
    if n == 0 or rest != ([] if segments is None else [len(segments)]):
        expected = (
            "(N,) without segments=" if segments is None else f"(N, {len(segments)}), one column per segment"
        )
        raise ValueError(f"{op}(): expected {name} of shape {expected}, got {tuple(value.shape)}")


def selection(op: str, value: object, like: Tensor, of: str = "") -> Selection:
    """A selection that was handed in; `of` comes before the names of its fields in errors."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise TypeError(f"{op}(): expected selection to be a Selection, got {type(value).__name__}")
    return Selection(
        tensor(op, f"{of}magnitude", value[0], like), tensor(op, f"{of}last_index", value[1], like)
    )
