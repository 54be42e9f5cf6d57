"""Functions to write: solutions pass, and wrong answers of students get the right cause."""

import ast
import functools
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import slow
from scipy.stats import chi2_contingency

from jaxnets.base.errors import UserError
from jaxnets.base.language import _, speaking
from jaxnets.course.exercises import judge
from jaxnets.course.exercises.catalogue import TASKS, Repair
from jaxnets.course.exercises.files import exercises_in, suspicion
from jaxnets.course.exercises.grade import Limits, grades_of, submissions_in
from jaxnets.course.exercises.passes import run_source
from jaxnets.course.exercises.reasons import UNCHANGED

cases_of = functools.cache(judge.cases_of)


def verdict_of(name, source, **options):
    """What the judge says of a file."""
    cases = cases_of(name)
    answers = run_source(source, "mine.py", name, [case.call for case in cases])
    return judge.verdict(name, cases, answers, **options)


def with_body(name, lines):
    """A student's function of these lines."""
    head = re.search(rf"^def {name}\(.*:$", TASKS[name].code, re.MULTILINE)
    assert head
    body = "\n    ".join(lines.strip().split("\n"))
    return f"import numpy as np\n\n\n{head[0]}\n    {body}\n"


LONG = "peek", "deviations", "adamw"  # Of many causes, which are tried in pairs.
LONG += "attention", "hessian_vector"


@pytest.mark.parametrize("name", [slow(name) if name in LONG else name for name in TASKS])
def test_solution_passes_blank_fails_and_each_cause_is_named(name):
    task = TASKS[name]
    assert verdict_of(name, task.solution).passed
    assert suspicion(ast.parse(task.solution)) == ""
    given = verdict_of(name, task.text())
    if isinstance(task, Repair):  # Its mistake is said with a hint alone.
        assert given.line == f"{name}: FAILED: {given.wrong[0]}: {UNCHANGED}"
        assert verdict_of(name, task.text(), hint=True).hints[0] == task.causes[0].says
    else:
        assert "still ..., the blank to fill in" in given.line
    for cause in task.causes[isinstance(task, Repair) :]:
        assert cause.old in task.solution
        found = verdict_of(name, task.solution.replace(cause.old, cause.new))
        assert not found and cause.says in found.line, cause


with (Path(__file__).parent / "wrong_answers.toml").open("rb") as file:
    TABLES = tomllib.load(file)
ANYTHING, SHEETS = (TABLES.pop(name)["wrong"] for name in ("anything", "sheets"))


def line_of(name, source):
    """The line that `exercise check` prints for a file."""
    try:
        reason = exercises_in(source, "mine.py")[name]
    except UserError as error:
        return str(error)
    return reason or verdict_of(name, source).line


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_mistakes_in_a_student_s_own_way_of_writing_are_named(name):
    right = TABLES[name]["right"]
    assert verdict_of(name, with_body(name, right)).passed
    wrong = []
    for *edits, cause in TABLES[name]["wrong"]:
        lines = right
        for old, new in zip(edits[::2], edits[1::2], strict=True):
            assert old in lines, old
            lines = lines.replace(old, new, 1)
        wrong.append((with_body(name, lines), cause))
    for instead, cause in ANYTHING:
        lines = re.sub(
            r"return (.*)\n$", lambda last, new=instead: new.replace("RESULTS", last[1]), right
        )
        wrong.append((with_body(name, lines), cause))
    body = with_body(name, right)
    wrong.append((body.replace(f"def {name}(", f"def {name}_(", 1), f"did you mean {name}?"))
    wrong.append((re.sub(r"\(.*\):\n", "(x):\n", body, count=1), "expected the arguments ("))
    for answer in TABLES[name].get("written", ()):
        wrong.append((with_body(name, answer["lines"]), answer["cause"]))
    for source, cause in wrong:
        line = line_of(name, source)
        assert cause in line and "\n" not in line and len(line) <= 200, (source, line)


def test_each_kind_of_exercise_has_fifty_wrong_answers():
    counts = {"numbers": len(SHEETS)}
    for table in TABLES.values():
        count = len(table["wrong"]) + len(table.get("written", ()))
        counts[table["kind"]] = counts.get(table["kind"], len(ANYTHING) + 2) + count
    assert len(counts) == 10 and min(counts.values()) >= 50, counts


@pytest.mark.oracle
def test_the_right_numbers_are_those_of_scikit_learn_and_scipy():
    metrics: Any = pytest.importorskip("sklearn.metrics")
    chi_squared: Any = chi2_contingency  # scipy has no types.
    for case in cases_of("scores"):
        labels, predictions, classes = case.call.arguments.values()
        which = {"labels": range(classes), "zero_division": 0}
        assert np.array_equal(
            case.right["confusion"],
            metrics.confusion_matrix(labels, predictions, labels=range(classes)),
        )
        assert case.right["accuracy"] == metrics.accuracy_score(labels, predictions)
        found = metrics.precision_recall_fscore_support(labels, predictions, **which)
        for name, right in zip(("precision", "recall", "f1"), found, strict=False):
            np.testing.assert_allclose(case.right[name], right)
    for case in cases_of("wmape_r2"):
        y, p = case.call.arguments.values()
        np.testing.assert_allclose(case.right["r2"], metrics.r2_score(y, p))
        error = metrics.mean_absolute_error(y, p) / metrics.mean_absolute_error(y, 0 * y)
        np.testing.assert_allclose(case.right["wmape"], error)
    for case in cases_of("peek"):
        a, b, looks = case.call.arguments.values()
        tables = [[[x[:n].sum(), n - x[:n].sum()] for x in (a, b)] for n in looks]
        chi2 = [chi_squared(table, correction=False).statistic for table in tables]
        np.testing.assert_allclose(case.right["z"] ** 2, chi2, atol=1e-9)


@pytest.mark.slow
def test_tasks_are_graded_in_the_sandbox(tmp_path, bubblewrap):
    for name, task in TASKS.items():
        (tmp_path / f"{name}.py").write_text(task.solution)
    (tmp_path / "wrong.py").write_text(TASKS["adam"].solution.replace("**2", ""))
    rows = {
        row.name: row for _, row in grades_of(submissions_in(str(tmp_path)), Limits(), bubblewrap)
    }
    wrong = rows.pop("wrong")
    assert all(row.passed for row in rows.values()) and len(rows) == len(TASKS)
    assert not wrong.passed and "not squared" in wrong.reason


def test_a_task_is_written_checked_and_hinted(run_command, tmp_path):
    path = tmp_path / "mine.py"
    outcome = run_command("exercise", "new", "momentum", f"--output={path}")
    assert outcome.out.splitlines()[1].strip() == f"jaxnets exercise check {path}"
    source = path.read_text().replace("v_new = ...", "v_new = beta * v + g")
    path.write_text(source.replace("w_new = ...", "w_new = w + learning_rate * v_new"))
    outcome = run_command("exercise", "check", path, "--hint")
    assert outcome.status == 1
    assert outcome.out.startswith("momentum: FAILED: w: the step goes uphill;")
    assert "  the line to compare yours with: w <- w - learning_rate v " in outcome.out
    assert re.search(
        r"for w = \[.*\], .*learning_rate = 0\.1, .*: the first wrong number, w\[", outcome.out
    )
    path.write_text(source.replace("w_new = ...", "w_new = w - learning_rate * v_new"))
    for judged in (("exercise", "check", path), ("gradcheck", f"--mine={path}")):
        outcome = run_command(*judged)
        assert (outcome.status, outcome.out) == (0, "momentum: passed\n")
    run_command("exercise", "train", path).assert_refused("backward pass of a layer, got momentum")


def test_the_judge_in_a_notebook_takes_a_task_and_speaks_chinese(monkeypatch):
    monkeypatch.setenv("LANGUAGE", "zh_CN")  # Whose language the judge speaks.

    def momentum(w, v, g, *, learning_rate, beta):
        v *= beta  # In place, which must not change the judge's arrays.
        v += g
        return w + learning_rate * v, v

    with speaking("zh"):
        line = judge.judge(momentum).line
        assert line.startswith("momentum：未通过：w：")
        assert _(TASKS["momentum"].causes[0].says) in line
