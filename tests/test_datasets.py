"""Data sets by name: published files, CIFAR's binary versions, parts and class names."""

import dataclasses
import gzip
import hashlib
import io
import shutil
import socket
import tarfile
import tracemalloc

import numpy as np
import pytest

from jaxnets.base.errors import UserError
from jaxnets.data import cifar, download, published
from jaxnets.data.datasets import Dataset, Split, assemble
from jaxnets.data.idx import FILES, PublishedFile
from jaxnets.data.load import load_dataset

FASHION = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"
TEN = "airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck"
HUNDRED = ", ".join(f"class {number}" for number in range(100))
DOWNLOAD = download.download
COUNTS = {"train": 20, "test": 6}


@pytest.fixture(autouse=True)
def cache(cache, monkeypatch):
    """An empty cache, no prepared data sets, and no download."""
    monkeypatch.setattr(download, "download", None)
    return cache / "jaxnets"


# Parts


def split(labels):
    return Split(np.zeros((len(labels), 4, 4, 1), np.uint8), np.array(labels, np.int32))


def parts(train, test, **more):
    return {"train": split(train), "test": split(test)} | more


def test_a_tenth_at_most_5000_images_are_held_back():
    def sizes(count, validation_size):
        data = assemble("it", parts([0, 1] * (count // 2), [0]), "ab", "", validation_size)
        return len(data.train), len(data.validation)

    assert sizes(40, None) == (36, 4)
    assert sizes(1000, None) == (900, 100)
    assert sizes(60_000, None) == (55_000, 5_000)
    assert sizes(40, 10) == (30, 10)
    assert sizes(40, 0) == (40, 0)
    assert sizes(40, 39) == (1, 39)
    assert sizes(4, None) == (4, 0)
    with pytest.raises(UserError, match="validation_size: expected less than the 40.*got 40"):
        sizes(40, 40)
    # A set's own validation part is used whole, unless none is wanted.
    ours = parts([0, 1] * 10, [1], validation=split([0, 0, 1]))
    for size, expected in ((None, (20, 3)), (5, (20, 3)), (0, (20, 0))):
        data = assemble("it", ours, "ab", "", size)
        assert (len(data.train), len(data.validation)) == expected


def test_parts_that_do_not_fit_are_refused():
    """More of them, in files: tests/test_data.py."""
    for train, names, message in (
        ([0, -1], "ab", "it: expected labels from 0 to 1 in its train part, found -1"),
        ([], "ab", "no images in its train part"),
        ([0, 0], ["n"] * 1001, "expected 2 to 1000 classes, found 1001"),
    ):
        with pytest.raises(UserError, match=message):
            assemble("it", parts(train, [1]), names, "", None)


def test_classes_are_named_by_digits_unless_they_have_names():
    unnamed = Dataset("it", 3, split([0]), split([]), split([0]), "")
    named = dataclasses.replace(unnamed, class_names=("a", "b", "c"))
    assert (unnamed.class_names, named.class_names) == (("0", "1", "2"), ("a", "b", "c"))
    with pytest.raises(UserError, match="a name for each of 3 classes, got 2"):
        dataclasses.replace(unnamed, class_names=("a", "b"))


# IDX files by name


def test_fashion_mnist_from_a_folder_has_its_class_names(tiny_folder, tiny):
    data = load_dataset("fashion_mnist", str(tiny_folder), 40)
    assert (data.name, data.num_classes) == ("fashion_mnist", 10)
    assert ", ".join(data.class_names) == FASHION
    np.testing.assert_array_equal(data.train.images, tiny.train.images)
    assert data.checksum == tiny.checksum
    assert load_dataset("kmnist", str(tiny_folder)).class_names[:3] == ("o", "ki", "su")


def published_as(monkeypatch, name, folder, *files):
    """Makes the published files of a set those of a folder."""
    contents = ((file, (folder / file).read_bytes()) for file in files)
    known = (PublishedFile(f, len(c), hashlib.sha256(c).hexdigest()) for f, c in contents)
    ours = published.SETS[name]._replace(mirrors=("https://mirror.invalid",), files=tuple(known))
    monkeypatch.setitem(published.SETS, name, ours)


@pytest.fixture
def zipped(tmp_path, tiny_folder, monkeypatch):
    """The tiny data set as KMNIST would be published."""
    folder = tmp_path / "zipped"
    folder.mkdir()
    for file in FILES:
        (folder / f"{file}.gz").write_bytes(gzip.compress((tiny_folder / file).read_bytes()))
    published_as(monkeypatch, "kmnist", folder, *(f"{file}.gz" for file in FILES))
    return folder


def test_what_is_missing_is_downloaded_the_cache_held_to_digests(
    monkeypatch, cache, zipped, tiny, tmp_path
):
    asked = []

    def copy(files, mirrors, folder, what):
        asked.append((sorted(file.name for file in files), mirrors, folder, what))
        for file in files:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(zipped / file.name, folder)

    monkeypatch.setattr(download, "download", copy)
    assert load_dataset("kmnist", None, 40).checksum == tiny.checksum
    assert load_dataset("kmnist", None, 40).checksum == tiny.checksum
    path = cache / "kmnist" / "t10k-labels-idx1-ubyte.gz"
    path.unlink()
    load_dataset("kmnist", str(tmp_path / "mine"), 40)
    load_dataset("kmnist", None, 40)
    everything = sorted(f"{file}.gz" for file in FILES)
    mirrors = ("https://mirror.invalid",)
    assert asked == [
        (everything, mirrors, cache / "kmnist", "kmnist"),
        (everything, mirrors, tmp_path / "mine", "kmnist"),
        ([path.name], mirrors, cache / "kmnist", "kmnist"),
    ]
    content = bytearray(path.read_bytes())
    content[4] ^= 1  # The time stamp: the same labels, another file.
    path.write_bytes(content)
    with pytest.raises(UserError, match="t10k-labels.*damaged: expected SHA-256 .* delete it"):
        load_dataset("kmnist")
    assert load_dataset("kmnist", str(path.parent), 40).checksum == tiny.checksum  # The user's own.


def test_every_published_set_says_offline_what_to_place_where(
    monkeypatch, cache, tmp_path, run_main
):

    def unknown(*arguments, **keywords):
        raise socket.gaierror("no name server")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(download, "download", DOWNLOAD)
    monkeypatch.setattr(download, "RETRIES", 0)
    for name, known in published.SETS.items():
        outcome = run_main(f"--dataset={name}", f"--workdir={tmp_path / 'run'}")
        names = ", ".join(file.name for file in known.files)
        outcome.assert_refused(f"{name}: not on this machine", f"place {names} in {cache / name}")
        assert outcome.err.count(": ConnectionError") == len(known.mirrors)
        assert all(mirror.startswith("https://") for mirror in known.mirrors)
        assert len(known.mirrors) > 1
    assert not (tmp_path / "run").exists()


def test_a_user_without_a_home_folder_is_refused(monkeypatch, run_main):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # So it answers there.
    run_main("--dataset=cifar10").assert_refused("this user has no home folder", "XDG_CACHE_HOME")


def test_what_is_published_agrees_with_tensorflow_datasets():
    """Sizes and digests beside those that the installed TensorFlow Datasets comes with."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    for name, known in published.SETS.items():
        theirs = checksums.load_url_infos(tfds.core.tfds_path(f"url_checksums/{name}.txt"))
        expected = {info.filename: (info.size, info.checksum) for info in theirs.values()}
        ours = {file.name: (file.size, file.sha256) for file in known.files}
        assert ours == expected, name


@pytest.mark.oracle
def test_class_names_agree_with_torchvision():
    datasets = pytest.importorskip("torchvision.datasets", reason="needs torchvision")
    for name, theirs in (("fashion_mnist", datasets.FashionMNIST), ("kmnist", datasets.KMNIST)):
        assert published.SETS[name].class_names.split(", ") == theirs.classes


# CIFAR


def record(image, *labels):
    """A record as the format's description has it, byte by byte."""
    height, width, channels = image.shape
    pixels = [image[y, x, c] for c in range(channels) for y in range(height) for x in range(width)]
    return bytes([*labels, *map(int, pixels)])


@pytest.fixture(scope="module", params=["cifar10", "cifar100"])
def made(request):
    """Pictures, labels, and CIFAR's files with them, by name."""
    name, rng = request.param, np.random.default_rng(0)
    form, names = cifar.FORMS[name], (TEN if name == "cifar10" else HUNDRED).split(", ")
    coarse = [7] if name == "cifar100" else []
    images, labels, records = {}, {}, {}
    for part, count in COUNTS.items():
        images[part] = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        labels[part] = rng.permutation(np.arange(count) * 5 % len(names))
        pairs = zip(images[part], labels[part], strict=True)
        records[part] = [record(image, *coarse, label) for image, label in pairs]
    files = {form.test: b"".join(records["test"]), form.names: "\n".join([*names, ""]).encode()}
    rows = np.array_split(np.arange(COUNTS["train"]), len(form.train))
    for file, its_rows in zip(form.train, rows, strict=True):
        files[file] = b"".join(records["train"][row] for row in its_rows)
    return name, images, labels, files


def packed(*members, compress=gzip.compress):
    """An archive's bytes, from pairs of a name, or a header, and a content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            header = tarfile.TarInfo(member) if isinstance(member, str) else member
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return compress(stream.getvalue())


def header(path, **attributes):
    """A member that is no plain file."""
    member = tarfile.TarInfo(path)
    for name, value in attributes.items():
        setattr(member, name, value)
    return member


def members_of(name, files):
    """CIFAR's files as they lie in the archive."""
    return [(f"{cifar.FORMS[name].folder}/{file}", content) for file, content in files.items()]


def place(folder, name, files):
    """Writes the archive, or its bytes, where it is looked for."""
    path = folder / published.SETS[name].files[0].name
    folder.mkdir(exist_ok=True)
    path.write_bytes(packed(*members_of(name, files)) if isinstance(files, dict) else files)
    return path


def load(name, folder, validation_size=0):
    return load_dataset(name, str(folder), validation_size)


def assert_holds(data, made):
    name, images, labels, _ = made
    assert (data.name, data.image_shape) == (name, (32, 32, 3))
    assert ", ".join(data.class_names) == (TEN if name == "cifar10" else HUNDRED)
    for part in COUNTS:
        ours = getattr(data, part)
        assert (ours.images.dtype, ours.labels.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(ours.images, images[part])
        np.testing.assert_array_equal(ours.labels, labels[part])


def test_cifar_is_read_packed_plain_unpacked_and_cached(tmp_path, made, monkeypatch, cache):
    name, _, _, files = made
    path = place(tmp_path / "packed", name, files)
    plain = packed(*members_of(name, files), compress=bytes)
    inner = f"folder/{cifar.FORMS[name].folder}"
    homes = {"plain": {path.stem: plain}, "files": files, inner: files}
    for home, contents in homes.items():
        (tmp_path / home).mkdir(parents=True)
        for file, content in contents.items():
            (tmp_path / home / file).write_bytes(content)
    loaded = [load(name, tmp_path / home) for home in ("packed", "plain", "files", "folder")]
    for data in loaded:
        assert_holds(data, made)
        assert data.checksum == loaded[0].checksum
    published_as(monkeypatch, name, path.parent, path.name)
    copy = shutil.copytree(path.parent, cache / name) / path.name
    assert_holds(load_dataset(name, None, 0), made)
    copy.write_bytes(copy.read_bytes() + b"\0")
    with pytest.raises(UserError, match="damaged: expected SHA-256"):
        load_dataset(name)


NOT_WHOLE = "expected records of 307[34] bytes in .*, found"
WRONG_CONTENT = {
    "a byte short": ("train", lambda content: content[:-1], NOT_WHOLE),
    "a byte more": ("train", lambda content: content + b"\0", NOT_WHOLE),
    "empty": ("test", lambda content: b"", "bytes in .*, found 0 bytes"),
    "no text": ("names", lambda content: b"\xff\xfe", "class names in UTF-8"),
    "a label too large": ("test", lambda content: b"dd" + content[2:], "found 100"),
    "two names": ("names", lambda content: b"cat\ndog\n", "expected labels from 0 to 1"),
    "missing": ("test", None, "missing test"),
}


@pytest.mark.parametrize("part, change, message", WRONG_CONTENT.values(), ids=WRONG_CONTENT)
def test_a_file_that_is_wrong_is_refused(tmp_path, made, part, change, message):
    name, _, _, files = made
    form = cifar.FORMS[name]
    file = form.train[-1] if part == "train" else getattr(form, part)
    kept = {other: content for other, content in files.items() if other != file}
    place(tmp_path, name, kept if change is None else kept | {file: change(files[file])})
    with pytest.raises(UserError, match=message):
        load(name, tmp_path)


def test_truncated_archives_and_noise_are_refused(tmp_path, made):
    name, _, _, files = made
    path = place(tmp_path, name, files)
    whole = path.read_bytes()
    for size in [*range(0, 40), *range(40, len(whole) - 1, 997), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(UserError):
            load(name, tmp_path)
    for content in (b"noise " * 500, gzip.compress(b"noise " * 500), b"\x1f\x8b" + bytes(500)):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged archive"):
            load(name, tmp_path)


def test_no_member_of_an_archive_is_ever_written(tmp_path, made):
    """Names that lead out, links, devices and holes: they are passed over, the folder stays."""
    name, _, _, files = made
    form, test = cifar.FORMS[name], cifar.FORMS[name].test
    secret = tmp_path / "secret"
    secret.write_bytes(files[test])
    outside = ("../out", "/tmp/jaxnets-out", f"{form.folder}/../../out", "elsewhere/x")
    misplaced = (f"{folder}/{test}" for folder in ("elsewhere", f"{form.folder}/deeper", ".."))
    link = header(f"{form.folder}/{test}", type=tarfile.SYMTYPE, linkname=str(secret))
    holes = {"GNU.sparse.size": str(1 << 40), "GNU.sparse.map": f"0,0,{1 << 40},0"}
    content = packed(
        *((path, b"out") for path in outside),
        *((path, files[test]) for path in misplaced),
        (link, b""),
        (header(f"{form.folder}/{test}", pax_headers=holes), b""),
        (header(f"{form.folder}/device", type=tarfile.CHRTYPE), b""),
        *members_of(name, {file: files[file] for file in (*form.train, form.names)}),
    )
    (tmp_path / "in").mkdir()
    place(tmp_path / "in" / "it", name, content)
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"missing {test}"):
        load(name, tmp_path / "in" / "it")
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


def test_an_archive_of_too_much_is_refused_in_little_memory(tmp_path, made, monkeypatch):
    name = made[0]
    monkeypatch.setattr(cifar, "MAX_BYTES", 1 << 20)
    file = header(f"{cifar.FORMS[name].folder}/{cifar.FORMS[name].test}", size=1 << 40)
    long_name = header("././@LongLink", size=1 << 40, type=tarfile.GNUTYPE_LONGNAME)
    for member in (file, long_name):
        place(tmp_path, name, gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 24)))
        tracemalloc.start()
        try:
            with pytest.raises(UserError, match="expected at most 1048576 bytes, found more"):
                load(name, tmp_path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 8e6
