"""Farneback flow: OpenCV called plainly as the reference, direction, threads, errors."""

from __future__ import annotations

import builtins
import threading

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DTypeError, MissingExtraError, ShapeError
from mvcseg.flow import FarnebackFlow, FlowEstimator, TensorFarnebackFlow, farneback_on


@pytest.fixture(scope="module")
def frames() -> Tensor:
    """Four uint8 frames of a window that moves over a photograph: 3 px right and 2 px down at each step."""
    from skimage.data import astronaut

    picture = torch.from_numpy(astronaut()).permute(2, 0, 1)
    return torch.stack([picture[:, 100 + 2 * t : 196 + 2 * t, 80 + 3 * t : 208 + 3 * t] for t in range(4)])


def plainly(source: Tensor, target: Tensor) -> np.ndarray:
    grey = [cv2.cvtColor(np.ascontiguousarray(x.permute(1, 2, 0)), cv2.COLOR_RGB2GRAY) for x in (source, target)]
    return cv2.calcOpticalFlowFarneback(grey[0], grey[1], None, 0.5, 3, 15, 3, 5, 1.2, 0)


def test_flow_equals_opencv_called_plainly(frames: Tensor) -> None:
    got = FarnebackFlow()(frames[1:].float() / 255, frames[:-1].float() / 255)
    assert got.shape == (3, 2, 96, 128)
    assert got.dtype == torch.float32
    for pair in range(3):
        expected = plainly(frames[pair + 1], frames[pair])
        np.testing.assert_array_equal(got[pair].permute(1, 2, 0).numpy(), expected)


def test_flow_says_where_a_source_pixel_lies_in_the_target(device: torch.device, frames: Tensor) -> None:
    """The window moves right and down, so a point of the first frame lies to the left and above in the second."""
    real = (frames.float() / 255).to(device)
    flow = FarnebackFlow()(real[:1], real[1:2])
    assert flow.device == real.device
    assert flow[0, 0, 20:-20, 20:-20].median().item() == pytest.approx(-3, abs=0.1)
    assert flow[0, 1, 20:-20, 20:-20].median().item() == pytest.approx(-2, abs=0.1)


def test_frames_are_rounded_to_the_nearest_byte(frames: Tensor) -> None:
    exact = frames.double() / 255
    expected = FarnebackFlow()(exact[1:], exact[:-1])
    for offset in (-0.45, 0.45):
        near = (exact + offset / 255).clamp(0, 1)
        assert torch.equal(FarnebackFlow()(near[1:], near[:-1]), expected)


def test_number_of_workers_does_not_change_the_result(frames: Tensor) -> None:
    real = frames.double() / 255
    one, three = (FarnebackFlow(workers=workers)(real[1:], real[:-1]) for workers in (1, 3))
    assert torch.equal(one, three)


def test_parameters_reach_opencv_in_order(frames: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []

    def record(before: np.ndarray, after: np.ndarray, *rest: object) -> np.ndarray:
        seen.append(rest)
        return np.zeros((*before.shape, 2), dtype=np.float32)

    monkeypatch.setattr(cv2, "calcOpticalFlowFarneback", record)
    flow = FarnebackFlow(
        pyramid_scale=0.7,
        levels=2,
        window=11,
        iterations=4,
        poly_n=7,
        poly_sigma=1.5,
        flags=cv2.OPTFLOW_FARNEBACK_GAUSSIAN,
    )
    flow(frames[:1].float() / 255, frames[1:2].float() / 255)
    FarnebackFlow()(frames[:1].float() / 255, frames[1:2].float() / 255)
    assert seen == [(None, 0.7, 2, 11, 4, 7, 1.5, 256), (None, 0.5, 3, 15, 3, 5, 1.2, 0)]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (6, 3)])
def test_tiny_frames_and_no_pairs_work(size: tuple[int, int]) -> None:
    still = torch.rand(2, 3, *size)
    assert FarnebackFlow()(still, still).shape == (2, 2, *size)
    assert FarnebackFlow()(still[:0], still[:0]).shape == (0, 2, *size)


def test_opencv_thread_number_is_one_inside_and_restored_after(frames: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cv2.getNumThreads()
    inside: list[int] = []
    plain = cv2.calcOpticalFlowFarneback

    def watch(*arguments: object) -> np.ndarray:
        inside.append(cv2.getNumThreads())
        return plain(*arguments)

    monkeypatch.setattr(cv2, "calcOpticalFlowFarneback", watch)
    real = frames.float() / 255
    cv2.setNumThreads(2)
    try:
        calls = [threading.Thread(target=FarnebackFlow(), args=(real[1:], real[:-1])) for _ in range(3)]
        for call in calls:
            call.start()
        for call in calls:
            call.join()
        assert inside == [1] * 9
        assert cv2.getNumThreads() == 2
        with pytest.raises(ConfigError):
            FarnebackFlow()(real[1:] * 255, real[:-1])
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_frames_are_left_alone(frames: Tensor) -> None:
    real = frames.float() / 255
    copy = real.clone()
    FarnebackFlow()(real[1:], real[:-1])
    assert torch.equal(real, copy)


def test_missing_opencv_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *rest: object, **named: object) -> object:
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
        return real_import(name, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    flow: FlowEstimator = FarnebackFlow()
    with pytest.raises(MissingExtraError, match=r"libGL\.so\.1.*opencv-python-headless") as caught:
        flow(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    assert isinstance(caught.value, ImportError)


def test_errors_name_the_argument() -> None:
    flow, frame = FarnebackFlow(), torch.zeros(1, 3, 8, 9)
    with pytest.raises(ShapeError, match=r"target: expected .* with w=9 from source"):
        flow(frame, torch.zeros(1, 3, 8, 8))
    with pytest.raises(DTypeError, match=r"source: expected a floating-point.*divide"):
        flow(frame.byte(), frame)
    with pytest.raises(ConfigError, match=r"target: expected values in \[0, 1\], got 0 to 255"):
        flow(frame, torch.linspace(0, 255, 216).view(1, 3, 8, 9))
    with pytest.raises(ConfigError, match=r"source: expected values in \[0, 1\], got nan"):
        flow(frame.masked_fill(frame == 0, float("nan")), frame)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pyramid_scale", 1.0),
        ("pyramid_scale", 0),
        ("poly_sigma", 0.0),
        ("levels", 0),
        ("window", 0),
        ("iterations", 0),
        ("poly_n", 2.5),
        ("workers", 0),
        ("flags", 4),
    ],
)
def test_numbers_outside_their_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        FarnebackFlow(**{name: value})  # type: ignore[arg-type]


def test_tensor_flow_is_opencvs(device: torch.device, frames: Tensor) -> None:
    real = (frames.float() / 255).to(device)
    got = TensorFarnebackFlow()(real[1:], real[:-1])
    assert got.device == real.device
    expected = FarnebackFlow()(real[1:], real[:-1])
    assert (got - expected).norm(dim=1).mean() < 1e-3


def test_tensor_flow_takes_opencvs_grey(monkeypatch: pytest.MonkeyPatch) -> None:
    colours = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    seen: list[Tensor] = []

    def record(source: Tensor, target: Tensor, **numbers: float) -> Tensor:
        seen.extend((source, target))
        return torch.zeros(len(source), 2, *source.shape[1:])

    monkeypatch.setattr("mvcseg.flow.farneback", record)
    TensorFarnebackFlow()(colours / 255, colours / 255)
    expected = cv2.cvtColor(np.ascontiguousarray(colours[0].permute(1, 2, 0)), cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(seen[0][0].numpy(), expected)


def test_tensor_flow_in_chunks_is_the_same(frames: Tensor) -> None:
    real = frames.float() / 255
    whole = TensorFarnebackFlow()(real[1:], real[:-1])
    assert torch.equal(TensorFarnebackFlow(pairs_at_once=2)(real[1:], real[:-1]), whole)
    assert TensorFarnebackFlow()(real[:0], real[:0]).shape == (0, 2, 96, 128)


@pytest.mark.parametrize(
    "wrong", [{"pyramid_scale": 1.0}, {"poly_sigma": 0.0}, {"levels": 0}, {"window": 0}, {"pairs_at_once": 0}]
)
def test_tensor_flow_refuses_numbers_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TensorFarnebackFlow(**wrong)


def test_tensor_flow_is_computed_on_the_device_that_was_named(frames: Tensor) -> None:
    real, meta = frames.float() / 255, torch.device("meta")
    flow = TensorFarnebackFlow(device=meta)(real[1:], real[:-1])  # a device without data: no value is looked at
    assert (flow.device, flow.shape) == (meta, (len(frames) - 1, 2, *frames.shape[2:]))
    assert TensorFarnebackFlow()(real[1:], real[:-1]).device == real.device


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cpu", FarnebackFlow), ("mps", FarnebackFlow), ("cuda", TensorFarnebackFlow), ("cuda:1", TensorFarnebackFlow)],
)
def test_accelerators_get_the_flow_of_tensor_operations(name: str, expected: type) -> None:
    flow = farneback_on(torch.device(name))
    assert type(flow) is expected
    if isinstance(flow, TensorFarnebackFlow):
        assert flow.device == torch.device(name)
