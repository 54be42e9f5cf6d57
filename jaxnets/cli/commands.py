"""What `python -m jaxnets COMMAND` does: each command's flags, then the room that does the work.

Nothing here imports jax until the flags are known to be right.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

from jaxnets.cli.flags import FlagParser, parse_flags
from jaxnets.config.fields import preset
from jaxnets.config.recipes import DEFAULT_MODEL, PRESETS
from jaxnets.errors import DONE, RUN_FAILED, WRONG_REQUEST, UserError, unknown


def main(arguments: Sequence[str]) -> int:
    """Runs the command that comes first; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return DONE
    name, *rest = arguments
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    return COMMANDS[name](rest)


def gradcheck(arguments: Sequence[str]) -> int:
    """Check every gradient by hand against autodiff and central differences."""
    parser = _Parser("gradcheck", gradcheck.__doc__)
    parser.add_argument(
        "--model", help="one network, or all: also the slow ones, AlexNet at 224 pixels"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--mutant", help="check a wrong backward pass (docs/exercises.md)")
    flags = parser.parse(arguments)
    if flags.model not in (None, "all", *PRESETS):
        raise unknown("model", flags.model, ["all", *PRESETS])
    if flags.model and flags.mutant:
        raise UserError("model and mutant exclude each other, got both")

    from jaxnets.gradcheck.run import run

    agree = run(flags.model, flags.mutant, flags.json)
    return DONE if agree else RUN_FAILED


def summary(arguments: Sequence[str]) -> int:
    """Show a network layer by layer: output shape, parameters, FLOPs."""
    parser = _Parser("summary", summary.__doc__, config=True)
    parser.add_argument("--image_shape", default="28,28,1", help="of one image [28,28,1]")
    parser.add_argument("--num_classes", default="10", help="logits of the last layer [10]")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    flags, rest = parser.parse_known_args(arguments)
    config = preset(**parse_flags(rest))
    shape = _whole_numbers("image_shape", flags.image_shape, count=3)
    (classes,) = _whole_numbers("num_classes", flags.num_classes, count=1)

    from jaxnets.experiment import build_model
    from jaxnets.report.summary import summary as rows_of
    from jaxnets.report.summary import to_text, to_values

    rows = rows_of(build_model(config, classes), shape)
    if flags.json:
        print(json.dumps(to_values(config.model, rows, shape), indent=2))
    else:
        print(to_text(config.model, rows, shape))
    return DONE


def search(arguments: Sequence[str]) -> int:
    """Compare settings over several seeds, and tell a lead from luck."""
    parser = _Parser("search", search.__doc__, config=True)
    parser.add_argument(
        "--over", action="append", default=[], metavar="FIELD=A,B,...",
        help="the values of a field, as hidden=100,200 (layers as 64x32); may be repeated",
    )  # fmt: skip
    parser.add_argument("--seeds", default="10", help="how many seeds each setting gets [10]")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    flags, rest = parser.parse_known_args(arguments)
    (seeds,) = _whole_numbers("seeds", flags.seeds, count=1)
    given = parse_flags(rest)
    given.setdefault("model", DEFAULT_MODEL)
    over = dict(_values(given["model"], text) for text in flags.over)
    if not over:
        raise UserError("over: expected --over=FIELD=A,B,... at least once, got none")

    from jaxnets.lecture import ranking
    from jaxnets.lecture.search import search_all

    found = search_all(given, over, seeds)
    drawn = ranking.plot(found)
    if flags.json:
        print(json.dumps(ranking.to_values(found, seeds), indent=2))
    else:
        print(ranking.to_text(found, seeds))
        print(f"\nresults: {found.folder}{'' if drawn else ' (matplotlib would draw a plot)'}")
    return DONE


def _values(model: str, text: str) -> tuple[str, list[Any]]:
    """A field and its values, of "hidden=100,64x32"."""
    name, _, values = text.partition("=")
    if not values:
        raise UserError(f"over: expected FIELD=A,B,..., got {text!r}")
    texts = values.split(",")
    if name == "hidden":
        texts = [text.replace("x", ",") for text in texts]
    return name, [parse_flags([f"--model={model}", f"--{name}={text}"])[name] for text in texts]


def _whole_numbers(name: str, text: str, count: int) -> tuple[int, ...]:
    """The positive whole numbers of a flag."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count or min(numbers) < 1:
        wanted = "a whole number" if count == 1 else f"{count} whole numbers with commas"
        raise UserError(f"{name}: expected {wanted} from 1, got {text!r}")
    return numbers


def compare(arguments: Sequence[str]) -> int:
    """Show capacity and no free lunch: the lecture's models side by side on several data sets."""
    from jaxnets.lecture.compare.request import add_flags, request_of

    parser = _Parser("compare", compare.__doc__)
    add_flags(parser)
    request = request_of(parser.parse(arguments))

    from jaxnets.lecture.compare.run import run

    run(request)
    return DONE


def predict(arguments: Sequence[str]) -> int:
    """Tell what a trained run sees in your own pictures."""
    parser = _Parser("predict", predict.__doc__)
    parser.add_argument("run", metavar="RUN", help="the run folder, named at the end of train.py")
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+",
        help="a picture, a folder (every picture in it, not in its folders), or - for stdin",
    )  # fmt: skip
    parser.add_argument("--top", default="5", help="how many classes to name [5]")
    parser.add_argument(
        "--prepare", default="auto",
        help="digit: photo or scan of one character, made as MNIST's are; picture: only cut to a "
        "square; auto: digit for 28 x 28 in grey with class names of one character [auto]",
    )  # fmt: skip
    parser.add_argument("--show", action="store_true", help="draw what the network saw")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    flags = parser.parse(arguments)
    (top,) = _whole_numbers("top", flags.top, count=1)
    make_loss_and_grad = ("auto", "digit", "picture")
    if flags.prepare not in make_loss_and_grad:
        raise unknown("prepare", flags.prepare, make_loss_and_grad)
    if flags.show and flags.json:
        raise UserError("show and json exclude each other, got both")

    from jaxnets.serving.answer import answer

    all_good = answer(
        flags.run, flags.images, top=top, prepare_as=flags.prepare, as_json=flags.json,
        show=flags.show,
    )  # fmt: skip
    return DONE if all_good else WRONG_REQUEST


def devices(arguments: Sequence[str]) -> int:
    """Show what JAX finds here, and on what train.py with the same flags would train."""
    parser = _Parser("devices", devices.__doc__, config=True)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    flags, rest = parser.parse_known_args(arguments)
    config = preset(**parse_flags(rest))

    from jaxnets.experiment import create_parallel
    from jaxnets.report.devices import to_text, to_values

    values = to_values(create_parallel(config))
    print(json.dumps(values, indent=2) if flags.json else to_text(values))
    return DONE


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "summary": summary,
    "gradcheck": gradcheck,
    "search": search,
    "compare": compare,
    "predict": predict,
    "devices": devices,
}


def _help() -> str:
    lines = [f"  {name:12} {command.__doc__}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: python -m jaxnets COMMAND [--flag=value ...]", "", *lines, "",
         "python -m jaxnets COMMAND --help lists a command's flags."]
    )  # fmt: skip


class _Parser(FlagParser):
    """Flags of one command; what is wrong with them is a UserError."""

    def __init__(self, command: str, description: str | None, config: bool = False):
        """Names the command; `config` says that it takes the flags of train.py too."""
        super().__init__(
            prog=f"python -m jaxnets {command}",
            description=description,
            epilog="Every flag of train.py is taken too: train.py --help." if config else None,
            allow_abbrev=False,
        )

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Reads the flags; the nearest is suggested for one that does not exist."""
        flags, rest = self.parse_known_intermixed_args(arguments)
        if rest:
            known = [option for option in self._option_string_actions if option.startswith("--")]
            raise unknown("flag", rest[0].split("=")[0], known)
        return flags
