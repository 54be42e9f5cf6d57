"""The data set of a run, for report and page, or another one to test its network on."""

from jaxnets.base.display import printable
from jaxnets.base.errors import UserError
from jaxnets.data.datasets import Dataset
from jaxnets.data.load import load_dataset
from jaxnets.predict.trained import TrainedNetwork
from jaxnets.runs.request import load_data


def data_of(
    trained: TrainedNetwork, data: Dataset | None = None, *, as_bytes: bool = False
) -> Dataset:
    """Loads the data set that a run's config names, if the run was trained on it.

    A run folder may come from a stranger, and its config may name any folder of this machine. A
    notebook passes its data in memory.

    Raises:
      UserError: The data set is not found, is another one, or is for regression.
    """
    try:
        data = data or load_data(trained.config, as_bytes=as_bytes)
    except (UserError, OSError) as error:
        raise UserError("the data set is not at hand: {}", error) from error
    if (data.image_shape, data.class_names) != (trained.image_shape, trained.class_names):
        raise UserError("the data set at hand has other classes or image sizes than the run's")
    if data.checksum != trained.data_sha256:
        raise UserError("the data set at hand has other images than the run's")
    if data.is_regression:
        raise UserError("a regression has no classes to be wrong about")
    return data


def data_named(run: str, trained: TrainedNetwork, dataset: str | None) -> Dataset:
    """Loads a data set, with all of its test pictures, in the form that a network was trained on.

    Args:
      run: The run's name, for messages.
      trained: The network.
      dataset: The name or the folder of a data set, as in `load_dataset`; None for the run's own.

    Raises:
      UserError: There is no such data set, or the network does not fit its pictures or classes.
    """
    config, data_dir, size = trained.config, None, None
    if dataset is None:
        dataset, data_dir, size = config.dataset, config.data_dir, config.validation_size
    data = load_dataset(
        dataset,
        data_dir,
        size,
        decode_size=trained.image_shape[0],
        input_size=config.input_size,
    )
    if data.image_shape != trained.image_shape:
        raise UserError(
            "{}: expected pictures of {}, those of {} are {}",
            run,
            trained.image_shape,
            data.name,
            data.image_shape,
        )
    if data.class_names != trained.class_names:
        ours, theirs = (", ".join(map(printable, x.class_names))[:60] for x in (trained, data))
        raise UserError("{}: expected the classes {}, {} has {}", run, ours, data.name, theirs)
    return data
