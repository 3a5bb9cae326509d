"""The standing comparison at tiny sizes: outputs agree, files are merged, table and page say what the file says."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

Script = Callable[[str], ModuleType]
ROOT = Path(__file__).resolve().parents[2]

TINY: dict[str, dict[str, Any]] = {
    "vote": {"size": (24, 40), "views": 5},
    "ssim": {"size": (48, 64), "num_classes": 5},
    "scores": {"size": (96, 256), "frames": 18},
    "views": {"size": (40, 60), "num_classes": 7},
    "flow": {"size": (64, 96), "frames": 4},
    "select": {"size": (64, 96), "frames": 4},
    "deform": {"maps": {"tiny": ((2, 3), (4, 6), (8, 12))}, "heads": 2, "width": 64},
    "linear": {"sizes": ((700, 64, 32),)},
    "semantic": {"size": (64, 90)},
    "segmenter": {"size": (128, 180)},
}


@pytest.fixture
def peers(script: Script) -> ModuleType:
    for package in ("kornia", "torchmetrics", "ttach", "transformers"):
        pytest.importorskip(package)
    return script("peers")


def tiny_rows(peers: ModuleType, script: Script, group: str) -> Iterator[Any]:
    module, name = peers.GROUPS[group]
    yield from getattr(script(module), name)(device="cpu", **TINY[group])


@pytest.mark.parametrize("group", list(TINY))
def test_outputs_of_every_row_agree(peers: ModuleType, script: Script, group: str) -> None:
    measured = script("peers_row").measured
    keys = []
    with torch.no_grad():
        for row in tiny_rows(peers, script, group):
            result = measured(row, turns=1)
            assert result["equal"], f"{row.key}: {result['difference']}"
            assert len(row.key) <= 34, "the gate prints 34 letters of a key"
            keys.append(row.key)
    assert keys
    assert len(set(keys)) == len(keys)


def test_tiny_scores_are_numbers(peers: ModuleType, script: Script) -> None:
    """Where no clip is scored, both sides give NaN and agree about nothing."""
    with torch.no_grad():
        for row in tiny_rows(peers, script, "scores"):
            if row.peer.startswith(script("peers_scores").SCRIPT):
                scores = row.theirs()
                assert len(scores) == 3, row.key
                assert all(0 <= score < 1 for score in scores), row.key  # not NaN
                assert all(score > 0 for score in scores) or "random" in row.key, row.key  # noise is never steady


def test_every_group_is_tried(peers: ModuleType) -> None:
    assert set(TINY) == set(peers.GROUPS)


def a_row(script: Script, **changes: Any) -> Any:
    parts = {"key": "group/row", "work": "adding", "peer": "another", "ours": lambda: 1.0, "theirs": lambda: 1.5}
    parts |= {"difference": lambda a, b: abs(a - b), "tolerance": 0.5}
    return script("peers_row").Row(**(parts | changes))


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([0.5, 1.0], [0.25, 1.0], 0.25),
        ([math.nan, 1.0], [math.nan, 1.0], 0.0),
        ([math.nan, 1.0], [0.5, 1.0], math.nan),
        ([0.5, 1.0], [0.5, math.nan], math.nan),
        ([math.nan], [math.nan], math.nan),
        ([], [], math.nan),
        ([math.inf, 1.0], [math.inf, 1.0], 0.0),
        ([math.inf], [-math.inf], math.inf),
    ],
)
def test_a_nan_equals_a_nan_beside_numbers(
    script: Script, ours: list[float], theirs: list[float], expected: float
) -> None:
    found = script("peers_row").largest(ours, torch.tensor(theirs))
    assert found == pytest.approx(expected, abs=0, nan_ok=True)


def test_outputs_beyond_the_tolerance_fail_the_run_that_is_still_written(
    peers: ModuleType,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nan = a_row(script, key="group/nan", difference=lambda a, b: float("nan"))
    rows = [a_row(script, tolerance=0.4), nan, a_row(script, key="group/good")]
    monkeypatch.setattr(peers, "rows_of", lambda group, device: iter(rows))
    here = ["--processes", "1", "--threads", str(torch.get_num_threads())]
    code = peers.main(["--only", "vote", "--turns", "2", *here, "--out", str(tmp_path / "out.json")])
    assert code == 1
    written = json.loads((tmp_path / "out.json").read_text())
    assert [row["equal"] for row in written["rows"]] == [False, False, True]
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    said = capsys.readouterr().err
    assert "outputs differ: group/row" in said
    assert "outputs differ: group/nan" in said
    monkeypatch.setattr(peers, "rows_of", lambda group, device: iter(rows[2:]))
    assert peers.main(["--only", "vote", "--turns", "1", *here]) == 0


def test_a_row_of_another_device_is_left_out_by_name(
    peers: ModuleType, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "rows_of", lambda group, device: iter([a_row(script, devices=("cuda",))]))
    for name in peers.ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "7")
    report = peers.run(["vote"], turns=1)
    assert report["rows"] == []
    assert report["runs"][0]["allocator"] == {"MALLOC_TRIM_THRESHOLD_": "7"}
    assert report["runs"][0]["skipped"] == ["group/row"]


def test_groups_run_again_take_the_place_of_their_rows(peers: ModuleType) -> None:
    def report(date: str, *rows: tuple[str, str]) -> dict[str, Any]:
        groups = sorted({group for group, _ in rows})
        return {
            "runs": [{"date": date, "groups": groups}],
            "rows": [{"key": key, "group": group, "run": 0} for group, key in rows],
        }

    first = peers.merged(None, report("one", ("vote", "vote/a"), ("vote", "vote/b"), ("ssim", "ssim/a")))
    both = peers.merged(first, report("two", ("vote", "vote/a")))
    assert [(row["key"], both["runs"][row["run"]]["date"]) for row in both["rows"]] == [
        ("vote/a", "two"),
        ("ssim/a", "one"),
    ]
    last = peers.merged(both, report("three", ("ssim", "ssim/a")))
    assert [run["date"] for run in last["runs"]] == ["two", "three"]
    assert [(row["key"], row["run"]) for row in last["rows"]] == [("vote/a", 0), ("ssim/a", 1)]


def a_report(script: Script) -> dict[str, Any]:
    rows = []
    for key, ours, target in (("group/fast", 1.0, 3.0), ("group/slow", 8.0, None)):
        figures = script("peers_processes").figures_of_processes([{"ours": [ours, ours], "peer": [2.0, 4.0]}])
        row = {"key": key, "group": "group", "run": 0, "work": key, "peer": "another", "target": target}
        rows.append(row | figures | {"measure": "", "difference": 0.0, "tolerance": 0, "equal": True})
    stamp = script("environment").environment() | {"groups": ["group"], "load_average_after": [0.5, 0, 0]}
    stamp |= {"processes": 3, "allocator": {"MALLOC_TRIM_THRESHOLD_": "1"}}
    return {"runs": [stamp], "rows": rows}


def test_table_keeps_slower_rows_and_names_them(script: Script) -> None:
    lines = script("peers_table").table([a_report(script)]).splitlines()
    assert (
        lines[2]
        == "| group/fast | another | 3,000 | 1,000 | **3.00** | 2.50, 3.50 | 2.00, 4.00 | 3.00 reached | equal |"
    )
    assert "0.38 (slower)" in lines[3]
    assert "3 processes" in lines[5]
    assert lines[5].endswith(", MALLOC_TRIM_THRESHOLD_=1.")
    assert "load average" in lines[5]


def test_page_is_renewed_between_its_markers(script: Script) -> None:
    table, report = script("peers_table"), a_report(script)
    page = table.page_with("before\n<!-- peers:begin -->\nold\n<!-- peers:end -->\nafter", [report])
    assert page == f"before\n<!-- peers:begin -->\n{table.table([report]).rstrip()}\n<!-- peers:end -->\nafter"
    assert table.page_with(page, [report]) == page
    with pytest.raises(ValueError, match="peers:begin"):
        table.page_with("no markers", [report])


def test_the_page_of_the_docs_is_that_of_the_results(script: Script) -> None:
    page = (ROOT / "docs/performance.md").read_text()
    report = json.loads((ROOT / "benchmarks/results/peers.json").read_text())
    assert script("peers_table").page_with(page, [report]) == page
    assert {row["group"] for row in report["rows"]} == set(TINY)


def test_figure_is_the_same_every_time(script: Script, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = a_report(script)["rows"]
    for name in ("one.svg", "two.svg"):
        script("peers_figure").draw(rows, tmp_path / name)
    assert (tmp_path / "one.svg").read_text().startswith("<?xml")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
