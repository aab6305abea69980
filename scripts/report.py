"""Write a sweep's report.html again: python scripts/report.py SWEEP [--output-dir runs]."""

import argparse
import sys
from pathlib import Path

from idm_ray.commands.terminal import main


def report(arguments: list[str]) -> int:
    """Parse, write, print the file's name; returns the exit code."""
    command = argparse.ArgumentParser(description="Write the report of a sweep as one HTML file.")
    command.add_argument("sweep", metavar="SWEEP", help="name of a sweep, its folder, or 'latest'")
    command.add_argument("--output-dir", type=Path, default=Path("runs"), help="of all sweeps (default runs)")
    parsed = command.parse_args(arguments)
    from idm_ray.sweep.view.report import report_of  # Optuna and matplotlib take a while to load

    print(report_of(parsed.sweep, parsed.output_dir))
    return 0


if __name__ == "__main__":
    sys.exit(main(report))
