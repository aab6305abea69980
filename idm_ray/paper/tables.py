"""A result as a Markdown table for people and as CSV, one line for each cell."""

import csv
import io

from idm_ray.paper.cells import Cell
from idm_ray.paper.result import Key, Result
from idm_ray.settings.published import CHOSEN_BY, Published

NOTHING = "-"


def markdown(result: Result) -> str:
    """The table with its title, and how it was made."""
    experiment = result.experiment
    lines = [f"# {result.title}", "", f"{experiment.value_label.capitalize()}; {result.where}.", ""]
    if result.request.mark:
        lines += [
            f"**{result.request.mark}**: iterations, epochs and repeats are {result.request.scale:g} times the "
            "published ones, or as the command line said, so the published figures are no measure for ours.",
            "",
        ]
    lines += _narrow(result) if experiment.kind == "accuracy" else _wide(result)
    return "\n".join([*lines, "", *_notes(result)]) + "\n"


def as_csv(result: Result) -> str:
    """A line for each cell, with all that belongs to it."""
    dataset, ipc = result.request.place
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ("experiment", "dataset", "ipc", "scaled", "row", "column", "published", "published_std", "ours", "ours_std",
         "difference", "nets", "epochs", "iterations", "condense_seconds", "shared_seconds", "evaluate_seconds",
         "device", "commit", "source", "chosen_by", "selected", "error")
    )  # fmt: skip
    for key in result.keys:
        cell, known = result.ours.get(key), result.published.get(key)
        writer.writerow(
            (result.experiment.name, dataset, ipc, f"{result.request.scale:g}", *key, *_published_cells(known),
             *_our_cells(cell, known), *_facts(cell))
        )  # fmt: skip
    return text.getvalue()


def value_text(cell: Cell | None) -> str:
    """``41.21 +- 0.37``; one net has no deviation."""
    if cell is None:
        return NOTHING
    if not cell.runs:
        return "failed"
    return f"{cell.mean:.2f} +- {cell.std:.2f}" if len(cell.runs) > 1 else f"{cell.mean:.2f}"


def published_text(published: Published | None) -> str:
    """``58.6 +- 0.1``."""
    return NOTHING if published is None else published.text


def difference(cell: Cell | None, published: Published | None) -> float | None:
    """Ours minus the published figure, in percentage points."""
    return None if cell is None or not cell.runs or published is None else cell.mean - published.mean


def _narrow(result: Result) -> list[str]:
    axis, chosen = result.experiment.axis, any(row in CHOSEN_BY for row in result.rows)
    place = [axis.label] if axis else []
    by = ["chosen by"] if chosen else []
    lines = _head([result.experiment.row_label, *place, "published", *by, "ours", "difference", "how"])
    for key in result.keys:
        cell, known = result.ours.get(key), result.published.get(key)
        shown = [f"{key[1]:g}" if isinstance(key[1], int | float) else NOTHING] if axis else []
        by = [CHOSEN_BY.get(key[0], NOTHING)] if chosen else []
        ours = value_text(cell), _signed(cell, known), _how(cell)
        lines.append(_line([key[0], *shown, published_text(known), *by, *ours]))
    return lines


def _wide(result: Result) -> list[str]:
    experiment, columns = result.experiment, result.columns(result.keys)
    lines = _head([f"{experiment.row_label} / {experiment.column_label}", *map(str, columns)])
    for row in result.rows:
        lines.append(_line([row, *(_both(result, (row, column)) for column in columns)]))
    return [*lines, "", "In parentheses: the published figure, and ours minus it."]


def _both(result: Result, key: Key) -> str:
    cell, known = result.ours.get(key), result.published.get(key)
    if known is None:
        return value_text(cell) if cell else ""
    return f"{value_text(cell)} ({published_text(known)}, {_signed(cell, known)})"


def _signed(cell: Cell | None, published: Published | None) -> str:
    points = difference(cell, published)
    return NOTHING if points is None else f"{points:+.2f}"


def _how(cell: Cell | None) -> str:
    if cell is None:
        return "not run"
    if not cell.runs:
        return cell.error
    selected = f", {cell.selected}" if cell.selected else ""
    nets = f"{_count(len(cell.runs), 'net')}, {_count(cell.epochs, 'epoch')}{selected}"
    how = f"{_count(cell.iterations, 'iteration')}; {nets}" if cell.iterations else nets
    return f"{how}; not all: {cell.error}" if cell.error else how


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _notes(result: Result) -> list[str]:
    notes = [
        f"Ours: mean and deviation over nets, from {', '.join(dict.fromkeys(c.source for c in result.cells))}."
    ]
    if result.experiment.kind != "accuracy":
        notes.append(f"Measured with {'; '.join(dict.fromkeys(map(_how, result.cells)))}.")
    for what in ("device", "commit"):
        known = dict.fromkeys(value for cell in result.cells if (value := getattr(cell, what)))
        if known:
            notes.append(f"{what.capitalize()}: {'; '.join(known)}.")
    return [line for note in notes for line in (note, "")][:-1]


def _published_cells(published: Published | None) -> tuple[str, str]:
    if published is None:
        return "", ""
    return f"{published.mean:g}", "" if published.std is None else f"{published.std:g}"


def _our_cells(cell: Cell | None, published: Published | None) -> tuple[str, str, str]:
    if cell is None or not cell.runs:
        return "", "", ""
    points = difference(cell, published)
    return f"{cell.mean:.4f}", f"{cell.std:.4f}", "" if points is None else f"{points:+.4f}"


def _facts(cell: Cell | None) -> tuple[object, ...]:
    if cell is None:
        return ("",) * 12
    seconds = (
        f"{value:.1f}" for value in (cell.condense_seconds, cell.shared_seconds, cell.evaluate_seconds)
    )
    return (
        len(cell.runs),
        cell.epochs,
        cell.iterations,
        *seconds,
        cell.device,
        cell.commit,
        cell.source,
        CHOSEN_BY.get(cell.row, ""),
        cell.selected,
        cell.error,
    )


def _head(names: list[str]) -> list[str]:
    return [_line(names), _line(["---"] * len(names))]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
