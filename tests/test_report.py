"""jaxnets report: numbers against scikit-learn, jax.grad and NumPy; hostile and damaged runs."""

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from typing import Any

import browser
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, quick_jit, random_params, read_json
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import jaxnets
from jaxnets.base.language import speaking
from jaxnets.data.load import load_dataset
from jaxnets.drawing import charts, svg
from jaxnets.experiment import Experiment
from jaxnets.losses import LOSSES
from jaxnets.models.batch_norm import statistics_of
from jaxnets.models.precision import with_precision
from jaxnets.report import build, evaluation, figures, gradient_comparison, passes
from jaxnets.report.gradient_comparison import (
    ComparedArray,
    Norms,
    compared_arrays,
    gradients_of,
    norms,
)
from jaxnets.report.plot import plot
from jaxnets.report.run_facts import read_run
from jaxnets.runs.ending import loss_line
from jaxnets.runs.resume import load_checkpoint
from jaxnets.training.history import History
from jaxnets.training.optimizer import optimizer_of

CAPTION, EPOCH = charts.Caption("name", "title", "alt"), charts.Scale("epoch")
MARKUP = '<img src=x onerror="alert(1)">&\x07</text></svg><script>alert(2)</script>'


@pytest.fixture(scope="module")
def run(finished_run):
    """The facts of a finished run."""
    return read_run(str(finished_run.folder))


@pytest.fixture(scope="module")
def drawn(run):
    """The run's network with random parameters: the run's have many gradients of 0."""
    params = random_params(run.trained.model, run.trained.image_shape)
    return dataclasses.replace(run.trained, params=params)


@pytest.fixture(scope="module", autouse=True)
def gradients(run, drawn):
    """Its gradients, computed once for all reports."""
    found = gradients_of(drawn, run.data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "gradients_of", lambda trained, data: found)
        yield found


@pytest.fixture(scope="module")
def written(run, gradients):
    """Its report and figures."""
    return build.report([dataclasses.replace(run, missing=[])])


@pytest.fixture
def copy(finished_run, tmp_path):
    """A copy of the run's folder, to be damaged."""
    return shutil.copytree(finished_run.folder, tmp_path / "copy")


@pytest.fixture(scope="module")
def predictions():
    """Random answers for 500 images: class 4 is no image's, and class 3 is never predicted."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([0.3] * 5, 500).astype(np.float32)
    probabilities[:, 3] = 0
    probabilities[:40] = [0.5, 0.5, 0, 0, 0]  # On the edge of two bins.
    labels = rng.integers(0, 4, 500)
    return evaluation.Predictions(labels, probabilities, np.arange(500))


@pytest.mark.oracle
def test_a_stranger_s_control_characters_do_not_reach_the_terminal(tmp_path, run_command):
    folder = tmp_path / "\x1b[2Jevil"
    folder.mkdir()
    escapes = "\x1b[2J\x1b]0;PWN\x07\nerror: forged"
    values = dataclasses.asdict(jaxnets.preset("softmax")) | {"normalize": escapes}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "metrics.jsonl").write_text("")
    outcome = run_command("report", folder, f"--output={folder}/r.html")
    assert "missing of " in outcome.out and "PWN" in outcome.out
    lines = outcome.out.splitlines()
    assert all(line.isprintable() and not line.startswith("error") for line in lines)


def test_the_scores_are_scikit_learns(predictions):
    metrics = pytest.importorskip("sklearn.metrics")
    labels, classes = predictions.labels, predictions.classes
    names = range(5)
    np.testing.assert_array_equal(
        predictions.confusion, metrics.confusion_matrix(labels, classes, labels=names)
    )
    expected = metrics.precision_recall_fscore_support(
        labels, classes, labels=names, zero_division=np.nan
    )
    found = evaluation.class_scores(predictions.confusion)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs)
    assert np.isnan(found.precision[3]) and np.isnan(found.recall[4])


@pytest.mark.oracle
def test_the_calibration_is_scikit_learns_and_the_papers(predictions):
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    sure, right = predictions.confidences, predictions.right
    accuracy, _confidence = curve(right, sure, n_bins=10)
    found = evaluation.calibration(predictions)
    filled = found.share > 0
    np.testing.assert_allclose(found.accuracy[filled], accuracy)
    assert np.isnan(found.accuracy[~filled]).all()
    error = 0.0
    for low in np.arange(10) / 10:
        inside = (sure > low) & (sure <= low + 0.1)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert found.error == pytest.approx(error, rel=1e-6)


def test_the_answers_are_those_of_the_run(run):
    found = evaluation.predictions_of(run.trained, run.data)
    result = read_json(run.folder.path / "result.json")
    assert found.right.mean() == result["test_accuracy"]
    assert found.confusion.sum() == result["test_count"]


# The labels of the test file and the votes of five people: for the label, for another, for neither.
# Source: mturk/mnist_mturk.json of github.com/cleanlab/label-errors at commit 5457895.
VOTES = {
    947: (8, 0, 5), 1621: (0, 2, 3), 1901: (9, 2, 3), 2130: (4, 2, 2), 2462: (2, 0, 4),
    2597: (5, 0, 4), 2654: (6, 0, 2), 3520: (6, 2, 0), 3558: (5, 1, 4), 5937: (5, 1, 3),
    6651: (0, 0, 5), 6783: (1, 2, 3), 8527: (4, 2, 2), 9679: (6, 2, 0), 9729: (5, 2, 3),
}  # fmt: skip


def test_the_rejected_labels_are_those_of_the_source(mnist):
    assert list(evaluation.REJECTED_MNIST_LABELS) == list(VOTES)
    for row, (label, votes, others) in VOTES.items():
        assert mnist.test.labels[row] == label and votes <= 2
        assert (evaluation.REJECTED_MNIST_LABELS[row] is not None) == (others >= 3)


def test_a_rejected_label_is_marked_and_no_other(mnist):
    limited = mnist.limited(3000)
    labels = np.array(limited.test.labels)
    wrong = np.eye(10, dtype=np.float32)[(labels + 1) % 10]
    found = evaluation.Predictions(labels, wrong, np.arange(3000))
    worst = evaluation.mistakes(found, limited, 3000)
    marked = [mistake for mistake in worst if mistake.is_rejected]
    rows = np.random.default_rng(0).permutation(10_000)[:3000]  # As Dataset.limited draws.
    assert {int(rows[mistake.row]) for mistake in marked} == set(VOTES) & set(rows.tolist())
    for mistake in marked:
        row = int(rows[mistake.row])
        assert mistake.better == evaluation.REJECTED_MNIST_LABELS[row]
    other = dataclasses.replace(limited, name="fashion_mnist")
    assert not any(mistake.is_rejected for mistake in evaluation.mistakes(found, other, 50))


def test_the_most_confident_mistakes_come_first(predictions, tiny):
    found = evaluation.mistakes(predictions, tiny, 7)
    wrong = np.flatnonzero(~predictions.right)
    order = sorted(wrong, key=lambda i: -predictions.confidences[i])
    assert [mistake.row for mistake in found] == order[:7]


@pytest.mark.slow
def test_both_passes_of_an_image_are_those_of_autodiff(run, drawn):
    trained = drawn
    image, label = np.asarray(run.data.test.images[0]), int(run.data.test.labels[0])
    found = passes.passes_of(trained.model, trained.params, image, label, "cross_entropy")
    layers = [x for x in trained.model.layers if type(x).__name__ != "Dropout"]

    def loss_of(params, zeros):
        x, values = jnp.asarray(image)[None], []
        for layer, zero in zip(layers, zeros, strict=True):
            own = params.get(getattr(layer, "name", None))
            x = (layer.apply({"params": own}, x) if own else layer(x)) + zero
            values.append(x[0])
        return LOSSES["cross_entropy"](x, jnp.array([label]))[0], values

    zeros = [jnp.zeros(step.output.value.shape) for step in found.steps]
    passed = quick_jit(jax.value_and_grad(loss_of, (0, 1), has_aux=True))(trained.params, zeros)
    (loss, values), (d_params, d_outputs) = passed
    assert found.loss == pytest.approx(float(loss), rel=1e-4, abs=1e-6)
    scale = max(np.abs(np.asarray(d)).max() for d in d_outputs)
    for step, value, d, layer in zip(found.steps, values, d_outputs, layers, strict=True):
        assert_close(step.output.value, value, 1e-5)
        assert step.output.gradient is not None
        np.testing.assert_allclose(step.output.gradient, d, atol=1e-5 * scale)
        for name, array in step.params.items():
            assert_close(array.gradient, d_params[layer.name][name], 1e-4)
            np.testing.assert_array_equal(array.value, trained.params[layer.name][name])


def test_gradients_by_hand_are_compared_with_autodiff(run, drawn, gradients, float64):
    trained, found = drawn, gradients
    assert list(found.manual) == ["float64", "float32", "bfloat16"]
    model = with_precision(trained.model, "float64")
    order = np.random.default_rng((trained.config.seed, 0)).permutation(len(run.data.train))
    rows = order[: found.count]
    images = jnp.asarray(run.data.train.images[rows], jnp.float64)
    labels = jnp.asarray(run.data.train.labels[rows])

    def loss_of(params):
        key = {"dropout": jax.random.key(0, impl="rbg")}
        logits: Any = model.apply({"params": params}, images, train=True, rngs=key)
        return LOSSES["cross_entropy"](logits, labels).sum()

    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), trained.params)
    gradient = quick_jit(jax.grad(loss_of))(params)
    for layer, arrays in gradient.items():
        for name, expected in arrays.items():
            for ours in (found.manual, found.automatic):
                assert_close(ours["float64"][layer][name], expected, 1e-9)
    entries = compared_arrays(trained, found)
    assert [entry.layer for entry in entries[::2]] == ["conv1", "conv2", "hidden", "logits"]
    assert all(entry.ok for entry in entries)
    for entry in entries:
        expected = np.asarray(gradient[entry.layer][entry.array])
        assert abs(entry.automatic) == pytest.approx(np.abs(expected).max(), rel=1e-9)
        assert entry.manual == pytest.approx(entry.automatic, rel=1e-9)


def test_a_wrong_gradient_disagrees_in_the_comparison(run, gradients):
    manual = gradients.manual["float32"]
    conv2 = {**manual["conv2"], "kernel": 1.001 * manual["conv2"]["kernel"]}
    manual = {**gradients.manual, "float32": {**manual, "conv2": conv2}}
    entries = compared_arrays(run.trained, gradients._replace(manual=manual))
    wrong = [entry for entry in entries if not entry.ok]
    assert [(entry.layer, entry.array) for entry in wrong] == [("conv2", "kernel")]
    assert wrong[0].errors["float32"] == pytest.approx(1e-3, rel=0.1)


@pytest.mark.slow
def test_the_norms_are_those_of_the_next_update(run, drawn, gradients):
    trained, found = drawn, gradients
    experiment = Experiment.create(trained.config, run.data)
    state = load_checkpoint(run.folder, experiment, experiment.init_state()).state
    optimizer = optimizer_of(
        trained.config, lambda step: trained.config.learning_rate, statistics_of(trained.model)
    )
    gradient = jax.tree.map(lambda g: jnp.asarray(g) / found.count, found.automatic["float32"])
    updates: Any
    updates, _ = optimizer.update(gradient, state.opt_state, trained.params)

    def norm(tree):
        return np.sqrt(sum((np.asarray(x, np.float64) ** 2).sum() for x in jax.tree.leaves(tree)))

    sizes = norms(run.folder, trained, found)
    assert {one.layer for one in sizes} == set(trained.params)
    for one in sizes:
        trees = [tree[one.layer] for tree in (trained.params, gradient, updates)]
        assert one[1:] == pytest.approx([norm(tree) for tree in trees], rel=1e-4)


@pytest.mark.slow
def test_a_large_network_is_compared_in_float32_alone(run, monkeypatch):
    monkeypatch.setattr(gradient_comparison, "MAX_PARAMS", 10)
    monkeypatch.setattr(build, "gradients_of", gradients_of)
    facts = dataclasses.replace(run, missing=[])
    html, drawn = build.report([facts])
    assert {"norms", "gradient-errors"} <= {figure.name for figure in drawn}
    assert "float64" in facts.missing[0] and "tolerances are float32 1e-05." in html


NAMES = ["loss", "accuracy", "rate", "speed", "wait", "confusion", "calibration", "scores"]
NAMES += ["mistakes", "filters", "activations", "norms", "gradient-errors"]


class Tags(HTMLParser):
    """The elements of a page, and their attributes."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = set(), [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


NAMED_TAGS = """html head meta title style body header h1 h2 h3 nav a main section figure
figcaption p dl dt dd div details summary table thead tbody tr th td footer ul li svg g rect line
text polyline polygon circle image label input span code"""
TAGS = set(NAMED_TAGS.split())


def assert_inert(html):
    """Demands that a page has only a report's elements, loads nothing, and runs nothing."""
    page = Tags(html)
    assert page.tags <= TAGS, page.tags - TAGS
    for name, value in page.attributes:
        assert not name.startswith("on") and name != "style", (name, value)
        if name in ("href", "src"):
            assert value.startswith(("#", "data:image/png;base64,")), value
        assert name != "type" or value == "checkbox", value


def test_the_report_has_every_figure_and_loads_nothing(written):
    html, drawn = written
    names = [figure.name for figure in drawn]
    assert set(names) <= set(NAMES) and len(names) == len(set(names))
    assert set(NAMES) - set(names) <= {"mistakes"}  # A network may make none.
    assert_inert(html)
    assert len(html.encode()) < 3e6
    assert "default-src 'none'" in html and "<script" not in html
    for figure in drawn:
        assert f'<figure id="{figure.name}">' in html
        assert len(figure.alt) > 20 and svg.escape(figure.alt) in html
    assert html.count('role="img"') == len(drawn)


def test_the_style_has_the_digest_of_the_policy(written):
    style = written[0].partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in written[0]


def test_markup_in_names_is_inert(run):
    data = dataclasses.replace(run.data, class_names=(MARKUP, "b" * 200, "猫"), name=MARKUP)
    trained = dataclasses.replace(run.trained, class_names=data.class_names)
    hostile = dataclasses.replace(
        run,
        name=MARKUP,
        data=data,
        trained=trained,
        config={**run.config, "dataset": MARKUP, MARKUP: [MARKUP], "versions": {MARKUP: MARKUP}},
        result={"model": MARKUP, "test_accuracy": MARKUP, "dataset": {MARKUP: [MARKUP] * 999}},
        missing=[MARKUP],
    )
    html, drawn = build.report([hostile, dataclasses.replace(hostile, missing=[])])
    assert_inert(html)
    assert "alert(1)" in Tags(html).text
    assert len({figure.name for figure in drawn}) == len(drawn)
    for figure in drawn:
        assert re.fullmatch(r"[\w.-]+", figure.name)
        page = Tags(figure.standalone())
        assert page.tags <= TAGS | {"desc", "rect"}


def test_pictures_of_a_folder_are_read(run, tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 3)):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (12, 12), np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number}.png")
    data = load_dataset(str(tmp_path), decode_size=12)
    assert data.image_shape == (12, 12, 1) and len(data.test) == 6
    data = dataclasses.replace(data, class_names=("a", "b", "c"), num_classes=3)
    trained = dataclasses.replace(run.trained, class_names=data.class_names)
    facts = dataclasses.replace(run, data=data, trained=trained, missing=[])
    names = {figure.name for figure in build.report([facts])[1]}
    assert set(NAMES) - names <= {"mistakes"} and facts.missing == []
    image = Image.open(tmp_path / "test" / "a" / "1.png")
    np.testing.assert_array_equal(figures.picture(data.test, 1), np.asarray(image))


def damaged(folder, name, text):
    (folder / name).write_text(text)


def test_an_unfinished_run_is_said_to_be_one(copy):
    (copy / "result.json").unlink()
    html, drawn = build.report([read_run(str(copy))])
    assert "The run is not finished" in html and "confusion" in {figure.name for figure in drawn}


@pytest.mark.parametrize(
    ("damage", "says", "has", "lacks"),
    [
        (lambda f: shutil.rmtree(f / "checkpoints"), "no checkpoint", "loss", "filters"),
        (lambda f: damaged(f, "config.json", "{"), "config.json: cannot be read", "loss", "norms"),
        (lambda f: damaged(f, "metrics.jsonl", "[]\n"), "metrics.jsonl", "confusion", "loss"),
        (lambda f: damaged(f, "metrics.jsonl", ""), "no epoch has ended", "confusion", "loss"),
        (lambda f: damaged(f, "result.json", "7"), "expected an object", "confusion", "none"),
        (lambda f: damaged(f, "result.json", '{"seconds": "x"}'), "", "confusion", "none"),
    ],
)
def test_a_damaged_run_says_what_is_missing(copy, damage, says, has, lacks):
    damage(copy)
    run = read_run(str(copy))
    html, drawn = build.report([run])
    names = {figure.name for figure in drawn}
    assert has in names and lacks not in names
    assert_inert(html)
    assert says in " ".join(run.missing) and bool(says) == ("What is missing" in html)


def test_hostile_numbers_are_left_out(copy):
    strange = [10**400, 1e308, -1e308, float("inf"), float("nan"), True, "1", None]
    lines = []
    for number, value in enumerate(strange, start=1):
        record = {"epoch": number, "step": number, "seconds": 1.0, "train_loss": 0.5}
        record |= {"train_accuracy": 0.5, "validation_accuracy": 0.5, "validation_loss": None}
        lines.append(json.dumps({**record, "images_per_second": value, "learning_rate": value}))
    (copy / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    config = {f"key{k}": [k] * 99 for k in range(5000)} | {"epochs": 10**400}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "result.json").write_text(json.dumps({"seconds": 10**400, "epochs": float("nan")}))
    html, drawn = build.report([read_run(str(copy))])
    assert_inert(html)
    assert len(html) < 300_000 and {figure.name for figure in drawn} >= {"loss", "accuracy"}
    assert not re.search(r'="-?(nan|inf)', html)


@pytest.mark.parametrize("gone", [True, False])
def test_a_run_without_its_data_shows_what_needs_none(copy, gone):
    config = read_json(copy / "config.json")
    config |= {"data_dir": str(copy / "nowhere")} if gone else {"data_sha256": "0" * 64}
    (copy / "config.json").write_text(json.dumps(config))
    run = read_run(str(copy))
    html, drawn = build.report([run])
    assert {figure.name for figure in drawn} == {*NAMES[:5], "filters"}
    (said,) = run.missing
    assert ("not at hand" if gone else "other images") in said and said in Tags(html).text


def test_several_runs_stand_side_by_side_with_what_differs(run, copy, tmp_path):
    config = read_json(copy / "config.json") | {"learning_rate": 0.25}
    (copy / "config.json").write_text(json.dumps(config))
    second = read_run(str(copy.rename(tmp_path / run.name)))
    html, drawn = build.report([run, second])
    names = [figure.name for figure in drawn]
    assert len(names) == len(set(names)) and "runs-loss" in names
    assert {f"{run.name}-confusion", f"{run.name}-2-confusion"} <= set(names)
    section = html.partition('id="runs-differences"')[2].partition("<h2")[0]
    found = re.findall(r'<th[^>]*scope="row">(\w+)</th>', section)
    assert found == ["learning_rate"]
    assert "0.01" in section and "0.25" in section


def test_the_command_writes_a_report_or_json(run_command, finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = run_command("report", finished_run.folder, "-o", "a.html", "--language=zh")
    assert (outcome.status, outcome.err) == (0, "")
    assert re.match(r"a\.html：\d\.\d\d MB，\d+ 幅图；请用浏览器打开", outcome.out)
    html = (tmp_path / "a.html").read_text("utf-8")
    assert '<html lang="zh">' in html and "混淆矩阵" in html and "Confusion" not in html
    values = json.loads(run_command("report", finished_run.folder, "--json").out)
    assert values["bytes"] == (tmp_path / "report.html").stat().st_size
    assert values["missing"] == {finished_run.folder.name: []}


def test_without_resvg_the_extra_is_named_before_the_work(
    run_command, finished_run, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    outcome = run_command("report", finished_run.folder, f"--figures={tmp_path / 'f'}")
    outcome.assert_refused("pip install 'jaxnets[report]'")
    assert not (tmp_path / "f").exists()


@pytest.mark.oracle
def test_each_figure_is_a_picture_in_both_forms(written, tmp_path):
    pytest.importorskip("resvg_py", reason="resvg-py, which draws PNG files, is not installed")
    for figure in written[1]:
        for kind in ("svg", "png"):
            figure.save(tmp_path / f"{figure.name}.{kind}")
        text = (tmp_path / f"{figure.name}.svg").read_text("utf-8")
        assert "var(" not in text and "\0" not in text and svg.escape(figure.title) in text
        with Image.open(tmp_path / f"{figure.name}.png") as drawn:
            assert drawn.width == 2 * round(figure.width)
            below = drawn.convert("RGB").crop((0, 60, *drawn.size))  # The title stands above.
        assert_not_blank(below, figure.name)


def assert_not_blank(picture, name):
    """Demands several colours, and more of them than a speck."""
    colours = picture.getcolors(picture.width * picture.height)
    assert colours is not None and len(colours) > 20, name
    assert np.asarray(picture).std() > 5, name


def contrast(one: str, other: str) -> float:
    """The contrast of two colours as WCAG 2.2 defines it, from 1 to 21."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [svg.LIGHT, svg.DARK])
def test_letters_and_curves_have_the_contrast_that_wcag_asks_for(theme):
    for name in ("ink", "soft", "good", "bad", *svg.SERIES):
        assert contrast(theme[name], theme["card"]) >= 4.5, name
    for name in ("ink", "soft", "c1"):
        assert contrast(theme[name], theme["page"]) >= 4.5, name


@pytest.mark.parametrize("seed", range(20))
def test_ticks_are_few_round_and_on_the_axis(seed):
    rng = np.random.default_rng(seed)
    values = rng.lognormal(rng.normal(0, 6), rng.uniform(0, 4), rng.integers(1, 9)).tolist()
    for log in (None, True, False):
        axis = charts.axis_of(values, 0, 100, log=log)
        ticks = axis.ticks()
        assert 1 <= len(ticks) <= 9 and ticks == sorted(ticks)
        assert all(-1e-6 <= axis(tick) <= 100 + 1e-6 for tick in [*ticks, *values])
        assert len({charts.short_number(tick) for tick in ticks}) == len(ticks)


@pytest.mark.parametrize(
    ("shape", "pictures"),
    [((28, 28, 1), 1), ((5, 5, 64), 8), ((10,), 1), ((300,), 1), ((3, 3, 32, 64), 1)],
)
def test_arrays_of_any_shape_and_with_nan_are_drawn(shape, pictures):
    value = np.ones(shape, np.float32)
    value.flat[1:3] = np.nan, np.inf
    figure = svg.Figure("x", 100, 100, "title", "alt")
    figure.array(0, 0, 90, 10, value, maps=8)
    assert figure.standalone().count("<image") == pictures


def test_curves_of_strange_numbers_are_drawn():
    values = [None, float("inf"), float("nan"), 2.0, 2.0]
    series = [charts.Series("a", [1, 2, 3, 4, 5], values, 0), charts.Series("b", [1.0], [None], 1)]
    figure = charts.curves(CAPTION, series, x=EPOCH)
    assert "nan" not in figure.inline() and "inf" not in figure.inline()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4))
@pytest.mark.parametrize("log", [None, False])
def test_curves_of_any_finite_numbers_are_drawn(log, values):
    series = [charts.Series("a", [1, 2, 3, 4][: len(values)], values, 0)]
    html = charts.curves(CAPTION, series, x=EPOCH, y=charts.Scale(log=log)).inline()
    assert "nan" not in html and "inf" not in html
    records = [
        {"epoch": e, "train_loss": abs(x), "validation_loss": None} for e, x in enumerate(values)
    ]
    assert not re.search("nan|inf", plot(History(records)).standalone() + loss_line(records, 80))


def test_many_classes_and_epochs_stay_small(tiny):
    size = 300
    names = [f"class {k}" for k in range(size)]
    counts = np.diag(np.arange(size)) + 1
    figure = charts.matrix(CAPTION, counts, names, row_label="r", column_label="c")
    assert len(figure.inline()) < 200_000
    x = list(range(1, 20_001))
    long = charts.Series("loss", x, [1 / n for n in x], 0)
    drawn = charts.curves(CAPTION, [long, long], x=EPOCH).inline()
    assert len(drawn) < 200_000 and "epoch 20000" in drawn


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium is installed")
def test_the_page_in_a_browser(run, written, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(written[0], "utf-8")
    views = [("en", "light", 1200), ("en", "dark", 1200), ("en", "dark", 375), ("zh", "light", 375)]
    with browser.Browser(tmp_path / "profile") as page:
        for language, theme, width in views:
            if language == "zh":
                facts = dataclasses.replace(run, missing=[])
                with speaking("zh"):
                    path.write_text(build.report([facts, facts])[0], "utf-8")
            feature = {"name": "prefers-color-scheme", "value": theme}
            page.call("Emulation.setEmulatedMedia", features=[feature])
            page.resize(width, 900, mobile=width < 600)
            page.open(path)
            page.evaluate(
                "document.querySelectorAll('details.run').forEach((e) => { e.open = true })"
            )
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.screenshot(tmp_path / "page.png", whole=True)
            check_pixels(page, Image.open(tmp_path / "page.png").convert("RGB"), theme)
            assert page.evaluate(CLIPPED) == [] and page.evaluate(OVERLAPPING) == []
        page.evaluate("scrollTo(0, 0)")
        page.mouse("mouseMoved", *page.place("#runs-accuracy > svg", 0.5, 0.6), 0)
        shown = (
            "getComputedStyle(document.querySelector('#runs-accuracy .hit:hover .tip')).visibility"
        )
        assert page.evaluate(shown) == "visible"
        curves = "[...document.querySelectorAll('#runs-accuracy > svg > [class^=s]')]"
        curves += ".map((e) => getComputedStyle(e).display)"
        assert page.evaluate(curves) == ["inline", "inline"]
        page.click("#runs-accuracy .k1")
        assert page.evaluate(curves) == ["inline", "none"]
        page.key(" ", 32, " ")
        assert page.evaluate(curves) == ["inline", "inline"]
        page.evaluate("document.querySelectorAll('details.run').forEach((e) => { e.open = false })")
        assert page.evaluate("document.documentElement.scrollHeight") < 4500
        page.evaluate("document.querySelectorAll('details.run').forEach((e) => { e.open = true })")
        page.call("Emulation.setEmulatedMedia", media="print")
        page.resize(718, 900)  # The breadth of A4 without its margins.
        boxes = "[...document.querySelectorAll('.scroll')].filter(e => e.checkVisibility())"
        assert page.evaluate(f"{boxes}.length") >= 4
        assert page.evaluate(f"{boxes}.filter(e => e.scrollWidth > e.clientWidth).length") == 0
        assert page.problems() == []
        asked = [url for url in page.requests() if not url.startswith("data:")]
        assert asked == [path.as_uri()] * len(views)


def check_pixels(page, shot, theme):
    """Demands that no figure is blank, and that the page has its theme's background."""
    assert (sum(shot.getpixel((3, 3))) > 600) == (theme == "light")
    boxes = page.evaluate(
        "[...document.querySelectorAll('figure > svg')].map((e) => {"
        "const b = e.getBoundingClientRect();"
        "return [b.left, b.top + scrollY, b.right, b.bottom + scrollY, e.parentNode.id]; })"
    )
    assert len(boxes) >= 12
    for *box, name in boxes:
        assert_not_blank(shot.crop([round(x) for x in box]), name)


# The texts of a figure that leave it, and those that lie on each other.
CLIPPED = """[...document.querySelectorAll('svg')].flatMap((svg) => {
  const b = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter((text) => {
    const t = text.getBoundingClientRect();
    const across = t.left < b.left - 1 || t.right > b.right + 1;
    return across || t.top < b.top - 1 || t.bottom > b.bottom + 1;
  }).map((text) => svg.parentNode.id + ': ' + text.textContent);
})"""
OVERLAPPING = """[...document.querySelectorAll('svg')].flatMap((svg) => {
  const texts = [...svg.querySelectorAll('text')].filter((text) => !text.closest('.tip'));
  const boxes = texts.map((text) => text.getBoundingClientRect());
  const found = [];
  for (let i = 0; i < texts.length; i++) for (let j = 0; j < i; j++) {
    const [a, b] = [boxes[i], boxes[j]];
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const tall = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 1 && tall > 0.4 * Math.min(a.height, b.height))
      found.push(svg.parentNode.id + ': ' + texts[i].textContent + ' | ' + texts[j].textContent);
  }
  return found;
})"""


def test_gradients_of_zero_have_their_figures():
    zeros = [ComparedArray("hidden1", "bias", (64,), 0.0, 0.0, {"float64": 0.0}, 0.0)]
    assert "hidden1.bias" in figures.gradient_errors_figure(zeros).inline()
    assert "hidden1" in figures.norms_figure([Norms("hidden1", 0.0, 0.0, 0.0)]).inline()


def test_of_many_classes_the_title_says_which_are_shown(predictions):
    confusion = np.zeros((100, 100), int)
    confusion[range(50), range(50)] = 2  # The last 50 have no image, and no score.
    confusion[30, 31] = 1
    found = figures.scores_figure(evaluation.class_scores(confusion), [f"c{k}" for k in range(100)])
    assert found.title == "The 40 classes with the lowest F1"
    assert "c30" in found.inline() and "c99" not in found.inline()


def test_runs_of_one_name_are_told_apart(finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in "ab":
        shutil.copytree(finished_run.folder, tmp_path / folder / "run")
        shutil.rmtree(tmp_path / folder / "run" / "checkpoints")
    (tmp_path / "a" / "run" / "metrics.jsonl").unlink()
    runs = [str(tmp_path / folder / "run") for folder in "ab"]
    missing = build.write_report(runs, "report.html").missing
    assert list(missing) == ["a/run", "b/run"]
    assert any("no epoch" in text for text in missing["a/run"])
    assert "fewer than two have predictions" in (tmp_path / "report.html").read_text()


def test_the_numbers_of_an_axis_are_told_apart():
    losses = [0.0099001, 0.009902, 0.0099043]
    series = [charts.Series("loss", [1.0, 2.0, 3.0], losses, 0)]
    drawn = charts.curves(CAPTION, series, x=EPOCH, y=charts.Scale(log=False)).inline()
    texts = re.findall(r">(0\.0099\d*)<", drawn)
    assert len(texts) > 2 and len(set(texts)) == len(texts)
