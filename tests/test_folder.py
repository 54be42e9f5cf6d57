"""A folder of pictures as a data set: its forms, its mistakes, decoded once."""

import itertools
import os
import shutil
import subprocess
import tempfile
import threading
from unittest.mock import DEFAULT, Mock

import numpy as np
import pytest
from conftest import slow
from PIL import Image

from jaxnets.base.errors import UserError
from jaxnets.data.load import load_dataset
from jaxnets.data.pictures import folder
from jaxnets.data.pictures.folder import load_folder

pytestmark = pytest.mark.usefixtures("cache")


def picture(label, number, size=(8, 8), mode="RGB"):
    """A picture of its own for each class and number."""
    rng = np.random.default_rng((label, number))
    shape = size[::-1] if mode == "L" else (*size[::-1], 3)
    return Image.fromarray(rng.integers(0, 256, shape, np.uint8))


def write(root, classes=("bird", "cat"), count=30, ending="png", **options):
    """Writes count pictures of each class and returns their folder."""
    for (label, name), number in itertools.product(enumerate(classes), range(count)):
        (root / name).mkdir(parents=True, exist_ok=True)
        picture(label, number, **options).save(root / name / f"{number:03}.{ending}")
    return root


def write_parts(root, counts=(12, 5), parts=("train", "test"), **options):
    for part, count in zip(parts, counts, strict=True):
        write(root / part, count=count, **options)
    return root


@pytest.fixture
def classes(tmp_path):
    """A folder of two classes of 30 pictures."""
    return write(tmp_path / "set")


@pytest.fixture
def parts(tmp_path):
    """A folder of two parts of two classes, of 12 and 5 pictures."""
    return write_parts(tmp_path / "set")


def parts_of(data):
    return data.train, data.validation, data.test


def sizes(data):
    return [len(split) for split in parts_of(data)]


def contents(*splits):
    """Each picture of some splits with its label, in no order."""
    pairs = [zip(split.labels, np.asarray(split.images), strict=True) for split in splits]
    return sorted((label, image.tobytes()) for label, image in itertools.chain(*pairs))


def everything(data):
    return contents(*parts_of(data))


def expected(numbers):
    """What `contents` gives of picture numbers of both classes."""
    pairs = itertools.product(range(2), numbers)
    return sorted((label, np.asarray(picture(label, n)).tobytes()) for label, n in pairs)


# What a folder may look like


def test_parts_lie_in_folders_of_their_own(tmp_path):
    root = write_parts(tmp_path / "set", (12, 4, 5), ("train", "validation", "test"))
    data = load_folder(root)
    assert (data.name, data.num_classes, data.image_shape) == ("set", 2, (8, 8, 3))
    for split, count in zip(parts_of(data), (12, 4, 5), strict=True):
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        assert split.images.shape == (2 * count, 8, 8, 3)
        assert contents(split) == expected(range(count))
    assert sizes(load_folder(root, validation_size=0)) == [24, 0, 10]


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "png", "bmp", "gif", "webp", "tif", "tiff"])
def test_a_part_has_several_names_and_a_picture_several_endings(tmp_path, ending):
    names = ("Train", "VAL", "Test") if ending == "jpg" else ("train", "valid", "test")
    root = write_parts(tmp_path / "set", (3, 2, 1), names, ending=ending)
    assert sizes(load_folder(root)) == [6, 4, 2]


def test_endings_of_any_case_deeper_pictures_and_other_files(parts):
    (parts / "train/bird/000.png").rename(parts / "train/bird/000.PnG")
    (parts / "train/cat/more").mkdir()
    (parts / "train/cat/005.png").rename(parts / "train/cat/more/005.png")
    for name in ("notes.txt", "Thumbs.db", ".hidden.png", "../README"):
        (parts / "train/bird" / name).write_text("no picture")
    (parts / "train" / ".hidden").mkdir()
    assert contents(load_folder(parts, validation_size=0).train) == expected(range(12))


@pytest.mark.parametrize("depth", [1_500, slow(2_500)])
def test_pictures_may_lie_as_deep_as_a_path_is_long(parts, depth):
    top, inner = parts / "train/cat", "d/" * depth
    subprocess.run(["mkdir", "-p", inner], cwd=top, check=True)
    try:
        if depth > 2_000:
            refused(parts, "cannot be read: File name too long")
        else:
            picture(1, 99).save(top / inner / "deep.png")
            found = contents(load_folder(parts, validation_size=0).train)
            assert found == sorted([*expected(range(12)), expected([99])[1]])
    finally:  # Python's rmtree would recurse.
        subprocess.run(["rm", "-rf", "d"], cwd=top, check=True)


def test_a_folder_of_classes_is_split_by_names(tmp_path):
    root = write(tmp_path / "set", count=60)
    before = load_folder(root)
    train, validation, test = sizes(before)
    assert (train, validation, test) == (98, 10, 12)
    assert everything(before) == expected(range(60))
    counts = np.bincount(before.validation.labels)
    assert abs(counts[0] - counts[1]) <= 1
    assert np.bincount(before.test.labels).tolist() == [6, 6]


@pytest.mark.parametrize(
    ("count", "tests"),
    [(2, 1), (3, 1), (10, 1), (14, 1), (16, 2), (50, 5), (51, 5), (149, 15)],
)
def test_every_class_has_its_share_of_the_test(tmp_path, count, tests):
    root = write(tmp_path / "set", count=count)
    picture(0, 998).save(root / "bird/998.png")
    picture(0, 999).save(root / "bird/999.png")
    birds, cats = np.bincount(load_folder(root, validation_size=0).test.labels)
    assert cats == tests and birds == max(1, round((count + 2) / 10))


def test_most_pictures_stay_in_their_part_when_others_are_added(tmp_path):
    root = write(tmp_path / "set", count=60)
    before = load_folder(root, validation_size=0)
    write(root, count=90)
    after = load_folder(root, validation_size=0)
    old = contents(before.test)
    left = [item for item in old if item not in contents(after.test)]
    joined = [item for item in contents(after.test) if item in contents(before.train)]
    # Of one class its 6 lowest digests were the test; among the 9 lowest of 90 may be more or less.
    assert len(left) + len(joined) <= 0.05 * 120
    assert before.checksum != after.checksum


def test_the_checksum_knows_which_pictures_are_the_test(tmp_path, monkeypatch):
    """A run must neither go on with nor be tested on pictures of another split."""
    root = write(tmp_path / "set")
    before = load_folder(root)
    monkeypatch.setattr(folder, "TEST_SHARE", 0.2)
    assert load_folder(root).checksum != before.checksum
    given = write_parts(tmp_path / "given")
    checksum = load_folder(given).checksum
    monkeypatch.setattr(folder, "TEST_SHARE", 0.3)
    assert load_folder(given).checksum == checksum


def test_validation_size_holds_back_of_every_class_its_share(tmp_path):
    root = write_parts(tmp_path / "set", (40, 5))
    for number in range(10):
        (root / "train/cat" / f"{number:03}.png").unlink()
    whole = load_folder(root, validation_size=0)
    assert sizes(whole) == [70, 0, 10]
    for asked, got in ((None, 7), (7, 7), (14, 14), (4, 4)):
        data = load_folder(root, validation_size=asked)
        assert sizes(data) == [70 - got, got, 10]
        assert abs(np.bincount(data.validation.labels)[0] - got * 40 / 70) < 1
        assert contents(data.train, data.validation) == contents(whole.train)
    refused(root, "expected less than the 70 training pictures, got 70", validation_size=70)


@pytest.mark.oracle
def test_classes_are_sorted_by_name_as_torchvision_has_them(tmp_path):
    vision = pytest.importorskip("torchvision.datasets", reason="torchvision is the oracle")
    names = ("b", "a10", "A", "a2", "é")
    root = write_parts(tmp_path / "set", (3, 1), classes=names)
    theirs = vision.ImageFolder(root / "train")
    data = load_folder(root, validation_size=0)
    assert list(data.class_names) == theirs.classes
    pairs = [(label, np.asarray(image).tobytes()) for image, label in theirs]
    assert contents(data.train) == sorted(pairs)


@pytest.mark.parametrize(
    ("size", "options", "side"),
    [
        ((32, 32), {}, 32),
        ((96, 96), {"input_size": 224}, 96),
        ((97, 97), {}, 64),
        ((32, 31), {}, 64),
        ((100, 80), {"input_size": 224}, 256),
        ((100, 80), {"input_size": 64}, 73),
        ((32, 32), {"decode_size": 20}, 20),
    ],
)
def test_the_size_of_pictures(tmp_path, size, options, side):
    root = write_parts(tmp_path / "set", (2, 1), size=size)
    assert load_folder(root, **options).image_shape == (side, side, 3)


def test_one_picture_of_another_kind_changes_a_sets_form(tmp_path):
    root = write_parts(tmp_path / "set", mode="L")
    assert load_folder(root).image_shape == (8, 8, 1)
    picture(0, 99).save(root / "train/bird/colour.png")
    assert load_folder(root).image_shape == (8, 8, 3)
    picture(0, 99, size=(9, 9)).save(root / "test/cat/large.png")
    assert load_folder(root).image_shape == (64, 64, 3)


# Mistakes


def refused(root, match, **options):
    with pytest.raises(UserError, match=match) as caught:
        load_folder(root, **options)
    assert str(caught.value).isprintable()


def test_what_is_no_data_set_is_refused(tmp_path):
    refused(tmp_path / "nowhere", "dataset: no such folder: .*nowhere")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "dataset: not a folder: .*file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no folders in it; expected a folder for each class")
    picture(0, 0).save(tmp_path / "empty" / "a.png")
    refused(tmp_path / "empty", "no folders in it; expected a folder for each class")
    refused(write(tmp_path / "one", ("cat",)), "2 to 1000 classes, found 1: cat")


def test_a_class_has_pictures_and_its_name_in_every_part(tmp_path):
    root = write(tmp_path / "classes")
    (root / "dog\x1b[31m").mkdir()
    refused(root, r"dog\\x1b\[31m: no pictures \(\.jpg")
    picture(2, 0).save(root / "dog\x1b[31m/0.png")
    refused(root, "too few good pictures of dog.*; a class needs 2, one to train on")
    root = write_parts(tmp_path / "parts")
    shutil.rmtree(root / "test/cat")
    refused(root, "test: no folder for cat")
    shutil.copytree(root / "train/cat", root / "test/cat")
    shutil.copytree(root / "train/cat", root / "test/dog")
    refused(root, "test: expected the classes of .*train, also found dog")
    root = write_parts(tmp_path / "names", (3, 2, 2), ("train", "val", "valid"))
    refused(root, "one folder for validation, found val, valid")


def test_a_folder_that_cannot_be_read_is_refused(classes, monkeypatch):
    scandir = os.scandir

    def deny(path):
        if os.fsdecode(path).endswith("cat"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    refused(classes, "cat: cannot be read: Permission denied")


# Files that are not read


def test_files_that_are_not_read_are_counted_by_kind(parts, capsys, monkeypatch):
    monkeypatch.setattr(folder, "ENDINGS", (".png",))  # As without pillow-heif.
    kinds = {".HEIC": 10, ".avif": 3, ".c{}": 2}
    names = [f"{number}{kind}" for kind, count in kinds.items() for number in range(count)]
    for name in [*names, "README", ".hidden"]:
        (parts / "train/bird" / name).write_bytes(b"")
    note = (
        "note: files that are not read: 10 .heic, 3 .avif, 2 .c{}, 1 README; "
        "to read .heic: pip install pillow-heif, or convert them to .jpg\n"
    )
    for _ in range(2):  # The second time from the cache.
        assert contents(load_folder(parts, validation_size=0).train) == expected(range(12))
        assert capsys.readouterr().err == note
    files, part = folder.labelled_files(parts)
    assert (len(files["bird"]), part, capsys.readouterr().err) == (5, "test", "")
    (parts / "test/cat/notes.txt").write_text("no picture")
    folder.labelled_files(parts)
    assert capsys.readouterr().err == "note: files that are not read: 1 .txt\n"


def test_a_class_of_unread_pictures_alone_is_refused_with_what_to_do(classes, monkeypatch):
    monkeypatch.setattr(folder, "ENDINGS", (".png",))
    for path in (classes / "cat").iterdir():
        path.rename(path.with_suffix(".HEIC"))
    refused(classes, r"cat: no pictures \(\.png\); files that are not read: 30 \.heic; .*-heif")


def test_photos_of_an_iphone_are_read_where_pillow_heif_is_installed(tmp_path, capsys):
    heif = pytest.importorskip("pillow_heif", reason="it reads HEIC")
    root = write(tmp_path / "set", ("bird", "cat"), count=4)
    for path in list(root.rglob("*.png")):
        heif.from_pillow(Image.open(path)).save(path.with_suffix(".HEIC"), quality=-1)
        path.unlink()
    data = load_folder(root, validation_size=0)
    assert (sizes(data), data.image_shape, capsys.readouterr().err) == ([6, 0, 2], (8, 8, 3), "")
    images = np.concatenate([np.asarray(data.train.images), np.asarray(data.test.images)])
    theirs = [heif.read_heif(path).to_pillow() for path in root.rglob("*.HEIC")]
    assert sorted(x.tobytes() for x in images) == sorted(x.tobytes() for x in theirs)
    (root / "cat/bad.heic").write_bytes((root / "cat/000.HEIC").read_bytes()[:200])
    load_folder(root)
    assert "1 bad picture is skipped: cat/bad.heic: " in capsys.readouterr().err


# Bad pictures


def test_bad_pictures_are_told_once_and_left_out(parts, capsys, monkeypatch):
    """One is no picture at all, one is damaged where its header does not show it."""
    (parts / "train/bird/003.png").write_bytes(b"")
    path = parts / "train/cat/004.png"
    path.write_bytes(path.read_bytes()[:-40])
    bad = expected([3])[0], expected([4])[1]
    good = [item for item in expected(range(12)) if item not in bad]
    checksums = set()
    for _ in range(2):
        data, note = load_folder(parts, validation_size=0), capsys.readouterr().err
        assert contents(data.train) == good
        checksums.add(data.checksum)
        monkeypatch.setattr(Image, "open", None)  # The second time nothing is decoded.
        assert note.startswith("note: 2 bad pictures are skipped: train/bird/003.png: empty file; ")
        assert "train/cat/004.png: " in note and note.count("\n") == 1
    assert len(checksums) == 1


def test_a_set_or_class_of_bad_pictures_alone_is_refused(tmp_path, capsys):
    root = write(tmp_path / "set", count=4)
    for path in list(root.rglob("*.png")):
        path.rename(path.with_name(f"bad\n{path.name}")).write_text("no picture")
    refused(root, "no picture can be decoded")
    err = capsys.readouterr().err
    assert err.startswith(r"note: 8 bad pictures are skipped: bird/bad\n000.png: not a picture")
    assert err.count("\n") == 1 and err.endswith("; and 3 more\n")
    root = write_parts(tmp_path / "parts")
    for path in (root / "test/cat").iterdir():
        path.write_bytes(b"")
    refused(root, "no good pictures of cat in test")


def test_links_may_not_lead_out_of_the_folder(tmp_path, parts, capsys):
    picture(0, 99).save(tmp_path / "outside.png")
    (parts / "train/bird/out.png").symlink_to(tmp_path / "outside.png")
    (parts / "train/bird/in.png").symlink_to(parts / "train/bird/001.png")
    (parts / "train/bird/loop").symlink_to(parts / "train/bird", target_is_directory=True)
    (parts / "train/dog").symlink_to(parts / "train/cat", target_is_directory=True)
    data, note = load_folder(parts, validation_size=0), capsys.readouterr().err
    assert contents(data.train) == sorted([*expected(range(12)), expected([1])[0]])
    assert "1 bad picture is skipped: train/bird/out.png: a link that leads out" in note


# Decoded once


def stored(cache):
    """The files of pixels in the user's cache."""
    return [path for path in cache.glob("jaxnets/pictures/*") if not path.suffix]


def test_decoded_pictures_outlive_the_folder_and_the_cache(tmp_path, cache):
    root = write(tmp_path / "set", size=(40, 30), ending="jpg")
    images = load_folder(root, decode_size=16).train.images
    shutil.rmtree(root)
    shutil.rmtree(cache)
    array = np.asarray(images)
    order = np.array([5, 0, 5, len(array) - 1])
    assert (images.shape, len(images), images.nbytes) == (array.shape, len(array), array.nbytes)
    np.testing.assert_array_equal(images[order], array[order])
    np.testing.assert_array_equal(images[3], array[3])
    np.testing.assert_array_equal(np.asarray(images[4:9]), array[4:9])
    np.testing.assert_array_equal(images[4:9][np.array([1])], array[5:6])
    assert len(images[:0]) == 0 and np.asarray(images[:0]).shape == (0, 16, 16, 3)


def test_a_second_start_reads_no_file_until_one_has_changed(tmp_path, monkeypatch):
    root = write(tmp_path / "set", ending="bmp")
    before = load_folder(root)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", None)
        again = load_folder(root)
    assert (again.checksum, contents(again.train)) == (before.checksum, contents(before.train))
    picture(0, 99).save(root / "cat/005.bmp")  # Of the same size.
    after = load_folder(root)
    assert before.checksum != after.checksum
    assert expected([99])[0][1] in [image for _, image in everything(after)]
    # The checksum is of names and contents alone.
    copy = shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    assert load_folder(copy, decode_size=16).checksum == after.checksum
    (copy / "cat/005.bmp").rename(copy / "cat/other.bmp")
    assert load_folder(copy).checksum != after.checksum


def test_stored_pictures_that_are_damaged_are_stored_anew(classes, cache):
    before = contents(load_folder(classes).train)
    (path,) = stored(cache)
    facts = path.with_suffix(".json")
    content = path.read_bytes()
    damages = [(path, b) for b in (content[:-1], content + b"x", b"")]
    damages += [(facts, b) for b in (b"", b"[]", b"{}", b'{"shape": [1]}')]
    for file, damaged in damages:
        file.write_bytes(damaged)
        assert contents(load_folder(classes).train) == before
        assert path.read_bytes() == content


def test_without_a_cache_pictures_are_decoded_for_one_run(classes, monkeypatch, cache, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    cache.write_text("in the way")
    assert everything(load_folder(classes)) == expected(range(30))
    cache.unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", "~nobody-knows")  # A user without a home folder.
    assert everything(load_folder(classes)) == expected(range(30))
    assert not list(temporary.iterdir())


def test_a_cache_that_cannot_be_written_is_read(classes, monkeypatch, cache):
    load_folder(classes)
    before = sorted(cache.rglob("*"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert everything(load_folder(classes, decode_size=8)) == expected(range(30))
    monkeypatch.setattr(Image, "open", None)
    assert everything(load_folder(classes)) == expected(range(30))
    assert sorted(cache.rglob("*")) == before


def test_a_full_disk_ends_the_run_and_leaves_nothing(classes, monkeypatch, cache):
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
    refused(classes, "cannot keep the decoded pictures: No space left on device; XDG_CACHE")
    assert stored(cache) == []


def test_an_interrupt_while_decoding_leaves_nothing_half_written(classes, monkeypatch, cache):
    opened = [DEFAULT] * 70 + [KeyboardInterrupt] * 50  # Each is looked at, then decoded.
    monkeypatch.setattr(Image, "open", Mock(wraps=Image.open, side_effect=opened))
    with pytest.raises(KeyboardInterrupt):
        load_folder(classes)
    assert {path.suffix for path in (cache / "jaxnets/pictures").iterdir()} == {".lock"}
    assert not [thread for thread in threading.enumerate() if "Pool" in thread.name]


def test_load_dataset_takes_a_path(tmp_path, classes, monkeypatch):
    assert load_dataset(str(classes)).checksum == load_folder(classes).checksum
    monkeypatch.chdir(tmp_path)
    assert load_dataset("set").name == "set"
    with pytest.raises(UserError, match="dataset: no such folder"):
        load_dataset("./no/where")
