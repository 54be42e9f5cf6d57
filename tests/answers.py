"""A student's answers: the functions of the answers' page, and a sheet that is filled in."""

import json
import re

from conftest import ROOT

from jaxnets.course.exercises.catalogue import EXERCISES

ANSWERS = (ROOT / "docs" / "exercises-answers.md").read_text("utf-8")
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def answer_to(name):
    """The file of an exercise to fill in, with the function of the answers' page."""
    (answer,) = (code for code in PYTHON.findall(ANSWERS) if f"def {name}_backward(" in code)
    text = EXERCISES[name].text()
    return text[: text.index("def ")] + answer


def filled(name, answers):
    """An exercise's sheet with these answers."""
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in answers.items()]
    return "\n".join([f'exercise = "{name}"', *lines])
