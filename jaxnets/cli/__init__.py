"""The command line: flags and commands."""
