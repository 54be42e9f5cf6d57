"""Small run folders: --weights_only, and the note about a large one."""

import numpy as np
import pytest
from conftest import params_sha256, saved_params
from PIL import Image
from safetensors.numpy import load_file


def test_a_finished_run_keeps_only_its_weights(train_tiny, run_command, tmp_path):
    assert train_tiny("mlp_functional", f"--workdir={tmp_path / 'whole'}").status == 0
    assert train_tiny("mlp_functional", "--weights_only", "--keep=5").status == 0
    ours, theirs = saved_params(tmp_path / "run"), saved_params(tmp_path / "whole")
    assert ours[0] == theirs[0] == 10
    for name, array in theirs[1].items():
        np.testing.assert_array_equal(ours[1][name], array)
    (file,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert load_file(file).keys() == theirs[1].keys()
    assert params_sha256(tmp_path / "run") == params_sha256(tmp_path / "whole")
    Image.effect_noise((12, 12), 50).save(tmp_path / "a.png")
    outcomes = [
        run_command("predict", tmp_path / name, tmp_path / "a.png", "--json", "--prepare=picture")
        for name in ("run", "whole")
    ]
    assert [outcome.status for outcome in outcomes] == [0, 0]
    assert outcomes[0].out == outcomes[1].out


def test_it_cannot_be_resumed_and_says_what_can_be_done(train_tiny, run_main, tmp_path):
    assert train_tiny("softmax", "--weights_only").status == 0
    folder = tmp_path / "run"
    outcome = run_main("--resume", f"--workdir={folder}", "--epochs=3")
    outcome.assert_refused("holds only weights", "init_from=RUN")
    assert (folder / "result.json").exists()
    again = train_tiny("softmax", f"--init_from={folder}", f"--workdir={tmp_path / 'next'}")
    assert again.status == 0 and "weights from" in again.out


def test_an_interrupted_one_is_resumed(train_tiny, run_main, interrupt_after, tmp_path):
    interrupt_after(1)
    assert train_tiny("cnn", "--weights_only").status == 130
    interrupt_after(10**9)
    assert run_main("--resume", f"--workdir={tmp_path / 'run'}").status == 0
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1


@pytest.mark.parametrize(("keep", "is_noted"), [(4, False), (1999, True)])
def test_a_large_folder_is_announced_before_it_is_filled(keep, is_noted, train_tiny):
    outcome = train_tiny("cnn", f"--keep={keep}")
    # 36,227 parameters and as many momenta of four bytes, 2,000 times.
    line = "note: the run folder takes up to 580 MB, 0 MB a checkpoint; --keep=1"
    assert outcome.out.splitlines()[1].startswith(line) == is_noted
