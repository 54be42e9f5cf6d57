"""The scripts in examples/, as a reader runs them."""

import runpy

from conftest import ROOT


def test_the_smallest_network_has_the_gradient_of_autodiff_and_learns():
    path = ROOT / "examples" / "minimal.py"
    error, accuracy = runpy.run_path(str(path))["main"](1_000)
    assert error < 1e-12 and accuracy > 0.6
    assert len(path.read_text().splitlines()) <= 150
