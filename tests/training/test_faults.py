"""What can break under a run ends it in one message, and the run goes on afterwards as if nothing had happened."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import untimed

from mvcseg.cli import main
from mvcseg.data.clip import PackedClip
from mvcseg.data.clips import ClipDataset
from mvcseg.data.toy import write_toy_set
from mvcseg.errors import TrainingError
from mvcseg.losses import PixelObjective
from mvcseg.models.compact_checkpoint import load_compact
from mvcseg.segmenter import Segmenter
from mvcseg.training import TrainConfig, train
from mvcseg.training.run_folder import Log

CONFIG = TrainConfig(
    steps=6, width=8, depth=1, clip_length=2, crop_size=(32, 32), batch_size=2, seed=5, checkpoint_every=2
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_set(tmp_path_factory.mktemp("data") / "toy", videos={"train": 2}, frames=9, size=(32, 48))


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    """A data set to spoil."""
    return Path(shutil.copytree(original, tmp_path / "toy"))


@pytest.fixture(scope="module")
def whole(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(CONFIG, root=original, out=out)
    return out


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def command(config: TrainConfig, root: Path, *more: str) -> int:
    Path("run.json").write_text(json.dumps(config.to_dict()))
    return main(["train", "--vspw", str(root), "--config", "run.json", "--out", "run", *more])


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """The one message on standard error, without the progress bar."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if line.startswith("mvcseg: ")]
    assert len(lines) == 1, text
    return lines[0]


@contextmanager
def no_larger_files(size: int) -> Iterator[None]:
    """As on a full disk: no file can grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_vanished_file_is_named_and_the_run_goes_on_when_it_is_back(
    workers: int, whole: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, write = replace(CONFIG, num_workers=workers), Log.write

    def vanish(self: Log, **values: Any) -> None:
        write(self, **values)
        if values["step"] == 3:
            (root / "data").rename(root / "gone")

    with monkeypatch.context() as patch:
        patch.setattr(Log, "write", vanish)
        assert command(config, root) == 1
    message = told(capsys)
    assert ".jpg" in message or ".png" in message or "origin" in message
    assert message.endswith("--resume goes on from it")
    (root / "gone").rename(root / "data")
    assert command(config, root, "--resume") == 0
    assert untimed(Path("run")) == untimed(whole)


def test_a_dead_worker_is_told_and_the_run_goes_on(
    whole: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, read = replace(CONFIG, num_workers=1), ClipDataset.packed

    def die(self: ClipDataset, index: int) -> PackedClip:
        if index == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(ClipDataset, "packed", die)
        assert command(config, root) == 1
    message = told(capsys)
    assert "num_workers: a process that reads clips died" in message
    assert "step_2, --resume goes on from it" in message or "step_4, --resume" in message
    assert command(config, root, "--resume") == 0
    assert untimed(Path("run")) == untimed(whole)


@pytest.mark.parametrize(("size", "file"), [(100, "log.jsonl"), (20_000, r".step_2.part")])
def test_a_full_disk_is_told_and_the_run_goes_on(
    size: int, file: str, whole: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run").mkdir()
    for name in ("run.json", "run/config.json"):
        Path(name).write_text(json.dumps(CONFIG.to_dict()))
    with no_larger_files(size):
        assert main(["train", "--vspw", str(root), "--config", "run.json", "--out", "run", "--resume"]) == 1
    message = told(capsys)
    assert f"{file}: cannot be written" in message
    assert message.endswith("no checkpoint was written yet, --resume starts anew")
    assert command(CONFIG, root, "--resume") == 0
    assert untimed(Path("run")) == untimed(whole)


def test_a_full_disk_at_the_end_leaves_the_model_to_be_written(
    whole: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, "run")
    Path("run/model.safetensors").unlink()
    with no_larger_files(20_000):
        assert command(CONFIG, root, "--resume") == 1
    assert "model.safetensors: cannot be written" in told(capsys)
    assert command(CONFIG, root, "--resume") == 0
    here, there = (load_compact(run / "model.safetensors").state_dict() for run in (Path("run"), whole))
    assert all(torch.equal(tensor, there[name]) for name, tensor in here.items())


def test_a_loss_that_is_no_number_names_the_last_good_checkpoint(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = ClipDataset.packed

    def spoil(self: ClipDataset, index: int) -> PackedClip:
        clip = read(self, index)
        return clip._replace(frames=torch.full(clip.frames.shape, torch.nan)) if index == 9 else clip

    monkeypatch.setattr(ClipDataset, "packed", spoil)
    assert command(CONFIG, root) == 1
    message = told(capsys)
    assert "step 5: the loss is not finite (video train_" in message
    assert "the last good checkpoint is run/checkpoints/step_4, --resume goes on from it" in message


def test_memory_that_is_full_names_what_to_lower(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(self: PackedClip, device: object = None) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PackedClip, "unpacked", fail)
    with pytest.raises(TrainingError, match="step 1: the device's memory is full; lower batch_size"):
        train(CONFIG, root=root, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (200, r"expected raw mask values 0 (void), 1.."),
        (0, "no pixel of 18 label maps has a class (all are void)"),
    ],
)
def test_labels_that_cannot_be_learned_are_told_before_the_folder_is_made(
    raw: int, message: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    for path in sorted(root.glob("data/train_*/mask/*.png"))[3 if raw else 0 :]:
        Image.new("L", (48, 32), raw).save(path)
    assert command(CONFIG, root) == 1
    assert message in told(capsys)
    assert not Path("run").exists()


def test_clips_that_are_void_throughout_have_no_loss(root: Path, tmp_path: Path) -> None:
    from PIL import Image

    for path in root.glob("data/train_000*/mask/*.png"):
        Image.new("L", (48, 32), 0).save(path)
    config = replace(CONFIG, steps=8, batch_size=1)
    train(config, root=root, out=tmp_path / "run")
    losses = [line["loss"] for line in untimed(tmp_path / "run")]
    assert 0 in losses
    assert max(losses) > 0


def test_videos_shorter_than_a_clip_are_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = replace(CONFIG, clip_length=12, steps=1)
    assert command(replace(long, sampling="consecutive"), root) == 1
    text = capsys.readouterr().err
    assert "clip_length: expected videos of at least 12 frames, got 2 of 2 that are shorter" in text
    assert "train_000" in text
    assert not Path("run").exists()
    assert command(long, root) == 0
    assert (
        "note: 2 of 2 videos are shorter than clip_length = 12; their clips hold some frames more than once: train_000"
        in (capsys.readouterr().err)
    )


class Spiked:
    """Cross-entropy whose gradient, and only that, is NaN at one of its calls."""

    def __init__(self, call: int) -> None:
        self.call, self.calls = call, 0

    def __call__(
        self, segmenter: Segmenter, frames: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        self.calls += 1
        loss = PixelObjective()(segmenter, frames, labels)
        return loss + (loss - loss).square().sum().sqrt() if self.calls == self.call else loss


@pytest.mark.parametrize("clip_gradient", [None, 1.0])
def test_a_gradient_that_is_not_finite_never_reaches_weights_or_checkpoint(
    original: Path, clip_gradient: float | None
) -> None:
    config = replace(CONFIG, clip_gradient=clip_gradient, checkpoint_every=1)
    with pytest.raises(TrainingError, match=r"step 3: the norm of the gradient is not finite .*step_2"):
        train(config, root=original, out="run", objective=Spiked(3))
    train(replace(config, learning_rate=1e-4), root=original, out="run", resume=True)  # a lower rate rescues it
    assert load_compact("run/model.safetensors").num_classes == 12


def test_a_checkpoint_of_other_classes_is_not_called_broken(
    whole: Path, original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, "run")
    shutil.rmtree("run/checkpoints/step_6")
    other = Path(shutil.copytree(original, tmp_path / "other"))
    file = other / "label_num_dic_final.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "thirteenth": "13"}))
    assert command(CONFIG, other, "--resume") == 1
    told = capsys.readouterr().err
    assert "was trained with another model or other classes (size mismatch" in told
    assert "broken" not in told
    assert "remove" not in told


def test_a_checkpoint_of_junk_is_called_broken(whole: Path, original: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(whole, "run")
    shutil.rmtree("run/checkpoints/step_6")
    Path("run/checkpoints/step_4/custom_checkpoint_0.pkl").write_bytes(b"junk junk junk")
    assert command(CONFIG, original, "--resume") == 1
    assert "step_4: broken (" in capsys.readouterr().err
