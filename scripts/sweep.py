"""Run, resume or preview a sweep: python scripts/sweep.py [CONFIG] [key=value ...]; see --help and README.md."""

import sys
from pathlib import Path

from idm_ray.commands.terminal import main, store_progress

CONFIGS = Path(__file__).resolve().parent.parent / "tune_configs"


def sweep(arguments: list[str]) -> int:
    """Parse, call, print; returns the exit code."""
    from rich.console import Console

    from idm_ray.sweep import command, summary

    parsed = command.parser(CONFIGS / "digits.yaml").parse_intermixed_args(arguments)
    config, folder = command.resolve(parsed)
    if parsed.dry_run:
        command.dry_run(config, folder, Console(), parsed.calibrate)
        return 0
    from idm_ray.sweep.run import run_sweep

    console = Console(stderr=parsed.json)
    progress = store_progress(console, parsed.quiet)
    verbosity = -1 if parsed.quiet else int(parsed.verbose)
    outcome = run_sweep(config, folder, console, verbosity, progress)
    for problem in outcome.problems:
        console.print(problem, style="yellow", markup=False)
    for line in summary.lines(outcome.summary, folder, outcome.tracking_uri):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if parsed.json:
        print(outcome.summary.as_json())
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main(sweep))
