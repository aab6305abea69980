"""Evaluate a saved condensed set: the same as ``idm-ray evaluate``."""

import sys

from _package import main

if __name__ == "__main__":
    sys.exit(main("evaluate"))
