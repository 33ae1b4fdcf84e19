"""The agents' side."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from flwr.app import ArrayRecord, Context, Message, MessageType, RecordDict
from torch import Tensor

from .agent import AgentState, locked
from .records import FromAgent, ToAgent, tensors

logger = logging.getLogger("flwr.cgsv_ext")


def node_name(context: Context) -> str:
    """The node's ``agent`` in its configuration, or its ``partition-id``, which simulations give it."""
    for key in ("agent", "partition-id"):
        if key in context.node_config:
            return str(context.node_config[key])
    raise ValueError(
        "RewardMod: expected the node's configuration to name the agent, as with "
        f"flower-supernode --node-config 'agent=\"ann\"', got {sorted(context.node_config)}"
    )


class RewardMod:
    """Makes an app written for Flower's FedAvg an agent that is rewarded by its contribution.

    ::

        mod = RewardMod("agents")

        @app.train(mods=[mod])
        def train(message, context): ...

        @app.evaluate(mods=[mod])
        def evaluate(message, context): ...

    The app finds the agent's own parameters in the message, all rewards added, where FedAvg puts the global
    ones; it replies with the trained ones, and the mod sends their difference, Δw_i. What training did to the
    parameters is undone, as in the paper: the agent goes on from its rewards alone.

    Parameters
    ----------
    folder : path-like
        Where each agent of this machine keeps its parameters, in a file of its own; from where the SuperNode
        was started, if it is relative. Without its file an agent would have to begin anew.
    name : callable
        Who an agent is, from Flower's context; it must not change when the agent is restarted.
    arrayrecord_key : str
        Where the app expects parameters, as for :class:`GradientRewardStrategy`.

    Raises
    ------
    ValueError
        From the call, which the server sees as an error of the node: for a message of another strategy or
        another run, for an agent without a name, a file that is damaged, and an app that does not reply with
        its parameters.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        name: Callable[[Context], str] = node_name,
        arrayrecord_key: str = "arrays",
    ) -> None:
        self.folder = Path(folder)
        self.name = name
        self.key = arrayrecord_key

    def __call__(
        self, message: Message, context: Context, call_next: Callable[[Message, Context], Message]
    ) -> Message:
        """Take the reward, let the app train or evaluate, answer."""
        agent = self.name(context)
        path = self.folder / file_name(agent)
        told = ToAgent.read(message.content)
        with locked(path):
            state = self._state(path, told, message.content.array_records.get(self.key))
            had = state.since, state.round
            if told.agent is None:  # the server asks who is there; before its first round nothing is owed
                ready = told.round == 0 and state.round <= 0
            else:
                ready = told.agent == agent and state.receive(told)
            if (state.since, state.round) != had:
                state.save(path)
        if not ready:
            logger.info("agent %r answers with its round %d alone", agent, state.round)
            reply = Message(RecordDict(), reply_to=message)
            FromAgent(agent, state.round).write(reply.content)
            return reply
        before = state.values()
        message.content[self.key] = ArrayRecord(before)
        reply = call_next(message, context)
        if reply.has_content():
            update, arrays = None, reply.content.pop(self.key, None)
            if message.metadata.message_type.startswith(MessageType.TRAIN):
                after = self._after(arrays)
                update = state.update(before, after)
                self._keep(path, state.own(after))
            FromAgent(agent, state.round, update).write(reply.content)
        return reply

    def _state(self, path: Path, told: ToAgent, initial: ArrayRecord | None) -> AgentState:
        try:
            state = AgentState.load(path)
        except FileNotFoundError:
            if initial is None:
                raise ValueError(
                    f"RewardMod: expected {path} with the agent's parameters, got no such file: "
                    "the server will send the initial ones"
                ) from None
        else:
            if told.run in (None, state.run):
                return state
            if initial is None or state.round > 0:
                raise ValueError(
                    f"RewardMod: expected a message of the run whose rewards are in {path}, got one of "
                    "another run: remove the file to begin anew"
                )
        # The first message, or the first of another run, of which nothing is in the file yet.
        state = AgentState(tensors(initial), told.names, told.ties, told.run)
        state.save(path)
        return state

    def _after(self, arrays: object) -> dict[str, Tensor]:
        if not isinstance(arrays, ArrayRecord):
            raise ValueError(
                f"RewardMod: expected the app to reply with its parameters as an ArrayRecord {self.key!r}, "
                f"got {type(arrays).__name__}"
            )
        return tensors(arrays)

    def _keep(self, path: Path, own: dict[str, Tensor]) -> None:
        """Keep what is the agent's own, in a file that later messages may have changed."""
        if own:
            with locked(path):
                state = AgentState.load(path)
                state.arrays |= own
                state.save(path)


def file_name(agent: str) -> str:
    """What an agent's file is called: its name, as far as a file's name can hold it."""
    if not agent:
        raise ValueError("RewardMod: expected an agent's name, got an empty one")
    name = quote(agent, safe="")
    if len(name) > 100:
        name = f"{name[:100]}-{sha256(agent.encode()).hexdigest()[:16]}"
    return f"{name}.safetensors"
