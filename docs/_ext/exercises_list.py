"""The tables of docs/exercises-list.md, in both languages: run this file to renew them."""

import re
from pathlib import Path

from jaxnets.base.language import _, speaking
from jaxnets.course.exercises.catalogue import EXERCISES

DOCS = Path(__file__).resolve().parents[1]
PAGES = {"en": DOCS / "exercises-list.md", "zh": DOCS / "zh" / "exercises-list.md"}
TITLES = {
    "en": {True: "Required: {} exercises, {} minutes", False: "Optional: {}, {} minutes"},
    "zh": {True: "必做：{} 道，{} 分钟", False: "选做：{} 道，{} 分钟"},
}
HEADS = {
    "en": "| week | exercise | kind | about | idea | level | minutes |\n",
    "zh": "| 周 | 练习 | 类别 | 内容 | 主题 | 难度 | 分钟 |\n",
}
TABLES = re.compile(r"(?<=<!-- the list -->\n).*?(?=<!-- its end -->)", re.DOTALL)


def tables(language: str) -> str:
    """The required exercises, then the optional ones, in Markdown and the course's order."""
    text = ""
    with speaking(language):
        for required, title in TITLES[language].items():
            rows = [one for one in EXERCISES.values() if one.required == required]
            title = title.format(len(rows), sum(row.minutes for row in rows))
            text += f"\n## {title}\n\n{HEADS[language]}"
            text += "| ---: | --- | --- | --- | --- | ---: | ---: |\n"
            for row in rows:
                words = [_(row.kind), _(row.about), _(row.idea)]
                facts = [row.week, row.name, *words, row.level, row.minutes]
                text += f"| {' | '.join(map(str, facts))} |\n"
    return text + "\n"


def renewed(page: str, language: str) -> str:
    """The page with the tables of today."""
    return TABLES.sub(lambda _: tables(language), page)


if __name__ == "__main__":
    for language, page in PAGES.items():
        page.write_text(renewed(page.read_text("utf-8"), language), "utf-8")
