"""The convolutional network for sentences."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .base import Model


class TextCNN(Model):
    """Kim's CNN for sentences: embedding, convolutions over words, the greatest value of each, linear layer.

    The paper says "text embedding CNN" for MR and SST and no more; sizes are those of ``CNN_Text`` of the
    authors' release: embeddings of 300, three times 128 kernels of 3 words. Unlike there, no dropout (the
    release: 0.5 before the linear layer), so that a model's loss is a function of its parameters and its
    batch alone. As there, embeddings start at random, are trained, and the padding has one like any word.

    Parameters
    ----------
    vocabulary : int
        Token numbers, padding included.
    classes : int
        Units of the last layer.
    length : int
        Tokens of a text, padding included.
    embedding : int
        Length of an embedding.
    kernels : int
        Kernels of each convolution.
    words : sequence of int
        Words that each convolution sees at a time.

    Raises
    ------
    ValueError
        If texts are shorter than what a convolution sees.
    """

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        length: int,
        *,
        embedding: int = 300,
        kernels: int = 128,
        words: Sequence[int] = (3, 3, 3),
    ) -> None:
        if length < max(words):
            raise ValueError(
                f"TextCNN(): expected texts of at least {max(words)} tokens, got {length}; pad them with 0"
            )
        self.words = tuple(words)
        width = length * max(embedding, kernels)
        super().__init__("text-cnn", _TextCNN(vocabulary, classes, embedding, kernels, words), width)

    def stacked(self, layers: Sequence[Tensor], x: Tensor) -> Tensor:
        """All N models as one look-up in the N tables and grouped convolutions."""
        n, b = x.shape[:2]
        table, weight, bias = layers[0], layers[-2], layers[-1]
        own = torch.arange(n, device=x.device).view(n, 1, 1) * table.shape[1]
        x = functional.embedding(x + own, table.flatten(0, 1))  # (N, B, length, embedding)
        x = x.permute(1, 0, 3, 2).flatten(1, 2)
        found = [
            functional.conv1d(x, kernel.flatten(0, 1), shift.flatten(), groups=n).amax(2).view(b, n, -1)
            for kernel, shift in zip(layers[1:-2:2], layers[2:-2:2], strict=True)
        ]
        return torch.baddbmm(bias.unsqueeze(1), torch.cat(found, 2).relu().transpose(0, 1), weight.mT)


class _TextCNN(nn.Module):
    """One agent's model."""

    def __init__(
        self, vocabulary: int, classes: int, embedding: int, kernels: int, words: Sequence[int]
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, embedding, device="meta")
        self.convs = nn.ModuleList(nn.Conv1d(embedding, kernels, k, device="meta") for k in words)
        self.linear = nn.Linear(kernels * len(words), classes, device="meta")

    def forward(self, x: Tensor) -> Tensor:
        """(B, length) int64 to (B, classes)."""
        x = self.embed(x).mT
        logits: Tensor = self.linear(torch.cat([conv(x).amax(2) for conv in self.convs], 1).relu())
        return logits
