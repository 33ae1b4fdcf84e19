"""What CGSV is expected to show on digits, and whether it does.

Expectations come from a trial on the seeds ``TRIAL_SEEDS``. They and the settings were fixed before any other
seed was run, and hold for the presets as they are; runs of trial seeds or of other settings do not count.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from torch import Tensor

from .experiment import Experiment
from .metrics import correlations, fairness, is_descending, mean_and_error
from .partition import noise_shares
from .presets import FIGURE_2, TRIAL_SEEDS, preset
from .record import Run
from .summary import federation, heading, is_preset, label, neutral
from .table.text import or_undefined


@dataclass(frozen=True)
class Claim:
    """One expectation, and what the runs say of it."""

    expected: str
    found: str
    met: bool | None
    """None where the runs it needs are not there."""


Runs: TypeAlias = Mapping[str, Run]
"""The runs of one federation and seed, by their labels."""
Measure: TypeAlias = Callable[[Runs], float | None]
"""What is looked at in these; None where undefined. A KeyError says that a run is lacking."""


def _rho(mechanism: str) -> Measure:
    return lambda runs: fairness(runs[mechanism], runs["standalone"])


def _correlation(name: str) -> Measure:
    def measure(runs: Runs) -> float | None:
        found: float | None = getattr(
            correlations(runs["CGSV"].importance, runs["CGSV"], runs["standalone"]), name
        )
        return found

    return measure


def _server_above(mechanism: str) -> Measure:
    def measure(runs: Runs) -> float:
        apart = runs["CGSV"].server_accuracy[-1] - runs[mechanism].server_accuracy[-1]
        return 100 * apart.item()

    return measure


class Mean(NamedTuple):
    """A mean over the seeds, undefined on none of them, that is to reach a number."""

    section: str
    """Of ``presets.toml``; with ``agents`` it says which federation."""
    agents: int
    what: str
    measure: Measure
    least: float
    digits: int = 1


def _means(
    sizes: Mapping[str, Sequence[int]], what: str, measure: Measure, least: float, digits: int = 1
) -> list[Mean]:
    return [Mean(name, n, what, measure, least, digits) for name, of in sizes.items() for n in of]


MEANS: list[Mean] = [
    Mean("figure-2", 5, "ρ of CGSV", _rho("CGSV"), 90),
    *_means({"NOI": [5, 10]}, "ρ of CGSV", _rho("CGSV"), 85),
    Mean("CLA", 5, "ρ of CGSV", _rho("CGSV"), 75),
    Mean("CLA", 10, "ρ of CGSV", _rho("CGSV"), 80),
    *_means(
        {"CLA": [5, 10]},
        "points of accuracy by which CGSV's server is above FedAvgNormalised's",
        _server_above("FedAvgNormalised"),
        4,
    ),
    *_means(
        {"figure-2": [5], "NOI": [5, 10], "CLA": [5, 10], "POW": [5, 10]},
        "correlation of mean r with closeness to the server",
        _correlation("closeness"),
        0.85,
        2,
    ),
    Mean("POW", 5, "correlation of mean r with standalone accuracy", _correlation("standalone"), 0.75, 2),
    Mean("POW", 10, "correlation of mean r with standalone accuracy", _correlation("standalone"), 0.65, 2),
    *_means({"POW": [5, 10]}, "ρ of DW", _rho("DW"), 85),
]
"""Means over the seeds, of CGSV with the preset's β = 1 unless they say otherwise."""

OVERHEAD = 0.01
"""All reward steps of CGSV take at most this share of the training time of a plain loop over the agents."""
FREE_RIDER = 0.01
"""An agent that sends noise ends with at most this r_i."""


def claims(runs: Iterable[Run]) -> list[Claim]:
    """Hold runs against all that is expected.

    Parameters
    ----------
    runs : iterable of Run
        Any; those of digits with the presets' settings and seeds outside the trial's are looked at.
    """
    known = [run for run in runs if run.experiment.dataset == "digits" and run.seed not in TRIAL_SEEDS]
    standard = [run for run in known if is_preset(run.experiment)]
    groups: dict[Experiment, dict[int, dict[str, Run]]] = {}
    for run in standard:
        groups.setdefault(federation(run), {}).setdefault(run.seed, {})[label(run)] = run
    seeds = groups.get(neutral(FIGURE_2), {})
    figure_2 = [runs["CGSV"] for runs in seeds.values() if "CGSV" in runs]
    return [
        _in_order("mean r", ">", figure_2, lambda run: run.importance.mean(0)),
        _in_order("distance from the server", "<", figure_2, lambda run: -run.distance[-1]),
        *(_mean(each, groups) for each in MEANS),
        _undefined(groups.values()),
        _overhead(standard),
        _free_rider(known),
    ]


def _in_order(what: str, sign: str, runs: Sequence[Run], values: Callable[[Run], Tensor]) -> Claim:
    """Figure 2: the fewer wrong labels, the larger the values, on every seed."""
    noise = noise_shares(FIGURE_2)
    order = [[i for i, share in enumerate(noise) if share == level] for level in sorted(set(noise))]
    names = [", ".join(FIGURE_2.agent_names[i] for i in group) for group in order]
    expected = f"{heading(FIGURE_2)}: {what} {f' {sign} '.join(names)} on every seed"
    if not runs:
        return Claim(expected, _LACKING, None)
    hits = sum(is_descending(values(run).tolist(), order) for run in runs)
    return Claim(expected, f"on {hits} of {len(runs)} seeds", hits == len(runs))


def _mean(claim: Mean, groups: Mapping[Experiment, Mapping[int, Runs]]) -> Claim:
    e = preset("digits", claim.section, claim.agents)
    expected = f"{heading(e)}: {claim.what} ≥ {claim.least:g}"
    values = []
    for runs in groups.get(neutral(e), {}).values():
        with contextlib.suppress(KeyError):
            values.append(claim.measure(runs))
    if not values:
        return Claim(expected, _LACKING, None)
    known = [value for value in values if value is not None]
    met = len(known) == len(values) and mean_and_error(known)[0] >= claim.least
    return Claim(expected, f"{or_undefined(values, claim.digits)}, {_count(len(values), 'seed')}", met)


def _undefined(groups: Iterable[Mapping[int, Runs]]) -> Claim:
    expected = "FedAvg: ρ undefined, as all agents end with the same model"
    pairs = [runs for seeds in groups for runs in seeds.values() if {"FedAvg", "standalone"} <= runs.keys()]
    if not pairs:
        return Claim(expected, _LACKING, None)
    hits = sum(fairness(runs["FedAvg"], runs["standalone"]) is None for runs in pairs)
    return Claim(expected, f"in {hits} of {_count(len(pairs), 'run')}", hits == len(pairs))


def _overhead(runs: Iterable[Run]) -> Claim:
    """By federation the share differs with the number of local steps, so the largest one counts."""
    expected = f"Reward steps of CGSV: ≤ {100 * OVERHEAD:g} % of the training time of a plain loop"
    times: dict[Experiment, list[tuple[float, float]]] = {}
    for run in runs:
        if label(run) == "CGSV" and run.seconds.get("plain loop"):
            times.setdefault(federation(run), []).append((run.seconds["reward"], run.seconds["plain loop"]))
    if not times:
        return Claim(expected, _LACKING, None)
    shares = {heading(e): _share(each) for e, each in times.items()}
    worst = max(shares, key=lambda name: shares[name])
    total = _share([pair for each in times.values() for pair in each])
    found = f"{100 * total:.2f} % in all; at most {100 * shares[worst]:.2f} % ({worst})"
    return Claim(expected, found, shares[worst] <= OVERHEAD)


def _share(times: Iterable[tuple[float, float]]) -> float:
    parts, wholes = zip(*times, strict=True)
    return math.fsum(parts) / math.fsum(wholes)


def _free_rider(runs: Iterable[Run]) -> Claim:
    expected = f"An agent that sends noise: r ≤ {FREE_RIDER:g} at the end"
    found = []
    for run in runs:
        e = run.experiment
        if label(run) == "CGSV" and "noise" in e.adversaries and is_preset(replace(e, adversaries=())):
            rows = [e.agents + i for i, name in enumerate(e.adversaries) if name == "noise"]
            found += run.importance[-1, rows].tolist()
    if not found:
        return Claim(expected, _LACKING, None)
    largest = max(found)
    return Claim(expected, f"{largest:.3g} at most, {_count(len(found), 'agent')}", largest <= FREE_RIDER)


_LACKING = "not run"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
