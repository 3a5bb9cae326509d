"""Whatever shapes, dtypes and values come in: a result of the stated shape, or one typed error with a message."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import mvcseg
from mvcseg.ensemble.flow_ssim import select_model, temporal_score
from mvcseg.errors import MvcsegError
from mvcseg.flow import FarnebackFlow
from mvcseg.losses import pixel_cross_entropy
from mvcseg.metrics import MeanIoU, TemporalConsistency, VideoConsistency
from mvcseg.ops.ssim import ssim
from mvcseg.ops.vote import majority
from mvcseg.ops.warp import inside_mask, warp, warp_labels
from mvcseg.report import overlay
from mvcseg.tta import View, vote_labels
from mvcseg.vlm import Group, ReplayVLM, correct_labels

DTYPES = [torch.uint8, torch.int64, torch.int16, torch.bool, torch.float32, torch.float64, torch.bfloat16]
SIDES = st.integers(0, 12)


@st.composite
def tensors(draw: st.DrawFn, *, axes: int) -> Tensor:
    """A tensor of about ``axes`` axes, often empty, of any dtype and with values far outside any range."""
    shape = [draw(SIDES) for _ in range(draw(st.sampled_from([axes, axes, axes, axes - 1, axes + 1])))]
    if axes >= 4 and draw(st.booleans()) and len(shape) > 2:
        shape[-3] = 3
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    scale = draw(st.sampled_from([1.0, 3.0, 300.0]))
    values = torch.rand(shape, generator=generator) * scale - draw(st.sampled_from([0.0, 1.0]))
    if dtype.is_floating_point and values.numel() and draw(st.booleans()):
        values.view(-1)[0] = draw(st.sampled_from([torch.nan, torch.inf, -torch.inf]))
    return values.to(dtype)


class Net:
    """A segmenter that copies colours, and NaN where a frame is black."""

    num_classes = 3

    def __call__(self, frames: Tensor, /) -> Tensor:
        return torch.where(frames.sum(dim=2, keepdim=True) == 0, torch.nan, frames)


FLOW = FarnebackFlow()
GROUPS = [Group("water", (1, 2))]
NAMES = ["sky", "river", "lake"]

CALLS: dict[str, tuple[Callable[..., Any], list[int]]] = {
    "patch_mask": (lambda x: mvcseg.patch_mask(x, patch_size=4, ratio=0.5), [5]),
    "apply_mask": (lambda x, m: mvcseg.apply_mask(x, m), [5, 5]),
    "pixel_cross_entropy": (lambda x, y: pixel_cross_entropy(x, y), [5, 4]),
    "predict_labels": (lambda v: mvcseg.predict_labels(Net(), v, clip_length=2), [4]),
    "vote_labels": (lambda v: vote_labels(Net(), v, views=[View(1.3), View(flip=True)], clip_length=2), [4]),
    "majority": (lambda x: majority(x, num_classes=3), [3]),
    "warp": (lambda x, f: warp(x, f), [4, 4]),
    "warp_labels": (lambda x, f: warp_labels(x, f), [3, 4]),
    "inside_mask": (lambda f: inside_mask(f), [4]),
    "ssim": (lambda a, b: ssim(a, b, data_range=1.0), [4, 4]),
    "flow": (lambda a, b: FLOW(a, b), [4, 4]),
    "temporal_score": (lambda v, y: temporal_score(v, y, num_classes=3, flow=FLOW), [4, 3]),
    "select_model": (lambda v, y, z: select_model(v, {"y": y, "z": z}, num_classes=3, flow=FLOW), [4, 3, 3]),
    "correct_labels": (
        lambda v, y: correct_labels(v, y, vlm=ReplayVLM(["lake"] * 999), groups=GROUPS, class_names=NAMES),
        [4, 3],
    ),
    "MeanIoU": (lambda p, y: MeanIoU(num_classes=3).update(p, y), [3, 3]),
    "VideoConsistency": (lambda p, y: VideoConsistency(clip_length=2).update(p, y), [3, 3]),
    "TemporalConsistency": (lambda p, v: TemporalConsistency(num_classes=3, flow=FLOW).update(p, v), [3, 4]),
    "overlay": (lambda v, y: overlay(v, y, colours=torch.zeros(3, 3, dtype=torch.uint8)), [4, 3]),
}


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_tensor_gives_a_result_or_a_typed_error(name: str, data: st.DataObject) -> None:
    function, axes = CALLS[name]
    arguments = [data.draw(tensors(axes=count)) for count in axes]
    before = [argument.clone() for argument in arguments]
    with contextlib.suppress(MvcsegError):
        function(*arguments)
    for argument, copy in zip(arguments, before, strict=True):
        assert torch.equal(argument.nan_to_num(), copy.nan_to_num())


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("wrong", [None, "clip.mp4", 3, [1, 2]], ids=["none", "path", "number", "list"])
def test_no_tensor_gives_a_typed_error(name: str, wrong: object) -> None:
    function, axes = CALLS[name]
    with pytest.raises(MvcsegError):
        function(*[wrong] * len(axes))


SHAPES = st.tuples(st.integers(1, 5), st.integers(7, 40), st.integers(7, 40))


@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, data=st.data())
def test_videos_of_one_frame_and_odd_sizes_go_through(shape: tuple[int, int, int], data: st.DataObject) -> None:
    length, height, width = shape
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    video = torch.randint(1, 256, (length, 3, height, width), dtype=torch.uint8, generator=generator)
    labels = mvcseg.predict_labels(Net(), video, clip_length=2)
    assert labels.shape == shape
    assert vote_labels(Net(), video, views=[View(1.3), View(flip=True)], clip_length=3).shape == shape
    score = temporal_score(video, labels, num_classes=3, flow=FLOW)
    assert score <= 1
    assert length > 1 or score == 1
    miou, vc = MeanIoU(num_classes=3), VideoConsistency(clip_length=2)
    miou.update(labels, labels)
    vc.update(labels, labels)
    assert miou.compute() == 1
    assert vc.compute() == 1 or length <= 2
