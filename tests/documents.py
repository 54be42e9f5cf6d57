"""What tests of pages and notebooks share: what a text names, and what cells print."""

import ast
import json
import pkgutil
import re
import subprocess
import sys

from conftest import ROOT

from jaxnets.config.fields import Config

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# `path:name` or `path:Class.name`, in the lecture's map.
REFERENCE = re.compile(r"`([\w/]+\.py):([\w.]+)`")


def anchors_of(document) -> set[str]:
    """The anchors that GitHub gives to a document's headings."""
    text = FENCE.sub("", document.read_text("utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def exists(path: str, name: str) -> bool:
    """Whether a reference leads to a name."""
    if path.startswith("tests/"):  # Some tests need packages that may be missing.
        return f"\ndef {name}(" in (ROOT / path).read_text("utf-8")
    try:
        pkgutil.resolve_name(f"{path.removesuffix('.py').replace('/', '.')}:{name}")
    except (ImportError, AttributeError):
        return False
    return True


def missing_references(text: str) -> list[str]:
    """The references of a text to which nothing answers."""
    return [":".join(found) for found in REFERENCE.findall(text) if not exists(*found)]


def look_up_names(code: str) -> None:
    """Looks up what some Python takes from jaxnets, and the fields that it gives to presets."""
    tree, names = ast.parse(re.sub(r"\A%%writefile .*\n", "", code)), {}
    for node in ast.walk(tree):
        line = ast.unparse(node) if isinstance(node, ast.Import | ast.ImportFrom) else ""
        if re.match(r"(from|import) jaxnets\b", line):
            exec(line, names)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(ast.Name(name), attribute) if name in names:
                getattr(names[name], attribute)
            case ast.Call(ast.Attribute(ast.Name("jaxnets"), "preset"), keywords=keywords):
                for word in keywords:
                    getattr(Config, str(word.arg))


def missing_flags(text: str) -> list[str]:
    """The flags in a text that train.py does not know."""
    known = Config.__dataclass_fields__
    flags = re.findall(r"(?<![-\w])--(\w+)", text)
    return [flag for flag in flags if flag.removeprefix("no_") not in known]


# Runs a notebook's cells and prints what each shows, where nothing but NumPy can be imported.
NUMPY_ALONE = """
import ast, json, sys

class OnlyNumpy:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("numpy", "_distutils_hack"):
            raise ModuleNotFoundError(f"{name} is not NumPy", name=name)

sys.meta_path.insert(0, OnlyNumpy())
space = {"__name__": "notebook"}
for source in json.load(sys.stdin):
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), space)
    shown = eval(compile(ast.Expression(last.value), "cell", "eval"), space) if last else None
    if shown is not None:
        print(shown)
"""


def printed(cells: list[str]) -> list[str]:
    """The lines that cells print where nothing but NumPy can be imported."""
    command = [sys.executable, "-W", "error", "-c", NUMPY_ALONE]
    done = subprocess.run(command, input=json.dumps(cells), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
