"""Reprs that show facts instead of arrays, and hints for wrong attribute names.

Loaded when an object is shown, or asked for an attribute that it lacks. Nothing here imports JAX.
"""

import dataclasses
import difflib
import html
from collections.abc import Callable, Iterable, Sequence
from typing import Any

NETWORK = 'jaxnets.Network("cnn")'
# Attributes that users of other libraries look for, and the ones that jaxnets has.
ANSWERS = {
    "fit": f"{NETWORK}.fit() trains",
    "evaluate": f"{NETWORK}.evaluate() tests",
    "predict": f"{NETWORK}.predict(pictures) gives probabilities",
    "summary": f"{NETWORK}.summary() prints the layers",
    "save": f"{NETWORK}.save(DIR) writes a run folder",
    "load": "jaxnets.load(DIR) reads a run folder",
    "compile": f'optimizer, loss and learning_rate are settings: {NETWORK[:-1]}, optimizer="adam")',
    "history": f"{NETWORK}.fit() returns it",
    "create_model": f"{NETWORK} makes a network",
    "load_data": 'jaxnets.load_dataset("mnist") loads a data set',
    "params": f"{NETWORK}.state.params has the parameters",
}
ANSWERS["__sklearn_tags__"] = 'jaxnets.Classifier("cnn") is an estimator of scikit-learn'
ANSWERS |= dict.fromkeys(("train", "Trainer", "train_on_batch"), ANSWERS["fit"])
ANSWERS |= dict.fromkeys(("test", "score"), ANSWERS["evaluate"])
ANSWERS |= dict.fromkeys(("predict_proba", "classify"), ANSWERS["predict"])
ANSWERS |= dict.fromkeys(("save_weights", "save_model", "to_file"), ANSWERS["save"])
ANSWERS |= dict.fromkeys(("load_model", "load_weights", "from_pretrained"), ANSWERS["load"])
ANSWERS |= dict.fromkeys(
    ("Model", "Sequential", "create_state", "model", "nn"), ANSWERS["create_model"]
)
ANSWERS |= dict.fromkeys(("layers", "count_params", "describe"), ANSWERS["summary"])
ANSWERS |= dict.fromkeys(("datasets", "mnist"), ANSWERS["load_data"])
ANSWERS |= dict.fromkeys(("weights", "get_weights", "state_dict", "parameters"), ANSWERS["params"])


def check(owner: str, name: str, known: Sequence[str] = ()) -> None:
    """Raises the error for an attribute that does not exist, if it is clear what is meant.

    >>> check("Chain", "summary")
    Traceback (most recent call last):
    AttributeError: Chain has no "summary"; jaxnets.Network("cnn").summary() prints the layers
    """
    if name in ANSWERS:
        raise AttributeError(f'{owner} has no "{name}"; {ANSWERS[name]}')
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.65):
        raise AttributeError(f'{owner} has no "{name}"; did you mean {near[0]}?')


def _size(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def _config(config: Any) -> dict[str, Any]:
    fields = dataclasses.fields(config)
    changed = [field.name for field in fields if getattr(config, field.name) != field.default]
    return {"model": config.model} | {name: getattr(config, name) for name in changed}


def _dataset(data: Any) -> dict[str, Any]:
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    classes = {} if data.is_regression else {"classes": data.num_classes}
    sizes = {name: len(part) for name, part in parts.items()}
    return {"name": data.name, "image": _size(data.image_shape)} | classes | sizes


def _state(state: Any) -> dict[str, Any]:
    return {"step": int(state.step), "parameters": _count(state.params)}


def _count(tree: Any) -> int:
    """The number of elements in a tree of dictionaries."""
    return sum(map(_count, tree.values())) if hasattr(tree, "values") else tree.size


def _chain(chain: Any) -> dict[str, Any]:
    kinds = [getattr(layer, "__name__", type(layer).__name__) for layer in chain.layers]
    names = [getattr(layer, "name", None) for layer in chain.layers]
    return {"layers": [name or kind for name, kind in zip(names, kinds, strict=True)]}


def _experiment(experiment: Any) -> dict[str, Any]:
    names = ("model", "epochs", "batch_size", "optimizer", "learning_rate", "loss", "gradients")
    own = {"data": experiment.data.name, "devices": len(experiment.parallel.devices)}
    return {name: getattr(experiment.config, name) for name in names} | own


def _network(network: Any) -> dict[str, Any]:
    done, config = len(network.history), network.config
    return {"model": config.model, "data": config.dataset, "epochs": f"{done} of {config.epochs}"}


def _metrics(metrics: Any) -> dict[str, Any]:
    return {"loss": metrics.loss, **metrics.scores, "examples": int(metrics.count)}


def _predictor(predictor: Any) -> dict[str, Any]:
    own = {"image": _size(predictor.image_shape), "classes": len(predictor.class_names)}
    return {"model": predictor.config.model, **own, "step": predictor.step}


# By the name of the class, which is not imported here.
FACTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "Config": _config,
    "Split": lambda split: {"images": len(split), "image": _size(split.images.shape[1:])},
    "Dataset": _dataset,
    "Chain": _chain,
    "TrainState": _state,
    "Experiment": _experiment,
    "Network": _network,
    "Metrics": _metrics,
    "RegressionMetrics": _metrics,
    "Predictor": _predictor,
}


def to_text(thing: Any) -> str:
    """The facts in one line; an object that cannot say them, as a tracer's, is only named."""
    try:
        facts = FACTS[type(thing).__name__](thing)
    except Exception:
        return object.__repr__(thing)
    return f"{type(thing).__name__}({', '.join(f'{n}={_show(x)}' for n, x in facts.items())})"


def to_html(thing: Any) -> str:
    """The facts as a table; names come from files, so that every text is escaped."""
    facts = FACTS[type(thing).__name__](thing)
    cells = [(name, html.escape(_show(value))) for name, value in facts.items()]
    rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in cells)
    table = f"<table><caption>{type(thing).__name__}</caption>{rows}</table>"
    confusion = getattr(thing, "confusion", None)
    return table if confusion is None else table + _matrix(confusion.tolist())


def _matrix(confusion: list[list[int]]) -> str:
    """The picture of a confusion matrix: a row for each label, a column for each prediction.

    A cell is blue on the diagonal and orange elsewhere; its strength is the root of its share of
    the row, so that few mistakes are seen. Up to 20 classes have their counts and numbers.
    """
    count = len(confusion)
    named, edge = count <= 20, 46
    cell = 34 if named else max(3, 600 // count)
    side, drawn = edge + cell * count + 6, []
    for row, counts in enumerate(confusion):
        middle = edge + cell * (row + 0.5)
        if named:
            drawn.append(f'<text x="{edge - 6}" y="{middle + 4}" text-anchor="end">{row}</text>')
            drawn.append(f'<text x="{middle}" y="{edge - 6}" text-anchor="middle">{row}</text>')
        for column, number in enumerate(counts):
            if number:
                x, strength = edge + cell * column, (number / sum(counts)) ** 0.5
                colour, ink = "#1f5fb0" if row == column else "#c44e00", strength > 0.7
                drawn.append(
                    f'<rect x="{x}" y="{edge + cell * row}" width="{cell - 1}" height="{cell - 1}" '
                    f'fill="{colour}" fill-opacity="{strength:.2f}"><title>label {row}, prediction '
                    f"{column}: {number}</title></rect>"
                )
                if named:
                    drawn.append(
                        f'<text x="{x + cell / 2}" y="{middle + 4}" text-anchor="middle" '
                        f'fill="{"#fff" if ink else "#222"}">{number}</text>'
                    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{side}" height="{side}" role="img" '
        f'viewBox="0 0 {side} {side}" style="background:#fff;max-width:100%;height:auto" '
        'font-family="sans-serif" font-size="11" fill="#222"><title>confusion matrix: rows are '
        f'labels, columns predictions</title><text x="{edge}" y="14">prediction</text>'
        f'<text transform="translate(14 {edge + 28}) rotate(-90)">label</text>'
        f"{''.join(drawn)}</svg>"
    )


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if type(value) is int else repr(value)
