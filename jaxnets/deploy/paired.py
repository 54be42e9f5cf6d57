"""Two runs on the same labelled pictures, of their own data set or another one."""

import numpy as np

from jaxnets.data.datasets import Dataset
from jaxnets.data.load import load_dataset
from jaxnets.deploy.abtest.pairs import Pairs
from jaxnets.display import printable
from jaxnets.errors import UserError
from jaxnets.predict.predict import to_predictor
from jaxnets.predict.trained import TrainedNetwork, load_network


def compare_runs(
    run_a: str, run_b: str, dataset: str | None = None, data_dir: str | None = None
) -> Pairs:
    """Counts on which test pictures both networks, one alone, or neither is right.

    Args:
      run_a: The folder of a finished or an interrupted run.
      run_b: The other one's.
      dataset: The name or the folder of a data set, as in `load_dataset`; None for the runs' own.
      data_dir: The folder of its files.

    Raises:
      UserError: A folder holds no run, the runs have different data sets, or a network does not fit
        the pictures or their classes.
    """
    names, right, sets = (run_a, run_b), [], []
    for name in names:
        network = load_network(name)
        data = _load(network, dataset, data_dir)
        _check_fits(name, network, data)
        sets.append(data)
        if sets[0].name != data.name or not np.array_equal(sets[0].test.labels, data.test.labels):
            raise UserError(
                f"expected runs of one data set, got {sets[0].name} and {data.name}, whose test "
                "pictures are others; --dataset=NAME tests both on another"
            )
        right.append(_right(network, data))
    return Pairs.of(names, sets[0].name, *right)


def _load(network: TrainedNetwork, dataset: str | None, data_dir: str | None) -> Dataset:
    """The data set in the form on which the network was trained; all of its test pictures."""
    config, size = network.config, None
    if dataset is None and data_dir is None:
        dataset, data_dir, size = config.dataset, config.data_dir, config.validation_size
    return load_dataset(
        dataset or "mnist",
        data_dir,
        size,
        decode_size=network.image_shape[0],
        input_size=config.input_size,
        on_bad_image=config.on_bad_image,
    )


def _check_fits(name: str, network: TrainedNetwork, data: Dataset) -> None:
    """Raises UserError unless the network takes the pictures and has their classes."""
    if data.image_shape != network.image_shape:
        raise UserError(
            f"{name}: expected pictures of {network.image_shape}, those of {data.name} are "
            f"{data.image_shape}"
        )
    if data.class_names != network.class_names:
        ours, theirs = (", ".join(map(printable, x.class_names))[:60] for x in (network, data))
        raise UserError(f"{name}: expected the classes {ours}, {data.name} has {theirs}")


def _right(network: TrainedNetwork, data: Dataset) -> np.ndarray:
    """Whether the network's first class is the picture's, for each test picture, [N] bool."""
    classes = to_predictor(network).probabilities(data.test.images).argmax(axis=1)
    return classes == data.test.labels
