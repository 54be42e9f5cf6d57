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
import signal
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

import jax
import numpy as np

from jaxnets.backprop.rule import FindRule
from jaxnets.backprop.rules import rule_of
from jaxnets.base.display import show
from jaxnets.base.errors import UserError, expect
from jaxnets.base.language import Text, said
from jaxnets.base.trees import Params
from jaxnets.config.fields import CUSTOM_FIELDS, Config
from jaxnets.config.options import is_custom
from jaxnets.config.recipes import DEFAULT_MODEL
from jaxnets.config.settings import FitSettings, Settings
from jaxnets.data.arrays import to_images, to_split
from jaxnets.data.datasets import Dataset, Split
from jaxnets.experiment import Experiment
from jaxnets.gradcheck.networks import network_for
from jaxnets.gradcheck.oracle import with_gradient_check
from jaxnets.gradcheck.table import checks_of, print_checks
from jaxnets.machine.platform import Processes
from jaxnets.metrics import Metrics
from jaxnets.networks.create import create_model
from jaxnets.networks.own import know
from jaxnets.notebook.beginning import Beginning, Data, ModelLike, arrays_to_fit
from jaxnets.notebook.callbacks import Callbacks, bar_for
from jaxnets.notebook.collect import collected
from jaxnets.notebook.wrong_names import WithSettings, check_fit
from jaxnets.predict.predict import PictureOrMany, Predictor, create_predictor, load_predictor
from jaxnets.predict.trained import to_input
from jaxnets.report import summary
from jaxnets.runs.progress import Progress
from jaxnets.runs.request import data_form, read_config
from jaxnets.runs.resume import load_checkpoint
from jaxnets.runs.run import Run, write_config
from jaxnets.runs.run_folder import CONFIG, RunFolder
from jaxnets.runs.stopping import stop_on_interrupt
from jaxnets.training.history import History
from jaxnets.training.loop import Interrupted, NonFiniteLossError
from jaxnets.training.observer import EarlyStopping, Observer, Record, Stop
from jaxnets.training.step import Checkpoint, TrainState


class FitArguments(FitSettings, total=False):
    """The settings of `Network.fit`; Keras's are accepted as far as they change nothing."""

    shuffle: bool


class Network(WithSettings):
    """A network, its data and its training progress.

    `save` writes it to a folder; it has no pickle. For scikit-learn, use `jaxnets.Classifier`.

    Attributes:
      config: The settings.
      history: The records of all epochs so far.
      stop_training: A callback sets it to end `fit`.
    """

    _attributes = ("config", "history", "stop_training")

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
        self._begin(Beginning.of_arguments(model, data, find_rule, **settings))

    def _repr_fields(self) -> dict[str, Any]:
        done, config = len(self.history), self.config
        epochs = f"{done} of {config.epochs}"
        return {"model": config.model, "data": config.dataset, "epochs": epochs}

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
        folder = RunFolder.open(os.fspath(workdir))
        for layer in layers:
            know(layer)
        config = read_config(folder)
        for name in functions:
            if name not in CUSTOM_FIELDS or not is_custom(getattr(config, name)):
                raise UserError("{}: the run was not trained with a function of your own", name)
        config = dataclasses.replace(config, **functions)
        return cls._of(Beginning.of_run(folder, config, data, find_rule))

    @classmethod
    def _of(cls, beginning: Beginning) -> Self:
        network = cls.__new__(cls)
        network._begin(beginning)
        return network

    def _begin(self, beginning: Beginning) -> None:
        self._beginning = beginning
        self.config = beginning.config
        self.history = History(beginning.folder.records() if beginning.folder else ())
        self.stop_training = False
        self._longer: Experiment | None = None  # Of a config with other epochs than the first.
        self._checkpoint: Checkpoint | None = None
        self._predictors: dict[str, Predictor] = {}  # By engine.

    @property
    def experiment(self) -> Experiment:
        """The immutable parts that the config and the data determine (model, loader, step)."""
        return self._longer or self._beginning.experiment

    @property
    def data(self) -> Dataset:
        return self.experiment.data

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the probabilities."""
        return self._form[1]

    @property
    def _form(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """The images' shape and the classes' names; a run's folder has them without its data."""
        folder = self._beginning.folder
        if folder is not None and self._beginning.given_data is None:
            return data_form(folder)
        return self.data.image_shape, self.data.class_names

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
            if (folder := self._beginning.folder) is not None:
                self._checkpoint = load_checkpoint(folder, self.experiment, state)
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
        check_fit(settings, x is not None, validation_data, validation_split)
        changes: dict[str, Any] = {n: value for n, value in settings.items() if n != "shuffle"}
        if x is not None or changes:
            dataset = None
            if x is not None:
                given = {**self._beginning.arguments, **changes}
                size = given.get("validation_size", validation_split or 0.0)
                dataset = arrays_to_fit(x, y, validation_data, size)
            self._take(dataset, changes, epochs)
        hooks, start, first = Callbacks(self, callbacks), self._reached(), len(self.history)
        self._plan(epochs)
        for note in self._beginning.notes if verbose and not first else ():
            show(note)
        self.stop_training = False
        early = EarlyStopping(self.config, self.history)
        with stop_on_interrupt() as signal_came:
            watching = [_Reached(self), early, Stop(signal_came)]
            if verbose:
                bar = bar_for(verbose)
                watching.append(Progress(self.config.epochs, self.experiment.loader, bar))
            self._train(start, [*watching, hooks])
        if verbose and early.reason:
            show(said(early.reason))
        hooks.call("on_train_end", self.history[first:].last)
        if hooks.error is not None:
            raise hooks.error
        if number := signal_came():
            signal.raise_signal(number)
        return self.history[first:]

    def _take(self, data: Dataset | None, settings: dict[str, Any], epochs: int | None) -> None:
        """Gives data and settings to an untrained network; others keep theirs."""
        beginning, reached = self._beginning, self._checkpoint
        if beginning.folder is None and (reached is None or not int(reached.state.step)):
            given = settings if epochs is None else {**settings, "epochs": epochs}
            self._begin(beginning.changed(data, given))
            return
        folder = beginning.folder
        known = folder.read(CONFIG).get("data_sha256") if folder else self.data.checksum
        if settings or (data is not None and data.checksum != known):
            raise UserError(
                "{}: expected those of the first fit, because the network is trained; "
                'Network("{}", ...) begins another',
                next(iter(settings), "x and y"),
                self.config.model,
            )
        if beginning.given_data is None and reached is None:
            self._begin(dataclasses.replace(beginning, given_data=data))

    def _plan(self, epochs: int | None) -> None:
        """Sets the config's epochs to what they will be after the next training."""
        if epochs is not None:
            dataclasses.replace(self.config, epochs=epochs)  # UserError if it is not a number.
        done = int(self.state.step) // self.experiment.loader.steps
        total = done + (epochs or (self.config.epochs - done) or self._beginning.config.epochs)
        if total != self.config.epochs:
            old, self.config = self.experiment, dataclasses.replace(self.config, epochs=total)
            same = old.data, old.parallel.devices, old.find_rule
            self._longer = Experiment.create(self.config, *same)

    def _train(self, start: Checkpoint, observers: Sequence[Observer]) -> None:
        """Trains; a signal leaves the network at its last step, an error where it began."""
        try:
            watching = with_gradient_check(self.experiment, observers)
            for _ in self.experiment.epochs(start, watching):
                pass
        except Interrupted as interrupted:
            self._checkpoint = interrupted.checkpoint
        except BaseException as error:  # The parameters were given to the step that failed.
            if isinstance(error, NonFiniteLossError):
                rate = f"{self.config.learning_rate:g}"
                error.args = "{}; try a learning_rate below {}", Text(*error.args), rate
            self._begin(self._beginning)
            raise

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
        """Prints a table of the gradients by hand: shown exactly, and compared with autodiff.

        The network has random parameters, and images of the size of its data. Like torch's
        `gradcheck`, it returns True if all agree.

        Raises:
          UserError: The network has no gradients by hand, or has the user's own passes.
        """
        if self._beginning.rules:
            raise UserError(
                "gradcheck: Network(..., find_rule=...) has judged its passes; net.gradients(x, y, "
                'by="auto") gives the gradients by autodiff'
            )
        config = dataclasses.replace(self.config, gradients="manual")
        image = to_input(config, np.zeros((1, *self.data.image_shape), np.float32)).shape[1:]
        return print_checks(checks_of(network_for(config, image, self.data.num_classes)))

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
        if (loaded := self._only_loaded) is not None:
            known = known or load_predictor(str(loaded.path), engine=engine)
        elif known is None or known.step != int(self.state.step):
            trained = self.config, self.data, self.state, self._finished
            known = create_predictor(*trained, engine)
        self._predictors[engine] = known
        return known

    @property
    def _only_loaded(self) -> RunFolder | None:
        """The run's folder, while nothing has asked for its training."""
        return self._beginning.folder if self._checkpoint is None else None

    @property
    def _finished(self) -> bool:
        early = EarlyStopping(self.config, self.history)
        return len(self.history) == self.config.epochs or early.reason is not None

    def summary(self) -> None:
        """Prints the layers with their shapes, parameters and arithmetic."""
        shape, names = self._form
        model = create_model(self.config, len(names))
        show(summary.summary(model, shape, self.config.model).text())

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
        is_tested = self._finished and self.config.test and len(self.data.test)
        test = self.evaluate() if is_tested else None
        with RunFolder.replace(str(path), self.config.model, overwrite=overwrite) as folder:
            write_config(folder, self.experiment, rules=self._beginning.rules)
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
        if self._beginning.folder is None and not int(self.state.step):
            raise UserError("{}: the network is not trained; net.fit() trains it", what)

    @contextlib.contextmanager
    def _saved(self) -> Iterator[tuple[str, Dataset | None]]:
        """The network's run folder, a temporary one unless it was only loaded; and its data."""
        if (loaded := self._only_loaded) is not None:
            yield str(loaded.path), self._beginning.given_data
        else:
            with tempfile.TemporaryDirectory() as folder:
                yield str(self.save(Path(folder) / self.config.model)), self.data

    def __deepcopy__(self, memo: Any) -> Self:
        """A network at the same point of training.

        Config, data and experiment, which never change, are shared.
        """
        other = type(self).__new__(type(self))
        vars(other).update(vars(self))
        other.history = copy.deepcopy(self.history)
        other._predictors = dict(self._predictors)
        if self._checkpoint is not None:
            state = jax.tree.map(lambda leaf: leaf.copy(), self._checkpoint.state)
            other._checkpoint = dataclasses.replace(self._checkpoint, state=state)
        return other

    def __copy__(self) -> Self:
        return self.__deepcopy__({})  # The next `fit` takes the memory of the state.

    def __getstate__(self) -> object:
        raise UserError("pickle: net.save(DIR) writes the network, and jaxnets.load(DIR) reads it")


class _Reached(Observer):
    """Keeps a network's checkpoint and history while it trains."""

    def __init__(self, network: Network):
        self._network = network

    def on_epoch_end(self, record: Record, state: TrainState) -> None:
        self._network._checkpoint = Checkpoint(state)
        self._network.history.append(record)


load = Network.load


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
