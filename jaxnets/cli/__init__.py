"""The command line: flags, commands, exit statuses."""
