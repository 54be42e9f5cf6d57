"""Answers to names and arguments that a Network does not have."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jaxnets.base.described import Described
from jaxnets.base.errors import UserError
from jaxnets.base.suggestions import ANSWERS, suggest
from jaxnets.config.fields import Config
from jaxnets.config.unknown import unknown_field

# Fields that only train.py supports, and what a Network has instead.
INSTEAD = {
    "workdir": "net.save(DIR) writes the run folder",
    "overwrite": "net.save(DIR, overwrite=True) replaces a run",
    "resume": "jaxnets.load(DIR) continues a run",
    "layers": "Network(chain) takes a Chain of your own; hidden=(64, 64) are a recipe's units",
}

# Arguments of Keras's fit, and how to weight examples here.
WEIGHTS = {
    "class_weight": "a loss of your own weights classes: Network(..., loss=lambda logits, labels: "
    "weights[labels] * cross_entropy(logits, labels)), with jaxnets.losses.cross_entropy",
    "sample_weight": "drawn rows weight examples: rows = np.random.default_rng(0).choice(len(x), "
    "len(x), p=w / w.sum()); net.fit(x[rows], y[rows])",
}


class WithSettings(Described):
    """An object that names the setting which is meant by a wrong attribute."""

    _attributes: tuple[str, ...] = ()  # The public ones that may be set.

    if not TYPE_CHECKING:  # Type checkers then find wrong names.

        def __getattr__(self, name):
            if name not in ANSWERS:
                _check_setting(name)
            return super().__getattr__(name)

        def __setattr__(self, name, value):
            if name[0] != "_" and name not in self._attributes and not hasattr(type(self), name):
                _check_setting(name)
                suggest("Network", name, self._attributes)
                raise AttributeError(f'Network has no "{name}"')
            super().__setattr__(name, value)


def _check_setting(name: str) -> None:
    """Raises AttributeError for a field of Config, which is not an attribute of a Network."""
    if name in INSTEAD:
        raise AttributeError(f'Network has no "{name}"; {INSTEAD[name]}')
    if name in Config.__dataclass_fields__:
        raise AttributeError(
            f'Network has no "{name}", which is a setting: Network("cnn", {name}=...) takes it, '
            f"net.config.{name} has it"
        )


def check_fit(
    settings: Mapping[str, object], has_data: bool, validation_data: object, share: float | None
) -> None:
    """Checks the arguments of `Network.fit` other than the data.

    Raises:
      UserError: A weight, or a setting that is not a field of Config; validation data without x and
        y; or validation given twice.
    """
    if settings.get("shuffle", True) is not True:
        raise UserError("shuffle: every epoch has its own order, which seed determines")
    for name in settings:
        if name in WEIGHTS:
            raise UserError("{}: {}", name, WEIGHTS[name])
        if name not in ("shuffle", *Config.__dataclass_fields__):
            known = ("epochs", "callbacks", "verbose", *Config.__dataclass_fields__)
            raise unknown_field(name, known)
    for name, value in (("validation_data", validation_data), ("validation_split", share)):
        if value is not None and not has_data:
            raise UserError(
                '{}: expected with x and y; Network("cnn", validation_size=...) holds images back',
                name,
            )
    if share is not None and (validation_data is not None or not 0 <= share < 1):
        raise UserError(
            "validation_split: expected from 0 to below 1, without validation_data, got {}", share
        )
