"""Which way to compute N models at once is the fastest, as measured.

The ways: ``stacked``, operations written by hand with the N models in one of their dimensions; ``vmap``,
``torch.func.vmap`` over the module; ``loop``, one model after the other.
"""

from __future__ import annotations

import torch

# Times of a round of local training, loop : stacked : vmap, of N = 5 (and 20) agents on one thread of an AMD
# EPYC with AVX2; bench/bench_training.py measures them anew.
FASTEST_ON_CPU = {
    "mlp": "stacked",  # 1 : 0.26 : 0.45 (1 : 0.10 : 0.16)
    "digits-cnn": "stacked",  # 1 : 0.31 : 0.42 (1 : 0.32 : 0.33)
    "mnist-cnn": "loop",  # 1 : 1.35 : 1.77 (1 : 1.54 : 1.96)
    "cifar-cnn": "loop",  # 1 : 1.32 : 1.40 (1 : 1.59 : 2.15)
    "text-cnn": "loop",  # 1 : 1.17 : 1.21
}
"""By the name of a model."""


def fastest(model: str, device: torch.device) -> str:
    """Return ``stacked``, ``vmap`` or ``loop``; on a GPU, not measured, the one with the fewest kernels."""
    return FASTEST_ON_CPU[model] if device.type == "cpu" else "stacked"
