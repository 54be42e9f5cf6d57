"""The shapes, arguments and numbers that each layer pair is tried on.

Normal numbers, integers that tie, constants that tie everywhere, and numbers that would overflow
an exponential. B = 1 and K = 1 are always among the shapes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnets.backprop.losses import LOG_OFFSET


class Setting(NamedTuple):
    """One call of a layer.

    Attributes:
      label: For the report.
      inputs: The layer's first arguments by name: float64 arrays, or dicts of them.
      constants: Its further arguments, which have no gradient.
      static: Its keywords.
      step: h of the central differences.
      ties: The inputs stand on kinks.
    """

    label: str
    inputs: dict[str, Any]
    constants: Sequence[np.ndarray] = ()
    static: Mapping[str, Any] = {}
    step: float = 1e-5
    ties: bool = False


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def _integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-2, 3, shape).astype(np.float64)


def _huge(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).choice([-1e4, -30.0, 0.0, 1e4], shape)


def _shares(*shape: int) -> np.ndarray:
    """Numbers that could be probabilities, none of them near 0."""
    return np.random.default_rng(0).uniform(0.1, 1.0, shape)


def _labels(batch: int, classes: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, classes, batch, dtype=np.int32)


def _one_hot(batch: int, classes: int) -> np.ndarray:
    return np.eye(classes)[_labels(batch, classes)]


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _of(x: np.ndarray, note: str = "", **rest: Any) -> Setting:
    """A setting whose only input is x."""
    return Setting(f"{_size(x.shape)} {note}".strip(), {"x": x}, **rest)


def elementwise() -> list[Setting]:
    """For activations that look at one number at a time."""
    return [
        _of(_normal(4, 5)),
        _of(_normal(1, 1)),
        _of(_normal(2, 3, 3, 2)),
        _of(_huge(4, 5), "huge", ties=True),
        _of(_integers(4, 5), "with zeros", ties=True),
    ]


def scores() -> list[Setting]:
    """For the softmax."""
    return [_of(x, note) for x, note in _scores()]


def _scores() -> list[tuple[np.ndarray, str]]:
    return [
        (_normal(4, 5), ""),
        (_normal(1, 3), ""),
        (_normal(3, 1), "one class"),
        (np.full((3, 4), 2.0), "all equal"),
        (_huge(5, 4), "huge"),
    ]


def scores_and_labels() -> list[Setting]:
    """For losses of logits that take labels, classes or probabilities."""
    classes = [_of(x, note, constants=[_labels(*x.shape)]) for x, note in _scores()]
    shares = _shares(4, 5)
    shares /= shares.sum(axis=1, keepdims=True)
    return [*classes, _of(_normal(4, 5), "soft labels", constants=[shares])]


def scores_and_one_hot() -> list[Setting]:
    """For the slides' softmax and cross-entropy in two steps, which huge scores would stop."""
    return [_of(x, note, constants=[_one_hot(*x.shape)]) for x, note in _scores()[:-1]]


def probabilities() -> list[Setting]:
    """For losses of probabilities."""
    shapes = [(4, 10), (1, 3), (3, 1)]
    return [_of(_shares(*shape), constants=[_one_hot(*shape)]) for shape in shapes]


def small_probabilities() -> list[Setting]:
    """The same, and probabilities so small that the slides' 1e-12 counts."""
    tiny = _of(
        LOG_OFFSET * _shares(4, 5), "near 0", constants=[_one_hot(4, 5)], step=1e-5 * LOG_OFFSET
    )
    return [*probabilities(), tiny]


def reductions() -> list[Setting]:
    """For the reduction of a batch's losses: some rows only fill the batch up."""
    masks = {"": np.ones(5), "two rows of padding": np.array([1.0, 1, 0, 1, 0])}
    settings = [
        _of(
            _normal(5),
            f"{reduction} {note}".strip(),
            constants=[mask],
            static=dict(reduction=reduction),
        )
        for reduction in ("mean", "sum")
        for note, mask in masks.items()
    ]
    return [
        *settings,
        _of(_normal(1), "mean", constants=[np.ones(1)], static={"reduction": "mean"}),
    ]


def dense() -> list[Setting]:
    """For the dense layer: (B, D, K), with and without a bias."""
    return [
        _with_params(_normal(batch, inputs), (inputs, outputs), biased, f"to {outputs}")
        for batch, inputs, outputs, biased in [
            (4, 5, 3, True),
            (6, 3, 7, True),
            (3, 4, 4, True),
            (1, 1, 1, True),
            (5, 6, 2, False),
        ]
    ]


def _with_params(
    x: np.ndarray, kernel: Sequence[int], biased: bool, note: str, **static: Any
) -> Setting:
    params = {"kernel": _normal(*kernel, seed=1)}
    if biased:
        params["bias"] = _normal(kernel[-1], seed=2)
    note = note if biased else f"{note} without bias"
    return Setting(f"{_size(x.shape)} {note}", {"params": params, "x": x}, static=static)


def dense_with_ones() -> list[Setting]:
    """For the dense layer with a column of ones: (B, D, K)."""
    return [
        _with_params(_normal(batch, inputs), (inputs + 1, outputs), False, f"to {outputs}")
        for batch, inputs, outputs in [(4, 5, 3), (3, 4, 5), (1, 1, 1)]
    ]


def images() -> list[Setting]:
    """For layers that take an image and no arguments."""
    return [_of(_normal(2, 3, 4, 5)), _of(_normal(1, 2)), _of(_normal(3, 2, 2, 1))]


def convolutions() -> list[Setting]:
    """For the convolution: any window, strides, padding, groups, with and without a bias."""
    one, two = (1, 1), (2, 2)
    return [
        _convolution((2, 5, 5, 2), (3, 3), 3),
        _convolution((1, 1, 1, 1), (1, 1), 1),
        _convolution((2, 7, 6, 2), (3, 2), 4, strides=(2, 3), padding="VALID"),
        _convolution((2, 6, 6, 2), (4, 3), 3, strides=one),
        _convolution((2, 8, 7, 9), (3, 4), 4, strides=two),
        _convolution((1, 6, 5, 3), (2, 3), 2, padding=((2, 1), (0, 3)), biased=False),
        _convolution((2, 8, 8, 5), (3, 3), 2, strides=(3, 3), padding="VALID"),
        _convolution((2, 5, 6, 4), (3, 2), 6, groups=2),
        _convolution((2, 7, 5, 18), (3, 3), 6, groups=2, strides=two),
        _convolution((2, 5, 5, 3), (2, 2), 3, groups=3, padding="VALID", biased=False),
        _convolution((1, 19, 19, 3), (11, 11), 4, strides=(4, 4), padding=(two, two)),
    ]


def _convolution(
    image, window, filters, *, strides=(1, 1), padding: Any = "SAME", groups=1, biased=True
) -> Setting:
    kernel = (*window, image[-1] // groups, filters)
    note = f"window {_size(window)} {_sliding(strides, padding)} to {filters}"
    note += f" in {groups} groups" if groups > 1 else ""
    static = {"strides": strides, "padding": padding, "groups": groups}
    return _with_params(_normal(*image), kernel, biased, note, **static)


def _sliding(strides: Sequence[int], padding: str | Sequence[Sequence[int]]) -> str:
    if not isinstance(padding, str):
        padding = " ".join(f"{low}+{high}" for low, high in padding)
    return f"strides {_size(strides)} padding {padding}"


def pools() -> list[Setting]:
    """For pools: tiles, overlaps, gaps, every padding."""
    return [
        _pool(_normal(2, 6, 4, 3), (2, 2), (2, 2)),
        _pool(_normal(1, 1, 1, 1), (1, 1), (1, 1)),
        _pool(_normal(2, 7, 7, 2), (3, 3), (2, 2)),
        _pool(_normal(2, 5, 6, 2), (3, 2), (1, 2), "SAME"),
        _pool(_normal(1, 8, 7, 2), (2, 2), (3, 3)),
        _pool(_normal(2, 4, 5, 1), (2, 3), (1, 1), ((1, 0), (1, 1))),
    ]


def pools_with_ties() -> list[Setting]:
    """The same, and images in which windows have several winners."""
    return [
        *pools(),
        _pool(_integers(2, 6, 4, 3), (2, 2), (2, 2), note="integers", ties=True),
        _pool(_integers(2, 7, 7, 2), (3, 3), (2, 2), note="integers", ties=True),
        _pool(np.ones((1, 5, 5, 2)), (3, 3), (2, 2), "SAME", note="all equal", ties=True),
    ]


def _pool(x, window, strides, padding: Any = "VALID", note="", **rest) -> Setting:
    text = f"window {_size(window)} {_sliding(strides, padding)} {note}".strip()
    static = {"window": window, "strides": strides, "padding": padding}
    return _of(x, text, static=static, **rest)


def adaptive_pools() -> list[Setting]:
    """For the adaptive average pool: smaller, the same, larger."""
    return [
        _of(_normal(2, *image, 3), f"to {_size(size)}", static={"output_size": size})
        for image, size in [((7, 5), (3, 2)), ((4, 4), (4, 4)), ((1, 1), (3, 3)), ((3, 2), (4, 3))]
    ]


def neighbourhoods() -> list[Setting]:
    """For local response normalisation: the paper's constants, and some that weigh more."""
    strong = {"k": 1.0, "alpha": 0.1, "beta": 0.5}
    return [
        _of(_normal(2, 3, 3, 7), "the paper's"),
        _of(_normal(4, 8), "strong", static=strong),
        _of(_normal(2, 2, 2, 6), "n = 4", static={**strong, "n": 4}),
        _of(_normal(3, 2), "n = 5 over 2 channels", static=strong),
        _of(_normal(1, 1, 1, 1), "strong", static=strong),
    ]


def batches() -> list[Setting]:
    """For batch normalisation."""
    return [
        Setting(
            f"{_size(shape)} epsilon {epsilon:g}",
            {
                "params": {"scale": _normal(shape[-1], seed=1), "bias": _normal(shape[-1], seed=2)},
                "x": 2 * _normal(*shape) + 1,
            },
            static={"epsilon": epsilon},
        )
        for shape, epsilon in [((9, 4), 1e-5), ((3, 2, 2, 3), 1e-5), ((5, 2), 0.1), ((6, 1), 1e-3)]
    ]


def dropouts() -> list[Setting]:
    """For dropout: from nothing to everything silenced."""
    return [
        _of(_normal(*shape), f"rate {rate:g}", static={"rate": rate})
        for shape, rate in [((6, 8), 0.5), ((2, 3, 3, 2), 0.1), ((5,), 0.0), ((4, 4), 1.0)]
    ]
