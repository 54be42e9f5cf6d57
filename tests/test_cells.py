"""Cells and who trains them: the same results from all backends, and nothing lost by a kill."""

import pytest
from cell_work import work
from conftest import read_json, slow

from jaxnets.tune import cells, search
from jaxnets.tune.backends import Failed, LocalProcesses, ThisProcess

PROGRAMS = ["--model=softmax", "--over=batch_size=16,32", "--over=learning_rate=0.1,0.2"]


def outcomes(backend, tasks):
    """The outcomes by tasks."""
    for task in tasks:
        backend.submit(task)
    found = [backend.collect() for _ in tasks]
    return {
        task: value._replace(message=str(value.message)) if isinstance(value, Failed) else value
        for task, value in found
    }


def results(folder):
    """The content of search.json that does not depend on who trained."""
    kept = read_json(folder / "search.json")
    return {name: kept[name] for name in ("flags", "over", "runs")}, {
        path.name: path.read_bytes() for path in (folder / "cells").iterdir()
    }


@pytest.mark.parametrize("kind", ["this process", slow("local processes")])
def test_each_task_has_a_result_or_a_line(kind, tmp_path):
    is_here = kind == "this process"
    backend = ThisProcess(work) if is_here else LocalProcesses(work, 2, 1)
    expected = {2: 4, 3: 9, "memory": Failed("not enough memory", 1)}
    expected["refused"] = Failed("expected a number", 2)
    if not is_here:
        expected["killed"] = Failed("its process was ended by SIGKILL, 4 times")
        expected[str(tmp_path / "first")] = "again"
    try:
        assert outcomes(backend, expected) == expected
        assert outcomes(backend, [5, 6]) == {5: 25, 6: 36}  # The next round, of the same processes.
        with pytest.raises(ZeroDivisionError if is_here else RuntimeError, match="ours"):
            outcomes(backend, ["bug"])
    finally:
        backend.close()


def test_a_cell_is_its_config_and_its_data(tiny_preset):
    config = tiny_preset("softmax")
    names = {
        cells.digest(cells.cell(*parts))
        for parts in [(config, "a"), (config, "b"), (tiny_preset("softmax", seed=1), "a")]
    }
    assert len(names) == 3
    assert "momentum" in cells.cell(tiny_preset("softmax", momentum=0.1), "a")["config"]
    assert "track" not in cells.cell(config, "a")["config"]  # A default changes no digest.


def test_a_program_counts_when_all_of_its_cells_are_there(tmp_path):
    program = [{"config": {"seed": seed}} for seed in range(2)]
    cells.write(tmp_path, program, [{"loss": float("nan")}, {"loss": 0.5}])
    names = list(map(cells.digest, program))
    found = cells.read(tmp_path)
    assert found == {names[0]: (program[0], {"loss": None}), names[1]: (program[1], {"loss": 0.5})}
    of_a_killed_process = f"{names[0]}.json.0123abcd.partial"
    (tmp_path / "cells" / of_a_killed_process).write_text("{")
    (tmp_path / "cells" / f"{names[1]}.json").unlink()
    assert cells.read(tmp_path) == {}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_steps")
def test_a_run_that_fails_is_named_and_the_others_go_on(
    run_command, tiny_flags, tmp_path, monkeypatch
):
    train_many = search.train_many

    def failing(configs, *rest):
        if configs[0].batch_size == 16:
            raise MemoryError
        return train_many(configs, *rest)

    monkeypatch.setattr(search, "train_many", failing)
    command = ["search", "--model=softmax", *tiny_flags, "--seeds=2"]
    command = [*(flag for flag in command if "batch_size" not in flag), "--over=batch_size=16,32"]
    outcome = run_command(*command)
    assert (outcome.status, outcome.out) == (1, "")
    where = f"kept: {tmp_path / 'run'} (--resume tries again)"
    name = "batch_size=16 seed=0 and 1 more: not enough memory"
    assert outcome.err == f"warning: {name}\nerror: {name}; {where}\n"
    assert len(results(tmp_path / "run")[0]["runs"]) == 2
    monkeypatch.setattr(search, "train_many", train_many)
    assert run_command(*command, "--resume").status == 0
    assert len(results(tmp_path / "run")[0]["runs"]) == 4


@pytest.mark.slow
def test_every_backend_gives_the_same_bits(run_command, tiny_flags, tmp_path):
    ours = [flag for flag in tiny_flags if "workdir" not in flag and "batch_size" not in flag]
    command = ["search", *PROGRAMS, "--seeds=2", *ours]

    def run(folder, *flags):
        found = run_command(*command, f"--workdir={tmp_path / folder}", *flags)
        assert (found.status, found.err) == (0, ""), found
        return found.out

    table = run("one").partition("\n\nresults")[0]
    expected = results(tmp_path / "one")
    assert len(expected[0]["runs"]) == 8 == len(expected[1])
    assert run("processes", "--processes=2").startswith(table)
    assert results(tmp_path / "processes") == expected
    for number in (1, 2):  # An array's tasks, which count from 1.
        assert "runs are done" in run("array", f"--cell={number}/2")
        assert not (tmp_path / "array" / "search.json").exists()
    assert run("array", "--resume").startswith(table)
    assert results(tmp_path / "array") == expected
