"""The report's verdicts: synthetic runs of each kind and of its contrary; tests beside SciPy's."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from jaxnets.language import speaking
from jaxnets.runs.run_folder import RunFolder
from jaxnets.viz.report import evaluation, verdicts
from jaxnets.viz.report.run_facts import RunFacts

EPOCHS = np.arange(1, 25)
NOISE = np.random.default_rng(0).normal(0, 0.002, (2, len(EPOCHS)))
FALLING = 0.1 + 0.9 * np.exp(-EPOCHS / 1.5)
LEARNING = 0.1 + 0.9 * np.exp(-EPOCHS / 14)
CURVES = {  # Training and validation loss, without their noise.
    "overfits": (0.9 * np.exp(-EPOCHS / 6), 0.3 + 0.6 * np.exp(-EPOCHS / 3) + 0.008 * EPOCHS),
    "begins to": (0.9 * np.exp(-EPOCHS / 12), 0.3 + 0.6 * np.exp(-EPOCHS / 2)),
    "done": (FALLING, FALLING + 0.02),
    "falling": (LEARNING, LEARNING + 0.02),
}


def run_of(train, held_out):
    """A run with these losses."""
    records = [
        {"epoch": epoch, "train_loss": a, "validation_loss": b}
        for epoch, (a, b) in enumerate(zip(train, held_out, strict=True), start=1)
    ]
    return RunFacts("run", RunFolder(Path()), records=records)


def noisy(name):
    return run_of(*(np.stack(CURVES[name]) + NOISE).tolist())


def predictions(labels, classes, confidences=None, size=None):
    """Answers for images, with given confidences."""
    labels, classes = np.asarray(labels), np.asarray(classes)
    size = size or 1 + int(max(labels.max(), classes.max()))
    sure = np.full(len(labels), 0.9) if confidences is None else confidences
    probabilities = np.repeat(((1 - sure) / (size - 1))[:, None], size, axis=1)
    probabilities[np.arange(len(labels)), classes] = sure
    return evaluation.Predictions(labels, probabilities, np.arange(len(labels)))


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("overfits", "bad", "Overfitting: the validation loss has risen from"),
        ("begins to", "bad", "Overfitting begins"),
        ("done", "good", "No overfitting is seen"),
        ("falling", "good", "No overfitting is seen"),
    ],
)
def test_overfitting_is_told_from_its_contrary(name, kind, says):
    found = verdicts.overfitting(noisy(name))
    assert found.kind == kind and found.text.startswith(says), found


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        (
            "falling",
            "bad",
            "Still falling: in the last 12 epochs the validation loss changed by -0",
        ),
        ("done", "good", "Done: "),
        ("overfits", "good", "Done: in the last 12 epochs the validation loss no longer fell"),
    ],
)
def test_a_falling_loss_is_told_from_one_that_is_done(name, kind, says):
    found = verdicts.still_falling(noisy(name))
    assert found.kind == kind and found.text.startswith(says), found


def test_a_rise_of_both_losses_is_no_overfitting_and_told():
    found = verdicts.overfitting(run_of(*(np.stack([EPOCHS, EPOCHS + 0.1]) + NOISE).tolist()))
    assert found.kind == "unknown" and "but the validation loss rises" in found.text, found


@pytest.mark.parametrize("count", [0, 1, 4])
def test_few_epochs_do_not_suffice(count):
    run = run_of(*[[0.5] * count] * 2)
    for judge in (verdicts.overfitting, verdicts.still_falling):
        found = judge(run)
        assert found.kind == "unknown" and f"the run has {count} of the 5 epochs" in found.text


def test_without_validation_the_training_loss_is_judged():
    train = (CURVES["falling"][0] + NOISE[0]).tolist()
    run = run_of(train, [None] * len(train))
    assert "the run has 0 of the 5 epochs with a training" in verdicts.overfitting(run).text
    assert "the training loss changed by" in verdicts.still_falling(run).text
    equal = run_of([0.25 + 1e-9 * k**2 for k in range(9)], [0.25 + 3e-9 * k**2 for k in range(9)])
    assert [verdicts.overfitting(equal).kind, verdicts.still_falling(equal).kind] == ["good"] * 2


def test_a_trend_has_the_slope_and_the_p_of_least_squares():
    y = (CURVES["falling"][0] + NOISE[0])[-12:]
    found = verdicts.trend(EPOCHS.tolist(), (CURVES["falling"][0] + NOISE[0]).tolist())
    x = np.stack([EPOCHS[-12:], np.ones(12)], axis=1).astype(float)
    (slope, _), (rest,), *_ = np.linalg.lstsq(x, y, rcond=None)
    error = np.sqrt(rest / 10 / ((x[:, 0] - x[:, 0].mean()) ** 2).sum())
    assert found is not None and found.count == 12
    assert (found.slope, found.error) == (pytest.approx(slope), pytest.approx(error))
    assert found.falls == pytest.approx(stats.t.cdf(slope / error, 10))
    assert verdicts.trend(EPOCHS[:4].tolist(), y[:4].tolist()) is None


def test_a_trend_of_noise_is_rarely_one():
    rng = np.random.default_rng(1)
    drawn = [verdicts.trend(EPOCHS.tolist(), rng.normal(size=24).tolist()) for _ in range(400)]
    rate = np.mean([one is not None and one.falls < verdicts.ALPHA for one in drawn])
    assert rate == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 400))


def test_the_most_confused_classes_are_named_against_chance():
    labels = np.repeat(np.arange(5), 100)
    classes = labels.copy()
    classes[300:312], classes[312:314] = 1, (0, 2)
    found = verdicts.confused(predictions(labels, classes), list("abcde"))
    p = min(1.0, 20 * stats.binomtest(12, 14, 1 / 4, alternative="greater").pvalue)
    assert found.kind == "bad"
    assert "d is taken for b in 12 of 100 images: 12 of its 14 mistakes" in found.text
    assert p < 1e-4 and "p < 0.0001" in found.text
    classes[300:314] = np.tile([0, 1, 2, 4], 4)[:14]
    even = verdicts.confused(predictions(labels, classes), list("abcde"))
    assert even.kind == "unknown" and "chance gives as much (p 1)" in even.text
    none = verdicts.confused(predictions(labels, labels), list("abcde"))
    assert none.kind == "good" and "all 500 test images are right" in none.text


def test_of_two_classes_the_two_directions_are_compared():
    labels = np.repeat([0, 1], 100)
    classes = labels.copy()
    classes[:20], classes[100:104] = 1, 0
    found = verdicts.confused(predictions(labels, classes), ["cat", "dog"])
    p = stats.binomtest(20, 24).pvalue
    assert found.kind == "bad" and f"(p {p:.2g})" in found.text
    assert "cat is taken for dog in 20 of 100 images, the other way round in 4 of 100" in found.text


def test_of_unequal_classes_equal_shares_of_mistakes_are_chance():
    labels = np.repeat([0, 1], [900, 100])
    classes = labels.copy()
    classes[:90], classes[900:910] = 1, 0  # A tenth of each.
    found = verdicts.confused(predictions(labels, classes), ["cat", "dog"])
    assert found.kind == "unknown" and "(p 1)" in found.text, found
    classes[10:90], classes[900:940] = 0, 0  # 10 of 900, and 40 of 100.
    found = verdicts.confused(predictions(labels, classes), ["cat", "dog"])
    assert found.kind == "bad" and "dog is taken for cat in 40 of 100 images" in found.text, found
    assert "the other way round in 10 of 900" in found.text


def test_one_answer_for_all_images_is_said_so():
    labels = np.repeat(np.arange(3), 100)
    found = verdicts.confused(predictions(labels, np.full(300, 1)), list("abc"))
    assert found == ("bad", "All 300 test images are taken for b.")


def drawn(seed, wrongness, count=600):
    """Answers with confidences of all sizes, right as often as these to a power say."""
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.4, 1, count)
    right = rng.random(count) < sure**wrongness
    labels = rng.integers(0, 3, count)
    return predictions(labels, np.where(right, labels, (labels + 1) % 3), sure, size=3)


def test_calibration_is_told_from_its_contrary():
    good, over, under = (verdicts.calibration(drawn(0, x)) for x in (1.0, 2.0, 0.4))
    assert good.kind == "good" and good.text.startswith("Calibrated")
    assert (over.kind, under.kind) == ("bad", "bad")
    assert over.text.startswith("Not calibrated, overconfident")
    assert under.text.startswith("Not calibrated, underconfident")
    few = verdicts.calibration(drawn(0, 2.0, count=99))
    assert few.kind == "unknown" and "there are 99 of the 100 test images" in few.text


def test_the_calibration_error_is_the_papers_and_its_interval_holds_it():
    found = drawn(3, 2.0)
    one = verdicts.calibrated(found)
    assert one.error == pytest.approx(evaluation.calibration(found).error, rel=1e-6)
    assert one.low < one.error < one.high and one.chance < one.low


def test_calibrated_networks_are_rarely_accused():
    accused = [verdicts.calibrated(drawn(seed, 1.0, count=200)).p < 0.05 for seed in range(40)]
    assert np.mean(accused) <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 40)


def test_two_runs_are_compared_by_mcnemars_exact_test():
    labels = np.zeros(200, int)
    a, b, same = labels.copy(), labels.copy(), labels.copy()
    a[:4], b[2:20] = 1, 1
    answers = [predictions(labels, x, size=2) for x in (b, a, same)]
    p = stats.binomtest(2, 18).pvalue
    assert verdicts.compared(answers[1], answers[0]) == (16, 2, pytest.approx(p))
    better = verdicts.comparison(["b", "a"], answers[:2])
    assert [one.kind for one in better] == ["good"]
    assert "a is better than b: of the 18 images on which one alone is right" in better[0].text
    assert f"it has 16 (McNemar's exact test, p {p:.2g})" in better[0].text
    level = verdicts.comparison(["s", "a"], [answers[2], answers[1]])
    assert level[0].kind == "unknown" and "no difference is shown" in level[0].text
    assert f"p {stats.binomtest(0, 4).pvalue:.2g}" in level[0].text
    three = verdicts.comparison(["s", "a", "t"], [answers[2], answers[1], answers[2]])
    assert "right on the same images" in three[1].text
    assert f"p {3 * stats.binomtest(0, 4).pvalue:.2g}" in three[0].text  # Three pairs.
    other = answers[1]._replace(rows=answers[1].rows + 1)
    assert "different images" in verdicts.comparison(["s", "o"], [answers[2], other])[0].text
    assert verdicts.comparison(["s", "n"], [answers[2], None])[0].kind == "unknown"


def test_of_ten_equal_runs_the_best_is_rarely_called_better():
    rng = np.random.default_rng(0)
    labels, called = np.zeros(500, int), 0
    for _ in range(60):
        runs = [predictions(labels, (rng.random(500) < 0.1).astype(int), size=2) for _ in range(10)]
        called += any(one.kind == "good" for one in verdicts.comparison(list("abcdefghij"), runs))
    assert called / 60 <= 0.05


def test_the_verdicts_are_chinese_in_a_chinese_report():
    found = drawn(0, 2.0)
    with speaking("zh"):
        texts = [verdicts.overfitting(noisy(name)).text for name in CURVES]
        texts += [verdicts.still_falling(noisy(name)).text for name in CURVES]
        texts += [verdicts.calibration(found).text, verdicts.confused(found, list("甲乙丙")).text]
        texts += [one.text for one in verdicts.comparison(["甲", "乙"], [found, drawn(0, 1.0)])]
    for text in texts:
        letters = set("".join(filter(str.isascii, text)).replace("McNemar", "").lower())
        assert not letters & set("abcdfghijklmnoqrstuvwxyz"), text  # Only p, and the e of 1e-05.
