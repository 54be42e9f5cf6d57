"""python -m jaxnets COMMAND: everything but training, which is train.py."""

import sys

from jaxnets.cli import commands, exit_status

if __name__ == "__main__":
    sys.exit(exit_status.run(commands.main))
