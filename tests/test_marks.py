"""Points of a class: the table, the texts for students, Gradescope's and nbgrader's formats."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import warnings

import pytest
from answers import filled
from conftest import ROOT

from jaxnets.base.errors import UserError
from jaxnets.base.language import speaking
from jaxnets.course.exercises import marks
from jaxnets.course.exercises.catalogue import BETS, BUGS, EXERCISES, SHEETS
from jaxnets.course.exercises.grade import Check, Grade

GRADE = "exercise", "grade"

RIGHT = filled("compute7", {q.name: q.answer for q in SHEETS["compute7"].questions})
WRONG = filled("compute7", {"mean": 4, "sum": 4})  # A usual slip, and three blanks.
HOSTILE = {
    "=cmd|' !A1": "'=cmd|' !A1",
    "+1": "'+1",
    "-1": "'-1",
    "@SUM(1)": "'@SUM(1)",
    " =1": "' =1",
    "＝1": "'＝1",
    'a"b,c;d': 'a"b,c;d',
    "张 三": "张 三",
    "\t=1": "\\t=1",
    "a\nb": "a\\nb",
}


@pytest.fixture
def class_of(tmp_path):
    """A folder with a folder for each student, whose files are given by their names."""

    def write(students):
        folder = tmp_path / "class"
        for name, files in students.items():
            (folder / name).mkdir(parents=True)
            for file, text in files.items():
                (folder / name / file).write_text(text, "utf-8")
        return folder

    return write


CLASS = {
    "ann": {"my_compute7.toml": RIGHT},
    "ben": {"a.toml": WRONG, "b.toml": RIGHT, "broken.py": "def relu_backward(:\n"},
    "eve": {"my_compute7.toml": WRONG},
    "zoe": {},
    "__MACOSX": {"._my_compute7.toml": "\0"},
}


def read(path):
    content = path.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")  # Excel reads UTF-8 with this mark alone.
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))


@pytest.mark.oracle
def test_each_student_is_a_row_with_points(class_of, run_command, tmp_path):
    """The best of two files counts; who has handed in nothing is there; a broken file is named."""
    table = tmp_path / "points.csv"
    folder = class_of(CLASS)
    outcome = run_command(*GRADE, folder, f"--csv={table}", "--exercises=compute7=10,relu")
    assert (outcome.status, outcome.err) == (0, "")
    assert "zoe" in outcome.out and "no .py or .toml file" in outcome.out
    one_of_two = "1 of 2 passed; not handed in: relu"
    assert read(table) == [
        ["name", "compute7", "relu", "points", "maximum", "status"],
        ["ann", "10", "0", "10", "12", one_of_two],
        ["ben", "10", "0", "10", "12", f"{one_of_two}; without points: broken.py"],
        ["eve", "2", "0", "2", "12", "0 of 2 passed; not handed in: relu"],
        ["zoe", "0", "0", "0", "12", "0 of 2 passed; not handed in: compute7, relu"],
    ]
    pandas = pytest.importorskip("pandas")
    assert pandas.read_csv(table).set_index("name").points.to_dict() == {
        "ann": 10, "ben": 10, "eve": 2, "zoe": 0
    }  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_no_name_becomes_a_formula_or_another_file(class_of, run_command, tmp_path):
    names = [*HOSTILE, "x..", "a" * 250, "a" * 249 + "b"]
    folder = class_of({name: {"a.toml": RIGHT} for name in names})
    texts, table = tmp_path / "texts", tmp_path / "points.csv"
    run_command(*GRADE, folder, f"--csv={table}", f"--feedback={texts}")
    rows = read(table)[1:]
    assert {row[0] for row in rows} == {*HOSTILE.values(), "x..", "a" * 250, "a" * 249 + "b"}
    assert {len(row) for row in rows} == {5}
    files = list(texts.iterdir())
    assert len(files) == len(names) and {path.suffix for path in files} == {".txt"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["class", "points.csv", "texts"]


def grade(exercise, *right, passed=False):
    checks = tuple(Check(str(number), one) for number, one in enumerate(right))
    return Grade("ann", exercise, passed, checks=checks)


@pytest.mark.parametrize(
    ("row", "points"),
    [
        (grade("dense_backward", True, True, False), 2),
        (grade("dense_backward", True, True, True, passed=True), 3),
        (grade("dense_backward", True, True, True), 0),  # Differences alone have found it.
        (grade("dense_backward"), 0),  # It could not be compared.
        (grade("bug2", True, True, False), 0),  # Two of three were right before.
        (grade("compute7", True, False, False), 0.67),
        (grade("loop1", False), 0),
    ],
)
def test_a_part_has_its_share_and_a_repair_none(row, points):
    assert EXERCISES["dense"].minutes == 15  # Three points.
    (student,) = marks.students_of([row], None)
    assert student.points == points and len(student.marks) == 1


def test_the_status_says_whose_numbers_a_sheet_holds():
    """A sheet with ada's numbers, handed in by ann, is copied."""
    row = grade("compute1", True, passed=True)
    for whose, said in (("ada", "; numbers of ada"), ("ann", ""), ("", "")):
        text = marks.csv_of(marks.students_of([row._replace(student=whose)], None))
        assert text.splitlines()[1] == f"ann,2,2,2,1 of 1 passed{said}"


def test_points_are_read_or_refused():
    assert marks.points_of(["dense", "relu=0.5"]) == {"dense": 3, "relu": 0.5}
    for word in ("dense=x", "dense=-1", "dense=nan", "dense=1e9"):
        with pytest.raises(UserError, match=r"exercises: expected NAME or NAME=POINTS"):
            marks.points_of([word])
    with pytest.raises(UserError, match='unknown exercise "dens"; did you mean "dense"'):
        marks.points_of(["dens"])


EVE = """\
eve: 0.4 of 4 points

compute7  0.4 of 2  not right yet
relu      0 of 2    not handed in

compute7
  right: mean
  sum: wrong: that is the mean; do not divide
  w_mean: blank
  w_sum: blank
  rate: blank
  the judge: 1 of 5 right
  more, at home:
    jaxnets exercise check my_compute7.toml --hint

relu
  not handed in; it begins with:
    jaxnets exercise new relu
"""


def test_a_text_says_what_to_do_next_and_nothing_of_others(class_of, run_command, tmp_path):
    texts = tmp_path / "texts"
    arguments = class_of(CLASS), f"--feedback={texts}", "--exercises=compute7,relu"
    run_command(*GRADE, *arguments)
    found = {path.stem: path.read_text("utf-8") for path in texts.iterdir()}
    assert set(found) == {"ann", "ben", "eve", "zoe"}
    for name, text in found.items():
        assert not [other for other in found if other != name and re.search(rf"\b{other}\b", text)]
    assert found["eve"] == EVE
    assert "broken.py, without points\n  line 1: " in found["ben"]
    for question in SHEETS["compute7"].questions:
        if question.name != "mean":  # It was right.
            assert not re.search(rf"(?<![\d.]){question.answer:g}(?!\d)", found["eve"])
    run_command(*GRADE, *arguments, "--language=zh")
    chinese = (texts / "eve.txt").read_text("utf-8")
    assert chinese.startswith("eve：") and "jaxnets exercise check my_compute7.toml" in chinese
    assert not re.search(r"\b(points|wrong|blank|handed|judge)\b", chinese)


def test_who_has_everything_right_is_told_what_follows():
    with speaking("en"):
        text = marks.feedback(marks.students_of([grade("compute1", True, passed=True)], None)[0])
    assert text.endswith("The course goes on with: jaxnets exercise new derive_neuron\n")


@pytest.mark.parametrize("name", BETS)
def test_a_lost_bet_has_its_points_and_feedback_does_not_tell_what_happened(
    name, class_of, run_command, tmp_path
):
    """Ann has lost all bets, and Ben has made only the first."""
    lost = {q.name: 1 + q.answer % 4 for q in BETS[name].questions}
    first, texts, table = next(iter(lost)), tmp_path / "texts", tmp_path / "points.csv"
    made = {"ann": lost, "ben": {first: lost[first]}}
    folder = class_of({who: {"a.toml": filled(name, bets)} for who, bets in made.items()})
    run_command(*GRADE, folder, f"--feedback={texts}", f"--csv={table}")
    most = EXERCISES[name].minutes / 5
    assert [float(row[1]) for row in read(table)[1:]] == [most, round(most / len(lost), 2)]
    said = {who: (texts / f"{who}.txt").read_text("utf-8") for who in made}
    assert "passed" in said["ann"]
    if len(lost) > 1:
        assert f"  made: {first}\n" in said["ben"] and ": blank\n" in said["ben"]
        assert f"the judge: 1 of {len(lost)} bets made" in said["ben"]
    for text in said.values():
        assert not [q.name for q in BETS[name].questions if q.then[:30] in text]


# After https://gradescope-autograders.readthedocs.io/en/latest/specs/ (read in 2026).
VISIBILITY = {"hidden", "after_due_date", "after_published", "visible"}
FORMATS = {"text", "html", "simple_format", "md", "ansi"}
OF_A_TEST = {
    "score": float, "max_score": float, "status": {"passed", "failed"}, "name": str,
    "name_format": FORMATS, "number": str, "output": str, "output_format": FORMATS, "tags": list,
    "visibility": VISIBILITY, "extra_data": dict,
}  # fmt: skip
OF_ALL = {
    "score": float, "execution_time": float, "output": str, "output_format": FORMATS,
    "test_output_format": FORMATS, "test_name_format": FORMATS, "visibility": VISIBILITY,
    "stdout_visibility": VISIBILITY, "extra_data": dict, "tests": list, "leaderboard": list,
}  # fmt: skip


def assert_of_gradescope(results):
    for values, allowed in ((results, OF_ALL), *((test, OF_A_TEST) for test in results["tests"])):
        for name, value in values.items():
            wanted = allowed[name]
            right = value in wanted if isinstance(wanted, set) else isinstance(value, wanted)
            assert right, (name, value)


def test_gradescope_gets_its_results(class_of, run_command):
    folder = class_of({"student": {"my_compute7.toml": WRONG, "my_bug2.py": "def bug2(:"}})
    arguments = *GRADE, folder, "--format=gradescope", "--exercises=compute7,bug2"
    results = json.loads(run_command(*arguments).out)
    assert_of_gradescope(results)
    assert results["score"] == sum(test["score"] for test in results["tests"]) == 0.4
    assert [test["max_score"] for test in results["tests"]] == [2, 1]
    assert results["output"].startswith("my_bug2.py, without points")
    (folder / "another").mkdir()
    run_command(*arguments).assert_refused("format: expected one student for gradescope, got 2")
    run_command(*arguments, "--json").assert_refused("json and format=gradescope exclude")


def test_what_nobody_could_hand_in_has_results_too(class_of, run_command):
    """Gradescope shows a student who uploads another file that nothing was found."""
    folder = class_of({"student": {"essay.docx": ""}})
    outcome = run_command(*GRADE, folder, "--format=gradescope", "--exercises=relu")
    results = json.loads(outcome.out)
    assert_of_gradescope(results)
    assert results["tests"][0]["output"].startswith("not handed in")


@pytest.mark.oracle
def test_nbgrader_writes_the_same_table(class_of, run_command, tmp_path):
    folder = class_of({name: files for name, files in CLASS.items() if name != "ben"})
    out = run_command(*GRADE, folder, "--format=nbgrader").out
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["assignment"], row["student_id"], row["score"]) for row in rows] == [
        ("compute7", "ann", "2.0"), ("compute7", "eve", "0.4"), ("compute7", "zoe", "0.0")
    ]  # fmt: skip
    # Its own export is the oracle, where somebody has installed it.
    api = pytest.importorskip("nbgrader.api", reason="pip install nbgrader brings it")
    plugins = pytest.importorskip("nbgrader.plugins")
    address = f"sqlite:///{tmp_path / 'gradebook.db'}"
    with warnings.catch_warnings(action="ignore"), api.Gradebook(address) as book:
        book.add_assignment("compute7")
        book.add_notebook("1", "compute7")
        book.add_grade_cell("points", "1", "compute7", max_score=2, cell_type="code")
        for row in rows:
            book.add_student(row["student_id"])
            book.add_submission("compute7", row["student_id"])
            (cell,) = book.find_submission("compute7", row["student_id"]).notebooks[0].grades
            cell.auto_score, cell.needs_manual_grade = float(row["score"]), False
        book.db.commit()
        plugins.CsvExportPlugin(to=str(tmp_path / "theirs.csv")).export(book)
    assert (tmp_path / "theirs.csv").read_text() == out


def test_what_cannot_be_written_is_refused_before_grading(class_of, run_command, tmp_path):
    folder = class_of(CLASS)
    refused = run_command(*GRADE, folder, f"--csv={tmp_path / 'no' / 'a.csv'}").assert_refused
    refused("csv: no such folder")
    refused = run_command(*GRADE, folder, f"--feedback={folder / 'texts'}").assert_refused
    refused("feedback: expected a folder outside")
    (tmp_path / "file").touch()
    refused = run_command(*GRADE, folder, f"--feedback={tmp_path / 'file'}").assert_refused
    refused("feedback: expected a folder, ")
    assert not (folder / "texts").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a script for bash")
def test_gradescope_s_script_writes_results(tmp_path):
    """The script itself, with a folder of this machine in place of /autograder."""
    source = ROOT / "deploy" / "gradescope" / "run_autograder"
    script = tmp_path / "run_autograder"
    script.write_text(source.read_text().replace("/autograder", str(tmp_path)))
    for name in ("venv/bin", "submission", "results"):
        (tmp_path / name).mkdir(parents=True)
    jaxnets = tmp_path / "venv" / "bin" / "jaxnets"
    jaxnets.write_text(f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m jaxnets "$@"\n')
    jaxnets.chmod(0o755)
    (tmp_path / "submission" / "notes.txt").touch()
    (tmp_path / "submission" / "my_bug1.py").write_text(BUGS["bug1"].text())
    subprocess.run(["bash", script], check=True, cwd=tmp_path)
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert_of_gradescope(results)
    assert [test["name"] for test in results["tests"]] == ["compute1", "dense", "relu"]
    assert results["score"] == 0 and "bug1, without points" in results["output"]
