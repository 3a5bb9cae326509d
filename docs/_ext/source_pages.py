"""Sphinx extension: puts right two things about the pages of source code that ``sphinx.ext.viewcode`` makes.

It takes an alias such as ``Tie = Literal[...]`` for something of the module ``typing``, and it leads back from all of a
file to one module, though a package describes some of its names under its own.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

from sphinx.application import Sphinx

BACK = re.compile(r'(?P<start><a class="viewcode-back" href=")[^"#]*#(?P<name>[^"]*)"')


def setup(app: Sphinx) -> dict[str, bool]:
    """Answer where a name comes from, and look through each page before it is written."""
    app.setup_extension("sphinx.ext.viewcode")
    app.connect("viewcode-follow-imported", home_of)
    app.connect("html-page-context", lead_back)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def home_of(app: Sphinx, module: str, name: str) -> str | None:
    """The module itself for what is neither class nor function; else what viewcode finds."""
    value: Any = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part, None)
    return None if inspect.isclass(value) or inspect.isroutine(value) else module


def lead_back(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """In a page of source code, links to the descriptions that exist, under whichever name."""
    if not page.startswith("_modules/") or page == "_modules/index":
        return
    known = app.env.domains["py"].data["objects"]
    parents = parents_of(page.removeprefix("_modules/").replace("/", "."))

    def target(match: re.Match[str]) -> str:
        named_under = next(parent for parent in parents if match["name"].startswith(f"{parent}."))
        name = match["name"].removeprefix(named_under)
        found = next(f"{parent}{name}" for parent in parents if f"{parent}{name}" in known)
        entry = known[found]  # an alias has the place of what it stands for
        return f'{match["start"]}{app.builder.get_relative_uri(page, entry.docname)}#{entry.node_id}"'

    context["body"] = BACK.sub(target, context["body"])


def parents_of(module: str) -> list[str]:
    """A dotted name and all it lies in: ``a.b.c``, ``a.b``, ``a``."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
