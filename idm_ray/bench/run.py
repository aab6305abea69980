"""From what is asked to tables and JSON."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch
from rich.console import Console

from idm_ray.bench import (
    beside,
    building,
    correctness,
    evaluation,
    faults,
    forecasts,
    iteration,
    large,
    lasting,
    load,
    pruning,
    scaling,
    splitting,
    starting,
    sweeps,
)
from idm_ray.bench.amounts import PARTS
from idm_ray.bench.machine import Floor, floor, machine, versions
from idm_ray.bench.options import Options
from idm_ray.bench.output import Result, Say, Table, markdown, show, text
from idm_ray.runtime.files import write_bytes, write_json
from idm_ray.runtime.versions import commit

WIDTH = 200
UNLIMITED = {"h", "m", "n", "o", "p"}
"""Parts that have nothing to do with how fast the machine multiplies."""


MEASURES: dict[str, Callable[[Options, Say], Result]] = {
    "a": iteration.measure,
    "b": evaluation.measure,
    "c": sweeps.measure_sharing,
    "d": sweeps.measure_platform,
    "e": pruning.measure,
    "f": scaling.measure,
    "g": beside.measure,
    "h": starting.measure,
    "i": building.measure,
    "j": forecasts.measure,
    "k": large.measure,
    "l": correctness.measure,
    "m": splitting.measure,
    "n": faults.measure,
    "o": load.measure,
    "p": lasting.measure,
}
"""How each of `PARTS` is measured."""


def run(options: Options, command: Sequence[str]) -> int:
    """Measure what is asked for; returns the exit code.

    Args:
        options: what to measure.
        command: the words that asked for it, for the report.
    """
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    progress = Console(stderr=True)
    report = describe(options, command)
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # for processes started from here
    limits = dict.fromkeys(("fp32", *options.precisions)) if set(options.parts) - UNLIMITED else ()
    floors = [floor(options.device, name, options.amounts.matmul) for name in limits]
    report["floor"] = [asdict(each) for each in floors]
    overview = _overview(report, floors)
    show(overview, console)
    written = [overview]
    for name in options.parts:
        result = MEASURES[name](options, lambda line: progress.print(line, highlight=False, markup=False))
        for table in result.tables:
            show(table, console)
        written += result.tables
        if options.markdown is not None:
            write_bytes(options.markdown, "\n".join(map(markdown, written)).encode())
        report["parts"][name] = {
            "title": PARTS[name],
            "settings": result.settings,
            "measurements": result.measurements,
        }
        if options.json is not None:
            write_json(options.json, report)
    return 0


def describe(options: Options, command: Sequence[str]) -> dict[str, Any]:
    """The head of the report; parts that are measured are added to it."""
    head, dirty = commit()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "commit": head,
        "dirty": dirty,
        "machine": machine(options.device, options.threads),
        "versions": versions(),
        "precisions": options.precisions,
        "modes": options.modes,
        "amounts": asdict(options.amounts),
        "parts": {},
    }


def _overview(report: dict[str, Any], floors: list[Floor]) -> Table:
    facts = report["machine"]
    flags = [flag for flag in facts["cpu_flags"] if flag.startswith("amx")] or ["no AMX"]
    changed = {None: "", True: " with changes", False: ""}[report["dirty"]]
    notes = (
        f"{facts['cpu']} ({', '.join(flags)}), {facts['usable_cores']} cores, {facts['threads']} threads"
        + (f", {facts['gpu']}" if facts["gpu"] else ""),
        ", ".join(f"{name} {version}" for name, version in report["versions"].items() if version),
        f"commit {report['commit'] or 'unknown'}{changed}, {report['date']}",
    )
    rows = tuple(
        (
            each.precision,
            str(each.side),
            text(sorted(each.seconds)[len(each.seconds) // 2]),
            text(each.tflops),
        )
        for each in floors
    )
    columns = ("", "side", "median s", "TFLOP/s")
    title = "The machine's limit: a product of square matrices" if rows else "The machine"
    return Table(title, columns, rows, notes)
