"""jaxnets export: each file, run by a program of its own, against the network in Flax."""

import dataclasses
import json
import os
import re
import sys
from typing import Any

import jax
import jax.export
import numpy as np
import pytest
from conftest import ROOT, random_images, read_json, slow
from exports import FORMATS, TINY, logits_of, trained
from safetensors import safe_open

from jaxnets.base.errors import RunFailedError, UserError
from jaxnets.config.recipes import PRESETS
from jaxnets.config.resolve import preset
from jaxnets.export import export
from jaxnets.networks.create import create_model
from jaxnets.predict.trained import TrainedNetwork

LARGE = ("alexnet", "alexnet_paper")
SLOW = (*LARGE, "alexnet_small", "alexnet_small_bn", "cnn_bn", "resnet20")
CASES = [(name, kind) for name in TINY for kind in FORMATS]
# XLA takes long for programs with 60 million constants, and all of these have the same layers.
CASES.remove(("alexnet", "stablehlo"))
CASES = [case for case in CASES if case[0] != "alexnet_paper" or case[1] == "onnx"]


def test_every_network_is_tried():
    assert set(TINY) == set(PRESETS)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("model", "kind"),  # A batch norm and a convolution of cnn_bn are in cnn_tiny too.
    [case if case[0] not in SLOW else slow(*case) for case in CASES],
)
def test_an_exported_network_has_the_logits_of_flax(tmp_path, model, kind):
    if kind != "safetensors":
        pytest.importorskip({"onnx": "onnx", "stablehlo": "flatbuffers"}[kind])
    network = trained(model)
    content = export.content_of(network, kind)
    height, width, _ = network.image_shape
    images = random_images(3, *network.image_shape)
    side = network.config.input_size or max(height, width)
    top, left = max(height - side, 0) // 2, max(width - side, 0) // 2
    seen = images[:, top : top + min(side, height), left : left + min(side, width)]
    expected = np.asarray(network.model.apply({"params": network.params}, seen))
    for size in (3,) if model in LARGE else (1, 3):  # The batch's size is free.
        found = logits_of(kind, content, tmp_path / "file", images[:size])
        wrong = np.abs(found - expected[:size]).max()
        assert found.shape == (size, 10) and wrong <= 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.oracle
def test_a_file_for_three_platforms_has_no_kernel():
    pytest.importorskip("flatbuffers")
    content = export.content_of(trained("cnn"), "stablehlo")
    program = jax.export.deserialize(bytearray(content))
    assert program.platforms == ("cpu", "cuda", "tpu")
    text = program.mlir_module()
    assert all(f"stablehlo.{name}" in text for name in ("convolution", "reduce_window"))
    assert "optimization_barrier" not in text


DIGESTS = """
import hashlib
from exports import FORMATS, trained
from jaxnets.export import export
for kind in FORMATS:
    for _ in range(3):
        print(hashlib.sha256(export.content_of(trained("cnn"), kind)).hexdigest())
"""


@pytest.mark.oracle
@pytest.mark.slow
def test_exports_of_one_network_are_equal_bytes_in_every_process(run_python, monkeypatch):
    pytest.importorskip("onnx")
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    found = []
    for seed in "12":
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        outcome = run_python("-c", DIGESTS)
        assert outcome.status == 0, outcome.err
        found.append(outcome.out.splitlines())
    assert found[0] == found[1] and len(set(found[0])) == len(FORMATS)


def test_two_archives_of_one_network_are_equal_bytes():
    """The library writes metadata in an order of chance: 1 in 720 would be equal."""
    assert len({export.content_of(trained("softmax"), "safetensors") for _ in range(3)}) == 1


@pytest.mark.oracle
@pytest.mark.parametrize("precision", ["bfloat16", "float64"])
def test_a_network_of_another_precision_is_exported_in_float32(tmp_path, float64, precision):
    network = trained("cnn", precision=precision)
    images = random_images(2, 28, 28, 1)
    exact = create_model(preset("cnn", hidden=(16,), precision="float64"), 10)
    expected: Any = exact.apply({"params": jax.tree.map(np.float64, network.params)}, images)
    content = export.content_of(network, "safetensors")
    found = logits_of("safetensors", content, tmp_path / "file", images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_an_archive_has_all_that_a_reader_needs(finished_run, run_command, tmp_path):
    path = tmp_path / "cnn.safetensors"
    (tmp_path / "cnn.safetensors.partial").write_text("left by a kill")
    outcome = run_command("export", finished_run.folder, f"--output={path}", "--json")
    said = json.loads(outcome.out)
    assert os.listdir(tmp_path) == ["cnn.safetensors"]
    assert said["difference"] <= 1e-5 and said["bytes"] == path.stat().st_size
    with safe_open(path, "numpy") as file:
        texts = file.metadata()
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    assert json.loads(texts["class_names"]) == ["0", "1", "2"]
    config = read_json(finished_run.folder / "config.json")
    assert json.loads(texts["config"])["hidden"] == config["hidden"]
    assert shapes["conv1.kernel"] == [3, 3, 1, 32] and shapes["logits.bias"] == [3]
    kinds = [layer["kind"] for layer in json.loads(texts["layers"])]
    assert kinds[:3] == ["conv", "relu", "max_pool"] and kinds[-3:] == ["dense", "relu", "dense"]


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_the_command_writes_and_proves_a_file(finished_run, run_command, tmp_path, kind):
    for package in export.NEEDS[kind]:
        pytest.importorskip(package)
    outcome = run_command("export", finished_run.folder, "-o", tmp_path / f"cnn.{kind}")
    assert (outcome.status, outcome.err) == (0, "")
    assert "in a new process without Flax" in outcome.out
    assert os.listdir(tmp_path) == [f"cnn.{kind}"]


def damage(network: TrainedNetwork) -> TrainedNetwork:
    """The network with one number that differs a little."""
    params = jax.tree.map(np.array, network.params)
    params["logits"]["bias"][0] += 0.001
    return dataclasses.replace(network, params=params)


def test_a_file_with_other_logits_leaves_the_old_one(finished_run, tmp_path, monkeypatch):
    path = tmp_path / "cnn.safetensors"
    path.write_text("old")
    right = export.content_of
    monkeypatch.setattr(export, "content_of", lambda network, kind: right(damage(network), kind))
    with pytest.raises(RunFailedError, match="logits differ by 1.0e-03, expected at most"):
        export.export(str(finished_run.folder), output=str(path))
    monkeypatch.setattr(export, "content_of", lambda network, kind: b"no tensors")
    with pytest.raises(RunFailedError, match="the safetensors file cannot be run by NumPy: "):
        export.export(str(finished_run.folder), output=str(path))
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["cnn.safetensors"]


def test_without_onnx_the_extra_is_named(finished_run, run_command, tmp_path, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    outcome = run_command("export", finished_run.folder, f"--output={tmp_path / 'x.onnx'}")
    outcome.assert_refused("onnx is not installed; install the extra: pip install")


def test_a_layer_without_a_description_is_an_error():
    """A layer that is added to a network must be added to the exports, too."""
    network = trained("cnn")
    strange = dataclasses.replace(
        network, model=network.model.clone(layers=[*network.model.layers, jax.nn.silu])
    )
    with pytest.raises((KeyError, UserError)):
        export.content_of(strange, "safetensors")


@pytest.mark.oracle
def test_deployments_name_the_files_input_and_output():
    """deploy/onnx: Triton's description against the file, both YAMLs against each other."""
    onnx = pytest.importorskip("onnx", reason="it writes the file; not installed")
    yaml = pytest.importorskip("yaml", reason="Flax brings it")
    network = trained("cnn")
    model = onnx.load_from_string(export.content_of(network, "onnx"))
    folder = ROOT / "deploy" / "onnx"
    config = (folder / "config.pbtxt").read_text()
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        ((name, dims),) = re.findall(
            rf'^{kind} \[.*name: "(\w+)".*dims: \[ ([\d, ]*) \]', config, re.M
        )
        (value,) = values
        shape = [axis.dim_value for axis in value.type.tensor_type.shape.dim[1:]]
        assert (name, [int(size) for size in dims.split(", ")]) == (value.name, shape)
    (service,) = yaml.safe_load_all((folder / "kserve.yaml").read_text())
    deployment, ports = yaml.safe_load_all((folder / "triton.yaml").read_text())
    pod = deployment["spec"]["template"]
    (container,), (volume,) = pod["spec"]["containers"], pod["spec"]["volumes"]
    (mount,) = container["volumeMounts"]
    claim = volume["persistentVolumeClaim"]["claimName"]
    repository = container["args"][1].removeprefix(f"--model-repository={mount['mountPath']}/")
    assert service["spec"]["predictor"]["model"]["storageUri"] == f"pvc://{claim}/{repository}"
    assert f'name: "{service["metadata"]["name"]}"' in config
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == ports["spec"]["selector"] == labels
    names = [port["name"] for port in container["ports"]]
    assert [port["targetPort"] for port in ports["spec"]["ports"]] == names
