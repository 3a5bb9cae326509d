"""Sphinx extension: links that work where the repository is browsed, brought to the site.

A link out of ``docs/`` to a file of the package leads to its place in the API reference, one to a script in
``examples/`` to the page that shows it; other files are offered for download. A link that shows a file's name shows
the title of its page.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

LINK = re.compile(r"\]\((?P<up>(?:\.\./)+)(?P<path>[\w./-]+)\)")

NAMED = re.compile(r"\[(?P<name>\w+\.md)\](?=\((?:\.\./)*(?:\w+/)*(?P=name)[#)])")


def setup(app: Sphinx) -> dict[str, bool]:
    """Rewrite each page as it is read."""
    app.connect("source-read", lambda app, name, source: source.__setitem__(0, rewritten(source[0], page=name)))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def rewritten(text: str, *, page: str) -> str:
    """The text of a page with its links out of ``docs/`` led to pages of the site."""
    home = "../" * page.count("/")

    def target(match: re.Match[str]) -> str:
        if match["up"] != home + "../":
            return match[0]
        place = place_of(match["path"])
        return f"]({place.replace('path:', 'path:' + match['up'])})"

    return NAMED.sub("[]", LINK.sub(target, text))


def place_of(path: str) -> str:
    """The place on the site for a file or folder of the repository."""
    file = Path(path)
    if file.parts[0] == "mvcseg" and file.suffix in ("", ".py"):
        return f"#file-{'.'.join(file.with_suffix('').parts)}"
    if file.parts[0] == "examples" and file.suffix == ".py":
        return f"#example-{file.stem}"
    return f"path:{path}"
