"""A sweep, or what it would be, on the terminal."""

from pathlib import Path

import yaml
from rich.console import Console

from idm_ray.commands.terminal import say, shown
from idm_ray.settings.layers import Resolved
from idm_ray.sweep.preview import calibrated
from idm_ray.sweep.preview import preview as look
from idm_ray.sweep.run import run_sweep
from idm_ray.sweep.view import summary


def run(resolved: Resolved, folder: Path, as_json: bool, verbosity: int) -> int:
    """Run or resume; returns the exit code."""
    console = Console(stderr=as_json)
    with shown(console, quiet=verbosity < 0) as progress:
        outcome = run_sweep(resolved.config, folder, console, verbosity, progress, resolved.notes)
    for problem in outcome.problems:
        say(console, problem, "yellow")
    for line in summary.lines(outcome.summary, folder, outcome.tracking_uri):
        say(console, line)
    if as_json:
        print(outcome.summary.as_json())
    return outcome.exit_code


def preview(resolved: Resolved, folder: Path, predict: bool) -> int:
    """Show what would run and start nothing; returns the exit code.

    Raises:
        UserError: settings or data that no sweep would start with.
    """
    console = Console()
    with shown(console) as progress:
        lines = list(look(resolved.config, folder, progress))
    say(console, yaml.safe_dump(resolved.config.to_raw(), sort_keys=False))
    for line in (*resolved.notes, *lines):
        say(console, line)
    if predict:
        calibrated(resolved.config, lambda line: say(console, line))
    return 0
