"""What a Network begins with: its config, its data, its rules, and the run that it continues."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self, TypeGuard

from jaxnets.backprop.rule import FindRule
from jaxnets.backprop.rules import rule_of
from jaxnets.base.errors import UserError
from jaxnets.config.fields import Config
from jaxnets.config.recipes import DEFAULT_MODEL
from jaxnets.config.resolve import OwnNetwork
from jaxnets.course.exercises.mine import OwnPasses
from jaxnets.data.arrays import NAME, from_arrays
from jaxnets.data.datasets import Dataset
from jaxnets.experiment import Experiment
from jaxnets.gradcheck.layer_check import judge_own_layers
from jaxnets.models.chain import Chain
from jaxnets.networks.own import from_file, from_object
from jaxnets.notebook.collect import collected
from jaxnets.notebook.wrong_names import INSTEAD
from jaxnets.runs.request import load_data, request
from jaxnets.runs.run import check_rules
from jaxnets.runs.run_folder import CONFIG, NO_RULES, RunFolder, command_of, rules_of

ModelLike = str | Config | Chain | Callable[[int], Chain]
Data = Any  # A Dataset, a data set's name or folder, or arrays as `data.arrays.from_arrays` takes.


@dataclasses.dataclass(frozen=True)
class Beginning:
    """A network before it trains. A training that fails leaves the network here."""

    config: Config
    given_data: Dataset | None  # None: the data set that the config names.
    find_rule: FindRule
    folder: RunFolder | None = None  # The run to continue.
    notes: tuple[str, ...] = ()  # What is unusual about the data.
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])

    @classmethod
    def of_arguments(
        cls,
        model: ModelLike = DEFAULT_MODEL,
        data: Data = None,
        find_rule: FindRule = rule_of,
        **settings: Any,
    ) -> Self:
        """A new network, from the arguments of `Network`.

        Raises:
          UserError: A name, a value, or the data do not fit.
        """
        for name in settings:
            if name in INSTEAD:
                raise UserError("{}: {}", name, INSTEAD[name])
        data = collected(data)
        arguments = {"model": model, "data": data, "find_rule": find_rule, **settings}
        base, given = None, dict[str, Any]()
        if isinstance(model, Config):
            base = model
        else:
            given["model"] = _model_of(model)
            given |= find_rule.settings if isinstance(find_rule, OwnPasses) else {}
        given |= settings
        if data is not None:
            given["dataset"] = _name_of(data)
        config, dataset, notes = request(given, partial(dataset_of, data), base=base)
        made = cls(config, dataset, find_rule, notes=notes, arguments=arguments)
        _ = made.experiment  # Raises at once if something does not fit.
        return made

    def changed(self, data: Dataset | None, settings: Mapping[str, Any]) -> Self:
        """The same network with other settings and, unless `data` is None, with these data."""
        given = {**self.arguments, **settings}
        if data is not None:
            given |= {"data": data, "validation_size": len(data.validation)}
        return self.of_arguments(**given)

    @classmethod
    def of_run(
        cls, folder: RunFolder, config: Config, data: Data = None, find_rule: FindRule = rule_of
    ) -> Self:
        """A run that `fit` continues, with its own data unless others are given.

        Raises:
          UserError: The data do not fit.
        """
        data, dataset = collected(data), None
        if data is not None:
            config = dataclasses.replace(config, dataset=_name_of(data), data_dir=None)
            dataset = None if _is_name(data) else dataset_of(data, config)
        return cls(config, dataset, find_rule, folder=folder)

    @functools.cached_property
    def experiment(self) -> Experiment:
        """The parts of the first training, which reads the data and judges the user's own rules.

        Raises:
          UserError: The data are in no file, or the rules are not those of the run.
          RunFailedError: A rule is wrong.
        """
        data = dataset_of(None, self.config) if self.given_data is None else self.given_data
        if data.is_regression:
            raise UserError("data: expected classes; Experiment.create(...).train() regresses")
        experiment = Experiment.create(self.config, data, find_rule=self.find_rule)
        if self.folder is not None:
            written = self.folder.read(CONFIG)
            check_rules(rules_of(written), self.rules, command_of(written))
        own = self.find_rule
        judge = own.judge if isinstance(own, OwnPasses) else judge_own_layers
        judge(experiment)
        return experiment

    @property
    def rules(self) -> Mapping[str, str]:
        """What identifies rules other than ours."""
        return self.find_rule.sha256 if isinstance(self.find_rule, OwnPasses) else NO_RULES


def dataset_of(data: Data, config: Config) -> Dataset:
    """The data, limited as the config asks; by default the data set that it names."""
    if data is None and config.dataset == NAME:
        ways = "net.fit(x, y) or jaxnets.load(DIR, data=(x, y))"
        raise UserError("data: the arrays are in no file; expected {}", ways)
    if data is None or _is_name(data):
        return load_data(config)
    dataset = data if isinstance(data, Dataset) else from_arrays(data, config.validation_size)
    return dataset.limited(config.limit)


def arrays_to_fit(x: Data, y: Any, validation: Any, validation_size: float) -> Dataset:
    """The data set of the arrays that `Network.fit` takes.

    Raises:
      UserError: The data have a name, or do not fit.
    """
    if isinstance(x, str | os.PathLike | Dataset):
        what = "DATASET" if isinstance(x, Dataset) else repr(os.fspath(x))
        raise UserError('fit: data with a name are the network\'s: Network("cnn", {}).fit()', what)
    pair = collected(x) if y is None else (x, y)
    return from_arrays(pair, validation_size, validation=collected(validation), test=False)


def _model_of(model: str | Chain | Callable[[int], Chain]) -> str | OwnNetwork:
    if isinstance(model, str):
        return from_file(model) if model.endswith(".py") else model
    return from_object(model)


def _is_name(data: Data) -> TypeGuard[str | os.PathLike[str]]:
    return isinstance(data, str | os.PathLike)


def _name_of(data: Data) -> str:
    """The name that a config has for data."""
    if _is_name(data):
        return os.fspath(data)
    return data.name if isinstance(data, Dataset) else NAME
