"""When a run saves, how, what it keeps, and what it makes of damaged and hostile checkpoints."""

import errno
import json
import os
import shutil
import struct
import threading
from unittest.mock import Mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import history, params_sha256
from safetensors.numpy import load_file

from jaxnets.base.errors import UserError
from jaxnets.config.resolve import preset
from jaxnets.runs import checkpoints
from jaxnets.runs.checkpoints import CheckpointTimer
from jaxnets.runs.run_folder import RunFolder

RECORD = {"epoch": 1, "seconds": 1.0, "train_loss": 1.0, "train_accuracy": 0.5}


def steps(folder):
    return sorted(int(path.stem) for path in (folder / "checkpoints").glob("*.safetensors"))


def file_of(folder, step):
    return checkpoints.path_of(folder / "checkpoints", step)


def save(folder, *steps):
    for step in steps:
        folder.save(step, TREE)
        folder.wait()


TREE = {
    "params": {"conv1": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}},
    "opt_state": ({"trace": jnp.ones(3, jnp.bfloat16)}, np.bool_(True)),
    "step": np.int32(7),
    "seconds": np.float64(0.1),
}
KERNEL, FIVE = "params/conv1/kernel", np.float32(5).tobytes()
NAMES = ["opt_state/0/trace", "opt_state/1", "params/conv1/kernel", "seconds", "step"]


@pytest.mark.parametrize(
    ("every", "expected"),
    [("3steps", [3, 6, 9, 12]), ("1epoch", [5, 10]), ("2epochs", [10]), ("20steps", [])],
)
def test_steps_and_epochs_are_counted_from_the_beginning(every, expected):
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
    now = 1e6
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)
    ours = CheckpointTimer(*preset("cnn", checkpoint_every=every).checkpoint_interval, 5, 0)
    for _ in range(2):
        now += seconds - 1
        assert not ours.due(100)
        now += 1
        assert ours.due(100) and not ours.due(100, saving=True)
        ours.saved(100)
    assert CheckpointTimer(2, "steps", 5, step=0).due(2, saving=True)  # However slow the disk.


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param("cnn", [3, 6, 9, 10], marks=pytest.mark.slow),
        ("mlp_sequential", [5, 10]),
    ],
)
def test_from_any_checkpoint_a_run_resumes_to_the_same_bits(train_tiny, tmp_path, model, expected):
    assert train_tiny(model, f"--workdir={tmp_path / 'plain'}").status == 0
    whole = tmp_path / "run"
    assert train_tiny(model, "--checkpoint_every=3steps", "--keep=9").status == 0
    assert params_sha256(whole) == params_sha256(tmp_path / "plain")  # Saving changes nothing.
    assert steps(whole) == expected
    for step in expected[:-1]:
        part = shutil.copytree(whole, tmp_path / str(step))
        (part / "result.json").unlink()
        for later in expected[expected.index(step) + 1 :]:
            file_of(part, later).unlink()
        # What does not change the result may be changed.
        flags = ["--resume", f"--workdir={part}", "--checkpoint_every=4steps", "--keep=1"]
        outcome = train_tiny(model, *flags)
        assert (outcome.status, outcome.err) == (0, "")
        assert params_sha256(part) == params_sha256(whole) and history(part) == history(whole)


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


@pytest.fixture
def folder(tmp_path):
    with RunFolder.create(str(tmp_path / "run"), "cnn") as folder:
        folder.write("config.json", {})
        yield folder


@pytest.fixture
def parts(folder):
    """A checkpoint's header and the bytes of its arrays."""
    save(folder, 7)
    content = file_of(folder.path, 7).read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def test_any_tool_reads_a_checkpoint_and_so_do_we(folder, parts):
    theirs = load_file(file_of(folder.path, 7))
    assert sorted(theirs) == NAMES
    arrays = jax.tree.map(np.asarray, TREE)
    chex.assert_trees_all_equal(theirs, checkpoints.named_leaves(arrays), strict=True)
    chex.assert_trees_all_equal(RunFolder(folder.path).restore(TREE), arrays, strict=True)
    step, params = folder.read_params(TREE["params"])
    chex.assert_trees_all_equal((step, params), (7, arrays["params"]), strict=True)
    header, data = parts  # Every number lies where mapped memory wants it.
    assert (file_of(folder.path, 7).stat().st_size - len(data)) % 8 == 0
    for name, leaf in checkpoints.named_leaves(TREE).items():
        assert header[name]["data_offsets"][0] % leaf.itemsize == 0
    with pytest.raises(ValueError, match="paths differ"):
        folder.save(8, {"a": {"b": np.ones(1)}, "a/b": np.ones(1)})


def test_a_save_copies_the_arrays_and_waits_for_nothing(folder, monkeypatch):
    ready, write, x = threading.Event(), checkpoints.write, np.zeros(3)
    monkeypatch.setattr(checkpoints, "write", lambda *args: ready.wait() and write(*args))
    folder.save(1, {"x": x})
    x[:] = 1  # As a step does with the arrays that it is given.
    assert folder.saving and not file_of(folder.path, 1).exists()
    ready.set()
    folder.save(1, {"x": x})  # The same step is not written twice.
    assert not folder.saving
    restored = RunFolder(folder.path).restore({"x": x})
    assert restored and restored["x"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_failed_save_is_an_error_of_the_next_call(folder, monkeypatch, call):
    save(folder, 1)
    full = Mock(side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    for again in (lambda: folder.save(3, TREE), folder.wait, folder.close):
        with monkeypatch.context() as patch:
            patch.setattr("pathlib.Path.open" if call == "open" else f"os.{call}", full)
            folder.save(2, TREE)
            with pytest.raises(OSError, match="cannot be saved: No space left") as caught:
                again()
        assert caught.value.filename == str(folder.path / "checkpoints")
        assert steps(folder.path) == [1]
    save(folder, 2)
    assert steps(folder.path) == [2]


def test_what_a_killed_save_left_is_not_followed_and_goes(folder, tmp_path, monkeypatch):
    def partial(step):
        return folder.path / "checkpoints" / f"{step}.safetensors.0123abcd.partial"

    (tmp_path / "victim").write_text("untouched")
    save(folder, 1)
    for step in (2, 3):
        partial(step).symlink_to(tmp_path / "victim")
    save(folder, 3)
    assert steps(folder.path) == [3]
    partial(4).symlink_to(tmp_path / "victim")
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: None)  # Laid there just after,
    monkeypatch.setattr("jaxnets.base.files.secrets.token_hex", lambda _: "0123abcd")  # guessed.
    folder.save(4, TREE)
    with pytest.raises(OSError, match="cannot be saved: File exists"):
        folder.wait()
    assert (tmp_path / "victim").read_text() == "untouched"


@pytest.mark.slow
def test_a_run_resumes_before_a_damaged_checkpoint_or_is_refused(train_tiny, tmp_path):
    run, resume = tmp_path / "run", ["--checkpoint_every=1epoch", "--resume"]
    assert train_tiny("softmax", *resume[:1]).status == 0
    assert steps(run) == [5, 10]
    expected = params_sha256(run), history(run)
    (run / "result.json").unlink()
    os.truncate(file_of(run, 10), file_of(run, 10).stat().st_size - 1)
    outcome = train_tiny("softmax", *resume)
    warning = f"warning: {file_of(run, 10)}: cannot be restored: expected "
    assert outcome.status == 0 and outcome.err.startswith(warning)
    assert outcome.err.endswith("; using step 5\n") and outcome.err.count("\n") == 1
    assert "epoch 1/2" not in outcome.out and "epoch 2/2" in outcome.out
    assert (params_sha256(run), history(run)) == expected
    assert steps(run) == [5, 10]

    (run / "result.json").unlink()
    for step in (5, 10):
        os.truncate(file_of(run, step), file_of(run, step).stat().st_size - 1)
    refused = f"error: {file_of(run, 10)}: cannot be restored: expected "
    train_tiny("softmax", *resume).assert_refused(refused)
    assert steps(run) == [5, 10] and history(run) == expected[1]

    shutil.rmtree(run / "checkpoints")
    assert train_tiny("softmax", "--overwrite").status == 0
    assert steps(run) == [10]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[:-1], "expected a safetensors file"),
        (lambda content: b"", "expected a safetensors file"),
        (lambda content: np.random.default_rng(0).bytes(999), "expected a header of at most"),
        (lambda content: content.replace(FIVE, bytes(4)), f"{KERNEL}: expected the CRC-32"),
        (lambda content: content.replace(b"/kernel", b"/matrix"), "expected the network that"),
    ],
    ids=["cut short", "empty", "noise", "another number", "another network"],
)
def test_who_resumes_removes_what_is_damaged_and_who_predicts_nothing(
    folder, capsys, damage, reason
):
    folder.keep = 2  # The damaged one would be kept, as the last.
    save(folder, 1, 2)
    path = file_of(folder.path, 2)
    path.write_bytes(damage(path.read_bytes()))
    for read in (lambda: folder.read_params(TREE["params"]), lambda: folder.restore(TREE)):
        assert steps(folder.path) == [1, 2]
        read()
        err = capsys.readouterr().err
        assert f"2.safetensors: cannot be restored: {reason}" in err
        assert err.endswith("; using step 1\n")
    assert steps(folder.path) == [1]


@pytest.mark.parametrize("fault", ["Is a directory", "Could not read tensor"])
def test_what_cannot_be_read_may_be_sound_and_stays(folder, monkeypatch, capsys, fault):
    folder.keep = 2
    save(folder, 1, 2)
    path, safe_open = file_of(folder.path, 2), checkpoints.safe_open
    if fault == "Is a directory":
        path.unlink()
        path.mkdir()

    def open_then_cut_short(opened_path, **options):
        opened = safe_open(opened_path, **options)
        if opened_path == path:
            os.truncate(path, path.stat().st_size - 1)
        return opened

    monkeypatch.setattr(checkpoints, "safe_open", open_then_cut_short)
    assert folder.restore(TREE)["step"] == 7
    assert f"2.safetensors: cannot be restored: {fault}" in capsys.readouterr().err
    assert steps(folder.path) == [1, 2]


def test_a_checkpoint_that_a_running_training_removes_is_no_damage(folder, monkeypatch, capsys):
    save(folder, 2)
    found = iter([[1, 2, 3], [2]])  # As they were a moment ago, then as they are.
    monkeypatch.setattr(checkpoints, "steps_in", lambda path: next(found))
    assert folder.read_params(TREE["params"])[0] == 2
    assert capsys.readouterr().err == ""


def lay_out(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.fixture
def assert_refused(folder, monkeypatch):
    """Demands that no array of a file is read, neither to resume from it nor to predict with it."""

    def check(content, predict=True):
        file_of(folder.path, 7).write_bytes(content)
        with pytest.raises(UserError, match="7.safetensors: cannot be restored: "):
            folder.restore(TREE)
        if predict:
            with pytest.raises(UserError, match="7.safetensors: cannot be restored: "):
                folder.read_params(TREE["params"])

    monkeypatch.setattr(checkpoints, "_read_array", lambda *_: pytest.fail("memory was taken"))
    return check


ENTRIES = [
    *((KERNEL, "shape", shape) for shape in (
        [2**40, 2**20],  # Four exabytes.
        [2**63, 2],  # A product that overflows to zero.
        [2**32, 2**32], [-2, -3], [2.0, 3], [True, 6], [1] * 1000 + [2, 3], [3, 2], None,
    )),
    *((KERNEL, "dtype", dtype) for dtype in ("F8_E4M3", "I32", "F64", "X", ["F32"])),
    *((KERNEL, "data_offsets", offsets) for offsets in (
        [0, 24],  # Over another array.
        [9, 33],  # A gap.
        [32, 8], [-24, 0], [8, 2**62], [8],
    )),
    # What predict does not read, either.
    *(("opt_state/1", "shape", shape) for shape in ([2**40], [-1, -1])),
    ("opt_state/1", "dtype", "X"),
    ("seconds", "data_offsets", [0, 16]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "field", "value"), ENTRIES)
def test_an_entry_that_does_not_fit_is_refused(parts, assert_refused, name, field, value):
    header, data = parts
    header[name][field] = value
    assert_refused(lay_out(header, data))


def test_a_file_cut_short_or_long_anywhere_is_refused(parts, assert_refused):
    whole, data = lay_out(*parts), parts[1]
    for place in (*range(17), 100, *range(len(whole) - len(data) - 1, len(whole))):
        assert_refused(whole[:place])
    assert_refused(whole + b"x")


@pytest.mark.parametrize(
    "header",
    [b"", b"{", b"7", b"[]", b"null", b"{}", b"\xff\xff", b"[" * 100_000, b'{"a":' * 100_000,
     b'{"__metadata__": {"format": "pt"}}', b'{"__metadata__": ' + b"9" * 10_000 + b"}"],
)  # fmt: skip
def test_a_header_that_is_none_is_refused(parts, assert_refused, header):
    assert_refused(lay_out(header, parts[1]))


def test_a_header_is_no_longer_than_file_or_megabyte(folder, parts, assert_refused, monkeypatch):
    header, data = parts
    for length in (2**63, 2**64 - 1, len(json.dumps(header)) + len(data) + 1):
        assert_refused(lay_out(header, data, length))
    monkeypatch.setattr(checkpoints, "safe_open", lambda *_, **__: pytest.fail("it was read"))
    assert_refused(lay_out({}, length=2**31))
    os.truncate(file_of(folder.path, 7), 2**32)  # A hole: it takes no room.
    with pytest.raises(UserError, match="at most 1,048,576 bytes, found 2,147,483,648"):
        folder.restore(TREE)


def test_other_arrays_and_versions_are_refused(parts, assert_refused):
    header, data = parts
    newer = {**header["__metadata__"], "version": "2"}
    assert_refused(lay_out({**header, "__metadata__": newer}, data))
    more = {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}
    # What predict has no use for is no error.
    assert_refused(lay_out({**header, "opt_state/2": more}, data + bytes(4)), predict=False)
    moved = {("params/x" if name == KERNEL else name): entry for name, entry in header.items()}
    assert_refused(lay_out(moved, data))
