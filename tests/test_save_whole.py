"""`Network.save` writes a run whole or not at all, wherever a process ends."""

import json

import numpy as np
import pytest

import jaxnets
from jaxnets.base import files
from jaxnets.base.errors import UserError
from jaxnets.runs.run_folder import RunFolder, params_sha256

# Children replace a run (or write a first one), each killed before another change of a file or
# folder. Then the parent looks for a whole run, and saves once more. JAX starts no thread here.
KILLED = """
import json, os, sys
from pathlib import Path
import numpy as np
from jaxnets.base import files
from jaxnets.runs.run_folder import RunFolder

os.chdir(sys.argv[1])
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
last = None  # Before which change the process ends.

def count(event, arguments):
    global last
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
    if last is not None and (event in CHANGES or writes):
        if last == 0:
            os._exit(9)
        last -= 1

def write(name, overwrite):
    with RunFolder.replace("run", "softmax", overwrite=overwrite) as folder:
        folder.write("config.json", {"model": name})
        names = ("epoch", "step", "seconds", "train_loss", "train_accuracy", "validation_accuracy")
        folder.log(dict.fromkeys(names, 5))
        folder.save(5, {"w": np.full(3, ord(name[0]))})
        folder.finish({"model": name})

def contents(folder):
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}

os.fsync = lambda descriptor: None  # It takes long, and a process that ends loses no cache.
sys.addaudithook(count)
whole, found = {}, []
for name in ("old", "new", "next"):
    write(name, True)
    whole[name] = contents("run")
for first in (True, False):
    killed = True
    while killed:
        files.shutil.rmtree("run", ignore_errors=True)
        files.shutil.rmtree("run.partial", ignore_errors=True)
        if not first:
            write("old", False)
        child = os.fork()
        if not child:
            last = len(found)
            write("new", True)
            os._exit(0)
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        was_there = Path("run").exists()
        try:
            RunFolder.open("run")
        except ValueError as error:
            assert first and "found no config.json" in str(error), error
        left = contents("run")
        seen = next((name for name in whole if whole[name] == left), "none" if not left else "?")
        found.append((was_there, seen))
        write("next", True)
        assert contents("run") == whole["next"] and os.listdir() == ["run"], os.listdir()
    print(json.dumps(found))
    found = []
"""


@pytest.mark.slow
def test_a_process_ending_anywhere_leaves_old_or_new_run(run_python, tmp_path):
    ended = run_python("-c", KILLED, tmp_path)
    assert ended.status == 0, ended.err
    for found, before in zip(map(json.loads, ended.out.splitlines()), ("none", "old"), strict=True):
        seen = [name for _, name in found]
        assert len(found) > 15 and set(seen) == {before, "new"}
        assert seen == sorted(seen, key=["none", "old", "new"].index)  # Once new, always new.
        missing = [name for was_there, name in found if not was_there]
        assert missing.count("new") == 1  # Between the two renames.


@pytest.fixture
def network(tiny_preset):
    return jaxnets.Network(tiny_preset("softmax"))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_error_while_saving_leaves_the_old_run(network, tmp_path, monkeypatch):
    folder = network.save(tmp_path / "run")
    before = contents(folder)
    network.fit(verbose=0)

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "finish", fail)
        with pytest.raises(UserError, match="run: No space left on device"):
            network.save(folder, overwrite=True)
    assert contents(folder) == before and list(tmp_path.iterdir()) == [folder]
    network.save(folder, overwrite=True)
    assert params_sha256(jaxnets.load(folder).state.params) == params_sha256(network.state.params)


def test_a_run_is_loaded_from_between_the_renames(network, tmp_path):
    folder = network.save(tmp_path / "run")
    beside = tmp_path / "run.partial"
    beside.mkdir()
    folder.rename(beside / "new")
    (beside / "old").mkdir()
    with pytest.raises(UserError, match="holds a run"):
        network.save(folder)
    assert jaxnets.load(folder).history == [] and list(beside.iterdir()) == [beside / "old"]


def test_other_files_and_runs_in_training_are_not_replaced(network, tmp_path):
    folder = network.save(tmp_path / "run")
    with files.locked(folder), pytest.raises(UserError, match="another process is training"):
        network.save(folder, overwrite=True)
    (folder / "thesis.tex").touch()
    with pytest.raises(UserError, match="expected an empty folder, .* holds thesis.tex"):
        network.save(folder, overwrite=True)
    assert (folder / "thesis.tex").exists() and list(tmp_path.iterdir()) == [folder]
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    saved = network.save(tmp_path / "link")
    assert saved == tmp_path / "elsewhere" and np.isfinite(jaxnets.load(saved).evaluate().loss)
