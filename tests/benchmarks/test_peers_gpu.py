"""The rows that want a GPU run on the CPU too, at a size that proves the script and no figure."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("peers_gpu")


def tiny(bench: ModuleType, *, turns: int = 1, size: tuple[int, int] = (64, 96)) -> object:
    return bench.Scale(size=size, frames=18, classes=7, queries=9, turns=turns)


def test_without_a_device_nothing_is_measured(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench.main([]) == 2
    assert capsys.readouterr().err == "no CUDA device: nothing measured\n"


def test_operations_give_the_same_on_both_devices(bench: ModuleType, device: torch.device) -> None:
    rows = list(bench.label_rows(tiny(bench), device=str(device)))
    assert [row["name"].split("/")[1] for row in rows] == [
        "label ssim",
        "warp",
        "vote",
        "confusion",
        "clip consistency",
    ]
    assert all(row["outputs_agree"] and row["stays_on_device"] for row in rows)


def test_an_output_that_differs_is_told(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(range(100))
    monkeypatch.setattr(bench, "confusion_matrix", lambda *_, **__: torch.tensor([next(answers)]))
    (row,) = (row for row in bench.label_rows(tiny(bench), device="cpu") if row["name"] == "labels/confusion")
    assert not row["outputs_agree"]


def test_attention_decoding_and_flow_are_compared(bench: ModuleType, device: torch.device) -> None:
    scale = tiny(bench)
    attention = list(bench.attention_rows(scale, device=str(device)))
    assert len(attention) == 2
    assert all(row["difference_to_largest"] < 1e-4 for row in attention)
    assert bench.semantic_row(scale, device=str(device))["share_of_equal_labels"] > 0.999
    flow = bench.flow_row(scale, device=str(device))
    assert flow["mean_difference_pixels"] < 0.05
    assert all(name in bench.line(flow) for name in ("ratio", "asked ratio 20.0", "mean difference pixels"))


class ByRed(torch.nn.Module):
    """Labels by the first channel."""

    num_classes = 2

    def forward(self, frames: torch.Tensor, /) -> torch.Tensor:
        red = frames[:, :, :1]
        return torch.cat([red - 0.5, 0.5 - red], dim=2)


@pytest.mark.parametrize("is_trained", [True, False])
def test_a_model_is_measured_in_both_types(bench: ModuleType, device: torch.device, is_trained: bool) -> None:
    video = bench.photographs(3, (32, 48))
    row = bench.model_row("red", ByRed(), video, asked=60.0, is_trained=is_trained, device=device.type, turns=1)
    assert set(row["frames_per_second"]) == {"bf16", "fp32"}
    assert row["share_of_equal_labels"] == (1.0 if is_trained else None)
    assert (row["peak_bytes"]["bf16"] is None) == (device.type == "cpu")
