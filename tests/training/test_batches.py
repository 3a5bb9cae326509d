"""Reading the clips of a run: what fails is told as what it is."""

from __future__ import annotations

import pytest
from filmed import position_video

from mvcseg.data.clip import PackedClip
from mvcseg.data.clips import ClipDataset
from mvcseg.errors import DataError, TrainingError
from mvcseg.training import TrainConfig
from mvcseg.training.batches import clip_dataset, iter_steps


def read(workers: int) -> list[list[PackedClip]]:
    config = TrainConfig(steps=2, clip_length=2, crop_size=(32, 32), batch_size=2, num_workers=workers)
    clips = clip_dataset(config, [position_video()], processes=1)
    return list(iter_steps(config, clips, first_step=0, process=0, processes=1, pin_memory=False))


def fail_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def packed(self: ClipDataset, index: int) -> PackedClip:
        raise error

    monkeypatch.setattr(ClipDataset, "packed", packed)


def test_a_step_holds_its_samples() -> None:
    assert [[batch.sample.tolist() for batch in step] for step in read(0)] == [[[0, 1]], [[2, 3]]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_in_the_program_is_no_dead_worker(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(RuntimeError("a mistake"), monkeypatch)
    with pytest.raises(RuntimeError, match="a mistake") as error:
        read(workers)
    assert not isinstance(error.value, TrainingError)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_disk_that_refuses_is_told_with_the_frames(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(OSError(24, "Too many open files"), monkeypatch)
    with pytest.raises(DataError, match=r"^video a, frames \d+, \d+: cannot be read \(Too many open files\)$"):
        read(workers)
