"""How the tensors of a model lie in one flat row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn import Module

from ..types import FLOATS, Structured, dtype_name


class Template:
    """Names, shapes and order of the tensors that updates and rewards consist of.

    Parameters
    ----------
    like : Module, mapping of str to Tensor, sequence of Tensor, Tensor, or int
        A module stands for its parameters, a state dict for its floating-point entries; both may be left
        out of by what is not theirs (buffers, counters): updates may contain it, and it is passed over. An
        int D stands for flat updates of D elements.

    Raises
    ------
    TypeError, ValueError
        For anything else, and for a template without elements.
    """

    names: tuple[str, ...] | None
    """Of the tensors, where they have names."""
    ties: dict[str, str]
    """Of a module, other names of its tied parameters, and the names they stand for."""
    shapes: tuple[torch.Size, ...]
    """Of the tensors, in order."""
    sizes: list[int]
    """Elements of each tensor, in order: the layers as segments."""
    size: int
    """D, elements of all tensors together."""
    dtype: torch.dtype
    """Of the tensors, where they agree; float32 otherwise."""
    device: torch.device
    """Of the first tensor; the CPU for an int and for tensors without data."""

    def __init__(self, like: Module | Structured | int) -> None:
        self.names = None
        self.ties = _ties(like)
        self._known: frozenset[str] = frozenset()  # names an update may have
        self._one = isinstance(like, (int, Tensor))
        tensors: list[Tensor] = []
        if isinstance(like, int) and not isinstance(like, bool):
            shapes = [torch.Size([like])] if like >= 0 else []
        else:
            named = _named(like)
            if named is not None:
                chosen, all_names = named
                self.names = tuple(chosen)
                self._known = frozenset(all_names).union(chosen)
                tensors = list(chosen.values())
            else:
                tensors = _in_order(like)
            for i, tensor in enumerate(tensors):
                if not isinstance(tensor, Tensor) or tensor.dtype not in FLOATS:
                    what = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
                    raise TypeError(
                        "Template(): expected a module, a state dict, floating-point tensors or a size, "
                        f"got {what} at {self._name(i)}"
                    )
            shapes = [tensor.shape for tensor in tensors]
        self.shapes = tuple(shapes)
        self.sizes = [shape.numel() for shape in shapes]
        self.size = sum(self.sizes)
        if self.size == 0:
            raise ValueError(f"Template(): expected at least one element, got {like!r:.100}")
        dtypes = {tensor.dtype for tensor in tensors}
        self.dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
        real = [tensor.device for tensor in tensors if not tensor.is_meta]
        self.device = real[0] if real else torch.device("cpu")

    def description(self) -> dict[str, object]:
        """Structure, names and shapes as plain data."""
        names = None if self.names is None else list(self.names)
        return {"one": self._one, "names": names, "shapes": [list(shape) for shape in self.shapes]}

    def parts(self, update: Structured) -> list[Tensor]:
        """Tensors of an update in the template's order, detached, never copied.

        Parameters
        ----------
        update : mapping of str to Tensor, sequence of Tensor, or Tensor
            In the template's structure, its tensors in order, or one tensor of D elements; any of the four
            floating dtypes.

        Raises
        ------
        ValueError
            Saying what was expected and what came, for a name, shape, dtype or size that does not fit.
        """
        if isinstance(update, Tensor) and update.shape == (self.size,):
            return [_floats(update, torch.Size([self.size]), "the update")]
        if self._one:
            return [_floats(update, self.shapes[0], "the update")]
        if self.names is not None and isinstance(update, Mapping):
            missing = [name for name in self.names if name not in update]
            unknown = [name for name in update if name not in self._known]
            if missing or unknown:
                wrong = [f"no {name!r}" for name in missing] + [
                    f"an unknown {name!r:.100}" for name in unknown
                ]
                more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
                raise ValueError(
                    f"expected the template's {len(self.names)} tensors, got {', '.join(wrong[:3])}{more}"
                )
            tensors: list[Tensor] = [update[name] for name in self.names]
        else:
            if not isinstance(update, Sequence) or isinstance(update, (str, bytes)):
                how = "in order" if self.names is None else "by name or in order"
                raise ValueError(
                    f"expected {len(self.shapes)} tensors {how}, or a flat one of {self.size} elements, "
                    f"got {_kind(update)}"
                )
            if len(update) != len(self.shapes):
                raise ValueError(f"expected {len(self.shapes)} tensors, got {len(update)}")
            tensors = list(update)
        return [
            _floats(tensor, shape, self._name(i))
            for i, (tensor, shape) in enumerate(zip(tensors, self.shapes, strict=True))
        ]

    def shaped(self, flat: Tensor) -> Structured:
        """View a flat tensor of D elements in the template's structure; no memory is copied."""
        if flat.shape != (self.size,):
            raise ValueError(f"shaped(): expected a tensor of {self.size} elements, got {tuple(flat.shape)}")
        views = self._views(flat)
        if self._one:
            return views[0]
        return views if self.names is None else dict(zip(self.names, views, strict=True))

    def targets(self, into: Module | Structured) -> list[Tensor]:
        """Tensors of a model, to be written to, in the template's order; they share its memory.

        Raises
        ------
        ValueError
            Where the structures differ, or where elements share memory.
        """
        if not isinstance(into, Module):
            found = self.parts(into)
        elif self.names is None:
            found = self.parts(list(into.parameters()))
        else:
            parameters = dict(into.named_parameters())
            whole = set(self.names) <= set(parameters)
            found = self.parts(parameters if whole else into.state_dict())
        spans = sorted((*_span(tensor), i) for i, tensor in enumerate(found) if tensor.numel())
        for (_, end, i), (begin, _, j) in pairwise(spans):
            if begin < end:
                raise ValueError(
                    f"expected tensors that share no memory, got {self._name(i)} and {self._name(j)}, "
                    "which do (for a module with tied parameters, the module itself is the template)"
                )
        for i, tensor in enumerate(found):
            if any(
                size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
            ):
                raise ValueError(f"expected memory for each element, got {self._name(i)}, which is expanded")
        return found

    @torch.no_grad()
    def add_(self, into: Module | Structured, flat: Tensor) -> None:
        """Add a flat tensor of D elements to the parameters of a model, in place.

        Parameters
        ----------
        into : Module, mapping of str to Tensor, sequence of Tensor, or Tensor
            A model in the template's structure, or a flat tensor.
        flat : Tensor
            (D,) on any device.

        Raises
        ------
        ValueError
            Where the structures differ, or elements of the model share memory; nothing has been added then.
        """
        targets = self.targets(into)
        if flat.shape != (self.size,):
            raise ValueError(f"add_(): expected a tensor of {self.size} elements, got {tuple(flat.shape)}")
        views = [flat] if len(targets) == 1 else self._views(flat)
        for target, view in zip(targets, views, strict=True):
            target.add_(view.view(target.shape).to(target.device))

    def _name(self, i: int) -> str:
        return f"[{i}]" if self.names is None else repr(self.names[i])

    def _views(self, flat: Tensor) -> list[Tensor]:
        ends = accumulate(self.sizes)
        return [
            flat[end - size : end].view(shape)
            for end, size, shape in zip(ends, self.sizes, self.shapes, strict=True)
        ]


def _named(like: object) -> tuple[dict[str, Tensor], list[str]] | None:
    """Tensors by name that are rewarded, and the names of all there are; None where there are no names."""
    if isinstance(like, Module):
        return dict(like.named_parameters()), list(like.state_dict())
    if isinstance(like, Mapping):
        floats = {name: value for name, value in like.items() if _is_rewarded(value)}
        return floats, list(like)
    return None


def _ties(like: object) -> dict[str, str]:
    if not isinstance(like, Module):
        return {}
    first = {id(parameter): name for name, parameter in like.named_parameters()}
    everyone = like.named_parameters(remove_duplicate=False)
    return {name: first[id(parameter)] for name, parameter in everyone if first[id(parameter)] != name}


def _is_rewarded(value: object) -> bool:
    return not isinstance(value, Tensor) or value.is_floating_point()


def _in_order(like: object) -> list[Tensor]:
    if isinstance(like, Tensor):
        return [like]
    if isinstance(like, Sequence) and not isinstance(like, (str, bytes)):
        return list(like)
    raise TypeError(
        "Template(): expected a module, a state dict, floating-point tensors or a size, "
        f"got {type(like).__name__}"
    )


def _floats(value: object, shape: torch.Size, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(f"expected {name} to be a tensor, got {type(value).__name__}")
    if value.layout is not torch.strided or value.is_nested:
        raise ValueError(f"expected {name} to be dense, got {'nested' if value.is_nested else value.layout}")
    if value.is_meta:
        raise ValueError(f"expected {name} to hold data, got a tensor on the meta device")
    if value.shape != shape:
        raise ValueError(f"expected {name} of shape {tuple(shape)}, got {tuple(value.shape)}")
    if value.dtype not in FLOATS:
        names = ", ".join(map(dtype_name, FLOATS))
        raise ValueError(f"expected {name} to be one of {names}, got {value.dtype}")
    return value.detach()


def _span(tensor: Tensor) -> tuple[int, int]:
    """Where its memory begins and ends."""
    begin = tensor.data_ptr()
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + (last + 1) * tensor.element_size()


def _kind(update: object) -> str:
    if isinstance(update, Tensor):
        return f"a tensor of shape {tuple(update.shape)}"
    return f"{type(update).__name__}"
