from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from tiny_dvis import tiny_dvis, video
from torch import Tensor

import mvcseg
from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.models.dvis import DVIS
from mvcseg.models.dvis.causal import CausalState

CAUSAL = ["segmenter", "online", "first online"]


@pytest.fixture(scope="module", params=CAUSAL)
def model(request: pytest.FixtureRequest) -> DVIS:
    return tiny_dvis(request.param)


def test_labels_of_a_frame_are_those_of_a_video_that_ends_there(model: DVIS) -> None:
    frames = video(5)
    causal = list(model.stream_causal(frames))
    assert [x.shape for x in causal] == [(40, 60)] * 5
    for t, labels in enumerate(causal):
        assert labels.dtype == torch.uint8
        assert torch.equal(labels.long(), mvcseg.predict_labels(model, frames[: t + 1], clip_length=3)[-1])


def test_clips_give_clips_of_the_same_labels(model: DVIS) -> None:
    frames = video(5)
    expected = torch.stack(list(model.stream_causal(frames)))
    clips = list(model.stream_causal([frames[:2], frames[2:3], frames[3:]]))
    assert [len(clip) for clip in clips] == [2, 1, 2]
    assert torch.equal(torch.cat(clips), expected)
    mixed = list(model.stream_causal([frames[0], frames[1:]]))
    assert torch.equal(torch.cat([mixed[0][None], mixed[1]]), expected)


def test_a_state_handed_over_goes_on_without_a_seam(model: DVIS) -> None:
    frames, state = video(5), CausalState()
    expected = torch.stack(list(model.stream_causal(frames)))
    first = list(model.stream_causal(frames[:2], state=state))
    assert state.frames == 2
    rest = list(model.stream_causal(frames[2:], state=state))
    assert state.frames == 5
    assert torch.equal(torch.stack(first + rest), expected)


def test_labels_come_before_the_next_frame_is_asked_for(model: DVIS) -> None:
    asked = []

    def camera() -> Iterator[Tensor]:
        for t in itertools.count():
            asked.append(t)
            yield video(3)[t % 3]

    state = CausalState()
    labels = list(itertools.islice(model.stream_causal(camera(), state=state), 7))
    assert asked == list(range(7))
    assert state.frames == 7
    assert len(labels) == 7


def test_the_state_keeps_its_size_and_no_graph() -> None:
    model, state, sizes = tiny_dvis("online"), CausalState(), set()
    for _ in model.stream_causal(video(4), state=state):
        held = (*vars(state).values(), *vars(state.tracker).values())
        tensors = [x for x in held if isinstance(x, Tensor)]
        assert len(tensors) == 3
        assert not any(x.requires_grad for x in tensors)
        sizes.add(tuple(x.untyped_storage().nbytes() for x in tensors))
    assert len(sizes) == 1


def test_labels_have_the_size_asked_for(model: DVIS) -> None:
    for labels in model.stream_causal(video(2), output_size=(30, 91)):
        assert labels.shape == (30, 91)


def test_classes_are_in_the_data_sets_order() -> None:
    order = (3, 0, 5, 1, 4, 2)
    trained = torch.stack(list(tiny_dvis("online").stream_causal(video(2))))
    moved = torch.stack(list(tiny_dvis("online", class_order=order).stream_causal(video(2))))
    assert torch.equal(moved.long(), torch.tensor(order)[trained.long()])


def test_grad_mode_of_the_caller_stays() -> None:
    with torch.enable_grad():
        for labels in tiny_dvis("online").stream_causal(video(2)):
            assert torch.is_grad_enabled()
            assert not labels.requires_grad


@pytest.mark.parametrize("kind", ["offline", "first offline"])
def test_a_refiner_is_refused_and_can_be_taken_off(kind: str) -> None:
    model = tiny_dvis(kind)
    with pytest.raises(ConfigError, match=r"a refiner needs the whole video.*model\.refiner = None"):
        next(model.stream_causal(video(2)))
    model.refiner = None
    online = tiny_dvis(kind.replace("offline", "online"))
    assert torch.equal(
        torch.stack(list(model.stream_causal(video(2)))), torch.stack(list(online.stream_causal(video(2))))
    )


@pytest.mark.parametrize("item", [torch.zeros(40, 60), torch.zeros(1, 1, 3, 40, 60), torch.zeros(4, 40, 60)])
def test_items_that_are_no_frames_are_refused(model: DVIS, item: Tensor) -> None:
    with pytest.raises(ShapeError, match="frames: expected"):
        next(model.stream_causal([item.byte()]))


def test_frames_that_are_no_bytes_are_refused(model: DVIS) -> None:
    with pytest.raises(DTypeError, match=r"expected uint8 .*, got torch\.float32"):
        next(model.stream_causal(video(1).float()))


def test_nan_is_reported_with_the_number_of_its_frame() -> None:
    model, state = tiny_dvis("online"), CausalState()
    next(model.stream_causal(video(1), state=state))
    with torch.no_grad():
        model.tracker.mask_feature_proj.bias.fill_(torch.nan)
    with pytest.raises(DataError, match="NaN in the scores of frame 1"):
        next(model.stream_causal(video(1), state=state))
