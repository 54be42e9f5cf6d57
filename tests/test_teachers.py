"""The teachers' pages: lessons fit their minutes, the exam's answers are right."""

import re
from typing import Any

import exam
import flax.linen as nn
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
ROW = re.compile(r"^\| (\d+) \| (.*?) \| (.*?) ?\| ([12]) \|$", re.MULTILINE)
PLAN = re.compile(r"^\| (\d) \| .*? \| (.*?) \| (.*?) \| (\d+) \| (\d+) \|$", re.MULTILINE)
# Of the exercises that are no files; their pages say so: "Level 1, 5 minutes".
IN_WORDS = re.compile(r"^#### (bet\d)\n\nLevel \d, (\d+) minutes", re.MULTILINE)
BETS_IN_WORDS = dict(IN_WORDS.findall((DOCS / "exercises.md").read_text("utf-8")))
LANGUAGES = pytest.mark.parametrize("folder", [DOCS, DOCS / "zh"], ids=["en", "zh"])


def names_in(cell):
    return re.findall(r"`(\w+)`", cell)


def numbers_in(text):
    return re.findall(r"\d+\.\d+", text)


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
            rows = [
                (int(minutes), names_in(names), lesson)
                for minutes, _, names, lesson in ROW.findall(session)
            ]
            for each in "12":  # Two lessons of 45 minutes.
                assert sum(minutes for minutes, _, lesson in rows if lesson == each) == 45
            for minutes, names, _ in rows:
                assert minutes_of(names) <= minutes, names
            late = re.search(r"^\*\*(?:Late\?|来不及？)\*\*(.*?)\n\n", session, re.M | re.S)
            assert late
            saved = [int(minutes) for minutes in re.findall(r"[(（](\d+)[)）]", late[1])]
            assert len(saved) == 2 and set(saved) <= {minutes for minutes, *_ in rows}
            listed = [name for _, names, _ in rows for name in names if name in EXERCISES]
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


@LANGUAGES
def test_the_plan_marks_what_is_optional_in_the_list(folder):
    """Everything else in the plan is required, and nothing that is required is left out."""
    rows = PLAN.findall((folder / "teachers.md").read_text("utf-8"))
    cells = " ".join(cell for _, *both, _, _ in rows for cell in both)
    marked = set(re.findall(r"`(\w+)`\\\*", cells))
    required = {name for name, one in EXERCISES.items() if one.required}
    assert set(names_in(cells)) - marked == required
    assert not marked & required and len(marked) == 4


def test_both_languages_have_one_plan():
    assert plan(DOCS) == plan(DOCS / "zh")
    for page in ("weeks-1-4", "weeks-5-8"):
        english, chinese = (
            [(minutes, names_in(names), lesson) for minutes, _, names, lesson in ROW.findall(text)]
            for folder in (DOCS, DOCS / "zh")
            for text in [(folder / "teachers" / f"{page}.md").read_text("utf-8")]
        )
        assert english == chinese


@LANGUAGES
def test_what_the_pages_and_the_slides_name_exists(folder):
    files = [folder / "teachers.md", *(folder / "teachers").glob("*.md")]
    others = {"grade", "nobody", "loop", "run_autograder", "getattr", *Grade._fields}
    for path in [*files, DOCS / "_slides" / "course.md"]:
        text = re.sub(r"^ *```\w*$", "", path.read_text("utf-8"), flags=re.MULTILINE)
        named = set(re.findall(r"(?:`|new )([a-z]\w+)(?:`|\n)", text))
        assert not named - others - set(BETS_IN_WORDS) - set(EXERCISES), path


@pytest.mark.parametrize(
    ("slide", "page"),
    [
        ("Rate and batch size", "course/week-5.md"),
        ("500 images", "course/week-5.md"),
        ("Deeper plain networks train worse", "backprop/residual.md"),
        ("Begin with trained weights", "backprop/optimizers.md"),
    ],
)
def test_a_slide_quotes_the_measurements_of_its_page(slide, page):
    """Doctests in the slides' source recompute all other numbers."""
    source = (DOCS / "_slides" / "course.md").read_text("utf-8")
    _, _, body = source.partition(f"## en: {slide}\n")
    cells = re.findall(
        r"(?<= )\d+\.\d+(?= )", "\n".join(re.findall(r"^.*\|$", body.split("\n## ")[0], re.M))
    )
    assert len(cells) >= 3 and set(cells) <= {*numbers_in((DOCS / page).read_text("utf-8"))}


def by_layer(function, *given):
    """A layer's output, and the gradients of its arguments but the last, which comes from above."""
    *arguments, above = (jnp.array(one, float) for one in given)
    out, back = jax.vjp(function, *arguments)
    return out, *back(above)


def of_neuron(x, w, b, y):
    def loss(w, b):
        z = jnp.dot(jnp.array(x, float), w) + b
        return (jax.nn.relu(z) - y) ** 2 / 2, z

    at = jnp.array(w, float), jnp.array(b, float)
    (value, z), (dw, db) = jax.value_and_grad(loss, (0, 1), has_aux=True)(*at)
    return {"z": z, "h": z, "L": value, "dz": db, "dw": dw, "db": db}


def of_neuron_step(x, y, w, b, rate):
    def loss(params):
        return (params["w"] * x + params["b"] - y) ** 2 / 2

    params = {"w": jnp.array(w, float), "b": jnp.array(b, float)}
    value, gradient = jax.value_and_grad(loss)(params)
    rule = optax.sgd(rate)
    stepped: Any = optax.apply_updates(params, rule.update(gradient, rule.init(params))[0])
    after = {"after": loss(stepped), **stepped}
    return {"L": value, "dw": gradient["w"], "db": gradient["b"], **after}


def of_dense(X, W, dZ):
    _, dX, dW, db = by_layer(lambda x, w, b: x @ w + b, X, W, [0, 0], dZ)
    return {"dW": dW, "db": db, "dX": dX}


def of_dense_relu(X, W, dH):
    Z, _, dW = by_layer(jnp.matmul, X, W, dH)
    _, dX, dW = by_layer(lambda x, w: jax.nn.relu(x @ w), X, W, dH)
    return {"Z": Z, "dZ": by_layer(jax.nn.relu, Z, dH)[1], "dW": dW, "dX": dX}


def of_cross_entropy(p, right):
    loss = optax.softmax_cross_entropy_with_integer_labels
    value, gradient = jax.value_and_grad(loss)(jnp.log(jnp.array(p)), right - 1)
    return {"L": value, "gradient": gradient}


def of_two_losses(p, right):
    scores, label = jnp.log(jnp.array(p)), jax.nn.one_hot(right - 1, 3)
    pulls = {
        "cross_entropy": jax.grad(optax.softmax_cross_entropy)(scores, label),
        "squared": jax.grad(lambda o: optax.l2_loss(jax.nn.softmax(o), label).sum())(scores),
    }
    return {name: gradient[right - 1] for name, gradient in pulls.items()}


def of_sum_or_mean(count, rate):
    gradients = np.random.default_rng(0).normal(size=count)
    return {"rate": rate * gradients.sum() / gradients.mean(), "times": count}


def of_mean_to_sum(count, rate):
    gradients = np.random.default_rng(0).normal(size=count)
    return {"rate": rate * gradients.mean() / gradients.sum(), "times": count}


def of_momentum(beta, g):
    rule: Any = optax.sgd(0.1, momentum=beta)
    w, found = jnp.array(1.0), []
    state = rule.init(w)
    for each in [*g, *[1.0] * 1000]:
        update, state = rule.update(jnp.array(float(each)), state)
        w = optax.apply_updates(w, update)
        found.append((state[0].trace, w))
    v, w = zip(*found, strict=True)
    return {"v": list(v[:2]), "w": list(w[:2]), "times": v[-1]}


def of_adam(g, rate, b1, b2):
    rule: Any = optax.adam(rate, b1, b2, eps=0.0)
    step, state = rule.update(jnp.array(float(g)), rule.init(jnp.array(1.0)))
    corrected = state[0].mu / (1 - b1), state[0].nu / (1 - b2)
    moments = {"m": state[0].mu, "v": state[0].nu, "step": -step}
    return moments | dict(zip(("mean", "square"), corrected, strict=True))


def of_first_weights(n, layers):
    spread = jax.nn.initializers.he_normal()(jax.random.key(0), (n, 10_000)).std()
    return {"deviation": (0.01, spread), "factor": 1 / 2**layers}


def of_sigmoids(layers, w):
    def chain(x, w):
        for _ in range(layers):
            x = jax.nn.sigmoid(w * (x - 0.5))  # Each at its steepest: z = 0.
        return x

    return {"factor": jax.grad(chain)(0.5, w), "needed": 1 / jax.grad(jax.nn.sigmoid)(0.0)}


def of_epochs(images, batch, rate, decay):
    rule = optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate))
    w = jnp.array(1.0)
    state = rule.init(w)
    for _ in range(100):
        update, state = rule.update(jnp.array(0.0), state, w)
        w = optax.apply_updates(w, update)
    return {"steps": len(range(0, images, batch)), "left": w}


def of_stopping(training, validation):
    for end in range(3, len(validation) + 1):
        if min(validation[end - 2 : end]) >= min(validation[: end - 2]):
            break
    gap = validation[end - 1] - training[end - 1]
    return {"best": 1 + int(np.argmin(validation)), "end": end, "gap": gap}


def of_convolution(x, w, dz):
    z, dx, dw = by_layer(lambda x, w: jnp.correlate(x, w, "valid"), x, w, dz)
    return {"z": z, "dw": dw, "dx": dx}


def of_pooling(x, dy):
    found = {}
    for name, pool in (("max", nn.max_pool), ("mean", nn.avg_pool)):

        def pooled(x, pool=pool):
            return pool(x[None, :, :, None], (2, 2), (2, 2)).reshape(2)

        found[name], found[f"d_{name}"] = by_layer(pooled, x, dy)
    return found


def of_output_size(pixels, window, stride, padding, filters):
    pads = 2 * [(padding, padding)]
    layer = nn.Conv(filters, (window, window), strides=(stride, stride), padding=pads)
    out, variables = layer.init_with_output(jax.random.key(0), jnp.zeros((1, pixels, pixels, 3)))
    sizes = [array.size for array in jax.tree.leaves(variables)]
    return {"size": list(out.shape[1:]), "parameters": sum(sizes)}


def of_receptive_field(windows, stride, channels):
    def middle(x):
        for window, step in zip(windows, (stride, 1, 1), strict=True):
            x = jnp.convolve(x, jnp.ones(window), "valid")[::step]
        return x[len(x) // 2]

    field = int((jax.grad(middle)(jnp.ones(101)) != 0).sum())

    def weights(window):
        layer = nn.Conv(channels, (window, window), use_bias=False)
        shapes = jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros((1, 99, 99, channels)))
        return sum(shape.size for shape in jax.tree.leaves(shapes))

    return {"field": field, "three": sum(map(weights, windows)), "one": weights(field)}


def of_batch_norm(x, running):
    layer = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=0.0)
    x = jnp.array(x, float)[:, None]
    variables = layer.init(jax.random.key(0), x)
    statistics = {"mean": jnp.array([float(running)]), "var": jnp.ones(1)}
    variables = {**variables, "batch_stats": statistics}
    y, new = layer.apply(variables, x, mutable=["batch_stats"])
    moved = {"y": y[:, 0], "running": new["batch_stats"]["mean"][0]}
    return {"mean": x.mean(), "deviation": x.std(), **moved}


def of_shortcuts(layers, slope):
    def factor(layer):
        def chain(x):
            for _ in range(layers):
                x = layer(x)
            return x

        return jax.grad(chain)(1.0)

    return {
        "plain": factor(lambda x: slope * x),
        "with": factor(lambda x: x + slope * x),
        "one": factor(lambda x: x + x),
    }


def of_confusion(sick, called, found):
    is_sick = np.arange(100) < sick
    is_called = np.roll(np.arange(100) < called, sick - found)
    assert (is_sick & is_called).sum() == found
    metrics = pytest.importorskip("sklearn.metrics")
    return {
        "accuracy": metrics.accuracy_score(is_sick, is_called),
        "precision": metrics.precision_score(is_sick, is_called),
        "recall": metrics.recall_score(is_sick, is_called),
        "F1": metrics.f1_score(is_sick, is_called),
        "healthy": metrics.accuracy_score(is_sick, np.zeros(100, bool)),
    }


def of_regression(y, p):
    metrics = pytest.importorskip("sklearn.metrics")
    return {
        "wmape": metrics.mean_absolute_error(y, p) / np.mean(y),
        "r2": metrics.r2_score(y, p),
        "of_mean": metrics.r2_score(y, 4 * [np.mean(y)]),
    }


def of_claim(images, a, b):
    draws = np.random.default_rng(0).binomial(images, [a, b], (200_000, 2))
    leads = (draws[:, 0] - draws[:, 1]) / images
    error, lead = leads.std(), a - b
    assert lead / error < 1.96  # So neither "better" nor "equal" may be said.
    low, high = lead - 1.96 * error, lead + 1.96 * error
    return {name: (0.01, x) for name, x in dict(error=error, lead=lead / error).items()} | {
        "low": (0.02, low),
        "high": (0.02, high),
    }


def of_peeking(tests):
    alarms = np.random.default_rng(0).random((400_000, tests)) < 0.05
    return {"alarm": (0.01, alarms.any(axis=1).mean()), "level": 0.05 / tests}


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("seed", [0, slow(2026)])
def test_the_exam_s_answers_are_right(seed, float64):
    """By autodiff, optax, Flax, scikit-learn, counting and drawing: nothing of the exam's own."""
    for question in [*exam.questions(seed), *exam.questions(seed, second=True)]:
        right = globals()[f"of_{question.name}"](**question.given)
        assert set(question.answers) == set(right), question.name
        for name, value in right.items():
            about, value = value if isinstance(value, tuple) else (1e-6, value)
            np.testing.assert_allclose(
                question.answers[name], np.array(value), about, 1e-6, err_msg=question.name
            )


@pytest.mark.parametrize("seed", range(20))
def test_a_seed_has_two_exams_of_the_rubric_s_points_without_a_common_question(seed):
    first, second = exam.questions(seed), exam.questions(seed, second=True)
    assert not {question.name for question in first} & {question.name for question in second}
    assert {question.name for question in [*first, *second]} == set(exam.TEXTS)
    assert [question.points for question in first] == [question.points for question in second]
    for folder in (DOCS, DOCS / "zh"):
        rubric = (folder / "teachers" / "grading.md").read_text("utf-8")
        points = sum(question.points for question in first)
        assert re.search(rf"\(\.\./teachers\.md#\S+\).* \| {points} \|", rubric)
        places = re.findall(
            r"^\| \d+ \| .* \| \d \| (\d) \|$", (folder / "teachers.md").read_text("utf-8"), re.M
        )
        assert [int(each) for each in places] == [question.points for question in first]


def test_every_answer_has_its_points_in_both_languages():
    for question in [*exam.questions(0), *exam.questions(0, second=True)]:
        marks = exam.TEXTS[question.name]["marks"]
        for language in (0, -1):
            named = {
                name for _, *texts in marks for name in re.findall(r"{(\w+)}", texts[language])
            }
            assert named | {"h"} == set(question.answers) | {"h"}, question.name
        for _, *texts in marks:  # Words have their Chinese; a formula needs none.
            assert len(texts) == 2 or not re.search(r"[a-z]{5}", re.sub(r"{\w+}", "", texts[0]))


@pytest.mark.parametrize("second", [False, True])
def test_an_exam_is_its_seed_s_in_both_languages(second):
    english, chinese = ("\n".join(exam.lines(7, each, False, second)) for each in exam.HEAD)
    assert english != "\n".join(exam.lines(8, "en", False, second))
    numbers = re.compile(r"-?\d+(?:\.\d+)?")
    for ours, theirs in zip(english.splitlines()[3:], chinese.splitlines()[3:], strict=True):
        assert sorted(numbers.findall(ours)) == sorted(numbers.findall(theirs)), ours
    answers = "\n".join(exam.lines(7, "en", True, second))
    assert "   - (1) " in answers and "   - (1) " not in english
