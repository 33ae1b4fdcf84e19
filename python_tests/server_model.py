"""What tests of the server compare with: partial participation in plain Python, and equality of states."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import oracle
import torch
from torch import Tensor

from cgsv_ext.server import RewardServer


class Shares:
    """Who holds what part of all importance: a dict, and the rules in the words of the documentation."""

    def __init__(self, *, alpha: float = 0.95, floor: float | None = 1e-3, absent: str = "keep") -> None:
        self.alpha, self.floor, self.absent = alpha, floor, absent
        self.r: dict[Any, float] = {}
        self.samples: dict[Any, int | None] = {}

    def entry(self, agents: Iterable[Any]) -> float:
        """The part agents are due before anything is known of them: of all samples, else of all heads."""
        weight = {j: 1 if n is None else n for j, n in self.samples.items()}
        return sum(weight[j] for j in agents) / sum(weight.values())

    def join(self, agent: Any, samples: int | None = None) -> None:
        self.samples[agent] = samples
        begun = any(self.r.values())
        self.r[agent] = 0.0
        if begun:
            part = self.entry([agent])
            self.r = {j: (1 - part) * r for j, r in self.r.items()}
            self.r[agent] = part

    def leave(self, agent: Any) -> None:
        del self.r[agent], self.samples[agent]
        self.fill()

    def fill(self) -> None:
        """To sum 1, or all to 0 where there is nothing to scale."""
        total = math.fsum(self.r.values())
        self.r = {j: r / total if total > 0 else 0.0 for j, r in self.r.items()}

    def before(self, present: Iterable[Any]) -> list[float]:
        """r_S / s, what those present go into the round with; zeros are a first round."""
        r = [self.r[i] for i in present]
        s = math.fsum(r)
        return [each / s for each in r] if s > 0 else [0.0] * len(r)

    def play(self, cosines: Mapping[Any, float]) -> float:
        """A round of those who have a cosine; what they hold together afterwards."""
        away = [j for j in self.r if j not in cosines]
        found = oracle.moving_average(
            self.before(cosines), cosines.values(), alpha=self.alpha, floor=self.floor
        )
        if not found.any():
            self.r |= dict.fromkeys(cosines, 0.0)
            self.fill()
            return 0.0
        if not any(self.r.values()):
            for j in away:
                self.r[j] = self.entry([j])
            s = self.entry(cosines)
        elif away and math.fsum(self.r[i] for i in cosines) <= 0:
            s = self.entry(cosines)
            rest = math.fsum(self.r[j] for j in away)
            for j in away:
                self.r[j] *= (1 - s) / rest
        else:
            for j in away:
                self.r[j] *= self.alpha if self.absent == "decay" else 1
            s = 1 - math.fsum(self.r[j] for j in away)
        for i, part in zip(cosines, found, strict=True):
            self.r[i] = s * part
        return s


def assert_shares_are_whole(importance: Iterable[float]) -> None:
    """Σ r = 1, or all are 0; without a floor r may be large and negative, and rounding as much larger."""
    r = list(importance)
    assert all(math.isfinite(each) for each in r)
    if any(r):
        assert abs(math.fsum(r) - 1) <= 1e-12 * math.fsum(map(abs, r))


def assert_same_state(got: Any, expected: Any, what: str = "state") -> None:
    """Equal plain data, and tensors with the same bits."""
    assert type(got) is type(expected), what
    if isinstance(expected, Tensor):
        oracle.assert_same_bits(got, expected, what)
    elif isinstance(expected, dict):
        assert list(got) == list(expected), what
        for key in expected:
            assert_same_state(got[key], expected[key], f"{what}.{key}")
    elif isinstance(expected, list):
        assert len(got) == len(expected), what
        for i, pair in enumerate(zip(got, expected, strict=True)):
            assert_same_state(*pair, f"{what}[{i}]")
    else:
        assert repr(got) == repr(expected), what


def copied(state: Any) -> Any:
    """A state of its own, whose tensors nobody else has."""
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    return [copied(value) for value in state] if isinstance(state, list) else state


def joined(server: RewardServer, agents: Sequence[Any]) -> RewardServer:
    for agent in agents:
        server.join(agent)
    return server


def play(server: RewardServer, updates: Mapping[Any, Any]) -> Any:
    """One round of those who have an update."""
    for agent, update in updates.items():
        server.upload(agent, update)
    return server.step()


def fetch(server: RewardServer, agent: Any) -> Tensor:
    """Download and acknowledge."""
    reward = server.download(agent)
    server.acknowledge(agent, reward.round)
    return reward.flat


def random_updates(
    agents: Iterable[Any], d: int, seed: int, dtype: torch.dtype = torch.float64
) -> dict[Any, Tensor]:
    """Updates that have something in common."""
    agents = list(agents)
    x = oracle.updates_of("alike", max(1, len(agents)), d, dtype, seed)
    return {agent: x[i] for i, agent in enumerate(agents)}
