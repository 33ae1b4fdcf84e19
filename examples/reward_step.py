"""Fair rewards in a loop of your own: plain `cgsv_ext.reward_step`, everything in one process.

python examples/reward_step.py
"""

from __future__ import annotations

import torch
from task import DATA, new_model, show, train
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import cgsv_ext

ROUNDS = 25

models = {name: new_model() for name in [*DATA, "server"]}
server = parameters_to_vector(models["server"].parameters()).detach()
parameters = server.repeat(len(DATA), 1)  # a row an agent
importance = torch.zeros(len(DATA))

for _ in range(ROUNDS):
    updates = torch.empty_like(parameters)
    for i, name in enumerate(DATA):
        model = models[name]
        vector_to_parameters(parameters[i].clone(), model.parameters())
        train(model, name)
        updates[i] = parameters_to_vector(model.parameters()).detach() - parameters[i]
    step = cgsv_ext.reward_step(updates, importance, gamma=0.2)
    parameters += step.rewards  # each agent its own share
    server += step.aggregate
    importance = step.importance

for model, row in zip(models.values(), [*parameters, server], strict=True):
    vector_to_parameters(row, model.parameters())
show(models, dict(zip(DATA, importance.tolist(), strict=True)))
