"""Resuming: which run, with what changed, on which devices, after which faults and signals."""

import itertools
import json
import os
import resource
import shutil
import signal
import threading
import time

import chex
import pytest
from conftest import assert_resume_hint, history, params_sha256, read_json, saved_params, slow

from jaxnets.base.errors import RunFailedError
from jaxnets.config.fields import Config
from jaxnets.config.resolve import YOUNGER
from jaxnets.runs import checkpoints, stopping
from jaxnets.runs.checkpoints import CheckpointTimer
from jaxnets.runs.run_folder import RunFolder


@pytest.mark.slow
def test_without_a_folder_the_models_newest_unfinished_run_is_resumed(
    train_tiny, run_main, tmp_path, interrupt_after, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    run_main("--resume").assert_refused(f"resume: found no unfinished run of cnn in {runs}")
    models = {"a": "softmax", "b": "softmax", "c": "mlp_functional", "finished": "softmax"}
    for age, (name, model) in enumerate(models.items()):
        interrupt_after(10**9 if name == "finished" else 1)
        train_tiny(model, f"--workdir=runs/{name}")
        for path in (runs / name).iterdir():  # A clock that went backwards in between.
            os.utime(path, (1e9 - age, 1e9 - age))
    (runs / "search").mkdir()
    (runs / "damaged").mkdir()
    (runs / "damaged" / "config.json").write_text("{")
    os.utime(runs / "b" / "metrics.jsonl")

    interrupt_after(0)
    outcome = run_main("--resume", "--model=softmax")
    assert outcome.status == 130
    damaged, interrupted = outcome.err.splitlines()
    assert damaged.startswith("warning: ") and damaged.endswith("looking for another run")
    assert interrupted.endswith("--resume --workdir=runs/b")
    assert "resuming runs/b after step 5\n" in outcome.out

    interrupt_after(10**9)
    for name in ("b", "a"):
        outcome = run_main("--resume", "--model=softmax")
        assert outcome.status == 0 and f"run folder: runs/{name}\n" in outcome.out
    assert run_main("--resume", "--model=softmax").status == 2


@pytest.mark.slow
def test_what_changes_no_number_may_change_and_is_written_down(
    train_tiny, tiny_folder, tmp_path, interrupt_after
):
    assert train_tiny("mlp_functional").status == 0
    whole = params_sha256(tmp_path / "run")
    interrupt_after(1)
    assert train_tiny("mlp_functional", "--overwrite").status == 130
    moved = shutil.copytree(tiny_folder, tmp_path / "moved")
    interrupt_after(10**9)
    changes = {
        "data_dir": str(moved), "checkpoint_every": "7steps", "keep": 5,
        "target_accuracy": 0.1, "parallel": "jit", "devices": 1, "platform": "cpu",
    }  # fmt: skip
    flags = (f"--{name}={value}" for name, value in changes.items())
    outcome = train_tiny("mlp_functional", "--resume", *flags)
    assert (outcome.status, outcome.err) == (0, "")
    config = read_json(tmp_path / "run" / "config.json")
    assert {name: config[name] for name in changes} == changes and not config["resume"]
    assert params_sha256(tmp_path / "run") == whole


@pytest.mark.slow
@pytest.mark.parametrize("finished", [True, slow(False)])
def test_more_epochs_end_as_if_asked_from_the_start(
    train_tiny, run_main, tmp_path, interrupt_after, finished
):
    whole, run = tmp_path / "whole", tmp_path / "run"
    flags = ["softmax", "--schedule=constant"]
    assert train_tiny(*flags, "--epochs=4", f"--workdir={whole}").status == 0
    interrupt_after(10**9 if finished else 1)
    assert train_tiny(*flags).status == (0 if finished else 130)
    interrupt_after(1)
    assert train_tiny(*flags, "--resume", "--epochs=4").status == 130
    assert not (run / "result.json").exists()
    interrupt_after(10**9)
    outcome = run_main("--resume", f"--workdir={run}")  # The new number is kept.
    assert (outcome.status, outcome.err) == (0, "")
    assert params_sha256(run) == params_sha256(whole) and history(run) == history(whole)
    assert read_json(run / "result.json")["epochs"] == 4


@pytest.mark.slow
def test_a_checkpoint_that_a_kill_has_left_is_removed_at_the_end(train_tiny, tmp_path):
    """A kill may come after the last checkpoint is written, and before an old one is removed."""
    assert train_tiny("softmax", "--keep=1").status == 0
    folder = tmp_path / "run" / "checkpoints"
    (tmp_path / "run" / "result.json").unlink()
    kept = sorted(path.name for path in folder.iterdir())
    shutil.copy(folder / kept[0], folder / "1.safetensors")
    assert train_tiny("softmax", "--keep=1", "--resume").status == 0
    assert sorted(path.name for path in folder.iterdir()) == kept


def test_a_schedule_that_is_stretched_is_told_with_both_rates(train_tiny, tmp_path):
    flags = ["softmax", "--schedule=cosine", "--learning_rate=0.5"]
    assert train_tiny(*flags).status == 0
    outcome = train_tiny(*flags, "--resume", "--epochs=4")
    # 0.5 (1 + cos(π t / T)) / 2 after t = 10 steps, of T = 10 and of T = 20.
    assert outcome.status == 0 and outcome.err == (
        "warning: schedule cosine spans 4 epochs instead of 2: after step 10 the learning rate is "
        "0.25 instead of 0\n"
    )
    assert len(history(tmp_path / "run")) == 4


def test_a_config_without_one_of_its_fields_is_refused(finished_run, run_main, tmp_path):
    config = read_json(finished_run.folder / "config.json")
    known = {"track", "report"}  # They change nothing.
    # Without these, no run had what they say.
    known |= {"layers", "scaling"}
    known |= YOUNGER.keys()
    for name in Config.__dataclass_fields__.keys() - known:
        others = {key: value for key, value in config.items() if key != name}
        (tmp_path / "config.json").write_text(json.dumps(others))
        outcome = run_main("--resume", f"--workdir={tmp_path}")
        expected = (
            "expected the config of a run, found no model"
            if name == "model"
            else f"no {name}: another"
        )
        outcome.assert_refused("config.json: ", expected)


@pytest.fixture
def interrupted_run(train_tiny, tmp_path, interrupt_after):
    """A run that has begun; whoever resumes it is interrupted at once."""
    interrupt_after(1)
    assert train_tiny("softmax").status == 130
    interrupt_after(0)
    return tmp_path / "run"


def warnings_of(outcome):
    assert outcome.status == 130
    *lines, interrupted = outcome.err.splitlines()
    assert interrupted.startswith("error: interrupted; ")
    return lines


def test_other_versions_and_machines_are_told_at_every_resume(train_tiny, interrupted_run):
    path = interrupted_run / "config.json"
    ours = read_json(path)
    assert warnings_of(train_tiny("softmax", "--resume")) == []

    others = {"device_platform": "gpu", "num_devices": 8, "processor": "H\n100", "cores": 3}
    versions = {name: "9.9" for name in ours["versions"]}
    path.write_text(json.dumps(ours | others | {"versions": versions, "device": "8 x H100"}))
    changed = [(name, "9.9", version) for name, version in ours["versions"].items()]
    changed += [(name, value, ours[name]) for name, value in others.items()]
    for flags in ([], ["--keep=5"]):  # A flag that changes rewrites config.json.
        (line,) = warnings_of(train_tiny("softmax", "--resume", *flags))
        assert line.startswith("warning: the run began under other conditions: ")
        assert line.endswith("; the result may differ in its last bits") and line.isprintable()
        for name, was, now in changed:
            assert f" {name} was {' '.join(str(was).split())}, now {now};" in line
        assert line.count(" was ") == len(changed) == 11
    assert read_json(path)["keep"] == 5 and read_json(path)["versions"] == versions

    # A folder may lack them; a stranger's may have anything there.
    missing = {name: ours[name] for name in ours if name not in ("processor", "cores", "versions")}
    wrong_types = {"versions": {"jax": ["9"]}, "cores": {}, "processor": 1.5}
    for foreign in ({}, {"versions": 7}, wrong_types):
        path.write_text(json.dumps(missing | foreign))
        assert warnings_of(train_tiny("softmax", "--resume", "--keep=7")) == []
        assert set(read_json(path)) == set(missing) | set(foreign)


def test_fewer_cores_are_told(train_tiny, interrupted_run):
    if len(all_cores := os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one core")
    try:
        os.sched_setaffinity(0, {min(all_cores)})
        outcome = train_tiny("softmax", "--resume")
    finally:
        os.sched_setaffinity(0, all_cores)
    assert warnings_of(outcome) == [
        "warning: the run began under other conditions: "
        f"cores was {len(all_cores)}, now 1; the result may differ in its last bits"
    ]
    assert "| CPU, 1 core (no accelerator) |" in outcome.out


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize(
    ("flags", "ways"),
    [
        # With gradients=both an epoch is not one compiled loop.
        slow(
            ["softmax", "--gradients=both"],
            ["jit 1", "pmap 2", "shard_map 4", "jit 4", "shard_map 1"],
        ),
        # Dropout draws the same under jit; under pmap every device drops units of its own.
        slow(
            ["cnn", "--hidden=8", "--dropout=0.5", "--augment=crop,flip,mixup"],
            ["jit 1", "jit 2", "jit 1"],
        ),
    ],
    ids=["all placements", "dropout under jit"],
)
def test_a_run_resumes_on_other_devices_but_for_rounding(
    train_tiny, tmp_path, interrupt_after, flags, ways
):
    assert train_tiny(*flags, f"--workdir={tmp_path / 'whole'}").status == 0
    for number, way in enumerate(ways, start=1):
        last = number == len(ways)
        interrupt_after(10**9 if last else 2)
        parallel, devices = way.split()
        more = [f"--devices={devices}", f"--parallel={parallel}"]
        outcome = train_tiny(*flags, *more, *(["--resume"] if number > 1 else []))
        assert outcome.status == (0 if last else 130), outcome
    assert read_json(tmp_path / "run" / "config.json")["num_devices"] == 1
    ours, theirs = (saved_params(tmp_path / name)[1] for name in ("run", "whole"))
    chex.assert_trees_all_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fault", ["deleted", "moved", "replaced"])
def test_a_folder_that_vanishes_ends_the_run_in_one_line(train_tiny, tmp_path, monkeypatch, fault):
    run, log = tmp_path / "run", RunFolder.log

    def strike(folder, record):
        if record["epoch"] == 2:
            folder.wait()  # What was being written may end up in either place.
            if fault == "deleted":
                shutil.rmtree(run)
            else:
                run.rename(tmp_path / "moved")
            if fault == "replaced":
                run.mkdir()
        log(folder, record)

    monkeypatch.setattr(RunFolder, "log", strike)
    outcome = train_tiny("softmax", "--checkpoint_every=1steps")
    assert (outcome.status, outcome.err) == (
        1, f"error: {run}: deleted, moved or replaced while the run was training in it\n"
    )  # fmt: skip
    assert not run.exists() or not any(run.iterdir())  # Nothing is put where it was.
    if fault == "moved":
        monkeypatch.setattr(RunFolder, "log", log)
        assert train_tiny("softmax", "--resume", f"--workdir={tmp_path / 'moved'}").status == 0


WRITERS = {
    "config.json": (RunFolder, "write"),
    "metrics.jsonl": (RunFolder, "log"),
    "checkpoints": (checkpoints, "write"),
    "result.json": (RunFolder, "finish"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_line_and_resumes_later(train_tiny, tmp_path, monkeypatch, name):
    """The disk has room for so many bytes of that file: the process's own limit refuses more."""
    whole, run, writer = tmp_path / "whole", tmp_path / "run", WRITERS[name]
    assert train_tiny("softmax", f"--workdir={whole}").status == 0
    write, limits = getattr(*writer), resource.getrlimit(resource.RLIMIT_FSIZE)

    def write_little(*arguments):
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
        try:
            write(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with monkeypatch.context() as patch:
        patch.setattr(*writer, write_little)
        outcome = train_tiny("softmax")
    assert outcome.status == 1 and outcome.err.count("\n") == 1, outcome
    what = "cannot be saved: " if name == "checkpoints" else ""
    assert outcome.err.startswith(f"error: {run / name}: {what}File too large")
    assert not (run / "result.json").exists()
    if name == "config.json":
        assert train_tiny("softmax").status == 0  # Nothing was begun: no --overwrite is asked for.
    else:
        assert_resume_hint(outcome.err, ".*File too large", run)
        # Whether there is room for a checkpoint shows before anything is trained.
        assert name != "checkpoints" or not (run / "metrics.jsonl").read_text()
        outcome = train_tiny("softmax", "--resume")
        assert (outcome.status, outcome.err) == (0, "")
    assert params_sha256(run) == params_sha256(whole)


def test_a_clock_that_jumps_changes_nothing(train_tiny, tmp_path, monkeypatch):
    flags, whole, run = (
        ["softmax", "--checkpoint_every=1epoch"],
        tmp_path / "whole",
        tmp_path / "run",
    )
    assert train_tiny(*flags, f"--workdir={whole}").status == 0
    honest, calls = time.time, itertools.count()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: honest() + (-1) ** next(calls) * 1e8)
        assert train_tiny(*flags).status == 0
    assert read_json(run / "result.json")["seconds"] < 1e7
    (run / "result.json").unlink()
    for age, step in enumerate((10, 5)):  # The last step is the newest, not the last time.
        os.utime(run / "checkpoints" / f"{step}.safetensors", (2e9 + age, 2e9 + age))
    outcome = train_tiny(*flags, "--resume")
    assert outcome.status == 0 and f"resuming {run} after step 10\n" in outcome.out
    assert params_sha256(run) == params_sha256(whole) and history(run) == history(whole)


@pytest.mark.slow
def test_steps_do_not_wait_for_a_slow_disk(train_tiny, tmp_path, monkeypatch):
    """A save is due at each of ten steps, and the one of step 1 not written before the last."""
    now, saves, write, save = itertools.count(), [], checkpoints.write, CheckpointTimer.saved
    trained, log = threading.Event(), RunFolder.log

    def log_and_tell(folder, record):
        log(folder, record)
        if record["epoch"] == 2:
            trained.set()

    def write_late(path, arrays):
        if path.stem != "0":
            trained.wait(30)
        write(path, arrays)

    flags = ["softmax", "--gradients=both"]  # Then an epoch is not one compiled loop.
    assert train_tiny(*flags, f"--workdir={tmp_path / 'whole'}").status == 0
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write", write_late)
        patch.setattr(RunFolder, "log", log_and_tell)
        patch.setattr(
            CheckpointTimer, "saved", lambda ours, step: (saves.append(step), save(ours, step))
        )
        patch.setattr(checkpoints.time, "monotonic", lambda: 100.0 * next(now))
        assert train_tiny(*flags).status == 0
    # The timer's start, the save before training and a due one of the same step, the first that was
    # due later, and the last.
    assert saves == [0, 0, 0, 1, 10]
    assert params_sha256(tmp_path / "run") == params_sha256(tmp_path / "whole")


def test_signals_ask_and_one_more_stops_at_once(monkeypatch):
    now = 0.0
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now)
    for first in (signal.SIGINT, signal.SIGTERM):
        with pytest.raises(KeyboardInterrupt), stopping.stop_on_interrupt() as stop:
            assert stop() == 0
            signal.raise_signal(first)
            signal.raise_signal(first)  # timeout(1) sends it twice.
            assert stop() == first
            now += 1
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_process_that_is_lost_is_told_with_the_command_that_resumes(tmp_path):
    """As JAX said it, by its version, where gloo noticed first: the others are ended by JAX."""
    for kind in (ValueError, RuntimeError):
        lost = kind("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")
        with pytest.raises(RunFailedError) as caught, stopping.ends_in_one_line(tmp_path):
            raise lost
        told = f"another process was lost ({lost}); resume with: "
        assert str(caught.value).startswith(told) and "--resume" in str(caught.value)
        with pytest.raises(kind, match="^another$"), stopping.ends_in_one_line(tmp_path):
            raise kind("another")


def test_after_a_hang_up_nothing_cuts_the_saving_short(monkeypatch):
    before, now = signal.getsignal(signal.SIGHUP), itertools.count(0.0)
    monkeypatch.setattr(stopping.time, "monotonic", lambda: next(now))
    try:
        with stopping.stop_on_interrupt() as stop:
            for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
                signal.raise_signal(number)
                assert stop() == signal.SIGHUP
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # As nohup starts it.
        with stopping.stop_on_interrupt() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_a_terminal_that_closes_ends_the_run_saved(run_python, finished_run, tmp_path):
    code = """if True:
        import os, pty, sys
        process, terminal = pty.fork()
        if process == 0:
            os.execv(sys.executable, [sys.executable, "train.py", *sys.argv[1:]])
        shown = b""
        while b"val acc" not in shown:
            shown = shown[-1000:] + os.read(terminal, 1000)
        os.close(terminal)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    """
    flags = [*finished_run.flags, "--checkpoint_every=1minute", f"--workdir={tmp_path / 'run'}"]
    assert run_python("-c", code, *flags).status == 128 + signal.SIGHUP
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert 40 <= int(saved.stem) < 800
