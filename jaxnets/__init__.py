"""The neural networks of a university lecture in JAX and Flax, every gradient also by hand.

The names below are all that a notebook needs; they are imported when first used, so that
`import jaxnets` and `train.py --help` cost nothing.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False  # typing's own takes as long to import as all else that `--help` needs.
if TYPE_CHECKING:
    from jaxnets.config.fields import Config, preset
    from jaxnets.data.load import load_dataset
    from jaxnets.experiment import Experiment

__all__ = ["__version__", "Config", "Experiment", "load_dataset", "preset"]

_HOMES = {
    "Config": "jaxnets.config.fields",
    "preset": "jaxnets.config.fields",
    "Experiment": "jaxnets.experiment",
    "load_dataset": "jaxnets.data.load",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
