"""The agents: what each one knows, and their models, trained side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .data import Dataset
from .model import MLP


class Agents:
    """N agents with their own data and, in the rows of one matrix, their own models.

    Parameters
    ----------
    model : MLP
        The architecture all agents share.
    data : Dataset
        Where their samples come from.
    shards : sequence of Tensor
        N tensors of int64 indices into the training samples.
    labels : sequence of Tensor
        N tensors of int64: what each agent believes its samples' labels to be.
    initial : Tensor
        (D,) float32, w_0: where every agent starts.
    """

    def __init__(
        self,
        model: MLP,
        data: Dataset,
        shards: Sequence[Tensor],
        labels: Sequence[Tensor],
        initial: Tensor,
    ) -> None:
        self.model = model
        self.data = data
        self.sizes = torch.tensor([shard.numel() for shard in shards])
        """(N,) int64: |D_i|."""
        self._first = self.sizes.cumsum(0) - self.sizes
        self._samples = torch.cat(list(shards))
        self._labels = torch.cat(list(labels))
        self.parameters = initial.repeat(len(shards), 1)
        """(N, D) float32: w_i in row i."""
        # Leaves that share the matrix's memory: autograd differentiates them, SGD writes through them.
        self._layers = [layer.detach().requires_grad_() for layer in model.layers(self.parameters)]

    def draw(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One batch per agent, drawn from its own data with replacement: (N, B, F) and (N, B)."""
        n = self.sizes.numel()
        u = torch.rand(n, batch_size, generator=generator, dtype=torch.float64)
        place = self._first[:, None] + (u * self.sizes[:, None]).long()
        return self.data.train_x[self._samples[place]], self._labels[place]

    def train(self, steps: int, batch_size: int, lr: float, generator: torch.Generator) -> None:
        """Local training: every row takes ``steps`` steps of SGD on its agent's cross-entropy.

        All agents step together, as batched matrix products; an agent's gradient depends on its own row
        and its own batch alone, so this is N separate trainings, some three times as fast on a CPU as
        :meth:`train_one_by_one`.
        """
        n = self.sizes.numel()
        for _ in range(steps):
            x, y = self.draw(batch_size, generator)
            logits = self.model.logits(self._layers, x)
            losses = functional.cross_entropy(logits.flatten(0, 1), y.flatten()) * n
            gradients = torch.autograd.grad(losses, self._layers)
            with torch.no_grad():
                for layer, gradient in zip(self._layers, gradients, strict=True):
                    layer.sub_(gradient, alpha=lr)

    def train_one_by_one(self, steps: int, batch_size: int, lr: float, generator: torch.Generator) -> None:
        """Do what :meth:`train` does, on the same batches, as a plain loop over agents and their modules."""
        batches = [self.draw(batch_size, generator) for _ in range(steps)]
        for i, row in enumerate(self.parameters):
            module = self.model.module(row)
            parameters = list(module.parameters())
            for x, y in batches:
                loss = functional.cross_entropy(module(x[i]), y[i])
                gradients = torch.autograd.grad(loss, parameters)
                with torch.no_grad():
                    for parameter, gradient in zip(parameters, gradients, strict=True):
                        parameter.sub_(gradient, alpha=lr)


@torch.no_grad()
def accuracy(model: MLP, matrix: Tensor, data: Dataset) -> Tensor:
    """Share of the test samples that each row's model labels correctly, (N,) float64."""
    x = data.test_x.expand(matrix.shape[0], -1, -1)
    right = model.logits(model.layers(matrix), x).argmax(-1) == data.test_y
    return right.sum(1).double() / data.test_y.numel()
