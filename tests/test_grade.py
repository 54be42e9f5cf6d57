"""Grading: right submissions pass, hostile ones neither pass nor touch another's row."""

import json
import os
import re

import numpy as np
import pytest
from answers import answer_to
from hostile_submissions import ENDS, RIGHT, SELF, WRITE, relu

from jaxnets.base.errors import RunFailedError
from jaxnets.course.exercises import actions, grade, sandbox
from jaxnets.course.exercises.apart import arrays_of
from jaxnets.course.exercises.catalogue import BLANKS, BUGS, imports_of
from jaxnets.course.exercises.grade import Grade, grades_of, submissions_in
from jaxnets.course.exercises.judge import verdict
from jaxnets.course.exercises.sandbox import Limits, Outcome, Sandbox
from jaxnets.course.settings import Grading

GRADE = "exercise", "grade"

SHEET = 'exercise = "compute7"\nmean = 4\nsum = 12\nw_mean = 0.6\nw_sum = -0.2\nrate = 0.0333\n'


@pytest.fixture
def submissions(tmp_path):
    """A folder of submissions, each student's in a folder or a file of its own."""

    def write(files):
        folder = tmp_path / "submissions"
        folder.mkdir(exist_ok=True)
        for name, source in files.items():
            if name.endswith((".toml", ".py")):
                (folder / name).write_text(source)
            else:
                (folder / name).mkdir()
                (folder / name / "my_relu.py").write_text(source)
        return folder

    return write


def rows_of(jobs, limits, where):
    """The grades in the order of the folder."""
    return [row for _place, row in sorted(grades_of(jobs, limits, where))]


def graded(folder, limits=Limits(), where=None):  # noqa: B008
    """The grades of a folder, by name."""
    rows = rows_of(submissions_in(str(folder)), limits, where or Sandbox())
    assert len({row.name for row in rows}) == len(rows)
    return {row.name: row for row in rows}


# Among them are those that end their sandbox, flood, forge, never end, and take what they can.
@pytest.mark.slow
def test_no_hostile_submission_passes_or_touches_its_neighbours(submissions, bubblewrap):
    hostile = {f"m_{name}": relu(body, SELF + WRITE) for name, body in ENDS.items()}
    honest = {
        "ann": relu(RIGHT),
        "m_in_numpy": relu("return np.where(cache > 0, dy, 0)", "import numpy as np"),
        "m_with_a_loop": relu("if dy.sum() > 0: print(dy)\n" + RIGHT),
        "zoe": relu(RIGHT),
    }
    folder, rows = submissions(hostile | honest), []
    jobs = [
        job._replace(grade=None, source=(folder / job.name / "my_relu.py").read_text())
        for job in submissions_in(str(folder))
    ]  # As if nobody had looked at its source.
    jobs = {job.name: job._replace(exercise="relu_backward") for job in jobs}
    ever = {name: jobs.pop(name) for name in ("m_sleeps", "m_stops_itself")}  # They do not end.
    for some, wait in ((jobs, 90), (ever, 2)):
        limits = Limits(seconds=4, memory=1024, wait=wait)
        rows += rows_of(list(some.values()), limits, Sandbox())
    assert sorted(row.name for row in rows) == sorted({*hostile, *honest})
    assert {row.name for row in rows if row.passed} == set(honest)
    reasons = {row.name: row.reason or row.wrong for row in rows if not row.passed}
    assert all(reasons.values())
    assert reasons["m_at_ties_only"] == "dx"
    assert reasons["m_sleeps"] == "it was still running when its time was over"
    assert reasons["m_floods"] == "its answer is too long"
    assert not [reason for reason in reasons.values() if not reason.isprintable()]


@pytest.mark.slow
@pytest.mark.usefixtures("judge_in_float64")  # The test above grades in every precision.
def test_answers_pass_and_bugs_are_found_whatever_they_import(submissions, bubblewrap):
    """The sandbox has what each exercise imports, and judges as the judge at home."""
    blanks = {imports_of(blank): name for name, blank in BLANKS.items()}.values()
    right = {f"{name}.py": answer_to(name) for name in blanks}
    bugs = {imports_of(bug): name for name, bug in BUGS.items() if imports_of(bug)}.values()
    wrong = {f"{name}.py": BUGS[name].text() for name in bugs}
    rows = graded(submissions(right | wrong))
    assert {f"{name}.py" for name, row in rows.items() if row.passed} == set(right)
    for name in bugs:
        assert rows[name].wrong or "expected the shape" in rows[name].reason, rows[name]


def test_a_pass_that_another_exercise_imports_is_no_answer(submissions):
    """bug6 may import the pass of dense; in the same file it is no derivation of one's own."""
    ours = "from jaxnets.backprop.dense import dense_backward as ours\n"
    source = (
        ours + "def dense_backward(cache, dz):\n    return ours(cache, dz)\n" + BUGS["bug6"].code
    )
    found = submissions_in(str(submissions({"ann.py": source})))
    dense, bug6 = (one.grade for one in sorted(found, key=lambda one: one.exercise, reverse=True))
    assert bug6 is None and dense
    assert dense.reason.startswith("line 1: imports jaxnets.backprop.dense")


def test_a_flag_is_in_the_table_and_in_the_status(submissions, monkeypatch, run_command, tmp_path):
    """What passes and looks like a way round the checks is for the teacher to read."""
    monkeypatch.setattr(Sandbox, "check", lambda self: None)
    right = {"reason": "as any other"}
    monkeypatch.setattr(Sandbox, "run", lambda *_: Outcome(json.dumps(right).encode(), True))
    folder = submissions({"ann": relu("f = getattr(jnp, 'where')\n" + RIGHT), "ben": relu(RIGHT)})
    table = tmp_path / "points.csv"
    lines = run_command(*GRADE, folder, f"--csv={table}").out.splitlines()
    assert lines[1].endswith("as any other; read line 6: getattr") and "read" not in lines[2]
    assert lines[3] == "0 of 2 passed; to read: 1"
    _, ann, ben = table.read_text("utf-8-sig").splitlines()
    assert ann.endswith("; to read: relu") and "read" not in ben
    ann, ben = json.loads(run_command(*GRADE, folder, "--json").out)
    assert (ann["flag"], ben["flag"]) == ("line 6: getattr", "")


@pytest.mark.parametrize(
    "forged",
    [
        b"passed",
        b"null",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'[{"x": ' + b"9" * 5000 + b"}]",
        b'[{"x": ' + b"[" * 70 + b"1" + b"]" * 70 + b"}]",
        b'[{"x": [[1, 2], [3]]}]',
        b'[{"x": ["one"]}]',
        b'[{"x": {"4": 5}}]',
        b'[{"x": [], "y": []}]',
        b'[["x", 1]]',
        b'[{"x": []}, {"x": []}]',
        b'{"passed": true}',
        b'{"reason": null}',
        b'{"reason": "passed"}',
    ],
)
def test_a_forged_answer_is_no_gradient(forged, relu_cases):
    assert isinstance(arrays_of(forged, relu_cases), str)


def test_an_answer_is_read_as_it_was_written(relu_cases):
    cases = relu_cases
    right = cases[0].right["x"]
    found = arrays_of(json.dumps([{"x": right.tolist()}]).encode(), cases)
    assert not isinstance(found, str)
    np.testing.assert_array_equal(found[0]["x"], right)
    assert verdict("relu_backward", cases, found)
    for forged in (right.T.tolist(), [], float("nan"), 1e400):
        found = arrays_of(json.dumps([{"x": forged}]).encode(), cases)
        assert not isinstance(found, str)
        assert verdict("relu_backward", cases, found).reason.startswith("expected the shape (4, 5)")


def forms(folder):
    """Files that need not run: whatever they are, each is a row."""
    (folder / "link.py").symlink_to(folder / "ann.toml")
    (folder / "folder.py").symlink_to(folder)
    os.mkfifo(folder / "pipe.py")
    with (folder / "hole.py").open("wb") as file:
        file.truncate(1 << 40)
    (folder / "locked").mkdir()
    (folder / "locked" / "my_relu.py").mkdir()


STRANGE = {
    "digits.toml": SHEET.replace("mean = 4", f"mean = {'9' * 5000}"),
    "float.toml": SHEET.replace("mean = 4", f"mean = 1{'0' * 400}"),
    "nan.toml": SHEET.replace("mean = 4", "mean = nan"),
    "deep.toml": SHEET.replace("mean = 4", f"mean = {'[' * 5000}4{']' * 5000}"),
    "text.toml": "passed = true",
    "no_python.py": "def relu_backward(cache, dy:\n",
    "deep.py": "x = " + "(" * 5000 + ")" * 5000 + "\n" + relu(RIGHT),
    "minus.py": "x = " + "-" * 90_000 + "1\n" + relu(RIGHT),
    "nul.py": "\0" * 100,
    "too_long.py": relu(RIGHT) + "#" * 200_000,
    "another_name.py": relu(RIGHT).replace("relu_backward", "relu_backwards"),
    "imports.py": relu(RIGHT, "import os"),
    "escape.py": relu("return '\\d'", "import os"),
    "differentiates.py": relu("return jax.vjp(jax.nn.relu, cache)[1](dy)[0]"),
    "\x1b[2J\x1b]0;x\a.toml": "",
    "ann\nzoe   compute7  passed.toml": "",
    "zoe   compute7  passed.toml": "",
}


def test_a_strange_file_fails_and_its_neighbours_pass(submissions, run_command):
    folder = submissions(STRANGE | {"ann.toml": SHEET, "zoe.toml": SHEET})
    forms(folder)
    outcome = run_command(*GRADE, folder)
    assert outcome.status == 0 and outcome.err == ""
    table, often = outcome.out.split("\n\n")
    lines = table.splitlines()
    assert often.startswith("most often wrong:\n")
    assert len(lines) == len(STRANGE) + 2 + 5 + 2  # With head and sum.
    assert lines[-1] == f"2 of {len(lines) - 2} passed"
    assert all(line.isprintable() for line in lines)
    passed = [line.split() for line in lines if re.search(r"^\S+ +\S+ +passed", line)]
    assert passed == [["ann", "compute7", "passed"], ["zoe", "compute7", "passed"]]
    rows = json.loads(run_command(*GRADE, folder, "--json").out)
    assert {row["name"] for row in rows if row["passed"]} == {"ann", "zoe"}
    reasons = {row["name"]: row["reason"] for row in rows}
    assert reasons["imports"].startswith("line 3: imports os; an exercise may import ")
    assert reasons["differentiates"].endswith("a gradient by hand is derived without it")
    assert reasons["float"] == reasons["nan"] == "4 of 5 right"
    assert len(rows) == len(lines) - 2


class Saying(Sandbox):
    """A sandbox in which nothing runs, and which says one outcome after the other."""

    def __init__(self, *outcomes):
        super().__init__()
        self.outcomes = list(outcomes)

    def check(self):
        """It is there."""

    def run(self, task, limits):
        return self.outcomes.pop(0)


CAME = Outcome(b'{"reason": "it came"}', started=True)


def test_a_fault_of_the_judge_is_one_row_s(submissions, monkeypatch):
    jobs = submissions_in(str(submissions({"ann": relu(RIGHT), "zoe.toml": SHEET})))
    monkeypatch.setattr(grade, "cases_of", lambda name: [])
    monkeypatch.setattr(grade, "verdict", lambda *_: 1 / 0)
    answer = Outcome(b"[]", started=True)
    ann, zoe = rows_of(jobs, Limits(), Saying(answer))
    assert ann.reason == "it cannot be graded: ZeroDivisionError: division by zero"
    assert zoe.passed


def test_a_process_that_does_not_start_is_tried_again_and_is_no_verdict(
    submissions, relu_cases, monkeypatch, tmp_path
):
    monkeypatch.setattr(grade, "cases_of", lambda name: relu_cases)
    folder = submissions({"ann": relu(RIGHT)})
    refused = Outcome(b"bwrap: Resource temporarily unavailable", started=False)
    assert graded(folder, where=Saying(refused, CAME))["ann"].reason == "it came"
    table = tmp_path / "points.csv"
    with pytest.raises(
        RunFailedError, match="^ann: relu_backward: its process did not start, .*bwr"
    ):
        actions.grade(str(folder), Grading(csv=str(table)), Saying(refused, refused))
    assert not table.exists()


def test_what_the_kernel_kills_runs_again_alone(submissions, relu_cases, monkeypatch):
    """Another submission may have taken the machine's memory."""
    monkeypatch.setattr(grade, "cases_of", lambda name: relu_cases)
    folder = submissions({"ann": relu(RIGHT)})
    killed = Outcome(b"", started=True, killed=True)
    assert graded(folder, where=Saying(killed, CAME))["ann"].reason == "it came"
    assert graded(folder, where=Saying(killed, killed))["ann"].reason.startswith("it ended without")


def test_rows_are_printed_as_they_come(submissions, monkeypatch, capsys):
    """A grading that is ended half-way has printed what it knew."""

    def half(jobs, *_):
        yield 0, Grade("ann", "compute7", True)
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxnets.course.exercises.grade.grades_of", half)
    folder = submissions({"ann.toml": SHEET, "zoe.toml": SHEET})
    with pytest.raises(KeyboardInterrupt):
        actions.grade(str(folder), Grading(), Sandbox())
    assert capsys.readouterr().out.splitlines()[1].split() == ["ann", "compute7", "passed"]


def test_a_grading_that_is_stopped_ends_what_runs(submissions, bubblewrap, judge_in_float64):
    """It would wait for ever else."""
    sleeping = relu("getattr(__import__('time'), 'sleep')(10 ** 9)")
    jobs = submissions_in(str(submissions({"ann.toml": SHEET, "zoe": sleeping})))
    grades = grades_of(jobs, Limits(seconds=10**6, wait=1e6), bubblewrap)
    assert next(grades)[1].passed
    grades.close()


@pytest.mark.slow
def test_numbers_and_passes_are_graded_in_one_table(
    submissions, bubblewrap, run_command, tmp_path, judge_in_float64
):
    files = {
        "ann": relu(RIGHT),
        "ben.toml": 'exercise = "compute7"\nmean = 4\nsum = 4\n',
        "eve": relu("return -jnp.where(cache > 0, dy, 0)"),
    }
    folder, table = submissions(files), tmp_path / "points.csv"
    outcome = run_command(*GRADE, folder, f"--csv={table}", f"--feedback={tmp_path / 'texts'}")
    assert outcome.status == 0
    head, first, *others, total = outcome.out.splitlines()
    assert head == "student  exercise       verdict  first wrong, or why"
    assert first == "ben      compute7       FAILED   sum: 1 of 5 right"  # It need not run.
    assert sorted(others) == [  # In the order in which they end.
        "ann      relu_backward  passed",
        "eve      relu_backward  FAILED   dx",
    ]
    assert total == "1 of 3 passed"
    assert table.read_text("utf-8-sig").splitlines() == [
        "name,relu,compute7,points,maximum,status",
        "ann,2,0,2,4,1 of 2 passed; not handed in: compute7",
        "ben,0,0.4,0.4,4,0 of 2 passed; not handed in: relu",
        "eve,0,0,0,4,0 of 2 passed; not handed in: compute7",
    ]
    assert "dx: wrong\n" in (tmp_path / "texts" / "eve.txt").read_text("utf-8")


@pytest.mark.slow
def test_trusted_submissions_run_without_a_sandbox(submissions, run_command):
    outcome = run_command(*GRADE, submissions({"ann": relu(RIGHT)}), "--trust", "--json")
    row = {"name": "ann", "exercise": "relu_backward", "passed": True, "wrong": "", "reason": ""}
    row |= {"checks": {"dx": True}, "file": "my_relu.py", "student": "", "flag": "", "alike": {}}
    assert json.loads(outcome.out) == [row]


def test_without_a_sandbox_nothing_runs(run_command, monkeypatch, submissions, tmp_path):
    folder = submissions({"ann": relu(RIGHT)})
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sandbox.sys, "platform", "linux")
    run_command(*GRADE, folder).assert_refused("install bubblewrap", "or --trust if")
    run_command(*GRADE, folder, "--sandbox=podman").assert_refused("expected podman, which is not")
    (tmp_path / "bwrap").touch(0o755)
    monkeypatch.setattr(sandbox.os, "getuid", lambda: 1000)
    monkeypatch.setattr(sandbox.platform, "release", lambda: "5.10.0-28-amd64")
    run_command(*GRADE, folder).assert_refused("expected Linux 5.14, ", "got 5.10.0-28-amd64")
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    run_command(*GRADE, folder).assert_refused("expected Linux", "--sandbox=podman or docker")
