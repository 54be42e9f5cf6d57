"""Builds the report of one or several runs: one HTML file that loads nothing."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.base import files
from jaxnets.base.display import one_line, printable, short_path, shortened, show
from jaxnets.base.errors import UserError
from jaxnets.base.files import number_in
from jaxnets.base.language import N_, _, said, speaking
from jaxnets.config.command import CommandResult
from jaxnets.config.options import is_custom
from jaxnets.data.datasets import Dataset
from jaxnets.drawing.charts import percent, short_number
from jaxnets.drawing.svg import Figure, check_png
from jaxnets.drawing.templates import html_path
from jaxnets.predict.trained import to_input
from jaxnets.report import figures
from jaxnets.report.document import RunPart, Section, document
from jaxnets.report.evaluation import Predictions, calibration, class_scores, mistakes, split_of
from jaxnets.report.gradient_comparison import (
    MAX_PARAMS,
    TOLERANCES,
    compared_arrays,
    gradients_of,
    norms,
)
from jaxnets.report.passes import passes_of
from jaxnets.report.run_facts import RunFacts, read_run
from jaxnets.report.verdicts import accuracy_interval, comparison, verdicts
from jaxnets.runs.progress import Doing
from jaxnets.runs.run_folder import REPORT, rules_of

SURROUNDINGS = ("device", "processor", "cores", "num_devices", "versions", "data_sha256")
# Fields of config.json that the table of settings omits: other parts of the report show them.
NO_SETTINGS = (*SURROUNDINGS, "class_names", "image_shape", "num_classes", "device_platform")
MAIN = ("optimizer", "learning_rate", "schedule", "batch_size", "epochs", "loss")
MAIN += ("augment", "precision", "gradients", "seed")
NO_DIFFERENCE = ("workdir", "overwrite", "data_sha256", "init_from_sha256")
INTERVAL = "test_interval"
FACTS = {
    "model": N_("network"),
    "dataset": N_("data"),
    "num_params": N_("parameters"),
    "epochs": N_("epochs"),
    "seconds": N_("seconds of training"),
    "validation_accuracy": N_("validation accuracy"),
    "test_accuracy": N_("test accuracy"),
    INTERVAL: N_("95 % interval (Wilson)"),
    "test_loss": N_("test loss"),
}
MAX_SETTINGS = 200  # A config.json may come from anywhere.
LONGEST = 200  # Characters of a value in a table, at most.


@dataclasses.dataclass(frozen=True)
class WrittenReport(CommandResult):
    """A report in a file."""

    report: str
    bytes: int
    figures: int  # The number of figures.
    figures_folder: str | None
    missing: dict[str, list[str]]  # The sentences about what the runs lack, by run.

    def values(self) -> dict[str, Any]:
        """The same for programs."""
        return dataclasses.asdict(self)

    def text(self) -> str:
        """The lines that name the files."""
        path, megabytes = short_path(self.report), f"{self.bytes / 1e6:.2f}"
        text = _("{}: {} MB, {} figures", path, megabytes, self.figures)
        lines = [_("{}; open it in a browser", text)]
        if self.figures_folder is not None:
            lines.append(_("figures as SVG and PNG: {}", short_path(self.figures_folder)))
        for name, missing in self.missing.items():
            lines += [_("missing of {}: {}", one_line(name), one_line(text)) for text in missing]
        return "\n".join(lines)


def write_report(
    workdirs: Sequence[str],
    output: str,
    folder: str | None = None,
    language: str | None = "en",
    data: Dataset | None = None,
) -> WrittenReport:
    """Writes the report of some runs, and its figures into a folder, as SVG and PNG.

    Its language is one of LANGUAGES; None means the locale's. The runs' data are read unless they
    are given.

    Raises:
      UserError: There is no such run, or nothing can be written there.
    """
    path = html_path(output)
    if folder is not None:
        check_png()
        _make_folder(folder)
    doing = Doing("report", len(workdirs) * (2 + len(SLOW)))
    with doing, speaking(language):
        runs = []
        for workdir in workdirs:
            doing(_("reading {}", workdir))
            runs.append(read_run(workdir, data))
        names = [run.name for run in runs]
        for run in runs:
            if names.count(run.name) > 1:
                run.name = short_path(str(run.folder.path))
        text, drawn = report(runs, doing)
    files.write_text(path, text)
    if folder is not None:
        for figure in drawn:
            for kind in ("svg", "png"):
                figure.save(Path(folder).expanduser() / f"{figure.name}.{kind}")
    return WrittenReport(
        report=str(path),
        bytes=len(text.encode()),
        figures=len(drawn),
        figures_folder=folder,
        missing={run.name: run.missing for run in runs},
    )


def write_into(folder: Path) -> None:
    """Writes a run's report into its folder, and says so (train.py --report)."""
    show(write_report([str(folder)], str(folder / REPORT), language=None).text())


def _make_folder(folder: str) -> None:
    try:
        Path(folder).expanduser().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError("figures: cannot make the folder {}: {}", folder, error.strerror) from error


def report(
    runs: Sequence[RunFacts], doing: Callable[[str], None] = lambda what: None
) -> tuple[str, list[Figure]]:
    """The report as an HTML document in the language of `speaking`, and its figures.

    It tells `doing` when each slow part begins.
    """
    drawn: list[Figure] = []
    answers = []
    for run in runs:
        doing(_("evaluating {}", run.name))
        answers.append(run.predictions)
    compared = _comparison(runs, answers) if len(runs) > 1 else []
    for section in compared:
        drawn += _named(section, "runs-")
    parts = []
    for run, prefix in zip(runs, _prefixes(runs), strict=True):
        sections = []
        for name, heading, part_of in SECTIONS:
            if name in SLOW:
                doing(f"{run.name}: {_(heading)}")
            with run.attempt(_(heading)):
                if part := part_of(run):
                    sections.append(Section(name, _(heading), *part))
        for section in sections:
            drawn += _named(section, prefix)
        parts.append(_run_part(run, prefix, sections))
    return document(compared, parts), drawn


def _named(section: Section, prefix: str) -> list[Figure]:
    """A section's figures, whose names now begin with the prefix."""
    for figure in section.figures.values():
        figure.name = prefix + figure.name
    return [*section.figures.values()]


def _by_name(figures: Sequence[Figure]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


def _prefixes(runs: Sequence[RunFacts]) -> list[str]:
    """The prefix of each run's figures and anchors: its name, numbered if several share it."""
    if len(runs) == 1:
        return [""]
    found = ["runs-"]  # The prefix of the comparison.
    for run in runs:
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", run.name).strip("-.") or "run"
        number = 1
        while (prefix := f"{name}-{number}-" if number > 1 else f"{name}-") in found:
            number += 1
        found.append(prefix)
    return found[1:]


def _comparison(runs: Sequence[RunFacts], answers: Sequence[Predictions | None]) -> list[Section]:
    """Several runs side by side: results, the settings that differ, curves."""
    head = ["", *(run.name for run in runs)]
    facts = [[_(text), *(_value_of(run, name) for run in runs)] for name, text in FACTS.items()]
    judged = comparison([run.name for run in runs], answers)
    results = {"head": head, "rows": facts, "verdicts": judged}
    keys = [key for run in runs for key in run.config]
    differences = [
        [key, *(_in_table(run.config.get(key)) for run in runs)]
        for key in [*dict.fromkeys(keys)][:MAX_SETTINGS]
        if key not in NO_DIFFERENCE and len({_in_table(run.config.get(key)) for run in runs}) > 1
    ]
    curves = _by_name(figures.learning_figures(runs))
    found = [
        Section("results", _("Results"), {}, results),
        Section("differences", _("What differs"), {}, {"head": head, "rows": differences}),
    ]
    return [*found, Section("learning", _("Learning"), curves, {})] if curves else found


def _value_of(run: RunFacts, name: str) -> str:
    """A fact of a run: from its result, or else from its last epoch or its config."""
    if name in ("model", "dataset"):
        return _in_table(run.result.get(name, run.config.get(name)))
    if name == INTERVAL:
        accuracy, count = (number_in(run.result, key) for key in ("test_accuracy", "test_count"))
        if accuracy is None or not count or not 0 <= accuracy <= 1 or count < 1:
            return "–"
        return accuracy_interval(accuracy * count, int(count))
    value = number_in(run.result, name)
    if value is None and run.records:
        last = {"epochs": "epoch"}.get(name, name)
        value = number_in(run.records[-1], last)
        if name == "seconds":
            value = sum(x or 0.0 for x in run.column("seconds"))
    if value is None:
        return "–"
    if name.endswith("accuracy"):
        return percent(value)
    return f"{value:,.0f}" if value >= 1000 or value % 1 == 0 else f"{value:.4g}"


def _in_table(value: Any) -> str:
    """A value of a JSON file in a table."""
    if isinstance(value, list):
        text = ", ".join(map(str, value))
    elif isinstance(value, dict):
        text = ", ".join(f"{key} {part}" for key, part in value.items())
    else:
        text = "–" if value is None else str(value)
    return printable(shortened(text, LONGEST))


def _run_part(run: RunFacts, prefix: str, sections: list[Section]) -> RunPart:
    """A run with its facts, its verdicts and a list of what is missing."""
    facts = [
        {
            "label": _(text),
            "value": _value_of(run, name),
            "interval": _value_of(run, INTERVAL) if name == "test_accuracy" else "",
        }
        for name, text in FACTS.items()
        if name != INTERVAL
    ]
    judged = []
    with run.attempt(_("Verdicts")):
        judged = verdicts(run)
    trained = run.trained
    return RunPart(
        printable(run.name),
        prefix,
        accuracy=_value_of(run, "test_accuracy"),
        facts=facts,
        verdicts=judged,
        sections=sections,
        unfinished_step=f"{trained.step:,}" if trained and not trained.finished else None,
        ten_crop=trained is not None and trained.config.ten_crop,
        missing=run.missing,
    )


Part = tuple[dict[str, Figure], dict[str, Any]]  # A section's figures and values.


def _learning(run: RunFacts) -> Part | None:
    drawn = figures.learning_figures([run])
    if not drawn:
        return None
    names = ["epoch", "train_loss", "validation_loss", "train_accuracy", "validation_accuracy"]
    names += ["learning_rate", "seconds", "images_per_second"]
    rows = [
        [f"{x:.5g}" if x is not None else "–" for x in row]
        for row in zip(*(run.column(name) for name in names), strict=True)
    ]
    shown = rows if len(rows) <= 200 else [*rows[:100], *rows[-100:]]
    return _by_name(drawn), {"head": [name.replace("_", " ") for name in names], "rows": shown}


def _derivation(run: RunFacts) -> Part | None:
    if (comparison := run.comparison) is None:
        return None
    yours = dataclasses.replace(run, name=_("your derivation"))
    right = dataclasses.replace(run, name=_("the right derivation"), records=comparison.right)
    both = [one for one in (yours, right) if one.records]
    drawn = [one for one in figures.learning_figures(both) if one.name in ("loss", "accuracy")]
    for figure in drawn:
        figure.name = f"derivation-{figure.name}"
        if len(both) == 1:  # The only curve.
            figure.title += _(": ") + both[0].name
    return _by_name(drawn), {"sentences": [*map(said, comparison.sentences(run.records))]}


def _mistakes(run: RunFacts) -> Part | None:
    if run.trained is None or run.data is None or (found := run.predictions) is None:
        return None
    names = run.trained.class_names
    scores, calibrated = class_scores(found.confusion), calibration(found)
    drawn = [
        figures.confusion_figure(found, names),
        figures.calibration_figure(calibrated),
        figures.scores_figure(scores, names),
    ]
    worst = mistakes(found, run.data, figures.MISTAKES)
    if worst and not run.data.is_table:  # Rows of numbers are no pictures.
        wrong_in = split_of(run.data, found.part)
        drawn.append(figures.mistakes_figure(worst, wrong_in, names))
    rows = [
        [name, *(f"{x:.4f}" if np.isfinite(x) else "–" for x in three), f"{count:,}"]
        for name, *three, count in zip(names, *scores, strict=True)
    ]
    return _by_name(drawn), {
        "bins": len(calibrated.accuracy),
        "error": f"{100 * calibrated.error:.3g} %",
        "any_rejected": any(one.is_rejected for one in worst),
        "all_right": not worst,
        "rows": rows,
    }


def _inside(run: RunFacts) -> Part | None:
    """The first layer's weights and, with the data set, an image through all layers."""
    if (trained := run.trained) is None or len(trained.image_shape) == 1:
        return None
    image, label = np.zeros(trained.image_shape, np.uint8), 0
    if run.data is not None:
        split = run.data.train if run.judged_on is None else split_of(run.data, run.judged_on)
        image, label = np.asarray(split.images[0]), int(split.labels[0])
    image = np.asarray(to_input(trained.config, image[None]))[0]
    found = passes_of(trained.model, trained.params, image, label, trained.config.loss)
    drawn = [figures.filters_figure(found)]
    if run.data is not None:
        drawn.append(figures.activations_figure(found, trained.class_names[label]))
    known = _by_name([figure for figure in drawn if figure is not None])
    return (known, {}) if known else None


def _gradients(run: RunFacts) -> Part | None:
    if run.trained is None or run.data is None:
        return None
    trained, found = run.trained, gradients_of(run.trained, run.data)
    entries, sizes = compared_arrays(trained, found), []
    if is_custom(trained.config.optimizer):
        run.missing.append(_("the size of updates: the optimizer is the user's own"))
    else:
        sizes = norms(run.folder, trained, found)
    if len(found.manual) == 1:
        most = format(MAX_PARAMS, ",")
        run.missing.append(
            _("gradients in float64 and bfloat16: the network has more than {} parameters", most)
        )
    drawn = [figures.norms_figure(sizes)] if sizes else []
    rows = [
        [
            f"{one.layer}.{one.array}",
            " × ".join(map(str, one.shape)),
            *(f"{x:.15g}" for x in (one.manual, one.automatic)),
            *(f"{error:.1e}" for error in one.errors.values()),
            _("yes") if one.ok else _("no"),
        ]
        for one in entries
    ]
    kernels = ""
    if found.kernels is not None:
        kernels = f"{max(one.kernels or 0 for one in entries):.1e}"
    return _by_name([*drawn, figures.gradient_errors_figure(entries)]), {
        "count": found.count,
        "rate": f"{trained.config.learning_rate:g}",
        "precisions": [*found.manual],
        "allowed": ", ".join(f"{dtype} {TOLERANCES[dtype]:.0e}" for dtype in found.manual),
        "rows": rows,
        "kernels": kernels,
        "own_rules": bool(rules_of(run.config)),
        "sizes": [
            [one.layer, *map(short_number, one[1:]), short_number(one.update / (one.weights or 1))]
            for one in sizes
        ],
    }


def _environment(run: RunFacts) -> Part | None:
    rows = [[name, _in_table(run.config[name])] for name in SURROUNDINGS if name in run.config]
    return ({}, {"rows": rows}) if rows else None


def _settings(run: RunFacts) -> Part | None:
    settings = [[k, _in_table(v)] for k, v in run.config.items() if k not in NO_SETTINGS]
    settings = settings[:MAX_SETTINGS]
    main = [[key, value] for key, value in settings if key in MAIN]
    return ({}, {"main": main, "all": settings}) if settings else None


SLOW = ("inside", "gradients")
SECTIONS = (
    ("derivation", N_("Your derivation and the right one"), _derivation),
    ("learning", N_("Learning"), _learning),
    ("classes", N_("Mistakes"), _mistakes),
    ("inside", N_("Inside the network"), _inside),
    ("gradients", N_("Gradients"), _gradients),
    ("environment", N_("Environment"), _environment),
    ("settings", N_("Configuration"), _settings),
)
