"""What the server and an agent tell each other, as records of Flower's messages.

========= ============== ===================================================================================
record    field          what
========= ============== ===================================================================================
state     agent          to an agent: whom the message is for, if the server knows who is at the node;
                         to the server: who answers
state     round          to an agent: the rounds the server has played; to the server: the last round whose
                         reward is in the agent's parameters, -1 where it was told of none yet
state     run            to an agent: which run the rounds are of, if the server knows
state     names, ties    to an agent, with initial arrays: those that are rewarded; other names of some of
                         them, each followed by the name it stands for
reward    message        Σ v_i since the round acknowledged, as :func:`cgsv_ext.encode` writes it
update    flat           Δw_i, its tensors in the template's order
========= ============== ===================================================================================
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from ..types import FLOATS, dtype_name

STATE = "cgsv.state"
REWARD = "cgsv.reward"
UPDATE = "cgsv.update"

_WIRE, _RAW = "cgsv_ext.wire", "cgsv_ext.raw"
_DTYPES = {dtype_name(dtype): dtype for dtype in FLOATS}


class ToAgent(NamedTuple):
    """What the server tells an agent."""

    agent: str | None
    round: int
    run: str | None = None
    names: Sequence[str] = ()
    ties: Sequence[str] = ()
    reward: bytes | None = None

    def write(self, content: RecordDict) -> None:
        """Add it to a message."""
        # What is None or empty is left out: Flower has no None, and its own mods cannot count empty lists.
        fields = {"agent": self.agent, "run": self.run, "names": list(self.names), "ties": list(self.ties)}
        told = {name: value for name, value in fields.items() if value}
        content[STATE] = ConfigRecord({"round": self.round, **told})
        if self.reward is not None:
            # An array: these are sent in chunks, while a config is sent in one piece.
            message = Array("uint8", (len(self.reward),), _WIRE, self.reward)
            content[REWARD] = ArrayRecord({"message": message})

    @classmethod
    def read(cls, content: RecordDict) -> ToAgent:
        """Take it out of a message.

        Raises
        ------
        ValueError
            For a message that no strategy of this version wrote.
        """
        state = content.config_records.get(STATE)
        if state is None:
            raise ValueError(
                f"RewardMod: expected a message of GradientRewardStrategy, got one without {STATE!r}"
            )
        agent, round, run = state.get("agent"), state.get("round"), state.get("run")
        names, ties = state.get("names", []), state.get("ties", [])
        reward = content.array_records.get(REWARD)
        if (
            not (agent is None or isinstance(agent, str))
            or type(round) is not int
            or not (run is None or isinstance(run, str))
            or not (isinstance(names, list) and isinstance(ties, list))
            or not (reward is None or "message" in reward)
        ):
            raise ValueError(f"RewardMod: expected a message of this version's strategy, got {dict(state)}")
        for name in (STATE, REWARD):
            content.pop(name, None)
        message = None if reward is None else reward["message"].data
        return cls(agent, round, run, list(map(str, names)), list(map(str, ties)), message)


class FromAgent(NamedTuple):
    """What an agent tells the server."""

    agent: str
    round: int
    update: Tensor | None = None

    def write(self, content: RecordDict) -> None:
        """Add it to a message."""
        content[STATE] = ConfigRecord({"agent": self.agent, "round": self.round})
        if self.update is not None:
            # Flower's own form for arrays costs two copies more on each side.
            flat = self.update.contiguous()
            name, data = dtype_name(flat.dtype), flat.view(torch.uint8).numpy().tobytes()
            content[UPDATE] = ArrayRecord({"flat": Array(name, tuple(flat.shape), _RAW, data)})

    @classmethod
    def read(cls, content: RecordDict) -> FromAgent:
        """Take it out of a message.

        Raises
        ------
        ValueError
            For a message that no agent of this version wrote.
        """
        try:
            state = content.config_records[STATE]
            agent, round = state["agent"], state["round"]
            record = content.array_records.get(UPDATE)
            update = None if record is None else _raw(record["flat"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"expected an answer of RewardMod, got {error!r:.200}") from error
        if not isinstance(agent, str) or type(round) is not int:
            raise ValueError(f"expected an agent's name and a round, got {agent!r:.100} and {round!r:.100}")
        return cls(agent, round, update)


def _raw(array: Array) -> Tensor:
    """Values of an update, to be read only: they share the message's memory."""
    if array.stype != _RAW or array.dtype not in _DTYPES:
        raise ValueError(
            f"expected an update of RewardMod, got {array.dtype!r:.50} in the form {array.stype!r:.50}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nobody will write to it
        return torch.frombuffer(array.data, dtype=_DTYPES[array.dtype])


def tensors(record: ArrayRecord) -> dict[str, Tensor]:
    """All values of a record, in memory of their own."""
    return {name: torch.from_numpy(array.numpy()) for name, array in record.items()}
