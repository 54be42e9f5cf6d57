"""Writes an exercise into a file of the student's own."""

import ast
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

from jaxnets.course.exercises.bugs import BUGS
from jaxnets.course.exercises.catalogue import COMPUTE, FILL_IN, TEMPLATES, Exercise
from jaxnets.course.exercises.compute import SHEETS, sheet_text
from jaxnets.course.exercises.mutant_source import mutant_sources
from jaxnets.display import short_path
from jaxnets.errors import UserError

WIDTH = 88


def write_new(exercise: Exercise, path: str | None, translated: Callable[[str], str]) -> Path:
    """Writes an exercise's file, never over another one; returns its path.

    Args:
      exercise: The exercise.
      path: The file; None names it after the exercise.
      translated: Says the file's docstrings and comments in the reader's language.

    Raises:
      UserError: The file exists, or it cannot be written.
    """
    suffix = ".toml" if exercise.kind == COMPUTE else ".py"
    target = Path(path or f"my_{exercise.name}{suffix}")
    if target.suffix != suffix:
        raise UserError(f"output: expected a name with {suffix}, got {str(target)!r}")
    text = translated(text_of(exercise, target.name))
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(
            f"{short_path(str(target))} is there already; expected a new name: --output=FILE"
        ) from None
    except OSError as error:
        raise UserError(f"{short_path(str(target))}: {error.strerror}") from error
    return target


def text_of(exercise: Exercise, file: str = "") -> str:
    """An exercise's file, which names itself in its first lines."""
    standard = f"my_{exercise.name}.py"
    if exercise.kind == COMPUTE:
        return sheet_text(exercise.name, SHEETS[exercise.name], file or f"my_{exercise.name}.toml")
    if exercise.kind == FILL_IN:
        text = (TEMPLATES / f"{exercise.name}.py").read_text("utf-8")
    else:
        text = _bug_text(exercise)
    return text.replace(standard, file or standard)


def imports_of(exercise: Exercise) -> frozenset[str]:
    """The names that an exercise's file imports, as "jaxnets.losses.probabilities_of"."""
    return frozenset(
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(text_of(exercise)))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("jaxnets.")
        for alias in node.names
    )


def _bug_text(exercise: Exercise) -> str:
    bug = BUGS[exercise.name]
    source = mutant_sources()[bug.mutant]
    template = ast.parse((TEMPLATES / f"{source.layer}.py").read_text("utf-8"))
    layer = str(ast.get_docstring(template))
    (backward,) = (node for node in template.body if isinstance(node, ast.FunctionDef))
    arguments = str(ast.get_docstring(backward)).partition("\n\n")[2]
    if source.forward:  # It keeps another cache than the layer does.
        forward = textwrap.indent(source.forward.replace('"""', "'''"), "    ")
        facts = f"The forward pass, which returns (y, cache):\n\n{forward}"
    else:
        facts = layer[layer.index("The forward pass:") :] + f"\n\n{arguments}"
    head = [
        f"Exercise {exercise.name}: one thing is wrong in this backward pass ({exercise.about}).",
        f"Level {bug.level}, about {bug.minutes} minutes. Find it by reading, repair it here, "
        "then ask the judge:",
        f"    jaxnets gradcheck --mine=my_{exercise.name}.py",
        facts,
        "The docstring of the function is what its author thought.",
        textwrap.fill(bug.question, WIDTH),
    ]
    docstring = '"""' + "\n\n".join(head) + '\n"""'
    function = re.sub(rf"\A(def ){bug.mutant}\b", rf"\1{exercise.name}", source.function)
    imports = _import_lines(source.imports)
    return "\n\n\n".join(["\n\n".join([docstring, *imports]), *source.helpers, function]) + "\n"


def _import_lines(imports: list[ast.Import | ast.ImportFrom]) -> list[str]:
    """The imports in blocks, other packages' first, one line for each module."""
    blocks: dict[bool, dict[str, list[str]]] = {False: {}, True: {}}
    for node in imports:
        names = [ast.unparse(alias) for alias in node.names]
        module = f"from {node.module}" if isinstance(node, ast.ImportFrom) else "import"
        block = blocks[module.startswith("from jaxnets")]
        if module == "import":
            block.update({f"import {name}": [] for name in names})
        else:
            block.setdefault(module, []).extend(names)
    return [
        "\n".join(
            f"{module} import {', '.join(sorted(names))}" if names else module
            for module, names in sorted(block.items(), key=lambda item: (bool(item[1]), item[0]))
        )
        for block in blocks.values()
        if block
    ]
