"""Folders of every version from 1.0 on are read. `run_of_1_0_0` is one of the first version.

    python train.py --model=mlp_functional --hidden=4 --data_dir=TINY --validation_size=40 \
        --batch_size=32 --epochs=2 --devices=1 --keep=1 --workdir=run

A field that a later version adds to Config is missing in it, and needs what the earlier one did.
"""

import shutil

import pytest
from conftest import ROOT, read_json, records

import jaxnets


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(ROOT / "tests" / "run_of_1_0_0", tmp_path / "run")


def test_a_run_of_1_0_0_is_evaluated_as_it_was(folder, tiny):
    network, kept = jaxnets.load(folder, data=tiny), read_json(folder / "result.json")
    assert network.config.hidden == (4,) and len(network.history) == 2
    test = network.evaluate()
    assert test.accuracy == kept["test_accuracy"]
    assert test.loss == pytest.approx(kept["test_loss"], rel=1e-5)


def test_a_run_of_1_0_0_goes_on(folder, tiny_folder, run_main):
    before = records(folder)
    flags = ["--resume", f"--workdir={folder}", f"--data_dir={tiny_folder}", "--epochs=3"]
    assert run_main(*flags).status == 0
    assert records(folder)[:2] == before and len(records(folder)) == 3
