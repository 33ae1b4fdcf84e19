"""One experiment: every setting, and what each may be."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .optimizer import OPTIMIZERS


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One federation and how it learns. ``dataclasses.replace`` changes what is to be different.

    A field that is not what it may be is refused with a ValueError that says what was expected.
    """

    dataset: str
    """A name in ``DATASETS``."""
    model: str
    """A name in ``MODELS``."""
    partition: str
    """A name in ``PARTITIONS``."""
    agents: int
    """N, without adversaries."""
    rounds: int
    """T."""
    batch_size: int
    """Samples in a batch of local training."""
    lr: float
    """Learning rate of the agents' local optimizer in the first round."""
    gamma: float
    """Γ of equation (1): the length every update is normalised to."""
    steps: int | None = None
    """Local steps an agent takes in a round, on batches drawn with replacement. Either this or epochs."""
    epochs: int | None = None
    """Passes over its own data an agent makes in a round, shuffled anew each time."""
    optimizer: str = "SGD"
    """The agents' local optimizer, a name in ``OPTIMIZERS``."""
    decay: float = 1.0
    """What the learning rate is multiplied by after every round."""
    samples: int | None = None
    """Samples per agent on average; None for all there are."""
    exponent: float = 1.5
    """POW: sizes grow as i ** exponent."""
    concentration: float = 0.5
    """DIR: α of the Dirichlet distribution."""
    noise: tuple[float, ...] | None = None
    """Share of corrupted labels of each agent; None for what the partition says, which is none but in NOI."""
    adversaries: tuple[str, ...] = ()
    """Agents that join the N, one for each name in ``ADVERSARIES``."""
    alpha: float = 0.95
    """α of equation (4)."""
    beta: float = 1.0
    """β of equation (5), the degree of altruism."""
    floor: float | None = 1e-3
    """The least importance of an agent before normalising; None for equation (4) to the letter."""
    masks: str = "whole"
    """``whole``: equation (5); ``layers``: layer by layer, as the authors' release masks."""
    q: float = 1.0
    """The exponent of q-FFL."""
    title: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        for name, (expected, fits) in RULES.items():
            value = getattr(self, name)
            if not fits(value):
                raise ValueError(f"Experiment: expected {name} to be {expected}, got {value!r}")
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(
                "Experiment: expected either steps or epochs, "
                f"got steps={self.steps} and epochs={self.epochs}"
            )
        if self.noise is not None and len(self.noise) != self.agents:
            raise ValueError(
                f"Experiment: expected noise to have one share for each of {self.agents} agents, "
                f"got {len(self.noise)} shares"
            )
        for name, registry in registries().items():
            value = getattr(self, name)
            for word in (value,) if isinstance(value, str) else value:
                if word not in registry:
                    raise ValueError(f"Experiment: expected {name} among {', '.join(registry)}; got {word!r}")

    @property
    def name(self) -> str:
        """Short, for file names, such as ``digits-POW-10``."""
        return f"{self.dataset}-{self.title.split(',')[0].replace(' ', '-') or self.partition}-{self.agents}"

    @property
    def size(self) -> int:
        """The number of rows of a round's updates: N and the adversaries."""
        return self.agents + len(self.adversaries)

    @property
    def agent_names(self) -> list[str]:
        """A1 to AN, then the adversaries', numbered where there are several of a kind."""
        kinds, seen = Counter(self.adversaries), Counter[str]()
        names = [f"A{i + 1}" for i in range(self.agents)]
        for kind in self.adversaries:
            seen[kind] += 1
            names.append(f"{kind} {seen[kind]}" if kinds[kind] > 1 else kind)
        return names


def registries() -> dict[str, Mapping[str, Any]]:
    """Return the names there are, for the fields that hold names."""
    # Imported late: these modules know Experiment.
    from .adversary import ADVERSARIES
    from .data import DATASETS
    from .model import MODELS
    from .partition import PARTITIONS

    return {"dataset": DATASETS, "model": MODELS, "partition": PARTITIONS, "adversaries": ADVERSARIES}


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _optional(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _positive(value: Any) -> bool:
    return _number(value) and 0 < value < math.inf


def _not_negative(value: Any) -> bool:
    return _number(value) and 0 <= value < math.inf


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _text(value: object) -> bool:
    return isinstance(value, str)


def _tuple(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple) and all(map(fits, value))


RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "dataset": ("a name", _text),
    "model": ("a name", _text),
    "partition": ("a name", _text),
    "agents": ("an integer of at least 1", _count),
    "rounds": ("an integer of at least 1", _count),
    "batch_size": ("an integer of at least 1", _count),
    "lr": ("finite and above 0", _positive),
    "gamma": ("finite and above 0", _positive),
    "steps": ("None or an integer of at least 1", _optional(_count)),
    "epochs": ("None or an integer of at least 1", _optional(_count)),
    "optimizer": (" or ".join(OPTIMIZERS), lambda value: value in [*OPTIMIZERS]),
    "decay": ("above 0 and at most 1", lambda value: _share(value) and value > 0),
    "samples": ("None or an integer of at least 1", _optional(_count)),
    "exponent": ("finite and at least 0", _not_negative),
    "concentration": ("finite and above 0", _positive),
    "noise": ("None or a tuple of shares in [0, 1]", _optional(_tuple(_share))),
    "adversaries": ("a tuple of names", _tuple(_text)),
    "alpha": ("in [0, 1]", _share),
    "beta": ("above 0; inf is allowed", lambda value: _number(value) and value > 0),
    "floor": ("None or finite and at least 0", _optional(_not_negative)),
    "masks": ("whole or layers", lambda value: value in ("whole", "layers")),
    "q": ("finite and at least 0", _not_negative),
    "title": ("text", _text),
}
"""What each field of an experiment may be, in words and as a test."""

FIELDS = tuple(f.name for f in fields(Experiment))
"""The names of all settings."""
