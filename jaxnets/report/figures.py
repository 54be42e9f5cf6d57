"""A run's figures, each drawn from the data that exist."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from jaxnets.base.display import printable, shortened
from jaxnets.base.language import N_, _
from jaxnets.data.datasets import Split
from jaxnets.drawing.charts import (
    WIDTH,
    Caption,
    Marks,
    Scale,
    Series,
    curves,
    dots,
    matrix,
    percent,
    reliability,
    short_number,
)
from jaxnets.drawing.svg import Figure, signed_pixels, text_width, tiled
from jaxnets.report.evaluation import Calibration, ClassScores, Mistake, Predictions
from jaxnets.report.gradient_comparison import ComparedArray, Norms
from jaxnets.report.passes import ImagePasses
from jaxnets.report.run_facts import RunFacts

MAX_FILTERS, FILTER_COLUMNS = 64, 8
CHANNELS = 8  # Maps shown for each layer.
SIDE = (WIDTH - 8) / CHANNELS - 2  # The side of a map.
MAX_SIDE = 64  # Pixels; larger pictures are reduced.
MISTAKES = 16
MISTAKE_COLUMNS = 4
MAX_CLASS_ROWS = 40

# The figures of the records: name, title and columns.
CURVES = {
    "loss": (N_("Loss after each epoch"), ["train_loss", "validation_loss"]),
    "accuracy": (N_("Accuracy after each epoch"), ["train_accuracy", "validation_accuracy"]),
    "rate": (N_("Learning rate"), ["learning_rate"]),
    "speed": (N_("Images per second"), ["images_per_second"]),
    "wait": (N_("Share of the time spent waiting for data"), ["waiting"]),
}
SHARES = ("accuracy", "wait")


def learning_figures(runs: Sequence[RunFacts]) -> list[Figure]:
    """Curves of a run; for several runs, one curve each of the values that can be compared."""
    found = []
    for name, (title, columns) in CURVES.items():
        title = _(title)
        labels = [_("training"), _("validation")] if len(columns) > 1 else [title]
        series = []
        known = [one for one in columns if any(x is not None for r in runs for x in r.column(one))]
        for number, run in enumerate(runs):
            for column in columns if len(runs) == 1 else known[-1:]:
                y = _waiting(run) if column == "waiting" else run.column(column)
                x = [epoch or 0.0 for epoch in run.column("epoch")]
                label = run.name if len(runs) > 1 else labels[columns.index(column)]
                if any(value is not None for value in y):
                    number = number if len(runs) > 1 else columns.index(column)
                    series.append(Series(printable(label), x, y, number))
        if len(runs) > 1 and len(columns) > 1 and known:
            title += f" ({labels[columns.index(known[-1])]})"
        if series:
            show = percent if name in SHARES else short_number
            alt = f"{title}" + _(". ") + _("; ").join(_from_to(one, show) for one in series[:6])
            log = None if name in ("loss", "speed") else False
            y = Scale(show=show, log=log)
            found.append(curves(Caption(name, title, alt), series, x=Scale(_("epoch")), y=y))
    return found


def _waiting(run: RunFacts) -> list[float | None]:
    """The share of each epoch's time spent waiting for data."""
    pairs = zip(run.column("data_seconds"), run.column("seconds"), strict=True)
    return [data / seconds if data is not None and seconds else None for data, seconds in pairs]


def _from_to(series: Series, show) -> str:
    known = [(x, y) for x, y in zip(series.x, series.y, strict=True) if y is not None]
    (x1, y1), (x2, y2) = known[0], known[-1]
    values = series.label, show(y1), format(x1, "g"), show(y2), format(x2, "g")
    return _("{} from {} in epoch {} to {} in epoch {}", *values)


def confusion_figure(found: Predictions, names: Sequence[str]) -> Figure:
    """The confusion matrix of the images."""
    counts, wrong = found.confusion, found.confused
    row, column = divmod(int(wrong.argmax()), len(names))
    worst = _("none")
    if wrong.any():
        worst = _("{} taken for {} ({} times)", names[row], names[column], int(wrong[row, column]))
    alt = _(
        "{} of {} are right. Most frequent mistake: {}.",
        format(found.right.sum(), ","),
        found.images,
        worst,
    )
    return matrix(
        Caption("confusion", _("Confusion matrix"), alt),
        counts,
        [printable(n) for n in names],
        row_label=_("label"),
        column_label=_("prediction"),
    )


def scores_figure(scores: ClassScores, names: Sequence[str]) -> Figure:
    """Each class's precision, recall and F1; of many classes, those with the lowest F1."""
    order, title = np.arange(len(names)), _("Precision, recall and F1 of each class")
    if len(names) > MAX_CLASS_ROWS:
        order = np.argsort(scores.f1, kind="stable")[:MAX_CLASS_ROWS]  # NaN is the last.
        title = _("The {} classes with the lowest F1", MAX_CLASS_ROWS)
    rows = [Marks(printable(names[k]), [float(x[k]) for x in scores[:3]]) for k in order.tolist()]
    worst = int(np.nan_to_num(scores.f1, nan=2).argmin())
    alt = _("Lowest F1: class {} with {}.", names[worst], percent(float(scores.f1[worst])))
    labels = [_("precision"), _("recall"), _("F1")]
    return dots(Caption("scores", title, alt), rows, labels, x=Scale(_("score"), percent))


def calibration_figure(found: Calibration) -> Figure:
    """The network's accuracy by its confidence."""
    alt = _(
        "Expected calibration error {}. On the dashed line, confidence equals accuracy.",
        percent(found.error),
    )
    return reliability(
        Caption("calibration", _("Calibration"), alt),
        np.nan_to_num(found.accuracy),
        found.share,
        x_label=_("confidence"),
        y_label=_("accuracy"),
        share_label=_("images"),
    )


def mistakes_figure(
    found: Sequence[Mistake],
    split: Split,
    class_names: Sequence[str],
    columns: int = MISTAKE_COLUMNS,
    title: str = "",
) -> Figure:
    """The pictures of the mistakes with label, prediction and confidence."""
    names, cell = [printable(name) for name in class_names], WIDTH / MISTAKE_COLUMNS
    side, tall = cell - 26, cell + 30
    rows = -(-len(found) // columns)
    first = found[0]
    seen = names[first.label], names[first.predicted], percent(first.confidence)
    text = _("label {}, taken for {} with {}", *seen)
    label, prediction = _("label"), _("prediction")
    title, alt = title or _("The most confident mistakes"), _("The first: {}.", text)
    figure = Figure("mistakes", columns * cell, rows * tall + 4, title, alt)
    for number, mistake in enumerate(found):
        x, y = number % columns * cell, number // columns * tall
        figure.image(x + 13, y + 6, side, side, picture(split, mistake.row))
        lines = [
            (f"{label} {names[mistake.label]}", "soft"),
            (f"{prediction} {names[mistake.predicted]}", "ink"),
            (f"{100 * mistake.confidence:.2f} %", "soft"),
        ]
        if mistake.is_rejected:
            figure.rect(x + 10, y + 3, side + 6, side + 6, fill="none", stroke="c2", stroke_width=3)
            text = _("label is doubtful")
            if mistake.better is not None:
                text = _("label is wrong: {}", names[mistake.better])
            lines[2] = (text, "c2")
        for at, (text, colour) in enumerate(lines):
            size = min(11.0, 11 * (cell - 4) / text_width(text, 11))
            text = text if size >= 7 else shortened(text, 18)
            figure.text(
                x + cell / 2,
                y + side + 22 + 14 * at,
                text,
                text_anchor="middle",
                font_size=max(size, 7),
                fill=colour,
            )
    return figure


def picture(split: Split, row: int) -> np.ndarray:
    """An image as bytes [h, w] or [h, w, 3], with sides of at most MAX_SIDE."""
    image = np.asarray(split.images[row])
    if image.dtype != np.uint8:
        image = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
    drawn = Image.fromarray(_reduced(image))
    drawn.thumbnail((MAX_SIDE, MAX_SIDE))
    return np.asarray(drawn)


def filters_figure(found: ImagePasses) -> Figure | None:
    """The weights of the first layer as pictures; None if they cannot be pictures."""
    step = next((step for step in found.steps if "kernel" in step.params), None)
    if step is None:
        return None
    if (weights := _as_pictures(step.params["kernel"].value, found.image.shape)) is None:
        return None
    shown = weights[:MAX_FILTERS]
    sheet = tiled(np.stack([_tile(tile) for tile in shown]), FILTER_COLUMNS)
    rows = -(-len(shown) // FILTER_COLUMNS)
    tile = (WIDTH - 8) / FILTER_COLUMNS
    title = _("First layer's weights: {}", step.layer)
    alt = _("{} of {} filters; orange is above zero, blue below.", len(shown), len(weights))
    figure = Figure("filters", WIDTH, rows * tile + 8, title, alt)
    width = (WIDTH - 8) * sheet.shape[1] / (FILTER_COLUMNS * (shown.shape[2] + 1) - 1)
    height = width * sheet.shape[0] / sheet.shape[1]
    figure.image(4, 4, width, height, sheet)
    return figure


def _as_pictures(kernel: np.ndarray, image: tuple[int, ...]) -> np.ndarray | None:
    """A kernel as [K, h, w, c]: a convolution's windows, or a dense layer's whole images."""
    if kernel.ndim == 4:
        return np.moveaxis(kernel, -1, 0)
    size = int(np.prod(image))
    if kernel.ndim != 2 or len(kernel) not in (size, size + 1):  # The last row may be the bias.
        return None
    return kernel[:size].T.reshape(-1, *image)


def _tile(weights: np.ndarray) -> np.ndarray:
    """Weights [h, w, c] as pixels [h, w, 4]: colours for three channels, otherwise signs."""
    if weights.shape[2] != 3:
        return signed_pixels(weights.mean(axis=2))
    low, high = weights.min(), weights.max()
    colours = (255 * (weights - low) / ((high - low) or 1)).astype(np.uint8)
    return np.concatenate([colours, np.full_like(colours[..., :1], 255)], axis=2)


def activations_figure(found: ImagePasses, name: str) -> Figure:
    """An image, and the first channels of every layer's output."""
    title = _("One image through the layers")
    alt = _(
        "The image of class {}, then the first channels of each layer; orange is above zero, blue "
        "below.",
        name,
    )
    image = np.rint(255 * np.clip(found.image, 0, 1)).astype(np.uint8)
    rows = [(_("image, label {}", name), _reduced(image))]
    for step in found.steps:
        value = step.output.value
        if step.layer == "flatten" or step.within:
            continue  # The same numbers in a row; a residual block shows only its output.
        shape = " × ".join(map(str, value.shape))
        rows.append((f"{step.layer}: {shape}", value))
    height = sum(18 + _row_height(value) + 8 for _, value in rows)
    figure = Figure("activations", WIDTH, height, title, alt)
    y = 0.0
    for label, value in rows:
        figure.text(4, y + 13, label, font_size=11, fill="soft")
        if value.dtype == np.uint8:
            figure.image(4, y + 18, SIDE, SIDE, value)
        else:
            figure.array(4, y + 18, WIDTH - 8, _row_height(value), value, maps=CHANNELS)
        y += 18 + _row_height(value) + 8
    return figure


def _reduced(image: np.ndarray) -> np.ndarray:
    """An image [h, w, C]; [h, w] if it has one channel."""
    return image[..., 0] if image.shape[2] == 1 else image


def _row_height(value: np.ndarray) -> float:
    if value.dtype == np.uint8 or value.ndim == 3:
        return SIDE
    return 8.0 * -(-value.size // 64) if value.size > 16 else 14


def _in_few_letters(name: str, most: int = 22) -> str:
    """A layer's name without a block's "chain", shortened in the middle if it is still long."""
    name = name.replace(".chain.", ".")
    return name if len(name) <= most else f"{name[:10]}…{name[11 - most :]}"


def norms_figure(found: Sequence[Norms]) -> Figure:
    """Each layer's weights, gradient and update on a logarithmic axis."""
    rows = [Marks(_in_few_letters(one.layer), one[1:]) for one in found]
    ratios = [one.update / one.weights if one.weights else 0.0 for one in found]
    worst = int(np.argmax(ratios))
    found_in = short_number(ratios[worst]), found[worst].layer
    alt = _("The largest ratio of update to weights: {} in {}.", *found_in)
    labels = [_("weights"), _("gradient"), _("update")]
    caption = Caption("norms", _("Size of weights, gradients and updates"), alt)
    return dots(caption, rows, labels, x=Scale(_("norm"), log=True))


def gradient_errors_figure(found: Sequence[ComparedArray]) -> Figure:
    """Each array's relative errors in three precisions on a logarithmic axis."""
    rows = [
        Marks(_in_few_letters(f"{one.layer}.{one.array}"), list(one.errors.values()))
        for one in found
    ]
    error, entry, dtype = max(
        (error, f"{entry.layer}.{entry.array}", dtype)
        for entry in found
        for dtype, error in entry.errors.items()
    )
    alt = _("The largest relative error: {} in {} ({}).", format(error, ".1e"), entry, dtype)
    caption = Caption("gradient-errors", _("Relative error of each gradient by hand"), alt)
    scale = Scale(_("relative error"), lambda x: f"{x:.0e}", log=True)
    return dots(caption, rows, list(found[0].errors), x=scale)
