"""A Flower grid whose nodes are calls of a ClientApp in this process, so that tests decide what fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

RUN = 7


class InProcessGrid(Grid):
    """Nodes by id; `down` ones are listed and never answer, answers of `deaf` ones are lost on their way."""

    def __init__(self, app: ClientApp, agents: Iterable[str]) -> None:
        with suppress(ImportError):  # where a Message wants to know which task it is written by
            from flwr.supercore.task_identity import TaskIdentity

            TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN, 1, 1
        self.app = app
        self.nodes: dict[int, str] = {}
        self.down: set[int] = set()
        self.deaf: set[int] = set()
        self.sent: list[Message] = []
        self.tamper: Callable[[Message], Message] = lambda reply: reply
        self._next = 100
        for agent in agents:
            self.connect(agent)

    def connect(self, agent: str) -> int:
        """A node that has not been there before, as after a restart."""
        self._next += 1
        self.nodes[self._next] = agent
        return self._next

    def node(self, agent: str) -> int:
        return next(node for node, name in self.nodes.items() if name == agent)

    def restart(self, agent: str) -> int:
        del self.nodes[self.node(agent)]
        return self.connect(agent)

    def get_node_ids(self) -> list[int]:
        return list(self.nodes)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        replies = []
        for message in messages:
            self.sent.append(message)
            node = message.metadata.dst_node_id
            if node in self.down:
                continue
            config = {"agent": self.nodes[node]}
            context = Context(RUN, node, config, RecordDict(), {})
            # Records are shared between messages of a round, and handlers take them out of their own.
            received = Message(RecordDict(dict(message.content)), node, message.metadata.message_type)
            try:
                reply = self.app(received, context)
            except Exception as error:
                reply = Message(Error(0, f"{type(error).__name__}: {error}"), reply_to=received)
            reply.metadata.__dict__["_src_node_id"] = node
            if node not in self.deaf:
                replies.append(self.tamper(reply))
        return replies

    # What Flower's strategies do not use.

    run = property(lambda self: None)
    set_run = create_message = push_messages = pull_messages = get_nodes = NotImplemented
