"""A command: a typed function of the room that does its work.

Its signature gives the flags, and the Args section of its docstring their help. Parameters before
the star are words, those after it flags; `**flags` takes those of train.py:

    @command
    def predict(run_folder: RunPath, images: Images, *, top: Count = 5) -> CommandResult:

A CommandResult is printed here, as text or with --json, which needs no parameter. A command that
prints its lines as it finds them takes `json` itself, and returns the exit status. Heavy modules
are imported in the body, because `jaxnets --help` imports every command.
"""

import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any, Literal

from jaxnets.base.display import show
from jaxnets.base.errors import DONE, UserError
from jaxnets.base.language import LANGUAGES, Text
from jaxnets.config.fields import Config
from jaxnets.config.file import ConfigFile
from jaxnets.config.options import Options, option, options_of


class CommandResult:
    """What a command found: values for programs, which --json prints, and a text for people."""

    @property
    def status(self) -> int:
        """The exit status of the command."""
        return DONE

    def values(self) -> object:
        """Everything that was found, as JSON takes it."""
        raise NotImplementedError

    def text(self) -> str:
        """The same as lines for a reader."""
        raise NotImplementedError


class Flag(typing.NamedTuple):
    """What the type of a parameter does not say about its flag; `options.option` explains each.

    The help is in the docstring's Args section, or here where several commands share a flag.
    """

    allowed: tuple[Any, ...] | None = None
    help: str | None = None
    metavar: str | None = None
    unset: str | None = None
    repeated: bool | None = None
    others: bool | None = None


# Flags that several commands share.
THE_LOCALE = "the locale's"
OUTPUT = "file to write, which replaces an older one; also -o FILE"
FIGURE = "figure to write, as .svg or .png; also -o FILE"
PRINT_JSON = "print JSON instead of a table"
Json = Annotated[bool, Flag(help=PRINT_JSON)]
AnswerLanguage = Annotated[
    str | None, Flag(LANGUAGES, "language of the answers, not of JSON", unset=THE_LOCALE)
]
FigureFile = Annotated[str | None, Flag(help=FIGURE, metavar="FILE")]
OF_RECIPE = "that of the recipe's data, else 28,28,1"
ImageShape = Annotated[tuple[int, ...] | None, Flag((1, 10_000), unset=OF_RECIPE)]


def checked_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The height, width and channels that a flag gives.

    Raises:
      UserError: They are not three numbers, or the channels neither 1 nor 3.
    """
    if len(shape) != 3 or shape[2] not in (1, 3):
        wanted = Text("height, width and 1 or 3 channels, as 28,28,1")
        raise UserError("image_shape: expected {}, got {}", wanted, shape)
    height, width, channels = shape
    return height, width, channels


@dataclasses.dataclass(frozen=True)
class Command:
    """A function and what the command line knows about it; `command` makes one."""

    function: Callable[..., CommandResult | int]

    @cached_property
    def about(self) -> str:
        """The line that says what it does: the docstring's first."""
        return inspect.cleandoc(self.function.__doc__ or "").partition("\n")[0]

    @cached_property
    def kinds(self) -> tuple[type[Options], ...]:
        """Its own flags, then those of train.py if it takes any: `**flags`."""
        takes_training = any(one.kind is one.VAR_KEYWORD for one in self._parameters)
        helps = self._helps()
        own = [field for one in self._parameters for field in _fields(one, helps)]
        prints_itself = inspect.signature(self.function).return_annotation is int
        if not prints_itself and "json" not in [one.name for one in self._parameters]:
            own.append(("json", bool, option(False, PRINT_JSON)))
        kind = dataclasses.make_dataclass(
            self.function.__name__, own, bases=(Options,), frozen=True, kw_only=True, repr=False
        )
        return (kind, Config, ConfigFile) if takes_training else (kind,)

    def run(self, own: Options, flags: dict[str, Any]) -> int:
        """Calls the function with the values of its own flags and with flags of train.py.

        It prints the result, and returns the exit status.
        """
        values = {}
        for one in self._parameters:
            if _is_options(one.annotation):
                names = [field.name for field in options_of(one.annotation)]
                values[one.name] = one.annotation(**{name: getattr(own, name) for name in names})
            elif one.kind is not one.VAR_KEYWORD:
                values[one.name] = getattr(own, one.name)
        result = self.function(**values, **flags)
        if isinstance(result, int):
            return result
        print_result(result, getattr(own, "json", False))
        return result.status

    @property
    def _parameters(self) -> list[inspect.Parameter]:
        return [*inspect.signature(self.function).parameters.values()]

    def _helps(self) -> dict[str, str]:
        """The texts of the docstring's Args section, by parameter."""
        _about, _args, rest = inspect.cleandoc(self.function.__doc__ or "").partition("\nArgs:\n")
        found = re.findall(r"^  (\w+): (.*(?:\n    .*)*)", rest, re.MULTILINE)
        return {name: " ".join(text.split()) for name, text in found}


def command(function: Callable[..., CommandResult | int]) -> Command:
    """Makes a command of a function."""
    return Command(function)


def print_result(result: CommandResult, as_json: bool) -> None:
    """Prints what a command found."""
    if as_json:
        print(json.dumps(result.values(), indent=2))
    else:
        show(result.text())


def _is_options(annotation: object) -> bool:
    """Whether a parameter is a group of flags, as tune.workers.Workers."""
    return isinstance(annotation, type) and issubclass(annotation, Options)


def _fields(parameter: inspect.Parameter, helps: dict[str, str]) -> list[tuple[str, Any, Any]]:
    """The name, type and option of a parameter's flag, or of each flag of its group."""
    annotation = parameter.annotation
    if parameter.kind is parameter.VAR_KEYWORD:
        return []
    if _is_options(annotation):
        return [(field.name, field.type, field) for field in options_of(annotation)]
    says: dict[str, Any] = {"help": helps.get(parameter.name)}
    if typing.get_origin(annotation) is Annotated:
        for flag in annotation.__metadata__:
            says |= {key: value for key, value in flag._asdict().items() if value is not None}
        annotation = annotation.__origin__
    kind, optional = annotation, type(None) in typing.get_args(annotation)
    if optional:
        (kind,) = (one for one in typing.get_args(annotation) if one is not type(None))
    if typing.get_origin(kind) is Literal:
        kind, says["allowed"] = str, typing.get_args(kind)
    is_word = parameter.kind is not parameter.KEYWORD_ONLY
    default = dataclasses.MISSING if parameter.default is parameter.empty else parameter.default
    if is_word and default is not dataclasses.MISSING:
        says["metavar"] = f"[{says['metavar']}]"
    return [(parameter.name, kind | None if optional else kind, option(default, **says))]
