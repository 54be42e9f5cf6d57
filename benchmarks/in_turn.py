"""Several ways to do a thing, each in processes of its own, in turn.

So a drift of the machine meets all alike, and none inherits what another has set up.
"""

import subprocess
import sys
from collections.abc import Sequence


def in_turn(ways: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """The figures of each way: the last word that this program prints with --way=WAY."""
    figures: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            command = [sys.executable, *sys.argv, f"--way={way}"]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            figures[way].append(float(output.split()[-1]))
    return figures
