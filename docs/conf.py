"""The documentation site: ``sphinx-build -W docs build/site``. Nothing it writes or shows needs a network."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import mvcseg

project = "mvcseg"
author = "mvcseg's authors"
release = version = mvcseg.__version__
copyright = f"{author}. MIT licence"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "api_pages",
    "examples_page",
    "outside_links",
    "source_pages",
]
exclude_patterns = ["_ext", "_static"]
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!mvcseg\b).*")]  # only our own names have a page here

api_package = "mvcseg"
api_internals = r"mvcseg\.(cli|commands|\w+_command|\w+_options|option_checks|argument_types|label_folders|progress)"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
toc_object_entries = False  # names would make the navigation of every page, and the build, several times as long
napoleon_custom_sections = [("Source", "notes_style")]
python_maximum_signature_line_length = 88

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"mvcseg {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # a browser refuses what it needs where the site is read from a disk
highlight_language = "none"  # a block that names no language has none
pygments_style = "default"
pygments_dark_style = "github-dark"
