"""Early stopping: training ends when the validation loss has stopped falling."""

import numpy as np
import pytest
from conftest import history, params_sha256, read_json, records, slow

from jaxnets.config.resolve import preset
from jaxnets.errors import UserError
from jaxnets.training.observer import why_stopped

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


@pytest.mark.parametrize("when", [slow("within"), "after"])
def test_a_resumed_run_stops_after_the_same_epoch(
    when, stopping_early, run_main, interrupt_after, tmp_path, monkeypatch
):
    stopping_early()
    whole, bits = history(tmp_path / "run"), params_sha256(tmp_path / "run")
    # The signal comes in the middle, or when the last epoch has been logged.
    interrupt_after(3 if when == "within" else len(whole))
    assert stopping_early("--overwrite").status == 130
    monkeypatch.undo()
    outcome = run_main("--resume", f"--workdir={tmp_path / 'run'}")
    assert outcome.status == 0 and "stopped early" in outcome.out
    assert (history(tmp_path / "run"), params_sha256(tmp_path / "run")) == (whole, bits)


def test_a_stopped_run_trains_longer_with_more_patience(stopping_early, run_main, tmp_path):
    stopping_early()
    epochs = len(history(tmp_path / "run"))
    again = "--resume", f"--workdir={tmp_path / 'run'}"
    outcome = run_main(*again, "--early_stopping=4")
    outcome.assert_refused("holds a finished one")
    assert run_main(*again, "--early_stopping=4", "--epochs=41").status == 0
    assert len(history(tmp_path / "run")) > epochs


def test_early_stopping_needs_validation_images(run_main, run_command):
    with pytest.raises(UserError, match="early_stopping watches the validation loss, but no"):
        preset("mlp", early_stopping=2)
    outcome = run_command("search", "--early_stopping=2", "--over=hidden=8,16", "--model=mlp")
    outcome.assert_refused("early_stopping")
