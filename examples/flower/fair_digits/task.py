"""What the agents learn: handwritten digits, each from data of its own, some with wrong labels.

Nothing here is about Flower or fair rewards: put your own model, data and training in its place.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cgsv_ext import fl
from cgsv_ext.fl.partition import deal

WRONG = (0.0, 0.0, 0.2, 0.6)
"""What part of each agent's labels is wrong."""
SEED = 2021

torch.set_num_threads(1)  # a model this small gains nothing from more


def new_model() -> nn.Module:
    """Return the model all agents begin with."""
    torch.manual_seed(SEED)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


@cache
def data(agent: int) -> tuple[Tensor, Tensor]:
    """An agent's own images and labels."""
    digits = fl.load("digits", None, SEED)
    experiment = fl.preset("digits", "NOI", len(WRONG), noise=WRONG, samples=100)
    shards, labels = deal(digits, experiment, SEED)
    return digits.train_x[shards[agent]], labels[agent]


def train(model: nn.Module, agent: int, t: int, *, epochs: int, batch_size: int, lr: float) -> float:
    """Train a model on an agent's data, in batches that depend on the round t; its mean loss."""
    images, labels = data(agent)
    chance = torch.Generator().manual_seed(1000 * t + agent)
    optimizer = torch.optim.SGD(model.parameters(), lr)
    losses = []
    for _ in range(epochs):
        for batch in torch.randperm(len(labels), generator=chance).split(batch_size):
            loss = cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    """What part of the test images a model gets right."""
    digits = fl.load("digits", None, SEED)
    return (model(digits.test_x).argmax(dim=1) == digits.test_y).float().mean().item()
