"""The errors for a flag, a field or a network that does not exist, each with what to write."""

from collections.abc import Iterable, Mapping

from jaxnets.base.errors import UserError, unknown
from jaxnets.base.language import Text
from jaxnets.base.words import answers, hint
from jaxnets.config.options import Field, flag_name, is_positional


def flag_words(fields: Iterable[Field]) -> dict[str, str]:
    """The words for flags: names, values and the field's words, each with the flag.

    They leave out --overwrite, which removes a run.
    """
    flags = {flag_name(field): field for field in fields if not is_positional(field)}
    found = {
        value: f"--{name}={value}"
        for name, field in reversed(flags.items())  # Of the same values, the first flag's stays.
        for value in field.metadata["allowed"]
        if isinstance(value, str)
    }
    found |= {
        word: answer
        for word, answer in answers()
        if answer.partition("=")[0].removeprefix("--") in flags
    }
    found |= {f"no_{name}": f"--no_{name}" for name, field in flags.items() if field.type is bool}
    found |= {name: f"--{name}" for name in flags}
    return {word: answer for word, answer in found.items() if answer != "--overwrite"}


def field_words(known: Iterable[str]) -> dict[str, str]:
    """The words for fields: their names and the field's words, each with the name."""
    names = {name: name for name in known}
    fields = ((word, answer.removeprefix("--").partition("=")[0]) for word, answer in answers())
    return {word: name for word, name in fields if name in names} | names


def unknown_flag(name: str, known: Mapping[str, str]) -> UserError:
    """The error for a flag that does not exist; `known` is as in `hint`."""
    said = hint(name, known) or Text("; --help_all lists all flags")
    return UserError("unknown flag {}{}", name, said)


def unknown_field(name: str, known: Iterable[str]) -> UserError:
    """The error for a field that does not exist.

    >>> print(unknown_field("lr", ["learning_rate"]))
    unknown field "lr"; did you mean "learning_rate"?
    """
    said = hint(name, field_words(known), quoted=True) or " (help(jaxnets.Config) lists them)"
    return UserError('unknown field "{}"{}', name, said)


def unknown_model(name: str, known: Iterable[str], said: Text | str = "") -> UserError:
    """The error for a network that does not exist, with a hint or the nearest network.

    >>> print(unknown_model("LeNet-5", ["mlp", "cnn"]))
    unknown model "LeNet-5"; did you mean "cnn"?
    """
    names = {model: model for model in known}
    models = ((word, answer.removeprefix("--model=")) for word, answer in answers())
    meant = {word: model for word, model in models if model in names} | names
    return unknown("model", name, names, said or hint(name, meant, quoted=True))
