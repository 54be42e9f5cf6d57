"""Autodiff finds every wrong backward pass. That the exact check does stands in test_exact.py."""

import inspect
import math

import pytest
from conftest import slow

from jaxnets.course.exercises.derived import DERIVED
from jaxnets.course.exercises.judge import mutants
from jaxnets.gradcheck.compare import TOLERANCES, compiled, errors_of
from jaxnets.gradcheck.layer_check import drawn_settings, problem_of

MUTANTS = mutants()


def layer_of(rule):
    """The name of the layer that a rule is right or wrong about."""
    return next(name for name, layer in DERIVED.items() if layer.plain is rule.plain)


def test_there_are_mutants_of_most_layers():
    unbroken = set(DERIVED) - {layer_of(mutant) for mutant in MUTANTS.values()}
    others = {"adaptive_average_pool", "softmax_then_cross_entropy", "mse", "half_mse"}
    others |= {"residual"}  # residual_dense is one; rarely_wrong.py breaks the others.
    assert unbroken == others


LONG = "conv_ignores_stride", "max_pool_tie_to_last"


@pytest.mark.parametrize(
    "name",
    [slow(name) if number % 4 or name in LONG else name for number, name in enumerate(MUTANTS)],
)
def test_a_mutant_is_killed(name):
    """In float64, in as few of its settings as it takes: large windows compile in 14 GB."""
    rule = MUTANTS[name]
    settings = [*rule.settings, *drawn_settings(rule)]
    for setting in sorted(settings, key=lambda one: math.prod(one.static.get("window", ()))):
        (program,) = compiled([(problem_of(rule, setting)._replace(brief=True), "float64")])
        if errors_of(program)[0].value > TOLERANCES["float64"]:
            return
    raise AssertionError("not found")


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_has_the_signature_of_what_it_replaces(name):
    backward = MUTANTS[name].backward
    ours, theirs = (
        inspect.getfullargspec(inspect.unwrap(function))
        for function in (backward, DERIVED[layer_of(MUTANTS[name])].backward)
    )
    assert ours.args == theirs.args
    wanted = [argument for argument in theirs.kwonlyargs if argument != "input_gradient"]
    assert ours.varkw or ours.kwonlyargs == wanted
    assert str(backward.__doc__).count("\n") == 0
