"""Training steps that are measured, and their bytes."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch

import mvcseg.mvc


@pytest.fixture
def steps(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = script("training_steps")
    monkeypatch.setattr(module, "STAGES", {"small": {"K": 5, "B": 2, "T": 3, "H": 64, "W": 96}})
    return module


def test_steps_are_of_the_batch_that_is_named(steps: ModuleType) -> None:
    small = steps.build_steps("small", scale=0.5)
    assert small.clip == {"B": 2, "T": 3, "H": 32, "W": 48}
    weights = sum(each.numel() for each in small.model.parameters())
    buffers = sum(each.numel() * each.element_size() for each in small.model.buffers())
    pixels = 2 * 3 * 32 * 48
    assert small.fixed_bytes == 3 * 4 * weights + buffers + pixels * (3 * 4 + 8)  # AdamW keeps two numbers a weight


def test_an_mvc_step_has_two_passes_and_one_update(steps: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    small = steps.build_steps("small", scale=0.5)
    calls: list[str] = []
    small.model.register_forward_hook(lambda *_: calls.append("forward"))
    for owner, name in ((torch.Tensor, "backward"), (torch.optim.AdamW, "step"), (mvcseg.mvc, "apply_mask")):
        original = getattr(owner, name)

        def noted(
            *arguments: object, original: Callable[..., object] = original, name: str = name, **given: object
        ) -> object:
            calls.append(name)
            return original(*arguments, **given)

        monkeypatch.setattr(owner, name, noted)
    small.plain()
    assert calls == ["forward", "backward", "step"]
    calls.clear()
    small.mvc()
    assert calls == ["forward", "backward", "apply_mask", "forward", "backward", "step"]
    assert all(each.grad is None for each in small.model.parameters())


def test_a_step_changes_the_weights(steps: ModuleType) -> None:
    small = steps.build_steps("small", scale=0.5)
    for step in (small.plain, small.mvc):
        before = [each.detach().clone() for each in small.model.parameters()]
        step()
        assert any(not torch.equal(old, new) for old, new in zip(before, small.model.parameters(), strict=True))


def test_labels_have_few_classes_in_large_areas(steps: ModuleType) -> None:
    labels = steps.blocks((1, 2, 40, 60), 124)
    assert labels.shape == (1, 2, 40, 60)
    assert 2 < len(labels.unique()) <= 12
    assert (labels[..., 1:] == labels[..., :-1]).float().mean() > 0.9


def test_the_peak_is_that_of_what_is_alive_together(steps: ModuleType) -> None:
    def work() -> None:
        first = torch.zeros(1000)
        second = torch.zeros(500)
        del first
        third = torch.zeros(700)
        del second, third

    found = steps.peak_of(work)
    assert 1500 * 4 <= found < 1500 * 4 + 1024
