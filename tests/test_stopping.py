"""Training that stops early or at its target, and epochs that are shorter than a pass."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from conftest import (
    BY_STEPS,
    assert_close,
    history,
    params_sha256,
    read_json,
    records,
    slow,
    write_idx_folder,
)

from jaxnets import Network
from jaxnets.base.errors import UserError
from jaxnets.cli.flags import parse_flags
from jaxnets.config.adapt import OwnData, for_small_set
from jaxnets.config.file import read_flags
from jaxnets.config.resolve import preset
from jaxnets.data.batches import train_batches
from jaxnets.data.datasets import Split
from jaxnets.data.load import load_dataset
from jaxnets.experiment import Experiment
from jaxnets.training import scan
from jaxnets.training.loader import TrainLoader
from jaxnets.training.observer import why_stopped
from jaxnets.training.optimizer import create_schedule

CASES = [  # Losses, a patience, and the epoch after which training stops.
    ([0.5, 0.4, 0.4, 0.3], 2, None),
    ([0.5, 0.4, 0.4, 0.4], 2, 4),  # As low as the lowest is no better.
    ([0.5, 0.6], 1, 2),
    ([0.5, 0.6, 0.4, 0.5, 0.45, 0.41], 3, 6),
]


def first_stop(losses, patience):
    """The epoch after which training ends."""
    records = [{"epoch": n, "validation_loss": loss} for n, loss in enumerate(losses, start=1)]
    ends = (n for n in range(1, len(losses) + 1) if why_stopped(records[:n], patience))
    return next(ends, None)


@pytest.mark.parametrize(("losses", "patience", "epoch"), CASES)
def test_training_stops_after_patience_epochs_without_a_lower_loss(losses, patience, epoch):
    assert first_stop(losses, patience) == epoch


def test_epochs_without_a_validation_loss_are_passed_over():
    """A record may lack it: by another program's hand, or by an earlier version's."""
    assert first_stop([None, 0.3, None, 0.3], 2) == 4
    assert first_stop([None, None, None], 1) is None


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_training_stops_when_kerass_does(patience, keras):
    class Model:
        stop_training = False

    for seed in range(20):
        rng = np.random.default_rng(seed)
        losses = (0.2 + 0.8 ** np.arange(40) + rng.integers(0, 5, 40) / 50).tolist()
        theirs = keras.callbacks.EarlyStopping(monitor="val_loss", patience=patience, mode="min")
        theirs.set_model(model := Model())
        theirs.on_train_begin()
        stopped = None
        for number, loss in enumerate(losses):
            theirs.on_epoch_end(number, {"val_loss": loss})
            if model.stop_training:
                stopped = number + 1
                break
        assert first_stop(losses, patience) == stopped


@pytest.fixture
def stopping_early(train_tiny):
    """A run whose loss falls to 0 in a few epochs, and so no further."""
    settings = ("--epochs=40", "--learning_rate=20", "--early_stopping=2", "--schedule=constant")
    return lambda *flags: train_tiny("softmax", *settings, *flags)


def test_a_run_stops_early_and_says_why(stopping_early, tmp_path):
    outcome = stopping_early()
    assert (outcome.status, outcome.err) == (0, "")
    losses = [record["validation_loss"] for record in records(tmp_path / "run")]
    assert len(losses) < 40 and len(losses) - 1 - losses.index(min(losses)) == 2
    best = losses.index(min(losses)) + 1
    line = f"no validation loss below the {min(losses):.4f} of epoch {best} in 2 epochs"
    assert f"stopped early: {line}" in outcome.out.splitlines()
    result = read_json(tmp_path / "run" / "result.json")
    assert (result["epochs"], result["steps"]) == (len(losses), len(losses) * 5)


def test_one_cycle_is_not_stopped_before_its_rate_has_fallen():
    """The folder's recipe of the report: 160 epochs, patience 40, lowest loss in epoch 6."""
    rate = create_schedule("one_cycle", 2e-3, 160 * 5)
    rates = [float(np.asarray(rate(5 * epoch - 1))) for epoch in range(1, 161)]
    losses = [abs(epoch - 6) for epoch in range(1, 161)]

    def ends(rates, patience=40):
        history = [
            {"epoch": n, "validation_loss": loss, "learning_rate": r}
            for n, (loss, r) in enumerate(zip(losses, rates, strict=True), start=1)
        ]
        return next((n for n in range(1, 161) if why_stopped(history[:n], patience)), None)

    half = max(n for n, r in enumerate(rates, start=1) if r > max(rates) / 2)
    assert rates.index(max(rates)) + 1 == 48 < half < 110
    assert ends(rates) == half + 40 and ends(rates, patience=1) == half + 1
    for name in ("constant", "cosine", "linear", "step"):  # Their rates never rise.
        falls = create_schedule(name, 0.1, 160 * 5)
        assert ends([float(np.asarray(falls(5 * n - 1))) for n in range(1, 161)]) == 46, name
    assert ends([None] * 160) == 46  # A user's own optimizer, whose rate nobody knows.


def test_early_stopping_can_be_never(tmp_path):
    assert parse_flags(["--early_stopping=none"]) == {"early_stopping": None}
    (tmp_path / "flags.toml").write_text('early_stopping = "none"')
    assert read_flags(str(tmp_path / "flags.toml")) == {"early_stopping": None}
    for never in (None, "none"):
        assert preset("cnn", early_stopping=never).early_stopping is None
    few = OwnData(60, ("a1", "b1"), False, True, 12288, is_folder=True)
    assert for_small_set(preset("cnn"), (), few)[0].early_stopping
    assert for_small_set(preset("cnn"), ("early_stopping",), few)[0].early_stopping is None
    with pytest.raises(UserError, match="expected a whole number from 1 to 1000000 or none"):
        preset("cnn", early_stopping=0)


def test_a_stopped_run_trains_longer_with_more_patience(stopping_early, run_main, tmp_path):
    stopping_early()
    epochs = len(history(tmp_path / "run"))
    again = "--resume", f"--workdir={tmp_path / 'run'}"
    outcome = run_main(*again, "--early_stopping=4")
    outcome.assert_refused("holds a finished one")
    assert run_main(*again, "--early_stopping=4", "--epochs=41").status == 0
    assert len(history(tmp_path / "run")) > epochs


# At the target, and epochs that are shorter than a pass over the images

STOP = ("--target_accuracy=0.9", "--stop_at_target", "--epochs=40", "--steps_per_epoch=2")


def test_training_stops_after_the_first_epoch_that_reaches_the_target():
    def reason(*accuracies, **arguments):
        records = [
            {"epoch": n, "validation_accuracy": accuracy, "validation_loss": 1 / n}
            for n, accuracy in enumerate(accuracies, start=1)
        ]
        return why_stopped(records, **arguments)

    assert reason(target=0.9) is None
    assert reason(0.8, 0.8999, target=0.9) is None
    assert str(reason(0.8, 0.9, target=0.9)) == (
        "stopped at the target: validation accuracy 0.9000 after epoch 2"
    )
    assert reason(None, target=0.0) is None  # Nothing was validated.
    assert reason(0.1, 0.1, patience=1, target=0.9) is None  # The loss still falls.
    assert str(reason(0.1, 0.95, patience=1, target=0.9)).startswith("stopped at the target")


@pytest.fixture
def train_to_target(train_tiny):
    return lambda *flags: train_tiny("softmax", *STOP, *flags)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", [(), slow("--devices=8", id="eight devices"), slow("--gradients=manual")]
)
def test_a_run_stops_at_its_target_and_says_so(flags, train_to_target, tmp_path):
    outcome = train_to_target(*([flags] if isinstance(flags, str) else flags))
    assert (outcome.status, outcome.err) == (0, "")
    *before, last = records(tmp_path / "run")
    assert len(before) < 39 and all(r["validation_accuracy"] < 0.9 for r in before)
    assert last["validation_accuracy"] >= 0.9
    reached = f"validation accuracy {last['validation_accuracy']:.4f} after epoch {last['epoch']}"
    assert f"stopped at the target: {reached}" in outcome.out.splitlines()
    assert outcome.out.count("test loss") == 1
    result = read_json(tmp_path / "run" / "result.json")
    assert (result["epochs"], result["steps"]) == (last["epoch"], last["step"])
    assert last["step"] == 2 * last["epoch"]


def test_a_run_whose_test_misses_the_target_has_status_1(train_tiny, tiny_arrays, tmp_path):
    wrong = {**tiny_arrays, "t10k-labels": (tiny_arrays["t10k-labels"] + 1) % 3}
    folder = write_idx_folder(tmp_path / "wrong", wrong)
    outcome = train_tiny("softmax", *STOP, f"--data_dir={folder}")
    assert outcome.status == 1 and "stopped at the target" in outcome.out
    assert "target_accuracy: expected a test accuracy of 0.9" in outcome.err


def test_a_target_may_be_set_on_resume(
    train_to_target, run_main, interrupt_after, tmp_path, monkeypatch
):
    interrupt_after(2)
    assert train_to_target("--no_stop_at_target").status == 130
    monkeypatch.undo()
    again = ("--resume", f"--workdir={tmp_path / 'run'}")
    outcome = run_main(*again, "--stop_at_target")
    assert outcome.status == 0 and "stopped at the target" in outcome.out
    run_main(*again).assert_refused("holds a finished one")


def test_short_epochs_are_whole_passes_cut_into_pieces():
    numbers = np.arange(50, dtype=np.int32)
    images = np.broadcast_to(numbers[:, None, None, None], (50, 8, 8, 1)).astype(np.float32)
    loader = TrainLoader(Split(images, numbers), 8, 3, shifts=True, steps_per_epoch=4)
    assert (loader.steps, loader.steps_per_pass, loader.images_in(8)) == (4, 7, 58)
    passes = [list(train_batches(loader.split, 8, seed=3, epoch=n, shifts=True)) for n in range(3)]
    whole = list(itertools.chain(*passes))
    for start, stop in ((0, 4), (4, 8), (6, 8), (0, 21), (7, 14)):
        ours = list(loader.batches(start, stop, slice(None)))
        assert len(ours) == stop - start
        for batch, expected in zip(ours, whole[start:stop], strict=True):
            np.testing.assert_equal(batch, expected)
        order, mask = scan.order_of_steps(loader, start, stop)
        np.testing.assert_array_equal(mask, [batch.mask for batch in whole[start:stop]])
        np.testing.assert_array_equal(order * mask, [b.labels * b.mask for b in whole[start:stop]])


@pytest.mark.slow
def test_an_epoch_of_one_step_takes_its_own_examples(tiny, tiny_preset, float64):
    """In one loop and step by step: a batch is not all examples."""
    config = tiny_preset("mlp", hidden=(8,), precision="float64", steps_per_epoch=1, epochs=3)
    images = tiny.train.images.copy()
    for number, image in enumerate(images):  # A step with all examples sorts them by their black.
        image[number % 12 :] = 0
    train = dataclasses.replace(tiny.train, images=images)
    ours = Experiment.create(config, dataclasses.replace(tiny, train=train))
    assert_close(ours.train()[0].params, ours.train(BY_STEPS)[0].params, 1e-12)


def test_the_fast_recipe_is_the_cnns_and_flags_change_it():
    config = preset("cnn", recipe="fast")
    assert (config.dropout, config.augment, config.optimizer) == (0, "none", "sgd")
    assert config.label_smoothing and config.steps_per_epoch
    assert preset("cnn", recipe="fast", epochs=7).epochs == 7
    assert preset("cnn").label_smoothing == 0


@pytest.mark.slow
def test_network_fit_stops_as_train_py_does(train_to_target, tiny_folder, tmp_path, capsys):
    train_to_target()
    theirs = tmp_path / "run"
    settings: dict[str, Any] = dict(
        data_dir=str(tiny_folder), validation_size=40, batch_size=32, devices=1
    )
    settings |= dict(epochs=40, steps_per_epoch=2, target_accuracy=0.9, stop_at_target=True)
    network = Network("softmax", **settings)
    capsys.readouterr()
    network.fit()
    assert "stopped at the target" in capsys.readouterr().out
    saved = network.save(tmp_path / "saved")
    assert history(saved) == history(theirs)
    assert params_sha256(saved) == params_sha256(theirs)
    assert read_json(saved / "result.json")["epochs"] == len(network.history)


def test_without_validation_images_of_the_data_there_is_no_plateau(tiny_folder, tiny_preset):
    data = load_dataset(data_dir=str(tiny_folder), validation_size=0)
    config = tiny_preset("softmax", schedule="plateau")
    with pytest.raises(UserError, match="plateau watches the validation error"):
        Experiment.create(config, data).init_state()
