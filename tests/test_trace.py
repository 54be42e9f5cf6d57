"""jaxnets trace and summary --output: what is drawn, against NumPy and the summary's table."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxnets.config.resolve import preset
from jaxnets.networks.create import create_model
from jaxnets.report.summary import network_figure, summary
from jaxnets.report.trace import fresh


def texts(svg: str) -> list[str]:
    """The texts of a figure."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_a_runs_own_numbers_are_drawn(run_command, finished_run, tmp_path, tiny):
    path = tmp_path / "a.svg"
    outcome = run_command("trace", finished_run.folder, "--image=4", f"--output={path}", "--json")
    assert (outcome.status, outcome.err) == (0, "")
    values = json.loads(outcome.out)
    assert values["label"] == str(tiny.test.labels[4])
    layers = {layer["layer"]: layer for layer in values["layers"]}
    assert layers["conv1 (Conv 3x3)"]["shape"] == [10, 10, 32]
    assert layers["logits (Dense)"]["shape"] == [3]
    shown = " ".join(texts(path.read_text("utf-8")))
    for name, layer in layers.items():
        assert name in shown and " × ".join(map(str, layer["shape"])) in shown
    assert f"{values['loss']:.3g}   for class" in shown


def test_an_image_of_other_data_than_the_runs_is_refused(run_command, finished_run, tmp_path):
    copy = shutil.copytree(finished_run.folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"data_sha256": "0" * 64}))
    outcome = run_command("trace", copy, "--image=4", f"--output={tmp_path / 'a.svg'}")
    assert outcome.status == 2 and "other images than the run's" in outcome.err


@pytest.mark.slow
def test_a_small_network_is_drawn_whole_with_numpys_numbers(
    run_command, tmp_path, monkeypatch, mnist
):
    monkeypatch.chdir(tmp_path)
    outcome = run_command("trace", "--model=mlp", "--hidden=3", "--image=7", "--label=5")
    assert (outcome.status, outcome.err) == (0, "")
    shown = texts((tmp_path / "trace.svg").read_text("utf-8"))

    params = fresh(preset("mlp", hidden=(3,))).params
    x = mnist.test.images[7].ravel()
    z1 = x @ params["hidden1"]["kernel"] + params["hidden1"]["bias"]
    h = np.maximum(z1, 0)
    z2 = h @ params["logits"]["kernel"] + params["logits"]["bias"]
    p = np.exp(z2 - z2.max()) / np.exp(z2 - z2.max()).sum()
    error = p - np.eye(10)[5]
    dz2 = p * (error - (error * p).sum()) / 5  # The mlp's loss is the mean of squares.
    numbers = [float(t) for text in shown for t in re.findall(r"-?\d[\d.e-]*", text)]

    def assert_drawn(values):
        for value in np.ravel(values):
            assert np.isclose(numbers, value, rtol=6e-3, atol=1e-12).any(), value

    for values in (z1, h, z2, params["logits"]["kernel"], dz2, np.outer(h, dz2)):
        assert_drawn(values)
    assert_drawn((params["logits"]["kernel"] @ dz2) * (z1 > 0))


def test_a_picture_of_ones_own_is_prepared_as_predict_does(run_command, finished_run, tmp_path):
    Image.new("L", (30, 20), 90).save(tmp_path / "mine.png")
    outcome = run_command(
        "trace", finished_run.folder, f"--image={tmp_path / 'mine.png'}",
        f"--output={tmp_path / 'a.svg'}", "--json",
    )  # fmt: skip
    values = json.loads(outcome.out)
    assert values["label"] == values["answer"]  # Without a label of its own.


@pytest.mark.parametrize("model", ["cnn", "softmax"])
def test_the_picture_has_every_layer_with_its_numbers(model):
    found = summary(create_model(preset(model), 10), (28, 28, 1), model)
    figure = network_figure(found)
    shown = texts(figure.standalone())
    for row in found.rows:
        assert row.layer in shown and row.layer in figure.alt
        assert not row.params or f"{row.params:,}" in shown
        assert not row.flops or f"{row.flops:,}" in shown
    assert {f"{number:,}" for number in found.totals} <= set(shown)


def test_summary_draws_into_a_file(run_command, tmp_path):
    outcome = run_command("summary", "--model=mlp", f"--output={tmp_path / 'a.svg'}")
    assert outcome.status == 0 and "parameters" in outcome.out
    assert "hidden1 (Dense)" in texts((tmp_path / "a.svg").read_text("utf-8"))
