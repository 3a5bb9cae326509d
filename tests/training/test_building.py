"""What a configuration says to train: a compact segmenter, anybody's own; each saved so that it comes back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_model
from torch import Tensor, nn

from mvcseg import PerFrame, loading
from mvcseg.errors import CheckpointError, ConfigError
from mvcseg.losses import PixelObjective
from mvcseg.losses.mask_set import MaskSetObjective
from mvcseg.losses.queries import DenseMasks, LayerPrediction, QueryClip
from mvcseg.models.compact import CompactSegmenter
from mvcseg.models.compact_checkpoint import load_compact, save_compact
from mvcseg.training import TrainConfig
from mvcseg.training.building import build_trainee

NAMES = ("sky", "tree", "road")
COMPACT = TrainConfig(steps=1, width=8, depth=1)
OWN = TrainConfig(steps=1, model="own", learning_rate=0.5, weight_decay=0.25)


class Queries(nn.Module):
    """The smallest query model: a query a class."""

    num_classes = 3
    class_names = NAMES

    def __init__(self) -> None:
        super().__init__()
        self.masks = nn.Conv2d(3, 3, kernel_size=4, stride=4)
        self.classes = nn.Parameter(torch.eye(3, 4))

    def predict_queries(self, frames: Tensor) -> QueryClip:
        masks = self.masks(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        classes = self.classes.expand(*frames.shape[:2], 3, 4)
        return QueryClip((LayerPrediction(classes, DenseMasks(masks)),))

    def forward(self, frames: Tensor, /) -> Tensor:
        masks = self.predict_queries(frames).layers[-1].masks
        assert isinstance(masks, DenseMasks)
        return masks.logits.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)


class Pretrained(PerFrame):
    """A segmenter that knows how it is saved."""

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir()
        torch.save(self.state_dict(), folder / "weights.pt")


def per_frame(num_classes: int = 3) -> PerFrame:
    return PerFrame(nn.Conv2d(3, num_classes, 1), num_classes=num_classes, logits_of=lambda out: out)


def test_weights_follow_from_the_seed_and_leave_the_callers_random_state_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = (
        build_trainee(replace(COMPACT, seed=seed), class_names=NAMES).segmenter.state_dict()  # type: ignore[attr-defined]
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])
    assert torch.equal(torch.get_rng_state(), before)


def test_groups_carry_the_learning_rate() -> None:
    trainee = build_trainee(OWN, class_names=NAMES, segmenter=per_frame())
    assert [(group["lr"], group["weight_decay"]) for group in trainee.groups] == [(0.5, 0.25), (0.5, 0.0)]


def test_a_compact_segmenter_starts_from_another(tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = CompactSegmenter(3, width=8, depth=1)
    save_compact(before, tmp_path / "a.safetensors", class_names=NAMES)
    config = replace(COMPACT, start_from=str(tmp_path / "a.safetensors"))
    state = build_trainee(config, class_names=NAMES).module.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in before.state_dict().items())
    other = build_trainee(replace(config, new_classes=True), class_names=("a", "b")).module.state_dict()
    assert other["classifier.weight"].shape[0] == 2
    assert torch.equal(other["to_half.weight"], state["to_half.weight"])


def test_a_start_that_does_not_fit_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_compact(CompactSegmenter(3, width=8, depth=1), path, class_names=NAMES)
    config = replace(COMPACT, start_from=str(path))
    with pytest.raises(ConfigError, match=r"a\.safetensors has 3 classes, the data set 2; new_classes true draws"):
        build_trainee(config, class_names=("a", "b"))
    with pytest.raises(ConfigError, match=r"its class 1 is 'tree', the data set's is 'road'; .* in another order"):
        build_trainee(config, class_names=("sky", "road", "tree"))
    with pytest.raises(CheckpointError, match=r"is of .*'width': 8.*; set width, depth and heads like it"):
        build_trainee(replace(config, width=16), class_names=NAMES)
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such file"):
        build_trainee(replace(COMPACT, start_from="none.safetensors"), class_names=NAMES)
    with pytest.raises(ConfigError, match='objective: expected "pixel" or null for a compact segmenter'):
        build_trainee(replace(COMPACT, objective="queries"), class_names=NAMES)


def test_a_segmenter_learns_by_what_it_answers_with() -> None:
    frames, labels = torch.rand(1, 2, 3, 32, 32), torch.randint(0, 3, (1, 2, 32, 32))
    for segmenter, objective, kind in (
        (per_frame(), None, PixelObjective),
        (Queries(), None, MaskSetObjective),
        (Queries(), "queries", MaskSetObjective),
        (Queries(), "pixel", PixelObjective),
    ):
        config = replace(OWN, objective=objective, num_points=16)
        trainee = build_trainee(config, class_names=NAMES, segmenter=segmenter)
        assert type(trainee.objective) is kind
        loss = trainee.objective(trainee.module, frames, labels)  # type: ignore[arg-type]
        loss.backward()
        assert any(parameter.grad is not None for parameter in segmenter.parameters())
    mine = PixelObjective(label_smoothing=0.1)
    assert build_trainee(OWN, class_names=NAMES, segmenter=Queries(), objective=mine).objective is mine


def test_the_weights_of_ones_own_segmenter_come_back(tmp_path: Path) -> None:
    segmenter = per_frame()
    trainee = build_trainee(OWN, class_names=NAMES, segmenter=segmenter)
    path = trainee.save(segmenter, tmp_path, {"seed": 3})
    other = per_frame()
    load_model(other, path)
    assert torch.equal(other.net.weight, segmenter.net.weight)  # type: ignore[attr-defined]
    (tmp_path / "mine.py").write_text(
        "from torch import nn\nimport mvcseg\n"
        "def build():\n"
        "    return mvcseg.PerFrame(nn.Conv2d(3, 3, 1), num_classes=3, logits_of=lambda out: out)\n"
        "def other():\n"
        "    return mvcseg.PerFrame(nn.Conv2d(3, 3, 2), num_classes=3, logits_of=lambda out: out)\n"
    )
    plain = loading.load_function(f"{tmp_path}/mine.py:build")
    loaded = loading.load_function(f"{tmp_path}/mine.py:build", weights=path)
    assert torch.equal(loaded.segmenter.net.weight, segmenter.net.weight)  # type: ignore[attr-defined]
    assert (loaded.class_names, plain.class_names[0]) == (NAMES, "class 0")
    assert loaded.identity != plain.identity
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be loaded into the segmenter \("):
        loading.load_function(f"{tmp_path}/mine.py:other", weights=path)
    with pytest.raises(CheckpointError, match=r"none: cannot be loaded"):
        loading.load_function(f"{tmp_path}/mine.py:build", weights=tmp_path / "none")


def test_a_segmenter_that_saves_itself_does(tmp_path: Path) -> None:
    segmenter = Pretrained(nn.Conv2d(3, 3, 1), num_classes=3, logits_of=lambda out: out)
    trainee = build_trainee(OWN, class_names=NAMES, segmenter=segmenter)
    for _ in range(2):  # the second one takes the place of the first
        assert trainee.save(segmenter, tmp_path, {}) == tmp_path / "model"
    assert torch.load(tmp_path / "model" / "weights.pt").keys() == segmenter.state_dict().keys()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_finished_compact_segmenter_is_saved_with_what_is_known_of_it(tmp_path: Path) -> None:
    trainee = build_trainee(COMPACT, class_names=NAMES)
    model = load_compact(trainee.save(trainee.segmenter, tmp_path, {"split": "train"}))
    assert (model.class_names, model.metadata) == (NAMES, {"split": "train"})


@pytest.mark.parametrize(
    ("config", "segmenter", "told"),
    [
        (OWN, None, "model: expected \"own\" together with a segmenter of your own, got 'own' and none"),
        (COMPACT, per_frame(), "got 'compact' and one"),
        (OWN, PerFrame(nn.Identity(), num_classes=3, logits_of=lambda out: out), "with weights to train, got PerFrame"),
        (OWN, lambda frames: frames, "expected a torch.nn.Module with weights to train, got function"),
        (OWN, per_frame(4), "segmenter: has 4 classes, the data set 3; build it for as many"),
        (replace(OWN, objective="queries"), per_frame(), 'objective: "queries" needs a segmenter with predict_queries'),
    ],
)
def test_a_segmenter_that_cannot_be_trained_is_told(config: TrainConfig, segmenter: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build_trainee(config, class_names=NAMES, segmenter=segmenter)


def test_class_names_of_ones_own_segmenter_must_be_the_datas() -> None:
    with pytest.raises(ConfigError, match="segmenter: its class 0 is 'sky', the data set's is 'water'"):
        build_trainee(OWN, class_names=("water", "tree", "road"), segmenter=Queries())


def test_a_model_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    segmenter = per_frame()
    trainee = build_trainee(OWN, class_names=NAMES, segmenter=segmenter)
    with pytest.raises(CheckpointError, match="run: the model cannot be written"):
        trainee.save(segmenter, tmp_path / "run", {})


def test_the_header_of_ones_own_weights_holds_names_and_facts(tmp_path: Path) -> None:
    from safetensors import safe_open

    segmenter = per_frame()
    path = build_trainee(OWN, class_names=NAMES, segmenter=segmenter).save(segmenter, tmp_path, {"seed": 3})
    assert loading.format_of(path) == "mvcseg.own"
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    assert json.loads(header["class_names"]) == list(NAMES)
    assert json.loads(header["metadata"]) == {"seed": 3}
