"""Commands to print that work as they are printed, from where the user stands."""

import os
import shlex
import shutil
import sys
from pathlib import Path

NAME = "idm-ray"


def command_line(*words: str | Path) -> str:
    """How to call ``idm-ray`` with these words, quoted for a shell.

    By its name where that is on the path and of this environment, else by the shortest way to it.
    """
    return f"{_program()} {shlex.join(map(str, words))}"


def _program() -> str:
    own = Path(sys.executable).parent / NAME
    if not own.exists():
        return f"{shlex.quote(_near(Path(sys.executable)))} -m idm_ray"
    found = shutil.which(NAME)
    if found and Path(found).resolve() == own.resolve():
        return NAME
    return shlex.quote(_near(own))


def _near(path: Path) -> str:
    """Relative to where the user stands, where it lies below that."""
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)
