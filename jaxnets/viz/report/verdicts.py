"""What a run's numbers say, a sentence each: overfitting, still falling, confused, calibrated.

A verdict is only as good as its numbers. Each sentence has them, and where they do not suffice it
says so.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binom, binomtest, linregress, norm

from jaxnets.display import four_digits, printable
from jaxnets.drawing.charts import percent
from jaxnets.files import number_in
from jaxnets.language import _
from jaxnets.proportions import mcnemar, wilson
from jaxnets.viz.report.evaluation import Predictions, bins_of, expected_error
from jaxnets.viz.report.run_facts import RunFacts

ALPHA = 0.05  # A verdict is wrong about as often, if chance alone is at work.
# The smallest effect that is worth a word, however sure: of a loss, or of a class's images.
EFFECT = 0.02
FEWEST = 5  # Epochs. A trend is that of the last quarter, and of so many at least.
MIN_IMAGES = 100  # Fewer say nothing of overfitting, nor of calibration.
ENDED = 0.02  # A schedule has ended where its rate is less than this share of the largest.
DRAWS, MOST_DRAWN = 1000, 20_000_000  # Of calibrated networks: draws, and images in all of them.


class Verdict(NamedTuple):
    """A sentence with its evidence, and what to do next."""

    kind: str  # "good", "bad", or "unknown" where the numbers do not suffice.
    text: str


class Course(NamedTuple):
    """How a loss went from epoch to epoch."""

    count: int  # The epochs of the last quarter, FEWEST at least.
    change: float  # Its change in these, by least squares, as a share of their mean.
    p: float  # The one-sided p of a change in this direction.
    lowest: int  # The index of the lowest loss.
    risen: bool  # Whether the last level is above the lowest, by EFFECT and more than by noise.

    @property
    def falls(self) -> bool:
        """Whether the loss falls in the last quarter, by EFFECT and more than by noise."""
        return self.change <= -EFFECT and self.p < ALPHA


def course(losses: Sequence[float]) -> Course | None:
    """How a loss went; None of fewer than FEWEST epochs.

    The epochs' noise is taken for independent, which flatters the p a little.
    """
    if len(losses) < FEWEST:
        return None
    every = np.asarray(losses, float)
    count = max(FEWEST, math.ceil(len(every) / 4))
    last = every[-count:]
    change, p = 0.0, 0.5
    if np.ptp(last) > 0:
        line: Any = linregress(np.arange(count), last)
        change, p = (
            float(line.slope) * (count - 1) / abs(float(last.mean())),
            float(line.pvalue) / 2,
        )
    width = max(3, len(every) // 8)  # A level is the mean of so many: one epoch may be lucky.
    levels = np.convolve(every, np.ones(width) / width, "valid")
    lowest = int(levels.argmin())
    # The noise of an epoch: the steps between neighbours that are normal have this median.
    noise = np.median(np.abs(np.diff(every[lowest:]))) / (math.sqrt(2) * norm.ppf(0.75))
    rise = levels[-1] - levels[lowest]
    risen = rise >= EFFECT * levels[lowest] and rise > 3 * noise * math.sqrt(2 / width)
    return Course(count, change, p, int(every.argmin()), bool(risen))


def _columns(run: RunFacts, *names: str) -> list[list[float]]:
    """Columns of the records, of the epochs that have all of them, as far as float32 has digits."""
    rows = zip(*(run.column(name) for name in names), strict=True)
    whole = [row for row in rows if None not in row]
    return [[float(f"{row[k] or 0:.6g}") for row in whole] for k in range(len(names))]


def overfitting(run: RunFacts) -> Verdict:
    """Whether the validation loss has risen from its minimum while the training loss fell."""
    epochs, train, held_out = _columns(run, "epoch", "train_loss", "validation_loss")
    of_train, of_held_out = course(train), course(held_out)
    if of_train is None or of_held_out is None:
        text = _(
            "Overfitting cannot be judged: the run has {} of the {} epochs with a training and a "
            "validation loss that this needs.",
            *(len(epochs), FEWEST),
        )
        return Verdict("unknown", text)
    if run.validation_count < MIN_IMAGES:
        text = _(
            "Overfitting cannot be judged: this needs {} validation images, and {} are known. Hold "
            "back more (--validation_size).",
            *(MIN_IMAGES, run.validation_count),
        )
        return Verdict("unknown", text)
    best = of_held_out.lowest
    ends = [four_digits(losses[k]) for losses in (held_out, train) for k in (best, -1)]
    if of_held_out.risen:
        numbers = f"{epochs[best]:g}", *ends
        if train[-1] < (1 - EFFECT) * train[best]:
            text = _(
                "Overfitting: since epoch {} the validation loss has risen from {} to {}, while "
                "the training loss fell from {} to {}. Stop there (--early_stopping=5), or "
                "regularize: more images, --augment, --dropout, --weight_decay.",
                *numbers,
            )
        else:
            text = _(
                "Not overfitting, but unstable: since epoch {} the validation loss has risen from "
                "{} to {}, and the training loss went from {} to {}. Try a lower --learning_rate.",
                *numbers,
            )
        return Verdict("bad", text)
    grows = -of_train.change * train[-1] >= EFFECT * held_out[-1]
    if of_train.falls and not of_held_out.falls and grows and train[-1] < held_out[-1]:
        text = _(
            "Overfitting begins: in the last {} epochs the training loss still fell, to {}, but "
            "the validation loss no longer did: it is {}. Stop here, or regularize: more images, "
            "--augment, --dropout, --weight_decay.",
            *(of_train.count, ends[3], ends[1]),
        )
        return Verdict("bad", text)
    text = _(
        "No overfitting: the validation loss is {}, not above its lowest level ({} after epoch "
        "{}). A larger network may be tried.",
        *(ends[1], ends[0], f"{epochs[best]:g}"),
    )
    return Verdict("good", text)


def still_falling(run: RunFacts) -> Verdict:
    """Whether more epochs would lower the loss, as far as its last quarter and the schedule say.

    Of few validation images the training loss is judged.
    """
    validated = run.validation_count >= MIN_IMAGES
    name = _("validation loss") if validated else _("training loss")
    epochs, losses = _columns(run, "epoch", "validation_loss" if validated else "train_loss")
    found = course(losses)
    if found is None:
        text = _(
            "Whether the loss still falls cannot be judged: the run has {} of the {} epochs that "
            "this needs.",
            *(len(losses), FEWEST),
        )
        return Verdict("unknown", text)
    lowest, last = four_digits(losses[found.lowest]), four_digits(losses[-1])
    if found.risen:
        text = _(
            "No longer falling: the {} was lowest after epoch {} ({}) and is now {}. More epochs "
            "of this kind will not lower it.",
            *(name, f"{epochs[found.lowest]:g}", lowest, last),
        )
        return Verdict("bad", text)
    if losses[-1] > (1 - EFFECT) * losses[0]:
        text = _(
            "Hardly fallen: the {} was {} after the first epoch and is now {}. Try another "
            "--learning_rate, or a larger network.",
            *(name, four_digits(losses[0]), last),
        )
        return Verdict("bad", text)
    if abs(losses[-1]) < EFFECT and not validated:
        text = _(
            "Done: the training loss is {}, near 0. Hold back {} validation images or more "
            "(--validation_size) to see whether the network generalizes.",
            *(last, MIN_IMAGES),
        )
        return Verdict("good", text)
    change = f"{100 * abs(found.change):.2g} %"
    twice = 2 * len(losses)
    rates = [rate for rate in run.column("learning_rate") if rate is not None]
    has_ended = bool(rates) and rates[-1] < ENDED * max(rates)
    if found.falls:
        text = _(
            "Still falling: in the last {} epochs the {} fell by {}.", found.count, name, change
        )
    elif abs(found.change) < EFFECT:
        text = _(
            "Done: in the last {} epochs the {} changed by {} only.", found.count, name, change
        )
    else:
        text = _(
            "Done: in the last {} epochs the {} changed by {}, which its noise explains.",
            *(found.count, name, change),
        )
    if not run.result and len(losses) < (number_in(run.config, "epochs") or 0):
        text += _(" The run is not finished: continue it with --resume.")
        return Verdict("unknown", text)
    if has_ended:
        text += _(
            " Its learning rate has ended near 0, so more epochs mean a longer schedule: for less, "
            "try --epochs={} in a new run.",
            twice,
        )
        return Verdict("unknown" if found.falls else "good", text)
    if found.falls:
        return Verdict("bad", text + _(" Continue with --resume --epochs={}.", twice))
    return Verdict(
        "good", text + _(" For less, let the learning rate fall to 0, as by --schedule=cosine.")
    )


def confused(found: Predictions, names: Sequence[str]) -> Verdict:
    """The pair of classes that is confused most, and whether mistakes spread evenly would do it.

    The p is that of so many of the class' mistakes falling on one other class, times the number of
    pairs (Bonferroni), as the most frequent pair was chosen among all. Of two classes it is that of
    so many mistakes falling on one of them, if an image of either is as often wrong.
    """
    counts, wrong, size = found.confusion, found.confused, len(names)
    support, every = counts.sum(axis=1), f"{counts.sum():,}"
    names = [printable(name) for name in names]
    if not wrong.any():
        return Verdict("good", _("No classes are confused: all {} test images are right.", every))
    if len(answers := np.unique(found.classes)) == 1:
        text = _("All {} test images are taken for {}.", every, names[answers[0]])
        return Verdict("bad", text)
    shares = wrong / np.maximum(support, 1)[:, None]
    label, predicted = divmod(int((shares if size == 2 else wrong).argmax()), size)
    most, mistakes = int(wrong[label, predicted]), int(wrong[label].sum())
    first = names[label], names[predicted], f"{most:,}", f"{support[label]:,}"
    if size == 2:
        back = int(wrong[predicted, label])
        p = float(binomtest(most, most + back, support[label] / support.sum()).pvalue)
        text = _(
            "{} is taken for {} in {} of {} images, the other way round in {} of {}",
            *(*first, f"{back:,}", f"{support[predicted]:,}"),
        )
    else:
        p = min(1.0, size * (size - 1) * float(binom.sf(most - 1, mistakes, 1 / (size - 1))))
        text = _("{} is taken for {} in {} of {} images", *first)
        text += _(": {} of its {} mistakes", *(f"{most:,}", f"{mistakes:,}"))
    if p >= ALPHA:
        text = _("Most often {}; chance gives as much, so no two classes stand out.", text)
        return Verdict("unknown", text)
    if shares[label, predicted] < EFFECT:
        text = _(
            "Most often {}: more than by chance, but less than {} of them.", text, percent(EFFECT)
        )
        return Verdict("good", text)
    text = _(
        "Most confused: {}, more than by chance. Look at them below; more images of both classes "
        "may help.",
        text,
    )
    return Verdict("bad", text)


class Calibrated(NamedTuple):
    """The expected calibration error (Guo et al. 2017) beside those of calibrated networks.

    It has no interval: of a calibrated network it is above 0, its true value, in any set of images.
    """

    error: float
    chance: float  # What a calibrated network stays below in 95 % of such sets of images.
    p: float  # The share of calibrated networks with this error or more.


def calibrated(found: Predictions, seed: int = 0) -> Calibrated:
    """The calibration error, and that of networks that are calibrated.

    Their images are right with the very probabilities that the network said (consistency
    resampling: Bröcker and Smith 2007, "Increasing the reliability of reliability diagrams").
    """
    rng, at, sure = np.random.default_rng(seed), bins_of(found), found.confidences.astype(float)
    error = expected_error(at, found.right - sure)
    draws = int(np.clip(MOST_DRAWN // len(sure), 200, DRAWS))
    chance = [expected_error(at, (rng.random(len(sure)) < sure) - sure) for _draw in range(draws)]
    p = (1 + sum(other >= error for other in chance)) / (1 + draws)
    return Calibrated(error, float(np.quantile(chance, 0.95)), float(p))


def calibration(found: Predictions) -> Verdict:
    """Whether the network is right as often as it says."""
    if len(found.labels) < MIN_IMAGES:
        text = _(
            "Calibration cannot be judged: there are {} of the {} test images that it needs.",
            *(len(found.labels), MIN_IMAGES),
        )
        return Verdict("unknown", text)
    one = calibrated(found)
    said, was = float(found.confidences.mean()), float(found.right.mean())
    numbers = [f"{100 * x:.2g} %" for x in (one.error, one.chance)]
    if one.p >= ALPHA:
        text = _(
            "Calibrated, as far as these images show: the expected calibration error is {}, and a "
            "calibrated network has up to {}. Its probabilities may be taken as they are.",
            *numbers,
        )
        return Verdict("good", text)
    if one.error < EFFECT:
        text = _(
            "Nearly calibrated: the expected calibration error is {}, where a calibrated network "
            "has up to {}. Its probabilities may be taken as they are.",
            *numbers,
        )
        return Verdict("good", text)
    numbers = percent(said), percent(was), *numbers
    if said > was:
        text = _(
            "Not calibrated, overconfident: on average it is sure by {} and right in {}. Its "
            "expected calibration error is {}; a calibrated network has up to {}. Train fewer "
            "epochs, or try --label_smoothing=0.1.",
            *numbers,
        )
    else:
        text = _(
            "Not calibrated, underconfident: on average it is sure by {} and right in {}. Its "
            "expected calibration error is {}; a calibrated network has up to {}. Train more "
            "epochs, or with less --label_smoothing, --dropout or --augment.",
            *numbers,
        )
    return Verdict("bad", text)


def verdicts(run: RunFacts) -> list[Verdict]:
    """All verdicts on a run, as far as its files and its data are there."""
    found = [overfitting(run), still_falling(run)] if run.records else []
    if run.predictions is not None and run.trained is not None:
        found.append(confused(run.predictions, run.trained.class_names))
        found.append(calibration(run.predictions))
    return found


class Compared(NamedTuple):
    """Two runs on the same images."""

    only_a: int  # The images on which the first alone is right.
    only_b: int
    p: float  # McNemar's, exact.


def compared(a: Predictions, b: Predictions) -> Compared | None:
    """McNemar's test of two runs; None if their images are others."""
    same = np.array_equal(a.rows, b.rows) and np.array_equal(a.labels, b.labels)
    if not same:
        return None
    only_a, only_b = int((a.right & ~b.right).sum()), int((b.right & ~a.right).sum())
    return Compared(only_a, only_b, mcnemar(only_a, only_b)[0])


def comparison(names: Sequence[str], answers: Sequence[Predictions | None]) -> list[Verdict]:
    """The best run against each other one: McNemar's test, its p times the number of pairs.

    Of all pairs, as the best run was chosen by the same images.
    """
    known = [(name, one) for name, one in zip(names, answers, strict=True) if one is not None]
    if len(known) < 2:
        text = _(
            "The runs cannot be tested against each other: fewer than two have predictions. Each "
            "run's part says what is missing."
        )
        return [Verdict("unknown", text)]
    pairs = len(known) * (len(known) - 1) // 2
    first = int(np.argmax([one.right.mean() for _name, one in known]))
    best, of_best = known.pop(first)
    return [_against(best, of_best, name, one, pairs) for name, one in known]


def _against(best: str, a: Predictions, other: str, b: Predictions, pairs: int) -> Verdict:
    """The verdict on two runs of so many pairs."""
    pair = compared(a, b)
    if pair is None:
        text = _("{} and {} were tested on different images: they cannot be compared.", best, other)
        return Verdict("unknown", text)
    differ = pair.only_a + pair.only_b
    if not differ:
        text = _("{} and {} are right on the same images: there is no difference.", best, other)
        return Verdict("unknown", text)
    p = min(1.0, pair.p * pairs)
    if p < ALPHA:
        text = _(
            "{} is better than {}: of the {} images on which one alone is right, it has {} "
            "(McNemar's exact test, p {}).",
            *(best, other, f"{differ:,}", f"{pair.only_a:,}", _p(p)),
        )
        return Verdict("good", text)
    text = _(
        "Between {} and {} no difference is shown: of the images on which one alone is right, "
        "they have {} and {} (McNemar's exact test, p {}).",
        *(best, other, f"{pair.only_a:,}", f"{pair.only_b:,}", _p(p)),
    )
    return Verdict("unknown", text)


def accuracy_interval(right: float, count: int) -> str:
    """Wilson's 95 % interval of an accuracy, as the report shows it."""
    low, high = wilson(right, count, ALPHA)
    return _("{} to {}", percent(low), percent(high))


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 1e-4 else "< 0.0001"
