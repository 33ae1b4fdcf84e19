"""What a demo found, and whether it is what was expected."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..metrics import mean_and_error
from ..presets import Experiment
from ..server import Run
from ..summary import Summary, summarise


@dataclass(frozen=True)
class Check:
    """One expectation that was set before the runs."""

    expected: str
    found: str
    met: bool


@dataclass
class Result:
    """All runs of a demo and what follows from them."""

    runs: list[Run]
    plain_loop: dict[str, float]
    """Seconds that a round of training takes agent by agent, by experiment."""
    seconds: float
    """Wall-clock time of all runs, training, evaluation and all."""
    summaries: dict[str, dict[str, Summary]] = field(init=False)
    """By experiment and mechanism."""
    seeds: list[int] = field(init=False)
    experiments: list[Experiment] = field(init=False)

    def __post_init__(self) -> None:
        """Condense the runs."""
        self.summaries = summarise(self.runs)
        self.seeds = list(dict.fromkeys(run.seed for run in self.runs))
        self.experiments = [mechanisms["CGSV"].experiment for mechanisms in self.summaries.values()]

    @property
    def command(self) -> str:
        """What regenerates this result."""
        return f"cgsv demo --seeds {len(self.seeds)}" + (" --log-shapley" if self.logged else "")

    @property
    def logged(self) -> bool:
        """Whether exact Shapley values were logged."""
        return any(s.agreement for mechanisms in self.summaries.values() for s in mechanisms.values())

    def overhead(self, *, plain_loop: bool) -> float:
        """Time of CGSV's reward steps over that of training, all experiments together.

        Training as it was run, all agents batched together, or as a plain loop over the agents would take.
        """
        cgsv = {e.name: self.summaries[e.name]["CGSV"] for e in self.experiments}
        if plain_loop:
            training = sum(self.plain_loop[e.name] * e.rounds * len(self.seeds) for e in self.experiments)
        else:
            training = sum(s.seconds["training"] for s in cgsv.values())
        return sum(s.seconds["reward"] for s in cgsv.values()) / training

    @property
    def checks(self) -> list[Check]:
        """The expectations of CGSV, experiment by experiment, then its cost."""
        share = 100 * self.overhead(plain_loop=False)
        return [
            *(check for e in self.experiments for check in self._fairness(e)),
            Check("All reward steps under 1 % of the training time", f"{share:.2f} %", share < 1),
        ]

    def _fairness(self, e: Experiment) -> list[Check]:
        cgsv = self.summaries[e.name]["CGSV"]
        checks = []
        if e.order:
            n = len(cgsv.seeds)
            names = [", ".join(e.agent_names[i] for i in group) for group in e.order]
            for what, order, hits in [
                ("mean importance", " > ".join(names), cgsv.importance_in_order),
                ("distance from the server", " < ".join(names), cgsv.distance_in_order),
            ]:
                checks.append(Check(f"{e.title}: {what} {order}", f"on {hits} of {n} seeds", hits == n))
        known = [value for value in cgsv.rho if value is not None]
        mean = mean_and_error(known)[0] if known else None
        found = "undefined" if mean is None else f"{mean:.1f}"
        if mean is not None and len(known) < len(cgsv.rho):
            found += f", undefined on {len(cgsv.rho) - len(known)} seeds"
        met = mean is not None and len(known) == len(cgsv.rho) and mean >= e.rho
        return [*checks, Check(f"{e.title}: mean ρ at least {e.rho:g}", found, met)]
