"""Mutates the core automatically, one place at a time, and counts the mutants that the tests kill.

    pip install mutmut
    python tests/stress/mutate.py --sample=150 --seed=0 --results=mutants.tsv
    python tests/stress/mutate.py --module=backprop/pooling --results=pooling.tsv

The mutants are mutmut's: `+` for `-`, `<` for `<=`, a number plus one, a keyword argument that is
missing, `and` for `or`, a value that is None, a string with XX around it. Docstrings, annotations,
imports, a `raise`, zip's `strict` and the `Setting`s on which a layer is tried are left alone. Each
mutant is written into a copy of the checkout and must make its module's tests (`TESTS`, the most
particular first, the slow ones too) fail, in a process that is forked after the heavy imports.
Results are kept one a line; a second call with the same file continues where the first stopped.
`--checkout=DIR` mutates another state of the code.

`--judge=exact`, `tolerances` or `both` asks gradcheck's rows of the module in place of its tests:
how much the exact check finds alone, what only a tolerance finds, and what the table refuses.
`--subtle` takes the mutants of `subtle_mutants.toml`, written by hand, in place of mutmut's.

Left out are the tests that look at the source's text (test_docs, test_mutants, test_architecture):
they would kill any mutant of the lines they quote, whatever it computes. PyTorch, torchvision
and Keras are hidden unless `--oracles` is given: the README's test command installs none of them.
"""

import argparse
import collections
import contextlib
import csv
import importlib.abc
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import judges
import libcst  # pyright: ignore[reportMissingImports]
import pytest
from libcst import metadata  # pyright: ignore[reportMissingImports]
from mutmut.mutation import mutators  # pyright: ignore[reportMissingImports]

JUDGED = "backprop/*.py", "kernels/*.py", "losses.py"  # gradcheck has rows about them.
TARGETS = (
    *JUDGED,
    "*metrics.py",
    "training/step.py",
    "training/pixels.py",
    "training/scan.py",
)
ORACLES = ("torch", "torchvision", "keras")
_LAYERS = ("test_backprop_layers", "test_gradcheck", "test_models")
_LAYERS += ("test_losses_metrics", "test_residual")
_TRAINING = ("test_training", "test_parallel", "test_alexnet")
TESTS = {  # By the first prefix that fits; what a checkout lacks is skipped.
    "backprop/probability": ("test_losses_metrics", *_LAYERS, *_TRAINING, "test_regression"),
    "backprop/losses": ("test_losses_metrics", *_LAYERS, *_TRAINING, "test_regression"),
    "backprop/batch_norm": ("test_batch_norm", *_LAYERS, *_TRAINING),
    "backprop/": (*_LAYERS, *_TRAINING),
    "kernels/": ("test_kernels", "test_winograd", *_LAYERS, *_TRAINING, "test_oracle"),
    "training/": (*_TRAINING, "test_augment", "test_resume", "test_diagnosis", "test_lecture"),
    "metrics": ("test_losses_metrics", "test_api", *_TRAINING, "test_regression"),
    "losses": ("test_losses_metrics", "test_own_functions", *_TRAINING, "test_regression"),
    "": (
        "test_losses_metrics",
        "test_training",
        "test_parallel",
        "test_regression",
        "test_lecture",
    ),
}
FIRST = {  # Words of the names of the tests that are run before the others, which are many.
    "average_pool": "pool",
    "pooling": "pool",
    "windows": "pool or conv",
    "convolution": "conv",
    "alexnet_layers": "norm or pool",
    "activations": "activation or softmax or relu or sigmoid",
    "dense": "dense or ones or flatten",
    "dropout": "dropout",
    "dense_with_ones": "dense or ones",
    "relu": "relu",
    "batch_norm": "norm",
    "conv_pool": "pool or tie or conv",
    "winograd": "xla or matrices or tiles or blocks or wide or layers or conv",
    "probability_losses": "loss or entropy or squared or mse or reduc",
    "losses": "loss or entropy or squared or mse or reduc",
    "network": "network or hand or manual or pair",
    "kernel": "kernel",
    "by_rule": "kernel",
    "__init__": "kernel",
    "layers": "kernel or conv or pool or dense",
    "elementwise": "kernel or relu or norm",
    "pools": "pool",
    "wide_dense": "kernel or dense",
    "rules": "rule or derived or pair or layer",
    "metrics": "metric or count or top5 or scikit",
    "regression_metrics": "metric or regression or scikit",
    "rule": "rule or derived or pair or layer",
    "scan": "loop or scan or epoch",
    "step": "step or rule or block or gradient",
}
# Of domains: a test's data, too.
RANGES = ("BATCHES", "WIDTHS", "IMAGES", "ARRAYS", "WINDOWS", "STRIDES", "BEYOND", "SIZES", "ROWS")
RANGES += ("LOGITS", "SHARES", "RANGES", "DOMAIN")
SUBTLE = Path(__file__).with_name("subtle_mutants.toml")
Run = Callable[[], tuple[str, str, float]]  # -> outcome, what failed, seconds
QUICK = "-x -q --no-header --tb=line -p no:cacheprovider -p no:randomly --hypothesis-seed=0"


@dataclass(frozen=True)
class Mutant:
    """One place that is changed; `source` is the whole module after it."""

    module: str
    line: int
    column: int
    operator: str
    before: str
    after: str
    source: str

    @property
    def identity(self) -> str:
        return f"{self.module}:{self.line}:{self.column} {self.operator}: {self.after}"


@dataclass(frozen=True)
class Result:
    """What became of a mutant: killed, timeout (which is killed too) or survived."""

    identity: str
    before: str
    after: str
    outcome: str
    test: str
    seconds: float


class _Places(libcst.CSTVisitor):
    """Collects the mutations of a module, in the order of its text."""

    METADATA_DEPENDENCIES = (metadata.PositionProvider,)

    def __init__(self):
        super().__init__()
        self.found: list[tuple[libcst.CSTNode, str, libcst.CSTNode, metadata.CodePosition]] = []

    def on_visit(self, node: libcst.CSTNode) -> bool:
        untouched = libcst.Annotation, libcst.Raise, libcst.Import, libcst.ImportFrom
        if isinstance(node, untouched) or _is_docstring(node) or _is_setting(node):
            return False
        position: Any = self.get_metadata(metadata.PositionProvider, node, None)
        for kind, operator in mutators.mutation_operators:
            if isinstance(node, kind) and position:
                new = list(operator(node))
                if operator is mutators.operator_string:
                    new = new[:1]  # Upper case in an einsum is the same einsum.
                elif operator is mutators.operator_arg_removal:
                    # A positional argument that is None or missing raises, whatever is tested;
                    # without zip's `strict` the same is computed.
                    new = [call for call in new if _keywords(node) - _keywords(call) - {"strict"}]
                name = operator.__name__.removeprefix("operator_")
                self.found += [(node, name, changed, position.start) for changed in new]
        return super().on_visit(node)


def _is_docstring(node: libcst.CSTNode) -> bool:
    return isinstance(node, libcst.Expr) and isinstance(node.value, libcst.SimpleString)


def _is_setting(node: libcst.CSTNode) -> bool:
    """Whether a node says on which inputs a layer is tried: a test's data, not the program's."""
    if isinstance(node, libcst.Arg):  # Without `strict` the same is computed.
        return node.keyword is not None and node.keyword.value in ("settings", "domain", "strict")
    code = libcst.Module([]).code_for_node(node)
    if isinstance(node, libcst.Assign):
        return code.split(" ")[0] in RANGES
    kinds = libcst.FunctionDef | libcst.ClassDef | libcst.BaseList | libcst.ListComp
    return isinstance(node, kinds) and ("Setting(" in code or "-> Setting" in code)


def _keywords(call: libcst.CSTNode) -> set[str]:
    arguments = libcst.ensure_type(call, libcst.Call).args
    return {argument.keyword.value for argument in arguments if argument.keyword is not None}


def mutants_of(root: Path, module: str) -> Iterator[Mutant]:
    """All mutants of a module of the checkout `root`, each different from all others."""
    text = (root / "jaxnets" / module).read_text()
    wrapper = metadata.MetadataWrapper(libcst.parse_module(text))
    places, seen = _Places(), {text}
    wrapper.visit(places)
    for node, operator, changed, start in places.found:
        tree = libcst.ensure_type(wrapper.module.deep_replace(node, changed), libcst.Module)
        source = tree.code
        if source not in seen:
            seen.add(source)
            before, after = (_one_line(wrapper.module, part) for part in (node, changed))
            yield Mutant(module, start.line, start.column, operator, before, after, source)


def _one_line(module: libcst.Module, node: libcst.CSTNode) -> str:
    return " ".join(module.code_for_node(node).split())


def tests_of(root: Path, module: str) -> list[str]:
    """The files whose tests a mutant of the module must fail, its own doctests among them."""
    names = next(names for prefix, names in TESTS.items() if module.startswith(prefix))
    files = [f"tests/{name}.py" for name in dict.fromkeys(names)]
    return [f"jaxnets/{module}", *(file for file in files if (root / file).exists())]


def run_tests(root: Path, tests: list[str], timeout: float) -> tuple[str, str, float]:
    """Runs tests in a forked process; returns the outcome, the test that failed and the seconds."""
    return forked(
        root, lambda: int(pytest.main([*QUICK.split(), "-m", "not stress", *tests])), timeout
    )


def run_judge(root: Path, judge: str, module: str, timeout: float) -> tuple[str, str, float]:
    """The same for gradcheck's rows of a module, by one of `judges.JUDGES`."""

    def refused() -> int:
        why, left_open = judges.refusal(judge, module)
        print(f"FAILED {why}" if why else f"OPEN {left_open}" if left_open else "")
        return int(bool(why))

    return forked(root, refused, timeout)


def forked(root: Path, status_of: Callable[[], int], timeout: float) -> tuple[str, str, float]:
    """Calls a function in a forked process, which imports the package anew."""
    shutil.rmtree(root / ".hypothesis", ignore_errors=True)
    log = root / "mutant.log"
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _become(root, status_of, log)
    status = None
    while status is None and time.monotonic() - began < timeout:
        done, code = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(code) if done else None
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # The child's own children too.
    if status is None:
        os.waitpid(child, 0)
    seconds = round(time.monotonic() - began, 1)
    text = log.read_text(errors="replace")
    said = re.search(r"^(?:FAILED|ERROR|OPEN) (.+?)(?: - .*)?$", text, re.MULTILINE)
    why = said[1] if said else ""
    if status is None or status in (0, 5):  # 5: no test has such a name.
        return ("timeout" if status is None else "survived"), why, seconds
    return "killed", why or f"exit {status}", seconds


def _become(root: Path, status_of: Callable[[], int], log: Path) -> None:
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.chdir(root)
    status = 3
    try:
        status = status_of()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class _NoOracles(importlib.abc.MetaPathFinder):
    """Makes Python believe that the oracles are not installed, so that importorskip skips."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] in ORACLES:
            raise ModuleNotFoundError(f"no {fullname} here", name=fullname)
        return None


def prepare(checkout: Path, work: Path, with_oracles: bool) -> Path:
    """Copies the checkout and imports, once for all mutants, what their tests need."""
    root = work / "checkout"
    unwanted = ".git", ".venv*", "__pycache__", ".*_cache*", ".hypothesis"
    shutil.copytree(checkout, root, ignore=shutil.ignore_patterns(*unwanted))
    # The file of a mutant may have its forerunner's size and second: no bytecode is kept.
    os.environ.update(PYTHONPATH=str(root), PYTHONDONTWRITEBYTECODE="1", JAX_PLATFORMS="cpu")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(work / "compiled")
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(root))
    if not with_oracles:
        sys.meta_path.insert(0, _NoOracles())
    import chex  # noqa: F401
    import flax.linen  # noqa: F401
    import jax  # noqa: F401
    import optax  # noqa: F401
    import scipy.stats  # noqa: F401

    return root


def drawn(
    root: Path, module: str | None, sample: int | None, seed: int, targets: Sequence[str] = TARGETS
) -> list[Mutant]:
    """The mutants that are to be tried, `sample` of them or all."""
    files = sorted(path for pattern in targets for path in (root / "jaxnets").glob(pattern))
    modules = [str(path.relative_to(root / "jaxnets")) for path in files]
    mutants = [
        mutant
        for name in modules
        if module is None or name.startswith(module)
        for mutant in mutants_of(root, name)
    ]
    print(f"{len(mutants)} mutants in {len(modules)} modules")
    if sample is not None and sample < len(mutants):
        mutants = random.Random(seed).sample(mutants, sample)
    return mutants


def subtle(root: Path, module: str | None = None) -> list[Mutant]:
    """The mutants written by hand, each in the one place of its file that has the old text."""
    found = []
    for row in tomllib.loads(SUBTLE.read_text())["mutants"]:
        text = (root / "jaxnets" / row["file"]).read_text()
        if text.count(row["old"]) != 1:
            sys.exit(f"{row['file']}: expected once, found {text.count(row['old'])}: {row['old']}")
        if module is None or row["file"].startswith(module):
            before, source = text.index(row["old"]), text.replace(row["old"], row["new"])
            line, column = text.count("\n", 0, before) + 1, before - text.rfind("\n", 0, before) - 1
            found.append(
                Mutant(row["file"], line, column, row["is"], row["old"], row["new"], source)
            )
    return found


def read_results(path: Path) -> dict[str, Result]:
    """What an earlier call has found."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))[1:]
    results = [Result(a, b, c, d, e, float(seconds)) for a, b, c, d, e, seconds in rows]
    return {result.identity: result for result in results}


def assert_green(key: tuple[str, ...], run: Run, green: set[tuple[str, ...]]) -> None:
    """Ends the program if a run fails without any mutant: it would kill whatever is tried."""
    if key not in green:
        outcome, test, _ = run()
        if outcome != "survived":
            sys.exit(f"{test} fails without a mutant: {outcome}")
        green.add(key)


def attempt(root: Path, mutant: Mutant, run: Run) -> Result:
    """Writes a mutant into the copy, runs tests or a judge, and writes the original back."""
    path = root / "jaxnets" / mutant.module
    original = path.read_text()
    path.write_text(mutant.source)
    outcome = run()
    path.write_text(original)
    return Result(mutant.identity, mutant.before, mutant.after, *outcome)


def record(path: Path, results: dict[str, Result], result: Result) -> None:
    """Adds a result to the table and to its file, whose last line on a mutant counts."""
    results[result.identity] = result
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Result)], delimiter="\t")
        if new:
            writer.writeheader()
        writer.writerow(asdict(result))
    print(f"{len(results)}: {result.outcome} {result.seconds} s: {result.identity}", flush=True)


def main() -> int:
    """Returns 0 if every mutant is killed, 1 if any survives."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--checkout", type=Path, default=Path(__file__).resolve().parents[2])
    parser.add_argument("--module", help="only modules that begin so, e.g. backprop/pooling")
    parser.add_argument("--sample", type=int, help="how many mutants are drawn (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path("mutants.tsv"))
    parser.add_argument("--judge", choices=("tests", *judges.JUDGES), default="tests")
    parser.add_argument("--subtle", action="store_true", help="the mutants written by hand")
    parser.add_argument("--oracles", action="store_true", help="with PyTorch and Keras")
    parser.add_argument("--limit", type=float, default=1800, help="seconds a mutant may take")
    flags = parser.parse_args()
    results = read_results(flags.results)
    with tempfile.TemporaryDirectory(prefix="mutate-") as work:
        root = prepare(flags.checkout, Path(work), flags.oracles)
        targets = TARGETS if flags.judge == "tests" else JUDGED
        mutants = (
            subtle(root, flags.module)
            if flags.subtle
            else drawn(root, flags.module, flags.sample, flags.seed, targets)
        )
        green: set[tuple[str, ...]] = set()
        for mutant in mutants:  # First the tests that are about it: they kill nearly all.
            if mutant.identity in results:
                continue
            if flags.judge != "tests":
                run = partial(run_judge, root, flags.judge, mutant.module, flags.limit)
                assert_green((mutant.module,), run, green)
                record(flags.results, results, attempt(root, mutant, run))
            else:
                words = FIRST.get(Path(mutant.module).stem)
                tests = [*tests_of(root, mutant.module)[:3], *(["-k", words] if words else [])]
                run = partial(run_tests, root, tests, flags.limit)
                assert_green(tuple(tests), run, green)
                result = attempt(root, mutant, run)
                if result.outcome == "survived":
                    result = replace(result, outcome="open")
                record(flags.results, results, result)
        for mutant in mutants:
            if results[mutant.identity].outcome == "open":
                tests = tests_of(root, mutant.module)
                run = partial(run_tests, root, tests, flags.limit)
                assert_green(tuple(tests), run, green)
                result = attempt(root, mutant, run)
                record(flags.results, results, result)
    counts = collections.Counter(results[mutant.identity].outcome for mutant in mutants)
    killed = counts["killed"] + counts["timeout"]
    print(f"{killed} of {len(mutants)} killed ({killed / len(mutants):.1%}): {dict(counts)}")
    for mutant in mutants:
        if results[mutant.identity].outcome == "survived":
            print(f"survived: {mutant.identity}\n    was {mutant.before}")
    return int(killed < len(mutants))


if __name__ == "__main__":
    sys.exit(main())
