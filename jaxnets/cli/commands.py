"""`jaxnets COMMAND`: each command's flags, and the room that does the work.

Nothing here imports jax until the flags are known to be right.
"""

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxnets.base.display import print_answer, short_path, table
from jaxnets.base.errors import DONE, RUN_FAILED, UserError, did_you_mean, same_name
from jaxnets.base.language import LANGUAGES, Text, _, asked_for, speaking
from jaxnets.cli.flags import (
    ANSWERS,
    JSON,
    THE_LOCALE,
    is_file_of_python,
    known_language,
    parse_command,
    print_version,
    unknown_flag,
)
from jaxnets.cli.run_commands import (
    FIGURE,
    Abtest,
    Evaluate,
    Export,
    Page,
    Predict,
    Report,
    Runs,
    Serve,
    Trace,
)
from jaxnets.config.fields import COUNT, Config
from jaxnets.config.file import ConfigFile
from jaxnets.config.options import Options, option, parse
from jaxnets.config.recipes import DEFAULT_MODEL, PRESETS
from jaxnets.config.resolve import OwnNetwork, preset
from jaxnets.tune.workers import Workers


def main(arguments: Sequence[str]) -> int:
    """Runs the command that comes first; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        with speaking(known_language(asked_for(arguments))):
            print(_help(), flush=True)
        return DONE
    if arguments[0] == "--version":
        print_version()
    given, *rest = arguments
    known = ("train", *COMMANDS)
    name = same_name(given, known)
    if name is None:
        hint = did_you_mean(given, known, quoted=True)
        raise UserError('unknown command "{}"{} (known: {})', given, hint, ", ".join(known))
    if name == "train":
        return _train(rest)
    command, flags = parse_command(rest, name, COMMANDS[name])
    return command.run(**flags)


def abouts() -> dict[str, str]:
    """A line on each command."""
    return {
        "train": _("Train a network and report its test accuracy."),
        **{name: _(str(command.__doc__)) for name, (command, *_others) in COMMANDS.items()},
    }


def _help() -> str:
    hint = _("jaxnets COMMAND --help lists a command's flags, jaxnets --version the version.")
    lines = [f"  {name:12}{text}" for name, text in abouts().items()]
    usage = _("usage:") + " jaxnets COMMAND [--flag=value ...]"
    return "\n".join([usage, "", *lines, "", hint])


def _train(arguments: Sequence[str]) -> int:
    """Runs train.py, which stands beside the package, or inside where a wheel was installed."""
    package = Path(__file__).parents[1]
    path = next(path for path in (package, package.parent) if (path / "train.py").exists())
    spec = importlib.util.spec_from_file_location("train", path / "train.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.main(arguments)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gradcheck(Options):
    """Check hand-derived gradients by autodiff and central differences."""

    model: str | None = option(
        None,
        "network to check, or FILE.py with a function model(num_classes); all checks the slow "
        "ones too, and AlexNet at 224 pixels",
        ("all", *PRESETS),
        unset="every layer, and every network that is fast",
        others=True,
    )
    image_shape: tuple[int, ...] = option(
        (28, 28, 1), "of a FILE.py: height, width and channels of an image", (1, 10_000)
    )
    draws: int | None = option(
        None,
        "settings to draw for each layer and kernel: shapes, strides, padding, batches",
        (0, 10_000),
        unset="8 to 64, by how many branches there are",
    )
    seed: int = option(0, "seed of the draws", (0, 2**31 - 1))
    mutant: str | None = option(None, "wrong backward pass to check")
    mine: str | None = option(
        None, "file of your own to check (jaxnets exercise new)", metavar="FILE"
    )
    hint: bool = option(False, "say more about what is wrong in a file of yours")
    language: str | None = option(None, ANSWERS, LANGUAGES, unset=THE_LOCALE)
    json: bool = option(False, JSON)

    def run(self) -> int:
        given = [name for name in ("model", "mutant", "mine") if getattr(self, name)]
        if len(given) > 1:
            wanted = Text("one of --model, --mutant and --mine")
            raise UserError(
                "expected {}, got {}", wanted, " and ".join(f"--{name}" for name in given)
            )
        own = is_file_of_python(self.model)
        if self.hint and not (self.mine or own):
            raise UserError("hint: expected it with --mine=FILE or --model=FILE.py, got neither")
        if self.language and not self.mine:
            raise UserError("language: expected it with --mine=FILE, got it alone")
        if self.mine and (self.draws is not None or self.seed):
            raise UserError("draws and seed: expected them without --mine=FILE, got both")
        if self.mine:
            from jaxnets.course.exercises.command import check_mine

            with speaking("en" if self.json else self.language):
                passed, values, text = check_mine(self.mine, self.hint)
            print_answer(values, text, self.json)
            return DONE if passed else RUN_FAILED

        from jaxnets.course.exercises.judge import mutant
        from jaxnets.gradcheck.command import run

        wrong = None if self.mutant is None else (self.mutant, mutant(self.mutant))
        model = self.model
        if own:
            from jaxnets.gradcheck.networks import NUM_CLASSES, Network
            from jaxnets.networks.own import from_file

            image = _image_shape(self.image_shape)
            model = Network(preset(from_file(str(model)).for_data(image, NUM_CLASSES)), image)
        with speaking("en" if self.json else None):
            agrees = run(model, wrong, self.json, self.hint, self.draws, self.seed)
        return DONE if agrees else RUN_FAILED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exercise(Options):
    """List exercises, write one into a file, check your answers."""

    words: tuple[str, ...] = option(
        (),
        "new NAME writes an exercise into a file, check FILE judges your answers, answers [NAME] "
        "is for teachers; without a word all exercises are listed",
        metavar="[new|answers NAME | check FILE]",
    )
    output: str | None = option(
        None, "file to write; also -o FILE", unset="my_NAME", metavar="FILE"
    )
    student: str | None = option(
        None,
        "student whose own numbers new and answers put into an exercise to compute",
        metavar="NAME",
        unset="everybody's numbers",
    )
    hint: bool = option(False, "say more about what is wrong")
    language: str | None = option(None, ANSWERS, LANGUAGES, unset=THE_LOCALE)
    json: bool = option(False, JSON)

    def run(self) -> int:
        word, *rest = self.words or ("list",)
        counts = {"list": (0,), "new": (1,), "check": (1,), "answers": (0, 1)}
        if len(rest) not in counts.get(word, ()):
            wanted = Text("exercise, exercise new NAME, exercise check FILE or exercise answers")
            raise UserError("expected {}, got exercise {}", wanted, " ".join(self.words))
        for flag in ("output", "student"):
            if getattr(self, flag) and word not in ("new", "answers"):
                raise UserError("{}: expected it with exercise new NAME or exercise answers", flag)

        from jaxnets.course.exercises import command

        if word == "check":
            with speaking("en" if self.json else self.language):
                check = command.check_mine if rest[0].endswith(".py") else command.check_numbers
                right, values, text = check(rest[0], self.hint)
            print_answer(values, text, self.json)
            return DONE if right else RUN_FAILED
        with speaking(self.language):
            if word == "list":
                values, text = command.listing()
            elif word == "answers":
                name = rest[0] if rest else None
                values, text = command.answers(name, self.student, self.output)
            else:
                path, next_command, note = command.write(rest[0], self.output, self.student)
                values = {"file": path, "command": next_command, "note": note}
                text = _("wrote {}; work on it, then:", short_path(path)) + f"\n  {next_command}"
                text += f"\n{note}" if note else ""
        print_answer(values, text, self.json)
        return DONE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grade(Options):
    """Grade a folder of submissions, each in a sandbox of its own."""

    submissions: str = option(
        dataclasses.MISSING,
        "a file, or a folder with files, for each student: .py and .toml",
        metavar="SUBMISSIONS",
    )
    seconds: int = option(20, "processor seconds that a submission may take", (1, 3600))
    memory: int = option(2048, "MiB that a submission may take", (64, 1 << 20))
    sandbox: str = option("bwrap", "where submissions run", ("bwrap", "podman", "docker"))
    image: str = option("jaxnets-grade", "image of a container (docs/teachers/grading.md)")
    trust: bool = option(False, "run submissions without a sandbox, because they are your own")
    exercises: tuple[str, ...] = option(
        (),
        "exercises of the assignment, with their points if these are not a fifth of the minutes: "
        "dense=3,relu",
        unset="all that anybody has handed in",
        metavar="NAME,...",
    )
    csv: str | None = option(
        None, "table of the points to write, a row for each student", metavar="FILE"
    )
    feedback: str | None = option(
        None, "folder in which to write a text for each student", metavar="FOLDER"
    )
    format: str = option(
        "table",
        "what to print: rows, one student's results.json for Gradescope, or the CSV that nbgrader "
        "exports",
        ("table", "gradescope", "nbgrader"),
    )
    language: str | None = option(None, ANSWERS, LANGUAGES, unset=THE_LOCALE)
    json: bool = option(False, JSON)

    def run(self) -> int:
        from jaxnets.course.exercises.command import grade
        from jaxnets.course.exercises.sandbox import TRUST, Limits, Sandbox

        if self.json and self.format != "table":
            raise UserError("json and format={} exclude each other, got both", self.format)
        limits = Limits(self.seconds, self.memory, 10.0 * self.seconds)
        sandbox = Sandbox(TRUST if self.trust else self.sandbox, self.image)
        with speaking("en" if self.json else self.language):
            grade(
                *(self.submissions, limits, sandbox, self.json),
                exercises=self.exercises,
                as_format=self.format,
                csv=self.csv,
                feedback=self.feedback,
            )
        return DONE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary(Options):
    """Show a network layer by layer: output shape, parameters, FLOPs."""

    image_shape: tuple[int, ...] = option(
        (28, 28, 1), "height, width and channels of an image", (1, 10_000)
    )
    num_classes: int = option(10, "number of classes, the outputs of the last layer", COUNT)
    output: str | None = option(None, FIGURE, metavar="FILE")
    json: bool = option(False, JSON)

    def run(self, **given: Any) -> int:
        shape = _image_shape(self.image_shape)
        if isinstance(own := given.get("model"), OwnNetwork):
            given["model"] = own.for_data(shape, self.num_classes)
        config = preset(**given)

        from jaxnets.networks.create import create_model
        from jaxnets.report import summary

        if self.output:
            from jaxnets.drawing.svg import figure_path

            figure_path(self.output)  # What cannot be written is said at once.
        rows = summary.summary(create_model(config, self.num_classes), self.image_shape)
        what = config.model, rows, self.image_shape
        values = summary.to_values(*what)
        if self.output:
            summary.network_figure(*what).save(self.output)
        print_answer(values, summary.to_text(*what), self.json)
        return DONE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(Options):
    """The settings that a search compares."""

    over: tuple[str, ...] = option(
        (),
        "field and the values to compare, as hidden=100,200 (several layers as 64x32); give the "
        "flag several times for several fields",
        metavar="FIELD=A,B,...",
        repeated=True,
    )
    seeds: int = option(10, "number of seeds for each setting", COUNT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search(Workers, Settings):  # In the help the last one's flags come first.
    """Compare settings over several seeds, and test if a lead is luck."""

    race: bool = option(
        False,
        "look after every seed, and drop a setting once another has surely beaten it; --seeds is "
        "then the largest number",
    )
    json: bool = option(False, JSON)

    def run(self, **given: Any) -> int:
        given.setdefault("model", DEFAULT_MODEL)
        over = dict(map(_values, self.over))
        if not over:
            wanted = Text("--over=FIELD=A,B,... at least once, as --over=hidden=100,200")
            raise UserError("over: expected {}, got none", wanted)

        from jaxnets.tune import ranking
        from jaxnets.tune.search import search_all

        found = search_all(given, over, self.seeds, self, self.race)
        if self.cell is not None:
            print(_("{} runs are done in {}", len(found.runs), short_path(str(found.folder))))
            return DONE
        ranking.plot(found).save(found.folder / "search.svg")
        where = _("results: {}", short_path(str(found.folder)))
        text = f"{ranking.to_text(found)}\n\n{where}"
        print_answer(ranking.to_values(found), text, self.json)
        return DONE


@dataclasses.dataclass(frozen=True, kw_only=True)
class LrFind(Options):
    """Find a learning rate: try growing ones, a step each."""

    output: str | None = option(None, FIGURE, metavar="FILE")
    json: bool = option(False, JSON)

    def run(self, **given: Any) -> int:
        preset(**given)  # It raises if the flags are wrong, before JAX is imported.

        from jaxnets.drawing.svg import figure_path
        from jaxnets.tune import lr_find

        if self.output:
            figure_path(self.output)
        config, found = lr_find.find(given)
        if self.output:
            lr_find.plot(found, config).save(self.output)
        values = lr_find.to_values(found, config)
        print_answer(values, lr_find.to_text(found, config), self.json)
        return DONE


def _values(text: str) -> tuple[str, list[Any]]:
    """The field and its values in a text such as "hidden=100,64x32"."""
    name, _, values = text.partition("=")
    name = name.replace("-", "_")
    if not values:
        raise UserError("over: expected FIELD=A,B,..., got {}", repr(text))
    fields = Config.__dataclass_fields__
    if name not in fields:
        raise unknown_flag(f"--{name}", [f"--{known}" for known in fields])
    parts = values.split(",")
    if name == "hidden":
        parts = [size.replace("x", ",") for size in parts]
    return name, [parse(fields[name], part) for part in parts]


def _image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The flag's height, width and channels."""
    if len(shape) != 3 or shape[2] not in (1, 3):
        wanted = Text("height, width and 1 or 3 channels, as 28,28,1")
        raise UserError("image_shape: expected {}, got {}", wanted, shape)
    height, width, channels = shape
    return height, width, channels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Devices(Options):
    """Show the devices that JAX finds, and which of them would train."""

    json: bool = option(False, JSON)

    def run(self, **given: Any) -> int:
        config = preset(**given)

        from jaxnets.experiment import find_devices
        from jaxnets.machine.platform import describe, inventory
        from jaxnets.training.parallel import Parallel

        parallel = Parallel(find_devices(config), config.parallel)
        values = inventory(parallel.devices, parallel.kind)
        used = _("{} by {} ({})", values["used"], values["parallel"], describe(parallel.devices))
        versions = ", ".join(" ".join(pair) for pair in values["versions"].items())
        lines = [
            (_("platform"), values["platform"]),
            (_("devices"), f"{values['count']} x {values['kind']}"),
            (_("used"), used),
            (_("versions"), versions),
        ]
        print_answer(values, "\n".join(table(lines, "<<")), self.json)
        return DONE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion(Options):
    """Print what lets Tab complete in bash, zsh or fish."""

    shell: tuple[str, ...] = option(
        dataclasses.MISSING, "bash, zsh or fish, whose script is printed", metavar="SHELL"
    )

    def run(self) -> int:
        from jaxnets.cli import completion

        print(completion.answer(self.shell, {"train": (Config, ConfigFile), **COMMANDS}))
        return DONE


# The class of a command's own flags; Config where it takes the flags of train.py, too.
COMMANDS: dict[str, tuple[Any, ...]] = {
    "summary": (Summary, Config, ConfigFile),
    "gradcheck": (Gradcheck,),
    "exercise": (Exercise,),
    "grade": (Grade,),
    "search": (Search, Config, ConfigFile),
    "lr_find": (LrFind, Config, ConfigFile),
    "runs": (Runs,),
    "predict": (Predict,),
    "evaluate": (Evaluate,),
    "page": (Page,),
    "report": (Report,),
    "trace": (Trace, Config, ConfigFile),
    "export": (Export,),
    "abtest": (Abtest,),
    "serve": (Serve,),
    "devices": (Devices, Config, ConfigFile),
    "completion": (Completion,),
}
