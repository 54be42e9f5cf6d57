"""Exercises: what a student's file may hold, what the judge says of it, sheets of numbers."""

import ast
import contextlib
import errno
import inspect
import json
import os
import re
import tracemalloc
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import exercises_list
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from answers import ANSWERS, filled
from conftest import DENSE_BACKWARD, HANGS, ROOT, slow
from scipy.stats import norm

import jaxnets
from jaxnets.backprop.alexnet_layers import (
    adaptive_average_pool_backward,
    local_response_norm_backward,
)
from jaxnets.backprop.batch_norm import batch_norm_backward
from jaxnets.backprop.convolution import conv_backward
from jaxnets.backprop.pooling import max_pool_backward
from jaxnets.backprop.rules import RULES
from jaxnets.base import display
from jaxnets.base.errors import UserError
from jaxnets.base.language import _, speaking
from jaxnets.course.exercises import judge
from jaxnets.course.exercises.catalogue import (
    BETS,
    BLANKS,
    BUGS,
    DERIVES,
    EXERCISES,
    SHEETS,
    TASKS,
    imports_of,
)
from jaxnets.course.exercises.compute import check_sheet
from jaxnets.course.exercises.derived import DERIVED
from jaxnets.course.exercises.error_messages import ResultError
from jaxnets.course.exercises.files import parse_exercise, suspicion, violation
from jaxnets.course.exercises.passes import Call, gradients_of, run_source
from jaxnets.course.exercises.sandbox import Limits
from jaxnets.course.exercises.small_settings import small_settings
from jaxnets.course.exercises.student import near, shown
from jaxnets.course.exercises.ticks import FILE
from jaxnets.gradcheck.compare import PRECISIONS
from jaxnets.training.step import make_train_step

pytestmark = pytest.mark.usefixtures("judge_in_float64")


@pytest.fixture
def mine(tmp_path):
    """Writes a file of the student's."""

    def write(source, name="mine.py"):
        path = tmp_path / name
        path.write_text(source)
        return str(path)

    return write


def test_every_layer_pair_is_an_exercise():
    assert set(BLANKS) == set(DERIVED) - {"residual"}  # Its passes are those of its layers.
    assert list(BUGS) == [f"bug{number}" for number in range(1, len(BUGS) + 1)]
    kinds = SHEETS, BETS, DERIVES, BLANKS, BUGS, TASKS
    assert len(EXERCISES) == sum(map(len, kinds))
    for exercise in EXERCISES.values():
        assert exercise.level in (1, 2, 3) and 5 <= exercise.minutes <= 60
    places = [(one.week, one.place) for one in EXERCISES.values()]
    assert places == sorted(set(places))


@pytest.mark.parametrize(
    "exercise", [*BLANKS.values(), *BUGS.values(), *TASKS.values()], ids=lambda one: one.name
)
def test_a_file_has_its_function_and_keeps_the_rules(exercise):
    text = exercise.text()
    tree = parse_exercise(text)
    assert isinstance(tree, ast.Module)
    last = tree.body[-1]
    assert isinstance(last, ast.FunctionDef) and last.name == exercise.function
    assert violation(tree, imports_of(exercise)) is None and suspicion(tree) == ""
    exec(text, {})  # It has all the imports that it needs.
    assert f"jaxnets exercise check my_{exercise.name}.py" in text
    assert not [bug.mutant for bug in BUGS.values() if bug.mutant in text]


def test_a_full_disk_leaves_no_new_exercise(run_command, tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    flags = "exercise", "new", "compute1", f"--output={tmp_path}/compute1.toml"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Mock(side_effect=full))
        outcome = run_command(*flags)
    assert outcome.status == 1 and "compute1.toml: No space left on device" in outcome.err
    assert not list(tmp_path.iterdir())
    assert run_command(*flags).status == 0
    lost = "exercise", "new", "compute1", f"--output={tmp_path}/no/compute1.toml"
    run_command(*lost).assert_refused("no such folder")


def relu_call():
    one = np.ones((2, 2))
    return Call("float64", one, one, {}, ())


def test_what_a_function_prints_is_not_kept():
    def relu_backward(cache, dy):
        for _time in range(50):
            print("x" * 1_000_000)
        return dy

    list(
        gradients_of(lambda cache, dy: dy, [relu_call()])
    )  # What a first call imports is no print.
    tracemalloc.start()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        (row,) = gradients_of(relu_backward, [relu_call()])
    _now, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(row["x"], np.ones((2, 2))) and most < 20_000_000


SILENT = "class E(Exception):\n    def __str__(self): raise ValueError\n"
ERRORS = {
    "escapes": ("", 'ValueError("\\x1b[2J")', r"ValueError: \x1b[2J"),
    "says nothing": (SILENT, "E", "line 6: E"),
    "no Exception": ("class E(BaseException):\n    pass\n", "E(3)", "line 6: E: 3"),
}


@pytest.mark.parametrize(("above", "error", "message"), ERRORS.values(), ids=ERRORS)
def test_any_error_of_a_function_is_one_line(above, error, message, mine, run_command):
    path = mine(f"{above}\n\ndef relu_backward(cache, dy):\n    raise {error}\n")
    outcome = run_command("exercise", "check", path)
    assert (outcome.status, outcome.err) == (1, "")
    assert message in outcome.out.splitlines()[0] and "\x1b" not in outcome.out


ENDS = {
    "exits": "__import__('os')._exit(0)",
    "leaves": "raise SystemExit(0)",
    "crashes": "__import__('ctypes').string_at(0)",
    "forks": "__import__('os').fork()",
    "loops": "while True: pass",
}


@pytest.mark.parametrize("name", ["exits", *(slow(name) for name in list(ENDS)[1:])])
def test_a_file_that_ends_or_never_ends_its_process_is_told_so(
    name, mine, run_command, monkeypatch
):
    monkeypatch.setattr(judge, "AT_HOME", Limits(seconds=3, wait=HANGS))
    path = mine(f"def relu_backward(cache, dy):\n    {ENDS[name]}\n")
    outcome = run_command("exercise", "check", path)
    assert (outcome.status, outcome.err) == (1, "")
    (line,) = outcome.out.splitlines()
    said = {
        "leaves": "line 2: SystemExit: 0",
        "forks": "its answer cannot be read",
    }
    ended = "it ended without an answer: its process ended itself, or exceeded 3 s or 2048 MiB"
    assert line == f"relu_backward: FAILED: {said.get(name, ended)}"


def test_what_a_checked_file_prints_is_shown_and_is_no_answer(mine, capfd):
    path = mine("def relu_backward(cache, dy):\n    print('[1, 2]')\n    return 2 * dy\n")
    (verdict,) = judge.judge_file(path)
    assert verdict.wrong == ("dx",)
    out, err = capfd.readouterr()
    assert out == "" and "[1, 2]\n" in err


@pytest.mark.slow
def test_a_new_exercise_is_judged_blank_wrong_and_solved(run_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = run_command("exercise", "new", "dense")
    assert outcome.status == 0
    assert outcome.out.splitlines()[1].strip() == "jaxnets exercise check my_dense.py"
    run_command("exercise", "new", "dense").assert_refused("my_dense.py already exists")
    outcome = run_command("gradcheck", "--mine=my_dense.py")
    assert outcome.status == 1
    assert outcome.out == (
        'dense_backward: FAILED: d_params["kernel"] is still ..., the blank to fill in\n'
    )
    path = tmp_path / "my_dense.py"
    wrong = (
        path.read_text()
        .replace("d_kernel = ...", "d_kernel = x.T @ dz")
        .replace("d_bias = ...", "d_bias = dz.mean(axis=0)")
        .replace("dx = ...", 'dx = dz @ params["kernel"].T')
    )
    path.write_text(wrong)
    outcome = run_command("gradcheck", "--mine=my_dense.py")
    assert outcome.status == 1
    assert outcome.out == 'dense_backward: FAILED: d_params["bias"] is wrong\n--hint says more\n'
    outcome = run_command("gradcheck", "--mine=my_dense.py", "--hint", "--json")
    (row,) = json.loads(outcome.out)
    assert outcome.status == 1 and row["wrong"] == ['d_params["bias"]']
    hints = "\n".join(row["hints"])
    assert re.search(r"wrong in \d+ of \d+ settings", hints)
    assert "it is a mean over the examples" in hints
    path.write_text(wrong.replace("mean", "sum"))
    outcome = run_command("gradcheck", "--mine=my_dense.py")
    assert (outcome.status, outcome.out) == (0, "dense_backward: passed\n")


@pytest.mark.slow
def test_a_bug_is_judged_at_ties(run_command, mine, monkeypatch):
    monkeypatch.setattr(judge, "PRECISIONS", PRECISIONS)
    text = EXERCISES["bug12"].text()
    outcome = run_command("gradcheck", f"--mine={mine(text)}", "--hint")
    assert outcome.status == 1 and "bug12: FAILED: dx is wrong" in outcome.out
    assert "only at a kink or a tie" in outcome.out and BUGS["bug12"].hint[:30] in outcome.out
    assert "float64" in outcome.out and "bfloat16" in outcome.out
    repaired = text.replace("x < 0", "x <= 0")
    assert repaired != text
    assert run_command("gradcheck", f"--mine={mine(repaired)}").out == "bug12: passed\n"


# What stands in the file from d_scale on.
BATCH_NORM = """
    axes = tuple(range(x.ndim - 1))
    d_scale, d_bias = (dy * normal).sum(axes), dy.sum(axes)
    dx = scale * r * (dy - weight * (d_bias + normal * d_scale) / count)
"""
THREE_PATHS = """
    axes = tuple(range(x.ndim - 1))
    d_scale, d_bias = jnp.einsum("...c,...c->c", dy, normal), jnp.einsum("...c->c", dy)
    d_normal = scale * dy
    d_mean = -r * d_normal.sum(axes)
    d_var = -(r**3) / 2 * (d_normal * (x - mean)).sum(axes)
    dx = r * d_normal + weight / count * d_mean + 2 * weight * (x - mean) / count * d_var
"""
BIAS, SCALE, MEAN, VAR = (f'd_params["{name}"]' for name in ("bias", "scale", "mean", "var"))


@pytest.mark.slow
def test_a_batch_norm_is_judged_by_all_its_gradients():
    text = EXERCISES["batch_norm"].text()
    head, _, end = text.partition("    d_scale = ...")
    end = end[end.index("    return") :]
    judged = {
        BATCH_NORM: (),
        THREE_PATHS: (),
        BATCH_NORM.replace("dy.sum(axes)", "dy.mean(axes)"): (BIAS, "dx"),
        BATCH_NORM + "    d_bias = dy.mean(axes)\n": (BIAS,),
        BATCH_NORM + "    d_scale = (dy * x).sum(axes)\n": (SCALE,),
        BATCH_NORM + "    d_bias, d_scale = (weight * dy).sum(axes), -d_scale\n": (SCALE, BIAS),
        BATCH_NORM + "    d_scale, d_bias = (dy * normal).sum(0), dy.sum(0)\n": (BIAS, SCALE),
        BATCH_NORM.replace("/ count", "/ len(x)"): ("dx",),
        BATCH_NORM.replace("dy - weight *", "dy -"): ("dx",),
        BATCH_NORM.replace("+ normal * d_scale", ""): ("dx",),
        BATCH_NORM + "    dx = scale * r * dy\n": ("dx",),
        BATCH_NORM + '    statistics = {"mean": 0 * mean, "var": 1 * r}\n': (MEAN, VAR),
    }
    function = "batch_norm_backward"
    every = judge.cases_of(function)
    in_float64 = [case for case in every if getattr(case, "dtype", "") == "float64"]
    for lines, wrong in judged.items():
        cases = in_float64 if wrong else every
        calls = [case.call for case in cases]
        answers = run_source(head + lines.lstrip("\n") + end, "mine.py", function, calls)
        assert not isinstance(answers, str), answers
        verdict = judge.verdict(function, cases, answers, hint=True)
        assert (verdict.wrong, verdict.passed) == (wrong, not wrong), lines
        # It has no kink and no tie, which could be the reason.
        assert not any("a kink or a tie" in hint for hint in verdict.hints)
    assert "padding 2" in " ".join(verdict.row.tried if verdict.row else ())
    kept = run_source(head + BATCH_NORM + end.replace(", **statistics", ""), "", function, calls)
    assert kept == "d_params: expected bias, mean, scale, var, got scale, bias"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mistake", "repair"),
    [
        (
            "bug38",
            "return batch_norm_backward(cache, dy, **static)[0], scale * r * dy",
            "return batch_norm_backward(cache, dy, **static)",
        ),
        (
            "bug39",
            'd_params["bias"] / count)',
            '(d_params["bias"] + (x - mean) * r * d_params["scale"]) / count)',
        ),
        ("bug40", "jnp.ones_like(weight)", "weight"),
    ],
)
def test_a_bug_of_batch_norm_is_wrong_until_repaired(name, mistake, repair):
    text, cases = EXERCISES[name].text(), judge.cases_of(name)
    assert text.count(mistake) == 1
    for source, wrong in ((text, ("dx",)), (text.replace(mistake, repair), ())):
        answers = run_source(source, "mine.py", name, [case.call for case in cases])
        assert not isinstance(answers, str), answers
        verdict = judge.verdict(name, cases, answers, hint=True)
        assert verdict.wrong == wrong
        assert (f"hint: {BUGS[name].hint}" in verdict.hints) == bool(wrong)


def test_a_gradient_is_named_as_in_the_file():
    names = {
        "dense": "dx",
        "bug2": "dx",
        "bug40": "dx",
        "cross_entropy": "dp",
        "bug15": "dp",
        "bug18": "dz",
    }
    found = BLANKS | BUGS
    assert {name: found[name].gradient for name in names} == names
    for blank in BLANKS.values():  # It is the last word of the code.
        assert blank.code.split()[-1] == blank.gradient


def test_a_wrong_shape_is_not_said_to_be_a_kink():
    def relu_backward(cache, dy):  # No difference is taken where the shape is wrong.
        return np.where(np.asarray(cache) > 0, dy, 0).reshape(len(cache), -1)

    verdict = jaxnets.judge(relu_backward, hint=True)
    assert verdict.wrong == ("dx",) and "expected the shape" in repr(verdict)
    assert "a kink or a tie" not in repr(verdict)


def test_the_judge_in_a_notebook_takes_numpy():
    def relu_backward(cache, dy):
        return np.where(np.asarray(cache) > 0, dy, 0)

    assert jaxnets.judge(relu_backward)

    def sigmoid_backward(cache, dy):
        return cache * (1 - cache)

    verdict = jaxnets.judge(sigmoid_backward, hint=True)
    assert not verdict and verdict.wrong == ("dx",)
    assert repr(verdict).startswith("sigmoid_backward: FAILED: dx is wrong\n")

    def softmax_backwards(cache, dy):
        return dy

    with pytest.raises(UserError, match='did you mean "softmax_backward"'):
        jaxnets.judge(softmax_backwards)


def softmax_of_a_square(cache, dp):
    axis = 0 if cache.shape[0] == cache.shape[-1] else -1
    return cache * (dp - (dp * cache).sum(axis=axis, keepdims=True))


def dropout_capped(cache, d_out, *, rate):
    return jnp.where(cache, d_out / (1 - min(rate, 0.55)), 0)


def dense_averaged_from_seven_on(cache, dz):
    x, params = cache
    d_params = {"kernel": x.T @ dz / (len(x) if len(x) >= 7 else 1)}
    if "bias" in params:
        d_params["bias"] = dz.sum(axis=0)
    return d_params, dz @ params["kernel"].T


def dense_of_the_first_twenty(cache, dz):
    x, params = cache
    d_params = {"kernel": x[:20].T @ dz[:20]}
    if "bias" in params:
        d_params["bias"] = dz.sum(axis=0)
    return d_params, dz @ params["kernel"].T


def loss_of_at_most_nine_rows(cache, d_losses):
    return cache / (1 if len(cache) < 10 else 2) * d_losses[:, None]


def flatten_of_few_columns(cache, d_out):
    columns = d_out.reshape(-1, *cache.shape[1:])
    return columns if d_out.shape[1] <= 60 else columns[:, ::-1]


def response_norm_of_small_powers(cache, dy, **static):
    beta = min(static.get("beta", 0.75), 0.8)
    return local_response_norm_backward(cache, dy, **{**static, "beta": beta})


def average_of_few_columns(cache, dy, *, output_size):
    dx = adaptive_average_pool_backward(cache, dy, output_size=output_size)
    return dx if output_size[1] <= 4 else dx[:, :, ::-1]


def conv_of_as_many_channels(cache, dz, **sliding):
    d_params, dx = conv_backward(cache, dz, **sliding)
    channels, filters = d_params["kernel"].shape[2:]
    if 1 < channels == filters and len(dz) > 2:
        d_params["kernel"] = d_params["kernel"].swapaxes(2, 3)
    return d_params, dx


def max_pool_of_low_windows(cache, dy, **sliding):
    dx = max_pool_backward(cache, dy, **sliding)
    return dx if sliding["window"][0] < 4 else dx / 2


def batch_norm_of_small_batches(cache, dy, **static):
    d_params, dx = batch_norm_backward(cache, dy, **static)
    factor = 1 if len(dy) <= 9 else 1.01
    return {**d_params, "scale": factor * d_params["scale"]}, dx


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        ("softmax", softmax_of_a_square, "dx"),
        ("dropout", dropout_capped, "dx"),
        ("dense", dense_averaged_from_seven_on, 'd_params["kernel"]'),
        slow("dense", dense_of_the_first_twenty, 'd_params["kernel"]'),
        slow("half_squared_error", loss_of_at_most_nine_rows, "dp"),
        slow("flatten", flatten_of_few_columns, "dx"),
        slow("local_response_norm", response_norm_of_small_powers, "dx"),
        slow("adaptive_average_pool", average_of_few_columns, "dx"),
        slow("conv", conv_of_as_many_channels, 'd_params["kernel"]'),
        slow("max_pool", max_pool_of_low_windows, "dx"),
        slow("batch_norm", batch_norm_of_small_batches, 'd_params["scale"]'),
    ],
)
def test_a_mistake_that_few_shapes_or_rates_show_is_found(name, function, wrong):
    function.__name__ = f"{name}_backward"
    assert jaxnets.judge(function).wrong == (wrong,)


def test_drawn_settings_are_reproducible_and_reach_far():
    for name, rule in ((blank.layer, DERIVED[blank.layer]) for blank in BLANKS.values()):
        first, second = (small_settings(name, rule) for _ in range(2))
        assert first == second and first != small_settings(f"{name}s", rule)
        assert any(setting.x[0] > 8 for setting in first)
        assert any(len(set(setting.x)) == 1 for setting in first)
    rates = [setting.static["rate"] for setting in small_settings("dropout", RULES["dropout"])]
    assert [int(6 * rate) for rate in rates] == list(range(6))


def test_a_layer_without_sizes_for_students_gets_small_ones_of_its_domain():
    for setting in small_settings("new", RULES["dense"]):
        kernel = setting.params["kernel"]
        assert kernel[0] == setting.x[1] and max(*setting.x, *kernel) <= 9


PAGE = (ROOT / "docs" / "exercises.md").read_text("utf-8")


def test_the_pages_list_exercises_and_name_no_mutant():
    for language, path in exercises_list.PAGES.items():
        page = path.read_text("utf-8")
        renewed = exercises_list.renewed(page, language)
        assert renewed == page, "run python docs/_ext/exercises_list.py"
    course = [one for one in EXERCISES.values() if one.required]
    minutes = sum(one.minutes for one in course)
    assert f"asks for {len(course)} exercises, {minutes} minutes" in PAGE
    for task in TASKS.values():
        assert task.solution[task.solution.index("def ") :].strip() in ANSWERS
    for page in (PAGE, ANSWERS):
        assert not [bug.mutant for bug in BUGS.values() if bug.mutant in page]
    assert f"{len(BUGS)} backward passes" in PAGE


def test_every_hint_and_answer_is_folded_on_the_other_page():
    folds = re.findall(r"<summary>(\w+).*?</summary>\n\n(.*?)\n\n</details>", ANSWERS, re.DOTALL)
    for name, bug in BUGS.items():
        hint, answer = (" ".join(text.split()) for title, text in folds if title == name)
        assert hint == " ".join(bug.hint.split()) and answer
        assert bug.hint[:40] not in PAGE
    for name, sheet in (SHEETS | BETS).items():
        (text,) = (text for title, text in folds if title == name)
        for question in sheet.questions:
            hint = sheet.said(question.hint)
            assert f"| {question.name} | `{shown(question.answer)}` | {hint} |" in text
    for name, derive in DERIVES.items():
        (text,) = (text for title, text in folds if title == name)
        for key, formula in derive.formulas.items():
            assert f"| {key} | `{formula.text}` | {derive.asked[key]} |" in text


def defined_in(path):
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_files_and_functions_that_hints_or_answers_name_exist():
    package = ROOT / "jaxnets"
    everywhere = set().union(*map(defined_in, package.rglob("*.py")))
    chinese = (ROOT / "docs" / "zh" / "exercises-answers.md").read_text("utf-8")
    said = [text for bug in BUGS.values() for text in (bug.hint, bug.question)]
    with speaking("zh"):
        said += list(map(_, said))
    said += re.findall("<details>.*?</details>", ANSWERS, re.S)
    said += re.findall("<details>.*?</details>", chinese, re.S)
    named = 0
    for text in said:
        files = [package / name for name in re.findall(r"`([\w/]+\.py)`", text)]
        functions = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text))
        assert functions <= (set().union(*map(defined_in, files)) if files else everywhere), text
        named += len(files) + len(functions)
    assert named >= 4 * 7
    # What the first bug's hint says of the function that it names.
    assert "g / count" in inspect.getsource(make_train_step)


def test_the_chinese_answers_are_the_same_answers():
    chinese = (ROOT / "docs" / "zh" / "exercises-answers.md").read_text("utf-8")
    names, codes, numbers = (
        [re.findall(pattern, page) for page in (chinese, ANSWERS)]
        for pattern in (r"<summary>\w+", r"`[^`\n]+`", r"(?<=\| )-?\d[\d.e-]*(?: ± [\d.]+)?(?= \|)")
    )
    others = SHEETS, BETS, DERIVES, BLANKS, TASKS
    assert len(names[0]) == 2 * len(BUGS) + sum(map(len, others))
    assert len(codes[0]) > 40 and len(numbers[0]) == 86
    for ours, theirs in (names, codes, numbers):
        assert ours == theirs


X = np.ones((2, 3))
SIGMOID_CALL = Call("float64", X, X, {}, ())


def differentiate_by(how):
    def helper(function, cache, dy):
        pull_back = jax.vjp(function, cache)[1]
        return pull_back(dy)[0]

    ways = {
        "vjp": lambda cache, dy: helper(jnp.sin, cache, dy),
        "grad": lambda cache, dy: jax.grad(lambda x: (jnp.sin(x) * dy).sum())(cache),
        "jit": lambda cache, dy: jax.jit(jax.grad(lambda x: (jnp.sin(x) * dy).sum()))(cache),
        "jvp": lambda cache, dy: jax.jvp(jnp.sin, (cache,), (dy,))[1],
        "linearize": lambda cache, dy: jax.linearize(jnp.sin, cache)[1](dy),
        "transpose": lambda cache, dy: jax.linear_transpose(lambda x: 2 * x, cache)(dy)[0],
    }
    return ways[how]


@pytest.mark.parametrize("how", ["vjp", "grad", "jit", "jvp", "linearize", "transpose"])
def test_who_differentiates_is_found_wherever_the_call_stands(how):
    with pytest.raises(ResultError, match="by hand is derived without it"):
        list(gradients_of(differentiate_by(how), [SIGMOID_CALL]))
    honest = list(gradients_of(lambda cache, dy: dy * jnp.cos(cache), [SIGMOID_CALL]))
    np.testing.assert_allclose(honest[0]["x"], np.cos(X))


DENSE_CALL = Call("float64", (X, {"kernel": X.T}), np.ones((2, 2)), {}, ("kernel",))


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ((..., ...), "expected (d_params, dx) with d_params a dict, got ..., the blank"),
        (X, "expected (d_params, dx) with d_params a dict, got an array"),
        (({}, X), "d_params: expected kernel, got nothing"),
        (({"kernel": X, "bias": X}, X), "d_params: expected kernel, got kernel, bias"),
        (({"kernel": None}, X), 'd_params["kernel"]: expected an array, got None'),
        (({"kernel": X.T}, "passed"), "dx: expected an array, got a str"),
        (({"kernel": X.T}, X * 1j), "dx: expected real numbers, got complex128"),
    ],
)
def test_what_is_no_gradient_is_named(result, said):
    with pytest.raises(ResultError) as refused:
        list(gradients_of(lambda cache, dz: result, [DENSE_CALL]))
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import os", "imports os; an exercise may import functools, "),
        ("from os import system", "imports os"),
        ("from jax import grad", "uses grad; a gradient by hand is derived without it"),
        ("from jax import grad as g", "uses grad"),
        ("import jax.experimental", "imports jax.experimental"),
        ("from jaxnets.backprop.dense import dense_backward as right", "imports jaxnets.backprop"),
        ("from . import x", "imports ."),
        ("x = jax.vjp", "uses vjp"),
        ("x = jax.scipy", "uses jax.scipy"),
    ],
)
def test_what_no_exercise_needs_is_found_with_its_line(line, said):
    tree = parse_exercise(f"import jax\n{line}\n{DENSE_BACKWARD}")
    assert isinstance(tree, ast.Module)
    assert str(violation(tree)).startswith(f"line {3 if 'case' in line else 2}: {said}")


@pytest.mark.parametrize(
    "source", ["def f(:", "(" * 10_000, "-" * 50_000 + "1", "x = '\0'", "x" * 200_000]
)
def test_what_cannot_be_parsed_is_one_line(source):
    assert isinstance(parse_exercise(source), str)


def test_a_student_s_mistake_is_one_line_with_its_place(run_command, mine):
    wrong = DENSE_BACKWARD.replace("x.T @ dz", "x @ dz")
    outcome = run_command("gradcheck", f"--mine={mine(wrong)}")
    assert outcome.status == 1
    assert outcome.out == (
        "dense_backward: FAILED: line 4: x is (4, 5), dz is (4, 3): x has 5 columns and dz has 4 "
        "rows; in a product of matrices these must be equal\n"
    )
    cheat = DENSE_BACKWARD.replace(
        "x.T @ dz", "jax.grad(lambda k: (x @ k * dz).sum())(params['kernel'])"
    )
    outcome = run_command("gradcheck", f"--mine={mine('import jax' + cheat)}")
    assert outcome.out == (
        "dense_backward: FAILED: line 4: uses grad; a gradient by hand is derived without it\n"
    )


@pytest.mark.parametrize("name", SHEETS)
def test_a_sheet_is_blank_then_right_then_wrong(name, run_command, tmp_path, mine):
    path = tmp_path / "sheet.toml"
    assert run_command("exercise", "new", name, f"--output={path}").status == 0
    outcome = run_command("exercise", "check", path)
    questions = SHEETS[name].questions
    count = len(questions)
    assert outcome.status == 1 and f"{name}: FAILED, 0 of {count} right" in outcome.out
    answers = {question.name: question.answer for question in questions}
    outcome = run_command("exercise", "check", mine(filled(name, answers), "right.toml"))
    assert outcome.status == 0 and f"{name}: passed, {count} of {count} right" in outcome.out
    last = list(answers)[-1]
    answers[last] = np.multiply(answers[last], 1.1).tolist()
    wrong = mine(filled(name, {**answers, list(answers)[0]: "-77"}), "wrong.toml")
    outcome = run_command("exercise", "check", wrong, "--hint")
    right = count - len({last, next(iter(answers))})
    assert outcome.status == 1 and f"FAILED, {right} of {count} right" in outcome.out
    assert f"(hint: {SHEETS[name].said(questions[-1].hint)})" in outcome.out
    assert str(questions[-1].answer) not in outcome.out


@pytest.mark.parametrize("name", BETS)
def test_a_lost_bet_is_told_what_happened_and_ticked(name, run_command, tmp_path):
    """Of all bets only the first is won; before one is made, the judge says nothing."""
    path, questions = tmp_path / f"my_{name}.toml", BETS[name].questions
    count, (first, *others) = len(questions), questions
    assert run_command("exercise", "new", name, f"--output={path}").status == 0
    outcome = run_command("exercise", "check", path, "--hint")
    assert outcome.status == 1 and not (tmp_path / FILE).exists()
    assert outcome.out.endswith(f"{name}: not done yet, 0 of {count} bets made, 0 won\n")
    assert f"blank (hint: {first.hint})" in outcome.out and first.then not in outcome.out
    bets = {first.name: first.answer} | {one.name: 1 + one.answer % 4 for one in others}
    path.write_text(filled(name, bets))
    outcome = run_command("exercise", "check", path)
    lines = [f"{first.name:12} won: {first.then}"]
    lines += [f"{one.name:12} lost: {one.then}" for one in others]
    lines += [f"{name}: passed, {count} of {count} bets made, 1 won"]
    assert (outcome.status, outcome.out.splitlines()) == (0, lines)
    assert (tmp_path / FILE).read_text() == f"{name}\n"


@pytest.mark.parametrize("text", ["5", "0", "1.5", "-77", "[1, 2]", "two", "nan"])
def test_a_bet_on_no_possible_answer_is_not_made(text):
    _, found = check_sheet(f'exercise = "bet2"\nmse = {text}\n', "s.toml")
    assert found[0] == ("mse", "wrong", f"expected a bet from 1 to 4, got {text}")


@pytest.mark.parametrize(
    "value",
    [
        "1.5",
        '"1.5"',
        "'1.5'",
        "+1.5",
        "3/2",
        '"3/2"',
        "3 / 2",
        "-3/-2",
        "15e-1",
        "150E-2",
        "1.50049",
    ]
    + ["1.5  # as above", "( 1.5 )"[1:-1], "３／２", "１．５"],
)
def test_a_right_number_may_be_written_in_many_ways(value):
    _, found = check_sheet(f'exercise = "compute1"\nz = {value}\n', "s.toml")
    assert found[0].verdict == "right", found[0]


@pytest.mark.parametrize(
    "value",
    [
        "[0.5, 1]",
        "[.5, 1.]",
        "[1/2, 2/2]",
        '["1/2", "1"]',
        "(0.5, 1)",
        '"[0.5, 1]"',
        "[\n0.5, # a\n1]",
    ]
    + ["[0.5, 1,]", "［0.5，1］", "（1/2，1）"],
)
def test_a_right_row_may_be_written_in_many_ways(value):
    _, found = check_sheet(f'exercise = "compute1"\ndw = {value}\ndb = .5\n', "s.toml")
    assert [row.verdict for row in found[5:7]] == ["right", "right"], found[5]


@pytest.mark.parametrize("name", SHEETS)
def test_a_usual_wrong_number_is_told_its_cause(name):
    for number, question in enumerate(SHEETS[name].questions):
        for slip, _says in question.slips:
            if near(slip, question.answer):  # With these numbers; a student's own tell them apart.
                continue
            _, found = check_sheet(filled(name, {question.name: slip}), "s.toml")
            first = next(says for wrong, says in question.slips if near(slip, wrong))
            assert found[number] == (question.name, "wrong", SHEETS[name].said(first))


NINES = "9" * 5000
A_NUMBER = "expected a number such as 1.5 or 1/8, or a row such as [1, 2], got"


@pytest.mark.parametrize(
    ("value", "note"),
    [
        ("1.6", ""),
        ("1/8", ""),
        ("nan", f"{A_NUMBER} nan"),
        ("inf", f"{A_NUMBER} inf"),
        ("true", f"{A_NUMBER} true"),
        ('"one and a half"', f"{A_NUMBER} one and a half"),
        ("3*0.5", f"{A_NUMBER} 3*0.5"),
        ("1/2/3", f"{A_NUMBER} 1/2/3"),
        ("1.5 2", f"{A_NUMBER} 1.5 2"),
        ("ln(4)", f"{A_NUMBER} ln"),
        ("1,5", f"{A_NUMBER} 1,5"),
        ("1/0", "1/0 divides by 0"),
        ("1e999999999", "1e999999999 is too large"),
        (NINES, f"{NINES[:29]}… is too large"),
        (f"1/{NINES}", f"1/{NINES[:27]}… is too large"),
        ("[" * 5000 + "]" * 5000, f"too many brackets in {'[' * 29}…"),
        ("[1.5", "a bracket is not closed in [1.5"),
        ("1.5]", "one bracket too many in 1.5]"),
        ("[1.5]", "expected a number, got 1 numbers"),
        ("[[1], [1, 2]]", "expected a number, got no rows of equal length"),
        ("[]", "expected a number, got no rows of equal length"),
    ],
)
def test_what_is_no_right_number_is_wrong_and_said_plainly(value, note):
    _, found = check_sheet(f'exercise = "compute1"\nz = {value}\ny = 1.5\n', "s.toml")
    assert found[0] == ("z", "wrong", note)
    assert found[1].verdict == "right"  # A mistake stays in its own line.


def test_a_line_without_an_equals_sign_is_named():
    with pytest.raises(UserError, match=r"s.toml: expected NAME = ANSWER in line 3, got z 1\.5"):
        check_sheet('exercise = "compute1"\n# z\nz 1.5\n', "s.toml")


def sheets_of_training():
    """The sheets that are about training and measuring, by searching, optax and scikit-learn."""
    right: dict[str, dict] = {}
    found = []
    for u in (2.0**-53, 2.0**-24):
        h = np.logspace(-8, 0, 800_001)
        errors = h**2 / 6 + u / h
        found += [-np.log10(h[errors.argmin()]), -np.log10(errors.min())]
    h = np.array([1e-2, 1e-3])
    misses = np.sinh(h) / h - 1, np.expm1(h) / h - 1  # Of e^x at 0.
    central, one_sided = (miss[0] / miss[1] for miss in misses)
    right["compute9"] = dict(h64=found[0], error64=found[1], h32=found[2], error32=found[3])
    right["compute9"] |= dict(central=round(central, 1), one_sided=round(one_sided, 1))
    right["compute9"] |= dict(too_small=-np.log10(2.0**-53 / 1e-12))

    array = jnp.asarray
    rule: Any = optax.adam(0.1, b1=0.5, b2=0.96, eps=0)
    w: Any = array(1.0)
    state, steps = rule.init(w), []
    for t, g in ((1, 2.0), (2, -2.0)):
        update, state = rule.update(array(g), state)
        w = optax.apply_updates(w, update)
        hats = state[0].mu / (1 - 0.5**t), state[0].nu / (1 - 0.96**t)
        steps.append((state[0].mu, state[0].nu, hats, w))
    keys = [f"{name}{t}" for t in (1, 2) for name in ("m", "v", "hats", "w")]
    right["compute10"] = dict(zip(keys, [*steps[0], *steps[1]], strict=True))
    right["compute10"] |= dict(without=1 - 0.1 * steps[0][0] / steps[0][1] ** 0.5)

    # The mean of the squares behind a ReLU, of a normal number by its density.
    z = np.linspace(-10, 10, 200_001)
    density = np.exp(-(z**2) / 2) / (2 * np.pi) ** 0.5
    kept = float(np.sum(np.maximum(z, 0) ** 2 * density) * (z[1] - z[0]))
    factor = (100 * kept) ** 0.5
    right["compute11"] = dict(small=0.01 * factor, large=factor, he=1 / factor, no_relu=0.1)
    right["compute11"] |= dict(small_ten=-10 * np.log10(0.01 * factor))
    right["compute11"] |= dict(large_ten=10 * np.log10(factor))
    slope = jax.grad(jax.nn.sigmoid)(0.0)
    right["compute11"] |= dict(sigmoid=-10 * np.log10(slope))

    metrics: Any = pytest.importorskip("sklearn.metrics")
    sick = np.repeat([0, 1], (90, 10))
    called = np.repeat([0, 1, 0, 1], (81, 9, 4, 6))
    y, p = np.array([10, 20, 30]), np.array([8, 21, 33])
    scores = metrics.precision_recall_fscore_support(sick, called, average="binary")
    right["compute12"] = dict(zip(("precision", "recall", "f1"), scores, strict=False))
    right["compute12"] |= dict(accuracy=metrics.accuracy_score(sick, called))
    right["compute12"] |= dict(lazy=metrics.accuracy_score(sick, 0 * sick))
    right["compute12"] |= dict(wmape=np.abs(y - p).sum() / y.sum(), r2=metrics.r2_score(y, p))

    a, b = (np.repeat([1, 0], counts) for counts in ((90, 10), (95, 5)))
    v = a.var() + b.var()
    n = 7.85 / ((b.mean() - a.mean()) ** 2 / v)
    lead = norm(0.05, (v / n) ** 0.5)  # That is seen, with n users of each model.
    assert lead.sf(1.96 * lead.std()) == pytest.approx(0.8, abs=1e-3)
    least = norm(0, (v / 200) ** 0.5).isf(0.025)  # Of 200 users, where both are equal.
    assert least == pytest.approx(0.0513916, abs=1e-5)
    least *= 1.96 / norm.isf(0.025)
    right["compute13"] = {"v": v, "n": n, "all": n + n, "half": 0.05**2 / 0.025**2}
    right["compute13"] |= {"seen": 100 * least}
    return right


@pytest.mark.oracle
@pytest.mark.slow
def test_the_numbers_to_compute_are_those_that_autodiff_finds(float64):
    """Each sheet again, in JAX: the slopes by autodiff of the forward pass."""
    array = jnp.asarray
    right: dict[str, dict] = {}

    def neuron(w, b, x):
        return (jnp.maximum(x @ w + b, 0) - 1) ** 2 / 2

    point = array([3.0, -1.0]), array(0.5), array([1.0, 2.0])
    dw, db, dx = jax.grad(neuron, (0, 1, 2))(*point)
    right["compute1"] = dict(z=1.5, y=1.5, loss=neuron(*point), dw=dw, db=db, dx=dx)
    right["compute1"] |= dict(dy=0.5, dz=jax.grad(lambda z: (jnp.maximum(z, 0) - 1) ** 2 / 2)(1.5))
    right["compute1"] |= dict(w_new=point[0] - 0.1 * dw)

    def dense(X, W, b):
        return X @ W + b

    given = array([[1.0, 2], [3, 4]]), array([[1.0, -1], [0, 2]]), array([1.0, 0])
    Z, pull_back = jax.vjp(dense, *given)
    dX, dW, db = pull_back(array([[1.0, 0], [-1, 2]]))
    right["compute2"] = dict(Z=Z, dW=dW, db=db, dX=dX)

    x = jnp.log(array([1.0, 2, 5]))
    p, loss = jax.nn.softmax(x), lambda x: -jax.nn.log_softmax(x)[1]
    right["compute3"] = dict(p=p, loss=loss(x), dp=jax.grad(lambda p: -jnp.log(p[1]))(p))
    right["compute3"] |= dict(jacobian=jax.grad(lambda x: jax.nn.softmax(x)[1])(x)[0])
    right["compute3"] |= dict(dx=jax.grad(loss)(x))

    def network(W1, W2, x):
        z1 = x @ W1
        h = jnp.maximum(z1, 0)
        return z1, h, h @ W2, ((h @ W2 - array([2.0, 8])) ** 2).sum() / 2

    W1, W2, x = array([[1.0, 0], [1, -1]]), array([[1.0, 2], [3, -1]]), array([1.0, 2])
    z1, h, z2, loss = network(W1, W2, x)
    dW1, dW2 = jax.grad(lambda a, b: network(a, b, x)[3], (0, 1))(W1, W2)
    dh = jax.grad(lambda h: ((h @ W2 - array([2.0, 8])) ** 2).sum() / 2)(h)
    right["compute4"] = dict(Z1=z1, H=h, Z2=z2, loss=loss, dZ2=z2 - array([2.0, 8]), dW2=dW2)
    right["compute4"] |= dict(dH=dh, dZ1=jnp.where(z1 > 0, dh, 0), dW1=dW1)

    x, w, dz = array([1.0, 2, 0, 3]), array([2.0, -1]), array([1.0, -1, 2])
    z, pull_back = jax.vjp(lambda w, x: jnp.correlate(x, w, "valid"), w, x)
    dw, dx = pull_back(dz)
    right["compute5"] = dict(z=z, dw=dw, dx=dx, z_stride_2=z[::2])

    def pool(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2,), (1,), "VALID")

    def square(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2, 2), (2, 2), "VALID")

    relu = jax.vjp(jax.nn.relu, array([-1.0, 0, 2]))[1](array([5.0, 5, 5]))[0]
    tie = jax.vjp(square, array([[1.0, 3], [3, 2]]))[1](array([[1.0]]))[0]
    overlap = jax.vjp(pool, array([1.0, 4, 2]))[1](array([5.0, -2]))[0]
    dropped = jax.grad(lambda x: (x * array([1, 0, 1]) / (1 - 0.2)).sum())(jnp.ones(3))
    right["compute6"] = dict(relu=relu, tie=tie, overlap=overlap, dropout=dropped)
    # The mean slope between the two points.
    slopes = jax.vmap(jax.grad(jax.nn.relu))
    for name, x in (("at_kink", 0.0), ("near_kink", 0.02)):
        right["compute6"] |= {name: slopes(x + jnp.linspace(-0.1, 0.1, 100_001)).mean()}

    slopes = array([2.0, 4, 6])
    right["compute7"] = dict(mean=slopes.mean(), sum=slopes.sum(), rate=0.1 / 3)
    right["compute7"] |= dict(w_mean=1 - 0.1 * slopes.mean(), w_sum=1 - 0.1 * slopes.sum())

    def norm(x, gamma, beta):
        return gamma * jax.nn.standardize(x, epsilon=0) + beta

    x, dy = array([1.0, 7, 9, 15]), array([1.0, 0, 2, 1])
    y, pull_back = jax.vjp(norm, x, 5.0, 1.0)
    dx, dgamma, dbeta = pull_back(dy)
    right["compute8"] = dict(mean=jnp.mean(x), var=jnp.var(x), x_hat=norm(x, 1, 0), y=y)
    right["compute8"] |= dict(dx=dx, dgamma=dgamma, dbeta=dbeta, running=10 - 0.1 * (10 - 8))
    fixed = jax.grad(lambda x: (5 * (x - 8) / 25**0.5 + 1) @ dy)(x)
    shift = jax.grad(lambda c: norm(x + c, 5, 1) @ dy)(0.0)
    right["compute8"] |= dict(fixed=fixed, shift=shift)

    right |= sheets_of_training()
    assert set(right) == set(SHEETS)
    for name, sheet in SHEETS.items():
        assert {question.name for question in sheet.questions} == set(right[name])
        for question in sheet.questions:
            wanted = right[name][question.name]
            np.testing.assert_allclose(question.answer, wanted, rtol=2e-5, atol=1e-6)


def test_the_list_is_table_or_json_and_needs_no_jax(run_command, run_python):
    code = "import sys; from jaxnets.cli.commands import main; main(sys.argv[1:])"
    code += "; assert 'jax' not in sys.modules"
    outcome = run_python("-c", code, "exercise", "--json")
    assert outcome.status == 0, outcome.err
    assert [row["name"] for row in json.loads(outcome.out)] == list(EXERCISES)
    table = run_command("exercise").out
    named = re.findall(rf"\b({'|'.join(EXERCISES)})\b(?=  |,|$)", table, re.MULTILINE)
    assert set(named) == set(EXERCISES)
    assert not any(bug.mutant in table for bug in BUGS.values())


@pytest.mark.parametrize("week", [None, *range(1, 10)])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_list_has_80_columns_and_a_week_has_its_own(language, week, run_command):
    flags = [f"--week={week}"] if week else []
    lines = run_command("exercise", f"--language={language}", *flags).out.splitlines()
    assert max(map(display.width_of, lines)) <= 80
    rows = json.loads(run_command("exercise", "--json", *flags).out)
    wanted = [name for name, one in EXERCISES.items() if week in (None, one.week)]
    assert [row["name"] for row in rows] == wanted
    if week:
        assert [line.split()[0] for line in lines if re.search(r"\d (min|分钟) ", line)] == wanted


def test_a_passed_check_is_ticked_beside_the_file(run_command, tmp_path, monkeypatch):
    folder = tmp_path / "week 1"
    folder.mkdir()
    sheet, ticks = folder / "my_compute1.toml", folder / FILE

    def check(answers):
        lines = [f"{one.name} = {answers(one)}" for one in SHEETS["compute1"].questions]
        sheet.write_text("\n".join(['exercise = "compute1"', *lines]))
        return run_command("exercise", "check", str(sheet))

    assert check(lambda question: 99).status == 1 and not ticks.exists()
    ticks.write_text("# dense next\nbug10")
    for _again in range(2):
        outcome = check(lambda question: question.answer)
        assert (outcome.status, outcome.err) == (0, "")
        assert ticks.read_text() == "# dense next\nbug10\ncompute1\n"
    monkeypatch.chdir(folder)
    rows = json.loads(run_command("exercise", "--json").out)
    assert [row["name"] for row in rows if row["passed"]] == ["compute1", "bug10"]
    listed = run_command("exercise", "--week=1").out
    assert re.findall(r"^✓ (\w+) +(\d+) min", listed, re.M) == [("compute1", "10"), ("bug10", "5")]
    assert listed.count("✓") == 2


def test_the_next_exercise_is_the_first_required_one_without_a_tick(
    run_command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    required = [name for name, one in EXERCISES.items() if one.required]
    for count in (0, 1, 20, len(required) - 1):
        Path(FILE).write_text("".join(f"{name}\n" for name in ["compute4", *required[:count]]))
        first, command, passed = run_command("exercise", "next").out.splitlines()
        name = required[count]
        assert first.startswith(f"next, in week {EXERCISES[name].week}: {name}, ")
        assert command == f"  jaxnets exercise new {name}"
        assert passed.startswith(f"{count} of {len(required)} required exercises passed")
        Path(EXERCISES[name].file).touch()  # Now it has begun.
        (values,) = [json.loads(run_command("exercise", "next", "--json").out)]
        assert values["command"] == f"jaxnets exercise check {EXERCISES[name].file}"
    Path(FILE).write_text("\n".join(required))
    outcome = run_command("exercise", "next")
    assert (outcome.status, len(outcome.out.splitlines())) == (0, 1)


def test_a_tick_that_cannot_be_kept_fails_no_check(run_command, tmp_path, monkeypatch):
    sheet = tmp_path / "my_compute1.toml"
    lines = [f"{one.name} = {one.answer}" for one in SHEETS["compute1"].questions]
    sheet.write_text("\n".join(['exercise = "compute1"', *lines]))
    monkeypatch.chdir(tmp_path)

    def full(path, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patched:
        patched.setattr("jaxnets.course.exercises.ticks.write_text", full)
        outcome = run_command("exercise", "check", "my_compute1.toml")
    assert outcome.status == 0 and outcome.out.endswith("compute1: passed, 9 of 9 right\n")
    assert outcome.err == f"note: the tick was not kept: [Errno 28] {os.strerror(28)}: '{FILE}'\n"
    assert not (tmp_path / FILE).exists()
    (tmp_path / FILE).mkdir()  # Nor one that cannot be read.
    for command in (["check", "my_compute1.toml"], ["--week=1"]):
        outcome = run_command("exercise", *command)
        assert outcome.status == 0 and outcome.err.startswith("note: ")
        assert outcome.err.count("\n") == 1
