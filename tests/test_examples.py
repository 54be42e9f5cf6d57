"""The scripts in examples/, as a reader runs them."""

import json
import re
import runpy

import pytest
from conftest import ROOT, read_json, slow


@pytest.mark.slow
def test_the_smallest_network_has_the_gradient_of_autodiff_and_learns():
    path = ROOT / "examples" / "minimal.py"
    error, accuracy = runpy.run_path(str(path))["main"](1_000)
    assert error < 1e-12 and accuracy > 0.6
    assert len(path.read_text().splitlines()) <= 150


@pytest.mark.slow
def test_deeper_plain_networks_train_worse_as_the_page_says():
    found = runpy.run_path(str(ROOT / "examples" / "deeper.py"))["main"]()
    page = (ROOT / "docs" / "backprop" / "residual.md").read_text("utf-8")
    printed = re.findall(r"^( ?\d+) ([a-z, ]+?) +([\d.e+]+) +(\S+)$", page, re.MULTILINE)
    assert len(printed) == len(found) == 12
    for depth, layer, ratio, loss in printed:
        measured = found[layer, int(depth)]
        assert measured[0] == pytest.approx(float(ratio), rel=0.06)  # Two digits are printed.
        assert measured[1] == pytest.approx(float(loss), abs=0.1, nan_ok=True)
    losses = {name: loss for name, (_, loss) in found.items()}
    assert losses["plain", 4] < losses["plain", 20] < losses["plain", 40]
    assert found["plain", 40][0] > 0.3


NETWORK, LAYER = (ROOT / "examples" / f"own_{what}.py" for what in ("network", "layer"))


@pytest.mark.slow
@pytest.mark.parametrize("file", [NETWORK, LAYER], ids=["network", "layer"])
def test_an_own_example_trains_by_hand_as_by_autodiff(train_tiny, tmp_path, file):
    flags = "--epochs=8", "--gradients=both", f"--workdir={tmp_path / 'run'}"
    assert train_tiny(str(file), *flags).status == 0  # 1 where they disagree.
    assert read_json(tmp_path / "run" / "result.json")["test_accuracy"] > 0.9


@pytest.mark.slow
def test_an_own_layer_is_judged_right_in_a_network_too(run_command):
    checked = run_command("gradcheck", f"--model={LAYER}", "--json")
    assert checked.status == 0 and json.loads(checked.out)["rows"][0]["name"] == "PReLU"


WRONG = {
    "a slope for each example": (
        "d_slope.sum(examples)",
        "d_slope",
        "slope, whose shape is (4, 5)",
    ),
    "no x": ("0, dy * x", "0, dy", "gradient.params.slope"),
    "the wrong side": ("x > 0, dy, slope", "x < 0, dy, slope", "gradient.x"),
    "another output": ("x, params[", "x, 2 * params[", "output.0"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong", "worst"),
    [how if name == "no x" else slow(*how) for name, how in WRONG.items()],
    ids=WRONG,
)
def test_a_wrong_derivation_of_the_layer_is_named(tmp_path, right, wrong, worst):
    text = LAYER.read_text()
    assert text.count(right) == 1
    verdicts = []
    for name, code in (("right", text), ("wrong", text.replace(right, wrong))):
        (tmp_path / f"{name}.py").write_text(code)
        verdicts.append(runpy.run_path(str(tmp_path / f"{name}.py"))["main"]())
    assert verdicts[0].ok and not verdicts[1].ok
    assert worst in verdicts[1].worst
