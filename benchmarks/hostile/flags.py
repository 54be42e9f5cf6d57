"""Hostile command lines, up to where work would begin."""

import contextlib
from pathlib import Path
from unittest import mock

from hostile.damage import Rng, letters, status_of
from jaxnets.cli import commands
from jaxnets.config.fields import Config
from jaxnets.config.file import ConfigFile
from jaxnets.config.options import options_of
from jaxnets.config.resolve import resolve

# The flags of train.py and of every command.
FLAGS = {
    command: ["--help_all", *(f"--{field.name}" for kind in kinds for field in options_of(kind))]
    for command, kinds in {"train": (Config, ConfigFile), **commands.COMMANDS}.items()
}
NUMBERS = ["9" * 400, "9" * 5000, "inf", "-inf", "nan", "-0", "1e400", "1e-400", "0x10", "1_000",
           "\u0663", *(str(sign * 2**bits) for bits in (31, 53, 63, 64, 128) for sign in (1, -1)),
           f"{2**63},1,1", "10000,10000,10000", "1,1,1", "1000000"]  # fmt: skip
PATHS = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/stdin",
    "/",
    ".",
    "..",
    "/proc/x",
    "~",
    "~nobody-here/x",
    "/etc/passwd",
    "a\\b",
    "gs:x",
    "*",
    "x" * 300,
    "/proc/self/mem",
]
WORDS = [
    "cnn", "mlp", "softmax", "alexnet", "mlp_handwritten", "1", "0", "-1", "1e9", "64,32", "all",
    "full", "none", "hidden=100,200", "learning_rate=0.1,x", "auto", "adam", "\udc80", "--", "-",
    "=", "x" * 20_000, "28,28,1", "paper", "\x1b[2J", "%", "true", "digit", "crop,flip",
    "10minutes", "", " ", "\n", "--epochs=3--seed=1", "--seed=1 --epochs=1", "\u202e", "knn",
    "plateau", "paper", "both", "manual", "float64", "bfloat16", "127.0.0.1:0", "[::1]:99999",
    *NUMBERS, *PATHS,
]  # fmt: skip


def hostile_words(rng: Rng, flags: list[str], count: int) -> list[str]:
    """So many flags with values that they do not expect: joined, apart, doubled, misspelt."""
    words: list[str] = []
    for _ in range(count):
        flag = rng.choice(flags)
        if rng.randint(0, 9) == 0:
            changes = [flag.replace("--", "--no_"), flag[:-1], flag.replace("_", "-"), flag.upper(),
                       flag[1:], flag[2:]]  # fmt: skip
            flag = rng.choice(changes)
        kind = rng.choice(["both", "both", "flag", "word", "apart", "twice", "joined"])
        word = rng.choice([*WORDS, letters(rng).replace("/", "|")])
        words += {
            "both": [f"{flag}={word}"],
            "flag": [flag],
            "word": [word],
            "apart": [flag, word],
            "twice": [f"{flag}={word}", f"{flag}={rng.choice(WORDS)}"],
            "joined": [f"{flag}{word}{rng.choice(flags)}={word}"],
        }[kind]
    return words


def start_jax(folder: Path) -> None:
    """Sets JAX up, as `summary` does: it loads the C library, which no case may."""
    from jaxnets.machine.platform import set_up_jax

    set_up_jax()


def config_of(words: list[str]) -> None:
    """The config that train.py's flags ask for."""
    from jaxnets.cli.flags import parse_flags
    from jaxnets.runs.request import run_to_resume, run_with_weights

    flags = parse_flags(words)
    weights = run_with_weights(flags.get("init_from"))
    resumed = run_to_resume(flags) if flags.get("resume") else None
    resolve(flags, weights=weights, resumed=resumed)


def flags_case(sample: None, folder: Path, rng: Rng) -> None:
    """A command line, up to where work would begin."""
    command = rng.choice(sorted(FLAGS))
    words = hostile_words(rng, FLAGS[command], rng.randint(0, 6))
    if command == "train":
        status_of(lambda: config_of(words))
        return
    work = ("gradcheck.command.run", "viz.summary.summary", "viz.summary.to_text",
            "viz.summary.to_values", "tune.search.search_all", "tune.ranking.to_text",
            "tune.ranking.to_values", "tune.ranking.plot", "tune.compare.comparison.run",
            "deploy.answer.answer", "experiment.find_devices", "viz.devices.to_text",
            "viz.devices.to_values", "tune.lr_find.range_test",
            "tune.lr_find.plot", "viz.figure.check_picture", "tune.lr_find.to_text",
            "tune.lr_find.to_values", "deploy.paired.compare_runs", "deploy.abtest.pairs.to_values",
            "deploy.abtest.pairs.to_text")  # fmt: skip
    with contextlib.ExitStack() as stack:
        if command == "summary" and rng.randint(0, 9) == 0:  # It takes a while.
            work = ()
        for name in work:
            done = "" if name.endswith("to_text") else 0
            stack.enter_context(mock.patch(f"jaxnets.{name}", return_value=done))
        without_data = lambda given: (resolve(given).config, 0, ())  # noqa: E731
        stack.enter_context(mock.patch("jaxnets.tune.lr_find.request", without_data))
        found = mock.Mock(folder="runs")
        stack.enter_context(mock.patch("jaxnets.tune.search.search_all", return_value=found))
        status_of(lambda: commands.main([command, *words]))
