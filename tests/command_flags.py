"""The flags of train.py and of every command."""

from jaxnets.cli import commands
from jaxnets.config.fields import Config
from jaxnets.config.file import ConfigFile
from jaxnets.config.options import options_of

# The flags of train.py and of every command.
KINDS = {"train": (Config, ConfigFile)}
KINDS |= {name: command.kinds for name, command in commands.COMMANDS.items()}
FLAGS = {
    command: ["--help_all", *(f"--{field.name}" for kind in kinds for field in options_of(kind))]
    for command, kinds in KINDS.items()
}
