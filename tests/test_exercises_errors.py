"""Errors in a student's code: each is one plain line, with its place."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import DENSE_BACKWARD, ROOT

import jaxnets
from jaxnets.base.language import speaking
from jaxnets.course.exercises.passes import Call, run_source
from jaxnets.losses import probabilities_of

HEAD = """\
import jax.numpy as jnp
import numpy as np
from jax import lax
"""
X, DZ = np.ones((4, 5)), np.ones((4, 3))
KERNEL, BIAS = np.ones((5, 3)), np.ones(3)
DENSE = Call("float64", (X, {"kernel": KERNEL, "bias": BIAS}), DZ, {}, ("kernel", "bias"))
WITHOUT_BIAS = Call("float64", (X, {"kernel": KERNEL}), DZ, {}, ("kernel",))
SOFTMAX = Call("float64", np.ones((4, 3)), DZ, {}, ())
IMAGES = np.ones((2, 6, 6, 2)), {"kernel": np.ones((3, 3, 2, 3))}
CONV = Call("float64", IMAGES, np.ones((2, 6, 6, 3)), {}, ("kernel",))


pytestmark = pytest.mark.usefixtures("judge_in_float64")


def said(lines, call=DENSE, *others, unpacked="x, params = cache"):
    """What the judge says of a function's lines, the first of which is line 6."""
    body = "\n    ".join([unpacked, *lines.split("\n")])
    source = f"{HEAD}def backward(cache, dz):\n    {body}\n"
    found = run_source(source, "mine.py", "backward", [call, *others])
    return found if isinstance(found, str) else "passes"


def said_in_chinese(*arguments, **options):
    """The same in Chinese."""
    with speaking("zh"):
        return said(*arguments, **options)


PRODUCT = "in a product of matrices these must be equal"
ELEMENTS = "number by number, both sizes of an axis must be equal, or one of them must be 1"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x @ dz", f"x is (4, 5), dz is (4, 3): x has 5 columns and dz has 4 rows; {PRODUCT}"),
        (
            "jnp.dot(x, dz)",
            f"x is (4, 5), dz is (4, 3): x has 5 columns and dz has 4 rows; {PRODUCT}",
        ),
        (
            "2 * (x.T @ dz.T)",
            f"x.T is (5, 4), dz.T is (3, 4): x.T has 4 columns and dz.T has 3 rows; {PRODUCT}",
        ),
        (
            "x[0] @ dz",
            f"x[0] is (5,), dz is (4, 3): x[0] has 5 numbers and dz has 4 rows; {PRODUCT}",
        ),
        ("x * dz", f"x is (4, 5), dz is (4, 3): {ELEMENTS}"),
        ("jnp.maximum(x, dz)", f"x is (4, 5), dz is (4, 3): {ELEMENTS}"),
        (
            "x - x.sum(axis=1)",
            "x is (4, 5), x.sum(axis=1) is (4,): a sum with keepdims=True is (4, 1) instead of "
            "(4,), which fits",
        ),
        (
            "dz.sum(axis=2)",
            "dz is (4, 3): there is no axis 2; the number of axes is 2, and the first is axis 0",
        ),
        (
            "np.asarray(dz)[7]",
            "np.asarray(dz) is (4, 3): there is no index 7; axis 0 has the size 4, and the first "
            "index is 0",
        ),
        ("dz[0, 1, 2]", "dz is (4, 3): the number of axes is 2, the number of indices 3"),
        (
            "dz.reshape(2, 7)",
            "dz is (4, 3): 12 numbers do not fill the shape (2, 7), which takes 14",
        ),
        ("dz.sum(dim=0)", "dz is (4, 3): in sum there is no argument dim; did you mean axis?"),
        (
            "sum(dz, axis=0)",
            "dz is (4, 3): Python's own sum has no argument axis; use the one in jnp",
        ),
        (
            'jnp.einsum("bd,bk->dk", x, dz.T)',
            "x is (4, 5), dz.T is (3, 4): the letter b names an axis of size 4 and another of "
            "size 3",
        ),
        (
            'jnp.einsum("bdk,bk->dk", x, dz)',
            "x is (4, 5), dz is (4, 3): bdk must have a letter for each axis",
        ),
        ("x.t()", "an array has no attribute t; did you mean T?"),
        ("x.unsqueeze(0)", "an array has no attribute unsqueeze; did you mean x[:, None]?"),
        ("jnp.summ(x)", "jnp has no attribute summ; did you mean sum?"),
        ("x.T() @ dz", "x.T is an array, not a function"),
        ("x.transpose @ dz", "x.transpose is a function, not an array; call it with ( )"),
        ("X.T @ dz", "X is not defined; did you mean x?"),
        ("dz @ kernel.T", 'kernel is not defined; did you mean params["kernel"]?'),
        ("numpy.dot(x, dz)", "numpy is not defined; did you mean np?"),
        ("w.T", "w is not defined; the names here are cache, dz, x, params"),
        ("jax.nn.relu(x)", "jax is not defined; the file needs the line import jax"),
        ("dz @ params.T", 'params is a dict; its arrays are params["bias"], params["kernel"]'),
        ("dz @ params", 'params is a dict; its arrays are params["bias"], params["kernel"]'),
        ('params["weight"]', 'params has no "weight" here; it has bias, kernel'),
        ("cache.T", "cache is a tuple; its parts are cache[0], cache[1]"),
        ("x, W, b = cache", "the number of names before the = is 3, the number of values 2"),
        (
            "x if x > 0 else dz",
            "x is (4, 5): if and while need one truth value, not an array of them; use jnp.where",
        ),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_an_error_has_its_line_and_shapes_in_both_languages(line, message):
    lines = line if " = " in line else f"dx = {line}"
    found, chinese = said(lines), said_in_chinese(lines)
    assert found == f"line 6: {message}" and chinese.startswith("第 6 行：")
    shapes = "x is (4, 5), dz is (4, 3)", "x 的形状是 (4, 5)，dz 是 (4, 3)"
    assert (shapes[0] in found) == (shapes[1] in chinese)
    assert message.startswith("Zero") or not {"is", "has", "not", "are"} & set(chinese.split())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("d[0] = 1", "d = d.at[0].set(1)"),
        ("d[0, 1] += dz[0, 0] * 2", "d = d.at[0, 1].add(dz[0, 0] * 2)"),
        ("d[x < 0] -= x", "d = d.at[x < 0].add(-(x))"),
    ],
)
def test_an_assignment_in_place_is_answered_with_the_right_line(line, message):
    assert said(f"d = dz\n{line}") == (
        f"line 7: an array of JAX does not change in place; write {message}"
    )
    chinese = said_in_chinese(f"d = dz\n{line}")
    assert chinese == f"第 7 行：JAX 的数组不能就地修改；请写 {message}"


@pytest.mark.parametrize(
    ("lines", "call", "message"),
    [
        ("dx = dz", SOFTMAX, "it returns nothing; its last line must be a return"),
        ("return", DENSE, "it returns nothing; its last line must be a return"),
        ("return dz,", SOFTMAX, "dx: expected an array, got a tuple of 1"),
        (
            "return dz, dz",
            DENSE,
            "expected (d_params, dx) with d_params a dict, got an array as d_params",
        ),
        (
            "return {}, dz, dz",
            DENSE,
            "expected (d_params, dx) with d_params a dict, got a tuple of 3",
        ),
        (
            "return None, dz",
            DENSE,
            "expected (d_params, dx) with d_params a dict, got None as d_params",
        ),
        ("return [[1.0, 2.0], [3.0]]", SOFTMAX, "dx: expected numbers, in rows of equal length"),
        ("return [dz, 1.0]", SOFTMAX, "dx: expected numbers, in rows of equal length"),
        ('return ["one", "two"]', SOFTMAX, "dx: expected numbers, in rows of equal length"),
        ("return np.array([object()])", SOFTMAX, "dx: expected numbers, in rows of equal length"),
        ("dx = ...\nreturn 2 * dx", SOFTMAX, "line 7: dx is still ..., the blank to fill in"),
        ("dx = dx + dz\nreturn dx", SOFTMAX, "line 6: dx has no value yet"),
        ("return backward(cache, dz)", SOFTMAX, "it calls itself without end"),
        ("assert len(dz) == 3", SOFTMAX, "line 6: AssertionError"),
    ],
)
def test_a_wrong_result_is_said_plainly(lines, call, message):
    unpacked = "pass" if call is SOFTMAX else "x, params = cache"
    assert said(lines, call, unpacked=unpacked) == message
    assert said_in_chinese(lines, call, unpacked=unpacked) != message or "Error" in message


def test_a_layer_without_bias_is_said_to_have_none():
    lines = 'return {name: params[name] + 0 * params["bias"].sum() for name in params}, x'
    assert said(lines, DENSE, WITHOUT_BIAS) == 'line 6: params has no "bias" here; it has kernel'


def test_a_convolution_names_the_channels_that_do_not_fit():
    same = '(1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")'
    assert said(f'return lax.conv_general_dilated(dz, params["kernel"], {same})', CONV) == (
        'line 6: dz is (2, 6, 6, 3), params["kernel"] is (3, 3, 2, 3): the input has 3 channels in '
        "1 groups, the kernel takes 2 channels; dimension_numbers says which axis holds them"
    )


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("x, params, dz", "expected the arguments (cache, d_out), got (x, params, dz)"),
        ("cache", "expected the arguments (cache, d_out), got (cache)"),
    ],
)
def test_wrong_parameters_are_named(signature, message):
    assert run_source(f"def f({signature}): pass", "mine.py", "f", [DENSE]) == message


@pytest.mark.parametrize(
    "line",
    [
        "[[v * w for v, w in zip(*rows)] for rows in zip(cache, dz)]",
        "(cache * dz).tolist()",
        "[row for row in cache * dz]",
        "np.multiply(cache, dz).tolist()",
    ],
)
def test_nested_lists_are_arrays(line):
    (found,) = run_source(f"{HEAD}def f(cache, dz):\n    return {line}\n", "m.py", "f", [SOFTMAX])
    assert isinstance(found, dict)
    np.testing.assert_array_equal(found["x"], SOFTMAX.cache * SOFTMAX.d_out)


def test_numpy_in_loops_runs_on_numbers_that_print_shows(capsys):
    lines = "dx = np.zeros((4, 3))\nfor i in range(4):\n    dx[i, 0] = cache[i, 0] * dz[i, 0]"
    assert said(f"{lines}\nreturn dx", SOFTMAX, unpacked="print(dz)") == "passes"
    assert capsys.readouterr().out.startswith("[[1. 1. 1.]\n")


def test_a_newcomer_s_first_error_is_plain_in_both_languages(run_command, tmp_path):
    path = tmp_path / "my_dense.py"
    assert run_command("exercise", "new", "dense", f"--output={path}").status == 0
    path.write_text(path.read_text().replace("d_kernel = ...", "d_kernel = x @ dz"))
    english = run_command("gradcheck", f"--mine={path}", "--hint")
    assert english.out.splitlines()[0] in (ROOT / "docs" / "exercises.md").read_text("utf-8")
    shapes = 'd_params["bias"] (3,), d_params["kernel"] (5, 3), dx (4, 5)'
    assert english.out.splitlines() == [
        "dense_backward: FAILED: line 27: x is (4, 5), dz is (4, 3): x has 5 columns and dz has 4 "
        f"rows; {PRODUCT}",
        f"  the first setting asks for {shapes}",
    ]
    chinese = run_command("gradcheck", f"--mine={path}", "--hint", "--language=zh")
    assert chinese.out.splitlines() == [
        "dense_backward：未通过：第 27 行：x 的形状是 (4, 5)，dz 是 (4, 3)：x 有 5 列，dz 有 4 行；"
        "矩阵相乘时两者必须相等",
        f"  第一种设置要求：{shapes}",
    ]


def test_a_notebook_gets_its_function_s_line_without_traceback():
    def softmax_backward(cache, dp):
        return cache @ dp

    first = softmax_backward.__code__.co_firstlineno
    verdict = jaxnets.judge(softmax_backward)
    assert verdict.line == (
        f"softmax_backward: FAILED: line {first + 1}: cache is (4, 5), dp is (4, 5): cache has 5 "
        f"columns and dp has 4 rows; {PRODUCT}"
    )


def test_a_wrong_shape_shows_shapes_and_no_passed_check(run_command, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(DENSE_BACKWARD.replace("axis=0", "axis=1"))
    outcome = run_command("gradcheck", f"--mine={path}", "--hint")
    first, *hints = outcome.out.splitlines()
    assert first == ('dense_backward: FAILED: d_params["bias"]: expected the shape (3,), got (4,)')
    assert len(hints) == 2 and not any("at most" in line or "inf" in line for line in hints)
    (row,) = json.loads(run_command("gradcheck", f"--mine={path}", "--json").out)
    assert (
        row["wrong"] == ['d_params["bias"]']
        and row["reason"] == "expected the shape (3,), got (4,)"
    )


def test_a_result_in_fewer_digits_is_called_rounded():
    def relu_backward(cache, dy):
        return jnp.where(cache > 0, dy, 0).astype("float32")

    verdict = jaxnets.judge(relu_backward, hint=True)
    assert verdict.hints[0] == "dx: right, but rounded to fewer digits than float64 has"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sign", "said"),
    [
        (1, "dz: the factor d_losses is missing"),
        (-1, "dz: the factor d_losses is missing, and the sign is wrong"),
    ],
)
def test_a_forgotten_gradient_from_above_is_the_first_hint(sign, said):
    def softmax_cross_entropy_backward(cache, d_losses):
        p, labels = cache
        return sign * (p - probabilities_of(labels, p.shape[-1], p.dtype))

    hints = jaxnets.judge(softmax_cross_entropy_backward, hint=True).hints
    assert hints[0].startswith(said)
    assert hints[-1].startswith("exact in 0 of 11 settings; relative errors: float64 ")
