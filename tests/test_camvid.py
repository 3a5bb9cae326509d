"""The published CamVid nets and RAFT-small under benchmarks/, on real frames; skipped where those are absent."""

from __future__ import annotations

import importlib
import json
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


def test_study_labels_equal_the_librarys_own(benchmark, shared_data):
    study = benchmark("camvid_study")
    scores = benchmark("camvid_scores")
    frames, labels = read(shared_data, FRAMES[:1])
    clip = scores.Clip("a", "val", 0, frames[..., 100:180, 60:148], labels[..., 100:180, 60:148], labels)
    nets = {name: getattr(benchmark("camvid_segmenters"), name)() for name in study.NETS}
    agreement = study.check_composition(clip, nets, study.predict(clip, nets, cache=None))
    assert set(agreement) >= {"espnet", "enet 0.9 1.0 1.1 1.2 flip among-tied", "average"}
    for name, share in agreement.items():
        # the mean over views resizes float frames there and bytes here: a few pixels near a draw may differ
        assert share > 0.99 if name.endswith("mean") else share == 1


def test_tables_of_the_page_are_those_of_the_results(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    tables = importlib.import_module("camvid_tables")
    results = json.loads((BENCHMARKS / "results" / "camvid.json").read_text())
    page = (BENCHMARKS.parent / "docs" / "camvid.md").read_text()
    assert set(results) >= {"tta", "selection", "chain", "training"}
    assert all(f"<!-- table: {name} -->" in page for name in tables.TABLES)
    assert tables.renewed(page, results) == page


def test_measured_scores_are_the_published_ones(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    tables = importlib.import_module("camvid_tables")
    results = json.loads((BENCHMARKS / "results" / "camvid.json").read_text())
    rows = {(row["split"], row["step"]): row for row in results["chain"]["rows"]}
    for (split, net), published in tables.PUBLISHED.items():
        found = rows[split, tables.CHAIN[net]]
        assert [found["mIoU"], found["VC8"], found["VC16"]] == pytest.approx(published, abs=0.05)


def test_stored_flow_computes_each_pair_once(benchmark):
    scores = benchmark("camvid_scores")
    asked = []

    def flow(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        asked.append(len(source))
        return (target - source)[:, :2]

    frames = torch.rand(4, 3, 8, 9)
    stored = scores.StoredFlow(flow)
    first = stored(frames[1:], frames[:-1])
    assert torch.equal(first, flow(frames[1:], frames[:-1]))
    asked.clear()
    assert torch.equal(stored(frames[2:], frames[1:-1]), first[1:])
    assert not asked


def test_spread_of_no_difference_is_nothing(benchmark, generator):
    scores = benchmark("camvid_scores")
    labels = torch.randint(0, CLASSES, (23, 6, 7), generator=generator)
    clip = scores.Clip("a", "val", 0, torch.zeros(23, 3, 6, 7, dtype=torch.uint8), labels, labels + 1)
    half = torch.where(torch.rand(labels.shape, generator=generator) < 0.5, labels, 0)
    wrong, right = (scores.block_confusions([clip], {"a": pred}) for pred in (half, labels))
    assert wrong.shape == (5, CLASSES, CLASSES + 1)
    assert scores.spread_of_difference(wrong, wrong) == (0, 0)
    low, high = scores.spread_of_difference(right, wrong)
    assert 0 < low < high < 100
