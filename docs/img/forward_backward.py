"""Draws the network of the figure forward-backward, which figures.py writes into files.

One example goes through a network of two inputs, two hidden units and two classes. Its numbers come
from `jaxnets.report.passes.passes_of`, the same layer pairs that train every network here.
"""

import numpy as np

from jaxnets.drawing.svg import Figure
from jaxnets.models.mlp import mlp
from jaxnets.report.passes import Array, ImagePasses, passes_of

X = np.array([1.0, 2.0], np.float32)
PARAMS = {
    "hidden1": {
        "kernel": np.array([[1.0, -1.0], [0.5, 1.0]], np.float32),  # A row an input.
        "bias": np.array([-1.0, 1.0], np.float32),
    },
    "logits": {
        "kernel": np.array([[2.0, 1.0], [-1.0, 1.0]], np.float32),
        "bias": np.array([1.0, -1.0], np.float32),
    },
}
LABEL = 0  # The first class.
WORDS = {
    "en": {
        "title": "One forward and one backward pass, with numbers",
        "forward": "↓ forward: values",
        "backward": "↑ backward: gradients of L",
        "input": "input",
        "hidden": "hidden",
        "output": "output",
        "loss": "softmax and cross-entropy",
        "label": "label",
    },
    "zh": {
        "title": "一次前向传播与一次反向传播的数值",
        "forward": "↓ 前向传播：数值",
        "backward": "↑ 反向传播：L 的梯度",
        "input": "输入层",
        "hidden": "隐含层",
        "output": "输出层",
        "loss": "softmax 与交叉熵",
        "label": "标签",
    },
}
WIDTH, BOX = 484, 132
LEFT, RIGHT = 143, 341  # The middles of the two columns.
INPUT, HIDDEN, OUTPUT, LOSS = 40, 186, 352, 418  # Where each row of boxes begins.
SIZE, LINE = 14, 19  # A number's size, and the distance between two lines.


def passes() -> ImagePasses:
    """Both passes of the example."""
    model = mlp(num_classes=2, hidden=(2,))
    return passes_of(model, PARAMS, X.reshape(1, 2, 1), LABEL, "cross_entropy")


def draw(found: ImagePasses, language: str) -> Figure:
    """The picture, its words in one of the two languages."""
    words = WORDS[language]
    _, hidden, relu, logits = found.steps
    scores = np.exp(logits.output.value)
    p, y = scores / scores.sum(), np.eye(2)[found.label]
    alt = f"{words['title']}. {words['input']} x = {_row(found.image)}, "
    for name, layer in (("1", hidden), ("2", logits)):
        kernel, bias = (_row(layer.params[part].value) for part in ("kernel", "bias"))
        alt += f"W{name} = {kernel}, b{name} = {bias}, "
    alt += f"{words['hidden']} z = {_row(hidden.output.value)}, h = {_row(relu.output.value)}, "
    alt += f"{words['output']} o = {_row(logits.output.value)}, p = {_row(p)}, "
    alt += f"{words['label']} y = {_row(y)}, "
    alt += f"L = {number(found.loss)}. {words['backward'][2:]}: "
    gradients = {"do": logits.output, "dh": relu.output, "dz": hidden.output}
    for name, layer in (("2", logits), ("1", hidden)):
        gradients |= {f"dW{name}": layer.params["kernel"], f"db{name}": layer.params["bias"]}
    alt += ", ".join(
        f"{name} = {_row(array.gradient)}"
        for name, array in gradients.items()
        if array.gradient is not None
    )
    figure = Figure("forward-backward", WIDTH, LOSS + 88, words["title"], alt)
    figure.text(12, 18, words["forward"], fill="c1", font_size=SIZE, font_weight=600)
    figure.text(
        WIDTH - 12, 18, words["backward"], fill="bad", font_size=SIZE, font_weight=600,
        text_anchor="end",
    )  # fmt: skip
    _draw_edges(figure, INPUT + 31, HIDDEN, hidden.params["kernel"])
    _draw_edges(figure, HIDDEN + 48, OUTPUT, logits.params["kernel"])
    _draw_row(figure, INPUT, {"x": Array(found.image.ravel(), None)}, words["input"])
    values = {"z": hidden.output, "h": relu.output}
    _draw_row(figure, HIDDEN, values, words["hidden"], hidden.params["bias"])
    _draw_row(figure, OUTPUT, {"o": logits.output}, words["output"], logits.params["bias"])
    for x in (LEFT, RIGHT):
        figure.line(x, OUTPUT + 31, x, LOSS, stroke="soft")
    figure.rect(LEFT - BOX / 2, LOSS, RIGHT - LEFT + BOX, 76, fill="card", stroke="soft", rx=8)
    left, right = LEFT - BOX / 2 + 12, RIGHT + BOX / 2 - 12
    figure.text(left, LOSS + 20, words["loss"], fill="soft", font_size=SIZE)
    _text(figure, left, LOSS + 42, f"p = {_row(p)}", "c1", "start")
    _text(figure, right, LOSS + 42, f"{words['label']} y = {_row(y)}", "c1", "end")
    loss = f"L = −log p{_sub(found.label)} = {number(found.loss)}"
    _text(figure, left, LOSS + 64, loss, "c1", "start")
    _text(figure, right, LOSS + 64, "dL = 1", "bad", "end")
    return figure


def number(value: float) -> str:
    """A number with at most three digits after the point, and a real minus sign."""
    return f"{value + 0.0:.3f}".rstrip("0").rstrip(".").replace("-", "−")


def _row(values: np.ndarray) -> str:
    return f"({', '.join(number(value) for value in values.ravel().tolist())})"


def _sub(index: int) -> str:
    return "₁₂"[index]


def _draw_row(
    figure: Figure, y: float, rows: dict[str, Array], word: str, bias: Array | None = None
) -> None:
    """Two boxes, a unit each: a line a value with its gradient; the bias stands outside."""
    height = 10 + LINE * len(rows) + (0 if len(rows) > 1 else 2)
    figure.text(
        (LEFT + RIGHT) / 2, y + height / 2 + 4, word, fill="soft", font_size=SIZE,
        text_anchor="middle",
    )  # fmt: skip
    for unit, x in enumerate((LEFT, RIGHT)):
        figure.rect(x - BOX / 2, y, BOX, height, fill="card", stroke="soft", rx=8)
        for line, (name, array) in enumerate(rows.items()):
            low = y + 21 + LINE * line
            value = f"{name}{_sub(unit)} = {number(array.value[unit])}"
            _text(figure, x - BOX / 2 + 10, low, value, "c1", "start")
            if array.gradient is not None:
                _text(figure, x + BOX / 2 - 10, low, number(array.gradient[unit]), "bad", "end")
        if bias is not None:
            anchor, at = (("end", x - BOX / 2 - 8), ("start", x + BOX / 2 + 8))[unit]
            middle = y + height / 2
            _text(figure, at, middle - 4, f"b = {number(bias.value[unit])}", "c1", anchor)
            assert bias.gradient is not None
            _text(figure, at, middle + 14, number(bias.gradient[unit]), "bad", anchor)


def _draw_edges(figure: Figure, y1: float, y2: float, kernel: Array) -> None:
    """Four edges from the upper units to the lower ones, each with its weight and gradient."""
    columns = (LEFT, RIGHT)
    assert kernel.gradient is not None
    for x1 in columns:
        for x2 in columns:
            figure.line(x1, y1, x2, y2, stroke="soft")
    for source, x1 in enumerate(columns):
        for target, x2 in enumerate(columns):
            if source == target:
                anchor, x, y = (("end", x1 - 8), ("start", x1 + 8))[source] + ((y1 + y2) / 2,)
            else:
                anchor, x, y = "middle", x1 + (x2 - x1) * 0.26, y1 + (y2 - y1) * 0.26 + 4
                figure.rect(x - 28, y - 17, 56, 36, fill="card")
            _text(figure, x, y - 4, number(kernel.value[source, target]), "c1", anchor)
            _text(figure, x, y + 14, number(kernel.gradient[source, target]), "bad", anchor)


def _text(figure: Figure, x: float, y: float, text: str, colour: str, anchor: str) -> None:
    figure.text(x, y, text, fill=colour, font_size=SIZE, text_anchor=anchor)
