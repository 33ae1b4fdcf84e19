"""The server's side."""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from flwr.serverapp.strategy.strategy_utils import sample_nodes

from .. import _checks
from ..server import Refused, RewardServer, Round
from .model import ServerModel
from .records import FromAgent, ToAgent

logger = logging.getLogger("flwr.cgsv_ext")


class GradientRewardStrategy(Strategy):
    """Rewards agents by the cosine of their updates with the aggregate, over Flower's message API.

    Every message to an agent holds the rewards it has earned and not acknowledged; every reply acknowledges
    what is in the agent's parameters. Agents answer through :class:`RewardMod`. An agent that does not
    answer is absent from the round, and gets its rewards when it is back.

    Parameters
    ----------
    server : RewardServer
        With a template whose tensors have names: a module, or a state dict. All settings of the mechanism
        are its. Where it has a path, each round is saved there before any agent hears of it, and the
        strategy goes on from what is in the file.
    min_available_nodes : int
        Rounds wait until so many nodes are connected.
    fraction_train, fraction_evaluate : float
        What part of the nodes is sampled for each round; 0 for none. Messages to evaluate deliver rewards,
        too, so that an agent is evaluated with what it has just earned.
    agents : collection of str, optional
        Who may join; anyone by default.
    dtype : torch.dtype
        In which rewards are sent, as for :func:`cgsv_ext.encode`: float32, or bfloat16 in half the bytes.
    roll_call_timeout : float
        Seconds that nodes nobody has heard of get to say who they are, before a round they could take part
        in.
    arrayrecord_key, configrecord_key : str
        Where the app expects parameters and configuration, as in Flower's own strategies.

    Attributes
    ----------
    server : RewardServer
        Its log, importance and callbacks are there to be used.

    Raises
    ------
    ValueError
        For a template without names, or a file that does not fit the server.
    """

    def __init__(
        self,
        server: RewardServer,
        *,
        min_available_nodes: int = 2,
        fraction_train: float = 1.0,
        fraction_evaluate: float = 1.0,
        agents: Collection[str] | None = None,
        dtype: torch.dtype = torch.float32,
        roll_call_timeout: float = 60.0,
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
    ) -> None:
        op = "GradientRewardStrategy"
        if server.template.names is None:
            raise ValueError(
                f"{op}(): expected a server whose template has names (a module or a state dict), got one of "
                f"{server.template.size} elements without"
            )
        self.server = server
        self.min_available_nodes = _checks.integer(op, "min_available_nodes", min_available_nodes, 1)
        self.fraction_train = _fraction("fraction_train", fraction_train)
        self.fraction_evaluate = _fraction("fraction_evaluate", fraction_evaluate)
        self.agents = None if agents is None else frozenset(agents)
        self.dtype = dtype
        self.roll_call_timeout = roll_call_timeout
        self.arrayrecord_key = arrayrecord_key
        self.configrecord_key = configrecord_key
        self._nodes: dict[int, str] = {}  # who was last heard from where
        self._asked: dict[int, str | None] = {}  # whom the messages on their way are for
        self._silent: set[int] = set()  # who did not answer the last ones
        self.model: ServerModel | None = None
        if server.path is None:
            logger.warning(
                "the server has no path: its rounds end with it, and agents cannot go on without it"
            )
        elif server.round == 0:
            joined = server.agents
            with suppress(FileNotFoundError):  # where there is none yet
                server.load()
                if joined:
                    raise ValueError(
                        f"{op}(): expected a server that nobody joins before its file is read, got {joined} "
                        f"and {server.path}: let them join once the strategy is made"
                    )

    def summary(self) -> None:
        """Log what the strategy was made with."""
        server = self.server
        logger.info("agents: %d, rounds played: %d", len(server.agents), server.round)
        logger.info(
            "beta %g, alpha %g, gamma %g, %d parameters",
            server.beta,
            server.alpha,
            server.gamma,
            server.template.size,
        )

    def start(self, grid: Grid, initial_arrays: ArrayRecord, *args: Any, **kwargs: Any) -> Result:
        """Play rounds, as every strategy of Flower does.

        Parameters
        ----------
        grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn
            As in :meth:`flwr.serverapp.strategy.Strategy.start`, with two differences. ``num_rounds`` counts
            those to be played now, and ``server.round`` those there have been; ``config["server-round"]``,
            which agents see, goes on from there. And all agents begin with the initial arrays, also those
            that join later: they are needed again, the same ones, when the server is restarted.

        Returns
        -------
        Result
            ``arrays`` is the server's own model, w_0 + Σ u_N, which no agent gets whole. Metrics of training
            and evaluation are by agent, as ``"ann/accuracy"``; those of training have the agent's
            importance, cosine, quota and norm.

        Raises
        ------
        ValueError
            Where the initial arrays do not have the template's names and shapes, or are not those of the run
            that is in the server's file.
        """
        model = self.begin(initial_arrays)
        result = super().start(grid, model.arrays(), *args, **kwargs)
        result.arrays = model.arrays()  # also where no round was played
        return result

    def begin(self, initial_arrays: ArrayRecord) -> ServerModel:
        """Set what agents begin with, as :meth:`start` does."""
        if self.model is None:
            self.model = ServerModel(self.server, initial_arrays)
        else:
            self.model.check(initial_arrays)
        return self.model

    # ---------------------------------------------------------------------------------------------- rounds

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message a node, with its agent's own reward."""
        nodes = self._sample(grid, self.fraction_train)
        config["server-round"] = self.server.round + 1
        unheard = [node for node in nodes if self._agent_at(node) is None]
        if unheard and self.server.round > 0:  # there may be rewards waiting for them
            logger.info("asking %d nodes who they are", len(unheard))
            asking = self._messages(unheard, MessageType.TRAIN, config)
            self._hear(grid.send_and_receive(asking, timeout=self.roll_call_timeout))
            nodes = [node for node in nodes if self._agent_at(node) is not None]
        return self._messages(nodes, MessageType.TRAIN, config)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Play a round of the server with all updates that came."""
        heard = self._hear(replies)
        for agent, (answer, _) in heard.items():
            if answer.update is not None:
                with suppress(Refused):  # the server has logged it
                    self.server.upload(agent, answer.update)
        metrics = _by_agent(heard)
        if not self.server.uploaded:
            logger.warning("round %d of Flower: no update came, the server plays no round", server_round)
            return None, metrics or None
        record = self.server.step()
        model = self._begun()
        model.move()
        metrics.update(_of_round(record))
        return model.arrays(), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message a node; each agent evaluates its own model, with the reward it has just earned."""
        config["server-round"] = self.server.round
        heard = [node for node in grid.get_node_ids() if self._agent_at(node) and node not in self._silent]
        nodes = random.sample(heard, _part(len(heard), self.fraction_evaluate))
        return self._messages(nodes, MessageType.EVALUATE, config)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Every agent's own metrics."""
        return _by_agent(self._hear(replies, forget=False)) or None

    # -------------------------------------------------------------------------------------------- messages

    def _sample(self, grid: Grid, fraction: float) -> list[int]:
        if fraction == 0:
            return []
        _, connected = sample_nodes(grid, self.min_available_nodes, 0)  # waits for them
        self._nodes = {node: agent for node, agent in self._nodes.items() if node in connected}
        return random.sample(connected, _part(len(connected), fraction))

    def _agent_at(self, node: int) -> str | None:
        """Who is at a node, if somebody was heard from there who has not left the server since."""
        agent = self._nodes.get(node)
        return agent if agent in self.server.agents else None

    def _begun(self) -> ServerModel:
        if self.model is None:
            raise ValueError("GradientRewardStrategy: expected start() or begin() first")
        return self.model

    def _messages(self, nodes: list[int], message_type: str, config: ConfigRecord) -> list[Message]:
        """Rewards for nodes whose agent is known; the initial arrays for the others."""
        self._asked = {node: self._agent_at(node) for node in nodes}
        agents = [agent for agent in self._asked.values() if agent is not None]
        rewards = self.server.encode_all(agents, dtype=self.dtype)
        model, template = self._begun(), self.server.template
        names = list(template.names or ())
        ties = [name for pair in template.ties.items() for name in pair]
        messages = []
        for node, agent in self._asked.items():
            content = RecordDict({self.configrecord_key: config})
            told = ToAgent(agent, self.server.round, model.run or None)
            if agent is None:
                content[self.arrayrecord_key] = model.initial
                told._replace(names=names, ties=ties).write(content)
            else:
                told._replace(reward=rewards.get(agent)).write(content)
            messages.append(Message(content, dst_node_id=node, message_type=message_type))
        return messages

    def _hear(
        self, replies: Iterable[Message], *, forget: bool = True
    ) -> dict[str, tuple[FromAgent, RecordDict]]:
        """Who answered what; they are members then, and what they acknowledge is acknowledged.

        Nodes that answer with an error are asked anew who they are, if they are to be forgotten.
        """
        answers: list[tuple[int, FromAgent, RecordDict]] = []
        silent = dict(self._asked)
        for message in replies:
            node = message.metadata.src_node_id
            silent.pop(node, None)
            try:
                if message.has_error():
                    raise ValueError(message.error.reason)
                answers.append((node, FromAgent.read(message.content), message.content))
            except ValueError as error:
                self._warn(node, error, forget)
        self._silent = set(silent)
        if silent:
            names = [agent or f"node {node}" for node, agent in silent.items()]
            logger.warning("%d of %d are absent: %s", len(silent), len(self._asked), ", ".join(names))

        # By name, so that agents join in one order whoever is first; of two, the one that was asked by name.
        answers.sort(key=lambda each: (each[1].agent, self._asked.get(each[0]) is None, each[0]))
        heard: dict[str, tuple[FromAgent, RecordDict]] = {}
        for node, answer, content in answers:
            try:
                self._admit(node, answer, heard)
                heard[answer.agent] = answer, content
            except ValueError as error:
                self._warn(node, error, forget)
        return heard

    def _warn(self, node: int, error: ValueError, forget: bool) -> None:
        logger.warning("node %d, agent %r: %s", node, self._nodes.get(node), error)
        if forget:
            self._nodes.pop(node, None)

    def _admit(self, node: int, answer: FromAgent, heard: Collection[str]) -> None:
        """Check who answers, then take it in: as a member, at this node, with what it acknowledges."""
        agent, asked = answer.agent, self._asked.get(node)
        if asked not in (None, agent):
            raise ValueError(
                f"expected an answer of {asked!r}, got one of {agent!r}: it will be asked who it is"
            )
        if agent in heard:
            raise ValueError(f"expected one node an agent, got another that says it is {agent!r}")
        if answer.round > self.server.round:
            raise ValueError(
                f"expected a round up to {self.server.round}, the last this server knows of, "
                f"got {answer.round} of agent {agent!r}"
            )
        if agent not in self.server.agents:
            if self.agents is not None and agent not in self.agents:
                raise ValueError(f"expected an agent that may join, got {agent!r}")
            self.server.join(agent)
        if answer.round >= 0:
            self.server.acknowledge(agent, answer.round)
        self._nodes = {each: name for each, name in self._nodes.items() if name != agent}
        self._nodes[node] = agent


def _by_agent(heard: dict[str, tuple[FromAgent, RecordDict]]) -> MetricRecord:
    """Metrics of all agents, as ``"agent/metric"``."""
    return MetricRecord(
        {
            f"{agent}/{name}": value
            for agent, (_, content) in heard.items()
            for record in content.metric_records.values()
            for name, value in record.items()
        }
    )


def _of_round(record: Round) -> MetricRecord:
    """What the server decided, of the round and of each agent."""
    metrics = MetricRecord(
        {"round": record.round, "share": record.share, "refused": record.refused, "seconds": record.seconds}
    )
    for i, agent in enumerate(record.agents):
        metrics[f"{agent}/importance"] = record.importance[i]
        metrics[f"{agent}/cosine"] = record.cosines[i]
        metrics[f"{agent}/quota"] = record.quotas[i]
        metrics[f"{agent}/norm"] = record.norms[i]
    return metrics


def _part(n: int, fraction: float) -> int:
    """How many of n nodes: one at least, unless none is there or wanted."""
    return min(n, max(1, int(n * fraction))) if fraction > 0 else 0


def _fraction(name: str, value: float) -> float:
    found = _checks.number("GradientRewardStrategy", name, value)
    if not 0 <= found <= 1:
        raise ValueError(f"GradientRewardStrategy(): expected {name} from 0 to 1, got {found:g}")
    return found
