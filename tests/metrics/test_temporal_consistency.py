from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.flow import FarnebackFlow
from mvcseg.metrics import MeanIoU, TemporalConsistency


def still(source: Tensor, target: Tensor) -> Tensor:
    return torch.zeros(len(source), 2, *source.shape[-2:], device=source.device)


def moving_right(source: Tensor, target: Tensor) -> Tensor:
    flow = still(source, target)
    flow[:, 0] = 1
    return flow


def frames_like(pred: Tensor) -> Tensor:
    return torch.zeros(len(pred), 3, *pred.shape[1:], dtype=torch.uint8)


def score(pred: Tensor, *, num_classes: int = 3, flow: object = still) -> float:
    tc = TemporalConsistency(num_classes, flow)  # type: ignore[arg-type]
    tc.update(pred, frames_like(pred))
    return tc.compute()


def test_hand_case(device: torch.device) -> None:
    pred = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]], device=device).view(2, 1, 4)
    assert score(pred) == pytest.approx((1 / 2 + 2 / 3) / 2, abs=1e-12)


def test_next_frame_is_brought_back_along_the_flow_from_this_frame() -> None:
    """Content moves one pixel right: the flow of frame t says +1, and the maps agree wherever they overlap."""
    pred = torch.tensor([[0, 1, 2, 2, 1], [2, 0, 1, 2, 2]]).view(2, 1, 5)
    assert score(pred, flow=moving_right) == 1.0
    assert score(pred, flow=still) < 0.5


def test_pixels_leaving_the_frame_are_left_out() -> None:
    """The script reads class 0 there."""
    pred = torch.tensor([[0, 0, 1], [0, 0, 0]]).view(2, 1, 3)
    tc = TemporalConsistency(2, moving_right)
    tc.update(pred, frames_like(pred))
    assert tc.state.tolist() == [[2, 0, 0], [0, 0, 0]]


def test_one_confusion_matrix_over_all_pairs_and_videos(generator: torch.Generator) -> None:
    videos = [torch.randint(0, 4, (frames, 5, 7), generator=generator) for frames in (2, 4, 11)]
    tc, miou = TemporalConsistency(4, still), MeanIoU(4)
    for pred in videos:
        tc.update(pred, frames_like(pred))
        miou.update(pred[1:], pred[:-1])
    assert tc.compute() == miou.compute()


def test_more_than_the_first_hundred_videos_count() -> None:
    tc = TemporalConsistency(2, still)
    steady, changed = torch.zeros(2, 1, 1, dtype=torch.int64), torch.tensor([0, 1]).view(2, 1, 1)
    for _ in range(100):
        tc.update(steady, frames_like(steady))
    for _ in range(100):
        tc.update(changed, frames_like(changed))
    assert tc.compute() == 0.5


def test_value_outside_the_classes_is_left_out_at_t_and_a_disagreement_after() -> None:
    pred = torch.tensor([[0, 255, 1], [255, 0, 1]]).view(2, 1, 3)
    tc = TemporalConsistency(2, still)
    tc.update(pred, frames_like(pred))
    assert tc.state.tolist() == [[0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.uint16])
def test_every_integer_dtype_gives_the_same_score(dtype: torch.dtype, generator: torch.Generator) -> None:
    pred = torch.randint(0, 3, (5, 4, 6), generator=generator)
    assert score(pred.to(dtype)) == score(pred)


def test_a_lazily_read_video_is_read_in_slices(generator: torch.Generator) -> None:
    pred = torch.randint(0, 3, (20, 4, 6), generator=generator)
    asked: list[int] = []

    class Lazy:
        def __len__(self) -> int:
            return len(pred)

        def __getitem__(self, index: slice) -> Tensor:
            frames = frames_like(pred)[index]
            asked.append(len(frames))
            return frames

    tc = TemporalConsistency(3, still)
    tc.update(pred, Lazy())
    assert tc.compute() == score(pred)
    assert max(asked) < 12


def test_frames_reach_the_flow_as_unit_floats() -> None:
    seen: list[Tensor] = []

    def flow(source: Tensor, target: Tensor) -> Tensor:
        seen.extend((source, target))
        return still(source, target)

    video = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    TemporalConsistency(2, flow).update(torch.zeros(3, 2, 2, dtype=torch.int64), video)
    assert torch.equal(seen[0][:, 0, 0, 0], torch.tensor([0.0, 0.2]))
    assert torch.equal(seen[1][:, 0, 0, 0], torch.tensor([0.2, 1.0]))


def test_farneback_on_a_moving_texture_beats_no_flow(generator: torch.Generator) -> None:
    texture = torch.nn.functional.interpolate(
        torch.rand(1, 3, 16, 24, generator=generator), size=(64, 96), mode="bicubic"
    )
    classes = torch.randint(0, 4, (1, 1, 8, 12), generator=generator).float()
    classes = torch.nn.functional.interpolate(classes, size=(64, 96), mode="nearest")[0, 0].long()
    video = torch.cat([texture.roll(3 * t, dims=-1) for t in range(3)])
    pred = torch.stack([classes.roll(3 * t, dims=-1) for t in range(3)])
    scores = {}
    for name, flow in (("farneback", FarnebackFlow()), ("still", still)):
        tc = TemporalConsistency(4, flow)
        tc.update(pred, (255 * video.clamp(0, 1)).round().to(torch.uint8))
        scores[name] = tc.compute()
    assert scores["farneback"] > 0.9 > scores["still"] + 0.1


def test_updates_off_the_cpu_never_wait_for_the_device() -> None:
    """Tensors without values refuse whatever has to look at one, or to bring it to the host."""
    tc, pred = TemporalConsistency(3, still), torch.empty(4, 5, 6, dtype=torch.uint8, device="meta")
    for _ in range(2):
        tc.update(pred, frames_like(pred).to("meta"))
    assert (tc.state.device.type, tc.state.shape) == ("meta", (3, 4))


@pytest.mark.parametrize("frames", [0, 1])
def test_videos_without_a_pair_add_nothing(frames: int) -> None:
    assert np.isnan(score(torch.zeros(frames, 2, 3, dtype=torch.int64)))


def test_merge_equals_one_pass_survives_pickling_and_reset_forgets(generator: torch.Generator) -> None:
    first_video, second_video = (torch.randint(0, 3, (4, 5, 6), generator=generator) for _ in range(2))
    whole, first, second = (TemporalConsistency(3, still) for _ in range(3))
    for metric, video in ((whole, first_video), (whole, second_video), (first, first_video), (second, second_video)):
        metric.update(video, frames_like(video))
    first.merge(pickle.loads(pickle.dumps(second)))
    assert torch.equal(first.state, whole.state)
    first.reset()
    assert np.isnan(first.compute())


def test_different_metrics_do_not_merge() -> None:
    with pytest.raises(ConfigError, match=r"expected TemporalConsistency\(num_classes=2\) to merge with"):
        TemporalConsistency(2, still).merge(TemporalConsistency(3, still))
    with pytest.raises(ConfigError, match="MeanIoU"):
        TemporalConsistency(2, still).merge(MeanIoU(2))  # type: ignore[arg-type]


def test_bad_arguments_are_typed_errors() -> None:
    tc, pred = TemporalConsistency(2, still), torch.zeros(3, 4, 5, dtype=torch.int64)
    with pytest.raises(ShapeError, match="video: expected 3 frames from pred, got 2"):
        tc.update(pred, frames_like(pred)[:2])
    with pytest.raises(ShapeError, match="video"):
        tc.update(pred, frames_like(pred)[..., :4])
    with pytest.raises(DTypeError, match="video: expected uint8 frames"):
        tc.update(pred, frames_like(pred).float())
    with pytest.raises(DTypeError, match="video: expected uint8 frames"):
        tc.update(pred[:1], frames_like(pred[:1]).float())
    with pytest.raises(DTypeError, match="video: expected a uint8"):
        tc.update(pred, "pan")  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="pred"):
        tc.update(pred.float(), frames_like(pred))
    with pytest.raises(ShapeError, match="flow"):
        TemporalConsistency(2, lambda source, target: source).update(pred, frames_like(pred))
    with pytest.raises(ConfigError, match="num_classes"):
        TemporalConsistency(0, still)
