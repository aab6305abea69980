"""From the command line to tables and JSON."""

import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from rich.console import Console

from idm_ray.bench import beside, evaluation, iteration, pruning, scaling, sweeps
from idm_ray.bench.machine import Floor, floor, machine, versions
from idm_ray.bench.options import Options, parser, resolve
from idm_ray.bench.output import Result, Say, Table, show, text
from idm_ray.runtime.files import write_json
from idm_ray.runtime.versions import commit

WIDTH = 200


@dataclass(frozen=True)
class Part:
    """Something to measure: what it is, and how."""

    title: str
    measure: Callable[[Options, Say], Result]


PARTS: dict[str, Part] = {
    "a": Part("one iteration, by phase", iteration.measure),
    "b": Part("evaluation", evaluation.measure),
    "c": Part("sweeps with a shared real side and without, and their memory", sweeps.measure_sharing),
    "d": Part("a sweep of one trial against the bare loop", sweeps.measure_platform),
    "e": Part("a sweep with pruning and without", pruning.measure),
    "f": Part("iteration time against classes, ipc and image size", scaling.measure),
    "g": Part(
        "what sweeps keep of their speed beside programs that keep every processor busy", beside.measure
    ),
}


def run(arguments: list[str]) -> int:
    """Measure what the command line asks for; returns the exit code.

    Raises:
        UserError: it asks for what there is not.
    """
    options = resolve(
        parser({name: part.title for name, part in PARTS.items()}).parse_args(arguments), tuple(PARTS)
    )
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    progress = Console(stderr=True)
    report = describe(options, arguments)
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # for processes started from here
    limits = dict.fromkeys(("fp32", *options.precisions))
    floors = [floor(options.device, name, options.amounts.matmul) for name in limits]
    report["floor"] = [asdict(each) for each in floors]
    show(_overview(report, floors), console)
    for name in options.parts:
        result = PARTS[name].measure(
            options, lambda line: progress.print(line, highlight=False, markup=False)
        )
        for table in result.tables:
            show(table, console)
        report["parts"][name] = {
            "title": PARTS[name].title,
            "settings": result.settings,
            "measurements": result.measurements,
        }
        if options.json is not None:
            write_json(options.json, report)
    return 0


def describe(options: Options, arguments: list[str]) -> dict[str, Any]:
    """The head of the report; parts that are measured are added to it."""
    head, dirty = commit()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["scripts/bench.py", *arguments],
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
        (each.precision, text(sorted(each.seconds)[len(each.seconds) // 2]), text(each.tflops))
        for each in floors
    )
    side = report["amounts"]["matmul"]
    return Table(
        f"The machine's limit: a matrix product of side {side}", ("", "median s", "TFLOP/s"), rows, notes
    )
