"""One frozen Config, which a network's recipe fills; cli/flags.py makes flags of its fields.

Nothing here imports jax, so that `--help` and a wrong flag answer at once.
"""

import dataclasses
import functools
import re
from typing import Any

from jaxnets.config.options import Options, option
from jaxnets.config.recipes import DEFAULT_MODEL, LARGE_ALEXNETS, MODEL_FIELDS, PAPER, PRESETS
from jaxnets.errors import UserError, unknown

NO_PLATEAU = "schedule: plateau watches the validation error, but no images are held back"
# The names of --augment (training/augmentations.py; shift: data/batches.py).
AUGMENTATIONS = ("none", "shift", "crop", "flip", "colour", "pca", "cutout", "mixup")

# Keras' default learning rates, for an optimizer that is not the recipe's.
KERAS_RATES = {"sgd": 0.01, "rmsprop": 0.001, "adam": 0.001}

# The fields that describe the processes of a run, as they are for a single process.
SINGLE_PROCESS = {
    "distributed": False,
    "coordinator": None,
    "num_processes": None,
    "process_id": None,
}

_network = functools.partial(option, group="network")
_data = functools.partial(option, group="data")
_training = functools.partial(option, group="training")
_machine = functools.partial(option, group="machine")
_run = functools.partial(option, group="run")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Everything that a run depends on.

    Use `preset(model, **changes)` to start from the lecture's recipe. Values out of range raise
    UserError (a ValueError) that says what was expected and what came.
    """

    model: str = _network("cnn", "network to train", tuple(PRESETS))
    recipe: str | None = _network(
        None, "paper: train an AlexNet as its paper of 2012 did", ("paper",), unset="our recipe"
    )
    hidden: tuple[int, ...] | None = _network(
        None, "numbers of units of the hidden dense layers, as 64,64", (1, 65536)
    )
    activation: str | None = _network(
        None, "activation of the hidden dense layers", ("relu", "sigmoid", "softmax")
    )
    dropout: float | None = _network(
        None, "fraction of units dropped before the dense layers", (0.0, 0.95)
    )
    input_size: int | None = _network(
        None, "side in pixels to which images are resized or cropped", (15, 1024), unset="no change"
    )
    init: str | None = _network(
        None,
        "initial weights: He et al. 2015, or the paper's N(0, 0.01)",
        ("he", "paper"),
    )
    init_from: str | None = _network(
        None, "file with initial weights, named as in torchvision", metavar="FILE.safetensors"
    )
    normalize: str | None = _network(
        None,
        "pixel normalization: imagenet subtracts ImageNet's mean and divides by its standard "
        "deviation, paper subtracts that mean from bytes",
        ("none", "imagenet", "paper"),
    )
    latent_dims: tuple[int, ...] | None = _network(
        None, "hidden sizes to compare first, as on the slides; not with hidden", (1, 65536)
    )
    search_epochs: int = _network(20, "full-batch steps for each size in latent_dims", (1, 10**6))
    replay_seeds: int = _network(
        1, "number of seeds for which search and training are repeated", (1, 1000)
    )

    dataset: str = _data(
        "mnist",
        "data set: mnist, fashion_mnist, kmnist, cifar10, cifar100, a set prepared by TensorFlow "
        "Datasets, or a folder of pictures (docs/datasets.md)",
        metavar="NAME|FOLDER",
    )
    data_dir: str | None = _data(
        None,
        "folder with the data set's files; with mnist, any folder of four IDX files",
        metavar="FOLDER",
        unset="the package or the cache",
    )
    validation_size: int | None = _data(
        None, "number of training images held out", (0, 10**7), unset="5000, at most a tenth"
    )
    decode_size: int | None = _data(
        None,
        "side in pixels to which the pictures of a folder are scaled",
        (4, 2048),
        unset="their own if small and equal, else 8/7 of input_size, else 64",
    )
    on_bad_image: str = _data(
        "skip", "what to do if a picture cannot be decoded: report it, or end", ("skip", "fail")
    )
    augment: str = _data(
        "none",
        "random changes of the training images: shift (by up to 2 pixels), crop, flip, colour, "
        "pca, cutout, mixup, or several as crop,flip",
        metavar="NAME,...",
    )
    ten_crop: bool = _data(
        False, "test on ten crops of larger images: corners, centre, and their mirror images"
    )

    epochs: int = _training(10, "passes over the training images", (1, 10**6))
    batch_size: int | None = _training(
        128, "images in a training step, or full for all of them", (1, 10**7), none="full"
    )
    optimizer: str = _training(
        "sgd",
        "update rule; another than the recipe's starts with Keras' default learning rate (sgd "
        "0.01, rmsprop and adam 0.001) and without momentum",
        ("sgd", "rmsprop", "adam"),
    )
    learning_rate: float = _training(0.1, "peak learning rate", (1e-12, 1e4))
    schedule: str = _training(
        "constant",
        "how the learning rate changes during training",
        ("constant", "cosine", "one_cycle", "step", "plateau"),
    )
    patience: int = _training(
        5, "epochs without a lower validation error until schedule=plateau acts", (1, 10**6)
    )
    momentum: float = _training(0.0, "momentum of the sgd optimizer", (0.0, 0.9999))
    nesterov: bool = _training(False, "use Nesterov momentum in the sgd optimizer")
    weight_decay: float = _training(
        0.0, "weight decay: an L2 penalty for sgd and rmsprop, decoupled for adam", (0.0, 1.0)
    )
    loss: str = _training(
        "cross_entropy",
        "loss function; mse is Keras' mean over images and outputs, half_mse half the sum over "
        "outputs, squared_error for regression",
        ("cross_entropy", "mse", "half_mse", "squared_error"),
    )
    reduction: str = _training(
        "mean", "how a batch's gradients are combined (the lecture's code sums)", ("mean", "sum")
    )
    gradients: str = _training(
        "auto",
        "how gradients are computed: by jax.grad (with faster rules derived by hand for some "
        "layers), all by hand, or both, compared while training",
        ("auto", "manual", "both"),
    )
    check_every: int = _training(100, "steps between two checks of gradients=both", (1, 10**9))
    gradient_tolerance: float | None = _training(
        None, "relative error that ends a run with gradients=both", (0.0, 1.0), unset="by precision"
    )
    seed: int = _training(
        0, "random seed of weights, image order, augmentation and dropout", (0, 2**31 - 1)
    )

    platform: str | None = _machine(
        None,
        "which devices must be present: without them the run ends at once",
        ("cpu", "gpu", "tpu"),
        unset="what JAX finds",
    )
    cpu_devices: int | None = _machine(None, "number of devices that the CPU simulates", (1, 256))
    devices: int | None = _machine(
        None, "number of devices to train on", (1, 4096), unset="all that JAX finds or simulates"
    )
    parallel: str = _machine(
        "auto",
        "how devices share the work; auto is jit on one device, pmap on several",
        ("auto", "jit", "pmap"),
    )
    distributed: bool = _machine(
        False,
        "train together with other processes, which JAX finds on a TPU pod, under SLURM, Open "
        "MPI and Kubernetes",
    )
    coordinator: str | None = _machine(
        None,
        "address of process 0, where JAX finds no other processes (docs/several-hosts.md)",
        metavar="HOST:PORT",
    )
    num_processes: int | None = _machine(None, "number of processes, with coordinator", (1, 65536))
    process_id: int | None = _machine(
        None, "number of this process, from 0, with coordinator", (0, 65535)
    )
    precision: str = _machine(
        "float32",
        "number format of the arithmetic; bfloat16 keeps parameters in float32, mixed also the "
        "last layer",
        ("float32", "bfloat16", "mixed", "float64"),
    )

    log_format: str = _run(
        "plain", "format of progress lines; lecture: as on the slides", ("plain", "lecture")
    )
    workdir: str | None = _run(
        None,
        "run folder: settings, metrics, checkpoints and result",
        metavar="FOLDER",
        unset="runs/<model>-<date>-<time>",
    )
    overwrite: bool = _run(False, "replace the run in workdir")
    resume: bool = _run(
        False, "continue the run in workdir; without workdir, the model's newest unfinished run"
    )
    checkpoint_every: str = _run(
        "10seconds",
        "interval between checkpoints in steps, epochs, seconds or minutes, as 500steps",
        metavar="INTERVAL",
    )
    keep: int = _run(
        2, "number of newest checkpoints to keep; the best after an epoch stays too", (1, 10**6)
    )
    target_accuracy: float | None = _run(
        None, "test accuracy below which the exit status is 1", (0.0, 1.0)
    )

    def __post_init__(self):
        super().__post_init__()
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

    Some fields bring others with them, unless these are among the changes too:

    - recipe="paper" brings the fields of PAPER; the others change these.
    - optimizer, if it is not the recipe's: Keras' default learning rate, and no momentum.
    - hidden: no search over latent_dims.
    - init_from: normalize="imagenet", since ImageNet's normalized pixels trained these weights.

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
        recipe["learning_rate"] = KERAS_RATES.get(changes["optimizer"])
    if "hidden" in changes:
        for name in ("latent_dims", "replay_seeds"):
            if name in changes:
                raise UserError(f"hidden and {name} exclude each other, got both")
        recipe["latent_dims"] = None
    return Config(**{"model": model, **recipe, **changes})


def to_json(config: Config) -> dict[str, Any]:
    """Every field, as JSON holds it."""
    return dataclasses.asdict(config)


def from_json(values: dict[str, Any]) -> Config:
    """The config that `to_json` wrote; keys that are no fields are ignored.

    Raises:
      UserError: A field is missing, since a default could silently train something else; or a
        value is out of range.
    """
    names = [field.name for field in dataclasses.fields(Config)]
    if missing := [name for name in names if name not in values]:
        raise UserError(f"no {', '.join(missing)}: another version of jaxnets wrote it")
    found: dict[str, Any] = {name: values[name] for name in names}
    found |= {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
    return Config(**found)
