"""Stages of DVIS++ as runs: each starts from the one before, and neither processes nor kills change a loss."""

from __future__ import annotations

import json
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import SPREAD, TINY, TWO_PROCESSES, assert_same_losses, finished_run, stage_config, started, untimed

from mvcseg import predict_labels
from mvcseg.data.toy import write_toy_set
from mvcseg.data.toy_scene import CLASS_NAMES
from mvcseg.data.vspw import VSPW
from mvcseg.errors import CheckpointError, ConfigError
from mvcseg.loading import load_checkpoint
from mvcseg.models.dvis import DVIS, load_trained
from mvcseg.models.dvis.checkpoint import load_official
from mvcseg.training import read_log, train
from mvcseg.training.config_values import dvis_config
from mvcseg.training.dvis_trainee import suited_size

STAGES = ("segmenter", "tracker", "refiner")
RATES = {"segmenter": 0.0, "tracker": 1e-4, "refiner": 1e-4}
"""Of runs that are compared to rounding. A segmenter with drawn weights decides hard what its attention leaves out and
which query meets which target, so weights that differ by rounding soon differ by more; its gradients are compared."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_set(
        tmp_path_factory.mktemp("data") / "toy", videos={"train": 2, "val": 1}, frames=9, size=(32, 48)
    )


@pytest.fixture(scope="module")
def stages(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The three stages, each a run that starts from the model of the one before."""
    folder, models, before = tmp_path_factory.mktemp("stages"), dict[str, Path](), None
    for stage in STAGES:
        config = stage_config(stage, start_from=before, eval_every=4, eval_clip_length=5)
        models[stage] = train(config, root=root, out=folder / stage).model
        before = str(models[stage])
    return models


def weights(model: DVIS, part: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith(part)}


def test_each_stage_keeps_what_it_starts_from_and_adds_a_part(stages: dict[str, Path]) -> None:
    models = {stage: load_trained(path).model for stage, path in stages.items()}
    for before, after, kept in (
        ("segmenter", "tracker", ("backbone.", "sem_seg_head.")),
        ("tracker", "refiner", ("backbone.", "sem_seg_head.", "tracker.")),
    ):
        for part in kept:
            there = weights(models[after], part)
            assert there
            for name, tensor in weights(models[before], part).items():
                assert torch.equal(tensor, there[name]), name
    assert weights(models["refiner"], "refiner.")


def test_a_stages_log_holds_the_terms_of_its_loss(stages: dict[str, Path]) -> None:
    for path in stages.values():
        lines = read_log(path.parent)
        assert [line["step"] for line in lines] == [1, 2, 3, 4, 4]
        for line in lines[:-1]:
            assert {"loss_ce", "loss_mask", "loss_dice", "loss_contrast"} < line.keys()
            assert line["loss"] == pytest.approx(line["loss_clean"] + line["loss_masked"])
        assert lines[-1].keys() == {"step", "mIoU", "VC8", "VC16"}


def test_a_trained_model_predicts_under_its_class_names(stages: dict[str, Path], root: Path) -> None:
    loaded = load_checkpoint(stages["refiner"])
    assert loaded.class_names == tuple(CLASS_NAMES)
    assert (loaded.short_side, loaded.long_side) == (32, None)
    video = VSPW(root, split="val")[0]
    assert predict_labels(loaded.segmenter, video.frames, clip_length=4).shape == (9, 32, 48)
    model = load_official(stages["refiner"], preset=load_trained(stages["refiner"]).config)
    assert model.refiner is not None


def test_a_stage_resumes_with_the_losses_and_weights_it_would_have_had(root: Path, tmp_path: Path) -> None:
    config = stage_config("refiner", checkpoint_every=2)
    train(config, root=root, out=tmp_path / "whole")
    out = tmp_path / "stopped"
    shutil.copytree(tmp_path / "whole", out)
    shutil.rmtree(out / "checkpoints" / "step_4")
    (out / "model.safetensors").unlink()
    train(config, root=root, out=out, resume=True)
    assert untimed(out) == untimed(tmp_path / "whole")
    here, there = (load_trained(run / "model.safetensors").model.state_dict() for run in (out, tmp_path / "whole"))
    assert all(torch.equal(tensor, there[name]) for name, tensor in here.items())


def test_a_run_that_has_begun_no_longer_needs_what_it_started_from(
    stages: dict[str, Path], root: Path, tmp_path: Path
) -> None:
    start = tmp_path / "start.safetensors"
    shutil.copy(stages["segmenter"], start)
    config = stage_config("tracker", steps=1, start_from=str(start))
    train(config, root=root, out=tmp_path / "run")
    start.unlink()
    train(config, root=root, out=tmp_path / "run", resume=True)


def assert_same_moments(first: Path, second: Path) -> None:
    """Running means of all steps' gradients, equal but for rounding."""
    here, there = (torch.load(run / "checkpoints" / "step_20" / "optimizer.bin")["state"] for run in (first, second))
    assert here.keys() == there.keys()
    largest = max(float(state["exp_avg"].abs().max()) for state in here.values())
    for number, state in here.items():
        torch.testing.assert_close(state["exp_avg"], there[number]["exp_avg"], rtol=1e-3, atol=1e-4 * largest)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_accumulation_gives_a_stage_the_losses_of_one_batch(stage: str, root: Path, tmp_path: Path) -> None:
    config = stage_config(stage, steps=20, learning_rate=RATES[stage])
    train(config, root=root, out=tmp_path / "whole")
    train(replace(config, batch_size=1, gradient_accumulation=2), root=root, out=tmp_path / "parts")
    assert_same_losses(tmp_path / "whole", tmp_path / "parts", steps=20)
    assert_same_moments(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_give_a_stage_the_losses_of_one_with_twice_the_batch(
    stage: str, root: Path, tmp_path: Path
) -> None:
    config = stage_config(stage, steps=20, learning_rate=RATES[stage])
    (tmp_path / "run.json").write_text(json.dumps(replace(config, batch_size=1).to_dict()))
    train(config, root=root, out=tmp_path / "alone")
    finished_run(tmp_path / "run.json", root, tmp_path / "pair", *TWO_PROCESSES)
    assert_same_losses(tmp_path / "alone", tmp_path / "pair", steps=20)
    assert_same_moments(tmp_path / "alone", tmp_path / "pair")


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_with_one(root: Path, tmp_path: Path) -> None:
    config = stage_config("refiner", checkpoint_every=2)
    train(config, root=root, out=tmp_path / "alone")
    (tmp_path / "run.json").write_text(json.dumps(replace(config, batch_size=1).to_dict()))
    out = tmp_path / "pair"
    finished_run(tmp_path / "run.json", root, out, *TWO_PROCESSES)
    shutil.rmtree(out / "checkpoints" / "step_4")
    with pytest.raises(ConfigError, match=r"processes = 2 as the run began with, got 1 \* 1 \* 1 = 1"):
        train(replace(config, batch_size=1), root=root, out=out, resume=True)
    train(config, root=root, out=out, resume=True)
    assert_same_losses(tmp_path / "alone", out, steps=4)


@pytest.mark.slow
def test_weights_spread_over_two_processes_learn_the_same(root: Path, tmp_path: Path) -> None:
    config = stage_config("tracker", eval_every=4, checkpoint_every=2, eval_clip_length=5)
    train(config, root=root, out=tmp_path / "alone")
    (tmp_path / "run.json").write_text(json.dumps(replace(config, batch_size=1).to_dict()))
    out = tmp_path / "spread"
    finished_run(tmp_path / "run.json", root, out, *TWO_PROCESSES, program=SPREAD)
    assert_same_losses(tmp_path / "alone", out, steps=4)
    here, there = (load_trained(run / "model.safetensors").model.state_dict() for run in (tmp_path / "alone", out))
    for name, tensor in here.items():
        torch.testing.assert_close(tensor, there[name], rtol=1e-3, atol=1e-4, msg=name)
    shutil.rmtree(out / "checkpoints" / "step_4")
    whole = untimed(out)
    finished_run(tmp_path / "run.json", root, out, *TWO_PROCESSES, program=SPREAD)
    assert untimed(out) == whole


@pytest.mark.slow
def test_sigkill_at_any_moment_of_a_stage_loses_at_most_the_steps_since(root: Path, tmp_path: Path) -> None:
    config = stage_config("refiner", steps=12, checkpoint_every=3)
    (tmp_path / "run.json").write_text(json.dumps(config.to_dict()))
    finished_run(tmp_path / "run.json", root, tmp_path / "whole")
    out = tmp_path / "killed"
    for lines in (4, 8):
        process = started(tmp_path / "run.json", root, out)
        deadline = time.monotonic() + 300
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
    assert untimed(out) == untimed(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"objective": "pixel"}, 'objective: expected "queries" or null for a stage of DVIS'),
        ({"masked_parts": ("trackers",)}, "masked_parts: expected some of tracker, pixels"),
        ({"model": {**TINY, "has_reid": False}, "contrast_weight": 2.0}, "contrast_weight: expected 0, got 2.0"),
        ({"model": {**TINY, "num_classes": 3}}, r"model\.num_classes: expected \d+ as the data set has, got 3"),
        ({"model": TINY, "noise": "wa"}, "noise: expected none, since only a tracker"),
    ],
)
def test_what_contradicts_the_stage_is_refused_before_the_folder_is_made(
    changes: dict[str, Any], told: str, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told):
        train(stage_config("tracker", **changes), root=root, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_classes_than_those_of_the_start_are_refused_by_name(
    stages: dict[str, Path], root: Path, tmp_path: Path
) -> None:
    other = tmp_path / "toy"
    shutil.copytree(root, other)
    file = other / "label_num_dic_final.json"
    ids = json.loads(file.read_text())
    names = {raw: name for name, raw in ids.items()}
    swapped = {**ids, names["1"]: "2", names["2"]: "1"} if isinstance(next(iter(names)), str) else ids
    file.write_text(json.dumps(swapped))
    config = stage_config("tracker", start_from=str(stages["segmenter"]))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its class 0 is .* that of the data is"):
        train(config, root=other, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    file.write_text(json.dumps({**ids, "glass": str(len(ids))}))
    with pytest.raises(CheckpointError, match=r"has \d+ classes, the model to be trained has \d+; new_classes=True"):
        train(config, root=other, out=tmp_path / "run")
    train(replace(config, new_classes=True, steps=1), root=other, out=tmp_path / "run")


def test_a_model_is_tested_at_a_size_that_it_was_trained_at() -> None:
    small, published = dvis_config(TINY), stage_config("tracker", short_sides=(480, 720, 800), long_side=1333)
    assert suited_size(published, small) == (720, 1333)
    assert suited_size(stage_config("tracker", short_sides=(64, 32, 48), long_side=100), small) == (48, 100)
    zoomed = stage_config("tracker", short_sides=None, crop_size=(32, 48))
    assert suited_size(zoomed, small) == (None, None)
