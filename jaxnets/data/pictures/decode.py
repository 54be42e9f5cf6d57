"""One picture file, decoded safely by Pillow, whatever a folder of photos may hold."""

import contextlib
import dataclasses
import io
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# What is decoded; the content decides, not the name. Pillow knows forty more formats, some of
# which start other programs: photos need none of them.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

# The most pixels that a picture may have: Pillow's own limit, 256 MiB in RGB.
MAX_PIXELS = 1024**3 // 4 // 3

# A tiny file may hold that many, which take a gigabyte while they are converted. Threads decode
# side by side what has no more pixels than this, and what has more one at a time.
LARGE = 1 << 25
_turn = threading.Lock()

# Pillow warns of damaged metadata in a picture that it decodes nevertheless.
warnings.filterwarnings("ignore", module=r"PIL\.")


class BadPictureError(Exception):
    """A file that is no picture, or that cannot be decoded; the message is the reason."""


def read_picture(path: Path | bytes, side: int | None = None) -> Image.Image:
    """Decodes one picture to 8 bits, as a viewer shows it.

    It is turned upright by its EXIF tag; transparent parts are laid over white; of an animation
    the first frame is taken; 16-bit grey is scaled, CMYK and palettes are converted.

    Args:
      path: The file, in one of FORMATS whatever its name says; or its content.
      side: A JPEG may be decoded at a half, a quarter or an eighth of its size, as long as each
        side keeps twice so many pixels: a large photo takes a fraction of the time and memory.

    Returns:
      The picture, its pixels in memory: of mode L if it is grey, else RGB.

    Raises:
      BadPictureError: It is missing, unreadable, empty, no picture, cut short, damaged, or has more
        than MAX_PIXELS pixels (told from its header, before memory is taken).
    """
    with _opened(path) as picture:
        if side is not None:
            picture.draft(None, (2 * side, 2 * side))  # type: ignore[arg-type]
        width, height = picture.size
        with _turn if width * height > LARGE else contextlib.nullcontext():
            picture.load()
            return _to_8_bits(_upright(picture))


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file's first bytes tell of its picture, as it lies."""

    width: int
    height: int
    grey: bool


def read_header(path: Path) -> Header:
    """The picture's size and whether it is grey, without decoding it.

    Raises:
      BadPictureError: As read_picture, as far as the header shows it.
    """
    with _opened(path) as picture:
        return Header(*picture.size, _is_grey(picture))


@contextlib.contextmanager
def _opened(path: Path | bytes) -> Iterator[Image.Image]:
    """A picture whose header is read; whatever Pillow raises becomes a BadPictureError."""
    if isinstance(path, Path) and not path.is_file():  # Opening a pipe would wait for ever.
        raise BadPictureError("not a file" if path.exists() else "no such file")
    try:
        with path.open("rb") if isinstance(path, Path) else io.BytesIO(path) as stream:
            if not stream.read(1):
                raise BadPictureError("empty file")
            stream.seek(0)
            with Image.open(stream, formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    raise _too_large(f"{width} x {height}")
                yield picture
    except (BadPictureError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large("more") from None
    except Image.UnidentifiedImageError:
        raise BadPictureError(f"not a picture ({', '.join(FORMATS)})") from None
    except OSError as error:  # Pillow's own have no number.
        raise BadPictureError(error.strerror or str(error)) from error
    except Exception as error:  # A damaged file may raise anything at all in a decoder.
        raise BadPictureError(f"damaged: {error or type(error).__name__}") from error


def fit_square(picture: Image.Image, size: int) -> Image.Image:
    """The picture, its shorter side resized to `size` pixels and its centre cut out.

    [H, W] → [size, size], bilinear over all the pixels that a new one covers. A picture that has
    the size passes unchanged. Source: Krizhevsky et al. 2012, section 2.
    """
    return ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)


def _too_large(size: str) -> BadPictureError:
    return BadPictureError(f"expected at most {MAX_PIXELS:,} pixels, found {size}")


def _upright(picture: Image.Image) -> Image.Image:
    """Turns it by its EXIF tag; one whose metadata are damaged stays as it lies."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        return picture


def _to_8_bits(picture: Image.Image) -> Image.Image:
    """Any mode → L or RGB."""
    if picture.mode.startswith("I"):  # 16 bits; Pillow itself would cut at 255, not scale.
        pixels = np.asarray(picture)
        if pixels.min() < 0 or pixels.max() > 0xFFFF:
            raise BadPictureError("expected at most 16 bits of grey, found 32")
        return Image.fromarray(np.round(pixels / 257).astype(np.uint8))
    if picture.mode == "F":
        raise BadPictureError("expected 8 or 16 bits of grey, found floating-point numbers")
    grey = _is_grey(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("L" if grey else "RGB")


def _is_grey(picture: Image.Image) -> bool:
    """Whether its mode, or every colour of its palette, is a grey one."""
    if picture.mode == "P":
        colours = picture.getpalette() or []
        return colours[0::3] == colours[1::3] == colours[2::3]
    return picture.mode in ("1", "L", "LA", "La") or picture.mode.startswith("I")
