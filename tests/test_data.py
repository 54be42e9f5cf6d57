"""Reading IDX files, sound and damaged; MNIST in the package; batches, also made ahead."""

import contextlib
import gzip
import shutil
import threading
import time
import tracemalloc
from concurrent.futures import Future
from importlib import resources

import numpy as np
import pytest
from conftest import HANGS, write_idx
from scipy import ndimage

from jaxnets.base.errors import UserError
from jaxnets.data import batches as module
from jaxnets.data.batches import DEPTH, epoch_order, eval_batches, prefetch, train_batches
from jaxnets.data.datasets import Split
from jaxnets.data.idx import FILES, read_idx
from jaxnets.data.load import load_dataset

TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
IMAGES = np.arange(2 * 3 * 4).reshape(2, 3, 4)
plain_and_gzip = pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])


@pytest.fixture(autouse=True)
def no_thread_is_left_behind():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


# One file


@plain_and_gzip
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (1, 1, 1)])
def test_an_idx_file_is_read_as_it_was_written(tmp_path, shape, pack):
    array = np.random.default_rng(0).integers(0, 256, shape)
    path = write_idx(tmp_path / "file", array)
    path.write_bytes(pack(path.read_bytes()))
    read = read_idx(path, rank=len(shape))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)


@plain_and_gzip
def test_every_truncation_of_a_file_is_refused(tmp_path, pack):
    path = write_idx(tmp_path / "file", IMAGES)
    whole = pack(path.read_bytes())
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        expected = "header" if size < 16 else "promises"
        if pack is gzip.compress:
            expected = "damaged gzip|expected an IDX"
        with pytest.raises(UserError, match=expected):
            read_idx(path, rank=3)


def idx(*shape, magic=b"\0\0\x08\x03", size=24):
    """A header and so many bytes."""
    return magic + b"".join(n.to_bytes(4, "big") for n in shape) + bytes(size)


WRONG = {
    "trailing bytes": (idx(2, 3, 4, size=25), "promises .*; it holds more"),
    **{
        what: (idx(2, 3, 4, magic=magic), f"0x0803.*found {magic.hex()}")
        for what, magic in {
            "signed bytes": b"\x00\x00\x09\x03",
            "floats": b"\x00\x00\x0d\x03",
            "no zeros": b"\x00\x01\x08\x03",
            "a PNG": b"\x89PNG",
            "rank 1": b"\x00\x00\x08\x01",
        }.items()
    },
    **{f"shape {shape}": (idx(*shape), "empty") for shape in ((0, 9, 9), (3, 0, 9), (3, 9, 0))},
}


@plain_and_gzip
@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG)
def test_a_file_of_another_form_is_refused(tmp_path, content, message, pack):
    (tmp_path / "file").write_bytes(pack(content))
    with pytest.raises(UserError, match=message):
        read_idx(tmp_path / "file", rank=3)


@plain_and_gzip
def test_a_header_of_two_billion_images_fails_fast_and_small(tmp_path, pack):
    path = tmp_path / "file"
    path.write_bytes(pack(idx(2**31, 28, 28, size=1000)))
    started = time.thread_time()  # Other processes' work does not count.
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"promises \(2147483648, 28, 28\)"):
            read_idx(path, rank=3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5e6
    assert time.thread_time() - started < 1


def test_no_flipped_bit_of_gzip_changes_what_is_read(tmp_path):
    path = write_idx(tmp_path / "file", IMAGES)
    whole = gzip.compress(path.read_bytes(), mtime=0)
    refused = 0
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            read = read_idx(path, rank=3)
        except UserError:
            refused += 1
        else:  # Bits such as the time stamp's say nothing about the content.
            np.testing.assert_array_equal(read, IMAGES)
    assert refused > 8 * (len(whole) - 10)  # All but some of the ten bytes of gzip's header.


# A folder


@pytest.mark.parametrize("gzipped", ["none", "all", "labels"])
def test_a_folder_is_read_its_first_images_held_back(
    tmp_path, tiny_folder, tiny, tiny_arrays, gzipped
):
    folder = shutil.copytree(tiny_folder, tmp_path / "tiny")
    for path in folder.iterdir():
        if gzipped == "all" or gzipped in path.name:
            (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    data = load_dataset(data_dir=str(folder), validation_size=40)
    assert (data.name, data.num_classes, data.image_shape) == ("tiny", 3, (12, 12, 1))
    assert data.checksum == tiny.checksum
    for split, file, rows in (
        (data.validation, "train", slice(40)),
        (data.train, "train", slice(40, None)),
        (data.test, "t10k", slice(None)),
    ):
        np.testing.assert_array_equal(split.labels, tiny_arrays[f"{file}-labels"][rows])
        pixels = (tiny_arrays[f"{file}-images"][rows] / 255.0)[..., None]
        np.testing.assert_allclose(split.images, pixels, rtol=1e-7, atol=0)


def labels_file(*labels):
    return idx(len(labels), magic=b"\0\0\x08\x01", size=0) + bytes(labels)


MISFITS = {
    "a missing file": ("train-images", None, "train-images-idx3-ubyte.*found neither"),
    "an empty file": ("t10k-labels", b"", "header of 8 bytes, found 0"),
    "another file": ("train-images", labels_file(*[0] * 99), r"3 dimension\(s\).* 00000801"),
    "other counts": ("t10k-labels", labels_file(0, 1, 2), "expected 50 labels.*found 3"),
    "an unknown label": ("t10k-labels", labels_file(*[3] * 50), "from 0 to 2.*found 3"),
    "other sizes": ("t10k-images", idx(50, 4, 4, size=800), r"\(12, 12, 1\).*found \(4, 4, 1\)"),
    "one class": ("train-labels", labels_file(*[0] * 200), "found 1"),
    "a class less": ("train-labels", labels_file(*[0, 2] * 100), r"found none of \[1\]"),
}


@pytest.mark.parametrize(("name", "content", "message"), MISFITS.values(), ids=MISFITS)
def test_a_folder_whose_files_do_not_fit_is_refused(tmp_path, tiny_folder, name, content, message):
    folder = shutil.copytree(tiny_folder, tmp_path / "tiny")
    (path,) = folder.glob(f"{name}*")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_dataset(data_dir=str(folder), validation_size=40)


def test_a_data_dir_that_is_no_folder_is_refused(tmp_path, tiny_folder):
    with pytest.raises(UserError, match="data_dir: no such folder"):
        load_dataset(data_dir=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="not a folder"):
        load_dataset(data_dir=str(tiny_folder / "train-images-idx3-ubyte"))


# MNIST


def test_mnist_has_the_lectures_split_and_the_published_counts(mnist):
    splits = (mnist.train, mnist.validation, mnist.test)
    assert [len(split) for split in splits] == [55_000, 5_000, 10_000]
    assert (mnist.num_classes, mnist.image_shape) == (10, (28, 28, 1))
    assert mnist.validation.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    train = np.concatenate([mnist.train.labels, mnist.validation.labels])
    assert np.bincount(train).tolist() == TRAIN_COUNTS
    assert np.bincount(mnist.test.labels).tolist() == TEST_COUNTS
    for split in splits:
        assert (split.images.dtype, split.labels.dtype) == (np.float32, np.int32)
        assert (split.images.min(), split.images.max()) == (0, 1)
    total = mnist.train.images.sum(dtype=float) + mnist.validation.images.sum(dtype=float)
    assert total / (60_000 * 784) == pytest.approx(0.1307, abs=5e-5)


def test_a_flipped_byte_or_a_missing_file_is_found(tmp_path, monkeypatch):
    folder = shutil.copytree(str(resources.files("jaxnets.data") / "mnist"), tmp_path / "mnist")
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    assert len(load_dataset("mnist").test) == 10_000
    path = folder / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[4] ^= 1  # The time stamp: the content is the same, the file is not.
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"SHA-256 {FILES[path.stem]}, found"):
        load_dataset("mnist")
    path.unlink()
    with pytest.raises(UserError, match="t10k-labels.* cannot be read: No such file"):
        load_dataset("mnist")


# Batches


def _numbered(size):
    """Images that carry their own number."""
    numbers = np.arange(size, dtype=np.int32)
    images = np.broadcast_to(numbers[:, None, None, None], (size, 2, 2, 1)).astype(np.float32)
    return Split(images, numbers)


@pytest.mark.parametrize(("size", "batch_size"), [(10, 3), (10, 5), (10, 10), (7, 8), (1, 1)])
def test_an_epoch_has_every_example_once_padding_last(size, batch_size):
    split = _numbered(size)
    random = list(train_batches(split, batch_size, seed=1, epoch=2))
    ordered = list(eval_batches(split, batch_size))
    assert len(random) == len(ordered) == int(np.ceil(size / batch_size))
    for batches in (random, ordered):
        seen = [label for b in batches for label in b.labels[b.mask == 1].tolist()]
        assert sorted(seen) == list(range(size))
        masks = np.concatenate([batch.mask for batch in batches])
        assert masks.tolist() == [1] * size + [0] * (len(masks) - size)
        for images, labels, mask in batches:
            assert (images.shape, labels.shape) == ((batch_size, 2, 2, 1), (batch_size,))
            assert mask.shape == (batch_size,)
            np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    assert [label for b in ordered for label in b.labels[b.mask == 1]] == list(range(size))


def test_the_order_depends_on_the_seed_and_the_epoch_alone():
    def order(seed, epoch):
        return tuple(epoch_order(100, 10, seed, epoch)[0].ravel())

    assert order(0, 0) == order(0, 0)
    assert len({order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)}) == 4


def _shifts(image):
    """The 25 shifts of an image by SciPy; what comes in from outside is black."""
    moves = range(-2, 3)
    return [ndimage.shift(image, (down, right, 0), order=0) for down in moves for right in moves]


def test_every_shift_of_25_is_drawn_equally_often():
    image = np.arange(1, 43, dtype=np.float32).reshape(7, 6, 1)  # No two shifts are equal.
    count = 5000
    corners = module.shift_corners(count, seed=0, epoch=0, step=0)
    moved = module.shift(np.repeat(image[None], count, axis=0), corners)
    assert (moved.shape, moved.dtype) == ((count, 7, 6, 1), np.float32)
    frequency = [int((moved == shifted).all(axis=(1, 2, 3)).sum()) for shifted in _shifts(image)]
    assert sum(frequency) == count
    # 200 expected of each; five standard deviations of the binomial distribution are 69.
    assert 131 < min(frequency) <= max(frequency) < 269


def test_an_augmented_epoch_keeps_labels_and_may_begin_anywhere(tiny):
    def epoch(number, shifts=True, **more):
        return list(train_batches(tiny.train, 30, seed=3, epoch=number, shifts=shifts, **more))

    ours, (plain, *_), (other, *_) = epoch(0), epoch(0, shifts=False), epoch(1)
    np.testing.assert_array_equal(ours[0].labels, plain.labels)
    for image, original in zip(ours[0].images, plain.images, strict=True):
        assert any(np.array_equal(image, moved) for moved in _shifts(original))
    assert not np.array_equal(ours[0].images, plain.images)
    assert not np.array_equal(ours[0].images, other.images)
    for again, batch in zip(epoch(0, start=2), ours[2:], strict=True):
        np.testing.assert_equal(again, batch)


def test_reading_and_batching_need_no_jax(run_python):
    code = (
        "import sys, jaxnets, jaxnets.config.fields, jaxnets.cli.flags\n"
        "import jaxnets.data.batches as b\n"
        "data = jaxnets.load_dataset('mnist'); "
        "next(b.train_batches(data.train, 9, seed=0, epoch=0, shifts=True)); "
        "print([name for name in ('jax', 'flax', 'optax', 'tensorflow') if name in sys.modules])"
    )
    outcome = run_python("-c", code)
    assert (outcome.status, outcome.out, outcome.err) == (0, "[]\n", "")


def test_bytes_are_the_pixels_that_floats_are_made_of(tiny_folder, tiny):
    size = len(tiny.validation)
    ours = load_dataset(data_dir=str(tiny_folder), validation_size=size, as_bytes=True)
    assert ours.checksum == tiny.checksum
    for part in ("train", "validation", "test"):
        raw, floats = getattr(ours, part), getattr(tiny, part)
        assert raw.images.dtype == np.uint8
        np.testing.assert_array_equal(raw.images / np.float32(255), floats.images)
        np.testing.assert_array_equal(raw.labels, floats.labels)


# Batches made ahead: the same, in the same order


def test_items_and_errors_come_in_their_order():
    assert list(prefetch(iter(range(100)))) == list(range(100))
    assert list(prefetch(iter([]))) == []
    assert list(prefetch(iter([None, None]))) == [None, None]
    ahead = prefetch(1 // number for number in (1, -1, 0))
    assert [next(ahead), next(ahead)] == [1, -1]
    with pytest.raises(ZeroDivisionError):
        next(ahead)


def test_items_are_made_ahead_but_only_a_few():
    made, enough = [], threading.Event()

    def items():
        for number in range(20):
            made.append(number)
            if len(made) == 1 + DEPTH:
                enough.set()
            yield number

    with contextlib.closing(prefetch(items())) as ahead:
        assert next(ahead) == 0
        assert enough.wait(HANGS)
        time.sleep(0.05)
        assert made == list(range(1 + DEPTH))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_loop_that_ends_early_ends_the_thread(error):
    with pytest.raises(error), contextlib.closing(prefetch(iter(range(10**9)))) as ahead:
        for number in ahead:
            if number == 3:
                raise error


def test_a_loop_that_ends_early_waits_for_one_item(monkeypatch):
    made, may_continue = [], threading.Event()

    def items():
        for number in range(20):
            made.append(number)
            if number:
                may_continue.wait(HANGS)
            yield number

    cancelled = []

    def cancel(future):
        cancelled.append(cancel_one(future))
        if len(cancelled) == 5:  # The generator has closed.
            may_continue.set()

    cancel_one = Future.cancel
    monkeypatch.setattr(Future, "cancel", cancel)
    ahead = prefetch(items(), depth=5)
    assert next(ahead) == 0
    ahead.close()
    assert made in ([0], [0, 1])
