"""What a server does with a round's updates: one small class per mechanism.

A mechanism keeps its own state from round to round. Given the updates it says how the server's model
moves and what each agent downloads; ``download_`` then hands the downloads out. ``MECHANISMS`` lists
them under their names.
"""

from __future__ import annotations

from .averaging import FedAvg, FedAvgNormalised
from .base import SETTINGS, Mechanism, Outcome, Server, download_
from .cffl import CFFL
from .cgsv import CGSV
from .dw import DW
from .eci import ECI
from .eu import EU
from .qffl import QFFL
from .rr import RR
from .standalone import Standalone

__all__ = [
    "CFFL",
    "CGSV",
    "DW",
    "ECI",
    "EU",
    "MECHANISMS",
    "QFFL",
    "RR",
    "SETTINGS",
    "FedAvg",
    "FedAvgNormalised",
    "Mechanism",
    "Outcome",
    "Server",
    "Standalone",
    "download_",
]

MECHANISMS: dict[str, type[Mechanism]] = {
    "CGSV": CGSV,
    "FedAvg": FedAvg,
    "FedAvgNormalised": FedAvgNormalised,
    "q-FFL": QFFL,
    "CFFL": CFFL,
    "ECI": ECI,
    "DW": DW,
    "RR": RR,
    "EU": EU,
    "standalone": Standalone,
}
