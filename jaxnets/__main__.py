"""python -m jaxnets COMMAND: everything but training, which is train.py."""

import sys

from jaxnets.cli import commands
from jaxnets.errors import run_main

if __name__ == "__main__":
    sys.exit(run_main(commands.main))
