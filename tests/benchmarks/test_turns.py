"""Work timed in turn."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("turns")


def test_both_are_called_in_turn_after_a_warm_up(turns: ModuleType) -> None:
    calls: list[str] = []

    def ours() -> int:
        calls.append("ours")
        return 1

    def peer() -> int:
        calls.append("peer")
        return 2

    taken = turns.take_turns(ours, peer, turns=3)
    assert calls == ["ours", "peer"] * 4
    assert (taken.our_output, taken.peer_output) == (1, 2)
    assert len(taken.ours) == len(taken.peer) == 3


def test_a_budget_leaves_three_turns(turns: ModuleType) -> None:
    taken = turns.take_turns(lambda: None, lambda: None, turns=9, at_most=0.0)
    assert len(taken.ours) == 3
    taken = turns.take_turns(lambda: None, lambda: None, turns=9, at_most=0.0, at_least=1)
    assert len(taken.ours) == 1


def test_a_share_scales_our_seconds_alone(turns: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "seconds_of", lambda call, device: call())
    taken = turns.take_turns(lambda: 8.0, lambda: 3.0, turns=2, share=1 / 8)
    assert taken.record()["ratio"] == 3.0


def test_figures_by_hand(turns: ModuleType) -> None:
    record = turns.figures_of([1.0, 2.0, 4.0], [4.0, 4.0, 4.0])
    assert (record["ours_ms"], record["peer_ms"], record["ratio"]) == (2000, 4000, 2)
    assert record["ratio_of_a_turn"] == [1, 1.5, 2, 3, 4]
    assert record["seconds"] == {"ours": [1, 2, 4], "peer": [4, 4, 4]}


def test_no_turns_are_refused(turns: ModuleType) -> None:
    with pytest.raises(ValueError, match="turns"):
        turns.take_turns(lambda: None, lambda: None, turns=0)


def test_environment_names_what_was_used(turns: ModuleType) -> None:
    environment = importlib.import_module("environment")
    record = environment.environment(["timm", "no-such-distribution"])
    assert record["versions"]["timm"] is not None
    assert record["versions"]["no-such-distribution"] is None
    assert record["cores"] >= 1
    assert record["torch_threads"] >= 1
    assert record["cpu"]
