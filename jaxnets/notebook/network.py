"""A network as in Keras: one object that fits, evaluates, predicts and saves.

>>> import jaxnets
>>> net = jaxnets.Network("softmax", epochs=1)
>>> history = net.fit(verbose=0)
>>> history["val_accuracy"][-1] > 0.9, net.evaluate().accuracy > 0.9
(True, True)
>>> net.predict(net.data.test.images[:2]).argmax(axis=1).tolist()
[7, 2]
>>> gradients = net.gradients(net.data.train.images[:8], net.data.train.labels[:8])
>>> {name: array.shape for name, array in gradients["logits"].items()}
{'bias': (10,), 'kernel': (784, 10)}
"""

import contextlib
import copy
import dataclasses
import os
import shutil
import signal
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeGuard, Unpack

import jax
import numpy as np

from jaxnets.backprop.rule import FindRule
from jaxnets.backprop.rules import rule_of
from jaxnets.base.display import show
from jaxnets.base.errors import UserError, expect
from jaxnets.base.facts import ANSWERS, Described, check
from jaxnets.base.language import Text, said
from jaxnets.base.trees import Params
from jaxnets.config.fields import CUSTOM_FIELDS, Config
from jaxnets.config.options import is_custom
from jaxnets.config.recipes import DEFAULT_MODEL
from jaxnets.config.resolve import OwnNetwork
from jaxnets.config.settings import FitSettings, Settings
from jaxnets.config.unknown import unknown_field
from jaxnets.course.exercises.mine import OwnPasses
from jaxnets.data.arrays import NAME, from_arrays, to_images, to_split
from jaxnets.data.datasets import Dataset, Split
from jaxnets.experiment import Experiment
from jaxnets.gradcheck.layer_check import judge_own_layers
from jaxnets.gradcheck.networks import network_for
from jaxnets.gradcheck.oracle import with_gradient_check
from jaxnets.gradcheck.table import print_checks
from jaxnets.machine.platform import Processes
from jaxnets.metrics import Metrics
from jaxnets.models.chain import Chain
from jaxnets.networks.create import create_model
from jaxnets.networks.own import from_file, from_object, know
from jaxnets.notebook.callbacks import Callbacks, bar_for
from jaxnets.notebook.collect import collected
from jaxnets.predict.predict import PictureOrMany, Predictor, create_predictor, load_predictor
from jaxnets.predict.trained import to_input
from jaxnets.report import summary
from jaxnets.runs.progress import Progress
from jaxnets.runs.request import load_data, read_config, request
from jaxnets.runs.resume import load_checkpoint
from jaxnets.runs.run import Run, check_rules, write_config
from jaxnets.runs.run_folder import CONFIG, NO_RULES, RunFolder, command_of, rules_of
from jaxnets.runs.stopping import stop_on_interrupt
from jaxnets.training.history import History
from jaxnets.training.loop import Interrupted, NonFiniteLossError
from jaxnets.training.observer import EarlyStopping, Observer, Record, Stop
from jaxnets.training.step import Checkpoint, TrainState

ModelLike = str | Config | Chain | Callable[[int], Chain]
Data = Any  # A Dataset, a data set's name or folder, or arrays as `data.arrays.from_arrays` takes.


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
ATTRIBUTES = ("config", "history", "stop_training")  # The public ones that may be set.


class FitArguments(FitSettings, total=False):
    """The settings of `Network.fit`; Keras's are accepted as far as they change nothing."""

    shuffle: bool


class Network(Described):
    """A network, its data and its training progress.

    Pickling a Network saves the run, not the data. For scikit-learn, use `jaxnets.Classifier`.

    Attributes:
      config: The settings.
      history: The records of all epochs so far.
      stop_training: A callback sets it to end `fit`.
    """

    def __init__(
        self,
        model: ModelLike = DEFAULT_MODEL,
        data: Data = None,
        *,
        find_rule: FindRule = rule_of,
        **settings: Unpack[Settings],
    ):
        """Makes a network with the lecture's recipe.

        Args:
          model: The network's name, such as "cnn" or "mlp"; or one of your own: a Chain, a function
            (num_classes) -> Chain, or a file such as "my_net.py" with such a function `model`; or a
            Config, which `preset` makes.
          data: A name ("mnist", "cifar10"), a folder of pictures, a Dataset; arrays (images,
            labels), of which a tenth is held back for validation and a tenth for test; an iterable
            of such batches, such as a DataLoader; or what Keras's `load_data` returns: ((images,
            labels), (images, labels)) for training and test.
          find_rule: Finds each layer's rule for the gradient by hand. `own_passes(dense_backward)`
            puts backward passes of your own in place of ours, and judges them first.
          **settings: Fields of Config, such as epochs=5, optimizer="adam". Three may be your own: a
            loss (logits [B, K], labels [B]) -> losses [B]; an optimizer, which is an optax
            transformation, or a function of the learning rate that makes one; and an augment (key,
            image [H, W, C]) -> image.

        Raises:
          UserError: A name, a value, or the data do not fit.
          RunFailedError: A pass of `find_rule` is wrong.
        """
        if isinstance(model, Network) or not (isinstance(model, str | Config) or callable(model)):
            got = type(model).__name__
            raise UserError(
                'model: expected a name such as "cnn", a Chain or a Config, got {}', got
            )
        for name in settings:
            if name in INSTEAD:
                raise UserError("{}: {}", name, INSTEAD[name])
        data = collected(data)
        rules = {} if find_rule is rule_of else {"find_rule": find_rule}
        self._given = {"model": model, "data": data, **rules, **settings}
        self._find_rule, self._is_judged = find_rule, False
        base = model if isinstance(model, Config) else None
        given: dict[str, Any] = {}
        if not isinstance(model, Config):
            given["model"] = _model_of(model)
            given |= find_rule.settings if isinstance(find_rule, OwnPasses) else {}
        given |= settings
        if data is not None:
            given["dataset"] = _name_of(data)
        made, self._data, self._notes = request(given, partial(_dataset_of, data), base=base)
        self._made, self._folder = made, None
        self._begin()
        _ = self.experiment  # Raises at once if something does not fit.

    def _facts(self) -> dict[str, Any]:
        done, config = len(self.history), self.config
        epochs = f"{done} of {config.epochs}"
        return {"model": config.model, "data": config.dataset, "epochs": epochs}

    if not TYPE_CHECKING:  # Type checkers then find wrong names.

        def __getattr__(self, name):
            if name not in ANSWERS:
                _check_setting(name)
            return super().__getattr__(name)

        def __setattr__(self, name, value):
            if name[0] != "_" and name not in ATTRIBUTES and not hasattr(type(self), name):
                _check_setting(name)
                check("Network", name, ATTRIBUTES)
                raise AttributeError(f'Network has no "{name}"')
            super().__setattr__(name, value)

    @classmethod
    def load(
        cls,
        workdir: str | os.PathLike[str],
        data: Data = None,
        *,
        layers: Any = (),
        find_rule: FindRule = rule_of,
        **functions: Any,
    ) -> Self:
        """Reads a run folder that `save` or train.py wrote; `fit` continues its training.

        Args:
          workdir: The folder of a finished or an interrupted run.
          data: Data to train on; by default the run's, which `predict` does not need.
          layers: The run's own layers: classes, functions, or files that define them.
          find_rule: The run's own rules, such as `own_passes(dense_backward)`; `fit` needs them.
          **functions: The run's own loss, optimizer and augment, which no file holds. `fit` and
            `evaluate` need them; `predict` does not.

        Raises:
          UserError: The folder holds no run, or a damaged one.
        """
        network, folder = cls.__new__(cls), RunFolder.open(os.fspath(workdir))
        for layer in layers:
            know(layer)
        config = read_config(folder)
        for name in functions:
            if name not in CUSTOM_FIELDS or not is_custom(getattr(config, name)):
                raise UserError("{}: the run was not trained with a function of your own", name)
        config = dataclasses.replace(config, **functions)
        network._read(folder, config, data, find_rule)
        return network

    def _read(
        self, folder: RunFolder, config: Config, data: Data, find_rule: FindRule = rule_of
    ) -> None:
        data, dataset = collected(data), None
        if data is not None:
            config = dataclasses.replace(config, dataset=_name_of(data), data_dir=None)
            dataset = None if _is_name(data) else _dataset_of(data, config)
        self._made, self._data, self._folder, self._notes = config, dataset, folder, ()
        rules = {} if find_rule is rule_of else {"find_rule": find_rule}
        self._given = {"model": config, "data": data, **rules}
        self._find_rule, self._is_judged = find_rule, False
        self._begin()

    def _begin(self) -> None:
        """Resets the network to the state in which it was made or loaded; the data stay."""
        self.config = self._made
        self.history = History(self._folder.records() if self._folder else ())
        self.stop_training = False
        self._experiment: Experiment | None = None
        self._checkpoint: Checkpoint | None = None
        self._predictors: dict[str, Predictor] = {}  # By engine.

    @property
    def experiment(self) -> Experiment:
        """The immutable parts that the config and the data determine (model, loader, step)."""
        if self._experiment is None:
            if self._data is None:
                self._data = _dataset_of(None, self.config)
            if self._data.is_regression:
                raise UserError("data: expected classes; Experiment.create(...).train() regresses")
            rule = self._find_rule
            experiment = Experiment.create(self.config, self._data, find_rule=rule)
            self._experiment = self._judged(experiment)
        return self._experiment

    def _judged(self, experiment: Experiment) -> Experiment:
        """The experiment, once the user's own rules are judged; a run continues only with them."""
        if not self._is_judged:
            if self._folder is not None:
                written = self._folder.read(CONFIG)
                check_rules(rules_of(written), self._rules, command_of(written))
            own = self._find_rule
            judge = own.judge if isinstance(own, OwnPasses) else judge_own_layers
            judge(experiment)
            self._is_judged = True
        return experiment

    @property
    def _rules(self) -> Mapping[str, str]:
        """What identifies rules other than ours."""
        return self._find_rule.sha256 if isinstance(self._find_rule, OwnPasses) else NO_RULES

    @property
    def data(self) -> Dataset:
        return self.experiment.data

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the probabilities."""
        return (self.predictor if self._experiment is None else self.data).class_names

    @property
    def classes_(self) -> np.ndarray:
        """The labels of the classes, as they are in the data: numbers from 0, or names."""
        names = self.class_names
        numbers = np.arange(len(names))
        return numbers if names == tuple(map(str, numbers)) else np.array(names)

    @property
    def state(self) -> TrainState:
        """Parameters, optimizer state and step; the next `fit` takes their memory."""
        return self._reached().state

    def _reached(self) -> Checkpoint:
        """The last checkpoint of the training, or a fresh one."""
        if self._checkpoint is None:
            state = self.experiment.init_state()
            self._checkpoint = Checkpoint(state)
            if self._folder is not None:
                self._checkpoint = load_checkpoint(self._folder, self.experiment, state)
            # A killed run may have logged epochs whose checkpoint was never written.
            del self.history[int(self._checkpoint.state.step) // self.experiment.loader.steps :]
        return self._checkpoint

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *,
        epochs: int | None = None,
        callbacks: Any = (),
        verbose: int | str = 1,
        validation_data: Any = None,
        validation_split: float | None = None,
        **settings: Unpack[FitArguments],
    ) -> History:
        """Trains; a second call continues, as `train.py --resume` with more epochs does.

        Args:
          x: All images to train on, instead of the network's data. A second call takes the same
            ones. An iterable of batches (images, labels) brings its labels.
          y: Their labels: numbers from 0, or texts.
          epochs: How many; by default those of the recipe that are left, or as many again.
          callbacks: One or several jaxnets.Callback, or functions (epoch, logs).
          verbose: 1 for a bar and a line for each epoch, 2 for only the lines, 0 for nothing.
          validation_data: (images, labels) to evaluate after each epoch, in addition to x and y.
          validation_split: The share of x that is held back for that, drawn at random.
          **settings: Fields of Config for an untrained network, such as batch_size=32.

        Returns:
          The records of these epochs.

        Raises:
          RunFailedError: The loss is not finite, or the gradients disagree. The network is then
            reset to the state in which it was made or loaded.
          KeyboardInterrupt: Ctrl-C; the steps until then are kept, and `fit` continues from them.
        """
        _check_fit(settings, x is not None, validation_data, validation_split)
        settings.pop("shuffle", None)
        if x is not None or settings:
            self._take(x, y, validation_data, validation_split or 0.0, settings, epochs)
        hooks, start, first = Callbacks(self, callbacks), self._reached(), len(self.history)
        self._plan(epochs)
        for note in self._notes if verbose and not first else ():
            show(note)
        self.stop_training = False
        early = EarlyStopping(self.config, self.history)
        with stop_on_interrupt() as signal_came:
            shown = []
            if verbose:
                loader, bar = self.experiment.loader, bar_for(verbose)
                shown = [Progress(self.config.epochs, loader, bar)]
            try:
                watching = [_Reached(self), early, Stop(signal_came), *shown, hooks]
                watching = with_gradient_check(self.experiment, watching)
                for _ in self.experiment.epochs(start, watching):
                    pass
            except Interrupted as interrupted:
                self._checkpoint = interrupted.checkpoint
            except BaseException as error:  # The parameters were given to the step that failed.
                if isinstance(error, NonFiniteLossError):
                    rate = self.config.learning_rate
                    error.args = (
                        "{}; try a learning_rate below {}",
                        Text(*error.args),
                        f"{rate:g}",
                    )
                self._begin()
                raise
        if verbose and early.reason:
            show(said(early.reason))
        hooks.call("on_train_end", self.history[first:].last)
        if hooks.error is not None:
            raise hooks.error
        if number := signal_came():
            signal.raise_signal(number)
        return self.history[first:]

    def _take(
        self, x: Any, y: Any, validation: Any, share: float, settings: Any, epochs: int | None
    ) -> None:
        """Gives data and settings to an untrained network; others keep theirs."""
        given, dataset = {**self._given, **settings}, None
        if epochs is not None:
            given["epochs"] = epochs
        if isinstance(x, str | os.PathLike | Dataset):
            what = "DATASET" if isinstance(x, Dataset) else repr(os.fspath(x))
            raise UserError(
                'fit: data with a name are the network\'s: Network("cnn", {}).fit()', what
            )
        if x is not None:
            pair = collected(x) if y is None else (x, y)
            validation, count = collected(validation), given.get("validation_size", share)
            dataset = from_arrays(pair, count, validation=validation, test=False)
            given |= {"data": dataset, "validation_size": len(dataset.validation)}
        reached = self._checkpoint
        if self._folder is None and (reached is None or not int(reached.state.step)):
            self.__init__(**given)
            return
        known = self._folder.read(CONFIG).get("data_sha256") if self._folder else self.data.checksum
        what = next(iter(settings), "x and y")
        if settings or (dataset is not None and dataset.checksum != known):
            raise UserError(
                "{}: expected those of the first fit, because the network is trained; "
                'Network("{}", ...) begins another',
                what,
                self.config.model,
            )
        if self._data is None:
            self._data = dataset

    def _plan(self, epochs: int | None) -> None:
        """Sets the config's epochs to what they will be after the next training."""
        if epochs is not None:
            dataclasses.replace(self.config, epochs=epochs)  # UserError if it is not a number.
        done = int(self.state.step) // self.experiment.loader.steps
        total = done + (epochs or (self.config.epochs - done) or self._made.epochs)
        if total != self.config.epochs:
            old, self.config = self.experiment, dataclasses.replace(self.config, epochs=total)
            same = old.data, old.parallel.devices, old.find_rule
            self._experiment = Experiment.create(self.config, *same)

    def evaluate(
        self,
        images: Any = None,
        labels: Any = None,
        *,
        batch_size: int | None = None,
        verbose: int | str = 0,
    ) -> Metrics:
        """The metrics of the test images, or of others.

        Args:
          images: A Split, images [N, H, W, C], or an iterable of batches (images, labels); None
            means the test images.
          labels: Their classes [N], numbers or names, if `images` are an array.
          batch_size: The largest number of images at once; the metrics do not depend on it.
          verbose: As in Keras, but nothing is printed.

        Raises:
          UserError: The images do not fit, or there are none.
        """
        if images is None and not len(self.data.test):
            raise UserError(
                "evaluate: fit(x, y) holds no test images back; give them: "
                "net.evaluate(x_test, y_test)"
            )
        split = self._split(images, labels)
        return self.experiment.evaluate(self.state, split, **_batches_of(batch_size))

    def _split(self, images: Any, labels: Any) -> Any:
        """Images of the training images' size, with their labels; other values stay unchanged."""
        images = collected(images)
        if labels is None and isinstance(images, tuple) and len(images) == 2:
            images, labels = images
        split, form = images, self.data.image_shape
        if labels is not None:
            split = to_split(images, labels, self.class_names, form)
        if isinstance(split, Split):
            _check_size(split.images, form)
        return split

    def gradients(self, images: Any, labels: Any = None, by: str = "manual") -> Params:
        """The gradients of the images' mean loss, or summed loss with `reduction="sum"`.

        They are those of the next training step without augmentation: dropout is on, and batch norm
        takes the statistics of these images.

        >>> import jaxnets
        >>> net = jaxnets.Network("softmax", epochs=1)
        >>> x, y = net.data.train.images[:64], net.data.train.labels[:64]
        >>> by_hand, by_autodiff = net.gradients(x, y), net.gradients(x, y, by="auto")
        >>> np.allclose(by_hand["logits"]["kernel"], by_autodiff["logits"]["kernel"], atol=1e-6)
        True

        Args:
          images: A Split, or images [N, H, W, C], which are one batch.
          labels: Their classes [N], numbers or names, if `images` is not a Split.
          by: "manual" for the gradients by hand, "auto" for those by autodiff.

        Returns:
          A dict of arrays with the shapes of `net.state.params`: gradients["conv1"]["kernel"].

        Raises:
          UserError: The images do not fit, or the network has no gradients by hand.
        """
        split = expect(self._split(images, labels), Split, "data.train")
        return jax.device_get(self.experiment.gradients(self.state, split, by))

    def gradcheck(self) -> bool:
        """Prints a table that compares the gradients by hand with autodiff and central differences.

        The network has random parameters, and images of the size of its data. Like torch's
        `gradcheck`, it returns True if all agree.

        Raises:
          UserError: The network has no gradients by hand, or has the user's own passes.
        """
        if self._rules:
            raise UserError(
                "gradcheck: Network(..., find_rule=...) has judged its passes; net.gradients(x, y, "
                'by="auto") gives the gradients by autodiff'
            )
        config = dataclasses.replace(self.config, gradients="manual")
        image = to_input(config, np.zeros((1, *self.data.image_shape), np.float32)).shape[1:]
        return print_checks(network_for(config, image, self.data.num_classes))

    def __call__(self, images: Any) -> np.ndarray:
        """The logits [N, K] of images [N, H, W, C], as in an evaluation.

        `predict` gives their softmax.
        """
        images = to_images(images, self.predictor.image_shape)
        _check_size(images, self.predictor.image_shape)
        return self.predictor.logits(images)

    def score(self, images: Any, labels: Any) -> float:
        """The accuracy: the share of images whose most probable class is their label.

        Args:
          images: Images [N, H, W, C].
          labels: Their classes [N], numbers or names.

        Returns:
          A number from 0 to 1.
        """
        split = to_split(images, labels, self.class_names, self.predictor.image_shape)
        return float(np.mean(self.predict(split.images).argmax(axis=1) == split.labels))

    def predict(
        self,
        pictures: PictureOrMany,
        *,
        batch_size: int | None = None,
        verbose: int | str = 0,
        engine: str = "jax",
    ) -> np.ndarray:
        """The probability of each class, as `Predictor` gives it.

        Args:
          pictures: One or several. A picture is a path, a Pillow image, or an array of bytes or of
            floats from 0 to 1.
          batch_size: The largest number of pictures that the network takes at once.
          verbose: As in Keras, but nothing is printed.
          engine: What computes, as in `load_predictor`: "jax" or "onnxruntime".

        Returns:
          Probabilities [N, K] float32.
        """
        predictor = self._predictor_by(engine)
        if not predictor.step and self.config.init_from is None:
            message = "the network is not trained: its weights are random; net.fit() trains it"
            warnings.warn(message, UserWarning, stacklevel=2)
        return predictor(pictures, **_batches_of(batch_size))

    predict_proba = predict

    @property
    def predictor(self) -> Predictor:
        """The network without its training, from pictures to probabilities."""
        return self._predictor_by("jax")

    def _predictor_by(self, engine: str) -> Predictor:
        known = self._predictors.get(engine)
        if self._folder is not None and self._checkpoint is None:  # Loaded, without data.
            known = known or load_predictor(str(self._folder.path), engine=engine)
        elif known is None or known.step != int(self.state.step):
            trained = self.config, self.data, self.state, self._finished
            known = create_predictor(*trained, engine)
        self._predictors[engine] = known
        return known

    @property
    def _finished(self) -> bool:
        early = EarlyStopping(self.config, self.history)
        return len(self.history) == self.config.epochs or early.reason is not None

    def summary(self) -> None:
        """Prints the layers with their shapes, parameters and arithmetic."""
        known = self.predictor if self._experiment is None else self.data
        model = create_model(self.config, len(known.class_names))
        show(summary.summary(model, known.image_shape, self.config.model).text())

    def save(self, workdir: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes a run folder as train.py does, and returns its path.

        `train.py --resume`, `jaxnets predict` and `jaxnets.load` read it. A network that is trained
        to its last epoch is tested first.

        Args:
          workdir: The folder to write.
          overwrite: Whether a run in it may be replaced.

        Raises:
          UserError: The folder holds a run, unless `overwrite`; or it cannot be written.
        """
        path, checkpoint = Path(workdir).expanduser(), self._reached()
        if (path / CONFIG).exists() and not overwrite:
            raise UserError("{} holds a run; net.save(DIR, overwrite=True) replaces it", path)
        test = self.evaluate() if self._finished and len(self.data.test) else None
        with RunFolder.replace(str(path), self.config.model, overwrite=overwrite) as folder:
            write_config(folder, self.experiment, rules=self._rules)
            for record in self.history:
                folder.log(record)
            run = Run(self.experiment, folder, Processes(), checkpoint)
            run.on_save(checkpoint)
            if self._finished:
                run.write_result(test)
        return path.resolve()

    def page(self, file: str | os.PathLike[str] = "page.html") -> None:
        """Writes the same web page as `jaxnets page`: the network at work, in one file.

        Args:
          file: The file to write.

        Raises:
          UserError: The network is not trained, the page cannot show it, or the file cannot be
            written.
        """
        from jaxnets.page import build

        self._check_trained("page")
        with self._saved() as (folder, data):
            show(build.write_page(folder, os.fspath(file), data=data).text())

    def report(self, file: str | os.PathLike[str] = "report.html") -> None:
        """Writes the same report as `jaxnets report`: curves, mistakes, gradients, in one file.

        Without test images, it judges the network by the validation images.

        Args:
          file: The file to write.

        Raises:
          UserError: The network is not trained, or the file cannot be written.
        """
        from jaxnets.report import build  # scipy.stats takes a second.

        self._check_trained("report")
        with self._saved() as (folder, data):
            written = build.write_report([folder], os.fspath(file), language=None, data=data)
            show(written.text())

    def _check_trained(self, what: str) -> None:
        """Raises UserError if there is nothing to show yet."""
        if self._folder is None and not int(self.state.step):
            raise UserError("{}: the network is not trained; net.fit() trains it", what)

    @contextlib.contextmanager
    def _saved(self) -> Iterator[tuple[str, Dataset | None]]:
        """The network's run folder, a temporary one unless it was only loaded; and its data."""
        if self._folder is not None and self._checkpoint is None:
            yield str(self._folder.path), self._data
        else:
            with tempfile.TemporaryDirectory() as folder:
                yield str(self.save(Path(folder) / self.config.model)), self.data

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments that the network was made with, as scikit-learn asks for them.

        Args:
          deep: Has no effect: no argument has arguments of its own.
        """
        return dict(self._given)

    def set_params(self, **params: Any) -> Self:
        """Resets the network, untrained, with changed arguments.

        Args:
          **params: The arguments to change.
        """
        self.__init__(**{**self._given, **params})
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        """A network at the same point of training.

        Config, data and experiment, which never change, are shared.
        """
        other = type(self).__new__(type(self))
        vars(other).update(vars(self), history=copy.deepcopy(self.history))
        if self._checkpoint is not None:
            state = jax.tree.map(lambda leaf: leaf.copy(), self._checkpoint.state)
            other._checkpoint = dataclasses.replace(self._checkpoint, state=state)
        return other

    def __copy__(self) -> Self:
        return self.__deepcopy__({})  # The next `fit` takes the memory of the state.

    def __getstate__(self) -> dict[str, Any]:
        """The config and the files of a run folder: a pickle holds no data."""
        with self._saved() as (folder, _data):
            path = Path(folder)
            files = [found for found in path.rglob("*") if found.is_file()]
            contents = {str(found.relative_to(path)): found.read_bytes() for found in files}
        return {"config": self.config, "files": contents}

    def __setstate__(self, state: dict[str, Any]) -> None:
        path = Path(tempfile.mkdtemp(prefix="jaxnets-"))
        weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)
        for name, content in state["files"].items():
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_bytes(content)
        self._read(RunFolder.open(str(path)), state["config"], None)


class _Reached(Observer):
    """Keeps a network's checkpoint and history while it trains."""

    def __init__(self, network: Network):
        self._network = network

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        self._network._checkpoint = Checkpoint(state)
        self._network.history.append(record)


load = Network.load


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


def _dataset_of(data: Data, config: Config) -> Dataset:
    """The data, limited as the config asks; by default the data set that it names."""
    if data is None and config.dataset == NAME:
        ways = "net.fit(x, y) or jaxnets.load(DIR, data=(x, y))"
        raise UserError("data: the arrays are in no file; expected {}", ways)
    if data is None or _is_name(data):
        return load_data(config)
    dataset = data if isinstance(data, Dataset) else from_arrays(data, config.validation_size)
    return dataset.limited(config.limit)


def _check_size(images: Any, expected: tuple[int, ...]) -> None:
    """Raises UserError unless the images have the training images' shape (H, W, C)."""
    if (shape := images.shape[1:]) != expected:
        raise UserError("expected images of {}, as in training, got {}", expected, shape)


def _batches_of(batch_size: int | None) -> dict[str, Any]:
    """The argument batch_size, if it is given; UserError unless it is a number from 1."""
    if batch_size is None:
        return {}
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UserError("batch_size: expected a whole number from 1, got {}", f"{batch_size!r:.40}")
    return {"batch_size": batch_size}


def _check_setting(name: str) -> None:
    """Raises AttributeError for a field of Config, which is not an attribute of a Network."""
    if name in INSTEAD:
        raise AttributeError(f'Network has no "{name}"; {INSTEAD[name]}')
    if name in Config.__dataclass_fields__:
        raise AttributeError(
            f'Network has no "{name}", which is a setting: Network("cnn", {name}=...) takes it, '
            f"net.config.{name} has it"
        )


def _check_fit(
    settings: FitArguments, has_data: bool, validation_data: object, share: float | None
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
