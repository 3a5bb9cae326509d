"""Sphinx extension: one page that shows every script of ``examples/``, written anew by each build."""

from __future__ import annotations

import ast
from pathlib import Path

from sphinx.application import Sphinx

NOTE = "Each runs as it stands, in seconds, without a download: ``python examples/NAME.py``."


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the page before Sphinx looks for it."""
    app.connect("config-inited", lambda app, config: write_page(Path(app.srcdir)))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_page(docs: Path) -> None:
    """``api/examples.rst``: a section a script, under its own first line."""
    lines = ["Examples", "========", "", NOTE, ""]
    for script in sorted((docs.parent / "examples").glob("*.py")):
        title = script.stem.replace("_", " ").capitalize()
        about = (ast.get_docstring(ast.parse(script.read_text())) or "").replace("`", "``")
        lines += [f".. _example-{script.stem}:", "", title, "-" * len(title), "", about, ""]
        lines += [f".. literalinclude:: ../../examples/{script.name}", f"   :caption: examples/{script.name}", ""]
    page, text = docs / "api" / "examples.rst", "\n".join(lines)
    if not page.exists() or page.read_text() != text:
        page.write_text(text)
