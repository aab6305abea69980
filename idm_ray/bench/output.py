"""What a part found: tables to read, and everything as plain data."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

Say = Callable[[str], None]
"""Told what is being measured now."""


@dataclass(frozen=True)
class Table:
    """A table, its cells as text; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What a part found.

    Attributes:
        tables: for people.
        settings: plain data, what was run.
        measurements: plain data, all raw figures.
    """

    tables: tuple[Table, ...]
    settings: dict[str, Any]
    measurements: list[dict[str, Any]] = field(default_factory=list)


def show(table: Table, console: Console) -> None:
    """Print a table and its notes."""
    shown = RichTable()
    for index, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if index else "left")
    for row in table.rows:
        shown.add_row(*row)
    console.print(table.title, style="bold", highlight=False, markup=False, soft_wrap=True)
    if table.rows:
        console.print(shown)
    for note in table.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    console.print()


def markdown(table: Table) -> str:
    """A table with its title before it and its notes behind it, in Markdown."""
    lines = [" | ".join(row) for row in (table.columns, ["---"] * len(table.columns), *table.rows)]
    return "\n".join([f"### {table.title}", "", *(f"| {line} |" for line in lines), "", *table.notes, ""])


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Raw seconds with their median, smallest and largest."""
    return {
        "seconds": list(seconds),
        "median": statistics.median(seconds),
        "min": min(seconds),
        "max": max(seconds),
    }


def ratio(reference: Sequence[float], seconds: Sequence[float]) -> float:
    """How many times faster: the median over turns, as both had their turn at about the same time."""
    pairs = zip(reference, seconds, strict=True)
    return statistics.median(base / max(mine, 1e-9) for base, mine in pairs)


def text(seconds: float) -> str:
    """Three figures that matter: ``12.3``, ``0.0123``."""
    return f"{seconds:.3g}"


def times(factor: float | None) -> str:
    """``2.50x``, or ``-`` where it is not known."""
    return "-" if factor is None else f"{factor:.2f}x"
