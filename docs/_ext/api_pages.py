"""Sphinx extension: the pages of the API reference, written from what the package holds.

Every package and every module of the top level gets a page ``api/<name>.rst``; a new file appears without an edit.
A package's page describes the names of its ``__all__`` under the path people import them from, then whatever else
its files define in public. A name that one page describes and another exports has a line there that leads to it.
Modules that only a command line needs (``api_internals``) are gathered under one last entry of the navigation.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, get_type_hints

from sphinx.application import Sphinx

INTERNALS_OPENING = [
    "Command line internals", "=" * 22, "",
    "What ``mvcseg COMMAND`` does with its arguments. Programs call the other modules instead.", "",
]  # fmt: skip
"""The beginning of that page."""
LONGEST_VALUE = 90
"""Constants whose text is longer are listed without it."""
INTERNALS = "command_line"
"""Name of the page that leads to the modules of the command line."""


@dataclass(frozen=True)
class Constant:
    """What a file says of a name it assigns: the text of the value and the string below it."""

    value: str
    text: str
    is_alias: bool


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for them."""
    app.add_config_value("api_package", "", "env")
    app.add_config_value("api_internals", "", "env")
    app.connect("config-inited", lambda app, config: write_all(config, Path(app.srcdir) / "api"))
    # before Napoleon turns the sections into lists
    app.connect("autodoc-process-docstring", lambda app, what, name, value, _, lines: name_once(value, lines), 400)
    app.connect("autodoc-skip-member", lambda app, what, name, value, *_: True if is_tuple_field(value) else None)
    app.connect("missing-reference", lambda app, env, node, text: text if is_variable(node) else None)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_all(config: Any, folder: Path) -> None:
    """The pages that the configuration asks for."""
    write_pages(config.api_package, folder, internals=config.api_internals)


def write_pages(package: str, folder: Path, *, internals: str = "") -> list[Path]:
    """Pages of ``package`` in ``folder``; those of modules that are gone are removed, equal ones left untouched.

    Modules whose whole name matches ``internals`` are reached through a page of their own, the last of the package's.
    """
    units = units_of(package)
    hidden = [unit for unit in units if internals and re.fullmatch(internals, unit)]
    texts = {}
    for unit, files in units.items():
        children = [other for other in units if other.rpartition(".")[0] == unit and other not in hidden]
        texts[unit] = page_text(unit, files, children=[*children, *([INTERNALS] if hidden and unit == package else [])])
    if hidden:
        texts[INTERNALS] = "\n".join([*INTERNALS_OPENING, *contents(hidden)])
    written = []
    for name, text in texts.items():
        page = folder / f"{name}.rst"
        if not page.exists() or page.read_text() != text:
            page.write_text(text)
        written.append(page)
    for old in set(folder.glob(f"{package}*.rst")) - set(written):
        old.unlink()
    return written


def units_of(package: str) -> dict[str, list[str]]:
    """Modules by page: a package and its own files share one, a module of the top level has its own."""
    root = importlib.import_module(package)
    units: dict[str, list[str]] = {package: []}
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        if any(part.startswith("_") for part in found.name.split(".")):
            continue
        parent = found.name.rpartition(".")[0]
        if found.ispkg or parent == package:
            units[found.name] = []
        else:
            units[parent].append(found.name)
    return {unit: units[unit] for unit in sorted(units)}


def page_text(unit: str, files: list[str], *, children: list[str]) -> str:
    """The page of a package, or of a module with no files below it, in reStructuredText."""
    module = module_named(unit)
    homes = exports(module)
    lines = [*opening(unit, "=")]
    if children:
        lines += contents(children)
    shown = sorted(list(homes) or defined_names(module), key=lambda name: is_constant(module, name))
    lines += summary(module, shown)
    for name in shown:
        home = homes.get(name, unit)
        lines += description(unit, name, home) if home == unit or home in files else lead(unit, name, home)
    for file in files:
        own = [name for name in defined_names(module_named(file)) if homes.get(name) != file]
        above = [name for name, home in homes.items() if home == file]
        clash = file.rpartition(".")[2] in homes
        lines += opening(file, "-", is_indexed=not clash)
        if above:
            lines += ["Described above: " + ", ".join(f":py:obj:`~{unit}.{name}`" for name in above) + ".", ""]
        for name in own:
            lines += description(file, name, file)
    return "\n".join(lines).rstrip() + "\n"


def contents(pages: list[str]) -> list[str]:
    """The directive that leads to other pages."""
    return [".. toctree::", "   :maxdepth: 1", "", *(f"   {page}" for page in pages), ""]


def is_constant(module: ModuleType, name: str) -> bool:
    """Whether a name is neither class nor function; such come last."""
    value = getattr(module, name)
    return not (inspect.isclass(value) or inspect.isroutine(value))


def opening(module: str, sign: str, *, is_indexed: bool = True) -> list[str]:
    """Title of a module and its docstring. One called like a function of its package cannot be indexed beside it."""
    index = [] if is_indexed else ["   :no-index:"]
    return [f".. _file-{module}:", "", module, sign * len(module), "", f".. automodule:: {module}", *index, ""]


def summary(module: ModuleType, names: list[str]) -> list[str]:
    """A table of names and first lines, each leading to its description."""
    if len(names) < 2:
        return []
    rows = [[f"   * - :py:obj:`~{module.__name__}.{name}`", f"     - {first_line(module, name)}"] for name in names]
    return [".. list-table::", "   :class: names", "", *(line for row in rows for line in row), ""]


def description(module: str, name: str, home: str) -> list[str]:
    """The directive that describes ``module.name``, whose source is the file ``home``."""
    value = getattr(module_named(module), name)
    resolve_annotations(value)
    if inspect.isclass(value):
        return [
            f".. autoclass:: {module}.{name}",
            "   :members:",
            "   :special-members: __call__",
            "   :show-inheritance:",
            "",
        ]
    constant = constants(home).get(name)
    if inspect.isroutine(value) or constant is None:
        return [f".. autofunction:: {module}.{name}", ""]
    if constant.is_alias:
        stands_for = f"   Stands for ``{constant.value}``."
        return [f".. py:type:: {name}", f"   :module: {module}", "", stands_for, "", *indented(constant.text), ""]
    value_line = [f"   :value: {constant.value}"] if len(constant.value) <= LONGEST_VALUE else []
    return [f".. py:data:: {name}", f"   :module: {module}", *value_line, "", *indented(constant.text), ""]


def resolve_annotations(value: Any) -> None:
    """Types for their names, where autodoc itself leaves names: of a constructor, or imported for checkers only."""
    function = vars(value).get("__init__") if inspect.isclass(value) else value
    if not inspect.isfunction(function) or not function.__module__:
        return
    names: dict[str, Any] = {}
    with suppress(TypeError, NameError, ImportError):  # an alias that is text for checkers, a package that is not here
        for node in parsed(function.__module__).body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                exec(ast.unparse(ast.Module(node.body, [])), names)
        function.__annotations__ = get_type_hints(function, localns=names)


def lead(module: str, name: str, home: str) -> list[str]:
    """A line under ``module.name`` that leads to the page where it is described."""
    value = getattr(module_named(module), name)
    kind = "class" if inspect.isclass(value) else "function" if inspect.isroutine(value) else "data"
    there = f":py:obj:`{home}.{name}`"
    return [f".. py:{kind}:: {name}", f"   :module: {module}", "", f"   {first_line(module_named(module), name)}", "",
            f"   This is {there}.", ""]  # fmt: skip


def first_line(module: ModuleType, name: str) -> str:
    """The first paragraph of a name's documentation, on one line."""
    value = getattr(module, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        text = inspect.getdoc(value) or ""
    else:
        home = exports(module).get(name, module.__name__)
        text = constants(home)[name].text if name in constants(home) else ""
    return " ".join(text.split("\n\n")[0].split())


def exports(module: ModuleType) -> dict[str, str]:
    """Names of ``__all__`` that are no modules, each with the module it was imported from."""
    sources = {
        alias.asname or alias.name: node.module or ""
        for node in parsed(module.__name__).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    names = (name for name in getattr(module, "__all__", ()) if not inspect.ismodule(getattr(module, name)))
    return {name: sources.get(name, module.__name__) for name in names}


def defined_names(module: ModuleType) -> list[str]:
    """Public functions, classes, documented constants and type aliases of a file, in its order."""
    known = constants(module.__name__)
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    names = []
    for node in parsed(module.__name__).body:
        found = [node.name] if isinstance(node, definitions) else assigned_names(node)
        names += [name for name in found if isinstance(node, definitions) or known[name].text or known[name].is_alias]
    return [name for name in dict.fromkeys(names) if not name.startswith("_") and hasattr(module, name)]


@cache
def constants(module: str) -> dict[str, Constant]:
    """The names a file assigns at its top level."""
    body = parsed(module).body
    found = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        text = inspect.cleandoc(str(after.value.value)) if is_text else ""  # type: ignore[union-attr]
        for name in assigned_names(node):
            value = node.value  # type: ignore[attr-defined]
            is_alias = name[0].isupper() and not name.isupper() and isinstance(value, ast.Subscript | ast.BinOp)
            found[name] = Constant("" if value is None else ast.unparse(value), text, is_alias)
    return found


def assigned_names(node: ast.stmt) -> list[str]:
    """What an assignment to plain names assigns."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


@cache
def parsed(module: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(inspect.getsource(module_named(module)))


def module_named(name: str) -> ModuleType:
    """A module; unlike an attribute of its package, never the function of the same name."""
    return importlib.import_module(name)


def name_once(value: Any, lines: list[str]) -> None:
    """Describe the fields of a record as the parameters they are, not as attributes beside undescribed parameters.

    A docstring keeps its attributes where they are not fields that the constructor takes.
    """
    if "Attributes:" not in lines or "Args:" in lines:
        return
    taken = (
        {field.name for field in fields(value) if field.init} if is_dataclass(value) else getattr(value, "_fields", ())
    )
    start = lines.index("Attributes:") + 1
    block = next((i for i in range(start, len(lines)) if lines[i][:1].strip()), len(lines))
    named = [match[1] for line in lines[start:block] if (match := re.match(r" {4}\*{0,2}(\w+)[^:]*:", line))]
    if set(named) <= set(taken):
        lines[start - 1] = "Args:"


def is_tuple_field(value: Any) -> bool:
    """Whether a member is a field of a named tuple that says nothing but its number."""
    return str(getattr(value, "__doc__", "")).startswith("Alias for field number")


def is_variable(node: Any) -> bool:
    """Whether a reference leads to a type variable, which no page describes."""
    module, _, name = str(node.get("reftarget")).rpartition(".")
    return isinstance(getattr(sys.modules.get(module), name, None), TypeVar)


def indented(text: str) -> list[str]:
    """Lines moved below their directive."""
    return [f"   {line}".rstrip() for line in text.splitlines()]
