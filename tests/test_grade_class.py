"""Grading a whole class: rows as they come, what is left, who is alike, what most got wrong."""

import json
import pickle
import random
import re
import threading
from collections import Counter

import pytest
from conftest import HANGS
from hostile_submissions import RIGHT, relu

from jaxnets.course.exercises import actions, grade
from jaxnets.course.exercises.alike import SHORTEST, alike
from jaxnets.course.exercises.catalogue import TASKS
from jaxnets.course.exercises.grade import Grade, Submission, grades_of, submissions_in
from jaxnets.course.exercises.passes import run_source
from jaxnets.course.exercises.sandbox import Limits, Outcome, Sandbox
from jaxnets.course.settings import Grading

SOLUTION = TASKS["softmax_rows"].solution
# A change to the solution, and the results that it makes wrong.
SLIPS = [
    ("return p, ds", "return p, ds", ()),
    ("p * (dp - r)", "p * dp", ("ds",)),
    ("p * (dp - r)", "-p * (dp - r)", ("ds",)),
    ("axis=1, keepdims=True)\n    r", "axis=0, keepdims=True)\n    r", ("p", "ds")),
    ("return p, ds", "while True: pass", None),  # It never ends.
]
CLASS = 80


class Here(Sandbox):
    """A sandbox in this process, one submission at a time; what never ends runs out of time."""

    lock = threading.Lock()

    def check(self):
        """It is there."""

    def run(self, task, limits):
        task = pickle.loads(pickle.loads(task)[1])
        if "while True" in task["source"]:
            return Outcome(b"", started=True, timed_out=True)
        with self.lock:
            found = run_source(task["source"], "submission", task["name"], task["calls"])
        assert not isinstance(found, str)
        rows = [{name: array.tolist() for name, array in row.items()} for row in found]
        return Outcome(json.dumps(rows).encode(), started=True)


def renamed(source, number):
    """The same code in a student's own words, so that no two students are alike."""
    words = {name: f"{name}_{number}" for name in ("e", "r", "p", "ds")}
    body = source[source.index("    e =") :]
    body = re.sub(r"\b(e|r|p|ds)\b(?!\()", lambda found: words[found[0]], body)
    return source[: source.index("    e =")] + body


@pytest.fixture
def drawn_class(tmp_path):
    """A class of drawn submissions, and what each has wrong; None stands for no answer."""
    draw, folder, wrong = random.Random(0), tmp_path / "class", {}
    for number in range(CLASS):
        old, new, results = draw.choice(SLIPS)
        name = f"student{number:02}"
        (folder / name).mkdir(parents=True)
        source = renamed(SOLUTION.replace(old, new), number)
        (folder / name / "my_softmax_rows.py").write_text(source)
        wrong[name] = results
    # The last three copy: the same code in another layout, with a word changed, and a comment.
    copied = (folder / "student00" / "my_softmax_rows.py").read_text()
    for name, source in (
        ("student77", copied.replace(" = ", "  =  ")),
        ("student78", copied.replace("r_0", "mean")),
        ("student79", copied.replace("    e_0", "    # my own work\n    e_0", 1)),
    ):
        (folder / name / "my_softmax_rows.py").write_text(source)
        wrong[name] = wrong["student00"]
    return folder, wrong


def test_a_class_of_eighty_is_graded_whole(drawn_class, tmp_path, capsys, monkeypatch):
    folder, wrong = drawn_class
    assert len(set(wrong.values())) == 4
    table = tmp_path / "points.csv"
    actions.grade(str(folder), Grading(csv=str(table)), Here())
    _head, *rows = capsys.readouterr().out.splitlines()
    rows, (end, _, title, *most) = rows[:CLASS], rows[CLASS:]
    found = {row.split()[0]: row for row in rows}
    assert found.keys() == wrong.keys()
    for name, results in wrong.items():
        assert re.search(r" passed( |$)", found[name]) if results == () else "FAILED" in found[name]
        assert "still running" in found[name] if results is None else True
        assert not results or f"FAILED   {results[0]}: " in found[name]
    right = sum(results == () for results in wrong.values())
    assert end == f"{right} of {CLASS} passed; alike: 4"
    counts = Counter(one for results in wrong.values() for one in results or ())
    assert title == "most often wrong:" and counts["ds"] > counts["p"] > 1
    assert [row.split() for row in most] == [
        ["softmax_rows", one, str(counts[one]), "of", str(CLASS)] for one in ("ds", "p")
    ]
    marked = {name for name, row in found.items() if "like student" in row}
    assert marked == {"student00", "student77", "student78", "student79"}
    assert found["student77"].count("student") == 4 and "student79 (100 %)" in found["student77"]
    names = [line.split(",")[0] for line in table.read_text("utf-8-sig").splitlines()[1:]]
    assert names == sorted(wrong)  # Whenever each was known.
    actions.grade(str(folder), Grading(), Here(), as_json=True)
    values = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in values] == sorted(wrong)
    assert values[77]["alike"].keys() == {"student00", "student78", "student79"}
    assert values[77]["alike"]["student79"] == 1 > values[77]["alike"]["student78"] >= 0.9


def test_nobody_waits_for_a_submission_that_never_ends(tmp_path, monkeypatch, relu_cases):
    """Ann, who comes first, runs until all others have their rows."""
    monkeypatch.setattr(grade.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(grade, "cases_of", lambda name: relu_cases)
    others_are_done, answer = threading.Event(), Outcome(b'{"reason": "it came"}', started=True)

    class Blocking(Here):
        def run(self, task, limits):
            if b"ann_waits" in task:
                assert others_are_done.wait(HANGS)
                return Outcome(b"", started=True, timed_out=True)
            return answer

    for name, body in {"ann": "ann_waits", "ben": RIGHT, "eve": RIGHT, "zoe": RIGHT}.items():
        (tmp_path / f"{name}.py").write_text(relu(body))
    came = []
    for place, row in grades_of(submissions_in(str(tmp_path)), Limits(), Blocking()):
        came.append((place, row.name))
        if len(came) == 3:
            others_are_done.set()
    assert sorted(came[:3]) == [(1, "ben"), (2, "eve"), (3, "zoe")] and came[3] == (0, "ann")


def test_what_is_left_is_said_from_time_to_time(capsys):
    """Two sheets need not run. Each other submission takes 4 s, and 10 s pass between lines."""
    sheet = Grade("ann", "compute7", True)
    jobs = [Submission(f"{number}", "relu_backward") for number in range(8)]
    jobs = [jobs[0]._replace(grade=sheet), jobs[1]._replace(grade=sheet), *jobs[2:]]
    now = [0.0]

    def rows():
        for place, _job in enumerate(jobs):
            now[0] += 4 * (place >= 2)
            yield place, sheet

    assert [place for place, _ in actions._counted(jobs, rows(), lambda: now[0])] == [*range(8)]
    outcome = capsys.readouterr()
    assert outcome.err.splitlines() == ["5 of 8, 12.0 s left"] and not outcome.out


LONG = SOLUTION.replace("ds = p", "scale = 1.0 + 0.0 * e.sum()\n    ds = p")


def test_the_usual_answer_and_a_short_one_are_not_marked():
    copies = {f"{number}": LONG for number in range(3)}
    assert alike("softmax_rows", copies)["0"] == (("1", 1.0), ("2", 1.0))
    copies = {f"{number}": LONG for number in range(6)}  # Each is like five others.
    assert not alike("softmax_rows", copies)
    short = {"ann": relu(RIGHT), "ben": relu(RIGHT)}
    assert not alike("relu_backward", short) and len(RIGHT.split()) < SHORTEST


def test_docstrings_comments_layout_and_other_exercises_do_not_count():
    other = '"""Mine."""\n' + LONG.replace("\n    e", '\n    """It is mine."""  # Mine.\n\n    e')
    other += relu("\n".join(f"x{number} = cache" for number in range(60)))
    assert alike("softmax_rows", {"ann": LONG, "ben": other})["ann"] == (("ben", 1.0),)
    different = LONG.replace("scale", "factor").replace("np.exp", "np.power(np.e, 1) * np.exp")
    different = different.replace("dp * p", "np.multiply(p, dp)")
    assert not alike("softmax_rows", {"ann": LONG, "ben": different})
