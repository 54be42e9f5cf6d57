"""Refuses a data set that a config cannot train on."""

from jaxnets.base.errors import UserError, expect
from jaxnets.base.language import Text
from jaxnets.config.fields import CUSTOM_FIELDS, NO_VALIDATION, Config
from jaxnets.config.options import CUSTOM
from jaxnets.data.datasets import Dataset


def check_data(config: Config, data: Dataset) -> None:
    """Raises UserError if the data set does not fit the config."""
    expect(config, Config, 'jaxnets.preset("cnn")')
    expect(data, Dataset, 'jaxnets.load_dataset("mnist")')
    for name in CUSTOM_FIELDS:
        value = getattr(config, name)
        if isinstance(value, str) and value.startswith(CUSTOM):
            own = value.removeprefix(CUSTOM)
            raise UserError("{}: expected {} again: jaxnets.load(DIR, {}={})", name, own, name, own)
    if config.watcher and not len(data.validation):
        raise UserError(NO_VALIDATION, Text(config.watcher))
    if (config.loss == "squared_error") != data.is_regression:
        expected = "squared_error" if data.is_regression else "cross_entropy, mse or half_mse"
        raise UserError("loss: expected {} for {}, got {}", expected, data.name, config.loss)
    if config.ten_crop and max(data.image_shape[:2]) <= (config.input_size or 0):
        height, width = data.image_shape[:2]
        raise UserError(
            "ten_crop: expected images larger than input_size {}, those of {} are {}x{}",
            config.input_size,
            data.name,
            height,
            width,
        )


def check_takes_rows(config: Config, is_convolved: bool, size: int) -> None:
    """Raises UserError if the network, because it convolves, or an augmentation needs images."""
    if is_convolved or set(config.augmentations) - {"mixup", "custom"}:
        raise UserError(
            "{}: expected images, whose pixels are bytes or floats from 0 to 1, got rows of "
            '{} numbers; model "mlp" takes rows',
            config.model if is_convolved else "augment",
            size,
        )
