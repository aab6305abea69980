"""What all scripts share: exit codes and one line for bad input."""

import sys
import traceback
from collections.abc import Callable

from idm_ray.errors import UserError

EXIT_OUR_FAULT, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130


def main(command: Callable[[list[str]], int]) -> int:
    """Run a script's command on the command line's arguments; returns the exit code.

    2 and one line for bad input, 130 for Ctrl-C, 1 and a traceback for what is our fault.
    """
    try:
        return command(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception:
        traceback.print_exc()
        return EXIT_OUR_FAULT
