"""The results of a reward step, a valuation and a download, as named tuples; types and dtypes of input.

Once the package is imported, ``torch.load`` reads the named tuples that ``torch.save`` wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

Updates: TypeAlias = Tensor | Sequence[Tensor]
"""N agents' updates: an (N, D) tensor, or N tensors of D elements each, of any shape."""

States: TypeAlias = Sequence[Sequence[Tensor]] | Sequence[Mapping[str, Tensor]]
"""N agents' sharded updates, a DTensor a parameter."""

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""What updates and all numbers beside them may be."""


def dtype_name(dtype: torch.dtype) -> str:
    """As errors and files call it."""
    return str(dtype).removeprefix("torch.")


def aggregate_dtype(dtype: torch.dtype) -> torch.dtype:
    """Of the aggregate of updates of this dtype."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class Selection(NamedTuple):
    """Where each agent's part of the aggregate ends.

    Agent i keeps entry j of the aggregate u when it ranks no later than the agent's boundary, ordered
    by magnitude descending, then by index ascending::

        keep(i, j) = |u_j| > magnitude[i]  or  (|u_j| == magnitude[i] and j <= last_index[i])

    A NaN ranks above infinity and equals every other NaN. An empty selection is (inf, -1).
    """

    magnitude: Tensor
    """(N,) or (N, S), the aggregate's dtype: the magnitude of the last entry that is kept."""
    last_index: Tensor
    """(N,) or (N, S), int64: that entry's index in the whole aggregate."""


class Aggregation(NamedTuple):
    """Equations (1) and (3): the aggregate and each agent's cosine with it."""

    aggregate: Tensor
    """(D,), float32, or float64 for float64 updates: u_N = sum_i weight_i · Γ · Δw_i / ‖Δw_i‖."""
    cosines: Tensor
    """(N,) float64: ψ_i = cos(u_i, u_N)."""
    norms: Tensor
    """(N,) float64: ‖Δw_i‖."""


class RewardStep(NamedTuple):
    """All that one round of the mechanism decides."""

    rewards: Tensor | None
    """(N, D), the updates' dtype: v_i, what each agent downloads; None with ``dense=False``."""
    importance: Tensor
    """(N,) float64: r_i after this round, to be handed to the next one."""
    cosines: Tensor
    """(N,) float64: ψ_i, the approximate cosine gradient Shapley values."""
    quotas: Tensor
    """(N,) or, with segments, (N, S), int64: q_i, how many entries each agent keeps."""
    aggregate: Tensor
    """(D,), float32 or float64: u_N, what the server's own model moves by."""
    selection: Selection
    """Which entries of the aggregate each agent keeps."""
    norms: Tensor
    """(N,) float64: ‖Δw_i‖ as found, not finite where an update is not."""
    valid: Tensor
    """(N,) bool: False where an agent's norm is zero or not finite; such an agent takes no part."""


class Estimate(NamedTuple):
    """Shapley values from a sample of permutations."""

    values: Tensor
    """(N,) float64: the estimate of φ_i, unbiased."""
    standard_errors: Tensor
    """(N,) float64: the standard deviation of each value, estimated; NaN from a single group."""
    permutations: int
    """How many were drawn."""


Structured: TypeAlias = Tensor | Mapping[str, Tensor] | Sequence[Tensor]
"""An update or a reward: one flat tensor, tensors by name, or tensors in order."""


class Reward(NamedTuple):
    """What an agent downloads: the sum of its rewards v_i of one or more rounds."""

    round: int
    """The last round it covers, to be acknowledged once the agent has it in its parameters."""
    since: int
    """The last round it does not cover: what the agent acknowledged before."""
    flat: Tensor
    """(D,), the aggregate's dtype."""
    values: Structured
    """The same memory in the structure of the model."""


torch.serialization.add_safe_globals([Selection, Aggregation, RewardStep, Estimate, Reward])
