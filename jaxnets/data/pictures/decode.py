"""One picture file, decoded safely by Pillow, whatever a folder of photos may hold."""

import contextlib
import io
import mmap
import re
import threading
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from jaxnets.base.language import N_, Text

# The formats that are decoded, whatever a file's name says. Pillow knows forty more, some of which
# start other programs: photos need none of them.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
with contextlib.suppress(ImportError):  # Where it is installed, Pillow reads an iPhone's photos.
    import pillow_heif

    pillow_heif.register_heif_opener()
    FORMATS += ("HEIF",)
HOW_TO_READ = N_("{}; to read .heic: pip install pillow-heif, or convert them to .jpg")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1")  # ISO/IEC 23008-12, bytes 8 to 11.
# The most pixels that a picture may have, and that all threads decode at a time. A tiny file may
# hold that many; converting them takes up to 12 bytes each, 900 MB in all. A WebP's takes 16.
MAX_PIXELS = 75_000_000
WEIGHTS = {"WEBP": 16 / 12}
# The most bytes of a file: more than so many pixels of 8 bytes take. A sparse file costs its sender
# nothing, yet a folder's checksum reads all of it.
MAX_BYTES = 1 << 30
_room, _in_use = threading.Condition(), 0
# Each scan of a progressive JPEG refines the whole picture. Cameras write about 10; 1,500 of them
# over 64 million pixels, in a file of 505 kB, took 91 s.
MAX_SCANS = 100
# A marker of JPEG before a segment; within a scan, 0xff is followed by 0 or by a restart's number.
MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
# Pillow's blocks of 16 MB stay with the thread that freed them; one of more than 32 MB goes back to
# the system at once (mallopt(3)). Two threads that scale eight pictures of 75 million pixels take
# 0.34 GB in place of 0.63 GB, and hold 0.04 GB in place of 0.41 GB afterwards.
Image.core.set_block_size(1 << 29)
# Pillow warns of damaged metadata in a picture that it decodes nevertheless.
warnings.filterwarnings("ignore", module=r"PIL\.")


class BadPictureError(Text, Exception):
    """A file that is not a picture or cannot be decoded; the message says why."""


def read_picture(path: Path | bytes, side: int | None = None) -> Image.Image:
    """Decodes a file or its content, as a viewer shows it: to 8 bits, mode L if grey, else RGB.

    It is turned upright by its EXIF tag. Transparent parts are laid over white, 16-bit grey is
    scaled, CMYK and palettes are converted. Of an animation, the first frame is taken.

    With `side`, a JPEG is decoded at 1/2, 1/4 or 1/8 of its size if each side keeps at least twice
    as many pixels. A large photo then takes a fraction of the time and memory.

    Raises:
      BadPictureError: The picture is not whole or not in one of FORMATS, or has more than
        MAX_PIXELS pixels, MAX_BYTES bytes or MAX_SCANS scans. The limits are checked before memory
        is taken.
    """
    with _decoded(path, side) as picture:
        return picture


def read_square(path: Path | bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """`to_square` of `read_picture`, for many threads: its memory counts until it is done."""
    with _decoded(path, shape[0]) as picture:
        return to_square(picture, shape)


@contextlib.contextmanager
def _decoded(path: Path | bytes, side: int | None) -> Generator[Image.Image]:
    with _opened(path) as picture:
        whole = _weight(picture)
        if side is not None:
            picture.draft(None, (2 * side, 2 * side))  # type: ignore[arg-type]
        # libjpeg holds all of a progressive picture, however small it is drafted.
        with _turn(whole if "progressive" in picture.info else _weight(picture)):
            picture.load()
            # Turned by its EXIF tag, in place; a picture whose metadata are damaged stays as it is.
            with contextlib.suppress(Exception):
                ImageOps.exif_transpose(picture, in_place=True)
            yield to_8_bits(picture)


def _weight(picture: Image.Image) -> float:
    """The number of pixels that the picture counts as."""
    return picture.width * picture.height * WEIGHTS.get(picture.format or "", 1)


@contextlib.contextmanager
def _turn(weight: float) -> Generator[None]:
    """Waits until other threads' pictures leave room for the weight."""
    global _in_use
    with _room:
        _room.wait_for(lambda: _in_use + weight <= MAX_PIXELS)
        _in_use += weight
    try:
        yield
    finally:
        with _room:
            _in_use -= weight
            _room.notify_all()


def read_header(path: Path) -> tuple[int, int, bool]:
    """The picture's width and height before it is turned upright, and whether it is grey."""
    with _opened(path) as picture:
        return *picture.size, _is_grey(picture)


@contextlib.contextmanager
def _opened(path: Path | bytes) -> Generator[Image.Image]:
    """Opens a picture and reads its header; whatever Pillow raises becomes a BadPictureError."""
    if isinstance(path, Path) and not path.is_file():  # Opening a pipe would wait for ever.
        raise BadPictureError("{}", Text("not a file") if path.exists() else Text("no such file"))
    try:
        with path.open("rb") if isinstance(path, Path) else io.BytesIO(path) as stream:
            if not (size := stream.seek(0, io.SEEK_END)):
                raise BadPictureError("empty file")
            if size > MAX_BYTES:
                raise BadPictureError(
                    "expected at most {} bytes, found {}", f"{MAX_BYTES:,}", f"{size:,}"
                )
            stream.seek(0)
            kind, brand = stream.read(8)[4:], stream.read(4)
            if kind == b"ftyp" and brand in HEIF_BRANDS and "HEIF" not in FORMATS:
                got = Text("expected one of {}, got HEIF", ", ".join(FORMATS))
                raise BadPictureError(HOW_TO_READ, got)
            stream.seek(0)
            with Image.open(stream, formats=FORMATS) as picture:
                if (weight := _weight(picture)) > MAX_PIXELS:
                    width, height = picture.size
                    most = int(MAX_PIXELS * width * height / weight)
                    raise BadPictureError(
                        "expected at most {} pixels, found {} x {}", f"{most:,}", width, height
                    )
                if picture.format in ("JPEG", "MPO"):
                    _check_scans(picture, stream)
                yield picture
    except (BadPictureError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadPictureError("expected at most {} pixels, found more", f"{MAX_PIXELS:,}") from None
    except Image.UnidentifiedImageError:
        raise BadPictureError("not a picture ({})", ", ".join(FORMATS)) from None
    except OSError as error:  # Pillow's own have no number.
        raise BadPictureError(error.strerror or str(error)) from error
    except Exception as error:  # A damaged file may raise anything at all in a decoder.
        raise BadPictureError("damaged: {}", error or type(error).__name__) from error


def _check_scans(picture: Any, stream: io.BufferedReader | io.BytesIO) -> None:
    """Refuses a JPEG of more than MAX_SCANS scans; only the headers of its segments are read."""
    if isinstance(stream, io.BytesIO):
        content: Any = stream.getvalue()
    else:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    scans, place, is_progressive = 0, 2, "progressive" in picture.info
    while (found := MARKER.search(content, place)) is not None:
        place = found.end()
        marker = content[place - 1]
        if marker == START_OF_SCAN:
            scans += 1
            # Unless it is progressive, a first scan of every component is the only one.
            if (scans, content[place + 2]) == (1, picture.layers) and not is_progressive:
                return
        if scans > MAX_SCANS:
            raise BadPictureError("expected at most {} scans, found more", MAX_SCANS)
        if marker == END_OF_IMAGE:
            return
        place += int.from_bytes(content[place : place + 2], "big")


def to_square(picture: Image.Image, shape: tuple[int, ...]) -> np.ndarray:
    """The pixels [S, S, C] uint8 of an 8-bit picture, C = 1 for grey or 3.

    Its shorter side is resized to S, bilinear over all the pixels that a new one covers, and its
    centre is cut out. A picture of that size passes unchanged. Source: Krizhevsky et al. 2012,
    section 2.
    """
    mode = "L" if shape[2] == 1 else "RGB"
    picture = _converted(picture, mode)
    picture = ImageOps.fit(picture, (shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(shape)


def to_8_bits(picture: Image.Image) -> Image.Image:
    """Any mode → L or RGB; BadPictureError if it has more than 16 bits."""
    if picture.mode.startswith("I"):  # 16 bits; Pillow itself would cut at 255, not scale.
        picture = _converted(picture, "I")
        lowest, highest = picture.getextrema()
        if lowest < 0 or highest > 0xFFFF:  # type: ignore[operator]
            raise BadPictureError("expected at most 16 bits of grey, found 32")
        return picture.point(lambda level: level * (1 / 257) + 0.5).convert("L")
    if picture.mode == "F":
        raise BadPictureError("expected 8 or 16 bits of grey, found floating-point numbers")
    grey = _is_grey(picture)
    if picture.has_transparency_data:
        picture = _converted(picture, "RGBA")
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=picture)
        picture = white
    return _converted(picture, "L" if grey else "RGB")


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    """The picture in a mode; Pillow would copy it if it has that mode."""
    return picture if picture.mode == mode else picture.convert(mode)


def _is_grey(picture: Image.Image) -> bool:
    """Whether its mode, or every colour of its palette, is a grey one."""
    if picture.mode == "P":
        colours = picture.getpalette() or []
        return colours[0::3] == colours[1::3] == colours[2::3]
    return picture.mode in ("1", "L", "LA", "La") or picture.mode.startswith("I")
