"""The commands that use a trained run, each with its flags and the room that does the work."""

import dataclasses
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxnets.base.display import NOT_FINISHED, print_answer, short_path, show
from jaxnets.base.errors import DONE, WRONG_REQUEST, UserError, not_installed, show_error
from jaxnets.base.language import LANGUAGES, Text, _
from jaxnets.cli.flags import JSON, THE_LOCALE
from jaxnets.config.fields import COUNT
from jaxnets.config.options import Options, option

if TYPE_CHECKING:
    from jaxnets.abtest.trial import Plan

RUN = "run folder, which train.py names at its end"
OUTPUT = "file to write, which replaces an older one; also -o FILE"
FIGURE = "figure to write, as .svg or .png; also -o FILE"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OfRuns(Options):
    layers: tuple[str, ...] = option(
        (),
        "file with layers of your own, if the run has some; it is run (docs/own-networks.md)",
        metavar="FILE.py",
        unset="none is run",
        repeated=True,
    )

    def check_exist(self, *run_folders: str) -> None:
        """Checks that the folders are there, and runs the files of the user's own layers."""
        _check_exist(*run_folders)
        if self.layers:
            from jaxnets.networks.own import know

            for file in self.layers:
                know(file)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OfRun(_OfRuns):
    run_folder: str = option(dataclasses.MISSING, RUN, metavar="RUN")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runs(Options):
    """List the runs of a folder, and how to resume unfinished ones."""

    folder: tuple[str, ...] = option(
        (), "folder of run folders; without it runs", metavar="[FOLDER]"
    )
    json: bool = option(False, JSON)

    def run(self) -> int:
        if len(self.folder) > 1:
            raise UserError("expected one folder, got {}", " ".join(self.folder))

        from jaxnets.runs import listing

        found = listing.list_runs(*self.folder)
        print_answer(listing.to_values(found), listing.to_text(found), self.json)
        return DONE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(_OfRun):
    """Name what is in your own pictures, by a trained run."""

    images: tuple[str, ...] = option(
        dataclasses.MISSING,
        "a picture, a folder (its pictures; if it has none, those of its class folders), or - for "
        "stdin",
        metavar="IMAGE...",
    )
    top: int = option(5, "number of classes to name, the most probable ones", COUNT)
    prepare: str = option(
        "auto",
        "how a picture is prepared: digit takes it for a photo or scan of one character and makes "
        "it like MNIST's images; digits finds several characters and reads each; picture only "
        "cuts out the middle square; auto is digit for runs on 28 x 28 grey images whose class "
        "names have one character, and reports a picture of several",
        ("auto", "digit", "digits", "picture"),
    )
    json: bool = option(False, JSON)

    def run(self) -> int:
        if not _holds_run(self.run_folder) and (runs := [*filter(_holds_run, self.images)]):
            raise UserError("expected the run before the pictures: predict {} IMAGE...", runs[0])
        self.check_exist(self.run_folder)

        from jaxnets.predict.answer import answer

        all_good = answer(
            self.run_folder,
            self.images,
            top=self.top,
            prepare_as=self.prepare,
            as_json=self.json,
        )
        return DONE if all_good else WRONG_REQUEST


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(_OfRun):
    """Measure a trained run on labelled pictures."""

    on: tuple[str, ...] = option(
        (),
        "folder with a folder of pictures for each class, or the name of a data set; without it "
        "the test images of the run's own data set",
        metavar="[FOLDER|NAME]",
    )
    prepare: str = option(
        "auto",
        "how a folder's pictures are prepared, as in predict",
        ("auto", "digit", "picture"),
    )
    output: str | None = option(
        None, "figure of all wrong pictures to write, as .svg or .png; also -o FILE", metavar="FILE"
    )
    json: bool = option(False, JSON)

    def run(self) -> int:
        if len(self.on) > 1:
            raise UserError("expected one folder or data set, got {}", " ".join(self.on))
        self.check_exist(self.run_folder)

        from jaxnets.drawing.svg import figure_path
        from jaxnets.report import evaluate

        if self.output:
            figure_path(self.output)  # What cannot be written is said at once.
        found = evaluate.evaluate(self.run_folder, *self.on, prepare_as=self.prepare)
        if not found.trained.finished:
            show(_(NOT_FINISHED, found.trained.step), sys.stderr)
        for name, why in found.unreadable:
            show_error(Text("{}: {}", name, why))
        values, text = evaluate.to_values(found), evaluate.to_text(found)
        if self.output and (drawn := evaluate.sheet(found)) is not None:
            drawn.save(self.output)
            values["output"] = self.output
            text += "\n\n" + _("wrong pictures: {}", short_path(self.output))
        print_answer(values, text, self.json)
        return WRONG_REQUEST if found.unreadable else DONE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page(_OfRun):
    """Write a web page that shows a trained run at work, in one file."""

    output: str = option("page.html", OUTPUT, metavar="FILE")
    language: str | None = option(
        None, "language in which the page begins", LANGUAGES, unset="the browser's"
    )
    json: bool = option(False, JSON)

    def run(self) -> int:
        self.check_exist(self.run_folder)

        from jaxnets.page.build import to_text, write_page

        written = write_page(self.run_folder, self.output, self.language)
        print_answer(written, to_text(written), self.json)
        return DONE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report(_OfRuns):
    """Show what runs learned, their mistakes and gradients, in one file."""

    runs: tuple[str, ...] = option(
        dataclasses.MISSING,
        f"{RUN}; several are set side by side",
        metavar="RUN...",
    )
    output: str = option("report.html", OUTPUT, metavar="FILE")
    figures: str | None = option(
        None, "folder for every figure as SVG and PNG (pip install resvg-py)", metavar="FOLDER"
    )
    language: str | None = option(None, "language of the report", LANGUAGES, unset=THE_LOCALE)
    json: bool = option(False, JSON)

    def run(self) -> int:
        self.check_exist(*self.runs)

        from jaxnets.report.build import to_text, write_report

        written = write_report(self.runs, self.output, self.figures, self.language)
        print_answer(written, to_text(written), self.json)
        return DONE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trace(_OfRuns):
    """Draw one image's numbers through a network, forward and backward."""

    run_folder: tuple[str, ...] = option(
        (), "run folder; without it --model=NAME takes a fresh network", metavar="[RUN]"
    )
    image: str | None = option(
        None, "picture, or the number of a test image of the data set", metavar="FILE|N"
    )
    label: str | None = option(
        None,
        "class with which the loss compares",
        unset="a test image's own, else the network's answer",
    )
    output: str = option("trace.svg", FIGURE, metavar="FILE")
    json: bool = option(False, JSON)

    def run(self, **given: Any) -> int:
        if self.image is None:
            raise UserError("image: expected --image=FILE, or --image=N for a test image, got none")
        if len(self.run_folder) > 1 or (self.run_folder and given):
            others = [*self.run_folder[1:], *(f"--{name}" for name in given)]
            raise UserError("expected one run, or flags of a fresh network, got {} too", others[0])
        self.check_exist(*self.run_folder)

        from jaxnets.report.trace import to_text, trace

        run = self.run_folder[0] if self.run_folder else None
        values = trace(run, given, self.image, self.label, self.output)
        print_answer(values, to_text(values), self.json)
        return DONE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(_OfRun):
    """Write a trained run's network for other programs."""

    format: str | None = option(
        None,
        "safetensors is the archive: arrays, layers, config and class names; onnx and stablehlo "
        "are for serving",
        ("safetensors", "stablehlo", "onnx"),
        unset="the output's ending, else safetensors",
    )
    output: str | None = option(
        None,
        OUTPUT,
        metavar="FILE",
        unset="the run folder's name with the format as its ending",
    )
    json: bool = option(False, JSON)

    def run(self) -> int:
        self.check_exist(self.run_folder)

        from jaxnets.export import export

        made = export.export(self.run_folder, self.format, self.output)
        print_answer(export.to_values(made), export.to_text(made), self.json)
        return DONE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Abtest(_OfRuns):
    """Compare two models, by users' answers or on labelled pictures."""

    given: tuple[str, ...] = option(
        dataclasses.MISSING,
        "answers of users, as the server's log (a file, or its URL of PostgreSQL) or as CSV "
        "(columns arm: A or B, correct: 1 or 0, perhaps user and time); or two run folders, tested "
        "on the same pictures",
        metavar="LOG|RUN_A RUN_B",
    )
    alpha: float = option(0.05, "chance of a false alarm", (1e-6, 0.5))
    effect: float = option(
        0.02, "smallest difference in accuracy that matters to you", (1e-4, 0.99)
    )
    power: float = option(0.8, "chance to find that difference", (0.5, 0.999))
    split: str = option("50/50", "of a log: percentages of users for A and B", metavar="A/B")
    dataset: str | None = option(
        None,
        "of two runs: data set, or folder of pictures, to test them on",
        metavar="NAME|FOLDER",
        unset="the runs' own",
    )
    output: str | None = option(None, f"of a log: {FIGURE}", metavar="FILE")
    json: bool = option(False, JSON)

    def run(self) -> int:
        from jaxnets.abtest.trial import Plan

        plan = Plan(self.alpha, self.effect, self.power, _share_b(self.split))
        if len(self.given) == 1:
            values, text = self._of_log(plan)
        else:
            values, text = self._of_runs(plan)
        print_answer(values, text, self.json)
        return DONE

    def _of_log(self, plan: "Plan") -> tuple[dict[str, Any], str]:
        (log,) = self.given
        if _holds_run(log):
            raise UserError("expected a log, or two runs: abtest {} RUN_B", log)
        if self.dataset:
            raise UserError("dataset: expected two runs with it, got a log")

        from jaxnets.abtest import presentation, trial
        from jaxnets.abtest.log import name_of, read_users

        if self.output:
            from jaxnets.drawing.svg import figure_path

            figure_path(self.output)
        found = trial.evaluate(read_users(log), plan)
        if self.output:
            presentation.plot(found).save(self.output)
        return presentation.to_values(found), presentation.to_text(found, name_of(log))

    def _of_runs(self, plan: "Plan") -> tuple[dict[str, Any], str]:
        run_a, run_b, *others = self.given
        if others:
            raise UserError("expected a log, or two runs, got {} names", len(self.given))
        if self.output or self.split != type(self).split:
            raise UserError("output and split: expected a log with them, got two runs")
        self.check_exist(*self.given)

        from jaxnets.abtest import pairs

        found = pairs.compare_runs(run_a, run_b, self.dataset)
        return pairs.to_values(found, plan), pairs.to_text(found, plan)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serve(_OfRuns):
    """Answer pictures over HTTP, by one run or by two in an A/B test."""

    runs: tuple[str, ...] = option(
        dataclasses.MISSING,
        f"{RUN}; a second one is model B of an A/B test",
        metavar="RUN [RUN_B]",
    )
    split: str = option("50/50", "percentages of users for A and B", metavar="A/B")
    host: str = option("127.0.0.1", "address to listen at; 0.0.0.0 is every one", metavar="HOST")
    port: int = option(8000, "port to listen at; 0 takes a free one", (0, 65535))
    feedback: str | None = option(
        None,
        "SQLite file to which the feedback is appended, or postgresql://USER@HOST/DATABASE",
        unset="feedback-RUN.sqlite beside the run",
        metavar="FILE|URL",
    )
    ray: str | None = option(
        None,
        "Ray cluster that serves in several processes: local starts one here, an address joins one",
        unset="one process, without Ray",
        metavar="local|ADDRESS",
    )
    replicas: int = option(1, "with --ray: number of processes, each on one core", COUNT)
    json: bool = option(False, "print JSON: the address, the models, the log")

    def run(self) -> int:
        if self.replicas > 1 and self.ray is None:
            raise UserError("replicas: expected --ray=local or --ray=ADDRESS with it")
        if len(self.runs) > 2:
            raise UserError("expected one run or two, got {}", len(self.runs))
        if len(self.runs) == 1 and self.split != type(self).split:
            raise UserError("split: expected two runs with it, got one")
        share_b = _share_b(self.split)
        self.check_exist(*self.runs)
        for name in ("fastapi", "uvicorn", "prometheus_client", "python_multipart", "sqlalchemy"):
            if importlib.util.find_spec(name) is None:
                raise not_installed(name, "serve")

        from jaxnets.server.start import serve

        return serve(
            self.runs,
            share=1 - share_b,
            host=self.host,
            port=self.port,
            feedback=self.feedback,
            as_json=self.json,
            cluster=self.ray,
            replicas=self.replicas,
            layers=self.layers,
        )


def _share_b(split: str) -> float:
    """The share of users for B in a text such as "50/50"."""
    parts = split.split("/")
    try:
        a, b = map(float, parts)
        if min(a, b) > 0 and a + b < float("inf"):
            return b / (a + b)
    except ValueError:
        pass
    raise UserError("split: expected two percentages as 50/50, got {}", repr(split))


def _check_exist(*run_folders: str) -> None:
    """Raises UserError, which names the newest run, if one of the folders is missing."""
    for folder in run_folders:
        if not os.path.exists(folder):
            hint = Text("train.py prints its name at the end of a run")
            if runs := list(Path("runs").glob("*/config.json")):
                hint = Text("the newest is {}", max(runs, key=os.path.getmtime).parent)
            found = "a URL" if "://" in folder else folder  # It may hold a password.
            raise UserError("{}: expected a run folder, found no config.json; {}", found, hint)


def _holds_run(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, "config.json"))
