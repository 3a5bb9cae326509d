"""What must hold for every kind of DVIS model, whatever its weights."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny_dvis import CLASSES, KINDS, as_input, tiny_dvis, video
from torch import Tensor
from torch.nn import functional

import mvcseg
from mvcseg.losses import PixelObjective
from mvcseg.models.dvis import DVIS
from mvcseg.segmenter import IMAGENET_MEAN
from mvcseg.tta import MeanTTA, View, multiscale_flip, vote_labels


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> DVIS:
    return tiny_dvis(request.param)


@torch.no_grad()
def labels_of_one_call(model: DVIS, frames: Tensor) -> Tensor:
    return model(as_input(frames))[0].argmax(dim=1)


def test_frames_decide_and_several_classes_win(model: DVIS) -> None:
    labels = labels_of_one_call(model, video(4))
    assert labels.shape == (4, 40, 60)
    assert len(labels.unique()) > 2
    assert not torch.equal(labels, labels_of_one_call(model, video(4, seed=6)))


@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("has_gradients", [False, True])
def test_labels_do_not_depend_on_the_way_they_are_asked_for(model: DVIS, length: int, has_gradients: bool) -> None:
    frames = video(length)
    expected = labels_of_one_call(model, frames)
    with torch.set_grad_enabled(has_gradients):
        for clip_length in {1, 3, length, length + 5}:
            logits = list(model.stream(frames, clip_length=clip_length))
            labels = list(model.stream_labels(frames, clip_length=clip_length))
            sizes = [min(clip_length, length - start) for start in range(0, length, clip_length)]
            assert [x.shape[1] for x in logits] == [len(x) for x in labels] == sizes
            assert {x.dtype for x in labels} == {torch.uint8}
            assert torch.equal(torch.cat(logits, dim=1)[0].argmax(dim=1), expected)
            assert torch.equal(torch.cat(labels).long(), expected)
            assert torch.equal(mvcseg.predict_labels(model, frames, clip_length=clip_length), expected)
            clips = list(mvcseg.iter_labels(model, frames, clip_length=clip_length))
            assert torch.equal(torch.cat(clips).long(), expected)
            assert torch.is_grad_enabled() == has_gradients
            assert not any(x.requires_grad for x in logits)


@pytest.mark.parametrize("clip_length", [1, 3, 9])
@torch.no_grad()
def test_streamed_log_scores_are_those_of_one_call_bit_for_bit(model: DVIS, clip_length: int) -> None:
    frames = video(5)
    streamed = torch.cat(list(model.stream(frames, clip_length=clip_length)), dim=1)
    assert torch.equal(streamed, model(as_input(frames)))


@torch.no_grad()
def test_a_batch_is_its_items_one_by_one_bit_for_bit(model: DVIS) -> None:
    clips = torch.cat([as_input(video(3, seed=seed)) for seed in (5, 6, 7)])
    together = model(clips)
    assert torch.equal(together, torch.cat([model(clip[None]) for clip in clips]))


@torch.no_grad()
def test_padding_is_the_mean_colour_right_and_below(model: DVIS) -> None:
    frames = as_input(video(2)).double()
    model = tiny_like(model, torch.float64)
    below, right = -40 % 32, -60 % 32
    padded = torch.tensor(IMAGENET_MEAN, dtype=torch.float64).view(3, 1, 1).expand(1, 2, 3, 64, 64).clone()
    padded[..., :40, :60] = frames
    assert torch.equal(functional.pad(frames, (0, right, 0, below))[..., :40, :60], frames)
    torch.testing.assert_close(model(frames), model(padded)[..., :40, :60], rtol=1e-9, atol=1e-9)


def tiny_like(model: DVIS, dtype: torch.dtype) -> DVIS:
    version = "first " if model.sem_seg_head.predictor.reid_embed is None else ""
    kind = "segmenter" if model.tracker is None else "online" if model.refiner is None else "offline"
    return tiny_dvis(kind if kind == "segmenter" else version + kind, dtype=dtype)


@torch.no_grad()
def test_log_scores_are_the_logarithm_of_scores(model: DVIS) -> None:
    frames = as_input(video(3))
    scores = model.scores(frames, output_size=(40, 60))
    assert (scores >= 0).all()
    torch.testing.assert_close(model(frames), scores.log())


@pytest.mark.parametrize("output_size", [(20, 30), (40, 120), (73, 101), (1, 1)])
@torch.no_grad()
def test_labels_at_any_size_are_the_best_scores_at_that_size(model: DVIS, output_size: tuple[int, int]) -> None:
    frames = video(3)
    scores = model.scores(as_input(frames), output_size=output_size)[0]
    assert scores.shape == (3, CLASSES, *output_size)
    labels = torch.cat(list(model.stream_labels(frames, clip_length=2, output_size=output_size)))
    assert torch.equal(labels.long(), scores.argmax(dim=1))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_classes_come_out_in_the_data_sets_order(kind: str) -> None:
    order = (3, 0, 5, 1, 4, 2)
    frames = video(3)
    trained = tiny_dvis(kind, dtype=torch.float64)(as_input(frames).double())
    permuted = tiny_dvis(kind, class_order=order, dtype=torch.float64)
    moved = permuted(as_input(frames).double())
    for index, data_set_class in enumerate(order):
        torch.testing.assert_close(moved[:, :, data_set_class], trained[:, :, index], rtol=1e-12, atol=1e-12)
    expected = torch.tensor(order)[trained[0].argmax(dim=1)]
    assert torch.equal(torch.cat(list(permuted.stream_labels(frames, clip_length=2))).long(), expected)


def test_without_a_tracker_frames_do_not_see_each_other() -> None:
    model, frames = tiny_dvis("segmenter"), video(4)
    alone = torch.cat([labels_of_one_call(model, frame[None]) for frame in frames])
    assert torch.equal(labels_of_one_call(model, frames), alone)


@pytest.mark.parametrize("kind", ["online", "offline", "first online", "first offline"])
@torch.no_grad()
def test_with_a_tracker_later_frames_change_the_scores_of_earlier_ones(kind: str) -> None:
    model, frames = tiny_dvis(kind), as_input(video(4))
    assert not torch.equal(model(frames)[:, :2], model(frames[:, :2]))


def test_recording_gradients_changes_the_scores_by_rounding_only(model: DVIS) -> None:
    exact, frames = tiny_like(model, torch.float64), as_input(video(4)).double()
    with torch.no_grad():
        expected = exact(frames)
    recorded = exact(frames)
    assert recorded.requires_grad
    torch.testing.assert_close(recorded.detach(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_weight_that_decides(kind: str) -> None:
    model, frames = tiny_dvis(kind), as_input(video(3))
    labels = torch.randint(CLASSES, (1, 3, 40, 60), generator=torch.Generator().manual_seed(0))
    PixelObjective()(model, frames, labels).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    missed = {name for name in dict(model.named_parameters()) if name not in reached}
    silent = {
        "segmenter": ("reid_embed",),
        "online": ("predictor.class_embed", "predictor.mask_embed"),
        "offline": ("predictor.class_embed", "predictor.mask_embed", "tracker.mask", "activation_proj.bias"),
    }[kind.removeprefix("first ")]
    assert not {name for name in missed if not any(part in name for part in silent)}
    assert any(name.startswith("backbone") for name in reached)
    assert model.tracker is None or any(name.startswith("tracker") for name in reached)


def test_a_fresh_call_remembers_nothing(model: DVIS) -> None:
    first = labels_of_one_call(model, video(3))
    labels_of_one_call(model, video(5, seed=8))
    list(itertools.islice(model.stream_labels(video(5, seed=9), clip_length=2), 1))
    assert torch.equal(labels_of_one_call(model, video(3)), first)


def test_prediction_leaves_the_mode_of_every_part(model: DVIS) -> None:
    model = tiny_like(model, torch.float32).train()
    model.backbone.eval()
    modes = [part.training for part in model.modules()]
    mvcseg.predict_labels(model, video(2), clip_length=1)
    assert [part.training for part in model.modules()] == modes


def test_a_stored_video_is_read_clip_by_clip(model: DVIS) -> None:
    frames, longest = video(7), [0]

    class Reader:
        def __len__(self) -> int:
            return len(frames)

        def __getitem__(self, index: slice) -> Tensor:
            clip = frames[index]
            longest[0] = max(longest[0], len(clip))
            return clip

    labels = torch.cat(list(model.stream_labels(Reader(), clip_length=2)))
    assert torch.equal(labels.long(), labels_of_one_call(model, frames))
    assert longest == [2]


def test_consistency_training_runs_on_it(model: DVIS) -> None:
    model = tiny_like(model, torch.float32).train()
    mvc = mvcseg.MVCWrapper(model, mask=mvcseg.PatchMask(patch_size=16, ratio=0.5), objective=PixelObjective())
    labels = torch.randint(CLASSES, (1, 2, 40, 60), generator=torch.Generator().manual_seed(0))
    terms = []
    for term in mvc.loss_terms(as_input(video(2)), labels):
        term.backward()
        terms.append(term.item())
    assert len(terms) == 2
    assert terms[0] != terms[1]
    assert model.backbone.stages[0].weight.grad.abs().sum() > 0
    expected = mvcseg.predict_labels(model, video(3), clip_length=2)
    assert torch.equal(mvcseg.predict_labels(mvc, video(3), clip_length=2), expected)


def test_votes_means_and_choices_take_it(model: DVIS) -> None:
    frames = video(3)
    labels = labels_of_one_call(model, frames)
    assert torch.equal(vote_labels(model, frames, views=[View()], clip_length=2), labels)
    votes = vote_labels(model, frames, views=multiscale_flip((1.0, 1.2)), clip_length=2)
    assert votes.shape == labels.shape
    mirrored = vote_labels(model, frames.flip(-1), views=[View(flip=True)], clip_length=2)
    assert torch.equal(mirrored, labels.flip(-1))
    with torch.no_grad():
        mean = MeanTTA(model, [View()])(as_input(frames))
    torch.testing.assert_close(mean.exp(), model(as_input(frames)).detach().softmax(dim=2))
    pytest.importorskip("cv2")
    from mvcseg.ensemble.flow_ssim import select_model
    from mvcseg.flow import FarnebackFlow

    noise = torch.randint(CLASSES, labels.shape, generator=torch.Generator().manual_seed(0))
    chosen = select_model(frames, {"noise": noise, "dvis": labels}, num_classes=CLASSES, flow=FarnebackFlow())
    assert chosen.name == "dvis"
