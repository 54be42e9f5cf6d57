"""What a run's numbers say: overfitting, still falling, confused, calibrated.

A verdict is only as good as its numbers. Each sentence (templates/verdicts.html) gives them, and
says so if they do not suffice.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binom, binomtest, linregress, norm

from jaxnets.base.display import four_digits, printable
from jaxnets.base.files import number_in
from jaxnets.base.language import _
from jaxnets.base.proportions import mcnemar, wilson
from jaxnets.drawing.charts import percent
from jaxnets.report.evaluation import Predictions, bins_of, expected_error
from jaxnets.report.run_facts import RunFacts

ALPHA = 0.05  # How often a verdict is wrong if there is only chance.
# The smallest effect worth mentioning, however certain: of a loss, or of a class's images.
EFFECT = 0.02
FEWEST = 5  # Epochs. A trend is that of the last quarter, and of at least this many.
MIN_IMAGES = 100  # Fewer say nothing of overfitting, nor of calibration.
ENDED = 0.02  # A schedule has ended when its rate is less than this share of the largest.
DRAWS, MOST_DRAWN = 1000, 20_000_000  # Draws of calibrated networks, and images in all of them.


class Finding(NamedTuple):
    """A verdict, with its evidence."""

    kind: str  # "good", "bad", or "unknown" if the numbers do not suffice.
    name: str  # The name of its sentence in templates/verdicts.html,
    values: dict[str, Any]  # and the numbers in it.


class Trend(NamedTuple):
    """The course of a loss over the epochs."""

    count: int  # The epochs of the last quarter, at least FEWEST.
    change: float  # Its change in these, by least squares, as a share of their mean.
    p: float  # The one-sided p of a change in this direction.
    lowest: int  # The index of the lowest loss.
    risen: bool  # Whether the last level is above the lowest, by EFFECT and more than by noise.

    @property
    def falls(self) -> bool:
        """Whether the loss falls in the last quarter, by EFFECT and more than by noise."""
        return self.change <= -EFFECT and self.p < ALPHA


def trend_of(losses: Sequence[float]) -> Trend | None:
    """The course of a loss; None for fewer than FEWEST epochs.

    The epochs' noise is treated as independent, which makes p a little too small.
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
    width = max(3, len(every) // 8)  # A level is a mean: one epoch may be lucky.
    levels = np.convolve(every, np.ones(width) / width, "valid")
    lowest = int(levels.argmin())
    # The noise of an epoch: steps between neighbours, if they are normal, have this median.
    noise = np.median(np.abs(np.diff(every[lowest:]))) / (math.sqrt(2) * norm.ppf(0.75))
    rise = levels[-1] - levels[lowest]
    risen = rise >= EFFECT * levels[lowest] and rise > 3 * noise * math.sqrt(2 / width)
    return Trend(count, change, p, int(every.argmin()), bool(risen))


def _columns(run: RunFacts, *names: str) -> list[list[float]]:
    """Columns of the records, for the epochs that have all of them, with float32's digits."""
    rows = zip(*(run.column(name) for name in names), strict=True)
    whole = [row for row in rows if None not in row]
    return [[float(f"{row[k] or 0:.6g}") for row in whole] for k in range(len(names))]


def overfitting(run: RunFacts) -> Finding:
    """Whether the validation loss has risen from its minimum while the training loss fell."""
    epochs, train, held_out = _columns(run, "epoch", "train_loss", "validation_loss")
    of_train, of_held_out = trend_of(train), trend_of(held_out)
    if of_train is None or of_held_out is None:
        return Finding(
            "unknown", "overfitting_too_early", {"epochs": len(epochs), "needed": FEWEST}
        )
    if run.validation_count < MIN_IMAGES:
        numbers = {"needed": MIN_IMAGES, "known": run.validation_count}
        return Finding("unknown", "overfitting_few_images", numbers)
    best = of_held_out.lowest
    lowest, last = four_digits(held_out[best]), four_digits(held_out[-1])
    train_then, train_last = four_digits(train[best]), four_digits(train[-1])
    epoch = f"{epochs[best]:g}"
    if of_held_out.risen:
        name = "overfitting" if train[-1] < (1 - EFFECT) * train[best] else "unstable"
        numbers = {"since": epoch, "lowest": lowest, "last": last}
        numbers |= {"train_then": train_then, "train_last": train_last}
        return Finding("bad", name, numbers)
    grows = -of_train.change * train[-1] >= EFFECT * held_out[-1]
    if of_train.falls and not of_held_out.falls and grows and train[-1] < held_out[-1]:
        numbers = {"count": of_train.count, "train": train_last, "validation": last}
        return Finding("bad", "overfitting_begins", numbers)
    return Finding("good", "no_overfitting", {"last": last, "lowest": lowest, "epoch": epoch})


def still_falling(run: RunFacts) -> Finding:
    """Whether more epochs would lower the loss, judged by its last quarter and the schedule.

    With few validation images, the training loss is judged. More epochs are not advised if the
    validation loss has risen, however few its images.
    """
    validated = run.validation_count >= MIN_IMAGES
    epochs, losses = _columns(run, "epoch", "validation_loss" if validated else "train_loss")
    found = trend_of(losses)
    if found is None:
        return Finding("unknown", "falling_too_early", {"epochs": len(losses), "needed": FEWEST})
    lowest, last = four_digits(losses[found.lowest]), four_digits(losses[-1])
    if found.risen:
        epoch = f"{epochs[found.lowest]:g}"
        numbers = {"validated": validated, "epoch": epoch, "lowest": lowest, "last": last}
        return Finding("bad", "no_longer_falling", numbers)
    if losses[-1] > (1 - EFFECT) * losses[0]:
        numbers = {"validated": validated, "first": four_digits(losses[0]), "last": last}
        return Finding("bad", "hardly_fallen", numbers)
    if not validated and (risen := _rise_of_few(run, last)):
        return risen
    if abs(losses[-1]) < EFFECT and not validated:
        return Finding("good", "near_zero", {"last": last, "images": MIN_IMAGES})
    rates = [rate for rate in run.column("learning_rate") if rate is not None]
    kind = "bad" if found.falls else "good"
    then = "more epochs" if found.falls else "cosine schedule"
    if not run.result and len(losses) < (number_in(run.config, "epochs") or 0):
        kind, then = "unknown", "finish"
    elif rates and rates[-1] < ENDED * max(rates):
        kind, then = "unknown" if found.falls else "good", "longer schedule"
    name = "level" if abs(found.change) < EFFECT else "level_by_noise"
    change = f"{100 * abs(found.change):.2g} %"
    numbers = {"validated": validated, "count": found.count, "change": change}
    numbers |= {"then": then, "epochs": 2 * len(losses)}
    return Finding(kind, "still_falling" if found.falls else name, numbers)


def _rise_of_few(run: RunFacts, train_last: str) -> Finding | None:
    """The verdict on a validation loss of few images that has risen; None if it has not."""
    epochs, losses = _columns(run, "epoch", "validation_loss")
    found = trend_of(losses)
    if found is None or not found.risen:
        return None
    numbers = {"train": train_last, "epoch": f"{epochs[found.lowest]:g}", "needed": MIN_IMAGES}
    numbers |= {"lowest": four_digits(losses[found.lowest]), "last": four_digits(losses[-1])}
    return Finding("unknown", "risen_on_few", numbers)


def confused(found: Predictions, names: Sequence[str]) -> Finding:
    """The pair of classes that is confused most, and whether evenly spread mistakes explain it.

    The p is the probability that this many of the class's mistakes fall on one other class, times
    the number of pairs (Bonferroni), because the most frequent pair was chosen among all. For two
    classes, it is the probability that this many mistakes fall on one of them, if both have the
    same error rate.
    """
    counts, wrong, size = found.confusion, found.confused, len(names)
    support = counts.sum(axis=1)
    names = [printable(name) for name in names]
    if not wrong.any():
        return Finding("good", "none_confused", {"images": found.images})
    if len(answers := np.unique(found.classes)) == 1:
        return Finding("bad", "one_answer", {"images": found.images, "answer": names[answers[0]]})
    shares = wrong / np.maximum(support, 1)[:, None]
    label, predicted = divmod(int((shares if size == 2 else wrong).argmax()), size)
    most, mistakes = int(wrong[label, predicted]), int(wrong[label].sum())
    pair = {"label": names[label], "answer": names[predicted]}
    pair |= {"most": f"{most:,}", "images": f"{support[label]:,}"}
    if size == 2:
        back = int(wrong[predicted, label])
        p = float(binomtest(most, most + back, support[label] / support.sum()).pvalue)
        pair |= {"back": f"{back:,}", "answer_images": f"{support[predicted]:,}"}
    else:
        p = min(1.0, size * (size - 1) * float(binom.sf(most - 1, mistakes, 1 / (size - 1))))
        pair |= {"mistakes": f"{mistakes:,}"}
    if p >= ALPHA:
        return Finding("unknown", "confused_by_chance", {"pair": pair})
    if shares[label, predicted] < EFFECT:
        return Finding("good", "rarely_confused", {"pair": pair, "least": percent(EFFECT)})
    return Finding("bad", "confused", {"pair": pair})


class Calibrated(NamedTuple):
    """The expected calibration error (Guo et al. 2017) compared with those of calibrated networks.

    It has no interval: its true value for a calibrated network is 0, but on any set of images it is
    larger.
    """

    error: float
    chance: float  # A calibrated network's error is below this in 95 % of such sets of images.
    p: float  # The share of calibrated networks with this error or more.


def calibrated(found: Predictions, seed: int = 0) -> Calibrated:
    """The calibration error, and that of networks that are calibrated.

    Their answers are right with exactly the probabilities that the network gave (consistency
    resampling: Bröcker and Smith 2007, "Increasing the reliability of reliability diagrams").
    """
    rng, at, sure = np.random.default_rng(seed), bins_of(found), found.confidences.astype(float)
    error = expected_error(at, found.right - sure)
    draws = int(np.clip(MOST_DRAWN // len(sure), 200, DRAWS))
    chance = [expected_error(at, (rng.random(len(sure)) < sure) - sure) for _draw in range(draws)]
    p = (1 + sum(other >= error for other in chance)) / (1 + draws)
    return Calibrated(error, float(np.quantile(chance, 0.95)), float(p))


def calibration_finding(found: Predictions) -> Finding:
    """Whether the network is right as often as it says."""
    if len(found.labels) < MIN_IMAGES:
        numbers = {"images": found.images, "needed": MIN_IMAGES}
        return Finding("unknown", "calibration_few_images", numbers)
    one = calibrated(found)
    confidence, accuracy = float(found.confidences.mean()), float(found.right.mean())
    numbers = {"error": f"{100 * one.error:.2g} %", "chance": f"{100 * one.chance:.2g} %"}
    usual = float(np.bincount(found.labels).max()) / len(found.labels)
    if (one.p >= ALPHA or one.error < EFFECT) and not _beats(found, usual):
        numbers = {"accuracy": percent(accuracy), "usual": percent(usual)}
        return Finding("unknown", "calibrated_at_chance", numbers)
    if one.p >= ALPHA:
        return Finding("good", "calibrated", numbers)
    if one.error < EFFECT:
        return Finding("good", "nearly_calibrated", numbers)
    numbers |= {"confidence": percent(confidence), "accuracy": percent(accuracy)}
    return Finding("bad", "overconfident" if confidence > accuracy else "underconfident", numbers)


def _beats(found: Predictions, share: float) -> bool:
    """Whether the accuracy is above a share, by more than chance (one-sided binomial test)."""
    return float(binom.sf(found.right.sum() - 1, len(found.labels), share)) < ALPHA


def verdicts(run: RunFacts) -> list[Finding]:
    """All verdicts on a run for which its files and data exist."""
    found = [overfitting(run), still_falling(run)] if run.records else []
    if run.predictions is not None and run.trained is not None:
        found.append(confused(run.predictions, run.trained.class_names))
        found.append(calibration_finding(run.predictions))
    return found


class Compared(NamedTuple):
    """Two runs on the same images."""

    only_a: int  # The images that only the first gets right.
    only_b: int
    p: float  # McNemar's, exact.


def compare_predictions(a: Predictions, b: Predictions) -> Compared | None:
    """McNemar's test of two runs; None if their images differ."""
    same = a.part == b.part
    same = same and np.array_equal(a.rows, b.rows) and np.array_equal(a.labels, b.labels)
    if not same:
        return None
    only_a, only_b = int((a.right & ~b.right).sum()), int((b.right & ~a.right).sum())
    return Compared(only_a, only_b, mcnemar(only_a, only_b)[0])


def comparison(names: Sequence[str], answers: Sequence[Predictions | None]) -> list[Finding]:
    """Compares the best run with each other run: McNemar's test, p times the number of pairs.

    All pairs count, because the best run was chosen on the same images.
    """
    known = [(name, one) for name, one in zip(names, answers, strict=True) if one is not None]
    if len(known) < 2:
        return [Finding("unknown", "untested", {})]
    pairs = len(known) * (len(known) - 1) // 2
    first = int(np.argmax([one.right.mean() for _name, one in known]))
    best, of_best = known.pop(first)
    return [_against(best, of_best, name, one, pairs) for name, one in known]


def _against(best: str, a: Predictions, other: str, b: Predictions, pairs: int) -> Finding:
    """The verdict on one of `pairs` pairs of runs."""
    pair = compare_predictions(a, b)
    names = {"best": printable(best), "other": printable(other)}
    if pair is None:
        return Finding("unknown", "other_images", names)
    differ = pair.only_a + pair.only_b
    if not differ:
        return Finding("unknown", "same_answers", names)
    p = min(1.0, pair.p * pairs)
    numbers = {"wins": f"{pair.only_a:,}", "p": f"{p:.2g}" if p >= 1e-4 else "< 0.0001"}
    if p < ALPHA:
        return Finding("good", "better", {**names, **numbers, "images": f"{differ:,}"})
    losses = f"{pair.only_b:,}"
    return Finding("unknown", "no_difference", {**names, **numbers, "losses": losses})


def accuracy_interval(right: float, count: int) -> str:
    """Wilson's 95 % interval of an accuracy, as the report shows it."""
    low, high = wilson(right, count, ALPHA)
    return _("{} to {}", percent(low), percent(high))
