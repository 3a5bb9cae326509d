from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from golden_files import fill_module
from torch import Tensor

from mvcseg.errors import ShapeError
from mvcseg.models.dvis import refiner_spilled
from mvcseg.models.dvis.refiner import TemporalRefiner
from mvcseg.models.dvis.refiner_spilled import refine_spilled
from mvcseg.models.dvis.spill import SpillArray, SpillFile


def small() -> TemporalRefiner:
    refiner = TemporalRefiner(5, width=16, hidden=24, heads=2, layers=3, mask_width=6)
    fill_module(refiner, prefix="refiner.", seed=3)
    return refiner.eval()


def spilled(spill: SpillFile, frames: Tensor) -> SpillArray:
    kept = spill.array(tuple(frames.shape[1:]), frames.dtype)
    for start in range(0, len(frames), 3):
        kept.append(frames[start : start + 3])
    return kept


@pytest.mark.parametrize("piece", [1, 7 * 16 * 8 * 4, 1 << 20])  # one row at a time, several, all
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("frames", [1, 2, 40])
def test_pieces_give_what_the_whole_gives(
    frames: int,
    dtype: torch.dtype,
    tolerance: float,
    piece: int,
    tmp_path: Path,
    generator: torch.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refiner_spilled, "_PIECE", piece)
    refiner = small().to(dtype)
    embeds = torch.randn(frames, 7, 16, generator=generator).to(dtype)
    memory = torch.randn(frames, 9, 16, generator=generator).to(dtype)
    whole = refiner(embeds.unsqueeze(0), memory.unsqueeze(0))
    with SpillFile(tmp_path) as spill:
        kept = spilled(spill, embeds)
        refined = refine_spilled(refiner, kept, spilled(spill, memory))
        assert refined.mask_embeds.shape == (frames, 7, 6)
        assert torch.equal(kept.read(slice(None)), embeds)  # an argument stays as it is
        masks = refined.mask_embeds.read(slice(None))
    torch.testing.assert_close(refined.class_logits, whole.class_logits[0].detach(), rtol=0, atol=tolerance)
    torch.testing.assert_close(masks, whole.mask_embeds[0].detach(), rtol=0, atol=tolerance)
    assert masks.dtype == dtype


def test_large_logits_over_time_do_not_overflow(
    tmp_path: Path, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refiner_spilled, "_PIECE", 1)
    refiner = small()
    with torch.no_grad():
        refiner.activation_proj.weight.mul_(300.0)
    embeds, memory = torch.randn(2, 30, 7, 16, generator=generator)
    with SpillFile(tmp_path) as spill:
        refined = refine_spilled(refiner, spilled(spill, embeds), spilled(spill, memory))
    assert refined.class_logits.isfinite().all()
    expected = refiner(embeds.unsqueeze(0), memory.unsqueeze(0)).class_logits[0].detach()
    torch.testing.assert_close(refined.class_logits, expected, rtol=0, atol=1e-3)  # the factor 300 magnifies noise


def test_half_precision_queries_are_refined(tmp_path: Path, generator: torch.Generator) -> None:
    refiner = small().to(torch.bfloat16)
    embeds, memory = torch.randn(2, 12, 7, 16, generator=generator).to(torch.bfloat16)
    with SpillFile(tmp_path) as spill:
        refined = refine_spilled(refiner, spilled(spill, embeds), spilled(spill, memory))
        masks = refined.mask_embeds.read(slice(None))
    whole = refiner(embeds.unsqueeze(0), memory.unsqueeze(0))
    torch.testing.assert_close(masks, whole.mask_embeds[0].detach(), rtol=0, atol=0.1)
    assert refined.class_logits.dtype == torch.bfloat16


def test_arrays_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    with SpillFile(tmp_path) as spill:
        embeds = spill.array((7, 16), torch.float32, frames=3)
        for memory in (
            spill.array((7, 16), torch.float32, frames=2),
            spill.array((7, 8), torch.float32, frames=3),
        ):
            with pytest.raises(ShapeError, match="memory"):
                refine_spilled(small(), embeds, memory)
        empty = spill.array((7, 16), torch.float32)
        with pytest.raises(ShapeError, match="t at least 1"):
            refine_spilled(small(), empty, empty)


PEAK = """
import resource, sys, torch
from mvcseg.models.dvis.refiner import TemporalRefiner
from mvcseg.models.dvis.refiner_spilled import refine_spilled
from mvcseg.models.dvis.spill import SpillFile

torch.manual_seed(0)
refiner = TemporalRefiner(124, width=256, hidden=256, heads=8, layers=1, mask_width=64)
with SpillFile(sys.argv[1]) as spill:
    embeds, memory = (spill.array((50, 256), torch.float32) for _ in range(2))
    for _ in range(int(sys.argv[2])):
        embeds.append(torch.randn(1, 50, 256))
        memory.append(torch.randn(1, 50, 256))
    refine_spilled(refiner, embeds, memory)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    def peak(frames: int) -> float:
        command = [sys.executable, "-c", PEAK, str(tmp_path), str(frames)]
        return int(subprocess.run(command, capture_output=True, check=True, timeout=200).stdout) / 1024

    few, many = peak(600), peak(2400)  # 31 MB and 123 MB of embeddings
    assert many - few < 30, f"{few:.0f} MB at 600 frames, {many:.0f} MB at 2400"
