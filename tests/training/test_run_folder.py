"""The folder of a run is whole at every moment."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from mvcseg.errors import ConfigError, DataError
from mvcseg.training import run_folder
from mvcseg.training.config import TrainConfig, read_config

CONFIG = TrainConfig(steps=10)


def opened(tmp_path: Path) -> Path:
    out = tmp_path / "run"
    run_folder.open_folder(out, CONFIG)
    return out


def written_checkpoint(out: Path, step: int) -> None:
    part = run_folder.part_path(out, step)
    part.mkdir()
    (part / "model").write_text(str(step))
    run_folder.finish_checkpoint(out, step)


def test_a_new_or_empty_folder_is_free(tmp_path: Path) -> None:
    run_folder.check_folder(tmp_path / "new", CONFIG, resume=False)
    run_folder.check_folder(tmp_path, CONFIG, resume=True)
    (tmp_path / ".part-host-1-ab.json").touch()  # of a run killed while it wrote its configuration
    run_folder.check_folder(tmp_path, CONFIG, resume=False)


def test_a_used_folder_needs_resume_and_the_same_configuration(tmp_path: Path) -> None:
    out = opened(tmp_path)
    with pytest.raises(ConfigError, match=r"out: .*run is not empty; resume=True \(--resume\)"):
        run_folder.check_folder(out, CONFIG, resume=False)
    run_folder.check_folder(out, CONFIG, resume=True)
    with pytest.raises(ConfigError, match=r"flip: expected True as the run in .* began with, got False \(also seed\)"):
        run_folder.check_folder(out, TrainConfig(steps=10, seed=3, flip=False), resume=True)


def test_what_a_run_needs_changed_to_go_on_may_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = opened(tmp_path)
    changed = TrainConfig(
        steps=10, learning_rate=1e-4, clip_gradient=0.1, precision="bf16", num_workers=3, checkpoint_every=7
    )
    run_folder.check_folder(out, changed, resume=True)
    run_folder.open_folder(out, changed)
    assert read_config(out / run_folder.CONFIG_FILE) == changed
    assert capsys.readouterr().err.splitlines() == [
        "note: learning_rate is 0.0001 from here on, it was 0.001",
        "note: clip_gradient is 0.1 from here on, it was 1.0",
        "note: precision is bf16 from here on, it was no",
    ]
    run_folder.open_folder(out, changed)
    assert capsys.readouterr().err == ""


def test_a_strangers_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="holds no run to resume"):
        run_folder.check_folder(tmp_path, CONFIG, resume=True)
    with pytest.raises(DataError, match=r"thesis\.tex: expected a folder"):
        run_folder.check_folder(tmp_path / "thesis.tex", CONFIG, resume=True)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file/run: cannot be written"):
        run_folder.open_folder(tmp_path / "file" / "run", CONFIG)


def test_the_last_two_checkpoints_stay(tmp_path: Path) -> None:
    out = opened(tmp_path)
    for step in (8, 9, 10, 100):
        written_checkpoint(out, step)
    assert run_folder.checkpoint_steps(out) == [10, 100]
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step_10", "step_100"]
    assert (run_folder.checkpoint_path(out, 100) / "model").read_text() == "100"


def test_what_a_kill_left_half_written_is_no_checkpoint_and_goes(tmp_path: Path) -> None:
    out = opened(tmp_path)
    written_checkpoint(out, 2)
    run_folder.part_path(out, 4).mkdir()
    assert run_folder.checkpoint_steps(out) == [2]
    run_folder.open_folder(out, CONFIG)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step_2"]


def test_the_log_is_cut_after_a_step(tmp_path: Path) -> None:
    out = opened(tmp_path)
    with run_folder.appended_log(out) as log:
        for step in (1, 2, 3):
            log.write(step=step, loss=0.5)
        log.write(step=3, mIoU=None)
    with (out / "log.jsonl").open("a") as file:
        file.write('{"step": 1')
    assert [line["step"] for line in run_folder.read_log(out)] == [1, 2, 3, 3]
    run_folder.cut_log(out, last_step=2)
    assert (out / "log.jsonl").read_text() == '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.5}\n'
    run_folder.cut_log(tmp_path, last_step=2)  # no log yet: nothing to cut


@pytest.mark.parametrize("space", [0, 5])
def test_a_log_on_a_full_disk_is_named(tmp_path: Path, space: int) -> None:
    out = opened(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (space, hard))
        with pytest.raises(DataError, match=r"log\.jsonl: cannot be written"), run_folder.appended_log(out) as log:
            log.write(step=1, loss=0.5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    run_folder.cut_log(out, last_step=0)
    assert (out / "log.jsonl").read_bytes() == b""


def test_a_log_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    out = opened(tmp_path)
    (out / "log.jsonl").mkdir()
    with pytest.raises(DataError, match=r"log\.jsonl: cannot be written"), run_folder.appended_log(out):
        pass


def test_the_configuration_is_written_once(tmp_path: Path) -> None:
    out = opened(tmp_path)
    before = (out / "config.json").stat().st_mtime_ns
    run_folder.open_folder(out, CONFIG)
    assert (out / "config.json").stat().st_mtime_ns == before
    assert TrainConfig.from_dict(json.loads((out / "config.json").read_text())) == CONFIG
