"""The documentation site: it builds without a warning, leads nowhere that is not there, and asks no network."""

from __future__ import annotations

import importlib
import re
import runpy
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from html import unescape
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
import pytest
import test_public_api as contract
from chromium_page import set_window, start_chromium
from PIL import Image

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
GALLERY = DOCS / "gallery"
PACKAGE = ROOT / "mvcseg"
WIDE = ("index", "gallery", "training", "metrics", "camvid", "howto/own_data", "api/mvcseg.vlm", "api/mvcseg.training")
"""Pages with wide tables, long lines of code or long signatures."""
LISTED = """const done = arguments[0]; let before = 0;
const look = () => {
  const links = [...document.querySelectorAll('#search-results ul.search li > a')];
  if (links.length && links.length === before) done(links.map(link => new URL(link.href).pathname.split('/').pop()));
  else { before = links.length; setTimeout(look, 1000); }
}; look();"""
"""The files that a search lists, once no more are added."""

TOO_WIDE = """return [...document.querySelectorAll('table.names')].filter(
  table => table.getBoundingClientRect().width > table.parentElement.clientWidth).length"""
"""How many lists of names are cut off at the side."""
SIZES = (
    "return ['h1', 'h2'].map(each => parseFloat(getComputedStyle(document.querySelector(`article ${each}`)).fontSize))"
)

pytestmark = pytest.mark.timeout(900)  # the build is 50 s of work, and may share its cores
pytest.importorskip("sphinx", reason="the documentation site needs the docs extra")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning of Sphinx, a reference to a name without a page included, fails here."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(out / ".doctrees")]
    before = files_in(DOCS)
    ended = subprocess.run([*command, str(DOCS), str(out)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    left = {path.as_posix() for path in files_in(DOCS) - before}
    assert all(re.fullmatch(r"api/[\w.]+\.rst", path) for path in left), left  # the names that .gitignore has
    return out


def files_in(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


@cache
def text_of(page: Path) -> str:
    return page.read_text()


@cache
def places_in(page: Path) -> frozenset[str]:
    """The ids of a page: what an address may end with."""
    return frozenset(unescape(name) for name in re.findall(r'\sid="([^"]+)"', text_of(page)))


def described(site: Path) -> set[str]:
    """Names that have an entry in the reference."""
    return {name for page in (site / "api").glob("*.html") for name in places_in(page)}


@pytest.mark.slow
def test_every_name_of_the_contract_is_in_the_reference(site: Path) -> None:
    names = {f"{module}.{name}" for module, name, *_ in contract.FUNCTIONS}
    names |= {f"mvcseg.{name}" for name in ("IMAGENET_MEAN", "IMAGENET_STD", "IGNORE_INDEX")}
    for module, name, method, *_ in contract.METHODS:
        kind = getattr(importlib.import_module(module), name)
        home = module if module != "mvcseg" else kind.__module__  # the top level leads there
        names.add(f"{home}.{name}.{method}")
    assert names - described(site) == set()


@pytest.mark.slow
def test_every_exported_name_and_every_module_is_in_the_reference(site: Path) -> None:
    found = described(site)
    missing = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("mvcseg", *path.relative_to(PACKAGE).with_suffix("").parts)
        if any(part.startswith("_") and part != "__init__" for part in parts):
            continue  # private
        name = ".".join(parts).removesuffix(".__init__")
        missing += [name] if "file-" + re.sub(r"[._]+", "-", name) not in found else []
        module = importlib.import_module(name)
        exported = [
            each for each in getattr(module, "__all__", ()) if not isinstance(getattr(module, each), ModuleType)
        ]
        missing += [f"{name}.{each}" for each in exported if f"{name}.{each}" not in found]
    assert missing == []


@pytest.mark.slow
def test_links_and_anchors_lead_somewhere(site: Path) -> None:
    broken = []
    for page in sorted(site.rglob("*.html")):
        for link in set(re.findall(r'<a\b[^>]*?\shref="([^"]*)"', text_of(page))):
            if re.match(r"[a-z]+:", link):
                continue
            file, _, place = unquote(unescape(link)).partition("#")
            target = (page.parent / file).resolve() if file else page
            is_there = target.is_file() and (not place or target.suffix != ".html" or place in places_in(target))
            broken += [] if is_there else [f"{page.relative_to(site)}: {link}"]
    assert broken == []


@pytest.mark.slow
def test_the_site_asks_no_network(site: Path) -> None:
    """Whatever a browser fetches of itself lies in the site: pictures, styles, scripts, fonts."""
    fetched = []
    for page in site.rglob("*.html"):
        tags = re.findall(r"<(?:script|img|source|iframe|video|audio|object|embed)\b[^>]*>", text_of(page))
        tags += [
            tag
            for tag in re.findall(r"<link\b[^>]*>", text_of(page))
            if not re.search(r'rel="(canonical|author)"', tag)
        ]
        fetched += [tag for tag in tags if re.search(r'(?:src|href|data|srcset)="(?:[a-z]+:)?//', tag)]
    for style in site.rglob("*.css"):
        fetched += re.findall(r"(?:url\(|@import\s)[\"']?(?:https?:)?//[^)]*", style.read_text())
    assert fetched == []


@pytest.mark.slow
@pytest.mark.browser
def test_search_finds_and_no_page_is_wider_than_the_screen(site: Path, tmp_path: Path) -> None:
    browser = start_chromium(tmp_path)
    try:
        browser.get(f"{(site / 'search.html').as_uri()}?q=farneback")
        found = browser.execute_async_script(LISTED)
        assert {"flow_ssim.html", "mvcseg.flow.html"} <= set(found), found
        for width in (390, 1280):
            set_window(browser, width=width, height=900)
            for page in WIDE:
                browser.get((site / f"{page}.html").as_uri())
                assert browser.execute_script("return document.documentElement.scrollWidth") <= width, page
                assert browser.execute_script(TOO_WIDE) == 0, page
        title, section = browser.execute_script(SIZES)
        assert title > 1.2 * section
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    finally:
        browser.quit()


def test_pictures_and_script_of_the_gallery_belong_together() -> None:
    pictures = {path.stem: path for path in GALLERY.glob("*.jpg")}
    draw = runpy.run_path(str(GALLERY / "draw.py"))["PICTURES"]
    assert pictures.keys() == draw.keys()
    assert all(f"gallery/{name}.jpg" in (DOCS / "gallery.md").read_text() for name in pictures)
    sizes = [path.stat().st_size for path in pictures.values()]
    assert max(sizes) < 100_000
    assert sum(sizes) < 1_000_000


@pytest.mark.parametrize("name", ["masking", "question"])
def test_a_picture_of_the_gallery_is_what_its_script_draws(name: str) -> None:
    drawn = runpy.run_path(str(GALLERY / "draw.py"))["PICTURES"][name]().permute(1, 2, 0).numpy()
    stored = np.array(Image.open(GALLERY / f"{name}.jpg"))
    assert stored.shape == drawn.shape
    assert (
        np.abs(stored.astype(int) - drawn).mean() < 4
    )  # JPEG; another release of Pillow or OpenCV may round otherwise


def test_a_new_module_is_in_the_reference_without_an_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "scenery" / "trees"
    package.mkdir(parents=True)
    (tmp_path / "scenery" / "__init__.py").write_text('"""Top."""\nfrom scenery.trees import oak\n__all__ = ["oak"]\n')
    (package / "__init__.py").write_text('"""Trees."""\nfrom scenery.trees.oaks import oak\n__all__ = ["oak"]\n')
    (package / "oaks.py").write_text(
        'from typing import Literal\nKind = Literal["red"]\nHEIGHT = 30\n"""Metres."""\n_hidden = 1\n'
        'def oak():\n    """An oak."""\ndef acorn():\n    """Its fruit."""\ndef _root():\n    """Hidden."""\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    pages = importlib.import_module("api_pages")
    out = tmp_path / "api"
    out.mkdir()
    (out / "scenery.gone.rst").write_text("of a module that is no more")
    pages.write_pages("scenery", out)
    assert {path.name for path in out.iterdir()} == {"scenery.rst", "scenery.trees.rst"}
    text = (out / "scenery.trees.rst").read_text()
    assert ".. autofunction:: scenery.trees.oak\n" in text  # where it is imported from
    assert ".. autofunction:: scenery.trees.oaks.acorn\n" in text
    assert ".. py:data:: HEIGHT\n   :module: scenery.trees.oaks\n   :value: 30\n\n   Metres." in text
    assert ".. py:type:: Kind\n   :module: scenery.trees.oaks\n\n   Stands for ``Literal['red']``." in text
    assert "hidden" not in text.lower()
    assert "_root" not in text
    assert "This is :py:obj:`scenery.trees.oak`" in (out / "scenery.rst").read_text()


def test_modules_of_the_command_line_are_gathered_in_one_last_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hamlet").mkdir()
    (tmp_path / "hamlet" / "__init__.py").write_text('"""Top."""\n')
    for name in ("cli", "well", "yard"):
        (tmp_path / "hamlet" / f"{name}.py").write_text(f'"""The {name}."""\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    pages = importlib.import_module("api_pages")
    pages.write_pages("hamlet", tmp_path, internals=r"hamlet\.(cli|\w+_command)")
    entries = re.findall(r"^   ([\w.]+)$", (tmp_path / "hamlet.rst").read_text(), flags=re.MULTILINE)
    assert entries == ["hamlet.well", "hamlet.yard", "command_line"]
    assert (tmp_path / "command_line.rst").read_text().endswith("   :maxdepth: 1\n\n   hamlet.cli\n")
    assert (tmp_path / "hamlet.cli.rst").is_file()


def test_classes_and_functions_stand_before_constants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountains.py").write_text(
        '"""High."""\nHEIGHT = 30\n"""Metres."""\nclass Alp:\n    """One."""\ndef climb():\n    """Up."""\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    text = importlib.import_module("api_pages").page_text("mountains", [], children=[])
    assert re.findall(r"~mountains\.(\w+)`", text) == ["Alp", "climb", "HEIGHT"]


@dataclass
class Hill:
    """A hill."""

    height: float
    slope: float = 0.0


class Brook(NamedTuple):
    """A brook."""

    length: float


@pytest.mark.parametrize(
    ("kind", "names", "title"),
    [
        (Hill, ["height", "slope"], "Args:"),
        (Hill, ["height", "area"], "Attributes:"),  # one that the constructor does not take
        (Brook, ["length"], "Args:"),
        (Path, ["length"], "Attributes:"),
    ],
)
def test_fields_of_a_record_are_described_once(
    kind: type, names: list[str], title: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    described_lines = [line for name in names for line in (f"    {name}: in metres, so that:", "        it fits.")]
    lines = ["A thing.", "", "Attributes:", *described_lines, "", "More: words."]
    importlib.import_module("api_pages").name_once(kind, lines)
    assert lines == ["A thing.", "", title, *described_lines, "", "More: words."]


@pytest.mark.parametrize(
    ("page", "written", "read"),
    [
        ("ops", "[warp](../mvcseg/ops/warp.py)", "[warp](#file-mvcseg.ops.warp)"),
        ("howto/clusters", "[losses](../../mvcseg/losses)", "[losses](#file-mvcseg.losses)"),
        ("mvc", "[one](../examples/voting.py)", "[one](#example-voting)"),
        ("mvc", "[run](../examples/run.json)", "[run](path:../examples/run.json)"),
        ("howto/clusters", "[data](../data.md)", "[data](../data.md)"),
        ("mvc", "see [data.md](data.md#speed)", "see [](data.md#speed)"),
        ("howto/clusters", "see [data.md](../data.md)", "see [](../data.md)"),
        ("mvc", "[data.md](metrics.md)", "[data.md](metrics.md)"),
    ],
)
def test_links_that_work_where_the_repository_is_browsed_work_on_the_site(
    page: str, written: str, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    assert importlib.import_module("outside_links").rewritten(written, page=page) == read


def test_what_a_build_writes_is_ignored() -> None:
    assert {"build/", "docs/api/*.rst"} <= set((ROOT / ".gitignore").read_text().split())
