"""Formulas in index notation: how they are read, and what they are worth."""

import numpy as np
import pytest

from jaxnets.course.formulas.parser import FormulaError, Names, parse
from jaxnets.course.formulas.values import MOST_NUMBERS, TooLargeError, Values, value_of

RANKS = {"X": 2, "W": 2, "b": 1, "dZ": 2, "dW": 2, "dX": 2, "db": 1, "x̂": 2, "dγ": 1, "I": 2}
NAMES = Names(RANKS, frozenset({"B", "D", "K", "s", "ε"}))
SIZES = {"b": 3, "d": 5, "k": 4, "e": 5, "p": 2, "i": 3}
random = np.random.default_rng(0)
ARRAYS = {
    "X": random.standard_normal((3, 5)),
    "W": random.standard_normal((5, 4)),
    "b": random.standard_normal(4),
    "dZ": random.standard_normal((3, 4)),
    "x̂": random.standard_normal((3, 4)),
    "I": random.standard_normal((3, 7)),
}
VALUES = Values(ARRAYS, {"B": 3, "D": 5, "K": 4, "s": 2, "ε": 0.5}, SIZES)
X, W, b, dZ, xhat, image = ARRAYS.values()


def computed(text):
    return value_of(parse(text, NAMES), VALUES)


@pytest.mark.parametrize(
    "text",
    [
        "dW_dk = Σ_b X_bd dZ_bk",
        "dW[d,k] = sum(b) X[b,d] dZ[b,k]",
        "dW[d, k]=sum_b X[b, d]*dZ[b, k]",
        r"dW_{dk} = \sum_b X_{bd} dZ_{bk}",
        r"dW_{d,k} = \sum_{b} X_{bd}\,\cdot dZ_{bk}",
        r"\frac{\partial L}{\partial W_{dk}} = \sum_b X_{bd} \frac{\partial L}{\partial Z_{bk}}",
        "∂L/∂W_dk = ∑_b X_bd · ∂L/∂Z_bk",
        "dL/dW_dk = Σ_b dL/dZ_bk X_bd",
        "dW_dk = (Σ_b (X_bd × dZ_bk))",
        "dW_dk = Σ_be X_bd δ_de dZ_bk",
        "dW_dk = Σ_b Σ_e X_be δ[d,e] dZ_bk",
        "dW_dk = Σ_b X_bd dZ_bk/2 + 1/2 Σ_b X_bd dZ_bk",
    ],
)
def test_one_formula_is_written_in_many_ways(text):
    np.testing.assert_allclose(computed(text), X.T @ dZ, rtol=1e-12)


FIRST = np.arange(3)[:, None]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("db_k = 1/B Σ_b dZ_bk", dZ.mean(0)),
        ("db_k = Σ_b 1", np.full(4, 3.0)),
        ("dX_bd = exp(-X_bd) + log(X_bd²)", np.exp(-X) + np.log(X**2)),
        ("dX_bd = max(X_bd,0) - min(X_bd, ε)", np.maximum(X, 0) - np.minimum(X, 0.5)),
        ("dX_bd = [X_bd > 0] X_bd", X * (X > 0)),
        ("dX_bd = e^{X_bd} / Σ_e e^X_be", np.exp(X) / np.exp(X).sum(1, keepdims=True)),
        ("dX_bd = σ'(X_bd)", np.exp(-X) / (1 + np.exp(-X)) ** 2),
        ("dX_bd = tanh′(X_bd) - 1", -(np.tanh(X) ** 2)),
        ("dX_bd = relu(X_bd) relu′(X_bd)", np.maximum(X, 0)),
        ("dX_bd = (X_bd² + ε)^(-1/2) √(X_bd^2 + ε)", np.ones((3, 5))),
        ("dX_bd = 2 X_bd⁻¹", 2 / X),
        (r"d\gamma_k = \sum_b dZ_{bk} \hat{x}_{bk}", (dZ * xhat).sum(0)),
        ("dgamma_k = Σ_b dZ_bk xhat_bk", (dZ * xhat).sum(0)),
        ("db_i = max_d X_id", X.max(1)),
        (
            "db_i = max(p) I_i,s·i+p",
            np.maximum(image[[0, 1, 2], [0, 2, 4]], image[[0, 1, 2], [1, 3, 5]]),
        ),
        ("dX_bd = I_b,d+3", np.pad(image, ((0, 0), (0, 1)))[:, 3:8]),  # Beyond its end it is 0.
        ("dX_bd = I[b,2d-1]", np.pad(image, ((0, 0), (1, 5)))[:, 0:10:2]),
        ("dX_bd = [b ≤ d < b + 2]", (np.arange(5) >= FIRST) * (np.arange(5) < FIRST + 2.0)),
        ("db_d = W_dd", None),
    ],
)
def test_formulas_are_what_numpy_computes(text, wanted):
    if wanted is None:  # A diagonal as long as the letter's range does not fit.
        wanted = np.diag(np.pad(W, ((0, 0), (0, 1))))
    np.testing.assert_allclose(computed(text), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dW_dk = Σ_b X_bd dY_bk", "unknown name dY"),
        ("dW_dk = Σ_b X_b dZ_bk", "X has 2 indices, got 1, at the arrow: dW_dk = Σ_b →X_b dZ_bk"),
        (
            "dW_dk = Σ_b X_bd dZ_bk)",
            "expected the end, got ), at the arrow: dW_dk = Σ_b X_bd dZ_bk→)",
        ),
        ("dW_dk = Σ_b (X_bd dZ_bk", "expected ), at the arrow: dW_dk = Σ_b (X_bd dZ_bk→"),
        ("dW = Xᵀ dZ", "index notation has no ᵀ: exchange the indices, at the arrow: dW = X→ᵀ dZ"),
        ("dW = X^T dZ", "index notation has no ᵀ"),
        ("dW_dk =", "nothing is on the right, at the arrow: dW_dk =→"),
        ("dW_dk = 2 +", "expected a factor, got the end, at the arrow: dW_dk = 2 +→"),
        ("dW_dk = 3 $ 4", "what does $ mean?, at the arrow: dW_dk = 3 →$ 4"),
        ("dW", "expected =, at the arrow: dW→"),
        ("dW_dd = 2", "each index on the left is a different letter"),
        ("dW_dk = 2 3", "two numbers in a row, at the arrow: dW_dk = 2 →3"),
        ("dW_dk = exp(X_dk, 2)", "exp takes 1 numbers, got 2"),
        ("dX_bd = X_bd + b", "b has 1 indices, got 0, at the arrow: dX_bd = X_bd + →b"),
        ("dX_bd = i X_bd", "unknown name i"),
        ("dW_dk = δ_d", "δ has 2 indices, got 1"),
        ("dW_dk = Σ_bX_bd dZ_bk", "after the letters of a sum stand a space"),
        ("dW_dk = " + "(" * 500, "too many brackets"),
        ("dW_dk = " + "√" * 500, "too many brackets"),
        ("dW_dk = " + "Σ_a " * 200, "too many brackets"),
        ("dW_dk = " + "2+" * 1000, "expected at most 1000 characters"),
        ("dW_dk = X_bd dZ_bk", "b is on the right but neither summed nor on the left"),
        ("dX_bd = Σ_kd dZ_bk W_dk", "you sum over d, but d names the entry of dX"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_place(text, said):
    with pytest.raises(FormulaError) as caught:
        parse(text, NAMES)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_formula_of_anyone_cannot_fill_the_memory_or_never_end():
    assert MOST_NUMBERS < 10**4 * 10**4
    values = Values({}, {}, {"b": 10**4, "d": 10**4})
    with pytest.raises(TooLargeError):
        value_of(parse("db_b = Σ_d [b = d]", NAMES), values)
    with np.errstate(over="ignore"):
        assert np.isinf(computed("db_k = 9^(9^(9^9))")).all()
