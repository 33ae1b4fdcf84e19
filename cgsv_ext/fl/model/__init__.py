"""Models whose parameters live in the rows of one matrix.

A row of the (N, D) matrix is one agent's whole model. ``layers`` shows the matrix as stacks of weights
and biases, and ``module`` shows one row as an ordinary ``torch.nn.Module``; both are views, so writing
the matrix changes every model and training a model writes the matrix. Nothing is ever flattened.
"""

from __future__ import annotations

from collections.abc import Callable

from ..data import Dataset
from .base import Model
from .cnn import CNN, cnn
from .mlp import MLP
from .text import TextCNN

__all__ = ["CNN", "MLP", "MODELS", "Model", "TextCNN"]

MODELS: dict[str, Callable[[Dataset], Model]] = {
    "mlp": lambda data: MLP(data.train_x[0].numel(), 64, data.classes),
    "cnn": lambda data: cnn(data.train_x.shape[1:], data.classes),
    "text-cnn": lambda data: TextCNN(data.vocabulary, data.classes, data.train_x.shape[1]),
}
"""Architectures by name; the dataset says how many inputs and classes there are."""
