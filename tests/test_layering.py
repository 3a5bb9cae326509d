"""The layers of docs/architecture: a module imports only from rows above its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import mvcseg

PACKAGE = Path(mvcseg.__file__).parent

ROWS: list[list[str]] = [
    ["errors"],
    ["shapes"],
    ["ops"],
    ["segmenter", "flow"],
    ["models.layers"],
    ["masking", "losses", "metrics", "data", "models.backbones"],
    ["models.compact", "models.mask2former"],
    ["models.compact_checkpoint"],
    ["models.dvis"],
    ["inference"],
    ["mvc", "tta", "ensemble", "vlm", "adapters", "report"],
    ["training", "evaluation", "pipeline", "prediction", "reporting", "loading", "progress", "causal_prediction"],
    ["label_folders", "vlm_options", "argument_types"],
    ["demo", "train_command", "eval_command", "correct_command", "compare_command", "option_checks", "correct_options"],
    ["commands"],
    ["cli"],
    ["__main__"],
]
"""From the bottom up. Within a row nothing imports its neighbour; a package counts as one module."""


def unit_of(module: str) -> str:
    """The row entry a dotted name below ``mvcseg`` belongs to."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "models" and len(parts) > 1 else parts[0]


def row_of(unit: str) -> int:
    for index, row in enumerate(ROWS):
        if unit in row:
            return index
    raise AssertionError(f"{unit} stands in no row: add it to ROWS and to docs/architecture.md")


def imports_of(path: Path) -> set[str]:
    """Units of this package that a file imports, wherever in it."""
    units = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path.name}: imports are absolute"
            members = [f"mvcseg.{alias.name}" for alias in node.names if not alias.name.startswith("__")]
            names = members if node.module == "mvcseg" else [node.module]
        else:
            continue
        units |= {unit_of(name.removeprefix("mvcseg.")) for name in names if name.startswith("mvcseg.")}
    return units


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_only_from_rows_above_its_own(path: Path) -> None:
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    unit = unit_of(module)
    if unit == "models":
        return  # the package's own page names no module
    for imported in imports_of(path) - {unit}:
        assert row_of(imported) < row_of(unit), f"{module} imports {imported}"


def test_files_stay_short_enough_to_read() -> None:
    long = {path.name: lines for path in FILES if (lines := len(path.read_text().splitlines())) > 400}
    assert long == {}
