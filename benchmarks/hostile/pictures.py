"""Hostile pictures, and hostile folders of them."""

import contextlib
import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from hostile.damage import Rng, damage, deep_folder, half, letters, status_of
from jaxnets.errors import UserError

# Pictures


def picture_samples(folder: Path) -> dict[str, bytes]:
    """Small pictures in every format and mode that we read, and some that we do not."""
    from PIL import Image

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
    frames = [Image.fromarray(rng.integers(0, 256, (12, 9, 3), np.uint8)) for _ in range(3)]
    add("rgb.png", colours, "PNG", exif=exif)
    add("grey.png", grey, "PNG")
    add("deep.png", deep, "PNG")
    add("palette.png", colours.quantize(16), "PNG", transparency=3)
    add("clear.png", clear, "PNG")
    add("bits.png", grey.convert("1"), "PNG")
    add("frames.png", frames[0], "PNG", save_all=True, append_images=frames[1:])
    add("rgb.jpg", colours, "JPEG", exif=exif)
    add("progressive.jpg", colours, "JPEG", progressive=True)
    add("cmyk.jpg", colours.convert("CMYK"), "JPEG")
    add("frames.gif", frames[0], "GIF", save_all=True, append_images=frames[1:], duration=10)
    add("grey.gif", grey, "GIF", transparency=0)
    add("rgb.bmp", colours, "BMP")
    add("palette.bmp", colours.quantize(16), "BMP")
    add("rgb.webp", colours, "WEBP", lossless=True)
    add("lossy.webp", clear, "WEBP", exif=exif)
    add("frames.webp", frames[0], "WEBP", save_all=True, append_images=frames[1:])
    for packing in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        add(f"rgb.{packing}.tif", colours, "TIFF", compression=packing)
    add("float.tif", grey.convert("F"), "TIFF")
    add("int.tif", grey.convert("I"), "TIFF")
    add("group4.tif", grey.convert("1"), "TIFF", compression="group4")
    add("rgb.ppm", colours, "PPM")
    add("deep.pgm", deep, "PPM")
    made["plain.ppm"] = b"P3 2 2 255\n" + b"1 2 3 " * 4
    add("foreign.ico", colours, "ICO")
    add("foreign.eps", colours, "EPS")
    made["text.txt"] = b"no picture\n" * 9
    return made


def with_large_samples(folder: Path) -> tuple[dict[str, bytes], list[bytes]]:
    """The small pictures, and some of as many pixels as are allowed, in some hundred kilobytes."""
    from PIL import Image

    large = []
    for mode, format, side in (
        ("LA", "PNG", 8660), ("P", "GIF", 8660), ("CMYK", "JPEG", 8660), ("RGBA", "WEBP", 7483),
    ):  # fmt: skip
        stream = io.BytesIO()
        options: Any = {"GIF": {"transparency": 0}, "JPEG": {"progressive": True}}.get(format, {})
        Image.new(mode, (side, side)).save(stream, format, **options)
        large.append(stream.getvalue())
    return picture_samples(folder), large


def scan_bomb(rng: Rng, progressive: bytes) -> bytes:
    """A progressive JPEG of other sides, its last scan repeated."""
    frame, scan = progressive.index(b"\xff\xc2"), progressive.rindex(b"\xff\xda")
    sides = struct.pack(">2H", *(rng.choice([1, 12, 900, 8000, 8660, 65535]) for _ in range(2)))
    last, times = progressive[scan:-2], rng.choice([0, 1, 80, 89, 91, 100, 1500, 20_000])
    return (
        progressive[: frame + 5] + sides + progressive[frame + 9 : -2] + last * times + b"\xff\xd9"
    )


def picture_case(sample: tuple[dict[str, bytes], list[bytes]], folder: Path, rng: Rng) -> None:
    """A picture is damaged, or has many scans, or as many pixels as are allowed."""
    from jaxnets.data.pictures.decode import BadPictureError, read_header, read_picture, to_square
    from jaxnets.display import printable
    from jaxnets.predict.digit import to_digit, to_digits

    made, large = sample
    name, other = (rng.choice(sorted(made)) for _ in range(2))
    content = damage(rng, made[name], made[other])
    kind = rng.randint(0, 99)
    if kind == 99:
        content = scan_bomb(rng, made["progressive.jpg"])
    elif kind == 98:
        content = rng.choice(large)
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


def folder_samples(folder: Path) -> dict[str, bytes]:
    """Two pictures, and what load_folder keeps beside them."""
    from jaxnets.data.pictures.folder import load_folder

    made = {
        name: c
        for name, c in picture_samples(folder).items()
        if "grey.png" in name or "rgb.png" in name
    }
    lay_out(folder / "set", made)
    load_folder(folder / "set")
    made |= {path.name: path.read_bytes() for path in (folder / "set" / ".jaxnets").iterdir()}
    return made


def lay_out(root: Path, made: dict[str, bytes]) -> None:
    """Two classes of three pictures."""
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for number in range(3):
            path = root / label / f"{number}.png"
            path.write_bytes(made["grey.png" if number else "rgb.png"])
            os.utime(path, ns=(10**18, 10**18))


NAMES = [
    "\x1b[31mred", "a\nb", "\udcff\udc80", "\u202e", ".hidden", "a\tb", "x" * 200, "train", "test",
    "validation", "val", "\x7f", "cat", "files.npy", ".jaxnets", "4.png",
]  # fmt: skip


def folder_case(made: dict[str, bytes], folder: Path, rng: Rng) -> None:
    """Names, links, pipes, and a cache that somebody else has made."""
    from jaxnets.data.load import load_dataset

    root, outside = folder / "set", folder.parent / "outside"
    lay_out(root, made)
    kind, stack = "", contextlib.ExitStack()
    for _ in range(rng.randint(1, 3)):
        if kind in ("link", "pipe"):  # Through which this function would write.
            break
        kind = rng.choice(["class", "picture", "link", "pipe", "cache", "cache", "bad", "deep"])
        place = root / rng.choice(["", "cat", "dog", ".jaxnets"])
        with contextlib.suppress(FileExistsError):
            place.mkdir()
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
            elif kind == "cache":
                (root / ".jaxnets").mkdir(exist_ok=True)
                name = rng.choice(sorted(set(made) - {"grey.png", "rgb.png"}))
                content = rng.choice([*caches_of(made), made[name]])
                if half(rng):
                    content = damage(rng, content, made[name])
                (root / ".jaxnets" / name).write_bytes(content)
            else:
                (root / "cat" / "5.png").write_bytes(damage(rng, made["rgb.png"]))

    def load() -> None:
        policy = rng.choice(["skip", "fail"])
        data = load_dataset(str(root), on_bad_image=policy)
        np.asarray(data.train.images)

    with stack:
        status_of(load)


def caches_of(made: dict[str, bytes]) -> list[bytes]:
    """Files for .jaxnets that NumPy reads as something else, or that declare too much."""
    archive, strange, plain = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(plain, np.zeros(3))
    np.savez(archive, x=np.zeros(1))
    np.save(strange, np.zeros(2, [("path", "f8"), ("bytes", "S3")]))
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (%s,)}"
    huge = [(header % size).ljust(117) + "\n" for size in (10**12, 10**30, -1)]
    deep = ("(" * 3000).ljust(5000)
    return [
        archive.getvalue(), strange.getvalue(), plain.getvalue(),
        *(b"\x93NUMPY\1\0" + struct.pack("<H", len(h)) + h.encode() for h in (*huge, deep)),
    ]  # fmt: skip
