"""jaxnets evaluate: numbers against scikit-learn and SciPy; folders, sheets, refusals."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from conftest import CLASSES, SIDE, TEST, VALIDATION, read_json
from PIL import Image
from scipy.stats import binomtest

import jaxnets
from jaxnets import experiment
from jaxnets.data.datasets import Split
from jaxnets.drawing.svg import Figure
from jaxnets.report import evaluate, run_facts
from jaxnets.report.evaluation import split_of

NAMES = [str(number) for number in range(CLASSES)]


@pytest.fixture(scope="module")
def folder(tiny_preset, tmp_path_factory):
    """A run with a loss that is no cross-entropy, trained so little that it makes mistakes."""
    net = jaxnets.Network(tiny_preset("mlp", epochs=1, learning_rate=0.01))
    net.fit(verbose=0)
    return net.save(tmp_path_factory.mktemp("evaluated") / "run")


@pytest.fixture(scope="module")
def pictures(tiny, tmp_path_factory):
    """The test images as files in a folder for each class."""
    root = tmp_path_factory.mktemp("pictures")
    for name in NAMES:
        (root / name).mkdir()
    images = np.rint(255 * np.asarray(tiny.test.images)).astype(np.uint8)
    for number, (image, label) in enumerate(zip(images, tiny.test.labels, strict=True)):
        Image.fromarray(image[..., 0]).save(root / str(label) / f"{number}.png")
    return root


@pytest.fixture
def answers(folder, tiny):
    """The classes that the Predictor gives the test images."""
    return jaxnets.load_predictor(str(folder))(tiny.test.images).argmax(axis=1)


@pytest.mark.oracle
def test_the_numbers_are_scikit_learns_scipys_and_the_runs(folder, answers, tiny, run_command):
    metrics = pytest.importorskip("sklearn.metrics")
    outcome = run_command("evaluate", folder, "--json")
    values, result = json.loads(outcome.out), read_json(folder / "result.json")
    assert (outcome.status, outcome.err) == (0, "")
    assert values["accuracy"] == result["test_accuracy"] < 1
    assert values["loss"] == pytest.approx(result["test_loss"], rel=1e-5)
    assert (values["split"], values["pictures"], values["loss_name"]) == ("test", TEST, "mse")
    right = int((answers == tiny.test.labels).sum())
    low, high = binomtest(right, TEST).proportion_ci(0.95, method="wilson")
    found = values["interval"]
    assert (found["level"], found["method"]) == (0.95, "wilson")
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))
    expected = metrics.confusion_matrix(tiny.test.labels, answers, labels=range(CLASSES))
    assert values["confusion"] == expected.tolist() and values["classes"] == NAMES
    scores = metrics.precision_recall_fscore_support(
        tiny.test.labels, answers, labels=range(CLASSES), zero_division=np.nan
    )
    for row, *theirs in zip(values["per_class"], *scores, strict=True):
        ours = [row[name] for name in ("precision", "recall", "f1", "support")]
        assert [np.nan if x is None else x for x in ours] == pytest.approx(theirs, nan_ok=True)
    assert len(values["mistakes"]) == TEST - right
    sure = [one["probability"] for one in values["mistakes"]]
    assert sure == sorted(sure, reverse=True)


@pytest.fixture
def judged_on(monkeypatch):
    """The numbers of images that trainings and reports have evaluated."""
    counts = list[int]()

    def counted(function, place):
        def call(*arguments, **options):
            found = arguments[place]
            counts.append(len(found if isinstance(found, Split) else split_of(found, arguments[2])))
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(experiment, "evaluate", counted(experiment.evaluate, place=2))
    monkeypatch.setattr(run_facts, "predictions_of", counted(run_facts.predictions_of, place=1))
    return counts


def test_closed_test_images_stay_closed_until_evaluate(
    train_tiny, run_command, tmp_path, judged_on
):
    folder = tmp_path / "run"  # Of tiny_flags.
    outcome = train_tiny("softmax", "--no_test", "--report", "--target_accuracy=1")
    outcome.assert_refused("target_accuracy: expected a test, or stop_at_target, got no_test")
    outcome = train_tiny("softmax", "--no_test", "--report")
    assert outcome.status == 0 and "test loss" not in outcome.out
    assert re.search(r"the test images are still closed: \S+( -m jaxnets)? evaluate", outcome.out)
    assert set(judged_on) == {VALIDATION}  # TEST images are another number.
    result = read_json(folder / "result.json")
    assert [result[f"test_{name}"] for name in ("loss", "accuracy", "count")] == [None, None, 0]
    assert "--no_test: the report judges by the validation images" in outcome.out
    assert f"of {VALIDATION} validation images" in (folder / "report.html").read_text("utf-8")
    (row,) = json.loads(run_command("runs", tmp_path, "--json").out)["runs"]
    assert row["finished"] and row["test_accuracy"] is None
    later = json.loads(run_command("evaluate", folder, "--json").out)
    assert train_tiny("softmax", "--overwrite").status == 0  # The same run, with its test.
    assert read_json(folder / "result.json")["test_accuracy"] == later["accuracy"]


def test_a_network_in_python_keeps_its_test_images_closed(tiny_preset, tmp_path):
    net = jaxnets.Network(tiny_preset("softmax", epochs=1, test=False))
    net.fit(verbose=0)
    assert read_json(net.save(tmp_path / "run") / "result.json")["test_accuracy"] is None
    assert jaxnets.load(tmp_path / "run").evaluate().count == TEST


def test_a_replay_of_the_slides_needs_their_test(run_command):
    run_command("replay", "--no_test").assert_refused("replay: expected the test with which")


def test_the_loss_of_a_sure_network_is_not_cut_off(finished_run, run_command):
    values = json.loads(run_command("evaluate", finished_run.folder, "--json").out)
    result = read_json(finished_run.folder / "result.json")
    assert values["loss"] == pytest.approx(result["test_loss"], rel=1e-4, abs=1e-7)


def test_a_folder_of_class_folders_counts_whole(folder, pictures, answers, tiny, run_command):
    values = json.loads(run_command("evaluate", folder, pictures, "--json").out)
    assert (values["split"], values["pictures"]) == (None, TEST)
    assert values["accuracy"] == np.mean(answers == tiny.test.labels)
    wrong = {str(number) for number in np.flatnonzero(answers != tiny.test.labels)}
    named = [one["image"] for one in values["mistakes"]]
    assert {re.sub(r".*/(\d+)\.png", r"\1", name) for name in named} == wrong
    for one in values["mistakes"]:
        assert one["image"].startswith(str(pictures / one["label"]))


def test_some_of_the_classes_and_a_test_folder_are_enough(folder, pictures, tmp_path, run_command):
    for part in ("train", "test"):
        shutil.copytree(pictures / "1", tmp_path / part / "1")
    (tmp_path / "test" / "1" / "bad.png").write_bytes(b"no picture")
    outcome = run_command("evaluate", folder, tmp_path, "--json")
    values, count = json.loads(outcome.out), len(list((pictures / "1").iterdir()))
    assert outcome.status == 2 and re.fullmatch("error: .*bad.png: not a picture.*\n", outcome.err)
    assert (values["split"], values["pictures"]) == ("test", count)
    assert [row["support"] for row in values["per_class"]] == [0, count, 0]
    assert values["per_class"][0]["recall"] is None
    assert [one["image"] for one in values["unreadable"]] == [str(tmp_path / "test/1/bad.png")]


def test_the_text_has_the_tables_and_names_the_split(folder, pictures, run_command):
    out = run_command("evaluate", folder).out
    assert re.match(rf"{folder} on the test images of \S+: \d+ of {TEST} are right\n", out)
    assert re.search(r"\naccuracy 0\.\d{4}  95 % interval 0\.\d{4} to [01]\.\d{4}\n", out)
    assert re.search(r"\nloss     0\.\d{4}  \(mse\)\n", out)
    assert "class  precision  recall      F1  pictures\n0 " in out
    assert "confusion matrix" in out and "most frequent mistakes\n" in out
    assert f"{pictures}/" in run_command("evaluate", folder, pictures).out


def test_the_sheet_has_every_wrong_picture(folder, tmp_path, run_command):
    outcome = run_command("evaluate", folder, f"--output={tmp_path / 'wrong.svg'}", "--json")
    values, text = json.loads(outcome.out), (tmp_path / "wrong.svg").read_text("utf-8")
    assert text.count("<image") == len(values["mistakes"]) > 0
    assert f"{len(values['mistakes'])} wrong of {TEST} pictures" in text
    assert values["output"] == str(tmp_path / "wrong.svg")


def test_a_network_without_mistakes_has_no_sheet(finished_run):
    found = evaluate.evaluate(str(finished_run.folder))
    labels = found.found.labels
    sure = np.eye(CLASSES, dtype=np.float32)[labels]
    perfect = dataclasses.replace(found, found=found.found._replace(probabilities=sure))
    worst = dataclasses.replace(found, found=found.found._replace(probabilities=1 - sure))
    assert evaluate.sheet(perfect) is None and isinstance(evaluate.sheet(worst), Figure)


@pytest.mark.parametrize(
    ("names", "count"), [("mirror", 2), ("shift", 3), ("mirror,shift", 6), ("shift,mirror", 6)]
)
def test_an_answer_is_the_mean_over_the_views(names, count, folder, tiny, run_command):
    """Of the logits: NumPy's mean of the Predictor's logarithms, with numpy.pad's edges."""
    predictor, images = jaxnets.load_predictor(str(folder)), np.asarray(tiny.test.images)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    views = [(1.0, images)]
    if "shift" in names:
        views = [(0.5, images), (0.25, padded[:, :SIDE, :SIDE]), (0.25, padded[:, 2:, 2:])]
    if "mirror" in names:
        views = [(w / 2, np.flip(x, 2) if flips else x) for w, x in views for flips in (0, 1)]
    logs = [w * np.log(np.asarray(predictor(x), np.float64)) for w, x in views]
    answers = np.sum(logs, axis=0).argmax(axis=1)
    outcome = run_command("evaluate", folder, f"--views={names}", "--json")
    values = json.loads(outcome.out)
    assert len(views) == count and values["views"] == names.split(",")
    assert values["accuracy"] == np.mean(answers == tiny.test.labels)
    found = np.zeros((CLASSES, CLASSES), int)
    np.add.at(found, (tiny.test.labels, answers), 1)
    assert values["confusion"] == found.tolist()
    said = run_command("evaluate", folder, f"--views={names}").out
    assert f"mean over {count} views" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("{run} {others}", "others: expected folders named as the classes of"),
        ("{run} {empty}", "empty: no folders in it; expected one for each class"),
        ("{run} {train}", "expected a folder test, found train"),
        ("{run} mnist", "expected pictures of (12, 12, 1), those of mnist are (28, 28, 1)"),
        ("{run} minst", 'unknown dataset "minst"; did you mean "mnist"'),
        ("{run} mnist kmnist", "evaluate RUN [FOLDER|NAME], got "),
        ("nothing", "nothing: expected a run folder, found no config.json"),
        ("{run} --views=up", "views: expected each of mirror, shift at most once, got up"),
        ("{run} --views=shift,shift", "at most once, got shift"),
        ("{run} --output=a.pdf", "output: expected a figure as .svg or .png, got .pdf"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(words, said, folder, tmp_path, run_command):
    places = {name: tmp_path / name for name in ("others", "empty", "train")}
    for name in ("others/emu", "empty", "train/train/0"):
        (tmp_path / name).mkdir(parents=True)
    run_command("evaluate", *words.format(run=folder, **places).split()).assert_refused(said)


def test_a_picture_of_another_size_is_prepared_as_predict_does(folder, tmp_path, run_command):
    (tmp_path / "2").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3 * SIDE, 2 * SIDE), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "2" / "a.png")
    values = json.loads(run_command("evaluate", folder, tmp_path, "--json").out)
    predicted = json.loads(run_command("predict", folder, tmp_path / "2/a.png", "--json").out)
    best = predicted[0]["predictions"][0]
    assert (values["accuracy"] == 1) == (best["label"] == "2")
    for one in values["mistakes"]:
        assert one["prediction"] == best["label"]
        assert one["probability"] == pytest.approx(best["probability"], rel=1e-5)
