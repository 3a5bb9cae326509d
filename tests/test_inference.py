from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from largest_tensor import Largest
from tiny_dvis import tiny_dvis
from tiny_transformers import tiny_net
from torch import Tensor, nn

from mvcseg import MVCWrapper, PatchMask, PerFrame, iter_labels, predict_labels
from mvcseg.adapters import from_transformers
from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.inference import evaluating, iter_logits
from mvcseg.models.compact import CompactSegmenter
from mvcseg.ops import score_windows
from mvcseg.ops.resize import resize_scores
from mvcseg.segmenter import Segmenter, own_labels


class Brightness:
    """Class of a pixel = its red value: labels can be read off the frames."""

    num_classes = 250

    def __init__(self) -> None:
        self.clip_lengths: list[int] = []

    def __call__(self, frames: Tensor, /) -> Tensor:
        self.clip_lengths.append(frames.shape[1])
        red = (frames[:, :, 0] * 255).round().long().clamp_max(249)
        return nn.functional.one_hot(red, 250).permute(0, 1, 4, 2, 3).float()


class LazyVideo:
    """A video read slice by slice; remembers the longest slice."""

    def __init__(self, video: Tensor) -> None:
        self.video, self.longest = video, 0

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, index: slice, /) -> Tensor:
        self.longest = max(self.longest, len(self.video[index]))
        return self.video[index]


def make_video(length: int) -> Tensor:
    return torch.randint(0, 250, (length, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 12), clip_length=st.integers(1, 15))
def test_every_frame_gets_its_labels_whatever_the_clip_length(length: int, clip_length: int) -> None:
    video = make_video(length)
    segmenter = Brightness()
    labels = predict_labels(segmenter, video, clip_length=clip_length)
    assert labels.dtype == torch.int64
    assert torch.equal(labels, video[:, 0].long())
    assert max(segmenter.clip_lengths) <= clip_length


def test_clips_are_consecutive_bytes() -> None:
    video = make_video(7)
    clips = list(iter_labels(Brightness(), video, clip_length=3))
    assert [len(clip) for clip in clips] == [3, 3, 1]
    assert all(clip.dtype == torch.uint8 for clip in clips)
    assert torch.equal(torch.cat(clips), video[:, 0])


def test_a_lazy_video_is_never_read_whole() -> None:
    video = LazyVideo(make_video(9))
    assert torch.equal(predict_labels(Brightness(), video, clip_length=2), video.video[:, 0].long())
    assert video.longest == 2


def test_a_stream_is_used_where_there_is_one() -> None:
    class Streaming(Brightness):
        def stream(self, video: Tensor, /, *, clip_length: int) -> Iterator[Tensor]:
            assert not torch.is_grad_enabled()
            for clip in video.split(clip_length):
                yield self(clip.flip(-1).unsqueeze(0).float() / 255)

    video = make_video(5)
    labels = predict_labels(Streaming(), video, clip_length=2)
    assert torch.equal(labels, video[:, 0].flip(-1).long())


def test_no_graph_is_kept_and_the_caller_keeps_its_grad_mode() -> None:
    net = PerFrame(nn.Conv2d(3, 4, 1), num_classes=4, logits_of=lambda out: out)
    for logits in iter_logits(net, make_video(3), clip_length=2):
        assert not logits.requires_grad
        assert torch.is_grad_enabled()


def test_modules_predict_in_eval_mode_and_return_to_their_own() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    net[1].train(False)
    segmenter = PerFrame(net, num_classes=4, logits_of=lambda out: out)
    frozen, free = nn.BatchNorm2d(4), segmenter
    mean = net[1].running_mean.clone()
    predict_labels(segmenter, make_video(2), clip_length=2)
    assert torch.equal(net[1].running_mean, mean)
    assert free.training
    assert net.training
    assert not net[1].training
    with evaluating(frozen):
        assert not frozen.training
    assert frozen.training


def test_of_equal_scores_the_lowest_class_wins() -> None:
    segmenter = PerFrame(lambda x: x.new_zeros(len(x), 6, *x.shape[-2:]), num_classes=6, logits_of=lambda out: out)
    assert (predict_labels(segmenter, make_video(1), clip_length=1) == 0).all()


def test_nan_logits_are_named_with_their_frames() -> None:
    def net(images: Tensor) -> Tensor:
        return torch.where(images == images.max(), torch.nan, images)

    video = torch.zeros(6, 3, 4, 4, dtype=torch.uint8)
    video[4, 1, 2, 3] = 9
    segmenter = PerFrame(lambda x: net(x) if x.max() > 0 else x, num_classes=3, logits_of=lambda out: out)
    with pytest.raises(DataError, match="frames 3 to 5: segmenter: expected numbers, got NaN in the logits"):
        predict_labels(segmenter, video, clip_length=3)


def test_nan_of_logits_alone_is_named_too() -> None:
    class Breaking(Brightness):
        def __call__(self, frames: Tensor, /) -> Tensor:
            logits = super().__call__(frames)
            return logits / torch.tensor(float(len(self.clip_lengths) != 2))

    for size in (None, (3, 4)):
        with pytest.raises(DataError, match="frames 2 to 3: segmenter: expected numbers, got NaN in the logits"):
            list(iter_labels(Breaking(), make_video(5), clip_length=2, output_size=size))


def test_bad_videos_are_refused() -> None:
    segmenter = Brightness()
    with pytest.raises(ShapeError, match="video: expected at least one frame"):
        predict_labels(segmenter, make_video(3)[:0], clip_length=2)
    with pytest.raises(ShapeError, match=r"video: expected \(t 3 h w\)"):
        predict_labels(segmenter, make_video(3)[0], clip_length=2)
    with pytest.raises(DTypeError, match=r"video: expected uint8 frames, got torch\.float32"):
        predict_labels(segmenter, make_video(3).float(), clip_length=2)
    with pytest.raises(DTypeError, match="video: expected uint8 frames"):
        predict_labels(segmenter, LazyVideo(make_video(3).float()), clip_length=2)
    with pytest.raises(DTypeError, match=r"got str; mvcseg.data.open_video\(path\) opens"):
        predict_labels(segmenter, "clip.mp4", clip_length=2)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="clip_length: expected an integer of at least 1"):
        predict_labels(segmenter, make_video(3), clip_length=0)


def test_more_classes_than_bytes_hold_are_refused() -> None:
    segmenter = Brightness()
    segmenter.num_classes = 256
    with pytest.raises(ConfigError, match="num_classes: expected an integer from 1 to 255"):
        predict_labels(segmenter, make_video(1), clip_length=1)


def test_logits_that_do_not_fit_the_frames_are_refused() -> None:
    class Small(Brightness):
        def __call__(self, frames: Tensor, /) -> Tensor:
            return super().__call__(frames)[..., ::2]

    with pytest.raises(ShapeError, match=r"logits: expected .* with w=7 from frames"):
        predict_labels(Small(), make_video(2), clip_length=2)

    class Short(Brightness):
        def stream(self, video: Tensor, /, *, clip_length: int) -> Iterator[Tensor]:
            yield self(video[:1].unsqueeze(0).float() / 255)

    with pytest.raises(ShapeError, match="expected labels for 4 frames, got 1"):
        predict_labels(Short(), make_video(4), clip_length=2)


@pytest.mark.cuda
def test_labels_come_back_to_the_videos_device(device: torch.device) -> None:
    net = PerFrame(nn.Conv2d(3, 4, 1), num_classes=4, logits_of=lambda out: out).to(device)
    assert predict_labels(net, make_video(3), clip_length=2).device.type == "cpu"
    assert predict_labels(net, make_video(3).to(device), clip_length=2).device.type == device.type


@pytest.mark.parametrize("change", [lambda x: x[..., :-1], lambda x: x[:, :, :-1], lambda x: x[0]])
def test_a_stream_whose_logits_do_not_fit_is_refused(change: Callable[[Tensor], Tensor]) -> None:
    class Streaming(Brightness):
        def stream(self, video: Tensor, /, *, clip_length: int) -> Iterator[Tensor]:
            yield change(self(video[None].float() / 255))

    with pytest.raises(ShapeError, match="logits: expected"):
        predict_labels(Streaming(), make_video(3), clip_length=2)


def test_a_bare_network_is_no_segmenter() -> None:
    with pytest.raises(DTypeError, match=r"segmenter: expected a callable with num_classes, got Conv2d; .*PerFrame"):
        predict_labels(nn.Conv2d(3, 4, 1), make_video(1), clip_length=1)  # type: ignore[arg-type]


def make_net() -> PerFrame:
    torch.manual_seed(0)
    return PerFrame(nn.Conv2d(3, 4, 3, padding=1), num_classes=4, logits_of=lambda out: out * 20)


@pytest.mark.parametrize("size", [(5, 7), (10, 14), (3, 4), (9, 5)])
def test_labels_of_another_size_are_those_of_resized_probabilities(size: tuple[int, int]) -> None:
    net, video = make_net(), make_video(5)
    probabilities = net(video.unsqueeze(0).float() / 255).softmax(dim=2)
    expected = resize_scores(probabilities, size=size).argmax(dim=2)[0]
    clips = list(iter_labels(net, video, clip_length=2, output_size=size))
    labels = torch.cat(clips)
    assert all(clip.dtype == torch.uint8 for clip in clips)
    assert torch.equal(labels.long(), expected)
    assert size == (5, 7) or len(labels.unique()) > 1


class OwnLabels(Brightness):
    """Gives class ids itself; ``wrong`` changes their size."""

    wrong = 0

    def stream_labels(
        self, video: Tensor, /, *, clip_length: int, output_size: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        assert not torch.is_grad_enabled()
        assert output_size is not None
        for clip in video.split(clip_length):
            yield clip[:, 0, :1, :1].expand(-1, output_size[0], output_size[1] + self.wrong)


def test_a_segmenters_own_labels_are_used_at_the_size_asked_for() -> None:
    video, segmenter = make_video(5), OwnLabels()
    clips = list(iter_labels(segmenter, video, clip_length=2, output_size=(3, 4)))
    assert [tuple(clip.shape) for clip in clips] == [(2, 3, 4), (2, 3, 4), (1, 3, 4)]
    assert torch.equal(torch.cat(clips)[:, 0, 0], video[:, 0, 0, 0])
    assert segmenter.clip_lengths == []
    assert predict_labels(segmenter, video, clip_length=2).shape == (5, 5, 7)
    segmenter.wrong = 1
    with pytest.raises(ShapeError, match="labels: expected"):
        list(iter_labels(segmenter, video, clip_length=2, output_size=(3, 4)))


class OwnClipLabels(Brightness):
    """Gives class ids of clips itself; ``wrong`` leaves out frames, ``bad`` breaks off at a red of that value."""

    wrong, bad = 0, -1.0

    def clip_labels(self, frames: Tensor, /, *, output_size: tuple[int, int]) -> Tensor:
        assert not torch.is_grad_enabled()
        red = (frames[:, :, 0] * 255).round().to(torch.uint8)
        if bool((red[:, :, 0, 0] == self.bad).any()):
            raise DataError("segmenter: expected numbers")
        return red[:, self.wrong :, :1, :1].expand(-1, -1, *output_size)


def test_a_segmenters_own_clip_labels_are_used_at_the_size_asked_for() -> None:
    video, segmenter = make_video(5), OwnClipLabels()
    clips = list(iter_labels(segmenter, video, clip_length=2, output_size=(3, 4)))
    assert [tuple(clip.shape) for clip in clips] == [(2, 3, 4), (2, 3, 4), (1, 3, 4)]
    assert torch.equal(torch.cat(clips)[:, 0, 0], video[:, 0, 0, 0])
    assert predict_labels(segmenter, video, clip_length=2).shape == (5, 5, 7)
    assert segmenter.clip_lengths == []


def test_bad_clip_labels_are_named() -> None:
    video, segmenter = make_video(5), OwnClipLabels()
    segmenter.bad = float(video[3, 0, 0, 0])
    with pytest.raises(DataError, match="frames 2 to 3: segmenter: expected numbers"):
        list(iter_labels(segmenter, video, clip_length=2))
    segmenter.wrong, segmenter.bad = 1, -1.0
    with pytest.raises(ShapeError, match="labels: expected"):
        list(iter_labels(segmenter, video, clip_length=2))


class Inverted(PerFrame):
    """Changes what logits are."""

    def forward(self, frames: Tensor, /) -> Tensor:
        return -super().forward(frames)


class Streamed(PerFrame):
    """Sees whole videos."""

    def stream(self, video: Tensor, /, *, clip_length: int) -> Iterator[Tensor]:
        for clip in video.split(clip_length):
            yield -self(clip.unsqueeze(0).float() / 255)


class InvertedOwn(OwnLabels):
    """Changes the stream of one with labels of its own."""

    def stream(self, video: Tensor, /, *, clip_length: int) -> Iterator[Tensor]:
        for clip in video.split(clip_length):
            yield -self(clip.unsqueeze(0).float() / 255)


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("kind", [Inverted, Streamed])
def test_a_subclass_that_changes_the_logits_has_its_logits_used(kind: type[PerFrame], wrap: bool) -> None:
    video = make_video(5)
    net: Segmenter = kind(nn.Identity(), num_classes=3, logits_of=lambda out: out)
    net = MVCWrapper(net, mask=PatchMask(patch_size=2, ratio=0.5)) if wrap else net
    assert torch.equal(predict_labels(net, video, clip_length=2), video.long().argmin(dim=1))


def test_a_subclass_with_a_stream_of_its_own_has_its_stream_used() -> None:
    video = make_video(3)
    expected = (video[:, 0] == 0).long()  # all classes but the pixel's own tie
    assert torch.equal(predict_labels(InvertedOwn(), video, clip_length=2), expected)


def test_a_method_of_one_object_is_its_own_way() -> None:
    video, net = make_video(3), Inverted(nn.Identity(), num_classes=3, logits_of=lambda out: out)
    net.clip_labels = lambda frames, *, output_size: torch.full((*frames.shape[:2], *output_size), 2).byte()  # type: ignore[method-assign]
    assert bool((predict_labels(net, video, clip_length=2) == 2).all())


def test_a_forward_or_a_hook_of_one_object_has_its_logits_used() -> None:
    video = make_video(3)

    def made() -> PerFrame:
        return PerFrame(nn.Identity(), num_classes=3, logits_of=lambda out: out)

    hooked, replaced = made(), made()
    hooked.register_forward_hook(lambda module, arguments, logits: -logits)
    replaced.forward = lambda frames: -made()(frames)  # type: ignore[method-assign]
    assert torch.equal(predict_labels(made(), video, clip_length=2), video.long().argmax(dim=1))
    for net in (hooked, replaced):
        assert torch.equal(predict_labels(net, video, clip_length=2), video.long().argmin(dim=1))


class Delegate:
    """Stands for another segmenter, as `torch.compile`'s module does."""

    def __init__(self, inner: Segmenter) -> None:
        self._inner = inner
        self.calls = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def __call__(self, frames: Tensor, /) -> Tensor:
        self.calls += 1
        return self._inner(frames)


def test_of_what_a_delegate_hands_on_only_streams_are_used() -> None:
    video = make_video(3)
    for inner, calls in [(OwnClipLabels(), 2), (OwnLabels(), 0)]:
        delegate = Delegate(inner)
        segmenter: Segmenter = delegate  # type: ignore[assignment]
        assert torch.equal(predict_labels(segmenter, video, clip_length=2)[:, 0, 0], video[:, 0, 0, 0].long())
        assert delegate.calls == calls


def test_a_wrapper_has_what_is_wrapped_and_no_more() -> None:
    def names(segmenter: Segmenter) -> list[str]:
        wrapper = MVCWrapper(segmenter, mask=PatchMask(patch_size=8, ratio=0.5))
        return [name for name in ("stream", "stream_labels", "clip_labels") if hasattr(wrapper, name)]

    assert names(Brightness()) == []
    assert names(OwnClipLabels()) == ["clip_labels"]
    assert names(tiny_dvis("online")) == ["stream", "stream_labels"]


@pytest.mark.parametrize("output_size", [(0, 5), (-1, 4), (5, 0), (5,), (1, 2, 3)])
def test_bad_sizes_are_refused(output_size: tuple[int, int]) -> None:
    for segmenter in (make_net(), Brightness(), OwnLabels()):
        with pytest.raises(ConfigError, match=r"height: expected|width: expected|output_size: expected"):
            list(iter_labels(segmenter, make_video(2), clip_length=2, output_size=output_size))
    if len(output_size) == 2:
        with pytest.raises(ConfigError, match=r"height: expected|width: expected"):
            make_net().clip_labels(torch.rand(1, 1, 3, 5, 7), output_size=output_size)


def test_a_size_may_come_as_a_list() -> None:
    labels = list(iter_labels(make_net(), make_video(2), clip_length=2, output_size=[5, 7]))  # type: ignore[arg-type]
    assert torch.equal(torch.cat(labels).long(), predict_labels(make_net(), make_video(2), clip_length=2))


def test_labels_that_are_no_bytes_are_refused() -> None:
    class Floats(OwnClipLabels):
        def clip_labels(self, frames: Tensor, /, *, output_size: tuple[int, int]) -> Tensor:
            return super().clip_labels(frames, output_size=output_size).float()

    with pytest.raises(DTypeError, match=r"labels: expected uint8 from the segmenter's own method, got torch\.float32"):
        predict_labels(Floats(), make_video(2), clip_length=2)


def test_a_compiled_segmenter_is_called() -> None:
    calls = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        def run(*arguments: object) -> object:
            calls.append(1)
            return graph(*arguments)

        return run

    net, video = make_net(), make_video(3)
    expected = predict_labels(net, video, clip_length=2)
    net.compile(backend=backend)
    assert torch.equal(predict_labels(net, video, clip_length=2), expected)
    assert len(calls) >= 2


def test_a_stream_of_one_object_is_used() -> None:
    segmenter, video = OwnLabels(), make_video(3)
    segmenter.stream = InvertedOwn().stream  # type: ignore[attr-defined]
    assert torch.equal(predict_labels(segmenter, video, clip_length=2), (video[:, 0] == 0).long())


@pytest.mark.parametrize("side", [64, 40])
def test_impossible_classes_are_no_error_where_logits_shrink(side: int) -> None:
    logits = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    logits[:, 2] = -torch.inf
    logits[:, 1, : side // 2] = -torch.inf
    net = PerFrame(lambda images: logits, num_classes=3, logits_of=lambda out: out)
    video = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    expected = net(torch.zeros(1, 1, 3, 32, 32))[0].argmax(dim=1)
    assert torch.equal(predict_labels(net, video, clip_length=1), expected)


def test_every_model_that_ships_is_asked_for_its_labels() -> None:
    for segmenter, name in [
        (CompactSegmenter(3, width=8), "clip_labels"),
        (from_transformers(tiny_net("mask2former")), "clip_labels"),
        (from_transformers(tiny_net("segformer")), "clip_labels"),
        (from_transformers(tiny_net("videomt")), "stream_labels"),
        (tiny_dvis("offline"), "stream_labels"),
    ]:
        assert own_labels(segmenter, name) is not None
        assert own_labels(MVCWrapper(segmenter, mask=PatchMask(patch_size=8, ratio=0.5)), name) is not None


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("multiple_of", [1, 8])
@pytest.mark.parametrize("output_size", [None, (37, 50), (60, 91), (20, 31)])
def test_labels_of_an_image_model_are_the_largest_of_its_logits(
    output_size: tuple[int, int] | None, multiple_of: int, wrap: bool
) -> None:
    torch.manual_seed(1)
    coarse = nn.Conv2d(3, 9, 8, stride=4, padding=3)
    net = PerFrame(
        coarse, num_classes=9, logits_of=lambda out: out, mean=[0.5] * 3, std=[0.2] * 3, multiple_of=multiple_of
    )
    video = torch.randint(0, 256, (4, 3, 37, 50), dtype=torch.uint8)
    with torch.no_grad():
        logits = net(video.unsqueeze(0).float() / 255)[0].double()
    size = output_size or (37, 50)
    scores = logits if size == (37, 50) else resize_scores(logits.softmax(dim=1), size=size)
    segmenter = MVCWrapper(net, mask=PatchMask(patch_size=8, ratio=0.5)) if wrap else net
    labels = torch.cat(list(iter_labels(segmenter, video, clip_length=3, output_size=output_size)))
    best = scores.topk(2, dim=1).values
    is_clear = best[:, 0] - best[:, 1] > 1e-5
    assert float(is_clear.double().mean()) > 0.99
    assert torch.equal(labels.long()[is_clear], scores.argmax(dim=1)[is_clear])
    assert len(labels.unique()) > 4


@pytest.mark.parametrize("output_size", [(128, 160), (96, 100)])
def test_coarse_logits_are_never_enlarged_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, output_size: tuple[int, int]
) -> None:
    monkeypatch.setattr(score_windows, "_CPU_VALUES", 1 << 14)
    net = PerFrame(nn.Conv2d(3, 150, 16, stride=16), num_classes=150, logits_of=lambda out: out)
    video = torch.zeros(2, 3, 128, 160, dtype=torch.uint8)
    with Largest() as seen:
        list(iter_labels(net, video, clip_length=2, output_size=output_size))
    assert seen.values <= video.numel()  # the frames themselves; full-size logits are fifty times as large


def test_bad_nets_are_told_when_labels_are_asked_for() -> None:
    net = PerFrame(nn.Conv2d(3, 4, 1), num_classes=5, logits_of=lambda out: out)
    with pytest.raises(ShapeError, match=r"net: expected logits \(2 5 h w\)"):
        predict_labels(net, make_video(3), clip_length=2)
