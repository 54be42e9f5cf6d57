"""A folder of pictures as a data set: DIR/train/<class>/*.jpg, or just DIR/<class>/*.jpg.

    DIR/train/cat/1.jpg   DIR/validation/cat/9.jpg   DIR/test/cat/4.jpg     the parts given
    DIR/cat/1.jpg         DIR/dog/1.jpg                                     the parts drawn by name

A part that is missing is taken from the training pictures. The test takes a tenth of each class:
those whose names have the lowest digests. So most pictures stay where they are when others are
added. The validation then takes `validation_size` pictures, in proportion from every class.

Every picture is decoded once, into the user's cache folder. A second start finds it there by the
names, sizes and modification times of all files, and reads no picture at all.
"""

import contextlib
import functools
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from jaxnets.base.display import printable, shortened
from jaxnets.base.errors import UserError, first_line
from jaxnets.base.language import N_, Text, _
from jaxnets.data.datasets import MAX_CLASSES, Dataset, Split, validation_count
from jaxnets.data.pictures import store
from jaxnets.data.pictures.decode import FORMATS, HOW_TO_READ, BadPictureError, read_header

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
HEIF = (".heic", ".heif")  # An iPhone's photos.
ENDINGS += HEIF if "HEIF" in FORMATS else ()
PARTS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
NOT_READ = N_("files that are not read: {}")
TEST_SHARE = 0.1  # Share of each class, if there is no test folder.
# Pictures that all have this size or less are kept as they are, others take the default.
SMALL, DEFAULT_SIZE = 96, 64
# What is found in a picture's file before it is decoded.
FOUND = np.dtype(
    [
        ("digest", "V16"),  # BLAKE2b of the content, 128 bits.
        ("side", "i4"),  # Pixels, 0 if the picture is not square.
        ("grey", "?"),
    ]
)


def load_folder(
    folder: str | Path,
    *,
    validation_size: int | None = None,
    decode_size: int | None = None,
    input_size: int | None = None,
) -> Dataset:
    """Loads a folder of pictures.

    It is decoded once and kept in the user's cache folder. Pictures that cannot be decoded are
    reported and left out.

    Args:
      folder: DIR.
      validation_size: Number of training pictures split off if there is no validation folder;
        None for 5,000, at most a tenth of them. With 0 a validation folder is ignored too.
      decode_size: The side S in pixels; each picture's shorter side is resized to it and the centre
        is cut out. None: the pictures' own size, if all are squares of one size up to 96 pixels;
        else 8/7 of input_size (256 for 224, as Krizhevsky et al. 2012, section 2); else 64.
      input_size: The network's input size, if it has one.

    Returns:
      The data set, its images [N, S, S, C] uint8, read when they are asked for; C is 1 if every
      picture is grey. The checksum is over the pictures' names and contents, and over which of them
      are the test, if that was drawn.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        what = Text("not a folder") if root.exists() else Text("no such folder")
        raise UserError("dataset: {}: {}; expected a folder of pictures", what, root)
    root = root.resolve()
    unread: Counter[str] = Counter()
    paths, labels, parts, classes, given = _list(root, unread, validation_size != 0)
    pixels, good, checksum = _decoded(root, paths, decode_size, input_size)
    note_unread(unread)
    if not good.any():
        raise _refused(root, "no picture can be decoded")
    labels, parts = labels[good], parts[good]
    _split_off(paths[good], labels, parts, given, validation_size)
    _check_classes(root, labels, parts, classes, given)
    if "test" not in given:  # Pictures that a run trained on must not test it after a new split.
        checksum = hashlib.sha256(checksum.encode() + (parts == 2).tobytes()).hexdigest()
    rows = [np.flatnonzero(parts == number) for number in range(len(PARTS))]
    train, validation, test = (Split(store.Pictures(pixels, r), labels[r]) for r in rows)
    name, names = printable(root.name), tuple(map(printable, classes))
    return Dataset(name, len(names), train, validation, test, checksum, names)


def labelled_files(folder: str | Path) -> tuple[dict[str, list[Path]], str]:
    """The pictures of a folder by their class: for a test on all of them.

    Args:
      folder: DIR/<class>/*.jpg; of a whole data set, DIR/test/<class>/*.jpg.

    Returns:
      Each class's files, and the part that they belong to: "test", or "" without parts.

    Raises:
      UserError: There are no folders of classes.
    """
    root, unread = Path(folder).expanduser(), Counter[str]()
    try:
        parts = _part_folders(root)
        where = root if parts == {"train": root} else parts.get("test")
        if where is None:
            raise _refused(root, "expected a folder test, found {}", _some(_folders(root)))
        if not (classes := _folders(where)):
            raise _refused(where, "no folders in it; expected one for each class, as cat/1.jpg")
        found = {
            printable(name): sorted(
                root / os.fsdecode(path) for path in _files(where / name, root, unread)
            )
            for name in classes
        }
    except OSError as error:
        name = os.fsdecode(error.filename or root)
        raise UserError("{}: cannot be read: {}", printable(name), first_line(error)) from error
    note_unread(unread)
    return found, "" if where == root else "test"


def ending_of(name: str) -> str:
    """The ending of a file's name in lower case, or the name if it has none."""
    return os.path.splitext(name)[1].lower() or name


def note_unread(kinds: Counter[str]) -> None:
    """Prints one line on stderr about the files that are not read, if there are some."""
    if kinds:
        store.note(_("note: {}", _unread(kinds)))


def _unread(kinds: Counter[str]) -> Text:
    """The number of files of each kind that is not read; of HEIF, what to do."""
    named = [f"{count:,} {shortened(kind, 20)}" for kind, count in kinds.most_common()]
    text = Text(NOT_READ, _some(named))
    return Text(HOW_TO_READ, text) if kinds.keys() & set(HEIF) else text


def _decoded(
    root: Path, paths: np.ndarray, decode_size: int | None, input_size: int | None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Decodes the pictures, or finds them in the cache; reports the bad ones.

    Returns:
      The pixels [N, S, S, C] of the good pictures; [len(paths)] bool, which are good; the checksum
      of their names and contents.
    """
    bad = store.BadPictures(lambda row: os.fsdecode(bytes(paths[row])))

    def decode(stream: IO[bytes]) -> store.Facts:
        found = np.zeros(len(paths), FOUND)
        look = functools.partial(_look, root, paths, found)
        for row, reason in enumerate(store.in_threads(look, len(paths), "looking at pictures")):
            if reason:
                bad.add(row, reason)
        good = bad.good(len(paths))
        size = decode_size or natural_size(found["side"][good], input_size)
        shape = store.write_pixels(
            stream,
            content=lambda row: root / os.fsdecode(bytes(paths[row])),
            rows=np.flatnonzero(good).tolist(),
            shape=(size, size, 1 if found["grey"][good].all() else 3),
            bad=bad,
        )
        good = bad.good(len(paths))
        return {"shape": shape, "checksum": _checksum(paths[good], found["digest"][good])}

    key = _key(root, paths, (decode_size, None if decode_size else input_size))
    pixels, facts = store.decode_once("pictures", key, decode, bad)
    bad.report()
    return pixels, bad.good(len(paths)), facts["checksum"]


def natural_size(sides: np.ndarray, input_size: int | None) -> int:
    """The default decode_size."""
    if len(sides) and 0 < sides[0] <= SMALL and (sides == sides[0]).all():
        return int(sides[0])
    return round(input_size * 8 / 7) if input_size else DEFAULT_SIZE


def _list(
    root: Path, unread: Counter[str], with_validation: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str], tuple[str, ...]]:
    """Finds the picture files: their paths, labels and parts, the classes, the parts given.

    The paths [N] are bytes, relative to the root: a few dozen bytes a picture, where a list of Path
    would take hundreds. The parts [N] are numbers in PARTS. Other files are counted in `unread`.
    """
    try:
        folders = _part_folders(root)
        if not with_validation:
            folders.pop("validation", None)
        classes = _class_names(root, folders)
        paths, labels, parts = [], [], []
        for part, folder in folders.items():
            for label, name in enumerate(classes):
                others: Counter[str] = Counter()
                files = np.array(sorted(_files(folder / name, root, others)))
                if not len(files):
                    why = Text("; {}", _unread(others)) if others else ""
                    raise _refused(folder / name, "no pictures ({}){}", " ".join(ENDINGS), why)
                unread += others
                paths.append(files)
                labels.append(np.full(len(files), label, np.int32))
                parts.append(np.full(len(files), list(PARTS).index(part), np.int8))
    except OSError as error:
        where = os.fsdecode(error.filename or root)
        raise UserError("{}: cannot be read: {}", printable(where), first_line(error)) from error
    paths, labels, parts = map(np.concatenate, (paths, labels, parts))
    return paths, labels, parts, classes, tuple(folders)


def _part_folders(root: Path) -> dict[str, Path]:
    """The folder of each part that there is; without a train folder that has classes, the root."""
    names = {part: [n for n in _folders(root) if n.lower() in PARTS[part]] for part in PARTS}
    if not any(_folders(root / name) for name in names["train"]):
        return {"train": root}
    for part, found in names.items():
        if len(found) > 1:
            raise _refused(root, "expected one folder for {}, found {}", part, _some(found))
    return {part: root / found[0] for part, found in names.items() if found}


def _class_names(root: Path, folders: dict[str, Path]) -> list[str]:
    """The classes, which every part must have."""
    classes = _folders(folders["train"])
    if not classes:
        wanted = Text("a folder for each class, as cat/1.jpg or train/cat/1.jpg")
        raise _refused(root, "no folders in it; expected {}", wanted)
    if not 2 <= len(classes) <= MAX_CLASSES:
        wanted = Text("a folder for each of 2 to {} classes", MAX_CLASSES)
        found = f"{len(classes)}: {_some(classes)}"
        raise _refused(folders["train"], "expected {}, found {}", wanted, found)
    for folder in folders.values():
        names = _folders(folder)
        if missing := sorted(set(classes) - set(names)):
            raise _refused(folder, "no folder for {}", _some(missing))
        if unknown := sorted(set(names) - set(classes)):
            wanted = Text("the classes of {}", printable(str(folders["train"])))
            raise _refused(folder, "expected {}, also found {}", wanted, _some(unknown))
    return classes


def _folders(path: Path) -> list[str]:
    """The sorted names of the folders in a folder, without hidden ones and links."""
    with os.scandir(path) as entries:
        return sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        )


def _files(folder: Path, root: Path, unread: Counter[str]) -> Iterator[bytes]:
    """The picture files below a folder, however deep, relative to the root, with / on every system.

    The others are counted by kind: the ending of their names.
    """
    start = len(os.path.join(os.fsencode(root), b""))
    endings = tuple(map(os.fsencode, ENDINGS))
    folders = [os.fsencode(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.startswith(b"."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_dir():  # A link, which may lead back.
                    continue
                elif entry.name.lower().endswith(endings):
                    yield entry.path[start:].replace(os.fsencode(os.sep), b"/")
                else:
                    unread[ending_of(os.fsdecode(entry.name))] += 1


def _key(root: Path, paths: np.ndarray, settings: tuple[int | None, ...]) -> str:
    """A name for the files as they are now, and for the settings by which they are decoded."""
    start = os.fsencode(root)
    digest = hashlib.sha256(start + f"\0{settings}".encode())
    for path in paths:  # One by one: a list of all would take much memory.
        digest.update(path + b"\0")
        with contextlib.suppress(OSError):  # Reported when the file is looked at.
            found = os.stat(os.path.join(start, path))
            digest.update(f"{found.st_size} {found.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]


def _look(root: Path, paths: np.ndarray, found: np.ndarray, row: int) -> Text | None:
    """Fills in a file's entry of FOUND; returns why it is bad, or None."""
    path = root / os.fsdecode(bytes(paths[row]))
    if path.is_symlink() and not path.resolve().is_relative_to(root):
        return Text("a link that leads out of the folder")
    try:
        width, height, grey = read_header(path)
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
    except BadPictureError as error:
        return Text(*error.args)
    except OSError as error:
        return Text(str(error))
    found[row] = (digest.digest(), width if width == height else 0, grey)
    return None


def _checksum(paths: np.ndarray, digests: np.ndarray) -> str:
    """The SHA-256 of pictures' names and contents' digests."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path + b"\0")
    digest.update(digests.tobytes())
    return digest.hexdigest()


def _split_off(
    paths: np.ndarray, labels: np.ndarray, parts: np.ndarray, given: Sequence[str], size: int | None
) -> None:
    """Changes `parts` [N]: takes parts not given from the training, `size` for validation."""
    positions = np.fromiter(map(_position, paths), float, len(parts))
    if "test" not in given:
        rows = np.flatnonzero(parts == 0)
        rank, count = _ranks(positions[rows], labels[rows])
        # At least one of every class, and not all.
        wanted = np.minimum(np.maximum(np.rint(TEST_SHARE * count), 1), count - 1)
        parts[rows[rank < wanted]] = 2
    if "validation" not in given:
        rows = np.flatnonzero(parts == 0)
        size = validation_count(size, len(rows), "training pictures")
        rank, count = _ranks(positions[rows], labels[rows])
        # In this order, the first pictures have their share of every class, however many they are.
        order = np.argsort((rank + 0.5) / count, kind="stable")
        parts[rows[order[:size]]] = 1


def _position(path: bytes) -> float:
    """A number from 0 to 1 that depends on a picture's name alone."""
    digest = hashlib.blake2b(path, digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _ranks(positions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N] each picture's rank in its class by position, and [N] the size of that class."""
    order = np.lexsort((positions, labels))
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(labels), int)
    rank[order] = np.arange(len(labels)) - starts[labels[order]]
    return rank, counts[labels]


def _check_classes(
    root: Path, labels: np.ndarray, parts: np.ndarray, classes: list[str], given: Sequence[str]
) -> None:
    """Every class must be trained and tested; validation pictures may be too few for that."""
    for number, part in enumerate(PARTS):
        there = set(labels[parts == number].tolist())
        missing = [name for label, name in enumerate(classes) if label not in there]
        if missing and (part != "validation" or part in given):
            if part in given:
                raise _refused(root, "no good pictures of {} in {}", _some(missing), part)
            needs = Text("a class needs 2, one to train on and one to test")
            raise _refused(root, "too few good pictures of {}; {}", _some(missing), needs)


def _refused(where: Path, text: str, *values: object) -> UserError:
    """The error for a folder, whose names may be anything: control characters are escaped."""
    return UserError("{}: {}", printable(str(where)), Text(text, *values))


def _some(names: list[str]) -> str:
    """The first few of some names."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(printable, names[:5])) + more
