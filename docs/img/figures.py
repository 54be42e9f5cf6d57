"""Draws the figures of docs/img, in both languages: `python docs/img/figures.py`.

`python docs/img/figures.py RUNS` first reads the losses of the runs of COMMAND in that folder.
Each figure is one function below. Its numbers come from the layer pairs of `jaxnets.backprop`, or
from a run; its description tells them to those who cannot see it, and is the page's alt text.
"""

import json
import runpy
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import forward_backward
import jax.numpy as jnp
import numpy as np
from forward_backward import number

from jaxnets.backprop.average_pool import average_pool_backward, average_pool_forward
from jaxnets.backprop.batch_norm import batch_norm_backward, batch_norm_forward
from jaxnets.backprop.convolution import conv_backward, conv_forward
from jaxnets.backprop.dense import dense_forward
from jaxnets.backprop.pooling import max_pool_backward, max_pool_forward
from jaxnets.backprop.relu import relu_forward
from jaxnets.backprop.windows import window_slices
from jaxnets.data.load import load_dataset
from jaxnets.drawing.charts import Caption, Scale, Series, curves
from jaxnets.drawing.svg import Figure
from jaxnets.models.chain import layer_name
from jaxnets.models.cnn import cnn
from jaxnets.models.layers import MaxPool

FOLDER = Path(__file__).parent
WIDTH, SIZE, LINE = 360, 14, 19  # As wide as a phone's page; a letter's size, a line's height.
VALUE, GRADIENT, PATHS = "c1", "bad", ("c1", "c2", "c3", "c4")
Cells = Iterable[tuple[int, ...]]


# Convolution: the example of docs/backprop/convolution.md, "Two dimensions".
X = jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1)
KERNEL = jnp.arange(1.0, 5.0).reshape(2, 2, 1, 1)
SLIDING: dict[str, Any] = {"strides": (1, 1), "padding": "VALID", "groups": 1}
WINDOW = [(0, 0), (0, 1), (1, 0), (1, 1)]  # The places of the first window, and of all windows.


class Convolved(NamedTuple):
    """Both passes of the example; every array without its batch and its channel."""

    x: np.ndarray
    kernel: np.ndarray
    z: np.ndarray
    dz: np.ndarray
    d_kernel: np.ndarray
    dx: np.ndarray
    parts: list[np.ndarray]  # Of dx, what each dz gives.


@cache
def convolved() -> Convolved:
    """Both passes of the example, and the backward pass of each dz alone."""
    z, kept = conv_forward({"kernel": KERNEL}, X, **SLIDING)
    dz = jnp.ones_like(z)
    d_params, dx = conv_backward(kept, dz, **SLIDING)
    alone = [jnp.zeros_like(dz).at[0, i, j, 0].set(dz[0, i, j, 0]) for i, j in WINDOW]
    parts = [conv_backward(kept, one, **SLIDING)[1] for one in alone]
    planes = [np.asarray(array)[0, :, :, 0] for array in (X, z, dz, dx, *parts)]
    kernels = [np.asarray(array)[:, :, 0, 0] for array in (KERNEL, d_params["kernel"])]
    x, z, dz, dx, *parts = planes
    return Convolved(x, kernels[0], z, dz, kernels[1], dx, parts)


def convolution(zh: bool) -> Figure:
    """A window forward, and where each dz goes backward."""
    x, kernel, z, dz, d_kernel, dx, parts = convolved()
    first = x[:2, :2].ravel()
    terms = " + ".join(f"{number(a)}·{number(b)}" for a, b in zip(first, kernel.flat, strict=True))
    met = " + ".join(number(a) for a in first)
    middle = " + ".join(number(part[1, 1]) for part in parts)
    title = ("Convolution, forward and backward", "卷积的前向传播与反向传播")[zh]
    alt = (
        f"X = {rows(x)} and W = {rows(kernel)}. The upper left window gives {terms} = "
        f"{number(z[0, 0])}; all four give z = {rows(z)}. Backward every dz is 1. Each dz puts W, "
        f"times dz, where its window lay. The sum is dX = {rows(dx)}; the middle pixel gets "
        f"{middle} = {number(dx[1, 1])}. dW = {rows(d_kernel)}; the first weight gets {met} = "
        f"{number(d_kernel[0, 0])}.",
        f"X = {rows(x)}，W = {rows(kernel)}。左上角的窗口给出 {terms} = {number(z[0, 0])}；"
        f"四个窗口给出 z = {rows(z)}。反向传播时每个 dz 都是 1。每个 dz 把乘以 dz 的 W "
        f"放回它的窗口所在的位置。相加得 dX = {rows(dx)}；中间的像素得到 {middle} = "
        f"{number(dx[1, 1])}。dW = {rows(d_kernel)}；第一个权重得到 {met} = "
        f"{number(d_kernel[0, 0])}。",
    )[zh]
    figure = Figure("convolution", WIDTH, 462, title, alt)
    headline(figure, 18, ("↓ forward: one window at a time", "↓ 前向传播：逐个窗口")[zh], VALUE)
    for left, name, values in ((12, "X", x), (150, "W", kernel), (256, "z", z)):
        write(figure, left, 42, name, "soft")
        table(figure, left, 50, values, VALUE, marked={"X": WINDOW, "z": [(0, 0)]}.get(name, ()))
    sign(figure, 130, 87, "∗")
    sign(figure, 236, 87, "=")
    write(figure, 150, 140, f"{terms} = {number(z[0, 0])}", VALUE, size=13)
    back = ("↑ backward: dz times W, at its window", "↑ 反向传播：每个 dz 乘 W，放回窗口处")[zh]
    headline(figure, 184, back, GRADIENT)
    for index, ((i, j), part) in enumerate(zip(WINDOW, parts, strict=True)):
        left = 12 + 88 * index
        label = f"dz{subscript(i + 1)}{subscript(j + 1)} = {number(dz[i, j])}"
        write(figure, left, 208, label, GRADIENT, size=13)
        places = [(i + a, j + b) for a, b in WINDOW]
        shown = np.full(part.shape, np.nan)
        for place in places:
            shown[place] = part[place]
        table(figure, left, 216, shown, GRADIENT, side=24, marked=[(1, 1)])
        if index:
            sign(figure, left - 8, 257, "+")
    write(figure, 12, 320, "= dX", "soft")
    table(figure, 12, 328, dx, GRADIENT, marked=[(1, 1)])
    write(figure, 130, 320, ("the middle pixel:", "中间的像素：")[zh], "soft", size=13)
    write(figure, 130, 340, f"{middle} = {number(dx[1, 1])}", GRADIENT, size=13)
    write(figure, 130, 376, "dW", "soft")
    table(figure, 130, 384, d_kernel, GRADIENT, marked=[(0, 0)])
    words = ("the first weight", "第一个权重"), ("met the marked X:", "乘过左上角的 X：")
    for line, word in enumerate(words):
        write(figure, 206, 396 + 18 * line, word[zh], "soft", size=13)
    write(figure, 206, 434, f"{met} = {number(d_kernel[0, 0])}", GRADIENT, size=13)
    return figure


def im2col(zh: bool) -> Figure:
    """The same convolution as one matrix product."""
    x, kernel, z, dz, d_kernel, dx, _ = convolved()
    slices = window_slices(X, (2, 2), (1, 1), [(0, 0), (0, 0)], fill=0)
    windows = np.concatenate([np.asarray(one) for one in slices], axis=-1).reshape(4, 4)
    column = kernel.reshape(4, 1)
    d_windows = dz.reshape(4, 1) @ column.T
    title = ("im2col: one matrix product", "im2col：一个矩阵乘积")[zh]
    alt = (
        f"Each window of X = {rows(x)} is a row of a matrix: {rows(windows)}. Times W as a "
        f"column, {line_of(kernel)}, it gives z = {line_of(z)}. Backward dz = {line_of(dz)} times "
        f"the row W gives {rows(d_windows)}, whose rows go back to their windows and are added: "
        f"dX = {rows(dx)}. dW = {line_of(d_kernel)} is the transposed matrix times dz.",
        f"X = {rows(x)} 的每个窗口是矩阵的一行：{rows(windows)}。乘以写成一列的 W，"
        f"{line_of(kernel)}，得 z = {line_of(z)}。反向传播时 dz = {line_of(dz)} 乘以写成一行的 W，"
        f"得 {rows(d_windows)}；各行放回自己的窗口并相加：dX = {rows(dx)}。dW = "
        f"{line_of(d_kernel)} 是转置的矩阵乘以 dz。",
    )[zh]
    figure = Figure("im2col", WIDTH, 362, title, alt)
    headline(
        figure, 18, ("↓ forward: every window is a row", "↓ 前向传播：每个窗口一行")[zh], VALUE
    )
    names = ("X", ("windows", "窗口")[zh], "W", "z")
    places = (12, 120, 252, 306)
    for left, name in zip(places, names, strict=True):
        write(figure, left, 42, name, "soft", size=13)
    table(figure, 12, 50, x, VALUE, side=26, marked=WINDOW)
    table(figure, 120, 50, windows, VALUE, side=26, marked=[(0, n) for n in range(4)])
    table(figure, 252, 50, column, VALUE, side=26)
    table(figure, 306, 50, z.reshape(4, 1), VALUE, side=34, high=26, marked=[(0, 0)])
    arrow(figure, 94, 63, 116, 63, VALUE)
    sign(figure, 238, 107, "·")
    sign(figure, 292, 107, "=")
    back = ("↑ backward: each row back to its window", "↑ 反向传播：各行回到自己的窗口")[zh]
    headline(figure, 190, back, GRADIENT)
    names = ("dz", "W", ("rows", "各行")[zh], "dX")
    for left, name in zip((12, 54, 186, 288), names, strict=True):
        write(figure, left, 214, name, "soft", size=13)
    table(figure, 12, 222, dz.reshape(4, 1), GRADIENT, side=26)
    table(figure, 54, 222, column.T, VALUE, side=26)
    table(
        figure, 186, 222, d_windows, GRADIENT, side=20, high=26, marked=[(0, n) for n in range(4)]
    )
    table(figure, 288, 222, dx, GRADIENT, side=22, high=26, marked=WINDOW)
    sign(figure, 46, 240, "·")
    sign(figure, 172, 240, "=")
    arrow(figure, 268, 235, 285, 235, GRADIENT)
    product = ("dW = windowsᵀ · dz", "dW = 窗口ᵀ · dz")[zh]
    write(figure, 12, 352, f"{product} = {line_of(d_kernel)}", GRADIENT, size=13)
    return figure


# Pooling: the examples of docs/backprop/pooling.md, windows of three, one apart.
POOLED: dict[str, Any] = {"window": (1, 3), "strides": (1, 1)}


class Pooled(NamedTuple):
    """Both passes of four numbers through two windows."""

    x: np.ndarray
    y: np.ndarray
    dy: np.ndarray
    dx: np.ndarray
    parts: list[np.ndarray]  # Of dx, what each window gives.
    winners: list[int]  # Of a max pool: its cache.


@cache
def pooled(kind: str) -> Pooled:
    """The example of "max" or "average"."""
    static = POOLED | ({"padding": "VALID"} if kind == "max" else {})
    forward, backward = {
        "max": (max_pool_forward, max_pool_backward),
        "average": (average_pool_forward, average_pool_backward),
    }[kind]
    given = {"max": [1.0, 5.0, 2.0, 4.0], "average": [1.0, 5.0, 3.0, 4.0]}[kind]
    back = {"max": [10.0, 1.0], "average": [3.0, 6.0]}[kind]
    x, dy = jnp.array(given).reshape(1, 1, 4, 1), jnp.array(back).reshape(1, 1, 2, 1)
    y, kept = forward(x, **static)
    alone = [dy.at[0, 0, 1 - window, 0].set(0) for window in range(2)]
    dx, *parts = (np.asarray(backward(kept, d, **static)).ravel() for d in (dy, *alone))
    winners = np.asarray(kept[0]).ravel().tolist() if kind == "max" else []
    return Pooled(*(np.asarray(a).ravel() for a in (x, y, dy)), dx, parts, winners)


def max_pool(zh: bool) -> Figure:
    """Two windows with one winner, and the way of the gradient."""
    found = pooled("max")
    x, y, dy, dx, _, winners = found
    best = winners[0]
    total = " + ".join(number(value) for value in dy)
    title = ("Max pool: the winner gets the gradient", "最大池化：胜者得到梯度")[zh]
    alt = (
        f"X = {line_of(x)} under two windows of three gives y = {line_of(y)}: {number(x[best])} "
        f"wins both, as element {winners[0]} of the first window and element {winners[1]} of the "
        f"second. Backward dy = {line_of(dy)} goes to that winner alone: dX = {line_of(dx)}, with "
        f"{total} = {number(dx[best])}.",
        f"X = {line_of(x)} 经过两个长度为 3 的窗口，得 y = {line_of(y)}：{number(x[best])} "
        f"在两个窗口中都获胜，它是第一个窗口的元素 {winners[0]}、第二个窗口的元素 {winners[1]}。"
        f"反向传播时 dy = {line_of(dy)} 只传给这个胜者：dX = {line_of(dx)}，其中 {total} = "
        f"{number(dx[best])}。",
    )[zh]
    notes = (
        ("cache: the winner is element", f"{winners[0]} of window 1, {winners[1]} of window 2"),
        ("缓存：胜者在窗口 1 中是元素", f"{winners[0]}，在窗口 2 中是元素 {winners[1]}"),
    )[zh]
    return _pool("max-pool", title, alt, found, notes, f"{total} = {number(dx[best])}", zh)


def average_pool(zh: bool) -> Figure:
    """Two windows that share their gradients out."""
    found = pooled("average")
    x, y, dy, dx, parts, _ = found
    shares = [number(part.max()) for part in parts]
    title = ("Average pool: equal shares", "平均池化：平分梯度")[zh]
    alt = (
        f"X = {line_of(x)} under two windows of three gives the means y = {line_of(y)}. Backward "
        f"dy = {line_of(dy)}: each element of the first window gets {number(dy[0])} / 3 = "
        f"{shares[0]}, each of the second {number(dy[1])} / 3 = {shares[1]}. Both windows see the "
        f"two numbers in the middle: dX = {line_of(dx)}.",
        f"X = {line_of(x)} 经过两个长度为 3 的窗口，得平均值 y = {line_of(y)}。反向传播时 dy = "
        f"{line_of(dy)}：第一个窗口的每个元素得到 {number(dy[0])} / 3 = {shares[0]}，"
        f"第二个窗口的每个元素得到 {number(dy[1])} / 3 = {shares[1]}。中间两个数在两个窗口中：dX "
        f"= {line_of(dx)}。",
    )[zh]
    notes = (("each element counts", "one third"), ("每个元素", "各占三分之一"))[zh]
    sums = f"{shares[0]} + {shares[1]} = {number(dx[1])}"
    return _pool("average-pool", title, alt, found, notes, sums, zh)


def _pool(
    name: str, title: str, alt: str, found: Pooled, notes: tuple[str, str], sums: str, zh: bool
) -> Figure:
    """The numbers from above: X, y, dy, dX; every edge with a gradient is drawn in full."""
    figure, side, left = Figure(name, WIDTH, 332, title, alt), 56, 60
    centres = [left + side * (n + 0.5) for n in range(4)]
    below = [centres[1], centres[2]]  # Of each window the middle.
    headline(figure, 18, ("↓ forward", "↓ 前向传播")[zh], VALUE)
    headline(figure, 18, ("then backward ↓", "再反向传播 ↓")[zh], GRADIENT, end=True)
    for y, label in ((50, "X"), (136, "y"), (172, "dy"), (276, "dX")):
        write(figure, 20, y + 5, label, "soft")
    for window, part in enumerate(found.parts):
        for element in range(3):
            at = centres[window + element]
            counts = part[window + element] != 0
            look = (
                {"stroke": VALUE, "stroke_width": 2}
                if counts
                else {"stroke": "soft", "stroke_dasharray": "2 3"}
            )
            figure.line(at, 64, below[window], 120, **look)
            if counts:
                arrow(figure, below[window], 188, at, 258, GRADIENT)
    for values, y, colour, x in (
        (found.x, 36, VALUE, left),
        (found.y, 122, VALUE, left + side),
        (found.dy, 158, GRADIENT, left + side),
        (found.dx, 260, GRADIENT, left),
    ):
        marked = [(0, n) for n in found.dx.nonzero()[0]] if len(values) == 4 else ()
        table(figure, x, y, values[None], colour, side=side, high=28, marked=marked)
    for line, note in enumerate(notes):
        write(figure, left, 308 + 18 * line, note, "soft", size=13)
    write(figure, WIDTH - 12, 326, sums, GRADIENT, anchor="end", size=13)
    return figure


# Batch norm: the example of docs/backprop/norms-dropout.md.
NORMALIZED, COMING = (1.0, 2.0, 6.0), (2.0, 0.0, 0.0)
EPSILON = 1e-5


@cache
def normalized() -> dict[str, np.ndarray]:
    """Every number of the example; a gradient's name begins with d.

    The pair gives y, dγ, dβ and dx. What lies between follows the derivation in its docstring.
    """
    params = {name: jnp.ones(1) for name in ("scale", "bias", "mean", "var")}
    x, dy = np.array(NORMALIZED, np.float32), np.array(COMING, np.float32)
    y, kept = batch_norm_forward(params, jnp.asarray(x)[:, None], jnp.ones(3), epsilon=EPSILON)
    d_params, dx = batch_norm_backward(kept, jnp.asarray(dy)[:, None], epsilon=EPSILON)
    assert dx is not None
    mean, r = (np.asarray(kept[n])[0] for n in (3, 4))
    found = {
        "x": x,
        "mu": mean,
        "r": r,
        "v": 1 / r**2 - np.float32(EPSILON),
        "normal": r * (x - mean),
    }
    found |= {"y": np.asarray(y)[:, 0], "dy": dy, "dx": np.asarray(dx)[:, 0], "dnormal": dy}
    found |= {"dgamma": np.asarray(d_params["scale"])[0], "dbeta": np.asarray(d_params["bias"])[0]}
    found["dr"] = (dy * (x - mean)).sum()
    found["dv"] = -(r**3) / 2 * found["dr"]
    found["dmu"] = -r * dy.sum()
    found["by_normal"], found["by_mu"] = r * dy, np.full(3, found["dmu"] / 3)
    found["by_v"] = found["dv"] * 2 * (x - mean) / 3
    return found


def batch_norm(zh: bool) -> Figure:
    """The graph, and the three paths on which the gradient comes back to x."""
    found = normalized()
    text = {name: line_of(value) if value.ndim else number(value) for name, value in found.items()}
    title = ("Batch norm: three paths back to x", "批归一化：梯度回到 x 的三条路径")[zh]
    paths = f"{text['by_normal']}, {text['by_mu']}, {text['by_v']}"
    alt = (
        f"x = {text['x']} has the mean μ = {text['mu']}, the variance σ² = {text['v']} and r = "
        f"{text['r']}. x̂ = {text['normal']}, and with γ = β = 1, y = {text['y']}. Backward dy = "
        f"{text['dy']} gives dγ = {text['dgamma']}, dβ = {text['dbeta']}, dx̂ = "
        f"{text['dnormal']}, dr = {text['dr']}, dσ² = {text['dv']}, dμ = {text['dmu']}. Three "
        f"paths lead to x, by x̂, by μ and by σ²: {paths}. Their sum is dx = {text['dx']}.",
        f"x = {text['x']} 的均值 μ = {text['mu']}，方差 σ² = {text['v']}，r = {text['r']}。x̂ = "
        f"{text['normal']}，γ = β = 1 时 y = {text['y']}。反向传播时 dy = {text['dy']} 给出 dγ = "
        f"{text['dgamma']}，dβ = {text['dbeta']}，dx̂ = {text['dnormal']}，dr = {text['dr']}，dσ² "
        f"= {text['dv']}，dμ = {text['dmu']}。回到 x 的三条路径依次经过 x̂、μ、σ²：{paths}。"
        f"它们的和是 dx = {text['dx']}。",
    )[zh]
    figure = Figure("batch-norm", WIDTH, 500, title, alt)
    headline(figure, 18, ("↓ forward", "↓ 前向传播")[zh], VALUE)
    headline(figure, 18, ("↑ backward", "↑ 反向传播")[zh], GRADIENT, end=True)
    left, right = (8, 200), (236, 116)  # Where a column begins, and how wide it is.
    edges = [
        (30, 80, 30, 338),  # x to x̂
        (208, 54, 286, 96),  # x to μ
        (208, 70, 246, 184),  # x to σ²
        (318, 142, 318, 184),  # μ to σ²
        (294, 230, 294, 272),  # σ² to r
        (244, 142, 196, 338),  # μ to x̂
        (236, 312, 208, 346),  # r to x̂
        (108, 384, 108, 426),  # x̂ to y
        (236, 449, 208, 449),  # γ and β to y
    ]
    for edge in edges:
        arrow(figure, *edge, "soft")
    boxes = [
        (left, 34, f"x = {text['x']}", f"dx = {text['dx']}"),
        (right, 96, f"μ = {text['mu']}", f"dμ = {text['dmu']}"),
        (right, 184, f"σ² = {text['v']}", f"dσ² = {text['dv']}"),
        (right, 272, f"r = {text['r']}", f"dr = {text['dr']}"),
        (left, 338, f"x̂ = {text['normal']}", f"dx̂ = {text['dnormal']}"),
        (left, 426, f"y = {text['y']}", f"dy = {text['dy']}"),
    ]
    for (at, wide), y, value, gradient in boxes:
        figure.rect(at, y, wide, 46, fill="card", stroke="soft", rx=8)
        write(figure, at + 8, y + 19, value, VALUE, size=12.5)
        write(figure, at + 8, y + 38, gradient, GRADIENT, size=12.5)
    figure.rect(right[0], 408, right[1], 82, fill="card", stroke="soft", rx=8)
    for line, (content, colour) in enumerate(
        [("γ = 1", VALUE), (f"dγ = {text['dgamma']}", GRADIENT)]
        + [("β = 1", VALUE), (f"dβ = {text['dbeta']}", GRADIENT)]
    ):
        write(figure, right[0] + 8, 427 + 19 * line, content, colour, size=12.5)
    write(
        figure,
        38,
        104,
        ("dx is the sum of three ways:", "dx 是三条路径之和：")[zh],
        "soft",
        size=12.5,
    )
    for line, (via, name) in enumerate((("x̂", "by_normal"), ("μ", "by_mu"), ("σ²", "by_v"))):
        way = (f"{via}: {text[name]}", f"{via}：{text[name]}")[zh]
        write(figure, 38, 124 + 19 * line, way, GRADIENT, size=12.5)
    return figure


# Attention: the example of docs/backprop/attention.md, two tokens of four features.
QUERIES = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]], np.float32)
KEYS = np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]], np.float32)
VALUES = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
D_OUT = np.eye(2, dtype=np.float32)


@cache
def attended() -> dict[str, np.ndarray]:
    """Every number of the example; a gradient's name begins with d.

    The pair gives the output, P, dQ, dK and dV. What lies between follows the derivation in its
    docstring.
    """
    own = runpy.run_path(str(FOLDER.parents[1] / "examples" / "own_attention.py"))
    out, kept = own["attention_forward"](*map(jnp.asarray, (QUERIES, KEYS, VALUES)))
    gradients = own["attention_backward"](kept, jnp.asarray(D_OUT))
    weights = np.asarray(kept[3])
    found = {"Q": QUERIES, "K": KEYS, "V": VALUES, "P": weights, "O": np.asarray(out)}
    found["S"] = QUERIES @ KEYS.T / np.sqrt(np.float32(QUERIES.shape[1]))
    found |= {"dO": D_OUT, "dP": D_OUT @ VALUES.T}
    found["r"] = (found["dP"] * weights).sum(1, keepdims=True)
    found["dS"] = weights * (found["dP"] - found["r"])
    names = ("dQ", "dK", "dV")
    return found | {name: np.asarray(d) for name, d in zip(names, gradients, strict=True)}


def attention(zh: bool) -> Figure:
    """Two tokens forward and backward, the row of the first query marked."""
    found = attended()
    text = {name: rows(value) for name, value in found.items()}
    title = ("Attention, forward and backward", "注意力的前向传播与反向传播")[zh]
    alt = (
        f"Two tokens of four features, √d = 2. Q = {text['Q']} and K = {text['K']} give the scores "
        f"S = Q Kᵀ / 2 = {text['S']}. Softmax of each row gives the weights P = {text['P']}. With "
        f"V = {text['V']} the output is O = P V = {text['O']}. Backward dO = {text['dO']} gives "
        f"dV = Pᵀ dO = {text['dV']} and dP = dO Vᵀ = {text['dP']}. The means of its rows under the "
        f"weights are r = {text['r']}, and dS = P (dP − r) = {text['dS']}. Then dQ = dS K / 2 = "
        f"{text['dQ']} and dK = dSᵀ Q / 2 = {text['dK']}. The row of query 1 is marked.",
        f"两个词元，各四个特征，√d = 2。Q = {text['Q']} 与 K = {text['K']} 给出分数 S = Q Kᵀ / 2 = "
        f"{text['S']}。对每一行取 softmax，得权重 P = {text['P']}。V = {text['V']} 时输出 O = P V "
        f"= {text['O']}。反向传播时 dO = {text['dO']} 给出 dV = Pᵀ dO = {text['dV']} 和 dP = "
        f"dO Vᵀ = {text['dP']}。dP 各行按权重的平均值是 r = {text['r']}，dS = P (dP − r) = "
        f"{text['dS']}。于是 dQ = dS K / 2 = {text['dQ']}，dK = dSᵀ Q / 2 = {text['dK']}。"
        "查询 1 的行有底色。",
    )[zh]
    figure = Figure("attention", WIDTH, 594, title, alt)
    headline(
        figure, 18, ("↓ forward: two tokens, √d = 2", "↓ 前向传播：两个词元，√d = 2")[zh], VALUE
    )
    back = ("↓ then backward", "↓ 再反向传播")[zh]
    headline(figure, 238, back, GRADIENT)
    # The name, the text above the table, its place, and how wide a cell is.
    tables = [
        ("Q", "Q", 12, 50, 24),
        ("K", "K", 132, 50, 24),
        ("S", "S = Q Kᵀ / 2", 252, 50, 46),
        ("P", "P = softmax(S)", 12, 144, 52),
        ("V", "V", 148, 144, 32),
        ("O", "O = P V", 244, 144, 52),
        ("dO", "dO", 12, 270, 32),
        ("dV", "dV = Pᵀ dO", 108, 270, 52),
        ("dP", "dP = dO Vᵀ", 252, 270, 46),
        ("r", "r", 12, 356, 52),
        ("dS", "dS = P (dP − r)", 108, 356, 62),
        ("dQ", "dQ = dS K / 2", 12, 442, 62),
        ("dK", "dK = dSᵀ Q / 2", 12, 528, 62),
    ]
    for name, label, left, top, side in tables:
        colour = GRADIENT if top > 238 else VALUE
        first = [(0, column) for column in range(found[name].shape[1])]
        marked = () if name in ("K", "V", "dK", "dV") else first
        write(figure, left, top - 8, label, "soft", size=13)
        table(figure, left, top, found[name], colour, side=side, high=28, marked=marked)
    return figure


class Seen(NamedTuple):
    """A sliding layer, and how many pixels a side one of its numbers sees."""

    name: str
    window: int
    stride: int
    jump: int  # Pixels from one of its numbers to the next.
    field: int


@cache
def fields() -> list[Seen]:
    """The receptive fields of the lecture CNN's convolutions and pools."""
    found, jump, field, pools = [], 1, 1, 0
    for layer in cnn().layers:
        if isinstance(layer, nn.Conv):
            window, stride, name = layer.kernel_size[0], 1, layer_name(layer)
        elif isinstance(layer, MaxPool):
            pools += 1
            window, stride, name = layer.window, layer.stride, f"pool{pools}"
        else:
            continue
        field += (window - 1) * jump
        jump *= stride
        found.append(Seen(name, window, stride, jump, field))
    return found


SEES = (2, 5, 6, 13)  # A number of pool2, one of conv2 in its window, and so on up to conv1.


def receptive_field(zh: bool) -> Figure:
    """A digit, and the squares that a number of each layer sees."""
    seen = fields()
    grown = "; ".join(
        f"{one.name} k = {one.window}, s = {one.stride}, j = {one.jump}, r = {one.field}"
        for one in seen
    )
    last = seen[-1]
    title = ("Receptive field: what one number sees", "感受野：一个数能看到多少像素")[zh]
    alt = (
        "The receptive field r of the lecture's CNN grows from layer to layer, by r = r′ + (k − "
        f"1) j′ and j = s j′ with window k, stride s and the jump j in pixels: {grown}. On a "
        f"digit of 28 × 28 pixels four nested squares show them, the largest {last.field} × "
        f"{last.field}.",
        "课件的 CNN 中感受野 r 逐层增大，r = r′ + (k − 1) j′，j = s j′，其中 k 是窗口，s 是步幅，"
        f"j 是以像素计的间隔：{grown}。在一个 28 × 28 的数字上，四个嵌套的正方形表示它们，"
        f"最大的是 {last.field} × {last.field}。",
    )[zh]
    figure = Figure("receptive-field", WIDTH, 232, title, alt)
    scale, left, top = 6, 12, 12
    digit = np.asarray(load_dataset("mnist").test.images[0])[..., 0]
    ink = "".join(f"M{x} {y}h1v1h-1z" for y, x in np.argwhere(digit > 0.4))
    figure.add("path", d=ink, fill="line", transform=f"translate({left},{top}) scale({scale})")
    figure.rect(left, top, 28 * scale, 28 * scale, fill="none", stroke="soft")
    for depth, (one, index) in enumerate(zip(seen[::-1], SEES, strict=True)):
        level = len(seen) - 1 - depth
        at, side = scale * index * one.jump + 1.5 * depth, scale * one.field - 3 * depth
        figure.rect(
            left + at, top + at, side, side, fill="none", stroke=PATHS[level], stroke_width=2.5,
            stroke_dasharray=("", "6 3", "2 3", "8 3 2 3")[level] or None,
        )  # fmt: skip
    columns = (194, 252, 278, 304, 348)
    for x, head in zip(columns, (("layer", "层")[zh], "k", "s", "j", "r"), strict=True):
        write(figure, x, 30, head, "soft", anchor="start" if x < 200 else "end", size=13)
    for level, one in enumerate(seen):
        y = 54 + 24 * level
        write(figure, columns[0], y, one.name, PATHS[level], size=13)
        for x, value in zip(columns[1:], one[1:], strict=True):
            write(figure, x, y, number(value), PATHS[level], anchor="end", size=13)
    write(figure, 194, 158, "r = r′ + (k − 1) j′", "ink", size=13)
    write(figure, 194, 178, "j = s j′", "ink", size=13)
    words = (
        ("k window, s stride, j pixels from number to number;", "a number sees r × r pixels"),
        ("k 窗口，s 步幅，j 相邻两数相隔的像素；", "一个数看到 r × r 个像素"),
    )[zh]
    for line, text in enumerate(words):
        write(figure, 12, 202 + 18 * line, text, "soft", size=12.5)
    return figure


UNITS, LAYERS, EXAMPLES = 100, 10, 200
SPREADS = {"0.01": 0.01, "1": 1.0, "√(2/n)": np.sqrt(2 / UNITS)}


@cache
def deviations() -> dict[str, list[float]]:
    """The standard deviation of x and of each layer's h, for the same draws, scaled three ways."""
    drawn = np.random.default_rng(0)
    x = drawn.standard_normal((EXAMPLES, UNITS), np.float32)
    weights = drawn.standard_normal((LAYERS, UNITS, UNITS), np.float32)
    found = {}
    for name, sigma in SPREADS.items():
        h, kept = jnp.asarray(x), [float(x.std())]
        for weight in weights:
            h, _ = relu_forward(dense_forward({"kernel": jnp.float32(sigma) * weight}, h)[0])
            kept.append(float(np.asarray(h, np.float64).std()))
        found[name] = kept
    return found


def initialization(zh: bool) -> Figure:
    """How large the activations are, layer by layer."""
    found = deviations()
    last = {name: short(kept[-1]) for name, kept in found.items()}
    title = ("Deviation of h, layer by layer", "h 的标准差随层数的变化")[zh]
    small, large, he = SPREADS
    alt = (
        f"The standard deviation of the activations through ten layers of n = {UNITS} units with "
        f"ReLU, on a logarithmic axis. Weights drawn with σ = {small} shrink it to {last[small]}, "
        f"with σ = {large} blow it up to {last[large]}, and with σ = {he} leave it at {last[he]}.",
        f"激活值的标准差经过十层的变化，每层 n = {UNITS} 个单元，带 ReLU，纵轴是对数刻度。权重以 "
        f"σ = {small} 抽取时，它缩小到 {last[small]}；σ = {large} 时增大到 {last[large]}；σ = "
        f"{he} 时保持在 {last[he]}。",
    )[zh]
    series = [
        Series(f"σ = {name}", range(LAYERS + 1), kept, n)
        for n, (name, kept) in enumerate(found.items())
    ]
    x, y = Scale(("layer", "层")[zh]), Scale(show=short, log=True)
    return curves(Caption("initialization", title, alt), series, x=x, y=y)


# The losses of these runs stand in learning-rates.json: where a rate is too large, rounding decides
# where the loss jumps, and another processor would draw another curve.
COMMAND = (
    "python train.py --model=mlp_functional --optimizer=sgd --limit=500 --batch_size=full "
    "--epochs=40 --learning_rate=RATE --workdir=runs/RATE"
)
LOSSES = FOLDER / "learning-rates.json"
RATES = {
    "0.01": ("too small", "太小"),
    "0.1": ("good", "合适"),
    "1": ("too large", "太大"),
    "3": ("diverges", "发散"),
}


def learning_rates(zh: bool) -> Figure:
    """The loss of each step, for four learning rates."""
    losses: dict[str, list[float]] = json.loads(LOSSES.read_text("utf-8"))["losses"]
    title = ("Loss over steps, by learning rate", "不同学习率下损失随步数的变化")[zh]
    told = [
        (
            f"{rate} ({RATES[rate][0]}) from {kept[0]:.2f} to {kept[-1]:.2f}, at most "
            f"{max(kept):.2f}",
            f"{rate}（{RATES[rate][1]}）从 {kept[0]:.2f} 到 {kept[-1]:.2f}，最高 {max(kept):.2f}",
        )[zh]
        for rate, kept in losses.items()
    ]
    alt = (
        f"The training loss of a dense network on 500 digits over {len(losses['0.1'])} steps, by "
        f"learning rate: {'; '.join(told)}.",
        f"全连接网络在 500 个数字上训练 {len(losses['0.1'])} 步的损失，按学习率："
        f"{'；'.join(told)}。",
    )[zh]
    series = [
        Series(f"{rate}: {RATES[rate][zh]}", range(len(kept)), kept, n)
        for n, (rate, kept) in enumerate(losses.items())
    ]
    x, caption = Scale(("step", "步")[zh]), Caption("learning-rates", title, alt)
    return curves(caption, series, x=x, y=Scale(log=True))


def rows(values: np.ndarray) -> str:
    """A matrix in a line: (1, 2; 3, 4)."""
    lines = (", ".join(number(value) for value in row) for row in values.tolist())
    return f"({'; '.join(lines)})"


def line_of(values: np.ndarray) -> str:
    """Numbers in a line: (1, 2)."""
    return f"({', '.join(number(value) for value in values.ravel().tolist())})"


def short(value: float) -> str:
    """A number with two digits: 0.6, 1.3e−12."""
    mantissa, _, exponent = f"{value:.2g}".partition("e")
    return mantissa + (f"e{int(exponent)}".replace("-", "−") if exponent else "")


def subscript(digit: int) -> str:
    """A digit below the line."""
    return "₀₁₂₃₄₅₆₇₈₉"[digit]


def headline(figure: Figure, y: float, text: str, colour: str, end: bool = False) -> None:
    """A line that says which pass follows."""
    look = {"text_anchor": "end"} if end else {}
    x = WIDTH - 12 if end else 12
    figure.text(x, y, text, fill=colour, font_size=SIZE, font_weight=600, **look)


def write(
    figure: Figure, x: float, y: float, text: str, colour: str, *, anchor: str = "start",
    size: float = SIZE,
) -> None:  # fmt: skip
    """A text."""
    figure.text(x, y, text, fill=colour, font_size=size, text_anchor=anchor)


def sign(figure: Figure, x: float, y: float, text: str) -> None:
    """A sign between two tables."""
    figure.text(x, y, text, fill="soft", font_size=18, text_anchor="middle")


def table(
    figure: Figure, x: float, y: float, values: np.ndarray, colour: str, *, side: float = 32,
    high: float = 0, marked: Cells = (),
) -> None:  # fmt: skip
    """A table of numbers, the marked ones on a ground of their own; NaN is an empty cell."""
    high, chosen = high or side, set(marked)
    size = 13 if min(side, high) < 28 else SIZE
    for (row, column), value in np.ndenumerate(values):
        left, top = x + side * column, y + high * row
        ground = "line" if (row, column) in chosen else "card"
        figure.rect(left, top, side, high, fill=ground, stroke="soft")
        if not np.isnan(value):
            write(
                figure, left + side / 2, top + high / 2 + size * 0.36, number(value), colour,
                anchor="middle", size=size,
            )  # fmt: skip


def arrow(figure: Figure, x1: float, y1: float, x2: float, y2: float, colour: str) -> None:
    """A line with a head at its second end."""
    length = float(np.hypot(x2 - x1, y2 - y1))
    dx, dy = (x2 - x1) / length, (y2 - y1) / length
    x0, y0 = x2 - 8 * dx, y2 - 8 * dy
    figure.line(x1, y1, x0, y0, stroke=colour, stroke_width=1.5)
    corners = ((x2, y2), (x0 - 4 * dy, y0 + 4 * dx), (x0 + 4 * dy, y0 - 4 * dx))
    figure.add("polygon", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in corners), fill=colour)


def network(zh: bool) -> Figure:
    """The network of two units (forward_backward.py)."""
    return forward_backward.draw(forward_backward.passes(), "zh" if zh else "en")


FIGURES: dict[str, Callable[[bool], Figure]] = {
    "forward-backward": network,
    "convolution": convolution,
    "im2col": im2col,
    "max-pool": max_pool,
    "average-pool": average_pool,
    "batch-norm": batch_norm,
    "attention": attention,
    "receptive-field": receptive_field,
    "initialization": initialization,
    "learning-rates": learning_rates,
}


def files() -> dict[Path, Figure]:
    """Every figure by its file, in both languages."""
    endings = ((False, ".svg"), (True, ".zh.svg"))
    return {
        FOLDER / (name + ending): draw(zh)
        for name, draw in FIGURES.items()
        for zh, ending in endings
    }


def read_losses(runs: Path) -> None:
    """Takes the losses of the figure of learning rates from the runs of COMMAND."""
    losses = {}
    for rate in RATES:
        lines = (runs / rate / "metrics.jsonl").read_text("utf-8").splitlines()
        losses[rate] = [round(json.loads(line)["train_loss"], 4) for line in lines]
    LOSSES.write_text(json.dumps({"command": COMMAND, "losses": losses}) + "\n", "utf-8")


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        read_losses(Path(folder))
    for path, figure in files().items():
        path.write_text(figure.themed(), "utf-8")
        print(path)
