"""The agents' side: an app as for FedAvg, and one mod."""

from __future__ import annotations

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from cgsv_ext.flower import RewardMod

from . import task

app = ClientApp()
mods = [RewardMod("state")]  # the folder for agents' parameters, below the one their SuperNode was started in


@app.train(mods=mods)
def train(message: Message, context: Context) -> Message:
    """Train on from the parameters in the message, and reply with what became of them."""
    model, config = received(message), message.content["config"]
    loss = learn(model, context, config, config["server-round"])
    arrays, metrics = ArrayRecord(model.state_dict()), MetricRecord({"loss": loss})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate(mods=mods)
def evaluate(message: Message, context: Context) -> Message:
    """Test the parameters in the message; in the last round also a model that learned alone."""
    metrics = MetricRecord({"accuracy": task.accuracy(received(message))})
    config = message.content["config"]
    if config["server-round"] == config["last-round"]:
        alone = task.new_model()
        for t in range(config["last-round"]):
            learn(alone, context, config, t + 1)
        metrics["alone"] = task.accuracy(alone)
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def received(message: Message) -> nn.Module:
    """Return a model with the parameters in the message: the agent's own, all rewards added."""
    model = task.new_model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return model


def learn(model: nn.Module, context: Context, config: ConfigRecord, t: int) -> float:
    """Train for a round as the server's configuration says, on the data of this node's agent."""
    settings = {"epochs": config["epochs"], "batch_size": config["batch-size"], "lr": config["lr"]}
    return task.train(model, context.node_config["partition-id"], t, **settings)
