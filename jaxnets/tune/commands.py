"""`jaxnets search` and `jaxnets lr_find`."""

from typing import Annotated, Any

from jaxnets.base.display import short_path
from jaxnets.base.errors import DONE, UserError
from jaxnets.base.language import Text, _
from jaxnets.base.words import right_name
from jaxnets.config.command import CommandResult, FigureFile, Flag, command
from jaxnets.config.fields import COUNT, Config
from jaxnets.config.options import parse
from jaxnets.config.recipes import DEFAULT_MODEL
from jaxnets.config.resolve import preset
from jaxnets.config.unknown import field_words, unknown_flag
from jaxnets.tune.workers import Workers


@command
def search(
    *,
    over: Annotated[tuple[str, ...], Flag(metavar="FIELD=A,B,...", repeated=True)] = (),
    seeds: Annotated[int, Flag(COUNT)] = 10,
    workers: Workers,
    race: bool = False,
    **given: Any,
) -> CommandResult | int:
    """Compare settings over several seeds, and test if a lead is luck.

    Args:
      over: field and the values to compare, such as hidden=100,200 (several layers as 64x32); give
        the flag several times for several fields
      seeds: number of seeds for each setting
      race: look after every seed, and drop a setting once another has surely beaten it; --seeds is
        then the largest number
    """
    given.setdefault("model", DEFAULT_MODEL)
    values: dict[str, list[Any]] = {}
    for name, compared in map(_values, over):
        if name in values:
            raise UserError("over: expected each field once, got {} twice", name)
        values[name] = compared
    if not values:
        wanted = Text("--over=FIELD=A,B,... at least once, such as --over=hidden=100,200")
        raise UserError("over: expected {}, got none", wanted)

    from jaxnets.tune import ranking
    from jaxnets.tune.search import search_all

    found = search_all(given, values, seeds, workers, race)
    if workers.cell is not None:
        print(_("{} runs are done in {}", len(found.runs), short_path(str(found.folder))))
        return DONE
    ranking.plot(found).save(found.folder / "search.svg")
    return ranking.Ranking(found)


@command
def lr_find(*, output: FigureFile = None, **given: Any) -> CommandResult:
    """Find a learning rate: try growing rates, one step each."""
    preset(**given)  # Raises if the flags are wrong, before JAX is imported.

    from jaxnets.tune import lr_find

    if output:
        from jaxnets.drawing.svg import figure_path

        figure_path(output)
    found = lr_find.find(given)
    if output:
        lr_find.plot(found).save(output)
    return found


def _values(text: str) -> tuple[str, list[Any]]:
    """The field and its values in a text such as "hidden=100,64x32"."""
    given, _, values = text.partition("=")
    if not values:
        raise UserError("over: expected FIELD=A,B,..., got {}", repr(text))
    fields = Config.__dataclass_fields__
    if (name := right_name(given, fields)) is None:
        raise UserError("over: {}", unknown_flag(given, field_words(fields)))
    parts = values.split(",")
    if name == "hidden":
        parts = [size.replace("x", ",") for size in parts]
    return name, [parse(fields[name], part) for part in parts]
