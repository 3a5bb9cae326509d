"""The regression gate on made-up runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

Script = Callable[[str], ModuleType]
Rows = Mapping[str, Sequence[float]]
STEADY = [1.0, 1.01, 0.99]
RESTLESS = [0.5, 1.6, 1.0]
OTHERS = {f"flow/{index}": STEADY for index in range(9)}
"""Rows beside the one of a test, so that it is known what noise is usual."""


def report(rows: Rows, *, cpu: str = "one", differs: str = "") -> dict[str, Any]:
    """Runs whose peer takes ten seconds a turn and we as many as given, one number a process."""
    made = [
        {
            "key": key,
            "group": key.partition("/")[0],
            "run": 0,
            "ratio": 10 / sorted(ours)[len(ours) // 2],
            "seconds": [{"ours": [0.9 * one, one, 3 * one], "peer": [10.0, 10.0, 40.0]} for one in ours],
            "equal": key != differs,
            "difference": 0.0,
        }
        for key, ours in rows.items()
    ]
    stamp = {"cpu": cpu, "versions": {"torch": "2"}, "skipped": [], "commit": "one", "processes": 3}
    return {"runs": [stamp | {"load_average_after": [1.0]}], "rows": made}


def times(factor: float, seconds: Sequence[float]) -> list[float]:
    return [factor * one for one in seconds]


@pytest.fixture
def gate(script: Script) -> ModuleType:
    return script("gate")


def word(gate: ModuleType, stored: Sequence[float], new: Sequence[float], **changes: Any) -> str:
    """What becomes of a row among others that stay as they are."""
    verdicts = gate.verdicts(report({"vote/a": stored} | OTHERS), report({"vote/a": new} | OTHERS, **changes))
    assert all(verdict.word == "kept" for verdict in verdicts[1:])
    return str(verdicts[0].word)


def test_a_loss_is_found(gate: ModuleType) -> None:
    assert word(gate, STEADY, times(1.25, STEADY)) == "LOSS"


def test_the_same_figures_are_kept(gate: ModuleType) -> None:
    assert word(gate, STEADY, STEADY[::-1]) == "kept"


def test_a_loss_within_the_margin_is_kept(gate: ModuleType) -> None:
    assert word(gate, STEADY, times(1.04, STEADY)) == "kept"


def test_a_loss_within_the_noise_between_processes_is_kept(gate: ModuleType) -> None:
    assert word(gate, RESTLESS, times(1.5, RESTLESS)) == "kept"
    assert word(gate, RESTLESS, times(30, RESTLESS)) == "LOSS"


def test_one_process_that_was_held_up_is_no_loss(gate: ModuleType) -> None:
    assert word(gate, STEADY, [1.0, 2.0, 1.0]) == "kept"


def test_another_machine_is_given_a_wider_margin(gate: ModuleType) -> None:
    assert word(gate, STEADY, times(1.25, STEADY), cpu="two") == "kept"
    assert word(gate, STEADY, times(2, STEADY), cpu="two") == "LOSS"


def test_another_allocator_is_another_machine(gate: ModuleType) -> None:
    stored, new = report({"vote/a": STEADY} | OTHERS), report({"vote/a": times(1.25, STEADY)} | OTHERS)
    new["runs"][0]["allocator"] = {}
    assert gate.verdicts(stored, new)[0].word == "LOSS"
    new["runs"][0]["allocator"] = {"MALLOC_TRIM_THRESHOLD_": "1"}
    assert gate.verdicts(stored, new)[0].word == "kept"


def test_a_gain_and_a_new_row_pass_by_name(gate: ModuleType) -> None:
    new = report({"vote/a": times(0.5, STEADY), "vote/b": STEADY} | OTHERS)
    found = gate.verdicts(report({"vote/a": STEADY} | OTHERS), new)
    assert [(one.key, one.word, one.fails) for one in (found[0], found[-1])] == [
        ("vote/a", "gain", False),
        ("vote/b", "new", False),
    ]


def test_a_missing_row_fails_unless_left_out_or_not_asked_for(gate: ModuleType) -> None:
    stored, new = report({"vote/a": STEADY, "ssim/a": STEADY}), report({"ssim/a": STEADY})
    assert [one.word for one in gate.verdicts(stored, new)] == ["MISSING", "kept"]
    assert [one.word for one in gate.verdicts(stored, new, groups=["ssim"])] == ["kept"]
    new["runs"][0]["skipped"] = ["vote/a"]
    assert [one.word for one in gate.verdicts(stored, new)] == ["kept"]


def test_outputs_that_differ_fail_whatever_the_ratio(gate: ModuleType) -> None:
    assert word(gate, STEADY, times(0.5, STEADY), differs="vote/a") == "DIFFERS"
    assert gate.verdicts(report({}), report({"vote/b": STEADY}, differs="vote/b"))[0].fails


def test_the_change_of_a_row_alone_is_students(gate: ModuleType) -> None:
    """Nothing is usual where there is one row: the interval of two samples of one variance."""
    stored, new = [0.1, 0.3, 0.5], [0.0, 0.1]
    ((change, low, high),) = gate.changes_of([(stored, new)])
    expected = stats.ttest_ind(new, stored, alternative="two-sided").confidence_interval(0.9)
    assert np.log(change) == pytest.approx(-0.25)
    assert (np.log(low), np.log(high)) == pytest.approx((expected.low, expected.high))


def test_the_interval_by_hand(gate: ModuleType) -> None:
    """Two rows of two processes each: variances 0.02 and 0.08, usual 0.05 over the median of chi-squared / 2."""
    pairs = [([0.0, 0.2], [0.0, 0.2]), ([0.0, 0.4], [0.1, 0.5])]
    usual = 0.05 / (2 * np.log(2) / 2)
    found = gate.changes_of(pairs)
    for (change, low, high), variance, expected in zip(found, (0.02, 0.08), (0.0, 0.1), strict=True):
        half = stats.t.ppf(0.975, 4) * np.sqrt((usual + variance) / 2)
        assert np.log([low, change, high]) == pytest.approx([expected - half, expected, expected + half])


def test_a_row_of_one_process_takes_the_usual_noise(gate: ModuleType) -> None:
    known = [([0.0, 0.2, 0.1], [0.0, 0.2, 0.1])] * 5
    (_, low, high), *_ = gate.changes_of([([0.0], [0.0]), *known])
    half = stats.t.ppf(1 - 0.05 / 6, 4) * np.sqrt(2 * 0.01 * 4 / stats.chi2.ppf(0.5, 4))
    assert np.log([low, high]) == pytest.approx([-half, half])


@pytest.mark.parametrize("spread", [0.02, 0.05, 0.1])
def test_false_alarms_are_rare_and_losses_found(gate: ModuleType, spread: float) -> None:
    """36 rows of three processes, some steadier than others, some held up for a while, both runs moved a little."""
    rng = np.random.default_rng(0)

    def run(each: np.ndarray) -> np.ndarray:
        held_up = np.where(rng.random((36, 3)) < 0.02, rng.choice([-0.7, 0.7], (36, 3)), 0)
        return each[:, None] * rng.standard_normal((36, 3)) + 0.015 * rng.standard_normal((36, 1)) + held_up

    alarms, found, runs = 0, 0, 200
    for _ in range(runs):
        each = spread * np.exp(0.5 * rng.standard_normal(36))
        stored, new = run(each), run(each)
        new[0] += np.log(0.5)  # twice as slow
        high = np.array([high for _, _, high in gate.changes_of(list(zip(stored, new, strict=True)))])
        lost = high < 1 - gate.SAME_MACHINE
        alarms += bool(lost[1:].any())
        found += bool(lost[0])
    assert alarms <= 0.05 * runs
    assert found >= 0.75 * runs


def test_of_steady_rows_a_loss_of_a_fifth_is_found(gate: ModuleType) -> None:
    rng, found = np.random.default_rng(1), 0
    for _ in range(100):
        stored, new = 0.015 * rng.standard_normal((2, 36, 3))
        new[0] -= np.log(1.25)
        lost = [high < 1 - gate.SAME_MACHINE for _, _, high in gate.changes_of(list(zip(stored, new, strict=True)))]
        assert not any(lost[1:])
        found += lost[0]
    assert found >= 95


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


def test_files_of_one_process_each_are_judged_together(
    gate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files: dict[str, list[str]] = {"stored": [], "slow": []}
    for index, one in enumerate(STEADY):
        for name, factor in (("stored", 1.0), ("slow", 2.0)):
            file = tmp_path / f"{name}-{index}.json"
            file.write_text(json.dumps(report({"vote/a": [factor * one]} | {key: [one] for key in OTHERS})))
            files[name].append(str(file))
    assert gate.main(["--stored", *files["stored"], "--new", *files["slow"]]) == 1
    assert gate.main(["--stored", *files["stored"], "--new", *files["stored"]]) == 0
    assert gate.main(["--stored", *files["stored"], "--new", *files["slow"], "--again", *files["slow"]]) == 1
    assert gate.main(["--stored", *files["stored"], "--new", *files["slow"], "--again", *files["stored"]]) == 0
    with pytest.raises(SystemExit) as status:
        gate.main(["--stored", files["stored"][0], "--new", files["slow"][0]])
    assert status.value.code == 2
    assert "noise" in capsys.readouterr().err


def test_without_a_file_the_gate_runs_and_asks_twice(
    gate: ModuleType, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cv2")
    peers = script("peers")
    runs: list[tuple[list[str], int]] = []

    def run(groups: list[str], *, turns: int, processes: int) -> dict[str, Any]:
        runs.append((groups, processes))
        return report({f"{group}/a": times(2, STEADY) if group == "vote" else STEADY for group in groups})

    monkeypatch.setattr(peers, "run", run)
    monkeypatch.setattr("torch.set_num_threads", lambda number: None)
    stored = tmp_path / "stored.json"
    stored.write_text(json.dumps(report({"vote/a": STEADY, "ssim/a": STEADY})))
    assert gate.main(["--stored", str(stored)]) == 1
    assert runs == [(["vote", "ssim"], 3), (["vote"], 3)]
