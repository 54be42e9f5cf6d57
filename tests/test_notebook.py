"""docs/colab.ipynb: what it names exists, its refusals refuse, and it runs from top to bottom."""

import base64
import importlib.metadata
import importlib.util
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from conftest import HANGS, ROOT
from documents import look_up_names, missing_flags
from PIL import Image

from jaxnets.base.errors import UserError

PATH = ROOT / "docs" / "colab.ipynb"
NOTEBOOK = json.loads(PATH.read_text("utf-8"))
CELLS = [cell | {"source": "".join(cell["source"])} for cell in NOTEBOOK["cells"]]
CODE = [cell["source"] for cell in CELLS if cell["cell_type"] == "code"]


def cell_with(text: str) -> str:
    """The one code cell that holds a text."""
    (code,) = [code for code in CODE if text in code]
    return code


def test_it_is_a_notebook_with_small_outputs_and_no_errors():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)
    assert PATH.stat().st_size < 500_000
    outputs = [output for cell in CELLS for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
    for output in outputs:
        assert output["output_type"] in ("stream", "display_data"), output
        assert output.get("name") != "stderr", output


def test_what_it_names_exists():
    for cell in CELLS:
        assert not missing_flags(cell["source"].replace("pip wheel . --no-deps", ""))
    for code in CODE:
        look_up_names(code)


def test_a_name_that_does_not_exist_is_found():
    there = "from jaxnets.runs import request\nimport jaxnets\njaxnets.preset('cnn', epochs=1)\n"
    look_up_names(there + "request.load_data")
    for wrong in (there + "request.load_dataed", there.replace("epochs", "epoch")):
        with pytest.raises(AttributeError):
            look_up_names(wrong)
    for wrong in ("from jaxnets.experiment import epoch", "import jaxnets.experiments"):
        with pytest.raises(ImportError):
            look_up_names(wrong)
    assert not missing_flags("--model=cnn x--y ---")
    assert missing_flags("`--modle=cnn`") == ["modle"]


@pytest.fixture
def pip_commands(monkeypatch, tmp_path):
    """The commands that the installation gives to pip, in an empty folder without jaxnets."""
    commands = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda *given, check: commands.append((*given, check)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    return commands


def test_where_jaxnets_is_installed_nothing_happens(monkeypatch, pip_commands):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found")
    exec(cell_with("REPOSITORY ="), {})
    assert pip_commands == []


def with_address(address: str) -> str:
    """The installation's code, as it is for an address."""
    return re.sub('REPOSITORY = ".*"', f'REPOSITORY = "{address}"', cell_with("REPOSITORY ="))


def test_the_installation_takes_the_address_and_keeps_jax(pip_commands, tmp_path, capsys):
    exec(with_address("https://github.com/someone/nets"), {})
    ((command, check),) = pip_commands
    assert check and command[:4] == [sys.executable, "-m", "pip", "install"]
    assert not {"-U", "--upgrade"} & set(command)
    assert command[-1] == "git+https://github.com/someone/nets"
    pins = (tmp_path / command[command.index("-c") + 1]).read_text("utf-8").splitlines()
    for name in ("jax", "jaxlib", "flax", "numpy"):
        assert f"{name}=={importlib.metadata.version(name)}" in pins
    assert f"jax {importlib.metadata.version('jax')}" in capsys.readouterr().out


def test_without_an_address_a_checkout_or_wheel_is_installed(monkeypatch, pip_commands, tmp_path):
    code = with_address("")
    with pytest.raises(SystemExit, match=re.escape(f"Upload jaxnets-*.whl to {tmp_path} first")):
        exec(code, {})
    (tmp_path / "jaxnets-1.0-py3-none-any.whl").touch()
    exec(code, {})
    assert pip_commands[-1][0][-1] == str(tmp_path / "jaxnets-1.0-py3-none-any.whl")
    monkeypatch.chdir(ROOT / "docs")
    monkeypatch.setattr(Path, "write_text", lambda *given: None)  # No constraints.txt in docs/.
    exec(code, {})
    assert pip_commands[-1][0][-1] == str(ROOT)


def test_a_chosen_accelerator_that_is_not_seen_ends_it(monkeypatch, capsys):
    if jax.default_backend() != "cpu":
        pytest.skip("this machine has an accelerator")
    code = "from pathlib import Path\n" + cell_with("COLAB_TPU_1VM")
    for variable, platform in (("COLAB_TPU_1VM", "tpu"), ("COLAB_GPU", "gpu")):
        monkeypatch.setenv(variable, "1")
        with pytest.raises(UserError, match=f"expected {platform}, JAX has only CPU"):
            exec(code, {})
        monkeypatch.setenv(variable, "0")
    exec(code, {})
    assert capsys.readouterr().out.startswith("chosen: no accelerator; JAX trains on: CPU, ")


def test_on_colab_the_digit_is_the_one_that_was_drawn(monkeypatch):
    drawn = io.BytesIO()
    Image.new("L", (280, 280), 77).save(drawn, "PNG")
    url = "data:image/png;base64," + base64.b64encode(drawn.getvalue()).decode()
    colab: Any = SimpleNamespace(output=SimpleNamespace(eval_js=lambda script: url))
    names = {}
    exec(cell_with("def draw"), names)
    assert names["draw"]().getpixel((0, 0)) == 255  # White paper, with a seven.
    monkeypatch.setitem(sys.modules, "google", colab)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    assert names["draw"]().getpixel((0, 0)) == 77


@pytest.mark.oracle
@pytest.mark.slow
def test_it_runs_from_top_to_bottom(monkeypatch, tmp_path):
    names = "nbclient", "nbformat", "ipykernel", "matplotlib"
    nbclient, nbformat, *_ = [pytest.importorskip(name) for name in names]
    for variable in ("COLAB_GPU", "COLAB_TPU_1VM"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XLA_FLAGS", "")  # It trains: it pays to compile as for users.
    notebook = nbformat.read(PATH, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(notebook, timeout=1800, startup_timeout=HANGS, resources=place)
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output["text"] for output in outputs if output.output_type == "stream")
    assert not [output for output in outputs if output.get("name") == "stderr"], printed

    (accuracy,) = re.findall(r"^test accuracy (\S+):", printed, re.MULTILINE)
    assert float(accuracy) > 0.98
    checked = re.findall(r"^(\w+) +(kernel|bias) +(\S+)  (ok|WRONG)$", printed, re.MULTILINE)
    assert len(checked) == 16 and {row[3] for row in checked[:8]} == {"ok"}
    wrong = [row[:2] for row in checked if row[3] == "WRONG"]
    assert wrong == [("hidden", "bias"), ("logits", "bias")]
    placed = re.findall(r"^(.*?) +(\d+) all-reduce +relative error (\S+)$", printed, re.MULTILINE)
    *ways, forgotten = placed
    assert [way[:2] for way in ways] == [("jit", "1"), ("shard_map", "1"), ("pmap", "1")]
    assert max(float(way[2]) for way in ways) < 1e-6
    assert forgotten[1] == "0" and float(forgotten[2]) > 0.1
    assert "shard_map, psum forgotten: refused" in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
    assert re.search(r"^7  (1\.0|0\.9)", printed, re.MULTILINE)
