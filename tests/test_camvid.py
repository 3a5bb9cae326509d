"""The published CamVid nets and RAFT-small under benchmarks/, on real frames; skipped where those are absent."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import mvcseg

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
CLASSES = 11
FRAMES = ("00007959", "00007997", "00008033")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, shared_data: Path):
    """Imports a module of benchmarks/ by its name, with the folder of the real data set for it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("MVCSEG_SHARED_DATA", str(shared_data))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    torch.set_flush_denormal(False)


def read(shared_data: Path, stems: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames, uint8 ``(T, 3, H, W)``, and mapped labels, ``(T, H, W)``, of the first val video."""
    folder = shared_data / "camvid" / "data" / "0016E5_07959"
    frames = np.stack([np.asarray(Image.open(folder / "origin" / f"{stem}.jpg")) for stem in stems])
    raw = np.stack([np.asarray(Image.open(folder / "mask" / f"{stem}.png")) for stem in stems])
    labels = torch.from_numpy(raw).long() - 1
    return torch.from_numpy(frames).permute(0, 3, 1, 2), labels.where(labels >= 0, mvcseg.IGNORE_INDEX)


@pytest.mark.parametrize(("name", "least"), [("enet", 0.91), ("espnet", 0.91)])
def test_published_nets_label_real_frames_right(benchmark, shared_data, name, least):
    frames, labels = read(shared_data, FRAMES)
    segmenter = getattr(benchmark("camvid_segmenters"), name)()
    with torch.inference_mode():
        logits = segmenter(frames[None].float() / 255)
    assert logits.shape == (1, 3, CLASSES, 360, 480)
    right = (logits.argmax(2)[0] == labels)[labels != mvcseg.IGNORE_INDEX]
    assert right.float().mean() > least


@pytest.mark.parametrize("name", ["enet", "espnet"])
def test_sizes_that_are_no_multiple_of_eight_keep_their_size(benchmark, name):
    segmenter = getattr(benchmark("camvid_segmenters"), name)()
    with torch.inference_mode():
        assert segmenter(torch.rand(1, 2, 3, 45, 67)).shape == (1, 2, CLASSES, 45, 67)


def test_espnet_sees_blue_first(benchmark, shared_data):
    frames, labels = read(shared_data, FRAMES[:1])
    segmenter = benchmark("camvid_segmenters").espnet()
    with torch.inference_mode():
        right, swapped = (
            (segmenter(order[None].float() / 255).argmax(2)[0] == labels).float().mean()
            for order in (frames, frames.flip(1))
        )
    assert right > swapped + 0.1


def test_checkpoint_of_another_net_is_refused(benchmark, shared_data):
    nets = benchmark("camvid_nets")
    with pytest.raises(RuntimeError, match="Missing key"):
        nets.load_enet(shared_data / "weights" / "espnet_camvid" / "model.safetensors")


def test_raft_small_agrees_with_torchvision(benchmark, shared_data, generator):
    torchvision_flow = pytest.importorskip("torchvision.models.optical_flow")
    raft = benchmark("raft_small").load_raft_small(shared_data / "weights" / "raft_small" / "model.safetensors")
    reference = torchvision_flow.raft_small(weights=None).eval()
    # both list the same layers in the same order, under other names
    names = list(reference.state_dict())
    reference.load_state_dict(dict(zip(names, raft.state_dict().values(), strict=True)))
    noise = torch.rand(1, 3, 20, 24, generator=generator)
    source = torch.nn.functional.interpolate(noise, size=(136, 160), mode="bicubic").clamp(0, 1)
    target = source.roll((3, -2), dims=(2, 3))
    with torch.inference_mode():
        expected = reference(2 * source - 1, 2 * target - 1)[-1]
    flow = raft(source, target)
    torch.testing.assert_close(flow, expected, atol=1e-3, rtol=0)
    centre = flow[0, :, 40:96, 40:120].mean(dim=(1, 2))
    torch.testing.assert_close(centre, torch.tensor([-2.0, 3.0]), atol=0.3, rtol=0)


def test_raft_small_keeps_sizes_that_are_no_multiple_of_eight(benchmark, shared_data):
    weights = shared_data / "weights" / "raft_small" / "model.safetensors"
    raft = benchmark("raft_small").load_raft_small(weights, iterations=1)
    frames = torch.rand(2, 3, 90, 131)
    assert raft(frames, frames).shape == (2, 2, 90, 131)
