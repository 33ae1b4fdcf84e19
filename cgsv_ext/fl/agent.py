"""The agents: what each one knows, and their models, trained side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from .batches import Batches, draw
from .data import Dataset
from .experiment import Experiment
from .model import Model
from .optimizer import OPTIMIZERS, Optimizer


class Agents:
    """N agents with their own data and, in the rows of one matrix, their own models.

    All of it lives on the device of ``initial``; the data once, whatever agents share of them.

    Parameters
    ----------
    model : Model
        The architecture all agents share.
    data : Dataset
        Where their samples come from.
    shards : sequence of Tensor
        N tensors of int64 indices into the training samples, none empty; adversaries' last.
    labels : sequence of Tensor
        N tensors of int64: what each agent believes its samples' labels to be.
    initial : Tensor
        (D,) float32, w_0: where every agent starts.
    way : str, optional
        How to compute N models at once: ``stacked``, ``vmap`` or ``loop``; by default the model's fastest.

    Raises
    ------
    ValueError
        If an agent has no sample.
    """

    def __init__(
        self,
        model: Model,
        data: Dataset,
        shards: Sequence[Tensor],
        labels: Sequence[Tensor],
        initial: Tensor,
        way: str | None = None,
    ) -> None:
        self._sizes = [shard.numel() for shard in shards]
        if not all(self._sizes):
            raise ValueError(
                f"Agents(): expected at least one sample per agent, got sizes {self._sizes}; "
                "choose fewer agents or more samples"
            )
        device = initial.device
        self.model = model
        self.way = way or model.way(device)
        self.data = Dataset._make(x.to(device) if isinstance(x, Tensor) else x for x in data)
        self.sizes = torch.tensor(self._sizes, device=device)
        """(N,) int64: |D_i|."""
        self._samples = torch.cat(list(shards)).to(device)
        self._labels = torch.cat(list(labels)).to(device)
        self.histogram = torch.stack([own.bincount(minlength=data.classes) for own in labels])
        """(N, classes) int64: how many samples of each class an agent holds, by its own labels."""
        self.parameters = initial.repeat(len(shards), 1)
        """(N, D) float32: w_i in row i."""
        # Leaves that share the matrix's memory: autograd differentiates them, optimizers write through them.
        self._layers = _leaves(model.layers(self.parameters))
        self._optimizer: Optimizer | None = None
        self._state: dict[str, Tensor] = {}

    def train(self, experiment: Experiment, t: int, generator: torch.Generator) -> None:
        """Local training in round t = 0, 1, …: every agent's own steps of SGD or Adam on its cross-entropy.

        The learning rate is lr · decay^t. An agent makes ``steps`` steps, or as many as its ``epochs``
        passes over its own data take: with fewer samples, fewer steps. All agents step together, in the
        model's fastest way; an agent's gradient depends on its own row and its own batch alone, so this is
        N separate trainings, :meth:`train_one_by_one`.
        """
        if self.way == "loop":
            return self.train_one_by_one(experiment, t, generator)
        optimizer, lr = self._optimizer_of(experiment), experiment.lr * experiment.decay**t
        batches = self._draw(experiment, generator)
        samples, labels = self._samples[batches.samples], self._labels[batches.samples]
        weights = _weights(batches).to(self.parameters)
        for counts, x, y, weight in zip(batches.counts, samples, labels, weights, strict=True):
            active, layers, longest = None, self._layers, max(counts)
            if min(counts) < longest:
                x, y, weight = x[:, :longest], y[:, :longest], weight[:, :longest]
            if min(counts) == 0:  # some are done
                active = [i for i, count in enumerate(counts) if count]
                rows = torch.tensor(active, device=x.device)
                layers = _leaves(self.model.layers(self.parameters[rows]))
                x, y, weight = x[rows], y[rows], weight[rows]
            logits = self.model.logits(layers, self.data.train_x[x], self.way)
            loss = _cross_entropy(logits, y).flatten().dot(weight.flatten())
            optimizer.step(active, torch.autograd.grad(loss, layers), lr)

    def train_one_by_one(self, experiment: Experiment, t: int, generator: torch.Generator) -> None:
        """Do what :meth:`train` does, on the same batches, as a plain loop over agents and their modules."""
        factory, lr = self._optimizer_of(experiment), experiment.lr * experiment.decay**t
        batches = self._draw(experiment, generator)
        samples, labels = self._samples[batches.samples], self._labels[batches.samples]
        for i, module in enumerate(self._modules):
            steps = sum(counts[i] > 0 for counts in batches.counts)
            optimizer = factory.one(i, module, lr, steps)
            for s in range(steps):
                batch = s, i, slice(batches.counts[s][i])
                loss = functional.cross_entropy(module(self.data.train_x[samples[batch]]), labels[batch])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
            optimizer.zero_grad()

    def losses(self) -> Tensor:
        """Mean cross-entropy of each agent's model on its own samples and labels, (N,) float64."""
        if self.way != "loop":
            return self._losses_together()
        found, end = [], 0
        for i, size in enumerate(self._sizes):
            own = slice(end, end := end + size)
            x, y, row = self._samples[own], self._labels[own], self.parameters[i : i + 1]
            found.append(evaluate(self.model, row, self.data.train_x, y, x)[1])
        return torch.cat(found)

    def training_losses(self) -> Tensor:
        """Mean cross-entropy of each agent's model on all agents' samples and labels, (N,) float64."""
        return evaluate(self.model, self.parameters, self.data.train_x, self._labels, self._samples)[1]

    def state_dict(self) -> dict[str, Tensor]:
        """What the local optimizers remember between rounds; the models are in ``parameters``."""
        return self._state if self._optimizer is None else self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Remember what :meth:`state_dict` gave."""
        self._state, self._optimizer = state, None

    def _optimizer_of(self, experiment: Experiment) -> Optimizer:
        if self._optimizer is None:
            self._optimizer = OPTIMIZERS[experiment.optimizer](self.model, self.parameters)
            self._optimizer.load_state_dict(self._state)
        return self._optimizer

    def _draw(self, experiment: Experiment, generator: torch.Generator) -> Batches:
        batches = draw(experiment, self._sizes, generator)
        return batches._replace(samples=batches.samples.to(self.parameters.device))

    @cached_property
    def _modules(self) -> list[nn.Module]:
        return [self.model.module(row) for row in self.parameters]

    @torch.no_grad()
    def _losses_together(self) -> Tensor:
        """:meth:`losses` with every agent's samples filled up to the longest's with its last one."""
        n, longest = len(self._sizes), max(self._sizes)
        place = torch.arange(longest, device=self.sizes.device)
        own = (self.sizes.cumsum(0) - self.sizes)[:, None] + place.minimum(self.sizes[:, None] - 1)
        losses = self.parameters.new_empty(n, longest)
        for part in _parts(longest, self.model.at_once(n)):
            logits = self.model.logits(self._layers, self.data.train_x[self._samples[own[:, part]]], self.way)
            losses[:, part] = _cross_entropy(logits, self._labels[own[:, part]])
        return losses.masked_fill_(place >= self.sizes[:, None], 0).double().sum(1) / self.sizes


@torch.no_grad()
def evaluate(
    model: Model, matrix: Tensor, x: Tensor, y: Tensor, samples: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Accuracy and mean cross-entropy of each row's model on the same samples, (N,) float64 each.

    Parameters
    ----------
    model : Model
        The architecture.
    matrix : Tensor
        (N, D), a model in each row.
    x, y : Tensor
        (M, …) samples and their (M,) labels.
    samples : Tensor, optional
        (M,) int64, where x is longer: which of its samples the labels belong to.

    Notes
    -----
    Memory does not grow with M: so many samples at a time that no activation passes 16 MiB.
    """
    n, m, layers = len(matrix), y.numel(), model.layers(matrix)
    right = torch.zeros(n, dtype=torch.int64, device=y.device)
    losses = torch.empty(n, m, dtype=matrix.dtype, device=y.device)
    for part in _parts(m, model.at_once(1 if model.way(y.device) == "loop" else n)):
        batch = x[part] if samples is None else x[samples[part]]
        logits = model.logits(layers, batch.expand(n, *batch.shape))
        right += (logits.argmax(-1) == y[part]).sum(1)
        losses[:, part] = _cross_entropy(logits, y[part].expand(n, -1))
    return right.double() / m, losses.double().mean(1)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """(N, B) losses of (N, B, classes) logits."""
    return functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(y.shape)


def _parts(total: int, most: int) -> Iterator[slice]:
    return (slice(start, start + most) for start in range(0, total, most))


def _leaves(layers: list[Tensor]) -> list[Tensor]:
    return [layer.detach().requires_grad_() for layer in layers]


def _weights(batches: Batches) -> Tensor:
    """(S, N, B): 1 / count for the samples that count, 0 for the others, so that a batch's loss is a mean."""
    counts = torch.tensor(batches.counts, dtype=torch.float64)[..., None]
    counting = torch.arange(batches.samples.shape[2]) < counts
    return counting / counts.clamp(min=1)
