"""Fair rewards for agents in federated learning: cosine gradient Shapley values and sparsified downloads.

One round, for N updates of D elements and the importance of the round before::

    step = cgsv_ext.reward_step(updates, importance)

after which agent i adds ``step.rewards[i]`` to its parameters and the server keeps ``step.importance``.
:class:`RewardServer` does that for agents who come and go, and outlives crashes.
"""

from typing import TYPE_CHECKING

from . import _load

__version__ = "0.1.0"

__all__ = [
    "Aggregation",
    "Estimate",
    "Refused",
    "Reward",
    "RewardServer",
    "RewardStep",
    "Selection",
    "Template",
    "aggregate",
    "build_info",
    "decode",
    "download",
    "download_",
    "encode",
    "encode_all",
    "gram",
    "minimum_beta",
    "norms",
    "pack_row_",
    "quotas",
    "reference",
    "reward_step",
    "select",
    "shapley",
    "update_importance",
]

if TYPE_CHECKING or _load.error is None:
    from . import reference, shapley
    from ._load import build_info
    from .pack import pack_row_
    from .reward import (
        aggregate,
        download,
        download_,
        gram,
        minimum_beta,
        norms,
        quotas,
        reward_step,
        select,
        update_importance,
    )
    from .server import Refused, RewardServer, Template
    from .types import Aggregation, Estimate, Reward, RewardStep, Selection
    from .wire import decode, encode, encode_all
else:

    def __getattr__(name: str) -> object:
        """Without its library the package is only good for ``python -m cgsv_ext.collect_env``."""
        if name in __all__:
            _load.require()
        raise AttributeError(f"module 'cgsv_ext' has no attribute {name!r}")
