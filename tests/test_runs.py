"""jaxnets runs: what a folder holds, as its files say, and nothing in it is run."""

import json
import os
import shlex

import pytest
from conftest import as_flags, read_json

from jaxnets.runs import listing

RECORD = {"step": 40, "seconds": 1.0, "train_loss": 0.5, "train_accuracy": 0.9}


def make_run(root, name, age, *, epochs=(3, 3), test=None, **config):
    """A run folder of small files, last written so many seconds after 2001."""
    path = root / name
    path.mkdir(parents=True)
    ended, wanted = epochs
    settings = {"model": "cnn", "dataset": "mnist", "seed": 0, "epochs": wanted, **config}
    (path / "config.json").write_text(json.dumps(settings))
    accuracies = [0.5 + 0.1 * number for number in range(1, ended + 1)]
    lines = [
        json.dumps({**RECORD, "epoch": number, "validation_accuracy": accuracy})
        for number, accuracy in enumerate(accuracies, start=1)
    ]
    (path / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    if test is not None:
        (path / "result.json").write_text(json.dumps({"dataset": "mnist", "test_accuracy": test}))
    aged(path, age)
    return path


def aged(path, age):
    """Gives a folder and its files a time."""
    for one in (*path.iterdir(), path):
        os.utime(one, (1e9 + age, 1e9 + age))


OF_AN_EXERCISE = dict(command="exercise train", rules={"dense_backward": "0"})


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Runs of several kinds, with a search and what is damaged."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "runs"
    make_run(root, "old", 1, test=0.91, learning_rate=0.1, device="cpu")
    make_run(root, "new", 9, test=0.95, learning_rate=0.2, device="gpu", seed=3)
    make_run(root, "half", 5, epochs=(1, 3), learning_rate=0.1, **OF_AN_EXERCISE)
    make_run(root, "other", 3, test=0.9, model="mlp", learning_rate=7.0)
    files = {"search.json": {"over": {"hidden": [1, 2]}, "runs": [{}, {}]}}
    for name, values in files.items():
        (root / name.partition(".")[0]).mkdir()
        (root / name.partition(".")[0] / name).write_text(json.dumps(values))
    make_run(root, "broken", 4)
    (root / "broken" / "metrics.jsonl").write_text("7\n")
    (root / "nothing").mkdir()  # Of another program: no run, so not a damaged one.
    (root / "nothing" / "link").symlink_to(root)
    return root


def test_a_stranger_s_file_is_not_offered_to_be_run(root, run_command):
    """Pasted, the command would run it."""
    config = root / "half" / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"command": "exercise train layers/my_relu.py"}))
    for form in ([], ["--json"]):
        outcome = run_command("runs", *form)
        assert "--resume" in outcome.out and "my_relu" not in outcome.out


def test_runs_are_listed_with_the_best_first(root, run_command):
    outcome = run_command("runs", "--json")
    assert (outcome.status, outcome.err) == (0, "")
    values = json.loads(outcome.out)
    assert [run["name"] for run in values["runs"]] == ["new", "other", "old", "half"]
    new, other, old, half = values["runs"]
    assert (new["test_accuracy"], new["seed"], new["epochs_done"], new["epochs"]) == (0.95, 3, 3, 3)
    assert new["validation_accuracy"] == pytest.approx(0.8) and new["resume"] is None
    assert (half["finished"], half["test_accuracy"], half["epochs_done"]) == (False, None, 1)
    words = shlex.split(half["resume"])
    assert words[-4:] == ["train", "FILE", "--resume", "--workdir=runs/half"]
    assert [run["differs"] for run in (new, other, old)] == [{"learning_rate": 0.2}, {}, {}]
    assert {os.path.basename(one["path"]): one["is"] for one in values["others"]} == {
        "search": "a search over hidden, 2 runs",
    }
    (bad,) = values["damaged"]
    assert bad["path"].endswith("broken") and "metrics.jsonl: damaged" in bad["reason"]


def test_the_table_has_a_line_for_each_run(root, run_command):
    out = run_command("runs", "runs").out
    head, *lines = out.splitlines()
    assert head.split() == [
        *("run", "model", "data", "epochs", "val", "acc", "test", "acc", "seed", "differs")
    ]
    assert lines[0].split() == [
        *("new", "cnn", "mnist", "3", "0.8000", "0.9500", "3", "learning_rate=0.2")
    ]
    assert lines[3].split() == ["half", "cnn", "mnist", "1/3", "0.6000", "-", "0"]
    assert "half: unfinished, 1 of 3 epochs; resume with: " in out
    assert "search: a search over hidden, 2 runs" in out
    assert "\ndamaged:\nbroken: " in out and "nothing" not in out


def test_only_what_differs_from_most_runs_is_named(root, run_command):
    for number in range(5):
        settings = {"momentum": 0.9, "limit": None, "batch_size": 32}
        settings |= [{}, {"momentum": 0.5}, {"limit": 100}, {"batch_size": 64}, {}][number]
        make_run(root, f"r{number}", number, model="softmax", **settings)
    runs = json.loads(run_command("runs", "--json").out)["runs"]
    found = {run["name"]: run["differs"] for run in runs if run["model"] == "softmax"}
    expected = [{}, {"momentum": 0.5}, {"limit": 100}, {"batch_size": 64}, {}]
    assert found == {f"r{number}": one for number, one in enumerate(expected)}


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_gets_what_differs_below(root, monkeypatch, width):
    monkeypatch.setattr(listing, "columns", lambda: width)
    settings = {"momentum": 0.9, "learning_rate": 0.123456, "augment": "crop,flip"}
    make_run(root, "mlp_functional-20260101-120000", 20, batch_size=32, **settings)
    table = listing.list_runs().text().partition("\n\n")[0]
    assert max(map(len, table.splitlines())) <= width
    assert "learning_rate=0.123456" in table


def test_a_hostile_folder_is_listed_and_runs_no_code(root, run_command):
    path = make_run(
        root, "evil", 30, test="1", layers=[{"x": 1}], seed=[1] * 99, epochs=(1, 10**400)
    )
    (path / "layers").mkdir()
    (path / "layers" / "evil.py").write_text("open('was-run', 'w')")
    (root / "linked").symlink_to(path)
    make_run(root, "links", 31)
    (root / "links" / "checkpoints").symlink_to(path)
    make_run(root, "\x1b[31m", 32, model="\x1b[2J")
    outcome = run_command("runs")
    assert (
        outcome.status == 0 and "\x1b" not in outcome.out and not (root.parent / "was-run").exists()
    )
    assert (
        "links: " in outcome.out and "found a link" in outcome.out and "linked" not in outcome.out
    )
    assert max(map(len, outcome.out.splitlines())) < 300


def test_one_run_and_no_runs(root, run_command, tmp_path):
    assert [
        run["name"] for run in json.loads(run_command("runs", root / "old", "--json").out)["runs"]
    ] == ["old"]
    (tmp_path / "empty").mkdir()
    assert run_command("runs", "empty").out.startswith("no runs in empty")
    run_command("runs", "nowhere").assert_refused("nowhere: no such folder; expected one of runs")
    run_command("runs", "a", "b").assert_refused("runs [FOLDER], got a b")


def test_a_real_run_has_every_value(run_main, tiny_flags, tmp_path, run_command):
    flags = [flag for flag in tiny_flags if "workdir" not in flag]
    place = as_flags(workdir=tmp_path / "runs" / "one")
    assert run_main("--model=softmax", *flags, *place).status == 0
    (run,) = json.loads(run_command("runs", tmp_path / "runs", "--json").out)["runs"]
    result = read_json(tmp_path / "runs" / "one" / "result.json")
    for name in ("model", "dataset", "validation_accuracy", "test_accuracy"):
        assert run[name] == result[name]
    assert (run["epochs_done"], run["epochs"], run["finished"]) == (2, 2, True)
