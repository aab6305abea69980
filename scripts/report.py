"""Write a sweep's report.html anew: the same as ``idm-ray report``."""

import sys

from _package import main

if __name__ == "__main__":
    sys.exit(main("report"))
