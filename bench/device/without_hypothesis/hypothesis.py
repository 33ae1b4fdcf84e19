"""Stands in for hypothesis where it is not installed: tests that need it are skipped, the others run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


class _Anything:
    """Whatever is asked of it."""

    def __getattr__(self, name: str) -> _Anything:
        return self

    def __call__(self, *arguments: Any, **options: Any) -> _Anything:
        return self

    def __or__(self, other: Any) -> _Anything:
        return self


class settings:
    """Decorates without effect."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def __call__(self, test: Any) -> Any:
        return test

    register_profile = load_profile = staticmethod(lambda *arguments, **options: None)


def given(*arguments: Any, **named: Any) -> Callable[[Any], Any]:
    """Skips the test before anyone asks for the arguments that are not there."""
    return pytest.mark.skip(reason="needs hypothesis")


strategies: Any = _Anything()
assume: Any = _Anything()
HealthCheck: Any = _Anything()
