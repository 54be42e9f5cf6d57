"""The slides' procedure replayed, its lines, and many runs side by side."""

import dataclasses
import functools
import io
import re
from typing import Any, cast

import numpy as np
import pytest
from conftest import params_sha256, read_json, slow, watching

from jaxnets.base.errors import UserError
from jaxnets.config.resolve import preset
from jaxnets.course.procedure import Procedure
from jaxnets.course.replay import (
    KerasLog,
    Replay,
    SlideBar,
    choose,
    replay_many,
    table,
)
from jaxnets.experiment import Experiment
from jaxnets.metrics import Metrics
from jaxnets.training.loader import TrainLoader
from jaxnets.training.step import Checkpoint
from jaxnets.tune.train_many import TrainingSummary, can_vmap, held_out, train_many

HAND = ["replay", "--sizes=5,9,7", "--epochs=6", "--learning_rate=1e-3"]


# Many runs side by side


def train_alone(config, data, judge):
    """What train_many must find: the run by itself."""
    experiment = Experiment.create(config, data)
    state, (*_, last) = experiment.train()
    judged = experiment.evaluate(state.params, judge)
    return TrainingSummary(last["train_loss"], last["train_accuracy"], judged.loss, judged.accuracy)


assert_close = functools.partial(np.testing.assert_allclose, rtol=1e-5)


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        slow("mlp_handwritten", {"batch_size": None, "learning_rate": 1e-3}),
        slow("mlp_functional", {}),
        slow("softmax", {"optimizer": "adam", "weight_decay": 1e-3}),
        slow("softmax", {"batch_size": 48}),
        ("softmax", {"schedule": "one_cycle", "momentum": 0.9, "gradients": "manual"}),
    ],
)
@pytest.mark.slow
def test_runs_side_by_side_end_as_each_would_alone(tiny, tiny_preset, model, changes):
    first = tiny_preset(model, **changes)
    runs = [
        dataclasses.replace(first, seed=seed, learning_rate=first.learning_rate * factor)
        for seed, factor in [(0, 1), (1, 1), (1, 0.5)]
    ]
    assert can_vmap(first)
    for config, ours in zip(runs, train_many(runs, tiny, tiny.validation), strict=True):
        assert_close(ours, train_alone(config, tiny, tiny.validation))


@pytest.mark.slow
def test_a_convolution_trains_one_run_after_the_other(tiny, tiny_preset):
    runs = [tiny_preset("cnn", seed=seed, epochs=1, augment="none") for seed in (0, 1)]
    assert not can_vmap(runs[0])
    epochs = []
    watch = [watching(on_epoch_end=lambda record, state: epochs.append(1))]
    found = train_many(runs, tiny, tiny.validation, watch)
    assert len(epochs) == 2
    assert found == [train_alone(config, tiny, tiny.validation) for config in runs]


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.slow
def test_a_run_that_diverges_has_no_loss_and_no_accuracy(tiny, tiny_preset, model):
    changes = {"loss": "cross_entropy", "learning_rate": 1e4, "weight_decay": 1.0}
    (found,) = train_many([tiny_preset(model, augment="none", **changes)], tiny, tiny.validation)
    assert np.isnan(found.loss) and found.accuracy == 0.0


# The replay


def judged(accuracy):
    return TrainingSummary(0.5, 0.85, 0.4, accuracy)


def test_a_twelfth_is_held_out_from_the_front(mnist):
    parts = held_out(mnist)
    assert len(parts.validation) == len(mnist.train) // 12
    assert np.shares_memory(parts.train.images, mnist.train.images)
    np.testing.assert_array_equal(parts.validation.labels[:9], mnist.train.labels[:9])


def test_a_twelfth_of_eleven_images_is_refused(tiny):
    few = dataclasses.replace(tiny, train=tiny.train[:11])
    with pytest.raises(UserError, match="expected 12 training images or more to search, found 11"):
        held_out(few)


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.slow
def test_a_replay_s_networks_end_as_runs_by_themselves(tiny, tiny_preset):
    settings = dict(epochs=3, batch_size=None, learning_rate=1e-3)
    config = tiny_preset("mlp_handwritten", **settings)
    (replay,) = replay_many(config, tiny, Procedure(sizes=(5, 9), search_epochs=4), [3])
    single = functools.partial(dataclasses.replace, config, seed=3)
    parts = held_out(tiny)
    for size, ours in replay.search.items():
        trial = single(hidden=(size,), epochs=4)
        assert_close(ours, train_alone(trial, parts, parts.validation))
    best = single(hidden=(choose(replay.search),))
    assert_close(replay.final, train_alone(best, tiny, tiny.test))


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.slow
def test_the_program_prints_the_slides_lines_and_the_table(run_command, tiny_folder, tmp_path):
    folder = tmp_path / "run"
    flags = [*HAND, "--search_epochs=4", f"--data_dir={tiny_folder}", f"--workdir={folder}"]
    shown = run_command(*flags, "--seeds=3")
    assert shown.status == 0, shown
    number = r"\d\.\d+"
    for line in [
        r"^Start searching the best parameter\.\.\.$",
        rf"^Parameter latent_dims=9, epoch=4  , loss={number} *, accuracy={number} *$",
        rf"^Parameter latent_dims=9, validation_loss={number}, validation_accuracy={number}\.$",
        r"^The best parameter is (5|9|7)\.$",
        r"^Start training the best model\.\.\.$",
        rf"^Training the best model, epoch=6  , loss={number} *, accuracy={number} *$",
        rf"^Evaluate the best model, test loss={number}, accuracy=0\.\d{{6}}\.$",
        r"^ +slide +this run +3 seeds: mean ± sd, from to$",
        rf"^best, anew: test accuracy +0\.9160 +{number} +{number} ± {number}, {number} {number}$",
    ]:
        assert re.search(line, shown.out, re.MULTILINE), (line, shown.out)
    found, config = (read_json(folder / name) for name in ("search.json", "config.json"))
    best = max(found, key=lambda size: found[size]["accuracy"])
    assert config["hidden"] == [int(best)]
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 6


@pytest.mark.slow
def test_a_resumed_replay_comes_to_the_same_end(
    run_command, run_main, interrupt_after, tiny_folder, tmp_path
):
    flags = [*HAND, "--search_epochs=1", "--seeds=2", f"--data_dir={tiny_folder}"]
    run_command(*flags, f"--workdir={tmp_path / 'whole'}")
    cut = f"--workdir={tmp_path / 'cut'}"
    interrupt_after(3)
    stopped = run_command(*flags, cut)
    assert stopped.status == 130
    assert "replay --search_epochs=1 --seeds=2 --resume --workdir=" in stopped.err
    interrupt_after(10**9)
    resumed = run_command("replay", "--search_epochs=1", "--seeds=2", "--resume", cut)
    assert resumed.status == 0 and "searching" not in resumed.out and "2 seeds" in resumed.out
    assert params_sha256(tmp_path / "whole") == params_sha256(tmp_path / "cut")


def test_a_search_that_is_interrupted_keeps_nothing(run_command, monkeypatch, tiny_flags, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(SlideBar, "on_epoch_end", stop)
    outcome = run_command("replay", *tiny_flags)
    assert outcome.status == 130 and "the search keeps nothing" in outcome.err
    assert not (tmp_path / "run").exists()


def test_what_is_no_program_of_the_slides_is_refused(run_command):
    run_command("replay", "--model=cnn").assert_refused("replay: expected a network of the slides")
    run_command("replay", "--hidden=6").assert_refused("hidden: replay compares --sizes")


def test_the_first_of_equals_wins_and_the_table_shows_spread():
    assert choose({100: judged(0.8), 200: judged(0.9), 300: judged(0.9)}) == 200
    one, other = (Replay({100: judged(x)}, judged(x)) for x in (0.9, 0.92))
    lines = table([one, other]).splitlines()
    ours = "0.9000 0.9100 ± 0.0141, 0.9000 0.9200"
    assert " ".join(lines[4].split()) == f"100 validation accuracy 0.7970 {ours}"
    assert " ".join(lines[5].split()) == "best size 200 100 100: 2 times"
    assert "±" not in table([one])


def test_the_slides_bar_stands_on_a_terminal(monkeypatch, capsys):
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", screen)
    bar = SlideBar("Parameter latent_dims=200", 20)
    record: Any = {"epoch": 20, "train_loss": 0.5519253, "train_accuracy": 0.851945}
    bar.on_epoch_end(record, cast(Any, None))
    bar.on_train_end()
    line = "Parameter latent_dims=200, epoch=20 , loss=0.5519253 , accuracy=0.851945"
    assert f"{line}:   5%|" in screen.getvalue() and capsys.readouterr().out == ""


# The slides' lines of Keras


def test_keras_lines_are_the_slides_to_the_last_digit(capsys, tiny):
    record = {"epoch": 45, "train_loss": 0.080445871, "train_accuracy": 0.8864}
    line = "Train Epoch: 45 Loss= 0.080445871 Accuracy= 0.8863999843597412"
    test = dataclasses.replace(Metrics.zero(2), correct=np.int64(8705), count=np.int64(10000))
    log = KerasLog(50, TrainLoader(tiny.train, 32, 0))
    log.on_train_begin(Checkpoint(Experiment.create(preset("softmax"), tiny).init_state()))
    assert (log.epoch_line(record), log.test_line(test)) == (line, "acc: 0.8705")
    log.on_train_end()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_steps")
def test_the_listings_in_keras_print_the_lectures_lines(run_command, tiny_flags):
    shown = run_command("replay", "--model=mlp", *tiny_flags)
    assert re.search(r"^Train Epoch: 02 Loss= 0\.\d{9} Accuracy= 0\.\d+$", shown.out, re.MULTILINE)
    assert re.search(r"^acc: 0\.\d+$", shown.out, re.MULTILINE)
