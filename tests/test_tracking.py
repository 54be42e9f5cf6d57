"""What follows a run: trackers, and the line of its losses."""

import importlib.machinery
import importlib.util
import io
import json
import math
import sqlite3
import sys
import types
import warnings
from typing import Any

import numpy as np
import pytest
from conftest import read_json, records

from jaxnets.config import fields
from jaxnets.runs.ending import ASCII, BLOCKS, loss_line
from jaxnets.tracking.check import PACKAGES
from jaxnets.tracking.trackers import TRACKERS, trackers_of
from jaxnets.tracking.values import hyperparameters, scalars_of


@pytest.fixture
def wandb(monkeypatch):
    """A package of wandb's names that keeps every call in `calls`; `broken` calls raise."""
    fake: Any = types.ModuleType("wandb")
    fake.__spec__ = importlib.machinery.ModuleSpec("wandb", None, origin="fake")
    calls, broken = [], set()

    def called(name, values):
        print("what a tracker prints")
        calls.append((name, values))
        if name in broken:
            raise OSError(28, "No space left on device")

    class FakeRun:
        id, dir = "key7", "wandb/offline-run/files"

        def define_metric(self, name, step_metric=None):
            """Steps are numbers like others."""

        def log(self, values):
            called("log", values)

        def finish(self, exit_code):
            called("finish", exit_code)

    def init(**values):
        called("init", values)
        return FakeRun()

    fake.init, fake.Histogram, fake.Settings = init, np.array, dict
    fake.calls, fake.broken = calls, broken
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def logged(calls, kind):
    """What was logged of one kind: {name: [(step, value), ...]}."""
    found = {}
    for name, values in calls:
        for key, value in values.items() if name == "log" else ():
            if isinstance(value, kind):
                found.setdefault(key, []).append((values["step"], value))
    return found


def test_a_tracker_gets_config_epochs_and_test(wandb, train_tiny, tmp_path):
    outcome = train_tiny("softmax", "--track=wandb")
    assert outcome.status == 0 and outcome.err == ""
    assert "what a tracker prints" not in outcome.out
    assert "tracked by wandb: wandb sync wandb/offline-run\n" in outcome.out
    (_, began), *rest, last = wandb.calls
    assert (began["name"], began["id"]) == ("run", None) and last == ("finish", 0)
    assert began["config"]["learning_rate"] == 0.5 and began["config"]["hidden"] == "none"
    assert not {"workdir", "coordinator", "track"} & set(began["config"])
    assert {name for name, _ in rest} == {"log"}

    written = records(tmp_path / "run")
    numbers = logged(rest, float)
    for name, key in (("train/loss", "train_loss"), ("validation/accuracy", "validation_accuracy")):
        assert numbers[name] == [(record["step"], record[key]) for record in written]
    result = read_json(tmp_path / "run" / "result.json")
    assert numbers["test/accuracy"] == [(result["steps"], result["test_accuracy"])]
    arrays = logged(rest, np.ndarray)
    steps = [record["step"] for record in written]
    assert [step for step, _ in arrays["weights/logits/kernel"]] == steps
    assert not np.array_equal(*(array for _, array in arrays["weights/logits/kernel"]))


@pytest.mark.slow
def test_a_resumed_run_continues_the_same_tracked_run(wandb, train_tiny, run_main, tmp_path):
    train_tiny("softmax", "--track=wandb")
    wandb.calls.clear()
    workdir = f"--workdir={tmp_path / 'run'}"
    assert run_main("--resume", workdir, "--epochs=3").status == 0
    (_, began), *rest = wandb.calls
    assert (began["id"], began["resume"]) == ("key7", "allow")
    assert logged(rest, float)["epoch"] == [(15, 3.0)]  # No epoch is sent twice.

    wandb.calls.clear()
    assert run_main("--resume", workdir, "--epochs=4", "--track=none").status == 0
    assert not wandb.calls


def test_a_run_tracked_since_its_resume_sends_earlier_epochs(wandb, train_tiny, run_main, tmp_path):
    train_tiny("softmax")
    run_main("--resume", f"--workdir={tmp_path / 'run'}", "--epochs=3", "--track=wandb")
    (_, began), *rest = wandb.calls
    assert began["id"] is None
    assert logged(rest, float)["epoch"] == [(5, 1.0), (10, 2.0), (15, 3.0)]


@pytest.mark.slow
def test_an_interrupted_run_closes_its_trackers(wandb, train_tiny, interrupt_after, tmp_path):
    interrupt_after(4)
    train_tiny("cnn", "--track=wandb").assert_interrupted(tmp_path / "run")
    assert wandb.calls[-1] == ("finish", 1)


def test_a_tracker_that_fails_does_not_end_the_run(wandb, train_tiny, tmp_path):
    wandb.broken.add("log")
    outcome = train_tiny("softmax", "--track=wandb")
    assert (outcome.status, len(records(tmp_path / "run"))) == (0, 2)
    expected = "warning: wandb gets no more data of this run: No space left on device\n"
    assert outcome.err == expected and "tracked by" not in outcome.out


def test_a_tracker_that_cannot_begin_is_one_line(wandb, train_tiny):
    wandb.broken.add("init")
    train_tiny("softmax", "--track=wandb").assert_refused("track: wandb: No space left")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_tracker_without_its_package_is_refused_at_once(name, train_tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    extra = f"pip install 'jaxnets[{name}]'"
    train_tiny("softmax", f"--track={name}").assert_refused("is not installed", extra)
    # A folder of wandb's or mlflow's data in the working folder is no package.
    folder = importlib.machinery.ModuleSpec(name, None, is_package=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: folder)
    train_tiny("softmax", f"--track={name}").assert_refused(extra)
    assert not (tmp_path / "run").exists()


def test_of_several_processes_only_the_first_tracks(wandb, tiny_preset, tmp_path):
    config = tiny_preset("softmax", track="wandb")
    run: Any = types.SimpleNamespace(config=config, processes=types.SimpleNamespace(is_first=False))
    with trackers_of(run) as trackers:
        assert not trackers and not wandb.calls


def test_overwrite_replaces_a_tracked_run(wandb, train_tiny, tmp_path):
    train_tiny("softmax", "--track=wandb", "--epochs=1")
    assert train_tiny("softmax", "--overwrite", "--epochs=1").status == 0
    assert not (tmp_path / "run" / "tracking").exists()


def test_a_strange_run_names_no_tracked_run(wandb, train_tiny, run_main, tmp_path):
    train_tiny("softmax", "--track=wandb")
    folder = tmp_path / "run"
    (folder / "tracking" / "runs.json").write_text('{"wandb": "../../x\\u001b[2J"}')
    wandb.calls.clear()
    assert run_main("--resume", f"--workdir={folder}", "--epochs=3").status == 0
    assert wandb.calls[0][1]["id"] is None


def test_every_tracker_of_the_flag_is_there():
    assert PACKAGES.keys() == TRACKERS.keys() == set(fields.TRACKERS) - {"none"}


def test_what_has_no_number_is_not_sent(tiny_preset):
    record = {"epoch": 1, "step": 5, "train_loss": math.nan, "validation_loss": None}
    assert scalars_of(record) == {"epoch": 1.0}
    sent = hyperparameters(tiny_preset("mlp", hidden=(64, 32)))
    assert sent["hidden"] == "64,32" and sent["momentum"] == 0.0


def stream(encoding):
    return io.TextIOWrapper(io.BytesIO(), encoding)


def losses(*values, validation=True):
    part = (lambda x: x) if validation else (lambda x: None)
    return [{"train_loss": 9 * x, "validation_loss": part(x)} for x in values]


def test_the_losses_are_a_line_of_at_most_80_columns():
    line = loss_line(losses(*np.geomspace(2.3, 0.001, 1000)), 80, stream("utf-8"))
    start, drawn, end = line.removesuffix("\n").rsplit(" ", 2)
    assert (start, end) == ("validation loss 2.3", "0.001") and len(line) <= 80
    heights = [BLOCKS.index(bar) for bar in drawn]  # A geometric series is a straight line.
    assert heights == sorted(heights, reverse=True) and set(heights) == set(range(8))
    narrow = loss_line(losses(*np.geomspace(2.3, 0.001, 1000)), 40, stream("utf-8"))
    assert len(narrow) <= 40


def test_the_losses_are_ascii_where_the_encoding_lacks_blocks():
    line = loss_line(losses(1.0, 0.1, 0.01, validation=False), 80, stream("latin-1"))
    assert line == f"train loss 9 {ASCII[7]}{ASCII[4]}{ASCII[0]} 0.09\n"


def test_equal_zero_and_single_losses():
    assert BLOCKS[0] * 3 in loss_line(losses(0.5, 0.5, 0.5), 80, stream("utf-8"))
    assert BLOCKS[0] * 3 in loss_line(losses(0.0, 0.0, 0.0), 80, stream("utf-8"))
    assert loss_line(losses(0.5), 80, stream("utf-8")) == loss_line([], 80) == ""


def test_a_terminal_shows_the_losses_and_a_pipe_does_not(train_tiny, monkeypatch):
    assert "validation loss 0" not in train_tiny("softmax").out.splitlines()[3]
    monkeypatch.setattr("jaxnets.runs.ending.sys.stdout.isatty", lambda: True)
    *_, line, _, _, _, _ = train_tiny("softmax", "--overwrite").out.splitlines()
    assert line.startswith("validation loss ") and len(line) < 80


# The tools themselves read back what they were given; each where it is installed.


def track(train_tiny, run_main, name, folder):
    """Trains, tracked by one tool, and resumes for another epoch."""
    outcome = train_tiny("softmax", f"--track={name}")
    assert outcome.status == 0, outcome
    resumed = run_main("--resume", f"--workdir={folder}", "--epochs=3")
    assert resumed.status == 0, resumed
    assert f"tracked by {name}: " in resumed.out
    return [(record["step"], record["validation_loss"]) for record in records(folder)]


@pytest.mark.oracle
@pytest.mark.slow
def test_tensorboard_reads_the_events(train_tiny, run_main, tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Theirs, while they are imported.
        module = "tensorboard.backend.event_processing.event_accumulator"
        reader = pytest.importorskip(module, reason="TensorBoard is not installed")
    expected = track(train_tiny, run_main, "tensorboard", tmp_path / "run")
    everything = {"scalars": 0, "histograms": 0}
    events = reader.EventAccumulator(str(tmp_path / "run" / "tracking"), everything)
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("validation/loss")]
    assert found == [(step, pytest.approx(loss)) for step, loss in expected]
    assert [event.step for event in events.Histograms("weights/logits/kernel")] == [5, 10, 15]
    assert events.Histograms("weights/logits/kernel")[0].histogram_value.num == 12 * 12 * 3
    assert [event.step for event in events.Scalars("test/accuracy")][-1] == 15
    assert "_hparams_/session_start_info" in events.summary_metadata


@pytest.mark.oracle
def test_a_run_whose_test_images_stay_closed_is_tracked_without_a_test(train_tiny):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    outcome = train_tiny("softmax", "--no_test", "--track=tensorboard")
    assert outcome.status == 0 and "tracked by tensorboard: " in outcome.out


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Of SQLAlchemy, about MLflow.
def test_mlflow_has_the_run_in_its_store(train_tiny, run_main, monkeypatch, tmp_path):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", str(tmp_path))
    expected = track(train_tiny, run_main, "mlflow", tmp_path / "run")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        query = "SELECT step, value FROM metrics WHERE key = 'validation/loss' ORDER BY step"
        assert database.execute(query).fetchall() == expected
        assert database.execute("SELECT name, status FROM runs").fetchall() == [("run", "FINISHED")]
        params = dict(database.execute("SELECT key, value FROM params").fetchall())
    assert params["batch_size"] == "32"


@pytest.mark.oracle
@pytest.mark.slow
def test_wandb_writes_files_and_connects_nowhere(train_tiny, run_main, monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    expected = track(train_tiny, run_main, "wandb", tmp_path / "run")
    wandb.teardown()  # It waits for the process that writes the files.
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 2 and len({run.name.rpartition("-")[2] for run in runs}) == 1
    content = b"".join(path.read_bytes() for run in runs for path in run.glob("*.wandb"))
    for _, loss in expected:
        assert json.dumps(loss).encode() in content
