"""A Flower grid whose nodes are calls of a ClientApp in this process, so that tests decide what fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

try:
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents as inflate
except ImportError:  # an older Flower
    inflate = None

RUN = 7


class InProcessGrid(Grid):
    """Nodes by id, and what happens to them.

    `down` nodes are listed and never answer, answers of `deaf` ones are lost on their way, messages to `late`
    ones arrive when the next are sent, and `twice` to others. All messages go through Flower's serialization.
    """

    def __init__(self, app: ClientApp, agents: Iterable[str]) -> None:
        with suppress(ImportError):  # where a Message wants to know which task it is written by
            from flwr.supercore.task_identity import TaskIdentity

            TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN, 1, 1
        self.app = app
        self.nodes: dict[int, str] = {}
        self.down: set[int] = set()
        self.deaf: set[int] = set()
        self.late: set[int] = set()
        self.twice: set[int] = set()
        self.sent: list[Message] = []
        self.replies: list[Message] = []
        self.timeouts: list[float | None] = []
        self._delayed: list[Message] = []
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
        self.timeouts.append(timeout)
        delayed, self._delayed = self._delayed, []
        for message in delayed:
            if message.metadata.dst_node_id in self.nodes:
                self._deliver(message)  # nobody waits for the answer any more
        for message in messages:
            self.sent.append(message)
            node = message.metadata.dst_node_id
            if node in self.late:
                self._delayed.append(message)
            elif node not in self.down:
                replies += [self._deliver(message) for _ in range(1 + (node in self.twice))][-1:]
        replies = [reply for reply in replies if reply.metadata.src_node_id not in self.deaf]
        self.replies += replies
        return replies

    def _deliver(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        received = Message(transported(message), node, message.metadata.message_type)
        context = Context(RUN, node, {"agent": self.nodes[node]}, RecordDict(), {})
        try:
            reply = self.app(received, context)
            reply.content = transported(reply)
        except Exception as error:
            reply = Message(Error(0, f"{type(error).__name__}: {error}"), reply_to=received)
        reply.metadata.__dict__["_src_node_id"] = node
        return self.tamper(reply)

    # What Flower's strategies do not use.

    run = property(lambda self: None)
    set_run = create_message = push_messages = pull_messages = get_nodes = NotImplemented


def transported(message: Message) -> RecordDict:
    """A message's content as it is after Flower has sent it."""
    if inflate is None:
        return RecordDict(dict(message.content))
    contents = {name: each.deflate() for name, each in get_all_nested_objects(message).items()}
    return inflate(message.object_id, contents).content
