from __future__ import annotations

import math
import re

import pytest
import torch
from golden_files import Golden, GoldenFolders, describe_state, fill_array, fill_module, read_entries
from torch import Tensor
from torch.nn import functional

from mvcseg.errors import ConfigError, ShapeError
from mvcseg.models.backbones.vit import (
    GatedMLP,
    VisionTransformer,
    resize_positions,
    vit_b,
    vit_g,
    vit_l,
    vit_s,
)


def small(*, is_gated: bool = False) -> VisionTransformer:
    net = VisionTransformer(32, depth=3, heads=4, grid=5, is_gated=is_gated)
    return fill_module(net, prefix="backbone.vit_module.").eval()  # type: ignore[return-value]


@pytest.mark.golden
def test_state_dict_is_the_checkpoints_entry_for_entry(golden: GoldenFolders) -> None:
    listed = read_entries(golden / "keys/dvis_plus_online_vitl.json", prefix="backbone.vit_module.")
    with torch.device("meta"):
        state = describe_state(vit_l())
    assert state == {name: {key: entry[key] for key in ("shape", "dtype", "kind")} for name, entry in listed.items()}


@pytest.mark.golden
@pytest.mark.parametrize("size", [(128, 192), (96, 96), (480, 864), (592, 592), (736, 1280)])
def test_resized_positions_are_the_reference_positions(golden: GoldenFolders, size: tuple[int, int]) -> None:
    stored = Golden(golden / "ops/pos_embed_interp.npz")
    array = fill_array("pos.pos_embed", (1, 1370, 8), seed=2)
    assert array is not None
    name = f"pos_{size[0]}x{size[1]}"
    resized = resize_positions(torch.from_numpy(array), height=size[0], width=size[1])
    stored.check(name, resized if stored.arrays[name].shape[-1] == 8 else resized[..., ::4], rtol=2e-6)


@pytest.mark.parametrize("size", [(80, 80), (32, 160), (592, 48)])
def test_resized_positions_have_one_entry_a_patch(size: tuple[int, int]) -> None:
    positions = torch.randn(1, 26, 4)
    resized = resize_positions(positions, height=size[0], width=size[1])
    assert resized.shape == (1, 1 + size[0] * size[1] // 256, 4)
    assert torch.equal(resized[:, 0], positions[:, 0])
    assert (resized is positions) == (size == (80, 80))


def test_resized_positions_step_by_the_side_over_patches_plus_a_tenth() -> None:
    """Cubic convolution (a = -0.75) written out, on a grid that varies from row to row alone."""
    column = torch.randn(37, dtype=torch.float64)
    positions = torch.cat([torch.zeros(1, dtype=torch.float64), column.repeat_interleave(37)]).view(1, -1, 1)
    rows = resize_positions(positions, height=320, width=160)[0, 1:, 0].view(20, 10)
    for i in range(20):
        place = (i + 0.5) * 37 / 20.1 - 0.5
        taps = [math.floor(place) + tap for tap in (-1, 0, 1, 2)]
        expected = sum(float(column[min(max(tap, 0), 36)]) * _cubic(abs(place - tap)) for tap in taps)
        torch.testing.assert_close(rows[i], torch.full((10,), expected, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def _cubic(x: float, a: float = -0.75) -> float:
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a


@pytest.mark.parametrize("is_gated", [False, True])
def test_tokens_are_those_of_the_definition(is_gated: bool) -> None:
    net = small(is_gated=is_gated).double()
    images = torch.randn(2, 3, 80, 80, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(net(images), by_definition(net, images), rtol=1e-10, atol=1e-10)


def by_definition(net: VisionTransformer, images: Tensor) -> Tensor:
    w = dict(net.named_parameters())
    kernel, heads = w["patch_embed.proj.weight"].flatten(1), net.heads
    patches = images.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    x = torch.cat([w["cls_token"].expand(len(images), -1, -1), patches @ kernel.T + w["patch_embed.proj.bias"]], dim=1)
    x = x + w["pos_embed"]
    for i in range(len(net.blocks)):
        block = {name.removeprefix(f"blocks.{i}."): p for name, p in w.items() if name.startswith(f"blocks.{i}.")}
        y = _norm(x, block, "norm1") @ block["attn.qkv.weight"].T + block["attn.qkv.bias"]
        out = []
        for head in range(heads):
            q, k, v = (part.chunk(heads, dim=-1)[head] for part in y.chunk(3, dim=-1))
            out.append((q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1) @ v)
        x = x + block["ls1.gamma"] * (torch.cat(out, -1) @ block["attn.proj.weight"].T + block["attn.proj.bias"])
        y = _norm(x, block, "norm2")
        if "mlp.w12.weight" in block:
            gate, value = (y @ block["mlp.w12.weight"].T + block["mlp.w12.bias"]).chunk(2, -1)
            y = (gate * torch.sigmoid(gate) * value) @ block["mlp.w3.weight"].T + block["mlp.w3.bias"]
        else:
            y = y @ block["mlp.fc1.weight"].T + block["mlp.fc1.bias"]
            y = 0.5 * y * (1 + torch.erf(y / math.sqrt(2)))
            y = y @ block["mlp.fc2.weight"].T + block["mlp.fc2.bias"]
        x = x + block["ls2.gamma"] * y
    return _norm(x, w, "norm")


def _norm(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6)


@pytest.mark.parametrize(
    ("build", "millions"), [(vit_s, 22.1), (vit_b, 86.6), (vit_l, 304.5), (vit_g, 1136.6)], ids="sblg"
)
def test_released_sizes_have_their_parameter_counts(build: type, millions: float) -> None:
    """Those of the released models; the kernel's 60 more weights a channel and colour are below the tolerance."""
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in build().parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.003)


def test_gated_names_and_width_are_those_of_the_released_model() -> None:
    with torch.device("meta"):
        mlp = GatedMLP(1536)
    assert {name: tuple(p.shape) for name, p in mlp.named_parameters()} == {
        "w12.weight": (8192, 1536),
        "w12.bias": (8192,),
        "w3.weight": (1536, 4096),
        "w3.bias": (1536,),
    }


def test_a_batch_gives_what_its_images_give_alone() -> None:
    net, images = small(), torch.randn(3, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(net(images), torch.cat([net(image[None]) for image in images]), rtol=1e-5, atol=1e-5)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="heads: expected a divisor of width=32, got 5"):
        VisionTransformer(32, depth=1, heads=5)
    with pytest.raises(ConfigError, match="depth: expected an integer of at least 1, got 0"):
        VisionTransformer(32, depth=0, heads=4)
    with pytest.raises(
        ShapeError, match=re.escape("images: expected sides that are multiples of 16, got 64 x 90; pad")
    ):
        small()(torch.zeros(1, 3, 64, 90))
