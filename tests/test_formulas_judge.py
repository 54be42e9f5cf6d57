"""What the judge says of a formula: right in any letters and order, or the first thing wrong."""

import tomllib
from pathlib import Path

import pytest

from jaxnets.course.formulas.judge import first_wrong
from jaxnets.course.formulas.layers import LAYERS

with (Path(__file__).parent / "formula_cases.toml").open("rb") as file:
    JUDGED = tomllib.load(file)["judged"]


@pytest.mark.parametrize("name", LAYERS)
def test_every_right_formula_is_right(name):
    layer = LAYERS[name]
    for text in layer.backward:
        assert first_wrong(layer, text.partition(" ")[0].partition("_")[0], text) == ""


@pytest.mark.parametrize("case", JUDGED)
def test_a_formula_gets_its_sentence_and_a_right_one_none(case):
    assert first_wrong(LAYERS[case["layer"]], case["name"], case["text"]) == case["says"]


def test_there_are_forty_right_formulas_and_sixty_wrong_ones():
    wrong = [case for case in JUDGED if case["says"]]
    assert len(JUDGED) - len(wrong) >= 40 and len(wrong) >= 60


@pytest.mark.parametrize("name", LAYERS)
def test_sizes_follow_where_others_decide_them(name):
    layer = LAYERS[name]
    assert layer.followed(layer.sizes) == dict(layer.sizes)
    for sizes in layer.other_sizes("any formula"):
        assert min(sizes.values()) > 0
