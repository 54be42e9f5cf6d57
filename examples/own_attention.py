"""Attention by hand: a small vision transformer, with the gradient of softmax(Q Kᵀ / √d) V derived.

    M=--model=examples/own_attention.py
    jaxnets gradcheck $M                     is the derivation right?
    python train.py $M --gradients=manual    trains with it: accuracy 0.983 on MNIST

Each patch of 7 x 7 pixels becomes a token: a row of D numbers. An array of tokens is [B, 4, 4, D],
so Flax's convolution of 1 x 1 is a dense layer at each token. docs/backprop/attention.md computes
two tokens with a pencil. Sources: Vaswani et al. 2017, "Attention Is All You Need", section 3.2;
Dosovitskiy et al. 2021, "An Image Is Worth 16x16 Words", section 3.1.

In the shapes: B examples, T tokens, D features of a token, h heads of d = D / h features each.
"""

import math

import flax.linen as nn
import jax.numpy as jnp

from jaxnets import Chain, Domain, LayerRule, Residual, Setting, global_average_pool, register_rule

PROJECTIONS = ("query", "key", "value")


def attention_forward(q, k, v):
    """Averages the values, with separate weights for each query: out = softmax(Q Kᵀ / √d) V.

        s_ij = sum_c q_ic k_jc / √d        how well query i matches key j
        p_ij = e^s_ij / sum_m e^s_im       the weights of query i: softmax over the row
        o_ic = sum_j p_ij v_jc

    The sum in s has d terms. For q and k of variance 1 it has variance d, and 1 / √d makes it 1.
    Otherwise softmax would saturate, and its gradient would vanish.

    Q, K and V are [..., T, d]; V may have a different width. The cache is Q, K, V and P.
    """
    s = q @ _transposed(k) / math.sqrt(q.shape[-1])
    e = jnp.exp(s - s.max(-1, keepdims=True))  # The same p, and no exponential exceeds 1.
    p = e / e.sum(-1, keepdims=True)
    return p @ v, (q, k, v, p)


def attention_backward(cache, d_out):
    """Applies the chain rule to O = P V, P = softmax(S), S = Q Kᵀ / √d, from the last to the first.

    1. O = P V. v_jc reaches every o_ic, with the weight p_ij; p_ij reaches row i of O:

        dv_jc = sum_i p_ij do_ic           dV = Pᵀ dO
        dp_ij = sum_c do_ic v_jc           dP = dO Vᵀ

    2. P = softmax(S), row by row. s_ij raises p_ij and, through the sum, lowers its whole row:

        ∂p_im/∂s_ij = p_im (1[m = j] - p_ij)
        ds_ij = sum_m dp_im p_im (1[m = j] - p_ij)
              = p_ij (dp_ij - r_i),   r_i = sum_m dp_im p_im

    r_i is the mean of row i of dP under the weights: each row of dS adds up to 0.

    3. S = Q Kᵀ / √d. q_ic reaches row i of S, k_jc its column j:

        dq_ic = sum_j ds_ij k_jc / √d      dQ = dS K / √d
        dk_jc = sum_i ds_ij q_ic / √d      dK = dSᵀ Q / √d
    """
    q, k, v, p = cache
    dv = _transposed(p) @ d_out
    dp = d_out @ _transposed(v)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True))
    scaled = ds / math.sqrt(q.shape[-1])
    return scaled @ k, _transposed(scaled) @ q, dv


def _transposed(x):
    return x.swapaxes(-1, -2)


class SelfAttention(nn.Module):
    """The layer as written for Flax: [B, ..., D] -> [B, ..., D]; the tokens are along "..."."""

    heads: int

    @nn.compact
    def __call__(self, x):
        """Draws the four matrices [D, D] in the first call, and uses them in every call."""
        width = x.shape[-1]
        draw = nn.initializers.lecun_normal()
        matrices = {n: self.param(n, draw, (width, width)) for n in (*PROJECTIONS, "out")}
        tokens = x.reshape(x.shape[0], -1, width)
        by_head = (*tokens.shape[:2], self.heads, width // self.heads)
        q, k, v = ((tokens @ matrices[n]).reshape(by_head) for n in PROJECTIONS)
        out = nn.dot_product_attention(q, k, v).reshape(tokens.shape)  # Flax's own, by heads.
        return (out @ matrices["out"]).reshape(x.shape)


def self_attention_forward(params, x, *, heads):
    """Makes Q, K and V from the same tokens X, attends in each head, and mixes the heads.

        Q = X W_q,  K = X W_k,  V = X W_v      each [T, D], cut into h heads [T, d]
        Y = [O_1 ... O_h] W_o                  the heads side by side, [T, D]

    Args:
      params: {"query": W_q, "key": W_k, "value": W_v, "out": W_o}, each [D, D].
      x: X [B, ..., D].
      heads: h, a divisor of D.
    """
    tokens = x.reshape(x.shape[0], -1, x.shape[-1])
    qkv = (split(tokens @ params[name], heads) for name in PROJECTIONS)
    out, kept = attention_forward(*qkv)
    joined = join(out)
    return (joined @ params["out"]).reshape(x.shape), (params, tokens, joined, kept)


def self_attention_backward(cache, dy, *, heads, input_gradient=True):
    """Applies the chain rule to the three lines; cutting and joining only move numbers.

    dW_o = Oᵀ dY, dO = dY W_oᵀ            as in a dense layer, summed over all tokens
    dQ, dK, dV                            of each head, by attention_backward
    dW_q = Xᵀ dQ, dW_k = Xᵀ dK, dW_v = Xᵀ dV
    dX = dQ W_qᵀ + dK W_kᵀ + dV W_vᵀ      X reaches the loss on three paths, which add up
    """
    params, tokens, joined, kept = cache
    d_tokens = dy.reshape(tokens.shape)
    dq, dk, dv = map(join, attention_backward(kept, split(d_tokens @ params["out"].T, heads)))
    d_params = {
        "query": _summed(tokens, dq),
        "key": _summed(tokens, dk),
        "value": _summed(tokens, dv),
        "out": _summed(joined, d_tokens),
    }
    if not input_gradient:
        return d_params, None
    dx = dq @ params["query"].T + dk @ params["key"].T + dv @ params["value"].T
    return d_params, dx.reshape(dy.shape)


def split(x, heads):
    """[B, T, D] -> [B, h, T, d]."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def join(x):
    """[B, h, T, d] -> [B, T, D]."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def _summed(x, dz):
    """Xᵀ dZ over all tokens of all examples: they share the matrix."""
    return jnp.einsum("btd,bte->de", x, dz)


class Positions(nn.Module):
    """Adds a vector for each place, because attention does not see the order of tokens."""

    @nn.compact
    def __call__(self, x):
        """Draws the vectors in the first call, and adds them in every call."""
        return x + self.param("position", nn.initializers.normal(0.02), x.shape[1:])


def positions_backward(cache, dy, *, input_gradient=True):
    """y_bt = x_bt + e_t: dx_bt = dy_bt, and de_t = sum_b dy_bt, as all examples share e."""
    return {"position": dy.sum(0)}, dy


# For large tokens softmax is 0 or 1, and then dQ and dK are only rounding.
TOKENS = Domain(
    lambda batch, places, width, scale: Setting((batch, *places, width), scale=scale),
    {
        "batch": (1, 2, 3, 17),
        "places": ((1,), (2,), (5,), (2, 3), (4, 4)),
        "width": (4, 8, 12, 32),
        "scale": (0.1, 0.3),
    },
)
attention = LayerRule(
    self_attention_forward, self_attention_backward, layer=SelfAttention, inputs=("params", "x"),
    static=lambda layer: {"heads": layer.heads}, domain=TOKENS,
)  # fmt: skip
register_rule(attention)
positions = LayerRule(
    lambda params, x: (x + params["position"], None), positions_backward,
    layer=Positions, inputs=("params", "x"), domain=TOKENS,
)  # fmt: skip
register_rule(positions)

recipe = dict(epochs=12, learning_rate=0.003)
WIDTH, HEADS = 64, 4


def block():
    """A block of a transformer: tokens look at each other, then each is changed separately."""
    dense = [nn.Conv(2 * WIDTH, (1, 1)), nn.gelu, nn.Conv(WIDTH, (1, 1))]
    attend = [nn.LayerNorm(), SelfAttention(HEADS)]
    return [Residual(attend), Residual([nn.LayerNorm(), *dense])]


def model(num_classes):
    """The network: 16 patches, two blocks, the mean of the tokens."""
    patches = nn.Conv(WIDTH, (7, 7), strides=(7, 7), padding="VALID")  # [4, 4, 64]
    end = [nn.LayerNorm(), global_average_pool, nn.Dense(num_classes, name="logits")]
    return Chain([patches, Positions(), *block(), *block(), *end])
