"""The neural networks of a university lecture in JAX and Flax, with every gradient also by hand.

The names below are all that a notebook needs; they are imported when first used, so that
`import jaxnets` and `train.py --help` cost nothing.
"""

import sys

from jaxnets.base.version import __version__ as __version__

if sys.version_info < (3, 11):  # noqa: UP036 (macOS has 3.9, and pip's message names another package)
    found = ".".join(map(str, sys.version_info[:3]))
    sys.exit(f"error: expected Python 3.11 or newer, got {found} (docs/install.md)")

TYPE_CHECKING = False  # Importing typing's takes as long as all else that `--help` needs.
if TYPE_CHECKING:
    from jaxnets.backprop.function import as_function
    from jaxnets.backprop.rule import Domain, LayerRule, Setting
    from jaxnets.backprop.rules import register_rule
    from jaxnets.config.fields import Config
    from jaxnets.config.resolve import preset
    from jaxnets.course.exercises.judge import judge
    from jaxnets.course.exercises.mine import own_passes
    from jaxnets.data.datasets import Dataset
    from jaxnets.data.load import load_dataset
    from jaxnets.experiment import Experiment
    from jaxnets.gradcheck import gradcheck
    from jaxnets.gradcheck.function_check import check
    from jaxnets.gradcheck.layer_check import check_layer
    from jaxnets.gradcheck.oracle import GradientCheck
    from jaxnets.models.batch_norm import BatchNorm
    from jaxnets.models.chain import Chain
    from jaxnets.models.layers import (
        AveragePool,
        LeakyReLU,
        MaxPool,
        flatten,
        global_average_pool,
    )
    from jaxnets.models.residual import Residual
    from jaxnets.notebook.callbacks import Callback
    from jaxnets.notebook.estimators import Classifier as Classifier
    from jaxnets.notebook.estimators import Regressor as Regressor
    from jaxnets.notebook.network import Network, load
    from jaxnets.predict.predict import load_predictor
    from jaxnets.report.plot import plot
    from jaxnets.training.history import History

__all__ = ["Callback", "Config", "Dataset", "Experiment", "History", "Network", "load"]
__all__ += ["judge", "load_dataset", "load_predictor", "plot", "preset"]
# For your own networks and layers.
__all__ += ["AveragePool", "BatchNorm", "Chain", "Domain", "LayerRule", "LeakyReLU", "MaxPool"]
__all__ += ["Residual", "Setting", "check_layer", "flatten", "global_average_pool", "gradcheck"]
__all__ += ["GradientCheck", "own_passes", "register_rule"]
# For other programs.
__all__ += ["as_function", "check"]

_HOMES = dict(
    AveragePool="models.layers",
    BatchNorm="models.batch_norm",
    Chain="models.chain",
    Domain="backprop.rule",
    LayerRule="backprop.rule",
    LeakyReLU="models.layers",
    MaxPool="models.layers",
    check="gradcheck.function_check",
    check_layer="gradcheck.layer_check",
    as_function="backprop.function",
    flatten="models.layers",
    global_average_pool="models.layers",
    gradcheck="gradcheck",
    GradientCheck="gradcheck.oracle",
    register_rule="backprop.rules",
    Callback="notebook.callbacks",
    Classifier="notebook.estimators",  # It and Regressor need scikit-learn: not in __all__.
    Config="config.fields",
    Dataset="data.datasets",
    Experiment="experiment",
    History="training.history",
    Network="notebook.network",
    Regressor="notebook.estimators",
    Residual="models.residual",
    Setting="backprop.rule",
    judge="course.exercises.judge",
    load="notebook.network",
    load_dataset="data.load",
    load_predictor="predict.predict",
    own_passes="course.exercises.mine",
    plot="report.plot",
    preset="config.resolve",
)


def __dir__() -> list[str]:
    return ["__version__", "Classifier", "Regressor", *__all__]


if not TYPE_CHECKING:  # Type checkers then find wrong names.

    def __getattr__(name: str):
        import importlib.machinery

        if name in _HOMES:
            return getattr(importlib.import_module(f"jaxnets.{_HOMES[name]}"), name)
        # `from jaxnets.base import errors` asks for it first, and imports it then.
        is_room = importlib.machinery.PathFinder.find_spec(f"jaxnets.{name}", __path__)
        if name[0] != "_":
            from jaxnets.base.suggestions import suggest

            suggest("jaxnets", name, __all__ if is_room is None else ())
        raise AttributeError(f"module 'jaxnets' has no attribute {name!r}")
