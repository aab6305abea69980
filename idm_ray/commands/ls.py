"""``idm-ray ls``: all sweeps, and how they stand."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import rich_click as click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from idm_ray.commands.naming import output_dir
from idm_ray.commands.terminal import wide_console
from idm_ray.runtime.invocation import command_line
from idm_ray.runtime.progress import age, duration
from idm_ray.sweep.looking.sweeps import Sweep, Sweeps
from idm_ray.sweep.looking.words import plain, state_text

COLUMNS = {"sweep": "left", "state": "left", "trials": "right", "pruned": "right", "failed": "right",
           "val acc %": "right", "test acc %": "right", "cost": "right", "age": "right"}  # fmt: skip


@click.command("ls")
@output_dir
@click.option("--json", "as_json", is_flag=True, help="print the sweeps as JSON on standard output")
def command(output_dir: Path | str, as_json: bool) -> int:
    """List all sweeps: their state, trials, best accuracy, cost and age.

    The one that was written last comes first. Looking changes nothing, also where a sweep runs just now.

    \b
    idm-ray ls
    idm-ray ls --output-dir s3://bucket/runs
    idm-ray ls --json
    """
    found = Sweeps(output_dir).all()[::-1]
    if as_json:
        print(json.dumps([plain(sweep) for sweep in found], indent=2))
    elif found:
        _show(found, wide_console())
    else:
        print(
            f"there is no sweep in {output_dir} yet; {command_line('sweep')} starts one, --output-dir looks elsewhere",
            file=sys.stderr,
        )
    return 0


def _show(sweeps: Sequence[Sweep], console: Console) -> None:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name, side in COLUMNS.items():
        table.add_column(
            name, justify="left" if side == "left" else "right", no_wrap=name != "sweep", overflow="fold"
        )
    now = time.time()
    for sweep in sweeps:
        counts, best, test = sweep.counts, sweep.best, sweep.best_test
        ended = sum(counts.get(state, 0) for state in ("complete", "pruned", "failed", "stopped"))
        table.add_row(
            sweep.name,
            state_text(sweep),
            f"{ended}/{max(sweep.planned, len(sweep.records))}",
            str(counts.get("pruned", 0) or ""),
            str(counts.get("failed", 0) or ""),
            "" if best is None or best.accuracy is None else f"{best.accuracy:.2f}",
            "" if test is None else test.text.removesuffix(" %"),
            duration(sweep.cost.total) if sweep.cost.total else "",
            age(now - sweep.began) if sweep.began else "",
        )
    console.print(table)
