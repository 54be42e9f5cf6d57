"""The formulas' parser, judge and NumPy lines in the page's JavaScript, by Python's own cases."""

import json
import re
import tomllib

import derive
import numpy as np
import pytest
from conftest import ROOT
from pages import printed_in_node

from jaxnets.course.formulas.judge import line_of
from jaxnets.course.formulas.layers import LAYERS
from jaxnets.course.formulas.numpy_code import python_name

CASES = tomllib.loads((ROOT / "tests/formula_cases.toml").read_text("utf-8"))
LINES = [(one["layer"], one["name"], one["text"]) for one in CASES["judged"] if not one["says"]]
LINES += [
    (name, one.name, one.text) for name, layer in LAYERS.items() for one in layer.gradients.values()
]
PROGRAM = """
const layers = Object.fromEntries(Object.entries(LAYERS).map(([name, one]) => [name, new Layer(one)]));
const { ranks, scalars, sizes } = DATA.names, names = { ranks, scalars: new Set(Object.keys(scalars)) };
const arrays = Object.fromEntries(Object.entries(DATA.names.arrays).map(([name, rows]) =>
  [name, { shape: rows[0].length ? [rows.length, rows[0].length] : [rows.length], data: Float64Array.from(rows.flat()) }]));
const message = (text) => {
  try {
    return parse(text, names).text;
  } catch (error) {
    if (!(error instanceof FormulaError)) throw error;
    return error.message;
  }
};
console.log(JSON.stringify({
  reads: DATA.reads.map(({ text }) => [...valueOf(parse(text, names), { arrays, scalars, sizes }).data]),
  fails: DATA.fails.map(({ text, again = "", times = 0 }) => message(text + again.repeat(times))),
  judged: DATA.judged.map(({ layer, name, text }) => firstWrong(layers[layer], name, text)),
  right: Object.values(layers).flatMap((one) => Object.values(one.gradients).map(({ name, text }) => firstWrong(one, name, text))),
  lines: DATA.lines.map(([layer, name, text]) => {
    const one = layers[layer], formula = parse(text, one.namesBefore(name)), sizes = sizesOf(one, formula);
    return [numpyLine(formula, sizes, one), numpyLine(formula, sizes, one, true)];
  }),
}));
"""  # noqa: E501


@pytest.fixture(scope="module")
def found():
    scripts = [(derive.SCRIPTS / name).read_text("utf-8") for name in (*derive.JUDGE, "numpy.js")]
    given = {"LAYERS": derive.formulas(), "DATA": CASES | {"lines": LINES}}
    tables = [f"const {name} = {json.dumps(table)};" for name, table in given.items()]
    text = "\n".join([*tables, *scripts, PROGRAM])
    return printed_in_node(text)


def test_a_formula_has_the_value_that_numpy_computes(found):
    for case, numbers in zip(CASES["reads"], found["reads"], strict=True):
        total = np.dot(numbers, np.arange(1, len(numbers) + 1))
        assert total == pytest.approx(case["number"], rel=1e-12), case["text"]


def test_what_cannot_be_read_gets_the_same_line(found):
    assert found["fails"] == [case["says"] for case in CASES["fails"]]


def undrawn(says):
    """A sentence without what depends on the random numbers, which differ in JavaScript."""
    return re.sub(r"\d+ of (\d+ entries are wrong), .*", r"\1", says)


def test_the_judge_says_the_same_sentences(found):
    for case, says in zip(CASES["judged"], found["judged"], strict=True):
        assert undrawn(says) == undrawn(case["says"]), case["text"]
    assert set(found["right"]) == {""}


def test_a_line_of_numpy_is_that_of_python_and_its_einsum_computes_the_same(found):
    for (layer, name, text), (line, einsum) in zip(LINES, found["lines"], strict=True):
        assert line == line_of(LAYERS[layer], name, text)
        if einsum != line:
            whole = LAYERS[layer].whole(LAYERS[layer].sizes, seed=1)
            given = {**whole.arrays, **whole.scalars}
            names = {python_name(one): value for one, value in given.items()}
            code = einsum.partition(" = ")[2]
            np.testing.assert_allclose(eval(code, {"np": np}, names), names[python_name(name)])
