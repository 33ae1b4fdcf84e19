"""Fair rewards with a `cgsv_ext.RewardServer`: the shortest loop, everything in one process.

python examples/training_loop.py
"""

from __future__ import annotations

from copy import deepcopy

from task import DATA, new_model, show, train

import cgsv_ext

models = {name: new_model() for name in [*DATA, "server"]}
server = cgsv_ext.RewardServer(models["server"], gamma=0.2)
for name in DATA:
    server.join(name)

for _ in range(25):
    for name in DATA:
        local, old = deepcopy(models[name]), models[name].state_dict()
        train(local, name)
        server.upload(name, {key: new - old[key] for key, new in local.state_dict().items()})
    server.step()
    for name in DATA:
        server.download(name, into=models[name])  # each agent its own share
    server.template.add_(models["server"], server.aggregate)

show(models, server.importance)
