"""What the judge says of wrong passes with a hint; right ones and the page's answers pass."""

import functools
import textwrap
import tomllib
from pathlib import Path

import pytest
from answers import answer_to

from jaxnets.course.exercises import judge
from jaxnets.course.exercises.catalogue import BLANKS, BUGS, EXERCISES, TASKS
from jaxnets.course.exercises.exact_cases import ExactCase
from jaxnets.course.exercises.passes import run_source
from jaxnets.gradcheck import exact

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("judge_in_float64")]
cases_of = functools.cache(judge.cases_of)

with (Path(__file__).parent / "wrong_passes.toml").open("rb") as file:
    PASSES = tomllib.load(file)

# What a student's lines may call, besides what the exercise's file has.
ABOVE = """
import jax
import numpy as np
"""
POOLED = '''
def pooled(place):
    """The gradient of max pooling; `place` gives the row and column of a window's element."""
    images = jnp.zeros((len(d_out), top + height + bottom, left + width + right, empty.shape[-1]))
    images = images.astype(d_out.dtype)
    for n in range(window[0] * window[1]):
        a, b = place(n)
        rows = slice(a, a + strides[0] * (d_out.shape[1] - 1) + 1, strides[0])
        columns = slice(b, b + strides[1] * (d_out.shape[2] - 1) + 1, strides[1])
        part = jnp.where(winner == n, d_out, 0)
        if images[:, rows, columns].shape == part.shape:
            images = images.at[:, rows, columns].add(part)
    return images[:, top : top + height, left : left + width]
'''
AVERAGED = '''
def averaged(size):
    """The gradient of average pooling, divided by a size."""
    images = jnp.zeros((len(d_out), *cache.shape[1:])).astype(d_out.dtype)
    for a, b in np.ndindex(kh, kw):
        rows = slice(a, a + sh * (d_out.shape[1] - 1) + 1, sh)
        columns = slice(b, b + sw * (d_out.shape[2] - 1) + 1, sw)
        images = images.at[:, rows, columns].add(d_out / size)
    return images
'''
HELPERS = {"max_pool": POOLED, "average_pool": AVERAGED}


def file_of(name, lines):
    """An exercise's file with these lines in place of its blanks."""
    before, *blanks = EXERCISES[name].text().split(" = ...")
    before = before[: before.rindex("\n")]
    after = blanks[-1].partition("\n")[2]
    body = textwrap.indent(f"{HELPERS.get(name, '')}\n{lines}", "    ")
    return f"{ABOVE}{before}\n{body}\n{after}"


def verdict_of(name, source, **options):
    function = EXERCISES[name].function
    cases = cases_of(function)
    answers = run_source(source, "mine.py", function, [case.call for case in cases])
    return judge.verdict(function, cases, answers, **options)


WRONG = [(name, one) for name, wrong in PASSES["wrong"].items() for one in wrong]
RIGHT = [(name, lines) for name, right in PASSES["right"].items() for lines in right]


@pytest.mark.parametrize(("name", "wrong"), WRONG)
def test_a_wrong_pass_is_told_its_cause_and_where(name, wrong):
    verdict = verdict_of(name, file_of(name, wrong["lines"]), hint=True)
    assert not verdict
    said = repr(verdict)
    assert not [part for part in wrong["says"] if part not in said], said
    kink = "a kink or a tie"
    assert kink not in said or kink in " ".join(wrong["says"])


@pytest.mark.parametrize(("name", "lines"), RIGHT)
def test_a_right_pass_in_an_odd_form_passes(name, lines):
    verdict = verdict_of(name, file_of(name, lines), hint=True)
    assert verdict and verdict.row, verdict
    needs_numbers = "np.asarray" in lines or "zip(*rows)" in lines
    assert needs_numbers or not verdict.row.verdicts, verdict


@pytest.mark.parametrize("name", BLANKS)
def test_an_answer_of_the_page_passes(name):
    assert verdict_of(name, answer_to(name)).passed


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_refused_without_a_tolerance(name):
    bug = BUGS[name]
    cases = [case for case in cases_of(bug.function) if isinstance(case, ExactCase)]
    answers = run_source(bug.code, "mine.py", bug.name, [case.call for case in cases])
    assert not isinstance(answers, str), answers
    kinds = [case.verdict_on(answer).kind for case, answer in zip(cases, answers, strict=True)]
    # One gives a gradient of the wrong shape, which any comparison sees.
    assert exact.WRONG in kinds or (name == "bug5" and exact.EXACT not in kinds)


DENSE = 'd_kernel, d_bias, dx = x.T @ dz, dz.sum(0), dz @ params["kernel"].T'


@pytest.mark.parametrize(
    ("name", "lines", "entry"),
    [
        ("dense", DENSE.replace("dz @", "(1 + 1e-12) * dz @"), "dx[0, 0]"),
        ("dense", DENSE.replace("dz.sum", "(1e-13 + dz).sum"), 'd_params["bias"][0]'),
        ("sigmoid", "dx = dy * y * (1 - y + 1e-13)", "dx[0, 0]"),
        # A constant with 14 digits.
        (
            "gelu",
            "du = 0.79788456080287 * (1 + 3 * a * x**2)\n"
            "dx = dy * ((1 + t) / 2 + x / 2 * (1 - t**2) * du)",
            "dx[0, 0]",
        ),
    ],
)
def test_what_rounding_hides_is_refused_and_its_entry_told(name, lines, entry):
    verdict = verdict_of(name, file_of(name, lines), hint=True)
    array = entry.partition("[0")[0]
    assert not verdict and verdict.wrong == (array,)
    assert verdict.row and verdict.row.within_tolerances
    assert verdict.line == (
        f"{EXERCISES[name].function}: FAILED: {array}: "
        f"right to ten digits, but not exactly: {entry} is wrong"
    )
    assert verdict.hints[0] == "a constant may be rounded, as 0.3333333333 for 1/3"


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        # What the field does not know is left to the comparison of numbers.
        ("relu", "dx = dy * (x > 0) * (jnp.sin(x) ** 2 + jnp.cos(x) ** 2)"),
        (
            "leaky_relu",
            "dx = jnp.where(x < 0, slope, 1) * dy * jnp.exp(jnp.sign(x)) / jnp.exp(jnp.sign(x))",
        ),
        ("sigmoid", "dx = dy * y * (1 - y) * jnp.log(jnp.exp(1.0))"),
        ("sigmoid", "dx = dy * y * jnp.sqrt((1 - y) ** 2)"),
    ],
)
def test_what_the_field_does_not_know_is_not_refused(name, lines):
    assert verdict_of(name, file_of(name, lines))


FUNCTIONS = [(name, one) for name, wrong in PASSES["functions"].items() for one in wrong]


@pytest.mark.parametrize(("name", "wrong"), FUNCTIONS)
def test_a_wrong_function_is_told_its_cause_at_the_right_result(name, wrong):
    source = TASKS[name].solution
    for old, new in zip(wrong["edits"][::2], wrong["edits"][1::2], strict=True):
        assert old in source, old
        source = source.replace(old, new)
    verdict = verdict_of(name, f"{ABOVE}{source}", hint=True)
    said = repr(verdict)
    assert not [part for part in wrong["says"] if part not in said], said
    first, *hints = said.splitlines()
    assert len(set(hints)) == len(hints) and not [hint for hint in hints if hint in first]
    assert "…" not in said and "..." not in said and all(len(hint) <= 400 for hint in hints)


def test_the_lists_are_long_enough():
    assert len(WRONG) + len(FUNCTIONS) >= 60 and len(RIGHT) >= 25


# The bugs that a student can make in an exercise to fill in too.
FILLED_IN = [name for name, bug in BUGS.items() if not bug.forward and bug.right.name in BLANKS]


# The test below judges each bug of FILLED_IN; what a file computed at first is asked by one line.
@pytest.mark.parametrize("name", [name for name in BUGS if name not in FILLED_IN[3:]])
def test_a_bug_that_is_handed_in_unchanged_is_called_so(name):
    verdict = verdict_of(name, EXERCISES[name].text(), hint=True)
    assert not verdict and verdict.hints[0].startswith(
        "it computes what the file computed at first"
    )


@pytest.mark.parametrize("name", FILLED_IN)
def test_a_bug_is_named_in_the_exercise_to_fill_in(name):
    bug = BUGS[name]
    cases = cases_of(bug.right.function)
    answers = run_source(bug.code, "mine.py", name, [case.call for case in cases])
    verdict = judge.verdict(bug.right.function, cases, answers, hint=True)
    assert not verdict and any(bug.says in hint for hint in verdict.hints), verdict
