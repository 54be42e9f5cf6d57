"""Losses and metrics against NumPy in float64, hand-computed numbers and scikit-learn."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import quick_jit, slow
from scipy.special import softmax

from jaxnets.backprop.rules import rule_of
from jaxnets.data.batches import eval_batches
from jaxnets.experiment import Experiment
from jaxnets.losses import LOSSES
from jaxnets.metrics import Metrics, metric_of
from jaxnets.regression_metrics import RegressionMetrics, TargetUnits
from jaxnets.training import evaluation, loop
from jaxnets.training.parallel import Parallel

cross_entropy, mse, _, squared_error = map(jax.jit, LOSSES.values())


@pytest.fixture
def sklearn_metrics():
    return pytest.importorskip("sklearn.metrics", reason="scikit-learn is the oracle")


def random_batch(size=200, classes=10, scale=3.0) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    logits = (scale * rng.standard_normal((size, classes))).astype(np.float32)
    return logits, rng.integers(0, classes, size).astype(np.int32)


def random_targets(size, outputs) -> tuple[Any, Any]:
    """Standardised targets and predictions of them, [size, outputs] float32."""
    rng = np.random.default_rng(0)
    targets = rng.standard_normal((size, outputs)).astype(np.float32)
    noise = rng.standard_normal(targets.shape).astype(np.float32)
    return targets + 0.5 * noise, targets


def regression_metrics_of(outputs, targets, mask=None, **units):
    mask = np.ones(len(targets), np.float32) if mask is None else mask
    measure = quick_jit(functools.partial(RegressionMetrics.of, units=TargetUnits(**units)))
    return jax.device_get(measure(outputs, targets, squared_error(outputs, targets), mask))


@quick_jit
def metrics_of(logits, labels, mask=None):
    mask = jnp.ones(len(labels)) if mask is None else mask
    return Metrics.of(logits, labels, cross_entropy(logits, labels), mask)


# Losses


@pytest.mark.parametrize("soft", [False, True], ids=["classes", "soft"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("classes", [2, slow(3), 10])
def test_the_losses_by_both_ways_are_those_of_numpy(float64, scale, classes, soft):
    logits, labels = random_batch(classes=classes, scale=scale)
    y = np.eye(classes)[labels]
    if soft:
        labels = y = np.random.default_rng(1).dirichlet(np.full(classes, 0.3), len(y))
    shifted = logits - logits.max(axis=1, keepdims=True).astype(np.float64)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    squares = (np.exp(log_p) - y) ** 2
    expected = {
        "cross_entropy": -(y * log_p).sum(axis=1),
        "mse": squares.mean(axis=1),  # The slides' loss is K / 2 times that of Keras.
        "half_mse": squares.sum(axis=1) / 2,
    }
    for name, wanted in expected.items():
        pair: Any = rule_of(LOSSES[name])
        for dtype, tolerance in ("float64", 1e-12), ("float32", 1e-5):
            arrays = jnp.asarray(logits, dtype), jnp.asarray(labels)
            for losses in LOSSES[name](*arrays), pair.forward(*arrays)[0]:
                np.testing.assert_allclose(losses, wanted, rtol=tolerance, atol=tolerance)


def test_losses_of_extreme_logits_are_exact_their_gradients_finite():
    logits = jnp.array([[1e4, -1e4, -1e4, -1e4], [1e4, -1e4, -1e4, -1e4], [1e4] * 4])
    labels, undecided = jnp.array([0, 1, 2]), 0.75**2 + 3 * 0.25**2
    expected = {
        "cross_entropy": [0, 2e4, np.log(4)],
        "mse": [0, 2 / 4, undecided / 4],
        "half_mse": [0, 1, undecided / 2],
    }
    for name, wanted in expected.items():
        losses, pull_back = jax.vjp(lambda z, name=name: LOSSES[name](z, labels), logits)
        np.testing.assert_allclose(losses, wanted, rtol=1e-6)
        assert np.isfinite(pull_back(jnp.ones(3))).all()


# Metrics


@pytest.mark.oracle
def test_the_losses_means_and_the_metrics_are_scikit_learns(sklearn_metrics):
    logits, labels = random_batch(size=500)
    metrics, p = metrics_of(logits, labels), softmax(logits.astype(np.float64), axis=1)
    confusion = sklearn_metrics.confusion_matrix(labels, p.argmax(axis=1), labels=range(10))
    np.testing.assert_array_equal(metrics.confusion, confusion)
    assert metrics.accuracy == sklearn_metrics.accuracy_score(labels, p.argmax(axis=1))
    top5 = sklearn_metrics.top_k_accuracy_score(labels, p, k=5, labels=range(10))
    assert metrics.top5_accuracy == top5
    expected = sklearn_metrics.log_loss(labels, p, labels=range(10))
    assert metrics.loss == pytest.approx(expected, rel=1e-6)
    expected = sklearn_metrics.mean_squared_error(np.eye(10)[labels], p)
    assert float(mse(logits, labels).mean()) == pytest.approx(expected, rel=1e-6)


def test_a_confusion_matrix_has_labels_as_rows_predictions_as_columns():
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 2, 2]]
    metrics = metrics_of(logits, np.array([0, 0, 1, 1, 1]))
    assert metrics.confusion.tolist() == [[1, 1, 0], [0, 1, 2], [0, 0, 0]]
    assert (metrics.accuracy, int(metrics.count)) == (2 / 5, 5)
    soft = np.array([[0.6, 0.4, 0], [0.6, 0.4, 0], [0.1, 0.2, 0.7]], np.float32)
    metrics = metrics_of(np.eye(3, dtype=np.float32), soft)  # The largest is the label.
    assert metrics.confusion.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert metrics.accuracy == 2 / 3


def test_a_label_of_fifth_rank_counts_ties_go_lower():
    logits = np.zeros((8, 8), np.float32)
    metrics = metrics_of(logits, np.arange(8))
    assert metrics.accuracy == 1 / 8  # All are taken for class 0.
    assert metrics.confusion[:, 0].tolist() == [1] * 8
    for one in logits[:1], -np.arange(8, dtype=np.float32)[None]:
        top5 = [metrics_of(one, np.array([label])).top5_accuracy for label in range(8)]
        assert top5 == [1, 1, 1, 1, 1, 0, 0, 0]
        for rows in np.eye(8, dtype=np.float32), np.eye(8, dtype=np.float32) / 2 + 1 / 16:
            assert top5 == [metrics_of(one, row[None]).top5_accuracy for row in rows]


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_metrics_add_up_over_batches_and_padding_counts_nothing(kind):
    if kind == "classes":
        outputs, targets = random_batch(size=125)
        measure, names = metrics_of, ["loss", "accuracy", "top5_accuracy"]
    else:
        outputs, targets = random_targets(size=125, outputs=2)
        measure = functools.partial(regression_metrics_of, mean=3.0, scale=2.0)
        names = ["loss", "mse", "r2", "wmape"]
    whole, mask = measure(outputs[:103], targets[:103]), (np.arange(125) < 103).astype(np.float32)
    outputs[103:110], outputs[110:117] = np.nan, np.inf
    batches = (slice(start, start + 25) for start in range(0, 125, 25))
    parts = [measure(outputs[rows], targets[rows], mask[rows]) for rows in batches]
    total = functools.reduce(lambda *both: jax.tree.map(np.add, *both), parts)
    assert int(total.count) == 103
    assert [getattr(total, name) for name in names] == pytest.approx(
        [getattr(whole, name) for name in names], rel=1e-5
    )
    if kind == "classes":
        np.testing.assert_array_equal(total.confusion, whole.confusion)


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


def test_a_sum_of_losses_beyond_the_largest_is_infinite():
    batch = Metrics(np.float64(1e308), np.int64(1), np.int64(1), np.zeros((2, 2)), np.int64(1))
    once = loop.accumulate_metrics(None, batch, "step 1")
    with pytest.raises(loop.NonFiniteLossError, match="the loss of step 2 is inf"):
        loop.accumulate_metrics(once, batch, "step 2")


# Metrics of regression


UNITS = [(1, 0.0, 1.0, 0.0), (3, 152.0, 77.0, 0.0), (1, 1e4, 0.5, 0.0), (2, 3.0, 2.0, 0.7)]


def numpys_r2(y, p):
    variation = np.square(y - y.mean(axis=0)).sum(axis=0)
    return (1 - np.square(y - p).sum(axis=0) / variation).mean()


@pytest.mark.parametrize("oracle", ["numpy", "sklearn"])  # The default suite has NumPy only.
@pytest.mark.parametrize(("outputs", "mean", "scale", "shift"), UNITS)
def test_the_metrics_of_regression_are_the_oracles(request, oracle, outputs, mean, scale, shift):
    """Also of targets that are shifted: not standardized."""
    mse_of, r2_of = lambda y, p: np.square(y - p).mean(), numpys_r2
    if oracle == "sklearn":
        theirs = request.getfixturevalue("sklearn_metrics")
        mse_of, r2_of = theirs.mean_squared_error, theirs.r2_score
    predicted, targets = (z + np.float32(shift) for z in random_targets(300, outputs))
    metrics = regression_metrics_of(predicted, targets, mean=mean, scale=scale)
    p, y = (mean + scale * z.astype(np.float64) for z in (predicted, targets))
    wmape = np.abs(y - p).sum() / np.abs(y).sum()
    loss = np.square((predicted - targets).astype(np.float64)).mean()
    found = [metrics.mse, metrics.r2, metrics.wmape, metrics.loss]
    assert found == pytest.approx([mse_of(y, p), r2_of(y, p), wmape, loss], rel=1e-5)


def test_scores_with_nothing_to_divide_by_are_nan():
    metrics = regression_metrics_of(np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32))
    assert np.isnan(metrics.r2) and np.isnan(metrics.wmape) and metrics.mse == 1


@pytest.mark.parametrize("center", [False, True], ids=["around 0", "around their mean"])
@pytest.mark.parametrize("constant", [0.1, 0.3, 7.3, 333.3])
def test_targets_that_do_not_vary_have_no_r2(constant, center):
    for size in (7, 1000):
        targets = np.full((size, 1), constant, np.float32)
        units = {"center": constant} if center else {}
        assert np.isnan(regression_metrics_of(targets + 1, targets, **units).r2)


@pytest.mark.parametrize("oracle", ["numpy", "sklearn"])
def test_r2_of_targets_far_from_0_is_the_oracles(request, oracle):
    """Around 0, the sums of float32 have lost the variation: 0.99999998 where R² is 0.80."""
    theirs = numpys_r2
    if oracle == "sklearn":
        theirs = request.getfixturevalue("sklearn_metrics").r2_score
    predicted, targets = (np.float32(1e5 + 0.01 * z) for z in random_targets(300, 1))
    expected = theirs(targets.astype(np.float64), predicted.astype(np.float64))
    assert expected < 0.9
    metrics = regression_metrics_of(predicted, targets, center=99_999.9)
    assert metrics.r2 == pytest.approx(expected, rel=1e-3)
    assert np.isnan(regression_metrics_of(predicted, targets).r2)


def test_each_loss_is_trained_with_the_metrics_that_suit_it():
    suited = {name: metric_of(loss) for name, loss in LOSSES.items()}
    labels = dict.fromkeys(["cross_entropy", "mse", "half_mse"], Metrics.of)
    assert suited == {**labels, "squared_error": RegressionMetrics.of}


# Evaluation


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize(
    ("devices", "kind"), [slow(1, "jit"), slow(8, "jit"), (8, "pmap"), slow(8, "shard_map")]
)
def test_an_evaluation_counts_every_example_once(tiny, tiny_preset, devices, kind):
    test = tiny.test[
        np.arange(2 * evaluation.EVAL_BATCH_SIZE + 76) % len(tiny.test)
    ]  # The last is ragged.
    config = tiny_preset("mlp_sequential", devices=devices, parallel=kind, loss="cross_entropy")
    experiment = Experiment.create(config, tiny)
    state = experiment.init_state()
    metrics = experiment.evaluate(state.params, test)
    variables = {"params": jax.device_get(state.params)}
    expected = metrics_of(experiment.model.apply(variables, test.images), test.labels)
    assert int(metrics.count) == len(test)
    assert metrics.accuracy == expected.accuracy
    assert metrics.loss == pytest.approx(expected.loss, rel=1e-6)
    np.testing.assert_array_equal(metrics.confusion, expected.confusion)


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize(("devices", "images", "size"), [(1, 50, 50), slow(8, 3, 8), (8, 50, 56)])
def test_a_small_split_is_not_padded_to_a_large_batch(
    tiny, tiny_preset, monkeypatch, devices, images, size
):
    sizes = []

    def padded(split, batch_size, rows):
        sizes.append(batch_size)
        return eval_batches(split, max(batch_size, least), rows)

    monkeypatch.setattr(evaluation, "eval_batches", padded)
    config = tiny_preset("mlp_sequential", devices=devices, loss="cross_entropy")
    experiment, split = Experiment.create(config, tiny), tiny.test[np.arange(images)]
    params = experiment.init_state().params
    monkeypatch.setattr(Parallel, "rows", lambda *_: slice(None))
    least = 0
    small = experiment.evaluate(params, split)
    least = evaluation.EVAL_BATCH_SIZE
    large = experiment.evaluate(params, split)
    assert sizes == [size, size]
    assert small.loss == pytest.approx(large.loss, rel=1e-6)
    for name in ("correct", "top5_correct", "confusion", "count"):
        np.testing.assert_array_equal(getattr(small, name), getattr(large, name))
