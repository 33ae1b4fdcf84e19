"""The report's own tables, beside those of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from torch import Tensor

from ..claims import Claim
from ..experiment import Experiment
from ..figures.traits import traits
from ..record import Run
from ..summary import SYMBOLS, Summary
from ..table import Table
from ..table.text import or_undefined, with_error


def mechanisms_table(heading: str, summaries: Mapping[str, Summary]) -> Table:
    """Accuracy and fairness of every mechanism in one federation, over its N agents."""
    head = ["mechanism", "seeds", "mean agent", "worst agent", "best agent", "server", "ρ"]
    rows = []
    for name, s in summaries.items():
        accuracy = 100 * s.accuracy[:, : s.experiment.agents]
        columns = [accuracy.mean(1), accuracy.amin(1), accuracy.amax(1), 100 * s.server_accuracy]
        rows.append([name, str(len(s.seeds)), *map(_mean, columns), _rho(s)])
    return Table(f"{heading}: final test accuracy (%) and fairness ρ", head, rows)


def agents_table(heading: str, runs: Mapping[str, Sequence[Run]], summaries: Mapping[str, Summary]) -> Table:
    """Agent by agent: what it had, and what it ended with under each mechanism."""
    every = [run for each in runs.values() for run in each]
    e = every[0].experiment
    rewarded = [name for name, s in summaries.items() if s.mechanism == "CGSV"]
    head = ["agent", "data", *(f"{name}, %" for name in summaries)]
    for name in rewarded:
        head += [
            f"{what}, {name}" for what in ("mean importance", "mean sparsity, %", "distance from server")
        ]
    rows = []
    for i, (agent, trait) in enumerate(zip(e.agent_names, traits(every), strict=True)):
        row = [agent, trait, *(_mean(100 * s.accuracy[:, i]) for s in summaries.values())]
        for s in (summaries[name] for name in rewarded):
            row += [_mean(s.importance[:, i], 3), _mean(100 * s.sparsity[:, i]), _mean(s.distance[:, i], 3)]
        rows.append(row)
    return Table(f"{heading}: final test accuracy, agent by agent", head, rows)


def settings(e: Experiment) -> dict[str, str]:
    """Every setting of an experiment that is not left at its default, and those that always matter."""
    always = ("dataset", "model", "partition", "agents", "rounds", "alpha", "beta", "gamma", "floor")
    names = {**SYMBOLS, "agents": "N", "rounds": "T", "lr": "learning rate", "batch_size": "batch"}
    found = {}
    for f in fields(e):
        value = getattr(e, f.name)
        if f.name != "title" and (f.name in always or value != f.default):
            found[names.get(f.name, f.name)] = _setting(value)
    return found


def claims_table(claims: Sequence[Claim]) -> Table:
    """What was expected before these runs, and what they show."""
    rows = [[c.expected, c.found, "yes" if c.met else "no"] for c in claims if c.met is not None]
    missing = sum(c.met is None for c in claims)
    note = f"{missing} more expectations are of runs that are not here." if missing else ""
    return Table("Expected, fixed before these seeds were run", ["expected", "found", "met"], rows, note)


def agreement_table(heading: str, summaries: Mapping[str, Summary]) -> Table:
    """How far ψ is from φ in one federation, for each mechanism that has them."""
    head = ["mechanism", "values of", "Kendall's τ", "Pearson's r", "ℓ1 distance", "time per round"]
    rows = []
    for name, s in summaries.items():
        if s.agreement is not None:
            each = [_mean(values, 3) for values in s.agreement.rounds.mean(1).unbind(1)]
            means = [_mean(values, 3) for values in s.agreement.means.unbind(1)]
            seconds = s.seconds["shapley"] / (s.experiment.rounds * len(s.seeds))
            rows.append([name, "each round", *each, f"{1e3 * seconds:.3f} ms"])
            rows.append([name, "mean round", *means, ""])
    return Table(f"{heading}: ψ against exact Shapley values φ", head, rows)


def cost_table(groups: Mapping[str, Mapping[str, Sequence[Run]]]) -> Table:
    """Where the time goes: per round, and the reward step as a share of training."""
    head = ["federation", "mechanism", "training", "plain loop", "reward step", "download"]
    head += ["reward / training", "reward / plain loop"]
    rows = []
    for heading, by_label in groups.items():
        for name, runs in by_label.items():
            if runs[0].mechanism == "standalone":
                continue
            rounds = sum(run.experiment.rounds for run in runs)
            times = [_per_round(runs, k, rounds) for k in ("training", "plain loop", "reward", "download")]
            shares = [times[2] / time if time and times[2] else None for time in times[:2]]
            cells = ["–" if time is None else f"{1e3 * time:.3f} ms" for time in times]
            cells += ["–" if share is None else f"{100 * share:.2f} %" for share in shares]
            rows.append([heading, name, *cells])
    return Table("Time per round", head, rows)


def _per_round(runs: Sequence[Run], kind: str, rounds: int) -> float | None:
    if any(kind not in run.seconds for run in runs):
        return None
    return sum(run.seconds[kind] for run in runs) / rounds


def _setting(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_setting, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _mean(values: Tensor, digits: int = 1) -> str:
    """Mean ± standard error, or a dash where there is nothing."""
    return "–" if values.isnan().any() else with_error(values.tolist(), digits)


def _rho(s: Summary) -> str:
    """ρ over the seeds; seeds where it is undefined are counted, never dropped in silence."""
    return "–" if s.mechanism == "standalone" or s.rho is None else or_undefined(s.rho)
