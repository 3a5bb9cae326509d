"""The ceilings of the kernels: counts by hand, the choice of a rate, the whole script at tiny sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

Script = Callable[[str], ModuleType]
ROOT = Path(__file__).resolve().parents[2]
TINY = {"size": (64, 96), "views": 3, "frames": 18, "pairs": 2, "classes": 3, "heads": 2, "width": 64}
MAPS = ((2, 3), (4, 6))


@pytest.fixture(autouse=True)
def _packages() -> None:
    for package in ("kornia", "torchmetrics", "transformers"):
        pytest.importorskip(package)


@pytest.mark.parametrize(
    ("name", "numbers", "moved", "operations"),
    [
        ("vote", (3, 10, 1), 40, {"bytes": 50}),
        ("vote", (3, 10, 8), 320, {"bytes": 50 + 320}),
        ("counting", (2, 10), 40, {"bytes": 60}),
        ("consistency", (3, 8), 48, {"bytes": 2 * (8 * 4 + 15)}),
        ("plane_ssim", (1, 2), 16, {"float32": 104}),
        ("label_ssim", (10, 4), 20, {"bytes": 10 + 4 * 15, "look-ups": 4}),
        ("warp", (2, 5), 2 * 5 * 10, {"float32": 100, "look-ups": 10}),
        ("flow", (2, 10), 3 * 3 * 40 + 2 * 2 * 40, {"pairs": 2}),
        ("selection", (2, 3, 10), 5 * 3 * 10, {"pairs": 2}),
        ("attention", (2, 1, 4, 3), 2 * 4 * (4 + 6 + 3 + 4), {"loads": 2 * 3 * 4 * 16, "products": 2 * 3 * 4 * 4 * 2}),
        ("attention_backward", (2, 1, 4, 3), 2 * 4 * (12 + 9 + 9), {"loads": 768, "products": 384}),
        ("linear", (2, 3, 4), 4 * (6 + 12 + 8), {"products": 48}),
        ("decoding", (2, 3, 4, 5), 4 * (8 + 6) + 5, {"products": 60}),
        ("network", (10, [(2, 3)], [(4,), (1, 2)], 7), 4 * (10 + 6 + 4 + 2), {"products": 7}),
        ("tensor_flow", (64, 9), 9, {"float32": 85 * (396 + 336)}),
    ],
)
def test_counts_by_hand(script: Script, name: str, numbers: Any, moved: int, operations: dict[str, float]) -> None:
    least = getattr(script("ceilings_counts"), name)(*numbers)
    assert least.moved == moved
    assert least.operations == operations


def test_bytes_are_those_of_the_tensors(script: Script) -> None:
    kernels = script("ceilings_kernels")
    scale = kernels.Scale(**TINY, maps=MAPS)
    tensors = kernels.arguments(MAPS, heads=2, depth=32, device="cpu")
    attention, linear, decoding = kernels.maps_of_numbers(scale)
    result = attention.call()
    assert attention.least.moved == sum(tensor.nbytes for tensor in (*tensors, result))
    rows = linear.call()
    assert linear.least.moved == 2 * rows.nbytes + 4 * 64 * 64
    labels, _ = decoding.call()
    assert decoding.least.moved == 4 * (16 * 24 * 100 + 100 * 124) + labels.nbytes
    for vote, itemsize in zip(kernels.votes(scale), (1, 8), strict=True):
        assert vote.least.moved == (3 + 1) * vote.call().numel() * itemsize


def test_windows_that_see_a_disagreement(script: Script) -> None:
    count = script("ceilings_kernels").windows_that_differ
    a = torch.zeros(1, 9, 12, dtype=torch.uint8)
    b = a.clone()
    assert count(a, b, 3) == 0
    b[0, 4, 1] = 2  # of the windows' columns 0 to 5 the first two see it, all three rows do; two classes differ
    assert count(a, b, 3) == 2 * 3 * 2


def test_traffic_counts_what_is_read_and_written(script: Script) -> None:
    a, b = torch.ones(10), torch.ones(1)
    with script("ceilings_counts").Traffic() as traffic:
        a.view(2, 5).t()
        assert traffic.moved == 0
        torch.empty(7)
        assert traffic.moved == 0
        a + b.expand(10)
    assert traffic.moved == 4 * (10 + 1 + 10)


def test_the_slowest_kind_with_a_rate_is_the_ceiling(script: Script) -> None:
    ceilings = script("ceilings")
    record = {"bytes": 3000, "operations": {"loads": 9e9, "bytes": 10.0, "look-ups": 5.0}}
    limits = ceilings.ceilings(record, 1e6, {"bytes": 1e3, "look-ups": 1e2})
    assert limits == {"bandwidth": 1e6, "bytes_ms": 3.0, "kind": "look-ups", "operations_ms": 50.0}
    row = ceilings.compared(record, limits, 0.2)
    assert (row["measured_ms"], row["share"]) == (200.0, 0.25)
    assert ceilings.compared(record, limits | {"bytes_ms": 100.0}, 0.2)["share"] == 0.5
    unmeasured = ceilings.compared(record, limits, None)
    assert unmeasured["measured_ms"] is None
    assert unmeasured["share"] is None


def test_bandwidth_is_that_of_the_working_set(script: Script) -> None:
    rates = script("ceilings_rates")
    by_size = {100: {"copy": 9.0, "read": 8.0}, 1000: {"copy": 3.0, "read": 4.0}}
    assert [rates.bandwidth_at(moved, by_size) for moved in (50, 100, 999, 1000, 5000)] == [9, 9, 9, 4, 4]
    assert rates.better(by_size, {100: {"copy": 1.0, "read": 10.0}, 1000: {"copy": 5.0, "read": 4.0}}) == {
        100: {"copy": 9.0, "read": 10.0},
        1000: {"copy": 5.0, "read": 4.0},
    }


@pytest.mark.slow
def test_the_whole_script(
    script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ceilings = script("ceilings")
    monkeypatch.setattr(ceilings, "Scale", partial(ceilings.Scale, **TINY, maps=MAPS))
    monkeypatch.setattr(ceilings, "run", partial(ceilings.run, working_sets=(1 << 16, 1 << 18)))
    out = tmp_path / "ceilings.json"
    assert ceilings.main(["--turns", "1", "--threads", str(torch.get_num_threads()), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    report = json.loads(out.read_text())
    assert [row["working_set"] for row in report["bandwidth"]] == [1 << 16, 1 << 18]
    units = script("ceilings_rates").UNITS
    assert set(report["rates"]) == set(units)
    for row in report["kernels"]:
        higher = max(row["bytes_ms"], row["operations_ms"])
        assert row["share"] == pytest.approx(higher / row["measured_ms"], rel=2e-3)
        assert set(row["operations"]) <= set(units)
        assert row["formula"]
    assert all(row["measured_ms"] is None and row["bytes_ms"] > 0 for row in report["gpu"]["kernels"])
    assert printed.count("unmeasured") == len(report["gpu"]["kernels"]) == 4
    assert ceilings.main(["--table", str(out)]) == 0
    assert capsys.readouterr().out == printed


def test_stored_ceilings_are_not_exceeded(script: Script) -> None:
    report = json.loads((ROOT / "benchmarks/results/ceilings.json").read_text())
    assert len(report["kernels"]) == 14
    assert all(0 < row["share"] <= 1 for row in report["kernels"])
    assert script("ceilings").table(report).count("\n| ") == 14 + 4


@pytest.mark.parametrize(("number", "text"), [(8, "8"), (98_600, "98.6 k"), (418e6, "418 M"), (1.14e11, "114 G")])
def test_amounts(script: Script, number: float, text: str) -> None:
    assert script("ceilings").amount(number) == text
