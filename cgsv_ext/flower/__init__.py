"""Fair rewards in Flower: a strategy for the server's app and a mod for the agents' one.

Needs the extra ``cgsv_ext[flower]``. On the server's side::

    server = cgsv_ext.RewardServer(model, path="server.safetensors")
    strategy = GradientRewardStrategy(server)
    strategy.start(grid, initial_arrays=ArrayRecord(model.state_dict()), num_rounds=10)

and on the agents' an app as for Flower's FedAvg, with one mod::

    @app.train(mods=[RewardMod("agents")])

docs/flower.md tells what becomes of agents that fail. Here ``strategy`` is the server's side and ``model``
its own model, ``mod`` is the agents' side and ``agent`` what each keeps, ``records`` is what they tell
each other.
"""

try:
    from .mod import RewardMod
    from .strategy import GradientRewardStrategy
except ImportError as error:
    if not (error.name or "").startswith("flwr"):
        raise
    raise ImportError(
        f"cgsv_ext.flower: expected Flower, got {error}: pip install 'cgsv_ext[flower]'", name=error.name
    ) from error

__all__ = ["GradientRewardStrategy", "RewardMod"]
