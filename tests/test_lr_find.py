"""The learning-rate range test: its losses beside NumPy's, and what it suggests."""

import json
import sys

import numpy as np
import pytest
from conftest import CLASSES, as_flags

from jaxnets.base.errors import UserError
from jaxnets.data.batches import epoch_order
from jaxnets.experiment import Experiment
from jaxnets.tune.lr_find import RangeTest, Suggestion, plot, range_test

LOWEST, HIGHEST, STEPS = 1e-4, 1.0, 23


def softmax_regression(config, data, rates):
    """The losses of softmax regression by SGD in float64, a rate each step."""
    start = Experiment.create(config, data).init_state().params["logits"]
    weights, bias = (np.asarray(start[name], np.float64) for name in ("kernel", "bias"))
    images = data.train.images.reshape(len(data.train), -1).astype(np.float64)
    epochs = range(-(-len(rates) // -(-len(images) // config.batch_size)))
    orders = [epoch_order(len(images), config.batch_size, config.seed, n) for n in epochs]
    batches = [(row, mask) for order in orders for row, mask in zip(*order, strict=True)]
    losses = []
    for rate, (row, mask) in zip(rates, batches, strict=False):
        rows = row[mask > 0]
        logits = images[rows] @ weights + bias
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        one_hot = np.eye(CLASSES)[data.train.labels[rows]]
        losses.append(-np.log((p * one_hot).sum(axis=1)).mean())
        gradient = (p - one_hot) / len(rows)
        weights, bias = weights - rate * images[rows].T @ gradient, bias - rate * gradient.sum(0)
    return losses


def test_each_step_has_the_loss_that_numpy_gives_it(tiny_preset, tiny):
    """160 images in batches of 48: the last batch of each epoch is ragged."""
    config = tiny_preset("softmax", batch_size=48)
    found = range_test(config, tiny, LOWEST, HIGHEST, STEPS)
    rates = LOWEST * (HIGHEST / LOWEST) ** (np.arange(STEPS) / (STEPS - 1))
    np.testing.assert_allclose(found.rates, rates, rtol=1e-6)
    theirs = softmax_regression(config, tiny, rates)
    np.testing.assert_allclose(found.losses, theirs, rtol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("gradients", ["manual", pytest.param("both", marks=pytest.mark.slow)])
def test_the_gradients_by_hand_give_the_same_curve(gradients, tiny_preset, tiny):
    config = tiny_preset("mlp_functional", gradients=gradients)
    found = range_test(config, tiny, 1e-5, 1e-2, 20)
    plain = range_test(tiny_preset("mlp_functional"), tiny, 1e-5, 1e-2, 20)
    np.testing.assert_allclose(found.losses, plain.losses, rtol=1e-3)


def test_a_test_ends_where_the_loss_explodes(tiny_preset, tiny):
    found = range_test(tiny_preset("mlp_sequential", loss="cross_entropy"), tiny, 1e-3, 1e4, 200)
    assert len(found.losses) < 200 and found.lowest < found.rates[-1] / 2
    assert found.smoothed[-1] > 2 * found.smoothed.min() or not np.isfinite(found.losses[-1])


def curve(fall_at, rise_at):
    """Losses that fall from 2 to 1 around one rate, and rise around another."""
    rates = np.geomspace(1e-6, 10, 200)
    losses = 2 - 1 / (1 + (fall_at / rates) ** 2) + (rates / rise_at) ** 4
    return RangeTest(tuple(rates.tolist()), tuple(losses.tolist()))


@pytest.mark.parametrize("fall_at", [1e-4, 1e-3, 1e-2])
def test_the_fastest_fall_and_the_lowest_loss_are_found(fall_at):
    """The fall within the smoothing's lag, a factor of two; the loss by its height."""
    found = curve(fall_at, rise_at=1.0)
    assert fall_at <= found.steepest < 2 * fall_at
    assert found.losses[found.rates.index(found.lowest)] < min(found.losses) + 0.03


def test_noise_moves_the_fastest_fall_little():
    clean = curve(1e-3, rise_at=1.0)
    noise = np.random.default_rng(0).normal(0, 0.05, len(clean.losses))
    noisy = RangeTest(clean.rates, tuple((clean.losses + noise).tolist()))
    assert clean.steepest / 3 < noisy.steepest < 3 * clean.steepest


def test_a_loss_that_only_rises_is_lowest_at_its_begin(tiny_preset):
    found = RangeTest(tuple(np.geomspace(0.1, 1, 30)), tuple(np.linspace(1, 3, 30)))
    assert found.steepest == found.lowest < 0.2
    assert "falls fastest" in Suggestion(found, tiny_preset("softmax")).text()


def test_the_command_prints_a_curve_draws_and_speaks_json(run_command, tiny_folder, tmp_path):
    data = as_flags(data_dir=tiny_folder, validation_size=40, batch_size=32, devices=1)
    flags = ["--model=softmax", *data]
    outcome = run_command("lr-find", *flags, f"--output={tmp_path / 'a.svg'}")
    assert (outcome.status, outcome.err) == (0, "")
    *lines, _, advice = outcome.out.splitlines()
    assert outcome.out.isascii() and max(map(len, lines)) < 100
    assert advice.startswith("The loss falls fastest at a learning rate of ")
    assert advice.endswith("The recipe of softmax has 0.5 with sgd, schedule cosine.")
    picture = (tmp_path / "a.svg").read_text("utf-8")
    assert advice in picture and "falls fastest: " in picture and picture.count("<polyline") == 2
    assert picture.count('stroke-dasharray="2 3"') == 2  # In the legend and at its rate.
    values = json.loads(run_command("lr_find", *flags, "--json").out)
    assert len(values["losses"]) == len(values["learning_rates"]) <= 100
    assert f"{values['steepest']:.2g}" in advice and f"{values['lowest']:.2g}" in advice


def test_losses_that_are_never_finite_are_a_wrong_request(tiny_preset, tiny):
    config = tiny_preset("mlp_sequential", hidden=(8,), loss="cross_entropy")
    with pytest.raises(UserError, match="expected a learning rate at which the loss stays finite"):
        range_test(config, tiny, 1e30, 1e31, 50)


def test_without_resvg_a_png_is_refused_before_anything_is_trained(run_command, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    outcome = run_command("lr_find", "--output=a.png")
    outcome.assert_refused("resvg-py is not installed", "pip install 'jaxnets[report]'")


def test_an_exploded_loss_is_cut_in_the_picture(tiny_preset):
    losses = (*np.linspace(2, 1, 20).tolist(), 1e30)
    found = RangeTest(tuple(np.geomspace(0.01, 1, 21).tolist()), losses)
    drawn = plot(Suggestion(found, tiny_preset("softmax"))).standalone()
    assert ">1.5<" in drawn and "e+" not in drawn.replace(">1e+", "")
