"""--config: flags from a TOML file, or from the config.json that a run writes."""

import json
import shlex
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT, params_sha256, read_json

from jaxnets.cli.flags import parse_flags
from jaxnets.config.file import read_flags
from jaxnets.config.recipes import PRESETS
from jaxnets.config.resolve import config_from_json, preset

TEXT = """
model = "mlp_functional"
hidden = [64, 32]
batch-size = "full"
learning_rate = 1
nesterov = false
augment = "shift,flip"
"""


@pytest.fixture
def toml(tmp_path):
    """Writes a TOML file; returns the flag that reads it."""

    def write(text):
        path = tmp_path / "flags.toml"
        path.write_text(text)
        return f"--config={path}"

    return write


def test_a_file_is_read_as_its_flags_would_be(toml):
    flags = ["--model=mlp_functional", "--hidden=64,32", "--batch-size=full", "--learning_rate=1"]
    flags += ["--no_nesterov", "--augment=shift,flip"]
    assert parse_flags([toml(TEXT)]) == parse_flags(flags)
    assert len(tomllib.loads(TEXT)) == len(parse_flags(flags))


@pytest.mark.parametrize("first", [True, False])
def test_flags_on_the_line_win(first, toml):
    flags = [toml(TEXT), "--hidden=8"]
    found = parse_flags(flags if first else flags[::-1])
    assert found["hidden"] == (8,) and found["augment"] == "shift,flip"


@pytest.mark.parametrize("model", PRESETS)
def test_what_a_run_writes_is_read_back(model, run_main, tmp_path):
    """Without the data and training: the config alone."""
    config = preset(model, epochs=3, seed=7, learning_rate=0.25, workdir=str(tmp_path))
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**vars(config), "versions": {"jax": "1"}, "num_classes": 10}))
    assert preset(**read_flags(str(path))) == preset(model, epochs=3, seed=7, learning_rate=0.25)
    assert config_from_json(read_json(path)) == config


@pytest.mark.slow
def test_a_run_is_repeated_by_its_folder_bit_by_bit(train_tiny, run_main, tmp_path):
    assert train_tiny("mlp_functional", "--hidden=8", "--seed=3").status == 0
    first, second = tmp_path / "run", tmp_path / "again"
    assert run_main(f"--config={first}", f"--workdir={second}").status == 0
    assert params_sha256(first) == params_sha256(second)
    ours, theirs = (read_json(folder / "config.json") for folder in (first, second))
    assert ours.pop("workdir") != theirs.pop("workdir") and ours == theirs


def test_a_shells_process_substitution_is_read():
    code = "import sys; from jaxnets.config.file import read_flags; print(read_flags(sys.argv[1]))"
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} <(echo 'epochs = 3')"
    ran = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("{'epochs': 3}\n", "")


def test_commands_take_it_too(run_command, toml):
    outcome = run_command("summary", toml('model = "mlp"\nhidden = [7]'), "--json")
    assert json.loads(outcome.out)["layers"][1]["shape"] == [7]


@pytest.mark.slow
def test_a_search_goes_over_what_a_runs_file_names(train_tiny, run_command, tmp_path):
    assert train_tiny("mlp_functional", "--hidden=8", "--epochs=1").status == 0
    flags = [f"--config={tmp_path / 'run'}", f"--workdir={tmp_path / 'search'}", "--seeds=1"]
    outcome = run_command("search", *flags, "--over=hidden=4,6", "--over=learning-rate=0.01,0.1")
    assert outcome.status == 0, outcome.err
    kept = read_json(tmp_path / "search" / "search.json")
    assert kept["over"] == {"hidden": [[4], [6]], "learning_rate": [0.01, 0.1]}
    assert kept["flags"]["epochs"] == 1 and len(kept["runs"]) == 4
