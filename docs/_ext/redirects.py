"""The addresses of pages that are gone: each sends a reader on to where its text is today."""

from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx

# From an old page to the page, and perhaps its heading, that has the text now.
MOVED = {
    "accuracy": "results#accuracy-for-the-size",
    "augmentation": "reference/cli#augmentation",
    "backprop": "backprop/index",
    "backprop/convolution-pooling": "backprop/convolution",
    "benchmarks": "results#compared-with-other-libraries",
    "compile": "parallelism#one-step",
    "deploy-recipes": "clusters#let-a-cluster-start-it",
    "exercises-bets": "exercises#how-every-exercise-works",
    "exercises-write": "exercises#how-every-exercise-works",
    "pictures": "datasets#a-folder-of-pictures",
    "precision": "train#precision",
    "serving-cluster": "clusters#serve-from-several-processes",
    "several-hosts": "clusters#train-on-several-machines",
    "speed": "results#speed",
    "tutorials": "course/index",
    "why-linen": "own-networks#why-linen-and-not-nnx",
    "zh/backprop/convolution-pooling": "zh/backprop/convolution",
    "zh/compile": "zh/parallelism#一个训练步",
    "zh/deploy-recipes": "zh/clusters",
    "zh/exercises-bets": "zh/exercises#每个练习怎样做",
    "zh/exercises-write": "zh/exercises#每个练习怎样做",
    "zh/why-linen": "zh/own-networks#为什么用-linen而不用-nnx",
}


def redirects(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page for each old address of this language."""
    chinese = app.config.language != "en"
    for old, new in MOVED.items():
        if old.startswith("zh/") == chinese:
            old, new = old.removeprefix("zh/"), new.removeprefix("zh/")
            page, _, anchor = new.partition("#")
            address = "../" * old.count("/") + f"{page}.html" + f"#{anchor}" * bool(anchor)
            yield old, {"title": old, "address": address}, "redirect.html"


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers it with Sphinx."""
    app.connect("html-collect-pages", redirects)
    return {"parallel_read_safe": True}
