from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_transformers import QUERY_KINDS, tiny_net
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mvcseg import iter_labels
from mvcseg.adapters import QuerySegmenter, from_transformers, predict_queries, set_objective
from mvcseg.adapters.query_segmenter import FrameLayer, log_of, per_frame, query_segmenter
from mvcseg.errors import ConfigError, DataError, DTypeError
from mvcseg.models.dvis.semantic import semantic_scores


def clip(*sizes: int, seed: int = 0) -> Tensor:
    return torch.rand(*sizes, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


class TwoQueries(nn.Module):
    """A net whose two queries say: certainly class 0, on the left; certainly class 1, everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    @staticmethod
    def layers(net: nn.Module, images: Tensor, *, every_layer: bool, generators: object) -> list[FrameLayer]:
        count, height, width = images.shape[0] * images.shape[1], images.shape[-2] // 4, images.shape[-1] // 4
        classes = torch.tensor([[50.0, 0.0, 0.0], [0.0, 50.0, 0.0]]).expand(count, -1, -1)
        masks = torch.zeros(count, 2, height, width)
        masks[:, 0, :, : width // 2], masks[:, 0, :, width // 2 :] = 3.0, -3.0
        return [FrameLayer(classes, masks)]


def test_scores_by_hand() -> None:
    segmenter = QuerySegmenter(TwoQueries(), layers_of=TwoQueries.layers, class_order=[0, 1])
    scores = segmenter(torch.rand(1, 1, 3, 32, 64)).exp()[0, 0]
    assert torch.allclose(scores[1], torch.full((32, 64), 0.5), atol=1e-5)
    assert torch.allclose(scores[0, :, :20], torch.tensor(3.0).sigmoid().expand(32, 20), atol=1e-5)
    assert torch.allclose(scores[0, :, -20:], torch.tensor(-3.0).sigmoid().expand(32, 20), atol=1e-5)
    swapped = QuerySegmenter(TwoQueries(), layers_of=TwoQueries.layers, class_order=[1, 0])
    assert torch.equal(swapped(torch.rand(1, 1, 3, 32, 64)).exp()[0, 0], scores.flip(0))


@pytest.mark.parametrize("kind", [kind for kind in QUERY_KINDS if kind != "videomt"])
@pytest.mark.parametrize("output_size", [(40, 70), (61, 90)])
def test_labels_are_the_largest_of_the_scores(kind: str, output_size: tuple[int, int]) -> None:
    segmenter = from_transformers(tiny_net(kind)).eval()
    frames = clip(1, 3, 3, 40, 70)
    with torch.no_grad():
        layer = segmenter.layers(segmenter.normalise(frames), every_layer=False)[-1]
        whole = [semantic_scores(*pair, size=(40, 70), output_size=output_size) for pair in per_frame(layer)]
        if output_size == (40, 70):
            assert torch.allclose(segmenter(frames)[0].exp(), torch.stack(whole), atol=1e-6)
    labels = segmenter.clip_labels(frames, output_size=output_size)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels[0].long(), torch.stack(whole).argmax(dim=1))
    video = (frames[0] * 255).round().to(torch.uint8)
    expected = segmenter.clip_labels(video[None].float() / 255, output_size=output_size)[0]
    assert torch.equal(torch.cat(list(iter_labels(segmenter, video, clip_length=2, output_size=output_size))), expected)


def test_broken_scores_are_refused_where_labels_are_asked_for() -> None:
    segmenter = QuerySegmenter(TwoQueries(), layers_of=TwoQueries.layers, class_order=[0, 1])
    broken = QuerySegmenter(TwoQueries(), layers_of=_nan_in_frame_one, class_order=[0, 1])
    video = torch.zeros(5, 3, 32, 64, dtype=torch.uint8)
    labels = torch.cat(list(iter_labels(segmenter, video, clip_length=2)))
    assert bool((labels[:, :, :20] == 0).all())
    assert bool((labels[:, :, -20:] == 1).all())
    with pytest.raises(DataError, match="frames 0 to 1: segmenter: expected numbers, got NaN"):
        list(iter_labels(broken, video, clip_length=2))


def _nan_in_frame_one(net: nn.Module, images: Tensor, **asked: Any) -> list[FrameLayer]:
    (layer,) = TwoQueries.layers(net, images, **asked)
    layer.masks[1, 0, 3, 3] = torch.nan
    return [layer]


def test_frames_are_normalised_then_padded_with_the_mean() -> None:
    segmenter = QuerySegmenter(TwoQueries(), layers_of=TwoQueries.layers, class_order=[0, 1], multiple_of=16)
    frames = torch.tensor([0.485, 0.456, 0.406]).view(1, 1, 3, 1, 1) + torch.zeros(1, 2, 3, 40, 33)
    frames[:, :, 1] += 0.224
    images = segmenter.normalise(frames)
    assert images.shape == (1, 2, 3, 48, 48)
    assert torch.allclose(images[..., :40, :33].mean(dim=(0, 1, 3, 4)), torch.tensor([0.0, 1.0, 0.0]), atol=1e-5)
    assert (images[..., 40:, :] == 0).all()
    assert (images[..., 33:] == 0).all()


def test_a_net_in_half_precision_sees_frames_normalised_in_full() -> None:
    segmenter = QuerySegmenter(TwoQueries(), layers_of=TwoQueries.layers, class_order=[0, 1])
    frames = torch.rand(1, 1, 3, 32, 32)
    exact = segmenter.normalise(frames)
    assert torch.equal(segmenter.bfloat16().normalise(frames), exact.bfloat16())


def test_other_statistics_are_used_and_checked() -> None:
    segmenter = from_transformers(tiny_net("eomt"), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert torch.equal(segmenter.normalise(torch.ones(1, 1, 3, 32, 32)), torch.ones(1, 1, 3, 32, 32))
    for statistics in ({"mean": (0.5, 0.5)}, {"std": (0.2, 0.2, 0.0)}):
        with pytest.raises(ConfigError, match="mean, std: expected three numbers each, std above 0"):
            from_transformers(tiny_net("eomt"), **statistics)


def test_a_score_of_nothing_has_a_finite_log() -> None:
    assert log_of(torch.zeros(2)).isfinite().all()
    (pair,) = per_frame(FrameLayer(torch.zeros(1, 4, 6), torch.zeros(1, 4, 8, 12)))
    assert [part.shape for part in pair] == [(8, 12, 4), (4, 5)]


def test_the_covered_area_is_the_padded_frame() -> None:
    segmenter = from_transformers(tiny_net("eomt"))
    assert segmenter.predict_queries(clip(1, 1, 3, 45, 61)).covered == (48, 64)


@pytest.mark.parametrize("kind", QUERY_KINDS)
def test_a_net_in_half_precision_gives_scores_in_full(kind: str) -> None:
    segmenter = from_transformers(tiny_net(kind)).bfloat16()
    logits = segmenter(clip(1, 2, 3, 40, 40))
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@pytest.mark.parametrize("kind", QUERY_KINDS)
def test_a_copy_is_independent(kind: str) -> None:
    import copy

    segmenter, frames = from_transformers(tiny_net(kind)), clip(1, 1, 3, 32, 32)
    twin = copy.deepcopy(segmenter)
    with torch.no_grad():
        before = segmenter(frames)
        for parameter in twin.parameters():
            parameter.zero_()
        assert torch.equal(segmenter(frames), before)
        assert not torch.equal(twin(frames), before)


@pytest.mark.parametrize("kind", QUERY_KINDS)
@pytest.mark.usefixtures("one_process")
def test_data_parallel_training_sees_the_forward_of_both_objectives(kind: str) -> None:
    segmenter = from_transformers(tiny_net(kind)).train()
    parallel = DistributedDataParallel(segmenter)
    reduced: list[int] = []

    def count(state, bucket):  # DDP refuses annotations that are strings
        reduced.append(len(bucket.gradients()))
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    parallel.register_comm_hook(None, count)
    frames, labels = clip(1, 2, 3, 32, 40), torch.randint(0, 5, (1, 2, 32, 40))
    objective = set_objective(parallel, num_points=16)
    trained = sum(parameter.requires_grad for parameter in segmenter.parameters())
    for _ in range(2):  # a parameter without a gradient makes the second pass fail
        reduced.clear()
        objective.with_generators([torch.Generator().manual_seed(0)])(parallel, frames, labels).backward()
        assert sum(reduced) == trained
        reduced.clear()
        parallel(frames).mean().backward()
        assert sum(reduced) == trained


@pytest.mark.usefixtures("one_process")
def test_a_wrapped_model_answers_as_the_model_does() -> None:
    segmenter, frames = from_transformers(tiny_net("eomt")), clip(1, 2, 3, 32, 40)
    plain = segmenter.predict_queries(frames).layers[-1]
    wrapped = predict_queries(DistributedDataParallel(segmenter), frames).layers[-1]
    assert torch.equal(plain.masks.logits, wrapped.masks.logits)
    assert query_segmenter(DistributedDataParallel(segmenter)) is segmenter


def test_a_model_without_queries_is_refused() -> None:
    segformer = from_transformers(tiny_net("segformer"))
    with pytest.raises(DTypeError, match=r"expected a model with queries .* got SegformerSegmenter; train it with"):
        predict_queries(segformer, clip(1, 1, 3, 32, 32))
    with pytest.raises(DTypeError, match="got Conv2d"):
        set_objective(nn.Conv2d(3, 3, 1))


def test_the_set_loss_matches_as_the_kind_of_model_does() -> None:
    assert set_objective(from_transformers(tiny_net("videomt"))).settings.matching == "first"
    assert set_objective(from_transformers(tiny_net("mask2former"))).settings.matching == "frame"
    changed = set_objective(from_transformers(tiny_net("videomt")), matching="video", num_points=7)
    assert (changed.settings.matching, changed.settings.num_points) == ("video", 7)
    with pytest.raises(ConfigError, match="guide_until"):
        set_objective(from_transformers(tiny_net("eomt")), guide_until=2.0)
