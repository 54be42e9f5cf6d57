"""Judges a backward pass without a tolerance, in a finite field (gradcheck/exact.py).

The judge draws residues and computes a layer's forward pass on them. The student's process gets the
cache and computes the backward pass on it. What it returns must fit the forward pass's slopes: no
right answer is computed.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from jaxnets.backprop.rule import LayerRule, Setting
from jaxnets.course.exercises.passes import ExactCall
from jaxnets.gradcheck.compare import Passes
from jaxnets.gradcheck.exact import (
    EXACT,
    OPEN,
    WRONG,
    Claim,
    Draw,
    Evaluation,
    Question,
    Verdict,
)
from jaxnets.gradcheck.field import P
from jaxnets.gradcheck.interpret import Roots, Traced
from jaxnets.gradcheck.layer_check import call_layer, whole_problem_of
from jaxnets.gradcheck.quick import precision
from jaxnets.gradcheck.residues import Numbers, other_functions
from jaxnets.models.batch_norm import join_statistics, split_statistics


@dataclass(frozen=True)
class ExactCase:
    """A layer in one setting, on residues."""

    setting: Setting
    label: str  # The setting's.
    call: ExactCall
    evaluation: Evaluation  # Of `_claim_of`, with residues drawn in place of a gradient.
    right: ClassVar[Mapping[str, np.ndarray]] = {}  # The forward pass decides.

    def verdict_on(self, answer: Mapping[str, np.ndarray]) -> Verdict:
        """Whether an answer fits the forward pass, and if not, its first wrong entry.

        Args:
          answer: Each gradient's residues, of two computations: in the second, other functions
            stand for those that the field does not know. Empty: there are none.
        """
        *_others, gradient = self.evaluation.constants
        shapes = {name: (2, *x.shape) for name, x in _named(gradient).items()}
        if {name: array.shape for name, array in answer.items()} != shapes:
            return Verdict(OPEN)  # Where the shape is wrong, the comparison of numbers says so.
        with precision("float64"):
            first = self._with_gradient(answer, 0)
            defect = first.defect()
            if defect is None:
                return Verdict(EXACT)
            with other_functions():
                if self._with_gradient(answer, 1).defect() != defect:
                    return Verdict(OPEN)
            return Verdict(WRONG, self._in_the_code(defect.entry or first.wrong_entry()))

    def _with_gradient(self, answer: Mapping[str, np.ndarray], computation: int) -> Evaluation:
        """The evaluation with the answer's gradient, of one of its two computations."""
        *others, gradient = self.evaluation.constants
        leaves = [
            Numbers(answer[name][computation] % P, x.real) for name, x in _named(gradient).items()
        ]
        evaluation = copy.copy(self.evaluation)
        claimed = jax.tree.unflatten(jax.tree.structure(gradient), leaves)
        evaluation.constants = *others, claimed
        return evaluation

    def _in_the_code(self, entry: str) -> str:
        """An entry as the code names it: dx[0, 1] for gradient.x[0, 1]."""
        leaf, bracket, place = entry.partition(".")[2].partition("[")
        return f"{self.call.gradient_name(leaf)}{bracket}{place}"


def exact_cases(rule: LayerRule, settings: Sequence[Setting], dx: str) -> list[ExactCase]:
    """A layer in these settings, except where the residues drawn have no roots.

    Args:
      rule: The layer; its backward pass is not used.
      settings: Small ones.
      dx: The exercise's name for the gradient of the layer's input.
    """
    with precision("float64"):
        return [case for one in settings if (case := _case(rule, one, dx))]


def _case(rule: LayerRule, setting: Setting, dx: str) -> ExactCase | None:
    problem = whole_problem_of(rule, setting)
    passes = problem.at("float64")
    weights, running = split_statistics(passes.inputs)
    evaluation = Evaluation(_question_of(rule, setting, passes, running), weights, seed=0)
    if not evaluation.traced.takes_roots:
        # Then those of the answer are any functions with a root's slope: the one that the field
        # calls the root of e² may be -e where e is positive.
        evaluation.interpreter.roots = Roots.FORMAL
    elif not evaluation.find_roots():
        return None
    running, labels, d_out, _gradient = evaluation.constants
    given = join_statistics(evaluation.inputs, running), labels
    forward = Traced(
        lambda inputs, labels: call_layer(rule, setting, rule.forward, inputs, labels)[1], *given
    )
    first = forward(evaluation.interpreter, *given)
    with other_functions():
        caches = first, forward(evaluation.interpreter, *given)
    caches = jax.tree.map(lambda x: x.without_slope() if isinstance(x, Numbers) else x, caches)
    static, params = dict(setting.static), tuple(setting.params)
    call = ExactCall(EXACT, caches, d_out, static, params, dx, interpreter=evaluation.interpreter)
    return ExactCase(setting, problem.label, call, evaluation)


def _question_of(rule: LayerRule, setting: Setting, passes: Passes, running: Any) -> Question:
    """Whether a gradient, the last of the constants, fits a layer's forward pass.

    The running statistics, which no slope reaches, must follow as in the plain formulation.
    """
    number, question = passes.number, passes.question
    assert number and question

    def claim(weights: Any, constants: Any) -> Claim:
        running, labels, d_out, gradient = constants

        def plain(running: Any) -> jax.Array:
            return number(join_statistics(weights, running), (labels, d_out))

        inputs = join_statistics(weights, running)
        out, _cache = call_layer(rule, setting, rule.forward, inputs, labels)
        gradient, followed = split_statistics(gradient)
        return Claim((out * d_out).sum(), gradient, (followed, jax.grad(plain)(running)))

    def drawn(draw: Draw) -> Any:
        labels, d_out = question.constants(draw)
        gradient = jax.tree.map(lambda x: draw.numbers(np.zeros(x.shape)), passes.inputs)
        return jax.tree.map(draw.numbers, running), labels, d_out, gradient

    return Question(claim, drawn)


def _named(tree: Mapping[str, Any]) -> dict[str, Numbers]:
    """The leaves of a gradient by the names of an answer, in the tree's order."""
    params = tree.get("params", {})
    return {**{f"params.{name}": params[name] for name in sorted(params)}, "x": tree["x"]}
