"""A folder of pictures as a data set: DIR/train/<class>/*.jpg, or just DIR/<class>/*.jpg.

    DIR/train/cat/1.jpg   DIR/validation/cat/9.jpg   DIR/test/cat/4.jpg     the parts given
    DIR/cat/1.jpg         DIR/dog/1.jpg                                     the parts drawn by name

A part that is missing is taken from the training pictures. The test takes a tenth, by a digest of
each picture's name, so that a picture stays where it is when others are added. The validation then
takes `validation_size` pictures, from every class its share.
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
from jaxnets.data.pictures.store import BadPictures, Encoded, open_pixels, save_rows
from jaxnets.errors import UserError, printable

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
PARTS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
CACHE = ".jaxnets"  # Hidden, so that it is no class.
TEST_SHARE = 0.1  # Of the training pictures, where there is no test folder.

# Pictures that all have this size or less are kept as they are, others take the default.
SMALL, DEFAULT_SIZE = 96, 64


@dataclasses.dataclass(frozen=True)
class Listing:
    """The picture files of a folder.

    Attributes:
      paths: [N] bytes, relative to the folder: a few dozen bytes a picture, where a list of Path
        would take hundreds.
      labels: [N] int32, the class of each.
      parts: [N] int8, the part of each as its number in PARTS.
      classes: The K names, sorted.
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
    folder, where that cannot be written); a larger one is decoded in every epoch.

    Args:
      folder: DIR.
      validation_size: Number of training pictures split off where there is no validation folder;
        None for 5,000, at most a tenth of them. With 0 a validation folder is ignored too.
      decode_size: Pixels a side S; each picture's shorter side is resized to it and the centre
        cut out. None: the pictures' own size, if all are squares of one size up to 96 pixels;
        else 8/7 of input_size (256 for 224, as Krizhevsky et al. 2012, section 2); else 64.
      input_size: The network's input size, where it has one.
      on_bad_image: "skip" reports and leaves out pictures that cannot be decoded; "fail" refuses
        the data set at the first one.

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
    source = Encoded(
        content=lambda row: root / os.fsdecode(listing.paths[row]),
        name=lambda row: os.fsdecode(listing.paths[row]),
        shape=(size, size, 1 if records["grey"][good].all() else 3),
        bad=bad,
    )
    form = "x".join(map(str, source.shape))
    pixels, place = open_pixels(
        source, good, places, lambda good: f"{_checksum(records)[:32]}-{form}.npy"
    )
    if place is not None:
        save_rows(records, place / index.INDEX)
    bad.report()
    chosen = dataclasses.replace(
        listing, **{name: getattr(listing, name)[good] for name in ("paths", "labels", "parts")}
    )
    parts = _parts(chosen, validation_size)
    _check_classes(root, chosen, parts)

    def split(part: int) -> Split:
        rows = np.flatnonzero(parts == part)
        return Split(Pictures(pixels, rows), chosen.labels[rows])

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


def natural_size(sides: np.ndarray, input_size: int | None) -> int:
    """The default decode_size."""
    if 0 < sides[0] <= SMALL and (sides == sides[0]).all():
        return int(sides[0])
    return round(input_size * 8 / 7) if input_size else DEFAULT_SIZE


def _places(root: Path) -> list[Path]:
    """Where files may be kept for the next start: in the folder, else in the user's cache."""
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    places = [root / CACHE]
    with contextlib.suppress(UserError):  # A user without a home folder.
        places.append(cache_folder("pictures") / digest)
    return places[places[0].is_symlink() :]  # A link in somebody's folder may lead anywhere.


def _checksum(records: np.ndarray) -> str:
    """The SHA-256 of the good pictures' names and contents' digests."""
    digest = hashlib.sha256()
    for path in records["path"][records["good"]]:
        digest.update(path + b"\0")
    digest.update(records["digest"][records["good"]].tobytes())
    return digest.hexdigest()


def _parts(listing: Listing, validation_size: int | None) -> np.ndarray:
    """[N] int8: each picture's part, once the missing parts are split off the training pictures.

    Raises:
      UserError: Nothing would be left to train on.
    """
    parts = listing.parts.copy()
    positions = np.fromiter(map(_position, listing.paths), float, len(parts))
    if "test" not in listing.found:
        rows = np.flatnonzero(parts == 0)
        rank, count = _ranks(positions[rows], listing.labels[rows])
        # The share, but one at least of every class, and not all.
        chosen = ((positions[rows] < TEST_SHARE) | (rank == 0)) & (rank < count - 1)
        parts[rows[chosen]] = 2
    if "validation" not in listing.found:
        rows = np.flatnonzero(parts == 0)
        size = validation_count(validation_size, len(rows), "training pictures")
        rank, count = _ranks(positions[rows], listing.labels[rows])
        # In this order, the first pictures have their share of every class, however many they are.
        order = np.argsort((rank + 0.5) / count, kind="stable")
        parts[rows[order[:size]]] = 1
    return parts


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
