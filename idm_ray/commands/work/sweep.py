"""A sweep, or what it would be, on the terminal; Ray and MLflow come when machine and data fit."""

from pathlib import Path

import yaml
from rich.console import Console

from idm_ray.commands.terminal import say, shown
from idm_ray.runtime.invocation import command_line
from idm_ray.settings.layers import Resolved
from idm_ray.sweep.endings import EXIT_CLUSTER
from idm_ray.sweep.fit import check_data, check_resources
from idm_ray.sweep.tracking.ui import tracking_uri
from idm_ray.sweep.view import summary
from idm_ray.sweep.view.summary import Summary

OPEN = "whoever reaches its ports runs code in it, and reads and changes what this sweep sends and gets"


def run(resolved: Resolved, folder: Path, as_json: bool, verbosity: int, retry_failed: bool = False) -> int:
    """Run or resume; returns the exit code.

    Raises:
        UserError: whatever can be known to be wrong, when nothing was started or written; or see `run_sweep`.
    """
    console = Console(stderr=as_json)
    if resolved.config.sweep.insecure:
        say(
            console,
            f"the cluster at {resolved.config.sweep.address} is joined without a token: {OPEN}",
            "red",
        )
    check_resources(resolved.config)
    with shown(console, quiet=verbosity < 0) as progress:
        data = check_data(resolved.config, progress)
    from idm_ray.sweep.room import make_room, this_host
    from idm_ray.sweep.run import run_sweep

    config = resolved.config
    room = None if config.sweep.address else make_room(config, data.outline, [this_host()])
    settled = config if room is None else room.config
    from idm_ray.sweep.search.storage import StudyAway

    try:
        outcome = run_sweep(settled, folder, data, console, verbosity, resolved.notes, room, retry_failed)
    except StudyAway as error:
        say(console, f"{error}; nothing is lost: end what keeps it from being used, then resume", "red")
        say(console, f"  resume:  {command_line('sweep', '--resume', folder)}")
        return EXIT_CLUSTER
    for problem in outcome.problems:
        say(console, problem, "yellow")
    _sum_up(console, outcome.summary, folder, outcome.tracking_uri, as_json)
    return outcome.exit_code


def _sum_up(console: Console, found: Summary, folder: Path, uri: str, as_json: bool) -> None:
    for line in summary.lines(found, folder, uri):
        say(console, line)
    if as_json:
        print(found.as_json())


def told(resolved: Resolved, folder: Path, as_json: bool) -> int | None:
    """Tell what an ended sweep has found; returns its exit code, None where something is left to do."""
    known = summary.ended(resolved.config, folder)
    if known is None:
        return None
    console = Console(stderr=as_json)
    say(console, f"the sweep {folder.name} has ended and nothing is left to do; more trials: --trials N")
    _sum_up(console, known, folder, tracking_uri(resolved.config), as_json)
    return known.exit_code


def preview(resolved: Resolved, folder: Path, predict: bool, verbose: bool) -> int:
    """Show what would run and start nothing; returns the exit code.

    Raises:
        UserError: settings or data that no sweep would start with.
    """
    from idm_ray.sweep.preview import calibrated
    from idm_ray.sweep.preview import preview as look

    console = Console()
    with shown(console) as progress:
        lines = list(look(resolved.config, folder, progress))
    if verbose:
        say(console, yaml.safe_dump(resolved.config.to_raw(), sort_keys=False))
    for line in (*resolved.notes, *lines):
        say(console, line)
    if not verbose:
        say(console, "all settings: add -v")
    if predict:
        calibrated(resolved.config, lambda line: say(console, line))
    return 0
