"""The tables of docs/exercises-list.md, in both languages: run this file to renew them."""

import re
from itertools import groupby
from pathlib import Path

from jaxnets.base.language import _, speaking
from jaxnets.course.exercises.printed import TITLES, listing

DOCS = Path(__file__).resolve().parents[1]
PAGES = {"en": DOCS / "exercises-list.md", "zh": DOCS / "zh" / "exercises-list.md"}
HEADS = {
    "en": "exercise | kind | about | idea | level | minutes |\n",
    "zh": "练习 | 类别 | 内容 | 主题 | 难度 | 分钟 |\n",
}
WEEK = {"en": "week", "zh": "周"}  # The course's table has one column more.
TABLES = re.compile(r"(?<=<!-- the list -->\n).*?(?=<!-- its end -->)", re.DOTALL)


def tables(language: str) -> str:
    """What `jaxnets exercise` lists, in Markdown: a heading and a table for each part."""
    text = ""
    with speaking(language):
        for part, group in groupby(listing().values(), key=lambda one: one["part"]):
            rows = list(group)
            title = _(TITLES[part], len(rows), sum(row["minutes"] for row in rows))
            in_course = part == "course"
            head = f"| {WEEK[language]} " * in_course + f"| {HEADS[language]}"
            head += "| ---: " * in_course + "| --- | --- | --- | --- | ---: | ---: |\n"
            text += f"\n## {title}\n\n{head}"
            for row in rows:
                words = [_(row[fact]) for fact in ("kind", "about", "idea")]
                facts = [row["name"], *words, row["level"], row["minutes"]]
                if in_course:
                    facts = [row["week"], *facts]
                text += f"| {' | '.join(map(str, facts))} |\n"
    return text + "\n"


def renewed(page: str, language: str) -> str:
    """The page with the tables of today."""
    return TABLES.sub(lambda _: tables(language), page)


if __name__ == "__main__":
    for language, page in PAGES.items():
        page.write_text(renewed(page.read_text("utf-8"), language), "utf-8")
