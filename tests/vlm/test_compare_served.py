"""A comparison over real HTTP, stopped and gone on with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mvcseg.vlm import Comparison, Group, OpenAIVLM, Price, Usage, compare_vlms
from mvcseg.vlm.backend_file import Backends, read_backends

NAMES = ["sky", "river", "lake"]


def compared(vlms: Any, **options: Any) -> Comparison:
    """Two regions of water in a clip of three frames."""
    video = torch.randint(0, 256, (3, 3, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    labels = torch.zeros(3, 24, 32, dtype=torch.uint8)
    labels[:, 8:, :12], labels[:, 10:, 20:] = 1, 2
    return compare_vlms(
        video, labels, vlms=vlms, groups=[Group("water", (1, 2))], class_names=NAMES, flow=None, **options
    )


def test_answers_of_a_server_are_kept_timed_and_paid_once(tmp_path: Path, chat_server: Any) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    chat_server.script = [chat_server.answers("A river.", usage=usage)]
    path = tmp_path / "models.yaml"
    path.write_text(f"- name: server\n  vlm: {chat_server.url}\n  model: m\n  price: {{input: 1000, output: 2000}}\n")
    backends = Backends(read_backends(path))
    options = {"prices": backends.prices, "cache": tmp_path / "kept"}

    (first,) = compared(backends, max_questions=1, **options).models
    assert (first.calls, first.kept, len(chat_server.requests)) == (1, 0, 1)
    assert first.usage == Usage(requests=1, prompt_tokens=100, completion_tokens=10)
    assert first.cost == pytest.approx(0.12)
    assert first.seconds > 0
    (second,) = compared(backends, **options).models  # as after a stop: the first answer is there
    assert (second.calls, second.kept, second.cost) == (1, 1, pytest.approx(0.12))
    (third,) = compared(backends, **options).models
    assert (third.calls, third.kept, third.cost, third.seconds) == (0, 2, 0.0, 0.0)
    assert len(chat_server.requests) == 2


def test_run_that_was_interrupted_goes_on_where_it_was(tmp_path: Path, chat_server: Any) -> None:
    chat_server.script = [chat_server.answers("A river.")]
    server = OpenAIVLM(model="m", base_url=chat_server.url)

    class Interrupted:
        identity = server.identity

        def __call__(self, images: Sequence[Tensor], prompt: str, /, *, choices: Sequence[str]) -> str:
            if chat_server.requests:
                raise KeyboardInterrupt
            return server(images, prompt, choices=choices)

    with pytest.raises(KeyboardInterrupt):
        compared({"m": Interrupted()}, cache=tmp_path)
    (model,) = compared({"m": server}, cache=tmp_path).models
    assert (model.answered, model.calls, model.kept, len(chat_server.requests)) == (2, 1, 1, 2)


def test_server_that_tells_no_tokens_has_no_cost(chat_server: Any) -> None:
    chat_server.script = [chat_server.answers("A river.")]
    server = OpenAIVLM(model="m", base_url=chat_server.url)
    (model,) = compared({"m": server}, prices={"m": Price(1, 1)}).models
    assert (model.calls, model.usage, model.cost) == (2, None, None)
