"""`jaxnets COMMAND`: the list of commands. Each is a typed function of the room that does its work.

Those that train are here, because only this room knows every observer of a run.

Nothing here imports jax until the flags are known to be right.
"""

import importlib.util
import os
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from jaxnets.abtest.commands import abtest
from jaxnets.base.display import show
from jaxnets.base.errors import DONE, UserError, same_name
from jaxnets.base.language import N_, Text, _, asked_for, speaking
from jaxnets.base.words import command_words, hint
from jaxnets.cli.flags import known_language, parse_command, print_version
from jaxnets.cli.help import command_lines
from jaxnets.config.command import AnswerLanguage, Command, Flag, command, print_result
from jaxnets.config.fields import Config
from jaxnets.config.file import ConfigFile
from jaxnets.config.options import options_of
from jaxnets.config.unknown import flag_words
from jaxnets.course.commands import answers, check, exercise, following, gradcheck, grade, new
from jaxnets.course.procedure import Procedure
from jaxnets.export.commands import export
from jaxnets.page.commands import page
from jaxnets.predict.commands import predict
from jaxnets.report.commands import evaluate, report, summary, trace
from jaxnets.runs.commands import runs
from jaxnets.server.commands import serve
from jaxnets.tune.commands import lr_find, search

DEMO: dict[str, Any] = dict(model="cnn", epochs=1)  # About twenty seconds on two cores.

# The headings of `jaxnets --help`, each before the command that it names.
HEADINGS = {
    "train": N_("train a network:"),
    "summary": N_("look at networks and runs:"),
    "predict": N_("use a trained network:"),
    "exercise": N_("learn how it works:"),
    "completion": N_("for your shell:"),
}


@command
def demo(*, browser: bool = True) -> int:
    """Train a network on MNIST, and open its page in the browser.

    Args:
      browser: open the page, if there is a display
    """
    from jaxnets.cli.training import train_run
    from jaxnets.page.build import write_page

    run = train_run(DEMO)
    page = run.folder.path / "page.html"
    print_result(write_page(str(run.folder.path), str(page)), as_json=False)
    if browser and not has_display():
        show(_("note: no display was found, so no browser is opened"), sys.stderr)
    elif browser:
        webbrowser.open(page.resolve().as_uri())
    return DONE


def has_display() -> bool:
    """Whether a window can open; without one, Python would start a browser in the terminal."""
    if sys.platform in ("darwin", "win32"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


@command
def train(
    files: Annotated[tuple[str, ...], Flag(metavar="FILE...")] = (),
    *,
    even_if_wrong: bool = False,
    language: AnswerLanguage = None,
    **flags: Any,
) -> int:
    """Judge your backward passes, then train by them.

    Args:
      files: files that exercise new wrote, with your backward passes
      even_if_wrong: train by wrong passes too, also those of your own layers, after a training by
        the right ones for comparison
    """
    if not files and not even_if_wrong:
        wanted = Text("FILE with backward passes of yours (jaxnets exercise new NAME)")
        raise UserError("expected {}, got none", wanted)

    from jaxnets.cli.training import train_run
    from jaxnets.course.exercises import mine

    with speaking(language):
        mine.train(mine.own_passes(*files, even_if_wrong=even_if_wrong), flags, train_run)
    return DONE


@command
def replay(
    *,
    procedure: Procedure,
    **flags: Any,
) -> int:
    """Train as the slides' programs did, and print the same lines."""
    from jaxnets.cli.training import train_run
    from jaxnets.course.replay import replay

    replay(flags, procedure, train_run)
    return DONE


@command
def completion(shell: Annotated[tuple[str, ...], Flag(metavar="SHELL")]) -> int:
    """Print the script for Tab completion in bash, zsh or fish.

    Args:
      shell: bash, zsh or fish, whose script is printed
    """
    from jaxnets.cli import completion

    kinds = {name: one.kinds for name, one in COMMANDS.items()}
    print(completion.completion_of(shell, {"train": (Config, ConfigFile), **kinds}))
    return DONE


# Ordered by what a user wants; `train`, which is train.py, comes before them.
COMMANDS: dict[str, Command] = {
    "demo": demo,
    "search": search,
    "lr_find": lr_find,
    "runs": runs,
    "summary": summary,
    "report": report,
    "evaluate": evaluate,
    "trace": trace,
    "predict": predict,
    "page": page,
    "export": export,
    "serve": serve,
    "abtest": abtest,
    "exercise": exercise,
    "exercise next": following,
    "exercise new": new,
    "exercise check": check,
    "exercise train": train,
    "exercise answers": answers,
    "exercise grade": grade,
    "gradcheck": gradcheck,
    "replay": replay,
    "completion": completion,
}


def main(arguments: Sequence[str]) -> int:
    """Runs the command that comes first; returns the exit status."""
    given, *rest = arguments or ["help"]
    if same_name(given, ("version", "v")):
        print_version()
    if same_name(given, ("help", "h")):
        if rest and not rest[0].startswith("-"):  # help COMMAND
            return main([*rest, "--help"])
        with speaking(known_language(asked_for(arguments))):
            print(_help(), flush=True)
        return DONE
    name = _known(given)
    if name == "train":
        return _train(rest)
    parts = {
        part: command.about for part, command in COMMANDS.items() if part.startswith(f"{name} ")
    }
    if parts and rest and not rest[0].startswith("-"):
        name, parts = _known(rest[0], start=f"{name} "), {}
        rest = rest[1:]
    own, flags = parse_command(rest, name, COMMANDS[name], parts)
    return COMMANDS[name].run(own, flags)


def _known(given: str, start: str = "") -> str:
    """The command that a user means, of those whose names begin with `start`, as "exercise "."""
    names = [name for name in ("train", *COMMANDS) if name.startswith(start)]
    after = {name.removeprefix(start): name for name in names}
    own = {word: name for word, name in after.items() if " " not in word}
    if word := same_name(given, own):
        return own[word]
    known = {}
    if not start:  # A flag or a network of train, a part of another command.
        flags = flag_words([*options_of(Config), *options_of(ConfigFile)])
        known |= {word: f"jaxnets train {flag}" for word, flag in flags.items()}
        known |= {word.rpartition(" ")[2]: f"jaxnets {name}" for word, name in after.items()}
        known |= {word: f"jaxnets {word}" for word in ("help", "version")}
    known |= {
        word: command
        for word, command in command_words().items()
        if command.startswith(f"jaxnets {start}")
    }
    known |= {word: f"jaxnets {name}" for word, name in own.items()}
    hinted = hint(given, known) or Text("; jaxnets {} lists the commands", f"help {start}".strip())
    raise UserError('unknown command "{}"{}', given, hinted)


def abouts() -> dict[str, str]:
    """What each command does, without the parts of one, such as `exercise new`."""
    train = N_("Train a network and report its test accuracy.")
    return {"train": train} | {
        name: command.about for name, command in COMMANDS.items() if " " not in name
    }


def _help() -> str:
    lines = [_("usage:") + " jaxnets COMMAND [--flag=value ...]"]
    for name, about in abouts().items():
        if name in HEADINGS:
            lines += ["", _(HEADINGS[name])]
        lines.append(command_lines({name: about}))
    hint = _("jaxnets help COMMAND lists a command's flags, jaxnets version shows the version.")
    return "\n".join([*lines, "", hint])


def _train(arguments: Sequence[str]) -> int:
    """Runs train.py: next to this file where a wheel was installed, else next to the package."""
    here = Path(__file__)
    paths = here.with_name("train.py"), here.parents[2] / "train.py"
    spec = importlib.util.spec_from_file_location("train", next(filter(Path.exists, paths)))
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.main(arguments)
