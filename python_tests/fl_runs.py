"""Runs made by hand, whose numbers a test knows."""

from __future__ import annotations

import torch

from cgsv_ext.fl import Run
from cgsv_ext.fl.experiment import Experiment
from cgsv_ext.fl.presets import preset


def made_up(experiment: Experiment, mechanism: str, seed: int, accuracies=None, **tensors) -> Run:
    """A run of one round or more that ended with these accuracies; other fields as given, else random."""
    n, t = experiment.size, experiment.rounds
    r = torch.Generator().manual_seed(1000 * seed + len(mechanism))
    run = Run.empty(
        experiment, mechanism, seed, torch.zeros(n, 3), torch.zeros(3), torch.ones(n, 10, dtype=torch.int64)
    )
    names = ["accuracy", "loss", "distance", "reward_norm", "sparsity", "server_accuracy", "server_loss"]
    names += ["training_loss"] + (["importance"] if mechanism == "CGSV" else [])
    for name in names:
        getattr(run, name).uniform_(0.1, 1, generator=r)
    if accuracies is not None:
        run.accuracy[-1] = torch.tensor(accuracies, dtype=torch.float64)
    for name, value in tensors.items():
        getattr(run, name).copy_(torch.as_tensor(value, dtype=torch.float64))
    run.seconds = {"training": 2.0, "reward": 0.25, "download": 0.25, "plain loop": 10.0}
    run.origin = {"data": "", "torch": "", "device": "cpu"}
    assert run.accuracy.shape == (t, n)
    return run


def small(partition: str = "UNI", agents: int = 3, **changes) -> Experiment:
    return preset("digits", partition, agents, **{"rounds": 2, "steps": 1} | changes)
