from __future__ import annotations

import threading

import pytest

from mvcseg.vlm.usage import Usage, UsageMeter, usage_of


def test_counts_of_the_answer_are_taken() -> None:
    body = {"choices": [], "usage": {"prompt_tokens": 812, "completion_tokens": 5, "total_tokens": 817}}
    assert usage_of(body) == Usage(requests=1, prompt_tokens=812, completion_tokens=5, unreported=0)
    assert usage_of({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}) == Usage(requests=1)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        "812",
        {},
        {"prompt_tokens": 812},
        {"completion_tokens": 5},
        {"prompt_tokens": None, "completion_tokens": 5},
        {"prompt_tokens": -812, "completion_tokens": 5},
        {"prompt_tokens": 812, "completion_tokens": -1},
        {"prompt_tokens": "812", "completion_tokens": 5},
        {"prompt_tokens": 812.5, "completion_tokens": 5},
        {"prompt_tokens": float("nan"), "completion_tokens": 5},
        {"prompt_tokens": True, "completion_tokens": 5},
        {"prompt_tokens": 10**30, "completion_tokens": 5},
    ],
)
def test_missing_or_impossible_counts_are_unreported(usage: object) -> None:
    assert usage_of({"usage": usage}) == Usage(requests=1, unreported=1)


@pytest.mark.parametrize("answer", [None, 3, "text", [], {}, [{"usage": {}}]])
def test_answer_that_is_no_object_is_unreported(answer: object) -> None:
    assert usage_of(answer) == Usage(requests=1, unreported=1)


def test_difference_undoes_the_sum() -> None:
    before, one = Usage(3, 100, 9, 1), Usage(2, 30, 4, 2)
    assert before + one == Usage(5, 130, 13, 3)
    assert before + one - before == one


def test_meter_loses_nothing_between_threads() -> None:
    meter = UsageMeter()

    def add() -> None:
        for _ in range(200):
            meter.add(Usage(1, 3, 2, 1))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.total == Usage(1600, 4800, 3200, 1600)
