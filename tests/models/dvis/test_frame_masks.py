from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_dvis import CLASSES, QUERIES, as_input, tiny_dvis, video

from mvcseg.errors import DataError
from mvcseg.models.dvis import DVIS
from mvcseg.models.dvis.frame_masks import FrameMasks, frame_masks, tracked_masks
from mvcseg.models.dvis.semantic import class_table
from mvcseg.models.mask2former import FrameQueries


def queries_of(model: DVIS, length: int) -> list[FrameQueries]:
    return [model.segment(frame) for frame in torch.split(as_input(video(length))[0], 1)]


def run(model: DVIS, queries: list[FrameQueries], folder: Path | None = None) -> list[FrameMasks]:
    return list(frame_masks(queries, tracker=model.tracker, refiner=model.refiner, spill_folder=folder))


@torch.no_grad()
def test_without_a_tracker_each_frame_answers_for_itself() -> None:
    model = tiny_dvis("segmenter")
    queries = queries_of(model, 3)
    for frame, answer in zip(queries, run(model, queries), strict=True):
        torch.testing.assert_close(answer.logits, frame.masks()[0].permute(1, 2, 0))
        torch.testing.assert_close(answer.table, frame.class_logits[0].softmax(-1)[:, :-1])


@pytest.mark.parametrize("kind", ["online", "first online"])
@torch.no_grad()
def test_online_classes_are_the_soft_max_of_mean_logits(kind: str, tmp_path: Path) -> None:
    model = tiny_dvis(kind)
    queries = queries_of(model, 4)
    embeds = torch.stack([frame.embeds for frame in queries], dim=1)
    unnormed = torch.stack([frame.embeds_unnormed for frame in queries], dim=1)
    tracked = model.tracker(embeds, unnormed)
    answers = run(model, queries, tmp_path)
    for t, answer in enumerate(answers):
        torch.testing.assert_close(answer.table, tracked.class_logits[0].mean(dim=0).softmax(-1)[:, :-1])
        expected = tracked_masks(queries[t], model.tracker, tracked.embeds[:, t : t + 1])
        torch.testing.assert_close(answer.logits, expected, rtol=1e-4, atol=1e-4)
        assert answer.logits.shape == (16, 16, QUERIES)
        assert answer.table.shape == (QUERIES, CLASSES)


@pytest.mark.parametrize("kind", ["offline", "first offline"])
@torch.no_grad()
def test_offline_classes_are_the_larger_of_refiner_and_tracker(kind: str, tmp_path: Path) -> None:
    model = tiny_dvis(kind)
    queries = queries_of(model, 4)
    embeds = torch.stack([frame.embeds for frame in queries], dim=1)
    unnormed = torch.stack([frame.embeds_unnormed for frame in queries], dim=1)
    tracked = model.tracker(embeds, unnormed)
    refined = model.refiner(tracked.embeds, model.tracker.refiner_memory(embeds, unnormed))
    own, before = class_table(refined.class_logits[0]), class_table(tracked.class_logits[0].mean(dim=0))
    assert (own > before).any()
    assert (own < before).any()
    for t, answer in enumerate(run(model, queries, tmp_path)):
        torch.testing.assert_close(answer.table, torch.maximum(own, before), rtol=1e-4, atol=1e-5)
        expected = torch.einsum("qc,chw->hwq", refined.mask_embeds[0, t], queries[t].mask_features[0])
        torch.testing.assert_close(answer.logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["online", "offline", "first online", "first offline"])
def test_memory_and_spill_file_agree(kind: str, tmp_path: Path) -> None:
    model = tiny_dvis(kind)
    with torch.no_grad():
        queries = queries_of(model, 4)
        spilled = run(model, queries, tmp_path)
    in_memory = run(model, queries, tmp_path / "none")
    for kept, recorded in zip(spilled, in_memory, strict=True):
        assert recorded.table.requires_grad
        torch.testing.assert_close(recorded.logits, kept.logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(recorded.table, kept.table, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "asked_before_the_first_answer"), [("segmenter", 1), ("online", 3), ("offline", 3)])
@torch.no_grad()
def test_only_a_tracker_makes_the_first_frame_wait(kind: str, asked_before_the_first_answer: int) -> None:
    model, asked = tiny_dvis(kind), []

    def source() -> Iterator[FrameQueries]:
        for frame in queries_of(model, 3):
            asked.append(frame)
            yield frame

    next(frame_masks(source(), tracker=model.tracker, refiner=model.refiner, spill_folder=None))
    assert len(asked) == asked_before_the_first_answer


@pytest.mark.parametrize("kind", ["segmenter", "online", "offline"])
@torch.no_grad()
def test_no_frame_gives_no_answer(kind: str) -> None:
    assert run(tiny_dvis(kind), []) == []


@pytest.mark.parametrize("kind", ["online", "offline"])
@torch.no_grad()
def test_a_missing_folder_is_reported(kind: str, tmp_path: Path) -> None:
    model = tiny_dvis(kind)
    with pytest.raises(DataError, match="spill folder"):
        run(model, queries_of(model, 1), tmp_path / "none")
