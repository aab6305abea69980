"""The command line of `scripts/reproduce.py`: run an experiment of the paper and draw it."""

import argparse
import shlex

from rich.console import Console

from idm_ray.commands.sweep import FLAGS
from idm_ray.commands.terminal import EXIT_INTERRUPTED, store_progress
from idm_ray.paper.cells import Cell, pooled
from idm_ray.paper.experiments import EXPERIMENTS, experiment_named
from idm_ray.paper.measures import KINDS, Stopped, Work
from idm_ray.paper.printed import published_for
from idm_ray.paper.request import MAIN, Request
from idm_ray.paper.result import Result
from idm_ray.paper.tables import as_csv, markdown
from idm_ray.runtime.files import write_bytes, write_json
from idm_ray.settings.layers import domain_corners, parse_overrides
from idm_ray.sweep.preflight import check_name
from idm_ray.sweep.view.summary import EXIT_DONE, EXIT_FAILED_TRIALS, EXIT_NO_TRIAL

LIST = "LIST"
SWEEP_FLAGS = {flag: kind for flag, kind in FLAGS.items() if flag != "trials"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(
        description="Run a table or figure of the paper again, and draw it beside the published figures.",
        epilog="key=value sets anything a config file can, e.g. dataset.root=my_images. What is done is not run "
        "again; after an interruption the same command goes on.",
    )
    command.add_argument(
        "experiment",
        metavar="EXPERIMENT",
        help=f"{LIST}, which shows them, or one of {', '.join(EXPERIMENTS)}",
    )
    command.add_argument("overrides", nargs="*", metavar="key=value")
    command.add_argument("--dataset", help="another data set, with its own settings from tune_configs/")
    command.add_argument("--ipc", type=int, help="another number of images per class")
    command.add_argument(
        "--scale", type=float, default=1.0, help="shorten iterations, epochs and repeats together; 0 < S <= 1"
    )
    for flag, kind in SWEEP_FLAGS.items():
        command.add_argument(f"--{flag.replace('_', '-')}", type=kind, help=f"sets sweep.{flag}")
    command.add_argument("-v", "--verbose", action="store_true", help="a line per report")
    command.add_argument("-q", "--quiet", action="store_true", help="errors and results only")
    return command


def run(arguments: list[str], console: Console) -> int:
    """List, or run and draw; returns the exit code, which is a sweep's.

    Raises:
        UserError: bad input; nothing was started or written.
    """
    parsed = parser().parse_intermixed_args(arguments)
    if parsed.experiment.upper() == LIST:
        _show_list(parsed, console)
        return EXIT_DONE
    request = _request(parsed, parsed.experiment)
    work = _work(request, parsed, console)
    try:
        cells = pooled(list(KINDS[request.experiment.kind](work)))
    except (Stopped, KeyboardInterrupt) as stop:
        console.print(
            f"stopped; go on with the same command: python scripts/reproduce.py {shlex.join(arguments)}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        return stop.exit_code if isinstance(stop, Stopped) else EXIT_INTERRUPTED
    _write(work, cells)
    if not any(cell.runs for cell in cells):
        return EXIT_NO_TRIAL
    return EXIT_FAILED_TRIALS if any(cell.error for cell in cells) else EXIT_DONE


def _request(parsed: argparse.Namespace, name: str) -> Request:
    command_line = parse_overrides(parsed.overrides)
    flags = {flag: getattr(parsed, flag) for flag in SWEEP_FLAGS if getattr(parsed, flag) is not None}
    if flags:
        command_line["sweep"] = {**command_line.get("sweep", {}), **flags}
    return Request(experiment_named(name), parsed.dataset, parsed.ipc, parsed.scale, command_line)


def _work(request: Request, parsed: argparse.Namespace, console: Console) -> Work:
    configs = request.configs()
    check_name(request.sweep_name(MAIN))
    verbosity = -1 if parsed.quiet else int(parsed.verbose)
    progress = store_progress(console, parsed.quiet)
    return Work(request, configs, configs[MAIN].sweep.output_dir, console, verbosity, progress)


def _write(work: Work, cells: list[Cell]) -> None:
    """Put tables, plot and cells in the experiment's folder, and print the table."""
    request, folder = work.request, work.folder
    published = published_for(work.experiment, *request.place, work.configs[MAIN])
    result = Result(request, cells, published)
    text = markdown(result)
    files = [folder / f"table{request.suffix}.md", folder / f"table{request.suffix}.csv"]
    write_bytes(files[0], text.encode())
    write_bytes(files[1], as_csv(result).encode())
    if work.experiment.axis:
        from idm_ray.paper.plots import draw  # matplotlib takes a while to load

        files += draw(result, work.experiment.axis, folder / f"plot{request.suffix}")
    files.append(folder / f"cells{request.suffix}.json")
    write_json(files[-1], {"experiment": request.name(work.experiment.name), "scaled": request.scale,
                           "cells": [cell.to_raw() for cell in cells]})  # fmt: skip
    work.console.print(text, highlight=False, markup=False, soft_wrap=True)
    for file in files:
        work.console.print(str(file), highlight=False, markup=False, soft_wrap=True)


def _show_list(parsed: argparse.Namespace, console: Console) -> None:
    for name, experiment in EXPERIMENTS.items():
        request = _request(parsed, name)
        dataset, ipc = request.place
        count, varies = _extent(request)
        where = f"{dataset}, {ipc} per class, {count} trials"
        for line in (f"{name}  {experiment.title}", f"        {where}: {varies}"):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _extent(request: Request) -> tuple[int, str]:
    """How many trials an experiment has, and what is different in them."""
    experiment, configs = request.experiment, request.configs()
    count = sum(config.sweep.trials for config in configs.values())
    varies = [
        f"{key} {', '.join(map(str, domain_corners(domain)))}"
        for config in configs.values()
        for key, domain in config.search.items()
    ]
    varies += [f"and {name}" for name, config in configs.items() if not config.search]
    columns = ", ".join(map(str, experiment.columns))
    if experiment.kind == "continual":
        count *= len(experiment.columns) * configs[MAIN].evaluate.repeats
        varies.append(f"{columns} steps, each with {configs[MAIN].evaluate.repeats} class orders")
    elif columns:
        varies.append(f"{experiment.column_label} {columns}")
    return count, "; ".join(varies)
