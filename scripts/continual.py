"""Class-incremental learning on condensed memories: the same as ``idm-ray continual``."""

import sys

from _package import main

if __name__ == "__main__":
    sys.exit(main("continual"))
