"""The rounds of federated learning, as in the pseudocode of §3.4."""

from __future__ import annotations

import statistics
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

import cgsv_ext
from cgsv_ext import shapley

from .adversary import Adversaries
from .agent import Agents, evaluate
from .checkpoint import State
from .clock import Clock
from .data import Dataset, load
from .experiment import Experiment
from .mechanism import MECHANISMS, Outcome, Server, download_
from .model import MODELS
from .partition import deal
from .record import Run
from .seeds import generator
from .spec import check_mechanism
from .threads import one_thread, same_convolutions

OnRound: TypeAlias = Callable[[int, Tensor, Tensor], None]
"""Called after every round with t, (N,) accuracies and (N,) importances, on the run's device."""


def federation(
    experiment: Experiment, seed: int, folder: Path | None = None, device: str | torch.device = "cpu"
) -> Agents:
    """Set up the agents of a run: data dealt out, labels corrupted, all models at w_0."""
    data = load(experiment.dataset, folder, seed)
    shards, labels = deal(data, experiment, seed)
    model = MODELS[experiment.model](data)
    return Agents(model, data, shards, labels, model.initial(generator(seed, "model")).to(device))


@one_thread()
@same_convolutions()
def run(
    experiment: Experiment,
    mechanism: str,
    seed: int,
    on_round: OnRound | None = None,
    *,
    folder: Path | None = None,
    device: str | torch.device = "cpu",
    log_shapley: bool = False,
    checkpoint: Path | None = None,
    every: int = 0,
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
        Called after every round with t, accuracies and importances; on CUDA, reading them waits for the GPU.
    folder : Path, optional
        Where the dataset's files lie; the embedded one needs none.
    device : str or torch.device
        ``"cpu"`` or ``"cuda"``. Random numbers are the same on both, sums may differ in their last bits.
    log_shapley : bool
        Also note the exact and the approximate Shapley values of each round's updates, for at most 32 agents,
        where the mechanism aggregates them.
    checkpoint : Path, optional
        Where the state is kept while the run is not over. A file that is there already is gone on from, to
        the same bits as if nothing had happened; one that is damaged, or that was written under another torch
        or on another processor, is passed over with a warning. The last one stays, so that no more than the
        last rounds are lost until the result is stored; whoever stores it deletes the file.
    every : int
        Write the checkpoint after every so many rounds; 0 for never.

    Raises
    ------
    ValueError
        Where there is no such mechanism, or the checkpoint belongs to another run.
    """
    check_mechanism("run()", mechanism)
    e, agents = experiment, federation(experiment, seed, folder, device)
    w, data, model = agents.parameters, agents.data, agents.model
    server, initial = w[0].clone(), w[0].clone()
    decider = MECHANISMS[mechanism](
        Server(
            e,
            agents.sizes,
            model.sizes,
            server,
            agents.losses,
            lambda rows: evaluate(model, rows, data.validation_x, data.validation_y)[0],
            generator(seed, "mechanism"),
        )
    )
    adversaries = Adversaries(e, seed)
    before, updates = torch.empty_like(w), torch.empty_like(w)
    history = Run.empty(e, mechanism, seed, w, server, agents.histogram)
    history.log_shapley, history.origin = log_shapley, origin(data, w.device)
    clock = Clock(w.device, history.seconds)
    state = State(agents, decider, adversaries, history, clock)
    start = 0 if checkpoint is None else state.load(checkpoint)
    for t in range(start, e.rounds):
        before.copy_(w)  # w_{i,t-1}
        with clock.time("training"):
            agents.train(e, t, generator(seed, f"batches {t}"))
        torch.sub(w, before, out=updates)  # Δw_{i,t}, uploaded
        w.copy_(before)  # the local training is undone
        if mechanism != "standalone":  # which uploads nothing
            adversaries.apply_(updates)
        with clock.time("reward"):
            outcome = decider.step(updates)
        if log_shapley and outcome.weights is not None:
            with clock.time("shapley"):
                history.shapley[t], history.cosines[t] = contributions(updates, outcome)
        with clock.time("download"):
            download_(w, outcome)  # w_{i,t} = w_{i,t-1} + v_{i,t}
        if outcome.aggregate is not None:
            server += outcome.aggregate  # w_t = w_{t-1} + u_{N,t}
        rewards = torch.sub(w, before, out=updates)
        adversaries.observe(rewards, outcome.aggregate)
        _record(history, t, outcome, rewards, agents, server, initial)
        if on_round is not None:
            on_round(t + 1, history.accuracy[t], history.importance[t])
        if checkpoint is not None and every and (t + 1) % every == 0 and t + 1 < e.rounds:
            state.save(checkpoint, t + 1)
    history.training_loss[:] = agents.training_losses()
    clock.settle()
    return history.cpu()


def contributions(updates: Tensor, outcome: Outcome) -> tuple[Tensor, Tensor]:
    """φ and ψ, (N,) each: what a round's updates are worth under the weights they were aggregated by.

    Equations (2) and (3) from one Gram matrix. A mechanism that aggregates raw updates weighs their
    directions by their lengths, too.
    """
    gram, weights = cgsv_ext.gram(updates), outcome.weights
    if weights is not None and not outcome.unit:
        weights = weights * cgsv_ext.norms(updates)
    return shapley.exact(weights=weights, gram=gram), shapley.approximate(weights=weights, gram=gram)


@one_thread()
def plain_loop_seconds(
    experiment: Experiment,
    seed: int,
    *,
    folder: Path | None = None,
    device: str | torch.device = "cpu",
    rounds: int = 10,
) -> float:
    """Time a round of local training in which agents train one after another: the median of some rounds.

    A run trains all agents together where that is faster; this is what the same steps cost otherwise. The
    first round, in which a process may have to import what torch's optimizers need, does not count, and
    after a second of the others no further one begins.
    """
    agents = federation(experiment, seed, folder, device)
    times: list[float] = []
    for t in range(rounds + 1):
        seconds: dict[str, float] = {}
        clock = Clock(agents.parameters.device, seconds)
        with clock.time("round"):
            agents.train_one_by_one(experiment, t, generator(seed, f"batches {t}"))
        clock.settle()
        if t > 0:
            times.append(seconds["round"])
        if sum(times) > 1:
            break
    return statistics.median(times)


def origin(data: Dataset, device: torch.device) -> dict[str, str]:
    """What a run's bits depend on besides its arguments: torch's version, the processor, and the data."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return {"torch": str(torch.__version__), "device": name, "data": fingerprint(data)}


def fingerprint(data: Dataset) -> str:
    """Eight hexadecimal digits that tell other files, or another split, by the samples' shapes and labels."""
    crc = zlib.crc32(str([x.shape for x in data if isinstance(x, Tensor)]).encode())
    for labels in (data.train_y, data.validation_y, data.test_y):
        crc = zlib.crc32(labels.cpu().numpy().tobytes(), crc)
    return f"{crc:08x}"


def _record(
    history: Run,
    t: int,
    outcome: Outcome,
    rewards: Tensor,
    agents: Agents,
    server: Tensor,
    initial: Tensor,
) -> None:
    """Note what is reported of round t; outside all timings, and without waiting for a GPU."""
    w, model, data = agents.parameters, agents.model, agents.data
    history.accuracy[t], history.loss[t] = evaluate(model, w, data.test_x, data.test_y)
    history.reward_norm[t] = _norms(rewards)
    if outcome.importance is not None:
        history.importance[t] = outcome.importance
    if outcome.quotas is not None:
        history.sparsity[t] = 1 - outcome.quotas.double() / model.numel
    if outcome.aggregate is not None:
        apart = w - server
        history.distance[t] = _norms(apart)
        history.last_layer_distance[t] = _norms(apart[:, model.last_layer])
        history.reward_distance[t] = _norms(rewards - outcome.aggregate)
        history.server_distance[t] = _norms(server - initial)
        accuracy, loss = evaluate(model, server[None], data.test_x, data.test_y)
        history.server_accuracy[t], history.server_loss[t] = accuracy[0], loss[0]


def _norms(rows: Tensor) -> Tensor:
    """ℓ2 norms along the last dimension, summed in float64 without a copy in it."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float64)
    return norms
