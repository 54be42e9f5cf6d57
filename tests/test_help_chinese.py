"""--help in Chinese: a text for every English one, in lines that fit."""

import json
import re

import pytest
from conftest import ROOT

import train
from jaxnets.cli import commands, help, language
from jaxnets.cli.flags import parse_command, parse_flags
from jaxnets.config.fields import Config
from jaxnets.config.file import ConfigFile
from jaxnets.config.options import options_of
from jaxnets.display import width_of
from jaxnets.errors import UserError

TEXTS = json.loads((ROOT / "jaxnets/cli/help.zh.json").read_text("utf-8"))
NAMES = re.compile(r"--\w+|\b[a-z]+_\w+\b|\b[A-Z]{3,}\b|\b\d[\d,.]*\d\b")  # As --model, half_mse.
OWN = {"usage:", "flags:", "default: ", "default: on", "one of: ", "none", "not for "}
OWN |= {help.MODEL_HINT, help.TRAIN_HINT, commands.ABOUT_TRAIN, commands.ABOUT_COMPLETION}
OWN |= {commands.COMMANDS_HINT, *help.HEADINGS.values()}
KINDS = [Config, ConfigFile, *(command for command, *_ in commands.COMMANDS.values())]


def english_texts() -> set[str]:
    """Every text that --help may show."""
    documents = [train.__doc__, *(kind.__doc__ for kind, *_ in commands.COMMANDS.values())]
    parts = {part for text in documents for part in (text or "").strip().split("\n\n")}
    fields = [field.metadata for kind in KINDS for field in options_of(kind)]
    shown = {text for data in fields for text in (data["help"], data["unset"]) if text}
    return OWN | parts | shown


def test_every_text_of_the_help_has_a_chinese_one_and_none_is_left_over():
    assert english_texts() - TEXTS.keys() == set(), "jaxnets/cli/help.zh.json lacks these"
    assert TEXTS.keys() - english_texts() == set(), "nothing shows these any more"


@pytest.mark.parametrize("text", sorted(TEXTS), ids=lambda text: text[:30])
def test_a_chinese_text_keeps_flags_names_and_numbers(text):
    assert set(NAMES.findall(text)) <= set(NAMES.findall(TEXTS[text]))


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
    for name, kinds in commands.COMMANDS.items():
        text = shown(capsys, parse_command, ["--help", "--language=zh"], name, kinds)
        assert max(map(width_of, text.splitlines())) <= 80
        assert text.splitlines()[2] == TEXTS[kinds[0].__doc__]


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


def test_a_text_without_a_chinese_one_stays_english_and_a_wrong_language_is_refused():
    say = language.words_of("zh")
    assert say("new text") == "new text" and say("network to train") == "要训练的网络"
    with pytest.raises(UserError, match="unknown language"):
        language.words_of("fr")
    with pytest.raises(UserError, match="unknown flag --language"):
        parse_flags(["--language=zh"])
