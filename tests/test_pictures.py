"""One picture: every form that a folder of photos may hold, and every way to be damaged."""

import io
import os
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxnets.data.pictures import decode as pictures
from jaxnets.data.pictures.decode import BadPictureError, read_header, read_picture, to_square

# A process's own peak in KiB; its ru_maxrss begins with the peak of the one that started it.
PEAK = 'peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])\n'
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")


def photo(height=40, width=60):
    """A smooth colour picture [H, W, 3] uint8 that no two of its turns share."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 255 // height, x * 255 // width, 128 + 0 * x], axis=-1).astype(np.uint8)


@pytest.fixture
def save(tmp_path):
    """Writes a picture of Pillow's or an array, whatever its format as a .png; returns its path."""

    def write(picture, **options):
        if isinstance(picture, np.ndarray):
            picture = Image.fromarray(picture)
        if options.get("format") == "WEBP":
            options["lossless"] = True
        picture.save(tmp_path / "picture.png", **options)
        return tmp_path / "picture.png"

    return write


def read(path, **options):
    """Mode and pixels; the header must have told the same mode."""
    picture = read_picture(path, **options)
    assert read_header(path)[2] == (picture.mode == "L")
    return picture.mode, np.asarray(picture)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_format_gives_back_up_to_the_most_pixels(save, kind, monkeypatch):
    path = save(photo(), format=kind)  # As a .png: the file's name does not matter.
    limit = 60 * 40 * (4 / 3 if kind == "WEBP" else 1)
    monkeypatch.setattr(pictures, "MAX_PIXELS", limit - 1)
    with pytest.raises(BadPictureError, match="at most 2,399 pixels, found 60 x 40"):
        read_picture(path)
    monkeypatch.setattr(pictures, "MAX_PIXELS", limit)
    mode, pixels = read(path)
    monkeypatch.undo()
    assert mode == "RGB"
    assert np.abs(pixels.astype(int) - photo()).mean() < (8 if kind in ("JPEG", "GIF") else 1e-9)
    grey = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None], 40, axis=0)
    mode, pixels = read(save(grey, format=kind))
    if kind == "WEBP":  # The format knows colour only.
        assert mode == "RGB"
        pixels = pixels[..., 1]
    else:
        assert mode == "L"
    assert np.abs(pixels.astype(int) - grey).max() <= (2 if kind == "JPEG" else 0)


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_a_heic_says_what_reads_it(tmp_path, monkeypatch, brand):
    """Its first 24 bytes: the box of the file's type, by ISO/IEC 14496-12."""
    monkeypatch.setattr(pictures, "FORMATS", FORMATS)  # As without pillow-heif.
    content = b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic"
    (tmp_path / "a.jpg").write_bytes(content)
    for photo_file in (tmp_path / "a.jpg", content):
        with pytest.raises(
            BadPictureError, match="got HEIF; .*pip install pillow-heif, or convert"
        ):
            read_picture(photo_file)
    with pytest.raises(BadPictureError, match="^not a picture"):
        read_picture(content.replace(brand, b"mp42", 1))


# The turns that undo each orientation, as the EXIF standard defines its tag 0x0112.
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_exif_turns_a_picture_upright(save, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read(save(photo(), format=kind, exif=exif))[1]
    expected = TURNS[orientation](photo())
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < (3 if kind == "JPEG" else 1e-9)


@pytest.fixture
def peak_of(run_python):
    """Reads a picture in a process; returns what it prints and by how many bytes its peak grew."""
    code = (
        "import sys; from pathlib import Path\n"
        "from jaxnets.data.pictures.decode import BadPictureError, read_picture\n"
        f"{PEAK}"
        "before = peak()\n"
        "try: print(read_picture(Path(sys.argv[1])).size)\n"
        "except BadPictureError as error: print(error)\n"
        "print(1024 * (peak() - before))"
    )

    def read(path):
        outcome = run_python("-c", code, path)
        assert outcome.err == ""
        said, grown = outcome.out.splitlines()
        return said, int(grown)

    return read


def test_a_picture_with_damaged_exif_is_read_silently(save, peak_of):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12\0\x03"
    assert peak_of(save(photo(), format="JPEG", exif=exif))[0] == "(60, 40)"


def test_what_is_transparent_lies_over_white_and_grey_stays_grey(save):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[..., 3] = [0, 128, 255]  # Black, more and more opaque.
    mode, seen = read(save(pixels))
    assert (mode, seen[0].tolist()) == ("RGB", [[255] * 3, [127] * 3, [0] * 3])
    picture = Image.merge("LA", [Image.new("L", (1, 1), 100), Image.new("L", (1, 1), 51)])
    mode, seen = read(save(picture))
    assert (mode, seen.tolist()) == ("L", [[round(0.2 * 100 + 0.8 * 255)]])
    for mode, transparent in (("L", 0), ("RGB", (0, 0, 0)), ("1", 0)):
        assert (read(save(Image.new(mode, (2, 2)), transparency=transparent))[1] == 255).all()


@pytest.mark.parametrize(
    ("kind", "transparency"), [("PNG", 1), ("PNG", bytes([255, 0, 255])), ("GIF", 1)]
)
def test_a_palette_is_converted_its_transparency_over_white(save, kind, transparency):
    picture = Image.new("P", (3, 1))
    picture.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    picture.putdata([0, 1, 2])
    mode, seen = read(save(picture, format=kind, transparency=transparency))
    assert (mode, seen[0].tolist()) == ("RGB", [[200, 0, 0], [255, 255, 255], [0, 0, 200]])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PGM"])
def test_16_bit_grey_is_scaled(save, tmp_path, kind):
    values = np.array([[0, 256, 257 * 99, 257 * 100 + 128, 257 * 100 + 129, 65535]], np.uint16)
    if kind == "PGM":  # Which older versions of Pillow read but do not write.
        path = tmp_path / "grey.pgm"
        path.write_bytes(b"P5 6 1 65535\n" + values.astype(">u2").tobytes())
    else:
        path = save(values, format=kind)
    mode, seen = read(path)
    assert (mode, seen.tolist()) == ("L", [[0, 1, 99, 100, 101, 255]])


@pytest.mark.parametrize(
    ("values", "reason"),
    [(np.array([[0, 70_000]], np.int32), "16 bits"), (np.ones((1, 1), np.float32), "floating")],
)
def test_pixels_of_unknown_scale_are_refused(save, values, reason):
    with pytest.raises(BadPictureError, match=reason):
        read_picture(save(values, format="TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted(save, kind):
    mode, seen = read(save(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), format=kind, quality=95))
    assert mode == "RGB"
    assert np.abs(seen.reshape(-1, 3).astype(int) - [0, 255, 255]).max() < 4


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_taken(save, kind):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    first, *others = [Image.new("RGB", (8, 8), colour) for colour in colours]
    path = save(first, format=kind, save_all=True, append_images=others)
    with Image.open(path) as written:
        assert getattr(written, "n_frames", 1) == 3
    assert (read(path)[1] == colours[0]).all()


def encoded(kind, pixels=None, **options):
    """A picture's file, by default of noise."""
    stream, rng = io.BytesIO(), np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 64, 3), np.uint8) if pixels is None else pixels
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture(params=["file", "content"])
def read_content(request, tmp_path):
    """Reads a picture's content, from memory or from a file: a JPEG has its own way for each."""

    def read(content, **options):
        (tmp_path / "picture").write_bytes(content)
        return read_picture(tmp_path / "picture" if request.param == "file" else content, **options)

    return read


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_and_damaged_pictures_are_refused(read_content, kind):
    content, rng, refused = encoded(kind), np.random.default_rng(1), 0
    for share in (0.01, 0.3, 0.9):
        with pytest.raises(BadPictureError) as caught:
            read_content(content[: max(4, int(len(content) * share))])
        assert 0 < len(str(caught.value)) < 120 and "\n" not in str(caught.value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(60):
            damaged = np.frombuffer(content, np.uint8).copy()
            where = rng.integers(0, min(len(damaged), 400), 4)
            damaged[where] = rng.integers(0, 256, 4)
            try:
                assert read_content(damaged.tobytes(), side=16).mode in ("L", "RGB")
            except BadPictureError as error:
                refused += 1
                assert str(error)
    assert refused or kind in ("BMP", "PPM")  # Which have hardly anything that can be wrong.


def test_what_is_no_picture_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path, reason in (
        (b"", "empty"),
        (b"hello, I am a text\n" * 9, "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (b"\xff\xd8\xff\xe0", "not a picture"),
        (tmp_path / "nowhere.jpg", "no such file"),
        (tmp_path, "not a file"),
        (tmp_path / "pipe.jpg", "not a file"),
    ):
        with pytest.raises(BadPictureError, match=reason):
            read_picture(path)


def bomb(kind, side=50_000):
    """A small file whose header promises side x side pixels."""
    content = bytearray(encoded(kind))
    if kind == "PPM":
        return content.replace(b"64 64", b"%d %d" % (side, side))
    frame = content.find(b"\xff\xc0") + 5
    sizes = {"PNG": (">II", 16), "BMP": ("<ii", 18), "JPEG": (">HH", frame), "GIF": ("<HH", 6)}
    form, place = sizes[kind]
    struct.pack_into(form, content, place, side, side)
    if kind == "PNG":
        struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    return content


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PNG", "PPM", "BMP", "JPEG", "GIF"])
def test_a_decompression_bomb_is_refused_before_it_takes_memory(tmp_path, peak_of, kind):
    path = tmp_path / "bomb"
    path.write_bytes(bomb(kind))
    reason, grown = peak_of(path)
    assert f"at most {pictures.MAX_PIXELS:,} pixels" in reason
    assert grown < 20e6  # The picture would be 7.5 GB.


def test_a_large_jpeg_is_decoded_at_reduced_size(save):
    path = save(photo(800, 1200), format="JPEG", quality=95)
    assert read_picture(path).size == (1200, 800)
    reduced = read_picture(path, side=64)
    assert reduced.size == (300, 200)  # A quarter: an eighth has less than twice 64 pixels.
    ours, theirs = (to_square(p, (64, 64, 3)) for p in (reduced, read_picture(path)))
    assert np.abs(ours.astype(int) - theirs).max() <= 2


def test_a_square_is_the_resized_pictures_centre():
    pixels = to_square(Image.fromarray(photo(80, 120)), (40, 40, 3))
    resized = np.asarray(Image.fromarray(photo(80, 120)).resize((60, 40), 2), int)
    assert (pixels.shape, pixels.dtype) == ((40, 40, 3), np.uint8)
    assert np.abs(pixels - resized[:, 10:50]).max() <= 1
    square = photo(32, 32)  # One of the same size is unchanged.
    np.testing.assert_array_equal(to_square(Image.fromarray(square), (32, 32, 3)), square)
    grey = to_square(Image.fromarray(square), (32, 32, 1))
    np.testing.assert_array_equal(grey[..., 0], Image.fromarray(square).convert("L"))


@pytest.mark.oracle
def test_a_square_is_torchvisions():
    transforms = pytest.importorskip("torchvision.transforms", reason="the oracle is missing")
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (61, 97, 3), np.uint8))
    theirs = transforms.CenterCrop(32)(transforms.Resize(32)(picture))
    difference = to_square(picture, (32, 32, 3)) - np.asarray(theirs, int)
    assert np.abs(difference).mean() < 6  # It rounds the resized width to whole pixels.


def progressive(scans):
    """A progressive JPEG whose last scan is repeated until there are so many."""
    content = encoded("JPEG", photo(64, 64), progressive=True, quality=90)
    count, last = content.count(b"\xff\xda"), content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * (scans - count) + b"\xff\xd9"


def test_a_jpeg_may_refine_its_picture_a_hundred_times(read_content):
    plain = np.asarray(read_content(progressive(1)), int)
    assert np.abs(plain - photo(64, 64)).mean() < 3
    assert read_content(progressive(100)).size == (64, 64)
    # What follows the picture is no part of it, as the video of a phone's moving photo.
    np.testing.assert_array_equal(
        np.asarray(read_content(progressive(1) + b"\xff\xda\0\2" * 200)), plain
    )
    sequential = bytearray(progressive(102))
    sequential[sequential.index(b"\xff\xc2") + 1] = 0xC1
    first = sequential.index(b"\xff\xda")
    # Scans of one component each, as libjpeg would read again and again.
    del sequential[first : sequential.index(b"\xff\xda", first + 2)]
    for content in (progressive(101), progressive(1_500), bytes(sequential)):
        with pytest.raises(BadPictureError, match="expected at most 100 scans, found more"):
            read_content(content)


@pytest.mark.slow
def test_threads_give_back_the_memory_of_large_pictures(save, run_python):
    """Four of them, one at work at a time: they held three times one's memory, now 1.7 times."""
    code = (
        "import sys; from concurrent.futures import ThreadPoolExecutor\n"
        "from pathlib import Path; from jaxnets.data.pictures import decode\n"
        f"{PEAK}"
        "read = lambda _: decode.read_square(Path(sys.argv[1]), (8, 8, 1))\n"
        "decode.MAX_PIXELS, before = 4400**2, peak()\n"
        "read(0); one = peak() - before\n"
        "with ThreadPoolExecutor(4) as threads: list(threads.map(read, range(12)))\n"
        "print((peak() - before) / one)"
    )
    assert float(run_python("-c", code, save(Image.new("LA", (4400, 4400)))).out) < 2.4


def test_a_file_may_have_a_gibibyte(save):
    """The rest may be a hole, which costs nothing to send and minutes to read."""
    path = save(photo())
    os.truncate(path, pictures.MAX_BYTES)
    assert read_picture(path).size == (60, 40)
    os.truncate(path, pictures.MAX_BYTES + 1)
    with pytest.raises(BadPictureError, match="at most 1,073,741,824 bytes, found 1,073,741,825"):
        read_header(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", mode) for mode in ("I;16", "LA", "RGBA", "P")]
    + [("TIFF", "I"), ("WEBP", "RGBA"), ("GIF", "P"), ("JPEG", "CMYK")],
)
def test_the_most_pixels_take_less_than_a_gigabyte(save, peak_of, kind, mode):
    """Measured at a tenth of the pixels, of which 75 million are allowed, and 56 of WebP's."""
    options: Any = {"transparency": 0} if mode == "P" else {}
    side = 2371 if kind == "WEBP" else 2730
    path = save(Image.new(mode, (side, side)), format=kind, **options)
    weight = side**2 * pictures.WEIGHTS.get(kind, 1)
    assert peak_of(path)[1] * pictures.MAX_PIXELS / weight < 1e9
