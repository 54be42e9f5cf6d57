"""Functions to write: solutions pass, and wrong answers of students get the right cause."""
# ruff: noqa: E501 (A student's lines stand in one string.)

import functools
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from jaxnets.course.exercises import judge
from jaxnets.course.exercises.catalogue import TASKS, Repair
from jaxnets.course.exercises.files import exercises_in
from jaxnets.course.exercises.grade import Limits, grades_of, submissions_in
from jaxnets.course.exercises.passes import run_source
from jaxnets.errors import UserError
from jaxnets.language import _, speaking

cases_of = functools.cache(judge.cases_of)


def verdict_of(name, source, **options):
    """What the judge says of a file."""
    cases = cases_of(name)
    answers = run_source(source, "mine.py", name, [case.call for case in cases])
    return judge.verdict(name, cases, answers, **options)


def with_body(name, lines):
    """A student's function of these lines."""
    head = re.search(rf"^def {name}\(.*:$", TASKS[name].code, re.MULTILINE)
    assert head
    body = "\n    ".join(lines.strip().split("\n"))
    return f"import numpy as np\n\n\n{head[0]}\n    {body}\n"


@pytest.mark.parametrize("name", TASKS)
def test_solution_passes_blank_fails_and_each_cause_is_named(name):
    task = TASKS[name]
    assert verdict_of(name, task.solution).passed
    given = verdict_of(name, task.text())
    if isinstance(task, Repair):  # Its mistake is said with a hint alone.
        assert given.line == f"{name}: FAILED: {given.wrong[0]}: it is still wrong"
        assert verdict_of(name, task.text(), hint=True).hints[0] == task.causes[0].says
    else:
        assert "still ..., the blank to fill in" in given.line
    for cause in task.causes[isinstance(task, Repair) :]:
        assert cause.old in task.solution
        found = verdict_of(name, task.solution.replace(cause.old, cause.new))
        assert not found and cause.says in found.line, cause


# Each is (exercise, a student's lines, a part of the cause that the judge must name).
WRONG = [
    ("momentum", "v = beta * v + g\nreturn w + learning_rate * v, v", "uphill"),
    ("momentum", "v = v * beta + g * (1 - beta)\nreturn w - learning_rate * v, v", "running mean"),
    ("momentum", "new = w - learning_rate * (beta * v + g)\nreturn new, v", "returned as it came"),
    ("momentum", "v = beta * v - learning_rate * g\nreturn w + v, v", "holds the step itself"),
    ("momentum", "v = g - beta * v\nreturn w - learning_rate * v, v", "velocity is subtracted"),
    ("momentum", "v = v + g\nreturn w - learning_rate * v, v", "beta is missing"),
    ("momentum", "w = w - learning_rate * v\nv = beta * v + g\nreturn w, v", "the old velocity"),
    ("momentum", "v = beta * v + g\nreturn w - v, v", "learning rate is missing"),
    ("momentum", "v = beta * v + learning_rate * g\nreturn w - v, v", "learning rate is in the"),
    ("momentum", "v = beta * v + g\nreturn v, w - learning_rate * v", "wrong order"),
    ("momentum", "v = beta * v + g\nw = w - learning_rate * g\nreturn w, v", "takes g alone"),
    ("momentum", "return w - learning_rate * g, g", "forgotten"),
    ("momentum", "v = learning_rate * v + g\nreturn w - beta * v, v", "are exchanged"),
    (
        "momentum",
        "v = beta * v + g\nreturn w - learning_rate * (beta * v + g), v",
        "Nesterov",
    ),
    ("momentum", "v = v + (1 - beta) * (g - v)\nreturn w - learning_rate * v, v", "running mean"),
    ("momentum", "v = beta * v + g\nw = w + learning_rate * v\nreturn v, w", "uphill"),
    ("momentum", "v = beta * v + g\nw = w - learning_rate * v", "it returns nothing"),
    ("momentum", "v = beta * v + g\nreturn w - learning_rate * v", "expected (w, v), got an array"),
    ("momentum", "v = beta * v + g\nreturn w - lr * v, v", "lr is not defined"),
    ("momentum", "v = (beta * v + g).sum()\nreturn w - learning_rate * v, v", "expected the shape"),
    ("rmsprop", "v = decay * v + (1 - decay) * g\nreturn w - learning_rate * g / (np.sqrt(v) + "
     "epsilon), v", "not squared"),
    ("rmsprop", "v = decay * v + (1 - decay) * g**2\nreturn w - learning_rate * g / np.sqrt(v + "
     "epsilon), v", "inside the root"),
    ("rmsprop", "v = decay * v + (1 - decay) * g * g\nreturn w - learning_rate * g * v**-0.5, v",
     "epsilon is missing"),
    ("rmsprop", "v = v + g**2\nreturn w - learning_rate * g / (v**0.5 + epsilon), v", "AdaGrad"),
    ("rmsprop", "v = decay * v + g**2\nreturn w - learning_rate * g / (v**0.5 + epsilon), v",
     "is a mean, not a sum"),
    ("rmsprop", "v = v + decay * (g**2 - v)\nreturn w - learning_rate * g / (np.sqrt(v) + "
     "epsilon), v", "exchanged"),
    ("rmsprop", "new = decay * v + (1 - decay) * g**2\nreturn w - learning_rate * g / (np.sqrt(v)"
     " + epsilon), new", "the old v"),
    ("rmsprop", "v = decay * v + (1 - decay) * g**2\nreturn w - learning_rate * g / (v + "
     "epsilon), v", "root is missing"),
    ("rmsprop", "v = decay * v + (1 - decay) * g**2\nreturn w - learning_rate * g / np.sqrt(v) + "
     "epsilon, v", "outside the fraction"),
    ("rmsprop", "s = decay * v + (1 - decay) * g**2\nreturn w - learning_rate * g / (np.sqrt(s) + "
     "epsilon), v", "returned as it came"),
    ("rmsprop", "v = decay * v + (1 - decay) * np.dot(g.ravel(), g.ravel())\nreturn w - "
     "learning_rate * g / (np.sqrt(v) + epsilon), v", "added up over the weights"),
    ("rmsprop", "v = decay * v + (1 - decay) * (g**2).mean()\nreturn w - learning_rate * g / "
     "(np.sqrt(v) + epsilon), v", "averaged over the weights"),
    ("rmsprop", "v = np.sqrt(decay * v + (1 - decay) * g**2)\nreturn w - learning_rate * g / (v + "
     "epsilon), v", "the root is returned"),
    ("rmsprop", "v = decay * v + (1 - decay) * g**2\nreturn w - learning_rate / (np.sqrt(v) + "
     "epsilon), v", "g is missing"),
    ("rmsprop", "v = decay * v + (1 - decay) * g**2\nreturn w + learning_rate * g / np.sqrt(v + "
     "epsilon), v", "inside the root"),
    ("rmsprop", "v = decay * v + (1 - decay) * g**2\nreturn w - learning_rate * g / (np.sqrt(v) + "
     "epsilon), v, g", "expected (w, v), got a tuple of 3"),
    ("rmsprop", "if v == 0:\n    v = g**2\nreturn w, v", "use jnp.where"),
    ("adam", "m = beta1 * m + (1 - beta1) * g\nv = beta2 * v + (1 - beta2) * g**2\nreturn w - "
     "learning_rate * m / (np.sqrt(v) + epsilon), m, v", "bias correction of m is missing; the "
     "bias correction of v is missing"),
    ("adam", "m = beta1 * m + (1 - beta1) * g\nv = beta2 * v + (1 - beta2) * g**2\nm = m / (1 - "
     "beta1**t)\nv = v / (1 - beta2**t)\nreturn w - learning_rate * m / (np.sqrt(v) + epsilon), "
     "m, v", "corrected means are returned"),
    ("adam", "m = beta1 * m + (1 - beta1) * g\nv = beta2 * v + (1 - beta2) * g**2\nreturn w - "
     "learning_rate * m / (1 - beta1**t) / np.sqrt(v / (1 - beta2**t) + epsilon), m, v",
     "inside the root"),
    ("adam", "m = beta1 * m + (1 - beta1) * g\nv = beta2 * v + (1 - beta2) * g**2\nrate = "
     "learning_rate * np.sqrt(1 - beta2**t) / (1 - beta1**t)\nreturn w - rate * m / (np.sqrt(v) + "
     "epsilon), m, v", "before the correction"),
    ("adam", "m = beta1 * m + (1 - beta1) * g\nv = beta2 * v + (1 - beta2) * g**2\nt = t - 1\n"
     "return w - learning_rate * m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + epsilon), m, "
     "v", "from 0"),
    ("adam", "m = beta1 * m + (1 - beta1) * g\nv = beta2 * v + (1 - beta2) * g**2\nreturn w - "
     "learning_rate * m / (1 - beta1) / (np.sqrt(v / (1 - beta2)) + epsilon), m, v",
     "lacks the power t"),
    ("adam", "m = beta1 * m + (1 - beta1) * g\nv = beta2 * v + (1 - beta2) * g**2\nreturn w - "
     "learning_rate * g / (np.sqrt(v / (1 - beta2**t)) + epsilon), m, v", "g in place of m_hat"),
    ("adam", "m = beta1 * m + (1 - beta1) * g\nv = beta2 * v + (1 - beta2) * m**2\nreturn w - "
     "learning_rate * m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + epsilon), m, v",
     "square of m"),
    ("adam", "m = beta1 * m + g\nv = beta2 * v + (1 - beta2) * g**2\nreturn w - learning_rate * m "
     "/ (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + epsilon), m, v", "(1 - beta1) is missing"),
    ("adam", "m = beta1 * m + (1 - beta1) * g\nv = beta2 * v + (1 - beta2) * g**2\nnew = w - "
     "learning_rate * m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + epsilon)\nreturn new, "
     "v, m", "wrong order"),
    ("adam", "a = beta1 * m + (1 - beta1) * g\nb = beta2 * v + (1 - beta2) * g**2\nnew = w - "
     "learning_rate * a / (1 - beta1**t) / (np.sqrt(b / (1 - beta2**t)) + epsilon)\nreturn new, "
     "m, v", "returned as they came"),
    ("adam", "m = beta1 * m + (1 - beta1) * g\nv = beta2 * v + (1 - beta2) * g**2\nreturn w - "
     "learning_rate * m * (1 - beta1**t) / (np.sqrt(v * (1 - beta2**t)) + epsilon), m, v",
     "multiplies"),
    ("adam", "m = beta1 * m + (1 - beta1) * g\nv = beta2 * v + (1 - beta2) * g\nreturn w - "
     "learning_rate * m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + epsilon), m, v",
     "not squared"),
    ("adam", "m = beta1 * m + (1 - beta1) * g\nv = beta2 * v + (1 - beta2) * g**2\nreturn w - "
     "learning_rate * m / (1 - beta1**t) / (v / (1 - beta2**t) + epsilon), m, v", "root is missing"),
    ("adam", "m = beta2 * m + (1 - beta2) * g\nv = beta1 * v + (1 - beta1) * g**2\nreturn w - "
     "learning_rate * m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + epsilon), m, v",
     "beta1 and beta2 are exchanged"),
    ("gradient_check", "n = np.zeros_like(x)\nfor i in np.ndindex(x.shape):\n    e = np.zeros_like(x)\n"
     "    e[i] = h\n    n[i] = (f(x + e) - f(x)) / h\nd = np.abs(n - gradient).max()\nreturn n, d / "
     "max(np.abs(n).max(), np.abs(gradient).max())", "one-sided difference (f(x + h) - f(x))"),
    ("gradient_check", "n = np.zeros_like(x)\nfor i in np.ndindex(x.shape):\n    x[i] += h\n    a = f("
     "x)\n    x[i] -= h\n    n[i] = (a - f(x)) / (2 * h)\nd = np.abs(n - gradient).max()\nreturn n, d "
     "/ max(np.abs(n).max(), np.abs(gradient).max())", "must go back by 2 h"),
    ("gradient_check", "n = (f(x + h) - f(x - h)) / (2 * h)\nd = np.abs(n - gradient).max()\nreturn n, "
     "d / max(np.abs(n).max(), np.abs(gradient).max())", "expected the shape (2, 3), got ()"),
    ("gradient_check", "n = np.zeros_like(x)\nfor i in np.ndindex(x.shape):\n    n[i] = (f(x + h) - f(x "
     "- h)) / (2 * h)\nd = np.abs(n - gradient).max()\nreturn n, d / max(np.abs(n).max(), np.abs("
     "gradient).max())", "all elements move at once"),
    ("gradient_check", "n = np.zeros_like(x)\ne = np.zeros_like(x)\nfor i in np.ndindex(x.shape):\n    "
     "e[i] = h\n    n[i] = (f(x + e) - f(x - e)) / (2 * h)\nd = np.abs(n - gradient).max()\nreturn n, "
     "d / max(np.abs(n).max(), np.abs(gradient).max())", "moved before still stand aside"),
    ("gradient_check", "n = np.zeros_like(x)\nfor i in np.ndindex(x.shape):\n    e = np.zeros_like(x)\n"
     "    e[i] = h\n    n[i] = (f(x + e) - f(x - e)) / 2 * h\nd = np.abs(n - gradient).max()\nreturn n, "
     "d / max(np.abs(n).max(), np.abs(gradient).max())", "bracket around 2 * h"),
    ("gradient_check", "n = np.zeros_like(x)\nfor i in np.ndindex(x.shape):\n    e = np.zeros_like(x)\n"
     "    e[i] = h\n    n[i] = (f(x + e) - f(x - e)) / (2 * h)\nreturn n, np.linalg.norm(n - gradient) "
     "/ (np.linalg.norm(n) + np.linalg.norm(gradient))", "lengths of vectors"),
    ("gradient_check", "n = np.zeros_like(x)\nfor i in np.ndindex(x.shape):\n    e = np.zeros_like(x)\n"
     "    e[i] = h\n    n[i] = (f(x + e) - f(x - e)) / (2 * h)\nreturn n, np.abs(n - gradient).max()",
     "not divided by the size"),
    ("gradient_check", "n = np.zeros_like(x)\nfor i in range(len(x)):\n    e = np.zeros_like(x)\n    "
     "e[i] = h\n    n[i] = (f(x + e) - f(x - e)) / (2 * h)\nd = np.abs(n - gradient).max()\nreturn n, "
     "d / max(np.abs(n).max(), np.abs(gradient).max())", "a whole row moves at once"),
    ("gradient_check", "return gradient, 0.0", "numeric"),
    ("deviations", "h, kept = x, []\nfor w in weights:\n    h = h @ w\n    kept.append(h)\nd, back = "
     "d_out, []\nfor w, h in zip(weights[::-1], kept[::-1]):\n    d = (d * (h > 0)) @ w.T\n    "
     "back.append(d.std())\nreturn [h.std() for h in kept], back[::-1]", "ReLU is missing"),
    ("deviations", "h, kept = x, []\nfor w in weights:\n    h = np.where(h @ w > 0, h @ w, 0)\n    "
     "kept.append(h)\nd, back = d_out, []\nfor w in reversed(weights):\n    d = d @ w.T\n    "
     "back.append(d.std())\nreturn [h.std() for h in kept], back[::-1]", "where the ReLU was 0"),
    ("deviations", "h, kept = x, []\nfor w in weights:\n    h = np.maximum(h @ w, 0)\n    "
     "kept.append(h)\nd, back = d_out, []\nfor w, h in zip(weights[::-1], kept[::-1]):\n    d = (d * (h "
     "> 0)) @ w\n    back.append(d.std())\nreturn [h.std() for h in kept], back[::-1]", "through W^T"),
    ("deviations", "h, kept = x, []\nfor w in weights:\n    h = np.maximum(h @ w, 0)\n    "
     "kept.append(h)\nd, back = d_out, []\nfor w, h in zip(weights[::-1], kept[::-1]):\n    d = (d * (h "
     "> 0)) @ w.T\n    back.append(d.std())\nreturn [h.std() for h in kept], back", "in the order of"),
    ("deviations", "h, kept = x, []\nfor w in weights:\n    h = np.maximum(h @ w, 0)\n    "
     "kept.append(h)\nd, back = d_out, []\nfor w, h in zip(weights[::-1], kept[::-1]):\n    d = (d * (h "
     "> 0)) @ w.T\n    back.append(d.var())\nreturn [h.var() for h in kept], back[::-1]",
     "forward holds variances; the deviation is the root; backward holds variances"),
    ("deviations", "h, kept = x, []\nfor w in weights:\n    h = np.maximum(h @ w, 0)\n    "
     "kept.append(h)\nd, back = d_out, []\nfor w, h in zip(weights, kept):\n    d = (d * (h > 0)) @ "
     "w.T\n    back.append(d.std())\nreturn [h.std() for h in kept], back[::-1]", "begins with the last"),
    ("scores", "c = np.zeros((classes, classes))\nc[labels, predictions] += 1\nr = np.diag(c)\np = r / "
     "np.maximum(c.sum(0), 1)\nq = r / np.maximum(c.sum(1), 1)\nreturn c, r.sum() / c.sum(), p, q, 2 * p "
     "* q / np.where(p + q > 0, p + q, 1)", "+= 1 forgets repetitions"),
    ("scores", "c = np.zeros((classes, classes))\nnp.add.at(c, (predictions, labels), 1)\nr = "
     "np.diag(c)\np = r / np.maximum(c.sum(1), 1)\nq = r / np.maximum(c.sum(0), 1)\nreturn c, r.sum() / "
     "c.sum(), p, q, 2 * p * q / np.where(p + q > 0, p + q, 1)", "predictions as rows"),
    ("scores", "c = np.zeros((classes, classes))\nnp.add.at(c, (labels, predictions), 1)\nr = "
     "np.diag(c)\np = r / np.maximum(c.sum(1), 1)\nq = r / np.maximum(c.sum(0), 1)\nreturn c, r.sum() / "
     "c.sum(), p, q, 2 * p * q / np.where(p + q > 0, p + q, 1)", "precision and recall are exchanged"),
    ("scores", "c = np.zeros((classes, classes))\nnp.add.at(c, (labels, predictions), 1)\nr = "
     "np.diag(c)\np = r / np.maximum(c.sum(0), 1)\nq = r / np.maximum(c.sum(1), 1)\nreturn c, r.sum() / "
     "c.sum(), p, q, (p + q) / 2", "plain mean"),
    ("scores", "c = np.zeros((classes, classes))\nnp.add.at(c, (labels, predictions), 1)\nr = "
     "np.diag(c)\np = r / c.sum(0)\nq = r / np.maximum(c.sum(1), 1)\nreturn c, r.sum() / c.sum(), p, q, "
     "2 * p * q / np.where(p + q > 0, p + q, 1)", "never called"),
    ("scores", "c = np.zeros((classes, classes))\nnp.add.at(c, (labels, predictions), 1)\nr = "
     "np.diag(c)\np = r / np.maximum(c.sum(0), 1)\nq = r / np.maximum(c.sum(1), 1)\nreturn c, q.mean(), "
     "p, q, 2 * p * q / np.where(p + q > 0, p + q, 1)", "mean recall"),
    ("scores", "c = np.zeros((classes, classes))\nnp.add.at(c, (labels, predictions), 1)\nr = "
     "np.diag(c)\np = r / np.maximum(c.sum(0), 1)\nq = r / np.maximum(c.sum(1), 1)\nreturn c, r.sum() / "
     "c.sum(), p.mean(), q.mean(), 0", "expected the shape"),
    ("wmape_r2", "return np.mean(np.abs((y - p) / y)), 1 - np.mean((y - p) ** 2) / y.var()", "MAPE"),
    ("wmape_r2", "return abs(y - p).sum() / y.sum(), 1 - np.mean((y - p) ** 2) / y.var()", "below 0"),
    ("wmape_r2", "return abs(y - p).sum() / abs(y).sum(), np.corrcoef(y, p)[0, 1] ** 2", "squared corr"),
    ("wmape_r2", "return abs(y - p).sum() / abs(y).sum(), np.mean((y - p) ** 2) / y.var()", "lacks the 1"),
    ("wmape_r2", "return abs(y - p).sum() / abs(y).sum(), 1 - (y - p).var() / y.var()", "mean error is"),
    ("wmape_r2", "return abs(y - p).sum() / abs(p).sum(), 1 - np.mean((y - p) ** 2) / p.var()", "are exchanged"),
    ("wmape_r2", "return 100 * abs(y - p).sum() / abs(y).sum(), 1 - np.mean((y - p) ** 2) / y.var()",
     "in percent"),
    ("choose", "k = np.argmax(test.mean(1))\nreturn k, test[k].mean(), test.mean(1).max() - "
     "test[k].mean()", "chosen on the test set"),
    ("choose", "k = validation.sum(1).argmax()\nreturn k, validation[k].mean(), test.mean(1).max() - "
     "test[k].mean()", "on which the network was chosen"),
    ("choose", "k = validation.sum(1).argmax()\nreturn k, test[k].mean(), test[k].mean() - "
     "test.mean(1).max()", "sign of the optimism"),
    ("choose", "k = validation.sum(1).argmax()\nreturn k, test[k].sum(), test.sum(1).max() - "
     "test[k].sum()", "honest is a count"),
    ("choose", "k = validation.argmax()\nreturn k, 0, 0", "a place among all numbers"),
    ("choose", "k = validation.mean(0).argmax()\nreturn k, test[k].mean(), test.mean(1).max() - "
     "test[k].mean()", "over the networks"),
    ("parallel_gradient", "g, i = [], 0\nfor n in sizes:\n    a, b = x[i : i + n], y[i : i + n]\n    "
     "g.append((a @ w - b) @ a / n)\n    i += n\nreturn g, np.mean(g, axis=0)", "plain mean"),
    ("parallel_gradient", "g, i = [], 0\nfor n in sizes:\n    a, b = x[i : i + n], y[i : i + n]\n    "
     "g.append((a @ w - b) @ a)\n    i += n\nreturn g, np.sum(g, axis=0) / len(x)", "a sum, so"),
    ("parallel_gradient", "g, i = [], 0\nfor n in sizes:\n    a, b = x[i : i + n], y[i : i + n]\n    "
     "g.append((a @ w - b) @ a / n)\nreturn g, np.average(g, axis=0, weights=sizes)", "start must move"),
    ("parallel_gradient", "g, i = [], 0\nfor n in sizes:\n    a, b = x[i : i + n], y[i : i + n]\n    "
     "g.append((b - a @ w) @ a / n)\n    i += n\nreturn g, np.average(g, axis=0, weights=sizes)",
     "the sign"),
    ("parallel_gradient", "g, i = [], 0\nfor n in sizes:\n    a, b = x[i : i + n], y[i : i + n]\n    "
     "g.append((a @ w - b) @ a / n)\n    i += n\nreturn g, np.sum(g, axis=0)", "are added"),
    ("parallel_gradient", "g = x.T @ (x @ w - y) / len(x)\nreturn [g] * len(sizes), g", "parts"),
    ("peek", "z = []\nfor n in looks:\n    p, q = a.mean(), b.mean()\n    r = (p + q) / 2\n    z.append(("
     "p - q) / np.sqrt(2 * r * (1 - r) / n))\nreturn z, np.any(np.abs(z) > 1.96), abs(z[-1]) > 1.96",
     "shares are of all users"),
    ("peek", "z = []\nfor n in looks:\n    p, q = a[:n].mean(), b[:n].mean()\n    r = (p + q) / 2\n    "
     "z.append((p - q) / np.sqrt(r * (1 - r) / n))\nreturn z, np.any(np.abs(z) > 1.96), abs(z[-1]) > "
     "1.96", "the 2 is missing"),
    ("peek", "z = []\nfor n in looks:\n    p, q = a[:n].mean(), b[:n].mean()\n    r = (p + q) / 2\n    "
     "z.append((p - q) / np.sqrt(2 * r * (1 - r) / n))\nreturn z, max(z) > 1.96, abs(z[-1]) > 1.96",
     "a lead of A alone"),
    ("peek", "z = []\nfor n in looks:\n    p, q = a[:n].mean(), b[:n].mean()\n    r = (p + q) / 2\n    "
     "z.append((p - q) / np.sqrt(2 * r * (1 - r) / n))\nreturn z, min(np.abs(z)) > 1.96, abs(z[-1]) > "
     "1.96", "every look"),
    ("peek", "z = []\nfor n in looks:\n    p, q = a[:n].mean(), b[:n].mean()\n    z.append((p - q) / "
     "np.sqrt((p * (1 - p) + q * (1 - q)) / n))\nreturn z, max(np.abs(z)) > 1.96, abs(z[-1]) > 1.96",
     "both models share r"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "lines", "cause"), WRONG)
def test_a_wrong_answer_gets_its_cause_in_one_line(name, lines, cause):
    line = verdict_of(name, with_body(name, lines)).line
    assert line.startswith(f"{name}: FAILED: ") and cause in line
    assert "\n" not in line and len(line) <= 200


with (Path(__file__).parent / "wrong_answers.toml").open("rb") as file:
    TABLES = tomllib.load(file)
ANYTHING, SHEETS = (TABLES.pop(name)["wrong"] for name in ("anything", "sheets"))


def line_of(name, source):
    """The line that `exercise check` prints for a file."""
    try:
        _names, reason = exercises_in(source, "mine.py")
    except UserError as error:
        return str(error)
    return reason or verdict_of(name, source).line


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_mistakes_in_a_student_s_own_way_of_writing_are_named(name):
    right = TABLES[name]["right"]
    assert verdict_of(name, with_body(name, right)).passed
    wrong = []
    for *edits, cause in TABLES[name]["wrong"]:
        lines = right
        for old, new in zip(edits[::2], edits[1::2], strict=True):
            assert old in lines, old
            lines = lines.replace(old, new, 1)
        wrong.append((with_body(name, lines), cause))
    for instead, cause in ANYTHING:
        lines = re.sub(
            r"return (.*)\n$", lambda last, new=instead: new.replace("RESULTS", last[1]), right
        )
        wrong.append((with_body(name, lines), cause))
    body = with_body(name, right)
    wrong.append((body.replace(f"def {name}(", f"def {name}_(", 1), f"did you mean {name}?"))
    wrong.append((re.sub(r"\(.*\):\n", "(x):\n", body, count=1), "expected the arguments ("))
    for source, cause in wrong:
        line = line_of(name, source)
        assert cause in line and "\n" not in line and len(line) <= 200, (source, line)


def test_each_kind_of_exercise_has_fifty_wrong_answers():
    counts = {"numbers": len(SHEETS)}
    for name, table in TABLES.items():
        count = len(table["wrong"]) + sum(name == other for other, *_ in WRONG)
        counts[table["kind"]] = counts.get(table["kind"], len(ANYTHING) + 2) + count
    assert len(counts) == 10 and min(counts.values()) >= 50, counts


@pytest.mark.oracle
def test_the_right_numbers_are_those_of_scikit_learn_and_scipy():
    metrics: Any = pytest.importorskip("sklearn.metrics")
    chi_squared: Any = chi2_contingency  # scipy has no types.
    for case in cases_of("scores"):
        labels, predictions, classes = case.call.arguments.values()
        which = {"labels": range(classes), "zero_division": 0}
        assert np.array_equal(
            case.right["confusion"],
            metrics.confusion_matrix(labels, predictions, labels=range(classes)),
        )
        assert case.right["accuracy"] == metrics.accuracy_score(labels, predictions)
        found = metrics.precision_recall_fscore_support(labels, predictions, **which)
        for name, right in zip(("precision", "recall", "f1"), found, strict=False):
            np.testing.assert_allclose(case.right[name], right)
    for case in cases_of("wmape_r2"):
        y, p = case.call.arguments.values()
        np.testing.assert_allclose(case.right["r2"], metrics.r2_score(y, p))
        error = metrics.mean_absolute_error(y, p) / metrics.mean_absolute_error(y, 0 * y)
        np.testing.assert_allclose(case.right["wmape"], error)
    for case in cases_of("peek"):
        a, b, looks = case.call.arguments.values()
        tables = [[[x[:n].sum(), n - x[:n].sum()] for x in (a, b)] for n in looks]
        chi2 = [chi_squared(table, correction=False).statistic for table in tables]
        np.testing.assert_allclose(case.right["z"] ** 2, chi2, atol=1e-9)


@pytest.mark.slow
def test_tasks_are_graded_in_the_sandbox(tmp_path, bubblewrap):
    for name, task in TASKS.items():
        (tmp_path / f"{name}.py").write_text(task.solution)
    (tmp_path / "wrong.py").write_text(TASKS["adam"].solution.replace("**2", ""))
    rows = {row.name: row for row in grades_of(submissions_in(str(tmp_path)), Limits(), bubblewrap)}
    wrong = rows.pop("wrong")
    assert all(row.passed for row in rows.values()) and len(rows) == len(TASKS)
    assert not wrong.passed and "not squared" in wrong.reason


def test_a_task_is_written_checked_and_hinted(run_command, tmp_path):
    path = tmp_path / "mine.py"
    outcome = run_command("exercise", "new", "momentum", f"--output={path}")
    assert outcome.out.splitlines()[1].strip() == f"jaxnets exercise check {path}"
    source = path.read_text().replace("v_new = ...", "v_new = beta * v + g")
    path.write_text(source.replace("w_new = ...", "w_new = w + learning_rate * v_new"))
    outcome = run_command("exercise", "check", path, "--hint")
    assert outcome.status == 1
    assert outcome.out.startswith("momentum: FAILED: w: the step goes uphill;")
    assert "first wrong for w = [" in outcome.out and "learning_rate = 0.1" in outcome.out
    path.write_text(source.replace("w_new = ...", "w_new = w - learning_rate * v_new"))
    for judged in (("exercise", "check", path), ("gradcheck", f"--mine={path}")):
        outcome = run_command(*judged)
        assert (outcome.status, outcome.out) == (0, "momentum: passed\n")
    run_command("train", f"--mine={path}").assert_refused("backward pass of a layer, got momentum")


def test_the_judge_in_a_notebook_takes_a_task_and_speaks_chinese(monkeypatch):
    monkeypatch.setenv("LANGUAGE", "zh_CN")  # Whose language the judge speaks.

    def momentum(w, v, g, *, learning_rate, beta):
        v *= beta  # In place, which must not change the judge's arrays.
        v += g
        return w + learning_rate * v, v

    with speaking("zh"):
        line = judge.judge(momentum).line
        assert line.startswith("momentum：未通过：w：")
        assert _(TASKS["momentum"].causes[0].says) in line
