"""Rules of the user's own: judged before a training by hand, and the cause of what is wrong."""

import json
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import slow

from jaxnets import Chain, LayerRule, Network, check_layer, flatten, own_passes, register_rule
from jaxnets.backprop.rules import KINDS
from jaxnets.base.errors import RunFailedError, UserError

FILE = '''\
import flax.linen as nn
import jax.numpy as jnp
from jaxnets import Chain, LayerRule, flatten, register_rule


class Scale(nn.Module):
    """y = a x + b, a number of each for every feature."""

    @nn.compact
    def __call__(self, x):
        a = self.param("a", nn.initializers.ones, x.shape[-1:])
        return a * x + self.param("b", nn.initializers.zeros, x.shape[-1:])


def forward(params, x):
    return params["a"] * x + params["b"], (params["a"], x)


def backward(cache, dy, *, input_gradient=True):
    a, x = cache
    return {"a": (dy * x).sum(0), "b": dy.sum(0)}, a * dy


register_rule(Scale, LayerRule(forward, backward, inputs=("params", "x")))


def model(num_classes):
    return Chain([flatten, Scale(), nn.Dense(num_classes)])
'''


def swish(x):
    return x * jax.nn.sigmoid(x)


def swish_forward(x):
    s = jax.nn.sigmoid(x)
    return x * s, (x, s)


class Biased(nn.Module):
    """y = a x + b."""

    @nn.compact
    def __call__(self, x):
        a, b = (self.param(name, nn.initializers.ones, x.shape[-1:]) for name in "ab")
        return a * x + b


def biased_forward(params, x):
    return params["a"] * x + params["b"], (params["a"], x)


def biased_backward(cache, dy, *, input_gradient=True):
    a, x = cache
    return {"a": (dy * x).sum(0), "b": dy.sum(0)}, a * dy


@pytest.fixture(autouse=True)
def own_rules_end():
    before = dict(KINDS)
    yield
    KINDS.clear()
    KINDS.update(before)


def causes(backward, kind: Any = Biased, shape=(4, 3)):
    forward, inputs = (
        (swish_forward, ("x",)) if kind is swish else (biased_forward, ("params", "x"))
    )
    register_rule(kind, LayerRule(forward, backward, inputs=inputs))
    row = check_layer(kind if kind is swish else kind(), [shape])
    assert repr(row).splitlines()[1:] == list(row.causes)
    return row.causes


SWISH = {
    "dy * s": "dx: a term is missing: dy * cache[0] * cache[1] * (1 - cache[1])",
    "dy * (s + x * s)": "dx: a term is missing: -1 * dy * cache[0] * cache[1] * cache[1]",
    "-dy * (s + x * s * (1 - s))": "dx: each number is -1 times the right one",
    "jnp.sin(dy)": "dx: 20 of 20 numbers are wrong",
    "0 * dy + jnp.inf": "dx: it holds numbers that are not finite",
}


@pytest.mark.parametrize(("gradient", "cause"), SWISH.items(), ids=SWISH)
def test_a_function_s_wrong_gradient_has_a_cause(gradient, cause):
    def backward(cache, dy):
        x, s = cache
        return eval(gradient, {"jnp": jnp}, {"dy": dy, "x": x, "s": s})

    assert causes(backward, swish, (4, 5))[0] == cause


PARAMS = {
    "(dy * x).mean(0)": "each number is 0.25 times the right one "
    "(4 is the size of axis 0: a mean in place of a sum?)",
    "2 * (dy * x).sum(0)": "each number is 2 times the right one",
    "(dy * x).sum(1)": "summed over axis 1, expected over axis 0",
    "dy * x": "the sum over axis 0 is missing",
    "(dy * x).sum(0)[::-1]": "the right numbers are in the wrong places",
    "dy.sum(0)": "a factor is missing: cache[1]",
    "(dy * dy).sum(0)": "4 of 4 numbers are wrong",
}


@pytest.mark.parametrize(("gradient", "cause"), PARAMS.items(), ids=PARAMS)
def test_a_parameter_s_wrong_gradient_has_a_cause(gradient, cause):
    def backward(cache, dy, *, input_gradient=True):
        a, x = cache
        return {"a": eval(gradient, {"dy": dy, "x": x}), "b": dy.sum(0)}, a * dy

    assert causes(backward, shape=(4, 4))[0] == f'd_params["a"]: {cause}'


def test_a_sum_over_the_wrong_axis_shows_in_the_shape_too():
    def backward(cache, dy, *, input_gradient=True):
        a, x = cache
        return {"a": (dy * x).sum(1), "b": dy.sum(0)}, a * dy

    assert causes(backward) == (
        'd_params["a"]: summed over axis 1, expected over axis 0',
        'd_params["a"]: expected the shape (3,), got (4,)',
    )


def test_the_first_wrong_number_stands_beside_autodiff_s():
    def backward(cache, dy, *, input_gradient=True):
        a, x = cache
        return {"a": (dy * x).sum(0), "b": dy.sum(0)}, (a * dy).at[2, 1].add(1)

    cause, number = causes(backward)
    assert cause == "dx: 1 of 12 numbers are wrong"
    _before, got, expected = number.replace(", expected", " is").split(" is ")
    assert number.startswith("the first wrong number, dx[2, 1], is ")
    assert float(got) == pytest.approx(float(expected) + 1, abs=1e-5)


def test_a_transposed_gradient_is_called_so():
    class Product(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x @ self.param("w", nn.initializers.ones, (x.shape[-1],) * 2)

    def backward(cache, dy, *, input_gradient=True):
        x, w = cache
        return {"w": dy.T @ x}, dy @ w.T

    forward = lambda params, x: (x @ params["w"], (x, params["w"]))  # noqa: E731
    register_rule(Product, LayerRule(forward, backward, inputs=("params", "x")))
    assert check_layer(Product(), [(4, 3)]).causes[0] == 'd_params["w"]: it is transposed'


@pytest.mark.slow
def test_a_first_layer_may_return_its_dx_all_the_same(tiny):
    register_rule(Biased, LayerRule(biased_forward, biased_backward, inputs=("params", "x")))
    assert check_layer(Biased(), [(4, 3)]).ok
    chain = Chain([flatten, Biased(), nn.Dense(3)])
    network = Network(chain, tiny, gradients="both", epochs=1, batch_size=32, devices=1)
    assert np.isfinite(network.fit(verbose=0)["loss"]).all()  # It compares with autodiff.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        ("(dy * x).sum(0) / 2", r'd_params\["a"\]: each number is 0.5 times the right one'),
        # Right for few images, and for the 32 of a step it is not.
        slow("(dy * x)[:20].sum(0)", r'd_params\["a"\]: \d+ of \d+ numbers are wrong'),
    ],
    ids=["everywhere", "at the run's batch"],
)
def test_a_wrong_rule_trains_only_on_request(wrong, cause, tiny, capsys):
    def backward(cache, dy, *, input_gradient=True):
        a, x = cache
        return {"a": eval(wrong, {"dy": dy, "x": x}), "b": dy.sum(0)}, a * dy

    register_rule(Biased, LayerRule(biased_forward, backward, inputs=("params", "x")))
    chain = Chain([flatten, Biased(), nn.Dense(3)])
    flags: Any = dict(gradients="manual", epochs=1, batch_size=32, devices=1)
    number = r'the first wrong number, d_params\["a"\]\[0\], is \S+, expected \S+'
    line = rf"{__file__}:\d+: Biased: {cause}; {number}; even_if_wrong trains with it "
    line += "anyway"
    with pytest.raises(RunFailedError, match=f"^{line}$"):
        Network(chain, tiny, **flags).fit(verbose=0)
    if "20" in wrong:
        Network(chain, tiny, **flags | {"batch_size": 16}).fit(verbose=0)
    network = Network(chain, tiny, find_rule=own_passes(even_if_wrong=True), **flags)
    assert np.isfinite(network.fit(verbose=0)["loss"]).all()
    assert "Biased: d_params" in capsys.readouterr().out
    assert Network(chain, tiny, **flags | {"gradients": "auto"}).experiment  # It needs no rule.


@pytest.mark.slow
def test_the_commands_name_the_cause(tmp_path, monkeypatch, train_tiny, tiny_flags, run_command):
    monkeypatch.chdir(tmp_path)
    wrong = FILE.replace("dy.sum(0)}", "dy.mean(0)}").replace("a * dy\n", "a + dy\n")
    (tmp_path / "scaled.py").write_text(wrong)
    outcome = train_tiny("scaled.py", "--gradients=manual")
    cause = 'd_params["b"]: each number is 0.25 times the right one (4 is the size of axis 0: a '
    assert outcome.status == 1 and f"scaled.py:19: Scale: {cause}" in outcome.err
    assert not (tmp_path / "run").exists() and outcome.err.count("\n") == 1
    flags = ["--model=scaled.py", "--gradients=manual", "--even_if_wrong", *tiny_flags]
    outcome = run_command("exercise", "train", *flags)
    assert outcome.status == 0 and f"Scale: {cause}" in outcome.out, outcome.err
    checked = ["gradcheck", "--model=scaled.py", "--image_shape=4,4,1"]
    plain, hinted = run_command(*checked), run_command(*checked, "--hint")
    assert plain.status == hinted.status == 1
    assert 'Scale: d_params["b"]: each number is 0.125 times the right' in plain.out
    assert "Scale: the first wrong number, d_params" in plain.out and "dx" not in plain.out
    assert "Scale: the first wrong number, dx[0, 0], is " in hinted.out
    rows = json.loads(run_command(*checked, "--json").out)["rows"]
    assert rows[0]["causes"][0].startswith('d_params["b"]: each number is 0.125 times')
    run_command("gradcheck", "--model=cnn", "--hint").assert_refused("or --model=FILE.py, got nei")


def test_a_rule_names_its_layer_and_takes_no_other_layers_name():
    swish_rule = LayerRule(swish_forward, lambda cache, dy: dy, layer=swish, name="swish")
    register_rule(swish_rule)
    assert KINDS[swish] is swish_rule
    for wrong in (swish_rule._replace(layer=()), swish_rule._replace(name="dense")):
        with pytest.raises(UserError, match="^expected a (rule that names its layer|name that no)"):
            register_rule(wrong)
    register_rule(KINDS[nn.Dense]._replace(backward=biased_backward))  # Another pair of a layer.
    assert KINDS[nn.Dense].backward is biased_backward
