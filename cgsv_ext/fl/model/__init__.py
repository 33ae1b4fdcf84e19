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


def _mlp(data: Dataset) -> MLP:
    _check("mlp", data, texts=False)
    return MLP(data.train_x[0].numel(), 64, data.classes)


def _cnn(data: Dataset) -> CNN:
    _check("cnn", data, texts=False)
    return cnn(data.train_x.shape[1:], data.classes)


def _text_cnn(data: Dataset) -> TextCNN:
    _check("text-cnn", data, texts=True)
    return TextCNN(data.vocabulary, data.classes, data.train_x.shape[1])


def _check(model: str, data: Dataset, *, texts: bool) -> None:
    if (data.vocabulary > 0) != texts:
        wanted, found = ("texts", "images") if texts else ("images", "texts")
        raise ValueError(
            f"MODELS: expected a dataset of {wanted} for {model}, got {data.name}, one of {found}"
        )


MODELS: dict[str, Callable[[Dataset], Model]] = {"mlp": _mlp, "cnn": _cnn, "text-cnn": _text_cnn}
"""Architectures by name; the dataset says how many inputs and classes there are.

One that does not fit the dataset is refused with a ValueError.
"""
