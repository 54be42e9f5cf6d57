"""docs/read-the-code.md: its table is today's, and a file comes after those that it uses."""

import reading_path
from conftest import ROOT
from test_architecture import imports

FILES = [file for stop in reading_path.PATH.values() for file in stop]


def test_the_table_is_that_of_today():
    page = reading_path.PAGE.read_text("utf-8")
    assert reading_path.renewed(page) == page, "run python docs/_ext/reading_path.py"


def test_a_file_comes_after_those_that_it_uses():
    place = {file.removesuffix(".py").replace("/", "."): n for n, file in enumerate(FILES)}
    for number, file in enumerate(FILES):
        for name in imports(ROOT / file):
            used = name if name in place else name.rpartition(".")[0]
            assert place.get(used, -1) < number, f"{file} uses {used}, which comes later"


def test_all_but_the_script_and_what_it_calls_is_of_the_core():
    assert len(FILES) == len(set(FILES))
    wings = ("drawing", "predict", "report", "page", "export", "server", "abtest", "tune")
    wings += ("tracking", "course", "notebook")
    for file in FILES[:-2]:
        for name in imports(ROOT / file):
            assert not name.startswith(tuple(f"jaxnets.{wing}" for wing in wings)), file
