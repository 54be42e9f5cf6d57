"""The site: Sphinx reads this once for English, and with `-t zh` for Chinese (docs/build.py)."""

import importlib.util
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

from address import project_address  # noqa: E402

from jaxnets import __version__  # noqa: E402

CHINESE = tags.has("zh")  # pyright: ignore[reportUndefinedVariable] (Sphinx gives it)

project = "jaxnets"
author = "The jaxnets authors"
copyright = "the jaxnets authors; the code under Apache-2.0"
version = release = __version__
language = "zh_CN" if CHINESE else "en"
html_title = "jaxnets 文档" if CHINESE else "jaxnets"

extensions = [
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx.ext.mathjax",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "links",
    "docstrings",
    "flags_page",
    "chinese_search",
    "chinese_lines",
    "language_switch",
    "lite",
    "living",
    "redirects",
]
exclude_patterns = ["_*", "zh", "README.md"]  # The Chinese pages are a tree of their own.
templates_path = ["_templates"]
MATHJAX = importlib.util.find_spec("sphinx-mathjax-offline")  # Formulas need no network.
assert MATHJAX is not None and MATHJAX.origin is not None
html_static_path = ["_static", str(Path(MATHJAX.origin).parent / "static/mathjax/tex-svg.js")]
# A page may land before the contents name it; a heading may be small.
suppress_warnings = ["toc.not_included", "myst.header"]

# Markdown as GitHub reads it: ```math, $...$, anchors of headings, <img>.
myst_enable_extensions = ["dollarmath", "html_image", "colon_fence", "deflist"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
nb_execution_mode = "off"  # Notebooks are kept with their outputs; tests run them.
nb_merge_streams = True
default_role = "code"  # A docstring's names in backticks; quotes and dashes stay as they are.

# Modules import jax.Array, whose source Sphinx would seek in vain on Python 3.13.
autodoc_default_options = {"exclude-members": "Array"}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

mathjax_path = "tex-svg.js"
html_search_language = "zh" if CHINESE else "en"
html_search_scorer = str(DOCS / "_static/scorer.js")
html_theme = "sphinx_book_theme"
html_css_files = ["site.css"]
ONE_FILE = ["slides.html", "draw.html", "plane.html", "derive.html"]  # Pages that load nothing.
html_extra_path = ["zh/slides.html"] if CHINESE else [*ONE_FILE, "llms.txt"]
html_context = {"default_mode": "auto"}
html_use_index = html_domain_indices = False  # No page links to them.
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navbar_persistent": [],
    "search_bar_text": "搜索" if CHINESE else "Search",
    "article_header_end": ["lite.html", "language-switch.html", "article-header-buttons.html"],
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_navbar_depth": 1,
    "home_page_in_toc": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
# A page of code needs no table of the whole site: 446 of them took half of the site's time.
html_sidebars = {"code/**": ["navbar-logo.html", "search-button-field.html"]}
if address := project_address():
    html_theme_options |= {"repository_url": address, "use_repository_button": True}
