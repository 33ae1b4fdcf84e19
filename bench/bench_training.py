"""A round of local training: N models at once in each way there is, beside the plain loop.

The rows say which way `cgsv_ext.fl.model.ways` should name: forward and backward passes are the same for SGD
and Adam, so SGD stands for both.
"""

from __future__ import annotations

from typing import NamedTuple

import floor
import pytest
import torch
from race import Entrant, Race

from cgsv_ext.fl import Dataset, Experiment
from cgsv_ext.fl.agent import Agents
from cgsv_ext.fl.model import MODELS
from cgsv_ext.fl.threads import one_thread

AGENTS = [5, pytest.param(20, marks=pytest.mark.full)]


class Task(NamedTuple):
    """A model as an experiment trains it."""

    model: str
    sample: tuple[int, ...]
    batch: int
    steps: int
    classes: int = 10
    vocabulary: int = 0


TASKS = {
    "digits, MLP": Task("mlp", (1, 8, 8), 32, 5),
    "digits, CNN": Task("cnn", (1, 8, 8), 32, 5),
    "MNIST": Task("cnn", (1, 32, 32), 32, 1),
    "CIFAR-10": Task("cnn", (3, 32, 32), 128, 1),
    "MR": Task("text-cnn", (50,), 128, 1, 2, 20_000),
}


def federation(task: Task, n: int, way: str, device: torch.device) -> tuple[Agents, Experiment]:
    """N agents with random data."""
    generator = torch.Generator().manual_seed(0)
    size = 2 * task.batch
    x = (
        torch.randint(0, task.vocabulary, (size * n, *task.sample), generator=generator)
        if task.vocabulary
        else torch.randn(size * n, *task.sample, generator=generator)
    )
    y = torch.randint(0, task.classes, (size * n,), generator=generator)
    data = Dataset(task.model, x, y, x[:1], y[:1], x[:1], y[:1], task.classes, task.vocabulary)
    model = MODELS[task.model](data)
    shards = torch.arange(size * n).split(size)
    initial = model.initial(generator).to(device)
    agents = Agents(model, data, shards, [y[shard] for shard in shards], initial, way)
    experiment = Experiment(
        dataset="digits",
        model=task.model,
        partition="UNI",
        agents=n,
        rounds=1,
        batch_size=task.batch,
        lr=1e-3,
        gamma=1.0,
        steps=task.steps,
    )
    return agents, experiment


@pytest.mark.parametrize("n", AGENTS)
@pytest.mark.parametrize("name", TASKS)
def bench_training(name: str, n: int, race: Race) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    entrants, d = [], 0

    def entrant(way: str) -> Entrant:
        nonlocal d
        agents, experiment = federation(TASKS[name], n, way, device)
        d = agents.model.numel

        def train() -> None:
            with one_thread():
                agents.train(experiment, 0, torch.Generator().manual_seed(0))
                if device.type == "cuda":
                    torch.cuda.synchronize()

        return Entrant(f"{way}, {device.type}", train)

    entrants = [entrant(way) for way in ("loop", "stacked", "vmap")]
    entrants.append(floor.copy(2 * 4 * n * d))
    case = {"step": "training", "size": f"{n} × {d:,}", "n": n, "d": d, "dtype": "float32", "model": name}
    race(case, entrants)
