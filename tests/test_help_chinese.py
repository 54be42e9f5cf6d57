"""The Chinese catalogue: complete, with the same values; --help in Chinese, in lines that fit."""

import re

import chinese
import pytest
from babel.messages.pofile import read_po

import train
from jaxnets.base import language
from jaxnets.base.display import width_of
from jaxnets.base.errors import UserError
from jaxnets.cli import commands
from jaxnets.cli.flags import parse_command, parse_flags

NAMES = re.compile(r"--\w+|\b[a-z]+_\w+\b|\b[A-Z]{3,}\b|\b\d[\d,.]*\d\b")  # As --model, half_mse.
with chinese.CATALOGUE.open("rb") as file:
    TEXTS = {str(entry.id): str(entry.string) for entry in read_po(file) if entry.id}


def test_the_catalogue_has_the_texts_of_today_and_no_others():
    assert set(TEXTS) == {text for _file, text in chinese.texts()}, "run docs/_ext/chinese.py"
    assert [text for text, said in TEXTS.items() if not said] == [], "these have no Chinese"


def test_a_chinese_text_keeps_flags_names_and_values():
    for text, said in TEXTS.items():
        assert set(NAMES.findall(text)) - {"FAILED"} <= set(NAMES.findall(said)), text
        assert sorted(re.findall(r"\$\w+", text)) == sorted(re.findall(r"(?a:\$\w+)", said)), text
        if values := [f"◆{number}◆" for number in range(text.count("{}"))]:
            assert sorted(re.findall("◆[0-9]+◆", said.format(*values))) == values, text


def test_what_is_shown_is_what_the_catalogue_has():
    with language.speaking("zh"):
        for text, said in TEXTS.items():
            assert language._(text) == said


def shown(capsys, read, *arguments) -> str:
    """What a request for help prints."""
    with pytest.raises(SystemExit) as ended:
        read(*arguments)
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_chinese_help_fits_80_columns_and_has_every_flag(capsys):
    chinese = shown(capsys, parse_flags, ["--language=zh", "--help_all"], train.__doc__)
    assert (
        "训练课程中的一个网络" in chinese and "  --model=NAME              要训练的网络" in chinese
    )
    assert max(map(width_of, chinese.splitlines())) <= 80
    english = shown(capsys, parse_flags, ["--help_all"], train.__doc__)
    flags = re.compile(r"^  --\S+", re.MULTILINE)
    assert flags.findall(chinese) == flags.findall(english)
    for name, command in commands.COMMANDS.items():
        text = shown(capsys, parse_command, ["--help", "--language=zh"], name, command)
        assert max(map(width_of, text.splitlines())) <= 80
        assert text.splitlines()[2] == TEXTS[command.about]


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "用法:"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "zh_TW"}, "用法:"),
        ({"LANG": "zh_CN.UTF-8", "LANGUAGE": "en"}, "usage:"),
        ({"LANG": "C"}, "usage:"),
    ],
)
def test_the_locale_chooses_the_language_and_the_flag_wins(monkeypatch, capsys, variables, first):
    for name in language.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert shown(capsys, parse_flags, ["--help"]).startswith(first)
    assert shown(capsys, parse_flags, ["--help", "--language=en"]).startswith("usage:")
    assert commands.main([]) == 0
    assert capsys.readouterr().out.startswith(first)
    assert commands.main(["--help", "--language=zh"]) == 0
    assert capsys.readouterr().out.startswith("用法: jaxnets COMMAND")


def test_a_text_without_chinese_stays_english():
    with language.speaking("zh"):
        assert language._("new {}", 1) == "new 1" and language._("all") == "全部"
    assert language._("all") == "all"
    for name in language.LANGUAGES:  # Within a block the locale does not count.
        with language.speaking(name), language.speaking(None):
            assert language.spoken() == name
    with pytest.raises(ValueError, match="got .fr."), language.speaking("fr"):
        pass
    with pytest.raises(UserError, match="unknown language"):
        commands.main(["--help", "--language=fr"])
    with pytest.raises(UserError, match="unknown flag --language"):
        parse_flags(["--language=zh"])
