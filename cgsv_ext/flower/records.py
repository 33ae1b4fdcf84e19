"""What the server and an agent tell each other, as records of Flower's messages.

========= ============== ===================================================================================
record    field          what
========= ============== ===================================================================================
state     agent          to an agent: whom the message is for, if the server knows who is at the node;
                         to the server: who answers
state     round          to an agent: the rounds the server has played; to the server: the last round whose
                         reward is in the agent's parameters, -1 where it was told of none yet
state     train          to an agent: whether it may train where the message is for nobody
state     names          to an agent, with initial arrays: those that are rewarded
reward    message        Σ v_i since the round acknowledged, as :func:`cgsv_ext.encode` writes it
update    flat           Δw_i, its tensors in the template's order
========= ============== ===================================================================================
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from ..server.template import FLOATS

STATE = "cgsv.state"
REWARD = "cgsv.reward"
UPDATE = "cgsv.update"

_WIRE, _RAW = "cgsv_ext.wire", "cgsv_ext.raw"
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in FLOATS}


class Order(NamedTuple):
    """What the server tells an agent."""

    agent: str | None
    round: int
    train: bool
    names: list[str]
    reward: bytes | None

    def write(self, content: RecordDict) -> None:
        """Add it to a message."""
        state = ConfigRecord({"round": self.round, "train": self.train})
        if self.names:  # an empty list is more than Flower's own mods can count
            state["names"] = self.names
        if self.agent is not None:
            state["agent"] = self.agent
        content[STATE] = state
        if self.reward is not None:
            # An array: these are sent in chunks, while a config is sent in one piece.
            message = Array("uint8", (len(self.reward),), _WIRE, self.reward)
            content[REWARD] = ArrayRecord({"message": message})

    @classmethod
    def read(cls, content: RecordDict) -> Order:
        """Take it out of a message."""
        state = content.config_records.get(STATE)
        if state is None:
            raise ValueError(
                f"RewardMod: expected a message of GradientRewardStrategy, got one without {STATE!r}"
            )
        agent, round, names = state.get("agent"), state.get("round"), state.get("names", [])
        reward = content.array_records.get(REWARD)
        if (
            not (agent is None or isinstance(agent, str))
            or not isinstance(round, int)
            or not isinstance(names, list)
            or not (reward is None or "message" in reward)
        ):
            raise ValueError(f"RewardMod: expected a message of this version's strategy, got {dict(state)}")
        message = None if reward is None else reward["message"].data
        for name in (STATE, REWARD):
            content.pop(name, None)
        return cls(agent, round, bool(state.get("train")), [str(name) for name in names], message)


class Answer(NamedTuple):
    """What an agent tells the server."""

    agent: str
    round: int
    update: Tensor | None

    def write(self, content: RecordDict) -> None:
        """Add it to a message."""
        content[STATE] = ConfigRecord({"agent": self.agent, "round": self.round})
        if self.update is not None:
            # Flower's own form for arrays costs two copies more on each side.
            flat = self.update.contiguous()
            name, data = str(flat.dtype).removeprefix("torch."), flat.view(torch.uint8).numpy().tobytes()
            content[UPDATE] = ArrayRecord({"flat": Array(name, tuple(flat.shape), _RAW, data)})

    @classmethod
    def read(cls, content: RecordDict) -> Answer:
        """Take it out of a message.

        Raises
        ------
        ValueError
            For a message that no agent of ours wrote.
        """
        try:
            state = content.config_records[STATE]
            agent, round = state["agent"], state["round"]
            record = content.array_records.get(UPDATE)
            update = None if record is None else _raw(record["flat"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"expected an answer of RewardMod, got {error!r:.200}") from error
        if not isinstance(agent, str) or not isinstance(round, int):
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
