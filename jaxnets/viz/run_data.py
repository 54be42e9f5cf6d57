"""The data set of a run, as report and page take it: the run's very images, or none."""

from jaxnets.data.datasets import Dataset
from jaxnets.errors import UserError
from jaxnets.language import _
from jaxnets.predict.trained import TrainedNetwork
from jaxnets.runs.request import load_data


def data_of(trained: TrainedNetwork, *, as_bytes: bool = False) -> Dataset:
    """Loads the data set that a run's config names, if it is the one the run was trained on.

    A run folder may come from a stranger, and its config may name any folder of this machine.

    Raises:
      UserError: The data set is not found, or is another one, or one of regression.
    """
    try:
        data = load_data(trained.config, as_bytes=as_bytes)
    except (UserError, OSError) as error:
        raise UserError(_("the data set is not at hand: {}", error)) from error
    if (data.image_shape, data.class_names) != (trained.image_shape, trained.class_names):
        raise UserError(_("the data set at hand has other classes or image sizes than the run's"))
    if data.checksum != trained.data_sha256:
        raise UserError(_("the data set at hand has other images than the run's"))
    if data.is_regression:
        raise UserError(_("a regression has no classes to be wrong about"))
    return data
