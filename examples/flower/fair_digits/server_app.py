"""The server's side: rounds in which agents are rewarded, and what came of them."""

from __future__ import annotations

import math
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from cgsv_ext import RewardServer
from cgsv_ext.fl import rho
from cgsv_ext.flower import GradientRewardStrategy

from .task import WRONG, new_model

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Play the rounds that the run's configuration says."""
    config = context.run_config
    path = Path(config["folder"], "server.safetensors")
    server = RewardServer(new_model(), gamma=config["gamma"], beta=config["beta"], path=path)
    strategy = GradientRewardStrategy(
        server,
        min_available_nodes=config["min-agents"],
        fraction_evaluate=config["fraction-evaluate"],
        roll_call_timeout=config["timeout"],
    )
    learning = {key: config[key] for key in ("lr", "epochs", "batch-size")}
    learning["last-round"] = server.round + config["rounds"]
    result = strategy.start(
        grid,
        initial_arrays=ArrayRecord(new_model().state_dict()),
        num_rounds=config["rounds"],
        timeout=config["timeout"],
        train_config=ConfigRecord(learning),
        evaluate_config=ConfigRecord(learning),
    )
    if config["rounds"] in result.evaluate_metrics_clientapp:
        show(server, result.evaluate_metrics_clientapp[config["rounds"]])


def show(server: RewardServer, metrics: MetricRecord) -> None:
    """Print what came of it, for the agents that answered in the last round."""
    agents = [agent for agent in server.agents if f"{agent}/alone" in metrics]
    own, alone = ([metrics[f"{agent}/{name}"] for agent in agents] for name in ("accuracy", "alone"))
    print("agent   wrong labels   importance   accuracy   alone")
    for agent, mine, before in zip(agents, own, alone, strict=True):
        wrong, importance = WRONG[int(agent)], server.importance[agent]
        print(f"{agent:5} {wrong:14.0%} {importance:12.3f} {mine:10.1%} {before:7.1%}")
    fairness = rho(alone, own)
    print(f"after {server.round} rounds; fairness rho = {math.nan if fairness is None else fairness:.1f}")
