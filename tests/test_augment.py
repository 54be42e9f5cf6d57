"""Bytes to floats, augmentation on the device, crops at evaluation.

The oracles: NumPy slices of images in which every pixel tells its place, torchvision, SciPy.
"""

import collections
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import BY_STEPS, assert_close, assert_same, quick_jit, random_images, slow, train_on
from scipy import stats

from jaxnets.backprop import losses as pairs
from jaxnets.base.errors import RunFailedError
from jaxnets.config.fields import AUGMENTATIONS
from jaxnets.config.resolve import preset
from jaxnets.data.batches import Batch
from jaxnets.data.datasets import Dataset, Split
from jaxnets.experiment import Experiment
from jaxnets.losses import cross_entropy
from jaxnets.metrics import Metrics
from jaxnets.models import MODELS
from jaxnets.runs.checkpoints import all_finite
from jaxnets.training import augment as module
from jaxnets.training import loop
from jaxnets.training.augment import STREAMS, Augmentation, principal_components
from jaxnets.training.crops import center_crop, ten_crops, with_ten_crops
from jaxnets.training.pixels import to_float
from jaxnets.training.step import (
    TrainState,
    autodiff_loss_and_grad,
    make_eval_step,
    make_gradient_step,
)
from jaxnets.tune.train_many import train_many

# Bytes


def test_every_byte_becomes_numpys_float_and_floats_pass():
    every = np.arange(256, dtype=np.uint8)
    for floats in (to_float(every), jax.jit(to_float)(every)):
        assert floats.dtype == np.float32
        np.testing.assert_array_equal(floats, np.divide(every, np.float32(255), dtype=np.float32))
    images = random_images(3, 4, 4, 1)
    assert to_float(images) is images


def as_bytes(data):
    """The data set whose pixels are still bytes."""

    def split(part):
        return Split(np.rint(part.images * 255).astype(np.uint8), part.labels)

    parts = {name: split(getattr(data, name)) for name in ("train", "validation", "test")}
    return dataclasses.replace(data, **parts)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        pytest.param("mlp", {"hidden": (16,)}, id="in one loop"),
        pytest.param("cnn", {"hidden": (16,)}, id="by steps"),
        ("softmax", {"gradients": "both"}),
        ("mlp", {"devices": 8, "parallel": "pmap"}),
        ("mlp", {"devices": 8, "parallel": "shard_map"}),
    ],
)
@pytest.mark.slow
def test_bytes_train_and_evaluate_to_the_bits_of_their_floats(tiny, tiny_preset, model, changes):
    config = tiny_preset(model, epochs=1, **changes)
    results = []
    for data in (tiny, as_bytes(tiny)):
        state, history = train_on(data, config)
        test = Experiment.create(config, data).evaluate(state.params, data.test)
        results.append((state.params, history[0]["train_loss"], test))
    assert_same(*results)


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.slow
def test_bytes_train_side_by_side_as_their_floats_do(tiny, tiny_preset):
    configs = [tiny_preset("mlp", seed=seed, epochs=1, hidden=(16,)) for seed in (0, 1)]
    ours, theirs = (train_many(configs, data, data.validation) for data in (as_bytes(tiny), tiny))
    assert ours == theirs


# Each augmentation


@pytest.fixture
def uniform_weights(monkeypatch):
    """Mix-up's weights from U(0, 1): Beta's sampler, tested below, takes long to compile."""
    monkeypatch.setattr(
        jax.random, "beta", lambda key, a, b, *, dtype: jax.random.uniform(key, (), dtype)
    )


def keys_of(count):
    return jax.random.split(jax.random.key(0), count)


def placed(height, width, channels=1, dtype=np.float32):
    """An image in which no two pixels are equal and none is 0."""
    return np.arange(1, 1 + height * width * channels, dtype=dtype).reshape(height, width, channels)


def assert_each_is_one_of(images, possible):
    """Demands that all possible images were drawn equally often, within five deviations."""
    drawn = collections.Counter(np.ascontiguousarray(image).tobytes() for image in images)
    counts = np.array([drawn.pop(image.tobytes()) for image in possible])
    assert not drawn
    expected = len(images) / len(possible)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected * (1 - 1 / len(possible)))


def many(function, image, count=2000, **arguments):
    """An augmentation of so many copies of one image."""
    images = np.repeat(image[None], count, axis=0)
    function = jax.vmap(functools.partial(function, **arguments))
    return np.asarray(quick_jit(function)(keys_of(count), images))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_larger_pictures_crop_is_any_of_its_windows(dtype):
    image = placed(7, 6, 3, dtype)
    windows = [image[y : y + 4, x : x + 4] for y in range(4) for x in range(3)]
    assert_each_is_one_of(many(module.crop, image, input_size=4), windows)


def test_a_crop_of_the_networks_size_moves_by_an_eighth():
    image = placed(16, 9, 2)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    windows = [padded[y : y + 16, x : x + 9] for y in range(5) for x in range(5)]
    assert_each_is_one_of(many(module.crop, image, input_size=None), windows)
    assert_each_is_one_of(many(module.crop, image, input_size=64), windows)


def test_a_flip_mirrors_half_of_the_images():
    image = placed(3, 5, 2)
    assert_each_is_one_of(many(module.flip, image), [image, np.fliplr(image)])


def coloured(count, side=6, seed=0):
    """Pictures whose channels hang together, as bytes."""
    rng = np.random.default_rng(seed)
    mixing = np.array([[40, 30, 20], [-10, 5, 12], [2, -4, 3]])
    pixels = 128 + rng.standard_normal((count, side, side, 3)) @ mixing
    return np.clip(pixels, 0, 255).astype(np.uint8)


def data_of(images, classes=3, train=None):
    """A data set with so many images to train on and the others to test, or all for both."""
    labels = np.arange(len(images), dtype=np.int32) % classes
    rows = slice(train), slice(0), slice(train, None)
    return Dataset("pictures", classes, *(Split(images[i], labels[i]) for i in rows), checksum="")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_principal_components_are_numpys(dtype):
    images = coloured(130)
    ours = principal_components(data_of(images if dtype == np.uint8 else to_float(images)))
    values, vectors = np.linalg.eigh(np.cov(images.reshape(-1, 3).T / 255.0, bias=True))
    np.testing.assert_allclose(np.linalg.norm(ours, axis=0), values, rtol=1e-5)
    directions = ours / np.linalg.norm(ours, axis=0)
    np.testing.assert_allclose(np.abs((directions * vectors).sum(axis=0)), 1, rtol=1e-5)
    assert (directions[np.abs(directions).argmax(axis=0), range(3)] > 0).all()
    sampled = principal_components(data_of(images[:101]), sample=11)
    np.testing.assert_array_equal(sampled, principal_components(data_of(images[:101:10])))


def test_pca_moves_all_pixels_alike_by_normal_multiples():
    components = principal_components(data_of(coloured(50)))
    image = random_images(2, 3, 3)
    moves = many(module.pca, image, components=components).astype(np.float64) - image
    np.testing.assert_allclose(moves, np.broadcast_to(moves[:, :1, :1], moves.shape), atol=2e-7)
    alphas = np.linalg.solve(components.astype(np.float64), moves.mean(axis=(1, 2)).T)
    assert stats.kstest(alphas[2], stats.norm(0, 0.1).cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(alphas) - np.eye(3)).max() < 0.2
    np.testing.assert_allclose(alphas.std(axis=1), 0.1, rtol=0.1)


def test_mixup_mixes_neighbours_and_their_labels_by_beta_weights():
    count = 1000
    images = random_images(count, 2, 2, 1)
    batch = Batch(images, np.eye(count, dtype=np.float32), np.ones(count, np.float32))
    mixed = quick_jit(lambda *arguments: module.mixup(*arguments))(keys_of(count), batch)
    labels = np.asarray(mixed.labels, np.float64)
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    w = labels[range(count), range(count)]
    np.testing.assert_allclose(labels[range(count), np.arange(count) - 1], 1 - w, atol=1e-6)
    w = w[:, None, None, None]
    np.testing.assert_allclose(
        mixed.images, w * images + (1 - w) * np.roll(images, 1, axis=0), atol=1e-6
    )
    assert stats.kstest(w.ravel(), stats.beta(0.2, 0.2).cdf).pvalue > 1e-3


@pytest.mark.usefixtures("uniform_weights")
def test_padding_is_mixed_into_nothing_whatever_it_holds():
    images = random_images(6, 2, 2, 1)
    images[4:] = np.nan
    labels = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 1]]
    batch = Batch(images, labels, np.array([1, 1, 1, 1, 0, 0], np.float32))
    mixed = quick_jit(lambda *arguments: module.mixup(*arguments))(keys_of(6), batch)
    assert np.isfinite(mixed.images[:4]).all()
    np.testing.assert_array_equal(mixed.images[0], images[0])  # Its neighbour is padding.
    assert mixed.labels[0].tolist() == [1, 0, 0]
    assert (np.asarray(mixed.labels[1:4]).max(axis=1) < 1).any()
    np.testing.assert_array_equal(mixed.mask, batch.mask)


# Together, in the step

ORDER = [name for name in STREAMS if name != "custom"]
ALL = ",".join(ORDER)
BUT_MIXUP = ALL.replace(",mixup", "")


def a_batch():
    return Batch(coloured(16, side=16), np.arange(16) % 3, np.ones(16, np.float32))


@functools.cache
def all_of(*names):
    return quick_jit(Augmentation(names or ORDER, data_of(coloured(50))))


def test_every_name_of_the_flag_is_known_to_the_step(tiny, tiny_preset):
    assert set(AUGMENTATIONS) == {"none", "shift", *ORDER}
    batch = a_batch()
    for name in ("none", "shift"):  # The step changes no image for these.
        created = Experiment.create(tiny_preset("softmax", augment=name), tiny)
        found = created.augment(jax.random.key(0), 0, batch, 0)
        np.testing.assert_array_equal(found.images, to_float(batch.images))


@pytest.mark.usefixtures("uniform_weights")
@pytest.mark.parametrize("names", [*ORDER, slow(ALL)])
def test_a_step_draws_the_same_again_others_differ(names):
    augment = all_of(*names.split(","))
    keys = [jax.random.fold_in(jax.random.key(0), step) for step in (0, 0, 1)]
    first, again, later = (augment(key, 0, a_batch(), 0) for key in keys)
    assert_same(first, again)
    for other in (later, augment(keys[0], 0, a_batch(), 16)):
        assert np.abs(np.asarray(first.images) - np.asarray(other.images)).max() > 1e-3
    assert first.images.dtype == np.float32


def test_every_example_has_a_key_of_every_augmentation(monkeypatch):
    """All together; each is replaced by a function that writes its key into its place."""

    def show(key, image, place, **_):
        return image.at[0, 0, place].set(jax.random.key_data(key))

    def show_all(keys, batch, place):
        images = jax.vmap(functools.partial(show, place=place))(keys, batch.images)
        return batch._replace(images=images)

    for place, name in enumerate(ORDER):
        shown = show_all if name == "mixup" else show
        monkeypatch.setattr(module, name, functools.partial(shown, place=place))
    augment = Augmentation(ORDER, data_of(coloured(50)))
    nothing = a_batch()._replace(images=np.zeros((16, 1, 1, len(ORDER), 2), np.uint32))
    drawn = augment(jax.random.key(0), 0, nothing, 0).images.reshape(-1, 2)
    assert len(drawn) == len(np.unique(drawn, axis=0)) == 16 * len(ORDER)


def test_an_augmentation_draws_alike_with_and_without_others():
    """A flip of a crop is the crop alone, mirrored where the flip alone mirrors."""
    key, batch = jax.random.key(3), a_batch()
    flipped = np.asarray(all_of("flip")(key, 0, batch, 0).images)
    mirrored = (flipped != to_float(batch.images)).any(axis=(1, 2, 3))
    cropped = np.asarray(all_of("crop")(key, 0, batch, 0).images)
    both = np.asarray(all_of("crop", "flip")(key, 0, batch, 0).images)
    expected = np.where(mirrored[:, None, None, None], cropped[:, :, ::-1], cropped)
    np.testing.assert_array_equal(both, expected)


@pytest.mark.parametrize("names", ["crop,flip", slow(BUT_MIXUP)])
def test_pmaps_devices_see_their_share_of_one_batch(names):
    augment, key, batch = all_of(*names.split(",")), jax.random.key(0), a_batch()
    whole = np.asarray(augment(key, 0, batch, 0).images)
    for first in range(0, 16, 2):
        share = jax.tree.map(lambda x, first=first: x[first : first + 2], batch)
        ours = augment(key, 0, share, first).images
        np.testing.assert_allclose(ours, whole[first : first + 2], rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def pictures():
    """Three classes of 16x16 colour pictures as bytes, 56 to train on and none to validate."""
    return data_of(coloured(72, side=16), train=56)


def config_of(model, **changes):
    # The third batch is ragged.
    ours: dict[str, Any] = dict(epochs=2, batch_size=24, devices=1, learning_rate=0.05)
    return preset(model, **{**ours, **changes})


@pytest.mark.usefixtures("uniform_weights", "quick_steps")
@pytest.mark.parametrize(
    ("devices", "parallel", "names", "tolerance"),
    [
        slow(1, "jit", ALL, 1e-6),
        pytest.param(8, "jit", ALL, 1e-5, marks=SLOW),
        pytest.param(8, "pmap", BUT_MIXUP, 1e-5, marks=SLOW),
        pytest.param(8, "shard_map", BUT_MIXUP, 1e-5, marks=SLOW),
    ],
)
def test_loop_and_steps_train_on_the_same_pictures(pictures, devices, parallel, names, tolerance):
    common = dict(hidden=(16,), loss="cross_entropy")
    scanned, _ = train_on(pictures, config_of("mlp", augment=names, **common))
    plain, _ = train_on(pictures, config_of("mlp", **common))
    kernel, other = (state.params["logits"]["kernel"] for state in (scanned, plain))
    assert np.abs(kernel - other).max() > 1e-5
    config = config_of("mlp", augment=names, devices=devices, parallel=parallel, **common)
    stepped, _ = train_on(pictures, config, BY_STEPS)
    assert_close(stepped.params, scanned.params, tolerance)


@pytest.mark.usefixtures("uniform_weights", "quick_steps")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pmap", "shard_map"])
def test_a_mapped_device_mixes_its_own_share(pictures, kind):
    config = config_of("mlp", hidden=(16,), augment="mixup", devices=8, parallel=kind)
    state, _ = train_on(pictures, config)  # A loss that is not finite would end it.
    assert all_finite(state.params)


@pytest.mark.usefixtures("uniform_weights", "checks_every_step")
@pytest.mark.parametrize(
    ("model", "loss", "names"),
    [
        pytest.param("mlp", "cross_entropy", ALL, marks=SLOW),
        slow("mlp", "mse", "mixup"),
        pytest.param("cnn", "cross_entropy", "mixup", marks=SLOW),
    ],
)
def test_gradients_by_hand_are_autodiffs_on_mixed_pictures(pictures, float64, model, loss, names):
    """Checked before every step, in float64; the tolerance there is 1e-9."""
    config = config_of(
        model, hidden=(16,), augment=names, loss=loss, precision="float64",
        gradients="both", epochs=1,
    )  # fmt: skip
    both, _ = train_on(pictures, config)
    if model != "cnn":
        auto, _ = train_on(pictures, dataclasses.replace(config, gradients="auto"))
        assert_close(both.params, auto.params, 1e-9)


@pytest.mark.oracle
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_smooth_labels_give_pytorchs_loss(share):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle; not installed")
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((6, 4), np.float32), np.array([0, 3, 1, 1, 2, 0], np.int32)
    none: Any = None
    batch = Batch(none, jnp.eye(4)[labels], np.ones(6, np.float32))
    smoothed = module.smoothed(batch, share).labels
    np.testing.assert_allclose(smoothed.sum(axis=1), 1, rtol=1e-6)
    ours = np.asarray(cross_entropy(jnp.asarray(logits), jnp.asarray(smoothed)))
    loss = torch.nn.CrossEntropyLoss(reduction="none", label_smoothing=share)
    theirs = loss(torch.from_numpy(logits), torch.from_numpy(labels).long()).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.usefixtures("uniform_weights", "checks_every_step")
def test_gradients_by_hand_are_autodiffs_on_smooth_labels(pictures, float64):
    common = dict(precision="float64", label_smoothing=0.1, epochs=1)
    train_on(pictures, config_of("softmax", gradients="both", **common))


@pytest.mark.usefixtures("uniform_weights", "quick_steps", "checks_every_step")
@pytest.mark.slow
def test_the_check_of_the_gradients_sees_the_mixed_pictures(pictures, break_rule):
    """A gradient by hand that is wrong for soft labels alone is found."""
    right = pairs.SOFTMAX_CROSS_ENTROPY

    def wrong(cache, d_losses):
        return right.backward(cache, d_losses) * (1 if cache[1].ndim == 1 else 2)

    break_rule(cross_entropy, backward=wrong)
    common = dict(loss="cross_entropy", gradients="both", epochs=1)
    train_on(pictures, config_of("softmax", **common))
    with pytest.raises(RunFailedError, match="disagree at step 0"):
        train_on(pictures, config_of("softmax", augment="mixup", **common))


@pytest.mark.usefixtures("uniform_weights")
def test_step_and_gradient_check_augment_by_one_key():
    """A way to the gradient that hands the augmented batch on shows what a step sees."""
    augment, batch, key = all_of("crop", "flip"), a_batch(), jax.random.key(5)

    def seen(params, batch, key):
        return Metrics.zero(3), {"images": batch.images, "labels": batch.labels}

    step = make_gradient_step(seen, augment=augment)
    for number in (0, 1):
        state = TrainState(jnp.int32(number), {}, (), key)
        expected = augment(jax.random.fold_in(key, number), number, batch, 0)
        assert_same(step(state, batch)[1], {"images": expected.images, "labels": expected.labels})


@pytest.mark.usefixtures("uniform_weights")
@pytest.mark.parametrize("names", ["flip,mixup", slow("flip,affine,mixup")])
def test_only_the_cpu_has_conditionals_for_what_always_applies(names):
    key, names = jax.random.key(0), names.split(",")

    def conditionals(until, platform="cpu"):
        augment = Augmentation(names, data_of(coloured(50)), until=until, platform=platform)
        program = jax.make_jaxpr(augment)(key, 0, a_batch(), 0)
        return sum(equation.primitive.name == "cond" for equation in program.eqns)

    images = all_of(*names)(key, 0, a_batch(), 0).images
    assert conditionals(np.inf) == conditionals(3) == len(names)
    assert conditionals(np.inf, "gpu") == 0
    assert conditionals(3, "gpu") == len(names)
    augment = quick_jit(Augmentation(names, data_of(coloured(50)), platform="gpu"))
    assert_close(augment(key, 0, a_batch(), 0).images, images, 1e-5)


# The last epochs


@pytest.mark.usefixtures("uniform_weights")
@pytest.mark.parametrize("names", [slow("crop,flip"), "mixup"])
def test_from_a_step_on_images_are_the_stored_middle(names):
    names, batch, key = names.split(","), a_batch(), jax.random.key(0)
    until = quick_jit(Augmentation(names, data_of(coloured(50)), 12, until=3))
    always = quick_jit(Augmentation(names, data_of(coloured(50)), 12))
    assert_same(until(key, 2, batch, 0), always(key, 2, batch, 0))
    labels = np.eye(3)[batch.labels] if names == ["mixup"] else batch.labels
    middle = to_float(batch.images)[:, 2:14, 2:14]
    for step in (3, 9):
        assert_same(until(key, step, batch, 0), Batch(middle, labels, batch.mask))


@pytest.mark.slow
@pytest.mark.usefixtures("uniform_weights", "quick_steps")
@pytest.mark.parametrize(
    ("names", "in_one_loop"),
    [
        ("shift,flip", True),
        slow("flip", True),
        slow("shift,flip,mixup", True),
        slow("shift,flip,mixup", False),
    ],
)
def test_clean_epochs_are_those_of_a_run_without_augmentation(pictures, names, in_one_loop):
    """A run of two epochs, and two experiments that train one of them each."""
    common, watch = dict(hidden=(16,), loss="cross_entropy"), [] if in_one_loop else BY_STEPS
    whole, _ = train_on(pictures, config_of("mlp", augment=names, clean_epochs=1, **common), watch)
    changed = Experiment.create(config_of("mlp", augment=names, **common), pictures)
    plain = Experiment.create(config_of("mlp", **common), pictures)
    state, _ = next(changed.epochs(loop.Checkpoint(changed.init_state()), watch))
    state, _ = next(plain.epochs(loop.Checkpoint(state), watch))
    assert_close(whole.params, state.params, 1e-6)
    augmented, _ = train_on(pictures, config_of("mlp", augment=names, **common), watch)
    kernel, other = (s.params["logits"]["kernel"] for s in (whole, augmented))
    assert np.abs(kernel - other).max() > 1e-5


@pytest.mark.slow
@pytest.mark.usefixtures("uniform_weights", "quick_steps")
def test_under_pmap_the_clean_epochs_are_those_of_one_device(pictures):
    common = dict(hidden=(16,), augment="flip", clean_epochs=1)
    one, _ = train_on(pictures, config_of("mlp", **common))
    eight, _ = train_on(pictures, config_of("mlp", devices=8, parallel="pmap", **common))
    assert_close(eight.params, one.params, 1e-5)


# The flag


# Evaluation


def test_the_middle_of_an_image():
    image = placed(7, 8, 3)[None]
    np.testing.assert_array_equal(center_crop(image, 4), image[:, 1:5, 2:6])
    np.testing.assert_array_equal(center_crop(image, 8), image)
    np.testing.assert_array_equal(center_crop(image, None), image)


@pytest.mark.oracle
def test_the_ten_crops_are_torchvisions():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle; not installed")
    functional = pytest.importorskip(
        "torchvision.transforms.functional", reason="torchvision is the oracle; not installed"
    )
    images = random_images(2, 10, 12, 3)
    theirs = functional.ten_crop(torch.from_numpy(images).movedim(-1, -3), 6)
    theirs = [crop.movedim(-3, -1).numpy() for crop in theirs]
    # It crops the mirrored image, so that its upper left is our upper right, mirrored.
    theirs = [theirs[number] for number in (0, 1, 2, 3, 4, 6, 5, 8, 7, 9)]
    np.testing.assert_array_equal(ten_crops(jnp.asarray(images), 6), theirs)


@pytest.fixture(scope="module")
def large():
    """Experiments with a network of 63x63, the smallest input_size, on pictures of 71x70."""
    data = data_of(coloured(109, side=71)[:, :, :70], classes=7)  # More than a batch of crops.
    model = MODELS["softmax"](num_classes=7)
    params = quick_jit(model.init)(jax.random.key(0), jnp.zeros((1, 63, 63, 3)))["params"]

    def create(**changes):
        config = preset("alexnet", input_size=63, batch_size=8, **changes)
        return dataclasses.replace(Experiment.create(config, data), model=model), params

    return create


def numpy_softmax(params, images):
    """[B, K] in float64."""
    kernel, bias = (np.asarray(params["logits"][n], np.float64) for n in ("kernel", "bias"))
    z = images.reshape(len(images), -1) / 255.0 @ kernel + bias
    z = np.exp(z - z.max(axis=1, keepdims=True))
    return z / z.sum(axis=1, keepdims=True)


def assert_scores(metrics, p, labels):
    """Demands the loss, accuracy, top-5 accuracy and count of the probabilities p."""
    truth = p[range(len(labels)), labels]
    rank = (p > truth[:, None]).sum(axis=1)
    assert metrics.loss == pytest.approx(-np.log(truth).mean(), rel=1e-5)
    assert (metrics.accuracy, metrics.top5_accuracy) == (np.mean(rank == 0), np.mean(rank < 5))
    assert int(metrics.count) == len(labels)


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize(("devices", "kind"), [slow(1, "jit"), slow(8, "jit"), (8, "pmap")])
def test_a_larger_picture_is_evaluated_in_middle_or_ten_crops(large, devices, kind):
    experiment, params = large(ten_crop=True, devices=devices, parallel=kind)
    test, total, p = experiment.data.test, 0, 0
    for mirror in (True, False):
        for top, left in ((0, 0), (0, 7), (8, 0), (8, 7), (4, 3)):
            crop = test.images[:, top : top + 63, left : left + 63]
            p = numpy_softmax(params, np.flip(crop, axis=2) if mirror else crop)
            total = total + p  # The last is the middle.
    assert_scores(experiment.evaluate(params, test), total / 10, test.labels)
    assert_scores(experiment.evaluate(params, test, ten_crop=False), p, test.labels)


@pytest.mark.usefixtures("quick_steps")
def test_a_larger_picture_is_trained_on_in_its_middle(large):
    experiment, params = large(devices=1)
    train, optimizer = experiment.data.train, experiment.optimizer
    ours = autodiff_loss_and_grad(experiment.model.apply, cross_entropy)
    state = TrainState(jnp.int32(0), params, optimizer.init(params), jax.random.key(0))
    batch = Batch(train.images, train.labels, np.ones(109, np.float32))
    _, metrics = quick_jit(experiment.train_step(ours))(state, batch)
    assert_scores(metrics, numpy_softmax(params, train.images[:, 4:67, 3:66]), train.labels)


def test_ten_certain_opinions_have_a_finite_loss():
    """Each crop's p of the label underflows in float32; their mean's logarithm does not."""
    apply = with_ten_crops(lambda variables, x: jnp.tile(jnp.array([[200.0, 0.0]]), (len(x), 1)), 2)
    step = make_eval_step(apply, cross_entropy)
    batch = Batch(np.zeros((1, 4, 4, 3), np.uint8), np.array([1]), np.ones(1, np.float32))
    assert quick_jit(step)({}, batch).loss == pytest.approx(200, rel=1e-6)


def test_an_affine_map_is_scipys():
    ndimage = pytest.importorskip("scipy.ndimage")
    image = np.random.default_rng(0).random((9, 7, 2), np.float32)
    matrix, offset = np.array([[0.9, -0.3], [0.2, 1.1]]), np.array([1.3, -0.6])
    middle = np.array([4.0, 3.0])
    there = middle + offset - matrix @ middle
    planes = [
        ndimage.affine_transform(
            np.pad(image[..., c], 20), matrix, there + 20 - matrix @ [20, 20], order=1
        )
        for c in (0, 1)
    ]
    expected = np.stack(planes, axis=-1)[20:-20, 20:-20]
    found = module.warp(jnp.asarray(image), jnp.asarray(matrix), jnp.asarray(offset))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    same = module.warp(jnp.asarray(image), jnp.eye(2), jnp.zeros(2))
    np.testing.assert_allclose(same, image, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "degrees", "share"), [("affine", 10, 0.1), ("affine_wide", 15, 0.15)]
)
def test_an_affine_map_goes_as_far_as_it_says(name, degrees, share, monkeypatch):
    """The matrix R [[1, k], [0, 1]] D is taken apart; 400 draws come near each limit."""
    monkeypatch.setattr(module, "warp", lambda _, matrix, offset: jnp.c_[matrix, offset])
    maps = np.asarray(many(getattr(module, name), np.zeros((4, 4, 1), np.float32), 400))
    angles = np.arctan2(maps[:, 1, 0], maps[:, 0, 0])
    cos, sin = np.cos(angles), np.sin(angles)
    upright = np.moveaxis(np.array([[cos, sin], [-sin, cos]]), -1, 0) @ maps[:, :, :2]
    np.testing.assert_allclose(upright[:, 1, 0], 0, atol=1e-6)
    high, wide = upright[:, 0, 0], upright[:, 1, 1]
    drawn = {
        degrees: np.rad2deg(angles),
        share: np.concatenate([1 / high - 1, 1 / wide - 1, upright[:, 0, 1] / wide]),
        2: maps[:, :, 2].ravel(),
    }
    for limit, numbers in drawn.items():
        for part in numbers.reshape(-1, 400):
            assert 0.95 * limit < part.max() <= limit * (1 + 1e-5)
            assert -limit * (1 + 1e-5) <= part.min() < -0.95 * limit
            assert abs(part.mean()) < 0.12 * limit  # Four standard errors.


def test_strokes_are_thickened_and_thinned_as_by_scipy():
    ndimage = pytest.importorskip("scipy.ndimage")
    image = np.random.default_rng(0).random((9, 7, 2), np.float32)
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)[..., None]
    dilated, eroded = (
        function(image, footprint=cross, mode="nearest")
        for function in (ndimage.grey_dilation, ndimage.grey_erosion)
    )
    found, shares = np.asarray(many(module.strokes, image, 400)), []
    for y in found:
        end = dilated if y.sum() > image.sum() else eroded
        u = np.vdot(y - image, end - image) / np.vdot(end - image, end - image)
        np.testing.assert_allclose(y, image + u * (end - image), rtol=0, atol=1e-6)
        shares.append(u if end is dilated else -u)
    assert 0.45 < max(shares) <= 0.5 and -0.5 <= min(shares) < -0.45
    assert abs(np.mean(shares)) < 0.06  # Four standard errors.
