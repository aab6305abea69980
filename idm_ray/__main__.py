"""``python -m idm_ray`` is ``idm-ray``."""

import sys

from idm_ray.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
