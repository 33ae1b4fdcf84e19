"""What a server tells of its rounds, as plain data."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias, TypeGuard

AgentId: TypeAlias = str | int
"""Who an agent is: any string, or an integer of 64 bits."""


def is_id(value: object) -> TypeGuard[AgentId]:
    """Whether it can be an agent's name; integers have 64 bits."""
    if isinstance(value, bool):
        return False
    return isinstance(value, str) or (isinstance(value, int) and -(2**63) <= value < 2**63)


class Refused(ValueError):
    """An update that was not accepted; the server is as it was, and the round goes on."""


class Refusal(NamedTuple):
    """Record of an update that was refused."""

    round: int
    """The round it was meant for."""
    agent: AgentId
    """Who sent it."""
    reason: str
    """What was expected and what came."""


class Round(NamedTuple):
    """Record of one round; tuples have an entry for each agent that took part, in the order they joined."""

    round: int
    """t, from 1."""
    agents: tuple[AgentId, ...]
    """Who uploaded."""
    importance: tuple[float, ...]
    """r_i after the round; they sum to ``share``."""
    cosines: tuple[float, ...]
    """ψ_i."""
    quotas: tuple[int, ...]
    """q_i, entries of the aggregate each agent gets; over all segments."""
    norms: tuple[float, ...]
    """‖Δw_i‖."""
    valid: tuple[bool, ...]
    """False where the update is all zero, so that its agent took no part."""
    share: float
    """What part of all importance the agents of this round hold after it; 1 where nobody was absent."""
    refused: int
    """How many updates were refused since the last round."""
    seconds: float
    """What the step took, saving left out."""
