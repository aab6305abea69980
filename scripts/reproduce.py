"""Run the paper's tables and figures again: the same as ``idm-ray reproduce``."""

import sys

from _package import main

if __name__ == "__main__":
    sys.exit(main("reproduce"))
