"""Run, resume or preview a sweep: the same as ``idm-ray sweep``."""

import sys

from _package import main

if __name__ == "__main__":
    sys.exit(main("sweep"))
