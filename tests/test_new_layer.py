"""A new layer: four edits take it everywhere, and no other file lists the layers."""

import ast
import json
import re
import shutil
import subprocess
import sys

import flax.linen as nn
import httpx
import jax
import numpy as np
import pytest
from conftest import HANGS, ROOT, as_flags, random_params
from pages import printed_in_node
from served import inference

from jaxnets import (
    AveragePool,
    BatchNorm,
    Chain,
    LeakyReLU,
    MaxPool,
    flatten,
    register_rule,
)
from jaxnets.backprop import rules
from jaxnets.backprop.rules import LAYERS
from jaxnets.base.errors import UserError
from jaxnets.config.resolve import preset
from jaxnets.export import archive
from jaxnets.export.export import content_of
from jaxnets.models.alexnet_layers import AdaptiveAveragePool, Enlarge, LocalResponseNorm, Normalize
from jaxnets.models.chain import kind_of, layer_name
from jaxnets.networks.rows import from_rows
from jaxnets.page import build
from jaxnets.predict.portable import describe
from jaxnets.predict.trained import TrainedNetwork

PACKAGE = ROOT / "jaxnets"

# ---- Four edits: the layer, its pair with the declaration, its exports, its JavaScript pair ----

LAYER = '''

@dataclasses.dataclass(frozen=True)
class Swish:
    """y = x sigmoid(b x)."""

    b: float = 1.0

    def __call__(self, x: Float[Array, "*sizes"]) -> Float[Array, "*sizes"]:
        return x * nn.sigmoid(self.b * x)
'''
PAIR = '''"""Swish."""

import jax

from jaxnets.backprop.rule import ARRAYS, LayerRule, Setting
from jaxnets.models.layers import Swish


def swish_forward(x, *, b):
    s = jax.nn.sigmoid(b * x)
    return x * s, (x, s)


def swish_backward(cache, dy, *, b):
    x, s = cache
    return dy * (s + x * b * s * (1 - s))


SWISH = LayerRule(
    name="swish",
    layer=Swish,
    fields=("b",),
    forward=swish_forward,
    backward=swish_backward,
    plain=lambda x, b: Swish(b)(x),
    settings=[Setting((4, 5), static={"b": 2.0})],
    static=vars,
    domain=ARRAYS._replace(
        setting=lambda b, **sizes: ARRAYS.setting(**sizes)._replace(static={"b": b}),
        ranges={**ARRAYS.ranges, "b": (0.5, 1.0, 2.0)},
    ),
)
'''
NODE = """

def _swish(graph, x, shape, layer, arrays):
    share = graph.add("Sigmoid", graph.add("Mul", x, np.float32(layer["b"])))
    return graph.add("Mul", x, share)


NODES["swish"] = _swish
"""
NUMPY = """

def _swish(x: np.ndarray, layer: dict, arrays: Arrays) -> np.ndarray:
    return x / (1 + np.exp(-np.float32(layer["b"]) * x))


LAYERS["swish"] = _swish
"""
JAVASCRIPT = """const KINDS = {
  swish: {
    forward: ({ b }, x) => ({ y: x.map((value) => value / (1 + Math.exp(-b * value))) }),
    backward: ({ b }, x, y, cache, dy) => ({ dx: dy.map((d, n) => {
      const s = 1 / (1 + Math.exp(-b * x[n]));
      return d * (s + x[n] * b * s * (1 - s));
    }) }),
  },
"""
NETWORK = """import flax.linen as nn
from jaxnets import Chain, flatten
from jaxnets.models.layers import Swish


def model(num_classes):
    return Chain([nn.Conv(3, (3, 3)), Swish(2.0), flatten, nn.Dense(num_classes, name="logits")])
"""
COMMANDS = """
import sys

from jaxnets.__main__ import main
from jaxnets.backprop.rules import RULES
from jaxnets.gradcheck.layer_check import check_rule

assert check_rule("swish", RULES["swish"], 4).ok
for line in sys.stdin:
    assert main(line.split()) == 0, line
"""
# The page's forward pass, and its backward pass of Swish, layer 1, against central differences.
CHECK = """
const network = readNetwork(RUN), image = Float64Array.from(IMAGE), pass = forward(network, image);
const back = backward(network, pass, 0), index = largestAt(back.inputs[1]);
const check = checkDerivative(
  { network, pass, label: 0 }, { n: 1, array: "value", index }, back.inputs[1][index]);
console.log(JSON.stringify({ p: [...pass.p], verdict: check.verdict }));
"""


PASSES = ("run.js", "network.js", "sums.js")


def in_javascript(scripts, image):
    """What CHECK prints, after the page's scripts."""
    program = "".join(scripts[name] for name in PASSES)
    program += f"const IMAGE = {json.dumps(image.ravel().tolist())};{CHECK}"
    return printed_in_node(program)


def edit(path, before, after=None):
    """Puts a text at a file's end, or in the place of another."""
    text = path.read_text() if path.exists() else ""
    assert after is None or text.count(before) == 1
    path.write_text(text + before if after is None else text.replace(before, after))


@pytest.fixture
def copy(tmp_path):
    """The package and train.py with one layer more."""
    ignored = shutil.ignore_patterns("__pycache__")
    package = tmp_path / "jaxnets"
    shutil.copytree(PACKAGE, package, ignore=ignored)
    shutil.copy(ROOT / "train.py", tmp_path)
    edit(package / "models/layers.py", LAYER)
    edit(package / "backprop/swish.py", PAIR)
    rules, line = package / "backprop/rules.py", "from jaxnets.backprop.rule import"
    edit(rules, line, f"from jaxnets.backprop.swish import SWISH\n{line}")
    edit(rules, "    DENSE,\n", "    DENSE,\n    SWISH,\n")
    edit(package / "predict/onnx_file.py", NODE)
    edit(package / "export/archive.py", NUMPY)
    edit(package / "page/assets/network.js", "const KINDS = {\n", JAVASCRIPT)
    edit(tmp_path / "my_net.py", NETWORK)
    return tmp_path


@pytest.mark.slow
@pytest.mark.oracle
def test_four_edits_take_a_layer_everywhere(copy, tiny_folder, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("PYTHONPATH", str(copy))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")

    def python(*words, **options):
        return subprocess.run(
            [sys.executable, *words], cwd=copy, text=True, capture_output=True, check=True,
            timeout=HANGS, **options,
        ).stdout  # fmt: skip

    data = dict(data_dir=tiny_folder, validation_size=40, batch_size=32, epochs=1, devices=1)
    python(
        "train.py", "--model=my_net.py", "--gradients=manual", "--workdir=run", *as_flags(**data)
    )
    config = json.loads((copy / "run/config.json").read_text())
    assert config["layers"][1] == {"kind": "swish", "b": 2.0}
    commands = (
        "gradcheck --model=my_net.py --draws=1",
        "summary --model=my_net.py --image_shape=12,12,1",
        "report run --output=report.html",
        "page run --output=page.html",
        "export run --output=run.onnx",
        "export run --output=run.safetensors",
    )
    out = python("-c", COMMANDS, input="\n".join(commands))
    assert "Swish" in out and "Swish" in (copy / "report.html").read_text()

    serve = [sys.executable, "-m", "jaxnets", "serve", "run", "--port=0", "--json"]
    with subprocess.Popen(serve, cwd=copy, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            url = json.loads(server.stdout.readline())["url"]
            image = np.random.default_rng(0).random((1, 12, 12, 1), np.float32)
            answer = httpx.post(f"{url}/v2/models/run/infer", json=inference(image), timeout=HANGS)
            served = answer.json()["outputs"][0]["data"]
        finally:
            server.terminate()
    read = archive.read(str(copy / "run.safetensors"))
    assert {row["kind"] for row in read.metadata["layers"]} == {"conv", "swish", "flatten", "dense"}

    page = (copy / "page.html").read_text()
    scripts = dict(re.findall(r'<script data-file="([\w.]+)">(.*?)</script>', page, re.DOTALL))
    found = in_javascript(scripts, image)
    assert found["verdict"] == "agree"
    np.testing.assert_allclose(found["p"], served, atol=1e-5)


# ---- A layer of the user's own, as docs/own-networks.md declares it ----


@pytest.fixture
def own_layer():
    """What the page's code about a layer of one's own defines."""
    page = (ROOT / "docs/own-networks.md").read_text()
    section = page.partition("## A layer of your own")[2].partition("\n## ")[0]
    before, found = dict(rules.KINDS), {"__name__": "own"}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(block, found)
    yield found
    rules.KINDS.clear()
    rules.KINDS.update(before)


@pytest.mark.oracle
def test_onnx_and_the_page_take_a_layer_by_its_own_rule(own_layer, tmp_path):
    session = pytest.importorskip("onnxruntime").InferenceSession
    layers = [nn.Conv(2, (3, 3)), own_layer["Swish"](2.0), flatten, nn.Dense(4, name="logits")]
    chain, shape = Chain(layers), (6, 6, 1)
    params = random_params(chain, shape)
    run = TrainedNetwork(preset("softmax"), chain, params, shape, tuple("abcd"), 7, True)
    images = np.random.default_rng(0).random((2, *shape), np.float32)
    expected = np.asarray(chain.apply({"params": params}, images))

    (tmp_path / "run.onnx").write_bytes(content_of(run, "onnx"))
    (found,) = session(tmp_path / "run.onnx").run(None, {"images": images})
    np.testing.assert_allclose(found, expected, atol=1e-5)

    page = build.page_files(run)
    scripts = {name: page[name][1].decode() for name in PASSES}
    shown = in_javascript(scripts, images[:1])
    assert shown["verdict"] == "agree"
    np.testing.assert_allclose(shown["p"], jax.nn.softmax(expected[0]), atol=1e-5)

    with pytest.raises(UserError, match="safetensors cannot hold swish: it has no layer swish"):
        content_of(run, "safetensors")
    rule = own_layer["rule"]
    register_rule(rule._replace(onnx=None, javascript=""))
    with pytest.raises(UserError, match="^onnx cannot hold swish: it has no layer swish"):
        content_of(run, "onnx")
    with pytest.raises(UserError, match="^the page cannot hold swish: it has no layer swish"):
        build.page_files(run)


# ---- One table ----

TABLE = [rule for rule in LAYERS if rule.layers and not rule.is_loss]
IN_TABLE = {rule.name: rule.name for rule in TABLE}
KINDS = IN_TABLE | {kind_of(kind).__name__: rule.name for rule in TABLE for kind in rule.layers}

# A layer is defined, used in a network, derived and made faster in these rooms.
OF_LAYERS = ("models", "backprop", "kernels")
# Those that list the layers, and why.
LISTS = {
    "predict/onnx_file.py": "the table of ONNX nodes",
    "export/archive.py": "the table of functions in NumPy",
    "course/exercises/small_settings.py": "sizes of a student's trials, few enough for a loop",
    "gradcheck/forms.py": "a network of each kind that has another form",
    "__init__.py": "the public names",
}
MOST = 5  # So many layers may be special to one file elsewhere.


def layers_named(path):
    """The layers that a file names as texts or as classes and functions, outside of imports."""
    found = set()
    for part in ast.walk(ast.parse(path.read_text())):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            found.add(KINDS.get(part.value))
        elif isinstance(part, ast.Name):
            found.add(KINDS.get(part.id))
        elif isinstance(part, ast.Attribute):
            found.add(KINDS.get(part.attr) if hasattr(nn, part.attr) else None)
    return found - {None}


def test_nothing_but_the_table_lists_the_layers():
    files = {str(path.relative_to(PACKAGE)): path for path in PACKAGE.rglob("*.py")}
    elsewhere = [name for name in files if name.split("/")[0] not in OF_LAYERS]
    many = {name: found for name in elsewhere if len(found := layers_named(files[name])) > MOST}
    assert many.keys() == LISTS.keys(), many


def test_other_programs_have_every_layer_of_the_table():
    """A new layer fails here until it has its forms, or its rule says what stands in its place."""
    onnx_file = pytest.importorskip("jaxnets.predict.onnx_file", reason="onnx is not installed")
    others = {rule.name for rule in TABLE if rule.exported}
    assert IN_TABLE.keys() - archive.LAYERS == IN_TABLE.keys() - onnx_file.NODES == others
    assert IN_TABLE.keys() - build.KINDS == {"enlarge"}  # Of large images.


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv(4, (3, 2), strides=2, padding="SAME", feature_group_count=2),
        MaxPool(3, 1), AveragePool(2, 3), LeakyReLU(0.2), nn.Dropout(0.4), BatchNorm(epsilon=0.1),
        nn.LayerNorm(epsilon=0.2), LocalResponseNorm(1.0, 3, 0.1, 0.5), AdaptiveAveragePool(2),
        Enlarge(9), Normalize((0.1, 0.2), (1.0, 2.0)),
    ],
    ids=layer_name,
)  # fmt: skip
def test_a_row_of_an_export_is_a_row_of_config_json(layer):
    row = json.loads(json.dumps(describe(layer, (6, 6, 2))))
    features = {"features": layer.features} if isinstance(layer, nn.Conv) else {}
    (again,) = from_rows([row | features]).layers
    assert json.loads(json.dumps(describe(again, (6, 6, 2)))) == row and type(again) is type(layer)
