"""python -m jaxnets COMMAND: everything but training, which is train.py."""

import sys

from jaxnets import cli, commands

if __name__ == "__main__":
    sys.exit(cli.run(commands.main))
