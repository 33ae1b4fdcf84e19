"""The agents' side."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from flwr.app import ArrayRecord, Context, Message, MessageType, RecordDict
from torch import Tensor

from .agent import AgentState
from .records import Answer, Order, tensors

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
        Where each agent of this machine keeps its parameters, in a file of its own. Without it an agent that
        is restarted would have to begin anew.
    name : callable
        Who an agent is, from Flower's context; it must not change when the agent is restarted.
    arrayrecord_key : str
        Where the app expects parameters, as for :class:`GradientRewardStrategy`.

    Raises
    ------
    ValueError
        From the call, which the server sees as an error of the node: for a message of another strategy, for
        an agent without a name, and where the app does not reply with its parameters.
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
        order = Order.read(message.content)
        path = self.folder / f"{quote(agent, safe='')}.safetensors"
        state = self._state(path, order, message.content)
        if order.agent is None:
            ready = order.train and state.round <= order.round
        else:
            ready = order.agent == agent and state.receive(order)
        state.save(path)
        if not ready:
            logger.info("agent %r answers with its round %d alone", agent, state.round)
            reply = Message(RecordDict(), reply_to=message)
            Answer(agent, state.round, None).write(reply.content)
            return reply
        before = state.values()
        message.content[self.key] = ArrayRecord(before)
        reply = call_next(message, context)
        if reply.has_content():
            update = None
            arrays = reply.content.pop(self.key, None)
            if message.metadata.message_type.startswith(MessageType.TRAIN):
                update = self._update(state, path, before, arrays)
            Answer(agent, state.round, update).write(reply.content)
        return reply

    def _state(self, path: Path, order: Order, content: RecordDict) -> AgentState:
        try:
            return AgentState.load(path)
        except FileNotFoundError:
            if self.key not in content:
                raise ValueError(
                    f"RewardMod: expected {path} with the agent's parameters, got no such file: "
                    "the server will send the initial ones"
                ) from None
            return AgentState(tensors(content.array_records[self.key]), order.names)

    def _update(self, state: AgentState, path: Path, before: dict[str, Tensor], arrays: object) -> Tensor:
        if not isinstance(arrays, ArrayRecord):
            raise ValueError(
                f"RewardMod: expected the app to reply with its parameters as an ArrayRecord {self.key!r}, "
                f"got {type(arrays).__name__}"
            )
        after = tensors(arrays)
        update = state.update(before, after)
        if state.keep(after):
            state.save(path)
        return update
