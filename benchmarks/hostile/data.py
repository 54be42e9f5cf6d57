"""Hostile data sets and weights: IDX files, CIFAR's archives, safetensors."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from idx_files import idx_bytes

from hostile.damage import Rng, damage, damage_json, half, status_of

# IDX files


def idx_samples(folder: Path, train: int = 6) -> dict[str, bytes]:
    """Four files of three classes, as their names and contents."""
    rng = np.random.default_rng(0)
    files = {}
    for part, count in (("train", train), ("t10k", 3)):
        for kind, array in (
            ("images-idx3", rng.integers(0, 256, (count, 4, 4))),
            ("labels-idx1", np.arange(count) % 3),
        ):
            files[f"{part}-{kind}-ubyte"] = idx_bytes(array)
    return files


def idx_case(files: dict[str, bytes], folder: Path, rng: Rng) -> None:
    """One or two of the files are damaged, before or after gzip packed them."""
    from jaxnets.data.load import load_dataset

    bad = [rng.choice(sorted(files)) for _ in range(rng.randint(1, 2))]
    for name, content in files.items():
        other = files[rng.choice(sorted(files))] if name in bad else b""
        if name in bad and half(rng):
            content = damage(rng, content, other)
        elif name in bad:
            content = damage(rng, gzip.compress(content, mtime=0), gzip.compress(other, mtime=0))
        if name in bad and rng.randint(0, 3) == 0:
            content = gzip.compress(content, mtime=0)
        (folder / name).write_bytes(content)
    status_of(lambda: load_dataset(data_dir=str(folder)))


# CIFAR's archives


def cifar_samples(folder: Path) -> dict[str, bytes]:
    """A plain and a packed archive of two pictures a file."""
    from jaxnets.data.cifar import FORMS

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


TAR_FIELDS = [(0, 100), (100, 8), (124, 12), (148, 8), (156, 1), (157, 100), (257, 8), (345, 155)]


def cifar_case(made: dict[str, bytes], folder: Path, rng: Rng) -> None:
    """The archive's bytes or its members' headers are damaged, or one is added."""
    from jaxnets.data.cifar import load_cifar

    content = made[rng.choice(sorted(made))]
    kind = rng.choice(["bytes", "header", "member", "packed"])
    if kind == "bytes":
        content = damage(rng, content, made["w"])
    elif kind == "member":
        content = _with_member(rng, made["w"])
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
        new = rng.choice(
            [rng.randbytes(length), b"77777777777", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-1",
             b"../../x", b"L", b"K", b"x", b"g", b"S", b"1", b"2", b"3", b"6"]
        )[:length]  # fmt: skip
        blocks[at + start : at + start + len(new)] = new
        sign(blocks, at)
    return bytes(blocks)


def sign(blocks: bytearray, at: int) -> None:
    """Makes a tar header's checksum right."""
    blocks[at + 148 : at + 156] = b" " * 8
    blocks[at + 148 : at + 156] = b"%06o\0 " % sum(blocks[at : at + 512])


def _with_member(rng: Rng, archive: bytes) -> bytes:
    """A member goes first: a link, a device, a path that leads out, long or sparse headers."""
    stream = io.BytesIO()
    member = tarfile.TarInfo(rng.choice(
        ["../../outside/victim", "/etc/passwd", "cifar-10-batches-bin/test_batch.bin", "x" * 300]
    ))  # fmt: skip
    member.type = rng.choice([b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S"])
    member.linkname = "../../outside/victim"
    headers: dict[str, str] = {}
    for _ in range(rng.randint(0, 3)):
        field = rng.choice(
            [
                "size",
                "path",
                "GNU.sparse.map",
                "GNU.sparse.major",
                "GNU.sparse.size",
                "GNU.sparse.minor",
                "GNU.sparse.realsize",
                "hdrcharset",
                "mtime",
            ]
        )
        headers[field] = rng.choice(
            ["-1", "0", "1", "9" * 30, "x", "0,1,2", "1e9", "nan", "inf", ""]
        )  # fmt: skip
    member.pax_headers = headers
    form: Any = rng.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
    stream.write(member.tobuf(form))
    return stream.getvalue() + archive


# Weights


def weight_samples(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Tiny layers named as AlexNet's, fresh and in a file."""
    from safetensors.numpy import save

    from jaxnets.models.alexnet import params_to_torchvision

    shapes = {
        "conv1": (3, 3, 1, 2), "conv2": (1, 1, 2, 2), "conv3": (1, 1, 2, 2), "conv4": (1, 1, 2, 2),
        "conv5": (1, 1, 2, 2), "dense6": (8, 3), "dense7": (3, 3), "logits": (3, 2),
    }  # fmt: skip
    rng = np.random.default_rng(0)
    fresh = {
        name: {
            "kernel": rng.random(shape, np.float32),
            "bias": rng.random(shape[-1], np.float32),
        }
        for name, shape in shapes.items()
    }
    return fresh, save(params_to_torchvision(fresh))


# What safetensors knows, and the bytes of a number.
DTYPES = [
    ("F64", 8), ("F32", 4), ("F16", 2), ("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1), ("F8_E8M0", 1),
    ("C64", 8), ("I64", 8), ("U64", 8), ("I16", 2), ("I8", 1), ("U8", 1), ("BOOL", 1),
]  # fmt: skip


def weights_case(made: tuple[dict[str, Any], bytes], folder: Path, rng: Rng) -> None:
    """The file's bytes, or the JSON in its header, whose length is made right."""
    from jaxnets.models.weights import load_weights

    fresh, content = made
    length = int.from_bytes(content[:8], "little")
    header, numbers = json.loads(content[8 : 8 + length]), content[8 + length :]
    kind = rng.choice(["bytes", "header", "tensor", "extra"])
    if kind == "bytes":
        content = damage(rng, content, content)
    else:
        if kind == "extra":  # A sound tensor that no layer of ours has.
            dtype, size = rng.choice(DTYPES)
            end = len(numbers) + 2 * size
            extra = {"dtype": dtype, "shape": [2], "data_offsets": [len(numbers), end]}
            header[rng.choice(["x", "classifier.9.weight", "\x1b[2J"])] = extra
            text, numbers = json.dumps(header).encode(), numbers + bytes(2 * size)
        elif kind == "tensor":
            entry = header[rng.choice(sorted(header))]
            entry["dtype"] = rng.choice([*(name for name, _ in DTYPES), "x", entry["dtype"]])
            sizes = [rng.choice([0, 1, 2, 3, 2**31, 2**63, -1]) for _ in range(rng.randint(0, 4))]
            entry["shape"] = rng.choice([entry["shape"], sizes])
            text = json.dumps(header).encode()
        else:
            text = damage_json(rng, header)
        content = len(text).to_bytes(8, "little") + text + numbers
    path = folder / "w.safetensors"
    path.write_bytes(content)
    status_of(lambda: load_weights(str(path), fresh))
