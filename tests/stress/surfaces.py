"""Hostile files of every kind: how each is made of a sound one, and how a command of ours reads it.

A sample is made once; a case writes hostile files into an empty folder and has them read.
"""

import contextlib
import dataclasses
import functools
import gzip
import io
import json
import multiprocessing
import os
import shutil
import sqlite3
import struct
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from conftest import idx_bytes
from damage import TEXTS, Rng, damage, damage_json, deep_folder, half, letters, status_of, value_of
from PIL import Image
from safetensors.numpy import save

from jaxnets.abtest import presentation, trial
from jaxnets.abtest.log import read_users
from jaxnets.base.display import printable, show
from jaxnets.base.errors import UserError
from jaxnets.config.resolve import resolve
from jaxnets.course import replay
from jaxnets.course.procedure import Procedure
from jaxnets.data.cifar import FORMS, load_cifar
from jaxnets.data.load import load_dataset
from jaxnets.data.pictures.decode import BadPictureError, read_header, read_picture, to_square
from jaxnets.metrics import Metrics
from jaxnets.models.alexnet import params_to_torchvision
from jaxnets.models.weights import load_weights
from jaxnets.predict import trained
from jaxnets.predict.digit import to_digit, to_digits
from jaxnets.runs import request
from jaxnets.runs.checkpoints import kept_steps, tree_of
from jaxnets.runs.run import Run
from jaxnets.runs.run_folder import RunFolder
from jaxnets.server.feedback import FeedbackLog, FeedbackRow
from jaxnets.tune import ranking
from jaxnets.tune.search import Search
from jaxnets.tune.train_many import TrainingSummary

# IDX files


def idx_samples(folder: Path, train: int = 6) -> dict[str, bytes]:
    """Four files of three classes, as their names and contents."""
    rng, files = np.random.default_rng(0), {}
    for part, count in (("train", train), ("t10k", 3)):
        images = rng.integers(0, 256, (count, 4, 4))
        files[f"{part}-images-idx3-ubyte"] = idx_bytes(images)
        files[f"{part}-labels-idx1-ubyte"] = idx_bytes(np.arange(count) % 3)
    return files


def idx_case(files: dict[str, bytes], folder: Path, rng: Rng) -> None:
    """One or two of the files are damaged, before or after gzip packed them."""
    bad = [rng.choice(sorted(files)) for _ in range(rng.randint(1, 2))]
    for name, content in files.items():
        if name in bad:
            other = files[rng.choice(sorted(files))]
            if half(rng):
                content = damage(rng, content, other)
            else:
                packed = (gzip.compress(file, mtime=0) for file in (content, other))
                content = damage(rng, *packed)
            if rng.randint(0, 3) == 0:
                content = gzip.compress(content, mtime=0)
        (folder / name).write_bytes(content)
    status_of(lambda: load_dataset(data_dir=str(folder)))


# CIFAR's archives

TAR_FIELDS = [(0, 100), (100, 8), (124, 12), (148, 8), (156, 1), (157, 100), (257, 8), (345, 155)]
TAR_VALUES = [b"77777777777", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-1", b"../../x", b"L", b"K",
              b"x", b"g", b"S", b"1", b"2", b"3", b"6"]  # fmt: skip
TAR_NAMES = [
    "../../outside/victim",
    "/etc/passwd",
    "cifar-10-batches-bin/test_batch.bin",
    "x" * 300,
]
PAX_FIELDS = ["size", "path", "GNU.sparse.map", "GNU.sparse.major", "GNU.sparse.size",
              "GNU.sparse.minor", "GNU.sparse.realsize", "hdrcharset", "mtime"]  # fmt: skip
PAX_VALUES = ["-1", "0", "1", "9" * 30, "x", "0,1,2", "1e9", "nan", "inf", ""]


def cifar_samples(folder: Path) -> dict[str, bytes]:
    """A plain and a packed archive of two pictures a file."""
    form, made = FORMS["cifar10"], {}
    record = bytes([1]) + bytes(3072) + bytes([0]) + bytes(range(256)) * 12
    for mode in ("w", "w:gz"):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
            for file in form.files:
                content = b"cat\ndog\n" if file == form.names else record
                member = tarfile.TarInfo(f"{form.folder}/{file}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        made[mode] = stream.getvalue()
    return made


def cifar_case(made: dict[str, bytes], folder: Path, rng: Rng) -> None:
    """The archive's bytes or its members' headers are damaged, or one is added."""
    content = made[rng.choice(sorted(made))]
    kind = rng.choice(["bytes", "header", "member", "packed"])
    if kind == "bytes":
        content = damage(rng, content, made["w"])
    elif kind == "member":
        content = _strange_member(rng) + made["w"]
    else:
        content = _with_header(rng, made["w"])
    if kind == "packed":
        content = gzip.compress(content, 1, mtime=0)
    path = folder / "cifar-10-binary.tar.gz"
    path.write_bytes(content)
    status_of(lambda: load_cifar(rng.choice(["cifar10", "cifar100"]), path, None))


def _with_header(rng: Rng, archive: bytes) -> bytes:
    """Some fields of some members' headers are changed, their checksums made right."""
    blocks = bytearray(archive)
    starts = [at for at in range(0, len(blocks), 512) if blocks[at + 257 : at + 262] == b"ustar"]
    for _ in range(rng.randint(1, 3)):
        at = rng.choice(starts)
        start, length = rng.choice(TAR_FIELDS)
        new = rng.choice([rng.randbytes(length), *TAR_VALUES])[:length]
        blocks[at + start : at + start + len(new)] = new
        sign(blocks, at)
    return bytes(blocks)


def sign(blocks: bytearray, at: int) -> None:
    """Makes a tar header's checksum right."""
    blocks[at + 148 : at + 156] = b" " * 8
    blocks[at + 148 : at + 156] = b"%06o\0 " % sum(blocks[at : at + 512])


def _strange_member(rng: Rng) -> bytes:
    """A link, a device, a path that leads out, long or sparse headers."""
    member = tarfile.TarInfo(rng.choice(TAR_NAMES))
    member.type = rng.choice([b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S"])
    member.linkname = TAR_NAMES[0]
    count = rng.randint(0, 3)
    member.pax_headers = {rng.choice(PAX_FIELDS): rng.choice(PAX_VALUES) for _ in range(count)}
    form: Any = rng.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
    return member.tobuf(form)


# Weights

# What safetensors knows, and the bytes of a number.
DTYPES = [
    ("F64", 8), ("F32", 4), ("F16", 2), ("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1), ("F8_E8M0", 1),
    ("C64", 8), ("I64", 8), ("U64", 8), ("I16", 2), ("I8", 1), ("U8", 1), ("BOOL", 1),
]  # fmt: skip


def weight_samples(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Tiny layers named as AlexNet's, fresh and in a file."""
    shapes = {"conv1": (3, 3, 1, 2), **{f"conv{n}": (1, 1, 2, 2) for n in (2, 3, 4, 5)}}
    shapes |= {"dense6": (8, 3), "dense7": (3, 3), "logits": (3, 2)}
    rng, fresh = np.random.default_rng(0), {}
    for name, shape in shapes.items():
        kernel, bias = rng.random(shape, np.float32), rng.random(shape[-1], np.float32)
        fresh[name] = {"kernel": kernel, "bias": bias}
    return fresh, save(params_to_torchvision(fresh))


def weights_case(made: tuple[dict[str, Any], bytes], folder: Path, rng: Rng) -> None:
    """The file's bytes, or the JSON in its header, whose length is made right."""
    fresh, content = made
    header, numbers = _split(content)
    kind = rng.choice(["bytes", "header", "tensor", "extra"])
    if kind == "bytes":
        content = damage(rng, content, content)
    elif kind == "header":
        content = _join(damage_json(rng, header), numbers)
    else:
        if kind == "extra":  # A sound tensor that no layer of ours has.
            dtype, size = rng.choice(DTYPES)
            end = len(numbers) + 2 * size
            extra = {"dtype": dtype, "shape": [2], "data_offsets": [len(numbers), end]}
            header[rng.choice(["x", "classifier.9.weight", "\x1b[2J"])] = extra
            numbers += bytes(2 * size)
        else:
            entry = header[rng.choice(sorted(header))]
            entry["dtype"] = rng.choice([*(name for name, _ in DTYPES), "x", entry["dtype"]])
            sizes = [rng.choice([0, 1, 2, 3, 2**31, 2**63, -1]) for _ in range(rng.randint(0, 4))]
            entry["shape"] = rng.choice([entry["shape"], sizes])
        content = _join(json.dumps(header).encode(), numbers)
    path = folder / "w.safetensors"
    path.write_bytes(content)
    status_of(lambda: load_weights(str(path), fresh))


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's header, empty if there is none any more, and the arrays' bytes."""
    end = 8 + int.from_bytes(content[:8], "little")
    with contextlib.suppress(ValueError, RecursionError):
        header = json.loads(content[8:end])
        if isinstance(header, dict):
            return header, content[end:]
    return {}, content


def _join(header: bytes, data: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


# Pictures


def picture_samples(folder: Path) -> dict[str, bytes]:
    """Small pictures in every format and mode that we read, and some that we do not."""
    rng, made = np.random.default_rng(0), {}

    def add(name: str, picture: Image.Image, format: str, **options: Any) -> None:
        stream = io.BytesIO()
        picture.save(stream, format, **options)
        made[name] = stream.getvalue()

    colours = Image.fromarray(rng.integers(0, 256, (12, 9, 3), np.uint8))
    grey = Image.fromarray(rng.integers(0, 256, (12, 9), np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (12, 9)).astype(np.uint16))
    clear = colours.convert("RGBA")
    clear.putalpha(grey)
    exif = Image.Exif()
    exif[274] = 6
    first, *frames = (Image.fromarray(rng.integers(0, 256, (12, 9, 3), np.uint8)) for _ in range(3))
    several: dict[str, Any] = dict(save_all=True, append_images=frames)
    add("rgb.png", colours, "PNG", exif=exif)
    add("grey.png", grey, "PNG")
    add("deep.png", deep, "PNG")
    add("palette.png", colours.quantize(16), "PNG", transparency=3)
    add("clear.png", clear, "PNG")
    add("bits.png", grey.convert("1"), "PNG")
    add("frames.png", first, "PNG", **several)
    add("rgb.jpg", colours, "JPEG", exif=exif)
    add("progressive.jpg", colours, "JPEG", progressive=True)
    add("cmyk.jpg", colours.convert("CMYK"), "JPEG")
    add("frames.gif", first, "GIF", duration=10, **several)
    add("grey.gif", grey, "GIF", transparency=0)
    add("rgb.bmp", colours, "BMP")
    add("palette.bmp", colours.quantize(16), "BMP")
    add("rgb.webp", colours, "WEBP", lossless=True)
    add("lossy.webp", clear, "WEBP", exif=exif)
    add("frames.webp", first, "WEBP", **several)
    for packing in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        add(f"rgb.{packing}.tif", colours, "TIFF", compression=packing)
    add("float.tif", grey.convert("F"), "TIFF")
    add("int.tif", grey.convert("I"), "TIFF")
    add("group4.tif", grey.convert("1"), "TIFF", compression="group4")
    add("rgb.ppm", colours, "PPM")
    add("deep.pgm", deep, "PPM")
    add("foreign.ico", colours, "ICO")
    add("foreign.eps", colours, "EPS")
    return made | {"plain.ppm": b"P3 2 2 255\n" + b"1 2 3 " * 4, "text.txt": b"no picture\n" * 9}


LARGE: list[tuple[str, str, int, dict[str, Any]]] = [
    ("LA", "PNG", 8660, {}),
    ("P", "GIF", 8660, {"transparency": 0}),
    ("CMYK", "JPEG", 8660, {"progressive": True}),
    ("RGBA", "WEBP", 7483, {}),
]


@functools.cache
def large_pictures() -> list[bytes]:
    """Pictures of as many pixels as are allowed, in some hundred kilobytes.

    Of a process of its own: a command's ru_maxrss begins with the peak of the one that starts it.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.starmap(_encoded, LARGE)


def _encoded(mode: str, format: str, side: int, options: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (side, side)).save(stream, format, **options)
    return stream.getvalue()


def scan_bomb(rng: Rng, progressive: bytes) -> bytes:
    """A progressive JPEG of other sides, its last scan repeated."""
    frame, scan = progressive.index(b"\xff\xc2"), progressive.rindex(b"\xff\xda")
    sides = struct.pack(">2H", *(rng.choice([1, 12, 900, 8000, 8660, 65535]) for _ in range(2)))
    last = progressive[scan:-2] * rng.choice([0, 1, 80, 89, 91, 100, 1500, 20_000])
    return progressive[: frame + 5] + sides + progressive[frame + 9 : -2] + last + b"\xff\xd9"


def picture_case(made: dict[str, bytes], folder: Path, rng: Rng) -> None:
    """A picture is damaged, or has many scans, or as many pixels as are allowed."""
    name, other = (rng.choice(sorted(made)) for _ in range(2))
    content = damage(rng, made[name], made[other])
    kind = rng.randint(0, 99)
    if kind == 99:
        content = scan_bomb(rng, made["progressive.jpg"])
    elif kind == 98:
        content = rng.choice(large_pictures())
    path = folder / rng.choice(["a.png", "a.jpg", "a.gif", "a.tif"])
    path.write_bytes(content)

    def read() -> None:
        try:
            width, height, _ = read_header(path)
            picture = read_picture(path, rng.choice([None, 8]))
        except BadPictureError as error:
            raise UserError(printable(str(error))) from None
        assert picture.mode in ("L", "RGB") and width * height > 0
        assert to_square(picture, (8, 8, 3)).shape == (8, 8, 3)
        for prepare in (to_digit, to_digits):
            with contextlib.suppress(BadPictureError):
                prepare(picture)

    status_of(read)


# Folders of pictures, with names and links as archives may hold them

NAMES = [
    "\x1b[31mred", "a\nb", "\udcff\udc80", "\u202e", ".hidden", "a\tb", "x" * 200, "train", "test",
    "validation", "val", "\x7f", "cat", "4.png",
]  # fmt: skip


def folder_samples(folder: Path) -> dict[str, bytes]:
    """Two pictures."""
    every = picture_samples(folder)
    return {name: every[name] for name in ("grey.png", "rgb.png")}


def lay_out(root: Path, made: dict[str, bytes]) -> None:
    """Two classes of three pictures."""
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for number in range(3):
            path = root / label / f"{number}.png"
            path.write_bytes(made["grey.png" if number else "rgb.png"])
            os.utime(path, ns=(10**18, 10**18))


def folder_case(made: dict[str, bytes], folder: Path, rng: Rng) -> None:
    """Names, links, pipes, folders in each other, damaged pictures."""
    root, outside = folder / "set", folder.parent / "outside"
    lay_out(root, made)
    kind, stack = "", contextlib.ExitStack()
    for _ in range(rng.randint(1, 3)):
        if kind in ("link", "pipe"):  # Through which this function would write.
            break
        kind = rng.choice(["class", "picture", "link", "pipe", "bad", "deep"])
        place = root / rng.choice(["", "cat", "dog"])
        place.mkdir(exist_ok=True)
        path = place / rng.choice([*NAMES, letters(rng).replace("/", "")])
        with contextlib.suppress(OSError):  # Some names are none, or are taken.
            if kind == "class":
                (path / "x").mkdir(parents=True)
                (path / "1.png").write_bytes(made["grey.png"])
            elif kind == "picture":
                path.with_name(path.name + ".png").write_bytes(made["grey.png"])
            elif kind == "deep":
                stack.enter_context(deep_folder(path, rng.choice([900, 1500, 5000])))
            elif kind == "link":
                path.symlink_to(rng.choice([outside, outside / "victim", Path("/dev/zero")]))
            elif kind == "pipe":
                os.mkfifo(path)
            else:
                (root / "cat" / "5.png").write_bytes(damage(rng, made["rgb.png"]))

    def load() -> None:
        data = load_dataset(str(root))
        np.asarray(data.train.images)

    with stack:
        status_of(load)


# Run folders: what a run writes, written by somebody else


def run_samples(folder: Path) -> dict[str, Any]:
    """The files of a run of softmax regression on 4 x 4 pixels, and its parameters' form."""
    data_dir = folder / "data"
    data_dir.mkdir()
    for name, content in idx_samples(folder).items():
        (data_dir / name).write_bytes(content)
    flags = dict(model="softmax", batch_size=2, epochs=2, devices=1, validation_size=1)
    flags |= dict(data_dir=str(data_dir), workdir=str(folder / "run"))
    record = dict(epoch=1, step=3, train_loss=1.0, train_accuracy=0.5, validation_loss=1.0)
    record |= dict(validation_accuracy=0.5, learning_rate=0.1, seconds=1.0, data_seconds=0.5)
    record |= dict(images_per_second=2.0)
    with Run.open(flags) as run:
        run.folder.log(record)
        like = jax.device_get(tree_of(run.checkpoint, 3))
        run.folder.save(3, like)
        path = run.folder.path
    config = json.loads((path / "config.json").read_text())
    return {"folder": path, "config": config, "record": record, "like": like}


def config_case(sample: dict[str, Any], folder: Path, rng: Rng) -> None:
    """config.json, read by --resume and by predict."""
    (folder / "config.json").write_bytes(damage_json(rng, sample["config"]))
    enlarge(rng, folder / "config.json")

    def resume() -> None:
        given = {"resume": True, "workdir": str(folder)}
        config = resolve(given, resumed=request.run_to_resume(given)).config
        if config.dataset == "mnist" and config.data_dir is not None:
            request.load_data(config)

    def read() -> None:
        opened = RunFolder.open(str(folder))
        config = request.read_config(opened)
        shape, names = request.data_form(opened)
        if config.model == "softmax":
            trained.params_like(opened, config, trained.create_model(config, len(names)), shape)

    status_of(resume)
    status_of(read)


def enlarge(rng: Rng, path: Path) -> None:
    """One file in fifty gets a hole, which costs who sends it nothing."""
    if rng.randint(0, 49) == 0:
        if half(rng):
            path.write_bytes(b"")
        os.truncate(path, rng.choice([1 << 20, (16 << 20) - 1, 64 << 20, 1 << 32, 1 << 40]))


def metrics_case(sample: dict[str, Any], folder: Path, rng: Rng) -> None:
    """metrics.jsonl, read by --resume, which writes it anew, and by every save."""
    (folder / "config.json").write_text(json.dumps(sample["config"]))
    records = ({**sample["record"], "epoch": epoch, "step": 3 * epoch} for epoch in (1, 2, 3))
    lines = [json.dumps(record).encode() for record in records]
    lines[rng.randint(0, 2)] = damage_json(rng, sample["record"])
    content = b"\n".join(lines) + rng.choice([b"", b"\n", b'\n{"ep'])
    if rng.randint(0, 4) == 0:
        content = damage(rng, content, content)
    (folder / "metrics.jsonl").write_bytes(content)
    enlarge(rng, folder / "metrics.jsonl")

    def resume() -> None:
        opened = RunFolder.open(str(folder))
        opened.drop_records_after(6, epochs=2)
        kept_steps([3, 6], opened.keep, opened.records())
        for record in opened.records():
            f"{record['seconds'] + record['epoch']:.1f} {record['train_loss']:.4f}"

    status_of(resume)


OUTCOME = {"train_loss": 1.0, "train_accuracy": 0.5, "loss": 1.0, "accuracy": 0.5}
SEARCH: Any = {"model": "softmax"}, {"learning_rate": [0.1, 0.5]}


def write_search(folder: Path) -> tuple[Path, Any]:
    """Writes a search of two settings with two seeds; returns one cell's file and its content."""
    search = Search(*SEARCH)
    with search.open(str(folder), resume=False):
        runs = [(point, seed) for point in search.points for seed in (0, 1)]
        search.keep(runs, 4 * [TrainingSummary(**OUTCOME)])
    path = min((folder / "cells").iterdir())
    return path, json.loads(path.read_text())


def search_case(sample: dict[str, Any], folder: Path, rng: Rng) -> None:
    """A resumed search's search.json or a cell; search.json of the slides, and result.json."""
    test = dataclasses.replace(Metrics.zero(10), count=np.int64(1))
    search = Search(*SEARCH, num_images=100)
    (folder / "config.json").write_text(json.dumps(sample["config"]))
    (folder / "metrics.jsonl").write_text(json.dumps(sample["record"]) + "\n")
    slides = half(rng)
    path, kept = folder / "search.json", {"100": OUTCOME, "200": OUTCOME}
    if not slides:
        path, kept = write_search(folder)
        if half(rng):
            path = folder / "search.json"
            kept = json.loads(path.read_text())
    path.write_bytes(damage_json(rng, kept))
    (folder / "result.json").write_bytes(rng.randbytes(rng.randint(0, 20)))
    enlarge(rng, path)

    def resume() -> None:
        with search.open(str(folder), resume=True):
            search.write()
            if search.seeds:
                print(ranking.Ranking(search).text())

    def close() -> None:
        opened = RunFolder.open(str(folder))
        config, data = request.read_config(opened), SimpleNamespace(data=None)
        run: Any = SimpleNamespace(folder=opened, config=config, experiment=data)
        replay.ClosingTable(run, Procedure()).on_finish(test)

    with deep_folder(folder / "d", 3000) if rng.randint(0, 49) == 0 else contextlib.nullcontext():
        status_of(close if slides else resume)


CHECKPOINTS = ["-1", "3", "x.safetensors", "007.safetensors", "\u0663.safetensors",
               "9" * 200 + ".safetensors", "4.safetensors", "5.safetensors.partial"]  # fmt: skip
ENTRIES = [[2**40], [2**31, 2**31], [2**63, 2], [1], [], [0, 0], [-1], [0, 4], [4, 0],
           "F64", "I64", "F8_E4M3", "BOOL", None, 3, "1"]  # fmt: skip


def checkpoint_case(sample: dict[str, Any], folder: Path, rng: Rng) -> None:
    """A checkpoint is damaged, exchanged, linked; its header declares what the file is not.

    What is read all the same must be what was saved.
    """
    shutil.copytree(sample["folder"], folder / "run")
    run, outside = folder / "run", folder.parent / "outside"
    file = run / "checkpoints" / "3.safetensors"
    content = file.read_bytes()
    for _ in range(rng.randint(1, 2)):
        kind = rng.choice(["bytes", "length", "json", "entry", "entry", "data"])
        header, data = _split(content)
        if kind == "bytes" or not header:
            content = damage(rng, content, content[::-1])
        elif kind == "length":
            length = rng.choice([0, 2, len(content), 1 << 20, 2**31, 2**63, 2**64 - 1])
            content = length.to_bytes(8, "little") + content[8:]
        elif kind == "json":
            content = _join(damage_json(rng, header), data)
        elif kind == "entry":  # One array's dtype, shape or place, or one of the checksums.
            entry = header[rng.choice(sorted(header))]
            if isinstance(entry, dict) and entry:
                entry[rng.choice(sorted(entry))] = rng.choice([*ENTRIES, value_of(rng)])
            content = _join(json.dumps(header).encode("utf-8", "surrogatepass"), data)
        else:
            content = _join(json.dumps(header).encode(), damage(rng, data, data[::-1]))
    file.write_bytes(content)
    place = rng.choice(["here"] * 12 + ["link", "pipe", "folder", "name", "deep", "many"])
    if place == "link":
        file.unlink()
        file.symlink_to(rng.choice([outside / "victim", run / "config.json", Path("/dev/zero")]))
    elif place == "pipe":
        file.unlink()
        os.mkfifo(file)
    elif place == "folder":
        file.rename(file.with_suffix(""))
        (file / "3").mkdir(parents=True)
    elif place == "name":
        shutil.copy(file, file.with_name(rng.choice(CHECKPOINTS)))
    elif place == "many":
        for number in range(10, 2000):
            file.with_name(f"{number}{rng.choice(['', '.x'])}").mkdir()
        if half(rng):
            file.with_name("7.safetensors").mkdir()
    like = sample["like"]
    forms = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like["params"])

    def predict() -> None:
        _, params = RunFolder.open(str(run)).read_params(forms)
        jax.tree.map(np.testing.assert_array_equal, params, like["params"])

    def resume() -> None:
        with RunFolder.open(str(run)) as opened:
            tree = opened.restore(like)
        if tree is not None:
            jax.tree.map(np.testing.assert_array_equal, tree, like)

    with deep_folder(file.with_name("d"), 3000) if place == "deep" else contextlib.nullcontext():
        status_of(predict)
        status_of(resume)


# Logs of an A/B test: CSV and the server's SQLite

CELLS = [*TEXTS, "A", "B", "1", "2026-11-26", "9999-12-31T23:59:59-23:59", "inf", '"', ",", "\r"]
COLUMNS = ["time", "user", "model", "version", "arm", "label", "correct"]
VALUES = [None, -1, 2**62, 0.5, float("inf"), b"\xff", "x" * 5000, "\x1b[2J"]
QUERIES = [
    "drop table feedback",
    "create view v as select * from feedback",
    "alter table feedback rename column arm to leg",
    "insert into setting values ('x', zeroblob(100000))",
    "pragma user_version = -1",
    "pragma application_id = 7",
    "delete from feedback where arm = 'B'",
]


def log_samples(folder: Path) -> dict[str, bytes]:
    """The same answers as CSV and as the server keeps them."""
    rows = [
        FeedbackRow(
            float(n), f"user {n % 90}", "cnn", "1", "AB"[n % 2], "7", None, n % 3 > 0, f"r{n}"
        )
        for n in range(300)
    ]
    log = FeedbackLog(folder / "log.sqlite")
    log.append(rows)
    log.close()
    lines = [f"{row.time},{row.user},{row.model},{row.arm},{row.correct:d}\n" for row in rows]
    csv = "time,user,model,arm,correct\n" + "".join(lines)
    return {"csv": csv.encode(), "sqlite": (folder / "log.sqlite").read_bytes()}


def log_case(sample: dict[str, bytes], folder: Path, rng: Rng) -> None:
    """A damaged log, read and tested as `jaxnets abtest LOG` does it."""
    path, kind = folder / "log", rng.choice(sorted(sample))
    if kind == "csv" and half(rng):
        path.write_bytes(_other_cells(sample["csv"], rng))
    elif kind == "sqlite" and half(rng):
        path.write_bytes(sample["sqlite"])
        _other_tables(path, rng)
    else:
        path.write_bytes(damage(rng, sample[kind], sample[rng.choice(sorted(sample))]))

    def test() -> None:
        found = trial.compare_arms(read_users(str(path)), trial.Plan())
        show(presentation.TrialResult(found, path.name).text())
        json.dumps(presentation.TrialResult(found, "log").values(), allow_nan=False)

    status_of(test)


def _other_cells(content: bytes, rng: Rng) -> bytes:
    """The CSV with a few cells exchanged."""
    lines = content.decode().splitlines(keepends=True)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(lines) - 1) if half(rng) else 0
        cells = lines[at].rstrip("\n").split(",")
        cells[rng.randint(0, len(cells) - 1)] = rng.choice([*CELLS, letters(rng)])
        lines[at] = ",".join(cells) + "\n"
    return "".join(lines).encode("utf-8", "surrogatepass")


def _other_tables(path: Path, rng: Rng) -> None:
    """A sound database with other tables, or with cells that the server would not write."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("pragma ignore_check_constraints = on")
        if half(rng):
            database.execute(rng.choice(QUERIES))
        else:
            change = f"update or ignore feedback set {rng.choice(COLUMNS)} = ? where id % 7 = 0"
            database.execute(change, [rng.choice(VALUES)])
