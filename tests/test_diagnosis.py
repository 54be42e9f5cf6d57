"""A run that goes bad: which step and layer is named, and what is kept."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import saved_params, slow

from jaxnets import experiment, parts
from jaxnets.models.chain import Chain, Layer
from jaxnets.models.layers import flatten
from jaxnets.models.mlp import mlp
from jaxnets.runs import diagnosis


@pytest.fixture
def poison(monkeypatch):
    """Makes the gradient of a layer NaN in one step, which the key of the step tells."""
    honest = parts.make_loss_and_grad

    def with_poison(step: int, layer: str) -> None:
        def make_loss_and_grad(config, *others):
            way = honest(config, *others)
            bad = jax.random.key_data(jax.random.fold_in(jax.random.key(config.seed), step))

            def poisoned(params, batch, key):
                metrics, gradients = way(params, batch, key)
                now = jnp.all(jax.random.key_data(key) == bad)
                here = jax.tree.map(lambda g: jnp.where(now, jnp.nan, g), gradients[layer])
                return metrics, {**gradients, layer: here}

            return poisoned

        monkeypatch.setattr(parts, "make_loss_and_grad", make_loss_and_grad)

    return with_poison


def test_the_first_layer_whose_output_overflows_is_named():
    model = mlp(3, hidden=(5, 4))
    images = np.random.default_rng(0).random((6, 2, 2, 1), np.float32) + 0.5
    params: Any = model.init(jax.random.key(0), images)["params"]
    assert diagnosis.first_bad_output(model, params, images, jax.random.key(1)) is None
    for bad in ("hidden1", "hidden2", "logits"):
        # All later layers overflow with it, or make NaN of it.
        kernel = jnp.full_like(params[bad]["kernel"], 3e38)
        broken = {**params, bad: {"kernel": kernel, "bias": params[bad]["bias"] + 3e38}}
        named = diagnosis.first_bad_output(model, broken, images, jax.random.key(1))
        assert str(named) == f"the output of {bad}"


def test_a_nameless_layer_is_named_by_the_one_before():
    def square(x):
        return x * x

    layers: list[Layer] = [flatten, *mlp(3, hidden=()).layers[1:], square]
    images, key = np.ones((1, 2, 2, 1), np.float32), jax.random.key(0)
    params = Chain(layers).init(key, images)["params"]
    params = {"logits": {**params["logits"], "bias": jnp.full(3, 1e30)}}
    named = diagnosis.first_bad_output(Chain(layers), params, images, key)
    assert str(named) == "the output of square after logits"


# The step after 7 shows in its loss, with or without validation images; after 9 the run ends.
# A convolution's is below.
@pytest.mark.slow
@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize(
    ("use_scan", "step", "validation"),
    [
        (False, 7, 40),
        # Each with each of the others once.
        *(slow(*where) for where in [(False, 9, 0), (True, 7, 0), (True, 9, 40)]),
    ],
)
def test_step_and_layer_are_named_the_good_checkpoint_kept(
    train_tiny, tmp_path, poison, monkeypatch, use_scan, step, validation
):
    monkeypatch.setattr(experiment, "prefers_scan", lambda model, parallel: use_scan)
    flags = ["mlp_sequential", "--schedule=constant", "--checkpoint_every=1epoch", "--keep=1"]
    flags += ["--hidden=16,8"]
    flags += [f"--validation_size={validation}", f"--batch_size={32 if validation else 40}"]
    assert train_tiny(*flags, "--epochs=1").status == 0
    good = saved_params(tmp_path / "run")
    assert good[0] == 5
    poison(step, "hidden2")
    outcome = train_tiny(*flags, "--overwrite")
    assert outcome.status == 1 and outcome.err.count("\n") == 1
    assert outcome.err.startswith(
        f"error: step {step + 1} is the first that is not finite, beginning with the gradient of "
        f"hidden2; the checkpoint of step 5 is kept; try a --learning_rate below "
    )
    jax.tree.map(np.testing.assert_array_equal, saved_params(tmp_path / "run"), good)
    assert not (tmp_path / "run" / "result.json").exists()
    again = train_tiny(*flags, "--resume")
    assert (again.status, again.err) == (1, outcome.err)


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.slow
def test_an_interrupt_after_a_bad_step_saves_nothing_of_it(
    train_tiny, tmp_path, poison, interrupt_after
):
    poison(7, "conv1")
    interrupt_after(8)
    outcome = train_tiny("cnn", "--checkpoint_every=1epoch")
    assert outcome.status == 1 and "step 8 is the first" in outcome.err
    assert "the gradient of conv1; the checkpoint of step 5 is kept" in outcome.err
    assert saved_params(tmp_path / "run")[0] == 5
