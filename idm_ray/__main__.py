"""``python -m idm_ray`` is ``idm-ray``."""

import sys
from pathlib import Path

import idm_ray

# Python looks for modules in the current folder first here; only the package itself may come from there.
if Path(idm_ray.__file__).resolve().parent.parent != Path.cwd():
    sys.path[:] = [path for path in sys.path if path not in ("", str(Path.cwd()))]

from idm_ray.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
