"""What a user of the published package has: its address, and its script."""

import re

SOMEONE = "https://github.com/someone/nets"


def with_address(text: str) -> str:
    """pyproject.toml after the one edit that publishes the project."""
    published, count = re.subn(
        r"^(# )?Repository = .*$", f'Repository = "{SOMEONE}"', text, flags=re.MULTILINE
    )
    assert count == 1
    return published


# The script that pip makes of pyproject.toml's entry.
SCRIPT = "import sys; from jaxnets.__main__ import console_script; console_script()"
