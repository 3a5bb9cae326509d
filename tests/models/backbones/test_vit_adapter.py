from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from golden_files import Golden, GoldenFolders, describe_state, fill_module, read_entries
from torch import Tensor

from mvcseg.errors import ConfigError, ShapeError
from mvcseg.models.backbones.vit import VisionTransformer
from mvcseg.models.backbones.vit_adapter import (
    ViTAdapter,
    vit_adapter_b,
    vit_adapter_g,
    vit_adapter_l,
    vit_adapter_s,
)


def small(*, is_frozen: bool = True) -> ViTAdapter:
    vit = VisionTransformer(64, depth=8, heads=4, grid=6)
    return fill_module(ViTAdapter(vit, stem_width=8, is_frozen=is_frozen), prefix="backbone.")  # type: ignore[return-value]


def watch(net: ViTAdapter) -> dict[str, Tensor]:
    """Intermediate tensors under their golden names, filled while the net runs."""
    seen: dict[str, Tensor] = {}

    def keep(*names: str) -> Callable[..., None]:
        def hook(_module: object, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            outputs = (output,) if isinstance(output, Tensor) else output
            seen.update({name: tensor.clone() for name, tensor in zip(names, outputs, strict=True)})

        return hook

    blocks = net.vit_module.blocks
    net.spm.register_forward_hook(keep("spm.c1", "spm.c2", "spm.c3", "spm.c4"))
    blocks[0].register_forward_pre_hook(lambda _module, inputs: seen.update({"tokens": inputs[0]}))
    blocks[0].register_forward_hook(keep("vit_block0"))
    for index, interaction in enumerate(net.interactions):
        interaction.register_forward_hook(keep(f"interaction{index}.c"))
        last = blocks[(index + 1) * len(blocks) // 4 - 1]
        last.register_forward_hook(
            lambda _module, _inputs, tokens, index=index: seen.update(
                {f"interaction{index}.cls": tokens[:, :1], f"interaction{index}.x": tokens[:, 1:]}
            )
        )
    return seen


@pytest.mark.golden
@pytest.mark.parametrize("preset", ["minvis", "ctvis", "dvis_plus_online", "dvis_plus_offline"])
def test_state_dict_is_the_checkpoints_entry_for_entry(golden: GoldenFolders, preset: str) -> None:
    listed = read_entries(golden / f"keys/{preset}_vitl.json", prefix="backbone.")
    with torch.device("meta"):
        net = vit_adapter_l()
    expected = {name: {key: entry[key] for key in ("shape", "dtype", "kind")} for name, entry in listed.items()}
    assert describe_state(net) == expected


@pytest.mark.golden
def test_exactly_the_adapter_learns_where_the_segmenter_is_trained(golden: GoldenFolders) -> None:
    listed = read_entries(golden / "keys/minvis_vitl.json", prefix="backbone.")
    with torch.device("meta"):
        net = vit_adapter_l()
    learning = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert learning == {name for name, entry in listed.items() if entry["trainable"]}


@pytest.mark.golden
def test_everything_in_a_small_adapter_is_the_reference(golden: GoldenFolders) -> None:
    stored = Golden(golden / "ops/vit_adapter_small.npz")
    names = json.loads((golden / "ops/vit_adapter_small_keys.json").read_text())
    net = small().eval()
    assert {name: [entry["shape"]] for name, entry in describe_state(net).items()} == names
    seen = watch(net)
    with torch.inference_mode():
        seen |= {f"res{level}": feature for level, feature in enumerate(net(stored.tensor("x")), start=2)}
    for name in set(stored.arrays) - {"x"}:
        tensor = seen[name]
        if tensor.ndim == 3 and tensor.shape != stored.arrays[name].shape:
            tensor = tensor[..., ::3]
        elif tensor.shape != stored.arrays[name].shape:
            tensor = tensor[:, ::4]
        stored.check(name, tensor, rtol=2e-6)


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize(("case", "dtype", "rtol"), [("", torch.float32, 5e-6), ("_f64", torch.float64, 1e-10)])
def test_everything_in_the_large_adapter_is_the_reference(
    golden: GoldenFolders, case: str, dtype: torch.dtype, rtol: float
) -> None:
    """Holds up to 3.4 GiB in double precision."""
    stored = Golden(golden / f"forward/vitl_online{case}.npz")
    with torch.device("meta"):
        net = vit_adapter_l().to(dtype)
    fill_module(net.to_empty(device="cpu").eval(), prefix="backbone.")
    seen = watch(net)
    with torch.inference_mode():
        features = net(stored.images(dtype))
    for name, tensor in seen.items():
        stored.check(f"adapter.{name}", tensor, rtol=rtol)
    for level, feature in enumerate(features, start=2):
        stored.check(f"backbone.res{level}", feature, rtol=rtol)


@pytest.mark.parametrize(
    ("build", "width", "heads", "millions"),
    [
        (vit_adapter_s, 384, 6, 22.126),
        (vit_adapter_b, 768, 12, 86.719),
        (vit_adapter_l, 1024, 16, 304.553),
        (vit_adapter_g, 1536, 24, 1136.757),
    ],
    ids="sblg",
)
def test_every_size_builds_with_its_parameter_count(
    build: Callable[[], ViTAdapter], width: int, heads: int, millions: float
) -> None:
    with torch.device("meta"):
        net = build()
    frozen = sum(parameter.numel() for parameter in net.vit_module.parameters())
    learning = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    assert round(frozen / 1e6, 3) == millions
    quarter = width // 4
    attention = (width + 1) * 12 * heads + 2 * (width + 1) * width
    mlp = (width + 1) * quarter + 10 * quarter + (quarter + 1) * width
    kernels = 9 * (3 * 64 + 2 * 64 * 64 + 64 * 128 + 128 * 256 + 256 * 256)
    prior = kernels + 2 * (3 * 64 + 128 + 256 + 256) + (64 + 128 + 256 + 256 + 4) * width
    assert learning == 6 * (6 * width + attention + mlp) + prior + 4 * width**2 + width + 4 * 2 * width + 3 * width


def test_a_batch_gives_what_its_images_give_alone() -> None:
    net, images = small().eval(), torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together, alone = net(images), [net(image[None]) for image in images]
    for level, feature in enumerate(together):
        torch.testing.assert_close(feature, torch.cat([maps[level] for maps in alone]), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 160), (160, 32)])
def test_maps_have_the_stated_strides_and_channels(height: int, width: int) -> None:
    net = small().eval()
    with torch.inference_mode():
        features = net(torch.zeros(2, 3, height, width))
    for feature, channels, stride in zip(features, net.channels, (4, 8, 16, 32), strict=True):
        assert feature.shape == (2, channels, height // stride, width // stride)


@pytest.mark.parametrize("is_frozen", [True, False])
def test_gradients_reach_exactly_what_may_learn(is_frozen: bool) -> None:
    net = small(is_frozen=is_frozen).train()
    sum((feature**2).mean() for feature in net(torch.randn(2, 3, 64, 96))).backward()
    reached = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    unused = {"vit_module.mask_token", "vit_module.norm.weight", "vit_module.norm.bias"}
    expected = {name for name, _ in net.named_parameters() if not (is_frozen and name.startswith("vit_module."))}
    # batch norm in training takes out what a bias adds to every pixel alike
    absorbed = {"up.bias", "spm.fc1.bias", "spm.fc2.bias", "spm.fc3.bias", "spm.fc4.bias"}
    assert reached - absorbed == expected - unused - absorbed


def test_inference_and_training_passes_agree() -> None:
    """In-place sums change nothing that a gradient needs."""
    net, images = small(is_frozen=False).double().eval(), torch.randn(1, 3, 32, 64, dtype=torch.float64)
    with torch.no_grad():
        plain = net(images)
    for feature, learnt in zip(plain, net(images), strict=True):
        torch.testing.assert_close(feature, learnt.detach())
    weight = net.up.weight
    total = sum((feature**2).sum() for feature in net(images))
    (gradient,) = torch.autograd.grad(total, weight)
    step = torch.zeros_like(weight)
    step[3, 5, 1, 0] = 1e-5
    with torch.no_grad():
        weight += step
        above = sum((feature**2).sum() for feature in net(images))
        weight -= 2 * step
        below = sum((feature**2).sum() for feature in net(images))
    torch.testing.assert_close(gradient[3, 5, 1, 0], (above - below) / 2e-5, rtol=1e-5, atol=1e-5)


def test_compiles_without_a_graph_break_and_exports() -> None:
    net = ViTAdapter(VisionTransformer(32, depth=4, heads=2, grid=3), stem_width=8).eval()
    images = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        compiled = torch.compile(net, backend="eager", fullgraph=True)(images)
        exported = torch.export.export(net, (images,)).module()(images)
        for ours, other, third in zip(net(images), compiled, exported, strict=True):
            torch.testing.assert_close(other, ours, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(third, ours, rtol=1e-4, atol=1e-4)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="vit: expected a depth that is a multiple of 4, got 6"):
        ViTAdapter(VisionTransformer(32, depth=6, heads=4))
    with pytest.raises(ShapeError, match="images: expected sides that are multiples of 32, got 48 x 64; pad first"):
        small()(torch.zeros(1, 3, 48, 64))
