"""A compiled segmenter inside a whole model: labels stay the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_dvis import tiny_dvis, video

from mvcseg.models.dvis import DVIS


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["segmenter", "online"])
def test_a_compiled_segmenter_gives_the_labels_of_an_eager_one(kind: str) -> None:
    model, frames = tiny_dvis(kind), video(4)
    expected = labels_of(model, frames)
    calls: list[int] = []
    compiled = torch.compile(model.segment, backend=counting(calls), fullgraph=True)
    model.segment = compiled  # type: ignore[method-assign]
    got = labels_of(model, frames)
    assert calls
    assert torch.equal(got, expected)


def labels_of(model: DVIS, frames: torch.Tensor) -> torch.Tensor:
    return torch.cat(list(model.stream_labels(frames, clip_length=2)))


def counting(calls: list[int]) -> Callable[..., Callable[..., Any]]:
    """A backend that runs graphs as they are, and notes how many nodes each has."""

    def backend(graph: torch.fx.GraphModule, example: object) -> Callable[..., Any]:
        calls.append(len(graph.graph.nodes))
        forward: Callable[..., Any] = graph.forward
        return forward

    return backend
