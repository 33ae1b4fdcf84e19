"""Fair rewards with a `cgsv_ext.RewardServer`: a run that can be killed at any moment, and then goes on.

    python examples/reward_server.py [FOLDER]

Files are kept in FOLDER. Kill the run and start it again: the models end with the same bits.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

import torch
from task import DATA, new_model, show, train

import cgsv_ext

ROUNDS = 25
folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
folder.mkdir(exist_ok=True)

server = cgsv_ext.RewardServer(new_model(), gamma=0.2, path=folder / "server.safetensors")
models = {name: new_model() for name in [*DATA, "server"]}
applied = dict.fromkeys(models, 0)  # the last round that is in each model


def keep() -> None:
    """Keep models together with the round that each contains: all of it or nothing.

    That is so when the process is killed; for power cuts the file would have to be synced first.
    """
    states = {name: model.state_dict() for name, model in models.items()}
    torch.save((states, applied), folder / "models.new")
    os.replace(folder / "models.new", folder / "models.pt")


def collect() -> None:
    """Bring all models up to date with the server."""
    for name in DATA:
        applied[name] = server.download(name, into=models[name]).round
    if applied["server"] < server.round and server.aggregate is not None:
        server.template.add_(models["server"], server.aggregate)
        applied["server"] = server.round
    keep()


with suppress(FileNotFoundError):  # where there is nothing yet to go on from
    server.load()
    states, applied = torch.load(folder / "models.pt")
    for name, state in states.items():
        models[name].load_state_dict(state)
for name in DATA:
    if name not in server.agents:
        server.join(name)
    server.acknowledge(name, applied[name])  # up to here it is in the model
collect()

while server.round < ROUNDS:
    for name in DATA:
        local = deepcopy(models[name])
        train(local, name)
        old = models[name].state_dict()
        server.upload(name, {key: new - old[key] for key, new in local.state_dict().items()})
    server.step()
    collect()

show(models, server.importance)
