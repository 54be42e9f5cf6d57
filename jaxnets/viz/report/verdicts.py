"""What a run's numbers say, a sentence each: overfitting, still falling, confused, calibrated.

A verdict is only as good as its numbers. Each sentence has them, and where they do not suffice it
says so.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binom, binomtest, linregress

from jaxnets.display import four_digits, printable
from jaxnets.drawing.charts import percent
from jaxnets.language import _
from jaxnets.proportions import mcnemar, wilson
from jaxnets.viz.report.evaluation import Predictions, bins_of, expected_error
from jaxnets.viz.report.run_facts import RunFacts

ALPHA = 0.05  # A verdict is wrong about as often, if chance alone is at work.
LAST, FEWEST = 20, 5  # A trend is that of at most so many epochs, the last half, and at least five.
MIN_IMAGES = 100  # Fewer say nothing of calibration.
DRAWS, MOST_DRAWN = 1000, 20_000_000  # Of the bootstrap: draws, and images in all of them.


class Verdict(NamedTuple):
    """A sentence with its evidence."""

    kind: str  # "good", "bad", or "unknown" where the numbers do not suffice.
    text: str


class Trend(NamedTuple):
    """The straight line through the last epochs' numbers, by least squares."""

    slope: float  # An epoch.
    error: float  # Its standard error.
    falls: float  # The p of a slope of 0 or more, one-sided; small if the numbers fall.
    count: int  # The number of epochs.

    @property
    def rises(self) -> float:
        """The p of a slope of 0 or less: small if the numbers rise."""
        return 1 - self.falls


def trend(epochs: Sequence[float], values: Sequence[float]) -> Trend | None:
    """The trend of the last half of the epochs; None of fewer than FEWEST.

    The epochs' noise is taken for independent, which flatters the p a little.
    """
    count = min(max(FEWEST, len(values) // 2), LAST)
    if len(values) < FEWEST:
        return None
    x, y = np.asarray(epochs[-count:], float), np.asarray(values[-count:], float)
    if np.ptp(y) == 0:
        return Trend(0.0, 0.0, 0.5, count)
    found: Any = linregress(x, y, alternative="less")
    return Trend(float(found.slope), float(found.stderr), float(found.pvalue), count)


def _columns(run: RunFacts, *names: str) -> list[list[float]]:
    """Columns of the records, of the epochs that have all of them, as far as float32 has digits."""
    rows = zip(*(run.column(name) for name in names), strict=True)
    whole = [row for row in rows if None not in row]
    return [[float(f"{row[k] or 0:.6g}") for row in whole] for k in range(len(names))]


def overfitting(run: RunFacts) -> Verdict:
    """Whether the validation loss rises while the training loss falls, and how wide the gap is."""
    epochs, train, held_out = _columns(run, "epoch", "train_loss", "validation_loss")
    of_train, of_held_out = trend(epochs, train), trend(epochs, held_out)
    if of_train is None or of_held_out is None:
        text = _(
            "Overfitting cannot be judged: the run has {} of the {} epochs with a training and a "
            "validation loss that a trend needs.",
            *(len(epochs), FEWEST),
        )
        return Verdict("unknown", text)
    best = int(np.argmin(held_out))
    gap = held_out[-1] - train[-1]
    of_gap = trend(epochs, [b - a for a, b in zip(train, held_out, strict=True)])
    assert of_gap is not None
    ends = four_digits(held_out[best]), four_digits(held_out[-1])
    if of_held_out.rises < ALPHA and of_gap.rises < ALPHA:
        text = _(
            "Overfitting: the validation loss has risen from {} after epoch {} to {}, {} above the "
            "training loss; in the last {} epochs the gap grew by {} an epoch (p {}).",
            *(ends[0], f"{epochs[best]:g}", ends[1], four_digits(gap), of_gap.count),
            *(_small(of_gap.slope), _p(of_gap.rises)),
        )
        return Verdict("bad", text)
    if of_gap.rises < ALPHA and gap > 0 and of_held_out.falls >= ALPHA:
        text = _(
            "Overfitting begins: the training loss still runs away from the validation loss (gap "
            "{}, {} more an epoch, p {}), which no longer falls: lowest {} after epoch {}, now {}.",
            *(four_digits(gap), _small(of_gap.slope), _p(of_gap.rises), ends[0]),
            *(f"{epochs[best]:g}", ends[1]),
        )
        return Verdict("bad", text)
    if of_held_out.rises < ALPHA:
        text = _(
            "No overfitting is seen, but the validation loss rises in the last {} epochs (p {}): "
            "lowest {} after epoch {}, now {}. Its gap to the training loss does not grow (p {}).",
            *(of_held_out.count, _p(of_held_out.rises), ends[0], f"{epochs[best]:g}", ends[1]),
            _p(of_gap.rises),
        )
        return Verdict("unknown", text)
    where = _("above") if gap >= 0 else _("below")
    text = _(
        "No overfitting is seen: the validation loss ({}) does not rise in the last {} epochs (p "
        "{}) and is {} {} the training loss.",
        *(ends[1], of_held_out.count, _p(of_held_out.rises), four_digits(abs(gap)), where),
    )
    return Verdict("good", text)


def still_falling(run: RunFacts) -> Verdict:
    """Whether more epochs would lower the loss: its slope in the last epochs, against its noise."""
    epochs, losses = _columns(run, "epoch", "validation_loss")
    name = _("validation loss")
    if not losses:
        (epochs, losses), name = _columns(run, "epoch", "train_loss"), _("training loss")
    found = trend(epochs, losses)
    if found is None:
        text = _(
            "Whether the loss still falls cannot be judged: the run has {} of the {} epochs that a "
            "trend needs.",
            *(len(losses), FEWEST),
        )
        return Verdict("unknown", text)
    numbers = found.count, _small(found.slope), f"{found.error:.2g}", _p(found.falls)
    if found.falls < ALPHA:
        text = _(
            "Still falling: in the last {} epochs the {} changed by {} ± {} an epoch (p {}). More "
            "epochs may lower it further.",
            *(numbers[0], name, *numbers[1:]),
        )
        return Verdict("bad", text)
    text = _(
        "Done: in the last {} epochs the {} changed by {} ± {} an epoch, which is not distinct "
        "from its noise (p {}). More epochs of the same kind would change little.",
        *(numbers[0], name, *numbers[1:]),
    )
    if found.rises < ALPHA:
        text = _(
            "Done: in the last {} epochs the {} no longer fell: it changed by {} ± {} an epoch.",
            *(numbers[0], name, *numbers[1:3]),
        )
    return Verdict("good", text)


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
    if p < ALPHA:
        return Verdict("bad", _("Most confused: {}, more than by chance (p {}).", text, _p(p)))
    return Verdict(
        "unknown",
        _("Most often {}; chance gives as much (p {}).", text, _p(p)),
    )


class Calibrated(NamedTuple):
    """The expected calibration error (Guo et al. 2017) with its uncertainty."""

    error: float
    low: float  # The 95 % interval, by the bootstrap.
    high: float
    chance: float  # What a calibrated network stays below in 95 % of such sets of images.
    p: float  # The share of calibrated networks with this error or more.


def calibrated(found: Predictions, seed: int = 0) -> Calibrated:
    """The calibration error with its interval, and that of networks that are calibrated.

    Their images are right with the very probabilities that the network said (consistency
    resampling: Bröcker and Smith 2007, "Increasing the reliability of reliability diagrams").
    """
    rng, sure, count = np.random.default_rng(seed), found.confidences, len(found.labels)
    at, sure = bins_of(found), sure.astype(np.float64)
    gaps = found.right - sure
    error = expected_error(at, gaps)
    draws = int(np.clip(MOST_DRAWN // count, 200, DRAWS))
    drawn, chance = [], []
    for _draw in range(draws):
        rows = rng.integers(0, count, count)
        drawn.append(expected_error(at[rows], gaps[rows]))
        chance.append(expected_error(at, (rng.random(count) < sure) - sure))
    low, high = np.quantile(drawn, (0.025, 0.975))
    p = (1 + sum(other >= error for other in chance)) / (1 + draws)
    return Calibrated(error, float(low), float(high), float(np.quantile(chance, 0.95)), float(p))


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
    numbers = [f"{100 * x:.2g} %" for x in (one.error, one.low, one.high, one.chance)]
    if one.p < ALPHA:
        how = _("overconfident") if said > was else _("underconfident")
        text = _(
            "Not calibrated, {}: on average it is sure by {} and right in {}. Its expected "
            "calibration error is {} (95 % interval {} to {}); a calibrated network has at most "
            "{}.",
            *(how, percent(said), percent(was), *numbers),
        )
        return Verdict("bad", text)
    text = _(
        "Calibrated, as far as these images show: the expected calibration error is {} (95 % "
        "interval {} to {}), and a calibrated network has at most {}.",
        *numbers,
    )
    return Verdict("good", text)


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


def _small(value: float) -> str:
    """A slope in two digits, with its sign."""
    return f"{value:+.2g}"


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 1e-4 else "< 0.0001"
