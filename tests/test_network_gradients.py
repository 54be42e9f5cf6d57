"""The theme in Python: a Network's logits and gradients, their check, its page and its report."""

import subprocess
import sys
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT, assert_close, assert_same, quick_jit

import jaxnets
from jaxnets.backprop.rules import KINDS
from jaxnets.base.errors import UserError
from jaxnets.data.datasets import Split
from jaxnets.notebook.network import Network


@pytest.fixture(scope="module")
def batch(tiny):
    """Images [10, 12, 12, 1] and their labels."""
    return tiny.train.images[:10], tiny.train.labels[:10]


@pytest.fixture(scope="module")
def softmax(tiny_preset):
    network = Network(tiny_preset("softmax"))
    network.fit(verbose=0)
    return network


@pytest.mark.parametrize("by", ["manual", "auto"])
def test_gradients_are_those_of_the_mean_loss(softmax, batch, by):
    """X' (p - y) / N in float64."""
    (x, y), params = batch, softmax.state.params["logits"]
    rows = x.reshape(len(x), -1).astype(np.float64)
    logits = rows @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    d_logits = (p - np.eye(3)[y]) / len(x)
    found = softmax.gradients(x, y, by=by)
    assert_close(found, {"logits": {"bias": d_logits.sum(0), "kernel": rows.T @ d_logits}}, 1e-5)
    assert_same(softmax.gradients(Split(x, y), by=by), found)


@pytest.mark.slow
def test_gradients_are_by_name_as_autodiff_of_flax_and_optax_has_them(tiny, batch):
    layers = [nn.Conv(4, (3, 3)), jaxnets.BatchNorm(), nn.relu, jaxnets.flatten, nn.Dense(3)]
    network, (x, y) = Network(jaxnets.Chain(layers), tiny, batch_size=32, devices=1), batch
    model, params = network.experiment.model, network.state.params

    def mean_loss(params):
        logits: Any = model.apply({"params": params}, x, train=True, mask=jnp.ones(len(x)))
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    expected = quick_jit(jax.grad(mean_loss))(params)
    for by in ("manual", "auto"):
        found = network.gradients(x, y, by)
        assert jax.tree.structure(found) == jax.tree.structure(params)
        assert_close(found["dense1"], expected["dense1"], 1e-4)
        assert_close(found["conv1"]["kernel"], expected["conv1"]["kernel"], 1e-4)


def test_gradients_of_a_sum_are_those_of_its_step(tiny_preset, batch):
    mean, total = (
        Network(tiny_preset("softmax", reduction=reduction)) for reduction in ("mean", "sum")
    )
    tenth = jax.tree.map(lambda gradient: gradient / 10, total.gradients(*batch))
    assert_close(tenth, mean.gradients(*batch), 1e-6)


@pytest.mark.parametrize("changes", [{"devices": 4}, {"devices": 4, "parallel": "pmap"}])
def test_devices_share_a_batch_that_they_do_not_divide(softmax, tiny_preset, batch, changes):
    spread = Network(tiny_preset("softmax", **changes))
    fresh = Network(tiny_preset("softmax"))
    assert_close(spread.gradients(*batch), fresh.gradients(*batch), 1e-5)


def test_a_call_gives_the_logits_whose_softmax_is_predicted(softmax, batch, tmp_path):
    x, _ = batch
    logits, params = softmax(x), softmax.state.params["logits"]
    assert logits.shape == (10, 3) and logits.dtype == np.float32
    expected = x.reshape(10, -1) @ params["kernel"] + params["bias"]
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_allclose(jax.nn.softmax(logits), softmax.predict(x), atol=1e-6)
    softmax.save(tmp_path / "run")
    assert_same(jaxnets.load(tmp_path / "run")(x), logits)
    with pytest.raises(UserError, match=r"expected images of \(12, 12, 1\).*got \(5, 5, 1\)"):
        softmax(np.zeros((2, 5, 5)))


class Tripled(nn.Module):
    """y = 3 x."""

    def __call__(self, x):
        return 3 * x


@pytest.mark.slow
@pytest.mark.parametrize("slope", [3, 2])
def test_gradcheck_says_whether_all_agree(tiny, monkeypatch, capsys, slope):
    """Of three classes, on images of 12 x 12."""
    rule = jaxnets.LayerRule(lambda x: (3 * x, ()), lambda cache, dy: slope * dy, inputs=("x",))
    monkeypatch.setitem(KINDS, Tripled, rule)
    chain = jaxnets.Chain([jaxnets.flatten, Tripled(), nn.Dense(3)])
    network = Network(chain, tiny, batch_size=32, devices=1)
    assert jaxnets.gradcheck(network) is (slope == 3)
    said = capsys.readouterr().out
    assert "chain, cross_entropy" in said and "8x12x12x1" in said
    assert ("FAILED" in said) == (slope == 2)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "import jaxnets.gradcheck.errors"])
def test_gradcheck_is_called_and_imported_in_any_order(first):
    code = f"""
{first}
import jaxnets
assert callable(jaxnets.gradcheck)
import jaxnets.gradcheck.errors
from jaxnets.gradcheck import errors
assert errors is jaxnets.gradcheck.errors
jaxnets.gradcheck("cnn")
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "expected a jaxnets.Network, such as Network(" in found.stderr.splitlines()[-1]


@pytest.mark.slow
def test_page_and_report_show_the_arrays_of_a_notebook(tiny, tmp_path, capsys):
    x, y = tiny.train.images, tiny.train.labels
    network = Network("softmax", (x, y), epochs=1, batch_size=32, devices=1)
    network.fit(verbose=0)
    page, report = tmp_path / "page.html", tmp_path / "report.html"
    network.page(page)
    network.report(report)
    said = capsys.readouterr().out
    assert "example pictures" in said and "missing" not in said
    assert "const PRACTICE = null" not in page.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "report.html"}


WRONG: list[tuple[str, str, Any]] = [
    ("state_dict", "state.params", 1),
    ("epochs", 'Network("cnn", epochs=...) takes it', 3),
    ("histori", "did you mean history?", None),
    ("zzz", 'Network has no "zzz"', 1),
    ("state", "has no setter", None),
]


@pytest.mark.parametrize(("name", "said", "value"), WRONG)
def test_setting_what_a_network_has_not_is_an_error(softmax, name, said, value):
    with pytest.raises(AttributeError) as error:
        setattr(softmax, name, value)
    assert said in str(error.value)
    assert name not in vars(softmax)
