"""What the judge says of a formula: right in any letters and order, or the first thing wrong."""

import pytest

from jaxnets.course.formulas.judge import first_wrong
from jaxnets.course.formulas.layers import LAYERS


@pytest.mark.parametrize("name", LAYERS)
def test_every_right_formula_is_right(name):
    layer = LAYERS[name]
    for text in layer.backward:
        assert first_wrong(layer, text.partition(" ")[0].partition("_")[0], text) == ""


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        ("dense", "dW[i,j] = sum(n) X[n,i] dZ[n,j]"),
        ("dense", "dW_dk = Σ_n dZ_nk X_nd"),
        (
            "dense",
            r"\frac{\partial L}{\partial X_{bd}} = \sum_k W_{dk} \, dZ_{bk}",
        ),
        ("dense", "db_k = Σ_b dZ_bk/2 + Σ_a dZ_ak/2"),
        ("sigmoid", "dx_bk = σ′(x_bk) dy_bk"),
        ("sigmoid", "dx_ij = dy_ij (y_ij - y_ij²)"),
        ("tanh", "dx_bk = tanh'(x_bk) dy_bk"),
        ("relu", "dx_bk = relu′(x_bk) dy_bk"),
        ("softmax_jacobian", "J_ij = p_i [i = j] - p_i p_j"),
        ("softmax", "dx_bk = Σ_i dp_bi p_bi (δ_ik - p_bk)"),
        ("softmax_cross_entropy", "dz_bk = dL_b (exp(z_bk) / (Σ_j exp(z_bj)) - y_bk)"),
        ("attention_scores", "dK_jc = 1/√D Σ_i Q_ic dS_ij"),
        ("conv", "dX_buvc = Σ_ijpqk [u = i + p] [v = j + q] dZ_bijk W_pqck"),
    ],
)
def test_right_formulas_in_unusual_forms_are_right(layer, text):
    layer = LAYERS[layer]
    assert any(not first_wrong(layer, name, text) for name in layer.gradients)


@pytest.mark.parametrize(
    ("layer", "name", "text", "said"),
    [
        (
            "dense",
            "dW",
            "dW_dk = X_bd dZ_bk",
            "b is on the right but neither summed nor on the left",
        ),
        ("dense", "dX", "dX_bd = Σ_dk dZ_bk W_dk", "you sum over d, but d names the entry of dX"),
        ("dense", "dW", "dW_kd = Σ_b X_bd dZ_bk", "this is dWᵀ: its first index is d"),
        (
            "dense",
            "dW",
            "dW_dk = 1/B Σ_b X_bd dZ_bk",
            "a factor of B too small: a mean in place of a sum",
        ),
        ("dense", "dW", "dW_dk = Σ_ab X_ad dZ_bk", "X and dZ share no index: which one is summed?"),
        ("dense", "dW", "dW_dk = dW_dk", "unknown name dW"),
        ("dense", "dW", "dW_dk = Σ_b X_bd dZ_bk ∂L/∂W_dk", "unknown name dW"),
        ("dense", "dW", "dW_dk = 2 Σ_b X_bd dZ_bk", "a factor of 2 too large"),
        ("dense", "dW", "dW_dk = -Σ_b X_bd dZ_bk", "the sign is wrong"),
        ("dense", "dX", "dX_bd = Σ_k dZ_bk W_kd", "k counts K in dZ_bk, but D in W_kd"),
        ("dense", "dX", "dX_bd = dZ_bd", "d counts K on the right, but D in dX"),
        ("dense", "db", "db_k = Σ_b dZ_bk D/K", "right for a square input only"),
        ("dense", "db", "dW_dk = Σ_b X_bd dZ_bk", "expected a formula of db, got one of dW"),
        ("softmax_jacobian", "J", "J_ij = -p_i p_j", "right but for δ: what if i = j?"),
        ("softmax_jacobian", "J", "J_ab = p_a - p_a p_b", "δ is missing"),
        ("softmax", "dx", "dx_bk = p_bk dp_bk", "a term is missing"),
        ("softmax", "dx", "dx_bk = p_bk (dp_bk + Σ_j dp_bj p_bj)", "the sign of a term is wrong"),
        ("relu", "dx", "dx_bk = dy_bk [x_bk ≥ 0]", "right, but not at the kink: > or ≥?"),
        ("relu", "dx", "dx_bk = dy_bk", "a condition is missing"),
        ("attention_scores", "dQ", "dQ_ic = Σ_j dS_ij K_jc", "a factor of √D too large"),
        ("attention", "dS", "dS_ij = P_ij dP_ij", "a term is missing"),
        ("squared_error", "dp", "dp_bk = 2 (p_bk - y_bk) dL_b", "a factor of K too large"),
        ("tanh", "dx", "dx_bk = dy_bk (1 - y_bk)", "entries are wrong, the first at"),
    ],
)
def test_a_wrong_formula_gets_its_sentence(layer, name, text, said):
    assert said in first_wrong(LAYERS[layer], name, text)
