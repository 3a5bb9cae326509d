"""Items shared out to threads: each once, errors come through."""

from __future__ import annotations

import threading

import pytest
import torch

from mvcseg.ops.parallel import for_each_item


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("number", [0, 1, 7])
def test_every_item_is_worked_on_once(monkeypatch: pytest.MonkeyPatch, threads: int, number: int) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    seen: list[int] = []
    for_each_item(seen.append, number)
    assert sorted(seen) == list(range(number))


def test_items_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    both = threading.Barrier(2, timeout=20)
    for_each_item(lambda item: both.wait() and None, 2)  # a single thread would wait for itself


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_of_one_item_comes_through(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)

    def work(item: int) -> None:
        if item == 2:
            raise KeyError(item)

    with pytest.raises(KeyError, match="2"):
        for_each_item(work, 5)
