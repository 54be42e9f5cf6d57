"""Exercises to derive: the sheet, the judge's sentences, points; a student's text is never run."""

import json
import re
import time

import pytest
from answers import filled

from jaxnets.course.exercises.catalogue import DERIVES, EXERCISES
from jaxnets.course.exercises.compute import check_sheet


def right(name):
    return {key: formula.text for key, formula in DERIVES[name].formulas.items()}


def rows(source):
    return check_sheet(source, "s.toml")[1]


@pytest.mark.parametrize("name", DERIVES)
def test_a_sheet_asks_for_every_gradient_and_hints_hold_no_answer(name):
    derive = DERIVES[name]
    assert list(derive.asked) == list(derive.formulas)
    assert not derive.code or EXERCISES[derive.code].week == derive.week
    text = derive.text()
    assert all(step in text for step in derive.facts.forward)
    said = [text, *derive.asked.values()]
    for formula in derive.formulas.values():
        answer = formula.text.partition("= ")[2]
        assert not [one for one in said if len(answer) > 4 and answer in one]


@pytest.mark.parametrize("name", DERIVES)
def test_a_sheet_is_blank_then_right_then_wrong(name, run_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, derive = f"my_{name}.toml", DERIVES[name]
    count = len(derive.formulas)
    assert run_command("exercise", "new", name).status == 0
    outcome = run_command("exercise", "check", file)
    assert outcome.status == 1 and f"{name}: FAILED, 0 of {count} right" in outcome.out
    answers = right(name)
    (tmp_path / file).write_text(filled(name, answers), "utf-8")
    outcome = run_command("exercise", "check", file)
    lines = outcome.out.splitlines()
    assert outcome.status == 0 and f"{name}: passed, {count} of {count} right" in lines
    code = f"now in code: jaxnets exercise new {derive.code}"
    assert (lines[-1] == code) == bool(derive.code)
    assert name in (tmp_path / "exercises-passed.txt").read_text()
    last = list(answers)[-1]
    answers[last] = answers[last].replace("= ", "= -(", 1) + ")"
    (tmp_path / file).write_text(filled(name, answers), "utf-8")
    outcome = run_command("exercise", "check", file, "--hint")
    assert outcome.status == 1 and f"FAILED, {count - 1} of {count} right" in outcome.out
    assert f"{last:12} wrong: the sign is wrong (hint: {derive.asked[last]})" in outcome.out


@pytest.mark.parametrize(
    "line",
    [
        'dW = "dW_dk = Σ_b X_bd dZ_bk"',
        'dW = "Σ_b X_bd dZ_bk"',
        "dW = sum(b) X[b,d] dZ[b,k]",
        "dW = dW[i,j] = sum(n) X[n,i] dZ[n,j]",
        "dW_dk = Σ_b X_bd dZ_bk",
        r"dW = '\sum_b X_{bd} dZ_{bk}'",
        r'dW = "\\sum_b X_{bd} dZ_{bk}"',
        r"dW = \frac{\partial L}{\partial W_{dk}} = \sum_b X_{bd} dZ_{bk}",
        "dW = (Σ_b X_bd dZ_bk)  # at last",
        "dW = sum（b） X［b，d］ dZ［b，k］",
        "dW = (sum(b) X[b,d]\n  dZ[b,k])",
    ],
)
def test_a_blank_takes_the_right_side_or_the_whole_formula(line):
    dW, db, _dX = rows(f'exercise = "derive_dense"\n{line}\n')
    assert dW == ("dW", "right", "dW = X.T @ dZ") and db.verdict == "blank"


def test_json_has_the_sentences_and_what_is_next(run_command, tmp_path):
    path = tmp_path / "a.toml"
    answers = right("derive_dense") | {"db": "db_k = Σ_b dZ_bk / B"}
    path.write_text(filled("derive_dense", answers), "utf-8")
    found = json.loads(run_command("exercise", "check", path, "--json").out)
    says = "a factor of B too small: a mean in place of a sum"
    assert found["answers"][1] == {"name": "db", "verdict": "wrong", "note": says}
    assert not found["passed"] and "next" not in found
    path.write_text(filled("derive_dense", right("derive_dense")), "utf-8")
    found = json.loads(run_command("exercise", "check", path, "--json").out)
    assert found["passed"] and found["next"] == "jaxnets exercise new dense"
    lines = run_command("exercise", "check", path, "--language=zh").out.splitlines()
    assert lines[0] == "dW           对：dW = X.T @ dZ"
    assert lines[-1] == "接下来写成代码：jaxnets exercise new dense"


def test_answers_are_the_formulas(run_command):
    out = run_command("exercise", "answers", "derive_dense").out
    assert all(text in out for text in right("derive_dense").values())
    (found,) = json.loads(run_command("exercise", "answers", "derive_dense", "--json").out)
    assert found["answers"] == right("derive_dense")


def test_each_right_formula_is_an_equal_share_of_the_points(run_command, tmp_path):
    folder, texts = tmp_path / "class", tmp_path / "texts"
    folder.mkdir()
    for name, wrong in (("ann", {}), ("ben", {"db": "db_k = Σ_k dZ_bk", "dX": ""})):
        text = filled("derive_dense", right("derive_dense") | wrong)
        (folder / f"{name}.toml").write_text(text, "utf-8")
    points, flags = tmp_path / "points.csv", ("--exercises=derive_dense=3", f"--feedback={texts}")
    out = run_command("exercise", "grade", folder, f"--csv={points}", *flags).out
    assert re.search(r"ann +derive_dense +passed", out)
    assert re.search(r"ben +derive_dense +FAILED +db: 1 of 3 right", out)
    assert points.read_text("utf-8-sig").splitlines()[1:] == [
        "ann,3,3,3,1 of 1 passed",
        "ben,1,1,3,0 of 1 passed",
    ]
    text = (texts / "ben.txt").read_text("utf-8")
    assert (
        "  db: wrong: b is on the right but neither summed nor on the left\n  dX: blank\n" in text
    )
    assert not [one for one in right("derive_dense").values() if one in text]


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch hacked')",
        "Σ_b dZ_bk if True else 0",
        "9" * 5000,
        "(" * 5000,
        "Σ_b dZ_bk" + " + exp(Σ_nmoqrstuvx exp(X_nm + X_oq + X_rs + X_tu + X_vx))" * 14,
        "\x1b[2J" + "⁹" * 900,
    ],
)
def test_a_hostile_formula_is_only_wrong(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    started = time.process_time()
    row = rows(f'exercise = "derive_dense"\ndb = {text}\n')[1]
    assert row.verdict == "wrong" and row.note.isprintable()
    assert time.process_time() - started < 20 and not list(tmp_path.iterdir())
