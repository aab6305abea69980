"""Class-incremental learning on condensed memories: python scripts/continual.py CONFIG --steps 5 --out DIR."""

import sys

from idm_ray.commands import continual as continual_command
from idm_ray.commands.terminal import main


def run(arguments: list[str]) -> int:
    """Parse, learn; returns the exit code."""
    return continual_command.run(continual_command.parser().parse_intermixed_args(arguments))


if __name__ == "__main__":
    sys.exit(main(run))
