"""Says why a backward pass is wrong: a usual bug, or what its gradients look like, and where.

If a gradient is that of a bug of the same layer in every setting, the student made that bug.
"""

import ast
import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.base.language import N_, _
from jaxnets.course.exercises.catalogue import BUGS, Blank, Bug
from jaxnets.course.exercises.derived import DERIVED
from jaxnets.course.exercises.passes import Call, named_result
from jaxnets.course.exercises.where import in_common
from jaxnets.gradcheck.causes import cause, same, without
from jaxnets.gradcheck.quick import precision

# The answer to a find-the-bug exercise that is still the bug.
UNCHANGED = N_(
    "it computes what the file computed at first; find the bug by reading, repair it here, "
    "then check again"
)
IS_WRONG, ARE_WRONG = N_("{} is wrong"), N_("{} are wrong")
IN_SETTINGS = N_("{} in {} of {} settings, {}")
FIRST_IN = N_("first in: {}")

Pairs = Sequence[tuple[Any, Mapping[str, np.ndarray]]]  # Each judge.Case, and the answer to it.


def reasons_of(exercise: Blank | Bug, pairs: Pairs) -> Iterator[str]:
    """Yields the cause of each wrong gradient, then where each is wrong.

    Args:
      exercise: The exercise.
      pairs: Its cases in float64, and the answers.
    """
    leaves = dict.fromkeys(leaf for case, _answer in pairs for leaf in case.right)
    wrong = [leaf for leaf in leaves if any(_is_wrong(leaf, *pair) for pair in pairs)]
    # Where only lower precisions or the differences show it, none is wrong.
    unchanged = [_is_from_bug(exercise, leaf, pairs) for leaf in wrong if isinstance(exercise, Bug)]
    if unchanged and all(unchanged):
        yield _(UNCHANGED)
    name = pairs[0][0].call.gradient_name
    bugs = {leaf: _bug_behind(exercise, leaf, pairs) for leaf in wrong}
    yield from _joined(wrong, name, lambda leaf, names: _cause(exercise, leaf, names, pairs, bugs))
    if isinstance(exercise, Bug):
        yield _("hint: {}", _(exercise.hint))
    yield from _joined(wrong, name, lambda leaf, names: _where(exercise, leaf, names, pairs))


def are_wrong(labels: Sequence[str]) -> str:
    """Says that these gradients are wrong."""
    return _(ARE_WRONG if len(labels) > 1 else IS_WRONG, _(" and ").join(labels))


def _joined(
    leaves: Iterable[str], name: Callable[[str], str], says: Callable[[str, Sequence[str]], str]
) -> Iterator[str]:
    """Yields a sentence on each gradient; the same sentence on several gradients once, of them all.

    Args:
      leaves: The gradients.
      name: Returns a gradient's name in the code.
      says: Returns the sentence on a gradient, or on several that are like it, with these names.
    """
    alike: dict[str, list[str]] = {}
    for leaf in leaves:
        alike.setdefault(says(leaf, ["_"]), []).append(leaf)
    for first, *others in alike.values():
        yield says(first, [name(leaf) for leaf in (first, *others)])


def _is_wrong(leaf: str, case: Any, answer: Mapping[str, np.ndarray]) -> bool:
    """Whether a gradient is wrong; a setting may have no bias."""
    return leaf in case.right and not same(answer[leaf], case.right[leaf])


def _cause(
    exercise: Blank | Bug,
    leaf: str,
    labels: Sequence[str],
    pairs: Pairs,
    bugs: Mapping[str, Bug | None],
) -> str:
    """What is wrong with a gradient: a bug, or what it looks like where it is wrong."""
    label = _(" and ").join(labels)
    if bug := bugs[leaf]:
        return _(": ").join([label, _(bug.says)])
    case, answer = next(pair for pair in pairs if _is_wrong(leaf, *pair))
    yours, right, name = answer[leaf], case.right[leaf], _name_of_d_out(exercise)
    known = {name: np.asarray(case.call.d_out), **_known(exercise, case.call)}
    missing = (without(label, yours, right, one, array) for one, array in known.items())
    return next(filter(None, missing), "") or cause(label, yours, right, name, known)


def _bug_behind(exercise: Blank | Bug, leaf: str, pairs: Pairs) -> Bug | None:
    """The bug of the same layer whose gradient this is; of several, that with the most of them."""
    forward = exercise.forward if isinstance(exercise, Bug) else ""
    alike = [
        bug
        for bug in BUGS.values()
        if bug is not exercise
        and (bug.layer, bug.forward) == (exercise.layer, forward)  # It takes the same cache.
        and _is_from_bug(bug, leaf, pairs)
    ]
    leaves = pairs[0][0].right
    return max(
        alike,
        key=lambda bug: sum(_is_from_bug(bug, other, pairs) for other in leaves),
        default=None,
    )


def _is_from_bug(bug: Bug, leaf: str, pairs: Pairs) -> bool:
    """Whether a gradient is a bug's in every setting."""
    with precision("float64"), np.errstate(all="ignore"), contextlib.suppress(Exception):
        return all(
            same(answer[leaf], np.asarray(_results_of(bug, case.call)[leaf]))
            for case, answer in sorted(pairs, key=lambda pair: not _is_wrong(leaf, *pair))
            if leaf in case.right
        )
    return False  # It does not take such calls.


def _results_of(bug: Bug, call: Call) -> dict[str, Any]:
    """The gradients that a bug computes."""
    cache, d_out = jax.tree.map(jnp.asarray, (call.cache, call.d_out))
    return named_result(call, _defined(bug.name)(cache, d_out, **call.static))


@functools.cache
def _defined(name: str) -> Callable[..., Any]:
    """A bug's function."""
    passes = dict[str, Any]()
    exec(BUGS[name].code, passes)
    return passes[name]


def _known(exercise: Blank | Bug, call: Call) -> dict[str, np.ndarray]:
    """The arrays of the cache, by the names that the exercise's code gives them."""
    names = dict[str, Any]()
    for node in ast.walk(_function_of(exercise)):
        if isinstance(node, ast.Assign) and ast.unparse(node.value) == "cache":
            exec(ast.unparse(node), {"cache": call.cache}, names)
            break
    known = {}
    for name, value in names.items():
        parts = value if isinstance(value, Mapping) else {}
        known |= {f'{name}["{key}"]': np.asarray(part) for key, part in parts.items()}
        if isinstance(value, np.ndarray):
            known[name] = value
    return known


def _function_of(exercise: Blank | Bug) -> ast.FunctionDef:
    """The function in an exercise's code."""
    for node in ast.parse(exercise.code).body:
        if isinstance(node, ast.FunctionDef) and node.name == exercise.function:
            return node
    raise AssertionError(exercise.function)


def _name_of_d_out(exercise: Blank | Bug) -> str:
    """The name of the gradient from above in an exercise's code: its second argument."""
    return _function_of(exercise).args.args[1].arg


def _where(exercise: Blank | Bug, leaf: str, labels: Sequence[str], pairs: Pairs) -> str:
    """In which settings a gradient is wrong, and what they have in common."""
    tried = [pair for pair in pairs if leaf in pair[0].right]
    wrong = [_is_wrong(leaf, *pair) for pair in tried]
    settings = [case.setting for case, _answer in tried]
    has_kinks = DERIVED[exercise.layer].has_kinks
    first = tried[wrong.index(True)][0].label
    where = in_common(settings, wrong, has_kinks=has_kinks) or _(FIRST_IN, first)
    return _(IN_SETTINGS, are_wrong(labels), sum(wrong), len(wrong), where)
