"""Hostile command lines, up to where work would begin."""

import contextlib
from pathlib import Path
from unittest import mock

from hostile.damage import Rng, letters, status_of
from jaxnets.cli import commands
from jaxnets.config.fields import Config
from jaxnets.config.options import options_of


def flag_samples(folder: Path) -> dict[str, list[str]]:
    """The flags of train.py and of every command."""
    return {
        command: ["--help_all", *(f"--{field.name}" for kind in both for field in options_of(kind))]
        for command, both in {"train": (Config,), **commands.COMMANDS}.items()
    }


WORDS = [
    "cnn", "mlp", "softmax", "alexnet", "mlp_handwritten", "1", "0", "-1", "1e9", "nan", "64,32",
    "full", "none", "hidden=100,200", "learning_rate=0.1,x", "auto", "adam", "/dev/null", "9" * 400,
    "9" * 5000, "~nobody-here/x", "\udc80", "--", "-", "=", "x" * 20_000, "28,28,1", "paper",
    "0x10", "\u0663", "1_000",
    "\x1b[2J", "%", "true", "digit", "crop,flip", "10minutes", "",
]  # fmt: skip


def flags_case(flags: dict[str, list[str]], folder: Path, rng: Rng) -> None:
    """A command line, up to where work would begin."""
    from jaxnets.cli.flags import parse_flags
    from jaxnets.machine.platform import Processes
    from jaxnets.runs.run import config_of

    command = rng.choice(sorted(flags))
    words = []
    for _ in range(rng.randint(0, 6)):
        flag = rng.choice(flags[command])
        if rng.randint(0, 9) == 0:
            changes = [flag.replace("--", "--no_"), flag[:-1], flag.replace("_", "-")]
            flag = rng.choice(changes)
        kind = rng.choice(["both", "both", "flag", "word", "apart"])
        word = rng.choice([*WORDS, letters(rng)])
        words += {
            "both": [f"{flag}={word}"],
            "flag": [flag],
            "word": [word],
            "apart": [flag, word],
        }[kind]
    if command == "train":
        status_of(lambda: config_of(parse_flags(words), Processes()))
        return
    work = ("gradcheck.run.run", "report.summary.summary", "report.summary.to_text",
            "report.summary.to_values", "lecture.search.search_all", "lecture.ranking.to_text",
            "lecture.ranking.to_values", "lecture.ranking.plot", "lecture.compare.run.run",
            "serving.answer.answer", "experiment.create_parallel", "report.devices.to_text",
            "report.devices.to_values")  # fmt: skip
    with contextlib.ExitStack() as stack:
        for name in work:
            stack.enter_context(mock.patch(f"jaxnets.{name}", return_value=0))
        found = mock.Mock(folder="runs")
        stack.enter_context(mock.patch("jaxnets.lecture.search.search_all", return_value=found))
        status_of(lambda: commands.main([command, *words]))
