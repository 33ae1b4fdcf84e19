"""The rounds of federated learning, as in the pseudocode of §3.4."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import cgsv_ext
from cgsv_ext import shapley

from .agent import Agents, accuracy
from .data import digits
from .mechanism import MECHANISMS, Outcome, download_
from .model import MLP
from .partition import PARTITIONS, corrupt
from .presets import Experiment
from .seeds import generator
from .threads import one_thread


@dataclass
class Run:
    """All that happened in one run. NaN stands for what a mechanism does not have."""

    experiment: Experiment
    mechanism: str
    seed: int
    accuracy: Tensor
    """(T, N) float64: test accuracy of each agent's model after each round."""
    importance: Tensor
    """(T, N) float64: r_{i,t}."""
    sparsity: Tensor
    """(T, N) float64: the share 1 - q_{i,t}/D of the aggregate that agent i does not download."""
    distance: Tensor
    """(T, N) float64: ‖w_{i,t} - w_t‖, from the server's model."""
    server_accuracy: Tensor
    """(T,) float64: test accuracy of the server's model."""
    parameters: Tensor
    """(N, D) float32: w_{i,T}."""
    server: Tensor
    """(D,) float32: w_T."""
    seconds: dict[str, float]
    """Wall-clock time in all rounds of ``training``, ``reward`` (the mechanism's step) and ``download``; of
    ``shapley`` where values are logged."""
    shapley: Tensor
    """(T, N) float64: φ_{i,t}, the exact values of each round's updates, where logged."""
    cosines: Tensor
    """(T, N) float64: ψ_{i,t}, the approximate ones, where logged."""


OnRound = Callable[[int, Tensor, Tensor], None]
"""Called after every round with t, (N,) accuracies and (N,) importances."""


def federation(experiment: Experiment, seed: int) -> Agents:
    """Set up the agents of a run: data dealt out, labels corrupted, all models at w_0."""
    data = digits(seed)
    split = PARTITIONS[experiment.partition]
    shards = split(data.train_y, experiment.agents, generator(seed, "partition"), experiment.samples)
    noise = experiment.noise or (0.0,) * experiment.agents
    source = generator(seed, "noise")
    labels = [
        corrupt(data.train_y[shard], share, data.classes, source)
        for shard, share in zip(shards, noise, strict=True)
    ]
    model = MLP(*experiment.widths)
    return Agents(model, data, shards, labels, model.initial(generator(seed, "model")))


@one_thread()
def run(
    experiment: Experiment,
    mechanism: str,
    seed: int,
    on_round: OnRound | None = None,
    *,
    log_shapley: bool = False,
) -> Run:
    """Federated learning for T rounds, on one thread; the same arguments give the same bits.

    Parameters
    ----------
    experiment : Experiment
        The federation and its settings.
    mechanism : str
        A name in ``MECHANISMS``.
    seed : int
        Decides the held-out data, partition, label noise, initial model and batches.
    on_round : callable, optional
        Called after every round with t, accuracies and importances.
    log_shapley : bool
        Also note the exact and the approximate Shapley values of each round's updates, for at most 32 agents,
        where the mechanism aggregates them.
    """
    e, agents, batches = experiment, federation(experiment, seed), generator(seed, "batches")
    server_side = MECHANISMS[mechanism](experiment, agents.sizes)
    w = agents.parameters
    server = w[0].clone()
    before, updates = torch.empty_like(w), torch.empty_like(w)
    history = _history(experiment, mechanism, seed, w, server)
    clock = _Clock(history.seconds)
    for t in range(e.rounds):
        before.copy_(w)  # w_{i,t-1}
        with clock.time("training"):
            agents.train(e.steps, e.batch_size, e.lr, batches)
        torch.sub(w, before, out=updates)  # Δw_{i,t}, uploaded
        w.copy_(before)  # the local training is undone
        with clock.time("reward"):
            outcome = server_side.step(updates)
        with clock.time("download"):
            download_(w, outcome)  # w_{i,t} = w_{i,t-1} + v_{i,t}
        if outcome.aggregate is not None:
            server += outcome.aggregate  # w_t = w_{t-1} + u_{N,t}
        if log_shapley and outcome.weights is not None:
            with clock.time("shapley"):
                history.shapley[t], history.cosines[t] = contributions(updates, outcome)
        _record(history, t, outcome, agents, server)
        if on_round is not None:
            on_round(t + 1, history.accuracy[t], history.importance[t])
    return history


def _history(e: Experiment, mechanism: str, seed: int, w: Tensor, server: Tensor) -> Run:
    """Make an empty record."""

    def unknown(*shape: int) -> Tensor:
        return torch.full(shape, torch.nan, dtype=torch.float64)

    t, n = e.rounds, e.agents
    return Run(
        experiment=e,
        mechanism=mechanism,
        seed=seed,
        accuracy=unknown(t, n),
        importance=unknown(t, n),
        sparsity=unknown(t, n),
        distance=unknown(t, n),
        server_accuracy=unknown(t),
        parameters=w,
        server=server,
        seconds={},
        shapley=unknown(t, n),
        cosines=unknown(t, n),
    )


def contributions(updates: Tensor, outcome: Outcome) -> tuple[Tensor, Tensor]:
    """φ and ψ, (N,) each: what a round's updates are worth under the weights they were aggregated by.

    Equations (2) and (3) from one Gram matrix. A mechanism that aggregates raw updates weighs their
    directions by their lengths, too.
    """
    gram, weights = cgsv_ext.gram(updates), outcome.weights
    if weights is not None and not outcome.unit:
        weights = weights * cgsv_ext.norms(updates)
    return shapley.exact(weights=weights, gram=gram), shapley.approximate(weights=weights, gram=gram)


def _record(history: Run, t: int, outcome: Outcome, agents: Agents, server: Tensor) -> None:
    """Note what is reported of round t; outside all timings."""
    w, model, data = agents.parameters, agents.model, agents.data
    history.accuracy[t] = accuracy(model, w, data)
    if outcome.importance is not None:
        history.importance[t] = outcome.importance
    if outcome.quotas is not None:
        history.sparsity[t] = 1 - outcome.quotas.double() / model.numel
    if outcome.aggregate is not None:
        history.distance[t] = (w.double() - server.double()).norm(dim=1)
        history.server_accuracy[t] = accuracy(model, server[None], data)


class _Clock:
    """A stopwatch that adds to one total per name."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds

    @contextlib.contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Time a block."""
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
