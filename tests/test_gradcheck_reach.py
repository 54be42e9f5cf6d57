"""How many mistakes that are wrong for few shapes and arguments alone gradcheck finds."""

import contextlib
import functools

import pytest
from conftest import quick_jit
from rarely_wrong import WRONG

from jaxnets.backprop.rules import RULES
from jaxnets.gradcheck.compare import TOLERANCES, disagreement, precision
from jaxnets.gradcheck.layer_check import problem_of
from jaxnets.kernels import KERNELS

LAYERS = RULES | {kernel.name: kernel.rule for kernel in KERNELS}


@functools.cache
def autodiff_of(layer, index):
    passes = problem_of(LAYERS[layer], LAYERS[layer].settings[index]).at("float64")
    return quick_jit(passes.automatic)(passes.inputs, passes.constants)


def is_found(name):
    """Whether a layer's check finds a mistake in float64."""
    layer, where, attribute, function = WRONG[name]
    rule = LAYERS[layer]
    with contextlib.ExitStack() as stack, precision("float64"):
        right = [autodiff_of(layer, index) for index in range(len(rule.settings))]
        if isinstance(where, str):
            wrong = functools.partial(function, getattr(rule, where))
            rule = rule._replace(**{where: wrong})
        elif attribute != "replace":  # No check asks a kernel which layers it replaces.
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            wrong = functools.partial(function, getattr(where, attribute))
            patch.setattr(where, attribute, wrong)
        for setting, expected in zip(rule.settings, right, strict=True):
            passes = problem_of(rule, setting).at("float64")
            ours = quick_jit(passes.manual)(passes.inputs, passes.constants)
            if not disagreement(ours, expected).value <= TOLERANCES["float64"]:
                return True
    return False


FOUND = {"relu: beyond 6", "max_pool: windows of two at a stride of one"}


@pytest.mark.slow
def test_gradcheck_finds_few_of_them():
    assert len(WRONG) == 68
    assert {name for name in WRONG if is_found(name)} == FOUND
