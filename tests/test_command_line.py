"""The command line as a newcomer finds it: hints, the script `jaxnets`, Tab, what to run next."""

import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
from typing import Annotated, Literal

import pytest
from conftest import HANGS, ROOT, params_sha256
from published import SCRIPT

from jaxnets import __version__
from jaxnets.base.errors import UserError
from jaxnets.base.words import ALIASES
from jaxnets.cli.commands import COMMANDS
from jaxnets.cli.flags import parse_command, parse_flags
from jaxnets.config.command import CommandResult, Flag, command
from jaxnets.config.fields import Config
from jaxnets.config.options import options_of


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--LR=0.5", dict(learning_rate=0.5)),
        ("--learningRate=0.5", dict(learning_rate=0.5)),
        ("--bs 64", dict(batch_size=64)),
        ("--wd=0", dict(weight_decay=0.0)),
        ("--model=CNN", dict(model="cnn")),
        ("--model=MLP-Functional", dict(model="mlp_functional")),
        ("--schedule=one-cycle", dict(schedule="one_cycle")),
        ("--optimizer=Adam", dict(optimizer="adam")),
        ("--loss=CrossEntropy", dict(loss="cross_entropy")),
        ("--dtype=bfloat16", dict(precision="bfloat16")),
        ("--hidden=[128,64]", dict(hidden=(128, 64))),
        ("--workdir=Runs/My-Run", dict(workdir="Runs/My-Run")),
    ],
)
def test_what_is_clear_is_taken(given, meant):
    assert parse_flags(given.split()) == meant


@pytest.mark.parametrize("flag", ["--overwrit", "--overrite", "--replace", "--over"])
def test_no_answer_names_a_flag_that_removes_a_run(run_main, flag):
    outcome = run_main(flag)
    outcome.assert_refused(f"unknown flag {flag.partition('=')[0]}")
    assert "overwrite" not in outcome.err


def test_far_names_are_no_suggestion(run_main):
    for words in ("--model=lstm", "--zoom"):
        outcome = run_main(words)
        outcome.assert_refused("unknown")
        assert "did you mean" not in outcome.err


def test_the_newest_run_is_named_where_none_is_found(run_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("new", "old")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").touch()
        os.utime(tmp_path / "runs" / name / "config.json", (1e9 - age, 1e9 - age))
    outcome = run_command("predict", "runs/ne", "a.png")
    missing = "runs/ne: expected a run folder, found no config.json"
    outcome.assert_refused(f"{missing}; the newest is {os.path.join('runs', 'new')}")


def test_every_alias_is_for_a_flag_and_is_none_itself():
    kinds = [Config, *(kind for command in COMMANDS.values() for kind in command.kinds)]
    flags = {name for kind in kinds for name in kind.__dataclass_fields__}
    assert set(ALIASES.values()) <= set(Config.__dataclass_fields__)
    assert not set(ALIASES) & flags


def test_the_list_of_commands_is_short_and_sorted_by_what_one_wants(run_command):
    lines = run_command("--help").out.splitlines()
    names = [line.split()[0] for line in lines if line.startswith("  ")]
    assert names == ["train", *(name for name in COMMANDS if " " not in name)]
    assert len(names) <= 18
    headings = [line for line in lines if line.endswith(":")]
    assert lines[2] == headings[0] and len(headings) == 5
    assert max(map(len, lines)) <= 80


def test_a_typed_function_is_a_command(capsys):
    @dataclasses.dataclass
    class Drawn(CommandResult):
        lines: list[str]

        @property
        def status(self):
            return len(self.lines)

        def values(self):
            return self.lines

        def text(self):
            return "\n".join(self.lines)

    @command
    def draw(
        shape: Annotated[str, Flag(metavar="SHAPE")],
        *,
        size: Annotated[int, Flag((1, 9))] = 3,
        pen: Literal["thin", "wide"] | None = None,
        **given,
    ) -> CommandResult:
        """Draw a shape.

        Args:
          shape: what to
            draw
          size: how large
          pen: which pen
          **given: flags of train.py
        """
        return Drawn([f"{shape} {size} {pen} {given}"])

    for words, printed in [
        (["disc"], "disc 3 None {}\n"),
        (["--size=4", "disc", "--pen=wide", "--epochs=2"], "disc 4 wide {'epochs': 2}\n"),
        (["disc", "--json"], '[\n  "disc 3 None {}"\n]\n'),
    ]:
        assert draw.run(*parse_command(words, "draw", draw)) == 1
        assert capsys.readouterr().out == printed
    for wrong in (["disc", "--size=10"], ["disc", "--pen=blue"], [], ["disc", "ring"]):
        with pytest.raises(UserError):
            parse_command(wrong, "draw", draw)
    helps = [field.metadata["help"] for field in options_of(draw.kinds[0])]
    assert helps == ["what to draw", "how large", "which pen", "print JSON instead of a table"]


# Without the virtual environment


@pytest.mark.parametrize("command", ["train.py", "-m jaxnets summary"])
def test_a_python_without_jax_names_the_one_that_has_it(run_python, tmp_path, command):
    without_packages = ("-I", "-S", "-c")
    name = command.split()[0] if command == "train.py" else "jaxnets/__main__.py"
    for where in ("train.py", "jaxnets"):
        (tmp_path / where).symlink_to(ROOT / where)
    code = f"import runpy, sys; sys.argv = [{name!r}, *{command.split()[2:]}]\n"
    code += f"sys.path.insert(0, {str(tmp_path)!r}); import os; os.chdir({str(tmp_path)!r})\n"
    code += f"runpy.run_path({str(tmp_path / name)!r}, run_name='__main__')"
    status, out, err = run_python(*without_packages, code)
    assert (status, out) == (2, "")
    install = "install jaxnets with python3 -m venv .venv && .venv/bin/pip install -e ."
    assert err.startswith("error: no module named ") and err.endswith(f": {install}\n")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    status, out, err = run_python(*without_packages, code)
    assert status == 2 and err.endswith(
        f": start it with {os.path.join('.venv', 'bin', 'python')}\n"
    )


# The script, its copy of train.py, and Tab


@pytest.mark.parametrize("start", [("-m", "jaxnets"), ("-c", SCRIPT), ("train.py",)])
def test_the_version_is_shown(run_python, start):
    assert run_python(*start, "--version") == (0, f"jaxnets {__version__}\n", "")


@pytest.mark.parametrize("module", ["train", "jaxnets.__main__"])
def test_an_older_python_is_refused_in_a_line(run_python, module):
    code = f"import sys; sys.version_info = (3, 9, 6, 'final', 0); import {module}"
    line = "error: expected Python 3.11 or newer, got 3.9.6 (docs/install.md)\n"
    assert run_python("-c", code) == (1, "", line)


@pytest.mark.slow
def test_train_is_a_command_too(run_python, finished_run, tmp_path):
    outcome = run_python("-m", "jaxnets", "train", *finished_run.flags, f"--workdir={tmp_path}/run")
    assert (outcome.status, outcome.err) == (0, "")
    assert params_sha256(tmp_path / "run") == params_sha256(finished_run.folder)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A `jaxnets` on the PATH."""
    path = tmp_path / "bin" / "jaxnets"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\n{SCRIPT}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return path


TAB = {
    "bash": 'eval "$(jaxnets completion bash)"; COMP_LINE="$LINE"; COMP_POINT=${#LINE}; '
    "_jaxnets 2> /dev/null; printf '%s\\n' \"${COMPREPLY[@]}\"",
    "zsh": 'compdef() {}; eval "$(jaxnets completion zsh)"; compadd() { print -l -- "${@:4}"; }; '
    'BUFFER="$LINE"; CURSOR=$#LINE; _jaxnets',
    "fish": 'jaxnets completion fish | source; complete -C "$LINE"',
}


@pytest.mark.parametrize("shell", TAB)
def test_tab_offers_commands_flags_and_values(script, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")

    def offered(line):
        done = subprocess.run(
            [shell, "-c", TAB[shell]],
            env={**os.environ, "LINE": line},
            capture_output=True,
            text=True,
            check=True,
            timeout=HANGS,
        )
        found = [
            word.partition("\t")[0].removeprefix("--model=") for word in done.stdout.split("\n")
        ]
        return sorted(filter(None, found))

    assert offered("jaxnets su") == ["summary"]
    assert offered("jaxnets exercise gr") == ["grade"]
    assert offered("jaxnets help exercise gr") == ["grade"]
    assert offered("jaxnets hel") == ["help"]
    assert offered("jaxnets exercise grade --se") == ["--seconds="]
    assert offered("jaxnets train --le") == ["--learning_rate="]
    small = ["alexnet_small", "alexnet_small_bn"]
    wanted = ["alexnet", "alexnet_paper", *small]
    assert offered("jaxnets summary --model=alex") == wanted


@pytest.mark.slow
def test_what_a_run_says_last_can_be_pasted(script, tiny_flags, tmp_path):
    def shell(command):
        return subprocess.run(
            command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=HANGS
        )

    flags = [flag for flag in tiny_flags if "workdir" not in flag]
    done = shell(f"jaxnets train --model=softmax {shlex.join(flags)} --workdir=run")
    assert (done.returncode, done.stderr) == (0, "")
    *_, folder, report, command = done.stdout.splitlines()
    assert (folder, report, command) == (
        "run folder: run",
        "its report: jaxnets report run",
        "your own pictures: jaxnets predict run PICTURE",
    )
    reported = shell(report.partition(": ")[2])
    assert reported.returncode == 0
    assert all(line.startswith("report: ") for line in reported.stderr.splitlines())
    assert (tmp_path / "report.html").exists()
    predicted = shell(command.partition(": ")[2].replace("PICTURE", "nothing.png"))
    assert (predicted.returncode, predicted.stderr.count("\n")) == (2, 1)
    assert "nothing.png: " in predicted.stderr
