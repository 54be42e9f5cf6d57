"""--init_from=RUN: a run that begins with the weights of another one."""

import json

import jax
import numpy as np
import pytest
from conftest import as_flags, read_json, saved_params, write_idx_folder
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file, save_file

from jaxnets.base.errors import UserError
from jaxnets.config.resolve import preset, resolve
from jaxnets.models.weights import load_weights
from jaxnets.runs.request import run_with_weights


@pytest.fixture
def first(train_tiny, tmp_path):
    """A run to begin from: not the recipe's network."""
    assert (
        train_tiny("mlp_functional", "--hidden=12,8", f"--workdir={tmp_path / 'first'}").status == 0
    )
    return tmp_path / "first"


@pytest.fixture
def tune(run_main, tiny_flags):
    """Trains from a run's weights, its network being that run's."""
    return lambda run, *flags: run_main(*tiny_flags, f"--init_from={run}", *flags)


@pytest.mark.slow
def test_a_run_begins_where_another_ended(first, tune, tmp_path):
    outcome = tune(first, "--learning_rate=1e-12", "--optimizer=sgd")
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith("mlp_functional: ")
    assert "10.safetensors, including the last layer of 3 classes" in outcome.out
    step, ours = saved_params(tmp_path / "run")
    theirs = saved_params(first)[1]
    assert step == 10 and ours.keys() == theirs.keys()
    for name in theirs:  # So small a rate changes nothing: they are the weights of the first run.
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6, atol=1e-9)
    config = read_json(tmp_path / "run" / "config.json")
    assert config["hidden"] == [12, 8] and len(config["init_from_sha256"]) == 64


@pytest.mark.slow
def test_the_last_layer_is_drawn_anew_for_other_classes(
    first, tune, tiny_arrays, tmp_path, run_main
):
    """The same images, their labels halved into two classes."""
    two = {n: x // 2 if n.endswith("labels") else x for n, x in tiny_arrays.items()}
    write_idx_folder(tmp_path / "two", two)
    outcome = tune(first, f"--data_dir={tmp_path / 'two'}", "--learning_rate=1e-12", "--epochs=1")
    assert outcome.status == 0, outcome.err
    assert "it has 3 classes there and 2 here, and was drawn anew" in outcome.out
    ours, theirs = saved_params(tmp_path / "run")[1], saved_params(first)[1]
    assert ours["params/logits/kernel"].shape == (8, 2)
    np.testing.assert_allclose(
        ours["params/hidden1/kernel"], theirs["params/hidden1/kernel"], rtol=1e-6, atol=1e-8
    )


@pytest.mark.slow
def test_a_tuned_run_is_resumed_from_the_same_weights_only(
    first, tune, run_main, interrupt_after, tmp_path
):
    interrupt_after(1)
    assert tune(first, "--epochs=3").status == 130
    interrupt_after(10**9)
    again = "--resume", f"--workdir={tmp_path / 'run'}"
    file = first / "checkpoints" / "10.safetensors"
    kept = file.read_bytes()
    save_file({name: np.asarray(x + x.dtype.type(1)) for name, x in load_file(file).items()}, file)
    run_main(*again).assert_refused("resume: expected", "10.safetensors with SHA-256")
    file.write_bytes(kept)
    assert run_main(*again).status == 0


@pytest.mark.slow
def test_flags_win_over_what_the_run_brings(first):
    weights = run_with_weights(str(first))
    config = resolve({"hidden": (5,), "decode_size": 9}, weights=weights).config
    assert (config.model, config.hidden, config.decode_size) == ("mlp_functional", (5,), 9)
    assert str(config.init_from).endswith(".safetensors")
    other = resolve({"model": "cnn"}, weights=weights).config
    assert other.hidden == preset("cnn").hidden and other.decode_size == 12
    assert run_with_weights("w.safetensors") is None is run_with_weights(None)


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("hidden1/bias", None, "the file has no hidden1/bias; this network has hidden1/bias of sh"),
        ("x", np.ones(2), "the file has x of shape (2,); this network has no x"),
        ("hidden2/kernel", np.ones((3, 8), "f4"), "hidden2/kernel of shape (3, 8); this network"),
        ("logits/kernel", np.ones((9, 3), "f4"), "logits/kernel of shape (9, 3); this network has"),
        (
            "logits/kernel",
            np.ones((8, 9), "f4"),
            "; this network has logits/kernel of shape (8, 3)",
        ),
        (
            "hidden1/bias",
            np.full(12, np.inf, "f4"),
            "hidden1/bias: expected finite float32 numbers",
        ),
        ("hidden1/bias", np.ones(12, "i4"), "hidden1/bias: expected float32 numbers, found I32"),
    ],
)
def test_weights_that_do_not_fit_are_refused(name, array, said, first, tune, tmp_path):
    """An array, or None, in the place of a sound one."""
    file = first / "checkpoints" / "10.safetensors"
    arrays = load_file(file) | {f"params/{name}": array}
    save_file({name: array for name, array in arrays.items() if array is not None}, file)
    tune(first).assert_refused("init_from: ", "10.safetensors: ", said)
    assert not (tmp_path / "run").exists()


def test_numbers_beyond_float32_are_for_float64_alone(first, tmp_path):
    file = first / "checkpoints" / "10.safetensors"
    params = {n: x for n, x in load_file(file).items() if n.startswith("params/")}
    huge = {name: np.full(x.shape, 1e300) for name, x in params.items()}
    save_file(huge, tmp_path / "huge.safetensors")
    fresh = unflatten_dict({n.removeprefix("params/"): x for n, x in params.items()}, sep="/")
    with pytest.raises(UserError, match="expected finite float32 numbers"):
        load_weights(str(tmp_path / "huge.safetensors"), fresh)
    wide = jax.tree.map(np.float64, fresh)
    loaded = load_weights(str(tmp_path / "huge.safetensors"), wide)
    assert all((leaf == 1e300).all() for leaf in jax.tree.leaves(loaded))


def test_a_run_of_another_network_is_refused(first, tune):
    tune(first, "--model=cnn").assert_refused("the file has ", "; this network has ")
    tune(first, "--hidden=12").assert_refused("this network has no hidden2/bias")


def test_a_folder_without_a_trained_run_is_refused(first, tune, tmp_path):
    for file in (first / "checkpoints").iterdir():
        file.unlink()
    tune(first).assert_refused("init_from: expected a trained run, found no checkpoint")
    (first / "config.json").write_text(json.dumps({"model": "cnn"}))
    tune(first).assert_refused("config.json")
    tune(tmp_path / "nothing").assert_refused("init_from: expected a .safetensors file or a run")


@pytest.mark.parametrize("shape", [None, [10**9, 1, 1]])
def test_a_strangers_run_is_refused_in_one_line(shape, first, tune):
    path = first / "config.json"
    path.write_text(json.dumps(read_json(path) | {"image_shape": shape}))
    tune(first, "--epochs=1").assert_refused("config.json: damaged: expected image_shape")


def test_torchvisions_tensors_are_for_alexnets(tune, tmp_path):
    save_file({"features.0.weight": np.ones((64, 1, 11, 11), "f4")}, tmp_path / "w.safetensors")
    outcome = tune(tmp_path / "w.safetensors", *as_flags(model="cnn"))
    outcome.assert_refused("the file is not a checkpoint of a run with the same network")
