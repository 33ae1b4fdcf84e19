"""Convolutional networks for images: the paper's for MNIST and CIFAR-10, and a small one for digits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .base import Model


class CNN(Model):
    """Convolutions, each followed by 2 × 2 max-pooling, then linear layers; no dropout.

    The activation comes after the pooling, which for a monotone one is the same function as before it, and
    evaluates it four times less often (a fifth of the training time of ``mnist_cnn``).

    Parameters
    ----------
    name : str
        A name in ``FASTEST_ON_CPU``.
    image : tuple of int
        Channels, height and width, the latter two equal.
    convolutions : sequence of (int, int)
        Kernels and their width, for each convolution.
    padding : int
        Zeros around the input of each convolution.
    widths : sequence of int
        Units of each hidden linear layer.
    classes : int
        Units of the last layer.
    activation : type
        ``nn.ReLU`` or ``nn.Tanh``; between all layers.
    """

    def __init__(
        self,
        name: str,
        image: tuple[int, int, int],
        convolutions: Sequence[tuple[int, int]],
        padding: int,
        widths: Sequence[int],
        classes: int,
        activation: type[nn.Module],
    ) -> None:
        steps: list[nn.Module] = []
        inputs, side = image[0], image[1]
        width = inputs * side * side
        for outputs, kernel in convolutions:
            side += 2 * padding - kernel + 1
            width = max(width, outputs * side * side)
            steps += [
                nn.Conv2d(inputs, outputs, kernel, padding=padding, device="meta"),
                nn.MaxPool2d(2),
                activation(),
            ]
            inputs, side = outputs, side // 2
        steps.append(nn.Flatten())
        inputs *= side * side
        for outputs in widths:
            steps += [nn.Linear(inputs, outputs, device="meta"), activation()]
            inputs = outputs
        steps.append(nn.Linear(inputs, classes, device="meta"))
        self._steps = steps
        super().__init__(name, nn.Sequential(*steps), width)

    def stacked(self, layers: Sequence[Tensor], x: Tensor) -> Tensor:
        """All N models as grouped convolutions, all channels in one dimension, and batched products."""
        n, b = x.shape[:2]
        x, left = x.transpose(0, 1).flatten(1, 2), iter(layers)
        for step in self._steps:
            if isinstance(step, nn.Conv2d):
                weight, bias = next(left).flatten(0, 1), next(left).flatten()
                x = functional.conv2d(x, weight, bias, padding=step.padding, groups=n)
            elif isinstance(step, nn.Flatten):
                x = x.reshape(b, n, -1).transpose(0, 1)
            elif isinstance(step, nn.Linear):
                weight, bias = next(left), next(left)
                x = torch.baddbmm(bias.unsqueeze(1), x, weight.mT)
            else:
                x = step(x)
        return x


def digits_cnn(classes: int) -> CNN:
    """For 8 × 8 grey images, such as the embedded digits: D = 1,898 with ten classes. Not from the paper."""
    return CNN("digits-cnn", (1, 8, 8), [(8, 3), (16, 3)], 1, [], classes, nn.ReLU)


def mnist_cnn(classes: int) -> CNN:
    """The paper's 2-layer CNN for MNIST padded to 32 × 32: D = 104,242 with ten classes.

    The paper does not draw it; this is ``CNN_Net`` of the authors' release.
    """
    return CNN("mnist-cnn", (1, 32, 32), [(64, 3), (16, 7)], 0, [200], classes, nn.Tanh)


def cifar_cnn(classes: int) -> CNN:
    """The paper's CNN for CIFAR-10: D = 121,182 with ten classes.

    The paper calls it a 3-layer CNN and does not draw it; this is ``CNN_Cifar10`` of the authors' release,
    two convolutions and three linear layers.
    """
    return CNN("cifar-cnn", (3, 32, 32), [(16, 5), (32, 5)], 0, [120, 84], classes, nn.ReLU)


CNNS = {(1, 8, 8): digits_cnn, (1, 32, 32): mnist_cnn, (3, 32, 32): cifar_cnn}
"""By the shape of an image: channels, height, width."""


def cnn(image: Sequence[int], classes: int) -> CNN:
    """Return the network for images of a shape.

    Raises
    ------
    ValueError
        If there is none.
    """
    for shape, build in CNNS.items():
        if shape == tuple(image):
            return build(classes)
    known = ", ".join(map(str, CNNS))
    raise ValueError(f"cnn(): expected images of shape {known}, got {tuple(image)}; model 'mlp' takes any")
