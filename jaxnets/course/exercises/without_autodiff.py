"""A copy of JAX that cannot differentiate, which submissions get in `grade`.

Differentiation is taken out, not searched for: whatever a submission imports, reads, unpickles or
finds in memory, there is none. JAX allows that. It differentiates in Python alone: one module,
`ad.py`, does it, by rules that other modules register there. Compiled code has no derivative. So

- a stub stands in the place of `ad.py`: calling anything of it raises an error;
- the statements that register rules are deleted, and then every function that nothing mentions any
  more, which are the rules, as `_conv_general_dilated_transpose_lhs`;
- a function with a derivative of its own (`custom_jvp`, `jax.nn.relu`) is the plain function;
- `jax.experimental`, which has Taylor-mode differentiation, and JAX's test tools are left out.

No bytecode of the original is copied, and a copy that still differentiates is refused. An imitation
of JAX in NumPy would be smaller, but it would judge otherwise than the judge at home: it has fewer
functions and another bfloat16.
"""

import ast
import collections
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from jaxnets.errors import RunFailedError
from jaxnets.system import cache_folder

NEEDED = ("numpy", "numpy.libs", "ml_dtypes", "jaxlib", "opt_einsum")  # By JAX.
LEFT_OUT = shutil.ignore_patterns(
    "experimental", "example_libraries", "tools", "*test_util*", "pallas", "__pycache__", "*.so"
)
KEPT = ("compilation_cache", "multihost_utils.py")  # Of jax.experimental; JAX imports them.
REGISTERS = {"defjvp", "defjvps", "defvjp", "def_transpose"}
RULE = re.compile("jvp|vjp|transpose_rule|transpose_[lr]hs|_linearize|_lin$|_partial_eval")
CHECKED = """
import jax, jax.numpy as jnp, jax.lax, jax.nn, jax.random
for derivative in (
    lambda: jax.grad(jnp.sin)(1.0),
    lambda: jax.jvp(jnp.sin, (1.0,), (1.0,)),
    lambda: jax.linearize(jnp.sin, 1.0)[1](1.0),
    lambda: jax.linear_transpose(jnp.negative, 1.0)(1.0),
):
    try:
        derivative()
    except TypeError:
        continue
    raise SystemExit("it still differentiates")
"""

NO_AD = '''\
"""Differentiation has been taken out."""


class Missing(type):
    def __call__(cls, *args, **kwargs):
        raise TypeError("a gradient by hand is derived without autodiff: there is none here")

    def __getattr__(cls, name):
        return __getattr__(name)

    def __setitem__(cls, key, value):
        pass

    def __contains__(cls, key):
        return False


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return (lambda *_, **__: None) if name.startswith("def") else Missing(name, (), {})
'''
PLAIN = {
    "custom_derivatives.py": """

def custom_jvp(function=None, *args, **kwargs):
    return (lambda f: f) if function is None else function


custom_vjp = custom_jvp
""",
    "lax/control_flow/solves.py": """

def custom_linear_solve(matvec, b, solve, *args, **kwargs):
    return solve(matvec, b)


def custom_root(f, initial_guess, solve, *args, **kwargs):
    return solve(f, initial_guess)
""",
}


def packages_folder() -> Path:
    """The folder of the copy, which is made once for each JAX and Python.

    Raises:
      RunFailedError: This JAX cannot be imported without its autodiff, or still has one.
    """
    source = _folder_of("jax")
    made_of = [Path(__file__).read_bytes(), (source / "version.py").read_bytes(), str(source)]
    name = hashlib.sha256(repr([*made_of, sys.version]).encode()).hexdigest()[:16]
    target = cache_folder("exercises") / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as beside:
                made = Path(beside) / "packages"
                _copy(source, made / "jax")
                _check(made)
                made.rename(target)
    return target


def _check(made: Path) -> None:
    """Imports the copy, whose bytecode Python keeps then, and tries to differentiate."""
    code = f"import sys; sys.path[:0] = {[str(made), *site_folders()]!r}\n{CHECKED}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], env=environment, capture_output=True, text=True
    )
    if found.returncode:
        version, why = importlib.metadata.version("jax"), found.stderr.strip().splitlines()[-1:]
        raise RunFailedError("no copy of JAX {} without autodiff: {}", version, "".join(why))


def needed_folders() -> dict[str, Path]:
    """The packages that JAX needs, by name, where they are installed."""
    found = {name: Path(site) / name for site in site_folders() for name in NEEDED}
    return {name: path for name, path in found.items() if path.exists()}


def site_folders() -> list[str]:
    """The folders in which the packages that JAX needs are installed."""
    return list(dict.fromkeys(str(_folder_of(n).parent) for n in NEEDED if not n.endswith("libs")))


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec and spec.origin, package
    return Path(spec.origin).parent


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=LEFT_OUT)
    (target / "experimental").mkdir()
    for name in KEPT:
        kept, place = source / "experimental" / name, target / "experimental" / name
        if kept.is_dir():
            shutil.copytree(kept, place, ignore=LEFT_OUT)
        else:
            shutil.copyfile(kept, place)
    (target / "experimental" / "__init__.py").touch()
    (target / "_src" / "interpreters" / "ad.py").write_text(NO_AD)
    files = {path: path.read_text("utf-8").splitlines() for path in target.rglob("*.py")}
    _delete_rules(files)
    for path, lines in files.items():
        path.write_text("\n".join(lines) + "\n", "utf-8")
    for name, text in PLAIN.items():
        with (target / "_src" / name).open("a") as file:
            file.write(text)


def _delete_rules(files: dict[Path, list[str]]) -> None:
    """Empties the lines that register rules of differentiation, and those of the rules."""
    functions: dict[str, list[tuple[list[str], slice]]] = collections.defaultdict(list)
    for path, lines in files.items():
        text = "\n".join(lines)
        if path.name == "ad.py" or not re.search(rf"\bad\b|{RULE.pattern}", text):
            continue
        for node in ast.parse(text).body:
            place = slice(min(part.lineno for part in _parts(node)) - 1, node.end_lineno)
            if _registers(node):
                lines[place] = [""] * len(lines[place])
            elif isinstance(node, ast.FunctionDef) and (
                RULE.search(node.name) or (node.name[0] == "_" and not node.decorator_list)
            ):
                functions[node.name].append((lines, place))
    counts = collections.Counter(word for lines in files.values() for word in _words(lines))
    while gone := [
        name
        for name, found in functions.items()
        if counts[name] == sum(_words(lines[place]).count(name) for lines, place in found)
    ]:
        for name in gone:
            for lines, place in functions.pop(name):
                counts.subtract(_words(lines[place]))
                lines[place] = [""] * len(lines[place])


def _parts(node: ast.stmt) -> Iterator[ast.stmt | ast.expr]:
    yield node
    yield from getattr(node, "decorator_list", [])


def _registers(node: ast.stmt) -> bool:
    """Whether a statement of a module does no more than to register a rule."""
    if isinstance(node, ast.FunctionDef):
        return any(_mentions_rules(decorator) for decorator in node.decorator_list)
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Subscript) and _mentions_rules(node)
    return isinstance(node, ast.Expr | ast.For) and _mentions_rules(node)


def _mentions_rules(node: ast.AST) -> bool:
    return any(
        (isinstance(part, ast.Name) and part.id == "ad")
        or (isinstance(part, ast.Attribute) and part.attr in REGISTERS)
        for part in ast.walk(node)
    )


def _words(lines: list[str]) -> list[str]:
    """The words of lines, without comments that are lines of their own."""
    code = (line for line in lines if not line.lstrip().startswith("#"))
    return re.findall(r"\w+", "\n".join(code))


if __name__ == "__main__":  # A container's image: docs/teachers/grading.md.
    for folder in [packages_folder() / "jax", *needed_folders().values()]:
        shutil.copytree(folder, Path(sys.argv[1]) / folder.name)
