"""The page's text: a template with styles and scripts inside, and a policy that allows just these scripts."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from mvcseg.report.text import printable

SCRIPTS = (
    "elements",
    "measures",
    "painting",
    "charts",
    "timeline",
    "curves",
    "tables",
    "heat",
    "panels",
    "layout",
    "player",
    "controls",
    "jumps",
    "main",
)
"""Parts of the page's script in the order in which they stand in it: one function around all of them."""


def render(*, data: Mapping[str, object], **values: object) -> str:
    """The page: everything escaped but the project's own styles and scripts, and ``data`` as JSON for these.

    All other text, wherever it comes from, is made `printable` here.
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("mvcseg.report", "web"),
        autoescape=True,
        finalize=_made_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # "<" and "&" cannot occur in the data block, so no text in it can end the block or start a tag
    block = json.dumps(_made_printable(data), separators=(",", ":"), allow_nan=False)
    block = block.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    scripts = [_charts(), _script()]
    return environment.get_template("page.html.jinja").render(
        style=_text("uplot/uPlot.min.css") + "\n" + _text("page.css"),
        scripts=scripts,
        script_sources=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        data=block,
        **values,
    )


def _made_printable(value: Any) -> Any:
    """The same with every text in it printable, but for what is markup already."""
    if isinstance(value, Mapping):
        return {key: _made_printable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_made_printable(each) for each in value]
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _charts() -> str:
    """The chart library uPlot as its authors ship it, behind its licence."""
    return f"/*!\n{_text('uplot/LICENSE')}\n*/\n{_text('uplot/uPlot.iife.min.js')}"


def _script() -> str:
    parts = "\n".join(_text(f"script/{name}.js") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


@cache
def _text(name: str) -> str:
    return files("mvcseg.report").joinpath("web", *name.split("/")).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
