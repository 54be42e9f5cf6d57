"""Builds the report of one or several runs: one HTML file that loads nothing."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnets import files
from jaxnets.data.datasets import Dataset
from jaxnets.display import short_path, show
from jaxnets.drawing.charts import percent, plain
from jaxnets.drawing.svg import Figure, check_png, escape
from jaxnets.errors import UserError
from jaxnets.files import output_path
from jaxnets.machine.platform import versions
from jaxnets.predict.trained import TrainedNetwork, to_input
from jaxnets.runs.run_folder import REPORT
from jaxnets.viz.report import document, figures, ledger
from jaxnets.viz.report.evaluation import (
    calibration,
    class_scores,
    mistakes,
    predict,
)
from jaxnets.viz.report.figures import MISTAKES
from jaxnets.viz.report.passes import passes_of
from jaxnets.viz.report.run_facts import RunFacts, number_in, read_run
from jaxnets.viz.report.texts import Words

SURROUNDINGS = ("device", "processor", "cores", "num_devices", "versions", "data_sha256")
# Fields of config.json that the table of settings leaves out: other parts of the report say them.
NO_SETTINGS = (*SURROUNDINGS, "class_names", "image_shape", "num_classes", "device_platform")
NO_DIFFERENCE = ("workdir", "overwrite", "data_sha256", "init_from_sha256")
FACTS = ("model", "dataset", "num_params", "epochs", "seconds", "validation_accuracy")
FACTS += ("test_accuracy", "test_loss")
MAX_SETTINGS = 200  # A config.json may come from anywhere.
LONGEST = 200  # Characters of a value in a table.


class Section(NamedTuple):
    """A part of the report, in HTML, and its figures."""

    html: str
    figures: list[Figure]


def write_report(
    workdirs: Sequence[str], output: str, folder: str | None = None, language: str = "en"
) -> dict[str, Any]:
    """Writes the report of some runs, and its figures into a folder, as SVG and PNG.

    Returns:
      What was written: "report", "bytes", "figures" (how many), "figures_folder" and "missing",
      the sentences about what the runs lack, by run.

    Raises:
      UserError: There is no such run, or nothing can be written there.
    """
    path, words = output_path(output), Words(language)
    if folder is not None:
        check_png()
        _make_folder(folder)
    runs = [read_run(workdir, words) for workdir in workdirs]
    text, drawn = report(runs, words)
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
    show(to_text(write_report([str(folder)], str(folder / REPORT))))


def to_text(written: dict[str, Any]) -> str:
    """The lines that say what `write_report` returned."""
    lines = [
        f"{short_path(written['report'])}: {written['bytes'] / 1e6:.2f} MB, "
        f"{written['figures']} figures; open it in a browser"
    ]
    if written["figures_folder"] is not None:
        lines.append(f"figures as SVG and PNG: {short_path(written['figures_folder'])}")
    for name, missing in written["missing"].items():
        lines += [f"missing of {name}: {text}" for text in missing]
    return "\n".join(lines)


def _make_folder(folder: str) -> None:
    try:
        Path(folder).expanduser().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"figures: cannot make the folder {folder}: {error.strerror}") from error


def report(runs: Sequence[RunFacts], words: Words) -> tuple[str, list[Figure]]:
    """The report as an HTML document, and its figures."""
    names, drawn = _prefixes(runs), []
    parts, links = [], []
    if len(runs) > 1:
        title = words("runs", len(runs))
        section = _comparison(runs, words)
        parts.append(section.html)
        drawn += section.figures
    else:
        title = f"{words('report')}: {runs[0].name}"
    for run, prefix in zip(runs, names, strict=True):
        section = _run_section(run, words, prefix)
        anchor = f"run-{prefix}"
        heading = f"<h2>{escape(run.name)}</h2>\n" if len(runs) > 1 else ""
        parts.append(f'<section id="{anchor}">\n{heading}{section.html}</section>\n')
        links.append((anchor, escape(run.name)))
        drawn += section.figures
    if len(runs) == 1:
        links = re.findall(r'<h3 id="([^"]*)">([^<]*)</h3>', parts[0])
    nav = " ".join(f'<a href="#{anchor}">{name}</a>' for anchor, name in links)
    footer = words("made_by", versions()["jaxnets"])
    return document.document(words.language, title, nav, "".join(parts), footer), drawn


def _prefixes(runs: Sequence[RunFacts]) -> list[str]:
    """The prefix of each run's figures and anchors: its name, numbered if several share it."""
    if len(runs) == 1:
        return [""]
    found: list[str] = []
    for run in runs:
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", run.name).strip("-.") or "run"
        number = 1
        while (prefix := f"{name}-{number}-" if number > 1 else f"{name}-") in found:
            number += 1
        found.append(prefix)
    return found


def _comparison(runs: Sequence[RunFacts], words: Words) -> Section:
    """Several runs side by side: results, what differs in their settings, their curves."""
    names = [run.name for run in runs]
    rows = [[words(name), *(_value_of(run, name) for run in runs)] for name in FACTS]
    results = document.table(["", *names], rows)
    keys = [key for run in runs for key in run.config]
    differences = [
        [key, *(_shown(run.config.get(key)) for run in runs)]
        for key in [*dict.fromkeys(keys)][:MAX_SETTINGS]
        if key not in NO_DIFFERENCE and len({_shown(run.config.get(key)) for run in runs}) > 1
    ]
    settings = document.table(["", *names], differences)
    if not differences:
        settings = f"<p>{escape(words('no_differences'))}</p>"
    drawn = figures.learning_figures(runs, words, "runs-")
    html = document.headed(words("results"), document.card(results), "results")
    html += document.headed(words("differences"), document.card(settings), "differences")
    html += document.headed(
        words("learning"), document.figures_of([(figure, "") for figure in drawn]), "learning"
    )
    return Section(html, drawn)


def _value_of(run: RunFacts, name: str) -> str:
    """A fact of a run: from its result, else from its last epoch or its config."""
    if name in ("model", "dataset"):
        return _shown(run.result.get(name, run.config.get(name)))
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
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _run_section(run: RunFacts, words: Words, prefix: str) -> Section:
    """A run: what it is, how it learned, its mistakes, a look inside, its gradients."""
    html, drawn = "", []

    def add(heading: str, parts: list[tuple[Figure, str]], after: str = "") -> None:
        nonlocal html
        if parts or after:
            kind = "figures" if heading == "learning" else "figures columns"
            html += document.headed(
                words(heading), document.figures_of(parts, kind) + after, prefix + heading
            )
            drawn.extend(figure for figure, _ in parts)

    add("learning", *_learning(run, words, prefix))
    if run.trained is not None and run.data is not None:
        trained, data = run.trained, run.data
        for heading, part in (
            ("classes", _mistakes),
            ("inside", _inside),
            ("gradients", _gradients),
        ):
            with run.attempt(words, heading):
                add(heading, *part(run, trained, data, words, prefix))
    elif run.trained is not None:
        with run.attempt(words, "inside"):
            add("inside", *_filters_alone(run.trained, words, prefix))
    html = _overview(run, words) + html + _settings(run, words, prefix)
    return Section(html, drawn)


Parts = tuple[list[tuple[Figure, str]], str]  # Figures with notes, and HTML after them.


def _overview(run: RunFacts, words: Words) -> str:
    facts = "".join(
        f"<div><dt>{escape(words(name))}</dt><dd>{escape(_value_of(run, name))}</dd></div>"
        for name in FACTS
    )
    html = f'<dl class="facts">{facts}</dl>\n'
    if run.trained is not None and not run.trained.finished:
        html += f"<p>{escape(words('unfinished', f'{run.trained.step:,}'))}</p>\n"
    if run.trained is not None and run.trained.config.ten_crop:
        html += f"<p>{escape(words('crops'))}</p>\n"
    if run.missing:
        items = "".join(f"<li>{escape(text)}</li>" for text in run.missing)
        html += f'<div class="card missing"><h4>{escape(words("missing"))}</h4>'
        html += f"<ul>{items}</ul></div>\n"
    return html


def _learning(run: RunFacts, words: Words, prefix: str) -> Parts:
    drawn = figures.learning_figures([run], words, prefix)
    if not drawn:
        return [], ""
    names = ["epoch", "train_loss", "validation_loss", "train_accuracy", "validation_accuracy"]
    names += ["learning_rate", "seconds", "images_per_second"]
    rows = [
        [f"{x:.5g}" if x is not None else "–" for x in row]
        for row in zip(*(run.column(name) for name in names), strict=True)
    ]
    head = [name.replace("_", " ") for name in names]
    shown = rows if len(rows) <= 200 else [*rows[:100], *rows[-100:]]
    return [(figure, "") for figure in drawn], (
        f'<p class="note">{escape(words("hint_curves"))}</p>\n'
        + document.details(words("as_table"), document.table(head, shown))
    )


def _mistakes(
    run: RunFacts, trained: TrainedNetwork, data: Dataset, words: Words, prefix: str
) -> Parts:
    found = predict(trained, data.test)
    names = trained.class_names
    scores, calibrated = class_scores(found.confusion), calibration(found)
    note = words("calibration_note", len(calibrated.accuracy), f"{100 * calibrated.error:.3g} %")
    parts = [
        (figures.confusion_figure(found, names, words, prefix), ""),
        (figures.calibration_figure(calibrated, words, prefix), note),
        (figures.scores_figure(scores, names, words, prefix), ""),
    ]
    after = ""
    if worst := mistakes(found, data, MISTAKES):
        marked = any(one.is_rejected for one in worst)
        figure = figures.mistakes_figure(worst, data, words, prefix)
        parts.append((figure, words("wrong_labels_note") if marked else ""))
    else:
        after = f'<p class="note">{escape(words("no_mistakes"))}</p>\n'
    rows = [
        [name, *(f"{x:.4f}" if np.isfinite(x) else "–" for x in three), f"{count:,}"]
        for name, *three, count in zip(names, *scores, strict=True)
    ]
    head = [words(name) for name in ("class", "precision", "recall", "f1", "support")]
    return parts, after + document.details(words("scores"), document.table(head, rows))


def _inside(
    run: RunFacts, trained: TrainedNetwork, data: Dataset, words: Words, prefix: str
) -> Parts:
    image = np.asarray(to_input(trained.config, np.asarray(data.test.images[0])[None]))[0]
    label = int(data.test.labels[0])
    found = passes_of(trained.model, trained.params, image, label, trained.config.loss)
    name = trained.class_names[label]
    drawn = [
        figures.filters_figure(found, words, prefix),
        figures.activations_figure(found, name, words, prefix),
    ]
    return [(figure, "") for figure in drawn if figure is not None], ""


def _filters_alone(trained: TrainedNetwork, words: Words, prefix: str) -> Parts:
    """The first layer's weights, without an image of the data set."""
    blank = np.asarray(to_input(trained.config, np.zeros((1, *trained.image_shape), np.uint8)))[0]
    found = passes_of(trained.model, trained.params, blank, 0, trained.config.loss)
    figure = figures.filters_figure(found, words, prefix)
    return [(figure, "")] if figure is not None else [], ""


def _gradients(
    run: RunFacts, trained: TrainedNetwork, data: Dataset, words: Words, prefix: str
) -> Parts:
    found = ledger.gradients(trained, data)
    entries, sizes = ledger.ledger(trained, found), ledger.norms(run.folder, trained, found)
    if len(found.manual) == 1:
        run.missing.append(words("large_network", f"{ledger.MAX_PARAMS:,}"))
    rate = f"{trained.config.learning_rate:g}"
    parts = [
        (figures.norms_figure(sizes, words, prefix), words("norms_note", found.count, rate)),
        (figures.ledger_figure(entries, words, prefix), ""),
    ]
    allowed = ", ".join(f"{dtype} {ledger.TOLERANCES[dtype]:.0e}" for dtype in found.manual)
    rows = [
        [
            f"{one.layer}.{one.array}",
            " × ".join(map(str, one.shape)),
            *(f"{x:.15g}" for x in (one.manual, one.automatic)),
            *(f"{error:.1e}" for error in one.errors.values()),
            words("yes" if one.ok else "no"),
        ]
        for one in entries
    ]
    head = [words("gradient"), "", words("largest_manual"), words("largest_automatic")]
    head += [*found.manual, words("agrees")]
    html = f"<h4>{escape(words('ledger'))}</h4>{document.table(head, rows)}"
    note = words("ledger_note", found.count, allowed)
    if found.kernels is not None:
        note += words("kernels_note", f"{max(one.kernels or 0 for one in entries):.1e}")
    html += f'<p class="note">{escape(note)}</p>'
    ratios = [
        [one.layer, *(plain(x) for x in one[1:]), plain(one.update / (one.weights or 1))]
        for one in sizes
    ]
    head = [words(n) for n in ("layer", "weights", "gradient", "update", "update_ratio")]
    more = document.details(words("norms"), document.table(head, ratios))
    return parts, document.card(html + more)


def _settings(run: RunFacts, words: Words, prefix: str) -> str:
    """The configuration and where the run was trained."""
    where = [[name, _shown(run.config[name])] for name in SURROUNDINGS if name in run.config]
    settings = [[k, _shown(v)] for k, v in run.config.items() if k not in NO_SETTINGS]
    settings = settings[:MAX_SETTINGS]
    html = ""
    if where:
        html += document.headed(
            words("environment"),
            document.card(document.table(["", ""], where)),
            f"{prefix}environment",
        )
    if settings:
        rows = document.table(["", ""], settings)
        shown = document.details(words("all_settings"), rows)
        main = ("optimizer", "learning_rate", "schedule", "batch_size", "epochs", "loss")
        main += ("augment", "precision", "gradients", "seed")
        short = [[key, value] for key, value in settings if key in main]
        html += document.headed(
            words("configuration"),
            document.card(document.table(["", ""], short) + shown),
            f"{prefix}settings",
        )
    return html
