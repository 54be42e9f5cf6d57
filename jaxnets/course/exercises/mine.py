"""Trains with backward passes of the user's own: judged first, then in place of ours.

`train.py --mine=my_dense.py` names files, `Network("mlp", mine=[dense_backward])` functions. With
--even_if_wrong a wrong one trains too, after the right one: same seed, same data.
"""

import contextlib
import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.backprop.rule import LayerRule, Setting
from jaxnets.backprop.rules import OURS, RULES, OwnPasses, rule_of
from jaxnets.base.display import paint, show
from jaxnets.base.errors import RunFailedError, UserError
from jaxnets.base.language import Text, _, speaking
from jaxnets.config.fields import Config
from jaxnets.course.exercises.catalogue import Blank, Bug, Task, exercise_of_function
from jaxnets.course.exercises.files import exercises_in, read_source
from jaxnets.course.exercises.judge import Verdict, broken, judge, judge_file, layer_of
from jaxnets.course.exercises.mistakes import mistake
from jaxnets.course.exercises.passes import Call, ResultError, file_of, named_result, run_file
from jaxnets.data.batches import Batch
from jaxnets.data.datasets import Dataset
from jaxnets.experiment import make_loss_and_grad
from jaxnets.gradcheck.layer_check import (
    check_by_autodiff,
    judged_rows,
    layers_of,
    setting_of,
    with_backward,
)
from jaxnets.losses import LOSSES
from jaxnets.models.chain import walk
from jaxnets.networks.create import create_model
from jaxnets.runs import stopping
from jaxnets.runs.progress import Progress
from jaxnets.runs.run import Run
from jaxnets.runs.run_folder import MINE
from jaxnets.training.observer import EarlyStopping, Record, Stop
from jaxnets.training.step import Checkpoint

Backward = Callable[..., Any]


class Own(NamedTuple):
    """A backward pass of the user's own."""

    exercise: Blank | Bug
    where: str  # The file's path; in a notebook the function's name.
    text: str  # "" if Python does not have it.
    function: Backward | None  # None: the file defines it.

    @property
    def backward(self) -> Backward:
        """The function; this runs its file."""
        try:
            return self.function or run_file(self.text, self.where)[self.exercise.function]
        except (Exception, SystemExit) as error:
            raise UserError("mine: {}: {}", self.where, mistake(error, self.where)) from error


def own_passes(
    mine: Sequence[str | Backward],
    config: Config,
    data: Dataset,
    kept: Mapping[str, str] | None = None,
) -> OwnPasses:
    """Judges backward passes, prints the verdicts, and puts the passes in place of ours.

    A pass is judged as an exercise, then on as many rows as a step takes.

    Args:
      mine: Files as `jaxnets exercise new` writes them, or functions named after an exercise.
      config: The network, its loss, and even_if_wrong.
      data: Its data set.
      kept: The digests with which a run began that goes on; None for a new run.

    Raises:
      UserError: A file holds no exercise, two passes are of one layer, the network has no such
        layer, the digests differ, or JAX cannot compile a step with them.
      RunFailedError: A gradient is wrong, without even_if_wrong: status 1, as of `gradcheck`.
    """
    found = [own for one in mine for own in _own(one)]
    _check_layers([own.exercise for own in found], config)
    digests = {o.exercise.function: hashlib.sha256(o.text.encode()).hexdigest() for o in found}
    if kept is not None and kept != digests:
        raise UserError(
            "mine: expected the passes with which the run began, SHA-256 {}, got {}",
            kept or "none",
            digests,
        )
    with speaking(None):  # As gradcheck --mine.
        judged = list[Verdict]()
        for one in mine:
            judged += judge_file(one) if isinstance(one, str) else [judge(one)]
        verdicts = [
            _at_the_batch(own, config, data) if verdict else verdict
            for own, verdict in zip(found, judged, strict=True)
        ]
        for verdict in verdicts:
            show(paint(verdict.line, "green" if verdict else "red"))
    wrong = [verdict for verdict in verdicts if not verdict]
    if wrong and not config.even_if_wrong:
        names = ", ".join(verdict.exercise for verdict in wrong)
        raise RunFailedError(
            "mine: expected right gradients, got wrong ones of {}; even_if_wrong trains with "
            "them all the same",
            names,
        )
    rules = [(RULES[own.exercise.layer], _rule_of(own)) for own in found]

    def find_rule(layer: object) -> LayerRule | None:
        rule = rule_of(layer)
        return next((own for ours, own in rules if ours is rule), rule)

    own = OwnPasses(find_rule, digests, list(map(_finding, wrong)))
    _trace(own, config, data)
    return own


def _at_the_batch(own: Own, config: Config, data: Dataset) -> Verdict:
    """Judges a pass that was right in few rows: in the network, on as many as a step takes."""
    name, ours = own.exercise.function, RULES[own.exercise.layer]
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
    """The exercises in a file, of which nothing runs, or the one that a function answers."""
    if isinstance(one, str):
        text = read_source(one)
        names = exercises_in(text, one)[0]
        return [Own(_pass_called(name), one, text, None) for name in names]
    name, text = getattr(one, "__name__", ""), ""
    with contextlib.suppress(OSError, TypeError):
        text = inspect.getsource(one)
    return [Own(_pass_called(name), name, text, one)]


def _pass_called(name: str) -> Blank | Bug:
    """The backward pass that a function of this name answers.

    Raises:
      UserError: It is none.
    """
    exercise = exercise_of_function(name)
    if isinstance(exercise, Task):
        raise UserError("mine: expected a backward pass of a layer, got {}", name)
    return exercise


def _finding(verdict: Verdict) -> dict[str, Any]:
    """The record of a wrong pass in a run folder."""
    name, layer = verdict.exercise, _pass_called(verdict.exercise).layer
    return dict(function=name, layer=layer, gradients=verdict.wrong, reason=verdict.reason)


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
                "mine: {} is a backward pass of {}, and {} has none (it has {})",
                function,
                layer,
                config.model,
                ", ".join(known),
            )
        if other := found.get(layer):
            raise UserError("mine: expected one pass of {}, got {} and {}", layer, other, function)
        found[layer] = function


def _trace(own: OwnPasses, config: Config, data: Dataset) -> None:
    """Takes a step of the network without numbers: what fails in it is said before a run begins."""
    model, rows = create_model(config, data.num_classes), config.batch_size or len(data.train)
    images: Any = jax.ShapeDtypeStruct((rows, *data.image_shape), jnp.float32)
    key = jax.random.key(0)
    batch = Batch(images, np.zeros(rows, np.int32), np.ones(rows, np.float32))
    params = jax.eval_shape(model.init, key, images)["params"]
    jax.eval_shape(make_loss_and_grad(config, model, own.find_rule), params, batch, key)


def _rule_of(own: Own) -> LayerRule:
    """The layer with the user's backward pass; what fails in it while JAX traces it is one line."""
    exercise, backward = own.exercise, own.backward
    rule, where = layer_of(exercise), f"mine: {own.where}"
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
            raise UserError("{}: {}", where, mistake(error, file_of(backward))) from error
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


def right_first(run: Run) -> None:
    """Trains by the right passes, where wrong ones are to train; the records are for a report.

    First, since a wrong gradient may end its own training. A resumed run does not repeat it.
    """
    experiment, wrong = run.experiment, run.experiment.own.wrong
    if not wrong or run.folder.read(MINE):
        return
    config, records = experiment.config, list[Record]()
    ours = make_loss_and_grad(config, experiment.step_model)
    right = dataclasses.replace(experiment, own=OURS, loss_and_grad=ours)
    show(_("first by the right derivation, with the same seed and data:"))
    with stopping.stop_on_interrupt(run.processes) as signal_came:
        stop = Stop(signal_came)
        shown = Progress(config.epochs, right.loader)
        watching = [EarlyStopping(config, []), stop, shown]
        for _state, record in right.epochs(Checkpoint(right.init_state()), watching):
            records.append(record)
    run.folder.write(MINE, {"wrong": wrong, "right": records})
    show(_("now by yours:"))


def keep_end(run: Run, error: RunFailedError) -> RunFailedError:
    """Keeps for the report how wrong passes have ended a training; raises any other error."""
    if not (kept := run.folder.read(MINE)):
        raise error
    what = str(error).partition(";")[0]  # Without the advice, which is for right gradients.
    run.folder.write(MINE, {**kept, "ended": what})
    return error
