"""Sets that TensorFlow Datasets has prepared, made here by its own builder, without TensorFlow."""

import functools
import io
import re
import shutil
import socket
import sys
from typing import Any

import numpy as np
import pytest
from conftest import read_json
from PIL import Image

from jaxnets.base.errors import UserError
from jaxnets.data import tfds as prepared_sets
from jaxnets.data.load import load_dataset

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="array_record is Linux-only")

FEATURES = "tensorflow_datasets.core.features."
NAMES = ["cat", "dog", "a <b>bird</b>\x1b[31m"]


def prepare(
    root, examples, *, version="1.0.0", shape=(None, None, 3), names=NAMES, config=None,
    encoding=None, **changed,
):  # fmt: skip
    """Prepares a data set of {split: [(image, label)]} as array_record; returns its folder."""
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=shape, encoding_format=encoding),
        "label": tfds.features.ClassLabel(names=names),
        "id": tfds.features.Text(),
    }

    class Zoo(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)
        name = "zoo"
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features | changed),
                supervised_keys=None if changed else ("image", "label"),
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in examples}

        def _generate_examples(self, split):
            for number, (image, label) in enumerate(examples[split]):
                yield number, {"image": png(image), "label": label, "id": f"{split} {number}"}

    builder = Zoo(data_dir=root, file_format="array_record", config=config)
    builder.download_and_prepare()
    return root / builder.data_dir


def png(image):
    """An image encoded; bytes and texts as they are."""
    if isinstance(image, bytes | str):
        return image
    stream = io.BytesIO()
    Image.fromarray(image.squeeze()).save(stream, "PNG")
    return stream.getvalue()


def numbered(count, start=0) -> list[tuple[Any, int]]:
    """Pictures of one colour each, which is their number, labelled with it modulo 3."""
    return [(np.full((8, 8, 3), n, np.uint8), n % 3) for n in range(start, start + count)]


SPLITS = {"train": numbered(40), "validation": numbered(6, 100), "test": numbered(9, 200)}


@pytest.fixture(autouse=True)
def no_network(cache, monkeypatch):
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, None)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """The root in which a data set of three splits is prepared."""
    root = tmp_path_factory.mktemp("tfds")
    prepare(root, SPLITS, shape=(8, 8, 3))
    return root


@pytest.fixture
def load(tmp_path):
    """Loads the data set that a test has prepared in its folder."""
    return functools.partial(load_dataset, "zoo", str(tmp_path))


def sizes(data):
    return len(data.train), len(data.validation), len(data.test)


def numbers_of(split):
    """Which pictures a split has, and a check that each has its label."""
    images = np.asarray(split.images)
    assert (images == images[:, :1, :1, :1]).all()
    numbers = images[:, 0, 0, 0].astype(int)
    np.testing.assert_array_equal(split.labels, numbers % 3)
    return sorted(numbers.tolist())


def test_a_prepared_set_is_read_and_kept(zoo, monkeypatch):
    data = load_dataset("zoo", str(zoo))
    assert (data.name, data.num_classes, data.image_shape) == ("zoo", 3, (8, 8, 3))
    assert data.class_names == ("cat", "dog", r"a <b>bird</b>\x1b[31m")
    assert data.train.images.dtype == np.uint8
    assert numbers_of(data.train) == list(range(40))
    assert numbers_of(data.validation) == list(range(100, 106))
    assert numbers_of(data.test) == list(range(200, 209))
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", None)  # A second start decodes nothing.
        second = load_dataset("zoo", str(zoo))
        array = np.asarray(second.train.images)
    assert second.checksum == data.checksum
    np.testing.assert_array_equal(array, np.asarray(data.train.images))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_agree_with_those_that_tensorflow_datasets_decodes(tmp_path, load, channels):
    """Its own reader decodes every picture whole; ours must agree where nothing is resized."""
    import tensorflow_datasets as tfds

    rng, shape = np.random.default_rng(0), (12, 12, channels)
    noise = [(rng.integers(0, 256, shape, np.uint8), n % 3) for n in range(30)]
    folder = prepare(tmp_path, {"train": noise, "test": noise[:4]}, shape=shape)
    train = load(0).train
    builder: Any = tfds.builder_from_directory(folder)
    theirs = builder.as_data_source("train")
    assert len(theirs) == len(train)
    for ours, label, example in zip(np.asarray(train.images), train.labels, theirs, strict=True):
        np.testing.assert_array_equal(ours, example["image"])
        assert label == example["label"]


def test_a_set_is_found_where_tensorflow_datasets_keeps_them(zoo, tmp_path, monkeypatch):
    expected = load_dataset("zoo", str(zoo)).checksum
    assert load_dataset("zoo", str(zoo / "zoo" / "1.0.0")).checksum == expected
    monkeypatch.setenv("TFDS_DATA_DIR", str(zoo))
    assert load_dataset("zoo").checksum == expected
    monkeypatch.delenv("TFDS_DATA_DIR")
    shutil.copytree(zoo, tmp_path / "home" / "tensorflow_datasets")
    assert load_dataset("zoo").checksum == expected
    assert load_dataset("zoo:1.0.0").checksum == expected
    with pytest.raises(UserError, match="unknown dataset"):
        load_dataset("zoo:2.0.0")


def test_the_newest_version_is_taken_a_configuration_named(tmp_path, load):
    def train_size(name):
        return len(load_dataset(name, str(tmp_path), 0).train)

    for version, count in (("1.9.0", 20), ("1.10.0", 30)):
        splits = {"train": numbered(count), "test": numbered(3)}
        prepare(tmp_path, splits, version=version, config="big")
    assert [train_size(name) for name in ("zoo", "zoo:1.9.0")] == [30, 20]
    prepare(tmp_path, {"train": numbered(12), "test": numbered(3)}, config="small")
    assert [train_size(name) for name in ("zoo/small", "zoo/big", "zoo/big:1.9.0")] == [12, 30, 20]
    with pytest.raises(UserError, match="expected one of zoo/big, zoo/small, got zoo"):
        load()


WITHHELD = [(image, -1) for image, _ in numbered(5)]


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({"train": numbered(40), "test": numbered(9)}, (36, 4, 9)),
        ({"train": numbered(40), "validation": numbered(6)}, (36, 4, 6)),
        ({"train": numbered(40), "validation": numbered(6), "test": WITHHELD}, (36, 4, 6)),
        ({"train": numbered(40)}, (33, 3, 4)),
        (SPLITS | {"unlabelled": numbered(5)}, (40, 6, 9)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_missing_splits_and_labels_are_made_up_for(tmp_path, load, splits, expected):
    prepare(tmp_path, splits, shape=(8, 8, 3))
    data = load()
    assert sizes(data) == expected
    if list(splits) == ["train"]:
        parts = [numbers_of(part) for part in (data.train, data.validation, data.test)]
        assert sorted(sum(parts, [])) == list(range(40))


def test_pictures_of_different_sizes_become_squares(tmp_path, load):
    rng = np.random.default_rng(0)
    noise = [(rng.integers(0, 256, (10 + n, 30, 3), np.uint8), n % 3) for n in range(20)]
    prepare(tmp_path, {"train": noise, "test": noise}, encoding="png")
    assert load().image_shape == (64, 64, 3)
    assert load(input_size=224).image_shape == (256, 256, 3)
    data = load(0, decode_size=16)
    assert data.image_shape == (16, 16, 3)
    found = np.asarray(data.train.images)
    for image, _ in noise:
        margin = (30 - len(image)) / 2  # All are wider than they are high.
        box = (margin, 0, 30 - margin, len(image))
        square = Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR, box)
        assert (found == np.asarray(square)).all(axis=(1, 2, 3)).sum() == 1


@pytest.mark.parametrize("names", [NAMES[:2], NAMES, [*NAMES, "fish"]])
def test_another_set_in_the_same_place_is_noticed(tmp_path, load, names):
    prepare(tmp_path, {"train": numbered(30), "test": numbered(6)})
    load()
    shutil.rmtree(tmp_path / "zoo")
    again = [(image, 1 - label % 2) for image, label in numbered(30)]
    prepare(tmp_path, {"train": again, "test": again}, names=names)
    data = load(0)
    assert data.num_classes == len(names)
    numbers = np.asarray(data.train.images)[:, 0, 0, 0] % 3
    np.testing.assert_array_equal(data.train.labels, 1 - numbers % 2)


# What cannot be read


def test_what_cannot_be_read_is_told_with_what_is_missing(zoo, tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR")
    with pytest.raises(UserError) as raised:
        load_dataset("imagenette")
    root = tmp_path / "home" / "tensorflow_datasets"
    assert f"not prepared in {root / 'imagenette'}" in str(raised.value)
    command = f"tfds build imagenette --file_format=array_record --data_dir={root}"
    assert str(raised.value).endswith(command)
    with pytest.raises(UserError, match=f"--data_dir={tmp_path}"):
        load_dataset("emnist/balanced", str(tmp_path))
    monkeypatch.setitem(sys.modules, "array_record", None)
    with pytest.raises(UserError, match="array_record, .* is not installed.*Linux"):
        load_dataset("zoo", str(zoo))


def test_names_are_tensorflow_datasets_and_lead_nowhere_else(zoo):
    import tensorflow_datasets as tfds

    assert set(prepared_sets.NAMES) <= set(tfds.list_builders(with_community_datasets=False))
    nearest = {"mnits": "mnist", "cifar": "cifar10", "imagenete": "imagenette", "flowers102": "oxf"}
    for name, near in nearest.items():
        with pytest.raises(UserError, match=f'did you mean "{near}'):
            load_dataset(name)
    for name in ("../zoo", "zoo/../zoo", "/zoo", "zoo/1.0.0/..", "zoo:../1.0.0", "~zoo", ""):
        assert prepared_sets.find(name, str(zoo)) is None


def test_what_is_no_image_classification_set_is_refused(tmp_path):
    import tensorflow_datasets as tfds

    features = "an image and a class label, found the features id, image"
    image = numbered(1)[0][0]
    wrong: Any = (
        ("no image", {"train": [("text", 1)]}, {"image": tfds.features.Text()}, features),
        ("no label", {"train": [(image, 1)]}, {"label": tfds.features.Scalar(np.int64)}, features),
        ("no train", {"all_of_it": [(image, 1)]}, {}, "a split named train, found all_of_it"),
    )
    for place, example, changed, message in wrong:
        prepare(tmp_path / place, example, **changed)
        with pytest.raises(UserError, match=message):
            load_dataset("zoo", str(tmp_path / place))


@pytest.fixture
def copy(zoo, tmp_path):
    """A folder to damage, its files beside it once more."""
    folder = shutil.copytree(zoo, tmp_path / "copy") / "zoo" / "1.0.0"
    for shard in folder.glob("*array_record*"):
        shutil.copy(shard, folder.parent)
    return folder


def refused(folder, match):
    with pytest.raises(UserError, match=match) as raised:
        load_dataset("zoo", str(folder.parent.parent))
    assert "\n" not in str(raised.value)


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_file_that_is_damaged_or_missing_is_refused(copy):
    (shard,) = copy.glob("*-train*")
    whole = shard.read_bytes()
    flipped = [bytearray(whole) for _ in range(2)]
    for byte, content in zip((2000, 5000), flipped, strict=True):
        content[byte] ^= 4
    noise = np.random.default_rng(0).bytes(len(whole))
    for content in (b"", b"noise" * 100, noise, *flipped):
        shard.write_bytes(content)
        refused(copy, "damaged")
    shard.unlink()
    refused(copy, f"the file {re.escape(shard.name)} is missing")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("dataset_info", '"array_record"', '"tfrecord"', "found tfrecord.*tfds build"),
        ("dataset_info", '"40"', '"2000000000"', "expected the 2,000,000,000 .* found 40"),
        ("dataset_info", "{DATASET}-{SPLIT}", "../{DATASET}-{SPLIT}", "found one outside of it"),
        ("features", f"{FEATURES}text_feature.Text", "evil.Feature", "expected .* 'evil.Feature'"),
    ],
    ids=["another format", "two billion records", "files elsewhere", "a module to import"],
)
def test_a_description_of_something_else_is_refused(
    copy, tmp_path, monkeypatch, file, old, new, message
):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    change(copy / f"{file}.json", old, new)
    refused(copy, message)


def test_damaged_metadata_and_labels_are_refused(copy):
    for name in ("dataset_info.json", "features.json"):
        path = copy / name
        whole = path.read_text()
        for content in ("", "{", whole[: len(whole) // 2], "[" * 100_000, '{"name": 3}', "[]"):
            path.write_text(content)
            refused(copy, "damaged|array_record|expected")
        path.write_text(whole)
    # A label out of range.
    (copy / "label.labels.txt").write_text("cat\ndog\n")
    change(copy / "features.json", '"numClasses": "3"', '"numClasses": "2"')
    refused(copy, "expected labels from 0 to 1 in its train part, found 2")


def test_a_picture_that_cannot_be_decoded_is_left_out(tmp_path, load, capsys):
    examples = numbered(40)
    examples[7] = (b"no picture", 1)
    prepare(tmp_path, {"train": examples, "test": numbered(9)}, shape=(8, 8, 3))
    checksums = set()
    for _ in range(2):  # The second time, from what is stored.
        capsys.readouterr()
        data = load(0)
        checksums.add(data.checksum)
        assert len(numbers_of(data.train)) == 39
        assert "1 bad picture is skipped: zoo, record " in capsys.readouterr().err
    assert len(checksums) == 1


def test_tensorflow_is_never_imported(zoo, run_python, tmp_path):
    """Not even where it is installed: a package of that name here ends the process."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise SystemExit('imported')")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import jaxnets; "
        "data = jaxnets.load_dataset('zoo', sys.argv[2]); data.train.images[[0, 1]]; "
        "print(len(data.train), 'tensorflow' in sys.modules, 'jax' in sys.modules)"
    )
    outcome = run_python("-c", code, str(tmp_path), str(zoo))
    assert (outcome.status, outcome.out) == (0, "40 False False\n"), outcome.err


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.slow
def test_a_run_trains_on_it(zoo, run_main, tmp_path):
    outcome = run_main(
        "--model=softmax", "--dataset=zoo", f"--data_dir={zoo}", "--batch_size=8", "--epochs=2",
        f"--workdir={tmp_path / 'run'}",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    config, result = (read_json(tmp_path / f"run/{file}.json") for file in ("config", "result"))
    assert config["class_names"] == ["cat", "dog", r"a <b>bird</b>\x1b[31m"]
    assert result["test_count"] == 9
