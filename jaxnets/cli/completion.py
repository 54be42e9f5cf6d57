"""Tab completion: `jaxnets completion SHELL` prints a script, which asks `words` at each Tab.

So no name of a flag or command is written down twice.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from jaxnets.base.errors import UserError
from jaxnets.config.options import Options, flag_name, options_of

# Each runs `jaxnets completion words LINE`, where LINE is what was typed so far; where that prints
# nothing, the shell completes file names.
SCRIPTS = {
    # Bash ends a word at "=", so it gets only what comes after it.
    "bash": """\
_jaxnets() {
    local line=${COMP_LINE:0:COMP_POINT}
    mapfile -t COMPREPLY < <(jaxnets completion words "$line" 2> /dev/null)
    [[ ${line##* } == *=* ]] && COMPREPLY=("${COMPREPLY[@]#*=}")
    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -o bashdefault -o default -F _jaxnets jaxnets""",
    "zsh": """\
_jaxnets() {
    local -a found
    found=("${(@f)$(jaxnets completion words "$BUFFER[1,CURSOR]" 2> /dev/null)}")
    [[ -n $found[1] ]] && compadd -S '' -- $found || _files
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
compdef _jaxnets jaxnets""",
    "fish": "complete -c jaxnets -a '(jaxnets completion words (commandline -cp))'",
}

OTHERS = ("help", "version", "--help", "--version")  # First words that are not commands' names.


def completion_of(
    arguments: Sequence[str], commands: Mapping[str, tuple[type[Options], ...]]
) -> str:
    """The output of `jaxnets completion`: a shell's script or, for that script, words."""
    if len(arguments) == 2 and arguments[0] == "words":
        return "\n".join(words(arguments[1], commands))
    if len(arguments) != 1 or arguments[0] not in SCRIPTS:
        got = " ".join(arguments) or "none"
        raise UserError("completion: expected a shell of {}, got {}", ", ".join(SCRIPTS), got)
    return SCRIPTS[arguments[0]]


def words(line: str, commands: Mapping[str, tuple[type[Options], ...]]) -> Iterator[str]:
    """The words that may come at the end of a line: commands, flags as --epochs=, their values."""
    _, *typed = line.split(" ")
    last = typed.pop() if typed else ""
    typed = [word for word in typed if word]
    is_first = not typed
    if typed[:1] == ["help"]:  # What follows is a command, too.
        del typed[0]
    if last.startswith("-") and typed:
        known = (commands.get(" ".join(typed[:count]), ()) for count in (2, 1))
        kinds = next(filter(None, known), ())
        found = [word for kind in kinds for field in options_of(kind) for word in _of(field)]
        found += ["--help", "--help_all"] if kinds else []
        if "=" not in last:  # The values come after their flag is typed.
            found = dict.fromkeys(word.partition("=")[0] + "=" * ("=" in word) for word in found)
    else:
        names = [name.split() for name in commands]
        follow = [name[len(typed)] for name in names if name[: len(typed)] == typed != name]
        found = [*dict.fromkeys(follow), *(OTHERS if is_first else [])]
    yield from (word for word in found if word.startswith(last))


def _of(field: dataclasses.Field) -> list[str]:
    """The ways to write a flag, with each of its values if these are known."""
    if field.default is dataclasses.MISSING:
        return []
    if field.type is bool:
        return [f"--no_{field.name}" if field.default else f"--{field.name}"]
    values = [value for value in field.metadata["allowed"] if isinstance(value, str)]
    return [f"--{flag_name(field)}={value}" for value in values or [""]]
