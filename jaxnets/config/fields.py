"""One frozen Config, which a network's recipe fills; cli/flags.py makes flags of its fields.

Nothing here imports jax, so that `--help` and a wrong flag answer at once.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jaxnets.base.errors import UserError, unknown
from jaxnets.base.language import N_, Text
from jaxnets.config.options import Options, is_custom, option
from jaxnets.config.recipes import DEFAULT_MODEL, LARGE_ALEXNETS, MODEL_FIELDS, NAMED, PRESETS
from jaxnets.config.unknown import unknown_model

NO_VALIDATION = N_("{}, but no images are held back (validation_size=N)")
AUGMENTATIONS = ("none", "shift", "crop", "flip", "pca", "mixup")
AUGMENTATIONS += ("affine", "affine_wide", "strokes")  # training/augment.py, data/batches.py
TRACKERS = ("none", "tensorboard", "wandb", "mlflow")  # Those of --track (tracking/).

OWN_NAME = re.compile(r"\w[\w.-]{0,63}", re.ASCII)  # Of a network of the user's own.

PLACE = ("coordinator", "num_processes", "process_id")  # This process's place among several.
# The fields that describe a run's processes, with their values for a single process.
SINGLE_PROCESS = {"distributed": False, **dict.fromkeys(PLACE)}

BY_MODEL = "by the network"  # The default of fields for which each network has its own.
COUNT, UNITS, FRACTION = (1, 10**6), (1, 65536), (0.0, 1.0)  # The smallest and the largest value.


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Config(Options):
    """Everything that a run depends on.

    Use `jaxnets.preset(model, **changes)` to start from the lecture's recipe. Values out of range
    raise UserError (a ValueError) that says what was expected and what was given.
    """

    # The network.
    model: str = option(
        DEFAULT_MODEL,
        "network to train, or FILE.py with a function model(num_classes)",
        tuple(PRESETS),
        others=True,
    )
    # The rows of networks/rows.py for a network of the user's own, which `model` then names.
    layers: list[dict[str, Any]] | None = dataclasses.field(default=None, hash=False)
    # The rows of the layers before the network that scale its input: table columns by statistics of
    # the training rows, small images to a size that convolutions take.
    scaling: list[dict[str, Any]] | None = dataclasses.field(default=None, hash=False)
    recipe: str | None = option(
        None,
        "paper: train an AlexNet as its paper of 2012 did; fast: take the cnn to 99 % in seconds",
        tuple(NAMED),
        unset="our recipe",
    )
    hidden: tuple[int, ...] | None = option(
        None, "units of the hidden layers, as 64,64", UNITS, unset=BY_MODEL
    )
    activation: str | None = option(
        None,
        "activation of the hidden dense layers",
        ("relu", "sigmoid", "softmax"),
        unset=BY_MODEL,
    )
    dropout: float | None = option(
        None, "share of units dropped before dense layers", (0.0, 0.95), unset=BY_MODEL
    )
    input_size: int | None = option(
        None, "side in pixels to which images are resized or cropped", (15, 1024), unset="no change"
    )
    init: str | None = option(
        None, "initial weights: He et al.'s, or N(0, 0.01)", ("he", "paper"), unset=BY_MODEL
    )
    init_from: str | None = option(
        None, "initial weights: a run, or a file with torchvision's names", metavar="RUN|FILE"
    )
    normalize: str | None = option(
        None,
        "pixel normalization: imagenet subtracts ImageNet's mean and divides by its standard "
        "deviation, paper subtracts that mean from bytes",
        ("none", "imagenet", "paper"),
        unset=BY_MODEL,
    )

    # The data.
    dataset: str = option(
        "mnist",
        "mnist, fashion_mnist, kmnist, cifar10, cifar100, a set prepared by TensorFlow Datasets, "
        "a folder of pictures (docs/datasets.md), or points of a plane: circles, moons, spirals, "
        "xor",
        metavar="NAME|FOLDER",
    )
    data_dir: str | None = option(
        None,
        "folder with the data set's files; with mnist, any folder of four IDX files",
        metavar="FOLDER",
        unset="the package or the cache",
    )
    validation_size: int | None = option(
        None, "number of training images held out", (0, 10**7), unset="5000, at most a tenth"
    )
    decode_size: int | None = option(
        None,
        "side in pixels to which the pictures of a folder are scaled",
        (4, 2048),
        unset="their own if small and equal, else 8/7 of input_size, else 64",
    )
    augment: str = option(
        "none",
        "changes: shift, crop, flip, pca, mixup, affine, affine_wide, strokes",
        metavar="NAME,...",
        custom=True,
    )
    clean_epochs: int = option(0, "number of last epochs without augmentation", (0, 10**5))
    limit: int | None = option(
        None, "number of training images to use, and of test images at most", COUNT, unset="all"
    )
    ten_crop: bool = option(False, "test on ten crops of larger images: corners, centre, mirrored")

    # The training.
    epochs: int = option(10, "passes over the training images", (1, 10**5))
    batch_size: int | None = option(128, "images a step, or full for all", (1, 10**7), none="full")
    steps_per_epoch: int | None = option(
        None,
        "steps per epoch; each epoch ends with a validation",
        COUNT,
        unset="a pass over all images",
    )
    early_stopping: int | None = option(
        None,
        "epochs without a lower validation loss until training ends, or none; those before "
        "one_cycle has fallen to half its peak do not count",
        COUNT,
        none="none",
        unset="never",
    )
    stop_at_target: bool = option(
        False, "end training as soon as the validation accuracy reaches target_accuracy"
    )
    optimizer: str = option(
        "sgd",
        "update rule; one other than the recipe's starts with Keras's default learning rate (sgd "
        "0.01, the others 0.001) and without momentum",
        ("sgd", "rmsprop", "adam", "muon"),
        custom=True,
    )
    learning_rate: float = option(0.1, "peak learning rate", (1e-12, 1e4))
    schedule: str = option(
        "constant",
        "how the learning rate changes during training",
        ("constant", "linear", "cosine", "one_cycle", "step", "plateau"),
    )
    patience: int = option(
        5, "epochs without a lower validation error until schedule=plateau acts", COUNT
    )
    momentum: float = option(0.0, "momentum of the sgd optimizer", (0.0, 0.9999))
    nesterov: bool = option(False, "use Nesterov momentum in the sgd optimizer")
    weight_decay: float = option(
        0.0, "L2 penalty; with adam and muon, decoupled weight decay", FRACTION
    )
    loss: str = option(
        "cross_entropy",
        "loss function; mse is Keras's mean over outputs, half_mse half their sum, squared_error "
        "for regression",
        ("cross_entropy", "mse", "half_mse", "squared_error"),
        custom=True,
    )
    label_smoothing: float = option(
        0.0, "share of each label that is spread over all classes", FRACTION
    )
    reduction: str = option("mean", "how gradients combine (the lecture sums)", ("mean", "sum"))
    gradients: str = option(
        "auto",
        "how gradients are computed: by jax.grad, by hand, or both, compared while training",
        ("auto", "manual", "both"),
    )
    kernels: str = option(
        "fast",
        "fast: faster forms of some layers on this platform; plain: the layers as taught, so that "
        "gradients=manual runs only their derivations, and auto is stock autodiff",
        ("fast", "plain"),
    )
    seed: int = option(0, "seed of weights, image order, augmentation and dropout", (0, 2**31 - 1))

    # The machine.
    platform: str | None = option(None, "kind of device that is required", ("cpu", "gpu", "tpu"))
    cpu_devices: int | None = option(None, "number of devices that the CPU simulates", (1, 256))
    devices: int | None = option(
        None, "number of devices to train on", (1, 4096), unset="all that JAX finds or simulates"
    )
    parallel: str = option(
        "auto",
        "how devices share work; auto: jit on one, pmap on several",
        ("auto", "jit", "pmap", "shard_map"),
    )
    distributed: bool = option(
        False, "train with other processes that JAX finds: TPU pods, SLURM, Open MPI, Kubernetes"
    )
    coordinator: str | None = option(
        None, "address of process 0, if JAX finds none (docs/clusters.md)", metavar="HOST:PORT"
    )
    num_processes: int | None = option(None, "number of processes, with coordinator", UNITS)
    process_id: int | None = option(None, "number of this process, from 0", (0, 65535))
    precision: str = option(
        "float32",
        "number format; bfloat16 keeps parameters in float32, mixed also the last layer",
        ("float32", "bfloat16", "mixed", "float64"),
    )

    # The run.
    track: str = option(
        "none",
        "where to show the run: tensorboard, wandb, mlflow (docs/tracking.md)",
        metavar="NAME,...",
    )
    report: bool = option(False, "write the run's report.html into its folder at the end")
    workdir: str | None = option(
        None, "folder to keep the run in", metavar="FOLDER", unset="runs/<model>-<date>-<time>"
    )
    overwrite: bool = option(False, "replace the run in workdir")
    resume: bool = option(
        False, "continue the run in workdir; without workdir, the model's newest unfinished run"
    )
    checkpoint_every: str = option(
        "10seconds", "interval between checkpoints: 500steps, 2epochs, 5minutes", metavar="INTERVAL"
    )
    keep: int = option(2, "newest checkpoints to keep; the best after an epoch is kept too", COUNT)
    test: bool = option(
        True,
        "evaluate the test images at the end; otherwise they stay closed until jaxnets evaluate, "
        "as they should while you still choose",
    )
    target_accuracy: float | None = option(None, "minimum test accuracy, else status 1", FRACTION)

    def _repr_fields(self) -> dict[str, Any]:
        fields = dataclasses.fields(self)
        changed = [field.name for field in fields if getattr(self, field.name) != field.default]
        changed = [name for name in changed if name not in ("layers", "scaling")]
        return {"model": self.model} | {name: getattr(self, name) for name in changed}

    def __post_init__(self):
        super().__post_init__()
        _ = self.checkpoint_interval  # Raises UserError if it is not an interval.
        if conflict := next(self._conflicts(), None):
            raise UserError(*conflict.args)

    def _conflicts(self) -> Iterator[Text]:
        """Yields an error for each combination of fields that does not fit."""
        yield from self._conflicts_of_network()
        yield from self._conflicts_of_data()
        yield from self._conflicts_of_training()
        yield from process_conflicts(vars(self))

    def _conflicts_of_network(self) -> Iterator[Text]:
        model, recipe = self.model, PRESETS.get(self.model, {})
        if self.layers is None and model not in PRESETS:
            yield unknown_model(model, PRESETS)
        if self.layers is not None and (model in PRESETS or not OWN_NAME.fullmatch(model)):
            yield Text(
                "model: expected letters and digits, and no name of the lecture, got {}",
                repr(model),
            )
        if self.recipe is not None and model not in (owners := NAMED[self.recipe]):
            yield Text("recipe: {} has no {} (only for {})", model, self.recipe, ", ".join(owners))
        for name in MODEL_FIELDS:
            if getattr(self, name) is not None and name not in recipe:
                owners = [key for key, other in PRESETS.items() if name in other]
                yield Text("{}: {} has none (only for {})", name, model, ", ".join(owners))
        if model in ("cnn", "mlp_handwritten") and len(self.hidden or ()) != 1:
            yield Text("hidden: {} has one hidden layer, got {}", model, self.hidden)
        if model in LARGE_ALEXNETS and (self.input_size or 0) < 63:
            numbers = Text("a whole number from 63 to 1024 for {}", model)
            yield Text("input_size: expected {}, got {}", numbers, self.input_size)

    def _conflicts_of_data(self) -> Iterator[Text]:
        for field, known in (("augment", AUGMENTATIONS), ("track", TRACKERS)):
            if is_custom(text := getattr(self, field)):
                continue
            names = text.split(",")
            for name in names:
                if name not in known:
                    yield unknown(field, name, known)
            if len(set(names)) < len(names) or ("none" in names and len(names) > 1):
                yield Text("{}: expected each name once, none alone, got {}", field, text)
        if self.ten_crop and self.input_size is None:
            yield Text("ten_crop: {} has no input_size to crop to", self.model)

    def _conflicts_of_training(self) -> Iterator[Text]:
        if (watcher := self.watcher) and self.validation_size == 0:
            yield Text(NO_VALIDATION, Text(watcher))
        if self.label_smoothing and self.loss == "squared_error":
            yield Text("label_smoothing: squared_error has no labels")
        if is_custom(self.loss) and self.gradients != "auto":
            yield Text("gradients: expected auto, for a loss of your own, got {}", self.gradients)
        if is_custom(self.optimizer) and self.weight_decay:
            yield Text(
                "weight_decay: expected none with an optimizer of your own, which may have one"
            )
        if self.stop_at_target and self.target_accuracy is None:
            yield Text("stop_at_target: expected with target_accuracy, got none")
        if self.target_accuracy is not None and not (self.test or self.stop_at_target):
            yield Text("target_accuracy: expected a test, or stop_at_target, got no_test")
        if self.optimizer != "sgd" and (self.momentum or self.nesterov):
            yield Text("momentum and nesterov belong to sgd, got optimizer {}", self.optimizer)
        if self.nesterov and not self.momentum:
            yield Text("nesterov: expected a momentum above 0, got 0")

    @property
    def is_distributed(self) -> bool:
        """Whether the run is one process of several."""
        return self.distributed or self.coordinator is not None

    @property
    def watcher(self) -> str | None:
        """The setting that needs validation images, as a phrase; None if there is none."""
        if self.schedule == "plateau":
            return N_("schedule: plateau watches the validation error")
        if self.stop_at_target:
            return N_("stop_at_target watches the validation accuracy")
        return N_("early_stopping watches the validation loss") if self.early_stopping else None

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The names in augment; "custom" for a function."""
        if is_custom(self.augment):
            return ("custom",)
        return tuple(name for name in self.augment.split(",") if name != "none")

    @property
    def checkpoint_interval(self) -> tuple[int, str]:
        """The number and the unit (steps, epochs or seconds) in checkpoint_every."""
        found = re.fullmatch(r"([1-9]\d{0,8})(step|epoch|second|minute)s?", self.checkpoint_every)
        if found is None:
            raise UserError(
                "checkpoint_every: expected a number and a unit as 500steps, 2epochs, "
                "30seconds or 10minutes, got {}",
                repr(self.checkpoint_every),
            )
        number, unit = int(found[1]), found[2]
        return (60 * number, "seconds") if unit == "minute" else (number, f"{unit}s")


def process_conflicts(given: Mapping[str, Any]) -> Iterator[Text]:
    """Yields an error for each combination of the process's own fields that does not fit.

    Args:
      given: Fields of Config by name, each of its type; a missing one counts as not set.
    """
    if given.get("overwrite") and given.get("resume"):
        yield Text("resume and overwrite exclude each other, got both")
    platform, coordinator = given.get("platform"), given.get("coordinator")
    if given.get("cpu_devices") is not None and platform not in (None, "cpu"):
        yield Text("cpu_devices: expected platform cpu, got {}", platform)
    if given.get("distributed") and coordinator is not None:
        yield Text("distributed and coordinator exclude each other, got both")
    missing = [name for name in PLACE if given.get(name) is None]
    if 0 < len(missing) < len(PLACE):
        yield Text(
            "{}: expected all or none, got no {}", ", ".join(PLACE), " and no ".join(missing)
        )
    if coordinator is not None and not is_address(coordinator):
        yield Text("coordinator: expected HOST:PORT, got {}", repr(coordinator))
    if not missing and given["process_id"] >= (count := given["num_processes"]):
        numbers = Text("a whole number from 0 to {} for num_processes {}", count - 1, count)
        yield Text("process_id: expected {}, got {}", numbers, given["process_id"])


def is_address(text: str) -> bool:
    """Whether a text is HOST:PORT or [HOST]:PORT."""
    found = re.fullmatch(r"(\[[^\]/]+\]|[^:/\s]+):([1-9]\d{0,4})", text)
    try:
        return found is not None and int(found[2]) < 65536 and bool(found[1].encode("idna"))
    except UnicodeError:  # Not the name of a host, such as one of 64 characters.
        return False


# Fields that may be functions of the user's, in the order in which a missing one is named.
CUSTOM_FIELDS = ("loss", "optimizer", "augment")
