"""What tells one run from another."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from pathlib import Path

from .experiment import Experiment
from .mechanism import MECHANISMS, SETTINGS
from .record import Run

FORMAT = 1
"""Part of every key: to be raised when the same settings come to other results than before."""


@dataclass(frozen=True)
class Spec:
    """What one run is asked for with: everything that decides its result.

    Where it is run is no part of it: other processors, GPUs and releases of torch round differently, so a
    stored run is one machine's answer to its spec, and repeatable to the bit only there. Nor are the files a
    dataset was read from: keep a store for each data folder.
    """

    experiment: Experiment
    mechanism: str
    """A name in ``MECHANISMS``."""
    seed: int
    log_shapley: bool = False

    @classmethod
    def of(cls, run: Run) -> Spec:
        """What a run was asked for with."""
        return cls(run.experiment, run.mechanism, run.seed, run.log_shapley)

    def __post_init__(self) -> None:
        """Refuse a mechanism that is not there."""
        check_mechanism("Spec", self.mechanism)

    @cached_property
    def settings(self) -> dict[str, object]:
        """The fields of the experiment that this mechanism reads, but for those at their default.

        So two runs of FedAvg with different β are one, and a field added to Experiment later leaves the
        keys of stored runs alone.
        """
        others = set(SETTINGS) - set(MECHANISMS[self.mechanism].settings)
        read = [f for f in fields(Experiment) if f.compare and f.name not in others]
        values = {f.name: getattr(self.experiment, f.name) for f in read}
        return {f.name: values[f.name] for f in read if values[f.name] != f.default}

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits: equal for specs with the same result, and practically only for those."""
        asked = [FORMAT, _canonical(self.settings), self.mechanism, self.seed, self.log_shapley]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def path(self) -> Path:
        """Where a store keeps it: such as ``digits-POW-10/CGSV-seed2021-0123456789abcdef.safetensors``."""
        e = self.experiment
        folder = f"{e.dataset}-{e.partition}-{e.agents}"
        return Path(folder) / f"{self.mechanism}-seed{self.seed}-{self.key}.safetensors"

    def __str__(self) -> str:
        """Say it in a line of progress or of an error: such as ``digits-POW-10 CGSV beta=2.0 seed 2021``.

        Adversaries stand beside N: ``digits-POW-10 + 3 sybil CGSV seed 2021``.
        """
        joined = [f"+ {count} {kind}" for kind, count in Counter(self.experiment.adversaries).items()]
        preset = {f.name for f in fields(Experiment) if f.default is MISSING}  # what every experiment sets
        own = [name for name in MECHANISMS[self.mechanism].settings if name in self.settings.keys() - preset]
        said = [f"{name}={self.settings[name]}" for name in own]
        return " ".join([self.experiment.name, *joined, self.mechanism, *said, f"seed {self.seed}"])


def check_mechanism(caller: str, name: str) -> None:
    """Raise a ValueError where there is no such mechanism."""
    if name not in MECHANISMS:
        raise ValueError(f"{caller}: expected a mechanism among {', '.join(MECHANISMS)}; got {name!r}")


def _canonical(value: object) -> object:
    """One text for values that are equal: 2 and 2.0 are, and so are a list and a tuple."""
    if isinstance(value, dict):
        return {name: _canonical(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(each) for each in value]
    return float(value) if isinstance(value, int) else value
