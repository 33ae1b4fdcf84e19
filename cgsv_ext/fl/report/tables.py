"""The report's tables as plain text cells, whatever they are then rendered to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ..metrics import mean_and_error
from ..presets import Experiment
from ..summary import Summary
from .result import Result


class Table(NamedTuple):
    """A title, a head and rows of equally many cells."""

    title: str
    head: list[str]
    rows: list[list[str]]


def as_markdown(table: Table) -> str:
    """Render a table with its title above it."""
    lines = [table.head, ["---"] * len(table.head), *table.rows]
    return f"**{table.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mechanisms_table(mechanisms: dict[str, Summary]) -> Table:
    """Accuracy and fairness of every mechanism in one experiment."""
    head = ["mechanism", "mean agent", "worst agent", "best agent", "server", "ρ"]
    rows = []
    for name, s in mechanisms.items():
        accuracy = 100 * s.accuracy
        columns = [accuracy.mean(1), accuracy.amin(1), accuracy.amax(1), 100 * s.server_accuracy]
        rows.append([name, *map(_mean, columns), _rho(s)])
    title = f"{next(iter(mechanisms.values())).experiment.title}: final test accuracy (%) and fairness ρ"
    return Table(title, head, rows)


def checks_table(result: Result) -> Table:
    """Expectations of CGSV and what it showed."""
    rows = [[check.expected, check.found, "yes" if check.met else "no"] for check in result.checks]
    return Table("Expected of CGSV, fixed before these seeds were run", ["expected", "found", "met"], rows)


def agreement_table(mechanisms: dict[str, Summary]) -> Table:
    """How far ψ is from φ in one experiment, for each mechanism that has them."""
    head = ["mechanism", "values of", "Kendall's τ", "Pearson's r", "ℓ1 distance", "time per round"]
    rows = []
    for name, s in mechanisms.items():
        if s.agreement is not None:
            each = [_mean(values, 3) for values in s.agreement.rounds.mean(1).unbind(1)]
            means = [_mean(values, 3) for values in s.agreement.means.unbind(1)]
            seconds = s.seconds["shapley"] / (s.experiment.rounds * len(s.seeds))
            rows.append([name, "each round", *each, f"{1e3 * seconds:.3f} ms"])
            rows.append([name, "mean round", *means, ""])
    title = f"{next(iter(mechanisms.values())).experiment.title}: ψ against exact Shapley values φ"
    return Table(title, head, rows)


def cost_table(result: Result) -> Table:
    """Where the time goes: per round, and the reward step as a share of training."""
    head = ["experiment", "mechanism", "batched training", "plain loop", "reward step", "download"]
    head += ["reward / batched", "reward / loop"]
    rows = []
    for e in result.experiments:
        for name, s in result.summaries[e.name].items():
            if name == "standalone":
                continue
            rounds = e.rounds * len(s.seeds)
            training, reward, download = (s.seconds[k] / rounds for k in ("training", "reward", "download"))
            plain = result.plain_loop[e.name]
            times = [f"{1e3 * seconds:.3f} ms" for seconds in (training, plain, reward, download)]
            shares = [f"{100 * reward / total:.2f} %" for total in (training, plain)]
            rows.append([e.title, name, *times, *shares])
    return Table("Time per round, on one thread", head, rows)


def agents_table(mechanisms: dict[str, Summary]) -> Table:
    """Agent by agent: what it had, and what it got from CGSV."""
    cgsv = mechanisms["CGSV"]
    head = ["agent", "data", *(f"{name}, %" for name in mechanisms)]
    head += ["mean importance", "mean sparsity, %", "distance from server"]
    rows = []
    for i, (agent, trait) in enumerate(zip(cgsv.experiment.agent_names, cgsv.experiment.traits, strict=True)):
        accuracies = [_mean(100 * s.accuracy[:, i]) for s in mechanisms.values()]
        sparsity, distance = 100 * cgsv.sparsity[:, i], cgsv.distance[:, i]
        rewards = [_mean(cgsv.importance[:, i], 3), _mean(sparsity), _mean(distance, 3)]
        rows.append([agent, trait, *accuracies, *rewards])
    return Table(f"{cgsv.experiment.title}: agent by agent", head, rows)


def settings_table(e: Experiment) -> Table:
    """Settings of an experiment, in the paper's symbols."""
    cells = {
        "partition": f"{e.partition}, " + (f"{e.samples} samples each" if e.samples else "all samples"),
        "model": "MLP " + "-".join(map(str, e.widths)),
        "rounds": str(e.rounds),
        "local steps a round": str(e.steps),
        "batch": str(e.batch_size),
        "SGD rate": f"{e.lr:g}",
        "Γ": f"{e.gamma:g}",
        "α": f"{e.alpha:g}",
        "β": f"{e.beta:g}",
    }
    return Table("Settings", list(cells), [list(cells.values())])


def _mean(values: Tensor, digits: int = 1) -> str:
    """Mean ± standard error, or a dash where there is nothing."""
    if values.isnan().any():
        return "–"
    return _with_error(values.tolist(), digits)


def _rho(summary: Summary) -> str:
    """ρ over the seeds; seeds where it is undefined are counted, never dropped in silence."""
    if summary.mechanism == "standalone":
        return "–"
    known = [value for value in summary.rho if value is not None]
    if not known:
        return "undefined"
    missing = len(summary.rho) - len(known)
    return _with_error(known, 1) + (f" ({missing} undefined)" if missing else "")


def _with_error(values: Sequence[float], digits: int) -> str:
    mean, error = mean_and_error(values)
    return f"{mean:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")
