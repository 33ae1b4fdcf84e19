"""The same app in one command, with its agents simulated by Flower's Ray backend.

python simulate.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import tomli
from fair_digits import client_app, server_app, task
from flwr.app import Context
from flwr.simulation import run_simulation

PROJECT = tomli.loads(Path(__file__).with_name("pyproject.toml").read_text(encoding="utf-8"))


@server_app.app.lifespan()
def configured(context: Context) -> Iterator[None]:
    """Give the app the configuration that `flwr run` would."""
    context.run_config = PROJECT["tool"]["flwr"]["app"]["config"]
    yield


if __name__ == "__main__":
    one_core = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server_app.app, client_app.app, len(task.WRONG), backend_config=one_core)
