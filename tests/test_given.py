"""What is cut out of the package for a submission works alone, and holds no answer."""

import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.course.exercises.apart import RUNNER
from jaxnets.course.exercises.catalogue import BLANKS, BY_FUNCTION, TASKS, imports_of
from jaxnets.course.exercises.given import sources_of

IMPORTED = sorted(set().union(*map(imports_of, BY_FUNCTION.values())))


@pytest.fixture
def alone(monkeypatch):
    """Runs sources as `sandbox.BEGIN` does, where nothing else of jaxnets can be imported."""

    def run(name):
        for module in [one for one in sys.modules if one.split(".")[0] == "jaxnets"]:
            monkeypatch.delitem(sys.modules, module)
        for module, source in sources_of(frozenset({name})).items():
            parts = module.split(".")
            for count in range(1, len(parts) + 1):
                part = types.ModuleType(".".join(parts[:count]))
                part.__path__ = []
                monkeypatch.setitem(
                    sys.modules, part.__name__, sys.modules.get(part.__name__, part)
                )
            exec(source, vars(sys.modules[module]))
        module, _, last = name.rpartition(".")
        return getattr(sys.modules[module], last)

    return run


@pytest.mark.parametrize("name", IMPORTED)
def test_what_an_exercise_imports_runs_without_the_package(name, alone):
    alone(name)


def test_what_is_cut_out_computes_what_the_package_computes(alone):
    from jaxnets.backprop.convolution import conv_backward

    rng = np.random.default_rng(0)
    x, kernel, dz = (
        jnp.asarray(rng.normal(size=size)) for size in ((2, 5, 6, 4), (2, 3, 2, 4), (2, 3, 3, 4))
    )
    given = (x, {"kernel": kernel, "bias": jnp.ones(4)}), dz
    static = {"strides": (2, 2), "padding": "SAME", "groups": 2}
    right, dx = conv_backward(*given, **static)
    found, dx_found = alone("jaxnets.backprop.convolution.conv_backward")(*given, **static)
    for name in right:
        np.testing.assert_array_equal(found[name], right[name])
    np.testing.assert_array_equal(dx_found, dx)


def test_the_program_that_runs_a_submission_holds_no_answer():
    text = "\n".join(sources_of(frozenset({RUNNER})).values())
    assert not [name for name in BLANKS if f"{name}_backward" in text]
    assert not [task for task in TASKS.values() if task.solution.strip() in text]
    assert "backprop" not in text and "catalogue" not in text and "Case" not in text


def test_an_exercise_is_given_the_pass_of_another_layer_only_where_its_file_imports_it():
    for one in BY_FUNCTION.values():
        text = "\n".join(sources_of(imports_of(one)).values())
        own = f"def {one.function}("
        assert own not in text
