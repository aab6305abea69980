"""One condensation and its evaluation, without Ray and MLflow: the same as ``idm-ray condense``."""

import sys

from _package import main

if __name__ == "__main__":
    sys.exit(main("condense"))
