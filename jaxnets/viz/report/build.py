"""Builds the report of one or several runs: one HTML file that loads nothing."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnets import files
from jaxnets.config.options import is_custom
from jaxnets.data.datasets import Dataset
from jaxnets.display import one_line, short_path, shortened, show
from jaxnets.drawing.charts import percent, plain
from jaxnets.drawing.svg import Figure, check_png, escape
from jaxnets.errors import UserError
from jaxnets.files import number_in, output_path
from jaxnets.language import N_, _, speaking, spoken
from jaxnets.machine.platform import versions
from jaxnets.predict.trained import to_input
from jaxnets.runs.progress import Doing
from jaxnets.runs.run_folder import REPORT
from jaxnets.viz.report import document, figures, ledger
from jaxnets.viz.report.evaluation import Predictions, calibration, class_scores, mistakes
from jaxnets.viz.report.passes import passes_of
from jaxnets.viz.report.run_facts import RunFacts, read_run
from jaxnets.viz.report.verdicts import accuracy_interval, comparison, verdicts

SURROUNDINGS = ("device", "processor", "cores", "num_devices", "versions", "data_sha256")
# Fields of config.json that the table of settings leaves out: other parts of the report say them.
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
LONGEST = 200  # Characters of a value in a table.


class Part(NamedTuple):
    """A section's parts: figures, each with a note, and HTML after them."""

    figures: list[tuple[Figure, str]]
    after: str = ""


NOTHING = Part([])


def write_report(
    workdirs: Sequence[str],
    output: str,
    folder: str | None = None,
    language: str | None = "en",
    data: Dataset | None = None,
) -> dict[str, Any]:
    """Writes the report of some runs, and its figures into a folder, as SVG and PNG.

    Its language is one of LANGUAGES; None is the locale's. The runs' data are read unless they are
    given.

    Returns:
      What was written: "report", "bytes", "figures" (how many), "figures_folder" and "missing",
      the sentences about what the runs lack, by run.

    Raises:
      UserError: There is no such run, or nothing can be written there.
    """
    path = output_path(output)
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
    return {
        "report": str(path),
        "bytes": len(text.encode()),
        "figures": len(drawn),
        "figures_folder": folder,
        "missing": {run.name: run.missing for run in runs},
    }


def write_into(folder: Path) -> None:
    """Writes a run's report into its folder, and says so: --report of train.py."""
    show(to_text(write_report([str(folder)], str(folder / REPORT), language=None)))


def to_text(written: dict[str, Any]) -> str:
    """The lines that say what `write_report` returned."""
    path, megabytes = short_path(written["report"]), f"{written['bytes'] / 1e6:.2f}"
    text = _("{}: {} MB, {} figures", path, megabytes, written["figures"])
    lines = [_("{}; open it in a browser", text)]
    if written["figures_folder"] is not None:
        lines.append(_("figures as SVG and PNG: {}", short_path(written["figures_folder"])))
    for name, missing in written["missing"].items():
        lines += [_("missing of {}: {}", one_line(name), one_line(text)) for text in missing]
    return "\n".join(lines)


def _make_folder(folder: str) -> None:
    try:
        Path(folder).expanduser().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError("figures: cannot make the folder {}: {}", folder, error.strerror) from error


def report(
    runs: Sequence[RunFacts], doing: Callable[[str], None] = lambda what: None
) -> tuple[str, list[Figure]]:
    """The report as an HTML document in the language of `speaking`, and its figures.

    It tells `doing` of each slow part when that begins.
    """
    drawn: list[Figure] = []
    body, links = "", []
    title = _("Report") + _(": ") + runs[0].name
    answers = []
    for run in runs:
        doing(_("evaluating {}", run.name))
        answers.append(run.predictions)
    if len(runs) > 1:
        title = _("{} runs side by side", len(runs))
        for name, heading, part in _comparison(runs, answers):
            body += _section(name, heading, part, drawn, "runs-")
    for run, prefix in zip(runs, _prefixes(runs), strict=True):
        sections = ""
        for name, heading, part_of in SECTIONS:
            if name in SLOW:
                doing(f"{run.name}: {_(heading)}")
            with run.attempt(_(heading)):
                sections += _section(name, _(heading), part_of(run), drawn, prefix)
        html = f"{_overview(run, prefix)}{sections}"
        links.append((f"run-{prefix}", escape(run.name)))
        if len(runs) > 1:  # Folded: many runs stay a short page.
            facts = _("test accuracy {}", _value_of(run, "test_accuracy"))
            heading = f"<h2>{escape(run.name)}</h2><span>{escape(facts)}</span>"
            html = f'<details class="run"><summary>{heading}</summary>{html}</details>'
        body += f'<section id="run-{prefix}">\n{html}</section>\n'
    if len(runs) == 1:
        links = re.findall(r'<h3 id="([^"]*)">([^<]*)</h3>', body)
    nav = " ".join(f'<a href="#{anchor}">{name}</a>' for anchor, name in links)
    footer = _("Made by jaxnets {}. This file loads nothing.", versions()["jaxnets"])
    return document.document(spoken(), title, nav, body, footer), drawn


def _section(name: str, heading: str, part: Part, drawn: list[Figure], prefix: str) -> str:
    """A section's HTML; its figures are named with the prefix and added to those drawn."""
    for figure, _note in part.figures:
        figure.name = prefix + figure.name
        drawn.append(figure)
    columns = "" if name == "learning" else " columns"
    html = document.figures_of(part.figures, f"figures{columns}") + part.after
    return document.headed(heading, html, prefix + name) if html else ""


def _prefixes(runs: Sequence[RunFacts]) -> list[str]:
    """The prefix of each run's figures and anchors: its name, numbered if several share it."""
    if len(runs) == 1:
        return [""]
    found = ["runs-"]  # That of what compares them.
    for run in runs:
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", run.name).strip("-.") or "run"
        number = 1
        while (prefix := f"{name}-{number}-" if number > 1 else f"{name}-") in found:
            number += 1
        found.append(prefix)
    return found[1:]


def _comparison(
    runs: Sequence[RunFacts], answers: Sequence[Predictions | None]
) -> list[tuple[str, str, Part]]:
    """Several runs side by side: results, what differs in their settings, their curves."""
    names = ["", *(run.name for run in runs)]
    judged = document.verdict_list(comparison([run.name for run in runs], answers))
    rows = [[_(text), *(_value_of(run, name) for run in runs)] for name, text in FACTS.items()]
    results = document.card(document.table(names, rows))
    keys = [key for run in runs for key in run.config]
    differences = [
        [key, *(_shown(run.config.get(key)) for run in runs)]
        for key in [*dict.fromkeys(keys)][:MAX_SETTINGS]
        if key not in NO_DIFFERENCE and len({_shown(run.config.get(key)) for run in runs}) > 1
    ]
    settings = document.table(names, differences)
    if not differences:
        settings = document.paragraph(_("The runs have the same settings."))
    return [
        ("results", _("Results"), Part([], results + judged)),
        ("differences", _("What differs"), Part([], document.card(settings))),
        ("learning", _("Learning"), Part([(one, "") for one in figures.learning_figures(runs)])),
    ]


def _value_of(run: RunFacts, name: str) -> str:
    """A fact of a run: from its result, else from its last epoch or its config."""
    if name in ("model", "dataset"):
        return _shown(run.result.get(name, run.config.get(name)))
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


def _shown(value: Any) -> str:
    """A value of a JSON file in a table."""
    if isinstance(value, list):
        text = ", ".join(map(str, value))
    elif isinstance(value, dict):
        text = ", ".join(f"{key} {part}" for key, part in value.items())
    else:
        text = "–" if value is None else str(value)
    return shortened(text, LONGEST)


def _overview(run: RunFacts, prefix: str) -> str:
    facts = ""
    for name, text in FACTS.items():
        if name != INTERVAL:
            value = escape(_value_of(run, name))
            if name == "test_accuracy":
                value += f"<span>{escape(_value_of(run, INTERVAL))}</span>"
            facts += f"<div><dt>{escape(_(text))}</dt><dd>{value}</dd></div>"
    html = f'<dl class="facts">{facts}</dl>\n'
    with run.attempt(_("Verdicts")):
        if judged := verdicts(run):
            html += document.headed(
                _("Verdicts"), document.verdict_list(judged), f"{prefix}verdicts"
            )
    if run.trained is not None and not run.trained.finished:
        step = format(run.trained.step, ",")
        text = _("The run is not finished: this is how far it had come after step {}.", step)
        html += document.paragraph(text)
    if run.trained is not None and run.trained.config.ten_crop:
        text = _("The run was tested on ten crops of each image; here it sees the middle one.")
        html += document.paragraph(text)
    if run.missing:
        items = "".join(f"<li>{escape(text)}</li>" for text in run.missing)
        title = _("What is missing")
        html += f'<div class="card missing"><h4>{escape(title)}</h4>'
        html += f"<ul>{items}</ul></div>\n"
    return html


def _learning(run: RunFacts) -> Part:
    drawn = figures.learning_figures([run])
    if not drawn:
        return NOTHING
    names = ["epoch", "train_loss", "validation_loss", "train_accuracy", "validation_accuracy"]
    names += ["learning_rate", "seconds", "images_per_second"]
    rows = [
        [f"{x:.5g}" if x is not None else "–" for x in row]
        for row in zip(*(run.column(name) for name in names), strict=True)
    ]
    head = [name.replace("_", " ") for name in names]
    shown = rows if len(rows) <= 200 else [*rows[:100], *rows[-100:]]
    note = _(
        "Training numbers are averages over an epoch, with dropout and augmentation; validation "
        "numbers are taken after it. Point at a curve for its values."
    )
    table = document.details(_("The numbers as a table"), document.table(head, shown))
    return Part([(figure, "") for figure in drawn], document.paragraph(note, "note") + table)


def _mine(run: RunFacts) -> Part:
    """The training by wrong passes of the user's own, beside the one by the right passes."""
    records, wrong = (run.mine.get(name) for name in ("right", "wrong"))
    if not isinstance(records, list) or not isinstance(wrong, list) or not records:
        return NOTHING
    records = [record for record in records if files.is_record(record)]
    right = dataclasses.replace(run, name=_("the right derivation"), records=records)
    both = [dataclasses.replace(run, name=_("your derivation")), right]
    drawn = [one for one in figures.learning_figures(both) if one.name in ("loss", "accuracy")]
    for figure in drawn:
        figure.name = f"mine-{figure.name}"
        if not run.records:  # The only curve.
            figure.title += _(": ") + right.name
    html = ""
    for one in wrong[:MAX_SETTINGS]:
        found = one if isinstance(one, dict) else {}
        names, why = found.get("gradients"), _shown(found.get("reason"))
        if isinstance(names, list) and names:
            why = _("{} is wrong", _(" and ").join(map(_shown, names[:MAX_SETTINGS])))
        where = f"{_shown(found.get('function'))} ({_shown(found.get('layer'))})"
        html += document.paragraph(where + _(": ") + why)
    if 0 < (epoch := len(run.records)) <= len(records):
        validated = number_in(records[epoch - 1], "validation_accuracy") is not None
        part = "validation" if validated else "train"
        accuracies, losses = (
            [number_in(one.records[epoch - 1], f"{part}_{name}") or 0.0 for one in both]
            for name in ("accuracy", "loss")
        )
        text = _(
            "After epoch {} the accuracy is {} instead of {}, the loss {} instead of {}.",
            *(epoch, *map(percent, accuracies), *map(plain, losses)),
        )
        html += document.paragraph(text)
    if ended := run.mine.get("ended"):
        html += document.paragraph(_("Your training ended: {}", _shown(ended)))
    text = _("Both trainings began with the same weights and saw the same images in one order.")
    return Part([(one, "") for one in drawn], html + document.paragraph(text, "note"))


def _mistakes(run: RunFacts) -> Part:
    if run.trained is None or run.data is None or (found := run.predictions) is None:
        return NOTHING
    names = run.trained.class_names
    scores, calibrated = class_scores(found.confusion), calibration(found)
    note = _(
        "Above the dashed line the network is right more often than it says, below it "
        "less often. Expected calibration error (Guo et al. 2017, {} bins): {}.",
        *(len(calibrated.accuracy), format(100 * calibrated.error, ".3g") + " %"),
    )
    parts = [
        (figures.confusion_figure(found, names), ""),
        (figures.calibration_figure(calibrated), note),
        (figures.scores_figure(scores, names), ""),
    ]
    after = ""
    if worst := mistakes(found, run.data, figures.MISTAKES):
        marked = any(one.is_rejected for one in worst)
        figure = figures.mistakes_figure(worst, run.data)
        note = _(
            "Framed: one of the 15 labels of MNIST's test images that most people reject, with the "
            "label that they choose instead, if they agree on one. Source: Northcutt, Athalye and "
            "Mueller 2021, arXiv:2103.14749, labelerrors.com."
        )
        parts.append((figure, note if marked else ""))
    else:
        after = document.paragraph(_("No test image is wrong."), "note")
    rows = [
        [name, *(f"{x:.4f}" if np.isfinite(x) else "–" for x in three), f"{count:,}"]
        for name, *three, count in zip(names, *scores, strict=True)
    ]
    head = [_("class"), _("precision"), _("recall"), _("F1"), _("images")]
    title = _("Precision, recall and F1 of each class")
    return Part(parts, after + document.details(title, document.table(head, rows)))


def _inside(run: RunFacts) -> Part:
    """The first layer's weights and, with the data set, an image through all layers."""
    if (trained := run.trained) is None:
        return NOTHING
    image, label = np.zeros(trained.image_shape, np.uint8), 0
    if run.data is not None:
        image, label = np.asarray(run.data.test.images[0]), int(run.data.test.labels[0])
    image = np.asarray(to_input(trained.config, image[None]))[0]
    found = passes_of(trained.model, trained.params, image, label, trained.config.loss)
    drawn = [figures.filters_figure(found)]
    if run.data is not None:
        drawn.append(figures.activations_figure(found, trained.class_names[label]))
    return Part([(figure, "") for figure in drawn if figure is not None])


def _gradients(run: RunFacts) -> Part:
    if run.trained is None or run.data is None:
        return NOTHING
    trained, found = run.trained, ledger.gradients(run.trained, run.data)
    entries, sizes = ledger.ledger(trained, found), []
    if is_custom(trained.config.optimizer):
        run.missing.append(_("the size of updates: the optimizer is the user's own"))
    else:
        sizes = ledger.norms(run.folder, trained, found)
    if len(found.manual) == 1:
        most = format(ledger.MAX_PARAMS, ",")
        run.missing.append(
            _("the ledger's float64 and bfloat16: the network has more than {} parameters", most)
        )
    note = _(
        "Euclidean norms by layer, of the first {} training images. The update is that of one step "
        "with learning rate {}; about a thousandth of the weights is usual.",
        *(found.count, format(trained.config.learning_rate, "g")),
    )
    parts = [(figures.norms_figure(sizes), note)] if sizes else []
    parts.append((figures.ledger_figure(entries), ""))
    allowed = ", ".join(f"{dtype} {ledger.TOLERANCES[dtype]:.0e}" for dtype in found.manual)
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
    head = [_("gradient"), "", _("largest, by hand"), _("by autodiff")]
    head += [*found.manual, _("agrees")]
    title = _("The gradient ledger: by hand against autodiff")
    html = f"<h4>{escape(title)}</h4>{document.table(head, rows)}"
    note = _(
        "Every array's gradient on {} training images with the run's weights, derived by "
        "hand and by autodiff of the plain network. The error is the largest difference "
        "relative to the array's largest number; allowed are {}.",
        *(found.count, allowed),
    )
    if found.kernels is not None:
        note += _(
            " Kernels, faster forms of some layers, agree with the derived passes to {} in "
            "float64.",
            format(max(one.kernels or 0 for one in entries), ".1e"),
        )
    if run.config.get("mine"):
        note += _(" The run was trained by its user's own passes; the derived ones here are ours.")
    html += document.paragraph(note, "note")
    ratios = [
        [one.layer, *(plain(x) for x in one[1:]), plain(one.update / (one.weights or 1))]
        for one in sizes
    ]
    head = [_("layer"), _("weights"), _("gradient"), _("update"), _("update / weights")]
    if sizes:
        title = _("Size of weights, gradients and updates")
        html += document.details(title, document.table(head, ratios))
    return Part(parts, document.card(html))


def _environment(run: RunFacts) -> Part:
    where = [[name, _shown(run.config[name])] for name in SURROUNDINGS if name in run.config]
    return Part([], document.card(document.table(["", ""], where)) if where else "")


def _settings(run: RunFacts) -> Part:
    settings = [[k, _shown(v)] for k, v in run.config.items() if k not in NO_SETTINGS]
    settings = settings[:MAX_SETTINGS]
    if not settings:
        return NOTHING
    short = document.table(["", ""], [[key, value] for key, value in settings if key in MAIN])
    whole = document.details(_("All settings"), document.table(["", ""], settings))
    return Part([], document.card(short + whole))


SLOW = ("inside", "gradients")
SECTIONS = (
    ("mine", N_("Your derivation beside the right one"), _mine),
    ("learning", N_("Learning"), _learning),
    ("classes", N_("Mistakes"), _mistakes),
    ("inside", N_("Inside the network"), _inside),
    ("gradients", N_("Gradients"), _gradients),
    ("environment", N_("Environment"), _environment),
    ("settings", N_("Configuration"), _settings),
)
