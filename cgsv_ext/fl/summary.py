"""Runs over several seeds, put in groups and condensed to what is reported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .experiment import FIELDS, Experiment
from .mechanism import MECHANISMS, SETTINGS
from .metrics import apart, fairness, kendall, pearson
from .presets import datasets, preset, sections
from .record import Run

SYMBOLS = {"alpha": "α", "beta": "β", "gamma": "Γ"}
"""Settings that go by another name in the paper."""


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
    """One mechanism in one federation over S seeds, with N agents and then the adversaries, if any."""

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
    rho: list[float | None] | None
    """The fairness metric of every seed, None where undefined; None where a standalone run is lacking."""
    seconds: dict[str, float]
    """Time spent in ``training``, ``reward`` and ``download``, total over the seeds."""
    agreement: Agreement | None
    """How close ψ came to φ, where both were logged."""


def federation(run: Run) -> Experiment:
    """The experiment of a run without what only mechanisms read: equal for runs that can be compared."""
    return neutral(run.experiment)


def neutral(experiment: Experiment, mechanism: str | None = None) -> Experiment:
    """Set what only mechanisms read to the same values for all; but for what one of them reads, if given."""
    read = MECHANISMS[mechanism].settings if mechanism else ()
    # A field without a default is a number.
    values: dict[str, Any] = {f.name: 1.0 if f.default is MISSING else f.default for f in fields(Experiment)}
    return replace(experiment, **{name: values[name] for name in SETTINGS if name not in read})


def label(run: Run) -> str:
    """Return what a mechanism is called beside others of its federation: ``CGSV``, or ``CGSV β=1.5``.

    Said is what it reads and what the preset sets otherwise. A β of N or 10 N is called that, so that runs
    with different N can stand in one row.
    """
    return " ".join([run.mechanism, *_changes(run.experiment, MECHANISMS[run.mechanism].settings)])


def heading(experiment: Experiment) -> str:
    """Return what a federation is called: ``POW, N = 10``, and what the preset sets otherwise."""
    return ", ".join([f"{title(experiment)}, N = {experiment.agents}", *changes(experiment)])


def title(experiment: Experiment) -> str:
    """Return the title of an experiment, or its partition where it has none."""
    return experiment.title or experiment.partition


def changes(experiment: Experiment) -> list[str]:
    """What a federation sets otherwise than the preset, such as ``rounds=3``.

    Without a preset, that is what is not at its default.
    """
    said_elsewhere = ("title", "agents", "dataset")
    return _changes(experiment, [name for name in FIELDS if name not in (*SETTINGS, *said_elsewhere)])


def is_preset(experiment: Experiment) -> bool:
    """Whether a federation is as ``presets.toml`` has it."""
    standard = _standard(experiment.dataset, title(experiment), experiment.agents)
    return standard is not None and neutral(standard) == neutral(experiment)


def order(run: Run) -> tuple[object, ...]:
    """Sort runs as tables do: by dataset, N, partition, mechanism (as in the paper's tables) and settings."""
    e = run.experiment
    names = list(known_sections(e.dataset))
    place = names.index(title(e)) if title(e) in names else len(names)
    private = [float(getattr(e, name) or 0) for name in ("beta", "gamma", "q")]
    return (
        e.dataset,
        e.agents,
        place,
        title(e),
        heading(e),
        # Standalone first and CGSV last, as in the paper.
        {"standalone": -1, "CGSV": len(MECHANISMS)}.get(run.mechanism, list(MECHANISMS).index(run.mechanism)),
        private,
        label(run),
        run.seed,
    )


def pair(runs: Iterable[Run]) -> list[tuple[Run, Run | None]]:
    """Each run with the standalone run of the same federation and seed, or None where there is none."""
    runs = list(runs)
    alone = {(federation(run), run.seed): run for run in runs if run.mechanism == "standalone"}
    return [(run, alone.get((federation(run), run.seed))) for run in runs]


def summarise(runs: Iterable[Run]) -> dict[Experiment, dict[str, Summary]]:
    """Runs grouped as ``summaries[federation][label]``, in the order of :func:`order`."""
    groups: dict[Experiment, dict[str, list[tuple[Run, Run | None]]]] = {}
    for run, alone in pair(sorted(runs, key=order)):
        groups.setdefault(federation(run), {}).setdefault(label(run), []).append((run, alone))
    return {
        federation: {name: _condense(group) for name, group in each.items()}
        for federation, each in groups.items()
    }


def _condense(pairs: Sequence[tuple[Run, Run | None]]) -> Summary:
    runs = [run for run, _ in pairs]
    rhos = [fairness(run, alone) for run, alone in pairs if alone is not None]
    return Summary(
        runs[0].experiment,
        runs[0].mechanism,
        [run.seed for run in runs],
        torch.stack([run.accuracy[-1] for run in runs]),
        torch.stack([run.importance.mean(0) for run in runs]),
        torch.stack([run.sparsity.mean(0) for run in runs]),
        torch.stack([run.distance[-1] for run in runs]),
        torch.stack([run.server_accuracy[-1] for run in runs]),
        rhos if len(rhos) == len(runs) else None,
        {name: sum(run.seconds.get(name, 0.0) for run in runs) for name in runs[0].seconds},
        None if any(run.shapley.isnan().all() for run in runs) else _agreement(runs),
    )


def _agreement(runs: Sequence[Run]) -> Agreement:
    def measured(psi: Tensor, phi: Tensor) -> list[float]:
        return [measure(psi.tolist(), phi.tolist()) for measure in (kendall, pearson, apart)]

    rounds = [[measured(*each) for each in zip(run.cosines, run.shapley, strict=True)] for run in runs]
    means = [measured(run.cosines.mean(0), run.shapley.mean(0)) for run in runs]
    return Agreement(torch.tensor(rounds), torch.tensor(means))


def known_sections(dataset: str) -> dict[str, int | None]:
    """Return the sections of a dataset in ``presets.toml``; none for one that is not there."""
    return sections(dataset) if dataset in datasets() else {}


@cache
def _standard(dataset: str, title: str, agents: int) -> Experiment | None:
    """The preset an experiment comes from."""
    for name, wanted in known_sections(dataset).items():
        if wanted in (None, agents):
            found = preset(dataset, name, agents)
            if found.title == title:
                return found
    return None


def _changes(experiment: Experiment, names: Iterable[str]) -> list[str]:
    standard = _standard(experiment.dataset, title(experiment), experiment.agents)
    usual = {f.name: getattr(standard, f.name, f.default) for f in fields(Experiment)}
    if standard is None:
        usual["partition"] = title(experiment)
    found = []
    for name in names:
        value = getattr(experiment, name)
        if value != usual[name]:
            found.append(f"{SYMBOLS.get(name, name)}={_text(name, value, experiment.agents)}")
    return found


def _text(name: str, value: object, agents: int) -> str:
    if name == "beta" and value in (agents, 10 * agents):
        return "N" if value == agents else "10N"
    if isinstance(value, tuple):
        return "/".join(_text(name, each, agents) for each in value)
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)
