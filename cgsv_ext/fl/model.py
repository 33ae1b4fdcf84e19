"""Models whose parameters live in the rows of one matrix.

A row of the (N, D) matrix is one agent's whole model. ``layers`` shows the matrix as stacks of weights
and biases, and ``module`` shows one row as an ordinary ``torch.nn.Module``; both are views, so writing
the matrix changes every model and training a model writes the matrix. Nothing is ever flattened.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MLP:
    """A multilayer perceptron with ReLU between its layers, for one agent or for N at once.

    Parameters
    ----------
    widths : int
        Inputs, hidden units of each layer, outputs: ``MLP(64, 64, 10)``.
    """

    def __init__(self, *widths: int) -> None:
        self.widths = widths
        self.shapes: list[tuple[int, ...]] = []
        for inputs, outputs in itertools.pairwise(widths):
            self.shapes += [(outputs, inputs), (outputs,)]
        self.sizes = [torch.Size(shape).numel() for shape in self.shapes]
        self.numel = sum(self.sizes)
        """D."""

    def initial(self, generator: torch.Generator) -> Tensor:
        """w_0, (D,) float32: uniform within ± 1/√inputs, as ``nn.Linear`` draws it."""
        parts = []
        for inputs, outputs in itertools.pairwise(self.widths):
            bound = inputs**-0.5
            parts.append(torch.empty((inputs + 1) * outputs).uniform_(-bound, bound, generator=generator))
        return torch.cat(parts)

    def layers(self, matrix: Tensor) -> list[Tensor]:
        """View the matrix as weights and biases in turn: (N, outputs, inputs), (N, outputs)."""
        ends = itertools.accumulate(self.sizes, initial=0)
        return [
            matrix[..., start:end].view(*matrix.shape[:-1], *shape)
            for (start, end), shape in zip(itertools.pairwise(ends), self.shapes, strict=True)
        ]

    def logits(self, layers: Sequence[Tensor], x: Tensor) -> Tensor:
        """All N models at once, as batched matrix products.

        Parameters
        ----------
        layers : sequence of Tensor
            As :meth:`layers` returns them.
        x : Tensor
            (N, B, inputs), agent i's samples in x[i].

        Returns
        -------
        Tensor
            (N, B, outputs).
        """
        for weight, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
            x = torch.relu(torch.baddbmm(bias.unsqueeze(1), x, weight.mT))
        return torch.baddbmm(layers[-1].unsqueeze(1), x, layers[-2].mT)

    def module(self, row: Tensor) -> nn.Sequential:
        """One agent's model as a plain module whose parameters are views of its row, (D,)."""
        steps: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(self.widths):
            steps += [nn.Linear(inputs, outputs, device="meta"), nn.ReLU()]
        model = nn.Sequential(*steps[:-1])
        views = self.layers(row)
        names = [name for name, _ in model.named_parameters()]
        for name, view in zip(names, views, strict=True):
            layer, parameter = name.split(".")
            setattr(model[int(layer)], parameter, nn.Parameter(view))
        return model
