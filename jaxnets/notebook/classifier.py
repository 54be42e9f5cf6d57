"""Classifier: a network as an estimator of scikit-learn, which only this module needs."""

import dataclasses
import math
from typing import Any, Self

import numpy as np

from jaxnets.config.fields import Config, unknown_field
from jaxnets.config.recipes import DEFAULT_MODEL
from jaxnets.data.arrays import from_arrays, to_images
from jaxnets.errors import UserError
from jaxnets.notebook.network import Network

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("Classifier: expected scikit-learn 1.6: pip install scikit-learn") from error

FIELDS = Config.__dataclass_fields__

# For scikit-learn's check_estimator and parametrize_with_checks: what fails, and why.
EXPECTED_FAILED_CHECKS = {
    "check_no_attributes_set_in_init": "an attribute for each field of Config that is given, "
    "which `settings` in the signature stands for",
    "check_do_not_raise_errors_in_init_or_set_params": "`settings`, to which it gives a value, is "
    "no parameter but stands for the fields of Config",
}


class Classifier(ClassifierMixin, BaseEstimator):
    """A network with scikit-learn's manners.

    Unlike those of a Network, `fit` begins anew, trains on all examples and returns the estimator;
    `predict` gives labels.

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

    def __init__(self, model: str = DEFAULT_MODEL, *, verbose: int = 0, **settings: Any):
        """Takes a network's name, what `Network.fit` prints, and fields of Config.

        Without `validation_size` no examples are held back for a validation.
        """
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

    def fit(self, X: Any, y: Any) -> Self:
        """Trains on images [N, H, W] or [N, H, W, C], or on rows [N, D], and labels.

        Rows are images if they are pixels of squares of 8 x 8 or more; else a table of any finite
        numbers, whose columns the network standardizes.
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

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags
