"""Training on a folder of pictures: as on an array."""

import dataclasses
import json
import shutil
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import as_flags, assert_close, assert_same, params_sha256, read_json, slow, watching
from PIL import Image

from jaxnets import experiment
from jaxnets.data.datasets import Split
from jaxnets.data.pictures.folder import load_folder
from jaxnets.experiment import Experiment
from jaxnets.training import loop, scan

PARTS = {"train": "train", "t10k": "test"}


@pytest.fixture
def folder(tiny_arrays, tmp_path):
    """The tiny data set as grey PNG files: 200 to train, 50 to test."""
    for part, name in PARTS.items():
        labels = tiny_arrays[f"{part}-labels"]
        for number, (image, label) in enumerate(
            zip(tiny_arrays[f"{part}-images"].astype(np.uint8), labels, strict=True)
        ):
            path = tmp_path / "set" / name / f"class {label}" / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return tmp_path / "set"


@pytest.fixture
def flags(folder, tmp_path):
    return as_flags(dataset=folder, batch_size=32, epochs=2, devices=1, workdir=tmp_path / "run")


# Prints how many heaps glibc has once a process has read a folder of pictures.
def trained(data, config):
    """The parameters and the test's metrics, and the epochs' records."""
    ours = Experiment.create(config, data)
    state, history = ours.train()
    return (state.params, ours.evaluate(state.params, data.test)), history


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", pytest.param("cnn", marks=pytest.mark.slow)])
def test_pictures_train_to_the_bits_of_their_array(folder, tiny_preset, model, monkeypatch):
    data, config = load_folder(folder), tiny_preset(model, epochs=1, hidden=(16,))
    assert data.class_names == ("class 0", "class 1", "class 2")
    assert data.image_shape == (12, 12, 1)
    parts = {name: getattr(data, name) for name in ("train", "validation", "test")}
    arrays = {name: Split(np.asarray(part.images), part.labels) for name, part in parts.items()}
    expected, _ = trained(dataclasses.replace(data, **arrays), config)
    stored, (record,) = trained(data, config)
    assert_same(stored, expected)
    assert (record["data_seconds"] == 0) == (model == "mlp")  # One loop waits for no batch.
    # Pictures that are too many for memory are trained on step by step.
    monkeypatch.setattr(experiment, "MAX_SCAN_BYTES", 100)
    monkeypatch.setattr(scan, "scanned_epoch", None)
    (params, _), _ = trained(data, config)
    assert_close(params, expected[0], 1e-6)


# Runs


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ["--model=cnn", "--devices=2"],
        ["--model=cnn", "--gradients=manual"],
        ["--model=cnn", "--decode_size=20", "--augment=shift"],
        ["--model=mlp", "--gradients=both"],
        ["--model=mlp_sequential", "--devices=2"],
        ["--model=mlp_handwritten"],
    ],
    ids=str,
)
def test_every_way_to_train_takes_a_folder(run_main, flags, tmp_path, more):
    outcome = run_main(*flags, "--epochs=1", "--hidden=16", *more)
    assert (outcome.status, outcome.err) == (0, "")
    result = read_json(tmp_path / "run" / "result.json")
    assert (result["dataset"], result["test_count"]) == ("set", 50)


@pytest.mark.slow
def test_an_interrupted_run_resumes_and_leaves_no_thread(
    run_main, flags, folder, tmp_path, interrupt_after
):
    # By steps, as every gradient is checked, from a network that compiles at once.
    more = as_flags(model="softmax", gradients="both", augment="shift,crop,flip,mixup", epochs=3)
    flags = [*flags, *more]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_main(*flags, f"--workdir={whole}").status == 0
    flags.append(f"--workdir={parts}")
    for number, count in enumerate((3, 7)):
        interrupt_after(count)
        run_main(*flags, *(["--resume"] if number else [])).assert_interrupted(parts)
        assert not [thread for thread in threading.enumerate() if "prefetch" in thread.name]
    interrupt_after(10**9)
    assert run_main(*flags, "--resume").status == 0
    assert params_sha256(parts) == params_sha256(whole)
    for record in map(json.loads, (parts / "metrics.jsonl").read_text().splitlines()):
        assert 0 < record["data_seconds"] < record["seconds"]
    shutil.copy(*sorted(folder.rglob("*.png"))[:2])
    changed = run_main(*flags, "--resume", "--epochs=4")
    changed.assert_refused(f"resume: expected the data of {folder} with SHA-256 ")


@pytest.mark.slow
def test_a_bad_picture_is_one_line(run_main, flags, folder):
    path = sorted(folder.rglob("*.png"))[3]
    path.write_text("no picture")
    flags = ["--model=softmax", *flags]
    outcome = run_main(*flags)
    assert outcome.status == 0
    assert outcome.err.startswith("note: 1 bad picture is skipped: ")
    assert outcome.err.count("\n") == 1


def test_pictures_too_small_for_the_network_are_refused(run_main, flags):
    run_main("--model=cnn", *flags, "--decode_size=4").assert_refused("too small")


# The time spent waiting


class Slow:
    """Images of which a batch takes its time."""

    def __init__(self, images, take_time):
        self.images, self.take_time, self.shape = images, take_time, images.shape

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.take_time()
        return self.images[index]


@pytest.mark.parametrize(("making", "step"), [slow(3.0, 0.0), slow(0.0, 2.0), slow(3.0, 2.0)])
def test_data_seconds_are_those_that_the_step_waited(tiny, tiny_preset, monkeypatch, making, step):
    """Without the thread, which would make a batch during a step: tests/test_data.py."""
    now = 0.0

    def wait(seconds):
        nonlocal now
        now += seconds

    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(loop, "prefetch", lambda batches: (batch for batch in batches))
    images = Slow(tiny.train.images, lambda: wait(making))
    data = dataclasses.replace(tiny, train=Split(images, tiny.train.labels))
    ours = Experiment.create(tiny_preset("cnn", epochs=1, batch_size=8), data)
    watch = [watching(on_steps_end=lambda count, metrics: wait(step))]
    ((_, record),) = ours.epochs(loop.Checkpoint(ours.init_state()), watch)
    assert record["data_seconds"] == 20 * making


@pytest.mark.slow
def test_validation_seconds_are_those_of_the_evaluation(tiny, tiny_preset, monkeypatch):
    now = 0.0

    def read():
        nonlocal now
        now += 5.0

    clock = SimpleNamespace(perf_counter=lambda: now)
    monkeypatch.setattr(experiment, "time", clock)
    monkeypatch.setattr(loop, "time", clock)
    validation = Split(Slow(tiny.validation.images, read), tiny.validation.labels)
    ours = Experiment.create(
        tiny_preset("softmax", epochs=2), dataclasses.replace(tiny, validation=validation)
    )
    assert [record["validation_seconds"] for record in ours.train()[1]] == [5.0, 5.0]


@pytest.mark.usefixtures("quick_steps")
def test_what_fails_in_the_thread_ends_the_run(tiny, tiny_preset):
    def read():
        raise OSError("the disk is gone")

    split = Split(Slow(tiny.train.images, read), tiny.train.labels)
    with pytest.raises(OSError, match="the disk is gone"):
        trained(dataclasses.replace(tiny, train=split), tiny_preset("cnn"))
    assert not [thread for thread in threading.enumerate() if "prefetch" in thread.name]
