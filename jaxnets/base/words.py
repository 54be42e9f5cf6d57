"""What to write for a name that does not exist: the field's words for ours, and the nearest name.

Commands, flags, fields and networks all ask here, so one table serves them.
"""

from collections.abc import Iterable, Iterator, Mapping

from jaxnets.base.errors import nearest, same_name
from jaxnets.base.language import N_, Text

# Keras's and PyTorch's names for a field. As a flag, as a key of a file and after --over=, one is
# accepted; Python suggests the field.
ALIASES = dict(lr="learning_rate", bs="batch_size", wd="weight_decay")
ALIASES |= dict(dtype="precision", units="hidden", criterion="loss")

# What to write for words of Keras, PyTorch, scikit-learn and git.
WORDS = {
    "jaxnets train": "fit",
    "jaxnets train --resume": "resume",
    "jaxnets help train": "models networks datasets",
    "jaxnets evaluate RUN": "test validate score",
    "jaxnets predict RUN PICTURE": "infer classify",
    "jaxnets runs": "list ls log status",
    "jaxnets report RUN": "plot compare",
    "jaxnets page RUN": "draw",
    "jaxnets summary": "show info",
    "jaxnets search": "tune sweep",
    "jaxnets serve RUN": "deploy",
    "jaxnets export RUN": "onnx",
    "jaxnets exercise answers": "solution solutions",
    "jaxnets exercise grade FOLDER": "teach teacher grade",
    N_("jaxnets gradcheck, jaxnets exercise check FILE or, in Python, jaxnets.check"): "check",
    "--model": "m network arch",
    "--model=cnn": "lenet lenet5",
    "--hidden": "layers",
    "--dataset": "d data",
    "--dataset=mnist": "mnist",
    "--dataset=cifar10": "cifar10",
    "--validation_size": "val_split",
    "--epochs": "e max_iter",
    "--batch_size": "b",
    "--seed": "random_state",
    "--devices": "gpus",
    "--platform=gpu": "cuda",
    "--precision=mixed": "amp",
    "--track": "tensorboard wandb mlflow",
    "--workdir": "output_dir",
}


def right_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that is meant without doubt: capitals and dashes do not count.

    >>> right_name("LR", ["epochs", "learning_rate"])
    'learning_rate'
    """
    return same_name(ALIASES.get(name.lower(), name), known)


def hint(name: str, known: Mapping[str, str], *, quoted: bool = False) -> Text | str:
    """What to write for a name that does not exist, if that is clear, else nothing.

    Args:
      name: A word, a flag or NAME=VALUE.
      known: The words that may be meant, each with what to write for it.
      quoted: Whether what to write is a value, which is shown in quotation marks.

    >>> print(hint("num_epochs=3", {"epochs": "--epochs", "seed": "--seed"}))
    ; did you mean --epochs=3?
    """
    word, equals, value = name.lstrip("-").partition("=")
    if name.endswith(".py") and "model" in known:
        return Text("; did you mean {}?", f"{known['model']}={name}")
    if (near := same_name(word, known) or nearest(word, known)) is None:
        return ""
    answer = known[near]
    if equals and "--" in answer and "=" not in answer:
        answer = f"{answer}={value}"
    if quoted:
        return Text('; did you mean "{}"?', answer)
    return Text("; did you mean {}?", Text(answer))


def command_words() -> dict[str, str]:
    """The field's words for commands, each with the command."""
    return {word: answer for word, answer in answers() if answer.startswith("jaxnets")}


def answers() -> Iterator[tuple[str, str]]:
    """Each of the field's words, and what to write for it."""
    yield from ((alias, f"--{name}") for alias, name in ALIASES.items())
    yield from ((word, answer) for answer, words in WORDS.items() for word in words.split())
