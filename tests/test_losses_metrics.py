"""Losses and metrics against NumPy in float64, hand-computed numbers and scikit-learn."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import quick_jit

from jaxnets.backprop.rule import rule_of
from jaxnets.experiment import Experiment
from jaxnets.losses import LOSSES
from jaxnets.metrics import Metrics, metric_of
from jaxnets.regression_metrics import RegressionMetrics
from jaxnets.training import loop

cross_entropy, mse, half_mse, squared_error = map(jax.jit, LOSSES.values())
LOSSES_OF_LABELS = sorted(set(LOSSES) - {"squared_error"})


@pytest.fixture
def sklearn_metrics():
    return pytest.importorskip("sklearn.metrics", reason="scikit-learn is the oracle")


def random_batch(size=200, classes=10, scale=3.0, seed=0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    logits = (scale * rng.standard_normal((size, classes))).astype(np.float32)
    return logits, rng.integers(0, classes, size).astype(np.int32)


def random_targets(size, outputs, seed=0) -> tuple[Any, Any]:
    """Standardised targets and predictions of them, [size, outputs] float32."""
    rng = np.random.default_rng(seed)
    targets = rng.standard_normal((size, outputs)).astype(np.float32)
    noise = rng.standard_normal(targets.shape).astype(np.float32)
    return targets + 0.5 * noise, targets


def regression_metrics_of(outputs, targets, mask=None, **units):
    mask = np.ones(len(targets), np.float32) if mask is None else mask
    measure = quick_jit(functools.partial(RegressionMetrics.of, **units))
    return jax.device_get(measure(outputs, targets, squared_error(outputs, targets), mask))


def probabilities(logits):
    z = np.asarray(logits, np.float64)
    z = np.exp(z - z.max(axis=1, keepdims=True))
    return z / z.sum(axis=1, keepdims=True)


@quick_jit
def _metrics_of(logits, labels, mask):
    return Metrics.of(logits, labels, cross_entropy(logits, labels), mask)


def metrics_of(logits, labels, mask=None):
    return _metrics_of(logits, labels, np.ones(len(labels), np.float32) if mask is None else mask)


# Losses


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_losses_are_those_of_numpy(scale, classes):
    logits, labels = random_batch(classes=classes, scale=scale)
    p, y = probabilities(logits), np.eye(classes)[labels]
    z = logits.astype(np.float64)
    top = z.max(axis=1)
    log_sum = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
    entropy = log_sum - z[np.arange(200), labels]
    np.testing.assert_allclose(cross_entropy(logits, labels), entropy, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mse(logits, labels), ((p - y) ** 2).mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(half_mse(logits, labels), ((p - y) ** 2).sum(axis=1) / 2, atol=1e-6)
    if scale == 1:  # The slides' loss is half the number of classes times that of Keras.
        ratio = half_mse(logits, labels) / mse(logits, labels)
        np.testing.assert_allclose(ratio, classes / 2, rtol=1e-5)


def test_the_means_of_the_losses_are_scikit_learns(sklearn_metrics):
    logits, labels = random_batch()
    p = probabilities(logits)
    expected = sklearn_metrics.log_loss(labels, p, labels=range(10))
    assert float(cross_entropy(logits, labels).mean()) == pytest.approx(expected, rel=1e-6)
    expected = sklearn_metrics.mean_squared_error(np.eye(10)[labels], p)
    assert float(mse(logits, labels).mean()) == pytest.approx(expected, rel=1e-6)
    outputs, targets = random_targets(size=200, outputs=3)
    expected = sklearn_metrics.mean_squared_error(targets, outputs)
    assert squared_error(outputs, targets).shape == (200,)
    assert float(squared_error(outputs, targets).mean()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "right", "wrong", "undecided"),
    [
        ("cross_entropy", 0, 2e4, np.log(4)),
        ("mse", 0, 2 / 4, (0.75**2 + 3 * 0.25**2) / 4),
        ("half_mse", 0, 1, (0.75**2 + 3 * 0.25**2) / 2),
    ],
)
def test_the_losses_of_extreme_logits_are_exact_and_their_gradients_finite(
    loss, right, wrong, undecided
):
    logits = jnp.array([[1e4, -1e4, -1e4, -1e4], [1e4, -1e4, -1e4, -1e4], [1e4] * 4])
    labels = jnp.array([0, 1, 2])
    np.testing.assert_allclose(LOSSES[loss](logits, labels), [right, wrong, undecided], rtol=1e-6)
    gradient = jax.grad(lambda z: LOSSES[loss](z, labels).sum())(logits)
    assert np.isfinite(gradient).all()


# Metrics


def test_the_metrics_are_scikit_learns(sklearn_metrics):
    logits, labels = random_batch(size=500)
    metrics, p = metrics_of(logits, labels), probabilities(logits)
    accuracy = sklearn_metrics.accuracy_score(labels, p.argmax(axis=1))
    top5 = sklearn_metrics.top_k_accuracy_score(labels, p, k=5, labels=range(10))
    confusion = sklearn_metrics.confusion_matrix(labels, p.argmax(axis=1), labels=range(10))
    assert metrics.accuracy == accuracy
    assert metrics.top5_accuracy == top5
    np.testing.assert_array_equal(metrics.confusion, confusion)
    expected = sklearn_metrics.log_loss(labels, p, labels=range(10))
    assert metrics.loss == pytest.approx(expected, rel=1e-6)


def test_a_confusion_matrix_has_a_row_for_each_label_and_a_column_for_each_prediction():
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 2, 2]]
    metrics = metrics_of(logits, np.array([0, 0, 1, 1, 1]))
    assert metrics.confusion.tolist() == [[1, 1, 0], [0, 1, 2], [0, 0, 0]]
    assert (metrics.accuracy, int(metrics.count)) == (2 / 5, 5)
    soft = np.array([[0.6, 0.4, 0], [0.6, 0.4, 0], [0.1, 0.2, 0.7]], np.float32)
    metrics = metrics_of(np.eye(3, dtype=np.float32), soft)  # The largest is the label.
    assert metrics.confusion.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert metrics.accuracy == 2 / 3


def test_of_tied_logits_the_lower_class_comes_first():
    logits = np.zeros((8, 8), np.float32)
    metrics = metrics_of(logits, np.arange(8))
    assert metrics.accuracy == 1 / 8  # All are taken for class 0.
    assert metrics.top5_accuracy == 5 / 8
    assert metrics.confusion[:, 0].tolist() == [1] * 8


def test_a_label_of_fifth_rank_counts_and_one_of_sixth_does_not():
    logits = np.array([[9, 8, 7, 6, 5, 4]], np.float32)
    top5 = [metrics_of(logits, np.array([label])).top5_accuracy for label in range(6)]
    assert top5 == [1, 1, 1, 1, 1, 0]


def test_the_metrics_of_ragged_batches_add_up_to_those_of_the_whole():
    logits, labels = random_batch(size=103)
    whole = metrics_of(logits, labels)
    total = Metrics.zero(10)
    for start in range(0, 103, 25):
        part = metrics_of(logits[start : start + 25], labels[start : start + 25])
        total = jax.tree.map(np.add, total, part)
    for name in ("correct", "top5_correct", "count", "confusion"):
        np.testing.assert_array_equal(getattr(total, name), getattr(whole, name))
    assert total.loss == pytest.approx(whole.loss, rel=1e-6)
    assert int(total.count) == 103


def test_padding_counts_nothing_whatever_it_holds():
    logits, labels = random_batch(size=20)
    expected = metrics_of(logits, labels)
    garbage = np.array([[np.nan] * 10, [np.inf] * 10, [0.0] * 10], np.float32)
    padded = metrics_of(
        np.concatenate([logits, garbage]),
        np.concatenate([labels, [0, 9, 5]]),
        np.array([1] * 20 + [0] * 3, np.float32),
    )
    for name in ("correct", "top5_correct", "count", "confusion"):
        np.testing.assert_array_equal(getattr(padded, name), getattr(expected, name))
    assert float(padded.loss_sum) == pytest.approx(float(expected.loss_sum), rel=1e-6)


@pytest.mark.parametrize("place", [0, 1, 2], ids=["of the label", "before it", "after it"])
def test_logits_that_are_not_a_number_count_as_wrong(place):
    logits = np.array([[3.0, 1.0, 2.0]] * 2, np.float32)
    logits[1, place] = np.nan
    metrics = metrics_of(logits, np.array([0, 0]))
    assert (int(metrics.correct), int(metrics.top5_correct), int(metrics.count)) == (1, 1, 2)
    assert np.isnan(metrics.loss)


def test_sums_over_many_batches_are_exact():
    batch = Metrics(
        np.float64(0.1), np.int64(2**31), np.int64(2**31), np.zeros((2, 2)), np.int64(2**32)
    )
    total = Metrics.zero(2)
    for _ in range(4):
        total = jax.tree.map(np.add, total, batch)
    assert (int(total.count), total.accuracy) == (2**34, 0.5)
    assert total.loss == pytest.approx(0.4 / 2**34, rel=1e-12)


# Metrics of regression


UNITS = [(1, 0.0, 1.0, 0.0), (3, 152.0, 77.0, 0.0), (1, 1e4, 0.5, 0.0), (2, 3.0, 2.0, 0.7)]


def assert_regression_agrees(units, mse_of, r2_of):
    """Holds the metrics, also of targets that are shifted: not standardised, to two functions."""
    outputs, mean, scale, shift = units
    predicted, targets = (z + np.float32(shift) for z in random_targets(300, outputs))
    metrics = regression_metrics_of(predicted, targets, mean=mean, scale=scale)
    p, y = (mean + scale * z.astype(np.float64) for z in (predicted, targets))
    assert metrics.mse == pytest.approx(mse_of(y, p), rel=1e-5)
    assert metrics.r2 == pytest.approx(r2_of(y, p), rel=1e-5)
    assert metrics.wmape == pytest.approx(np.abs(y - p).sum() / np.abs(y).sum(), rel=1e-5)
    expected = np.square((predicted - targets).astype(np.float64)).mean()
    assert metrics.loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("units", UNITS)
def test_the_metrics_of_regression_are_scikit_learns(sklearn_metrics, units):
    oracle = sklearn_metrics
    assert_regression_agrees(units, oracle.mean_squared_error, oracle.r2_score)


@pytest.mark.parametrize("units", UNITS)
def test_the_metrics_of_regression_are_their_formulas(units):
    """By NumPy: the default suite has no scikit-learn."""

    def r2_of(y, p):
        variation = np.square(y - y.mean(axis=0)).sum(axis=0)
        return (1 - np.square(y - p).sum(axis=0) / variation).mean()

    assert_regression_agrees(units, lambda y, p: np.square(y - p).mean(), r2_of)


def test_the_metrics_of_regression_add_up_over_ragged_padded_batches():
    predicted, targets = random_targets(size=103, outputs=2)
    whole = regression_metrics_of(predicted, targets, mean=3.0, scale=2.0)
    total: Any = None
    for start in range(0, 103, 25):
        rows = [array[start : start + 25] for array in (predicted, targets)]
        garbage = np.full((25 - len(rows[0]), 2), np.nan, np.float32)
        mask = np.arange(25) < len(rows[0])
        p, t = (np.concatenate([array, garbage]) for array in rows)
        part = regression_metrics_of(p, t, mask.astype(np.float32), mean=3.0, scale=2.0)
        total = part if total is None else jax.tree.map(np.add, total, part)
    assert int(total.count) == 103
    for name in ("loss", "mse", "r2", "wmape"):
        assert getattr(total, name) == pytest.approx(getattr(whole, name), rel=1e-5)


def test_scores_that_nothing_can_be_divided_by_are_not_a_number():
    metrics = regression_metrics_of(np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32))
    assert np.isnan(metrics.r2) and np.isnan(metrics.wmape) and metrics.mse == 1


def test_each_loss_is_trained_with_the_metrics_that_suit_it():
    suited = {name: metric_of(loss) for name, loss in LOSSES.items()}
    labels = dict.fromkeys(LOSSES_OF_LABELS, Metrics.of)
    assert suited == {**labels, "squared_error": RegressionMetrics.of}


# Evaluation


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize(("devices", "kind"), [(1, "jit"), (8, "jit"), (8, "pmap")])
def test_an_evaluation_counts_every_example_once(tiny, tiny_preset, monkeypatch, devices, kind):
    monkeypatch.setattr(loop, "EVAL_BATCH_SIZE", 16)  # 50 images: four batches, the last ragged.
    config = tiny_preset("mlp_sequential", devices=devices, parallel=kind, loss="cross_entropy")
    experiment = Experiment.create(config, tiny)
    state = experiment.init_state()
    metrics = experiment.evaluate(state.params, tiny.test)
    logits = np.asarray(
        experiment.model.apply({"params": jax.device_get(state.params)}, tiny.test.images)
    )
    z, labels = logits.astype(np.float64), tiny.test.labels
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(50), labels]
    assert int(metrics.count) == 50
    assert metrics.accuracy == np.mean(z.argmax(axis=1) == labels)
    assert metrics.loss == pytest.approx(losses.mean(), rel=1e-6)
    assert metrics.confusion.sum(axis=1).tolist() == np.bincount(labels).tolist()


# Soft labels


def soft_batch(size=50, classes=7, scale=3.0):
    rng = np.random.default_rng(1)
    logits = scale * rng.standard_normal((size, classes))
    return logits, rng.dirichlet(np.full(classes, 0.3), size)


@pytest.mark.parametrize("loss", LOSSES_OF_LABELS)
def test_one_hot_probabilities_are_labels(loss):
    logits, labels = random_batch()
    one_hot = np.eye(10, dtype=np.float32)[labels]
    hard, soft = (quick_jit(LOSSES[loss])(logits, y) for y in (labels, one_hot))
    np.testing.assert_allclose(soft, hard, rtol=1e-6, atol=1e-6)
    ours, theirs = metrics_of(logits, one_hot), metrics_of(logits, labels)
    np.testing.assert_array_equal(ours.confusion, theirs.confusion)
    assert (ours.accuracy, ours.top5_accuracy) == (theirs.accuracy, theirs.top5_accuracy)


@pytest.mark.parametrize("loss", LOSSES_OF_LABELS)
def test_the_losses_of_soft_labels_are_those_of_numpy_by_both_ways(float64, loss):
    logits, y = soft_batch()
    p = probabilities(logits)
    expected = {
        "cross_entropy": -(y * np.log(p)).sum(axis=1),
        "mse": ((p - y) ** 2).mean(axis=1),
        "half_mse": ((p - y) ** 2).sum(axis=1) / 2,
    }[loss]
    pair: Any = rule_of(LOSSES[loss])
    losses, _ = pair.forward(jnp.asarray(logits), jnp.asarray(y))
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    np.testing.assert_allclose(LOSSES[loss](jnp.asarray(logits), jnp.asarray(y)), expected, 1e-12)


def test_the_cross_entropy_of_soft_labels_and_its_gradient_are_pytorchs(float64):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle; not installed")
    logits, y = soft_batch()
    theirs = torch.tensor(logits, requires_grad=True)
    losses = torch.nn.functional.cross_entropy(theirs, torch.tensor(y), reduction="none")
    losses.sum().backward()
    pair: Any = rule_of(LOSSES["cross_entropy"])
    ours, cache = pair.forward(jnp.asarray(logits), jnp.asarray(y))
    np.testing.assert_allclose(ours, losses.detach().numpy(), rtol=1e-12)
    gradient = pair.backward(cache, jnp.ones(len(y)))
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=0, atol=1e-14)
