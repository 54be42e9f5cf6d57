"""The report's verdicts: synthetic runs of each kind and of its contrary; tests beside SciPy's."""

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from jaxnets.base.language import speaking
from jaxnets.drawing.templates import environment
from jaxnets.report import evaluation, verdicts
from jaxnets.report.run_facts import RunFacts
from jaxnets.runs.run_folder import RunFolder
from jaxnets.training.optimizer import create_schedule

SAYS = {  # Each verdict's kind, its sentence, and for a schedule's end what to do next.
    "overfits": ("bad", "overfitting", ""),
    "begins": ("bad", "overfitting_begins", ""),
    "no": ("good", "no_overfitting", ""),
    "unstable": ("bad", "unstable", ""),
    "few images": ("unknown", "overfitting_few_images", ""),
    "few epochs": ("unknown", "overfitting_too_early", ""),
    "falling": ("bad", "still_falling", "more epochs"),
    "longer": ("unknown", "still_falling", "longer schedule"),
    "resume": ("unknown", "still_falling", "finish"),
    "done": ("good", "level", ""),
    "learned": ("good", "near_zero", ""),
    "level": ("unknown", "level", "finish"),
    "risen": ("bad", "no_longer_falling", ""),
    "risen on few": ("unknown", "risen_on_few", ""),
    "flat": ("bad", "hardly_fallen", ""),
    "too few": ("unknown", "falling_too_early", ""),
}


def falls(count, speed, floor=0.1, top=1.0):
    """A loss that falls from the top to the floor, to 1/e of their distance in `speed` epochs."""
    return floor + (top - floor) * np.exp(-np.arange(count) / speed)


def rises(count, start, share):
    """1 until an epoch, then in a straight line to 1 + share at the end."""
    return 1 + share * np.clip((np.arange(count) - start) / (count - 1 - start), 0, 1)


def spike(count, epoch, height):
    """1, but at one epoch the height."""
    return np.where(np.arange(count) == epoch, height, 1.0)


# What each history is, its training and validation losses, the relative noise of both, further
# facts, and the two verdicts. Their answers are clear to a reader of the curves.
FEW, NONE = {"images": 13}, {"images": 0}
COSINE, CYCLE, STEP = ({"schedule": name} for name in ("cosine", "one_cycle", "step"))
LATE = [2, 2.3] + [2.5] * 2  # Of a training that diverges in its last epochs.
REBOUND = np.interp(np.arange(80), [0, 12, 40, 60, 79], [0.6, 0.084, 0.13, 0.1147, 0.114])
README = [  # train.py --model=cnn, seed 0, one cycle.
    [0.452, 0.151, 0.109, 0.0836, 0.0759, 0.0704, 0.0591, 0.0532, 0.0464, 0.0413,
     0.0374, 0.0308, 0.0258, 0.0232, 0.0199, 0.0181, 0.0146, 0.0137, 0.0137, 0.0120],
    [0.0799, 0.0826, 0.0608, 0.0447, 0.0533, 0.0378, 0.0287, 0.0318, 0.0292, 0.0228,
     0.0243, 0.0232, 0.0201, 0.0195, 0.0201, 0.0176, 0.0168, 0.0163, 0.0160, 0.0159],
]  # fmt: skip
HISTORIES = [
    # It overfits.
    ("a classic U", falls(24, 6, 0, 0.9), falls(24, 3, 0.3) * rises(24, 8, 0.5), 0.003, {},
     "overfits", "risen"),
    ("a late U", falls(60, 10, 0.01), falls(60, 5, 0.4) * rises(60, 20, 1), 0.01, {}, "overfits",
     "risen"),
    ("a U, then level", falls(40, 6, 0.01),
     falls(40, 2, 0.3) * np.interp(np.arange(40), [0, 6, 12, 39], [1, 1, 1.5, 1.5]), 0.01, {},
     "overfits", "risen"),
    ("a U that falls a little at the end", falls(80, 9, 0.005), REBOUND, 0.002, COSINE,
     "overfits", "risen"),
    ("from the first epoch on", falls(20, 5, 0.01), 0.5 * rises(20, 0, 2), 0.01, {}, "overfits",
     "risen"),
    ("a noisy U", falls(30, 6, 0.02), falls(30, 3, 0.3) * rises(30, 8, 0.6), 0.05, {}, "overfits",
     "risen"),
    ("a shallow U", falls(40, 8, 0.02), falls(40, 3, 0.3) * rises(40, 15, 0.06), 0.002, {},
     "overfits", "risen"),
    ("500 images, 200 epochs", falls(200, 15, 0.001), falls(200, 8, 0.35) * rises(200, 30, 0.4),
     0.01, {}, "overfits", "risen"),
    ("100 validation images", falls(24, 6, 0, 0.9), falls(24, 3, 0.3) * rises(24, 8, 0.5), 0.003,
     {"images": 100}, "overfits", "risen"),
    ("a U under a schedule that ends", falls(40, 8, 0.01), falls(40, 4, 0.2) * rises(40, 12, 0.4),
     0.005, CYCLE, "overfits", "risen"),
    # It begins to.
    ("the training loss runs away", falls(24, 12, 0, 0.9), falls(24, 2, 0.3), 0.003, {}, "begins",
     "done"),
    ("slowly, with noise", falls(40, 25, 0.05), falls(40, 3, 0.6), 0.01, {}, "begins", "done"),
    ("in a straight line", np.linspace(1.2, 0.6, 60), falls(60, 6, 1.2, 2.0), 0.003, {}, "begins",
     "done"),
    # It does not, and is done.
    ("both level", falls(24, 1.5), falls(24, 1.5, 0.12), 0.003, COSINE, "no", "done"),
    ("both level, constant rate", falls(40, 2), falls(40, 2, 0.12), 0.003, {}, "no", "done"),
    ("level with noise", falls(40, 3), falls(40, 3, 0.12), 0.03, COSINE, "no", "done"),
    ("level with much noise", falls(40, 3), falls(40, 3, 0.12), 0.1, {}, "no", "done"),
    ("dropout: training above", falls(24, 2, 0.2), falls(24, 2, 0.12), 0.003, COSINE, "no",
     "done"),
    ("a small loss shrinks beside a large one", falls(80, 8, 0.004), falls(80, 5, 0.114), 0.002,
     COSINE, "no", "done"),
    ("0.6 % in the last quarter", falls(80, 8), falls(80, 8, 0.12) - 4e-5 * np.arange(80), 0.0001,
     COSINE, "no", "done"),
    ("1 % above its minimum", falls(40, 3), falls(40, 3, 0.12) * rises(40, 20, 0.01), 0.0003,
     COSINE, "no", "done"),
    ("one bad epoch", falls(30, 3), falls(30, 3, 0.12) * spike(30, 12, 3), 0.005, COSINE, "no",
     "done"),
    ("a step schedule", np.where(np.arange(40) < 20, falls(40, 4, 0.3), 0.1),
     np.where(np.arange(40) < 20, falls(40, 4, 0.32), 0.12), 0.005, STEP, "no", "done"),
    ("a hill in the middle", falls(40, 5),
     falls(40, 5, 0.12) + 0.2 * np.exp(-((np.arange(40) - 15) ** 2) / 8), 0.005, CYCLE, "no",
     "done"),
    ("300 epochs", falls(300, 20), falls(300, 20, 0.12), 0.02, COSINE, "no", "done"),
    # It still falls.
    ("constant rate", falls(24, 14), falls(24, 14, 0.12), 0.003, {}, "no", "falling"),
    ("a straight line", np.linspace(1, 0.5, 10), np.linspace(1.02, 0.52, 10), 0.003, {}, "no",
     "falling"),
    ("five epochs", falls(5, 4), falls(5, 4, 0.12), 0.003, {}, "no", "falling"),
    ("falling with noise", falls(40, 25), falls(40, 25, 0.12), 0.03, {}, "no", "falling"),
    ("until its schedule ended", falls(24, 14), falls(24, 14, 0.12), 0.003, COSINE, "no",
     "longer"),
    ("one cycle", falls(20, 9, 0.01), falls(20, 9, 0.012), 0.003, CYCLE, "no", "longer"),
    ("README's run", *np.array(README), 0, CYCLE, "no", "longer"),
    ("not finished", falls(10, 6), falls(10, 6, 0.12), 0.003, COSINE | {"epochs": 40}, "no",
     "resume"),
    ("not finished, level", falls(20, 2), falls(20, 2, 0.12), 0.003, COSINE | {"epochs": 40},
     "no", "level"),
    # Of few validation images only a rise counts; otherwise the training loss is judged.
    ("13 validation images", falls(80, 9, 0.005), REBOUND, 0.002, COSINE | FEW, "few images",
     "risen on few"),
    ("13 images, learned", falls(80, 9, 0.005), falls(80, 9), 0.002, COSINE | FEW, "few images",
     "learned"),
    ("14 images of a folder", falls(160, 40, 0.03), np.interp(np.arange(160), [0, 30, 160],
     [1.6, 0.94, 2.63]), 0.05, CYCLE | {"images": 14}, "few images", "risen on few"),
    ("13 images, both fall", falls(24, 14), falls(24, 14, 0.3), 0.003, FEW, "few images",
     "falling"),
    ("13 images, falling", falls(24, 14), falls(24, 3, 0.3) * rises(24, 8, 0.5), 0.003, FEW,
     "few images", "risen on few"),
    ("99 images", falls(24, 1.5), falls(24, 3, 0.3) * rises(24, 8, 0.5), 0.003, {"images": 99},
     "few images", "risen on few"),
    ("no validation, falling", falls(24, 14), None, 0.003, NONE, "few epochs", "falling"),
    ("no validation, level", falls(24, 1.5), None, 0.003, COSINE | NONE, "few epochs", "done"),
    # It goes wrong.
    ("both rise", falls(24, 3, 0.3) * rises(24, 8, 1), falls(24, 3, 0.32) * rises(24, 8, 1),
     0.005, {}, "unstable", "risen"),
    ("it diverges at the end", np.r_[falls(20, 4), LATE], np.r_[falls(20, 4, 0.12), LATE], 0.005,
     {}, "unstable", "risen"),
    ("it diverges, no validation", np.r_[falls(20, 4), LATE], None, 0.005, NONE, "few epochs",
     "risen"),
    ("it never learns", np.full(20, 2.3026), np.full(20, 2.3026), 0.0005, {}, "no", "flat"),
    ("equal but for rounding", 0.25 + 1e-9 * np.arange(9), 0.25 + 3e-9 * np.arange(9), 0, {},
     "no", "flat"),
    ("four epochs", falls(4, 2), falls(4, 2, 0.12), 0.003, {}, "few epochs", "too few"),
]  # fmt: skip


def run_of(train, held_out, images=1000, schedule="constant", epochs=None):
    """A run with these losses; it is finished unless it has fewer epochs than it shall have."""
    count = len(train)
    config = {"epochs": epochs or count, "schedule": schedule, "learning_rate": 0.1}
    rate = create_schedule(schedule, 0.1, 10 * config["epochs"])
    records = [
        {
            "epoch": n,
            "train_loss": a,
            "validation_loss": b,
            "learning_rate": float(np.asarray(rate(10 * n - 1))),
        }
        for n, (a, b) in enumerate(zip(train, held_out, strict=True), start=1)
    ]
    run = RunFacts("run", RunFolder(Path()), config=config, records=records)
    if epochs is None:
        return dataclasses.replace(run, result={"validation_count": images})
    return dataclasses.replace(run, data=SimpleNamespace(validation=range(images)))


def history(name):
    """The run of one of HISTORIES."""
    _, train, held_out, noise, facts, *_ = next(one for one in HISTORIES if one[0] == name)
    rng = np.random.default_rng(list(name.encode()))
    noisy = [
        [None] * len(train) if x is None else (x * (1 + rng.normal(0, noise, len(x)))).tolist()
        for x in (train, held_out)
    ]
    return run_of(noisy[0], noisy[1], **facts)


def predictions(labels, classes, confidences=None, size=None):
    """Answers for images, with given confidences."""
    labels, classes = np.asarray(labels), np.asarray(classes)
    size = size or 1 + int(max(labels.max(), classes.max()))
    sure = np.full(len(labels), 0.9) if confidences is None else confidences
    probabilities = np.repeat(((1 - sure) / (size - 1))[:, None], size, axis=1)
    probabilities[np.arange(len(labels)), classes] = sure
    return evaluation.Predictions(labels, probabilities, np.arange(len(labels)))


@pytest.mark.parametrize("name", [one[0] for one in HISTORIES])
def test_a_history_whose_answer_is_clear_gets_it(name):
    expected = next(one[-2:] for one in HISTORIES if one[0] == name)
    judges = verdicts.overfitting, verdicts.still_falling
    for judge, (kind, said, then) in zip(judges, (SAYS[one] for one in expected), strict=True):
        found = judge(history(name))
        assert (found.kind, found.name) == (kind, said), found
        assert found.values.get("then") == then or not then, found


def test_a_change_and_its_p_are_those_of_least_squares():
    losses = (falls(24, 14) * (1 + np.random.default_rng(0).normal(0, 0.02, 24))).tolist()
    x, y = np.stack([np.arange(6), np.ones(6)], axis=1), np.array(losses[-6:])
    (slope, _), (rest,), *_ = np.linalg.lstsq(x, y, rcond=None)
    error = np.sqrt(rest / 4 / np.arange(6).var() / 6)
    found = verdicts.trend_of(losses)
    assert found is not None and found.count == 6
    assert found.change == pytest.approx(5 * slope / y.mean())
    assert found.p == pytest.approx(stats.t.cdf(-abs(slope) / error, 4))


def test_noise_is_rarely_a_trend():
    rng = np.random.default_rng(1)
    drawn = [verdicts.trend_of((1 + rng.normal(0, 0.1, 40)).tolist()) for _ in range(400)]
    rates = [np.mean([getattr(one, name) for one in drawn]) for name in ("falls", "risen")]
    assert max(rates) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_the_most_confused_classes_are_named_against_chance():
    labels = np.repeat(np.arange(5), 100)
    classes = labels.copy()
    classes[300:312], classes[312:314] = 1, (0, 2)
    found = verdicts.confused(predictions(labels, classes), list("abcde"))
    p = min(1.0, 20 * stats.binomtest(12, 14, 1 / 4, alternative="greater").pvalue)
    assert found.kind == "bad"
    pair = {"label": "d", "answer": "b", "most": "12", "images": "100", "mistakes": "14"}
    assert p < 1e-4 and (found.name, found.values) == ("confused", {"pair": pair})
    classes[300:314] = np.tile([0, 1, 2, 4], 4)[:14]
    even = verdicts.confused(predictions(labels, classes), list("abcde"))
    assert (even.kind, even.name) == ("unknown", "confused_by_chance")
    none = verdicts.confused(predictions(labels, labels), list("abcde"))
    assert none == ("good", "none_confused", {"images": "500 test images"})


def test_of_two_classes_the_two_directions_are_compared():
    labels = np.repeat([0, 1], 100)
    classes = labels.copy()
    classes[:20], classes[100:104] = 1, 0
    found = verdicts.confused(predictions(labels, classes), ["cat", "dog"])
    p = stats.binomtest(20, 24).pvalue
    assert p < verdicts.ALPHA and found.kind == "bad"
    pair = {"label": "cat", "answer": "dog", "most": "20", "images": "100"}
    assert found.values["pair"] == pair | {"back": "4", "answer_images": "100"}


def test_of_unequal_classes_equal_shares_of_mistakes_are_chance():
    labels = np.repeat([0, 1], [900, 100])
    classes = labels.copy()
    classes[:90], classes[900:910] = 1, 0  # A tenth of each.
    found = verdicts.confused(predictions(labels, classes), ["cat", "dog"])
    assert (found.kind, found.name) == ("unknown", "confused_by_chance"), found
    classes[10:90], classes[900:940] = 0, 0  # 10 of 900, and 40 of 100.
    found = verdicts.confused(predictions(labels, classes), ["cat", "dog"])
    pair = {"label": "dog", "answer": "cat", "most": "40", "images": "100"}
    pair |= {"back": "10", "answer_images": "900"}
    assert found == ("bad", "confused", {"pair": pair})


def test_one_answer_for_all_images_is_said_so():
    labels = np.repeat(np.arange(3), 100)
    found = verdicts.confused(predictions(labels, np.full(300, 1)), list("abc"))
    assert found == ("bad", "one_answer", {"images": "300 test images", "answer": "b"})


def drawn(seed, wrongness, count=600):
    """Answers with confidences of all sizes, right as often as these to a power say."""
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.4, 1, count)
    right = rng.random(count) < sure**wrongness
    labels = rng.integers(0, 3, count)
    return predictions(labels, np.where(right, labels, (labels + 1) % 3), sure, size=3)


def test_calibration_is_told_from_its_contrary():
    good, over, under = (verdicts.calibration_finding(drawn(0, x)) for x in (1.0, 2.0, 0.4))
    assert good[:2] == ("good", "calibrated")
    assert over[:2] == ("bad", "overconfident") and under[:2] == ("bad", "underconfident")
    few = verdicts.calibration_finding(drawn(0, 2.0, count=99))
    numbers = {"images": "99 test images", "needed": 100}
    assert few == ("unknown", "calibration_few_images", numbers)


def test_a_network_at_chance_is_not_called_calibrated():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 2000)
    share = np.bincount(labels).max() / 2000
    guesses = predictions(labels, np.full(2000, np.bincount(labels).argmax()),
                          np.full(2000, share), size=10)  # fmt: skip
    found = verdicts.calibration_finding(guesses)
    assert verdicts.calibrated(guesses).p >= verdicts.ALPHA
    assert found[:2] == ("unknown", "calibrated_at_chance"), found
    # Twice as often right, and as sure: these probabilities say something.
    classes = np.where(rng.random(2000) < 0.22, labels, (labels + rng.integers(1, 10, 2000)) % 10)
    sure = np.full(2000, np.mean(classes == labels))
    better = verdicts.calibration_finding(predictions(labels, classes, sure, size=10))
    assert better[:2] == ("good", "calibrated"), better


def test_the_calibration_error_is_the_papers_and_its_p_scipys():
    for wrongness in (1.0, 1.2, 2.0):
        found = drawn(3, wrongness)
        one, at, sure = verdicts.calibrated(found), evaluation.bins_of(found), found.confidences
        assert one.error == pytest.approx(evaluation.calibration(found).error, rel=1e-6)
        test = stats.monte_carlo_test(
            found.right,
            lambda size, sure=sure: np.random.default_rng(9).random((999, len(sure))) < sure,
            lambda right, axis=-1, at=at, sure=sure: np.apply_along_axis(
                lambda row: evaluation.expected_error(at, row - sure), axis, right
            ),
            n_resamples=999,
            alternative="greater",
        )
        assert one.p == pytest.approx(test.pvalue, abs=4 * np.sqrt(0.5 / 999))
        assert one.chance == pytest.approx(np.quantile(test.null_distribution, 0.95), rel=0.05)


@pytest.mark.parametrize(("count", "sets"), [(200, 200), (1000, 100), (5000, 60)])
def test_calibrated_networks_are_rarely_accused_and_overconfident_ones_are(
    count, sets, monkeypatch
):
    monkeypatch.setattr(verdicts, "DRAWS", 200)
    accused, found = (
        np.mean([verdicts.calibrated(drawn(n, x, count)).p < verdicts.ALPHA for n in range(sets)])
        for x in (1.0, 1.5)
    )
    assert accused <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / sets)
    assert found >= {200: 0.6, 1000: 0.99, 5000: 0.99}[count]


def test_a_small_miscalibration_is_no_fault():
    found = verdicts.calibration_finding(drawn(0, 1.05, count=50_000))
    assert verdicts.calibrated(drawn(0, 1.05, count=50_000)).p < verdicts.ALPHA
    assert found[:2] == ("good", "nearly_calibrated"), found


def test_a_rare_confusion_is_no_fault():
    labels = np.repeat(np.arange(5), 2000)
    classes = labels.copy()
    classes[6000:6030] = 1
    found = verdicts.confused(predictions(labels, classes), list("abcde"))
    assert found[:2] == ("good", "rarely_confused") and found.values["least"] == "2 %", found


def test_two_runs_are_compared_by_mcnemars_exact_test():
    labels = np.zeros(200, int)
    a, b, same = labels.copy(), labels.copy(), labels.copy()
    a[:4], b[2:20] = 1, 1
    answers = [predictions(labels, x, size=2) for x in (b, a, same)]
    p = stats.binomtest(2, 18).pvalue
    assert verdicts.compare_predictions(answers[1], answers[0]) == (16, 2, pytest.approx(p))
    better = verdicts.comparison(["b", "a"], answers[:2])
    numbers = {"best": "a", "other": "b", "images": "18", "wins": "16", "p": f"{p:.2g}"}
    assert better == [("good", "better", numbers)]
    level = verdicts.comparison(["s", "a"], [answers[2], answers[1]])
    assert level[0][:2] == ("unknown", "no_difference")
    assert level[0].values["p"] == f"{stats.binomtest(0, 4).pvalue:.2g}"
    three = verdicts.comparison(["s", "a", "t"], [answers[2], answers[1], answers[2]])
    assert three[1].name == "same_answers"
    assert three[0].values["p"] == f"{3 * stats.binomtest(0, 4).pvalue:.2g}"  # Three pairs.
    other = answers[1]._replace(rows=answers[1].rows + 1)
    (of_others,) = verdicts.comparison(["s", "o"], [answers[2], other])
    assert of_others == ("unknown", "other_images", {"best": "s", "other": "o"})
    assert verdicts.comparison(["s", "n"], [answers[2], None]) == [("unknown", "untested", {})]


def test_of_ten_equal_runs_the_best_is_rarely_called_better():
    rng = np.random.default_rng(0)
    labels, called = np.zeros(500, int), 0
    for _ in range(60):
        runs = [predictions(labels, (rng.random(500) < 0.1).astype(int), size=2) for _ in range(10)]
        called += any(one.kind == "good" for one in verdicts.comparison(list("abcdefghij"), runs))
    assert called / 60 <= 0.05


def sentence(verdict):
    """A verdict as the report says it, without tags."""
    macros = environment("jaxnets.report").get_template("verdicts.html").module
    return str(getattr(macros, verdict.name)(**verdict.values).striptags())


def test_each_verdict_is_a_sentence_with_its_numbers():
    answers = predictions(np.repeat([0, 1], 100), np.repeat([0, 1, 0], [100, 80, 20]))
    found = verdicts.confused(answers, ["cat", "dog"])
    assert sentence(found) == (
        "Most confused: dog is taken for cat in 20 of 100 images, the other way round in 0 of 100, "
        "more than by chance. Look at them below; more images of both classes may help."
    )
    falling = sentence(verdicts.still_falling(history("until its schedule ended")))
    assert falling.startswith("Still falling: in the last 6 epochs the validation loss fell by ")
    assert falling.endswith(". Its learning rate has ended near 0, so more epochs mean a longer "
        "schedule. For a lower loss, try --epochs=48 in a new run.")  # fmt: skip


@pytest.mark.slow
def test_the_verdicts_are_chinese_in_a_chinese_report():
    found = drawn(0, 2.0)
    runs = [history(one[0]) for one in HISTORIES]
    judged = [
        judge(run) for judge in (verdicts.overfitting, verdicts.still_falling) for run in runs
    ]
    judged += [verdicts.calibration_finding(found), verdicts.confused(found, list("甲乙丙"))]
    judged += verdicts.comparison(["甲", "乙"], [found, drawn(0, 1.0)])
    with speaking("zh"):
        texts = [sentence(one) for one in judged]
    for text in texts:
        plain = re.sub(r"McNemar|--[a-z_]+(=[a-z]+)?|\be\b|\bp\b", "", text)
        letters = set("".join(filter(str.isascii, plain)).lower())
        assert not letters & set("abcdfghijklmnoqrstuvwxyz"), text  # Only p, and the e of 1e-05.
