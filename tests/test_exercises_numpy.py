"""The exercises in NumPy alone: run without any other package, blank, wrong and right."""

import json
import re

import notebooks
import pytest
from documents import printed

from jaxnets.base.language import _, speaking
from jaxnets.course.exercises import catalogue

EDITIONS = {
    language: json.loads(notebooks.path_of("exercises-numpy", language).read_text("utf-8"))
    for language in notebooks.LANGUAGES
}
# Those about backward passes.
SHEETS = {f"compute{number}": catalogue.SHEETS[f"compute{number}"] for number in range(1, 9)}


ANSWERS = {
    "dW = ...": "dW = x.T @ dz",
    "db = ...  # [K]": "db = dz.sum(axis=0)",
    "dx = ...  # [B, D]": "dx = dz @ W.T",
    "relu": "dx = np.where(x > 0, dy, 0)",
    "sigmoid": "dx = dy * sigmoid_forward(x) * (1 - sigmoid_forward(x))",
    "dx = ...  # [B, K]": "dx = p * (dp - (dp * p).sum(axis=-1, keepdims=True))",
    "cross_entropy": "dp = -y / (p + 1e-12) * d_losses[:, None]",
    "dz = ...": "dz = (softmax_forward(z) - y) * d_losses[:, None]",
    "half_squared_error": "dp = (p - y) * d_losses[:, None]",
    "dropout": "dx = m * dy / (1 - 0.5)",
    "dgamma = ...": "dgamma = (dy * x_hat).sum(axis=0)",
    "dbeta = ...": "dbeta = dy.sum(axis=0)",
    "dx = ...  # [B, C]": "dx = gamma * r * (dy - (dbeta + x_hat * dgamma) / len(x))",
    "dw = ...": "dw = np.array([x[a : a + len(dz)] @ dz for a in range(len(w))])",
    "dx = ...  # [N]": "dx = np.convolve(dz, w)",
    "dW1 = ...": "d = (h @ W2 - y) * d_loss\n    dW1 = x.T @ (d @ W2.T * (h > 0))",
    "dW2 = ...": "dW2 = h.T @ d",
    "network": "dx = (d @ W2.T * (h > 0)) @ W1.T",
}


def sources(language: str) -> list[str]:
    cells = EDITIONS[language]["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def say(language: str, text: str) -> str:
    """What the code says in an edition."""
    return notebooks.SAYS[text] if language == "zh" else text


def solved(cell: str) -> str:
    """A cell with its blanks filled in."""
    for name, sheet in SHEETS.items():
        if cell.startswith(f"check(\n    {name},"):
            for question in sheet.questions:
                cell = cell.replace(
                    f"    {question.name}=...", f"    {question.name}={question.answer}"
                )
    for blank, answer in ANSWERS.items():
        if f"def {blank}_backward" in cell:
            blank = f"{answer.partition(' = ')[0]} = ..."
        if "=" in blank:
            cell = re.sub(rf"^( *){re.escape(blank)}.*", rf"\1{answer}", cell, flags=re.MULTILINE)
    return cell


@pytest.mark.parametrize("notebook", EDITIONS.values(), ids=EDITIONS)
def test_it_has_no_output_and_valid_cells(notebook):
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    assert sum(cell["metadata"] == {"tags": ["hide-input"]} for cell in notebook["cells"]) == 9


@pytest.mark.parametrize("language", EDITIONS)
def test_numpy_alone_tells_blanks_answers_and_mistakes_apart(language):
    def failed(text: str, **values: object) -> str:
        return say(language, f"FAILED: {text}").format(**values)

    count = sum(len(sheet.questions) for sheet in SHEETS.values())
    verdicts = (say(language, f'"{word}"').strip('"') for word in ("blank", "right", "wrong"))
    unanswered, right_word, wrong_word = verdicts
    blank = printed(sources(language))
    assert sum(line.endswith(f" {unanswered}") for line in blank) == count
    still = [line for line in blank if " ..." in line]
    assert len(still) == 11
    blank_dx = failed("{label} is still ..., the blank to fill in", label="dx")
    assert f"relu_backward: {blank_dx}" in blank

    cells = [solved(cell) for cell in sources(language)]
    right = printed(cells)
    assert sum(line.endswith(f" {right_word}") for line in right) == count, right
    passed = say(language, "{name}: passed").format(name="")
    assert sum(line.endswith(passed) for line in right) == 11, right

    mistaken = cells
    for old, new in (
        ("dz.sum(axis=0)", "dz.mean(axis=0)"),
        ("(dbeta + x_hat * dgamma)", "dbeta"),
        ("loss=1.386294", "loss=-1.386294"),
    ):
        mistaken = [cell.replace(old, new) for cell in mistaken]
    wrong = printed(mistaken)
    assert f"dense_backward: {failed('{label} is wrong', label='db')}" in wrong
    assert f"batch_norm_backward: {failed('{label} is wrong', label='dx')}" in wrong
    assert f"loss         {wrong_word}" in wrong
    wrong = printed([cell.replace("dz @ W.T", "dz") for cell in cells])
    assert any("(4, 3)" in line and "(4, 5)" in line for line in wrong)


@pytest.mark.parametrize("language", EDITIONS)
@pytest.mark.parametrize("name", SHEETS)
def test_its_questions_are_those_of_the_sheets(name, language):
    text = "\n".join("".join(cell["source"]) for cell in EDITIONS[language]["cells"])
    sheet = SHEETS[name]
    with speaking(language):
        about, given = _(sheet.about), sheet.said(sheet.given)
        asked = [(question.name, sheet.said(question.asks)) for question in sheet.questions]
    head = {
        "en": f"### {name}: {about}\n\nLevel {sheet.level}, about {sheet.minutes} minutes. {given}",
        "zh": f"### {name}：{about}\n\n难度 {sheet.level}，约 {sheet.minutes} 分钟。{given}",
    }
    assert head[language] in text
    for question, asks in asked:
        assert f"- `{question}`{'：' if language == 'zh' else ': '}{asks}" in text
