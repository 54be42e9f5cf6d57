"""A folder of pictures as a data set: DIR/train/<class>/*.jpg, or just DIR/<class>/*.jpg.

    DIR/train/cat/1.jpg   DIR/validation/cat/9.jpg   DIR/test/cat/4.jpg     the parts given
    DIR/cat/1.jpg         DIR/dog/1.jpg                                     the parts drawn by name

A part that is missing is taken from the training pictures. The test takes a tenth, by a digest of
each picture's name, so that a picture stays where it is when others are added. The validation then
takes `validation_size` pictures, from every class its share.

Every file is read once. An index keeps what was found while a file's size and time of change stay
the same, as git does. A second start then reads no picture at all.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxnets.data.datasets import MAX_CLASSES, Dataset, Split, validation_count
from jaxnets.data.pictures import store
from jaxnets.data.pictures.decode import BadPictureError, read_header, read_picture
from jaxnets.display import printable
from jaxnets.errors import UserError, first_line
from jaxnets.system import cache_folder

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
PARTS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
CACHE = ".jaxnets"  # Hidden, so that it is not taken for a class.
TEST_SHARE = 0.1  # Share of the training pictures, if there is no test folder.
# Pictures that all have this size or less are kept as they are, others take the default.
SMALL, DEFAULT_SIZE = 96, 64
INDEX = "files.npy"
FIELDS = [  # The index's fields after the path.
    ("bytes", "i8"),
    ("changed", "i8"),
    ("digest", "u8", 2),  # BLAKE2b of the content, 128 bits.
    ("side", "i4"),  # Pixels, 0 if the picture is not square.
    ("grey", "?"),
    ("good", "?"),
]


def load_folder(
    folder: str | Path,
    *,
    validation_size: int | None = None,
    decode_size: int | None = None,
    input_size: int | None = None,
    on_bad_image: str = "skip",
) -> Dataset:
    """Loads a folder of pictures.

    A set of up to 8 GB, decoded, is decoded once and kept in DIR/.jaxnets. If that cannot be
    written, the user's cache folder holds it. A larger set is decoded in every epoch.

    Args:
      folder: DIR.
      validation_size: Number of training pictures split off if there is no validation folder;
        None for 5,000, at most a tenth of them. With 0 a validation folder is ignored too.
      decode_size: Pixels a side S; each picture's shorter side is resized to it and the centre
        cut out. None: the pictures' own size, if all are squares of one size up to 96 pixels;
        else 8/7 of input_size (256 for 224, as Krizhevsky et al. 2012, section 2); else 64.
      input_size: The network's input size, if it has one.
      on_bad_image: "skip" reports and leaves out pictures that cannot be decoded; "fail" refuses
        the data set at the first one.

    Returns:
      The data set, its images [N, S, S, C] uint8, read when they are asked for; C is 1 if every
      picture is grey. The checksum is over the pictures' names and contents.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        what = "not a folder" if root.exists() else "no such folder"
        raise UserError(f"dataset: {what}: {root}; expected one of pictures")
    root = root.resolve()
    bad, places = store.BadPictures(on_bad_image), _places(root)
    paths, labels, parts, classes, given = _list(root, bad, with_validation=validation_size != 0)
    records = _examine(root, paths, places, bad)
    good = records["good"]
    if not good.any():
        bad.report()
        raise _refused(root, "no picture can be decoded")
    size = decode_size or natural_size(records["side"][good], input_size)
    source = store.Encoded(
        content=lambda row: root / os.fsdecode(paths[row]),
        name=lambda row: os.fsdecode(paths[row]),
        key=lambda: _checksum(records)[:32],
        shape=(size, size, 1 if records["grey"][good].all() else 3),
        bad=bad,
    )
    pixels, place = store.open_pixels(source, good, places)
    if place is not None:
        store.save_rows(records, place / INDEX)
    bad.report()
    labels, parts = labels[good], parts[good]
    _split_off(paths[good], labels, parts, given, validation_size)
    _check_classes(root, labels, parts, classes, given)
    rows = [np.flatnonzero(parts == number) for number in range(len(PARTS))]
    train, validation, test = (Split(store.Pictures(pixels, r), labels[r]) for r in rows)
    names, checksum = tuple(map(printable, classes)), _checksum(records)
    return Dataset(printable(root.name), len(names), train, validation, test, checksum, names)


def natural_size(sides: np.ndarray, input_size: int | None) -> int:
    """The default decode_size."""
    if 0 < sides[0] <= SMALL and (sides == sides[0]).all():
        return int(sides[0])
    return round(input_size * 8 / 7) if input_size else DEFAULT_SIZE


def _places(root: Path) -> list[Path]:
    """The folders that may keep files for the next start: this one, else the user's cache."""
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    places = [root / CACHE]
    with contextlib.suppress(UserError):  # A user without a home folder.
        places.append(cache_folder("pictures") / digest)
    return places[places[0].is_symlink() :]  # A link in another user's folder may lead anywhere.


def _list(
    root: Path, bad: store.BadPictures, with_validation: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str], tuple[str, ...]]:
    """Finds the picture files: their paths, labels and parts, the classes, the parts given.

    The paths [N] are bytes, relative to the root: a few dozen bytes a picture, where a list of Path
    would take hundreds. The parts [N] are numbers in PARTS.
    """
    try:
        folders = _part_folders(root)
        if not with_validation:
            folders.pop("validation", None)
        classes = _class_names(root, folders)
        paths, labels, parts = [], [], []
        for part, folder in folders.items():
            for label, name in enumerate(classes):
                files = np.array(sorted(_files(os.fsencode(folder / name), root, bad)))
                if not len(files):
                    raise _refused(folder / name, f"no pictures ({' '.join(ENDINGS)})")
                paths.append(files)
                labels.append(np.full(len(files), label, np.int32))
                parts.append(np.full(len(files), list(PARTS).index(part), np.int8))
    except OSError as error:
        where = os.fsdecode(error.filename or root)
        raise UserError(printable(f"{where}: cannot be read: {first_line(error)}")) from error
    paths, labels, parts = map(np.concatenate, (paths, labels, parts))
    return paths, labels, parts, classes, tuple(folders)


def _part_folders(root: Path) -> dict[str, Path]:
    """The folder of each part that there is; without a train folder that has classes, the root."""
    names = {part: [n for n in _folders(root) if n.lower() in PARTS[part]] for part in PARTS}
    if not any(_folders(root / name) for name in names["train"]):
        return {"train": root}
    for part, found in names.items():
        if len(found) > 1:
            raise _refused(root, f"expected one folder for {part}, found {_some(found)}")
    return {part: root / found[0] for part, found in names.items() if found}


def _class_names(root: Path, folders: dict[str, Path]) -> list[str]:
    """The classes, which every part must have."""
    classes = _folders(folders["train"])
    if not classes:
        wanted = "a folder for each class, as cat/1.jpg or train/cat/1.jpg"
        raise _refused(root, f"no folders in it; expected {wanted}")
    if not 2 <= len(classes) <= MAX_CLASSES:
        wanted = f"a folder for each of 2 to {MAX_CLASSES} classes"
        found = f"{len(classes)}: {_some(classes)}"
        raise _refused(folders["train"], f"expected {wanted}, found {found}")
    for folder in folders.values():
        names = _folders(folder)
        if missing := sorted(set(classes) - set(names)):
            raise _refused(folder, f"no folder for {_some(missing)}")
        if unknown := sorted(set(names) - set(classes)):
            wanted = f"the classes of {folders['train']}"
            raise _refused(folder, f"expected {wanted}, found also {_some(unknown)}")
    return classes


def _folders(path: Path) -> list[str]:
    """The sorted names of the folders in a folder, without hidden ones and links."""
    with os.scandir(path) as entries:
        return sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        )


def _files(folder: bytes, root: Path, bad: store.BadPictures) -> Iterator[bytes]:
    """The picture files below a folder, however deep, relative to the root; no link leads out."""
    start = len(os.path.join(os.fsencode(root), b""))
    endings = tuple(map(os.fsencode, ENDINGS))
    folders = [folder]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                name, path = entry.name, entry.path[start:]
                if name.startswith(b"."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif name.lower().endswith(endings):
                    real = os.fsdecode(os.path.realpath(entry.path) if entry.is_symlink() else b"")
                    if real and not Path(real).is_relative_to(root):
                        bad.add(os.fsdecode(path), "a link that leads out of the folder")
                    else:
                        yield path


def _examine(
    root: Path, paths: np.ndarray, places: Sequence[Path], bad: store.BadPictures
) -> np.ndarray:
    """Looks at every file that is new or has changed; returns [N] of the path and FIELDS."""
    records = np.zeros(len(paths), [("path", paths.dtype), *FIELDS])
    records["path"] = paths
    start = os.fsencode(root)
    for row, path in enumerate(paths):  # One by one: a list of all would take much memory.
        with contextlib.suppress(OSError):  # Reported when the file is looked at.
            found = os.stat(os.path.join(start, bytes(path)))
            records["bytes"][row], records["changed"][row] = found.st_size, found.st_mtime_ns
    known = _recall(records, places)
    unknown, doubtful = np.flatnonzero(~records["good"]), known & ~records["good"]

    def look(number: int) -> str:
        """Notes what a file is; returns why it is bad."""
        row = unknown[number]
        path = root / os.fsdecode(bytes(paths[row]))
        try:
            width, height, grey = read_header(path)
            if doubtful[row]:  # Its header may not show what was wrong with it.
                read_picture(path)
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
        except (BadPictureError, OSError) as error:
            return str(error)
        records["digest"][row] = np.frombuffer(digest.digest(), "u8")
        records["side"][row] = width if width == height else 0
        records["grey"][row], records["good"][row] = grey, True
        return ""

    reasons = store.in_threads(look, len(unknown), "looking at pictures")
    for row, reason in zip(unknown, reasons, strict=True):
        if reason:
            bad.add(os.fsdecode(paths[row]), reason)
    return records


def _recall(records: np.ndarray, places: Sequence[Path]) -> np.ndarray:
    """Fills in what an index knows of unchanged files; returns [N] bool, which those are."""
    for place in places:
        with contextlib.suppress(OSError, ValueError):
            index = np.array(store.open_npy(place / INDEX))
            if index.ndim != 1 or not len(index) or not _has_fields(index.dtype):
                continue
            index = index[np.argsort(index["path"])]
            at = np.searchsorted(index["path"], records["path"]) % len(index)
            same = [index[name][at] == records[name] for name in ("path", "bytes", "changed")]
            known = np.logical_and.reduce(same)
            for name, *_ in FIELDS:
                records[name][known] = index[name][at[known]]
            return known
    return np.zeros(len(records), bool)


def _has_fields(dtype: np.dtype) -> bool:
    """Whether the type has a path of any length and FIELDS."""
    if not dtype.names or dtype.names[0] != "path" or dtype["path"].kind != "S":
        return False
    return dtype == np.dtype([("path", dtype["path"]), *FIELDS])


def _checksum(records: np.ndarray) -> str:
    """The SHA-256 of the good pictures' names and contents' digests."""
    digest = hashlib.sha256()
    for path in records["path"][records["good"]]:
        digest.update(path + b"\0")
    digest.update(records["digest"][records["good"]].tobytes())
    return digest.hexdigest()


def _split_off(
    paths: np.ndarray, labels: np.ndarray, parts: np.ndarray, given: Sequence[str], size: int | None
) -> None:
    """Changes `parts` [N]: takes parts not given from the training, `size` for validation."""
    positions = np.fromiter(map(_position, paths), float, len(parts))
    if "test" not in given:
        rows = np.flatnonzero(parts == 0)
        rank, count = _ranks(positions[rows], labels[rows])
        # The share, but one at least of every class, and not all.
        chosen = ((positions[rows] < TEST_SHARE) | (rank == 0)) & (rank < count - 1)
        parts[rows[chosen]] = 2
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
                raise _refused(root, f"no good pictures of {_some(missing)} in {part}")
            needs = "a class needs 2, one to train on and one to test"
            raise _refused(root, f"too few good pictures of {_some(missing)}; {needs}")


def _refused(where: Path, message: str) -> UserError:
    """The error of a folder, whose names may be anything: control characters are escaped."""
    return UserError(printable(f"{where}: {message}"))


def _some(names: list[str]) -> str:
    """The first few of some names."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
