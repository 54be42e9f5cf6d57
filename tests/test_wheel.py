"""The wheel: what pip installs of the project, its licences and its address."""

import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser

import pytest
from conftest import ROOT
from packaging.licenses import canonicalize_license_expression
from published import SCRIPT, SOMEONE, with_address

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with what the wheel holds, built of a copy of the project that is published."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "project"
    hidden = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "jaxnets", copy / "jaxnets", ignore=hidden)
    for name in ("README.md", "LICENSE", "hatch_build.py", "train.py"):
        shutil.copy(ROOT / name, copy)
    (copy / "pyproject.toml").write_text(with_address((ROOT / "pyproject.toml").read_text()))
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=copy, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def run_installed(site, run_python):
    """Runs a program that sees the wheel instead of this folder."""
    start = f"import sys; sys.path[0] = {str(site)!r}; "
    return lambda code, *arguments: run_python("-c", start + code, *arguments)


def test_a_wheel_brings_train_and_the_script(site, run_installed):
    entry = next(site.glob("*.dist-info")) / "entry_points.txt"
    assert "jaxnets = jaxnets.__main__:console_script" in entry.read_text()
    assert (site / "jaxnets/cli/train.py").read_text() == (ROOT / "train.py").read_text()
    assert (site / "jaxnets/page/templates/index.html").exists()
    assert (site / "jaxnets/report/assets/report.css").exists()
    assert (site / "jaxnets/report/templates/report.html").exists()
    assert (site / "jaxnets/abtest/templates/trial.txt").exists()
    outcome = run_installed(SCRIPT, "train", "--help")
    assert outcome.status == 0 and "jaxnets train --model=cnn" in outcome.out
    assert "要训练的网络" in run_installed(SCRIPT, "train", "--help", "--language=zh").out


def test_its_licence_is_the_codes_and_mnists(site):
    folder = next(site.glob("*.dist-info"))
    metadata = Parser().parsestr((folder / "METADATA").read_text("utf-8"))
    assert f"]({SOMEONE}/blob/main/docs/install.md)" in metadata.get_payload()
    expression = metadata["License-Expression"]
    assert expression == canonicalize_license_expression("Apache-2.0 AND CC-BY-SA-3.0")
    readme = (ROOT / "README.md").read_text("utf-8")
    assert f"`{expression}`" in re.sub(r"\s+", " ", readme.partition("## Licences")[2])
    texts = {"LICENSE", "jaxnets/data/mnist/ATTRIBUTION.md"}
    assert set(metadata.get_all("License-File", [])) == texts
    for name in texts:
        assert (folder / "licenses" / name).read_bytes() == (ROOT / name).read_bytes()
    assert list(site.glob("jaxnets/data/mnist/*.gz"))  # What the second licence is for.


def test_the_page_of_an_installed_wheel_has_its_address(site, run_installed):
    code = "from jaxnets.page import build; print(build.__file__, build._repository())"
    path = site / "jaxnets/page/build.py"
    assert run_installed(code) == (0, f"{path} {SOMEONE}\n", "")
