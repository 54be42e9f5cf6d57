"""Wrong backward passes of the kind that students write, for the check to find.

Each has the signature of the backward pass that it replaces, and its docstring says what its
author thought. docs/exercises.md asks for the mistakes. To try a repair, change the function and
run `python -m jaxnets gradcheck --mutant=NAME`: it is repaired when the check says ok.
"""

from jaxnets.backprop.rule import LayerRule, all_rules
from jaxnets.gradcheck.mutants import images, rows
from jaxnets.gradcheck.mutants.mutant import Mutant

MUTANTS: dict[str, Mutant] = {
    name: value
    for room in (rows, images)
    for name, value in vars(room).items()
    if isinstance(value, Mutant)
}


def mutated(name: str) -> LayerRule:
    """The layer with the mutant as its backward pass."""
    mutant = MUTANTS[name]
    right = all_rules()[mutant.layer]
    return right._replace(backward=mutant.backward, forward=mutant.forward or right.forward)
