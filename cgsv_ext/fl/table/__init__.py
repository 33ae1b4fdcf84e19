"""The paper's Tables 1 to 3, what to read beside them, and what adversaries get.

``table_specs`` says which runs a table needs; the tables are functions of runs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..record import Run
from .adversary import adversaries, adversary_specs
from .beside import fairness
from .paper import table_1, table_2, table_3
from .rows import write_csv
from .specs import BETAS, PARTITIONS, table_specs, with_betas
from .text import Table, as_markdown, show

__all__ = [
    "BETAS",
    "PARTITIONS",
    "TABLES",
    "Table",
    "adversaries",
    "adversary_specs",
    "as_markdown",
    "fairness",
    "show",
    "table_1",
    "table_2",
    "table_3",
    "table_specs",
    "with_betas",
    "write_csv",
]

TABLES: dict[int, Callable[[Iterable[Run]], list[Table]]] = {1: table_1, 2: table_2, 3: table_3}
"""Each takes any runs and gives a table for every dataset and N; none where there is nothing to show."""
