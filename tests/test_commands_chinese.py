"""What commands print in Chinese where the locale is; JSON and files are the same in English."""

import json
import re
from pathlib import Path

import pytest
from conftest import as_flags, read_json

from jaxnets.base.display import RESUME, width_of, wrap
from jaxnets.base.language import Text, said, speaking
from jaxnets.runs.run import SAVED

ENGLISH = re.compile(r"(?<![\w./=\-])[a-z]{2,} [a-z]{2,} [a-z]{2,}")  # Three words in a row.


@pytest.fixture
def chinese(monkeypatch, tmp_path):
    """A Chinese locale, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LANGUAGE", "zh_CN")


def assert_chinese(outcome, *expected):
    """Demands these texts, and no English sentence among them."""
    assert outcome.status == 0, outcome.err
    for text in expected:
        assert text in outcome.out, outcome.out
    assert not ENGLISH.search(outcome.out), ENGLISH.search(outcome.out)


@pytest.mark.slow
def test_a_run_and_what_is_made_of_it_speak_chinese(chinese, run_main, run_command, tiny_folder):
    flags = as_flags(data_dir=tiny_folder, validation_size=40, batch_size=32, devices=1)
    trained = run_main("--model=softmax", "--epochs=1", "--workdir=runs/a", *flags)
    assert_chinese(trained, "160 张训练，40 张验证，50 张测试图像", "梯度 auto", "；训练用时 ")
    assert_chinese(trained, "\n运行文件夹：runs/a\n查看报告：", "\n识别你自己的图片：")
    both = r"损失 \d\.\d{4}  准确率 \d\.\d{4}"
    epoch = rf"第 1/1 轮  {both}  验证{both}  [\d.]+ s  [\d,]+ 张/秒"
    assert re.search(rf"^{epoch}$", trained.out, re.MULTILINE), trained.out
    assert re.search(rf"^测试{both}$", trained.out, re.MULTILINE)
    assert_chinese(run_command("runs"), "运行", "验证准确率", "种子")
    evaluated = run_command("evaluate", "runs/a")
    assert_chinese(evaluated, "的测试图像：50 张中对 ", "准确率 ", " % 置信区间 ", "混淆矩阵：")
    report = run_command("report", "runs/a", "--output=a.html")
    assert_chinese(report, "幅图；请用浏览器打开")
    assert run_command("report", "runs/a", "--language=en").out.endswith("open it in a browser\n")
    assert_chinese(run_command("export", "runs/a", "--output=a.safetensors"), "已用 NumPy 在")
    config, result = (read_json(Path(f"runs/a/{name}.json")) for name in ("config", "result"))
    assert json.dumps([config, result], ensure_ascii=False).isascii()


def test_json_is_the_same_in_both_languages(chinese, finished_run, run_command, monkeypatch):
    folder = str(finished_run.folder)
    commands = [["runs", folder], ["evaluate", folder], ["summary", "--model=cnn"]]
    for command in commands:
        ours = run_command(*command, "--json")
        monkeypatch.setenv("LANGUAGE", "en")
        assert run_command(*command, "--json") == ours and ours.out.isascii()
        monkeypatch.setenv("LANGUAGE", "zh")


def test_what_an_experiment_shows_is_said_in_chinese(chinese, run_command, monkeypatch):
    with Path("log.csv").open("w") as log:
        log.write("arm,correct,user\n")
        for user in range(400):  # A is right 60 of 100 times, B always.
            print("AB"[user % 2], int(user % 2 or user % 10 < 6), user, sep=",", file=log)
    found = run_command("abtest", "log.csv", "--output=log.svg")
    assert_chinese(
        found, "log.csv：400 个用户，400 个回答", "序贯检验，随时查看", "两比例 z 检验，"
    )
    assert_chinese(found, "\nB 优于 A，好 ", "（95 %，随时查看都有效）", "\n不能得出的结论：\n- ")
    assert "个用户之后有结果" in Path("log.svg").read_text("utf-8")
    ours = run_command("abtest", "log.csv", "--json")
    monkeypatch.setenv("LANGUAGE", "en")
    assert run_command("abtest", "log.csv", "--json") == ours and ours.out.isascii()


@pytest.mark.slow
def test_searches_keep_english_files(chinese, run_command, tiny_flags):
    flags = [flag for flag in tiny_flags if not flag.startswith("--workdir")]
    search = ["search", "--model=softmax", *flags, "--seeds=2", "--over=learning_rate=0.1,0.2"]
    assert_chinese(run_command(*search, "--workdir=s"), "第一名的领先", "配对 t 检验", "结果：s")
    found = json.loads(run_command(*search, "--resume", "--workdir=s", "--json").out)
    assert "paired t-test over 2 seeds" in found["verdict"]
    found = run_command("lr_find", "--model=softmax", *flags)
    assert_chinese(found, "学习率为 ", "时损失最低：试试 --learning_rate=")


def test_chinese_columns_are_aligned(chinese, run_command):
    summary = run_command("summary", "--model=cnn")
    assert_chinese(summary, "输出形状", "参数量", "一张图像的前向传播：")
    rule, head, _rule, *rows = summary.out.splitlines()[1:]
    assert {width_of(line) for line in (head, *rows[:-3])} == {len(rule)}
    checked = run_command("gradcheck", "--model=softmax")
    assert_chinese(checked, "相对误差", "中心差分", "1 项中 1 项一致；1 个设置中 1 个精确证明")
    head, row, _end = checked.out.splitlines()
    assert width_of(head[: head.index("判断")]) == width_of(row[: row.index("一致")])


def test_the_message_of_an_interrupt_is_chinese_and_its_command_whole():
    command = "python train.py --resume --workdir=/" + 90 * "x"
    ends = Text("{}; {}", Text(SAVED, 320, 1, 2), Text(RESUME, command))
    message = Text("interrupted; {}", ends)
    with speaking("zh"):
        first, rest = wrap(said(message), 80).split("\n")
        assert first == "已中断；已在第 320 步后保存（第 1 轮，共 2 轮）；继续训练："
        assert rest == f"  {command}"
