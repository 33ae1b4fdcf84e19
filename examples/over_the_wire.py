"""Server and agents in processes of their own: rewards as bytes, and agents that die at the worst moments.

    python examples/over_the_wire.py [FOLDER]

Each agent keeps its parameters and the last round that is in them in one file, and begins every conversation
with that round. So each reward arrives exactly once, and the result is that of `reward_server.py` to the bit.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from copy import deepcopy
from multiprocessing import connection, get_context
from pathlib import Path
from struct import Struct

import torch
from task import DATA, new_model, show, train
from torch.nn.utils import parameters_to_vector

import cgsv_ext

ROUNDS = 25
ROUND = Struct("<q")
DEATHS = {("bob", 5): "before it kept its reward", ("cleo", 9): "before it acknowledged its reward"}


def agent(name: str, folder: Path, pipe: connection.Connection, died: set[tuple[str, int]]) -> None:
    """Fetch the reward, keep it, learn, send the update; in a process of its own."""
    model, applied, file = new_model(), 0, folder / f"{name}.pt"
    template = cgsv_ext.Template(model)
    if file.exists():
        state, applied = torch.load(file)
        model.load_state_dict(state)
    while applied < ROUNDS:
        pipe.send_bytes(ROUND.pack(applied))  # up to here it is in my parameters
        reward = cgsv_ext.decode(pipe.recv_bytes(), size=template.size)
        death = None if (name, reward.round) in died else DEATHS.get((name, reward.round))
        if death == "before it kept its reward":
            os._exit(1)
        template.add_(model, reward.flat)
        applied = reward.round
        torch.save((model.state_dict(), applied), file.with_suffix(".new"))
        os.replace(file.with_suffix(".new"), file)
        if death == "before it acknowledged its reward":
            os._exit(1)
        local = deepcopy(model)
        train(local, name)
        update = parameters_to_vector(local.parameters()) - parameters_to_vector(model.parameters())
        pipe.send_bytes(ROUND.pack(applied) + update.detach().numpy().tobytes())


class Service:
    """The server's side: answers each agent, and starts those that have died again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes = get_context("spawn")
        self.died: set[tuple[str, int]] = set()
        self.server = self.new_server()
        for name in DATA:
            if name not in self.server.agents:
                self.server.join(name)
        self.pipes = {name: self.start(name) for name in DATA}

    def new_server(self) -> cgsv_ext.RewardServer:
        """Make a server that knows what is in its file."""
        server = cgsv_ext.RewardServer(new_model(), gamma=0.2, path=self.folder / "server.safetensors")
        with suppress(FileNotFoundError):  # where there is none yet
            server.load()
        return server

    def start(self, name: str) -> connection.Connection:
        """Start an agent's process, and return the server's end of the pipe to it."""
        own, other = self.processes.Pipe()
        self.processes.Process(target=agent, args=(name, self.folder, other, self.died), daemon=True).start()
        other.close()
        return own

    def answer(self, name: str) -> None:
        """Take one message: the round an agent acknowledges, and its update if it has one."""
        try:
            message = self.pipes[name].recv_bytes()
        except EOFError:
            died = name, self.server.round
            print(f"{name} died in round {died[1]}, {DEATHS[died]}")
            self.died.add(died)
            self.pipes[name] = self.start(name)
            return
        self.server.acknowledge(name, *ROUND.unpack_from(message))
        if len(message) > ROUND.size:
            values = torch.frombuffer(bytearray(message), dtype=torch.float32, offset=ROUND.size)
            self.server.upload(name, values)
        else:
            self.pipes[name].send_bytes(self.server.encode(name))

    def run(self) -> None:
        """Play all rounds, and see that the last rewards arrive."""
        while self.server.round < ROUNDS:
            for name in DATA:
                while name not in self.server.uploaded:
                    self.answer(name)
            self.server.step()
            if self.server.round == 12:
                print("the server is replaced by what is in its file")
                self.server = self.new_server()
        for name in DATA:
            while self.server.pending(name):
                self.answer(name)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    service = Service(folder)
    service.run()
    models = {name: new_model() for name in DATA}
    for name, model in models.items():
        model.load_state_dict(torch.load(folder / f"{name}.pt")[0])
    show(models, service.server.importance)
