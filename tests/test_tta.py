from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mvcseg import PerFrame, predict_labels
from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.inference import iter_labels
from mvcseg.tta import (
    MeanTTA,
    View,
    iter_view_labels,
    iter_vote_labels,
    multiscale_flip,
    scaled_views,
    vote_labels,
)

VIEWS = multiscale_flip()


def make_video(length: int = 5, *, height: int = 36, width: int = 50) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(length, 3, 6, 8, generator=generator)
    return (nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def make_net() -> PerFrame:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 5, 3, padding=1))
    return PerFrame(net, num_classes=5, logits_of=lambda out: out)


class ByWidth:
    """Answers a class that depends only on the width of what it is shown."""

    num_classes = 9

    def __init__(self, answers: dict[int, int]) -> None:
        self.answers = answers

    def __call__(self, frames: Tensor, /) -> Tensor:
        label = torch.full(frames[:, :, 0].shape, self.answers[frames.shape[-1]])
        return nn.functional.one_hot(label, 9).permute(0, 1, 4, 2, 3).float()


class Streaming(nn.Module):
    """The net as a segmenter that demands to see the whole video."""

    def __init__(self, net: PerFrame) -> None:
        super().__init__()
        self.net, self.num_classes = net, net.num_classes

    def forward(self, frames: Tensor, /) -> Tensor:
        raise AssertionError("stream exists")

    def stream(self, video: Tensor, /, *, clip_length: int) -> Iterator[Tensor]:
        for start in range(0, len(video), clip_length):
            yield self.net(video[start : start + clip_length].unsqueeze(0).float() / 255)


def test_the_reports_views_come_by_falling_scale_unflipped_first() -> None:
    assert [(view.scale, view.flip) for view in VIEWS] == [
        (scale, flip) for scale in (1.2, 1.1, 1.0, 0.9) for flip in (False, True)
    ]
    assert [view.scale for view in multiscale_flip((1.0, 1.1), flip=False)] == [1.1, 1.0]


def test_a_flip_is_undone_exactly() -> None:
    frames, view = torch.rand(2, 3, 7, 11), View(flip=True)
    assert torch.equal(view.apply(frames), frames.flip(-1))
    assert torch.equal(view.invert(view.apply(frames), size=(7, 11)), frames)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_undone_up_to_resampling(view: View) -> None:
    ramp = torch.linspace(0, 1, 60).expand(3, 40, 60)
    assert view.apply(ramp).shape[-2:] == view.size_of((40, 60))
    assert (view.invert(view.apply(ramp), size=(40, 60)) - ramp).abs().max() < 0.01


def test_a_segmenters_padding_stays_right_and_bottom_under_a_flip() -> None:
    seen: list[Tensor] = []

    def net(images: Tensor) -> Tensor:
        seen.append(images)
        return images

    padding = PerFrame(net, num_classes=3, logits_of=lambda out: out, multiple_of=32)
    video = make_video(1) | 1  # no pixel of the content is zero
    vote_labels(padding, video, views=[View(flip=True)], clip_length=1)
    content = video[0].flip(-1).float() / 255
    assert torch.equal(seen[0][0, :, :36, :50], content)
    assert (seen[0][..., 50:] == 0).all()


def test_one_identity_view_changes_nothing() -> None:
    net, video = make_net(), make_video()
    assert torch.equal(
        vote_labels(net, video, views=[View()], clip_length=2), predict_labels(net, video, clip_length=2)
    )


def test_a_flipped_view_alone_is_the_flipped_prediction_flipped_back() -> None:
    net, video = make_net(), make_video()
    expected = predict_labels(net, video.flip(-1), clip_length=3).flip(-1)
    assert torch.equal(vote_labels(net, video, views=[View(flip=True)], clip_length=3), expected)


@pytest.mark.parametrize(
    ("answers", "literal", "among_tied"),
    [
        ({60: 1, 55: 2, 50: 2, 45: 3}, 2, 2),  # a plain majority
        ({60: 1, 55: 2, 50: 2, 45: 1}, 1, 1),  # a tie the finest view is part of
        ({60: 4, 55: 2, 50: 3, 45: 1}, 4, 4),  # four labels with one vote each
    ],
)
def test_votes_are_counted_and_ties_go_to_the_finest_view(
    answers: dict[int, int], literal: int, among_tied: int
) -> None:
    views = multiscale_flip(flip=False)
    for tie, expected in (("literal", literal), ("among-tied", among_tied)):
        labels = vote_labels(ByWidth(answers), make_video(2), views=views, clip_length=2, tie=tie)  # type: ignore[arg-type]
        assert (labels == expected).all()


def test_the_literal_tie_may_leave_the_tied_labels() -> None:
    answers = {60: 4, 55: 2, 50: 3, 45: 3, 40: 2}
    views = multiscale_flip((1.2, 1.1, 1.0, 0.9, 0.8), flip=False)
    video = make_video(1)
    assert (vote_labels(ByWidth(answers), video, views=views, clip_length=1) == 4).all()
    assert (vote_labels(ByWidth(answers), video, views=views, clip_length=1, tie="among-tied") == 2).all()


def test_the_order_of_the_views_does_not_matter() -> None:
    net, video = make_net(), make_video(2)
    views = multiscale_flip((1.0, 1.3), flip=True)
    expected = vote_labels(net, video, views=views, clip_length=2)
    for order in itertools.permutations(views):
        assert torch.equal(vote_labels(net, video, views=order, clip_length=2), expected)


def test_the_vote_is_the_mode_of_the_views_own_labels() -> None:
    net, video = make_net(), make_video(2)
    labels = vote_labels(net, video, views=VIEWS, clip_length=2)
    single = torch.stack([vote_labels(net, video, views=[view], clip_length=2) for view in VIEWS])
    for pixel in itertools.product(range(2), range(0, 36, 5), range(0, 50, 7)):
        votes = single[(slice(None), *pixel)].tolist()
        (first, most), *others = Counter(votes).most_common()
        tied = bool(others) and others[0][1] == most
        assert labels[pixel].item() == (votes[0] if tied else first)


@settings(max_examples=12, deadline=None)
@given(length=st.integers(1, 6), clip_length=st.integers(1, 7))
def test_a_stream_votes_as_clips_do(length: int, clip_length: int) -> None:
    net, video = make_net(), make_video(length)
    views = multiscale_flip((1.0, 1.2))
    expected = vote_labels(net, video, views=views, clip_length=length)
    assert torch.equal(vote_labels(Streaming(net), video, views=views, clip_length=clip_length), expected)


def test_clips_of_votes_are_consecutive_bytes() -> None:
    net, video = make_net(), make_video(5)
    clips = list(iter_vote_labels(net, video, views=VIEWS[:3], clip_length=2))
    assert [len(clip) for clip in clips] == [2, 2, 1]
    assert all(clip.dtype == torch.uint8 for clip in clips)
    assert torch.equal(torch.cat(clips).long(), vote_labels(net, video, views=VIEWS[:3], clip_length=2))


def test_no_file_is_left_of_the_votes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    clips = iter_vote_labels(Streaming(make_net()), make_video(5), views=VIEWS[:2], clip_length=2)
    next(clips)
    assert list(tmp_path.iterdir()) == []
    clips.close()  # type: ignore[attr-defined]


def test_a_full_temporary_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("w+b", buffering=0)  # noqa: SIM115 - the vote closes it
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
    with pytest.raises(DataError, match=r"temporary folder .*No space left.*TMPDIR"):
        vote_labels(Streaming(make_net()), make_video(5), views=VIEWS[:2], clip_length=2)


def test_the_mean_is_that_of_the_views_probabilities() -> None:
    net, frames = make_net().eval(), make_video(2).unsqueeze(0).float() / 255
    views = multiscale_flip((1.0, 1.25))
    logits = MeanTTA(net, views)(frames)
    expected = torch.zeros(1, 2, 5, 36, 50)
    for view in views:
        expected += view.invert(net(view.apply(frames)).softmax(dim=2), size=(36, 50)) / 4
    assert torch.allclose(logits.exp(), expected, atol=1e-6)
    assert torch.allclose(logits.softmax(dim=2), expected, atol=1e-6)


def test_the_mean_over_one_identity_view_keeps_the_distribution() -> None:
    net, frames = make_net().eval(), make_video(2).unsqueeze(0).float() / 255
    mean = MeanTTA(net, [View()])
    assert mean.num_classes == 5
    assert torch.allclose(mean(frames).softmax(dim=2), net(frames).softmax(dim=2), atol=1e-6)


def test_the_mean_is_a_segmenter_with_finite_logits() -> None:
    sure = PerFrame(lambda x: (x - 0.5) * 1e6, num_classes=3, logits_of=lambda out: out)
    logits = MeanTTA(sure, [View()])(torch.rand(1, 1, 3, 32, 32))
    assert torch.isfinite(logits).all()


def test_bad_arguments_are_refused() -> None:
    net, video = make_net(), make_video(2)
    with pytest.raises(ConfigError, match="views: expected at least one, got none"):
        vote_labels(net, video, views=[], clip_length=2)
    with pytest.raises(ConfigError, match="views: expected at least one, got none"):
        MeanTTA(net, [])
    with pytest.raises(ConfigError, match="tie: expected 'literal' or 'among-tied', got 'first'"):
        vote_labels(net, video, views=VIEWS, clip_length=2, tie="first")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="clip_length"):
        vote_labels(net, video, views=VIEWS, clip_length=0)
    with pytest.raises(ConfigError, match="scale: expected a finite number above 0"):
        View(scale=0)
    with pytest.raises(ConfigError, match="scales: expected at least one scale and none twice"):
        multiscale_flip((1.0, 1.0))
    with pytest.raises(ConfigError, match="scales: expected at least one"):
        multiscale_flip(())
    with pytest.raises(DTypeError, match="uint8"):
        vote_labels(net, video.float(), views=VIEWS, clip_length=2)
    with pytest.raises(ShapeError, match="at least one frame"):
        vote_labels(net, video[:0], views=VIEWS, clip_length=2)
    with pytest.raises(DTypeError, match="divide uint8 frames"):
        MeanTTA(net, VIEWS)(video.unsqueeze(0))
    nan = PerFrame(lambda x: x * torch.nan, num_classes=3, logits_of=lambda out: out)
    with pytest.raises(DataError, match="NaN"):
        vote_labels(nan, video, views=VIEWS, clip_length=2)


def test_scales_may_come_as_an_array() -> None:
    assert multiscale_flip(np.array([1.0, 1.5])) == multiscale_flip((1.0, 1.5))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="scales: expected at least one"):
        multiscale_flip(np.array([]))  # type: ignore[arg-type]


def test_the_test_size_is_capped_by_the_longer_side() -> None:
    assert scaled_views((480, 853), None, short_side=720) == [View(1.5)]
    assert scaled_views((480, 853), None, short_side=720, long_side=1333) == [View(1.5)]
    (wide,) = scaled_views((400, 1000), None, short_side=720, long_side=1333) or ()
    assert wide.size_of((400, 1000)) == (533, 1333)
    (tall,) = scaled_views((1000, 400), None, short_side=720, long_side=1333) or ()
    assert tall.size_of((1000, 400)) == (1333, 533)
    (large,) = scaled_views((2160, 3840), None, short_side=720, long_side=1333) or ()
    assert large.size_of((2160, 3840)) == (720, 1280)


def test_a_video_of_the_test_size_is_left_as_it_is() -> None:
    assert scaled_views((720, 1280), None, short_side=720, long_side=1333) is None
    assert scaled_views((300, 1333), None, short_side=720, long_side=1333) is None
    assert scaled_views((720, 1280), VIEWS, short_side=720) is VIEWS
    assert scaled_views((36, 50), None, short_side=None) is None
    assert scaled_views((36, 50), VIEWS, short_side=None, long_side=10) is VIEWS


def test_views_scale_from_the_test_size() -> None:
    found = scaled_views((40, 60), [View(1.2), View(0.9, flip=True)], short_side=80, long_side=90)
    assert found == [View(1.2 * 1.5), View(0.9 * 1.5, flip=True)]
    for options in ({"short_side": 0}, {"short_side": 5, "long_side": 0}):
        with pytest.raises(ConfigError, match="_side: expected an integer of at least 1"):
            scaled_views((40, 60), None, **options)  # type: ignore[arg-type]


class Labelling(Streaming):
    """The net as a segmenter that gives class ids at any size itself."""

    def stream(self, video: Tensor, /, *, clip_length: int) -> Iterator[Tensor]:
        raise AssertionError("stream_labels exists")
        yield

    def stream_labels(
        self, video: Tensor, /, *, clip_length: int, output_size: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        yield from iter_labels(self.net, video, clip_length=clip_length, output_size=output_size)


@pytest.mark.parametrize("view", [View(), View(flip=True), View(1.4), View(0.7, flip=True)])
def test_one_view_is_resized_probabilities_put_back_in_place(view: View) -> None:
    net, video = make_net().eval(), make_video(5)
    probabilities = net(view.apply(video).unsqueeze(0).float() / 255).softmax(dim=2)
    expected = view.invert(probabilities, size=(36, 50)).argmax(dim=2)[0]
    for segmenter in (net, Streaming(net), Labelling(net)):
        clips = list(iter_view_labels(segmenter, video, view=view, clip_length=2))
        assert [labels.dtype for labels in clips] == [torch.uint8] * len(clips)
        assert torch.equal(torch.cat(clips).long(), expected)


def test_a_segmenters_own_labels_vote_as_its_logits_do() -> None:
    net, video = make_net(), make_video(5)
    views = multiscale_flip((1.0, 1.2))
    expected = vote_labels(net, video, views=views, clip_length=2)
    assert torch.equal(vote_labels(Labelling(net), video, views=views, clip_length=2), expected)


def test_mean_is_the_same_with_and_without_gradients(generator: torch.Generator) -> None:
    net = PerFrame(nn.Conv2d(3, 4, 1), num_classes=4, logits_of=lambda out: out)
    mean = MeanTTA(net, [View(), View(scale=1.25), View(flip=True)])
    frames = torch.rand(1, 2, 3, 24, 40, generator=generator)
    with_gradients = mean(frames)
    weights = torch.randn(with_gradients.shape, generator=generator)
    (with_gradients * weights).sum().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in net.parameters())
    kept = frames.clone()
    with torch.no_grad():
        without = mean(frames)
    assert torch.allclose(without, with_gradients.detach(), atol=1e-5)
    assert not without.requires_grad
    assert torch.equal(frames, kept)


class Mixed(nn.Module):
    """Keeps gradients of some calls."""

    num_classes = 3

    def __init__(self, keeps: list[bool]) -> None:
        super().__init__()
        self.net, self.keeps = nn.Conv2d(3, 3, 1), iter(keeps)

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.net(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return logits if next(self.keeps) else logits.detach()


@pytest.mark.parametrize("keeps", [[True, False], [False, True], [False, False]])
def test_the_mean_of_views_with_and_without_gradients(keeps: list[bool], generator: torch.Generator) -> None:
    torch.manual_seed(0)
    views, frames = [View(1.5), View(1.0, flip=True)], torch.rand(1, 2, 3, 40, 40, generator=generator)
    mixed = Mixed(keeps)
    mean = MeanTTA(mixed, views)(frames)
    assert mean.requires_grad is any(keeps)
    mixed.keeps = iter([True, True])
    assert torch.allclose(mean, MeanTTA(mixed, views)(frames), atol=1e-5)
    if any(keeps):
        mean.sum().backward()
        assert mixed.net.weight.grad is not None


def test_the_mean_of_bad_logits_is_refused() -> None:
    def answers(logits: Tensor) -> MeanTTA:
        net = Mixed([])
        net.forward = lambda frames: logits  # type: ignore[method-assign]
        return MeanTTA(net, [View()])

    for logits in (torch.zeros(1, 2, 3, 40), torch.zeros(1, 1, 3, 40, 40), torch.zeros(1, 2, 4, 40, 40)):
        with pytest.raises(ShapeError, match="logits: expected"):
            answers(logits)(torch.rand(1, 2, 3, 40, 40))
