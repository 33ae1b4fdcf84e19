"""A multilayer perceptron."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import Model


class MLP(Model):
    """A multilayer perceptron with ReLU between its layers.

    Parameters
    ----------
    widths : int
        Inputs, hidden units of each layer, outputs: ``MLP(64, 64, 10)``.
    """

    def __init__(self, *widths: int) -> None:
        self.widths = widths
        steps: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in itertools.pairwise(widths):
            steps += [nn.Linear(inputs, outputs, device="meta"), nn.ReLU()]
        super().__init__("mlp", nn.Sequential(*steps[:-1]), max(widths))

    def stacked(self, layers: Sequence[Tensor], x: Tensor) -> Tensor:
        """All N models as batched matrix products; x is (N, B, …), flattened here."""
        x = x.flatten(2)
        for weight, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
            x = torch.relu(torch.baddbmm(bias.unsqueeze(1), x, weight.mT))
        return torch.baddbmm(layers[-1].unsqueeze(1), x, layers[-2].mT)
