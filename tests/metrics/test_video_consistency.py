from __future__ import annotations

import pickle

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.metrics import MeanIoU, VideoConsistency, clip_consistency, video_consistency


def clips_one_by_one(pred: np.ndarray, labels: np.ndarray, clip_length: int) -> list[float]:
    """The definition, pixel by pixel."""
    scores = []
    for start in range(len(pred) - clip_length):
        clip = slice(start, start + clip_length)
        steady_label = [len(set(values)) == 1 for values in labels[clip].reshape(clip_length, -1).T.tolist()]
        steady_pred = [len(set(values)) == 1 for values in pred[clip].reshape(clip_length, -1).T.tolist()]
        both = [a and b for a, b in zip(steady_label, steady_pred, strict=True)]
        scores.append(sum(both) / sum(steady_label) if any(steady_label) else float("nan"))
    return scores


def flickering(generator: torch.Generator, *shape: int, share: float = 0.1) -> torch.Tensor:
    """Label maps that rarely change, so that long clips still have steady pixels."""
    changes = torch.rand(shape, generator=generator) < share
    return changes.cumsum(dim=0) % 7


def test_hand_case(device: torch.device) -> None:
    labels = torch.tensor([[3, 3], [3, 3], [3, 4], [3, 4]], device=device).view(4, 1, 2)
    pred = torch.tensor([[1, 1], [1, 2], [1, 2], [1, 2]], device=device).view(4, 1, 2)
    vc2 = VideoConsistency(clip_length=2)
    vc2.update(pred, labels)
    # clip 0-1: both labels steady, one prediction; clip 1-2: one label steady, its prediction too
    assert vc2.compute() == (1 / 2 + 1 / 1) / 2


@pytest.mark.parametrize("clip_length", [1, 2, 3, 5, 8, 9, 16])
def test_equals_the_definition_pixel_by_pixel(
    clip_length: int, device: torch.device, generator: torch.Generator
) -> None:
    pred, labels = flickering(generator, 19, 7, 13), flickering(generator, 19, 7, 13)
    scores = clip_consistency(pred.to(device), labels.to(device), clip_lengths=(clip_length,))[0].cpu().numpy()
    assert np.allclose(scores, clips_one_by_one(pred.numpy(), labels.numpy(), clip_length), rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    npst.arrays(
        np.uint8, st.tuples(st.integers(0, 7), st.integers(1, 3), st.integers(1, 70)), elements=st.integers(0, 1)
    ),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_any_size_equals_the_definition(labels: np.ndarray, clip_length: int, random: object) -> None:
    pred = np.roll(labels, 1, axis=-1)
    scores = clip_consistency(torch.from_numpy(pred), torch.from_numpy(labels), clip_lengths=[clip_length])[0]
    assert np.array_equal(scores.numpy(), clips_one_by_one(pred, labels, clip_length), equal_nan=True)


def test_vspw_last_clip_is_left_out() -> None:
    pred = torch.tensor([1, 1, 1, 2]).view(4, 1, 1)
    vc2 = VideoConsistency(clip_length=2)
    vc2.update(pred, torch.zeros(4, 1, 1, dtype=torch.uint8))
    assert vc2.compute() == 1.0  # only the fourth possible clip, (2, 3), sees the change


@pytest.mark.parametrize("frames", [0, 1, 7, 8])
def test_vspw_videos_of_n_frames_or_fewer_are_skipped(frames: int) -> None:
    vc8 = VideoConsistency(clip_length=8)
    vc8.update(torch.zeros(frames, 2, 3, dtype=torch.int64), torch.zeros(frames, 2, 3, dtype=torch.uint8))
    assert np.isnan(vc8.compute())
    assert vc8.state.tolist() == [0, 0]


def test_vspw_a_video_too_short_for_vc16_still_counts_for_vc8() -> None:
    """Two public scripts drop it from both."""
    maps = torch.zeros(12, 2, 3, dtype=torch.uint8)
    vc8, vc16 = VideoConsistency(8), VideoConsistency(16)
    for metric in (vc8, vc16):
        metric.update(maps, maps)
    assert vc8.compute() == 1.0
    assert np.isnan(vc16.compute())


def test_vspw_clips_of_all_videos_are_pooled() -> None:
    """One clip of score 0 and three of score 1: 3/4, while the mean of the videos is 1/2."""
    labels = torch.zeros(5, 1, 1, dtype=torch.uint8)
    vc2 = VideoConsistency(clip_length=2)
    vc2.update(torch.tensor([1, 2, 3]).view(3, 1, 1), labels[:3])
    vc2.update(labels, labels)
    assert vc2.compute() == 3 / 4


def test_vspw_clip_without_constant_ground_truth_is_left_out() -> None:
    labels = torch.tensor([1, 2, 2, 2]).view(4, 1, 1)
    vc2 = VideoConsistency(clip_length=2)
    vc2.update(torch.tensor([5, 5, 6, 6]).view(4, 1, 1), labels)
    assert vc2.compute() == 0.0  # clip (0, 1) has no steady label; (1, 2) scores 0
    assert vc2.state.tolist() == [0, 1]


def test_vspw_class_need_not_be_right() -> None:
    labels = torch.full((4, 2, 2), 7)
    vc2 = VideoConsistency(clip_length=2)
    vc2.update(torch.zeros_like(labels), labels)
    assert vc2.compute() == 1.0


def test_vspw_void_counts_as_constant() -> None:
    labels = torch.tensor([[0, 5], [0, 5], [0, 5]]).view(3, 1, 2)
    pred = torch.tensor([[1, 1], [2, 1], [3, 1]]).view(3, 1, 2)
    vc2 = VideoConsistency(clip_length=2)
    vc2.update(pred, labels)
    assert vc2.compute() == 0.5


def test_vspw_raw_masks_differ_from_mapped_ones() -> None:
    """Raw 0 and 255 are two values; mapped, both are 255 and look steady."""
    raw = torch.tensor([[0, 5], [255, 5], [0, 5]], dtype=torch.uint8).view(3, 1, 2)
    mapped = torch.where((raw == 0) | (raw == 255), 255, raw - 1)
    pred = torch.tensor([[1, 1], [2, 1], [1, 1]]).view(3, 1, 2)
    on_raw, on_mapped = VideoConsistency(2), VideoConsistency(2)
    on_raw.update(pred, raw)
    on_mapped.update(pred, mapped)
    assert on_raw.compute() == 1.0
    assert on_mapped.compute() == 0.5


def test_vspw_vc8_and_vc16_are_never_pooled(generator: torch.Generator) -> None:
    """A public script reports the mean over both clip sets as VC16."""
    pred, labels = flickering(generator, 30, 9, 11), flickering(generator, 30, 9, 11, share=0.02)
    eight, sixteen = clip_consistency(pred, labels, clip_lengths=(8, 16))
    vc8, vc16 = VideoConsistency(8), VideoConsistency(16)
    for metric in (vc8, vc16):
        metric.update(pred, labels)
    assert abs(vc8.compute() - np.nanmean(clips_one_by_one(pred.numpy(), labels.numpy(), 8))) < 1e-12
    assert abs(vc16.compute() - np.nanmean(clips_one_by_one(pred.numpy(), labels.numpy(), 16))) < 1e-12
    assert abs(vc16.compute() - float(torch.cat((eight, sixteen)).nanmean())) > 1e-3


def test_several_lengths_together_equal_each_alone(device: torch.device, generator: torch.Generator) -> None:
    pred, labels = flickering(generator, 20, 6, 10).to(device), flickering(generator, 20, 6, 10).to(device)
    together = clip_consistency(pred, labels, clip_lengths=(1, 8, 16, 30))
    for length, scores in zip((1, 8, 16, 30), together, strict=True):
        assert torch.equal(scores, clip_consistency(pred, labels, clip_lengths=(length,))[0])
    assert [len(scores) for scores in together] == [19, 12, 4, 0]


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.uint16, torch.uint64])
def test_any_integer_values_are_compared_for_equality(dtype: torch.dtype, generator: torch.Generator) -> None:
    pred, labels = flickering(generator, 6, 4, 5), flickering(generator, 6, 4, 5)
    expected = clip_consistency(pred, labels, clip_lengths=(3,))[0]
    assert torch.equal(clip_consistency(pred.to(dtype), labels.to(dtype), clip_lengths=(3,))[0], expected)


def test_values_beyond_a_byte_are_told_apart() -> None:
    pred = torch.tensor([0, 256, 0]).view(3, 1, 1)
    vc2 = VideoConsistency(2)
    vc2.update(pred, torch.zeros_like(pred))
    assert vc2.compute() == 0.0


def test_bits_are_counted_without_numpy_2(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    pred, labels = flickering(generator, 20, 6, 23), flickering(generator, 20, 6, 23)
    expected = clip_consistency(pred, labels, clip_lengths=(8,))[0]
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert torch.equal(clip_consistency(pred, labels, clip_lengths=(8,))[0], expected)


@pytest.mark.parametrize("frames", [0, 1, 2, 9, 20])
def test_other_devices_count_the_same(frames: int, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    pred, labels = flickering(generator, frames, 6, 23), flickering(generator, frames, 6, 23)
    expected = clip_consistency(pred, labels, clip_lengths=(1, 2, 8))
    monkeypatch.setattr(video_consistency, "_steady_counts", video_consistency._counts_on_device)
    for got, of_length in zip(clip_consistency(pred, labels, clip_lengths=(1, 2, 8)), expected, strict=True):
        assert torch.equal(got, of_length)


def test_updates_off_the_cpu_never_wait_for_the_device() -> None:
    """Tensors without values refuse whatever has to look at one, or to bring it to the host."""
    vc2, maps = VideoConsistency(2), torch.empty(5, 3, 4, dtype=torch.uint8, device="meta")
    for _ in range(2):
        vc2.update(maps, maps)
    assert (vc2.state.device.type, vc2.state.dtype, vc2.state.shape) == ("meta", torch.float64, (2,))


@pytest.mark.cuda
def test_on_cuda_updates_wait_for_nothing_and_score_the_same(generator: torch.Generator) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    pred, labels = flickering(generator, 12, 6, 9), flickering(generator, 12, 6, 9, share=0.3)
    here, there = VideoConsistency(4), VideoConsistency(4)
    maps = pred.cuda(), labels.cuda()
    here.update(pred, labels)
    there.update(*maps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        there.update(*maps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    here.update(pred, labels)
    assert there.state.device.type == "cuda"
    assert here.compute() == pytest.approx(there.compute(), abs=1e-12)


def test_clips_without_a_score_count_the_same_on_a_device() -> None:
    scores = torch.tensor([0.5, torch.nan, 0.25], dtype=torch.float64)
    vc2 = VideoConsistency(2)
    vc2.add_clips(scores)
    assert vc2.state.tolist() == [0.75, 2.0]
    assert torch.equal(video_consistency._sum_on_device(scores), vc2.state)


@pytest.mark.parametrize("block", [1, 7, 64, 100, 1000])
def test_blocks_of_a_video_count_the_same(
    block: int, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    pred, labels = flickering(generator, 20, 6, 51), flickering(generator, 20, 6, 51)
    lengths = (8, 3, 1, 19, 20, 3, 4)
    expected = [clips_one_by_one(pred.numpy(), labels.numpy(), n) for n in lengths]
    monkeypatch.setattr(video_consistency, "BLOCK", block)
    for got, of_length in zip(clip_consistency(pred, labels, clip_lengths=lengths), expected, strict=True):
        assert np.allclose(got.numpy(), of_length, rtol=0, atol=1e-12, equal_nan=True)


def test_number_of_threads_does_not_matter(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    pred, labels = flickering(generator, 20, 6, 23), flickering(generator, 20, 6, 23)
    monkeypatch.setattr(video_consistency, "LEAST_BAND", 20)
    monkeypatch.setattr(video_consistency, "MOST_BANDS", 500)
    results = []
    for threads in (1, 2, 5, 500):  # 138 pixels: 1, 2, 5 and 6 bands
        monkeypatch.setattr(video_consistency.torch, "get_num_threads", lambda threads=threads: threads)
        results.append(clip_consistency(pred, labels, clip_lengths=(8,))[0])
    assert all(torch.equal(results[0], other) for other in results)


def test_merge_equals_one_pass_and_survives_pickling(generator: torch.Generator) -> None:
    videos = [(flickering(generator, t, 5, 9), flickering(generator, t, 5, 9)) for t in (6, 11, 9)]
    whole, first, second = VideoConsistency(4), VideoConsistency(4), VideoConsistency(4)
    for index, (pred, labels) in enumerate(videos):
        whole.update(pred, labels)
        (first if index == 1 else second).update(pred, labels)
    second.merge(pickle.loads(pickle.dumps(first)))
    assert abs(second.compute() - whole.compute()) < 1e-12
    assert second.state[1] == whole.state[1]


def test_reset_forgets() -> None:
    vc1 = VideoConsistency(1)
    vc1.update(torch.zeros(3, 1, 1, dtype=torch.uint8), torch.zeros(3, 1, 1, dtype=torch.uint8))
    assert vc1.compute() == 1.0
    vc1.reset()
    assert np.isnan(vc1.compute())


def test_frames_without_pixels_score_nothing() -> None:
    nothing = torch.zeros(4, 0, 5, dtype=torch.uint8)
    vc2 = VideoConsistency(2)
    vc2.update(nothing, nothing)
    assert np.isnan(vc2.compute())


def test_different_metrics_do_not_merge() -> None:
    with pytest.raises(ConfigError, match=r"expected VideoConsistency\(clip_length=8\) to merge with, got .*16"):
        VideoConsistency(8).merge(VideoConsistency(16))
    with pytest.raises(ConfigError, match="MeanIoU"):
        VideoConsistency(8).merge(MeanIoU(2))  # type: ignore[arg-type]


def test_bad_arguments_are_typed_errors() -> None:
    vc2, maps = VideoConsistency(2), torch.zeros(3, 4, 5, dtype=torch.uint8)
    with pytest.raises(ShapeError, match=r"raw_labels: expected .* with t=3 from pred"):
        vc2.update(maps, maps[:2])
    with pytest.raises(ShapeError, match="pred: expected"):
        vc2.update(maps[0], maps[0])
    with pytest.raises(DTypeError, match="raw_labels"):
        vc2.update(maps, maps.float())
    with pytest.raises(ConfigError, match="clip_length"):
        VideoConsistency(0)
    with pytest.raises(ConfigError, match="clip_length"):
        clip_consistency(maps, maps, clip_lengths=(8, -1))
