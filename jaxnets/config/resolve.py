"""Makes every Config: from what a user set, the recipes, another run, and the pictures.

Nothing here reads a file: what the folder of another run holds comes as a StoredRun.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Unpack

from jaxnets.base.errors import UserError
from jaxnets.config.adapt import learning_rate_note
from jaxnets.config.fields import CUSTOM_FIELDS, SINGLE_PROCESS, Config, process_conflicts
from jaxnets.config.options import checked, is_custom, name_of
from jaxnets.config.recipes import DEFAULT_MODEL, KERAS_RATES, NAMED, OWN, PRESETS, Recipe
from jaxnets.config.settings import Settings
from jaxnets.config.unknown import unknown_field, unknown_model

# These belong to the process, not to the run.
OF_THE_PROCESS = ("workdir", "resume", "overwrite")

FOLLOWS = ("track", "report")  # Observers, which change nothing in a run.

# What may change on resume: where and how the run works, not what it computes. Data and weights are
# compared by their SHA-256, so their paths may change; the number of epochs may only grow.
RESUME_MAY_CHANGE = (
    *OF_THE_PROCESS,
    *("epochs", "dataset", "data_dir", "init_from", "platform", "cpu_devices", "devices"),
    *("parallel", "test", "target_accuracy", "checkpoint_every", "keep"),
    *("early_stopping", "stop_at_target"),
    *FOLLOWS,
    *SINGLE_PROCESS,
)

# The fields that are younger than version 1.0.0, and what runs did before.
YOUNGER = {"test": True}

# The settings with which a run's weights were trained, and which they need again.
WITH_WEIGHTS = ("model", "layers", "hidden", "activation", "dropout", "input_size", "normalize")


class OwnNetwork(NamedTuple):
    """A network of the user's own, in place of a model's name; networks/own.py makes it."""

    name: str
    layers: list[dict[str, Any]]  # Its rows; before the data are known, those of ten classes.
    recipe: Recipe
    file: str | None  # As the user named it; None in Python.
    # (image_shape, num_classes) -> the same for these data.
    for_data: Callable[[tuple[int, ...], int], "OwnNetwork"]


class StoredRun(NamedTuple):
    """The part of another run that a Config needs: to resume it, or to take its weights."""

    path: str  # The folder.
    config: Config
    # Of a run to resume.
    finished: bool = False
    rules: Mapping[str, str] = {}  # What identifies its user's own rules.
    command: str = "train"  # The words of `jaxnets` that continue it.
    # Of a run that gives its weights.
    weights: str | None = None  # The file of its last checkpoint.
    image_side: int | None = None  # Pixels; the number of features of a table.

    def to_json(self) -> dict[str, Any]:
        return self._asdict() | {"config": dataclasses.asdict(self.config)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "StoredRun":
        return cls(**{**values, "config": config_from_json(values["config"])})


class Resolved(NamedTuple):
    """A Config, and the lines that say what is unusual about it."""

    config: Config
    notes: tuple[str, ...] = ()
    given: frozenset[str] = frozenset()  # The fields that count as set.


def check_process(given: Mapping[str, Any]) -> None:
    """Checks the fields that belong to the process, before the run and its network are known.

    Raises:
      UserError: One has the wrong type or is out of range, or some do not fit each other.
    """
    names = (*OF_THE_PROCESS, *SINGLE_PROCESS, "devices", "cpu_devices", "platform")
    fields = Config.__dataclass_fields__
    early = {name: checked(fields[name], given[name]) for name in names if name in given}
    if conflict := next(process_conflicts(early), None):
        raise UserError(*conflict.args)


def resolve(
    given: Mapping[str, Any],
    *,
    base: Config | None = None,
    resumed: StoredRun | None = None,
    weights: StoredRun | None = None,
) -> Resolved:
    """Makes a Config from the fields that a user set: once for a run, and again when it resumes.

    A resumed run keeps its own fields, except those that may change. A whole Config that is given
    keeps its own too. Any other gets the following, where each overrides the one before:

    1. the network's recipe, or its named one (config/recipes.py), whole;
    2. the fields that some of the user's fields bring with them (see `preset`);
    3. the settings of the run that gives its weights;
    4. the fields that the user set.

    The data are not known yet: runs/request.py then fits the network and the recipe to them.

    Args:
      given: Fields of Config.
      base: The user's own whole Config, whose fields count as set.
      resumed: The run that goes on.
      weights: The run that `init_from` names, if it names one.

    Raises:
      UserError: An unknown model or field, a value out of range, or one that may not change.
    """
    own, own_recipe = given.get("model"), Recipe()
    if isinstance(own, OwnNetwork):
        layers = {} if resumed is not None else {"layers": own.layers}
        given, own_recipe = {**given, "model": own.name, **layers}, own.recipe
    for name in given:
        if name not in Config.__dataclass_fields__:
            raise unknown_field(name, Config.__dataclass_fields__)
    if base is not None:
        given = {**vars(base), **given}
    if weights is not None:
        given = _with_weights(given, weights)
    if resumed is not None:
        return Resolved(_continued(given, resumed, own_recipe))
    if given.get("layers") is None:
        recipe = recipe_of(given.get("model", DEFAULT_MODEL), given.get("recipe"))
    else:
        recipe = {**OWN, **own_recipe}
    if base is not None:
        config = Config(**given)
    else:
        config = Config(**{**recipe, **_brought(recipe, given), **given})
        if "patience" in given and config.schedule != "plateau":  # Its default may be unused.
            raise UserError(
                "patience: expected schedule plateau with it, got {}; early_stopping={} ends "
                "training",
                config.schedule,
                config.patience,
            )
    note = learning_rate_note(config, recipe)
    return Resolved(config, (note,) if note else (), frozenset(given))


def as_plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a user set, for a file: the user's own network by its name and layers."""
    if isinstance(own := given.get("model"), OwnNetwork):
        given = {**own.recipe, **given, "model": own.name, "layers": own.layers}
    return {name: name_of(value) for name, value in given.items()}


def preset(model: str | OwnNetwork = DEFAULT_MODEL, **changes: Unpack[Settings]) -> Config:
    """Returns a network's own recipe, with some fields changed.

    Some fields bring others with them, unless these are among the changes too:

    - recipe="paper" is the paper's recipe, "fast" one for seconds; both replace the network's own.
    - optimizer, if it is not the recipe's: Keras's default learning rate, and no momentum.
    - limit: batches of at most that many images.
    - init_from, for an AlexNet: normalize="imagenet", as for torchvision's own training.

    Args:
      model: A key of PRESETS, or a network of the user's own.
      **changes: Fields of Config.

    Raises:
      UserError: An unknown model or field, or a value out of range.

    >>> preset("mlp", epochs=1).learning_rate
    0.1
    """
    return resolve({"model": model, **changes}).config


def recipe_of(model: str, name: str | None = None) -> Recipe:
    """A network's whole recipe: its own, or the one that has a name.

    Raises:
      UserError: No such network.
    """
    if not isinstance(model, str) or model not in PRESETS:
        raise unknown_model(str(model), PRESETS)
    recipe = NAMED.get(name or "", {}).get(model, PRESETS[model])
    return {"model": model, "optimizer": Config.optimizer, "batch_size": None} | recipe


def config_from_json(values: Mapping[str, Any]) -> Config:
    """The config of a run's config.json; a missing field's default could train something else."""
    names, values = set(Config.__dataclass_fields__), {**YOUNGER, **values}
    if missing := sorted(names - values.keys()):
        raise UserError("no {}: another version of jaxnets wrote it", ", ".join(missing))
    found: dict[str, Any] = {name: values[name] for name in values.keys() & names}
    try:
        return Config(**found)
    except (ValueError, TypeError, RecursionError) as error:  # A wrong type, or nested too deep.
        raise UserError("damaged: {}", error) from error


def _brought(recipe: Recipe, given: Mapping[str, Any]) -> Recipe:
    """The fields of a recipe that other fields bring with them (see `preset`)."""
    brought: Recipe = {}
    if given.get("init_from") is not None and "normalize" in recipe:
        brought["normalize"] = "imagenet"
    if (optimizer := given.get("optimizer", recipe["optimizer"])) != recipe["optimizer"]:
        brought |= dict(momentum=0.0, nesterov=False)
        if is_custom(optimizer):
            brought |= dict(learning_rate=KERAS_RATES["adam"], weight_decay=0.0)
        else:
            brought["learning_rate"] = KERAS_RATES.get(optimizer)
    size, limit = recipe["batch_size"], given.get("limit")
    if size and isinstance(limit, int):
        brought["batch_size"] = max(1, min(size, limit))
    return brought


def _with_weights(given: Mapping[str, Any], run: StoredRun) -> dict[str, Any]:
    """The user's fields over those of the run with the weights; init_from names their file."""
    if run.weights is None:
        raise UserError("init_from: expected a trained run, found no checkpoint in {}", run.path)
    theirs: dict[str, Any] = {}
    if given.get("model", run.config.model) == run.config.model:
        theirs |= {n: x for n in WITH_WEIGHTS if (x := getattr(run.config, n)) is not None}
    if run.image_side is not None:
        theirs["decode_size"] = run.image_side
    return {**theirs, **given, "init_from": run.weights}


def _continued(given: Mapping[str, Any], run: StoredRun, own_recipe: Recipe) -> Config:
    """An interrupted run's own config, with the changes that the user may make.

    The user's own functions, which no file holds, come from the recipe of the user's network.
    """
    began = dataclasses.asdict(run.config)
    if "layers" in given and given["layers"] != began["layers"]:
        raise UserError("resume: the layers of {} are not those of {}", given["model"], run.path)
    changed = [
        f"{name} was {began[name]}, got {ours}"
        for name, ours in given.items()
        if name not in RESUME_MAY_CHANGE and ours != began[name]
    ]
    epochs = run.config.epochs
    if given.get("epochs", epochs) < epochs:
        changed.append(f"epochs was {epochs}, got {given['epochs']} (it may only grow)")
    if changed:
        raise UserError("resume: expected the settings of {}: {}", run.path, "; ".join(changed))
    own = {"overwrite": False, "workdir": run.path}
    own |= {n: x for n, x in own_recipe.items() if n in CUSTOM_FIELDS and name_of(x) == began[n]}
    changes = {name: given[name] for name in RESUME_MAY_CHANGE if name in given}
    config = dataclasses.replace(run.config, **{**own, **changes})
    if run.finished:
        refuse_finished(run.path, epochs, config.epochs)
    return config


def refuse_finished(path: str, epochs: int, wanted: int) -> None:
    """Raises UserError unless more epochs are wanted than a finished run has."""
    if wanted <= epochs:
        raise UserError(
            "resume: expected an interrupted run, {} holds a finished one (epochs above {} "
            "continue it)",
            path,
            epochs,
        )
