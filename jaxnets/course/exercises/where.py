"""Says what the settings in which a gradient is wrong have in common, and the right ones have not.

It speaks only of the settings that were tried. A kink or a tie is named only if a setting without
ties, the same in all else, is right.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jaxnets.backprop.rule import Setting
from jaxnets.base.language import N_, _

# The numbers of a setting that are often equal to each other, or 0; some of the huge ones are 0.
TIES = "integers", "equal"

KINK = N_("only at a kink or a tie; with the same shapes and other numbers it is right")
WHERE = N_("where {}")
# What a setting may be, and what it is otherwise.
KINDS = {
    "strides": (N_("the strides differ"), N_("the strides are equal")),
    "window": (N_("the window is not square"), N_("the window is square")),
    "image": (N_("the image is not square"), N_("the image is square")),
    "output": (N_("the output is not square"), N_("the output is square")),
    "kernel": (N_("the kernel is not square"), N_("the kernel is square")),
    "table": (N_("x is not square"), N_("x is square")),
    "overlap": (N_("windows overlap"), N_("no windows overlap")),
    "steps": (N_("a stride is more than 1"), N_("each stride is 1")),
    "groups": (N_("there are several groups"), N_("there is one group")),
    "padding": (N_('the padding is "SAME"'), N_('the padding is not "SAME"')),
    "bias": (N_("there is a bias"), N_("there is no bias")),
    "images": (N_("x holds images"), N_("x holds no images")),
    "shares": (N_("the labels are probabilities"), N_("the labels are classes")),
    "padded": (N_("the batch has padding"), N_("the batch has no padding")),
    "huge": (N_("the numbers are huge"), N_("the numbers are not huge")),
}
ONE, OTHERS = N_("{} is {}"), N_("{} is not {}")
MORE, LESS = N_("{} is {} or more (right up to {})"), N_("{} is {} or less (right from {} on)")
# A setting's numbers, as they are called in a sentence.
NUMBERS = {
    "batch": N_("the batch size"),
    "width": N_("the last size of x"),
    "outputs": N_("the number of outputs"),
    "elements": N_("the number of elements of the window"),
}


class Trait(NamedTuple):
    """What holds in some settings."""

    says: str
    holds: list[bool]  # In each setting.


def in_common(settings: Sequence[Setting], wrong: Sequence[bool], *, has_kinks: bool) -> str:
    """What the wrong settings have in common, as the end of a sentence; "" if there is nothing.

    Args:
      settings: The settings that were tried.
      wrong: In which of them a gradient is wrong.
      has_kinks: Whether the function has kinks or ties.
    """
    if all(wrong):
        return ""
    if has_kinks and _only_at_ties(settings, wrong):
        return _(KINK)
    for trait in (*_kinds(settings), *_number_traits(settings, wrong)):
        if trait.holds == list(wrong):
            return _(WHERE, trait.says)
    return ""


def _only_at_ties(settings: Sequence[Setting], wrong: Sequence[bool]) -> bool:
    """Whether a gradient is wrong only where numbers tie, and right where just these do not."""
    bad = [one for one, is_wrong in zip(settings, wrong, strict=True) if is_wrong]
    good = [one for one, is_wrong in zip(settings, wrong, strict=True) if not is_wrong]
    tied = [one for one in bad if one.numbers in TIES]
    others = all(one.numbers == "huge" for one in bad if one not in tied)
    return others and any(without_ties(one) in good for one in tied)


def without_ties(setting: Setting) -> Setting:
    """The same setting with numbers that do not tie."""
    return setting._replace(numbers="normal")


def _kinds(settings: Sequence[Setting]) -> Iterator[Trait]:
    """Yields each of KINDS and its opposite, with the settings in which it holds."""
    rows = [_kinds_of(one) for one in settings]
    for name, (says, otherwise) in KINDS.items():
        holds = [row[name] for row in rows]
        yield Trait(_(says), holds)
        yield Trait(_(otherwise), [not one for one in holds])


def _kinds_of(setting: Setting) -> dict[str, bool]:
    static, kernel = setting.static, tuple(setting.params.get("kernel", ()))
    window = static.get("window", kernel[:2] if len(kernel) == 4 else ())
    strides = static.get("strides", ())
    return {
        "strides": _differ(strides),
        "window": _differ(window),
        "image": len(setting.x) == 4 and _differ(setting.x[1:3]),
        "output": _differ(static.get("output_size", ())),
        "kernel": len(kernel) == 2 and _differ(kernel),
        "table": len(setting.x) == 2 and _differ(setting.x),
        "overlap": any(s < k for s, k in zip(strides, window, strict=False)),
        "steps": any(s > 1 for s in strides),
        "groups": static.get("groups", 1) > 1,
        "padding": static.get("padding") == "SAME",
        "bias": "bias" in setting.params,
        "images": len(setting.x) == 4,
        "shares": setting.labels == "probabilities",
        "padded": setting.padding > 0,
        "huge": setting.numbers == "huge",
    }


def _differ(sizes: Sequence[int]) -> bool:
    return len(set(sizes)) > 1


def _number_traits(settings: Sequence[Setting], wrong: Sequence[bool]) -> Iterator[Trait]:
    """Yields for each number of the settings what may part the wrong ones from the right ones."""
    rows = [_numbers_of(one) for one in settings]
    for name in rows[0]:
        if not all(name in row for row in rows):
            continue
        values = [row[name] for row in rows]
        called = _(NUMBERS[name]) if name in NUMBERS else name
        bad = [value for value, is_wrong in zip(values, wrong, strict=True) if is_wrong]
        good = [value for value, is_wrong in zip(values, wrong, strict=True) if not is_wrong]
        if len(set(good)) == 1:
            yield Trait(_(OTHERS, called, good[0]), [value != good[0] for value in values])
        if len(set(bad)) == 1:
            yield Trait(_(ONE, called, bad[0]), [value == bad[0] for value in values])
        least, most = min(bad), max(bad)
        yield Trait(_(MORE, called, least, max(good)), [value >= least for value in values])
        yield Trait(_(LESS, called, most, min(good)), [value <= most for value in values])


def _numbers_of(setting: Setting) -> dict[str, float]:
    found = dict[str, float]()
    found |= {n: value for n, value in setting.static.items() if isinstance(value, int | float)}
    found |= {"batch": setting.x[0], "width": setting.x[-1]}
    if kernel := setting.params.get("kernel"):
        found["outputs"] = kernel[-1]
    if window := setting.static.get("window"):
        found["elements"] = window[0] * window[1]
    return found
