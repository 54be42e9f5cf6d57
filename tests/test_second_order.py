"""The product of Hessian and vector by hand, against jax.jvp of jax.grad and a whole Hessian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, quick_jit
from jax.flatten_util import ravel_pytree

from jaxnets.backprop import second_order
from jaxnets.backprop.second_order import hessian_vector_product

SIZES = {"one": (5, 3), "two": (4, 6, 3), "three": (6, 5, 4, 3)}


def network(sizes, biased=True, seed=0):
    """Parameters, or a direction, of a dense network."""
    draw = np.random.default_rng(seed).standard_normal
    layers = zip(sizes, sizes[1:], strict=False)
    return {
        f"layer{number}": {"kernel": draw(shape), **({"bias": draw(shape[1:])} if biased else {})}
        for number, shape in enumerate(layers)
    }


def loss_of(params, x, labels):
    """The mean cross-entropy in stock JAX."""
    *hidden, last = params.values()
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer.get("bias", 0))
    log_p = jax.nn.log_softmax(x @ last["kernel"] + last.get("bias", 0))
    y = labels if labels.ndim == 2 else jax.nn.one_hot(labels, log_p.shape[1])
    return -(y * log_p).sum(axis=1).mean()


def stock(params, x, labels, vector):
    """The gradient and its change along the vector: forward over reverse mode."""
    return jax.jvp(jax.grad(lambda params: loss_of(params, x, labels)), (params,), (vector,))


def given(sizes, batch=7, biased=True, soft=False):
    random = np.random.default_rng(5)
    labels = random.integers(0, sizes[-1], batch)
    if soft:
        labels = random.dirichlet(np.ones(sizes[-1]), batch)
    trees = network(sizes, biased), network(sizes, biased, seed=1)
    params, vector = jax.tree.map(jnp.asarray, trees)
    x = jnp.asarray(random.standard_normal((batch, sizes[0])))
    return params, x, jnp.asarray(labels), vector


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(
    "how",
    [{}, {"batch": 1}, {"biased": False}, {"soft": True}],
    ids=["classes", "one example", "no bias", "probabilities"],
)
def test_gradient_and_product_are_those_of_jax(name, how, float64):
    arguments = given(SIZES[name], **how)
    found = quick_jit(hessian_vector_product)(*arguments)
    assert_close(found, quick_jit(stock)(*arguments), 1e-12)


@pytest.mark.slow
def test_the_product_is_that_of_the_whole_symmetric_hessian(float64):
    params, x, labels, vector = given(SIZES["two"])
    flat, unflatten = ravel_pytree(params)
    hessian = jax.hessian(lambda flat: loss_of(unflatten(flat), x, labels))(flat)
    direction, _ = ravel_pytree(vector)
    _, product = hessian_vector_product(params, x, labels, vector)
    assert_close(ravel_pytree(product)[0], hessian @ direction, 1e-12)
    assert_close(hessian, hessian.T, 1e-12)


def without(term):
    """dense_backward_along with one of its five terms missing."""

    def wrong(cache, dz, v, rx, rdz):
        (x, params), zero = cache, jnp.zeros_like
        terms = {
            "Rx dz": rx.T @ dz,
            "x Rdz": x.T @ rdz,
            "bias": rdz.sum(axis=0),
            "Rdz W": rdz @ params["kernel"].T,
            "dz V": dz @ v["kernel"].T,
        }
        terms[term] = zero(terms[term])
        product = {"kernel": terms["Rx dz"] + terms["x Rdz"], "bias": terms["bias"]}
        return product, terms["Rdz W"] + terms["dz V"]

    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("term", ["Rx dz", "x Rdz", "bias", "Rdz W", "dz V"])
def test_each_term_is_needed(term, float64, monkeypatch):
    arguments = given(SIZES["three"])
    monkeypatch.setattr(second_order, "dense_backward_along", without(term))
    _, found = hessian_vector_product(*arguments)
    with pytest.raises(AssertionError):
        assert_close(found, stock(*arguments)[1], 1e-3)
