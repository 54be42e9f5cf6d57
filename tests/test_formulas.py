"""Formulas in index notation: how they are read, and what they are worth."""

import math
import tomllib
from pathlib import Path

import numpy as np
import pytest

from jaxnets.course.formulas.parser import FormulaError, Names, parse
from jaxnets.course.formulas.values import MOST_NUMBERS, TooLargeError, Values, value_of

with (Path(__file__).parent / "formula_cases.toml").open("rb") as file:
    CASES = tomllib.load(file)
GIVEN = CASES["names"]
NAMES = Names(GIVEN["ranks"], frozenset(GIVEN["scalars"]))
ARRAYS = {name: np.array(rows) for name, rows in GIVEN["arrays"].items()}
VALUES = Values(ARRAYS, GIVEN["scalars"], GIVEN["sizes"])


def computed(text):
    return value_of(parse(text, NAMES), VALUES)


@pytest.mark.parametrize("case", CASES["reads"])
def test_a_formula_is_what_numpy_computes(case):
    names = {"np": np, "xhat": ARRAYS["x̂"], "FIRST": np.arange(3)[:, None]}
    wanted, found = eval(case["numpy"], ARRAYS | names), computed(case["text"])
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)
    places = np.arange(1, wanted.size + 1)
    assert math.isclose((wanted.ravel() * places).sum(), case["number"], rel_tol=1e-12)


@pytest.mark.parametrize("case", CASES["fails"])
def test_what_cannot_be_read_is_one_line_with_its_place(case):
    with pytest.raises(FormulaError) as caught:
        parse(case["text"] + case.get("again", "") * case.get("times", 0), NAMES)
    assert str(caught.value) == case["says"] and "\n" not in case["says"]


def test_a_formula_of_anyone_cannot_fill_the_memory_or_never_end():
    assert MOST_NUMBERS < 10**4 * 10**4
    values = Values({}, {}, {"b": 10**4, "d": 10**4})
    with pytest.raises(TooLargeError):
        value_of(parse("db_b = Σ_d [b = d]", NAMES), values)
    with np.errstate(over="ignore"):
        assert np.isinf(computed("db_k = 9^(9^(9^9))")).all()
