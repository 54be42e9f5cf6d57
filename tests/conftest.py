"""What the tests share: eight CPU devices, a tiny data set, and two ways to run train.py.

JAX gets its eight devices here, before anything starts it, so that the parallel tests need no
process of their own; all others ask for one device (`tiny_preset`, `run_main`).
"""

import contextlib
import faulthandler
import functools
import gc
import itertools
import json
import math
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import jax
import numpy as np
import pytest
from beartype import BeartypeConf, beartype
from filelock import FileLock
from jaxtyping import install_import_hook
from postgres import postgres as postgres
from processes import HANGS as HANGS
from processes import free_port as free_port
from safetensors.numpy import load_file

import jaxnets
from jaxnets.training.observer import Observer

os.environ["LANGUAGE"] = "en"  # --help speaks the reader's language.

# The same examples in every run; `--hypothesis-profile=wide` draws others, and more.
hypothesis.settings.register_profile("gate", derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("wide", max_examples=1_000, deadline=None)
hypothesis.settings.load_profile("gate")

ROOT = Path(__file__).resolve().parent.parent
TRAIN, VALIDATION, TEST, SIDE, CLASSES = 160, 40, 50, 12, 3

# A right answer to an exercise, as a student writes it.
DENSE_BACKWARD = """
def dense_backward(cache, dz):
    x, params = cache
    d_params = {"kernel": x.T @ dz}
    if "bias" in params:
        d_params["bias"] = dz.sum(axis=0)
    return d_params, dz @ params["kernel"].T
"""


def watching(**methods):
    """An observer with these methods."""
    observer = Observer()
    vars(observer).update(methods)
    return observer


def check_types(function):
    """Checks a function's arguments and result, but not Flax's fields, which beartype cannot."""
    check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # An int is a float.
    return function if function.__name__ == "__init__" else check(function)


def pytest_addoption(parser):
    """How much of the tests marked `stress`."""
    group = parser.getgroup("stress")
    group.addoption("--cases", type=int, help="how many harms each of the stress tests does")
    group.addoption("--seed", type=int, default=0, help="which")
    group.addoption("--netns", action="store_true", help="hosts in network namespaces, as root")


def pytest_configure(config):
    """Keeps compiled programs beside pytest's own cache: nothing outside the project is touched.

    Small ones too, from the first test on: many tests compile what another has compiled.
    """
    jax.config.update("jax_platforms", os.environ.setdefault("JAX_PLATFORMS", "cpu"))
    # NumPy, PyTorch and scikit-learn wait for their threads in a loop, on the other worker's core:
    # the notebook on autograd takes 14 s of CPU in place of 57 (numpy 2.4, two cores).
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # pyproject.toml says why; this is for the processes that tests start.
    os.environ["PYTHONWARNINGS"] = "ignore:Error reading persistent compilation cache entry"
    if config.pluginmanager.hasplugin("cacheprovider"):
        cache = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")))
        jax.config.update("jax_compilation_cache_dir", cache)
    # `pytest &` ignores the one, `nohup pytest` the other, and so would the runs that tests stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):  # Not on Windows.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    # The shapes in the signatures of these rooms are checked in the tests, and only there.
    rooms = "backprop", "losses", "metrics", "regression_metrics", "models", "training.step"
    rooms = [f"jaxnets.{room}" for room in (*rooms, "training.scan")]
    install_import_hook(rooms, "conftest.check_types")

    from jaxnets.gradcheck.quick import QUICK_COMPILATION
    from jaxnets.machine import platform

    # Programs that run once need not be fast: 212 of the tests take 14 % less CPU (jax 0.10.2).
    # With `XLA_FLAGS=` they are compiled as for users; steps are (tests with `quick_steps` apart).
    quick = (f"--{name}={value}".lower() for name, value in QUICK_COMPILATION.items())
    os.environ.setdefault("XLA_FLAGS", " ".join(quick))
    platform.set_up_jax(cpu_devices=8)

    from jaxnets.runs import progress

    # What a slow machine alone makes a command say; test_progress.py has a clock of its own.
    progress.PATIENCE = progress.SILENCE = progress.LONG = math.inf


def pytest_collection_modifyitems(items):
    """Marks the pages' examples, hundreds of small programs, and the tests with these fixtures.

    A page can hold no mark itself.
    """
    for item in items:
        if item.nodeid.startswith("docs/"):
            item.add_marker(pytest.mark.slow)
        if {"keras", "postgres"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.oracle)


def pytest_collection_finish(session):
    """Spares the garbage collector the modules' and the tests' objects, which all stay.

    Four files' tests take 9 % less CPU (tests of cli, losses, models and predict).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


def pytest_runtest_setup(item):
    """Lets a stress test take hours."""
    if item.get_closest_marker("stress"):
        faulthandler.cancel_dump_traceback_later()


def slow(*values, id=None):
    """One of a test's cases, which only the whole suite runs."""
    return pytest.param(*values, id=id, marks=pytest.mark.slow)


def stress(*values, id=None):
    """One of a test's cases, which only `-m stress` runs."""
    return pytest.param(*values, id=id, marks=pytest.mark.stress)


def quick_jit(function):
    """jax.jit with little of LLVM's work: for what a test itself compiles, to run it once."""
    from jaxnets.gradcheck.quick import QUICK_COMPILATION

    return jax.jit(function, compiler_options=QUICK_COMPILATION)


def shapes_of(model, shape):
    """The parameters' shapes and dtypes for images of a shape; nothing is computed."""
    image = jax.ShapeDtypeStruct((1, *shape), np.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


def num_params(model, shape):
    """How many numbers a network learns for images of a shape."""
    return sum(leaf.size for leaf in jax.tree.leaves(shapes_of(model, shape)))


def random_params(model, shape=(28, 28, 1), seed=0):
    """Parameters drawn by NumPy, biases too, such that the layers' outputs are around 1."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key in ("scale", "var"):  # A batch norm's.
            return rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype)
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.1
        return leaf.dtype.type(scale) * rng.standard_normal(leaf.shape, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(model, shape))


def assert_normal(kernel, sigma):
    """Demands that weights are drawn from N(0, sigma), not truncated.

    Within five standard errors: of a variance sqrt(2 / n), of a share sqrt(p (1 - p) / n).
    """
    drawn = np.asarray(kernel).ravel()[:500_000].astype(np.float64) / sigma
    assert drawn.mean() == pytest.approx(0, abs=5 / np.sqrt(drawn.size))
    assert drawn.var() == pytest.approx(1, abs=5 * np.sqrt(2 / drawn.size))
    beyond, share = np.mean(np.abs(drawn) > 2), 0.0455
    assert beyond == pytest.approx(share, abs=5 * np.sqrt(share / drawn.size))


def random_images(*shape):
    """Images of float32 numbers in [0, 1), drawn by NumPy."""
    return np.random.default_rng(0).random(shape, np.float32)


def leaves(tree):
    """A tree's arrays in float64."""
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]


def assert_close(ours, theirs, tolerance):
    """Demands |ours - theirs| <= tolerance max |theirs| of every leaf."""
    for a, b in zip(leaves(ours), leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


def assert_same(ours, theirs):
    """Demands the same numbers of every leaf."""
    for a, b in zip(leaves(ours), leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


BY_STEPS = [watching(sees_every_step=True)]  # With these observers no epoch is one loop.


def train_on(data, config, observers=()):
    """The trained state and the epochs' records."""
    from jaxnets.gradcheck.oracle import with_gradient_check

    experiment = jaxnets.Experiment.create(config, data)
    return experiment.train(with_gradient_check(experiment, observers))


def as_flags(**settings):
    """The settings as flags: ["--epochs=2", ...]."""
    return [f"--{name}={value}" for name, value in settings.items()]


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes as LeCun's page describes it."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(path: Path, array: np.ndarray) -> Path:
    """Writes an IDX file."""
    path.write_bytes(idx_bytes(array))
    return path


def write_idx_folder(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Writes a folder of IDX files; the keys are train-images, t10k-labels, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        write_idx(folder / f"{name}-idx{array.ndim}-ubyte", array)
    return folder


def read_json(path: Path) -> Any:
    """A JSON file's content."""
    return json.loads(path.read_text())


def params_sha256(folder: Path) -> str:
    """The digest of a finished run's parameters."""
    return read_json(folder / "result.json")["params_sha256"]


def records(folder: Path) -> list[dict[str, Any]]:
    """A run's records."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    """A record's numbers that a resumed run repeats."""
    times = {"seconds", "data_seconds", "validation_seconds", "images_per_second"}
    return {name: value for name, value in record.items() if name not in times}


def history(folder: Path) -> list[dict[str, Any]]:
    """A run's records without their times."""
    return [without_times(record) for record in records(folder)]


def saved_params(folder: Path) -> tuple[int, dict[str, np.ndarray]]:
    """The step and the parameters, by their paths, of a run's last checkpoint."""
    path = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.stem))
    params = {n: x for n, x in load_file(path).items() if n.startswith("params/")}
    return int(path.stem), params


@pytest.fixture(scope="session")
def tiny_arrays():
    """200 training and 50 test images, 12x12 bytes: three prototypes under noise, easy to learn."""
    rng = np.random.default_rng(0)
    prototypes = rng.integers(0, 256, (CLASSES, SIDE, SIDE))
    arrays = {}
    for part, size in (("train", TRAIN + VALIDATION), ("t10k", TEST)):
        labels = rng.permutation(np.arange(size) % CLASSES)
        noise = rng.integers(0, 256, (size, SIDE, SIDE))
        arrays[f"{part}-images"] = (prototypes[labels] + noise) // 2
        arrays[f"{part}-labels"] = labels
    return arrays


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, tiny_arrays):
    return write_idx_folder(tmp_path_factory.getbasetemp() / "tiny", tiny_arrays)


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    return jaxnets.load_dataset(data_dir=str(tiny_folder), validation_size=VALIDATION)


@pytest.fixture(scope="session")
def mnist():
    return jaxnets.load_dataset("mnist")


@pytest.fixture(scope="session")
def tiny_preset(tiny_folder):
    """A model's recipe for the tiny data set, by default on one device."""
    ours: dict[str, Any] = dict(validation_size=VALIDATION, batch_size=32, epochs=2, devices=1)
    ours["data_dir"] = str(tiny_folder)
    return lambda model, **changes: jaxnets.preset(model, **{**ours, **changes})


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The user's cache folder of a test; the home folder and the prepared sets lie beside it."""
    for name, folder in (("XDG_CACHE_HOME", "cache"), ("TFDS_DATA_DIR", "tfds"), ("HOME", "home")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def _bubblewrap_starts():
    """Tests that need the sandbox of `grade` are skipped where it cannot start."""
    from jaxnets.base.errors import UserError
    from jaxnets.course.exercises.sandbox import Sandbox

    try:
        Sandbox().check()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def bubblewrap(_bubblewrap_starts):
    """The sandbox of `grade`."""
    from jaxnets.course.exercises.sandbox import Sandbox

    return Sandbox()


@pytest.fixture
def judge_in_float64(monkeypatch):
    """The judge compares in float64 alone, a third of its time; gradcheck has the rest."""
    from jaxnets.course.exercises import judge

    monkeypatch.setattr(judge, "PRECISIONS", ("float64",))


@pytest.fixture(scope="session")
def relu_cases():
    """The exercise relu in its first setting, in float64."""
    from jaxnets.course.exercises import judge

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "PRECISIONS", ("float64",))
        return judge.cases_of("relu_backward")[:1]


@pytest.fixture
def float64():
    """Lets a test switch JAX to 64 bits and switches it back."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="session")
def keras(tmp_path_factory):
    """Keras on PyTorch; its settings file goes to a folder of the tests'."""
    pytest.importorskip("torch", reason="PyTorch, on which Keras runs here, is not installed")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Theirs, while they are imported.
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        keras = pytest.importorskip("keras", reason="Keras, the oracle here, is not installed")
    assert keras.backend.backend() == "torch"
    return keras


@pytest.fixture(autouse=True)
def memory_given_back():
    """Lets go of compiled programs where they are many: each later test traces its own anew."""
    yield
    if share_of_memory() > 1 / 6:
        from jaxnets.machine.platform import return_freed_memory

        jax.clear_caches()
        gc.collect()
        return_freed_memory()


def share_of_memory() -> float:
    """The share of the machine's memory that this process holds; 0 where the system hides it."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0
    return int(statm.read_text().split()[1]) / os.sysconf("SC_PHYS_PAGES")


@pytest.fixture
def break_rule(monkeypatch):
    """Changes fields of the rule of a layer's class, or of a function, and of all that share it."""
    from jaxnets.backprop.rules import KINDS

    def change(kind, **changes) -> None:
        right = KINDS[kind]
        wrong = right._replace(**changes)
        for other in [other for other, rule in KINDS.items() if rule is right]:
            monkeypatch.setitem(KINDS, other, wrong)

    return change


@pytest.fixture
def checks_every_step(monkeypatch):
    """Lets gradients=both compare before every step, not before every hundredth."""
    from jaxnets.gradcheck import oracle

    monkeypatch.setattr(oracle, "CHECK_EVERY", 1)


@pytest.fixture
def quick_steps(monkeypatch):
    """Compiles steps with little of LLVM's work: the same programs, not made fast.

    For tests that hold two ways to a tolerance or that look at no number, never for those in which
    bits count.
    """
    from jaxnets.gradcheck.quick import quick_options
    from jaxnets.training import parallel

    # The jit of JAX 0.7.2, the floor, takes no pmap whose result is on every device.
    options = quick_options() if jax.__version_info__ >= (0, 10) else None
    monkeypatch.setattr(parallel, "compiler_options_for_step", lambda *_: options)


@pytest.fixture
def tiny_flags(tiny_folder, tmp_path):
    """Flags of a short run on the tiny data set; the run folder is tmp_path / "run"."""
    data = dict(data_dir=tiny_folder, validation_size=VALIDATION)
    return as_flags(**data, batch_size=32, epochs=2, devices=1, workdir=tmp_path / "run")


def assert_resume_hint(err: str, how: str, folder: Path) -> None:
    """Demands one line on stderr, with a command that this Python resumes the run by."""
    saved = r"(?:; saved after step [\d,]+ \(epoch \d+ of \d+\))?"
    found = re.fullmatch(f"error: {how}{saved}; resume with: (.*)\n", err)
    assert found, err
    python, script, resume, workdir = shlex.split(found[1])
    assert os.path.abspath(shutil.which(python) or "") == sys.executable
    assert (script, resume) == ("train.py", "--resume")
    assert os.path.abspath(workdir.removeprefix("--workdir=")) == str(folder)


class Outcome(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str

    def assert_interrupted(self, folder: Path) -> None:
        """Demands status 130 and one line on stderr, with the command that resumes the run."""
        assert self.status == 130
        assert_resume_hint(self.err, "interrupted", folder)

    def assert_refused(self, *parts: str) -> None:
        """Demands status 2, nothing on stdout, and a printable line on stderr with the parts."""
        assert (self.status, self.out) == (2, ""), self
        assert re.fullmatch("error: .*\n", self.err) and self.err[:-1].isprintable(), self.err
        for part in parts:
            assert part in self.err


@pytest.fixture
def run_in_process(monkeypatch, capsys):
    """Runs a main function with a command line."""
    from jaxnets.base.errors import run_main

    def run(main, *arguments) -> Outcome:
        monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
        capsys.readouterr()
        status = run_main(main)
        return Outcome(status, *capsys.readouterr())

    return run


@pytest.fixture
def run_main(run_in_process):
    """Runs train.py in this process."""
    import train

    return functools.partial(run_in_process, train.main, "train.py")


@pytest.fixture
def train_tiny(run_main, tiny_flags):
    """Runs train.py with a model and `tiny_flags`, which further flags may override."""
    return lambda model, *flags: run_main(f"--model={model}", *tiny_flags, *flags)


@pytest.fixture
def run_command(run_in_process):
    """Runs `python -m jaxnets` in this process."""
    from jaxnets.cli import commands

    return functools.partial(run_in_process, commands.main, "jaxnets")


@pytest.fixture
def interrupt_after(monkeypatch):
    """Makes the next runs of this process see Ctrl-C when they have asked for it so many times."""
    from jaxnets.runs import stopping

    def after(times: int) -> None:
        def stop_on_interrupt(processes=None):
            asked = itertools.count()
            return contextlib.nullcontext(lambda: signal.SIGINT if next(asked) >= times else 0)

        monkeypatch.setattr(stopping, "stop_on_interrupt", stop_on_interrupt)

    return after


class Child(subprocess.Popen):
    """A process that does not outlive the test that fails."""

    def __exit__(self, exception, *rest):
        if exception:
            self.kill()
        super().__exit__(exception, *rest)


@pytest.fixture(scope="session")
def start_python():
    """Starts Python on some code or a script, in a process that sees one CPU device."""

    def start(*arguments, **options) -> Child:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return Child([sys.executable, *map(str, arguments)], cwd=ROOT, text=True, **pipes)

    return start


@pytest.fixture(scope="session")
def run_python(start_python):
    """Runs Python to its end."""

    def run(*arguments, **options) -> Outcome:
        process = start_python(*arguments, **options)
        out, err = process.communicate(timeout=HANGS)
        return Outcome(process.returncode, out, err)

    return run


class FinishedRun(NamedTuple):
    """A run of train.py as a user starts it, and the flags that made it."""

    folder: Path
    flags: list[str]
    outcome: Outcome


@pytest.fixture(scope="session")
def finished_run(run_python, tiny_folder, tmp_path_factory) -> FinishedRun:
    """The CNN with all that makes its recipe random: 20 epochs of 40 steps in a process.

    Nothing writes into its folder: all of pytest-xdist's workers have the same.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder, kept = shared / "finished", shared / "finished.json"
    data = dict(data_dir=tiny_folder, validation_size=VALIDATION)
    flags = as_flags(model="cnn", **data, batch_size=4, epochs=20, learning_rate=0.01)
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            outcome = run_python("train.py", *flags, f"--workdir={folder}")
            kept.write_text(json.dumps(outcome))
    return FinishedRun(folder, flags, Outcome(*json.loads(kept.read_text())))
