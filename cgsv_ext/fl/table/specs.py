"""Which runs a table is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..experiment import Experiment
from ..mechanism import MECHANISMS
from ..presets import preset, sections
from ..spec import Spec

PARTITIONS = ("UNI", "POW", "CLA", "DIR", "NOI")
"""The columns of a table."""
BETAS = (1.0, 1.2, 1.5, 2.0)
"""Degrees of altruism in the paper's tables; CGSV has a row for each."""


def table_specs(
    number: int | str,
    dataset: str,
    agents: Sequence[int],
    partitions: Sequence[str] = PARTITIONS,
    mechanisms: Sequence[str] | None = None,
    seeds: Iterable[int] = (),
    betas: Sequence[float | str] = BETAS,
    changes: Mapping[str, Any] | None = None,
) -> list[Spec]:
    """Say which runs a table is made of, seed by seed.

    Parameters
    ----------
    number : int or str
        1, 2, 3 or ``"fairness"``. All but 3 compare with standalone runs, which are then among them
        whatever ``mechanisms`` says; 3 has no use for them.
    dataset : str
        A dataset that has presets.
    agents : sequence of int
        Each N. A partition for one N only, such as ``"figure-2"``, is run with that one.
    partitions : sequence of str
        Sections of the dataset in ``presets.toml``.
    mechanisms : sequence of str, optional
        Names in ``MECHANISMS``; by default all of them.
    seeds : iterable of int
        The seeds.
    betas : sequence of float or str
        β of CGSV; ``"N"`` and ``"10N"`` grow with the number of agents. If there is none, the preset's.
    changes : mapping, optional
        Fields of Experiment to set instead of what the preset says.

    Raises
    ------
    ValueError
        For names that are not known, settings that Experiment refuses, and a table without rows.
    """
    names = [name for name in mechanisms or MECHANISMS if name != "standalone"]
    for name in names:
        if name not in MECHANISMS:
            raise ValueError(
                f"table_specs(): expected mechanisms among {', '.join(MECHANISMS)}; got {name!r}"
            )
    if number != 1 and not names:
        raise ValueError(
            "table_specs(): expected a mechanism besides standalone, which only Table 1 has a row for"
        )
    if number != 3:
        names.insert(0, "standalone")
    only = sections(dataset)
    experiments = [
        preset(dataset, partition, None if only.get(partition) else n, **(changes or {}))
        for n in agents
        for partition in partitions
    ]
    specs = [
        Spec(each, name, seed)
        for seed in seeds
        for e in experiments
        for name in names
        for each in (with_betas(e, betas) if name == "CGSV" else [e])
    ]
    return list(dict.fromkeys(specs))


def with_betas(experiment: Experiment, betas: Sequence[float | str]) -> list[Experiment]:
    """Return an experiment once for each β, or as it is if there is none."""
    values = [_beta(beta, experiment.agents) for beta in betas]
    return [replace(experiment, beta=value) for value in dict.fromkeys(values)] or [experiment]


def _beta(beta: float | str, agents: int) -> float:
    if not isinstance(beta, str):
        return beta
    try:
        return float(beta.removesuffix("N") or 1) * (agents if beta.endswith("N") else 1)
    except ValueError:
        raise ValueError(
            f"table_specs(): expected betas to be numbers, or such as N and 10N; got {beta!r}"
        ) from None
