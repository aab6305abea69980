"""An experiment of the paper on the terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Console

from idm_ray.commands.terminal import EXIT_INTERRUPTED, say, shown
from idm_ray.paper.cells import Cell, pooled
from idm_ray.paper.measures import KINDS
from idm_ray.paper.printed import published_for
from idm_ray.paper.request import MAIN, Request
from idm_ray.paper.result import Result
from idm_ray.paper.tables import as_csv, markdown
from idm_ray.paper.work import Stopped, Work
from idm_ray.runtime.files import write_bytes, write_json
from idm_ray.runtime.invocation import command_line
from idm_ray.settings.sections import Config
from idm_ray.sweep.endings import EXIT_DONE, EXIT_FAILED_TRIALS, EXIT_NO_TRIAL
from idm_ray.sweep.folders import output_here


def run(request: Request, configs: Mapping[str, Config], given: Sequence[str], verbosity: int) -> int:
    """Run and draw; returns the exit code, which is a sweep's.

    Args:
        request: what is asked for.
        configs: of its sweeps, by variant.
        given: the words that asked for it.
        verbosity: -1, 0 or 1.

    Raises:
        UserError: bad input; nothing was started or written.
    """
    console = Console()
    try:
        with shown(console, quiet=verbosity < 0) as progress:
            work = Work(
                request, configs, output_here(configs[MAIN].sweep.output_dir), console, verbosity, progress
            )
            cells = pooled(list(KINDS[request.experiment.kind](work)))
    except (Stopped, KeyboardInterrupt) as stop:
        say(console, f"stopped; go on with the same command: {command_line(*given)}")
        return stop.exit_code if isinstance(stop, Stopped) else EXIT_INTERRUPTED
    _write(work, cells)
    if not any(cell.runs for cell in cells):
        return EXIT_NO_TRIAL
    return EXIT_FAILED_TRIALS if any(cell.error for cell in cells) else EXIT_DONE


def _write(work: Work, cells: list[Cell]) -> None:
    """Put tables, plot and cells in the experiment's folder, and print the table."""
    request, folder = work.request, work.folder
    published = published_for(work.experiment, *request.place, request.authors_config())
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
    for line in (text, *map(str, files)):
        say(work.console, line)
