"""The exercises and the judge in Chinese; that no text is missing is in test_help_chinese.py."""

import ast
import json
import re
import tomllib

import pytest
from conftest import ROOT

from jaxnets.base.language import _, speaking
from jaxnets.course.exercises.catalogue import BETS, BUGS, DERIVES, EXERCISES, SHEETS
from jaxnets.course.exercises.student import shown


def test_every_hint_and_title_is_chinese_as_on_the_pages():
    page, answers = (
        (ROOT / "docs" / "zh" / name).read_text("utf-8")
        for name in ("exercises-list.md", "exercises-answers.md")
    )
    with speaking("zh"):
        for exercise in EXERCISES.values():
            assert _(exercise.about) in page
        for bug in BUGS.values():
            assert f"\n{_(bug.hint)}\n" in answers
        for sheet in [*SHEETS.values(), *BETS.values()]:
            for question in sheet.questions:
                row = question.name, f"`{shown(question.answer)}`", sheet.said(question.hint)
                assert f"| {' | '.join(row)} |" in answers
        for derive in DERIVES.values():
            for key, formula in derive.formulas.items():
                assert f"| {key} | `{formula.text}` | {derive.hints[key]} |" in answers


def test_list_and_numbers_are_chinese_and_json_is_english(run_command, tmp_path):
    listed = run_command("exercise", "--language=zh").out
    assert listed.startswith("第 1 周：一个神经元（")
    assert "带一列 1 的全连接层" in listed
    path = tmp_path / "sheet.toml"
    path.write_text('exercise = "compute2"\nZ = [1, 2]\ndW = [[1], [2, 3]]\n')
    lines = run_command("exercise", "check", str(path), "--language=zh").out.splitlines()
    assert lines[0] == "Z            错：应为 2 行、每行 2 个，得到 2 个数"
    assert lines[1] == "dW           错：应为 2 行、每行 2 个，得到的不是等长的各行数字"
    path.write_text('exercise = "compute1"\nz = 1.5\ndw = 2\ndy = 3\n')
    arguments = "exercise", "check", str(path), "--language=zh", "--hint"
    lines = run_command(*arguments).out.splitlines()
    assert lines[0] == "z            对" and lines[1] == "y            未填（提示：z 是正数。）"
    assert lines[5].startswith("dw           错：应为 2 个数，得到一个数（提示：")
    assert lines[-1] == "compute1：未通过，9 个中对 1 个"
    values = json.loads(run_command(*arguments, "--json").out)
    assert values["answers"][5]["note"] == "expected 2 numbers, got a number"


@pytest.mark.slow
def test_the_judge_answers_in_chinese_by_flag_and_locale(
    run_command, tmp_path, monkeypatch, judge_in_float64
):
    path = tmp_path / "mine.py"
    path.write_text("def relu_backward(cache, dy):\n    return 2 * dy * (cache > 0)\n")
    mine = f"--mine={path}"
    wrong = "relu_backward：未通过：dx 是错的\n"
    outcome = run_command("gradcheck", mine, "--language=zh")
    assert (outcome.status, outcome.out) == (1, f"{wrong}加上 --hint 可以得到提示\n")
    assert json.loads(run_command("gradcheck", mine, "--language=zh", "--json").out)[0]["wrong"]
    monkeypatch.setenv("LANGUAGE", "zh_CN")
    hinted = run_command("gradcheck", mine, "--hint").out
    assert hinted.startswith(wrong) and "  dx：每个数都是正确值的 2 倍\n" in hinted
    assert "FAILED" in run_command("gradcheck", mine, "--language=en").out
    path.write_text("import os\n\ndef relu_backward(cache, dy):\n    return dy\n")
    assert "未通过：第 1 行：导入了 os；练习可以导入 " in run_command("gradcheck", mine).out


def code_in(source: str) -> str:
    """A file's code, without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    return ast.dump(tree)


@pytest.mark.parametrize("name", EXERCISES)
def test_a_chinese_file_has_english_code_and_no_english_sentence(name):
    english = EXERCISES[name].text()
    with speaking("zh"):
        chinese = EXERCISES[name].text()
    same = tomllib.loads if name in SHEETS | BETS | DERIVES else code_in
    assert same(chinese) == same(english)
    command = r"^[# ]+jaxnets .*my_.*$"
    assert re.findall(command, chinese, re.M) == re.findall(command, english, re.M) != []
    words = re.findall(r'"""[^"]*(?:"[^"]+)*"""|#.*', re.sub(command, "", chinese, flags=re.M))
    assert not re.findall(r"\b[A-Za-z']{2,} [a-z]{2,} [a-z]{2,}", " ".join(words))
    assert chinese.startswith(('"""练习 ', "# 练习 "))
    assert max(map(len, chinese.splitlines())) <= 100


@pytest.mark.slow
def test_a_chinese_file_passes_once_it_is_solved(
    run_command, tmp_path, monkeypatch, judge_in_float64
):
    monkeypatch.chdir(tmp_path)
    outcome = run_command("exercise", "new", "dense", "--language=zh")
    assert outcome.out.splitlines() == [
        "已写出 my_dense.py；完成后运行：",
        "  jaxnets exercise check my_dense.py",
    ]
    source = (tmp_path / "my_dense.py").read_text("utf-8")
    blank = 'dense_backward：未通过：d_params["kernel"] 还是 ...，即待填的空\n'
    assert run_command("gradcheck", "--mine=my_dense.py", "--language=zh").out == blank
    solved = source.replace("d_kernel = ...", "d_kernel = x.T @ dz").replace(
        "d_bias = ...", "d_bias = dz.sum(axis=0)"
    )
    solved = solved.replace("dx = ...", 'dx = dz @ params["kernel"].T')
    (tmp_path / "my_dense.py").write_text(solved, "utf-8")
    outcome = run_command("gradcheck", "--mine=my_dense.py", "--language=zh")
    assert (outcome.status, outcome.out) == (0, "dense_backward：通过\n")
