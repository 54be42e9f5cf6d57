"""The scripts in examples/, as a reader runs them."""

import json
import runpy

import pytest
from conftest import ROOT, read_json, slow


@pytest.mark.slow
def test_the_smallest_network_has_the_gradient_of_autodiff_and_learns():
    path = ROOT / "examples" / "minimal.py"
    error, accuracy = runpy.run_path(str(path))["main"](1_000)
    assert error < 1e-12 and accuracy > 0.6
    assert len(path.read_text().splitlines()) <= 150


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
