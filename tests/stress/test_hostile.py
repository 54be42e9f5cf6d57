"""Hostile files, and commands under harm: does anything but a plain refusal come out?

Each case damages a sound file, or makes one up, and has it read as a command of ours would. It
fails on an exception that `errors.run_main` does not turn into a line, on a line that a terminal
would obey, on a pickle read, a process started or a connection made, and on anything written, moved
or removed outside its folder. Hypothesis draws a share in the whole suite; `pytest -m stress
tests/stress/test_hostile.py [-k SURFACE] [--cases=N] [--seed=S]` draws thousands, and holds them to
bounds of memory and processor time (`--basetemp=/dev/shm/hostile` keeps the thousands of folders in
memory). tests/README.md has the counts. Below stand the smallest cases
of each kind that were found.
"""

import contextlib
import faulthandler
import json
import os
import random
import re
import shutil
import struct
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import commands
import damage
import numpy as np
import pytest
import surfaces
from conftest import HANGS, ROOT, slow, stress
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxnets.base import files
from jaxnets.base.display import one_line
from jaxnets.base.errors import UserError
from jaxnets.config.resolve import preset
from jaxnets.data.cifar import load_cifar
from jaxnets.data.idx import read_idx
from jaxnets.data.load import load_dataset
from jaxnets.data.pictures import decode
from jaxnets.data.pictures.folder import load_folder
from jaxnets.runs.request import load_data
from jaxnets.runs.run_folder import RunFolder
from jaxnets.tune import cells
from jaxnets.tune.search import Search

SECONDS = 10.0
# A case may take so much memory, and so many times the bytes of what it reads: gzip unpacks to
# 1,032 times as much, and pixels become float32.
MEMORY_MB, TIMES = 64, 1032 * 6
WARM = 50  # The first cases fill caches, and need not keep the bounds.


class Surface(NamedTuple):
    """What is attacked.

    Attributes:
      cases: How many `-m stress` draws.
      drawn: How many Hypothesis draws in the whole suite.
      prepare: Makes sound samples in a folder, once; returns what a case needs.
      case: Draws hostile input into an empty folder and has it read. One that starts a process
        returns its seconds and its memory in MB.
      memory_mb: In place of MEMORY_MB.
      seconds: In place of SECONDS.
    """

    cases: int
    drawn: int
    prepare: Callable[[Path], Any]
    case: Callable[[Any, Path, random.Random], tuple[float, float] | None]
    memory_mb: int = MEMORY_MB
    seconds: float = SECONDS


SURFACES = {
    "idx": Surface(25_000, 40, surfaces.idx_samples, surfaces.idx_case),
    "cifar": Surface(5_000, 40, surfaces.cifar_samples, surfaces.cifar_case),
    "picture": Surface(25_000, 40, surfaces.picture_samples, surfaces.picture_case, 1000),
    "folder": Surface(3_000, 8, surfaces.folder_samples, surfaces.folder_case),
    "config": Surface(15_000, 25, surfaces.run_samples, surfaces.config_case),
    "metrics": Surface(8_000, 40, surfaces.run_samples, surfaces.metrics_case),
    "search": Surface(4_000, 25, surfaces.run_samples, surfaces.search_case),
    "weights": Surface(6_000, 40, surfaces.weight_samples, surfaces.weights_case),
    "checkpoint": Surface(4_000, 8, surfaces.run_samples, surfaces.checkpoint_case),
    "answers": Surface(4_000, 40, surfaces.log_samples, surfaces.log_case),
    "process": Surface(500, 2, commands.process_samples, commands.process_case, 1024, 60.0),
}


def resident_mb(field: str) -> float:
    """This process's memory: VmRSS now, VmHWM at its most."""
    found = re.search(rf"{field}:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0


@pytest.fixture(params=[stress(name) if name == "process" else name for name in SURFACES])
def attack(request, tmp_path, monkeypatch):
    """A surface, and a function that meets one of its cases; what `damage` forbids is an error."""
    for name, place in (("HOME", tmp_path), ("XDG_CACHE_HOME", tmp_path / "cache")):
        monkeypatch.setenv(name, str(place))
    damage.guard([tmp_path / "case", tmp_path / "cache"])
    surface, folder, outside = SURFACES[request.param], tmp_path / "case", tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"untouched")
    (tmp_path / "samples").mkdir()
    sample = surface.prepare(tmp_path / "samples")

    def meet(rng: random.Random) -> tuple[float, float] | None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        taken = surface.case(sample, folder, rng)
        assert [p.name for p in outside.iterdir()] == ["victim"]
        assert (outside / "victim").read_bytes() == b"untouched"
        return taken

    return surface, meet, folder


@pytest.mark.slow
def test_nothing_but_a_plain_refusal_comes_out(attack):
    surface, meet, _ = attack
    checks: Any = list(HealthCheck)
    options = settings(
        max_examples=surface.drawn, deadline=None, database=None, derandomize=True,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=checks,
    )  # fmt: skip
    options(given(st.randoms(use_true_random=False))(lambda rng: meet(rng) and None))()


@pytest.mark.stress
def test_thousands_stay_within_time_and_memory(attack, request):
    """A case is drawn with its number as the seed, from `--seed` on."""
    surface, meet, folder = attack
    first, taken_at_most = request.config.getoption("seed"), np.zeros(2)
    cases = request.config.getoption("cases") or surface.cases
    for number in range(first, first + cases):
        faulthandler.dump_traceback_later(HANGS, exit=True)
        Path("/proc/self/clear_refs").write_text("5")
        before, began = resident_mb("VmRSS"), time.process_time()
        try:
            taken = meet(random.Random(number))
        except BaseException as error:
            error.add_note(f"seed {number}")
            raise
        files = sum(p.lstat().st_blocks for p in folder.rglob("*")) / 2**11
        most = surface.memory_mb + (0 if taken else TIMES * files)
        seconds, mb = taken or (time.process_time() - began, resident_mb("VmHWM") - before)
        if taken or number >= first + WARM:
            assert mb <= most and seconds <= surface.seconds, (number, mb, files, seconds)
            taken_at_most = np.maximum(taken_at_most, (seconds, mb))
    print("{:,} cases, {:.2f} s and {:.0f} MB at most".format(cases, *taken_at_most))  # With -s.


def test_a_message_is_one_line_of_bounded_length():
    assert one_line("a\n b\x1b[2J\u202e") == r"a b\x1b[2J\u202e"
    assert len(one_line("\x1b" * 10**6)) < 10**4


def test_what_stdout_cannot_show_is_escaped(run_python):
    code = (
        "import sys; from jaxnets.base.errors import run_main\n"
        "sys.exit(run_main(lambda _: print('鸟') or 0))"
    )
    outcome = run_python("-c", code, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (outcome.out, outcome.err) == ("\\u9e1f\n", "")


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A run of softmax regression with one checkpoint: its folder, config, record and form."""
    return surfaces.run_samples(tmp_path_factory.mktemp("sample"))


@pytest.fixture
def folder(sample, tmp_path):
    """A copy of it."""
    return shutil.copytree(sample["folder"], tmp_path / "run")


@pytest.mark.parametrize(
    "change",
    [
        {"data_dir": "\0"},
        {"dataset": "\ud800"},
        {"init_from": "~nobody-here/w.safetensors"},
        {"hidden": [1] * 20_000},
        {"epochs": 10**400},
        {"model": [[]]},
        {"activation": "\x1b]0;title\x07"},
    ],
)
def test_a_strange_config_is_one_line(run_main, folder, sample, change):
    (folder / "config.json").write_text(json.dumps({**sample["config"], **change}))
    run_main("--resume", f"--workdir={folder}").assert_refused("config.json: damaged: ")


COMPLETE = b'{"epoch":1,"step":3,"seconds":1,"train_loss":1,"train_accuracy":1,'


@pytest.mark.parametrize(
    "line",
    [b"null", b"[" * 100_000, b"\xff", b'{"epoch": 1, "step": "3"}', b'{"epoch": 1, "step": 3}',
     b'{"epoch":1,"step":3,"seconds":NaN,"train_loss":1,"train_accuracy":1,"validation_accuracy":1}',
     COMPLETE + b'"validation_accuracy":1,"validation_loss":"low"}',
     COMPLETE + b'"validation_accuracy":null,"validation_loss":1' + b"0" * 400 + b"}"],
    ids=["null", "deep", "bytes", "text", "short", "NaN", "no loss", "huge loss"],
)  # fmt: skip
def test_a_strange_record_is_one_line(folder, line):
    (folder / "metrics.jsonl").write_bytes(line + b"\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl: damaged"):
        RunFolder.open(str(folder)).drop_records_after(3, epochs=1)


def test_half_a_line_that_is_no_text_is_dropped(folder, sample):
    record = json.dumps(sample["record"]).encode() + b"\n"
    (folder / "metrics.jsonl").write_bytes(record + b'{"epoch\xff')
    RunFolder.open(str(folder)).drop_records_after(3, epochs=1)
    assert (folder / "metrics.jsonl").read_bytes() == record


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_a_file_of_gigabytes_is_refused_unread(folder, name):
    """A sparse file costs who sends it nothing."""
    os.truncate(folder / name, 2 << 30)
    with pytest.raises(UserError, match=f"{name}.* expected at most .* bytes, found 2,147,483,648"):
        files.read_json(folder / name) if name[-4:] == "json" else files.read_records(folder / name)


@pytest.mark.parametrize(
    ("end", "reason"),
    [(b'"x":' + b"1" * 5000, "line 2 is too long"), (b'"x":[[],[]]}\n', "a record in line 2")],
)
def test_a_record_of_another_size_is_refused(folder, sample, end, reason):
    record = json.dumps(sample["record"]).encode()
    (folder / "metrics.jsonl").write_bytes(record + b"\n" + record[:-1] + b"," + end)
    with pytest.raises(UserError, match=reason.replace("a record", "an epoch's record")):
        files.read_records(folder / "metrics.jsonl")


@pytest.mark.parametrize("place", ["metrics.jsonl", "checkpoints/3.safetensors", "x"])
@pytest.mark.parametrize("lay", [os.mkfifo, lambda path: path.symlink_to(ROOT / "train.py")])
def test_a_run_folder_with_links_or_pipes_is_refused(folder, place, lay):
    (folder / place).unlink(missing_ok=True)
    lay(folder / place)
    with pytest.raises(UserError, match="expected a file or a folder"):
        RunFolder.open(str(folder))


@pytest.mark.parametrize("name", ["7.safetensors", "7.safetensors.partial", "../result.json"])
def test_a_folder_in_the_place_of_a_file_is_refused(folder, name):
    """Before training: to save step 7 would fail, hours later."""
    (folder / "checkpoints" / name).mkdir()
    with pytest.raises(UserError, match=f"{os.path.basename(name)}: expected a file, found a fo"):
        RunFolder.open(str(folder))


@pytest.mark.parametrize("depth", [1500, slow(5000)])
def test_folders_in_folders_are_no_traceback(folder, depth):
    """Python recurses a thousand times, and the system takes paths of 4,096 bytes."""
    inner = folder / "checkpoints"
    subprocess.run(["mkdir", "-p", "d/" * depth], cwd=inner, check=True)
    too_deep = pytest.raises(UserError, match="cannot be read: File name too long")
    try:
        with too_deep if depth == 5000 else contextlib.nullcontext():
            RunFolder.open(str(folder))
        with contextlib.suppress(UserError):  # Later Pythons remove it.
            RunFolder.create(str(folder), "softmax", overwrite=True).close()
    finally:
        subprocess.run(["rm", "-rf", str(inner)], check=True)


def test_a_strange_search_is_one_line(tmp_path):
    def open_again(pattern):
        again = Search(*surfaces.SEARCH)
        with pytest.raises(UserError, match=pattern), again.open(str(tmp_path), resume=True):
            pass

    path, kept = surfaces.write_search(tmp_path)
    results = [{"accuracy": 1e308}, {"loss": "x"}, {"loss": []}, {"other": 1}]
    strange = [{"result": {**kept["result"], **change}} for change in results]
    strange += [{"of": 1}, {"of": {**kept["of"], "data": "theirs"}}, {"program": 1}]
    for change in strange:
        path.write_text(json.dumps(kept | change))
        open_again(f"{path.name}: damaged")
    path.write_text("{}")
    open_again(f"{path.name}: damaged")
    path.unlink()
    for of in ({"config": 1}, {"config": {"seed": "1"}}, {"config": {"model": "mlp"}}):
        foreign = path.with_name(f"{cells.digest(of)}.json")
        foreign.write_text(json.dumps(kept | {"of": of, "program": []}))
        open_again(f"{foreign.name}: (damaged|expected a cell of this search)")
        foreign.unlink()
    shutil.rmtree(path.parent)
    open_again("search.json: expected its cells in cells/")


def endless(member):
    """Its end, 10^26 bytes away, was gone to ten kilobytes at a time (by Python 3.11)."""
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + b"\x7f" * 11
    surfaces.sign(header, 0)
    return bytes(header) * 2


def mapped(member):
    member.pax_headers = {"GNU.sparse.map": "x"}
    return member.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


@pytest.mark.parametrize(
    ("make", "reason"),
    [(endless, "(expected more than it holds|unexpected end)"), (mapped, "invalid literal")],
)
def test_an_archive_of_strange_members_is_refused_at_once(tmp_path, make, reason):
    path = tmp_path / "cifar-10-binary.tar"
    path.write_bytes(make(tarfile.TarInfo("x")))
    with pytest.raises(UserError, match=f"damaged archive: {reason}"):
        load_cifar("cifar10", path, None)


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_link_to_a_file_elsewhere_is_refused(tmp_path, tiny_folder, file):
    shutil.copytree(tiny_folder, tmp_path / "data")
    (tmp_path / "data" / file).rename(tmp_path / file)
    (tmp_path / "data" / file).symlink_to(tmp_path / file)
    with pytest.raises(UserError, match="found one outside of it"):
        load_dataset(data_dir=str(tmp_path / "data"))


def test_a_folders_name_is_escaped_where_it_is_printed(tmp_path, tiny_folder, run_main):
    shutil.copytree(tiny_folder, tmp_path / "red\x1b[31m\n")
    config = preset("softmax", data_dir=str(tmp_path / "red\x1b[31m\n"), epochs=1, devices=1)
    assert load_data(config).name == r"red\x1b[31m\n"


@pytest.fixture
def pictures(tmp_path, cache):
    """Two classes of pictures, and a cache folder of the user's own."""
    for label in ("cat", "dog"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(3):
            picture = Image.fromarray(np.full((8, 8), 40 * number, np.uint8))
            picture.save(tmp_path / "set" / label / f"{number}.png")
    return tmp_path / "set"


def test_a_cache_in_a_folder_is_left_alone(pictures, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (pictures / ".jaxnets").symlink_to(outside, target_is_directory=True)
    os.mkfifo(outside / "files.npy")  # Opening it would wait for ever.
    before = sorted(pictures.rglob("*"))
    assert len(load_folder(pictures).train) == 4
    assert sorted(pictures.rglob("*")) == before
    assert [path.name for path in outside.iterdir()] == ["files.npy"]


def test_threads_together_decode_no_more_pixels_than_one_may(pictures, monkeypatch):
    """They may take a gigabyte, whatever their files' sizes."""
    at_work, most = [], []
    converted = decode.to_8_bits
    two = threading.Barrier(2, timeout=HANGS)

    def convert(picture):
        at_work.append(picture)
        most.append(len(at_work))
        if decode.MAX_PIXELS > 127:
            two.wait()
        time.sleep(0.01)
        at_work.remove(picture)
        return converted(picture)

    monkeypatch.setattr(decode, "to_8_bits", convert)
    files = [*pictures.rglob("*.png")] * 2
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(decode.read_picture, files))
        assert max(most) > 1
        most.clear()
        monkeypatch.setattr(decode, "MAX_PIXELS", 127)  # They have 64 each.
        list(threads.map(decode.read_picture, files))
    assert max(most) == 1


def test_an_idx_header_is_held_to_the_files_size(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1))
    with pytest.raises(UserError, match="it cannot hold so many"):
        read_idx(path, rank=3)
