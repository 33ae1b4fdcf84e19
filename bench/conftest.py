from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from race import Race


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="small sizes and few rounds")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        items[:] = [item for item in items if item.get_closest_marker("full") is None]


@pytest.fixture
def quick(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--quick"))


@pytest.fixture
def race(benchmark: BenchmarkFixture, quick: bool) -> Race:
    return Race(benchmark, quick)
