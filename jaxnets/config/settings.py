"""The settings of Config as keyword arguments, which an editor completes and pyright checks.

A test holds them against the fields of Config, which have their meanings and ranges.
"""

from collections.abc import Callable
from typing import Any, Literal, TypedDict


class FitSettings(TypedDict, total=False):
    """The fields of Config but the model and the epochs, which are arguments of their own."""

    # The network.
    layers: list[dict[str, Any]] | None
    scaling: list[dict[str, Any]] | None
    recipe: str | None
    hidden: tuple[int, ...] | list[int] | int | None
    activation: str | None
    dropout: float | None
    input_size: int | None
    init: str | None
    init_from: str | None
    normalize: str | None

    # The data.
    dataset: str
    data_dir: str | None
    validation_size: int | None
    decode_size: int | None
    augment: str | Callable[..., Any]
    clean_epochs: int
    limit: int | None
    ten_crop: bool

    # The training.
    batch_size: int | Literal["full"] | None
    steps_per_epoch: int | None
    early_stopping: int | Literal["none"] | None
    stop_at_target: bool
    optimizer: Any  # A name; or a transformation of optax, or a function that makes one.
    learning_rate: float
    schedule: str
    patience: int
    momentum: float
    nesterov: bool
    weight_decay: float
    loss: str | Callable[..., Any]
    label_smoothing: float
    reduction: str
    gradients: str
    kernels: str
    seed: int

    # The machine.
    platform: str | None
    cpu_devices: int | None
    devices: int | None
    parallel: str
    distributed: bool
    coordinator: str | None
    num_processes: int | None
    process_id: int | None
    precision: str

    # The run.
    track: str
    report: bool
    workdir: str | None
    overwrite: bool
    resume: bool
    checkpoint_every: str
    keep: int
    test: bool
    target_accuracy: float | None


class Settings(FitSettings, total=False):
    """The fields of Config but the model."""

    epochs: int
