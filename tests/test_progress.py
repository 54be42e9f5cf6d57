"""What a log sees of long and of short epochs, and of commands at work; the clock is given."""

import os
import re
from types import SimpleNamespace
from typing import Any

import pytest

from jaxnets.base.display import is_screen, width_of
from jaxnets.base.language import speaking
from jaxnets.runs import progress
from jaxnets.runs.progress import Doing, Progress
from jaxnets.training.loader import TrainLoader


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def training(tiny, monkeypatch):
    """Trains epochs of five steps before an observer, on a given clock."""
    monkeypatch.setattr(progress, "SILENCE", 45.0)

    def train(epochs, seconds, ended=None, kind=Progress):
        clock, loader = Clock(), TrainLoader(tiny.train, 32, seed=0)
        progress = kind(epochs, loader, clock=clock)
        start: Any = SimpleNamespace(state=SimpleNamespace(step=0))
        progress.on_train_begin(start)
        for epoch in range(1, (ended or epochs) + 1):
            for step in range(1, loader.steps + 1):
                clock.now += seconds / loader.steps
                metrics: Any = SimpleNamespace(loss=0.25, scores={"accuracy": 0.5}, count=32 * step)
                progress.on_steps_end(32, metrics)
            record = {"epoch": epoch, "train_loss": 0.25, "train_accuracy": 0.5, "seconds": seconds}
            record |= {
                "validation_loss": None,
                "validation_accuracy": None,
                "validation_seconds": None,
            }
            progress.on_epoch_end({**record, "images_per_second": 160 / seconds}, start.state)
        progress.on_train_end()

    return train


def shown(out):
    """The epochs that have a line."""
    return [int(number) for number in re.findall(r"^epoch +(\d+)/", out, re.MULTILINE)]


def test_a_long_epoch_has_a_line_a_minute_with_rate_and_time_left(training, capsys):
    training(2, 500.0)
    out, err = capsys.readouterr()
    assert shown(out) == [1, 2]
    lines = err.splitlines()
    assert lines[0] == "epoch 1/2 20 %  loss 0.2500  acc 0.5000  0.32 images/s  15 min 0 s left"
    assert lines[-1] == "epoch 2/2 100 %  loss 0.2500  acc 0.5000  0.32 images/s  0.0 s left"
    assert len(lines) == 10  # Each step takes 100 s here: each has its line.


def test_lines_are_chinese_and_fit_in_80_columns(training, tiny, capsys, monkeypatch):
    monkeypatch.setattr(progress, "columns", lambda *stream: 80)
    with speaking("zh"):
        training(2, 500.0)
        out, err = capsys.readouterr()
        lines = err.splitlines()
        assert lines[0] == "第 1/2 轮 20 %  损失 0.2500  准确率 0.5000  0.32 张/秒  剩余 15 min 0 s"
        assert out.splitlines()[0] == "第 1/2 轮  损失 0.2500  准确率 0.5000  500.0 s  0 张/秒"
        watching = Progress(2, TrainLoader(tiny.train, 32, seed=0))
        watching.on_gradient_check(1e-6)
        record: Any = {"epoch": 1, "train_loss": 0.25, "train_accuracy": 0.5, "seconds": 90.0}
        record |= {"validation_loss": 0.3, "validation_accuracy": 0.6, "images_per_second": 1e6}
        line = watching.epoch_line(record)
        words = "损失 0.2500  准确率 0.5000  验证准确率 0.6000  梯度误差 1.0e-06"
        assert re.sub(r"\x1b\[\d+m", "", line) == f"第 1/2 轮  {words}"
        assert width_of(f"第 1/2 轮  {words}") <= 80 < width_of(f"第 1/2 轮  {words}  90.0 s")
        test: Any = SimpleNamespace(loss=0.25, accuracy=0.5)
        assert watching.test_line(test) == "测试损失 0.2500  准确率 0.5000"


def test_the_bar_says_that_the_first_step_compiles(training, tiny, capsys):
    progress = Progress(2, TrainLoader(tiny.train, 32, seed=0), bar=True)
    start: Any = SimpleNamespace(state=SimpleNamespace(step=0))
    progress.on_train_begin(start)
    assert capsys.readouterr().out.endswith("? left, compiling")
    metrics: Any = SimpleNamespace(loss=0.25, scores={"accuracy": 0.5}, count=32)
    progress.on_steps_end(160, metrics)
    progress.on_train_end()
    assert "compiling" not in capsys.readouterr().out


def test_an_epoch_of_half_a_minute_needs_no_further_line(training, capsys):
    training(3, 30.0)
    out, err = capsys.readouterr()
    assert (shown(out), err) == ([1, 2, 3], "")


def test_a_long_training_says_after_two_epochs_what_all_take(training, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LONG", 60.0)
    training(20, 6.0)
    out, err = capsys.readouterr()
    assert shown(out) == list(range(1, 21))
    assert err == "20 epochs, about 6.0 s each: 1 min 48 s left\n"
    training(9, 6.0)  # 42 s are left.
    assert capsys.readouterr().err == ""


def test_many_short_epochs_are_thinned_to_one_a_second(training, capsys):
    training(160, 0.3)
    out, err = capsys.readouterr()
    assert err == "" and shown(out) == [1, *range(5, 160, 4), 160]


def test_twenty_epochs_are_all_shown_and_so_are_those_of_the_slide(training, capsys):
    training(20, 0.01)
    assert shown(capsys.readouterr().out) == list(range(1, 21))

    class Slide(Progress):
        shows_every_epoch = True

    training(50, 0.01, kind=Slide)
    assert shown(capsys.readouterr().out) == list(range(1, 51))


def test_the_last_epoch_of_a_run_that_ends_early_is_shown(training, capsys):
    training(160, 0.3, ended=7)
    assert shown(capsys.readouterr().out) == [1, 5, 7]


def test_a_terminal_without_a_size_is_a_log():
    pty = pytest.importorskip("pty")
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    with open(theirs, "w") as stream, open(ours, "rb"):
        for size, is_one in (((0, 0), False), ((24, 80), True)):
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
            assert stream.isatty() and is_screen(stream) == is_one
    with open(os.devnull, "w") as stream:
        assert not is_screen(stream)


def test_a_command_says_what_it_does_once_it_takes_a_while(monkeypatch, capsys):
    monkeypatch.setattr(progress, "PATIENCE", 1.0)
    clock = Clock()
    with Doing("report", 3, clock) as doing:
        for what in ("reading \x1b", "evaluating", "comparing"):
            doing(what)
            clock.now += 0.7
    assert capsys.readouterr() == ("", "report: comparing (3 of 3)\n")
