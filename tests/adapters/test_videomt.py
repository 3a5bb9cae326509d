from __future__ import annotations

import pytest
import torch
from tiny_transformers import NUM_CLASSES, tiny_net
from torch import Tensor

import mvcseg
from mvcseg.adapters import VideomtSegmenter, VideomtState, from_transformers
from mvcseg.causal_prediction import is_causal
from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.ops.semantic_decoding import strip_labels


@pytest.fixture
def segmenter() -> VideomtSegmenter:
    made = from_transformers(tiny_net("videomt"))
    assert isinstance(made, VideomtSegmenter)
    return made


def stored_video(length: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (length, 3, 36, 44), generator=generator, dtype=torch.uint8)


@torch.no_grad()
def test_the_stream_does_not_depend_on_the_clip_length(segmenter: VideomtSegmenter) -> None:
    video = stored_video()
    whole = torch.cat(list(segmenter.stream(video, clip_length=7)), dim=1)
    assert whole.shape == (1, 7, NUM_CLASSES, 36, 44)
    for clip_length in (1, 2, 3, 100):
        clips = list(segmenter.stream(video, clip_length=clip_length))
        assert [clip.shape[1] for clip in clips] == [len(part) for part in torch.split(video, clip_length)]
        assert torch.equal(torch.cat(clips, dim=1), whole)


@torch.no_grad()
def test_the_stream_of_a_video_is_one_call_on_all_of_it(segmenter: VideomtSegmenter) -> None:
    video = stored_video(4)
    whole = segmenter(video.unsqueeze(0).float() / 255)
    streamed = torch.cat(list(segmenter.stream(video, clip_length=2)), dim=1)
    assert torch.allclose(streamed, whole, atol=1e-4)
    apart = torch.cat([segmenter(part.unsqueeze(0).float() / 255) for part in torch.split(video, 2)], dim=1)
    assert torch.allclose(apart[:, :2], whole[:, :2], atol=1e-4)
    assert not torch.allclose(apart[:, 2:], whole[:, 2:], atol=1e-3)


def test_labels_of_whole_videos_do_not_depend_on_the_clip_length(segmenter: VideomtSegmenter) -> None:
    video = stored_video()
    labels = mvcseg.predict_labels(segmenter, video, clip_length=7)
    for clip_length in (1, 3):
        assert torch.equal(mvcseg.predict_labels(segmenter, video, clip_length=clip_length), labels)
    wrapped = mvcseg.MVCWrapper(segmenter, mask=mvcseg.PatchMask(patch_size=8, ratio=0.5))
    assert torch.equal(mvcseg.predict_labels(wrapped, video, clip_length=3), labels)
    assert len(labels.unique()) > 1


def test_labels_are_the_best_of_the_scores(segmenter: VideomtSegmenter) -> None:
    video = stored_video(3)
    labels = torch.cat(list(segmenter.stream_labels(video, clip_length=2)))
    scores = torch.cat(list(segmenter.stream(video, clip_length=2)), dim=1)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.long(), scores[0].argmax(dim=1))
    larger = torch.cat(list(segmenter.stream_labels(video, clip_length=2, output_size=(72, 88))))
    assert larger.shape == (3, 72, 88)


def test_state_carries_a_video_across_calls(segmenter: VideomtSegmenter) -> None:
    video = stored_video(5)
    at_once = torch.stack(list(segmenter.stream_causal(video)))
    state = VideomtState()
    first = list(segmenter.stream_causal(video[:2], state=state))
    assert state.frames == 2
    assert state.queries is not None
    assert state.queries.shape == (1, 6, 32)
    second = list(segmenter.stream_causal([video[2:5]], state=state))
    assert torch.equal(torch.cat([torch.stack(first), second[0]]), at_once)
    begun_anew = VideomtState()
    list(segmenter.stream_causal(video[2:], state=begun_anew))
    assert begun_anew.queries is not None
    assert not torch.allclose(begun_anew.queries, state.queries, atol=1e-3)


def test_frames_may_come_without_an_end(segmenter: VideomtSegmenter) -> None:
    def camera() -> object:
        while True:
            yield from stored_video(2)

    labels = segmenter.stream_causal(camera())
    assert [next(labels).shape for _ in range(5)] == [(36, 44)] * 5
    assert is_causal(segmenter)


def test_streams_keep_no_graph(segmenter: VideomtSegmenter) -> None:
    state = VideomtState()
    list(segmenter.stream_causal(stored_video(2), state=state))
    assert state.queries is not None
    assert not state.queries.requires_grad


@pytest.mark.parametrize("queries", [False, True])
def test_gradients_reach_encoder_queries_and_the_path_between_frames(
    segmenter: VideomtSegmenter, queries: bool
) -> None:
    frames = (stored_video(3).unsqueeze(0).float() / 255).requires_grad_()
    if queries:
        clip = segmenter.predict_queries(frames)
        last = sum(layer.masks.logits[:, -1].square().mean() for layer in clip.layers)
    else:
        last = segmenter(frames)[:, -1].square().mean()
    last.backward()  # the loss looks at the last frame alone
    assert frames.grad is not None
    assert (frames.grad.abs().amax(dim=(0, 2, 3, 4)) > 0).all()  # and yet the first one matters
    net = segmenter.net
    for parameter in (
        net.query.weight,
        net.query_updater.weight,
        net.query_updater.bias,
        net.embeddings.patch_embeddings.projection.weight,
        net.embeddings.position_embeddings.weight,
        net.layers[0].attention.q_proj.weight,
        net.layers[-1].attention.q_proj.weight,
    ):
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0


def test_layers_ahead_of_a_block_are_read_without_a_norm(segmenter: VideomtSegmenter) -> None:
    net, frames = segmenter.net, stored_video(2).unsqueeze(0).float() / 255
    first = segmenter.predict_queries(frames).layers[0]
    expected = net.class_predictor(net.query.weight)  # the first frame's queries before any block
    assert torch.allclose(first.class_logits[0, 0], expected, atol=1e-5)
    assert not torch.allclose(first.class_logits[0, 1], expected, atol=1e-3)


def test_a_target_keeps_the_query_of_its_first_appearance(segmenter: VideomtSegmenter) -> None:
    assert segmenter.matching == "first"
    assert from_transformers(tiny_net("eomt")).matching == "frame"


def test_bad_streams_are_refused(segmenter: VideomtSegmenter) -> None:
    video = stored_video(2)
    with pytest.raises(ConfigError, match="clip_length"):
        next(segmenter.stream(video, clip_length=0))
    with pytest.raises(ShapeError, match="at least one frame"):
        next(segmenter.stream_labels(video[:0], clip_length=1))
    with pytest.raises(DTypeError, match="uint8"):
        next(segmenter.stream(video.float(), clip_length=1))
    with pytest.raises(DTypeError, match="state: expected a VideomtState or None, got dict"):
        next(segmenter.stream_causal(video, state={}))
    with pytest.raises(DTypeError, match=r"frames: expected uint8 tensors, got torch\.float32"):
        next(segmenter.stream_causal(video.float()))
    with pytest.raises(DTypeError, match="frames: expected uint8 tensors, got str"):
        next(segmenter.stream_causal(["frame"]))
    with pytest.raises(ShapeError, match="frames: expected no empty axis"):
        next(segmenter.stream_causal([video[:0]]))
    with pytest.raises(ShapeError, match=r"frames: expected \(t 3 h w\)"):
        next(segmenter.stream_causal([video[0, :2]]))


def test_scores_that_are_no_numbers_name_the_frame(segmenter: VideomtSegmenter) -> None:
    with torch.no_grad():
        segmenter.net.query_updater.bias.fill_(torch.nan)
    labels = segmenter.stream_causal(stored_video(2))
    next(labels)
    with pytest.raises(DataError, match="NaN in the scores of frame 1"):
        next(labels)


def test_no_labels_of_a_clip_with_such_scores_are_given(
    segmenter: VideomtSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(masks: Tensor, table: Tensor, **sizes: tuple[int, int]) -> tuple[Tensor, Tensor]:
        decoded.append(len(decoded))
        return strip_labels(masks, table, **sizes)[0], torch.tensor(decoded[-1] != 3)

    decoded: list[int] = []
    monkeypatch.setattr("mvcseg.adapters.videomt.semantic_labels", decode)
    labels = segmenter.stream_labels(stored_video(5), clip_length=2)
    assert len(next(labels)) == 2
    with pytest.raises(DataError, match="NaN in the scores of frame 3"):
        next(labels)
