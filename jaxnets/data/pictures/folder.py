"""A folder of pictures as a data set: DIR/train/<class>/*.jpg, or just DIR/<class>/*.jpg.

    DIR/train/cat/1.jpg   DIR/validation/cat/9.jpg   DIR/test/cat/4.jpg     parts as they lie
    DIR/cat/1.jpg         DIR/dog/1.jpg                                     parts drawn by name

A part that is missing is taken from the training pictures: the test a tenth, by a digest of each
picture's name, so that a picture stays where it is when others are added; then for validation
`validation_size` pictures, from every class its share.
"""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxnets.cache import cache_folder
from jaxnets.data.datasets import MAX_CLASSES, Dataset, Pictures, Split, validation_count
from jaxnets.data.pictures import index
from jaxnets.data.pictures import store as storage
from jaxnets.data.pictures.store import BadPictures
from jaxnets.errors import UserError, printable

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
ENDINGS_AS_BYTES = tuple(ending.encode() for ending in ENDINGS)
PARTS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
CACHE = ".jaxnets"  # Hidden, so that it is no class.
TEST_SHARE = 0.1  # Of the training pictures, where there is no test folder.

# Pictures that all have this size or less are kept as they are, others take the default.
SMALL, DEFAULT_SIZE = 96, 64


@dataclasses.dataclass(frozen=True)
class Listing:
    """The picture files of a folder.

    Attributes:
      paths: [N] of bytes, relative to the folder.
      labels: [N] int32, the class of each.
      parts: [N] int8, its part's place in PARTS.
      classes: Their names, sorted.
      found: Which of PARTS the folder has.
    """

    paths: np.ndarray
    labels: np.ndarray
    parts: np.ndarray
    classes: tuple[str, ...]
    found: tuple[str, ...]


def load_folder(
    folder: str | Path,
    *,
    validation_size: int | None = None,
    decode_size: int | None = None,
    input_size: int | None = None,
    on_bad_image: str = "skip",
) -> Dataset:
    """Loads a folder of pictures.

    A set of up to 8 GB, decoded, is decoded once and kept in DIR/.jaxnets (or in the user's cache
    folder, where that cannot be written); a larger one is decoded anew in every epoch.

    Args:
      folder: DIR.
      validation_size: Pictures held back from training where there is no validation folder; None
        for 5,000, at most a tenth of them. With 0 a validation folder is left alone too.
      decode_size: Pixels a side S; each picture's shorter side is resized to it and the centre
        cut out. None: the pictures' own size, if all are squares of one size up to 96 pixels;
        else 8/7 of input_size (256 for 224, as Krizhevsky et al. 2012, section 2); else 64.
      input_size: Of the network, where it has one.
      on_bad_image: "skip" leaves out pictures that cannot be decoded and tells how many; "fail"
        refuses the first.

    Returns:
      The data set, its images [N, S, S, C] uint8, read when they are asked for; C is 1 if every
      picture is grey. The checksum is over the pictures' names and contents.

    Raises:
      UserError: It is no such folder, a class has no pictures, or a picture is bad.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        found = f"a file: {root}" if root.exists() else f"nothing at {root}"
        raise UserError(f"dataset: expected a folder of pictures, found {found}")
    root = root.resolve()
    bad = BadPictures(on_bad_image)
    listing = _list(root, bad, with_validation=validation_size != 0)
    places = _places(root)
    records = index.examine(root, listing.paths, places, bad)
    good = records["good"]
    if not good.any():
        bad.report()
        raise UserError(f"{_show(root)}: expected pictures, found none that can be decoded")
    size = decode_size or natural_size(records["side"][good], input_size)
    channels = 1 if records["grey"][good].all() else 3
    source = _open(root, records, size, channels, places, bad)
    bad.report()
    listing = dataclasses.replace(
        listing,
        **{name: getattr(listing, name)[good] for name in ("paths", "labels", "parts")},
    )
    parts = _parts(listing, validation_size)
    _check_classes(root, listing, parts)

    def split(part: int) -> Split:
        rows = np.flatnonzero(parts == part)
        return Split(Pictures(source, rows), listing.labels[rows])

    return Dataset(
        name=printable(root.name),
        num_classes=len(listing.classes),
        train=split(0),
        validation=split(1),
        test=split(2),
        checksum=_checksum(records),
        class_names=listing.classes,
    )


def _list(root: Path, bad: BadPictures, with_validation: bool) -> Listing:
    """Finds the classes and their files."""
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
                    raise UserError(
                        f"{_show(folder / name)}: expected pictures ({' '.join(ENDINGS)}), "
                        f"found none"
                    )
                paths.append(files)
                labels.append(np.full(len(files), label, np.int32))
                parts.append(np.full(len(files), list(PARTS).index(part), np.int8))
    except OSError as error:
        where = _show(Path(os.fsdecode(error.filename or root)))
        raise UserError(f"{where}: cannot be read: {error.strerror or error}") from error
    whole = map(np.concatenate, (paths, labels, parts))
    return Listing(*whole, classes=tuple(map(printable, classes)), found=tuple(folders))


def _part_folders(root: Path) -> dict[str, Path]:
    """The folder of each part that there is; without a train folder that has classes, the root."""
    names = {part: [n for n in _folders(root) if n.lower() in PARTS[part]] for part in PARTS}
    if not any(_folders(root / name) for name in names["train"]):
        return {"train": root}
    for part, found in names.items():
        if len(found) > 1:
            raise UserError(f"{_show(root)}: expected one folder for {part}, found {_some(found)}")
    return {part: root / found[0] for part, found in names.items() if found}


def _class_names(root: Path, folders: dict[str, Path]) -> list[str]:
    """The classes, which every part must have."""
    classes = _folders(folders["train"])
    if not classes:
        raise UserError(
            f"{_show(root)}: expected a folder for each class, as cat/1.jpg or train/cat/1.jpg, "
            "found none"
        )
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise UserError(
            f"{_show(folders['train'])}: expected a folder for each of 2 to {MAX_CLASSES} "
            f"classes, found {len(classes)}: {_some(classes)}"
        )
    for folder in folders.values():
        names = _folders(folder)
        if missing := sorted(set(classes) - set(names)):
            raise UserError(f"{_show(folder)}: expected every class, found no {_some(missing)}")
        if unknown := sorted(set(names) - set(classes)):
            raise UserError(
                f"{_show(folder)}: expected the classes of {_show(folders['train'])}, found also "
                f"{_some(unknown)}"
            )
    return classes


def _folders(path: Path) -> list[str]:
    """The sorted names of the folders in a folder, without hidden ones and links."""
    with os.scandir(path) as entries:
        return sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        )


def _files(folder: bytes, root: Path, bad: BadPictures) -> Iterator[bytes]:
    """The picture files below a folder, relative to the root; no link leads out of it."""
    start = len(os.path.join(os.fsencode(root), b""))
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(b"."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, root, bad)
            elif entry.name.lower().endswith(ENDINGS_AS_BYTES):
                if entry.is_symlink() and not Path(
                    os.fsdecode(os.path.realpath(entry.path))
                ).is_relative_to(root):
                    bad.add(entry.path[start:], "a link that leads out of the folder")
                else:
                    yield entry.path[start:]


def natural_size(sides: np.ndarray, input_size: int | None) -> int:
    """The default of decode_size."""
    if 0 < sides[0] <= SMALL and (sides == sides[0]).all():
        return int(sides[0])
    return round(input_size * 8 / 7) if input_size else DEFAULT_SIZE


def _places(root: Path) -> list[Path]:
    """Where what was found may be kept: in the folder, else in the user's cache."""
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    places = [root / CACHE]
    with contextlib.suppress(UserError):  # A user without a home folder.
        places.append(cache_folder("pictures") / digest)
    return places[places[0].is_symlink() :]  # A link in somebody's folder may lead anywhere.


def _writable(places: list[Path]) -> Path | None:
    """The first place that can be written."""
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(place, os.W_OK):
            return place
    return None


def _open(
    root: Path, records: np.ndarray, size: int, channels: int, places: list[Path], bad: BadPictures
) -> storage.Stored | storage.Streamed:
    """The pixels of the good pictures; those that prove bad when they are stored are marked."""
    good = records["good"]
    shape = (int(good.sum()), size, size, channels)
    stored = storage.open_stored(places, _name(records, shape), shape)
    if stored is not None:
        return stored
    files = storage.Folder(root, records["path"][good], size, channels, bad)
    place = _writable(places)
    if place is not None and storage.has_room(files, place):
        rows = np.flatnonzero(good)

        def name_of(decoded: np.ndarray) -> str:
            good[rows] = decoded
            return _name(records, (int(decoded.sum()), *shape[1:]))

        try:
            stored = storage.store(files, place, name_of)
            index.keep(records, place)
            return stored
        except OSError as error:
            reason = error.strerror or error
            storage.note(f"{_show(place)}: {reason}; the pictures are decoded in every epoch")
    elif place is not None:
        index.keep(records, place)
    return storage.Streamed(files)


def _name(records: np.ndarray, shape: tuple[int, ...]) -> str:
    """Of the file of stored pictures."""
    return f"{_checksum(records)[:32]}-{shape[1]}x{shape[2]}x{shape[3]}.npy"


def _checksum(records: np.ndarray) -> str:
    """The SHA-256 of the good pictures' names and contents' digests."""
    digest = hashlib.sha256()
    for path in records["path"][records["good"]]:
        digest.update(path + b"\0")
    digest.update(records["digest"][records["good"]].tobytes())
    return digest.hexdigest()


def _parts(listing: Listing, validation_size: int | None) -> np.ndarray:
    """[N] int8: each picture's part, with those held back from the training pictures.

    Raises:
      UserError: Nothing would be left to train on.
    """
    parts = listing.parts.copy()
    positions = np.fromiter(map(_position, listing.paths), float, len(parts))
    if "test" not in listing.found:
        rows = np.flatnonzero(parts == 0)
        rank, count = _ranks(positions[rows], listing.labels[rows])
        # The share, but one at least of every class, and not all.
        held = ((positions[rows] < TEST_SHARE) | (rank == 0)) & (rank < count - 1)
        parts[rows[held]] = 2
    if "validation" not in listing.found:
        rows = np.flatnonzero(parts == 0)
        held_back = validation_count(validation_size, len(rows), "training pictures")
        rank, count = _ranks(positions[rows], listing.labels[rows])
        # By this order, any first few have of every class its share.
        order = np.argsort((rank + 0.5) / count, kind="stable")
        parts[rows[order[:held_back]]] = 1
    return parts


def _position(path: bytes) -> float:
    """A number from 0 to 1 that depends on a picture's name alone."""
    digest = hashlib.blake2b(path, digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _ranks(positions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N] each picture's place among those of its class, by position, and how many those are."""
    order = np.lexsort((positions, labels))
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(labels), int)
    rank[order] = np.arange(len(labels)) - starts[labels[order]]
    return rank, counts[labels]


def _check_classes(root: Path, listing: Listing, parts: np.ndarray) -> None:
    """Every class must be trained and tested; validation pictures may be too few for that."""
    for number, part in enumerate(PARTS):
        if part == "validation" and part not in listing.found:
            continue
        counts = np.bincount(listing.labels[parts == number], minlength=len(listing.classes))
        if not counts.all():
            missing = _some([listing.classes[label] for label in np.flatnonzero(counts == 0)])
            wanted = "" if part in listing.found else ", 2 pictures for training and test"
            raise UserError(
                f"{_show(root)}: expected good pictures of every class in {part}{wanted}, found "
                f"none of {missing}"
            )


def _show(path: Path) -> str:
    return printable(str(path))


def _some(names: list[str]) -> str:
    """The first few of some names."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(printable, names[:5])) + more
