"""What mechanisms give to agents who do not play along, and what these cost the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..adversary import ADVERSARIES
from ..experiment import Experiment
from ..record import Run
from ..spec import Spec
from ..summary import federation, heading, label, order
from .specs import table_specs
from .text import Table, count_of_seeds, with_error

PARTITIONS = ("UNI", "NOI")
"""All honest agents alike, and some hardly worth more than an adversary."""
MANY = 3
"""How many of a kind join where there are several."""
GROUPS: tuple[tuple[str, ...], ...] = (
    (),
    *((kind,) for kind in ADVERSARIES),
    *((kind,) * MANY for kind in ("noise", "copier", "flipper", "sybil")),
)
"""Who joins the honest agents, one run each."""
NAMES = ("CGSV", "FedAvg", "FedAvgNormalised", "CFFL", "ECI", "EU")
"""The mechanisms that look at updates, and FedAvg, which looks at sizes."""


def adversary_specs(
    dataset: str,
    agents: Sequence[int],
    partitions: Sequence[str] = PARTITIONS,
    mechanisms: Sequence[str] = NAMES,
    seeds: Iterable[int] = (),
    betas: Sequence[float | str] = (),
    changes: Mapping[str, Any] | None = None,
) -> list[Spec]:
    """Say which runs the table is made of: those of :func:`table_specs` for every group of adversaries.

    Standalone agents are not among them. ``changes`` with ``adversaries`` puts that group in the place of
    ``GROUPS``, beside none.
    """
    changes = dict(changes or {})
    groups = [(), changes.pop("adversaries")] if "adversaries" in changes else GROUPS
    # Table 3 is the one that compares with nobody.
    plain = table_specs(3, dataset, agents, partitions, mechanisms, seeds, betas, changes)
    return [
        replace(spec, experiment=replace(spec.experiment, adversaries=group))
        for group in groups
        for spec in plain
    ]


def adversaries(runs: Iterable[Run]) -> list[Table]:
    """A table for every federation of honest agents and every mechanism, a row for every group."""
    found: dict[tuple[Experiment, str], dict[tuple[str, ...], list[Run]]] = {}
    for run in sorted(runs, key=order):
        honest = replace(federation(run), adversaries=())
        group = found.setdefault((honest, label(run)), {})
        group.setdefault(run.experiment.adversaries, []).append(run)
    return [
        _table(honest, name, groups)
        for (honest, name), groups in found.items()
        if any(groups) and name != "standalone"
    ]


def _table(honest: Experiment, name: str, groups: Mapping[tuple[str, ...], Sequence[Run]]) -> Table:
    places = {group: place for place, group in enumerate(GROUPS)}
    rows = []
    for group in sorted(groups, key=lambda group: (places.get(group, len(places)), group)):
        each = groups[group]
        rows.append([_names(group), *(_cell(each, measure, digits) for _, measure, digits in _COLUMNS)])
    note = (
        "r: mean over rounds, and at the end; of the adversaries, their mean. Accuracies in %, at the end. "
        f"{count_of_seeds(map(len, groups.values()))}"
    )
    title = f"Adversaries; {honest.dataset}, {heading(honest)}: {name}"
    return Table(title, ["who joins", *(head for head, _, _ in _COLUMNS)], rows, note)


def _names(group: Sequence[str]) -> str:
    """``3 sybil``; nobody."""
    counts = Counter(group)
    return ", ".join(kind if n == 1 else f"{n} {kind}" for kind, n in counts.items()) or "nobody"


def _cell(runs: Sequence[Run], measure: Callable[[Run], float | None], digits: int) -> str:
    values = [value for run in runs if (value := measure(run)) is not None]
    return with_error(values, digits) if values else "–"


def _importance(run: Run) -> Any:
    return None if run.importance.isnan().any() else run.importance


def _theirs(run: Run, rounds: slice) -> float | None:
    r, e = _importance(run), run.experiment
    return None if r is None or not e.adversaries else r[rounds, e.agents :].mean().item()


def _best_honest(run: Run) -> float | None:
    r = _importance(run)
    return None if r is None else r[:, : run.experiment.agents].mean(0).max().item()


def _accuracy(run: Run) -> float | None:
    e = run.experiment
    return 100 * run.accuracy[-1, e.agents :].mean().item() if e.adversaries else None


_COLUMNS: list[tuple[str, Callable[[Run], float | None], int]] = [
    ("their mean r", lambda run: _theirs(run, slice(None)), 3),
    ("their last r", lambda run: _theirs(run, slice(-1, None)), 3),
    ("best honest mean r", _best_honest, 3),
    ("their accuracy", _accuracy, 1),
    ("honest accuracy", lambda run: 100 * run.accuracy[-1, : run.experiment.agents].mean().item(), 1),
    ("server", lambda run: 100 * run.server_accuracy[-1].item(), 1),
]
"""Head, what is measured in a run, and its digits."""
