"""Bytes to floats, augmentation on the device, soft labels, crops at evaluation."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxnets.data.datasets import Split
from jaxnets.experiment import create_model, create_state, evaluate, train
from jaxnets.lecture.many import train_many
from jaxnets.training.augment import to_float

# Bytes


@pytest.mark.parametrize("place", ["host", "device"])
def test_every_byte_becomes_the_float_that_numpy_divides_to(place):
    every = np.arange(256, dtype=np.uint8)
    floats = jax.jit(to_float)(every) if place == "device" else to_float(every)
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats, np.divide(every, np.float32(255), dtype=np.float32))


def test_floats_pass_unchanged():
    images = np.random.default_rng(0).random((3, 4, 4, 1), np.float32)
    assert to_float(images) is images


def as_bytes(data):
    """The data set whose pixels are still bytes."""

    def split(part):
        return Split(np.rint(part.images * 255).astype(np.uint8), part.labels)

    parts = {name: split(getattr(data, name)) for name in ("train", "validation", "test")}
    return dataclasses.replace(data, **parts)


def train_on(data, config):
    model = create_model(config, data)
    return train(config, model, create_state(config, model, data), data)


def assert_same(ours, theirs):
    """Demands the same bits of every leaf."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


WAYS = {
    "in one loop": ("mlp", {}),
    "by steps": ("cnn", {}),
    "full batch in blocks": ("mlp_handwritten", {"batch_size": None}),
    "by hand and checked": ("softmax", {"gradients": "both", "check_every": 1}),
    "eight by pmap": ("mlp", {"devices": 8, "parallel": "pmap"}),
    "eight by jit": ("mlp", {"devices": 8, "parallel": "jit"}),
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_bytes_train_and_evaluate_to_the_bits_of_their_floats(tiny, tiny_preset, way):
    model, changes = WAYS[way]
    config = tiny_preset(model, epochs=1, **changes)
    results = []
    for data in (tiny, as_bytes(tiny)):
        state, history = train_on(data, config)
        test = evaluate(config, create_model(config, data), state.params, data.test)
        results.append((state.params, history[0]["train_loss"], test))
    assert_same(*results)


def test_bytes_train_side_by_side_as_their_floats_do(tiny, tiny_preset):
    configs = [tiny_preset("mlp", seed=seed, epochs=1) for seed in (0, 1)]
    ours, theirs = (train_many(configs, data, data.validation) for data in (as_bytes(tiny), tiny))
    assert ours == theirs
