"""Time the product against a plain reference: python scripts/bench.py [--parts a,b,f --json FILE]; see --help."""

import sys

from idm_ray.bench.run import run
from idm_ray.commands.terminal import main

if __name__ == "__main__":
    sys.exit(main(run))
