"""The formulas of the taught pairs, shown equal to them without a tolerance."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.backprop import second_order
from jaxnets.backprop.network import with_pairs
from jaxnets.backprop.rules import RULES
from jaxnets.course.formulas.layers import LAYERS
from jaxnets.gradcheck.exact import EXACT, WRONG, Claim, Question, check_exactly
from jaxnets.models.chain import Chain

PAIRS = [name for name, layer in LAYERS.items() if layer.pair]
# Without a pair in backprop/: the gradient alone is shown, or it is compared below.
DERIVED = ["attention", "attention_scores", "batch_norm_whole", "neuron"]
COMPARED = {"dense_hessian", "softmax_cross_entropy_hessian", "softmax_jacobian"}
# What backprop/ has that no formula says; max_pool's has no ties, and dropout's mask is given.
UNSAID = {"enlarge", "normalize"}


@pytest.fixture(autouse=True)
def in_float64(float64):
    """The exact check traces in float64."""


def placed(path, array):
    """A tree with one array, at a path such as chain.dense1.kernel."""
    for name in reversed(path.split(".")):
        array = {name: array}
    return array


def merged(trees):
    found = {}
    for tree in trees:
        for name, part in tree.items():
            both = isinstance(part, dict) and name in found
            found[name] = merged([found[name], part]) if both else part
    return found


def of_pair(layer, arrays, d_out):
    """The output and the gradients of the pair, by the names of the formulas' arrays."""
    rule, x = RULES[layer.pair], arrays[layer.x]
    static = dict(layer.static)
    if "padding" in static and isinstance(static["padding"], list):
        static["padding"] = tuple(map(tuple, static["padding"]))
    if layer.pair == "batch_norm":
        static["axis_name"] = None
    if layer.pair == "residual":
        width = arrays["W"].shape[1]
        static["chain"] = Chain([nn.Dense(width, name="dense1")])
    if layer.pair == "dropout":  # The pair draws the mask itself.
        kept = arrays[layer.mask] > 0
        out = jnp.where(kept, x / (1 - layer.static["rate"]), 0)
        return out, {layer.x: rule.backward(kept, d_out, **static)}
    params = merged(placed(path, arrays[name]) for path, name in layer.params.items())
    if layer.pair == "batch_norm":
        params |= {name: jnp.zeros(x.shape[-1]) for name in ("mean", "var")}
    given = {"params": params, "x": x, "keys": {}, "mask": None}
    given |= {name: arrays[at] for name, at in [("labels", layer.labels)] if at}
    given |= {name: arrays[at] for name, at in [("mask", layer.mask)] if at}
    static = with_pairs(static)
    out, cache = rule.forward(*(given[name] for name in rule.inputs), **static)
    found = rule.backward(cache, d_out, **static)
    if "params" not in rule.inputs:
        return out, {layer.x: found}
    d_params, dx = found
    gradients = {layer.x: dx}
    for path, name in layer.params.items():
        part = d_params
        for key in path.split("."):
            part = part[key]
        gradients[name] = part
    return out, gradients


def verdict_on(layer):
    """The exact check of a layer's formulas, and of its pair if it has one."""
    drawn = layer.whole(layer.sizes, seed=1).arrays
    inputs = {name: drawn[name] for name in layer.drawn if f"d{name}" in layer.gradients}
    above = f"d{layer.out}"

    def constants(draw):
        found = {}
        for name in layer.drawn:
            if name in inputs:
                continue
            kind = layer.kinds.get(name)
            numbers = {"shares": draw.shares, "mask": lambda x: x}.get(kind, draw.numbers)
            found[name] = numbers(drawn[name])
        return found

    def claim(inputs, constants):
        values = layer.values({**inputs, **constants}, layer.sizes, jnp)
        formulas = [*layer.steps, *layer.gradients.values()]
        arrays = layer.computed(values, formulas).arrays
        gradient = {name: arrays[f"d{name}"] for name in inputs}
        out = arrays[layer.out]
        same = ((), ())
        if layer.pair:
            theirs = of_pair(layer, {**inputs, **constants}, constants[above])
            same = {"output": out, **gradient}, {"output": theirs[0], **theirs[1]}
        return Claim((out * constants[above]).sum(), gradient, same)

    return check_exactly(Question(claim, constants), inputs)


@pytest.mark.parametrize("name", [*PAIRS, *DERIVED])
def test_formulas_are_the_pair_and_its_gradient_exactly(name):
    assert verdict_on(LAYERS[name]).kind == EXACT


def test_all_axes_differ_and_every_pair_has_formulas():
    for name, layer in LAYERS.items():
        assert len(set(layer.sizes.values())) == len(layer.sizes), name
    assert {layer.pair for layer in LAYERS.values()} - {""} == set(RULES) - UNSAID
    assert set(LAYERS) == {*PAIRS, *DERIVED, *COMPARED}


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("dense", "Σ_b X_bd dZ_bk", "1.000000000001 Σ_b X_bd dZ_bk"),
        ("softmax", "(dp_bk - Σ_j dp_bj p_bj)", "(dp_bk + Σ_j dp_bj p_bj)"),
        ("conv_strided", "[v = j + q]", "[v = j + q - 1]"),
        ("batch_norm", "- w_i (dβ_c", "- (dβ_c"),
        ("attention", "Σ_j dS_ij K_jc", "Σ_j dS_ji K_jc"),
    ],
)
def test_a_formula_that_is_broken_once_is_found(name, right, wrong):
    layer = LAYERS[name]
    backward = [text.replace(right, wrong) for text in layer.backward]
    assert backward != list(layer.backward)
    assert verdict_on(dataclasses.replace(layer, backward=backward)).kind == WRONG


def claim_of_equals(name, theirs):
    """The exact check of a layer's last formulas against other functions of its arrays."""
    layer = LAYERS[name]
    drawn = layer.whole(layer.sizes, seed=1).arrays
    inputs = {name: drawn[name] for name in layer.drawn}

    def claim(inputs, _constants):
        values = layer.values(inputs, layer.sizes, jnp)
        arrays = layer.computed(values, [*layer.steps, *layer.gradients.values()]).arrays
        wanted = theirs(arrays)
        return Claim(same=({name: arrays[name] for name in wanted}, wanted))

    return check_exactly(Question(claim, lambda draw: ()), inputs).kind


def test_the_hessian_s_formulas_are_those_of_second_order():
    def dense(a):
        cache = a["X"], {"kernel": a["W"], "bias": a["W"][0]}
        v = {"kernel": a["V"], "bias": a["v"]}
        rz = second_order.dense_forward_along(cache, v, a["RX"])
        params, rdx = second_order.dense_backward_along(cache, a["dZ"], v, a["RX"], a["RdZ"])
        return {"RZ": rz, "RdW": params["kernel"], "Rdb": params["bias"], "RdX": rdx}

    def loss(a):
        along = second_order.softmax_cross_entropy_along((a["p"], a["p"]), a["dL"], a["Rz"])
        return {"Rdz": along}

    assert claim_of_equals("dense_hessian", dense) == EXACT
    assert claim_of_equals("softmax_cross_entropy_hessian", loss) == EXACT


def test_the_jacobian_of_softmax_times_a_gradient_is_its_backward_pass():
    arrays = LAYERS["softmax_jacobian"].whole({"K": 5}, seed=1).arrays
    dp = np.arange(5.0)
    found = RULES["softmax"].backward(jnp.asarray(arrays["p"]), jnp.asarray(dp))
    np.testing.assert_allclose(dp @ arrays["J"], found, rtol=1e-12)
