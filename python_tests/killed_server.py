"""Federations whose processes are killed: what test_server_crash.py starts in a process of its own.

Agents train a small model each, come late, leave and are away. All that they remember is their parameters and
the last round in them, together; all that the server remembers is what it saved.
"""

import contextlib
import json
import multiprocessing.connection
import os
import pickle
import random
import signal
import sys
import threading
import traceback
from pathlib import Path

import torch
from torch import nn

from cgsv_ext import RewardServer, Template, _files, decode
from cgsv_ext.server import server as server_module

torch.set_num_threads(1)  # no thread pool, so that this process may fork

NAMES = ["a", "b", "c", 7]
LATE, FROM, UNTIL = "late", 4, 9
"""An agent that joins for one round and leaves before another."""


def away(name, t):
    """Whether an agent takes no part in a round."""
    return (t + len(str(name)) + NAMES.index(name) if name in NAMES else t) % 4 == 0


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))


class Agent:
    """One agent, and its file where it has one."""

    def __init__(self, name, path=None):
        self.name, self.path, self.model, self.round = name, path, model(), 0
        if path is not None and path.exists():
            state = _files.read(path)
            self.model.load_state_dict(state["model"])
            self.round = state["round"]

    def save(self):
        if self.path is not None:
            _files.write(self.path, {"model": dict(self.model.state_dict()), "round": self.round})

    def fetch(self, server):
        """Take what the server owes it, each reward once, whatever was lost on the way."""
        server.acknowledge(self.name, self.round)
        reward = decode(server.encode(self.name))
        if reward.round > self.round:
            Template(self.model).add_(self.model, reward.flat)
            self.round = reward.round
            self.save()
        server.acknowledge(self.name, self.round)

    def upload(self, server, t):
        """Train for a round, undo it, and hand in what it changed."""
        generator = torch.Generator().manual_seed(1000 * t + len(str(self.name)) + ord(str(self.name)[0]))
        trained = model()
        trained.load_state_dict(self.model.state_dict())
        for _ in range(2):
            x = torch.randn(16, 8, generator=generator)
            loss = nn.functional.cross_entropy(trained(x), x[:, :3].argmax(1))
            for p, g in zip(
                trained.parameters(), torch.autograd.grad(loss, list(trained.parameters())), strict=True
            ):
                p.data -= 0.1 * g
        own = self.model.state_dict()
        server.upload(self.name, {name: value - own[name] for name, value in trained.state_dict().items()})


class Own(Agent):
    """The server's own model, which moves by every aggregate."""

    def fetch(self, server):
        t, aggregate = server.round, server.aggregate
        if t > self.round:
            Template(self.model).add_(self.model, aggregate)
            self.round = t
            self.save()


def new_server(folder):
    server = RewardServer(model(), path=folder / "server", absent="decay", segments="layers")
    with contextlib.suppress(FileNotFoundError):
        server.load()
    return server


def federate(server, agents, own, rounds):
    """Play what is left of so many rounds; each step may be done again after a crash."""
    while True:
        own.fetch(server)
        for name in server.agents:
            agents[name].fetch(server)
        if server.round == rounds:
            return
        t = server.round + 1
        members(server, t)
        for name in server.agents:
            if not away(name, t):
                agents[name].upload(server, t)
        server.step()


def members(server, t):
    """Bring about who takes part from round t on."""
    for name in NAMES if t == 1 else []:
        if name not in server.agents:
            server.join(name)
    if t == FROM and LATE not in server.agents:
        server.join(LATE)
    if t == UNTIL and LATE in server.agents:
        server.leave(LATE)


def result(server, agents, own):
    """All that anybody remembers in the end."""
    models = {name: dict(agent.model.state_dict()) for name, agent in agents.items()}
    return {"agents": models, "own": dict(own.model.state_dict()), "server": server.state_dict()}


# How it ends


PLACES = [
    (RewardServer, "join"),
    (RewardServer, "leave"),
    (RewardServer, "upload"),
    (RewardServer, "step"),
    (RewardServer, "save"),
    (RewardServer, "encode"),
    (RewardServer, "acknowledge"),
    (server_module, "pack_row_"),
    (server_module, "reward_step"),
    (server_module.Members, "settle"),
    (server_module.Ledger, "settle"),
    (Template, "add_"),
    (_files, "_dump"),
    (_files, "_keep"),
    (os, "fsync"),
    (os, "replace"),
    (os, "link"),
]


def doomed(chance, calls, seconds):
    """See to it that this process is killed: before or after a call of something, or at any time."""

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    timer = threading.Timer(chance.random() * seconds, die)
    timer.daemon = True
    timer.start()
    if chance.random() < 0.3:
        return
    where, name = chance.choice(PLACES)
    call, left, after = getattr(where, name), chance.randrange(1, calls), chance.random() < 0.5

    def fatal(*arguments, **options):
        nonlocal left
        left -= 1
        if left == 0 and not after:
            die()
        done = call(*arguments, **options)
        if left == 0:
            die()
        return done

    setattr(where, name, fatal)


def fork(do):
    """Do something in a process of its own."""
    child = os.fork()
    if child:
        return child
    try:
        do()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def was_killed(child):
    """Wait for its end."""
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed"
    return os.WIFSIGNALED(status)


# Who is killed


def all_of_it(folder, rounds, kills, chance):
    """Server and agents in one process, which is killed; how often it was."""

    def all_of_them(doom):
        if doom:
            doomed(doom, 20, 0.1)
        server, own = new_server(folder), Own("own", folder / "own")
        agents = {name: Agent(name, folder / f"agent-{name}") for name in [*NAMES, LATE]}
        federate(server, agents, own, rounds)
        _files.write(folder / "result", result(server, agents, own))

    done = 0
    while True:
        doom = random.Random(chance.random()) if done < kills else None
        if not was_killed(fork(lambda doom=doom: all_of_them(doom))):
            return done
        done += 1


def send(connection, value):
    """Send all of it; torch's own way leaves tensors with a process that may be killed."""
    connection.send_bytes(pickle.dumps(value))


def receive(connection):
    return pickle.loads(connection.recv_bytes())


class Remote:
    """A server in another process."""

    def __init__(self, connection):
        self.connection = connection

    def ask(self, *call):
        send(self.connection, call)
        return receive(self.connection)

    def __getattr__(self, name):
        if name in ("round", "agents", "aggregate"):
            return self.ask(name)
        return lambda *arguments: self.ask(name, *arguments)


def answer(server, connection):
    """Do what is asked at the other end until it is closed."""
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            name, *arguments = receive(connection)
            value = getattr(server, name)
            answered = value(*arguments) if callable(value) else value
            send(connection, None if name == "step" else answered)


def connect(do):
    """Fork with a connection: the child's id, and our end."""
    ours, theirs = multiprocessing.connection.Pipe()

    def child():
        ours.close()
        do(theirs)

    process = fork(child)
    theirs.close()
    return process, ours


def the_server(folder, rounds, kills, chance):
    """The server in a process that is killed, the agents in this one, which is not; how often it was."""
    agents, own, done = {name: Agent(name) for name in [*NAMES, LATE]}, Own("own"), 0

    def serve(connection, doom):
        if doom:
            doomed(doom, 20, 0.1)
        answer(new_server(folder), connection)

    while True:
        doom = random.Random(chance.random()) if done < kills else None
        child, connection = connect(lambda theirs, doom=doom: serve(theirs, doom))
        try:
            federate(Remote(connection), agents, own, rounds)
            found = result(Remote(connection), agents, own)
        except (EOFError, ConnectionError):
            connection.close()
            assert was_killed(child)
            done += 1
        else:
            connection.close()
            done += was_killed(child)
            _files.write(folder / "result", found)
            return done


def an_agent(folder, rounds, kills, chance):
    """Each turn of one agent in a process that may be killed, the rest in this one; how often it was."""
    server, done = new_server(folder), 0

    class Mortal:
        """An agent that is only there when it has something to do."""

        def turn(self, do):
            nonlocal done

            def live(connection, doom):
                if doom:
                    doomed(doom, 3, 0.02)
                do(Agent("b", folder / "agent-b"), Remote(connection))

            while True:
                doom = random.Random(chance.random()) if done < kills else None
                child, connection = connect(lambda theirs, doom=doom: live(theirs, doom))
                answer(server, connection)
                connection.close()
                if not was_killed(child):
                    return
                done += 1

        def fetch(self, server):
            self.turn(lambda agent, server: agent.fetch(server))

        def upload(self, server, t):
            # A process that comes back first sees to what it has missed.
            self.turn(lambda agent, server: (agent.fetch(server), agent.upload(server, t)))

    agents, own = {name: Agent(name) for name in [*NAMES, LATE]}, Own("own")
    federate(server, agents | {"b": Mortal()}, own, rounds)
    agents["b"] = Agent("b", folder / "agent-b")
    _files.write(folder / "result", result(server, agents, own))
    return done


if __name__ == "__main__":
    call = json.loads(sys.argv[1])
    folder = Path(call["folder"])
    all_of_it(folder / "whole", call["rounds"], 0, random.Random())
    killed = {
        kill.__name__: kill(
            folder / kill.__name__, call["rounds"], call["kills"], random.Random(call["seed"])
        )
        for kill in (all_of_it, the_server, an_agent)
    }
    print(json.dumps(killed))
