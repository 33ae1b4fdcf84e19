"""Runs over several seeds, condensed to what is reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .metrics import apart, is_descending, kendall, pearson, rho
from .presets import Experiment
from .server import Run


@dataclass(frozen=True)
class Agreement:
    """How close the approximate Shapley values ψ came to the exact φ on trained updates."""

    rounds: Tensor
    """(S, T, 3), for ψ and φ of each round: Kendall's τ of the two rankings, Pearson's r, and the ℓ1
    distance of the two divided by their sums."""
    means: Tensor
    """(S, 3): the same for the means of ψ and of φ over all rounds."""


@dataclass(frozen=True)
class Summary:
    """One mechanism in one experiment over S seeds."""

    experiment: Experiment
    mechanism: str
    seeds: list[int]
    accuracy: Tensor
    """(S, N) float64: each agent's test accuracy at the end."""
    importance: Tensor
    """(S, N): r_i, mean over rounds; NaN where the mechanism has none, as below."""
    sparsity: Tensor
    """(S, N): share of the aggregate not downloaded, mean over rounds."""
    distance: Tensor
    """(S, N): ‖w_i - w‖ at the end."""
    server_accuracy: Tensor
    """(S,): test accuracy of the server's model at the end."""
    rho: list[float | None]
    """The fairness metric of every seed, None where undefined."""
    seconds: dict[str, float]
    """Time spent in ``training``, ``reward`` and ``download``, total over the seeds."""
    agreement: Agreement | None
    """How close ψ came to φ, where both were logged."""

    @property
    def importance_in_order(self) -> int:
        """On how many seeds mean r ranks the agents as expected."""
        return _in_order(self.importance, self.experiment)

    @property
    def distance_in_order(self) -> int:
        """On how many seeds the better agent's model ends closer to the server's."""
        return _in_order(-self.distance, self.experiment)


def summarise(runs: Sequence[Run]) -> dict[str, dict[str, Summary]]:
    """Runs grouped as ``summaries[experiment][mechanism]``, seeds in the order they ran.

    Standalone runs must be among them: ρ compares every other mechanism with them.
    """
    groups: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        groups.setdefault(run.experiment.name, {}).setdefault(run.mechanism, []).append(run)
    return {
        name: {mechanism: _condense(group, each["standalone"]) for mechanism, group in each.items()}
        for name, each in groups.items()
    }


def _condense(runs: Sequence[Run], standalone: Sequence[Run]) -> Summary:
    alone = {run.seed: run.accuracy[-1].tolist() for run in standalone}
    return Summary(
        runs[0].experiment,
        runs[0].mechanism,
        [run.seed for run in runs],
        torch.stack([run.accuracy[-1] for run in runs]),
        torch.stack([run.importance.mean(0) for run in runs]),
        torch.stack([run.sparsity.mean(0) for run in runs]),
        torch.stack([run.distance[-1] for run in runs]),
        torch.stack([run.server_accuracy[-1] for run in runs]),
        [rho(alone[run.seed], run.accuracy[-1].tolist()) for run in runs],
        {name: sum(run.seconds[name] for run in runs) for name in runs[0].seconds},
        None if runs[0].shapley.isnan().all() else _agreement(runs),
    )


def _agreement(runs: Sequence[Run]) -> Agreement:
    def measured(psi: Tensor, phi: Tensor) -> list[float]:
        return [measure(psi.tolist(), phi.tolist()) for measure in (kendall, pearson, apart)]

    rounds = [[measured(*each) for each in zip(run.cosines, run.shapley, strict=True)] for run in runs]
    means = [measured(run.cosines.mean(0), run.shapley.mean(0)) for run in runs]
    return Agreement(torch.tensor(rounds), torch.tensor(means))


def _in_order(values: Tensor, experiment: Experiment) -> int:
    return sum(is_descending(row, experiment.order or ()) for row in values.tolist())
