"""Numbers of one's own: drawn by name, nice, finite, and judged; and the answers for teachers."""

import itertools
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import slow

from jaxnets.base.errors import UserError
from jaxnets.course.exercises.catalogue import BETS, EXERCISES, SHEETS, TASKS
from jaxnets.course.exercises.compute import check_sheet
from jaxnets.course.exercises.grade import submissions_in
from jaxnets.course.exercises.student import near, student_called

with (Path(__file__).parent / "wrong_answers.toml").open("rb") as file:
    WRONG_NUMBERS = tomllib.load(file)["sheets"]["wrong"]


def filled(sheet, answers, student=None):
    """A sheet's file with these answers."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in answers.items()]
    head = [f'exercise = "{sheet.name}"', f'student = "{student or sheet.student}"']
    return "\n".join([*head, *lines])


def answers_of(sheet):
    return {question.name: question.answer for question in sheet.questions}


def right_in(source):
    _sheet, found = check_sheet(source, "s.toml")
    return [row.name for row in found if row.verdict == "right"]


@pytest.mark.parametrize("name", SHEETS)
@pytest.mark.parametrize("count", [3, slow(200)])
def test_each_name_has_finite_numbers_of_its_own(name, count):
    sheets = [SHEETS[name].of(f"student {number}") for number in range(count)]
    for sheet, neighbour in zip(sheets, [*sheets[1:], SHEETS[name]], strict=True):
        answers = answers_of(sheet)
        assert all(np.isfinite(value).all() for value in answers.values())
        assert right_in(filled(sheet, answers)) == list(answers)
        assert right_in(filled(sheet, answers_of(neighbour))) != list(answers)
    for sheet in sheets[:3]:  # Each wrong number has its own cause.
        slips = [[(*slip, one.name) for slip in one.slips] for one in sheet.questions]
        for column in itertools.zip_longest(*slips):
            wrong = {slip[2]: slip[:2] for slip in column if slip and np.isfinite(slip[0]).all()}
            source = filled(sheet, {question: value for question, (value, _says) in wrong.items()})
            for row in check_sheet(source, "s.toml")[1]:
                said = ("wrong", sheet.said(wrong[row.name][1])) if row.name in wrong else None
                assert said is None or (row.verdict, row.note) == said


def test_a_name_gives_the_same_numbers_in_every_version():
    numbers = SHEETS["compute1"].of("ada").numbers
    assert numbers == SHEETS["compute1"].of(" Ada ").numbers != SHEETS["compute1"].numbers
    assert numbers == NUMBERS_OF_ADA


NUMBERS_OF_ADA = {"x": [2, 3], "w": [-4, 3], "b": 1.5, "target": 4, "rate": 0.5}


def test_what_is_no_name_is_refused():
    assert student_called("  王  伟 ") == "王 伟"
    for name in ("", "a#b", 'a"', "x" * 200, "a\nb\0"):
        with pytest.raises(UserError, match="student: expected a name or number"):
            student_called(name)


def test_a_student_s_sheet_is_written_checked_and_graded(run_command, tmp_path):
    path = tmp_path / "ada.toml"
    outcome = run_command("exercise", "new", "compute1", "--student=ada", f"--output={path}")
    assert outcome.status == 0 and 'student = "ada"' in path.read_text()
    sheet = SHEETS["compute1"].of("ada")
    assert sheet.said("x = $x, w = $w") in path.read_text()
    common = answers_of(SHEETS["compute1"])
    path.write_text(filled(sheet, common))
    outcome = run_command("exercise", "check", path)
    assert outcome.status == 1 and "compute1 (numbers of ada): FAILED" in outcome.out
    assert "that is the answer to everybody's numbers; yours are in your file" in outcome.out
    path.write_text(filled(sheet, answers_of(sheet)))
    outcome = run_command("exercise", "check", path, "--json")
    assert outcome.status == 0 and json.loads(outcome.out)["student"] == "ada"
    (tmp_path / "bob.toml").write_text(path.read_text())
    (tmp_path / "cy.toml").write_text(filled(sheet, {}, "a;b"))
    ada, bob, cy = (row.grade for row in submissions_in(str(tmp_path)))
    assert ada and bob and cy and ada.passed and bob.passed and not cy.passed
    assert (ada.student, ada.reason) == (bob.student, bob.reason) == ("ada", "numbers of ada")
    assert cy.reason.startswith("student: expected a name")


def test_exercises_without_numbers_of_one_s_own_say_so(run_command, tmp_path):
    for name in ("bet5", "dense", "adam"):
        path = tmp_path / f"{name}{EXERCISES[name].suffix}"
        outcome = run_command("exercise", "new", name, "--student=ada", f"--output={path}")
        assert outcome.out.splitlines()[-1] == f"{name} has the same numbers for all students"
        assert path.read_text() == EXERCISES[name].text(path.name)
    run_command("exercise", "new", "compute1", "--student=a#b").assert_refused("student: expected")
    run_command("exercise", "check", "x.toml", "--student=a").assert_refused(
        "unknown flag --student"
    )


def test_teachers_get_answers_to_one_or_to_all(run_command, tmp_path):
    outcome = run_command("exercise", "answers", "compute2", "--student=ada", "--json")
    (row,) = json.loads(outcome.out)
    sheet = SHEETS["compute2"].of("ada")
    X, W, b, dZ = (np.array(sheet.numbers[name]) for name in ("X", "W", "b", "dZ"))
    right = dict(Z=X @ W + b, dW=X.T @ dZ, db=dZ.sum(axis=0), dX=dZ @ W.T)
    assert row["answers"] == {name: value.tolist() for name, value in right.items()}
    path = tmp_path / "answers.txt"
    outcome = run_command("exercise", "answers", f"--output={path}", "--language=zh")
    assert outcome.status == 0
    text = path.read_text("utf-8")
    for name in EXERCISES:
        assert f"\n{name}：" in f"\n{text}"
    assert all(task.solution.strip() in text for task in TASKS.values())
    assert "def conv_backward(" in text and "def dense_backward(" in text
    assert "练习" not in text or text.count("提示") > 40
    run_command("exercise", "answers", f"--output={path}").assert_refused("already exists")
    assert len(BETS) == sum(name in BETS for name in EXERCISES)


@pytest.mark.parametrize(("name", "question", "text", "cause"), WRONG_NUMBERS)
def test_a_wrong_number_is_told_its_cause(name, question, text, cause):
    source = f'exercise = "{name}"\n{question} = {text}\n'
    row = next(row for row in check_sheet(source, "s.toml")[1] if row.name == question)
    assert row.verdict == "wrong" and cause in row.note, row
    assert "\n" not in row.note and len(row.note) <= 160


def test_the_draw_is_near_alone_to_itself():
    assert near([1, 2], [1.0005, 2]) and not near([1, 2], [1, 2.1]) and not near(1, [1])
