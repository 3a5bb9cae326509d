"""Runs in several processes, joined to one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Script = Callable[[str], ModuleType]


@pytest.fixture
def processes(script: Script) -> ModuleType:
    return script("peers_processes")


def report(ours: float, *, equal: bool = True, difference: Any = 0.0, commit: str = "one") -> dict[str, Any]:
    seconds = [{"ours": [ours, ours], "peer": [4.0, 4.0]}]
    row = {"key": "vote/a", "run": 0, "seconds": seconds, "equal": equal, "difference": difference}
    stamp = {"commit": commit, "load_average_before": [1.0], "load_average_after": [ours], "processes": 1}
    return {"runs": [stamp], "rows": [row]}


def test_the_ratio_is_the_middle_process(processes: ModuleType) -> None:
    (row,) = processes.joined([report(1.0), report(2.0), report(100.0)])["rows"]
    assert row["ratio"] == 2.0
    assert (row["ours_ms"], row["peer_ms"], row["turns"]) == (2000, 4000, 6)
    assert row["ratio_of_a_turn"] == [0.04, 0.53, 2.0, 3.5, 4.0]
    assert [one["ours"] for one in row["seconds"]] == [[1, 1], [2, 2], [100, 100]]


def test_of_two_processes_it_is_the_geometric_mean(processes: ModuleType) -> None:
    (row,) = processes.joined([report(1.0), report(4.0)])["rows"]
    assert row["ratio"] == 2.0


def test_a_process_counts_by_its_medians(processes: ModuleType) -> None:
    logs = processes.log_ratios([{"ours": [1, 1, 9], "peer": [8, 2, 2]}, {"ours": [2], "peer": [1]}])
    assert logs == [math.log(2), math.log(0.5)]


def test_outputs_are_equal_only_if_they_are_in_every_process(processes: ModuleType) -> None:
    good, worse = report(1.0, difference=0.1), report(1.0, difference=0.2)
    (row,) = processes.joined([good, worse, good])["rows"]
    assert (row["equal"], row["difference"]) == (True, 0.2)
    for difference in (0.15, "nan"):
        (row,) = processes.joined([worse, report(1.0, equal=False, difference=difference), good])["rows"]
        assert (row["equal"], row["difference"]) == (False, difference)


def test_the_environment_is_the_first_ones_and_the_load_at_the_end_the_last_ones(processes: ModuleType) -> None:
    both = processes.joined([report(1.0), report(2.0), report(3.0, commit="two")])
    assert both["runs"] == [
        {"commit": "one, two", "load_average_before": [1.0], "load_average_after": [3.0], "processes": 3}
    ]


def test_joining_joined_runs_is_joining_all(processes: ModuleType) -> None:
    one, two, three = report(1.0), report(2.0), report(3.0)
    assert processes.joined([processes.joined([one, two]), three]) == processes.joined([one, two, three])


def test_other_rows_are_refused(processes: ModuleType) -> None:
    other = report(1.0)
    other["rows"][0]["key"] = "vote/b"
    with pytest.raises(ValueError, match="vote/b"):
        processes.joined([report(1.0), other])


def test_rows_run_in_fresh_processes(
    script: Script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("kornia")
    peers = script("peers")
    started: list[list[str]] = []

    def run(command: list[str], *, check: bool) -> Any:
        started.append(command)
        one = report(float(len(started)))
        one["rows"][0] |= {"group": "vote", "ratio": 1.0, "ratio_of_a_turn": [1.0], "work": "", "peer": ""}
        Path(command[command.index("--out") + 1]).write_text(json.dumps(one))

    monkeypatch.setattr(peers.subprocess, "run", run)
    result = peers.run(["vote", "ssim"], turns=7, processes=3)
    assert result["rows"][0]["ratio"] == 2.0
    assert result["runs"][0]["processes"] == 3
    assert len(started) == 3
    for command in started:
        asked = peers.parsed(command[2:])
        assert (asked.processes, asked.turns, asked.only, asked.device) == (1, 7, ["vote", "ssim"], "cpu")
    assert "process 3 of 3" in capsys.readouterr().err


def test_a_process_that_dies_is_told(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kornia")
    peers = script("peers")
    monkeypatch.setattr(peers.subprocess, "run", lambda command, check: peers.subprocess.CompletedProcess(command, -9))
    with pytest.raises(RuntimeError, match="-9"):
        peers.run(["vote"], turns=1, processes=2)
