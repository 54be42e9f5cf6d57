"""One frozen Config, which a network's recipe fills; flags.py makes flags of its fields.

Nothing here imports jax, so that `--help` and a wrong flag answer at once.
"""

import dataclasses
import os
import re
import typing
from pathlib import Path
from typing import Any

from jaxnets.config.recipes import DEFAULT_MODEL, LARGE_ALEXNETS, MODEL_FIELDS, PAPER, PRESETS
from jaxnets.errors import UserError, unknown


def _field(default: Any, group: str, why: str, *, low=None, high=None, choices=None):
    """A field of Config: its default, where --help shows it, what it is for, what it may be."""
    metadata = {"group": group, "why": why, "low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


NO_PLATEAU = "schedule: plateau watches the validation error, but no images are held back"
PATHS = ("dataset", "data_dir", "init_from", "workdir")
MAX_LAYERS = 100  # And sizes to search: a config.json may be anybody's.
# What --augment may name: training/augment.py does it; shift with the draws of data/batches.py.
AUGMENTATIONS = ("none", "shift", "crop", "flip", "colour", "pca", "cutout", "mixup")

# The fields that say with whom a process trains, as they are of one by itself.
SINGLE_PROCESS = {
    "distributed": False,
    "coordinator": None,
    "num_processes": None,
    "process_id": None,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that a run depends on.

    Use `preset(model, **changes)` to start from the lecture's recipe. Values out of range raise
    UserError (a ValueError) that says what was wanted and what came.
    """

    model: str = _field("cnn", "network", "which network of the lecture")
    recipe: str | None = _field(
        None, "network", "instead of the model's defaults: the 2012 paper's own, for the alexnets",
        choices=("paper",),
    )  # fmt: skip
    hidden: tuple[int, ...] | None = _field(
        None, "network", "units of the hidden dense layers, as 64,64", low=1, high=65536
    )
    activation: str | None = _field(
        None, "network", "of the hidden dense layers", choices=("relu", "sigmoid", "softmax")
    )
    dropout: float | None = _field(
        None, "network", "share of units dropped before dense layers", low=0.0, high=0.95
    )
    input_size: int | None = _field(
        None, "network", "pixels a side to which alexnet enlarges or crops images (none: as is)",
        low=15, high=1024,
    )  # fmt: skip
    init: str | None = _field(
        None, "network", "first weights of an alexnet: He et al. 2015, or N(0, 0.01) and biases 1",
        choices=("he", "paper"),
    )  # fmt: skip
    init_from: str | None = _field(
        None, "network", "first weights of an alexnet: a .safetensors file named as torchvision's"
    )
    normalize: str | None = _field(
        None, "network", "pixels by ImageNet's mean and deviation, or to bytes minus that mean",
        choices=("none", "imagenet", "paper"),
    )  # fmt: skip

    latent_dims: tuple[int, ...] | None = _field(
        None, "network", "hidden sizes to search first, as the slides do; not with hidden",
        low=1, high=65536,
    )  # fmt: skip
    search_epochs: int = _field(
        20, "network", "full-batch steps that each of them is given", low=1, high=10**6
    )
    replay_seeds: int = _field(
        1, "network", "seeds with which to repeat search and training, for their spread",
        low=1, high=1000,
    )  # fmt: skip

    dataset: str = _field(
        "mnist", "data",
        "mnist, fashion_mnist, kmnist, cifar10, cifar100, one prepared by TensorFlow Datasets, or "
        "a folder of pictures (docs/datasets.md)",
    )  # fmt: skip
    data_dir: str | None = _field(
        None, "data",
        "where the data set's files lie; with mnist, a folder of any four IDX files instead",
    )  # fmt: skip
    validation_size: int | None = _field(
        None, "data", "images held back from training (default: 5000, at most a tenth)",
        low=0, high=10**7,
    )  # fmt: skip
    decode_size: int | None = _field(
        None, "data",
        "side in pixels of pictures (default: their own if small and equal, "
        "else 8/7 of input_size, else 64)",
        low=4, high=2048,
    )  # fmt: skip
    on_bad_image: str = _field(
        "skip", "data", "a picture that cannot be decoded is told and left out, or ends the run",
        choices=("skip", "fail"),
    )  # fmt: skip
    augment: str = _field(
        "none",
        "data",
        "changes training images at random: shift (by up to 2 pixels), crop, flip, "
        "colour, pca, cutout, mixup, or several as crop,flip",
    )
    ten_crop: bool = _field(
        False, "data", "test on corners, centre and their mirrors of images above input_size"
    )

    epochs: int = _field(10, "training", "passes over the training images", low=1, high=10**6)
    batch_size: int | None = _field(
        128, "training", "images a step, or full for all of them", low=1, high=10**7
    )
    optimizer: str = _field(
        "sgd", "training", "update rule (adam decouples its weight decay)",
        choices=("sgd", "rmsprop", "adam"),
    )  # fmt: skip
    learning_rate: float = _field(0.1, "training", "its peak", low=1e-12, high=1e4)
    schedule: str = _field(
        "constant", "training", "how the learning rate goes on",
        choices=("constant", "cosine", "one_cycle", "step", "plateau"),
    )  # fmt: skip
    patience: int = _field(
        5, "training", "epochs without a lower validation error, with schedule=plateau", low=1,
        high=10**6,
    )  # fmt: skip
    momentum: float = _field(0.0, "training", "of sgd", low=0.0, high=0.9999)
    nesterov: bool = _field(False, "training", "look ahead with the momentum of sgd")
    weight_decay: float = _field(0.0, "training", "times the parameters", low=0.0, high=1.0)
    loss: str = _field(
        "cross_entropy", "training", "mse: Keras' mean over samples and outputs; half_mse: 1/(2K)",
        choices=("cross_entropy", "mse", "half_mse"),
    )  # fmt: skip
    reduction: str = _field(
        "mean", "training", "of the gradient over a batch (the lecture's own code sums)",
        choices=("mean", "sum"),
    )  # fmt: skip
    gradients: str = _field(
        "auto", "training", "by jax.grad, by hand, or by hand and checked against jax.grad",
        choices=("auto", "manual", "both"),
    )  # fmt: skip
    check_every: int = _field(
        100, "training", "steps from one check to the next, with gradients=both", low=1, high=10**9
    )
    gradient_tolerance: float | None = _field(
        None, "training", "relative error that ends the run (default: by precision)",
        low=0.0, high=1.0,
    )  # fmt: skip
    seed: int = _field(0, "training", "of parameters, order, dropout", low=0, high=2**31 - 1)

    platform: str | None = _field(
        None, "machine", "what must be there to train on (default: what JAX finds)",
        choices=("cpu", "gpu", "tpu"),
    )  # fmt: skip
    cpu_devices: int | None = _field(
        None, "machine", "devices that the CPU simulates (default: none)", low=1, high=256
    )
    devices: int | None = _field(
        None, "machine", "how many to use (default: all; a CPU counts as one, or as N)",
        low=1, high=4096,
    )  # fmt: skip
    parallel: str = _field(
        "auto", "machine", "over devices (auto: jit on one, pmap on several)",
        choices=("auto", "jit", "pmap"),
    )  # fmt: skip
    distributed: bool = _field(
        False, "machine", "one process of several, as JAX finds it: TPU pod, SLURM, Open MPI, "
        "Kubernetes",
    )  # fmt: skip
    coordinator: str | None = _field(
        None, "machine", "HOST:PORT of process 0, where JAX finds nothing (docs/several-hosts.md)"
    )
    num_processes: int | None = _field(
        None, "machine", "how many run this command, with coordinator", low=1, high=65536
    )
    process_id: int | None = _field(
        None, "machine", "which of them this is, from 0, with coordinator", low=0, high=65535
    )
    precision: str = _field(
        "float32", "machine", "of the arithmetic; bfloat16 keeps float32 parameters, mixed also "
        "the last layer",
        choices=("float32", "bfloat16", "mixed", "float64"),
    )  # fmt: skip

    log_format: str = _field(
        "plain", "run", "lecture: the lines that the slides print", choices=("plain", "lecture")
    )
    workdir: str | None = _field(
        None, "run", "the run folder (default: runs/<model>-<date>-<time>)"
    )
    overwrite: bool = _field(False, "run", "replace the run that workdir holds")
    resume: bool = _field(False, "run", "go on with workdir's run, by default the model's newest")
    checkpoint_every: str = _field(
        "10seconds", "run", "steps, epochs, seconds or minutes from one to the next, as 500steps"
    )
    keep: int = _field(
        2, "run", "the last checkpoints to keep; of those saved after an epoch the best stays too",
        low=1, high=10**6,
    )  # fmt: skip
    target_accuracy: float | None = _field(
        None, "run", "exit status 1 if the test accuracy ends below it", low=0.0, high=1.0
    )

    def __post_init__(self):
        if self.model not in PRESETS:
            raise unknown("model", self.model, PRESETS)
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        self._check_pictures()
        _ = self.checkpoint_interval
        for name in MODEL_FIELDS:
            if getattr(self, name) is not None and name not in PRESETS[self.model]:
                owners = [key for key, recipe in PRESETS.items() if name in recipe]
                raise UserError(f"{name}: {self.model} has none (that is of {', '.join(owners)})")
        if self.model in LARGE_ALEXNETS and (self.input_size or 0) < 63:
            raise UserError(
                f"input_size: expected a whole number from 63 to 1024 for {self.model}, "
                f"got {self.input_size}"
            )
        if self.schedule == "plateau" and (self.validation_size == 0 or self.latent_dims):
            raise UserError(NO_PLATEAU)
        if self.model in ("cnn", "mlp_handwritten") and len(self.hidden or ()) != 1:
            raise UserError(f"hidden: {self.model} has one hidden layer, got {self.hidden}")
        if self.replay_seeds > 1 and PRESETS[self.model].get("latent_dims") is None:
            raise UserError(f"replay_seeds: {self.model} has no search to repeat")
        if self.optimizer != "sgd" and (self.momentum or self.nesterov):
            raise UserError(f"momentum and nesterov belong to sgd, got optimizer {self.optimizer}")
        if self.nesterov and not self.momentum:
            raise UserError("nesterov: expected a momentum above 0, got 0")
        if self.cpu_devices is not None and self.platform not in (None, "cpu"):
            raise UserError(f"cpu_devices: expected platform cpu, got {self.platform}")
        if self.resume and self.overwrite:
            raise UserError("resume and overwrite exclude each other, got both")
        self._check_processes()

    def _check_pictures(self) -> None:
        names = self.augment.split(",")
        for name in names:
            if name not in AUGMENTATIONS:
                raise unknown("augment", name, AUGMENTATIONS)
        if len(set(names)) < len(names) or ("none" in names and len(names) > 1):
            raise UserError(f"augment: expected each name once, none alone, got {self.augment}")
        if self.ten_crop and self.input_size is None:
            raise UserError(f"ten_crop: {self.model} has no input_size to crop to")

    def _check_processes(self) -> None:
        place = (self.coordinator, self.num_processes, self.process_id)
        if self.distributed and self.coordinator is not None:
            raise UserError("distributed and coordinator exclude each other, got both")
        if place == (None, None, None):
            return
        for name, value in zip(("coordinator", "num_processes", "process_id"), place, strict=True):
            if value is None:
                raise UserError(
                    f"{name}: expected with coordinator, num_processes and process_id, got none"
                )
        if not re.fullmatch(r"(\[[^\]]+\]|[^:/\s]+):[1-9]\d{0,4}", str(self.coordinator)):
            raise UserError(f"coordinator: expected HOST:PORT, got {self.coordinator!r}")
        if self.replay_seeds > 1:
            raise UserError(f"replay_seeds: expected 1 with coordinator, got {self.replay_seeds}")
        count, index = self.num_processes or 0, self.process_id or 0
        if index >= count:
            raise UserError(
                f"process_id: expected a whole number from 0 to {count - 1} for num_processes "
                f"{count}, got {index}"
            )

    @property
    def is_distributed(self) -> bool:
        """Whether the run is one process of several."""
        return self.distributed or self.coordinator is not None

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The names in augment."""
        return tuple(name for name in self.augment.split(",") if name != "none")

    @property
    def checkpoint_interval(self) -> tuple[int, str]:
        """The number and the unit in checkpoint_every: steps, epochs or seconds."""
        found = re.fullmatch(r"([1-9]\d{0,8})(step|epoch|second|minute)s?", self.checkpoint_every)
        if found is None:
            raise UserError(
                "checkpoint_every: expected a number and a unit as 500steps, 2epochs, 30seconds "
                f"or 10minutes, got {self.checkpoint_every!r}"
            )
        number, unit = int(found[1]), found[2]
        return (60 * number, "seconds") if unit == "minute" else (number, f"{unit}s")


def preset(model: str = DEFAULT_MODEL, **changes: Any) -> Config:
    """Returns a network's own recipe, with some fields changed.

    Another optimizer than the recipe's starts from Keras' default rate for it, without momentum;
    with a hidden size of one's own nothing is searched; with init_from, whose weights were trained
    on ImageNet's pixels normalised, normalize is "imagenet". recipe="paper" comes before all these.

    Args:
      model: A key of PRESETS.
      **changes: Fields of Config.

    Raises:
      UserError: An unknown model or field, or a value out of range.

    >>> preset("mlp", epochs=1).learning_rate
    0.1
    """
    if model not in PRESETS:
        raise unknown("model", model, PRESETS)
    names = [field.name for field in dataclasses.fields(Config)]
    for name in changes:
        if name not in names:
            raise unknown("field", name, names)
    recipe = dict(PRESETS[model])
    if changes.get("recipe") == "paper" and "recipe" in recipe:
        recipe |= PAPER
    if changes.get("init_from") is not None and "init_from" in recipe:
        recipe["normalize"] = "imagenet"
    if changes.get("optimizer", recipe.get("optimizer", "sgd")) != recipe.get("optimizer", "sgd"):
        # Another update rule needs another rate: Keras' default for it, not this recipe's.
        recipe |= {"momentum": 0.0, "nesterov": False}
        recipe["learning_rate"] = 0.01 if changes["optimizer"] == "sgd" else 0.001
    if "hidden" in changes:
        for name in ("latent_dims", "replay_seeds"):
            if name in changes:
                raise UserError(f"hidden and {name} exclude each other, got both")
        recipe["latent_dims"] = None
    return Config(**{"model": model, **recipe, **changes})


def _check(field: dataclasses.Field, value: Any) -> None:
    """Raises UserError if a field's value has the wrong type or is out of its range."""
    low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
    if value is None and type(None) in typing.get_args(field.type):
        return
    if choices is not None and value not in choices:
        raise unknown(field.name, str(value), choices)
    kind = kind_of(field)
    values = value if kind is tuple else (value,)
    element = int if kind is tuple else kind
    if not isinstance(values, tuple) or not values:
        raise UserError(f"{field.name}: expected numbers as 64,64, got {value!r}")
    if len(values) > MAX_LAYERS:
        raise UserError(f"{field.name}: expected at most {MAX_LAYERS} numbers, got {len(values)}")
    if field.name in PATHS and not _is_path(value):
        raise UserError(f"{field.name}: expected a path or a name, got {value!r}")
    number: Any
    for number in values:
        fits = isinstance(number, (int, float) if element is float else element)
        if not fits or (isinstance(number, bool) and element is not bool):
            raise UserError(f"{field.name}: expected {TYPE_NAMES[element]}, got {number!r}")
        if element in (int, float) and not low <= number <= high:  # Of NaN neither is true.
            raise UserError(
                f"{field.name}: expected {TYPE_NAMES[element]} from {low} to {high}, got {number}"
            )


def _is_path(value: Any) -> bool:
    """Whether a text may name a file; one of config.json, which may be anybody's, may not."""
    try:
        return b"\0" not in os.fsencode(Path(value).expanduser())
    except (TypeError, ValueError, RuntimeError):  # No text; not Unicode; ~ of nobody.
        return False


TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def kind_of(field: dataclasses.Field) -> type:
    """The type of a field, None aside: int, float, bool, str or tuple."""
    kinds = [kind for kind in typing.get_args(field.type) if kind is not type(None)]
    kind = kinds[0] if type(None) in typing.get_args(field.type) else field.type
    return typing.get_origin(kind) or typing.cast(type, kind)


def to_json(config: Config) -> dict[str, Any]:
    """Every field, as JSON holds it."""
    return dataclasses.asdict(config)


def from_json(values: dict[str, Any]) -> Config:
    """The inverse of to_json."""
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return Config(**{**values, **lists})
