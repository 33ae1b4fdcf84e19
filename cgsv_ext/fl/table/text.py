"""Tables as plain text cells, and numbers with their errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table as RichTable

from ..metrics import mean_and_error


class Table(NamedTuple):
    """A title, a head and rows of equally many cells, whatever they are then rendered to."""

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""


def as_markdown(table: Table) -> str:
    """Render a table with its title above it and its note below."""
    lines = [table.head, ["---"] * len(table.head), *table.rows]
    text = f"**{table.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return text + (f"\n\n{table.note}" if table.note else "")


def show(table: Table, console: Console) -> None:
    """Print a table: cells fold to fit a terminal; a file gets lines as long as they are."""
    rich = RichTable()
    for head in table.head:
        rich.add_column(head, overflow="fold")
    for row in table.rows:
        rich.add_row(*row)
    width = console.width
    if not console.is_terminal:
        console.width = 1000
    console.print(f"\n{table.title}", style="bold", highlight=False)
    console.print(rich)
    if table.note:
        console.print(table.note, style="dim", highlight=False)
    console.width = width


def with_error(values: Sequence[float], digits: int = 1) -> str:
    """Mean ± standard error; one value has no error."""
    mean, error = mean_and_error(values)
    return f"{mean:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def or_undefined(values: Sequence[float | None], digits: int = 1) -> str:
    """Mean ± standard error of the values that are defined; those that are not are counted."""
    known = [value for value in values if value is not None]
    if not known:
        return "undefined"
    missing = len(values) - len(known)
    return with_error(known, digits) + (f" ({missing} undefined)" if missing else "")


def count_of_seeds(counts: Iterable[int]) -> str:
    """Say how many seeds the numbers of a table are the means of."""
    found = set(counts)
    low, high = min(found), max(found)
    if high == 1:
        return "One seed."
    return f"Means ± standard errors over {low if low == high else f'{low} to {high}'} seeds."


def seconds(values: Sequence[float]) -> str:
    """Seconds to three significant digits, with their standard error."""
    mean, error = mean_and_error(values)
    return f"{mean:.3g}" + ("" if error is None else f" ± {error:.1g}")
