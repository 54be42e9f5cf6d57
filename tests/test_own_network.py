"""Networks and layers of the user's own: from a file, a function, a Chain; as data in a run."""

import dataclasses
import json
import shutil
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, assert_same, params_sha256, read_json, write_idx_folder
from served import Served, inference

import jaxnets
from jaxnets import (
    AveragePool,
    BatchNorm,
    Chain,
    Domain,
    LayerRule,
    LeakyReLU,
    MaxPool,
    Network,
    Residual,
    Setting,
    check_layer,
    flatten,
    global_average_pool,
    register_rule,
)
from jaxnets.backprop.rules import KINDS
from jaxnets.base.errors import UserError
from jaxnets.gradcheck.networks import NetworkCase, check_own_layers
from jaxnets.models import MODELS
from jaxnets.models.layers import HE
from jaxnets.networks import rows
from jaxnets.networks.rows import from_rows, to_rows

TEN_LINES = """\
import flax.linen as nn
from jaxnets import Chain, MaxPool, flatten


def model(num_classes):
    return Chain([
        nn.Conv(4, (3, 3), padding="VALID"), nn.relu, MaxPool(2),
        flatten, nn.Dense(16), nn.relu, nn.Dropout(0.1),
        nn.Dense(num_classes, name="logits"),
    ])
"""

OWN_LAYER = """\
import dataclasses, pathlib
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxnets import Chain, LayerRule, flatten, register_rule

pathlib.Path("it_ran").touch()
recipe = dict(learning_rate=0.02, momentum=0.5, optimizer="sgd", schedule="constant")


@dataclasses.dataclass(frozen=True)
class Swish:
    b: float = 1.0

    def __call__(self, x):
        return x * jax.nn.sigmoid(self.b * x)


def swish_forward(x, *, b):
    s = 1 / (1 + jnp.exp(-b * x))
    return x * s, (x, s)


def swish_backward(cache, dy, *, b):
    x, s = cache
    return dy * (s + x * b * s * (1 - s))


register_rule(Swish, LayerRule(swish_forward, swish_backward, static=lambda layer: {"b": layer.b}))


def small(key, shape, dtype):
    return 0.01 * jax.random.normal(key, shape, dtype)


def model(num_classes):
    return Chain([flatten, nn.Dense(8, kernel_init=small), Swish(2.0), nn.Dense(num_classes)])
"""


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    """The folder in which a user works."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def digits(in_tmp):
    """Flags of a run on a few images of 28 x 28."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, size in (("train", 60), ("t10k", 20)):
        labels = np.arange(size) % 10
        arrays[f"{part}-images"] = rng.integers(0, 80, (size, 28, 28)) + 17 * labels[:, None, None]
        arrays[f"{part}-labels"] = labels
    folder = write_idx_folder(in_tmp / "digits", arrays)
    return [
        f"--data_dir={folder}",
        "--validation_size=10",
        "--batch_size=25",
        "--devices=1",
        "--epochs=2",
    ]


@pytest.mark.slow
def test_ten_lines_in_a_file_go_all_the_way(in_tmp, digits, run_main, run_command):
    file = in_tmp / "my_net.py"
    file.write_text(TEN_LINES)
    assert len(TEN_LINES.strip().splitlines()) == 10
    trained = run_main(f"--model={file}", *digits, "--gradients=both", "--workdir=run")
    assert trained.status == 0, trained.err
    checked = run_command("gradcheck", f"--model={file}", "--json")
    assert checked.status == 0 and json.loads(checked.out)["ok"]
    summed = json.loads(run_command("summary", f"--model={file}", "--json").out)
    assert summed["params"] == sum(
        x.size for x in jax.tree.leaves(jaxnets.load("run").state.params)
    )
    file.unlink()  # From here on no code of the user's is there.
    for command in (
        ("report", "run"),
        ("page", "run"),
        ("export", "run", "--output=a.onnx"),
        ("export", "run", "--output=a.stablehlo"),
        ("trace", "run", "--image=0"),
        ("abtest", "run", "run"),
    ):
        assert run_command(*command).status == 0, command
    images = np.zeros((2, 28, 28, 1), np.uint8)
    probabilities = jaxnets.load_predictor("run")(images)
    with Served([in_tmp / "run"], in_tmp / "log.sqlite", share=1) as server:
        answer = server.post("/v2/models/run/infer", inference(images))
    served = np.reshape(answer["outputs"][0]["data"], (2, 10))
    np.testing.assert_allclose(served, probabilities, atol=1e-6)
    more = run_main("--resume", "--workdir=run", "--epochs=3")
    assert more.status == 0, more.err
    fewer = run_main("--resume", "--workdir=run", "--epochs=2")
    fewer.assert_refused("epochs was 3, got 2")


@pytest.mark.slow
def test_a_network_of_a_file_searches_and_compares(in_tmp, digits, run_command):
    (in_tmp / "my_net.py").write_text(TEN_LINES + '\n\nrecipe = dict(augment="none")\n')
    model = "--model=my_net.py"
    found = run_command("lr_find", model, *digits[:-1], "--json")
    assert found.status == 0 and json.loads(found.out)["model"] == "my_net"
    over = "--over=learning_rate=0.01,0.02"
    found = run_command("search", model, *digits, over, "--seeds=1", "--workdir=s", "--json")
    assert found.status == 0, found.err
    flags = read_json(in_tmp / "s" / "search.json")["flags"]
    assert (flags["model"], flags["layers"][0]["kind"]) == ("my_net", "conv")
    again = run_command("search", model, *digits, over, "--seeds=2", "--workdir=s", "--resume")
    assert again.status == 0, again.err


@pytest.mark.slow
def test_own_layers_train_by_hand_as_by_autodiff(in_tmp, digits, run_main):
    (in_tmp / "swish.py").write_text(OWN_LAYER)
    digest = {}
    for gradients in ("auto", "manual"):
        flags = f"--gradients={gradients}", f"--workdir={gradients}"
        assert run_main("--model=swish.py", *digits, *flags).status == 0
        digest[gradients] = jaxnets.load(gradients, layers=["swish.py"]).state.params
    assert_close(digest["manual"], digest["auto"], 1e-5)
    assert read_json(in_tmp / "auto" / "config.json")["learning_rate"] == 0.02


@pytest.mark.slow
def test_a_run_folder_runs_no_code_that_is_not_named(
    in_tmp, digits, run_main, run_command, monkeypatch
):
    file, ran = in_tmp / "swish.py", in_tmp / "it_ran"
    file.write_bytes(b"# coding: latin-1, \xe9\r\n" + OWN_LAYER.encode())
    assert run_main("--model=swish.py", *digits, "--workdir=run").status == 0
    kept = in_tmp / "run" / "layers" / "swish.py"
    assert kept.read_bytes() == file.read_bytes()
    ran.unlink()
    monkeypatch.setattr(rows, "_own", {})  # As in a new process.
    missing = "is the user's own: expected layers=FILE, 'swish.py' of SHA-256"
    for command in (
        ("predict", "run", "a.png"),
        ("report", "run", "--json"),
        ("page", "run"),
        ("export", "run"),
        ("trace", "run", "--image=0"),
        ("abtest", "run", "run"),
    ):
        outcome = run_command(*command)
        assert missing in outcome.err + outcome.out, command
    run_main("--resume", "--workdir=run", "--epochs=3").assert_refused(missing)
    file.write_text(OWN_LAYER + "# changed\n")
    page = run_command("page", "run", "--layers=swish.py")
    page.assert_refused(missing, "the one that you named has changed since")
    changed = run_main("--resume", "--workdir=run", "--epochs=3", "--model=swish.py")
    changed.assert_refused("resume: the layers of swish are not those of")
    assert ran.exists()
    ran.unlink()
    outcome = run_command("trace", "run", "--image=0", f"--layers={kept}")
    assert outcome.status == 0 and ran.exists(), outcome.err
    shutil.copy(kept, file)
    resumed = run_main("--resume", "--workdir=run", "--epochs=3", "--model=swish.py")
    assert resumed.status == 0, resumed.err


@pytest.mark.slow
def test_a_resumed_network_of_a_file_ends_the_same(
    in_tmp, digits, run_main, run_command, interrupt_after
):
    (in_tmp / "swish.py").write_text(
        OWN_LAYER.replace(', momentum=0.5, optimizer="sgd"', "")
        + "\n\ndef optimizer(rate):\n    import optax\n    return optax.adamw(rate)\n"
    )
    flags = ["--model=swish.py", *digits[:-1], "--schedule=constant", "--augment=crop"]
    assert run_main(*flags, "--epochs=3", "--workdir=whole").status == 0
    assert run_main(*flags, "--epochs=2", "--workdir=parts").status == 0
    refused = run_main("--resume", "--workdir=parts", "--epochs=3")
    refused.assert_refused("optimizer: expected optimizer again")
    more = run_main("--resume", "--workdir=parts", "--epochs=3", "--model=swish.py")
    assert more.status == 0, more.err
    assert params_sha256(in_tmp / "parts") == params_sha256(in_tmp / "whole")
    reported = run_command("report", "parts", "--layers=swish.py")
    assert "missing of parts: the size of updates: the optimizer is the user's own" in reported.out
    interrupt_after(3)
    stopped = run_main(*flags, "--epochs=3", "--workdir=stopped")
    assert stopped.err.rstrip().endswith("--workdir=stopped --model=swish.py")


GOOD = "import flax.linen as nn\nfrom jaxnets import Chain, flatten\n\n"
MODEL = GOOD + "def model(num_classes):\n    return Chain([{}])\n"
OWN = MODEL.format("flatten, Own(), nn.Dense(num_classes)")
OWN += "class Own(nn.Module):\n    @nn.compact\n    def __call__(self, x):\n        {}\n"
BAD_FILES = {
    "no file": (None, "my_net.py: expected a file of Python, found none"),
    "no syntax": ("x = (\n", "my_net.py:1: '(' was never closed"),
    "no import": ("\nimport nonsense\n", "my_net.py:2: ModuleNotFoundError: No module named 'nons"),
    "no function": ("model = 3\n", "my_net.py: expected a function model(num_classes), got 3"),
    "an error": (
        GOOD + "def model(k):\n    return k / 0\n",
        "my_net.py:5: model(10): ZeroDivision",
    ),
    "no chain": (
        GOOD + "def model(k):\n    return nn.Dense(k)\n",
        "my_net.py:4: model(10): expecte",
    ),
    "no argument": (
        GOOD + "def model():\n    pass\n",
        "my_net.py:4: model(10): TypeError: model() t",
    ),
    "too small": (MODEL.format("flatten, nn.Dense(4)"), "(Dense dense1): expected 3 logits, got 4"),
    "does not fit": (
        MODEL.format("flatten,\n    nn.Conv(4, (3, 3), name='deep'), nn.Dense(num_classes)"),
        "my_net.py:6: layer 2 (Conv deep) does not take 144: ",
    ),
    "nothing left": (
        MODEL.format("nn.Conv(4, (13, 13), padding='VALID'), flatten, nn.Dense(num_classes)"),
        "my_net.py:4: layer 1 (Conv conv1): images of 12 x 12 x 1 are too small for it",
    ),
    "twice": (
        GOOD + "d = nn.Dense(3)\ndef model(k):\n    return Chain([flatten, d, d])\n",
        "my_net.py:6: model(10): a layer (Dense) is used in two places; expected one for each",
    ),
    "one name": (
        MODEL.format("flatten, nn.Dense(3, name='a'), nn.Dense(3, name='a')"),
        "my_net.py:5: model(10): layers 2 and 3 have the name a; expected one for each",
    ),
    "no layer": (MODEL.format("flatten, 3"), "my_net.py:5: model(10): layer 2: expected a layer o"),
    "lambda": (
        MODEL.format("lambda x: x"),
        "model(10): model.<locals>.<lambda>: expected a functio",
    ),
    "Flax' norm": (
        MODEL.format("nn.BatchNorm()"),
        "BatchNorm norm1: expected jaxnets.BatchNorm, w",
    ),
    "a dtype": (
        MODEL.format("nn.Dense(3, dtype='float16')"),
        "dense1: dtype: expected none; the ru",
    ),
    "no data": (
        MODEL.format("nn.Dense(3, dot_general=object())"),
        "dense1: dot_general: expected n",
    ),
    "a recipe": (
        MODEL + "recipe = dict(lr=1)\n",
        'my_net.py: recipe: unknown field "lr"; did you m',
    ),
    "a class": (
        MODEL.format("flatten, nn.Dense"),
        "my_net.py:5: model(10): layer 2: expected a layer, such as Dense(...), "
        "got the class Dense",
    ),
    "no list": (
        GOOD + "def model(k):\n    return Chain(nn.Dense(k))\n",
        "my_net.py:5: model(10): expected a list of layers, got Dense",
    ),
    "one dimension": (
        MODEL.format("nn.Conv(4, 3), flatten, nn.Dense(num_classes)"),
        "layer 1 (Conv conv1): expected a kernel_size for rows and columns, as (3, 3), got 3",
    ),
    "an optimizer": (
        MODEL.format("flatten, nn.Dense(num_classes)") + "def optimizer(rate):\n    return optax\n",
        "my_net.py:7: optimizer(learning_rate): NameError: name 'optax' is not defined",
    ),
    "an optimizer's object": (
        MODEL.format("flatten, nn.Dense(num_classes)")
        + "import optax\noptimizer = optax.sgd(0.1)\n",
        "my_net.py: expected a function optimizer(learning_rate), got GradientTransformationExtra",
    ),
    "an exit": ("import sys\nsys.exit(3)\n", "my_net.py:2: SystemExit: 3"),
    "a null byte": ("x = '\0'\n", "cannot contain null bytes"),
    "a chain": (
        GOOD + "model = Chain([flatten, nn.Dense(3)])\n",
        "my_net.py: expected a function model(num_classes), got Chain(layers=['flatten', 'd",
    ),
    "a chain within": (
        MODEL.format("flatten, Chain([nn.Dense(num_classes)])"),
        "my_net.py:5: model(10): layer 2: expected a layer, got a Chain; "
        "*[...] inserts a list's layers",
    ),
    "a recipe's number": (MODEL + "recipe = {1: 2}\n", 'my_net.py: recipe: unknown field "1"'),
    "a function of JAX": (
        MODEL.format("nn.relu, jax.numpy.sin") + "import jax\n",
        "my_net.py:4: model(10): sin of jax.numpy: expected a function in a file of your own",
    ),
    "a partial": (
        MODEL.format("functools.partial(nn.leaky_relu)") + "import functools\n",
        "my_net.py:4: model(10): partial of functools: expected a function in a file of your own",
    ),
    "a momentum": (
        MODEL.format("BatchNorm(momentum=0.5)") + "from jaxnets import BatchNorm\n",
        "my_net.py:5: model(10): BatchNorm: expected no momentum; epsilon is its only setting",
    ),
    "a rate": (
        MODEL.format("flatten, nn.Dropout(20)"),
        "my_net.py:5: model(10): layer 2: expected a rate from 0 to 1, got 20",
    ),
    "two softmaxes": (
        MODEL.format("flatten, nn.Dense(num_classes), nn.softmax"),
        "layer 3 (softmax): expected logits from the last layer, got probabilities; the loss and",
    ),
    "no flatten": (
        MODEL.format("nn.Conv(4, (3, 3)), nn.Dense(num_classes)"),
        "expected 3 logits, got 12 x 12 x 3; flatten or global_average_pool before a dense layer",
    ),
    "no strides": (
        MODEL.format("nn.Conv(4, (3, 3), strides=0)"),
        "layer 1 (Conv conv1): expected strides above 0, got 0",
    ),
    "a setting's name": (
        OWN_LAYER.replace("b: float = 1.0", "b: float = 1.0\n    kind: str = ''"),
        "Swish: expected another name for its setting than kind",
    ),
    "statistics of Flax": (
        OWN.format("return nn.BatchNorm(use_running_average=False)(x)"),
        'layer 2 (Own own1) does not take 144: Tried to access "mean" from collection "batch_stats',
    ),
    "a key of its own": (
        OWN.format("return nn.Dropout(0.1, deterministic=False)(x)"),
        'layer 2 (Own own1) does not take 144: Dropout_0 needs PRNG for "dropout"',
    ),
    "a statistic's name": (
        OWN.format("return x - self.param('mean', nn.initializers.zeros, ())"),
        "Own: expected another name for its parameter than mean, which is a running statistic",
    ),
    "whole parameters": (
        OWN.format("return x * self.param('a', lambda key: 3)"),
        "own1.a: expected floating-point numbers, got int32",
    ),
    "a value": (
        MODEL.format("flatten, nn.Dense(num_classes)") + "recipe = dict(seed=-1)\n",
        "seed: expected a whole number from 0 to 2147483647, got -1",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_one_line_with_its_place(in_tmp, train_tiny, text, message):
    if text is not None:
        (in_tmp / "my_net.py").write_text(text)
    train_tiny("my_net.py").assert_refused(message)


def test_a_name_of_the_lecture_is_not_ones_own(in_tmp, train_tiny):
    (in_tmp / "cnn.py").write_text(TEN_LINES)
    (in_tmp / "my_net.py").write_text(TEN_LINES)
    train_tiny("my_net").assert_refused('unknown model "my_net"; did you mean --model=my_net.py?')
    train_tiny("cnn.py").assert_refused("cnn.py: expected a new name, got that of a network")


@pytest.mark.slow
def test_a_config_file_brings_a_network_and_runs_no_code(in_tmp, digits, run_main, run_command):
    (in_tmp / "my_net.py").write_text(TEN_LINES)
    assert run_main("--model=my_net.py", *digits, "--workdir=run").status == 0
    (in_tmp / "my_net.py").unlink()
    again = run_main("--config=run", "--workdir=again")
    assert again.status == 0, again.err
    assert params_sha256(in_tmp / "again") == params_sha256(in_tmp / "run")
    other = run_main("--config=run", "--model=softmax", "--workdir=other")
    assert other.status == 0 and read_json(in_tmp / "other" / "config.json")["layers"] is None
    written = read_json(in_tmp / "run" / "config.json")
    (in_tmp / "stranger").mkdir()
    config = in_tmp / "stranger" / "config.json"
    config.write_text(json.dumps(written | {"model": "swish.py"}))
    (in_tmp / "swish.py").write_text(OWN_LAYER)
    run_main(f"--config={config}", "--workdir=third")
    assert not (in_tmp / "it_ran").exists()
    written["layers"][0]["mask"] = [1]  # Flax asks it for its shape.
    (in_tmp / "run" / "config.json").write_text(json.dumps(written))
    run_command("predict", "run", "a.png").assert_refused("damaged: no my_net takes (28, 28, 1)")


WRONG_RULES = {
    "missing": ("", "Swish"),
    "other forward": (
        "register_rule(Swish, LayerRule(lambda x: (2 * x, x), lambda cache, dy: dy))\n",
        ": expected the forward pass of Swish itself, got one that differs by",
    ),
}


@pytest.mark.parametrize(("rule", "message"), WRONG_RULES.values(), ids=WRONG_RULES)
def test_by_hand_needs_the_layer_s_own_rule(in_tmp, train_tiny, rule, message):
    head, tail = OWN_LAYER.split("def swish_forward")
    text = head.split("recipe")[0] + "\n" + head[head.index("@data") :] + rule
    (in_tmp / "my_net.py").write_text(
        text + "def model" + tail.split("def model")[1].replace("small", "nn.initializers.zeros")
    )
    train_tiny("my_net.py", "--gradients=manual").assert_refused(message)


@pytest.mark.parametrize("name", MODELS)
def test_rows_make_the_same_chain_again(name):
    chain = MODELS[name](num_classes=7)
    rows = json.loads(json.dumps(to_rows(chain)))
    again = from_rows(rows)
    assert to_rows(again) == rows
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in chain.layers]


INITIALIZERS = [HE, nn.initializers.glorot_uniform(), nn.initializers.normal(0.3)]
INITIALIZERS += [nn.initializers.orthogonal(2.0), nn.initializers.truncated_normal(0.1)]
INITIALIZERS += [nn.initializers.uniform(0.2), nn.initializers.constant(3.0), nn.initializers.ones]
INITIALIZERS += [nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=1, out_axis=0)]


@pytest.mark.parametrize("draw", INITIALIZERS, ids=range(len(INITIALIZERS)))
def test_an_initializer_of_a_row_draws_the_same(draw):
    chain = Chain([nn.Dense(4, kernel_init=draw)])
    again = from_rows(json.loads(json.dumps(to_rows(chain))))
    x, key = jnp.zeros((1, 4)), jax.random.key(1)
    assert_same(again.init(key, x), chain.init(key, x))


def settings_of(layer):
    fields = getattr(layer, "__dataclass_fields__", {})
    return {name: str(getattr(layer, name)) for name in fields if name not in ("parent", "name")}


def test_every_setting_of_a_layer_comes_back():
    layers = [
        nn.Conv(6, (3, 2), strides=(2, 1), padding=((1, 0), (2, 1)), feature_group_count=2),
        nn.Conv(4, (3, 3), padding=1, kernel_dilation=(2, 2), use_bias=False, name="other"),
        LeakyReLU(0.2), AveragePool(3, 2), BatchNorm(epsilon=1e-3), nn.LayerNorm(use_bias=False),
        MaxPool(3, 1), nn.gelu, Residual([nn.Conv(6, (1, 1)), nn.tanh], [nn.Conv(6, (1, 1))]),
        global_average_pool, nn.Dropout(0.4), nn.Dense(3, bias_init=HE),
    ]  # fmt: skip
    again = from_rows(json.loads(json.dumps(to_rows(Chain(layers)))))
    for ours, theirs in zip(again.layers, Chain(layers).layers, strict=True):
        assert settings_of(ours) == settings_of(theirs) or isinstance(ours, nn.Dense)


DENSE = {"kind": "Dense", "name": "a", "features": 3}
STRANGE = {
    "no rows": {},
    "none": [],
    "many": [DENSE] * 1001,
    "no row": ["Dense"],
    "no kind": [{"name": "a"}],
    "a module": [{"kind": "jit"}],
    "the base": [{"kind": "Module"}],
    "hidden": [{"kind": "__builtins__"}],
    "a wrapper": [{"kind": "scan"}],
    "a setting": [DENSE | {"nonsense": 1}],
    "a dtype": [DENSE | {"dtype": "float16"}],
    "a parent": [DENSE | {"parent": None}],
    "no features": [{"kind": "Dense"}],
    "an initializer": [DENSE | {"kernel_init": {"he_normal": {}}}],
    "its settings": [DENSE | {"kernel_init": {"normal": {"x": 1}}}],
    "own": [{"own": "system", "file": "os", "sha256": "0"}],
    "its digest": [{"own": "system", "file": "os", "sha256": [1]}],
    "a name": [DENSE | {"name": "../a"}],
    "another name": [DENSE | {"name": 3}],
    "twice": [DENSE, DENSE],
}


@pytest.mark.parametrize("rows", STRANGE.values(), ids=STRANGE)
def test_strange_rows_are_one_line(rows):
    with pytest.raises(UserError) as error:
        from_rows(rows)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def own_chain(num_classes):
    return Chain([flatten, nn.Dense(8), nn.tanh, nn.Dense(num_classes)])


class Doubled(nn.Module):
    """y = 2 a x."""

    @nn.compact
    def __call__(self, x):
        return 2 * self.param("a", nn.initializers.ones, x.shape[-1:]) * x


def doubled_forward(params, x):
    return 2 * params["a"] * x, (params, x)


def doubled_backward(cache, dy, *, input_gradient=True):
    params, x = cache
    return {"a": 2 * (dy * x).sum(0)}, 2 * dy * params["a"] if input_gradient else None


@pytest.fixture
def doubled_rule():
    rule = LayerRule(doubled_forward, doubled_backward, inputs=("params", "x"))
    register_rule(Doubled, rule)
    yield rule
    del KINDS[Doubled]


@pytest.mark.slow
@pytest.mark.parametrize("model", [own_chain, own_chain(3)], ids=["function", "chain"])
def test_a_network_object_takes_a_function_or_a_chain(tiny, tmp_path, model):
    network = Network(model, tiny, epochs=2, batch_size=32, devices=1, learning_rate=0.03)
    history = network.fit(verbose=0)
    assert history["accuracy"][-1] > 0.9
    again = jaxnets.load(network.save(tmp_path / "run"), data=tiny)
    assert_same(again.state.params, network.state.params)
    assert again.config.model == (
        "own_chain" if callable(model) and model is own_chain else "chain"
    )


def test_a_chain_of_other_classes_is_refused(tiny):
    with pytest.raises(UserError, match=r"^layer 4 \(Dense dense2\): expected 3 logits, got 5$"):
        Network(own_chain(5), tiny)
    layer: Any = nn.Dense(3)
    with pytest.raises(UserError, match=r"^model: expected a Chain or a function .*, got Dense$"):
        Network(layer, tiny)
    with pytest.raises(UserError, match="Network.chain. takes a Chain of your own"):
        Network("mlp", tiny, layers=[64])  # pyright: ignore


def test_check_layer_judges_a_layer_of_ones_own(doubled_rule):
    right = check_layer(Doubled(), [(4, 3), (1, 2)])
    assert right.ok and "agrees" in repr(right)

    def without_dx(cache, dy, *, input_gradient=True):
        return {"a": dy[0]}, dy if input_gradient else None

    register_rule(Doubled, doubled_rule._replace(backward=without_dx))
    found = check_layer(Doubled(), [(4, 3)])
    assert not found.ok and "Doubled: FAILED, worst in " in repr(found)
    other = doubled_rule._replace(forward=lambda params, x: (params["a"] * x, (params, x)))
    register_rule(Doubled, other)
    assert "output" in check_layer(Doubled(), [(4, 3)]).worst
    with pytest.raises(UserError, match=r"^silu: expected a rule for it: register_rule\("):
        check_layer(nn.silu, [(2, 2)])


@pytest.mark.slow
def test_check_layer_draws_from_the_domain_of_an_own_rule(doubled_rule):
    """The drawn inputs find what the given shapes do not, and the setting is named."""

    def wrong_for_many(cache, dy, *, input_gradient=True):
        d_params, dx = doubled_rule.backward(cache, dy, input_gradient=input_gradient)
        return d_params if len(dy) <= 100 else {"a": 2 * d_params["a"]}, dx

    domain = Domain(lambda batch: Setting((batch, 3)), {"batch": (1, 2, 50, 101)})
    register_rule(Doubled, doubled_rule._replace(domain=domain))
    assert check_layer(Doubled()).ok
    register_rule(Doubled, doubled_rule._replace(backward=wrong_for_many, domain=domain))
    assert check_layer(Doubled(), [(4, 3)], draws=0).ok
    found = check_layer(Doubled(), draws=4, seed=2)
    assert not found.ok and found.errors["float64"].problem.startswith("101x3 a 3 (draw ")
    assert found.errors["float64"].problem.endswith(" of --draws=4 --seed=2)")


MISTAKES = {
    "no inputs": (dict(inputs=("x",)), "the layer has parameters (a): expected LayerRule(..., inp"),
    "no keyword": (
        dict(backward=lambda cache, dy: None),
        "unexpected keyword argument 'input_grad",
    ),
    "dx alone": (
        dict(backward=lambda cache, dy, input_gradient=True: dy),
        "backward: expected (d_params, dx) of a layer with parameters, got one value",
    ),
    "no cache": (dict(forward=lambda params, x: x), "Doubled: ValueError: "),
}


@pytest.mark.parametrize(("changes", "message"), MISTAKES.values(), ids=MISTAKES)
def test_check_layer_names_a_mistake_in_one_line(doubled_rule, changes, message):
    register_rule(Doubled, doubled_rule._replace(**changes))
    with pytest.raises(UserError) as error:
        check_layer(Doubled(), [(4, 3)])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith(f"{__file__}:")


@pytest.mark.parametrize(
    ("gradient", "worst"),
    [({}, "gradient.params.a, got "), ({"a": 1, "b": 1}, "gradient.x, got gradient.params.b")],
    ids=["too few", "too many"],
)
def test_check_layer_counts_the_gradients(doubled_rule, gradient, worst):
    def backward(cache, dy, *, input_gradient=True):
        return {name: dy.sum(0) for name in gradient}, dy if input_gradient else None

    register_rule(Doubled, doubled_rule._replace(backward=backward))
    assert worst in check_layer(Doubled(), [(4, 3)]).worst


def test_check_layer_asks_for_a_layer_and_shapes():
    layer: Any = nn.Dense
    wrong: list[Any] = [(4, 5), [], [()]]
    for shapes in wrong:
        with pytest.raises(
            UserError, match=r"^Dense: expected shapes with a batch first, such as "
        ):
            check_layer(nn.Dense(3), shapes)
    with pytest.raises(
        UserError, match=r"^Dense: expected a layer, such as Dense\(\), got its class"
    ):
        check_layer(layer, [(4, 5)])


def test_own_layers_in_a_residual_block_are_checked(tiny, doubled_rule):
    chain = Chain([flatten, Residual([Doubled()]), nn.Dense(3)])
    network = NetworkCase(Network(chain, tiny).config, (2, 2, 3))
    assert [(row.name, row.ok) for row in check_own_layers(network)] == [("Doubled", True)]
    wrong = doubled_rule._replace(forward=lambda params, x: (params["a"] * x, (params, x)))
    register_rule(Doubled, wrong)
    with pytest.raises(UserError, match="expected the forward pass of Doubled itself"):
        Network(chain, tiny, gradients="manual")


@pytest.mark.slow
def test_check_layer_takes_ours():
    for layer in (nn.Dense(3), nn.relu, nn.LayerNorm(), LeakyReLU(0.3)):
        assert check_layer(layer, [(4, 5)]).ok


@pytest.mark.slow
def test_a_layer_of_a_notebook_is_named_again(tiny, tmp_path, doubled_rule, monkeypatch):
    chain = Chain([flatten, Doubled(), nn.Dense(3)])
    network = Network(chain, tiny, epochs=1, batch_size=32, devices=1, gradients="both")
    network.fit(verbose=0)
    path = network.save(tmp_path / "run")
    (row,) = rows.own_parts(read_json(path / "config.json")["layers"])
    assert row["own"] == "Doubled" and row["file"] == "test_own_network.py"
    monkeypatch.setattr(rows, "_own", {})
    with pytest.raises(UserError, match="^'Doubled' is the user's own: expected layers="):
        jaxnets.load(path).predict(tiny.test.images[:1])
    again = jaxnets.load(path, layers=[Doubled])
    np.testing.assert_array_equal(
        again.predict(tiny.test.images), network.predict(tiny.test.images)
    )


@dataclasses.dataclass
class Opaque:
    """Has a setting that no file can hold."""

    table: object

    def __call__(self, x):
        return x


def test_a_setting_that_is_no_data_is_refused():
    with pytest.raises(UserError, match="^Opaque: table: expected numbers, texts, or an initiali"):
        to_rows(Chain([Opaque(np.ones(3))]))
