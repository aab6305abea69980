"""A result as a plot: ours with deviations over nets, and the figures that the paper prints."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from idm_ray.paper.experiments import Axis
from idm_ray.paper.result import Result
from idm_ray.runtime.files import write_bytes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which colour-blind people tell apart."""
MARKERS = "os^Dv<>"
SIZE = (6.4, 4.4)
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "idm_ray",  # the same plot is the same file
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(result: Result, axis: Axis, stem: Path) -> list[Path]:
    """Write the plot.

    Args:
        result: what to draw.
        axis: the horizontal one.
        stem: of the files; ``.png`` and ``.svg`` are added.

    Returns:
        the files.
    """
    with mpl.rc_context(STYLE):
        panels = _panels(result)
        figure = Figure(figsize=(SIZE[0] * (1 if len(panels) == 1 else 1.7), SIZE[1]), layout="constrained")
        figure.suptitle(f"{result.title}\n{result.where}", fontsize=11)
        shared = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (name, rows) in zip(shared, panels.items(), strict=True):
            _draw_panel(axes, result, axis, rows, name)
        shared[0].set_ylabel(result.experiment.value_label)
        return [_save(figure, stem.with_name(f"{stem.name}.{kind}"), kind) for kind in ("png", "svg")]


def _panels(result: Result) -> dict[str, list[str]]:
    """The rows of each panel by its name: what stands after the comma in the rows' labels, if anything does."""
    panels: dict[str, list[str]] = {}
    for row in result.rows:
        panels.setdefault(row.partition(", ")[2], []).append(row)
    return panels


def _draw_panel(axes: Axes, result: Result, axis: Axis, rows: Sequence[str], name: str) -> None:
    for index, row in enumerate(rows):
        colour = COLOURS[index % len(COLOURS)]
        _draw_ours(axes, result, row, colour, MARKERS[index % len(MARKERS)])
        _draw_published(axes, result, row, colour)
    if axis.logarithmic:
        axes.set_xscale("log")
    places = sorted({column for _, column in result.keys if isinstance(column, int | float)})
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.minorticks_off()
    axes.set_xlabel(axis.label)
    axes.set_title(name, fontsize=10)
    axes.legend(fontsize=8)


def _draw_ours(axes: Axes, result: Result, row: str, colour: str, marker: str) -> None:
    cells = [cell for key in result.keys if key[0] == row and (cell := result.ours.get(key)) and cell.runs]
    label = f"{row.partition(', ')[0]}, ours"
    along = [cell for cell in cells if isinstance(cell.column, int | float)]
    if along:
        places = [float(cell.column) for cell in along]
        means, deviations = [cell.mean for cell in along], [cell.std for cell in along]
        axes.errorbar(places, means, deviations, label=label, capsize=3, linewidth=1.5, markersize=5,
                      color=colour, marker=marker)  # fmt: skip
    for cell in cells:
        if cell.column == "":
            axes.axhline(cell.mean, color=colour, linestyle="--", linewidth=1.5, label=label)
            axes.axhspan(cell.mean - cell.std, cell.mean + cell.std, color=colour, alpha=0.12, linewidth=0)


def _draw_published(axes: Axes, result: Result, row: str, colour: str) -> None:
    label = f"{row.partition(', ')[0]}, published"
    known = {column: published for (name, column), published in result.published.items() if name == row}
    along = {float(column): published for column, published in known.items() if column != ""}
    if along:
        means, deviations = ([p.mean for p in along.values()], [p.std or 0.0 for p in along.values()])
        axes.errorbar(list(along), means, deviations, label=label, linestyle="none", marker="*", markersize=13,
                      color=colour, markerfacecolor="white", markeredgewidth=1.3, capsize=3, zorder=3)  # fmt: skip
    if "" in known:
        axes.axhline(known[""].mean, color=colour, linestyle=":", linewidth=1.5, label=label)


def _save(figure: Figure, path: Path, kind: str) -> Path:
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    write_bytes(path, buffer.getvalue())
    return path
