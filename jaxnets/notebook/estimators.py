"""Classifier and Regressor: networks as scikit-learn estimators. Only this file needs it."""

import dataclasses
import functools
import math
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, Unpack

import jax
import numpy as np

from jaxnets.base.errors import UserError
from jaxnets.base.trees import Params
from jaxnets.config.fields import Config
from jaxnets.config.recipes import DEFAULT_MODEL, Recipe
from jaxnets.config.resolve import preset
from jaxnets.config.settings import Settings
from jaxnets.config.unknown import unknown_field
from jaxnets.data.arrays import NAME, from_arrays, to_images
from jaxnets.data.datasets import Dataset, Split, sha256_of
from jaxnets.experiment import Experiment
from jaxnets.gradcheck.layer_check import judge_own_layers
from jaxnets.gradcheck.oracle import with_gradient_check
from jaxnets.networks.create import create_model
from jaxnets.notebook.beginning import Beginning
from jaxnets.notebook.callbacks import bar_for
from jaxnets.notebook.network import Network
from jaxnets.predict.predict import BATCH, compile_network
from jaxnets.runs.progress import Progress
from jaxnets.runs.run_folder import RunFolder

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    wanted = "Classifier and Regressor: expected scikit-learn 1.6: pip install scikit-learn"
    raise ImportError(wanted) from error

FIELDS = Config.__dataclass_fields__

# For scikit-learn's check_estimator and parametrize_with_checks: what fails, and why.
EXPECTED_FAILED_CHECKS = {
    "check_no_attributes_set_in_init": "an attribute for each field of Config that is given, "
    "which `settings` in the signature stands for",
    "check_do_not_raise_errors_in_init_or_set_params": "`settings`, to which it gives a value, is "
    "no parameter but stands for the fields of Config",
}


# Regression begins with these settings, made for some hundred rows of a table.
REGRESSION: dict[str, Recipe] = {
    # Its one dense layer is linear regression. Gradient descent on a quadratic: after 1,000 steps
    # within 1e-4 of the closed form on diabetes, whose features' covariance has eigenvalues from
    # 4.1 to 0.008.
    "softmax": dict(epochs=1000, batch_size=None, learning_rate=0.05, momentum=0.9)
    | dict(schedule="constant"),
    # The slides' two hidden layers.
    "mlp": dict(hidden=(64, 64), epochs=20, batch_size=32, optimizer="adam", learning_rate=1e-3),
}


class Estimator(BaseEstimator):
    """The parameters of an estimator: a network's name, and fields of Config."""

    def __init__(
        self, model: str = DEFAULT_MODEL, *, verbose: int = 0, **settings: Unpack[Settings]
    ):
        """Takes a network's name, what `Network.fit` prints, and fields of Config."""
        self.model, self.verbose = model, verbose
        self.set_params(**settings)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments that the estimator was made with."""
        names = ("model", "verbose", *(name for name in vars(self) if name in FIELDS))
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> Self:
        """Changes arguments, among them fields of Config that were not given before."""
        for name, value in params.items():
            if name not in FIELDS and name != "verbose":
                raise unknown_field(name, FIELDS)
            setattr(self, name, value)
        return self


class Classifier(ClassifierMixin, Estimator):
    """A network with scikit-learn's interface.

    Unlike a Network's, its `fit` starts again, trains on all examples and returns the estimator;
    its `predict` gives labels. Without `validation_size`, no examples are held back for validation.

    >>> from sklearn.datasets import load_digits
    >>> x, y = load_digits(return_X_y=True)
    >>> net = Classifier("softmax").fit(x[:900] / 16, y[:900])
    >>> net.score(x[900:] / 16, y[900:]) > 0.88
    True

    Attributes:
      network_: The trained Network.
      history_: The records of its epochs.
      classes_: The labels, in the order of the probabilities.
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Trains on images [N, H, W] or [N, H, W, C], or on rows [N, D], and labels.

        Rows count as images if they are the pixels of squares of 8 x 8 or more. Otherwise they are
        a table of any finite numbers, whose columns the network standardizes.
        """
        X, y = validate_data(self, X, y, allow_nd=True)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise UserError("y: expected two classes or more, got 1 class: {}", self.classes_[0])
        params = {"validation_size": 0, **self.get_params()}
        verbose = params.pop("verbose")
        data = from_arrays((X, codes), params["validation_size"], test=False)
        data = dataclasses.replace(data, class_names=tuple(map(str, self.classes_)))
        self.network_ = Network(data=data, **params)
        self.history_ = self.network_.fit(verbose=verbose)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, [N, K] float32."""
        check_is_fitted(self)
        X, predictor = validate_data(self, X, allow_nd=True, reset=False), self.network_.predictor
        form, shape = predictor.image_shape, X.shape[1:]
        if math.prod(shape) != math.prod(form):
            raise UserError("X: expected images of {}, as in training, got {}", form, shape)
        if X.dtype.kind == "f" and len(form) == 3:  # A scaler's pixels may exceed 0 and 1 a little.
            return predictor.probabilities(X.astype(np.float32).reshape(-1, *form))
        return predictor.probabilities(to_images(X, form))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each example."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def __getstate__(self) -> dict[str, Any]:
        """For a pickle: of the network only its config and the files of its run, not the data."""
        parts: Any = super().__getstate__()
        state = dict(parts)
        if (network := state.pop("network_", None)) is not None:
            with network._saved() as (folder, _data):
                state["_saved_network"] = network.config, _files_of(Path(folder))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes what `__getstate__` gave; the network's files are in a folder until it ends."""
        state = dict(state)
        saved = state.pop("_saved_network", None)
        super().__setstate__(state)
        if saved is not None:
            config, files = saved
            path = Path(tempfile.mkdtemp(prefix="jaxnets-"))
            for name, content in files.items():
                (path / name).parent.mkdir(exist_ok=True)
                (path / name).write_bytes(content)
            self.network_ = Network._of(Beginning.of_run(RunFolder.open(str(path)), config))
            weakref.finalize(self.network_, shutil.rmtree, path, ignore_errors=True)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


class Regressor(RegressorMixin, Estimator):
    """A network that predicts numbers, with scikit-learn's interface.

    It trains on the squared error. Columns and targets are standardized by the training data. The
    loss and the history are in standardized units; predictions are in the units of the targets.

    >>> from sklearn.datasets import load_diabetes
    >>> x, y = load_diabetes(return_X_y=True)
    >>> Regressor("softmax").fit(x[:300], y[:300]).score(x[300:], y[300:]) > 0.4
    True

    Attributes:
      params_: The trained parameters.
      history_: The records of its epochs.
    """

    def __init__(self, model: str = "mlp", *, verbose: int = 0, **settings: Unpack[Settings]):
        """Takes a dense network's name, what `fit` prints, and fields of Config.

        The network "softmax" is linear regression: its one dense layer, without the softmax.
        """
        super().__init__(model, verbose=verbose, **settings)

    def fit(self, X: Any, y: Any) -> Self:
        """Trains on rows [N, D] of any finite numbers, and targets [N]."""
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        self._columns: Any = StandardScaler().fit(X)
        self._target: Any = StandardScaler().fit(y[:, None])
        given = {"loss": "squared_error", "validation_size": 0, **REGRESSION.get(self.model, {})}
        given |= self.get_params()
        verbose = given.pop("verbose")
        if given["validation_size"]:
            raise UserError("validation_size: expected none, as Regressor trains on all rows")
        config = preset(**given)
        size = min(config.batch_size or len(X), len(X))
        self._config = dataclasses.replace(config, batch_size=size)
        targets = self._target.transform(y[:, None]).astype(np.float32)
        train = Split(self._rows(X), targets)
        data = Dataset(
            name=NAME,
            num_classes=1,
            train=train,
            validation=train[:0],
            test=train[:0],
            checksum=sha256_of(X, y),
            target_mean=self._target.mean_.item(),
            target_scale=self._target.scale_.item(),
        )
        experiment = Experiment.create(self._config, data)
        shown = [Progress(config.epochs, experiment.loader, bar_for(verbose))] if verbose else []
        judge_own_layers(experiment)
        state, self.history_ = experiment.train(with_gradient_check(experiment, shown))
        self.params_ = jax.tree.map(np.array, jax.device_get(state.params))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The predicted targets, [N] float64."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        rows = self._rows(X)
        forward, count = compiled_network(self._config), -(-len(rows) // BATCH)
        # Batches of the same size round alike: a row's prediction does not depend on the others.
        padded = np.zeros((count * BATCH, rows.shape[1]), np.float32)
        padded[: len(rows)] = rows
        outputs = [forward(self.params_, batch) for batch in np.split(padded, count)]
        found = np.concatenate(outputs)[: len(rows)].astype(np.float64)
        return self._target.inverse_transform(found).ravel()

    def _rows(self, X: Any) -> np.ndarray:
        """The standardized rows, as the network takes them."""
        return self._columns.transform(X).astype(np.float32)


def _files_of(folder: Path) -> dict[str, bytes]:
    """The contents of a folder's files by their paths in it."""
    files = [found for found in folder.rglob("*") if found.is_file()]
    return {str(found.relative_to(folder)): found.read_bytes() for found in files}


@functools.cache
def compiled_network(config: Config) -> Callable[[Params, np.ndarray], jax.Array]:
    """The network of a config with one output, compiled: (params, rows [B, D]) → outputs [B, 1]."""
    return compile_network(config, create_model(config, 1), lambda outputs: outputs)
