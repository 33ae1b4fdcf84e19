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

from typing import NamedTuple

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

STATE = "cgsv.state"
REWARD = "cgsv.reward"
UPDATE = "cgsv.update"

_WIRE = "cgsv_ext.wire"


class Order(NamedTuple):
    """What the server tells an agent."""

    agent: str | None
    round: int
    train: bool
    names: list[str]
    reward: bytes | None

    def write(self, content: RecordDict) -> None:
        """Add it to a message."""
        state = ConfigRecord({"round": self.round, "train": self.train, "names": self.names})
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
        agent, round, names = state.get("agent"), state.get("round"), state.get("names")
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
            content[UPDATE] = ArrayRecord({"flat": Array(self.update.numpy())})

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
            update = None if record is None else tensor(record["flat"])
        except (KeyError, TypeError, ValueError, EOFError, OSError) as error:
            raise ValueError(f"expected an answer of RewardMod, got {error!r:.200}") from error
        if not isinstance(agent, str) or not isinstance(round, int):
            raise ValueError(f"expected an agent's name and a round, got {agent!r:.100} and {round!r:.100}")
        return cls(agent, round, update)


def tensor(array: Array) -> Tensor:
    """A Flower array's values, in memory of their own."""
    return torch.from_numpy(array.numpy())


def tensors(record: ArrayRecord) -> dict[str, Tensor]:
    """All values of a record."""
    return {name: tensor(array) for name, array in record.items()}
