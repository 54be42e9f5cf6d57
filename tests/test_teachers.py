"""The teachers' pages: lessons fit their minutes, the exam's answers are right."""

import re
from typing import Any

import exam
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT, slow

from jaxnets.course.exercises.catalogue import BETS, EXERCISES
from jaxnets.course.exercises.grade import Grade
from jaxnets.course.exercises.marks import MINUTES_OF_A_POINT

DOCS = ROOT / "docs"
ROW = re.compile(r"^\| (\d+) \| (.*?) \| (.*?) ?\|$", re.MULTILINE)
PLAN = re.compile(r"^\| (\d) \| .*? \| (.*?) \| (.*?) \| (\d+) \| (\d+) \|$", re.MULTILINE)
# Of the exercises that are no files; their pages say so: "Level 1, 5 minutes".
IN_WORDS = re.compile(r"^#### (bet\d)\n\nLevel \d, (\d+) minutes", re.MULTILINE)
BETS_IN_WORDS = dict(IN_WORDS.findall((DOCS / "exercises.md").read_text("utf-8")))
LANGUAGES = pytest.mark.parametrize("folder", [DOCS, DOCS / "zh"], ids=["en", "zh"])


def names_in(cell):
    return re.findall(r"`(\w+)`", cell)


def minutes_of(names):
    return sum(
        EXERCISES[name].minutes if name in EXERCISES else int(BETS_IN_WORDS[name]) for name in names
    )


def plan(folder):
    """What is done in class and at home, by week."""
    found = PLAN.findall((folder / "teachers.md").read_text("utf-8"))
    assert [week for week, *_ in found] == list("12345678")
    return [
        (names_in(inside), names_in(home), int(own), int(whole))
        for _, inside, home, own, whole in found
    ]


@LANGUAGES
def test_every_session_has_90_minutes_and_its_exercises_their_own(folder):
    for page, first in (("weeks-1-4", 0), ("weeks-5-8", 4)):
        _, *sessions = (folder / "teachers" / f"{page}.md").read_text("utf-8").split("\n## ")
        assert len(sessions) == 4
        for session, (inside, home, *_) in zip(sessions, plan(folder)[first:], strict=False):
            rows = [(int(minutes), names_in(last)) for minutes, _, last in ROW.findall(session)]
            assert sum(minutes for minutes, _ in rows) == 90, session[:20]
            for minutes, names in rows:
                assert minutes_of(names) <= minutes, names
            listed = [name for _, names in rows for name in names if name in EXERCISES]
            assert listed == inside, session[:20]
            homework = re.search(r"\*\*(?:Homework.|作业。)\*\*(.*)", session)
            assert homework and names_in(homework[1]) == home


@LANGUAGES
def test_homework_takes_the_minutes_that_the_plan_says(folder):
    for week, (inside, home, own, whole) in enumerate(plan(folder), 1):
        assert minutes_of(home) == own
        assert not set(inside) & set(home)
        page = (folder / "course" / f"week-{week}.md").read_text("utf-8")
        rows = re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE)
        in_class = set(inside) & set(names_in(" ".join(what for _, what in rows)))
        assert whole == sum(int(minutes) for minutes, _ in rows) - minutes_of(in_class)
    names = [name for inside, home, *_ in plan(folder) for name in inside + home]
    assert len(names) == len(set(names))
    # The rubric's 70 points: bets are no knowledge.
    rubric = (folder / "teachers" / "grading.md").read_text("utf-8")
    points = minutes_of(set(names) - set(BETS)) / MINUTES_OF_A_POINT
    assert f"| {points:g} | `grade`" in rubric


def test_both_languages_have_one_plan():
    assert plan(DOCS) == plan(DOCS / "zh")
    for page in ("weeks-1-4", "weeks-5-8"):
        english, chinese = (
            [(minutes, last.split()) for minutes, _, last in ROW.findall(text)]
            for folder in (DOCS, DOCS / "zh")
            for text in [(folder / "teachers" / f"{page}.md").read_text("utf-8")]
        )
        assert [(m, names_in(" ".join(n))) for m, n in english] == [
            (m, names_in(" ".join(n))) for m, n in chinese
        ]


@LANGUAGES
def test_what_the_pages_and_the_slides_name_exists(folder):
    files = [folder / "teachers.md", *(folder / "teachers").glob("*.md")]
    others = {"grade", "nobody", "loop", "run_autograder", "getattr", *Grade._fields}
    for path in [*files, DOCS / "_slides" / "course.md"]:
        text = re.sub(r"^ *```\w*$", "", path.read_text("utf-8"), flags=re.MULTILINE)
        named = set(re.findall(r"(?:`|new )([a-z]\w+)(?:`|\n)", text))
        assert not named - others - set(BETS_IN_WORDS) - set(EXERCISES), path


def right_answers(questions, float64):
    """The answers by autodiff, optax, counting: nothing of the exam's own formulas."""
    one, layer, loss, rates, steps, weights, conv, size, leaves, lead = (q.given for q in questions)

    def neuron(w, b):
        z = jnp.dot(jnp.array(one["x"], float), w) + b
        return (jax.nn.relu(z) - one["y"]) ** 2 / 2, z

    w, b = jnp.array(one["w"], float), jnp.array(one["b"], float)
    (value, z), (dw, db) = jax.value_and_grad(neuron, (0, 1), has_aux=True)(w, b)
    yield {"z": z, "h": z, "L": value, "dz": db, "dw": dw, "db": db}
    X, W, dZ = (jnp.array(layer[name], float) for name in ("X", "W", "dZ"))
    dX, dW, db = jax.vjp(lambda x, w, b: x @ w + b, X, W, jnp.zeros(2))[1](dZ)
    yield {"dW": dW, "db": db, "dX": dX}
    scores, label = jnp.log(jnp.array(loss["p"])), loss["right"] - 1
    of_scores = jax.value_and_grad(optax.softmax_cross_entropy_with_integer_labels)
    value, gradient = of_scores(scores, label)
    yield {"L": value, "gradient": gradient}
    losses = np.random.default_rng(0).normal(size=rates["count"])
    yield {"rate": rates["rate"] * losses.sum() / losses.mean()}
    rule: Any = optax.sgd(0.1, momentum=steps["beta"])
    w, found = jnp.array(1.0), []
    state = rule.init(w)
    for g in steps["g"]:
        update, state = rule.update(jnp.array(float(g)), state)
        w = optax.apply_updates(w, update)
        found.append((state[0].trace, w))
    yield dict(zip(("v", "w"), map(list, zip(*found, strict=True)), strict=True))
    spread = jax.nn.initializers.he_normal()(jax.random.key(0), (weights["n"], 10_000)).std()
    yield {"deviation": (0.01, spread), "factor": 1 / 2 ** weights["layers"]}
    x, w, dz = (jnp.array(conv[name], float) for name in ("x", "w", "dz"))
    z, back = jax.vjp(lambda x, w: jnp.correlate(x, w, "valid"), x, w)
    yield {"z": z, "dw": back(dz)[1], "dx": back(dz)[0]}
    pixels, window, pads = size["pixels"], size["window"], 2 * [(size["padding"],) * 2]
    kernel = jnp.zeros((window, window, 3, size["filters"]))
    image = jnp.zeros((1, pixels, pixels, 3))
    strides, layout = 2 * [size["stride"]], ("NHWC", "HWIO", "NHWC")
    out = jax.lax.conv_general_dilated(image, kernel, strides, pads, dimension_numbers=layout)
    yield {"size": list(out.shape[1:]), "parameters": kernel.size + size["filters"]}
    is_sick = np.arange(100) < leaves["sick"]
    called = np.roll(np.arange(100) < leaves["called"], leaves["sick"] - leaves["found"])
    assert (is_sick & called).sum() == leaves["found"]
    metrics = pytest.importorskip("sklearn.metrics")
    yield {
        "accuracy": metrics.accuracy_score(is_sick, called),
        "precision": metrics.precision_score(is_sick, called),
        "recall": metrics.recall_score(is_sick, called),
        "F1": metrics.f1_score(is_sick, called),
        "all healthy": 1 - is_sick.mean(),
    }
    draws = np.random.default_rng(0).binomial(lead["images"], [lead["a"], lead["b"]], (200_000, 2))
    error = (draws[:, 0] - draws[:, 1]).std() / lead["images"]
    ratio = (lead["a"] - lead["b"]) / error
    assert ratio < 1.96
    yield {
        "error": (0.01, error),
        "lead / error": (0.01, ratio),
        "better": False,
        "equal": False,
    }


@pytest.mark.oracle
@pytest.mark.parametrize("seed", [0, slow(2026)])
def test_the_exam_s_answers_are_right(seed, float64):
    asked = exam.questions(seed)
    assert sum(question.points for question in asked) == 30
    for question, right in zip(asked, right_answers(asked, float64), strict=True):
        assert set(question.answers) == set(right)
        for name, value in right.items():
            about, value = value if isinstance(value, tuple) else (1e-6, value)
            np.testing.assert_allclose(question.answers[name], np.array(value), about, 1e-6)


def test_an_exam_is_its_seed_s_in_both_languages():
    english, chinese = ("\n".join(exam.lines(7, language, False)) for language in exam.HEAD)
    assert english != "\n".join(exam.lines(8, "en", False))
    numbers = re.compile(r"-?\d+(?:\.\d+)?")
    for ours, theirs in zip(english.splitlines()[3:], chinese.splitlines()[3:], strict=True):
        assert sorted(numbers.findall(ours)) == sorted(numbers.findall(theirs)), ours
    answers = "\n".join(exam.lines(7, "en", True))
    assert "**" in answers and "**" not in english
