"""Condensed sets on the terminal."""

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from idm_ray.commands.terminal import say, wide_console
from idm_ray.runtime.invocation import command_line
from idm_ray.runtime.words import plural
from idm_ray.sweep.looking.differences import own_settings
from idm_ray.sweep.looking.words import settings_text
from idm_ray.sweep.registry.figures import Figure
from idm_ray.sweep.registry.kept import KeptSet
from idm_ray.sweep.registry.order import incomparable
from idm_ray.sweep.registry.sets import Sets

COLUMNS = {"set": "left", "name": "left", "data": "left", "ipc": "right", "method": "left", "val acc %": "right",
           "test acc %": "right", "figures": "right", "where": "left"}  # fmt: skip
FIGURES = {"measure": "left", "split": "left", "net": "left", "value": "right", "nets": "right", "epochs": "right",
           "seed": "right", "when": "left", "by": "left", "otherwise": "left"}  # fmt: skip
SELECTED = " *"
"""Beside a figure that was selected on what it is judged by."""
FOLDED = ("by", "otherwise")


def show_all(
    sets: Sets, listed: Sequence[KeptSet], among: Sequence[KeptSet], output: Path | str, as_json: bool
) -> int:
    """Print a list; returns the exit code.

    Args:
        sets: all.
        listed: those to print.
        among: those that these were chosen from.
        output: folder of all sweeps, or a URI.
        as_json: print them as JSON.
    """
    if as_json:
        print(json.dumps([kept.plain for kept in listed], indent=2))
    elif listed:
        print(*_list(sets, listed), sep="\n")
    elif sets:
        print(
            f"none of {plural(len(sets), 'condensed set')} in {output} was validated by a sweep",
            file=sys.stderr,
        )
    else:
        print(
            f"there is no condensed set in {output} yet; {command_line('sweep')} finds some", file=sys.stderr
        )
    marked = any(kept.test and kept.test.selected for kept in listed)
    for line in (*incomparable(among), *[f"{SELECTED.strip()} selected on test"] * marked, *sets.problems):
        print(f"note: {line}", file=sys.stderr)
    return 0


def show(sets: Sets, kept: KeptSet, as_json: bool) -> int:
    """Print a set with all figures; returns the exit code.

    Raises:
        UserError: its files are not what they were.
    """
    kept.folder()
    if as_json:
        print(json.dumps(kept.plain, indent=2))
        return 0
    console = wide_console()
    for line in _introduction(sets, kept):
        say(console, line)
    if kept.figures:
        console.print(_figures(kept))
    else:
        say(console, "  nothing was measured on it yet")
    for line in kept.problems:
        say(console, f"  note: {line}")
    return 0


def _list(sets: Sets, listed: Sequence[KeptSet]) -> Iterator[str]:
    """A line for each: of thousands, a table of rich would take longer than to read them."""
    rows = [tuple(COLUMNS), *(tuple(map(_printable, _row(sets, kept))) for kept in listed)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.ljust(width) if side == "left" else cell.rjust(width)
            for cell, width, side in zip(row, widths, COLUMNS.values(), strict=True)
        )
        yield "  ".join(cells).rstrip()


def _row(sets: Sets, kept: KeptSet) -> tuple[str, ...]:
    validation, test = kept.validation, kept.test
    first, *others = kept.copies
    return (
        sets.short(kept.id),
        ", ".join(kept.names),
        kept.data,
        str(kept.ipc),
        kept.method,
        validation.text if validation else "",
        test.text + SELECTED * bool(test.selected) if test else "",
        str(len(kept.figures)),
        first.name + (f" and {len(others)} more" if others else ""),
    )


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _introduction(sets: Sets, kept: KeptSet) -> Iterator[str]:
    manifest = kept.manifest
    channels, height, width = manifest.shape[1:]
    made = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    yield f"set {sets.short(kept.id)}" + (f": {', '.join(kept.names)}" if kept.names else "")
    yield f"  id: {kept.id}"
    yield (
        f"  {plural(manifest.shape[0], 'image')} of {kept.data}, {channels}x{height}x{width}: {kept.ipc} for each of "
        f"{len(manifest.class_names)} classes; data {manifest.checksum[:12]}"
    )
    yield f"  by {kept.method}, seed {kept.seed}, after {plural(manifest.iteration, 'iteration')}"
    yield f"  with {made}"
    own = {key: value for key, value in own_settings(dict(kept.settings)).items() if key != "sweep"}
    yield f"  settings: {settings_text(own) or 'the defaults'}"
    for copy in kept.copies:
        yield f"  in: {copy.where} ({copy.name})"


def _figures(kept: KeptSet) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name, side in FIGURES.items():
        table.add_column(
            name, justify="left" if side == "left" else "right", no_wrap=name not in FOLDED, overflow="fold"
        )
    for figure in kept.figures:
        otherwise = {key: value for key, value in figure.otherwise(kept.settings).items() if key != "seed"}
        other_net = {key for key in otherwise if key.startswith("net.")}
        if "net.name" in other_net:  # that says it all
            otherwise = {key: value for key, value in otherwise.items() if key not in other_net}
        cells = (
            figure.measure,
            figure.split,
            figure.net,
            _value(figure),
            str(figure.nets),
            str(figure.epochs),
            str(figure.settings.get("seed", "")),
            datetime.fromtimestamp(figure.at).strftime("%Y-%m-%d %H:%M") if figure.at else "",
            figure.by,
            " ".join(filter(None, [settings_text(otherwise), figure.selected])),
        )
        table.add_row(*map(escape, cells))
    return table


def _value(figure: Figure) -> str:
    return figure.text + (" %" if figure.measure == "accuracy" else "")
