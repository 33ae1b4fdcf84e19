"""The experiments of ``presets.toml``."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

from .experiment import FIELDS, Experiment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["CLA_10", "DEMO", "FIGURE_2", "FIRST_SEED", "SEEDS", "TRIAL_SEEDS", "preset", "sections"]

TRIAL_SEEDS = range(100, 110)
"""The seeds on which the settings of digits were chosen."""
FIRST_SEED = 2021
"""Results are of this seed and those after it, which no setting was chosen on."""
SEEDS = range(FIRST_SEED, FIRST_SEED + 5)
"""Those that are run where nothing else is said."""


@cache
def _presets() -> dict[str, dict[str, Any]]:
    return tomllib.loads((Path(__file__).parent / "presets.toml").read_text(encoding="utf-8"))


def datasets() -> list[str]:
    """Name the datasets that have presets."""
    return list(_presets())


def sections(dataset: str) -> dict[str, int | None]:
    """Name what :func:`preset` takes for a partition, each with its N where it is one for a certain N."""
    _known("dataset", dataset, _presets())
    found = _presets()[dataset].items()
    return {name: part.get("agents") for name, part in found if isinstance(part, dict)}


def preset(dataset: str, partition: str, agents: int | None = None, **changes: Any) -> Experiment:
    """Return what ``presets.toml`` says of a dataset and a partition.

    Parameters
    ----------
    dataset : str
        Such as ``"digits"``.
    partition : str
        Such as ``"POW"``, or another section of the dataset such as ``"figure-2"``.
    agents : int, optional
        N; may be left out where the section says it.
    **changes
        Fields of :class:`Experiment` to set instead. Steps take the place of epochs and the reverse.

    Raises
    ------
    ValueError
        For names that are not in the file, fields that Experiment does not have or refuses, and an N other
        than the one a section is for.
    """
    _known("dataset", dataset, _presets())
    section = _presets()[dataset]
    _known("partition", partition, sections(dataset))
    settings: dict[str, Any] = {"dataset": dataset, "partition": partition}
    for part in (section, section[partition], section[partition].get(str(agents), {})):
        settings |= {key: value for key, value in part.items() if not isinstance(value, dict)}
    if agents is not None and agents != settings.setdefault("agents", agents):
        raise ValueError(f"preset(): expected {settings['agents']} agents for {partition}, got {agents}")
    if "agents" not in settings:
        raise ValueError(f"preset(): expected a number of agents for {partition}, got none")
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if changes.get(one) is not None:
            settings[other] = None
    settings |= changes
    settings.setdefault("title", settings["partition"])
    for key in settings.keys() - set(FIELDS):
        raise ValueError(f"preset(): expected fields among {', '.join(FIELDS)}; got {key!r}")
    for key in ("noise", "adversaries"):
        if settings.get(key) is not None:
            settings[key] = tuple(settings[key])
    return Experiment(**settings)


def _known(what: str, name: str, names: dict[str, Any]) -> None:
    if name not in names:
        raise ValueError(f"preset(): expected a {what} among {', '.join(names)}; got {name!r}")


FIGURE_2 = preset("digits", "figure-2")
CLA_10 = preset("digits", "CLA", 10)
DEMO = (FIGURE_2, CLA_10)
"""What ``cgsv demo`` runs."""
