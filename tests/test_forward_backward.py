"""The picture with numbers, against a network in NumPy's float64 and central differences."""

import json
import re

import forward_backward
import numpy as np
import pytest
from conftest import ROOT

FILES = ("forward-backward.svg", "forward-backward.zh.svg")
# The parameters as the text states them, and the picture's order: an array for each name.
NUMBERS = {
    "x": [1, 2], "W1": [[1, -1], [0.5, 1]], "b1": [-1, 1], "W2": [[2, 1], [-1, 1]], "b2": [1, -1],
}  # fmt: skip
ARRAYS = {name: np.array(value, np.float64) for name, value in NUMBERS.items()}
EPS = 1e-5


def forward(arrays, added):
    """The values and the loss, with a number added to what is computed on the way."""
    z = arrays["x"] @ arrays["W1"] + arrays["b1"] + added.get("z", 0)
    h = np.maximum(z, 0) + added.get("h", 0)
    o = h @ arrays["W2"] + arrays["b2"] + added.get("o", 0)
    p = np.exp(o) / np.exp(o).sum()
    return {"z": z, "h": h, "o": o, "p": p}, -np.log(p[0])


def slope(name, index):
    """The loss's central difference for one number."""
    losses = []
    for change in (EPS, -EPS):
        arrays, added = dict(ARRAYS), {}
        move = np.zeros_like(ARRAYS.get(name, np.zeros(2)))
        move[index] = change
        if name in arrays:
            arrays[name] = arrays[name] + move
        else:
            added[name] = move
        losses.append(forward(arrays, added)[1])
    return (losses[0] - losses[1]) / (2 * EPS)


def gradients():
    """Every red number by central differences, by name."""
    shapes = {name: ARRAYS[name].shape for name in ("W1", "b1", "W2", "b2")}
    shapes |= {"z": (2,), "h": (2,), "o": (2,)}
    return {
        name: np.array([slope(name, index) for index in np.ndindex(shape)]).reshape(shape)
        for name, shape in shapes.items()
    }


def as_texts(arrays):
    return sorted(forward_backward.number(value) for array in arrays for value in np.ravel(array))


def texts_of(file, colour):
    """The texts of a colour in a picture: c1 for values, bad for gradients."""
    svg = (ROOT / "docs" / "img" / file).read_text("utf-8")
    return re.findall(rf'<text [^>]*fill="var\(--{colour}\)"[^>]*>([^<]*)</text>', svg)


@pytest.mark.parametrize("file", FILES)
def test_every_red_number_is_a_central_difference(file):
    title, *red, loss = texts_of(file, "bad")
    assert title.startswith("↑") and loss == "dL = 1"
    assert sorted(red) == as_texts(gradients().values())


@pytest.mark.parametrize("file", FILES)
def test_the_description_has_every_gradient(file):
    (words,) = re.findall("<desc>(.*)</desc>", (ROOT / "docs" / "img" / file).read_text("utf-8"))
    told = dict(re.findall(r" d(\w+) = \(([^)]*)\)", words))
    for name, array in gradients().items():
        assert told.pop(name).split(", ") == [
            forward_backward.number(value) for value in array.ravel()
        ]
    assert not told


@pytest.mark.parametrize("file", FILES)
def test_every_blue_number_is_computed_by_numpy(file):
    _, *blue = texts_of(file, "c1")
    values, loss = forward(ARRAYS, {})
    expected = as_texts([*ARRAYS.values(), values["z"], values["h"], values["o"], values["p"]])
    shown = [text.rpartition("= ")[2] for text in blue]
    (p,) = [text for text in shown if text.startswith("(0.")]
    (label,) = [text for text in shown if text == "(1, 0)"]
    shown = [text for text in shown if text not in (p, label, forward_backward.number(loss))]
    assert sorted([*shown, *p.strip("()").split(", ")]) == expected
    assert f"L = −log p₁ = {forward_backward.number(loss)}" in blue


def test_each_edge_has_the_gradient_of_its_own_weight():
    """The sets above would not notice two numbers that changed places."""
    found, exact = forward_backward.passes(), gradients()
    _, hidden, relu, logits = found.steps
    for ours, name in (
        (hidden.params["kernel"].gradient, "W1"),
        (hidden.params["bias"].gradient, "b1"),
        (hidden.output.gradient, "z"),
        (relu.output.gradient, "h"),
        (logits.params["kernel"].gradient, "W2"),
        (logits.params["bias"].gradient, "b2"),
        (logits.output.gradient, "o"),
    ):
        assert ours is not None
        np.testing.assert_allclose(ours, exact[name], atol=1e-6, err_msg=name)


def test_the_notebook_has_the_same_numbers():
    notebook = json.loads((ROOT / "docs" / "colab.ipynb").read_text("utf-8"))
    (cell,) = [cell for cell in notebook["cells"] if cell["id"] == "two-units"]
    (output,) = cell["outputs"]
    numbers = re.findall(r"-?\d\.\d*", "".join(output["text"]))
    exact = gradients()
    values = [f"{value:.3f}" for name in ("W1", "b1", "W2", "b2") for value in exact[name].ravel()]
    assert [f"{float(number):.3f}" for number in numbers[1:]] == values
    assert float(numbers[0]) == round(forward(ARRAYS, {})[1], 3)
