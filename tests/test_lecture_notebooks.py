"""The lecture's notebooks: both editions say what their sources say, and run as they are kept."""

import ast
import copy
import importlib.util
import io
import json
import re
import tokenize

import notebooks
import pytest
from conftest import slow, stress
from documents import anchors_of, look_up_names, missing_flags, missing_references

NAMES = notebooks.names()
EDITIONS = [(name, language) for name in NAMES for language in notebooks.LANGUAGES]
FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$\n]+\$", re.DOTALL)
ENGLISH = re.compile(r"[A-Za-z]{2,} [a-z]{2,}")  # Two words.
SOLUTION = re.compile(r"<summary>Solution</summary>\s+~~~python\n(.*?)~~~", re.DOTALL)


def kept(name, language):
    """The cells of a notebook as it is kept: kind, text and outputs."""
    notebook = json.loads(notebooks.path_of(name, language).read_text("utf-8"))
    return [
        (cell["cell_type"], "".join(cell["source"]), cell.get("outputs", []))
        for cell in notebook["cells"]
    ]


def texts(name, language):
    """A notebook's texts, without code."""
    return "\n".join(text for kind, text, _ in kept(name, language) if kind == "markdown")


@pytest.mark.parametrize(("name", "language"), EDITIONS)
def test_the_cells_are_the_sources(name, language):
    expected = [(cell.kind, cell.text[language]) for cell in notebooks.read_source(name)]
    assert [cell[:2] for cell in kept(name, language)] == expected


def shown(cells):
    """What the cells show but for the words: the kinds of outputs, and the numbers."""
    kinds, numbers = [], []
    for _, _, outputs in cells:
        texts = [o.get("text") or o["data"].get("text/plain", ()) for o in outputs]
        numbers.append(" ".join(notebooks.NUMBER.findall("".join(map("".join, texts)))))
        kinds.append([(o["output_type"], sorted(o.get("data", ()))) for o in outputs])
    return kinds, numbers


def says(code):
    """The comments and the strings of some code."""
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    constants = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    return comments + [node.value for node in constants if isinstance(node.value, str)]


@pytest.mark.parametrize("name", NAMES)
def test_code_speaks_the_editions_language(name):
    english = [code for kind, code, _ in kept(name, "en") if kind == "code"]
    if name != "4-by-hand":  # There the slides' own classes have Chinese comments.
        assert not re.search("[\u3000-\uffef]", "".join(english))
    same = [text for text, chinese in notebooks.SAYS.items() if text == chinese]
    for kind, code, _ in kept(name, "zh"):
        for text in says(code) if kind == "code" else ():
            for known in same:
                text = text.replace(known, "")
            assert not ENGLISH.search(text), text


def test_every_chinese_text_stands_for_a_piece_of_code():
    sources = [(notebooks.SOURCES / f"{name}.md").read_text("utf-8") for name in NAMES]
    code = "".join(part for source in sources for part in notebooks.CODE.findall(source))
    assert set(notebooks.SAYS) == set(notebooks.PIECES.findall(code))


def test_the_autograd_is_as_short_as_it_says():
    cells = notebooks.read_source("autograd")
    code = "\n".join(cell.text["en"] for cell in cells if cell.kind == "code")
    lines = 0
    for node in ast.parse(code.partition("import jaxnets")[0]).body:
        judge = getattr(node, "name", "") in ("numerical", "check", "tanh")
        defined = isinstance(node, ast.ClassDef | ast.FunctionDef) and not judge
        if defined or ast.unparse(node).startswith("Value."):
            lines += (node.end_lineno or 0) - node.lineno + 1
    assert lines <= 100
    assert f"That is all: {lines} lines." in texts("autograd", "en")
    assert f"这就是全部：{lines} 行。" in texts("autograd", "zh")


@pytest.mark.parametrize("name", NAMES)
def test_both_editions_have_the_same_outputs_formulas_and_solutions(name):
    english, chinese = kept(name, "en"), kept(name, "zh")
    (kinds, numbers), (same_kinds, same_numbers) = shown(english), shown(chinese)
    assert kinds == same_kinds
    assert not notebooks.differences(numbers, same_numbers)
    for cell in notebooks.read_source(name):
        if cell.kind == "markdown":
            formulas = [set(FORMULA.findall(cell.text[language])) for language in cell.text]
            assert formulas[0] == formulas[1]
            blocks = [re.findall(r"~~~.*?~~~", text, re.DOTALL) for text in cell.text.values()]
            assert blocks[0] == blocks[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_outputs_are_small_without_places_or_errors(name):
    for language in notebooks.LANGUAGES:
        assert notebooks.path_of(name, language).stat().st_size < 200_000
    cells = [cell for language in notebooks.LANGUAGES for cell in kept(name, language)]
    for _, _, outputs in cells:
        for output in outputs:
            assert output["output_type"] != "error" and output.get("name") != "stderr"
            text = "".join(output.get("text", ())) + str(output.get("data", {}).get("text/plain"))
            assert not re.search(r"(?<![\w.])/(home|tmp|root|usr|work|Users)\b| at 0x", text), text


@pytest.mark.parametrize(
    ("name", "language"),
    [  # The one imports estimators of scikit-learn's.
        pytest.param(*edition, marks=pytest.mark.oracle) if "no-free-lunch" in edition else edition
        for edition in EDITIONS
    ],
)
def test_what_it_names_exists_and_its_links_lead_somewhere(name, language):
    if name == "no-free-lunch":
        pytest.importorskip("sklearn", reason="the notebook's estimators")
    path, text = notebooks.path_of(name, language), texts(name, language)
    assert not missing_references(text)
    assert not missing_flags(text.replace("--seeds", ""))
    for kind, code, _ in kept(name, language):
        if kind == "code" and language == "en":  # The Chinese one has the same code.
            look_up_names(code)
    for target in re.findall(r"\]\(([^)\s]+)", text):
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = target.partition("#")
            assert (path.parent / file).exists(), target
            if anchor:
                assert anchor in anchors_of(path.parent / file), target


def test_another_machines_rounding_is_no_difference():
    old = ["loss=0.6124, accuracy=0.7984", "error 3e-08"]
    assert not notebooks.differences(old, ["loss=0.6125, accuracy=0.7971", "error 2e-07"])
    for wrong in ("loss=0.8124, accuracy=0.7984", "loss=0.6124, wrong=0.7984"):
        assert len(notebooks.differences(old, [wrong, old[1]])) == 1
    assert notebooks.differences(["1"], [])


# Those of a minute each, which use what the others and the course's own tests use too.
LONG = ("2-dense", "3-keras", "5-cnn", "6-alexnet", "no-free-lunch")


@pytest.mark.parametrize(
    "name",
    [
        stress(name) if name in LONG else slow(name)
        for name in NAMES
        if name not in notebooks.UNANSWERED
    ],
)
def test_it_prints_what_is_kept_and_solutions_are_right(name, monkeypatch):
    """The cells run; then each fill-in again, with its solution and with a wrong answer."""
    monkeypatch.setenv("XLA_FLAGS", "")  # They train: it pays to compile as for users.
    for package in ("nbclient", "nbformat", "ipykernel", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    cells = notebooks.read_source(name)
    notebook = notebooks.to_notebook(cells, "en")
    blanks = [n for n, cell in enumerate(cells) if "return ...\n" in cell.text["en"]]
    solutions = SOLUTION.findall(texts(name, "en"))
    assert len(blanks) == len(solutions) and (blanks or not name[0].isdigit())
    count = len(notebook.cells)
    for blank, solution in zip(blanks, solutions, strict=True):
        lines = "\n    ".join(solution.strip().splitlines())
        for answer in (lines, "return 7.0"):
            cell = copy.deepcopy(notebook.cells[blank])
            cell.source = cell.source.replace("return ...", answer)
            cell.id = f"again-{len(notebook.cells)}"
            notebook.cells.append(cell)
    notebooks.execute(notebook)
    found = notebooks.printed(notebook)
    again = found[len(found) - 2 * len(blanks) :]
    for right, wrong in zip(again[::2], again[1::2], strict=True):
        assert re.search("right|passed", right) and not re.search("wrong|FAILED", right), right
        assert re.search("wrong|FAILED", wrong) and not re.search("right|passed", wrong), wrong
    notebook.cells = notebook.cells[:count]
    import nbformat

    old = nbformat.read(notebooks.path_of(name, "en"), as_version=4)
    problems = notebooks.differences(notebooks.printed(old), notebooks.printed(notebook))
    assert not problems, "\n".join(problems)
