"""What a real pseudo-terminal shows: no line wraps at 80 columns, wide ones get more, colours."""

import contextlib
import json
import os
import re
import struct
import sys

import pytest
from conftest import HANGS, ROOT
from PIL import Image

from jaxnets.base.display import width_of, wrap

pty = pytest.importorskip("pty")  # Not on Windows.

# Runs commands one after the other in a process, as `jaxnets` would.
RUN_ALL = """if True:
    import json, os, sys
    from jaxnets.base.errors import run_main
    from jaxnets.__main__ import main
    os.chdir(sys.argv.pop(1))
    for command in json.loads(sys.argv.pop(1)):
        sys.argv[1:] = command
        print("$", command[0], flush=True)
        try:
            print("status", run_main(main), flush=True)
        except SystemExit as end:
            print("status", end.code, flush=True)
"""


@pytest.fixture
def on_terminal(start_python):
    """Runs commands on a terminal of some columns; returns what each showed."""
    import fcntl
    import termios

    def run(commands, columns=80, **env):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
        env = {**kept, "TERM": "xterm", "COLUMNS": str(columns), **env}
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        with start_python(
            "-c", RUN_ALL, os.getcwd(), json.dumps(commands), env=env, **streams
        ) as process:
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # EIO: it has ended.
                while part := os.read(ours, 1 << 16):
                    shown += part
            assert process.wait(timeout=HANGS) == 0, shown
        os.close(ours)
        return shown.decode().replace("\r\n", "\n")

    return run


def widest(shown: str) -> str:
    """The longest of the lines as they were drawn, without escape sequences.

    A command to be pasted has a line of its own and is never broken; here it may begin with a long
    path of this environment.
    """
    plain = re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", shown)
    command = f"  {os.path.dirname(sys.executable)}"
    lines = (line for line in re.split(r"[\r\n]", plain) if not line.startswith(command))
    return max(lines, key=width_of)


def statuses(shown: str) -> list[int]:
    return list(map(int, re.findall(r"^status (\d+)$", shown, re.MULTILINE)))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Short paths, as a user has them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.mark.slow
def test_no_help_and_no_error_wraps(on_terminal):
    names = ["train", "summary", "gradcheck", "search", "lr_find", "predict"]
    names += ["page", "report", "trace", "serve", "export", "abtest"]
    names += ["exercise", "runs", "evaluate"]
    right = [[name, flag] for name in names for flag in ("--help", "--help-all")]
    right.append(["exercise", "grade", "--help"])
    wrong = [["train", "--model=resnet"], ["train", "--device=gpu"], ["eval"], ["predict", "x"]]
    wrong += [
        ["train", "--checkpoint_every=often"],
        ["train", "--optimizer=adam", "--momentum=1e9"],
    ]
    shown = on_terminal([["--help"], *right, *wrong])
    assert statuses(shown) == [0] * (1 + len(right)) + [2] * len(wrong)
    assert len(widest(shown)) <= 80, widest(shown)


@pytest.fixture
def commands(tiny_folder, here):
    """Every command that trains or computes, at work on the tiny data set."""
    Image.new("L", (12, 12)).save(here / "a.png")
    os.symlink(tiny_folder, here / "data")
    data = ["--data_dir=data", "--validation_size=40", "--batch_size=32", "--epochs=2"]
    lecture = ["--sizes=100,200", "--seeds=3", "--search_epochs=2", "--epochs=2"]
    return {
        "train": [*["train", "--model=softmax", "--gradients=both"], *data]
        + ["--workdir=runs/softmax-20260101-000000"],
        "early": ["train", "--model=softmax", "--learning_rate=20", "--early_stopping=1"]
        + [*data[:-1], "--workdir=early", "--epochs=9", "--optimizer=adam", "--limit=90"],
        "lr_find": ["lr_find", "--model=mlp_functional", *data],
        "resume": ["train", "--resume", "--workdir=runs/softmax-20260101-000000", "--epochs=3"],
        "abtest": ["abtest", *["runs/softmax-20260101-000000"] * 2],
        "predict": ["predict", "runs/softmax-20260101-000000", "a.png"],
        "runs": ["runs"],
        "evaluate": ["evaluate", "runs/softmax-20260101-000000"],
        "summary": ["summary", "--model=softmax"],
        "alexnet": ["summary", "--model=alexnet_paper"],
        "gradcheck": ["gradcheck", "--model=softmax"],
        "exercise": ["exercise"],
        "search": ["search", "--model=softmax", *data, "--seeds=2"]
        + ["--over=learning_rate=0.1,0.2,0.3,0.4"],
        "lecture": ["replay", "--data_dir=data", *lecture],
    }


QUICK = ["train", "resume", "predict", "runs", "evaluate"]


@pytest.mark.slow
def test_no_line_of_a_run_wraps(on_terminal, commands):
    shown = on_terminal([commands[name] for name in QUICK])
    assert statuses(shown) == [0] * len(QUICK), shown
    assert width_of(widest(shown)) <= 80, widest(shown)
    assert re.search(r"epoch 1/2 .*grad error \d\.\de-\d\d", shown)
    assert "kimg" not in shown


@pytest.mark.oracle
@pytest.mark.slow
def test_no_line_of_any_command_wraps(on_terminal, commands):
    pytest.importorskip("sklearn")
    shown = on_terminal(list(commands.values()))
    assert statuses(shown) == [0] * len(commands), shown
    assert width_of(widest(shown)) <= 80, widest(shown)


@pytest.mark.slow
def test_a_wide_terminal_shows_more_in_longer_lines(on_terminal, commands):
    shown = on_terminal([commands["train"]], columns=160)
    assert re.search(r"validation loss \d.*gradient error \d.*images/s", shown)
    assert 80 < width_of(widest(shown)) <= 160


@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True),
    ],
)
def test_an_error_is_red_where_the_terminal_has_colours(on_terminal, env, coloured):
    shown = on_terminal([["eval"]], **env)
    assert ("\x1b[31merror:\x1b[0m unknown command" in shown) == coloured
    assert coloured or "\x1b" not in shown


@pytest.mark.parametrize(("env", "coloured"), [({}, False), ({"FORCE_COLOR": "1"}, True)])
def test_a_pipe_has_colours_only_where_they_are_forced(run_python, env, coloured):
    outcome = run_python("-c", RUN_ALL, ROOT, '[["eval"]]', env={**os.environ, **env})
    assert ("\x1b[31m" in outcome.err) == coloured


def test_a_command_to_be_pasted_is_never_broken():
    command = "python train.py --resume --workdir=/" + 90 * "x"
    text = f"error: interrupted; saved after step 320 (epoch 1 of 2); resume with: {command}"
    first, *rest = wrap(text, 80).split("\n")
    assert len(first) <= 80 and rest == [f"  {command}"]
    assert wrap(text, 500) == text
