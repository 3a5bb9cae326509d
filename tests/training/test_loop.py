"""Training runs: what they leave, and that stopping them changes nothing."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_runs import TWO_PROCESSES, assert_same_losses, finished_run, started, untimed

from mvcseg.data.clips import ClipDataset
from mvcseg.data.toy import write_toy_set
from mvcseg.data.toy_scene import CLASS_NAMES
from mvcseg.errors import CheckpointError, ConfigError, DataError, MissingExtraError, TrainingError
from mvcseg.masking import PatchMask
from mvcseg.models.compact_checkpoint import load_compact
from mvcseg.training import TrainConfig, read_log, train

CONFIG = TrainConfig(
    steps=6,
    width=8,
    depth=1,
    clip_length=2,
    strides=(1, 2),
    crop_size=(32, 32),
    batch_size=2,
    warm_up=2,
    mask=PatchMask(patch_size=8, ratio=0.5),
    seed=5,
    checkpoint_every=2,
    eval_every=3,
    eval_clip_length=5,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_set(
        tmp_path_factory.mktemp("data") / "toy", videos={"train": 2, "val": 1}, frames=9, size=(32, 48)
    )


@pytest.fixture(scope="module")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run of ``CONFIG``."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    result = train(CONFIG, root=root, out=out)
    assert (result.model, result.steps) == (out / "model.safetensors", 6)
    assert set(result.scores) == {"mIoU", "VC8", "VC16"}
    return out


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_compact(path / "model.safetensors").state_dict()


def assert_same_run(first: Path, second: Path) -> None:
    assert untimed(first) == untimed(second)
    there = weights(second)
    for name, tensor in weights(first).items():
        assert torch.equal(tensor, there[name]), name


def test_ctrl_c_keeps_every_finished_step(root: Path, finished: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, checkpoint_every=100, eval_every=0)
    out = tmp_path / "run"

    drawn, draws = PatchMask.__call__, []

    def press(self: PatchMask, frames: torch.Tensor, *, generator: torch.Generator | None = None) -> torch.Tensor:
        draws.append(frames.shape)
        if len(draws) == 5:  # two clips a step: within the third
            os.kill(os.getpid(), signal.SIGINT)
        return drawn(self, frames, generator=generator)

    before = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PatchMask, "__call__", press)
        with pytest.raises(KeyboardInterrupt):
            train(config, root=root, out=out)
    assert signal.getsignal(signal.SIGINT) is before
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step_3"]
    train(config, root=root, out=out, resume=True)
    losses = [row["loss"] for row in read_log(out) if "loss" in row]
    assert losses == [row["loss"] for row in read_log(finished) if "loss" in row]


def test_a_run_leaves_model_log_and_the_last_two_checkpoints(finished: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == [
        "checkpoints", "config.json", "log.jsonl", "model.safetensors",
    ]  # fmt: skip
    assert {path.name for path in (finished / "checkpoints").iterdir()} == {"step_4", "step_6"}
    model = load_compact(finished / "model.safetensors")
    assert model.class_names == tuple(CLASS_NAMES)
    assert model.metadata["config"] == CONFIG.to_dict()
    assert model.metadata["scores"]["VC16"] is None  # nine frames are too few


def test_the_log_holds_a_line_a_step_and_a_line_an_evaluation(finished: Path) -> None:
    lines = read_log(finished)
    assert [line["step"] for line in lines] == [1, 2, 3, 3, 4, 5, 6, 6]
    for line in lines:
        if "mIoU" in line:
            assert set(line) == {"step", "mIoU", "VC8", "VC16"}
            assert 0 <= line["mIoU"] <= 1
        else:
            assert set(line) == {
                "step", "loss", "loss_clean", "loss_masked", "lr", "seconds", "images_per_second",
            }  # fmt: skip
            assert line["loss"] == pytest.approx(line["loss_clean"] + line["loss_masked"])
    assert [line["lr"] for line in lines[:3]] == pytest.approx([5e-4, 1e-3, 1e-3])
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("last", [4, 6, None])
def test_a_resumed_run_is_the_run_that_was_never_stopped(
    finished: Path, root: Path, tmp_path: Path, last: int | None
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "model.safetensors").unlink()
    for step in (4, 6):
        if last is None or step > last:  # as if killed before this checkpoint had its name
            shutil.rmtree(out / "checkpoints" / f"step_{step}")
    with (out / "log.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    torch.rand(3)  # whatever else the program drew
    train(CONFIG, root=root, out=out, resume=True)
    assert_same_run(out, finished)


def test_resume_in_a_new_folder_starts(finished: Path, root: Path, tmp_path: Path) -> None:
    train(CONFIG, root=root, out=tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", finished)


def test_training_leaves_the_callers_random_state_alone(root: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    train(replace(CONFIG, steps=1, warm_up=0, eval_every=0), root=root, out=tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_mask_there_is_one_loss(root: Path, tmp_path: Path) -> None:
    train(replace(CONFIG, steps=2, mask=None, eval_every=0), root=root, out=tmp_path / "run")
    for line in read_log(tmp_path / "run"):
        assert line["loss_masked"] is None
        assert line["loss"] == line["loss_clean"]


def test_a_mask_that_hides_nothing_doubles_the_loss(root: Path, tmp_path: Path) -> None:
    mask = PatchMask(patch_size=8, ratio=0.0)
    train(replace(CONFIG, steps=2, mask=mask, mask_weight=0.5, eval_every=0), root=root, out=tmp_path / "run")
    for line in read_log(tmp_path / "run"):
        assert line["loss_masked"] == pytest.approx(0.5 * line["loss_clean"])


def test_every_clip_has_a_mask_of_its_own_and_every_run_the_same(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[torch.Tensor] = []
    draw = PatchMask.__call__
    monkeypatch.setattr(
        PatchMask, "__call__", lambda self, frames, **given: drawn.append(draw(self, frames, **given)) or drawn[-1]
    )
    config = replace(CONFIG, steps=2, gradient_accumulation=2, eval_every=0)
    for name in ("first", "second"):
        train(config, root=root, out=tmp_path / name)
    assert len(drawn) == 16
    assert all(torch.equal(here, there) for here, there in zip(drawn[:8], drawn[8:], strict=True))
    assert all(not torch.equal(drawn[i], drawn[j]) for i in range(8) for j in range(i))


def test_bfloat16_follows_float32_roughly(finished: Path, root: Path, tmp_path: Path) -> None:
    train(replace(CONFIG, precision="bf16"), root=root, out=tmp_path / "run")
    for half, full in zip(read_log(tmp_path / "run"), read_log(finished), strict=True):
        if "loss" in half:
            assert half["loss"] == pytest.approx(full["loss"], rel=0.1)
            assert half["loss"] != full["loss"]


def test_accumulation_sees_the_same_clips_in_as_many_steps(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    read = ClipDataset.packed
    monkeypatch.setattr(ClipDataset, "packed", lambda self, index: seen.append(index) or read(self, index))
    config = replace(CONFIG, steps=20, eval_every=0, checkpoint_every=100)
    train(config, root=root, out=tmp_path / "whole")
    train(replace(config, batch_size=1, gradient_accumulation=2), root=root, out=tmp_path / "parts")
    assert seen == list(range(40)) * 2
    assert_same_losses(tmp_path / "whole", tmp_path / "parts", steps=20)


def test_workers_change_nothing(finished: Path, root: Path, tmp_path: Path) -> None:
    train(replace(CONFIG, num_workers=1), root=root, out=tmp_path / "run")
    assert_same_run(tmp_path / "run", finished)


@pytest.mark.parametrize("clip_gradient", [None, 1.0])
def test_a_loss_that_is_not_finite_stops_the_run(root: Path, tmp_path: Path, clip_gradient: float | None) -> None:
    wild = replace(CONFIG, learning_rate=1e30, clip_gradient=clip_gradient, warm_up=0, eval_every=0)
    message = r"step 2: the (loss|norm of the gradient) is not finite \(video train_00\d_\w+, frames \d, \d; video .*\)"
    with pytest.raises(TrainingError, match=message):
        train(wild, root=root, out=tmp_path / "run")
    assert [line["step"] for line in read_log(tmp_path / "run")] == [1]
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_used_folder_and_another_configuration_are_refused(finished: Path, root: Path) -> None:
    with pytest.raises(ConfigError, match="is not empty; resume=True"):
        train(CONFIG, root=root, out=finished)
    with pytest.raises(ConfigError, match=r"weight_decay: expected 0\.01 as the run in .* began with, got 0\.1"):
        train(replace(CONFIG, weight_decay=0.1), root=root, out=finished, resume=True)


def test_a_missing_split_or_frame_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test\.txt"):
        train(CONFIG, root=root, out=tmp_path / "run", split="test")
    assert not (tmp_path / "run").exists()
    broken = tmp_path / "toy"
    shutil.copytree(root, broken)
    for image in broken.glob("data/train_*/origin/*.jpg"):
        image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(DataError, match=r"\.jpg"):
        train(CONFIG, root=broken, out=tmp_path / "run")


def test_videos_without_labels_are_left_out_and_a_split_of_them_refused(
    finished: Path, root: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "toy"
    shutil.copytree(root, bare)
    name = (bare / "val.txt").read_text().strip()
    shutil.copytree(bare / "data" / name / "origin", bare / "data" / "bare" / "origin")
    with (bare / "train.txt").open("a") as file:
        file.write("bare\n")
    train(CONFIG, root=bare, out=tmp_path / "run")
    assert_same_run(tmp_path / "run", finished)
    (bare / "val.txt").write_text("bare\n")
    with pytest.raises(DataError, match=r"no video of val\.txt has a mask/ folder"):
        train(CONFIG, root=bare, out=tmp_path / "other")


def test_a_broken_checkpoint_is_named(finished: Path, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    for name in ("model.safetensors", "optimizer.bin"):
        file = out / "checkpoints" / "step_6" / name
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(
            CheckpointError, match=r"step_6: broken \(.*remove this folder to resume from the one before"
        ):
            train(CONFIG, root=root, out=out, resume=True)
        file.write_bytes(whole)


def test_a_full_disk_is_named_and_leaves_the_checkpoints_before(finished: Path, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    shutil.rmtree(out / "checkpoints" / "step_6")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # files of more bytes cannot be written
        with pytest.raises(CheckpointError, match=r"step_6\.part: cannot be written"):
            train(CONFIG, root=root, out=out, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    train(CONFIG, root=root, out=out, resume=True)
    assert_same_run(out, finished)


def test_without_accelerate_the_extra_is_named(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r'pip install "mvcseg\[train\]"'):
        train(CONFIG, root=root, out=tmp_path / "run")


@pytest.mark.slow
def test_sigkill_at_any_moment_loses_at_most_the_steps_since(root: Path, tmp_path: Path) -> None:
    long = replace(CONFIG, steps=16, checkpoint_every=3, eval_every=0)
    (tmp_path / "run.json").write_text(json.dumps(long.to_dict()))
    with torch.random.fork_rng():
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        train(long, root=root, out=tmp_path / "whole")
        torch.set_num_threads(threads)
    out = tmp_path / "killed"
    for lines in (4, 9):
        process = started(tmp_path / "run.json", root, out)
        deadline = time.monotonic() + 120
        while (not (out / "log.jsonl").exists() or len((out / "log.jsonl").read_text().splitlines()) < lines) and (
            process.poll() is None
        ):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        steps = [int(path.name[5:]) for path in (out / "checkpoints").glob("step_*")]
        assert max(steps, default=0) >= len(read_log(out)) - 3
    finished_run(tmp_path / "run.json", root, out)
    assert_same_run(out, tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(finished: Path, root: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=20, checkpoint_every=20, eval_every=20)
    (tmp_path / "run.json").write_text(json.dumps(replace(config, batch_size=1).to_dict()))
    train(config, root=root, out=tmp_path / "alone")
    finished_run(tmp_path / "run.json", root, tmp_path / "pair", *TWO_PROCESSES)
    assert_same_losses(tmp_path / "alone", tmp_path / "pair", steps=20)
    assert len(list((tmp_path / "pair" / "checkpoints" / "step_20").glob("random_states_*"))) == 2
