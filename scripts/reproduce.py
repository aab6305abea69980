"""Run the paper's tables and figures again: python scripts/reproduce.py LIST | table1 | ... | fig8; see --help."""

import sys

from idm_ray.commands.terminal import main


def reproduce(arguments: list[str]) -> int:
    """Parse, run, draw; returns the exit code."""
    from rich.console import Console

    from idm_ray.paper import command

    return command.run(arguments, Console())


if __name__ == "__main__":
    sys.exit(main(reproduce))
