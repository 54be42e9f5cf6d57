"""The line of NumPy that a right formula is: run, it gives the formula's numbers."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from jaxnets.course.formulas.judge import line_of
from jaxnets.course.formulas.layers import LAYERS
from jaxnets.course.formulas.numpy_code import python_name

with (Path(__file__).parent / "formula_cases.toml").open("rb") as file:
    RIGHT = [case for case in tomllib.load(file)["judged"] if not case["says"]]
OWN = [
    {"layer": layer, "name": formula.name, "text": formula.text}
    for layer, facts in LAYERS.items()
    for formula in facts.gradients.values()
]
# Shifted indices that are no window's need more than a line.
SHIFTED = {"conv_strided", "flatten"}


@pytest.mark.parametrize("case", [*RIGHT, *OWN])
def test_a_line_of_numpy_gives_the_formula_s_numbers(case):
    layer = LAYERS[case["layer"]]
    line = line_of(layer, case["name"], case["text"])
    whole = layer.whole(layer.sizes, seed=3)
    if not line:
        backwards = case["layer"] == "conv" and ("u-p" in case["text"] or "u-i" in case["text"])
        assert backwards or case["layer"] in SHIFTED or "gelu" in case["layer"]
        return
    names = {
        python_name(name): value for name, value in [*whole.arrays.items(), *whole.scalars.items()]
    }
    own = python_name(case["name"])
    wanted = names.pop(own)
    exec(line, {"np": np}, names)
    found = np.broadcast_to(names[own], wanted.shape)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def test_a_window_s_line_names_its_axes():
    assert line_of(LAYERS["conv"], "dW", "dW_pqck = Σ_bij X_b,i+p,j+q,c dZ_bijk") == (
        'dW = np.einsum("bijcpq,bijk->pqck", '
        "np.lib.stride_tricks.sliding_window_view(X, (P, Q), (1, 2)), dZ)"
    )
