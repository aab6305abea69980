"""Time the product against a plain reference: the same as ``idm-ray bench``."""

import sys

from _package import main

if __name__ == "__main__":
    sys.exit(main("bench"))
