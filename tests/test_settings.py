"""The types of settings, by which an editor finds a wrong one before the code runs."""

import dataclasses
import json
import subprocess
import sys
import typing

import pytest
from conftest import ROOT

from jaxnets.config.fields import Config
from jaxnets.config.settings import FitSettings, Settings


def test_the_settings_are_the_fields_of_config_with_their_types():
    fields = {field.name: field.type for field in dataclasses.fields(Config)}
    settings = typing.get_type_hints(Settings)
    assert settings.keys() == fields.keys() - {"model"}
    assert typing.get_type_hints(FitSettings).keys() == settings.keys() - {"epochs"}
    for name, kind in settings.items():
        if kind is not typing.Any:
            ours, theirs = (typing.get_args(one) or (one,) for one in (kind, fields[name]))
            assert set(theirs) <= set(ours) or kind == fields[name], name


# A program, and the lines in which pyright finds a fault.
PROGRAM = """
import jaxnets
from jaxnets import Classifier, Network, Regressor, preset
Network("cnn", epochs=3, hidden=64, batch_size="full", early_stopping=None).fit(learning_rate=0.1)
Network("cnn").fit(epoch=3)  # wrong
Network("cnn", lr=0.1)  # wrong
Network("cnn", epochs="3")  # wrong
Network("cnn").fit(shuffle=True, verbose=0, seed=1)
Classifier("mlp", epochs=3, seed=1)
Classifier("mlp", epoch=3)  # wrong
Regressor("mlp", rate=0.1)  # wrong
preset("mlp", optimiser="adam")  # wrong
"""


@pytest.mark.slow
def test_pyright_finds_a_setting_that_does_not_exist(tmp_path):
    pytest.importorskip("pyright", reason="pip install -e '.[test]' brings it")
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}))
    command = [sys.executable, "-m", "pyright", "--outputjson", "-p", str(tmp_path)]
    found = subprocess.run(
        [*command, "--pythonpath", sys.executable], capture_output=True, text=True, check=False
    )
    faults = json.loads(found.stdout)["generalDiagnostics"]
    lines = {one["range"]["start"]["line"] for one in faults if one["severity"] == "error"}
    wrong = {n for n, line in enumerate(PROGRAM.splitlines()) if line.endswith("# wrong")}
    assert lines == wrong, [one["message"] for one in faults]
