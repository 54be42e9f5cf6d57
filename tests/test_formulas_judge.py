"""What the judge says of a formula: right in any letters and order, or the first thing wrong."""

import time
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


@pytest.mark.parametrize(
    "text",
    [
        "db_k = 2^(10^30) Σ_b dZ_bk",
        "db_k = Σ_b dZ_bk + " + "9" * 900,
        "db_k = Σ_b dZ_bk⁹" + "⁹" * 500,
        "db_k = Σ_b dZ_bk / 0 * 0",
        "db_k = Σ_b dZ_bk log(-1)",
        "db_k = Σ_b dZ_bk + X_0," + "9" * 400,
        "db_k = Σ_b dZ_bk + Σ_nmoqrstuvxyz X_nm X_oq X_rs X_tu X_vx X_yz",
        "db_k = Σ_b dZ_bk" + " + exp(Σ_nmoqrstuvx exp(X_nm + X_oq + X_rs + X_tu + X_vx))" * 14,
        "db_k = Σ_b dZ_bk (1 + (B - 3) (B - 4))",
        "db_k = Σ_b dZ_bk + [dZ_0,k > 1000]",
        "db_k = db_k",
        "db_k = " + "2·-" * 300 + "1",
        "db_k = " + "σ " * 300,
        "db_k = \n\n\n$",
        "\x1b[2Jdb_k = Σ_b dZ_bk",
        "\0" * 1000,
    ],
)
def test_a_formula_of_anyone_gets_one_line_in_a_moment(text):
    started = time.process_time()
    said = first_wrong(LAYERS["dense"], "db", text)
    assert said and "\n" not in said and said.isprintable()
    assert time.process_time() - started < 20
