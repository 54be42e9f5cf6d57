"""The commands of exercises: list, write and check them, grade submissions."""

import dataclasses
from functools import partial

from jaxnets.cli.answer import JSON, print_answer
from jaxnets.cli.language import words_of
from jaxnets.config.options import Options, option
from jaxnets.display import short_path
from jaxnets.errors import DONE, RUN_FAILED, UserError
from jaxnets.language import LANGUAGES

ANSWERS, THE_LOCALE = "language of the answers, not of JSON", "the locale's"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exercise(Options):
    """List exercises, write one into a file of your own, check numbers."""

    words: tuple[str, ...] = option(
        (),
        "new NAME writes an exercise into a file, check FILE checks computed numbers; without a "
        "word all exercises are listed",
        metavar="[new NAME | check FILE]",
    )
    output: str | None = option(None, "file to write", unset="my_NAME", metavar="FILE")
    hint: bool = option(False, "say more about each wrong number")
    language: str | None = option(None, ANSWERS, LANGUAGES, unset=THE_LOCALE)
    json: bool = option(False, JSON)

    def run(self) -> int:
        word, *rest = self.words or ("list",)
        if word not in ("list", "new", "check") or len(rest) != (word != "list"):
            wanted = "exercise, exercise new NAME or exercise check FILE"
            raise UserError(f"expected {wanted}, got exercise {' '.join(self.words)}")
        if self.output and word != "new":
            raise UserError("output: expected it with exercise new NAME")

        from jaxnets.cli.exercise_texts import translated
        from jaxnets.course.exercises import command

        say = words_of(self.language, "exercises")
        if word == "list":
            print_answer(*command.listing(say), self.json)
            return DONE
        if word == "check":
            right, values, text = command.check_numbers(rest[0], self.hint, say)
            print_answer(values, text, self.json)
            return DONE if right else RUN_FAILED
        path, next_command = command.write(rest[0], self.output, partial(translated, say=say))
        wrote = say(f"wrote {short_path(path)}; work on it, then:")
        text = f"{wrote}\n  {next_command}"
        print_answer({"file": path, "command": next_command}, text, self.json)
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
    image: str = option("jaxnets-grade", "image of a container (docs/teachers.md)")
    trust: bool = option(False, "run submissions without a sandbox, because they are your own")
    json: bool = option(False, JSON)

    def run(self) -> int:
        from jaxnets.course.exercises.command import grade
        from jaxnets.course.exercises.grade import Limits
        from jaxnets.course.exercises.sandbox import TRUST, Sandbox

        limits = Limits(self.seconds, self.memory, 10.0 * self.seconds)
        sandbox = Sandbox(TRUST if self.trust else self.sandbox, self.image)
        grade(self.submissions, limits, sandbox, self.json)
        return DONE
