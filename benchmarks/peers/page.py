"""Two pages of a benchmark, from its numbers: a front of seven rows, and all tables.

A ratio is that of the two printed numbers, so a reader can check it.
"""

import math
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers.networks import Network, flops_per_image, network_of
from benchmarks.peers.run import GROWTH, TARGETS
from benchmarks.peers.ways import NETWORKS, OURS
from jaxnets.drawing.charts import Caption, Scale, Series, curves
from jaxnets.drawing.svg import Figure, text_width

Measurement = dict[str, Any]
NONE = "–"  # A cell without a number.
EXAMPLE = " example"  # The name of a library's own MNIST example has it.
# Heads of the ratios to the peer with the largest rate, the least time and the least memory.
BEST, FASTEST, SMALLEST = "/ best peer", "/ fastest peer", "/ smallest peer"
FASTEST_EXAMPLE = "/ fastest example"
WIDTH, ROW, LEFT = 380, 38, 12  # Pixels; a phone shows about as many.
# A page with these lines keeps what is around them.
BEGIN, END = "<!-- python -m benchmarks writes from here -->\n", "<!-- to here -->\n"


def write(found: dict[str, Any], page: Path, tables: Path) -> None:
    """Writes both pages, and the figures of each in the same folder as PAGE-NAME.svg."""
    link = os.path.relpath(tables, page.parent).replace(os.sep, "/")
    both = (page, front(found, page.stem, link)), (tables, draw(found, tables.stem))
    for path, (text, figures) in both:
        path.parent.mkdir(parents=True, exist_ok=True)
        for figure in figures:
            (path.parent / f"{path.stem}-{figure.name}.svg").write_text(figure.themed())
        path.write_text(placed(text, path.read_text() if path.exists() else ""))


def placed(text: str, page: str) -> str:
    """A page with the text between its two lines; without these lines the text alone.

    >>> placed("new", f"before {BEGIN}old{END} after") == f"before {BEGIN}new{END} after"
    True
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    return before + begin + text + end + after if begin and end else text


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The new numbers, and the old ones of parts that were not measured again."""
    again = {_key(one) for one in new["measurements"]}
    kept = [one for one in old.get("measurements", []) if _key(one) not in again]
    return {**new, "measurements": [*kept, *new["measurements"]]}


def _key(one: Measurement) -> tuple[Any, ...]:
    return one["part"], one.get("network") if one["part"] == "rate" else None


def shown(value: float, digits: int = 3) -> str:
    """A number with so many digits.

    >>> shown(6173.2), shown(41.26), shown(0.98764), shown(6173.2, digits=2)
    ('6,170', '41.3', '0.988', '6,200')
    """
    if value == 0 or not math.isfinite(value):
        return str(value)
    digits = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(digits, 0)}f}"


def number(text: str) -> float:
    """The number that `shown` has printed."""
    return float(text.replace(",", ""))


def ratio(value: float, reference: float | None) -> str:
    """The quotient of two numbers as they are printed; a small one with two digits.

    >>> ratio(6173.2, 4122), ratio(3.17, 407)
    ('1.50', '0.0078')
    """
    if reference is None:
        return NONE
    quotient = number(shown(value)) / number(shown(reference))
    return f"{quotient:.2f}" if quotient >= 0.1 else f"{quotient:.2g}"


class Spread(NamedTuple):
    """A figure of several rounds."""

    median: float
    low: float
    high: float

    @property
    def range(self) -> str:
        """The least and the largest."""
        return f"{shown(self.low)} to {shown(self.high)}"


Rows = dict[str, Spread]  # By the way's name.


def spreads(ones: Iterable[Measurement], value: Callable[[Measurement], float]) -> Rows:
    """Each way's figure; measurements that failed are left out."""
    found: dict[str, list[float]] = {}
    for one in ones:
        if "error" not in one:
            found.setdefault(one["way"], []).append(value(one))
    return {way: Spread(statistics.median(x), min(x), max(x)) for way, x in found.items()}


def best_peer(rows: Rows, best: Callable = max, among: str = "") -> float | None:
    """The best median of those that are not ours."""
    theirs = [x.median for way, x in rows.items() if not way.startswith(OURS) and among in way]
    return best(theirs, default=None)


def cells(rows: Rows, way: str, best: Callable = max) -> list[str]:
    """A way's median, and its ratio to the best peer's."""
    return [shown(rows[way].median), ratio(rows[way].median, best_peer(rows, best))]


def ranged(rows: Rows, way: str, best: Callable = max) -> list[str]:
    """A way's median, its range, and the median's ratio to the best peer's."""
    median, of_best = cells(rows, way, best)
    return [median, rows[way].range, of_best]


def rounds_of(ones: list[Measurement]) -> str:
    """How often everything was measured."""
    count = 1 + max(one["round"] for one in ones)
    return "One round." if count == 1 else f"{count} rounds."


def images_per_second(one: Measurement) -> float:
    """The rate of a process: that of its median repetition."""
    return one["images"] / max(statistics.median(one["wall"]), 1e-9)


class Bar(NamedTuple):
    """A row of a figure."""

    label: str
    value: float
    text: str  # Next to the bar.
    is_ours: bool


def bars(name: str, title: str, rows: Sequence[Bar], reference: str) -> Figure:
    """Horizontal bars from 0, and a line at 1, which is the reference."""
    end = max([1.0, *(bar.value for bar in rows)])
    unit = (WIDTH - LEFT - 56) / end
    alt = "; ".join(f"{bar.label}: {bar.text}" for bar in rows)
    figure = Figure(name, WIDTH, 30 + ROW * len(rows), title, alt)
    side = "start" if unit < WIDTH / 3 else "middle" if unit < 0.8 * WIDTH else "end"
    figure.text(LEFT + unit, 14, f"1 = {reference}", text_anchor=side, fill="soft")
    for number, bar in enumerate(rows):
        y = 22 + ROW * number
        figure.text(LEFT, y + 13, bar.label)
        figure.rect(LEFT, y + 18, unit * bar.value, 14, fill="c1" if bar.is_ours else "c2")
        end_of_bar = unit * bar.value
        if end_of_bar < unit < end_of_bar + 12 + text_width(bar.text, 12):
            end_of_bar = unit  # The line would go through the number.
        figure.text(LEFT + end_of_bar + 6, y + 29, bar.text)
        figure.line(LEFT + unit, y + 16, LEFT + unit, y + 34, stroke="ink", stroke_width=2)
    return figure


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown; all columns but the first are numbers. Without rows there is none."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    if len(lines) == 2:
        return ""
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def parts_of(found: dict[str, Any]) -> dict[str, list[Measurement]]:
    """The measurements of each part."""
    parts: dict[str, list[Measurement]] = {}
    for one in found["measurements"]:
        parts.setdefault(one["part"], []).append(one)
    return parts


def image_of(figure: Figure, name: str) -> str:
    """A figure in Markdown, of the page of a name."""
    return f"![{figure.title}: {figure.alt}]({name}-{figure.name}.svg)"


def front(found: dict[str, Any], name: str, tables: str) -> tuple[str, list[Figure]]:
    """The part for readers: a figure, and a table of seven rows against the best peer of each."""
    parts = parts_of(found)
    figures = _rate_figure(parts.get("rate", []))
    rates = [
        (f"training `{network}`, images/s", _of_network(parts, network), max)
        for network in ("mlp", "cnn", "alexnet", "resnet20")
    ]
    hits = [one for one in _programs(parts, 0.99) if one["reached"]]
    hits.sort(key=lambda one: one.get("cold") is False)  # Our first one is that with a cold cache.
    cold = [one for one in parts.get("startup", []) if one["cold"]]
    seconds = [
        ("from the process's start to 99 % on MNIST, seconds", hits, _seconds_to_target),
        ("one image, milliseconds", parts.get("latency", []), lambda one: 1e3 * one["wall"][0]),
        ("start-up to the first step, seconds", cold, lambda one: one["wall"][0]),
    ]
    compared = [(what, spreads(ones, images_per_second), best) for what, ones, best in rates]
    compared += [(what, spreads(ones, value), min) for what, ones, value in seconds]
    rows = [row for row in (_against_best(*one) for one in compared) if row]
    text = "\n## Compared with other libraries\n\n"
    text += "Each row names the fastest of the others; below 1 it is faster than jaxnets.\n\n"
    text += table(["", OURS, "best of the others", "times as fast"], rows) + "\n"
    text += "".join(f"{image_of(figure, name)}\n\n" for figure in figures) + _facts(found)
    text += (
        "The others are PyTorch, Keras on TensorFlow and on JAX, Flax, scikit-learn, NumPy and "
        "ONNX Runtime. Every library builds the same network and starts from the same weights; the "
        "tests compare the logits before and after a step of training. Every measurement "
        "runs in a separate process, and the libraries take turns. A figure is a median. Training "
        "rates are those of epochs after the first, with images in memory. The time to an accuracy "
        "includes imports, data and compilation; the others train the same network or their own "
        f"MNIST example, whichever is faster. [All tables]({tables}) have spreads, every library, "
        "memory and growth.\n\n"
    )
    return text, figures


def _of_network(parts: dict[str, list[Measurement]], network: str) -> list[Measurement]:
    return [one for one in parts.get("rate", []) if one["network"] == network]


def _against_best(what: str, rows: Rows, best: Callable) -> list[str]:
    """A row of the front: our median, the best peer's, and how many times as fast we are."""
    theirs = {way: x.median for way, x in rows.items() if not way.startswith(OURS)}
    ours = rows.get(OURS) or next((x for way, x in rows.items() if way.startswith(OURS)), None)
    if ours is None or not theirs:
        return []
    peer = best(theirs, key=lambda way: theirs[way])
    pair = [shown(ours.median, digits=2), shown(theirs[peer], digits=2)]
    times = number(pair[0]) / number(pair[1])
    times = shown(times if best is max else 1 / times, digits=2)
    return [what, pair[0], f"{pair[1]}, {peer}", times]


def draw(found: dict[str, Any], name: str) -> tuple[str, list[Figure]]:
    """The page of all tables and its figures; a part without numbers is left out."""
    parts = parts_of(found)
    figures: list[Figure] = []
    text = f"# jaxnets compared with other libraries: all tables\n\n{_facts(found)}" + (
        "Every measurement runs in a separate process. The ways take turns, and each round starts "
        "with a different one. A figure is the median of the rounds, with the least and the "
        "largest next to it. A ratio is that of the two printed figures. Every library "
        "builds the same network and starts from the same weights; the tests compare the logits "
        "before and after a step of training.\n\n"
    )
    text += _machine(parts.get("machine", [])) + _rate(parts) + _accuracy(parts, figures)
    text += _inference(parts) + _start(parts) + _memory(parts) + _growth(parts, figures)
    text += _failures(found["measurements"])
    for figure in figures:
        text = text.replace(f"({figure.name})", image_of(figure, name))
    return text, figures


def _facts(found: dict[str, Any]) -> str:
    """The program that wrote a page, and the machine."""
    machine, versions = found["machine"], found["versions"]
    names = ", ".join(f"{name} {version}" for name, version in versions.items())
    text = (
        "`python -m benchmarks` measured and wrote this; do not edit it.\n\n"
        f"Machine: {machine['cores']} cores of {machine['processor']}, {machine['system']}. "
        f"Date: {found['date']}. Versions: {names}.\n\n"
    )
    if found["quick"]:
        text += "**These numbers are from a trial run (`--quick`) and mean nothing.**\n\n"
    if found["load"] > machine["cores"] / 4:
        text += (
            f"**Other programs ran at the start (load {shown(found['load'])}): wall-clock seconds "
            "mean little.**\n\n"
        )
    for way, packages in found["left_out"].items():
        text += f"Left out: {way}, because {', '.join(packages)} is not installed.\n\n"
    return text


def _machine(ones: list[Measurement]) -> str:
    if not (ones := [one for one in ones if "error" not in one]):
        return ""
    lines = []
    for key, name in (
        ("sgemm_gflops", "matrix product (2048 x 2048, float32), GFLOP/s"),
        ("sgemm_gflops_cpu", "the same in a CPU second, GFLOP"),
        ("copy_gb", "copy of 256 MiB by one thread, read and written: GB/s"),
    ):
        values = [x for one in ones for x in one[key]]
        spread = Spread(statistics.median(values), min(values), max(values))
        lines.append([name, shown(spread.median), spread.range])
    return "## The machine\n\n" + table(["rate", "median", "from, to"], lines) + "\n"


def _rates(ones: list[Measurement], network: Network, training: bool) -> str:
    """The table of a network's rates, with its batch and its work above it."""
    flops, size = flops_per_image(network, training), 4 * math.prod(network.image_shape)
    batch = network.batch_size if training else 128
    text = f"Batch {batch}; {shown(flops / 1e6)} MFLOP and {shown(size / 1e3)} kB an image. "
    wall = spreads(ones, images_per_second)
    lines = [[way, *ranged(wall, way)] for way in wall]
    head = ["", "images/s", "from, to", BEST]
    return f"{text}{rounds_of(ones)}\n\n{table(head, lines)}\n"


def _rate_figure(ones: list[Measurement]) -> list[Figure]:
    """The figure of our rates in each network against the best peer's, if there is any."""
    rows = []
    for network in NETWORKS:
        wall = spreads([one for one in ones if one["network"] == network], images_per_second)
        for way, what in ((OURS, network), (f"{OURS}, gradients by hand", f"{network}, by hand")):
            if way in wall and (best := best_peer(wall)):
                shares = shown(wall[way].median / best, digits=2)
                rows.append(Bar(what, float(shares), shares, True))
    title = "Training rate of jaxnets / the best peer's"
    return [bars("rate", title, rows, "the best peer")] if rows else []


def _rate(parts: dict[str, list[Measurement]]) -> str:
    if "rate" not in parts:
        return ""
    text = ""
    for network in NETWORKS:
        if here := _of_network(parts, network):
            text += f"### {network}\n\n{_rates(here, network_of(network), True)}"
    return (
        "## Training rate\n\n"
        "Epochs after the first, with images in memory, without shifts, weight decay and a "
        "schedule. jaxnets trains with its own loop, Keras with `fit`, PyTorch and Flax with the "
        "loop of their tutorials. PyTorch takes its batches as rows of one tensor, which is faster "
        "than its DataLoader. scikit-learn always uses the logarithmic loss, and Adam for RMSprop. "
        "PyTorch's RMSprop adds its epsilon outside the root, and its batch norm follows the "
        "unbiased variance. The images of alexnet and resnet20 are random.\n\n" + text
    )


def reached(one: Measurement, target: float) -> Measurement | None:
    """The first epoch of a training whose test accuracy is the target's."""
    return next((epoch for epoch in one["epochs"] if epoch["accuracy"] >= target), None)


def _program(one: Measurement) -> str:
    cold = one.get("cold")
    return one["way"] if cold is None else f"{one['way']}, {'cold' if cold else 'warm'} cache"


def _programs(parts: dict[str, list[Measurement]], target: float) -> list[Measurement]:
    """The trainings to a target, each with the epoch that reached it, or None."""
    ones = [one for one in parts.get("accuracy", []) if "error" not in one]
    here = [one for one in ones if one.get("target", target) == target]
    return [{**one, "way": _program(one), "reached": reached(one, target)} for one in here]


def _seconds_to_target(one: Measurement) -> float:
    return one["reached"]["wall"]


def _accuracy(parts: dict[str, list[Measurement]], figures: list[Figure]) -> str:
    if not (ones := [one for one in parts.get("accuracy", []) if "error" not in one]):
        return ""
    ours = ", ".join(f"{100 * target:g} % by `{' '.join(how)}`" for target, how in TARGETS.items())
    text = (
        "## Time to an accuracy\n\n"
        "From the start of the process: imports, data, compilation, training. jaxnets's recipes "
        f"were found on validation images ({ours}). It tests once, after training, and its "
        "process must end with the test accuracy. The others test after each "
        "epoch and are taken at the first one that suffices. Each library's MNIST example "
        "is rewritten unchanged, and trains for its own number of epochs. The same network is that "
        f"of `cnn` with its recipe, ten epochs, without shifts. {rounds_of(ones)}\n\n"
    )
    for target in TARGETS:
        there = _programs(parts, target)
        hits = [one for one in there if one["reached"] is not None]
        wall = spreads(hits, _seconds_to_target)
        lines, rows = [], []
        for way in dict.fromkeys(one["way"] for one in there):
            own = [one for one in there if one["way"] == way]
            count = sum(one["way"] == way for one in hits)
            last = statistics.median(one["epochs"][-1]["accuracy"] for one in own)
            line = [way, f"{count} of {len(own)}", f"{last:.2%}".replace("%", " %")]
            if way not in wall:
                lines.append([*line, "never", *[NONE] * 3])
                continue
            *_, of_best = seconds = ranged(wall, way, min)
            line += [*seconds, ratio(wall[way].median, best_peer(wall, min, EXAMPLE))]
            lines.append(line)
            if of_best != NONE:
                rows.append(Bar(way, float(of_best), of_best, way.startswith(OURS)))
        head = ["", "rounds that get there", "accuracy at the end", "seconds", "from, to"]
        head += [FASTEST, FASTEST_EXAMPLE]
        name = f"accuracy-{round(1000 * target)}"
        text += f"### {100 * target:.1f} %\n\n" + (f"({name})\n\n" if rows else "")
        text += table(head, lines) + "\n"
        if rows:
            title = f"Time to {100 * target:.1f} % / the fastest peer's"
            figures.append(bars(name, title, rows, "the fastest peer"))
    return text


def _inference(parts: dict[str, list[Measurement]]) -> str:
    text = ""
    if ones := parts.get("inference"):
        text += _rates(ones, network_of("cnn"), False)
    if ones := parts.get("latency"):
        wall = spreads(ones, lambda one: 1e3 * one["wall"][0])
        slow = spreads(ones, lambda one: 1e3 * one["slow"][0])
        text += "A single image, milliseconds:\n\n"
        head = ["", "median", "from, to", FASTEST, "95 of 100 below"]
        lines = [[way, *ranged(wall, way, min), shown(slow[way].median)] for way in wall]
        text += table(head, lines) + "\n"
    return f"## Prediction\n\n`cnn`, images as float32.\n\n{text}" if text else ""


def _start(parts: dict[str, list[Measurement]]) -> str:
    if not (ones := parts.get("startup")):
        return ""
    text = (
        "## Start-up\n\nA whole process that imports its library, loads MNIST, builds `cnn`, takes "
        "one step and ends. Cold: nothing compiled is kept from earlier processes. "
        f"{rounds_of(ones)}\n\n"
    )
    for cold in (True, False):
        here = [one for one in ones if one["cold"] is cold]
        wall = spreads(here, lambda one: one["wall"][0])
        lines = [[way, *ranged(wall, way, min)] for way in wall]
        head = [f"{'cold' if cold else 'warm'} cache", "seconds", "from, to", FASTEST]
        text += table(head, lines) + "\n"
    return text


def _memory(parts: dict[str, list[Measurement]]) -> str:
    text = ""
    for what, ones in (
        ("training `cnn`, epochs of the rate above", _of_network(parts, "cnn")),
        ("to an accuracy", [o | {"way": _program(o)} for o in parts.get("accuracy", [])]),
    ):
        if peaks := spreads(ones, lambda one: one["peak_mb"]):
            lines = [[way, *ranged(peaks, way, min)] for way in peaks]
            text += table([what, "MB", "from, to", SMALLEST], lines) + "\n"
    return f"## Peak memory\n\nThe largest resident size of a process.\n\n{text}" if text else ""


def _growth(parts: dict[str, list[Measurement]], figures: list[Figure]) -> str:
    if not (ones := parts.get("growth")):
        return ""
    text = (
        "## Growth\n\nImages a second in training, and the ratio to the best peer's at the same "
        f"point. Devices are simulated ones on this machine's cores. {rounds_of(ones)}\n\n"
    )
    for axis, (network, field, _) in GROWTH.items():
        here = [one for one in ones if one["axis"] == axis]
        if not here:
            continue
        values = sorted({one["value"] for one in here})
        points = {
            x: spreads([one for one in here if one["value"] == x], images_per_second)
            for x in values
        }
        ways = list(dict.fromkeys(one["way"] for one in here))
        lines, series = [], []
        for way in ways:
            line = [way]
            for x in values:
                line += cells(points[x], way) if way in points[x] else [NONE, NONE]
            lines.append(line)
            known = [points[x][way].median if way in points[x] else None for x in values]
            series.append(Series(way, values, known, len(series)))
        head = [""]
        for x in values:
            head += [f"{x:,}", BEST]
        text += f"### {axis}: `{field}` of {network}\n\n(growth-{axis})\n\n{table(head, lines)}\n"
        title = f"Images a second of {network} by {field}"
        alt = "; ".join(
            f"{one.label}: {', '.join(shown(y) for y in one.y if y is not None)}" for one in series
        )
        caption = Caption(f"growth-{axis}", title, alt)
        figures.append(curves(caption, series, x=Scale(field), y=Scale(log=True)))
    return text


def _failures(ones: list[Measurement]) -> str:
    lines = [
        f"- {one['part']}{' of ' * ('network' in one)}{one.get('network', '')}, {one['way']}: "
        f"{one['error']}\n"
        for one in ones
        if "error" in one
    ]
    return "## What failed\n\n" + "".join(dict.fromkeys(lines)) if lines else ""
