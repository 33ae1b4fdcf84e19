"""A server for agents who join, leave, fail and return, whose rewards are neither lost nor given twice.

``server.py`` is the whole of it, on top of ``template.py`` (how a model's tensors lie in a row),
``members.py`` (who takes part, and partial participation), ``ledger.py`` (rewards not yet acknowledged),
``state.py`` (files), ``records.py`` and ``monitor.py`` (what is told of it).
"""

from .records import AgentId, Refusal, Refused, Round
from .server import RewardServer
from .template import Template

__all__ = ["AgentId", "Refusal", "Refused", "RewardServer", "Round", "Template"]
