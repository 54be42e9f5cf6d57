"""The arguments with which the functions to write are called, and their right results.

These come from optax, from autodiff, from differences, or from counting.
"""

from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnets.gradcheck.quick import precision

# Arguments, settings, results, and perhaps the source of functions among the arguments.
TaskCall = tuple[Any, ...]
STEPS = 4
EPSILON = 1e-3  # So large that its place in the formula shows.


def _steps(
    rule: optax.GradientTransformation, kept: Callable[[Any], list[Any]], names: str
) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """The steps of an optimizer from several starts: the arguments and the results.

    Args:
      rule: The optimizer, from optax.
      kept: Returns the arrays of optax's state that the step keeps.
      names: The arguments: the weights, the arrays that are kept, the gradient.
    """
    rng = np.random.default_rng(0)
    with precision("float64"):
        for shape in ((3,), (2, 3)):
            w = jnp.asarray(rng.normal(size=shape))
            state = rule.init(w)
            for _step in range(STEPS):
                g = rng.normal(size=shape)
                g.flat[0] = 0.0  # A weight without a gradient must not move, nor divide by 0.
                before = [w, *kept(state), g]
                update, state = rule.update(jnp.asarray(g), state, w)
                w = optax.apply_updates(w, update)
                after = [np.asarray(array) for array in (w, *kept(state))]
                given = map(np.asarray, before)
                yield dict(zip(names.split(), given, strict=True)), after


def _momentum() -> Iterator[TaskCall]:
    rule = optax.sgd(0.1, momentum=0.8)
    for given, after in _steps(rule, lambda state: [state[0].trace], "w v g"):
        yield given, {"learning_rate": 0.1, "beta": 0.8}, after


def _rmsprop() -> Iterator[TaskCall]:
    rule = optax.rmsprop(0.1, decay=0.7, eps=EPSILON, eps_in_sqrt=False)
    for given, after in _steps(rule, lambda state: [state[0].nu], "w v g"):
        yield given, {"learning_rate": 0.1, "decay": 0.7, "epsilon": EPSILON}, after


def _adam(weight_decay: float | None = None) -> Iterator[TaskCall]:
    rule: Any = optax.adam(0.1, b1=0.6, b2=0.7, eps=EPSILON)
    settings = {"learning_rate": 0.1, "beta1": 0.6, "beta2": 0.7, "epsilon": EPSILON}
    if weight_decay is not None:
        rule = optax.adamw(0.1, b1=0.6, b2=0.7, eps=EPSILON, weight_decay=weight_decay)
        settings["weight_decay"] = weight_decay
    steps = _steps(rule, lambda state: [state[0].mu, state[0].nu], "w m v g")
    for number, (given, after) in enumerate(steps):
        given["t"] = 1 + number % STEPS
        yield given, settings, after


# The central difference of x^3 is 3 x^2 + h^2, and that of (sum of x)^2 its derivative.
CUBIC = "def f(x):\n    return (x**3).sum() + x.sum() ** 2"


def _gradient_check() -> Iterator[TaskCall]:
    x = np.array([[0.5, -1.5, 1.25], [2.0, -0.75, -3.0]])
    right = 3 * x**2 + 2 * x.sum()
    one_off = right.copy()
    one_off[1, 1] -= 1.5
    for h, gradient in (
        (0.1, right),
        (0.01, -right),
        (0.1, 1.5 * right),
        (0.01, one_off),
        (0.001, np.zeros_like(x)),
        (0.1, -np.ones(3)),
    ):
        # Near 0 the largest slope is negative.
        at = x if gradient.shape == x.shape else np.array([-0.5, 0.25, -1.0]) / 4
        numeric = 3 * at**2 + h**2 + 2 * at.sum()
        largest = max(np.abs(numeric).max(), np.abs(gradient).max())
        error = np.abs(numeric - gradient).max() / largest
        yield {"x": at, "gradient": gradient, "h": h}, {}, [numeric, error], CUBIC


def _deviations() -> Iterator[TaskCall]:
    rng = np.random.default_rng(0)
    layers, n = 10, 30
    for sigma in (np.sqrt(2 / n), 0.1, 1.0):
        x, d_out = rng.normal(size=(2, 8, n))
        weights = sigma * rng.normal(size=(layers, n, n))
        with precision("float64"):

            def activations(added: list[Any], x: Any = x, weights: Any = weights) -> list[Any]:
                """The activations h_0 to h_L, each with something added to it."""
                found = [x + added[0]]
                for w, more in zip(weights, added[1:], strict=True):
                    found.append(jax.nn.relu(found[-1] @ w) + more)
                return found

            zeros = [jnp.zeros_like(x) for _layer in range(layers + 1)]
            found, pull_back = jax.vjp(activations, zeros)
            (gradients,) = pull_back([*zeros[:-1], jnp.asarray(d_out)])
            forward = [float(h.std()) for h in found[1:]]
            backward = [float(d.std()) for d in gradients[:-1]]
        yield {"x": x, "weights": weights, "d_out": d_out}, {}, [forward, backward]


def _scores() -> Iterator[TaskCall]:
    rng = np.random.default_rng(0)
    for classes, count in ((3, 20), (4, 9), (5, 40)):
        labels = rng.integers(0, classes - (classes == 4), count)  # One of 4 has no example,
        guesses = rng.integers(0, classes - (classes == 5), count)  # one of 5 is never called.
        predictions = np.where(rng.random(count) < 0.6, labels, guesses)
        predictions[0] = 0 if classes == 4 else predictions[0]
        predictions[predictions == 4] = 0
        pairs = list(zip(labels.tolist(), predictions.tolist(), strict=True))
        confusion = [[pairs.count((j, k)) for k in range(classes)] for j in range(classes)]
        right = [pairs.count((k, k)) for k in range(classes)]
        called = [max(1, predictions.tolist().count(k)) for k in range(classes)]
        there = [max(1, labels.tolist().count(k)) for k in range(classes)]
        precision_ = np.divide(right, called)
        recall = np.divide(right, there)
        # Twice the right ones, divided by all that are k or are called k.
        sums = np.add(np.sum(confusion, axis=0), np.sum(confusion, axis=1))
        f1 = np.divide(np.multiply(2, right), np.maximum(sums, 1))
        given = {"labels": labels, "predictions": predictions, "classes": classes}
        yield given, {}, [confusion, sum(right) / count, precision_, recall, f1]


def _wmape_r2() -> Iterator[TaskCall]:
    rng = np.random.default_rng(0)
    for count, shift in ((5, 0.0), (8, 1.0), (12, -3.0)):
        y = rng.normal(2, 3, count)
        p = 0.7 * y + shift + rng.normal(0, 1, count)
        wmape = sum(map(abs, y - p)) / sum(map(abs, y))
        yield {"y": y, "p": p}, {}, [wmape, 1 - np.mean(np.square(y - p)) / np.var(y)]


def _choose() -> Iterator[TaskCall]:
    rng = np.random.default_rng(3)
    for networks, images in ((40, 30), (20, 20), (12, 9)):
        validation, test = (rng.random((2, networks, images)) < 0.7).astype(float)
        right = [sum(row) for row in validation.tolist()]
        chosen = right.index(max(right))
        accuracies = [sum(row) / images for row in test.tolist()]
        honest = accuracies[chosen]
        yield (
            {"validation": validation, "test": test},
            {},
            [chosen, honest, max(accuracies) - honest],
        )


def _parallel_gradient() -> Iterator[TaskCall]:
    rng = np.random.default_rng(0)
    for sizes in ([4, 4], [5, 2, 1], [1, 6, 2, 3]):
        x, y, w = rng.normal(size=(sum(sizes), 3)), rng.normal(size=sum(sizes)), rng.normal(size=3)

        def gradient(x: np.ndarray, y: np.ndarray, w: np.ndarray = w) -> np.ndarray:
            """The differences of the mean loss, which are exact: it is a square."""
            ways = (w + np.eye(3), w - np.eye(3))
            up, down = (((x @ way.T - y[:, None]) ** 2 / 2).mean(axis=0) for way in ways)
            return (up - down) / 2

        ends = np.cumsum(sizes)[:-1]
        pieces = zip(np.split(x, ends), np.split(y, ends), strict=True)
        parts = [gradient(*piece) for piece in pieces]
        yield {"x": x, "y": y, "w": w, "sizes": sizes}, {}, [parts, gradient(x, y)]


def _peek() -> Iterator[TaskCall]:
    rng = np.random.default_rng(1)
    # Leads of both, at some looks, at all, only at the last, and at none.
    for a_right, b_right in 6 * [(0.3, 0.5), (0.7, 0.5), (0.5, 0.5), (0.6, 0.5), (0.5, 0.62)]:
        a, b = (rng.random(120) < a_right).astype(float), (rng.random(120) < b_right).astype(float)
        looks, z = [20, 50, 80, 110], []
        for n in looks:
            # The root of chi squared of the fourfold table.
            right_a, right_b = a[:n].sum(), b[:n].sum()
            wrong_a, wrong_b = n - right_a, n - right_b
            margins = n * n * (right_a + right_b) * (wrong_a + wrong_b)
            z.append((2 * n / margins) ** 0.5 * (right_a * wrong_b - right_b * wrong_a))
        alarms = [abs(one) > 1.96 for one in z]
        yield {"a": a, "b": b, "looks": looks}, {}, [z, any(alarms), alarms[-1]]


def _softmax_rows() -> Iterator[TaskCall]:
    rng = np.random.default_rng(0)
    for shape, scale in (((3, 3), 1), ((2, 4), 1), ((4, 4), 600)):
        s, dp = scale * rng.normal(size=shape), rng.normal(size=shape)
        with precision("float64"):
            p, pull_back = jax.vjp(jax.nn.softmax, jnp.asarray(s))
            results = [np.asarray(one) for one in (p, *pull_back(jnp.asarray(dp)))]
        yield {"s": s, "dp": dp}, {}, results


def _attention_scores() -> Iterator[TaskCall]:
    rng = np.random.default_rng(0)
    for tokens, features in ((3, 3), (4, 2), (2, 5)):
        q, k = rng.normal(size=(2, tokens, features))
        ds = rng.normal(size=(tokens, tokens))

        def scores(q: Any, k: Any, features: int = features) -> Any:
            return jnp.einsum("ic,jc->ij", q, k) * features**-0.5

        with precision("float64"):
            _s, pull_back = jax.vjp(scores, jnp.asarray(q), jnp.asarray(k))
            results = [np.asarray(one) for one in pull_back(jnp.asarray(ds))]
        yield {"q": q, "k": k, "ds": ds}, {}, results


def _attention() -> Iterator[TaskCall]:
    rng = np.random.default_rng(0)
    for tokens, features in ((3, 3), (4, 2), (2, 5)):
        q, k, v, d_out = rng.normal(size=(4, tokens, features))

        def attend(*qkv: Any) -> Any:
            """Flax's attention, with one example and one head."""
            return nn.dot_product_attention(*(one[None, :, None] for one in qkv))[0, :, 0]

        with precision("float64"):
            out, pull_back = jax.vjp(attend, *map(jnp.asarray, (q, k, v)))
            results = [np.asarray(one) for one in (out, *pull_back(jnp.asarray(d_out)))]
        yield {"q": q, "k": k, "v": v, "d_out": d_out}, {}, results


def _hessian_vector() -> Iterator[TaskCall]:
    rng = np.random.default_rng(0)
    for batch, features, classes in ((4, 3, 2), (2, 3, 3), (5, 2, 4)):
        x, y = rng.normal(size=(batch, features)), rng.dirichlet(np.ones(classes), batch)
        w, v = rng.normal(size=(2, features, classes))

        def loss(w: Any, x: Any = x, y: Any = y) -> Any:
            return optax.softmax_cross_entropy(x @ w, y).sum()

        with precision("float64"):
            pair = jax.jvp(jax.grad(loss), (jnp.asarray(w),), (jnp.asarray(v),))
            results = [np.asarray(one) for one in pair]
        yield {"x": x, "y": y, "w": w, "v": v}, {}, results


def _loop1() -> Iterator[TaskCall]:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4, 3)), rng.normal(size=(3, 5))
    kept = (rng.random((4, 5)) < 0.75).astype(float)
    h = np.clip(np.einsum("bd,dk->bk", x, w), 0, None)
    for training, right in ((True, np.where(kept == 1, h / 0.75, 0)), (False, h)):
        yield {"x": x, "w": w, "kept": kept}, {"rate": 0.25, "training": training}, [right]


def _loop2() -> Iterator[TaskCall]:
    rng = np.random.default_rng(0)
    for rows, classes in ((4, 3), (3, 10)):
        z, labels = rng.normal(0, 3, (rows, classes)), rng.integers(0, classes, rows)
        with precision("float64"):
            losses = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(z), labels)
            right = np.asarray(losses.mean())
        yield {"z": z, "labels": labels}, {}, [right]


# Each call of a case draws the first order, then the next ones.
SHUFFLE = """
def shuffle(a, rng=np.random.default_rng(5)):
    a = np.asarray(a)
    return a[rng.permutation(len(a))]
"""


def _loop3() -> Iterator[TaskCall]:
    rng = np.random.default_rng(0)
    for rows in (6, 9):
        x, y = rng.normal(size=(rows, 2)), rng.integers(0, 10, rows)
        order = np.random.default_rng(5).permutation(rows)
        pairs = [(x[i], y[i]) for i in order]
        yield {"x": x, "y": y}, {}, list(zip(*pairs, strict=True)), SHUFFLE


def _loop4() -> Iterator[TaskCall]:
    rng = np.random.default_rng(0)
    for steps in (1, 2, 5):
        w, gradients = rng.normal(size=3), rng.normal(size=(steps, 3))
        with precision("float64"):
            rule, moved = optax.sgd(0.1, momentum=0.9), jnp.asarray(w)
            state = rule.init(moved)
            for g in gradients:
                update, state = rule.update(jnp.asarray(g), state)
                moved = optax.apply_updates(moved, update)
        given = {"w": w, "gradients": gradients}
        yield given, {"learning_rate": 0.1, "beta": 0.9}, [np.asarray(moved)]


def _loop5() -> Iterator[TaskCall]:
    for validation, test, epoch in (
        ([0.88, 0.91, 0.90, 0.89], [0.87, 0.89, 0.912, 0.88], 1),
        ([0.70, 0.74, 0.79, 0.80, 0.78], [0.72, 0.79, 0.77, 0.76, 0.70], 3),
        ([0.60, 0.50, 0.55], [0.50, 0.63, 0.59], 0),
    ):
        given = {"validation": np.array(validation), "test": np.array(test)}
        yield given, {}, [epoch, test[epoch]]


def _loop6() -> Iterator[TaskCall]:
    rng = np.random.default_rng(0)
    for classes in (12, 10, 20):
        logits, labels = rng.normal(size=(classes, classes)), rng.integers(0, classes, classes)
        logits[range(classes), labels] += 0.5
        rows = zip(logits.tolist(), labels.tolist(), strict=True)
        yield {"logits": logits, "labels": labels}, {}, [np.mean([r[y] == max(r) for r, y in rows])]


# By the names of the exercises.
CALLS: dict[str, Callable[[], Iterator[TaskCall]]] = {
    "momentum": _momentum,
    "rmsprop": _rmsprop,
    "adam": _adam,
    "adamw": lambda: _adam(weight_decay=0.3),
    "gradient_check": _gradient_check,
    "deviations": _deviations,
    "scores": _scores,
    "wmape_r2": _wmape_r2,
    "choose": _choose,
    "parallel_gradient": _parallel_gradient,
    "peek": _peek,
    "softmax_rows": _softmax_rows,
    "attention_scores": _attention_scores,
    "attention": _attention,
    "hessian_vector": _hessian_vector,
    "loop1": _loop1,
    "loop2": _loop2,
    "loop3": _loop3,
    "loop4": _loop4,
    "loop5": _loop5,
    "loop6": _loop6,
}
