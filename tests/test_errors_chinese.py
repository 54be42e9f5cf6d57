"""Errors in Chinese where the locale is, for the mistakes that students make most."""

import ast
import pickle
import re
from pathlib import Path

import chinese
import pytest

import jaxnets
from jaxnets.base.errors import UserError
from jaxnets.base.language import Text, said, speaking

MISTAKES = [  # One of each kind of error.
    ("train --epoch=3", "未知的选项 --epoch；是不是想写 --epochs？"),
    ("train --model=cn", '未知的 model "cn"；是不是想写 "cnn"？'),
    ("train --epochs=0", "epochs：应为 1 到 100000 的整数，得到 0"),
    ("train --overwrite=yes", "overwrite：--overwrite 后面不带值，得到 'yes'"),
    ("train --resume --workdir=nowhere", "错误: 应为运行文件夹，nowhere 中没有 config.json"),
    ("gradchek", '未知的命令 "gradchek"；是不是想写 jaxnets gradcheck？'),
    ("predict", "应给出 RUN IMAGE...，得到"),
    ("summary --output=a.pdf", "output：图应为 .svg 或 .png ，得到 .pdf"),
]


@pytest.mark.parametrize(("words", "expected"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_common_mistake_is_answered_in_chinese(
    words, expected, run_main, run_command, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LANGUAGE", "zh_CN")
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "essay.txt").touch()
    command, *flags = words.split()
    outcome = run_main(*flags) if command == "train" else run_command(command, *flags)
    assert outcome.status == 2 and outcome.out == ""
    assert re.fullmatch("错误: .*\n", outcome.err) and outcome.err[:-1].isprintable()
    assert expected in outcome.err
    assert not re.search(r"\b(expected|got|unknown|did you mean|found)\b", outcome.err), outcome.err


def test_the_flag_chooses_the_language_of_an_error(run_command, monkeypatch):
    assert run_command("report", "no", "--language=zh").err.startswith("错误: no：应为运行文件夹")
    monkeypatch.setenv("LANGUAGE", "zh")
    assert run_command("report", "no", "--language=en").err.startswith("error: no: expected a run")
    assert run_command("report", "no", "--language=fr").err.startswith('错误: 未知的 language "fr"')


def test_a_text_is_english_until_it_is_said():
    error = UserError(
        "{}: expected {}, got {}", "hidden", Text("a whole number"), "a whole number {0}"
    )
    assert str(error) == "hidden: expected a whole number, got a whole number {0}"
    with speaking("zh"):
        assert str(error) == "hidden: expected a whole number, got a whole number {0}"
        assert (
            said(pickle.loads(pickle.dumps(error))) == "hidden：应为 整数，得到 a whole number {0}"
        )
        assert said(Text("a text that the catalogue lacks: {}", Text("no ink found"))) == (
            "a text that the catalogue lacks: 没有笔迹"
        )


def test_every_error_is_given_a_text_with_its_values_apart():
    for path in Path(jaxnets.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in chinese.SAYING:
                text, where = node.args[0], f"{path}:{node.lineno}"
                assert not isinstance(text, ast.JoinedStr | ast.BinOp | ast.IfExp), where
