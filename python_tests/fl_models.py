"""Models of every kind and data for them, small enough to train in a test."""

from __future__ import annotations

import torch

from cgsv_ext.fl import Dataset
from cgsv_ext.fl.model import MLP, Model, TextCNN
from cgsv_ext.fl.model.cnn import cifar_cnn, digits_cnn, mnist_cnn

IMAGES = {"digits-cnn": (1, 8, 8), "mnist-cnn": (1, 32, 32), "cifar-cnn": (3, 32, 32)}
SMALL: dict[str, Model] = {
    "mlp": MLP(64, 8, 10),
    "deep mlp": MLP(5, 4, 6, 2),
    "linear": MLP(7, 3),
    "digits-cnn": digits_cnn(10),
    "mnist-cnn": mnist_cnn(10),
    "cifar-cnn": cifar_cnn(10),
    "text-cnn": TextCNN(30, 3, 6, embedding=5, kernels=4, words=(2, 3)),
}
"""By name; they know nothing of each other's sizes."""


def samples(name: str, *shape: int, seed: int = 0) -> torch.Tensor:
    """Random samples for a model, (shape, …), float64 or token numbers."""
    generator = torch.Generator().manual_seed(seed)
    if name == "text-cnn":
        return torch.randint(0, 30, (*shape, 6), generator=generator)
    sample = IMAGES.get(name) or (SMALL[name].shapes[0][1],)
    return torch.randn(*shape, *sample, generator=generator, dtype=torch.float64)


def classes(name: str) -> int:
    return SMALL[name].shapes[-1][0]


def rows(name: str, agents: int, seed: int = 0) -> torch.Tensor:
    """Random models, (N, D) float64, on the scale of initial ones."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([SMALL[name].initial(generator).double() for _ in range(agents)])


def dataset(name: str, size: int, seed: int = 0) -> Dataset:
    """Random samples and labels."""
    generator = torch.Generator().manual_seed(seed + 1)
    x = samples(name, size, seed=seed)
    y = torch.randint(0, classes(name), (size,), generator=generator)
    return Dataset(name, x, y, x, y, x, y, classes=classes(name))
