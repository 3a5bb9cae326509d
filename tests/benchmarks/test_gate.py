"""The regression gate on made-up runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Script = Callable[[str], ModuleType]
STEADY = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0]
RESTLESS = [0.5, 1.6, 1.0, 0.7, 1.9, 0.6, 1.1]


def report(rows: dict[str, list[float]], *, cpu: str = "one", differs: str = "") -> dict[str, Any]:
    """Runs whose peer takes ten seconds a turn and we as many as given."""
    made = [
        {
            "key": key,
            "group": key.partition("/")[0],
            "run": 0,
            "ratio": 10 / sorted(ours)[len(ours) // 2],
            "seconds": {"ours": ours, "peer": [10.0] * len(ours)},
            "equal": key != differs,
        }
        for key, ours in rows.items()
    ]
    return {"runs": [{"cpu": cpu, "versions": {"torch": "2"}, "skipped": []}], "rows": made}


def times(factor: float, seconds: list[float]) -> list[float]:
    return [factor * one for one in seconds]


@pytest.fixture
def gate(script: Script) -> ModuleType:
    return script("gate")


def word(gate: ModuleType, stored: dict[str, Any], new: dict[str, Any]) -> str:
    (verdict,) = gate.verdicts(stored, new)
    return str(verdict.word)


def test_a_loss_is_found(gate: ModuleType) -> None:
    assert word(gate, report({"vote/a": STEADY}), report({"vote/a": times(1.25, STEADY)})) == "LOSS"


def test_the_same_figures_are_kept(gate: ModuleType) -> None:
    assert word(gate, report({"vote/a": STEADY}), report({"vote/a": STEADY[::-1]})) == "kept"


def test_a_loss_within_the_margin_is_kept(gate: ModuleType) -> None:
    assert word(gate, report({"vote/a": STEADY}), report({"vote/a": times(1.06, STEADY)})) == "kept"


def test_a_loss_within_the_noise_of_its_turns_is_kept(gate: ModuleType) -> None:
    assert word(gate, report({"vote/a": RESTLESS}), report({"vote/a": times(1.25, RESTLESS)})) == "kept"
    assert word(gate, report({"vote/a": RESTLESS}), report({"vote/a": times(4, RESTLESS)})) == "LOSS"


def test_another_machine_is_given_a_wider_margin(gate: ModuleType) -> None:
    stored = report({"vote/a": STEADY})
    assert word(gate, stored, report({"vote/a": times(1.25, STEADY)}, cpu="two")) == "kept"
    assert word(gate, stored, report({"vote/a": times(2, STEADY)}, cpu="two")) == "LOSS"


def test_a_gain_and_a_new_row_pass_by_name(gate: ModuleType) -> None:
    found = gate.verdicts(report({"vote/a": STEADY}), report({"vote/a": times(0.5, STEADY), "vote/b": STEADY}))
    assert [(one.key, one.word, one.fails) for one in found] == [("vote/a", "gain", False), ("vote/b", "new", False)]


def test_a_missing_row_fails_unless_left_out_or_not_asked_for(gate: ModuleType) -> None:
    stored, new = report({"vote/a": STEADY, "ssim/a": STEADY}), report({"ssim/a": STEADY})
    assert [one.word for one in gate.verdicts(stored, new)] == ["MISSING", "kept"]
    assert [one.word for one in gate.verdicts(stored, new, groups=["ssim"])] == ["kept"]
    new["runs"][0]["skipped"] = ["vote/a"]
    assert [one.word for one in gate.verdicts(stored, new)] == ["kept"]


def test_outputs_that_differ_fail_whatever_the_ratio(gate: ModuleType) -> None:
    stored = report({"vote/a": STEADY})
    assert word(gate, stored, report({"vote/a": times(0.5, STEADY)}, differs="vote/a")) == "DIFFERS"
    assert gate.verdicts(report({}), report({"vote/b": STEADY}, differs="vote/b"))[0].fails


def test_the_change_is_the_ratio_of_ratios(gate: ModuleType) -> None:
    stored = {"ours": [1.0] * 5, "peer": [8.0] * 5}
    assert gate.change_of(stored, {"ours": [2.0] * 3, "peer": [8.0] * 3}) == (0.5, 0.5, 0.5)


def test_a_loss_stands_when_a_second_run_shows_it(gate: ModuleType) -> None:
    stored, lost = (
        report({"vote/a": STEADY, "vote/b": STEADY}),
        {"vote/a": times(2, STEADY), "vote/b": times(2, STEADY)},
    )
    first = gate.verdicts(stored, report(lost))
    second = gate.verdicts(stored, report(lost | {"vote/a": STEADY}))
    assert [one.word for one in gate.with_second_opinion(first, second)] == ["kept", "LOSS"]


def test_exit_status_and_lines(gate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored, new = tmp_path / "stored.json", tmp_path / "new.json"
    stored.write_text(json.dumps(report({"vote/a": STEADY, "a very long name indeed/of a row/peer": STEADY})))
    new.write_text(json.dumps(report({"vote/a": times(2, STEADY), "vote/b": times(0.001, STEADY)})))
    assert gate.main(["--stored", str(stored), "--new", str(new)]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in printed)
    assert [line.split()[-1] for line in printed[1:4]] == ["LOSS", "MISSING", "new"]
    assert gate.main(["--stored", str(stored), "--new", str(stored)]) == 0


def test_without_a_file_the_gate_runs_and_asks_twice(
    gate: ModuleType, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cv2")
    peers = script("peers")
    runs: list[list[str]] = []

    def run(groups: list[str], *, turns: int) -> dict[str, Any]:
        runs.append(groups)
        return report({f"{group}/a": times(2, STEADY) if group == "vote" else STEADY for group in groups})

    monkeypatch.setattr(peers, "run", run)
    monkeypatch.setattr("torch.set_num_threads", lambda number: None)
    stored = tmp_path / "stored.json"
    stored.write_text(json.dumps(report({"vote/a": STEADY, "ssim/a": STEADY})))
    assert gate.main(["--stored", str(stored)]) == 1
    assert runs == [["vote", "ssim"], ["vote"]]
