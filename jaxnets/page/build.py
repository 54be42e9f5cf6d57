"""Builds the page of a trained run: its files for a server, or one file for a disk.

The page's HTML is in templates/; its scripts and texts are in assets/. Two files differ from run to
run: `run.js` has the layers, the class names and the weights, and `practice.js` has some pictures
or points to train with.
"""

import base64
import dataclasses
import gzip
import importlib.metadata
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from jaxnets.backprop.rules import rule_named
from jaxnets.base import files
from jaxnets.base.display import printable, short_path
from jaxnets.base.errors import UserError
from jaxnets.base.language import LANGUAGES, Text, _, speaking
from jaxnets.config.command import CommandResult
from jaxnets.config.options import is_custom
from jaxnets.data import planes
from jaxnets.data.datasets import Dataset, Split
from jaxnets.drawing.svg import both_themes
from jaxnets.drawing.templates import digest_of, environment, html_path
from jaxnets.models.chain import has_layer
from jaxnets.predict.digit import SIDE
from jaxnets.predict.portable import (
    LayerRows,
    PortableNetwork,
    branch_rows,
    check_kinds,
    folded,
    portable_network,
)
from jaxnets.predict.predict import to_predictor, usual_preparation
from jaxnets.predict.run_data import data_of
from jaxnets.predict.trained import TrainedNetwork, load_network
from jaxnets.runs.progress import Doing

Files = dict[str, tuple[str, bytes]]  # A file's name → its media type and its content.

IMAGE = SIDE, SIDE, 1  # The shape of the pictures that the page trains with.
MAX_SIDE = 96  # Pixels: the layers of larger images would be unreadable.
MAX_CLASSES = 100  # More bars and buttons would be unreadable.
MAX_PARAMS = 4_000_000  # A phone has to compute with them: `cnn` has 3,230,538 on 64 x 64 x 3.
MAX_FLOAT32 = 450_000  # More parameters are written in float16: half as many bytes.
LARGEST_FLOAT16 = 65_504
LITTLE_ENDIAN = {"float16": "<f2", "float32": "<f4"}


def _kinds() -> frozenset[str]:
    """The kinds of layers in the page's table, KINDS of network.js."""
    program = (resources.files("jaxnets.page") / "assets" / "network.js").read_text("utf-8")
    table = program.partition("const KINDS = {\n")[2].partition("\n};")[0]
    return frozenset(re.findall(r"^  (\w+): ", table, re.MULTILINE))


KINDS = _kinds()

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
OWN_SCRIPTS = ("run.js", "practice.js")  # They differ for each run.
# The page's scripts, each after those that it needs.
SCRIPTS = (*OWN_SCRIPTS, "network.js", "image.js", "digit.js", "texts.js", "switches.js")
SCRIPTS += ("heat.js", "sums.js", "pictures.js", "drawing.js", "examples.js", "strip.js", "cell.js")
SCRIPTS += ("learn.js", "trainer.js", "training.js", "train.js", "tour.js", "contents.js")
SCRIPTS += ("page.js",)
PLANE_SCRIPTS = (*OWN_SCRIPTS, "network.js", "texts.js", "switches.js", "trainer.js")
PLANE_SCRIPTS += ("training.js", "plane.js")
# Nothing is loaded; only the styles and scripts with these digests apply, and a worker that the
# page makes from its own scripts.
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; worker-src blob:; "
POLICY += "style-src {}; script-src {}"
PRACTICE, HELD_OUT = 1600, 400  # Pictures to train with in the page, and to test that with.
EXAMPLES = 20  # On a page that does not train: a picture of each class, up to this many.
POINTS, HELD_OUT_POINTS = 300, 100  # The same for a plane: more would hide its colours.
MAX_PLANE_CLASSES = 6  # More colours and marks would be hard to tell apart.


class Kind(NamedTuple):
    """A kind of page: its template, and its scripts."""

    template: str
    scripts: tuple[str, ...]


PICTURES = Kind("index.html", SCRIPTS)
PLANE = Kind("plane.html", PLANE_SCRIPTS)  # For a network on rows of two numbers.


def page_files(
    trained: TrainedNetwork, pictures: Split | None = None, *, served: bool = False
) -> Files:
    """Returns the page's files by name; "index.html" links to the others.

    No file has an inline script or style, so a server may forbid them.

    Args:
      trained: A run's network.
      pictures: The run's `practice`, to train with or as examples: [N, H, W, C] uint8, and labels.
      served: Whether the server shows it, and adds its answers.

    Raises:
      UserError: The page cannot show this network.
    """
    kind = kind_of(trained)
    practice = practice_script if kind == PICTURES else points_script
    own = {"run.js": run_script(trained), "practice.js": practice(trained, pictures)}
    scripts = {name: (MEDIA_TYPES[".js"], script.encode()) for name, script in own.items()}
    return dict(sorted((common_files(kind, served=served) | scripts).items()))


def kind_of(trained: TrainedNetwork) -> Kind:
    """The kind of page that shows a network."""
    return PLANE if trained.image_shape == (2,) else PICTURES


def common_files(kind: Kind = PICTURES, *, served: bool = False) -> Files:
    """The files that are the same for every run."""
    folder = resources.files("jaxnets.page") / "assets"
    names = {"page.css", *kind.scripts} - {*OWN_SCRIPTS}
    found = {name: (folder / name).read_bytes() for name in names}
    found["page.css"] = both_themes().encode() + found["page.css"]
    found["texts.js"] = with_texts(found["texts.js"], (folder / "texts.json").read_bytes())
    found["index.html"] = html(kind.template, scripts=kind.scripts, served=served).encode()
    return {name: (MEDIA_TYPES[Path(name).suffix], content) for name, content in found.items()}


def with_texts(program: bytes, texts: bytes) -> bytes:
    """A script whose TEXTS are those of a JSON file, in every language."""
    english, said = json.loads(texts), {}
    for language in LANGUAGES:
        with speaking(language):
            said[language] = {key: _(text) for key, text in english.items()}
    filled = f"const TEXTS = {json.dumps(said, ensure_ascii=False)};"
    return program.replace(b"const TEXTS = {};", filled.encode())


def one_file(page: Files, language: str | None = None, kind: Kind = PICTURES) -> str:
    """Returns the page as one HTML document that loads nothing.

    Its content-security policy lists the digest of each inlined style and script, and forbids all
    others and every request. Its first language is the reader's unless one is given.
    """
    inlined = {name: page[name][1].decode() for name in ("page.css", *kind.scripts)}
    digests = [*map(digest_of, inlined.values())]
    policy = POLICY.format(digests[0], " ".join(digests[1:]))
    given = dict(scripts=kind.scripts, inlined=inlined, policy=policy, language=language)
    return html(kind.template, **given)


def html(name: str, **values: Any) -> str:
    """A template in HTML; the page links to its style and its scripts unless they are inlined."""
    given: dict[str, Any] = (
        dict(scripts=(), inlined={}, policy="", language=None, served=False) | values
    )
    return environment("jaxnets.page").get_template(name).render(given)


@dataclasses.dataclass(frozen=True)
class WrittenPage(CommandResult):
    """A page in a file."""

    page: str
    bytes: int
    weights: str  # "float32" or "float16".
    largest_difference: float  # Between a weight of the run and of the page.
    pictures: int  # The number of the run's own pictures, or of points.
    trains: bool  # Whether the page trains with them.
    points: bool = False  # Whether they are points of a plane.

    def values(self) -> dict[str, Any]:
        """The same for programs."""
        return dataclasses.asdict(self)

    def text(self) -> str:
        """The line that names the file."""
        megabytes = f"{self.bytes / 1e6:.2f}"
        text = _("{}: {} MB, {} weights", short_path(self.page), megabytes, self.weights)
        if self.largest_difference:
            text += _(" (at most {} from the run's)", f"{self.largest_difference:.1g}")
        if self.pictures:
            pictures = f"{self.pictures:,}"
            if self.points:
                text += _(", {} points to train with", pictures)
            elif self.trains:
                text += _(", {} pictures to train with", pictures)
            else:
                text += _(", {} example pictures", pictures)
        return _("{}; open it in a browser", text)


def write_page(
    workdir: str, output: str, language: str | None = None, data: Dataset | None = None
) -> WrittenPage:
    """Writes the page of a run into a file; the old file stays if anything fails.

    Its first language is one of LANGUAGES; None means that of the reader's browser. The run's data
    are read unless they are given.

    Raises:
      UserError: There is no such run or folder, or the page cannot show the network.
    """
    path = html_path(output)
    with Doing("page", 3) as doing:
        doing(_("reading {}", workdir))
        trained = load_network(workdir, takes_rows=True)
        doing(_("choosing pictures to train with"))
        pictures = practice(trained, data)
        doing(_("writing the page"))
        text = one_file(page_files(trained, pictures), language, kind_of(trained))
        files.write_text(path, text)
    weights = _weights(portable_network(trained, as_taught=True))
    dtype = _dtype_of(weights)
    with np.errstate(invalid="ignore"):
        difference = np.abs(weights.astype(dtype).astype(weights.dtype) - weights).max()
    return WrittenPage(
        page=str(path),
        bytes=len(text.encode()),
        weights=dtype,
        largest_difference=float(difference),
        pictures=0 if pictures is None else len(pictures),
        trains=pictures is not None and trains(trained),
        points=kind_of(trained) == PLANE,
    )


def practice(trained: TrainedNetwork, data: Dataset | None = None) -> Split | None:
    """Some training images of the run's data; None if the data set is not found.

    The tour shows the first one: its true class and another class have the closest probabilities.
    (The image with the largest loss may have a wrong label.) No test image is among them, because
    users choose learning rates by these images. A page that does not train has one of each class.

    Raises:
      UserError: The page cannot show this network.
    """
    _layers_and_weights(trained)
    try:
        data = data_of(trained, data, as_bytes=True)
    except UserError:
        return None
    size = PRACTICE + HELD_OUT if kind_of(trained) == PICTURES else POINTS + HELD_OUT_POINTS
    pictures = data.train[np.random.default_rng(0).permutation(len(data.train))[:size]]
    if kind_of(trained) == PLANE:
        return pictures
    images = np.asarray(pictures.images)
    if images.dtype != np.uint8:
        images = np.rint(255 * images).astype(np.uint8)
    labels = np.asarray(pictures.labels)
    others = to_predictor(trained).probabilities(images)
    own = others[np.arange(len(labels)), labels]
    others[np.arange(len(labels)), labels] = 0
    first = int(np.argmin(np.abs(own - others.max(axis=1))))
    kept = np.arange(len(labels))
    if not trains(trained):
        kept = np.unique(labels, return_index=True)[1][:EXAMPLES]
    kept = np.concatenate([[first], kept[kept != first]])
    return Split(images[kept], labels[kept])


def trains(trained: TrainedNetwork) -> bool:
    """Whether the page trains the network.

    A batch norm merged into a layer trains with it; another would need the whole batch at
    once, which the page's layers do not see.
    """
    takes = trained.image_shape == IMAGE or kind_of(trained) == PLANE
    return takes and not has_layer(folded(trained).model, nn.BatchNorm)


def practice_script(trained: TrainedNetwork, pictures: Split | None) -> str:
    """The script practice.js, which only defines PRACTICE: the pictures, or null.

    `count` of them are for training, and the rest is held out: a fifth, at most HELD_OUT. It is 0
    in a page that does not train.
    """
    if pictures is None:
        return '"use strict";\nconst PRACTICE = null;\n'
    held_out = min(HELD_OUT, len(pictures) // 5)
    content = {
        "images": _to_text(gzip.compress(np.ascontiguousarray(pictures.images).tobytes(), mtime=0)),
        "labels": [int(label) for label in pictures.labels],
        "count": len(pictures) - held_out if trains(trained) else 0,
    }
    return f'"use strict";\nconst PRACTICE = {json.dumps(content)};\n'


def points_script(trained: TrainedNetwork, points: Split | None) -> str:
    """The script practice.js of a plane: the run's points and, for a set of `planes`, the others.

    In each set `count` points are for training, and the rest, a fourth, is held out.
    """
    sets = {} if points is None else {trained.config.dataset: points}
    for name in planes.SETS if trained.config.dataset in planes.SETS else ():
        if name not in sets:
            sets[name] = planes.load(name, 0).train[: POINTS + HELD_OUT_POINTS]
    content = {
        name: {
            "points": [[float(f"{x:.6g}") for x in point] for point in one.images],
            "labels": [int(label) for label in one.labels],
            "count": len(one) - len(one) // 4,
        }
        for name, one in sets.items()
    }
    return f'"use strict";\nconst PRACTICE = {json.dumps({"sets": content})};\n'.replace(
        "<", "\\u003c"
    )


def _to_text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def run_script(trained: TrainedNetwork) -> str:
    """The script run.js, which defines only RUN: the layers, the names, the weights in base64.

    It also defines OWN_KINDS if the user's own rules have the JavaScript pairs of their layers.

    Raises:
      UserError: The page cannot show this network.
    """
    layers, weights = _layers_and_weights(trained)
    dtype = _dtype_of(weights)
    packed = _to_text(weights.astype(LITTLE_ENDIAN[dtype]).tobytes())
    more = {"loss": trained.config.loss, "layers": layers, "dtype": dtype, "weights": packed}
    program = facts_script(trained, **more, repository=_repository())
    own = [f"{json.dumps(kind)}: {_own_pair(kind)}" for kind in sorted(_kinds_of(layers) - KINDS)]
    return f"{program}const OWN_KINDS = {{ {', '.join(own)} }};\n" if own else program


def _kinds_of(rows: LayerRows) -> set[str]:
    """The kinds of the layers, including those in branches."""
    inner = [_kinds_of(part) for row in rows for part in branch_rows(row).values()]
    return {row["kind"] for row in rows}.union(*inner)


def _own_pair(kind: str) -> str:
    """The JavaScript pair in the rule of a user's own layer; "" if it has none."""
    rule = rule_named(kind)
    return rule.javascript if rule else ""


def facts_script(trained: TrainedNetwork, **more: Any) -> str:
    """The script run.js with the facts of every run; a server's plain page needs no more."""
    run = {
        "model": trained.config.model,
        "imageShape": trained.image_shape,
        "classNames": [printable(name) for name in trained.class_names],
        "asDigits": usual_preparation(trained.image_shape, trained.class_names) == "auto",
        "step": trained.step,
        "finished": trained.finished,
        **more,
    }
    # "<" would let a name end the element that holds the script.
    return f'"use strict";\nconst RUN = {json.dumps(run)};\n'.replace("<", "\\u003c")


def _layers_and_weights(trained: TrainedNetwork) -> tuple[LayerRows, np.ndarray]:
    """The rows of the layers, with the shapes of their arrays, and all weights in one row.

    Raises:
      UserError: The page cannot show this network.
    """
    config, names, shape = trained.config, trained.class_names, trained.image_shape
    most_classes = MAX_CLASSES
    if kind_of(trained) == PLANE:
        most_classes = MAX_PLANE_CLASSES
    elif len(shape) == 1:
        raise UserError(
            "expected a run on pictures or on rows of 2 numbers, got one on rows of {}", *shape
        )
    elif shape[0] != shape[1] or shape[1] > MAX_SIDE:
        most = f"at most {MAX_SIDE} x {MAX_SIDE} pixels"
        raise UserError(
            "expected a run on square images of {}, got {} x {}", most, shape[0], shape[1]
        )
    if config.loss == "squared_error":
        raise UserError("expected a run that tells classes apart, got one with squared_error")
    if is_custom(config.loss):
        raise UserError("expected a run with a loss of jaxnets, got {}", config.loss)
    if len(names) > most_classes:
        raise UserError(
            "expected a run with at most {} classes, got {}", most_classes, f"{len(names):,}"
        )
    network = portable_network(trained, as_taught=True)
    check_kinds(network.layers, Text("the page"), lambda kind: kind in KINDS or _own_pair(kind))
    layers = _with_shapes(network.layers, network.arrays)
    weights = _weights(network)
    if weights.size > MAX_PARAMS:
        raise UserError(
            "expected at most {} parameters, {} has {}",
            f"{MAX_PARAMS:,}",
            config.model,
            f"{weights.size:,}",
        )
    return layers, weights


def _repository() -> str | None:
    """The project's address, from pip's metadata of pyproject.toml; None if there is none."""
    try:
        urls = importlib.metadata.metadata("jaxnets").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:  # Only the project's folder exists.
        return None
    return dict(url.split(", ", 1) for url in urls).get("Repository")


def _with_shapes(rows: LayerRows, arrays: dict[str, np.ndarray]) -> LayerRows:
    """The layers' rows with the shapes of their arrays, in the order of the weights."""
    found = []
    for row in rows:
        inner = {part: _with_shapes(one, arrays) for part, one in branch_rows(row).items()}
        own = {name: x for name, x in arrays.items() if name.rpartition(".")[0] == row.get("name")}
        shapes = {name.rpartition(".")[2]: x.shape for name, x in own.items()}
        found.append({**row, **inner, "shapes": shapes} if shapes else {**row, **inner})
    return found


def _weights(network: PortableNetwork) -> np.ndarray:
    """All parameters in one row, float32, layer by layer."""
    return np.concatenate([np.ravel(array) for array in network.arrays.values()])


def _dtype_of(weights: np.ndarray) -> str:
    """The page's dtype of the weights: float16 if float32 would take too many bytes."""
    fits = bool(np.all(np.abs(weights) <= LARGEST_FLOAT16))
    return "float16" if weights.size > MAX_FLOAT32 and fits else "float32"
