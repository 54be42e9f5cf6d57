"""How many passes that are wrong for few shapes and arguments gradcheck finds by its draws."""

import contextlib
import functools

import flax.linen as nn
import jax.numpy as jnp
import pytest
from conftest import quick_jit, slow, stress
from rarely_wrong import WRONG, to_last

from jaxnets.backprop.rules import RULES
from jaxnets.gradcheck import networks
from jaxnets.gradcheck.compare import TOLERANCES, compiled, disagreement, errors_of
from jaxnets.gradcheck.forms import (
    REPLACED,
    check_hessian_vector_product,
    check_replaced_layers,
)
from jaxnets.gradcheck.layer_check import drawn_settings, problem_of
from jaxnets.gradcheck.quick import precision
from jaxnets.kernels import KERNELS, conv_pool, elementwise, winograd
from jaxnets.kernels.by_rule import paired
from jaxnets.models.alexnet_layers import LocalResponseNorm
from jaxnets.models.batch_norm import BatchNorm
from jaxnets.models.chain import kind_of
from jaxnets.models.layers import AveragePool, LeakyReLU, MaxPool
from jaxnets.models.mlp import DenseWithOnes
from jaxnets.models.residual import Residual

LAYERS = RULES | {kernel.name: kernel.checked_rule for kernel in KERNELS}
FORMS = {
    "replaced layers": check_replaced_layers,
    "hessian_vector_product": check_hessian_vector_product,
}
# No check asks a kernel which layers it replaces; `test_kernels.py` has lists of those. No draw is
# large enough for Winograd's largest tiles; `test_winograd.py` has them.
OUT_OF_REACH = {name for name, wrong in WRONG.items() if wrong.attribute == "replace"}
OUT_OF_REACH |= {"fast_conv: winograd's largest tiles"}
# By --draws; by default the others are found. These take values that are rare together.
DRAWS = {
    "max_pool: even window at the border": 48,
    "conv: batch of one with a square kernel": 100,
    "fast_conv: small window with strides that differ": 100,
}
# The first of the replaced layers stands for the others; each compiles a network of all kinds.
REPEATED = {name for name in WRONG if name.startswith("replaced layers: ")}
REPEATED -= {"replaced layers: batch norm's epsilon"}
QUICK = ("dense: square", "dense: as the first layer", "sigmoid: more than five numbers")


@functools.cache
def settings_of(layer, draws, seed):
    """Those that gradcheck tries, the drawn ones first: a corner is in one of them."""
    rule = LAYERS[layer]
    return [*drawn_settings(rule, draws, seed), *rule.settings]


@functools.cache
def autodiff_of(layer, index, draws, seed):
    rule, setting = LAYERS[layer], settings_of(layer, draws, seed)[index]
    passes = problem_of(rule, setting).at("float64")
    return quick_jit(passes.automatic)(passes.inputs, passes.constants)


def is_found(name, draws=None, seed=0):
    """Whether a row finds an error; that of a layer in float64."""
    layer, where, attribute, function = WRONG[name]
    if layer in FORMS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(where, attribute, functools.partial(function, getattr(where, attribute)))
            return not FORMS[layer]().ok
    rule = LAYERS[layer]
    with contextlib.ExitStack() as stack, precision("float64"):
        if isinstance(where, str):
            wrong = functools.partial(function, getattr(rule, where))
            rule = rule._replace(**{where: wrong})
        elif attribute != "replace":
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            wrong = functools.partial(function, getattr(where, attribute))
            patch.setattr(where, attribute, wrong)
        for index, setting in enumerate(settings_of(layer, draws, seed)):
            passes = problem_of(rule, setting).at("float64")
            ours = quick_jit(passes.manual)(passes.inputs, passes.constants)
            expected = autodiff_of(layer, index, draws, seed)
            if not disagreement(ours, expected).value <= TOLERANCES["float64"]:
                return True
    return False


@pytest.mark.parametrize(
    "name",
    [
        n if n in QUICK else stress(n) if n in REPEATED else slow(n)
        for n in WRONG
        if n not in OUT_OF_REACH
    ],
)
def test_an_error_in_a_corner_is_found(name):
    assert is_found(name, DRAWS.get(name))


def test_each_kind_that_jax_grad_gets_in_another_form_is_checked():
    """A layer of every kind that a rule names, if `paired` or a kernel has another form of it."""
    layers = [nn.Conv(2, (1, 1)), nn.Dense(2), DenseWithOnes(2), BatchNorm(), nn.LayerNorm()]
    layers += [MaxPool(), AveragePool(), LeakyReLU(), nn.Dropout(0.5), Residual([nn.relu])]
    layers += [LocalResponseNorm()]
    layers += [
        kind for rule in RULES.values() for kind in rule.layers if not isinstance(kind, type)
    ]
    alone = [kernel for kernel in KERNELS if kernel.run == 1]
    in_another_form = {
        kind_of(layer)
        for layer in layers
        if paired(layer) is not layer or any(kernel.replace(layer) for kernel in alone)
    }
    assert in_another_form <= {kind_of(layer) for layer in REPLACED.layers}


# Without bfloat16's rounding, and in networks


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_tie_to_the_last_is_found_without_bfloat16s_rounding(dtype, monkeypatch):
    monkeypatch.setattr(conv_pool, "_largest", functools.partial(to_last, None))
    rule, errors = LAYERS["conv_pool"], []
    ties = [setting for setting in rule.settings if setting.numbers != "normal"]
    # One by sums, one in tiles; the third, the convolution and its pool, has another function.
    ties = [ties[0], ties[2]]
    for program in compiled([(problem_of(rule, setting), dtype) for setting in ties]):
        with precision(dtype):
            passes = program.problem.at(dtype)
            errors.append(disagreement(*program.both(passes.inputs, passes.constants)).value)
    assert min(errors) > 0.1


NETWORKS = networks.networks()


def error_of_network(name):
    """The error in float64 that the check of a network finds."""
    problem = networks.network_problem(NETWORKS[name], kernels=True)
    (program,) = compiled([(problem, "float64")])
    return errors_of(program)[0].value


@pytest.mark.slow
def test_a_transposed_winograd_gradient_is_found_in_alexnet_small(monkeypatch):
    right = winograd.kernel_gradient

    def wrong(x, dz, *sizes):  # Two of its convolutions have as many filters as channels.
        kernel = right(x, dz, *sizes)
        return kernel.swapaxes(2, 3) if x.shape[-1] == dz.shape[-1] else kernel

    monkeypatch.setattr(winograd, "kernel_gradient", wrong)
    assert error_of_network("alexnet_small") > 0.1


@pytest.mark.slow
def test_a_wrong_relu_of_a_training_network_is_found(break_rule):
    break_rule(elementwise.fast_relu, backward=lambda x, dy: jnp.where(x > -0.1, dy, 0))
    assert error_of_network("cnn_tiny") > 1e-3
