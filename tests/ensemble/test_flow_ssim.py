"""Selection by flow and SSIM: the definition written out with OpenCV and scikit-image, its rules, laws and errors."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch import Tensor

from mvcseg.ensemble import flow_ssim
from mvcseg.ensemble.flow_ssim import Selection, select_model, temporal_score
from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.flow import FarnebackFlow, TensorFarnebackFlow

K = 5


class Still:
    """A flow of nowhere to go that counts the pairs it is asked for."""

    def __init__(self, dx: float = 0.0) -> None:
        self.dx = dx
        self.pairs = 0

    def __call__(self, source: Tensor, target: Tensor, /) -> Tensor:
        assert source.shape == target.shape
        assert source.is_floating_point()
        self.pairs += len(source)
        flow = source.new_zeros(len(source), 2, *source.shape[2:])
        flow[:, 0] = self.dx
        return flow


class Lazy:
    """A video that is read slice by slice and remembers the longest slice."""

    def __init__(self, whole: Tensor) -> None:
        self.whole = whole
        self.longest = 0

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: slice, /) -> Tensor:
        part = self.whole[index]
        self.longest = max(self.longest, len(part))
        return part


def scene(*, frames: int = 4, height: int = 48, width: int = 64) -> tuple[Tensor, Tensor]:
    """A window moving over a photograph, 2 px right and 1 px down at each step, and label maps moving with it."""
    from skimage.data import astronaut

    picture = torch.from_numpy(astronaut()).permute(2, 0, 1)[:, 60:320, 100:400]
    labels = (picture[0].int() // 60).to(torch.uint8)
    rows = [slice(t, height + t) for t in range(frames)]
    columns = [slice(2 * t, width + 2 * t) for t in range(frames)]
    video = torch.stack([picture[:, row, column] for row, column in zip(rows, columns, strict=True)])
    maps = torch.stack([labels[row, column] for row, column in zip(rows, columns, strict=True)])
    return video.contiguous(), maps.contiguous()


def disturbed(labels: Tensor, *, share: float, seed: int = 0) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    noise = torch.rand(labels.shape, generator=gen) < share
    return torch.where(noise, torch.randint(0, K, labels.shape, generator=gen).to(labels.dtype), labels)


def by_definition(video: Tensor, labels: Tensor, *, num_classes: int) -> float:
    """Section by section as the definition reads, with OpenCV and scikit-image alone."""
    grey = [cv2.cvtColor(np.ascontiguousarray(f.permute(1, 2, 0).numpy()), cv2.COLOR_RGB2GRAY) for f in video]
    maps = labels.numpy().astype(np.int64)
    height, width = grey[0].shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    scores = []
    for t in range(len(video) - 1):
        flow = cv2.calcOpticalFlowFarneback(grey[t + 1], grey[t], None, 0.5, 3, 15, 3, 5, 1.2, 0)
        from_x, from_y = x + flow[..., 0], y + flow[..., 1]
        near = 1e-3
        inside = (from_x >= -near) & (from_x <= width - 1 + near) & (from_y >= -near) & (from_y <= height - 1 + near)
        warped = np.full((height, width), 255)
        warped[inside] = maps[t][np.rint(from_y[inside]).astype(int), np.rint(from_x[inside]).astype(int)]
        counted = np.zeros((height, width), dtype=bool)
        for row in range(3, height - 3):
            for column in range(3, width - 3):
                counted[row, column] = inside[row - 3 : row + 4, column - 3 : column + 4].all()
        if not counted.any():
            continue
        losses = []
        for index in range(num_classes):
            a, b = (warped == index).astype(float), (maps[t + 1] == index).astype(float)
            _, full = structural_similarity(a, b, data_range=1.0, win_size=7, full=True)
            losses.append((1 - full[counted]).mean())
        scores.append(1 - np.mean(losses))
    return float(np.mean(scores)) if scores else 1.0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_score_equals_the_definition(dtype: torch.dtype) -> None:
    video, labels = scene()
    labels = disturbed(labels, share=0.02).to(dtype)
    labels[:, 5:9, 7:20] = 255
    expected = by_definition(video, labels, num_classes=K)
    assert 0.5 < expected < 0.99
    got = temporal_score(video, labels, num_classes=K, flow=FarnebackFlow())
    assert got == pytest.approx(expected, abs=1e-12)
    assert isinstance(got, float)


def test_steadier_candidate_wins_and_all_scores_are_told() -> None:
    video, labels = scene()
    candidates = {
        "flicker": disturbed(labels, share=0.05),
        "steady": disturbed(labels, share=0.01),
        "worse": disturbed(labels, share=0.1),
    }
    choice = select_model(video, candidates, num_classes=K, flow=FarnebackFlow())
    assert choice.name == "steady"
    assert list(choice.scores) == ["flicker", "steady", "worse"]
    for name, maps in candidates.items():
        assert choice.scores[name] == temporal_score(video, maps, num_classes=K, flow=FarnebackFlow())
    with pytest.raises(dataclasses.FrozenInstanceError):
        choice.name = "worse"  # type: ignore[misc]


def test_labels_that_move_with_the_scene_beat_labels_that_stay() -> None:
    """Only the backward flow brings labels to the next frame; with the forward one, staying would win."""
    video, labels = scene()
    candidates = {"stay": labels[:1].expand_as(labels), "move": labels}
    assert select_model(video, candidates, num_classes=K, flow=FarnebackFlow()).name == "move"


def test_perfectly_moved_labels_score_one() -> None:
    video, labels = scene(frames=3)
    rolled = torch.stack([labels[0].roll(2 * t, dims=1) for t in range(3)])
    assert temporal_score(video, rolled, num_classes=K, flow=Still(dx=-2.0)) == 1.0
    assert temporal_score(video, rolled, num_classes=K, flow=Still()) < 0.9


def test_ties_go_to_the_first_candidate() -> None:
    video, labels = scene(frames=3)
    for order in (["b", "a", "c"], ["c", "b", "a"]):
        assert select_model(video, dict.fromkeys(order, labels), num_classes=K, flow=Still()).name == order[0]


def test_flow_is_computed_once_whatever_the_number_of_candidates() -> None:
    video, labels = scene(frames=6)
    flow = Still()
    select_model(video, {str(i): labels for i in range(4)}, num_classes=K, flow=flow)
    assert flow.pairs == 5


def test_lazy_inputs_are_read_in_clips_and_every_pair_counts_once() -> None:
    gen = torch.Generator().manual_seed(2)
    video = torch.randint(0, 256, (70, 3, 16, 18), generator=gen, dtype=torch.uint8)
    labels = torch.randint(0, 2, (70, 16, 18), generator=gen)
    pairs = [temporal_score(video[t : t + 2], labels[t : t + 2], num_classes=2, flow=Still()) for t in range(69)]
    frames, maps, flow = Lazy(video), Lazy(labels), Still()
    got = temporal_score(frames, maps, num_classes=2, flow=flow)
    assert got == pytest.approx(float(np.mean(pairs)), abs=1e-12)
    assert flow.pairs == 69
    assert max(frames.longest, maps.longest) <= 33


@pytest.mark.parametrize("frames", [1, 2])
def test_one_frame_scores_one_and_two_frames_are_one_pair(frames: int) -> None:
    video, labels = scene(frames=frames)
    choice = select_model(video, {"a": disturbed(labels, share=0.2), "b": labels}, num_classes=K, flow=Still())
    assert (choice.name, choice.scores["a"] == 1.0) == (("a", True) if frames == 1 else ("b", False))


def test_pairs_without_a_counted_pixel_are_left_out() -> None:
    video, labels = scene(frames=3)

    class FirstPairLeaves(Still):
        def __call__(self, source: Tensor, target: Tensor, /) -> Tensor:
            flow = super().__call__(source, target)
            flow[0] = 1000
            return flow

    labels[1] = disturbed(labels[1], share=0.3)
    expected = temporal_score(video[1:], labels[1:], num_classes=K, flow=Still())
    assert temporal_score(video, labels, num_classes=K, flow=FirstPairLeaves()) == expected
    assert temporal_score(video, labels, num_classes=K, flow=Still(dx=float("nan"))) == 1.0
    small = temporal_score(video[..., :6, :], labels[..., :6, :], num_classes=K, flow=Still())
    assert small == 1.0


def test_only_windows_that_map_inside_count() -> None:
    """Moved by two pixels, the two leftmost columns come from outside; windows that touch them are left out."""
    video = torch.zeros(2, 3, 9, 20, dtype=torch.uint8)
    labels = torch.zeros(2, 9, 20, dtype=torch.uint8)
    labels[1, :, :2] = 1
    assert temporal_score(video, labels, num_classes=2, flow=Still(dx=-2.0)) == 1.0
    labels[1, 4, 2] = 1
    assert temporal_score(video, labels, num_classes=2, flow=Still(dx=-2.0)) < 1.0


def test_flicker_of_a_further_class_never_raises_the_score() -> None:
    """The mean is over all classes: spurious blobs of an absent class cost, they do not dilute."""
    video = torch.zeros(2, 3, 40, 60, dtype=torch.uint8)
    labels = torch.zeros(2, 40, 60, dtype=torch.uint8)
    labels[0, :, 30:] = 1
    labels[1, :, 32:] = 1
    flicker = labels.clone()
    flicker[1, 10:14, 10:14] = 2
    steady, worse = (temporal_score(video, x, num_classes=3, flow=Still()) for x in (labels, flicker))
    assert worse < steady


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**20))
def test_score_does_not_depend_on_the_numbering_of_classes(seed: int) -> None:
    gen = torch.Generator().manual_seed(seed)
    video = torch.zeros(3, 3, 12, 14, dtype=torch.uint8)
    labels = torch.randint(0, K, (3, 12, 14), generator=gen)
    labels[0, 3] = 255
    order = torch.cat([torch.randperm(K, generator=gen), torch.arange(K, 256)])
    scores = [temporal_score(video, x, num_classes=K, flow=Still()) for x in (labels, order[labels])]
    assert scores[0] == pytest.approx(scores[1], abs=1e-14)


def test_labels_outside_the_classes_are_no_class_whatever_their_value() -> None:
    video, labels = scene(frames=3)
    labels = labels.long()
    labels[:, 10:20, 10:20] = torch.randint(0, 2, (3, 10, 10)) * 255
    scores = [
        temporal_score(video, torch.where(labels == 255, other, labels), num_classes=K, flow=Still())
        for other in (255, -1, K, 256, -256, 2**40)
    ]
    assert len(set(scores)) == 1


def test_score_does_not_depend_on_the_number_of_threads() -> None:
    video, labels = scene(frames=12, height=32, width=40)
    labels = disturbed(labels, share=0.1)
    threads = torch.get_num_threads()
    scores = []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            scores.append(temporal_score(video, labels, num_classes=K, flow=FarnebackFlow()))
    finally:
        torch.set_num_threads(threads)
    assert len(set(scores)) == 1


def test_flow_as_tensor_operations_gives_opencvs_score() -> None:
    video, labels = scene(frames=6)
    labels = disturbed(labels, share=0.02)
    scores = [
        temporal_score(video, labels, num_classes=K, flow=flow)
        for flow in (FarnebackFlow(), TensorFarnebackFlow(), TensorFarnebackFlow(device=torch.device("cpu")))
    ]
    assert scores[1] == pytest.approx(scores[0], abs=2e-3)
    assert scores[1] == scores[2]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("at_once", [1, 1 << 23])
def test_on_an_accelerator_no_value_is_looked_at_before_the_end(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, at_once: int
) -> None:
    """Tensors without data: whatever asks for a value or copies to the host fails."""
    monkeypatch.setattr(flow_ssim, "_DEVICE_PIXELS", at_once)
    meta = torch.device("meta")
    video, labels = torch.zeros(20, 3, 40, 48, dtype=torch.uint8), torch.zeros(20, 40, 48, dtype=dtype)
    both = {"a": labels, "b": labels}
    there = {name: maps.to(meta) for name, maps in both.items()}
    for frames, maps, flow in (
        (video.to(meta), there, TensorFarnebackFlow()),
        (video, both, TensorFarnebackFlow(device=meta)),
        (video, there, TensorFarnebackFlow(device=meta, pairs_at_once=5)),
    ):
        losses = flow_ssim._losses(frames, maps, num_classes=K, flow=flow)
        assert (losses.device, losses.shape) == (meta, (19, 2))


def test_an_accelerators_clips_score_what_the_cpus_score() -> None:
    """The same pairs compared one by one and many at once."""
    video, labels = scene(frames=5)
    maps = [[disturbed(frame, share=0.1, seed=1), frame] for frame in labels]
    motion = Still(dx=-1.5)(video[1:].float(), video[:-1].float())
    motion[2, :, :20] = 1000
    expected = flow_ssim._pair_losses(maps, motion, num_classes=K)
    got = flow_ssim._losses_of(torch.stack([torch.stack(frame) for frame in maps]), motion, num_classes=K)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-15)


def test_device_of_the_labels_does_not_matter(device: torch.device) -> None:
    video, labels = scene(frames=3)
    expected = temporal_score(video, labels, num_classes=K, flow=FarnebackFlow())
    got = temporal_score(video.to(device), labels.to(device), num_classes=K, flow=FarnebackFlow())
    assert got == pytest.approx(expected, abs=1e-9)


def test_errors_name_the_argument_and_the_candidate() -> None:
    video, labels = scene(frames=3)
    named = dict(num_classes=K, flow=Still())
    with pytest.raises(ConfigError, match="candidates: expected at least one"):
        select_model(video, {}, **named)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"candidates\['b'\]: expected 3 label maps.*got 2"):
        select_model(video, {"a": labels, "b": labels[1:]}, **named)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"candidates\['b'\]: expected .* with w=64 from video"):
        select_model(video, {"a": labels, "b": labels[..., 1:]}, **named)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match=r"candidates\['b'\]: expected an integer tensor"):
        select_model(video, {"a": labels, "b": labels.float()}, **named)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="labels: expected"):
        temporal_score(video, labels[:, None], **named)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match=r"video: expected uint8 frames, got torch\.float32"):
        temporal_score(Lazy(video.float()), labels, **named)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="video: expected at least one frame"):
        temporal_score(video[:0], labels[:0], **named)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="num_classes"):
        temporal_score(video, labels, num_classes=0, flow=Still())
    with pytest.raises(ShapeError, match="flow: expected"):
        temporal_score(video, labels, num_classes=K, flow=lambda source, target: source)


def test_slices_of_the_wrong_length_are_refused() -> None:
    class Short(Lazy):
        def __getitem__(self, index: slice, /) -> Tensor:
            return self.whole[index][:2]

    video, labels = scene(frames=4)
    with pytest.raises(ShapeError, match="labels: expected"):
        temporal_score(video, Short(labels), num_classes=K, flow=Still())
    with pytest.raises(ShapeError, match="video: expected"):
        temporal_score(Short(video), labels, num_classes=K, flow=Still())


def test_selection_is_plain_data() -> None:
    assert Selection("a", {"a": 0.5}) == Selection(name="a", scores={"a": 0.5})
