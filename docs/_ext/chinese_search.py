"""Search in Chinese, by pairs of characters.

Chinese has no spaces. Sphinx cuts a page into words with a dictionary, but never the reader's
question; so it finds only questions of one word. Here both are cut into every two neighbouring
characters, as search engines do without a dictionary, and any phrase is found.
"""

import re

from sphinx import search
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

WORDS = re.compile(r"[\u3400-\u9fff]+|[^\W\u3400-\u9fff]+")


def pairs(text: str) -> list[str]:
    """The words of other scripts, and of Chinese every two neighbouring characters.

    >>> pairs("反向传播 of ReLU")
    ['反向', '向传', '传播', 'of', 'ReLU']
    """
    found = []
    for word in WORDS.findall(text):
        chinese = len(word) > 2 and "\u3400" <= word[0] <= "\u9fff"
        found += [word[i : i + 2] for i in range(len(word) - 1)] if chinese else [word]
    return found


class Chinese(SearchEnglish):
    """Pages and questions, cut by the same rule in Python and in the browser."""

    lang = "zh"
    js_splitter_code = r"""
var splitQuery = (query) =>
  (query.match(/[\u3400-\u9fff]+|[\p{Letter}\p{Number}_]+/gu) || []).flatMap((word) =>
    word.split(/([\u3400-\u9fff]+)/).filter(Boolean).flatMap((part) =>
      part.length > 2 && part >= "\u3400" && part[0] <= "\u9fff"
        ? Array.from(part.slice(1), (_, i) => part.slice(i, i + 2))
        : [part]));
"""

    def split(self, text: str) -> list[str]:
        return pairs(text)

    def stem(self, word: str) -> str:
        return super().stem(word) if word.isascii() else word

    def word_filter(self, stemmed_word: str) -> bool:
        return len(stemmed_word) > 1 and stemmed_word not in self.stopwords


def setup(app: Sphinx) -> dict[str, bool]:
    """Takes the place of Sphinx's own Chinese."""
    search.languages["zh"] = Chinese
    return {"parallel_read_safe": True}
