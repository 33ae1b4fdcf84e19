"""What the examples learn: to tell ten kinds of points apart, each agent from data of its own.

Nothing here is about fair rewards: put your own model, data and training in its place.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

CLASSES, FEATURES = 10, 32

torch.set_num_threads(1)  # a model this small gains nothing from more


def _points(n: int, wrong: float, seed: int) -> tuple[Tensor, Tensor]:
    """Points scattered around ten centres; a part of their labels is drawn at random."""
    centres = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    points = centres[labels] + 2 * torch.randn(n, FEATURES, generator=generator)
    noise = torch.randint(CLASSES, (n,), generator=generator)
    return points, torch.where(torch.rand(n, generator=generator) < wrong, noise, labels)


WRONG = {"ann": 0.0, "bob": 0.0, "cleo": 0.2, "dan": 0.4, "eve": 0.8}
"""Agents, and what part of their labels is drawn at random."""
DATA = {name: _points(200, wrong, seed) for seed, (name, wrong) in enumerate(WRONG.items(), start=1)}
TEST = _points(2000, 0.0, 100)


def new_model() -> nn.Module:
    """Return the model all agents begin with."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, CLASSES))


def train(model: nn.Module, name: str) -> None:
    """Take five steps of gradient descent on an agent's own data."""
    points, labels = DATA[name]
    for _ in range(5):
        model.zero_grad()
        cross_entropy(model(points), labels).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    """Percent of the test points a model gets right."""
    points, labels = TEST
    return 100 * (model(points).argmax(dim=1) == labels).float().mean().item()


def show(models: Mapping[str, nn.Module], importance: Mapping[str, float]) -> None:
    """Print what came of it."""
    print("agent   random labels   importance   accuracy")
    for name, model in models.items():
        about = f"{WRONG[name]:15.0%} {importance[name]:12.3f}" if name in WRONG else " " * 28
        print(f"{name:6} {about} {accuracy(model):9.1f}%")
