from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mvcseg.errors import ConfigError, DataError, MissingExtraError
from mvcseg.models.dvis import export
from mvcseg.models.dvis.build import build_dvis
from mvcseg.models.dvis.export import FrameSegmenter, export_onnx, export_program
from mvcseg.models.dvis.model import DVIS
from mvcseg.models.mask2former import Mask2FormerHead, PixelDecoder, QueryDecoder

SIZE = (50, 83)
"""Neither side a multiple of 32: padded to 64 x 96."""


class Steps(nn.Module):
    """Four maps by convolutions that halve."""

    channels = (8, 12, 16, 20)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.steps = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in ((8, 12), (12, 16), (16, 20)))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = [self.stem(images)]
        for step in self.steps:
            maps.append(step(maps[-1]).relu())
        return tuple(maps)


@pytest.fixture(scope="module")
def model() -> DVIS:
    torch.manual_seed(0)
    head = Mask2FormerHead(Steps.channels, num_classes=5, num_queries=7, has_reid=True)
    head.pixel_decoder = PixelDecoder(Steps.channels, width=32, heads=2, hidden=48, layers=1)
    head.predictor = QueryDecoder(5, num_queries=7, has_reid=True, width=32, heads=2, hidden=48, layers=3)
    for parameter in head.pixel_decoder.transformer.parameters():
        nn.init.normal_(parameter, std=0.3)  # sampling points that move, some beyond the border
    return DVIS(Steps(), head).eval()


@pytest.fixture(scope="module")
def onnx_file(model: DVIS, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "segmenter.onnx"
    export_onnx(model, path, size=SIZE)
    return path


def frames_of(*size: int, seed: int) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def check_runtime(path: Path, model: DVIS, *, size: tuple[int, int]) -> None:
    """onnxruntime's outputs are the model's own, on two frames that the export has not seen."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for seed in (1, 2):
        frames = frames_of(*size, seed=seed)
        queries = model.segment(frames)
        classes, masks = session.run(["class_logits", "mask_logits"], {"frames": frames.numpy()})
        torch.testing.assert_close(torch.from_numpy(classes), queries.class_logits, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(torch.from_numpy(masks), queries.masks(), atol=1e-3, rtol=1e-3)


def test_the_file_runs_in_onnxruntime_and_gives_the_models_output(onnx_file: Path, model: DVIS) -> None:
    check_runtime(onnx_file, model, size=SIZE)


@pytest.mark.slow
def test_a_resnet_50_preset_runs_in_onnxruntime(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build_dvis("vspw_online_r50")
    export_onnx(net, tmp_path / "r50.onnx", size=(96, 160))
    check_runtime(tmp_path / "r50.onnx", net, size=(96, 160))


def test_the_file_has_the_documented_names_and_sizes_and_stands_alone(onnx_file: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(onnx_file).graph
    shapes = {
        value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {"frames": (1, 3, 50, 83), "class_logits": (1, 7, 6), "mask_logits": (1, 7, 16, 24)}
    assert [entry.name for entry in onnx_file.parent.iterdir()] == ["segmenter.onnx"]


@torch.no_grad()
def test_a_program_saved_and_loaded_gives_the_models_output(model: DVIS, tmp_path: Path) -> None:
    torch.export.save(export_program(model, size=SIZE), tmp_path / "segmenter.pt2")
    loaded = torch.export.load(tmp_path / "segmenter.pt2").module()
    frames = frames_of(*SIZE, seed=3)
    for got, expected in zip(loaded(frames), FrameSegmenter(model)(frames), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_export_leaves_the_model_as_it_was(model: DVIS) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_program(model, size=SIZE)
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("size", [(0, 64), (64, -1)])
def test_a_side_below_one_is_refused(model: DVIS, tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        export_program(model, size=size)
    with pytest.raises(ConfigError, match="at least 1"):
        export_onnx(model, tmp_path / "x.onnx", size=size)


def test_a_model_that_trains_is_refused(model: DVIS, tmp_path: Path) -> None:
    model.train()
    try:
        with pytest.raises(ConfigError, match=r"model\.eval\(\)"):
            export_onnx(model, tmp_path / "x.onnx", size=SIZE)
    finally:
        model.eval()


def test_weights_beyond_the_formats_limit_are_refused(
    model: DVIS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "LARGEST_FILE", 1000)
    with pytest.raises(ConfigError, match="an ONNX file holds 2"):
        export_onnx(model, tmp_path / "x.onnx", size=SIZE)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_names_its_extra(model: DVIS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r'pip install "mvcseg\[export\]"'):
        export_onnx(model, tmp_path / "x.onnx", size=SIZE)


def test_a_folder_in_place_of_the_file_is_refused(model: DVIS, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="folder"):
        export_onnx(model, tmp_path, size=SIZE)
    assert list(tmp_path.iterdir()) == []
