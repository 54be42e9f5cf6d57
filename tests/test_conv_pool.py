"""The joined convolution and pool: which layers are joined, ties, and wrong backward passes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import quick_jit, random_images, random_params

from jaxnets import oracle
from jaxnets.backprop import network
from jaxnets.backprop.check import relative_error
from jaxnets.backprop.conv_pool import CONV_POOL, ConvPool, conv_pool_backward, join_pools
from jaxnets.backprop.network import manual_loss_and_grad
from jaxnets.experiment import Experiment
from jaxnets.gradcheck.compare import compiled, judge
from jaxnets.gradcheck.layers import TOLERANCES, problem_of, with_backward
from jaxnets.models.chain import Chain, with_precision
from jaxnets.models.cnn import cnn
from jaxnets.models.layers import MaxPool, flatten


def kinds(chain):
    return [type(layer) for layer in chain.layers]


def test_the_cnns_pools_are_joined_and_every_layer_keeps_its_place_and_its_parameters():
    plain = cnn()
    joined = join_pools(plain)
    assert [i for i, kind in enumerate(kinds(joined)) if kind is ConvPool] == [0, 3]
    assert joined.layers[6:] == plain.layers[6:]
    shapes = [
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        for model in (plain, joined)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda: with_precision(cnn(), "mixed"),
        lambda: cnn(activation="sigmoid"),
        lambda: Chain([nn.Conv(4, (3, 3)), nn.relu, MaxPool(3, 2)]),
        lambda: Chain([nn.Conv(4, (5, 5)), nn.relu, MaxPool(2, 2)]),
        lambda: Chain([nn.Conv(4, (3, 3), strides=2), nn.relu, MaxPool(2, 2)]),
        lambda: Chain([nn.Conv(4, (3, 3), kernel_dilation=2), nn.relu, MaxPool(2, 2)]),
        lambda: Chain([nn.Conv(4, (3, 3), padding="CIRCULAR"), nn.relu, MaxPool(2, 2)]),
    ],
)
def test_others_are_not_joined(change):
    chain = change()
    assert kinds(join_pools(chain)) == kinds(chain)


def test_on_an_accelerator_nothing_is_joined(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert ConvPool not in kinds(join_pools(cnn()))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "joined"), [("jit", False), ("pmap", True)])
def test_both_compares_the_pass_that_trains(tiny, tiny_preset, monkeypatch, kind, joined):
    """On two devices: jit splits the batch itself."""
    seen = []

    def recorded(model, *others):
        seen.append(ConvPool in kinds(model))
        return manual_loss_and_grad(model, *others)

    for module in (network, oracle):
        monkeypatch.setattr(module, "manual_loss_and_grad", recorded)
    config = tiny_preset("cnn", hidden=(8,), gradients="both", devices=2, parallel=kind, epochs=1)
    Experiment.create(config, tiny).train()
    assert len(seen) >= 2 and set(seen) == {joined}


def test_ties_of_plain_areas_and_edges_go_to_the_first_as_in_xla():
    """Pictures have many: their background."""
    layers = [
        nn.Conv(6, (3, 3), padding="VALID", name="conv"), nn.relu, MaxPool(2, 2),
        flatten, nn.Dense(2, name="logits"),
    ]  # fmt: skip
    plain = Chain(layers)
    images = np.array(random_images(5, 9, 10, 4))
    images[0] = 0.75
    images[1] = images[1, :1]  # equal rows
    images[2] = images[2, :, :1]  # equal columns
    images[3, :6] = images[3, 0, 0]
    params = random_params(plain, images.shape[1:])

    def loss(model):
        return quick_jit(
            jax.grad(
                lambda params, x: (model.apply({"params": params}, x) ** 2).sum(), argnums=(0, 1)
            )
        )(params, images)

    assert relative_error(loss(join_pools(plain)), loss(plain))[0] < 1e-5


def without_overlaps(cache, d_out, **static):
    """Takes each window's tile for the window's own."""
    d_params, _ = conv_pool_backward(cache, d_out, **static)
    even, odd = (d_out.at[:, start::2].set(0) for start in (1, 0))
    images = [conv_pool_backward(cache, d, **static)[1] for d in (even, odd)]
    return d_params, jnp.where(images[1] != 0, *reversed(images))  # pyright: ignore


def bias_at_four_places(cache, d_out, **static):
    """Gives the bias the gradient of all four outputs."""
    d_params, dx = conv_pool_backward(cache, d_out, **static)
    return {**d_params, "bias": 4 * d_params["bias"]}, dx


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [without_overlaps, bias_at_four_places])
def test_a_wrong_backward_pass_is_found_by_both_oracles(wrong):
    rule = with_backward(CONV_POOL, wrong)
    (program,) = compiled([(problem_of(rule, rule.settings[0]), "float64")])
    error, differences = judge(program)
    assert error.value > TOLERANCES["float64"]
    assert differences.error.value > TOLERANCES["differences"]
