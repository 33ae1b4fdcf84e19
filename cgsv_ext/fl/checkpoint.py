"""The state of a run between two rounds, in a file, so that a killed run goes on where it was."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import _files
from .adversary import Adversaries
from .agent import Agents
from .clock import Clock
from .mechanism import Mechanism
from .record import Run
from .spec import Spec

_FORMAT = "cgsv_ext.fl.checkpoint 2"


@dataclass
class State:
    """All that later rounds depend on, and what has been recorded of the earlier ones.

    The models of the agents and of the server are the history's ``parameters`` and ``server``. Batches come
    from a generator for each round, which has no state between rounds.
    """

    agents: Agents
    mechanism: Mechanism
    adversaries: Adversaries
    history: Run
    clock: Clock

    def save(self, path: Path, t: int) -> None:
        """Write it to a file after t rounds, whole or not at all."""
        self.clock.settle()
        h = self.history
        state = {
            "format": _FORMAT,
            "run": _run(h),
            "origin": h.origin,
            "t": t,
            "history": h.tensors(),
            "seconds": h.seconds,
            "agents": self.agents.state_dict(),
            "mechanism": self.mechanism.state_dict(),
            "adversaries": self.adversaries.state_dict(),
        }
        _files.write(path, state)

    def load(self, path: Path) -> int:
        """Go on from a file: the number of rounds it has behind it, 0 where there is no usable file.

        A damaged file is passed over with a warning, and so is one from another version of torch, another
        kind of processor or other data: what follows would not be the bits of an uninterrupted run.

        Raises
        ------
        ValueError
            Where the file belongs to another run, which is not to be overwritten.
        """
        h = self.history
        try:
            state = _files.read(path)
        except FileNotFoundError:
            return 0
        except _files.Unreadable as error:
            warnings.warn(f"{error}; the run starts anew", stacklevel=2)
            return 0
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise ValueError(
                f"run(): expected a checkpoint, got {path}, which is something else or of another version"
            )
        if different := _differences(state["run"], _run(h)):
            raise ValueError(
                f"run(): expected a checkpoint of this run, got {path}, which differs in {different}; "
                "delete it or name another file"
            )
        if state["origin"] != h.origin:
            warnings.warn(
                f"{path}: from {state['origin']}, not {h.origin}; the run starts anew", stacklevel=2
            )
            return 0
        for name, value in h.tensors().items():
            value.copy_(state["history"][name])  # in place: agents and server hold these very tensors
        h.seconds.update(state["seconds"])
        self.agents.load_state_dict(state["agents"])
        self.mechanism.load_state_dict(state["mechanism"])
        self.adversaries.load_state_dict(state["adversaries"])
        return int(state["t"])


def _run(history: Run) -> dict[str, Any]:
    """What tells one run from another: what the key of its spec is made of."""
    spec = Spec.of(history)
    own = {"mechanism": spec.mechanism, "seed": spec.seed, "log_shapley": spec.log_shapley}
    return spec.settings | own


def _differences(one: dict[str, Any], other: dict[str, Any]) -> str:
    values = {name: [run.get(name, "the default") for run in (one, other)] for name in one | other}
    return ", ".join(f"{name} ({a}, not {b})" for name, (a, b) in values.items() if a != b)
