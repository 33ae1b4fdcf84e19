"""What all models share: the layout of the matrix, and ways to compute N models at once."""

from __future__ import annotations

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .ways import fastest

AT_ONCE = 2**22
"""Numbers in the widest activation of one computation without gradients: 16 MiB of float32."""


class Model(ABC):
    """An architecture, for one agent or for N at once.

    Parameters
    ----------
    name : str
        A name in ``FASTEST_ON_CPU``.
    skeleton : nn.Module
        The architecture, with its parameters on the meta device: shapes without memory. The weight and the
        bias of the last layer come last.
    width : int
        Numbers in its widest activation, per sample; what bounds the memory of an evaluation.
    """

    def __init__(self, name: str, skeleton: nn.Module, width: int) -> None:
        self.name = name
        self.width = width
        self._skeleton = skeleton
        self._names = [name for name, _ in skeleton.named_parameters()]
        self.shapes = [tuple(parameter.shape) for parameter in skeleton.parameters()]
        """Of its parameters, in the order of ``module(...).named_parameters()``."""
        self.sizes = [torch.Size(shape).numel() for shape in self.shapes]
        """D_l: the size of every parameter; they sum to D."""
        self.numel = sum(self.sizes)
        """D."""
        self.last_layer = slice(self.numel - sum(self.sizes[-2:]), self.numel)
        """The columns of the last layer's weight and bias."""

    def layers(self, matrix: Tensor) -> list[Tensor]:
        """View the matrix, (N, D), as parameters with N as their first dimension; or one row, (D,)."""
        ends = itertools.accumulate(self.sizes, initial=0)
        return [
            matrix[..., start:end].view(*matrix.shape[:-1], *shape)
            for (start, end), shape in zip(itertools.pairwise(ends), self.shapes, strict=True)
        ]

    def initial(self, generator: torch.Generator) -> Tensor:
        """w_0, (D,) float32, as ``torch.nn`` draws it.

        Weights and biases are uniform within ± 1/√inputs of the layer, embeddings standard normal.
        """
        parts = []
        for layer in self._skeleton.modules():
            own = list(layer.parameters(recurse=False))
            values = torch.empty(sum(parameter.numel() for parameter in own))
            if isinstance(layer, nn.Embedding):
                parts.append(values.normal_(generator=generator))
            elif own:
                bound = own[0][0].numel() ** -0.5
                parts.append(values.uniform_(-bound, bound, generator=generator))
        return torch.cat(parts)

    def module(self, row: Tensor) -> nn.Module:
        """One agent's model as a plain module whose parameters are views of its row, (D,)."""
        module = copy.deepcopy(self._skeleton)
        for name, view in zip(self._names, self.layers(row), strict=True):
            path, _, parameter = name.rpartition(".")
            setattr(module.get_submodule(path), parameter, nn.Parameter(view))
        return module

    def way(self, device: torch.device) -> str:
        """Return the fastest way to compute N models on a device: ``stacked``, ``vmap`` or ``loop``."""
        return fastest(self.name, device)

    def logits(self, layers: Sequence[Tensor], x: Tensor, way: str | None = None) -> Tensor:
        """All N models at once.

        Parameters
        ----------
        layers : sequence of Tensor
            As :meth:`layers` returns them.
        x : Tensor
            (N, B, …), agent i's samples in x[i].
        way : str, optional
            How; by default :meth:`way` says it. All ways agree up to rounding.

        Returns
        -------
        Tensor
            (N, B, classes).
        """
        way = way or self.way(x.device)
        if way == "stacked":
            return self.stacked(layers, x)
        if way == "vmap":
            return torch.func.vmap(self._one)(list(layers), x)
        return torch.stack([self._one([layer[i] for layer in layers], x[i]) for i in range(len(x))])

    def at_once(self, models: int) -> int:
        """How many samples to compute at once without gradients, so that memory stays bounded."""
        return max(1, AT_ONCE // (models * self.width))

    @abstractmethod
    def stacked(self, layers: Sequence[Tensor], x: Tensor) -> Tensor:
        """:meth:`logits`, written by hand with the N models in a dimension of every operation."""

    def _one(self, layers: list[Tensor], x: Tensor) -> Tensor:
        parameters = dict(zip(self._names, layers, strict=True))
        logits: Tensor = functional_call(self._skeleton, parameters, (x,))
        return logits
