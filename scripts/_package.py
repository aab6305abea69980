"""Finds the package that the scripts call: installed for this Python, or in .venv as `make` sets it up."""

import os
import sys
from pathlib import Path

ENVIRONMENT = Path(__file__).resolve().parent.parent / ".venv"

try:
    from idm_ray.commands.main import main as main
except ModuleNotFoundError as error:
    python = ENVIRONMENT / "bin" / "python"
    if python.exists() and Path(sys.prefix).resolve() != ENVIRONMENT.resolve():
        os.execv(python, [str(python), *sys.argv])
    mend = f"run `make setup`, or `pip install -e .` in {ENVIRONMENT.parent}"
    print(f"error: {error.name} is not installed for {sys.executable}; {mend}", file=sys.stderr)
    sys.exit(2)
