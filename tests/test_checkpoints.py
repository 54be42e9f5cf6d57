"""When a run saves, what it keeps, and what it does about checkpoints that are damaged."""

import json
import shutil

import numpy as np
import pytest

from jaxnets.runs import checkpoint_timer as pace
from jaxnets.runs.checkpoint_timer import CheckpointTimer
from jaxnets.runs.run_folder import RunFolder

RECORD = {"epoch": 1, "seconds": 1.0, "train_loss": 1.0, "train_accuracy": 0.5}


def result(folder):
    return json.loads((folder / "result.json").read_text())["params_sha256"]


def history(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    times = {"seconds", "data_seconds", "images_per_second"}
    return [{k: v for k, v in json.loads(line).items() if k not in times} for line in lines]


def steps(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


# When


@pytest.mark.parametrize(
    ("every", "expected"),
    [("3steps", [3, 6, 9, 12]), ("1epoch", [5, 10]), ("2epochs", [10]), ("20steps", [])],
)
def test_steps_and_epochs_are_counted_from_the_beginning(every, expected):
    from jaxnets.config.fields import preset

    interval = preset("cnn", checkpoint_every=every).checkpoint_interval
    for begin in (0, 4, 7):  # Resumed there.
        ours, saved = CheckpointTimer(*interval, steps_per_epoch=5, step=begin), []
        for step in range(begin, 13):
            if ours.due(step):
                ours.saved(step)
                saved.append(step)
        assert saved == [step for step in expected if step > begin]


@pytest.mark.parametrize(("every", "seconds"), [("30seconds", 30), ("1minute", 60)])
def test_time_is_counted_from_the_last_save(monkeypatch, every, seconds):
    from jaxnets.config.fields import preset

    now = 1e6
    monkeypatch.setattr(pace.time, "monotonic", lambda: now)
    ours = CheckpointTimer(*preset("cnn", checkpoint_every=every).checkpoint_interval, 5, 0)
    for _ in range(2):
        now += seconds - 1
        assert not ours.due(100)
        now += 1
        assert ours.due(100)
        ours.saved(100)


@pytest.mark.parametrize("wrong", ["5", "steps", "0steps", "-1epochs", "1.5minutes", "2hours", ""])
def test_an_interval_that_is_none_is_refused(run_main, tiny_flags, wrong):
    outcome = run_main("--model=cnn", *tiny_flags, f"--checkpoint_every={wrong}")
    outcome.assert_refused(
        "checkpoint_every: expected a number and a unit as 500steps", repr(wrong)
    )
    run_main("--model=cnn", *tiny_flags, "--keep=0").assert_refused("keep: expected")


@pytest.mark.parametrize(
    ("model", "expected"), [("cnn", [3, 6, 9, 10]), ("mlp_sequential", [5, 10])]
)
def test_from_any_checkpoint_a_run_goes_on_to_the_same_bits(
    run_main, tiny_flags, tmp_path, model, expected
):
    flags = [f"--model={model}", *tiny_flags]
    assert run_main(*flags, f"--workdir={tmp_path / 'plain'}").status == 0
    whole = tmp_path / "run"
    assert run_main(*flags, "--checkpoint_every=3steps", "--keep=9").status == 0
    assert result(whole) == result(tmp_path / "plain")  # Saving changes nothing.
    assert steps(whole) == expected
    for step in expected[:-1]:
        part = shutil.copytree(whole, tmp_path / str(step))
        (part / "result.json").unlink()
        for later in expected[expected.index(step) + 1 :]:
            shutil.rmtree(part / "checkpoints" / str(later))
        # What does not change the result may be changed.
        outcome = run_main("--resume", f"--workdir={part}", "--checkpoint_every=4steps", "--keep=1")
        assert (outcome.status, outcome.err) == (0, "")
        assert result(part) == result(whole) and history(part) == history(whole)


# What


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    scores = [0.5, 0.9, 0.7, 0.9, 0.8, None, 0.1]
    folder = RunFolder.create(str(tmp_path / "run"), "cnn")
    for number, score in enumerate(scores, start=1):
        if number == 4:  # Resumed: the best is still known.
            folder.close()
            folder = RunFolder(folder.path)
        folder.keep = 2
        folder.log({**RECORD, "step": 10 * number, "validation_accuracy": score})
        folder.save(10 * number, {"x": np.full(3, number)})
        folder.save(10 * number + 5, {"x": np.full(3, number)})  # In the middle of an epoch.
    folder.close()
    assert steps(folder.path) == [20, 70, 75]


# Damage


def truncate(checkpoint):
    for path in checkpoint.rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:10])


def empty(checkpoint):
    for path in checkpoint.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def overwrite_with_noise(checkpoint):
    for path in checkpoint.rglob("*"):
        if path.is_file():
            path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def remove_content(checkpoint):
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


@pytest.mark.parametrize("damage", [truncate, empty, overwrite_with_noise, remove_content])
def test_the_checkpoint_before_a_damaged_one_is_used_and_that_is_said(
    run_main, tiny_flags, tmp_path, damage
):
    run = tmp_path / "run"
    assert run_main("--model=softmax", *tiny_flags, "--checkpoint_every=1epoch").status == 0
    whole, records = result(run), history(run)
    (run / "result.json").unlink()
    assert steps(run) == [5, 10]
    damage(run / "checkpoints" / "10")
    outcome = run_main("--resume", f"--workdir={run}")
    assert outcome.status == 0
    assert outcome.err.startswith(f"warning: {run / 'checkpoints' / '10'}: cannot be restored: ")
    assert outcome.err.endswith("; going on from step 5\n") and outcome.err.count("\n") == 1
    assert "epoch 1/2" not in outcome.out and "epoch 2/2" in outcome.out
    assert result(run) == whole and history(run) == records
    assert steps(run) == [5, 10]


def test_a_checkpoint_of_another_network_is_not_used(run_main, tiny_flags, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    every = "--checkpoint_every=1epoch"
    assert run_main("--model=mlp_functional", *tiny_flags, every, f"--workdir={other}").status == 0
    assert run_main("--model=softmax", *tiny_flags, every).status == 0
    whole = result(run)
    (run / "result.json").unlink()
    shutil.rmtree(run / "checkpoints" / "10")
    shutil.copytree(other / "checkpoints" / "10", run / "checkpoints" / "10")
    outcome = run_main("--resume", f"--workdir={run}")
    assert outcome.status == 0 and outcome.err.endswith("; going on from step 5\n")
    assert result(run) == whole


def test_where_every_checkpoint_is_damaged_the_run_is_refused_and_left_alone(
    run_main, tiny_flags, tmp_path
):
    run = tmp_path / "run"
    assert run_main("--model=softmax", *tiny_flags, "--checkpoint_every=1epoch").status == 0
    (run / "result.json").unlink()
    for step in (5, 10):
        truncate(run / "checkpoints" / str(step))
    outcome = run_main("--resume", f"--workdir={run}")
    assert outcome.status == 2 and outcome.err.count("\n") == 1
    assert f"error: {run / 'checkpoints'}: cannot be restored: " in outcome.err
    assert steps(run) == [5, 10] and len(history(run)) == 2
