"""The commands of exercises: list, write and check them, grade submissions."""

import dataclasses

from jaxnets.cli.answer import JSON, print_answer
from jaxnets.config.options import Options, option
from jaxnets.display import short_path
from jaxnets.errors import DONE, RUN_FAILED, UserError
from jaxnets.language import LANGUAGES, _, speaking

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

        from jaxnets.course.exercises import command

        if word == "check":
            with speaking("en" if self.json else self.language):
                right, values, text = command.check_numbers(rest[0], self.hint)
            print_answer(values, text, self.json)
            return DONE if right else RUN_FAILED
        with speaking(self.language):
            if word == "list":
                values, text = command.listing()
            else:
                path, next_command = command.write(rest[0], self.output)
                values = {"file": path, "command": next_command}
                text = _("wrote {}; work on it, then:", short_path(path)) + f"\n  {next_command}"
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
