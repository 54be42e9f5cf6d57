"""A run's progress on the terminal: a line for each epoch, and within one a bar or log lines."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from jaxnets.base.bar import progress_bar
from jaxnets.base.display import columns, four_digits, is_screen, paint, printable, width_of
from jaxnets.base.language import N_, _
from jaxnets.metrics import Metrics, Sums
from jaxnets.runs.stopping import ignoring_hangup
from jaxnets.training.loader import TrainLoader
from jaxnets.training.observer import Observer, Record
from jaxnets.training.step import Checkpoint, TrainState

# Seconds after which a log gets a line within an epoch: one a minute if a step takes a quarter.
SILENCE = 45.0
# A log has a line for each epoch up to this many epochs; for more, lines this many seconds apart.
FEW_EPOCHS, APART = 20, 1.0
LONG = 60.0  # Seconds left after the second epoch, above which a log says how many.
PATIENCE = 1.0  # Seconds after which a command says what it is doing.
# The texts of an epoch's line: in long words, and in short ones where those do not fit.
LONG_WORDS = {
    "train_accuracy": N_("accuracy {}"),
    "validation_loss": N_("validation loss {}"),
    "validation_accuracy": N_("accuracy {}"),
    "gradient_error": N_("gradient error {}"),
}
SHORT_WORDS = {
    "train_accuracy": N_("acc {}"),
    "validation_loss": N_("val loss {}"),
    "validation_accuracy": N_("val acc {}"),
    "gradient_error": N_("grad error {}"),
}


def duration(seconds: float) -> str:
    """A duration in seconds, in minutes or in hours.

    >>> duration(8.34), duration(147), duration(5000)
    ('8.3 s', '2 min 27 s', '1 h 23 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def fitting(parts: Sequence[tuple[int, str]], width: int) -> str:
    """The texts of the parts in their order; the lowest ranks are dropped until the rest fits.

    >>> fitting([(9, "epoch 1/2"), (1, "8.3 s"), (2, "loss 0.4520")], width=25)
    'epoch 1/2  loss 0.4520'
    """
    while width_of(line := "  ".join(text for _rank, text in parts)) > width and len(parts) > 1:
        parts = [part for part in parts if part != min(parts)]
    return line


class Progress(Observer):
    """Prints a line for each epoch; within one, on stderr, a bar, or in a log a line a minute.

    A log is any output that is not a terminal, or a terminal without a size, as in some notebooks
    and CI runners. Of many short epochs it shows one a second, including the first and the last.
    """

    shows_every_epoch = False  # Also in a log.

    def __init__(
        self,
        epochs: int,
        loader: TrainLoader,
        bar: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Takes the run's epochs and data; True puts the bar on stdout, False shows none."""
        self._epochs, self._loader, self._bar_wanted = epochs, loader, bar
        self._clock = clock
        self._seen = 0  # The epochs that have ended since it began.
        self._error, self._best = 0.0, 0.0  # The largest gradient error, and validation accuracy.

    def on_train_begin(self, start: Checkpoint) -> None:
        """Starts the bar at the run's present epoch."""
        step, loader, bar = int(start.state.step), self._loader, self._bar_wanted
        self._epoch = step // loader.steps
        shows_bar = is_screen(sys.stderr) if bar is None else bar
        self._is_log = bar is None and not shows_bar
        few = self._epochs <= FEW_EPOCHS or self.shows_every_epoch
        self._thins = bar is None and not few and not is_screen(sys.stdout)
        self._total = loader.images_in(loader.steps * self._epochs)
        self._first = self._done = loader.images_in(step)
        self._began = self._spoke = self._clock()  # When it began, and last said something.
        self._held, self._shown = "", -math.inf  # An omitted epoch's line; when one was last shown.
        self._bar = progress_bar(
            self._total,
            initial=self._done,
            file=sys.stdout if bar else None,
            disable=not shows_bar,
            bar_format=_("{percentage:3.0f}%|{bar}| {remaining} left{postfix}"),
        )
        self._bar.set_postfix_str(_("compiling"))  # Until the first step has ended.

    def on_steps_end(self, count: int, metrics: Sums) -> None:
        """Moves the bar by this many images, or prints a log's next line."""
        self._done += count
        if not self._bar.disable:
            rate = self._bar.format_dict["rate"] or 0
            number = _("epoch {}/{}", self._epoch + 1, self._epochs)
            parts = [(2, number), *self._within(metrics, rate)]
            room = columns(self._bar.fp) - len("100%|" + 6 * "-" + "| 00:00:00 left, ")
            text = fitting([part for part in parts if part[1]], room)
            self._bar.set_postfix_str(text, refresh=False)
        elif self._is_log and (now := self._clock()) - self._spoke >= SILENCE:
            self._spoke = now
            with contextlib.suppress(OSError):  # Its reader is gone; the run continues.
                print(self._log_line(metrics, now - self._began), file=sys.stderr, flush=True)
        with ignoring_hangup():
            self._bar.update(count)

    def _within(self, metrics: Sums, rate: float) -> list[tuple[int, str]]:
        """The parts of a line within an epoch."""
        return [
            (5, _("loss {}", four_digits(metrics.loss))),
            (4, _("acc {}", f"{metrics.scores['accuracy']:.4f}")),
            (3, _("gradient error {}", f"{self._error:.1e}") if self._error else ""),
            (1, _("{} images/s", f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}")),
        ]

    def _log_line(self, metrics: Sums, seconds: float) -> str:
        """A log's line within an epoch, after this many seconds."""
        steps = self._loader.steps
        ends = [self._loader.images_in(steps * (self._epoch + k)) for k in (0, 1)]
        share = (self._done - ends[0]) / (ends[1] - ends[0])
        rate = (self._done - self._first) / max(seconds, 1e-9)
        number = _("epoch {}/{}", self._epoch + 1, self._epochs)
        texts = [text for _rank, text in self._within(metrics, rate) if text]
        left = (self._total - self._done) / max(rate, 1e-9)
        return "  ".join([f"{number} {100 * share:.0f} %", *texts, _("{} left", duration(left))])

    def on_gradient_check(self, error: float) -> None:
        """Notes the error of a check of the gradients; the largest is shown."""
        self._error = max(self._error, error)

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        self._epoch = record["epoch"]
        line, now = self.epoch_line(record), self._clock()
        self._seen += 1
        if self._seen == 2:  # The first one compiles too.
            self._tell(record["seconds"] + (record["validation_seconds"] or 0.0))
        if self._thins and self._epoch < self._epochs and now - self._shown < APART:
            self._held = line
            return
        self._held, self._shown, self._spoke = "", now, now
        with ignoring_hangup():
            self._bar.clear()
            print(line, flush=True)
            self._bar.refresh()

    def _tell(self, seconds: float) -> None:
        """Says what a long training takes, after its second epoch; a bar shows the time left."""
        left = (self._epochs - self._epoch) * seconds
        if self._bar.disable and left > LONG:
            each, all_left = duration(seconds), duration(left)
            line = _("{} epochs, about {} each: {} left", self._epochs, each, all_left)
            with contextlib.suppress(OSError):  # Its reader is gone; the run continues.
                print(line, file=sys.stderr, flush=True)

    def epoch_line(self, record: Record) -> str:
        width, validated = columns(), ""
        number = f"{record['epoch']:{len(str(self._epochs))}d}"
        for texts in (LONG_WORDS, SHORT_WORDS):
            parts = [
                (9, _("epoch {}/{}", number, self._epochs)),
                (7, _("loss {}", four_digits(record["train_loss"]))),
                (6, _(texts["train_accuracy"], f"{record['train_accuracy']:.4f}")),
            ]
            if record["validation_loss"] is not None:
                parts.append(
                    (2, _(texts["validation_loss"], four_digits(record["validation_loss"])))
                )
                reached = f"{record['validation_accuracy']:.4f}"
                validated = _(texts["validation_accuracy"], reached)
                parts.append((8, validated))
            if self._error:
                parts.append((5, _(texts["gradient_error"], f"{self._error:.1e}")))
            parts.append((4, f"{record['seconds']:.1f} s"))
            parts.append((1, _("{} images/s", f"{record['images_per_second']:,.0f}")))
            if width_of(fitting(parts, sys.maxsize)) <= width:
                break
        line = fitting(parts, width)
        accuracy, best = record["validation_accuracy"], self._best
        if accuracy is None or accuracy <= best:
            return line
        self._best = accuracy
        before, text, after = line.rpartition(validated)
        return before + paint(text, "green") + after if best and text else line

    def on_test(self, test: Metrics) -> None:
        print(self.test_line(test))

    def test_line(self, test: Metrics) -> str:
        return _("test loss {}  accuracy {}", four_digits(test.loss), f"{test.accuracy:.4f}")

    def on_train_end(self) -> None:
        with ignoring_hangup():
            self._bar.close()
            if self._held:  # It ended early, after an omitted epoch.
                print(self._held)
            sys.stdout.flush()


class Doing:
    """Says on stderr what a slow command is doing: with a bar, or in a log a line for each part.

    >>> with Doing("report", 2) as doing:
    ...     doing("reading runs/cnn")
    ...     doing("comparing gradients")
    """

    def __init__(self, command: str, parts: int, clock: Callable[[], float] = time.monotonic):
        """Takes the command's name, and the number of its parts."""
        self._command, self._parts, self._clock = command, parts, clock
        self._number, self._began = 0, clock()
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> "Doing":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, what: str) -> None:
        """Says that the next part begins."""
        self._number += 1
        if self._clock() - self._began < PATIENCE:
            return
        text = f"{self._command}: {printable(what)}"
        if not is_screen(sys.stderr):
            with contextlib.suppress(OSError):  # Its reader is gone.
                line = _("{} ({} of {})", text, self._number, self._parts)
                print(line, file=sys.stderr, flush=True)
            return
        if self._bar is None:
            look = "{desc} |{bar}| {n_fmt} of {total_fmt}"
            self._bar = progress_bar(self._parts, bar_format=look, disable=False)
        self._bar.n = self._number - 1
        self._bar.set_description_str(text)
