"""The run folder: what it holds, what it survives, and how a run is resumed in it."""

import errno
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from conftest import (
    history,
    params_sha256,
    read_json,
    records,
    saved_params,
    slow,
    write_idx_folder,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxnets.base.errors import RunFailedError
from jaxnets.config.fields import Config
from jaxnets.config.resolve import config_from_json, preset
from jaxnets.data.load import load_dataset
from jaxnets.experiment import Experiment
from jaxnets.report.figures import learning_figures
from jaxnets.report.run_facts import read_run
from jaxnets.runs.run_folder import CONFIG, SEARCH, ReplicaRunFolder, RunFolder, make_folder
from jaxnets.runs.stopping import ends_in_one_line

RECORD = [
    "epoch", "step", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy",
    "learning_rate", "seconds", "data_seconds", "validation_seconds", "images_per_second",
]  # fmt: skip
RESULT = [
    "model", "dataset", "num_params", "epochs", "steps", "seconds", "validation_seconds",
    "train_loss", "validation_accuracy", "validation_count", "test_loss", "test_accuracy",
    "test_top5_accuracy", "test_count", "gradients", "num_devices", "platform", "params_sha256",
]  # fmt: skip


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_has_its_files_the_result_last(finished_run):
    names = sorted(path.name for path in finished_run.folder.iterdir())
    assert names == ["checkpoints", "config.json", "metrics.jsonl", "result.json"]
    written = {path.name: path.stat().st_mtime_ns for path in content(finished_run.folder)}
    assert written.pop("result.json") >= max(written.values())


def test_config_json_has_all_that_reproduces_the_run(finished_run, tiny):
    config = read_json(finished_run.folder / "config.json")
    expected = {
        "device_platform": "cpu", "num_devices": 1, "data_sha256": tiny.checksum,
        "cores": len(os.sched_getaffinity(0)),
        "class_names": ["0", "1", "2"], "image_shape": [12, 12, 1], "num_classes": 3,
    }  # fmt: skip
    assert {key: config[key] for key in expected} == expected
    others = {"versions", "device", "processor", "command"}
    assert set(config) == {*Config.__dataclass_fields__, *others, *expected}
    versions = config["versions"]
    assert set(versions) == {"jaxnets", "python", "jax", "jaxlib", "flax", "optax", "numpy"}
    assert versions["numpy"] == np.__version__
    names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    assert config["processor"].startswith(names[0] if names else "")
    assert config["processor"].endswith(platform.machine())
    assert config_from_json(config) == preset(
        "cnn", data_dir=config["data_dir"], validation_size=40, batch_size=4, epochs=20,
        learning_rate=0.01, workdir=str(finished_run.folder),
    )  # fmt: skip


def test_metrics_jsonl_has_an_epoch_a_line_as_the_result(finished_run):
    history = records(finished_run.folder)
    assert [record["epoch"] for record in history] == list(range(1, 21))
    for record in history:
        assert list(record) == RECORD
        assert record["step"] == 40 * record["epoch"]
        assert all(np.isfinite(value) for value in record.values())
        assert (record["train_accuracy"] * 160) % 1 == pytest.approx(0, abs=1e-9)
        assert 0 < record["data_seconds"] < record["seconds"]
        assert record["images_per_second"] == pytest.approx(160 / record["seconds"])
    result = read_json(finished_run.folder / "result.json")
    assert list(result) == RESULT
    expected = {
        "model": "cnn", "dataset": "tiny", "epochs": 20, "steps": 800, "test_count": 50,
        "validation_count": 40,
        # 9 * 32 + 32 + 9 * 32 * 64 + 64 + 1 * 1 * 64 * 256 + 256 + 256 * 3 + 3
        "num_params": 36_227, "gradients": "auto", "num_devices": 1, "platform": "cpu",
        "train_loss": history[-1]["train_loss"],
        "validation_accuracy": history[-1]["validation_accuracy"],
        "seconds": pytest.approx(sum(record["seconds"] for record in history)),
        "validation_seconds": pytest.approx(sum(r["validation_seconds"] for r in history)),
    }  # fmt: skip
    assert {key: result[key] for key in expected} == expected
    assert f"accuracy {result['test_accuracy']:.4f}" in finished_run.outcome.out
    assert (result["test_accuracy"] * 50) % 1 == pytest.approx(0, abs=1e-9)


def test_the_digest_is_of_the_saved_parameters_by_leaf(finished_run):
    step, saved = saved_params(finished_run.folder)
    assert step == 800
    digest = hashlib.sha256()
    for layer in ("conv1", "conv2", "hidden", "logits"):  # JAX sorts the keys of a dict.
        for name in ("bias", "kernel"):
            leaf = saved[f"params/{layer}/{name}"]
            assert leaf.dtype == np.float32
            digest.update(leaf.tobytes())
    assert digest.hexdigest() == params_sha256(finished_run.folder)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch, call):
    folder = RunFolder.create(str(tmp_path / "run"), "cnn")
    folder.write("config.json", {"seed": 1})
    full = Mock(side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    monkeypatch.setattr(os, call, full)
    monkeypatch.setattr("pathlib.Path.replace", full)
    for name in (CONFIG, "result.json"):
        with pytest.raises(OSError, match="No space left"):
            folder.write(name, {"seed": 2})
    assert read_json(tmp_path / "run" / "config.json") == {"seed": 1}
    assert sorted(p.name for p in folder.path.iterdir()) == ["config.json", "metrics.jsonl"]


@pytest.mark.slow
def test_the_default_folder_has_model_and_time_never_twice(tmp_path, monkeypatch):
    """Fifty times eight threads ask at once, all in the same second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "20260101-000000")
    monkeypatch.setattr("jaxnets.base.files.sync_folder", lambda path: None)
    together = threading.Barrier(8)

    def make(_):
        together.wait()
        return make_folder(None, "mlp")

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(make, range(8 * 50)))
    name = "mlp-20260101-000000"
    expected = {name, *(f"{name}-{number}" for number in range(2, 401))}
    assert len(made) == 400 and set(made) == {tmp_path / "runs" / name for name in expected}


@pytest.mark.slow
def test_folders_of_any_name_train_resume_and_predict(
    train_tiny, run_command, tmp_path, monkeypatch, interrupt_after
):
    monkeypatch.chdir(tmp_path)
    interrupt_after(10**9)
    assert train_tiny("softmax").status == 0
    Image.new("L", (12, 12), 200).save("grey.png")
    for name in (r"a\b", "gs:", "gs://a", "*", "é 数", os.fsdecode(b"\xff\xfe")):
        interrupt_after(1)
        assert train_tiny("softmax", f"--workdir={name}").status == 130
        interrupt_after(10**9)
        outcome = train_tiny("softmax", f"--workdir={name}", "--resume")
        assert (outcome.status, outcome.err) == (0, ""), name
        assert params_sha256(tmp_path / name) == params_sha256(tmp_path / "run")
        assert run_command("predict", name, "grey.png").status == 0


@pytest.mark.slow
def test_a_folder_of_any_name_in_an_ascii_locale(run_python, tiny_flags, tmp_path):
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    run = tmp_path / "é"
    Image.new("L", (12, 12), 200).save(tmp_path / "grey.png")
    for more in ([], ["--resume", "--epochs=3"]):
        flags = ["--model=softmax", "--schedule=constant", *tiny_flags, f"--workdir={run}", *more]
        outcome = run_python("train.py", *flags, env=ascii_only)
        assert outcome.status == 0, outcome
    assert len(records(run)) == 3
    predict = ("-m", "jaxnets", "predict", run, tmp_path / "grey.png")
    assert run_python(*predict, env=ascii_only).status == 0


def test_a_run_saved_before_it_trains_predicts_nothing(
    train_tiny, run_command, tmp_path, interrupt_after
):
    interrupt_after(0)
    assert train_tiny("softmax").status == 130
    assert os.listdir(tmp_path / "run" / "checkpoints") == ["0.safetensors"]
    run_command("predict", tmp_path / "run", "any.png").assert_refused(
        "checkpoints: no checkpoint of a trained network, only that of step 0, before training"
    )
    interrupt_after(10**9)
    assert train_tiny("softmax", "--resume").status == 0
    assert os.listdir(tmp_path / "run" / "checkpoints") == ["10.safetensors"]


@pytest.mark.parametrize("content", ["", None, "lines lost"])
def test_a_run_without_its_history_is_refused(train_tiny, tmp_path, content):
    run = tmp_path / "run"
    assert train_tiny("softmax").status == 0
    (run / "result.json").unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").unlink()
    if content is not None:
        (run / "metrics.jsonl").write_text(lines[1] if content else "")
    outcome = train_tiny("softmax", "--resume")
    found = (
        "cannot be read"
        if content is None
        else ("expected a line for each of the 2 epochs before the checkpoint of step 10, found ")
    )
    outcome.assert_refused(f"{run / 'metrics.jsonl'}: {found}")


FINITE = st.floats(allow_nan=False, allow_infinity=False)
RECORDS = st.fixed_dictionaries(
    {name: st.integers(1, 2**63 - 1) for name in ("epoch", "step")}
    | {name: FINITE for name in RECORD[2:]}
    | {name: FINITE | st.none() for name in RECORD if name.startswith("validation")}
)


@given(st.lists(RECORDS, max_size=3))
def test_whatever_a_run_writes_is_read_back_bit_by_bit(written):
    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(Path(path))
        (folder.path / "metrics.jsonl").touch()
        for record in written:
            folder.log(record)
        assert repr(folder.records()) == repr(written)  # By repr -0.0 is another number than 0.0.


@pytest.mark.slow
def test_a_run_with_a_huge_loss_is_resumed_and_read(train_tiny, tmp_path):
    flags = ["--hidden=16,16", "--loss=cross_entropy", "--learning_rate=1e4"]
    assert train_tiny("mlp", *flags).status == 0
    assert train_tiny("mlp", "--resume", "--epochs=3").status == 0
    losses = [record["train_loss"] for record in records(tmp_path / "run")]
    assert len(losses) == 3 and losses[0] > 2**63
    read = read_run(str(tmp_path / "run"))
    assert (read.column("train_loss"), read.missing) == (losses, [])
    assert learning_figures([read])


@pytest.mark.parametrize("beside", ["run-2", "other"])
def test_an_error_beside_the_run_has_its_own_message(tmp_path, beside):
    full = OSError(errno.ENOSPC, "full", str(tmp_path / beside / "file"))
    with (
        pytest.raises(OSError, match="full") as raised,
        ends_in_one_line(tmp_path / "run"),
    ):
        raise full
    assert raised.value is full
    inside = OSError(errno.ENOSPC, "full", str(tmp_path / "run" / "file"))
    with (
        pytest.raises(RunFailedError, match="resume"),
        ends_in_one_line(tmp_path / "run"),
    ):
        raise inside


@pytest.mark.usefixtures("quick_steps")
def test_a_record_has_its_last_rate_validation_where_a_set(tiny_folder, tiny_preset):
    data = load_dataset(data_dir=str(tiny_folder), validation_size=0)
    changes = dict(validation_size=0, batch_size=40, schedule="cosine", learning_rate=0.5)
    _, history = Experiment.create(tiny_preset("softmax", **changes, epochs=4), data).train()
    expected = [0.25 * (1 + np.cos(np.pi * (5 * epoch - 1) / 20)) for epoch in (1, 2, 3, 4)]
    assert [record["learning_rate"] for record in history] == pytest.approx(expected, rel=1e-5)
    for record in history:
        assert [record[name] for name in RECORD if name.startswith("validation")] == [None] * 3


def test_a_folder_that_holds_a_run_is_kept_without_overwrite(train_tiny, tmp_path):
    run = tmp_path / "run"
    run.mkdir()  # No run has begun in it: a process was killed before config.json was whole.
    (run / "metrics.jsonl").touch()
    (run / "config.json.partial").write_text('{"mod')
    assert train_tiny("softmax").status == 0
    assert not (run / "config.json.partial").exists()
    before = content(run)
    train_tiny("softmax", "--seed=1").assert_refused("already holds a run")
    assert content(run) == before
    assert train_tiny("softmax", "--seed=1", "--overwrite").status == 0
    assert read_json(run / "config.json")["seed"] == 1 and len(records(run)) == 2


def test_what_another_process_sends_is_written_nowhere(finished_run, tmp_path):
    """Whoever reaches the coordinator could send it (reviewed as code execution by ~/.bashrc)."""
    opened = RunFolder.open(str(finished_run.folder))
    before, snapshot = content(opened.path), opened.snapshot()
    snapshot |= {"files": {str(tmp_path / "victim"): "x"}, str(tmp_path / "victim"): "x"}
    with ReplicaRunFolder(json.loads(json.dumps(snapshot))) as replica:
        assert replica.path == opened.path
        assert replica.read(CONFIG) == opened.read(CONFIG) and not replica.read(SEARCH)
        assert replica.records() == opened.records()
        replica.log({**replica.records()[-1], "epoch": 21, "step": 840})
        assert replica.records()[-1]["epoch"] == 21
        replica.drop_records_after(40, epochs=1)
        assert replica.records() == opened.records()[:1]
        for name in (CONFIG, SEARCH):
            replica.write(name, {"seed": 1})
            assert replica.read(name) == {"seed": 1}
        replica.save(840, {"x": np.ones(1)})
        replica.finish({})
    assert content(opened.path) == before and not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_first_ends(
    run_main, start_python, tiny_flags, tmp_path, interrupt_after
):
    code = (
        "import sys, train; from jaxnets.base.errors import run_main\n"
        "from jaxnets.training import loop\n"
        "loop.accumulate_metrics = lambda *_: (print('training', flush=True), sys.stdin.read()); "
        "sys.exit(run_main(train.main))"
    )
    flags = ["--model=cnn", *tiny_flags]
    with start_python("-c", code, *flags, stdin=subprocess.PIPE) as process:
        assert "training" in [process.stdout.readline().strip() for _ in range(2)]
        before = content(tmp_path / "run")
        for more in ([], ["--overwrite"], ["--resume"]):
            outcome = run_main(*flags, *more)
            outcome.assert_refused("another process is training in", str(tmp_path / "run"))
        assert content(tmp_path / "run") == before
        process.kill()
        process.communicate()
    interrupt_after(1)
    assert run_main(*flags, "--resume").status == 130
    run_main(*flags).assert_refused("already holds a run")  # A refusal releases the lock, too.
    assert run_main(*flags, "--overwrite").status == 130


def test_without_locks_a_run_says_so_and_trains(train_tiny, tmp_path, monkeypatch):
    refuse = Mock(side_effect=OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)))
    monkeypatch.setattr("fcntl.flock", refuse)
    without_locks = train_tiny("softmax")
    monkeypatch.setitem(sys.modules, "fcntl", None)  # As an import that fails.
    without_fcntl = train_tiny("softmax", "--overwrite")
    warning = f": nothing keeps a second process out of {tmp_path / 'run'}\n"
    assert without_locks.err == f"warning: cannot be locked (No locks available){warning}"
    assert without_fcntl.err == f"warning: this platform has no fcntl{warning}"
    assert without_locks.status == without_fcntl.status == 0


PLATEAU = "softmax --epochs=7 --schedule=plateau --patience=2 --learning_rate=0.5"
EARLY = "softmax --epochs=40 --learning_rate=20 --early_stopping=2 --schedule=constant"
PARTS = "--steps_per_epoch=3 --epochs=4 --augment=shift --schedule=one_cycle"
MUON = "--optimizer=muon --label_smoothing=0.1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "questions"),
    [
        slow("cnn --epochs=3", (0, 3, 5, 1), id="at any step"),
        slow("mlp_functional --epochs=3", (0, 0, 0, 1, 1), id="between epochs in one loop"),
        # In the middle of a plateau's waiting, of an epoch, and right after a drop.
        slow(f"{PLATEAU} --gradients=both", (7, 3, 11), id="plateau, at any step"),
        slow(PLATEAU, (1, 1, 1, 1), id="plateau in one loop"),
        slow(f"{PLATEAU} --devices=8 --parallel=pmap", (1, 1, 1, 1), id="plateau, pmapped"),
        slow(f"{PLATEAU} --devices=8 --parallel=shard_map", (1, 3), id="plateau, shard_mapped"),
        slow(EARLY, (3,), id="before it stops early"),
        slow(EARLY, (None,), id="when it would stop early"),
        # Five steps are a pass: epochs of three begin and end within one, and cross its end.
        pytest.param(f"softmax {PARTS}", (2,), id="epochs shorter than a pass"),
        slow(f"cnn {PARTS} {MUON}", (7,), id="within one of them, by muon"),
    ],
)
def test_a_run_interrupted_again_and_again_ends_the_same(
    train_tiny, run_main, tmp_path, interrupt_after, flags, questions
):
    """After so many questions whether to stop; None: after the last epoch."""
    whole, parts = tmp_path / "whole", tmp_path / "run"
    left_alone = train_tiny(*flags.split(), f"--workdir={whole}")
    assert left_alone.status == 0
    for number, count in enumerate(questions):
        interrupt_after(len(records(whole)) if count is None else count)
        resume = ["--resume"] if number else []
        train_tiny(*flags.split(), *resume).assert_interrupted(parts)
        assert not (parts / "result.json").exists()
    interrupt_after(10**9)
    with (parts / "metrics.jsonl").open("a") as stream:
        stream.write('{"epoch": 3, "st')  # As a crash cuts it short.
    outcome = run_main("--resume", f"--workdir={parts}")  # It needs nothing else.
    assert (outcome.status, outcome.err) == (0, "")
    assert params_sha256(parts) == params_sha256(whole) and history(parts) == history(whole)
    assert ("stopped early" in outcome.out) == ("stopped early" in left_alone.out)


def test_resume_refuses_what_would_be_another_run(
    train_tiny, tmp_path, interrupt_after, tiny_arrays
):
    run = tmp_path / "run"
    train_tiny("softmax", "--resume").assert_refused("error: expected a run folder")
    assert not run.exists()
    interrupt_after(1)
    assert train_tiny("softmax").status == 130
    before = content(run)
    changes = "--learning_rate=0.25", "--epochs=1", "--steps_per_epoch=3"
    outcome = train_tiny("mlp", "--resume", *changes)
    outcome.assert_refused(
        f"resume: expected the settings of {run}: model was softmax, got mlp; "
        "learning_rate was 0.5, got 0.25; steps_per_epoch was None, got 3; "
        "epochs was 2, got 1 (it may only grow)"
    )
    changed = {**tiny_arrays, "t10k-images": 255 - tiny_arrays["t10k-images"]}
    folder = write_idx_folder(tmp_path / "other", changed)
    train_tiny("softmax", "--resume", f"--data_dir={folder}").assert_refused(
        "resume: expected the data of mnist in", f"got mnist in {folder} with"
    )
    assert content(run) == before
    interrupt_after(10**9)
    assert train_tiny("softmax", "--resume").status == 0
    before = content(run)
    finished = train_tiny("softmax", "--resume")
    finished.assert_refused("finished one (epochs above 2 continue it)")
    assert content(run) == before
    os.truncate(run / "config.json", 100)
    train_tiny("softmax", "--resume").assert_refused("config.json: cannot be read")


@pytest.mark.slow
def test_a_run_writes_its_report_a_new_run_removes_it(train_tiny, tmp_path):
    report = tmp_path / "run" / "report.html"
    assert "report.html: " in train_tiny("softmax", "--report").out.splitlines()[-1]
    assert "<title>" in report.read_text()
    assert train_tiny("softmax", "--overwrite").status == 0 and not report.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("keep", "is_noted"), [(4, False), (1999, True)])
def test_a_large_folder_is_announced_before_it_is_filled(keep, is_noted, train_tiny):
    outcome = train_tiny("cnn", f"--keep={keep}")
    # 36,227 parameters and as many momenta of four bytes, 2,000 times.
    line = "note: the run folder takes up to 580 MB, 0 MB a checkpoint; --keep=1"
    assert outcome.out.splitlines()[1].startswith(line) == is_noted
