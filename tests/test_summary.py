"""The summary of a network, against Flax's own table, PyTorch's sizes and sums by hand."""

import json

import jax
import jax.numpy as jnp
import pytest
from conftest import num_params, slow

from jaxnets.config.recipes import PRESETS
from jaxnets.config.resolve import preset
from jaxnets.models import MODELS
from jaxnets.networks.create import create_model
from jaxnets.report.summary import summary

IMAGE = (28, 28, 1)


@pytest.mark.parametrize("name", [slow(n) if n == "resnet20" else n for n in sorted(PRESETS)])
def test_every_network_has_its_parameters_and_last_shape(name):
    model = create_model(preset(name), 10)
    found = summary(model, IMAGE)
    assert found.totals[0] == num_params(model, IMAGE)
    assert found.rows[-1].shape == (10,)
    assert len([row for row in found.rows if not row.depth]) == len(model.layers)


def test_the_arithmetic_is_two_a_weight_one_a_bias():
    flatten, hidden, relu, logits = summary(MODELS["mlp"](), IMAGE).rows
    assert [row.params for row in (flatten, hidden, relu, logits)] == [0, 401_920, 0, 5_130]
    assert flatten.flops == 0
    assert hidden.flops == 2 * 784 * 512 + 512
    assert relu.flops == 512
    assert logits.flops == 2 * 512 * 10 + 10
    conv1 = summary(MODELS["cnn"](), IMAGE).rows[0]
    assert conv1.flops == 26 * 26 * 32 * (2 * 9 + 1)


def test_the_arithmetic_is_flax_own_tables(capsys):
    model = MODELS["cnn"]()
    x = jnp.zeros((1, *IMAGE))
    table = model.tabulate(jax.random.key(0), x, compute_flops=True, console_kwargs={"width": 200})
    for row in summary(model, IMAGE).rows:
        if row.params:
            assert f" {row.flops} " in table, row


def test_the_alexnet_of_the_paper_has_its_shapes():
    model = MODELS["alexnet_paper"](num_classes=1000)
    shapes = {row.layer.split()[0]: row.shape for row in summary(model, (224, 224, 3)).rows}
    assert shapes["conv1"] == (55, 55, 96) and shapes["conv5"] == (13, 13, 256)
    assert shapes["flatten"] == (9216,) and shapes["logits"] == (1000,)


def test_the_command_prints_a_table_or_json(run_command):
    shown = run_command("summary", "--model=mlp", "--hidden=128,64", "--num_classes=3")
    assert shown.status == 0
    assert "hidden2 (Dense)" in shown.out and "parameters: 108,931" in shown.out
    values = json.loads(run_command("summary", "--model=mlp", "--json").out)
    assert values["params"] == 407_050 and values["layers"][1]["shape"] == [512]
