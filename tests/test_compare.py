"""python -m jaxnets compare: regression and the baselines against their oracles; the command."""

import csv
import dataclasses
import functools
import json
import math
import signal
import sys
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import read_json, slow

from jaxnets.backprop.network import manual_loss_and_grad
from jaxnets.config.recipes import PRESETS
from jaxnets.config.resolve import preset
from jaxnets.data.batches import Batch
from jaxnets.data.datasets import Dataset, Split
from jaxnets.errors import UserError
from jaxnets.experiment import Experiment
from jaxnets.losses import squared_error
from jaxnets.models.mlp import mlp
from jaxnets.models.precision import with_precision
from jaxnets.training.step import autodiff_loss_and_grad
from jaxnets.tune.compare import comparison as command
from jaxnets.tune.compare.comparison import Results
from jaxnets.tune.compare.models import (
    CURVE_NOISE,
    cut,
    diabetes,
    digits,
    fit_baseline,
    fit_network,
    small_and_noisy,
)
from jaxnets.tune.compare.request import REGRESSION, Request


@pytest.fixture(scope="module")
def sklearn():
    return pytest.importorskip("sklearn", reason="scikit-learn is the oracle and has the data")


@pytest.fixture(scope="module")
def patients(sklearn):
    return diabetes(seed=0)


@pytest.fixture
def run_compare(run_command):
    """Runs `python -m jaxnets compare` in this process."""
    return functools.partial(run_command, "compare")


def regression(name, **changes):
    """The config of a network of regression, on one device."""
    return preset(**{**REGRESSION[name], "validation_size": 0, "devices": 1, **changes})


def least_squares(x, y):
    """W and b in closed form, in float64."""
    x, y = (np.asarray(part, np.float64) for part in (np.c_[x, np.ones(len(x))], y))
    *kernel, bias = np.linalg.lstsq(x, y, rcond=None)[0]
    return np.array(kernel), bias


# Regression


def test_the_gradient_of_regression_by_hand_is_autodiffs(float64):
    rng = np.random.default_rng(0)
    model = with_precision(mlp(num_classes=3, hidden=(8,)), "float64")
    x, y = rng.standard_normal((9, 5)), rng.standard_normal((9, 3))
    batch = Batch(jnp.asarray(x), jnp.asarray(y), jnp.asarray([1.0] * 7 + [0.0] * 2))
    params, key = model.init(jax.random.key(0), batch.images)["params"], jax.random.key(1)
    manual = manual_loss_and_grad(model, "squared_error")
    auto = autodiff_loss_and_grad(model.apply, squared_error)
    ours, by_autodiff = (jax.jit(way)(params, batch, key) for way in (manual, auto))
    assert ours[0].squares.shape == (3,) and int(ours[0].count) == 7
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), ours, by_autodiff)
    outputs = np.asarray(model.apply({"params": params}, batch.images))[:7]
    expected = (2 / 3 * (outputs - y[:7])).sum(axis=0)  # d loss / d bias of the last layer
    np.testing.assert_allclose(ours[1]["logits"]["bias"], expected, rtol=1e-12)


@pytest.mark.parametrize("gradients", [slow("auto"), "manual"])
def test_the_linear_network_reaches_least_squares(patients, gradients):
    config = regression("linear", batch_size=None, gradients=gradients)
    params = Experiment.create(config, patients).train()[0].params
    kernel, bias = least_squares(patients.train.images, patients.train.labels)
    np.testing.assert_allclose(params["logits"]["kernel"], kernel, atol=1e-3)
    np.testing.assert_allclose(params["logits"]["bias"], bias, atol=1e-5)


@pytest.mark.usefixtures("quick_steps")
def test_scores_of_regression_are_scikit_learns_in_the_targets_units(patients):
    from sklearn import metrics

    fit = fit_network(regression("mlp", epochs=3, gradients="manual"), patients)
    experiment = Experiment.create(regression("mlp", epochs=3), patients)
    params = {"params": experiment.train()[0].params}
    for part, split in (("train", patients.train), ("test", patients.test)):
        outputs = np.asarray(experiment.model.apply(params, split.images), np.float64)
        p, y = (patients.target_scale * z + patients.target_mean for z in (outputs, split.labels))
        assert 24 < np.min(y) < np.max(y) < 347  # The data set's own units.
        assert fit[f"{part}_mse"] == pytest.approx(metrics.mean_squared_error(y, p), rel=1e-4)
        assert fit[f"{part}_r2"] == pytest.approx(metrics.r2_score(y, p), abs=1e-4)
        wmape = np.abs(y - p).sum() / np.abs(y).sum()
        assert fit[f"{part}_wmape"] == pytest.approx(wmape, rel=1e-4)
    assert fit["parameters"] == 10 * 64 + 64 + 64 * 64 + 64 + 64 + 1


def test_diabetes_is_standardized_by_its_training_part(patients):
    from sklearn.datasets import load_diabetes

    assert (len(patients.train), len(patients.test)) == (354, 88)
    features, targets = map(np.asarray, load_diabetes(return_X_y=True, scaled=False))
    order = np.random.default_rng(0).permutation(442)
    mean, scale = features[order[88:]].mean(axis=0), features[order[88:]].std(axis=0)
    assert patients.target_scale == pytest.approx(targets[order[88:]].std())
    for split, part in ((patients.train, order[88:]), (patients.test, order[:88])):
        np.testing.assert_allclose(split.images, (features[part] - mean) / scale, atol=1e-5)
        units = patients.target_scale * split.labels[:, 0] + patients.target_mean
        np.testing.assert_allclose(units, targets[part], rtol=1e-5)


# The classifiers that are no networks


@pytest.mark.oracle
def test_baselines_classify_and_linear_regression_is_least_squares(tiny, sklearn):
    names = ["linear_regression", "logistic_regression", "knn"]
    fits = [fit_baseline(name, tiny, seed=0) for name in names]
    x, y = (split.images.reshape(len(split), -1) for split in (tiny.train, tiny.test))
    kernel, bias = least_squares(x, np.eye(3)[tiny.train.labels])
    predicted = (y @ kernel + bias).argmax(axis=1)
    assert fits[0]["test_accuracy"] == np.mean(predicted == tiny.test.labels)
    assert all(fit["test_accuracy"] > 0.9 for fit in fits[1:])
    learned = 12 * 12 * 3 + 3
    assert [fit["parameters"] for fit in fits] == [learned, learned, None]


@pytest.mark.oracle
def test_each_cluster_takes_the_label_of_most_of_its_members(sklearn):
    centres = np.array([[0.0, 0.0], [9.0, 0.0]], np.float32)
    labels = np.array([1] * 7 + [0] * 3 + [0] * 6 + [1] * 4, np.int32)
    x = np.repeat(centres, 10, axis=0) + np.linspace(0, 1, 20, dtype=np.float32)[:, None]
    split = Split(x.reshape(20, 1, 2, 1), labels)
    fit = fit_baseline("kmeans", Dataset("two", 2, split, split, split, ""), seed=0)
    assert fit["test_accuracy"] == (7 + 6) / 20
    assert fit["parameters"] == 2 * 2 + 2


# The data sets


@pytest.mark.oracle
def test_digits_are_split_with_the_seed_into_all_images(sklearn):
    from sklearn.datasets import load_digits

    data, other = digits(0), digits(1)
    images = np.concatenate([data.train.images, data.test.images]).reshape(-1, 64)
    expected = load_digits(return_X_y=True)[0] / 16
    assert sorted(map(bytes, images)) == sorted(map(bytes, expected.astype(np.float32)))
    assert (len(data.train), len(data.test)) == (1438, 359)
    assert not np.array_equal(data.test.labels, other.test.labels)
    assert data.checksum == other.checksum


def test_a_cut_is_drawn_with_the_seed_from_every_class(tiny):
    def examples(split):
        return {(bytes(x), int(y)) for x, y in zip(split.images, split.labels, strict=True)}

    data = cut(tiny, 20, seed=0)
    assert len(data.train) == 20 and data.test is tiny.test
    assert not np.array_equal(data.train.images, cut(tiny, 20, seed=1).train.images)
    assert examples(data.train) <= examples(tiny.train)
    with pytest.raises(UserError, match="3 classes, 2 images show only"):
        cut(tiny, 2, seed=0)


def test_only_labels_that_are_trained_on_are_wrong(mnist):
    noisy, right = small_and_noisy(mnist, seed=0), cut(mnist, 500, seed=0)
    assert noisy.test is mnist.test
    np.testing.assert_array_equal(noisy.train.images, right.train.images)
    wrong = np.mean(noisy.train.labels != right.train.labels)
    assert wrong == pytest.approx(0.9 * CURVE_NOISE, abs=0.05)  # A tenth is drawn right.


# Verdicts


def a_fit(test, train=1.0):
    numbers = {"parameters": 7, "epochs": 1, "seconds": 0.1}
    return {**numbers, "train_accuracy": train, "test_accuracy": test}


def a_row(dataset, model, hidden=None, **rest):
    return {"dataset": dataset, "model": model, "hidden": hidden, **rest}


@pytest.fixture
def results(tiny):
    return Results(Request(), [dataclasses.replace(tiny, name=name) for name in ("one", "two")])


def test_a_size_underfits_or_overfits_by_its_training_score(results):
    curve = [
        (1, 0.5, 0.5, "underfits"),
        (2, 0.9, 0.6, "overfits"),
        (4, 1.0, 0.7, "overfits"),
        (8, 0.9, 0.895, ""),
        (16, 0.9, 0.9, "best"),
        (32, 0.95, 0.9, ""),
        (64, 1.0, 0.895, ""),
        (128, 1.0, 0.8, "overfits"),
        (256, 0.8, 0.8, "underfits"),
    ]
    results.rows = [
        a_row("one", "hidden", hidden, **a_fit(test, train)) for hidden, train, test, _ in curve
    ]
    results.rows += [a_row("one", "hidden", 512, why="too large"), a_row("one", "knn", **a_fit(1))]
    assert results.judge("one") == [verdict for *_, verdict in curve]
    assert [row.get("verdict") for row in results.rows[-2:]] == [None, None]
    assert results.judge("two") == []


def test_the_closing_lines_say_who_wins_where(results):
    def closing(**scores):
        results.rows = [
            a_row(name, model, **a_fit(score))
            for model, both in scores.items()
            for name, score in zip(("one", "two"), both, strict=True)
        ]
        return results.closing()

    assert closing(cnn=(0.9, 0.7), knn=(0.88, 0.8)) == [
        "one: cnn wins, test accuracy 0.9000 (within one standard error, 0.0424: knn)",
        "two: knn wins, test accuracy 0.8000 (within one standard error, 0.0566: no other)",
        "no two models change places by more than a standard error",
    ]
    change = "no free lunch: {} beats {} on one and loses to it on two".format
    assert closing(cnn=(0.9, 0.7), knn=(0.8, 0.8))[2] == change("cnn", "knn")
    # The pair whose weakest score is the strongest is named.
    assert closing(cnn=(0.9, 0.7), knn=(0.8, 0.8), mlp=(0.6, 0.9))[2] == change("cnn", "knn")
    assert closing(cnn=(0.9, 0.8), knn=(0.8, 0.8), mlp=(0.6, 0.9))[2] == change("knn", "mlp")
    results.rows = [a_row("two", "mlp", why="too small")]
    assert results.closing() == []


# The command


def test_a_request_is_read_without_jax(run_python):
    code = "import sys; from jaxnets.tune.compare import request; print('jax' in sys.modules)"
    assert run_python("-c", code).out == "False\n"


@pytest.mark.oracle
@pytest.mark.usefixtures("quick_steps")
def test_the_files_of_a_comparison_say_what_it_prints(run_compare, tiny_folder, tmp_path, sklearn):
    folder = tmp_path / "out"
    models = "softmax,linear_regression,knn,kmeans"
    flags = [f"--models={models}", f"--data_dir={tiny_folder}", f"--workdir={folder}"]
    outcome = run_compare(*flags, "--epochs=2", "--train_size=150", "--curve=1,8")
    assert (outcome.status, outcome.err) == (0, "")
    assert "tiny: 150 training and 50 test images (--train_size=full takes all)" in outcome.out
    assert outcome.out.splitlines()[-1] == f"results: {folder.resolve()}"

    found = read_json(folder / "compare.json")
    rows, curve = found["rows"][:4], found["rows"][4:]
    assert found["finished"] and [row["model"] for row in rows] == models.split(",")
    assert [row["epochs"] for row in rows] == [2, None, None, None]
    assert rows[0]["parameters"] == 12 * 12 * 3 + 3
    assert [(row["model"], row["hidden"]) for row in curve] == [("hidden", 1), ("hidden", 8)]
    assert "best" in [row["verdict"] for row in curve]
    lines = csv.DictReader((folder / "compare.csv").read_text().splitlines())
    for line, row in zip(lines, found["rows"], strict=True):
        assert line.keys() - row.keys() <= {"verdict", "why"}
        assert all(line[name] == ("" if x is None else str(x)) for name, x in row.items())
        assert f"{row['test_accuracy']:.4f}" in outcome.out
    for sentence in found["closing"]:
        assert sentence in outcome.out
    assert "</svg>" in (folder / "compare.svg").read_text("utf-8")

    run_compare(*flags).assert_refused("workdir: expected an empty folder", "holds cells")


@pytest.mark.oracle
def test_a_network_that_does_not_fit_says_why(run_compare, tmp_path, sklearn):
    flags = ["--models=cnn,knn", "--datasets=digits", "--curve=none", f"--workdir={tmp_path}"]
    outcome = run_compare(*flags, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    cnn, knn = json.loads(outcome.out)["rows"]
    assert "test_accuracy" not in cnn and "(8, 8, 1) are too small" in cnn["why"]
    assert knn["test_accuracy"] > 0.95


def test_regression_is_compared_and_a_network_that_diverged_says_so(
    run_compare, tmp_path, monkeypatch, patients
):
    from sklearn.linear_model import LinearRegression

    monkeypatch.setitem(REGRESSION["linear"], "learning_rate", 1e4)
    flags = ["--task=regression", "--gradients=manual", "--epochs=20", f"--workdir={tmp_path}"]
    outcome = run_compare(*flags, "--curve=none")
    assert (outcome.status, outcome.err) == (0, "")
    for text in ("diabetes: 354 training and 88 test rows", "test MSE", "test R2", "test wMAPE"):
        assert text in outcome.out
    linear, *rows = read_json(tmp_path / "compare.json")["rows"]
    assert linear["model"] == "linear" and "the loss of step" in linear["why"]
    assert [row["model"] for row in rows] == ["mlp", "linear_regression", "knn"]
    assert [row["epochs"] for row in rows] == [20, None, None]
    assert all(row["test_mse"] > 100 for row in rows)  # In the target's own units.
    train, test = ((part.images, part.labels) for part in (patients.train, patients.test))
    expected = LinearRegression().fit(*train).score(*test)
    assert rows[1]["test_r2"] == pytest.approx(expected, abs=1e-5)
    assert rows[2]["test_r2"] > 0.2
    assert [row["parameters"] for row in rows[1:]] == [11, None]


def test_without_scikit_learn_the_networks_are_compared_all_the_same(
    run_compare, tiny_folder, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    seen = []
    monkeypatch.setattr(command, "fit", lambda model, *_, **__: seen.append(model) or a_fit(0.5))
    flags = [f"--data_dir={tiny_folder}", f"--workdir={tmp_path}", "--curve=none"]
    outcome = run_compare(*flags)
    assert outcome.status == 0 and "pip install scikit-learn" in outcome.out.splitlines()[0]
    assert seen == list(PRESETS)[:6]
    for wrong in ("--models=mlp,kmeans", "--datasets=digits", "--task=regression"):
        run_compare(wrong).assert_refused("pip install scikit-learn")


@pytest.mark.parametrize("where", [1, 3], ids=["models", "curve"])
def test_an_interrupt_keeps_what_is_done(run_compare, tiny_folder, tmp_path, monkeypatch, where):
    done = []

    def fit(model, *_, **__):
        if len(done) == where:
            signal.raise_signal(signal.SIGINT)
        done.append(model)
        return a_fit(0.5)

    monkeypatch.setattr(command, "fit", fit)
    flags = ["--models=softmax,mlp", f"--data_dir={tiny_folder}", f"--workdir={tmp_path}"]
    status, _, err = run_compare(*flags)
    hint = f"(--resume --workdir={tmp_path} continues it)"
    assert (status, err) == (130, f"error: interrupted; kept: {tmp_path} {hint}\n")
    found = read_json(tmp_path / "compare.json")
    assert not found["finished"] and len(found["rows"]) == where
    assert len((tmp_path / "compare.csv").read_text().splitlines()) == where + 1
    monkeypatch.setattr(command, "fit", lambda model, *_, **__: done.append(model) or a_fit(0.5))
    run_compare(*flags).assert_refused("expected an empty folder")
    assert run_compare(*flags, "--resume").status == 0
    assert done == ["softmax", "mlp", *4 * ["hidden"]]  # Each once.
    assert read_json(tmp_path / "compare.json")["finished"]


def test_the_picture_shows_the_difference_between_good_models():
    rows = [
        {"dataset": "mnist", "model": model, "hidden": None, "train_accuracy": train}
        | {"test_accuracy": test}
        for model, train, test in (
            ("softmax", 0.92, 0.9),
            ("cnn", 1.0, 0.99),
            ("mlp", 0.9, math.nan),
        )
    ]
    rows += [{**rows[0], "hidden": 16, "verdict": "best"}, {**rows[1], "hidden": 64}]
    samples: Any = [SimpleNamespace(name="mnist", test=range(100))]
    drawn = command.plot(Results(Request(), samples, rows))
    scores, capacity = drawn.standalone().split(">capacity on mnist<")
    assert ">0.95<" in scores and ">0<" not in scores  # From 0 on the two would lie 9 % apart.
    for part, lacks in ((scores, ">best<"), (capacity, ">mlp<")):
        assert ">0.9000<" in part and ">0.9900<" in part and lacks not in part
    assert "mlp" not in drawn.alt and "16 0.9000 best, 64 0.9900" in drawn.alt
