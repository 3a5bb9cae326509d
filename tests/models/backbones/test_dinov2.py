from __future__ import annotations

import pytest
import torch
from golden_files import Golden, GoldenFolders

from mvcseg.errors import CheckpointError, DTypeError, ShapeError
from mvcseg.models.backbones.dinov2 import from_dinov2, resize_patch_kernel
from mvcseg.models.backbones.vit import VisionTransformer


@pytest.mark.golden
def test_resized_kernel_is_the_reference_kernel(golden: GoldenFolders) -> None:
    stored = Golden(golden / "ops/patch_kernel_resize.npz")
    stored.check("kernel16", resize_patch_kernel(stored.tensor("kernel14")), rtol=2e-6)


def test_corners_stay_and_a_ramp_stays_a_ramp() -> None:
    ramp = torch.arange(14.0).expand(2, 3, 14, 14)
    torch.testing.assert_close(resize_patch_kernel(ramp)[0, 0, 0], torch.linspace(0, 13, 16))
    assert resize_patch_kernel(torch.zeros(2, 3, 14, 14), side=18).shape == (2, 3, 18, 18)


def test_a_released_state_loads_strictly_and_is_left_alone() -> None:
    vit = VisionTransformer(32, depth=2, heads=2, grid=5)
    released = vit.state_dict() | {"patch_embed.proj.weight": torch.randn(32, 3, 14, 14)}
    before = dict(released)
    converted = from_dinov2(released)
    vit.load_state_dict(converted)
    assert released == before
    assert {name for name in released if converted[name] is not released[name]} == {"patch_embed.proj.weight"}


def test_a_kernel_of_sixteen_is_taken_as_it_is() -> None:
    kernel = torch.randn(4, 3, 16, 16)
    assert resize_patch_kernel(kernel) is kernel


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"with patch_embed\.proj\.weight, got 1 without it"):
        from_dinov2({"cls_token": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="without registers"):
        from_dinov2({"patch_embed.proj.weight": torch.zeros(4, 3, 14, 14), "register_tokens": torch.zeros(1, 4, 4)})
    with pytest.raises(ShapeError, match=r"kernel: expected \(c 3 p p\)"):
        resize_patch_kernel(torch.zeros(4, 3, 14, 15))
    with pytest.raises(DTypeError, match="kernel: expected a floating-point tensor"):
        resize_patch_kernel(torch.zeros(4, 3, 14, 14, dtype=torch.int64))
