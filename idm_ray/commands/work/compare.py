"""Sweeps beside each other, on the terminal."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from idm_ray.commands.terminal import say, wide_console
from idm_ray.runtime.progress import duration
from idm_ray.sweep.looking.comparing import compared, named, setting_table
from idm_ray.sweep.looking.sweeps import Score, Sweep
from idm_ray.sweep.looking.words import plain, state_text
from idm_ray.sweep.view.live import describe_point

COLUMNS = ("state", "trials", "val acc %", "test acc %", "random %", "cost")


def compare(found: Sequence[Sweep], as_json: bool) -> int:
    """Print a comparison; returns the exit code.

    Raises:
        UserError: one is there twice.
    """
    sweeps = named(found)
    pairs, settings = compared(sweeps), setting_table(sweeps)
    if as_json:
        content = {
            "sweeps": {name: {**plain(sweep), "best_point": _point(sweep)} for name, sweep in sweeps.items()},
            "comparisons": [asdict(pair) for pair in pairs],
            "differences": settings,
        }
        print(json.dumps(content, indent=2))
        return 0
    console = wide_console()
    console.print(_table(sweeps))
    for name, sweep in sweeps.items():
        if sweep.best is not None:
            say(console, f"{name}: best trial {sweep.best.number:04d}  {describe_point(sweep.best.point)}")
    for pair in pairs:
        say(console, pair.text)
    if settings:
        console.print(_settings(list(sweeps), settings))
    else:
        say(console, "their settings are the same")
    return 0


def _point(sweep: Sweep) -> dict[str, Any] | None:
    return sweep.best.point if sweep.best else None


def _table(sweeps: Mapping[str, Sweep]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("sweep", overflow="fold")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "state" else "right", no_wrap=True)
    for name, sweep in sweeps.items():
        best = sweep.best.accuracy if sweep.best else None
        table.add_row(
            name,
            state_text(sweep),
            str(len(sweep.records)),
            "" if best is None else f"{best:.2f}",
            _accuracy(sweep.best_test),
            _accuracy(sweep.test.get("random")),
            duration(sweep.cost.total) if sweep.cost.total else "",
        )
    return table


def _accuracy(score: Score | None) -> str:
    return "" if score is None else score.text.removesuffix(" %")


def _settings(names: Sequence[str], settings: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("differs in", *names):
        table.add_column(column, overflow="fold")
    for key, values in settings.items():
        table.add_row(key, *(json.dumps(values[name]) for name in names))
    return table
