"""Trains with the user's own backward passes: judged first, then used instead of ours.

`jaxnets exercise train my_dense.py` names files, `Network("mlp", find_rule=own_passes(...))` takes
functions. With --even_if_wrong a wrong one also trains: after the right one, with the same seed and
data.
"""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.backprop.rule import LayerRule, Setting
from jaxnets.backprop.rules import RULES, rule_of
from jaxnets.base.display import paint, show
from jaxnets.base.errors import RunFailedError, UserError
from jaxnets.base.language import Text, _, speaking
from jaxnets.config.fields import Config
from jaxnets.course.comparison import Comparison, WrongPass
from jaxnets.course.exercises.catalogue import Blank, Bug, Task, exercise_of_function
from jaxnets.course.exercises.derived import DERIVED
from jaxnets.course.exercises.error_messages import ResultError, error_message
from jaxnets.course.exercises.files import exercises_in, read_source
from jaxnets.course.exercises.judge import Verdict, broken, judge, judge_file, layer_of
from jaxnets.course.exercises.passes import Call, defined_by, file_of, named_result
from jaxnets.data.batches import Batch
from jaxnets.data.datasets import Dataset
from jaxnets.experiment import Experiment
from jaxnets.gradcheck.layer_check import (
    check_by_autodiff,
    judge_own_layers,
    judged_rows,
    layers_of,
    setting_of,
    with_backward,
)
from jaxnets.gradcheck.oracle import with_gradient_check
from jaxnets.losses import LOSSES
from jaxnets.models.chain import walk
from jaxnets.networks.create import create_model
from jaxnets.parts import make_loss_and_grad
from jaxnets.runs import stopping
from jaxnets.runs.progress import Progress
from jaxnets.runs.run import Run
from jaxnets.training.observer import EarlyStopping, Observer, Record, Stop
from jaxnets.training.step import Checkpoint

Backward = Callable[..., Any]


class Own(NamedTuple):
    """One of the user's own backward passes."""

    exercise: Blank | Bug
    where: str  # The file's path; in a notebook, the function's name.
    text: str  # "" if Python does not have it.
    function: Backward | None  # None: the file defines it.

    @property
    def backward(self) -> Backward:
        """The function; this runs its file."""
        try:
            return self.function or defined_by(self.text, self.where)[self.exercise.function]
        except (Exception, SystemExit) as error:
            raise UserError(
                "exercise: {}: {}", self.where, error_message(error, self.where)
            ) from error


class OwnPasses:
    """A find_rule with the user's own backward passes instead of ours, which can judge them.

    Attributes:
      words: The words that name the passes on a command line.
      settings: The fields of Config for a training by these passes, unless the user gives them.
      sha256: The digest of each pass's source, by its name.
      wrong: The wrong passes that `judge` has found.
    """

    def __init__(self, passes: Sequence[str | Backward], even_if_wrong: bool = False):
        self._passes, self._even_if_wrong = passes, even_if_wrong
        self._own = [own for one in passes for own in _own(one)]
        self.words = [one for one in passes if isinstance(one, str)]
        self.words += ["--even_if_wrong"] if even_if_wrong else []
        self.settings = dict(gradients="manual", kernels="plain") if passes else {}
        digests = {o.exercise.function: hashlib.sha256(o.text.encode()) for o in self._own}
        self.sha256 = {name: digest.hexdigest() for name, digest in digests.items()}
        self.wrong: list[WrongPass] = []

    def __call__(self, layer: object) -> LayerRule | None:
        rule = rule_of(layer)
        return next((own for ours, own in self._rules if ours is rule), rule)

    @functools.cached_property
    def _rules(self) -> list[tuple[LayerRule, LayerRule]]:
        """Each of our rules, and what replaces it."""
        return [(DERIVED[own.exercise.layer], _rule_of(own)) for own in self._own]

    def judge(self, experiment: Experiment) -> None:
        """Judges the passes as exercises, then on as many rows as a step takes; prints verdicts.

        Raises:
          UserError: Two passes belong to one layer, the network has no such layer, its gradients
            are not by hand, or JAX cannot compile a step with a pass.
          RunFailedError: A gradient is wrong, without even_if_wrong: status 1, as in `gradcheck`.
        """
        config, data = experiment.config, experiment.data
        for name, wanted in (("gradients", ("manual", "both")), ("kernels", ("plain",))):
            if self._own and getattr(config, name) not in wanted:
                expected, got = " or ".join(wanted), getattr(config, name)
                raise UserError("{}: expected {} with your own passes, got {}", name, expected, got)
        _check_layers([own.exercise for own in self._own], config)
        with speaking(None):  # As gradcheck --mine.
            judged = list[Verdict]()
            for one in self._passes:
                judged += judge_file(one) if isinstance(one, str) else [judge(one)]
            verdicts = [
                _at_the_batch(own, config, data) if verdict else verdict
                for own, verdict in zip(self._own, judged, strict=True)
            ]
            for verdict in verdicts:
                show(paint(verdict.line, "green" if verdict else "red"))
        wrong = [verdict for verdict in verdicts if not verdict]
        if wrong and not self._even_if_wrong:
            names = ", ".join(verdict.exercise for verdict in wrong)
            raise RunFailedError(
                "exercise: expected right gradients, got wrong ones of {}; even_if_wrong trains "
                "with them anyway",
                names,
            )
        self.wrong = list(map(_finding, wrong))
        _trace(self, config, data)
        judge_own_layers(experiment, even_if_wrong=self._even_if_wrong)


def own_passes(*passes: str | Backward, even_if_wrong: bool = False) -> OwnPasses:
    """Backward passes of your own, for Network(find_rule=...).

    Args:
      *passes: Functions named after an exercise, such as dense_backward, or files with some.
      even_if_wrong: Whether wrong ones train anyway, also those of your own layers.

    Raises:
      UserError: A file holds no exercise, or no backward pass of a layer.
    """
    return OwnPasses(passes, even_if_wrong)


def _at_the_batch(own: Own, config: Config, data: Dataset) -> Verdict:
    """Judges a pass that was right on few rows: in the network, on as many rows as a step takes."""
    name, ours = own.exercise.function, DERIVED[own.exercise.layer]
    model = create_model(config, data.num_classes)
    rows = judged_rows(config.batch_size or len(data.train), data.image_shape)
    settings = list[Setting]()
    for layer, shape in layers_of(model, (rows, *data.image_shape)):
        if rule_of(layer) is ours and (setting := setting_of(layer, ours, shape)) not in settings:
            settings.append(setting)
    if rule_of(LOSSES[config.loss]) is ours:
        settings.append(ours.settings[0]._replace(x=(rows, data.num_classes)))
    row = check_by_autodiff(name, _rule_of(own)._replace(settings=settings))
    if row.ok:
        return Verdict(name, True)
    cause = "; ".join(row.causes[:2]) or row.worst
    return Verdict(name, False, reason=_("on {} rows, {}", rows, cause))


def _own(one: str | Backward) -> list[Own]:
    """The exercises in a file, without running it, or the exercise that a function answers."""
    if isinstance(one, str):
        text = read_source(one)
        names = exercises_in(text, one)
        return [Own(_pass_called(name), one, text, None) for name in names]
    name, text = getattr(one, "__name__", ""), ""
    with contextlib.suppress(OSError, TypeError):
        text = inspect.getsource(one)
    return [Own(_pass_called(name), name, text, one)]


def _pass_called(name: str) -> Blank | Bug:
    """The backward pass that a function of this name answers.

    Raises:
      UserError: It is not a backward pass.
    """
    exercise = exercise_of_function(name)
    if isinstance(exercise, Task):
        raise UserError("exercise: expected a backward pass of a layer, got {}", name)
    return exercise


def _finding(verdict: Verdict) -> WrongPass:
    name, layer = verdict.exercise, _pass_called(verdict.exercise).layer
    return WrongPass(name, layer, list(verdict.wrong), str(verdict.reason))


def _check_layers(exercises: Sequence[Blank | Bug], config: Config) -> None:
    """Raises UserError if the network lacks an exercise's layer, or two exercises share one."""
    layers = [layer for _path, layer in walk(create_model(config, num_classes=2))]
    rules = [rule_of(one) for one in (*layers, LOSSES[config.loss])]
    known = [name for name, rule in RULES.items() if any(one is rule for one in rules)]
    found: dict[str, str] = {}
    for exercise in exercises:
        layer, function = exercise.layer, exercise.function
        if layer not in known:
            raise UserError(
                "exercise: {} is a backward pass of {}, and {} has none (it has {})",
                function,
                layer,
                config.model,
                ", ".join(known),
            )
        if other := found.get(layer):
            raise UserError(
                "exercise: expected one pass of {}, got {} and {}", layer, other, function
            )
        found[layer] = function


def _trace(find_rule: OwnPasses, config: Config, data: Dataset) -> None:
    """Traces a step of the network without numbers: an error in it appears before a run begins."""
    model, rows = create_model(config, data.num_classes), config.batch_size or len(data.train)
    images: Any = jax.ShapeDtypeStruct((rows, *data.image_shape), jnp.float32)
    key = jax.random.key(0)
    batch = Batch(images, np.zeros(rows, np.int32), np.ones(rows, np.float32))
    params = jax.eval_shape(model.init, key, images)["params"]
    jax.eval_shape(make_loss_and_grad(config, model, find_rule), params, batch, key)


def _rule_of(own: Own) -> LayerRule:
    """The layer with the user's backward pass; an error while JAX traces it becomes one line."""
    exercise, backward = own.exercise, own.backward
    rule, where = layer_of(exercise), f"exercise: {own.where}"
    # Its gradients have the right shapes, if not the right numbers.
    like = broken(exercise) if isinstance(exercise, Bug) and exercise.forward else rule

    @wraps(backward)
    def checked(cache: Any, d_out: jax.Array, **static: Any) -> Any:
        wanted = jax.eval_shape(partial(like.backward, **static), cache, d_out)
        d_params, dx = wanted if "params" in rule.inputs else ({}, wanted)
        call = Call("", cache, d_out, static, tuple(d_params), exercise.gradient)
        try:
            found = named_result(call, backward(cache, d_out, **static))
        except ResultError as error:
            raise UserError("{}: {}: {}", where, exercise.function, error) from error
        except Exception as error:
            raise UserError("{}: {}", where, error_message(error, file_of(backward))) from error
        for leaf, one in {**{f"params.{n}": d for n, d in d_params.items()}, "x": dx}.items():
            if found[leaf].shape != one.shape:
                shapes = Text("expected the shape {}, got {}", one.shape, found[leaf].shape)
                raise UserError(
                    "{}: {}: {}: {}", where, exercise.function, call.gradient_name(leaf), shapes
                )
            found[leaf] = found[leaf].astype(one.dtype)
        params = {name: found[f"params.{name}"] for name in d_params}
        return (params, found["x"]) if params else found["x"]

    return with_backward(rule, checked)


def train(passes: OwnPasses, flags: Mapping[str, Any], train_run: Callable[..., Run]) -> None:
    """Trains with the user's own passes; if one is wrong, first with the right ones.

    Args:
      passes: The user's passes.
      flags: Fields of Config.
      train_run: Trains a run to its end, as cli/training.py does.

    Raises:
      RunFailedError: Wrong passes have ended their training. The comparison is saved first.
    """
    train_run(
        dict(flags) if flags.get("resume") else {**passes.settings, **flags},
        around=lambda run: _compared(passes.wrong, run),  # Once they are judged.
        judge=passes.judge,
        command=["exercise", "train", *passes.words],
        find_rule=passes,
        rules=passes.sha256,
    )


@contextlib.contextmanager
def _compared(wrong: Sequence[WrongPass], run: Run) -> Iterator[list[Observer]]:
    """Trains with the right passes if wrong ones will train, and keeps what to compare.

    The right passes come first, since wrong ones may end their training. A resumed run does not
    train them again.
    """
    if not wrong:
        yield []
        return
    if kept := Comparison.read(run.folder):
        right = kept.right
    else:
        show(_("first with the right derivation, with the same seed and data:"))
        right = _train_right(run)
        show(_("now with yours:"))
    comparison = Comparison([*wrong], right)
    comparison.write(run.folder)
    try:
        yield []
    except RunFailedError as error:  # Without the message's advice, which is for right gradients.
        ended = str(error).partition(";")[0]
        dataclasses.replace(comparison, ended=ended).write(run.folder)
        raise


def _train_right(run: Run) -> list[Record]:
    """The epochs of a training with the right passes, with the run's seed and data."""
    config, records = run.config, list[Record]()
    ours = make_loss_and_grad(config, run.experiment.step_model)
    right = dataclasses.replace(run.experiment, find_rule=rule_of, loss_and_grad=ours)
    with stopping.stop_on_interrupt(run.processes) as signal_came:
        observers: list[Observer] = [EarlyStopping(config, []), Stop(signal_came)]
        observers = with_gradient_check(right, [*observers, Progress(config.epochs, right.loader)])
        for _state, record in right.epochs(Checkpoint(right.init_state()), observers):
            records.append(record)
    return records
