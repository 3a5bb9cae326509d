"""The set loss: published values, hand cases, laws."""

from __future__ import annotations

import pytest
import torch
from golden_files import Golden, GoldenFolders, unit_uniform
from torch import Tensor

from mvcseg.losses.queries import DenseMasks, LayerPrediction, QueryClip
from mvcseg.losses.set_losses import SetLosses, SetSettings, set_loss_terms
from mvcseg.losses.set_matching import ClipTargets, PairCosts, assign_pairs
from mvcseg.losses.targets import targets_of_masks

VARIANTS = {
    "framewise": SetSettings(matching="frame", num_points=64, keep_absent=True),
    "consistent": SetSettings(matching="first", num_points=64),
    "consistent_guided": SetSettings(matching="first", num_points=64),
    "offline": SetSettings(matching="video", num_points=64),
}


class RecordedDraws:
    """The draws of a golden variant, in their order; each shape is the one recorded."""

    def __init__(self, file: Golden, variant: str) -> None:
        self.left = list(file.meta["draws"][variant])
        self.seed = file.meta.get("seed", 2)

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        name, recorded = self.left.pop(0)
        assert list(shape) == recorded, f"{name}: drawn as {shape}, recorded as {recorded}"
        return torch.from_numpy(unit_uniform(name, shape, seed=self.seed)).float()


def layer_of(file: Golden, prefix: str, *, matching: str) -> LayerPrediction:
    logits = file.tensor(f"{prefix}pred_logits").unsqueeze(0).clone().requires_grad_()
    masks = file.tensor(f"{prefix}pred_masks").squeeze(2).unsqueeze(0).clone().requires_grad_()
    return LayerPrediction(logits[:, :1] if matching == "video" else logits, DenseMasks(masks))


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_costs_matches_and_gradients_are_the_published_ones(
    variant: str, golden: GoldenFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, settings = Golden(golden / "ops/criterion.npz"), VARIANTS[variant]
    costs = []

    def recording(cost: object) -> object:
        costs.append(cost)
        return assign_pairs(cost)

    monkeypatch.setattr("mvcseg.losses.set_matching.assign_pairs", recording)
    targets = targets_of_masks(file.tensor("masks").bool(), file.tensor("labels"))
    assert torch.equal(targets.is_present, file.tensor("ids") >= 0)
    layers = [layer_of(file, prefix, matching=settings.matching) for prefix in ("aux0.", "aux1.", "")]
    guide = layer_of(file, "matcher.", matching=settings.matching)
    draw = RecordedDraws(file, variant)
    losses = set_loss_terms(
        QueryClip(tuple(layers), guide=guide),
        [ClipTargets(targets)],
        settings=settings,
        draws=[draw],
        guided=variant == "consistent_guided",
    )
    assert not draw.left
    for layer, suffix in zip(losses.layers, ("_0", "_1", ""), strict=True):
        for name, value in (("ce", layer.classes), ("mask", layer.mask), ("dice", layer.dice)):
            assert value.item() == pytest.approx(file.arrays[f"{variant}.loss.loss_{name}{suffix}"].item(), rel=2e-6)
    for number, cost in enumerate(costs[:5]):  # the file keeps no more
        expected = file.arrays[f"{variant}.cost.{number}"]
        assert torch.allclose(torch.as_tensor(cost), torch.from_numpy(expected[expected[:, 0] < 1e5]), rtol=2e-6)
    # the file keeps the assignment that was made last: of layer 1, or of the guide
    for number, match in enumerate(losses.layers[1].matches[0]):
        assert torch.equal(match.queries, file.tensor(f"{variant}.last_match.{number}.src"))
        assert torch.equal(match.targets, file.tensor(f"{variant}.last_match.{number}.tgt"))
    if f"{variant}.grad.pred_logits" in file:
        last = layers[-1]
        SetLosses((losses.layers[-1],)).total(PairCosts()).backward()
        assert last.class_logits.grad is not None
        file.check(f"{variant}.grad.pred_logits", last.class_logits.grad[0], rtol=2e-6)
        file.check(f"{variant}.grad.pred_masks", last.masks.logits.grad[0].unsqueeze(2), rtol=2e-6)
