"""The ops that a rank computes of its own columns."""

from .. import _partial as core

__all__ = ["core"]
