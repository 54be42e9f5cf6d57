"""The course of eight weeks and an optional ninth, in both languages."""

import json
import re
from pathlib import Path

import pytest
from conftest import ROOT

from jaxnets.base.language import _, speaking
from jaxnets.course.exercises import catalogue
from jaxnets.course.exercises.actions import check_mine, check_numbers
from jaxnets.course.exercises.catalogue import BETS, DERIVES, EXERCISES, SHEETS, TASKS
from jaxnets.course.exercises.judge import Verdict

DOCS = ROOT / "docs"
FOLDERS = {"en": DOCS / "course", "zh": DOCS / "zh" / "course"}
WEEKS = range(1, 9)
ALL_WEEKS = range(1, 10)  # The ninth is optional, without a checkpoint and a quiz.
PAGES = [(language, week) for language in FOLDERS for week in WEEKS]

# How minutes are counted: docs/course/index.md says the same.
WORDS_A_MINUTE = 200
FORMULA, CODE, PICTURE = 30 / 60, 6 / 60, 20 / 60  # Of each line, line and picture.
SLACK = 5  # A row may state so many minutes more than are counted.

FENCE = re.compile(r"^( *)(```+|~~~+)(\S*)\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
DISPLAY = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
LINK = re.compile(r"\[([^][]*)\]\(([^()\s]+)\)")
ROW = re.compile(r"^\| (\d+) \| (.+) \|$", re.MULTILINE)
TIME = re.compile(r"\*\*(?:Time\.|时间。)\*\* (\d+) ")
PARTS = {
    "en": ("In order", "Checkpoint", "Summary", "Three misconceptions", "Quiz", "More"),
    "zh": ("按顺序做", "检查点", "小结", "三个误解", "小测验", "更多"),
}


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def page_of(language: str, week: int) -> Path:
    return FOLDERS[language] / f"week-{week}.md"


def rows_of(language: str, week: int) -> list[tuple[int, str]]:
    """What a week's table asks for, each with the minutes that it states."""
    return [(int(minutes), what) for minutes, what in ROW.findall(text_of(page_of(language, week)))]


def linked_from(page: Path) -> set[Path]:
    """The files of the project that a page links to."""
    targets = {target.partition("#")[0] for _text, target in LINK.findall(text_of(page))}
    return {(page.parent / target).resolve() for target in targets if ":" not in target}


def section_of(text: str, anchor: str) -> str:
    """A page's text below one heading, up to the next of its level; the page without an anchor."""
    if not anchor:
        return text
    hidden = FENCE.sub(lambda block: re.sub(r"(?m)^#", " ", block[0]), text)
    headings = list(re.finditer(r"^(#+) (.*)$", hidden, re.MULTILINE))
    for place, heading in enumerate(headings):
        if re.sub(r"[^\w\- ]", "", heading[2].lower()).replace(" ", "-") == anchor:
            later = headings[place + 1 :]
            ends = [other.start() for other in later if len(other[1]) <= len(heading[1])]
            return text[heading.start() : min(ends, default=len(text))]
    raise AssertionError(f"no heading #{anchor}")


def reading(text: str) -> float:
    """The minutes that a slow reader needs for a text."""
    text = re.sub(r'<div class="living".*?</div>', "", text, flags=re.DOTALL)  # Formulas once more.
    minutes = 0.0
    for _indent, _fence, language, block in FENCE.findall(text):
        lines = len([line for line in block.splitlines() if line.strip()])
        minutes += FORMULA * (block.count(r"\\") + 1) if language == "math" else CODE * lines
    text = FENCE.sub("", text)
    minutes += FORMULA * sum(shown.count(r"\\") + 1 for shown in DISPLAY.findall(text))
    text = DISPLAY.sub("", text)
    pictures = re.compile(r"!\[[^]]*\]\([^)]*\)|<img\b[^>]*>")
    minutes += PICTURE * len(pictures.findall(text))
    text = re.sub(r"<[^>]*>", "", pictures.sub("", text))
    text = re.sub(r"\$[^$\n]+\$", "formula", LINK.sub(r"\1", text))
    return minutes + len(re.findall(r"\w+(?:['’.,-]\w+)*", text)) / WORDS_A_MINUTE


def notebook_minutes(path: Path) -> int:
    """The minutes that a notebook states."""
    cells = json.loads(text_of(path))["cells"]
    found = TIME.search("\n".join("".join(cell["source"]) for cell in cells))
    assert found, f"{path} states no time"
    return int(found[1])


def exercise_minutes(name: str) -> int:
    """The minutes of an exercise of the catalogue."""
    return EXERCISES[name].minutes


def questions_of(text: str) -> list[str]:
    """The numbered lines of a quiz, or of its answers."""
    return re.findall(r"^\d\. (.*)$", text, re.MULTILINE)


def counted(page: Path, what: str) -> float:
    """The minutes of all that a row names, by its links and exercises; 0 if it names nothing."""
    minutes = 0.0
    for _text, target in LINK.findall(what):
        name, _hash, anchor = target.partition("#")
        path = page.parent / name if name else page
        if path.suffix == ".ipynb":
            minutes += notebook_minutes(path)
        elif name:
            minutes += reading(section_of(text_of(path), anchor))
        else:  # The week's own page with its quiz: a minute a question.
            minutes += reading(text_of(page)) + 5
    return minutes + sum(map(exercise_minutes, re.findall(r"`(\w+)`", what)))


@pytest.mark.parametrize("week", ALL_WEEKS)
def test_rows_state_the_minutes_of_what_they_name(week):
    page = page_of("en", week)
    for minutes, what in rows_of("en", week):
        least = counted(page, what)
        slack = SLACK if LINK.search(what) else 0  # Exercises alone are counted to the minute.
        assert least == 0 or least <= minutes <= least + slack, f"{what}: {least:.1f} are counted"


@pytest.mark.parametrize("language", FOLDERS)
def test_no_week_takes_more_than_two_hours_and_the_sums_are_right(language):
    sums = []
    for week in ALL_WEEKS:
        sums.append(sum(minutes for minutes, _ in rows_of(language, week)))
        stated = TIME.search(text_of(page_of(language, week)))
        assert stated and int(stated[1]) == sums[-1], f"week {week} takes {sums[-1]} minutes"
    assert max(sums) <= 120
    index = text_of(FOLDERS[language] / "index.md")
    table = re.findall(r"^\| \[?(\d|all|合计).*?\| (\d+) \|", index, re.MULTILINE)
    *course, optional = sums
    assert [int(minutes) for _, minutes in table] == [*course, sum(course)]
    assert re.search(rf"\(week-9\.md\)[,，] ?{optional} ", index)


def test_from_readme_to_the_first_exercise_takes_twelve_minutes():
    readme, anchor = text_of(ROOT / "README.md"), "exercises.md#your-first-exercise"
    assert anchor in readme
    waiting = 3  # The training of "Try it" and its check.
    exercise = section_of(text_of(DOCS / "exercises.md"), "your-first-exercise")
    assert reading(readme[: readme.index(anchor)]) + waiting + reading(exercise) <= 12


@pytest.mark.parametrize("week", ALL_WEEKS)
def test_both_languages_ask_for_the_same(week):
    def asked(language):
        for minutes, what in rows_of(language, week):
            targets = [Path(target.partition("#")[0]).name for _, target in LINK.findall(what)]
            yield minutes, targets, re.findall(r"`[^`]+`", what)

    assert [*asked("zh")] == [*asked("en")]


def test_every_exercise_exists_and_the_course_is_whole():
    notebooks = []
    for week in ALL_WEEKS:
        named = []
        for _minutes, what in rows_of("en", week):
            named += re.findall(r"`(\w+)`", what)
            notebooks += re.findall(r"lecture/(\d)-", what)
        of_week = [one for one in EXERCISES.values() if one.week == week]
        optional = week == 9
        assert named == [one.name for one in of_week if one.required != optional]
        for language in FOLDERS:
            page = text_of(page_of(language, week))
            title = re.split("[:：] ?", page.splitlines()[0])[1]
            with speaking(language):
                assert title == _(catalogue.WEEKS[week - 1])
            for more in re.findall(r"^\*\*(?:Practice|练习)[:：]\*\*.*?\n\n", page, re.M | re.S):
                practised = set(re.findall(r"`(\w+)`", more))
                assert practised <= {one.name for one in of_week if not one.required}
    assert sorted(notebooks) == [*"123456"]


@pytest.mark.parametrize("language", FOLDERS)
def test_a_week_has_one_title_everywhere(language):
    folder = FOLDERS[language].parent
    index, plan = (text_of(folder / page) for page in ("course/index.md", "teachers.md"))
    sessions = "".join(map(text_of, sorted((folder / "teachers").glob("weeks-*.md"))))
    slides = text_of(DOCS / "_slides" / "course.md")
    slide = {"en": r"^# en: Week %d: (.*)$", "zh": r"^# zh: 第 %d 周：(.*)$"}[language]
    for week in WEEKS:
        places = (
            (index, rf"^\| \[{week}\. (.*?)\]\(week-"),
            (plan, rf"^\| {week} \| \[(.*?)\]\(course/week-"),
            (sessions, rf"^## {week}\. (.*)$"),
            (slides, slide % week),
        )
        with speaking(language):
            title = _(catalogue.WEEKS[week - 1])
        for text, pattern in places:
            (found,) = re.findall(pattern, text, re.MULTILINE)
            assert found.lower() == title


def test_both_languages_link_to_the_same_pages():
    for page in FOLDERS["en"].glob("*.md"):
        ours, theirs = (
            {Path(str(path).replace(f"{DOCS / 'zh'}/", f"{DOCS}/")) for path in linked_from(one)}
            for one in (page, FOLDERS["zh"] / page.name)
        )
        assert ours == theirs, page


@pytest.mark.parametrize("language", FOLDERS)
def test_every_chapter_and_notebook_leads_back_to_its_week(language):
    folder = FOLDERS[language].parent
    chapters = {*folder.glob("backprop/*.md")} - {
        folder / "backprop" / name for name in ("index.md", "sheet.md")
    }
    asked = {week: linked_from(page_of(language, week)) for week in ALL_WEEKS}
    notebooks = {path for one in asked.values() for path in one if path.suffix == ".ipynb"}
    assert len(notebooks) >= 8
    back = re.compile(r"\]\([./]*course/week-(\d)\.md#")
    for path in chapters | notebooks:
        assert back.search(text_of(path)), path
    for path in {*chapters, *folder.glob("*.ipynb"), *folder.glob("lecture/*.ipynb")}:
        for week in back.findall(text_of(path)):
            assert path in asked[int(week)], f"week {week} does not list {path}"
    index = text_of(folder / "backprop" / "index.md")
    assert "](../course/index.md)" in index


@pytest.mark.parametrize(("language", "week"), PAGES)
def test_a_week_has_all_its_parts(language, week):
    text = text_of(page_of(language, week))
    prose = FENCE.sub("", text)
    assert len(re.findall(r"[\w']+", LINK.sub(r"\1", prose))) <= 1200
    headings = re.findall(r"^## (.*)$", prose, re.MULTILINE)
    assert [part for part in headings if part in PARTS[language]] == [*PARTS[language]]
    goals = re.search(r"\*\*(After this week|学完本周)\*\*", prose)
    assert goals and len(re.findall(r"^- ", prose[goals.end() : prose.index("## ")], re.M)) >= 3
    parts = dict(zip(headings, re.split(r"^## .*$", prose, flags=re.MULTILINE)[1:], strict=True))
    _, checkpoint, summary, wrong, quiz, more = (parts[name] for name in PARTS[language])
    assert checkpoint.strip() and len(re.findall(r"[.。]", summary)) >= 4
    assert len(re.findall(r'^\*\*["“]', wrong, re.MULTILINE)) == 3
    asked, folded, answers = quiz.partition("<details><summary>")
    assert folded and "</details>" in answers
    assert len(questions_of(asked)) == len(questions_of(answers)) == 5
    for kind in (("**Compute.**", "**Predict.**"), ("**计算。**", "**预测。**"))[language == "zh"]:
        assert kind in asked
    for source in ("cs231n.github.io", "d2l.ai", "论文" if language == "zh" else "paper"):
        assert source in more


@pytest.mark.parametrize(("language", "week"), PAGES)
def test_a_checkpoint_shows_what_its_commands_print(language, week, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    heading = {"en": "checkpoint", "zh": "检查点"}[language]
    checkpoint = section_of(text_of(page_of(language, week)), heading)
    (_, _, _, commands), (_, _, _, lines) = FENCE.findall(checkpoint)
    assert len(commands.splitlines()) == 2
    with speaking(language):
        printed = [line for one in commands.splitlines() for line in last_lines(one.split()[-1])]
    assert printed == lines.splitlines()


def last_lines(path: str) -> list[str]:
    """What `exercise check` prints last about a right answer to the exercise that a file names."""
    name = Path(path).stem.removeprefix("my_")
    if name in TASKS:
        Path(path).write_text(TASKS[name].solution, "utf-8")
        return check_mine(path, hint=False).text().splitlines()
    if name in SHEETS:
        answers = [f"{asked.name} = {asked.answer}" for asked in SHEETS[name].questions]
        return checked(path, name, answers)[-1:]
    if name in DERIVES:
        formulas = DERIVES[name].formulas.items()
        return checked(path, name, [f'{key} = "{one.text}"' for key, one in formulas])[-2:]
    # The judge's own tests hold its verdict on a right backward pass.
    return [Verdict(EXERCISES[name].function, True).line]


def checked(path: str, name: str, answers: list[str]) -> list[str]:
    Path(path).write_text("\n".join([f'exercise = "{name}"', *answers]), "utf-8")
    return check_numbers(path, hint=False).text().splitlines()


@pytest.mark.parametrize("language", FOLDERS)
def test_numbers_quoted_of_a_bet_are_its_numbers(language):
    """A paragraph that ends in a bet's name quotes its accuracies and losses, perhaps rounded."""
    answers, bets = text_of(DOCS / "exercises-answers.md"), []
    for week in WEEKS:
        for paragraph in FENCE.sub("", text_of(page_of(language, week))).split("\n\n"):
            if named := re.search(r"`(bet\d+)`(\]\(\S+\))?[)）][.。]$", paragraph.strip()):
                bets.append(bet := named[1])
                measured = re.search(rf"<summary>{bet}: .*?</details>", answers, re.DOTALL)
                assert measured
                told = [BETS[bet].given, measured[0], *(q.then for q in BETS[bet].questions)]
                numbers = [float(number) for number in re.findall(r"\d+\.\d+", " ".join(told))]
                for quoted in re.findall(r"\d\.\d\d+", paragraph):
                    assert min(abs(float(quoted) - one) for one in numbers) <= 0.0051, quoted
    assert bets == ["bet5", "bet2", "bet3", "bet8", "bet9", "bet4", "bet7"]


def test_minutes_are_counted_as_the_first_page_says():
    index = text_of(FOLDERS["en"] / "index.md")
    assert f"A minute is enough for {WORDS_A_MINUTE} words" in index
    code = "```python\n>>> x = 1\n\n>>> x\n1\n```\n"
    formulas = "```math\nz = x \\\\ y = z\n```\n$$a = b$$\n"
    picture = '<img src="a.svg" alt="words that nobody reads">\n'
    for text, minutes in ((code, 3 * CODE), (formulas, 3 * FORMULA), (picture, PICTURE)):
        assert reading(text) == pytest.approx(minutes)
    words = "[one](two.md#three) $x = 1$, don't\n" * WORDS_A_MINUTE
    assert reading(words) == pytest.approx(3)
    page = "# A\nno\n## B c\n```sh\n# yes\n```\n### D\nyes\n## E\nno\n"
    assert re.findall("yes|no", section_of(page, "b-c")) == ["yes", "yes"]


@pytest.mark.parametrize(("language", "template"), [("en", "project.md"), ("zh", "project.zh.md")])
def test_the_project_s_template_has_the_rubric_s_parts_and_points(language, template):
    page = text_of(FOLDERS[language] / "project.md")
    *parts, (_, total) = re.findall(r"^\| (\d\. .*?|all|合计) \| (\d+) \|", page, re.MULTILINE)
    assert len(parts) == 8 and sum(int(points) for _, points in parts) == int(total)
    copied = text_of(ROOT / "examples" / template)
    sections = re.findall(r"^## (\d\. .*?) ?[(（](\d+) (?:points|分)[)）]$", copied, re.MULTILINE)
    assert [int(points) for _, points in sections] == [int(points) for _, points in parts]
    for (section, _), (part, _) in zip(sections, parts, strict=True):
        assert section.startswith(part)
    assert f"examples/{template}" in page
    assert len(re.findall(r"^- \[ \] .*[.:。：…]$", copied, re.MULTILINE)) == 11
