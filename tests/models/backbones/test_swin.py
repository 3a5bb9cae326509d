from __future__ import annotations

import json

import pytest
import torch
from golden_files import Golden, GoldenFolders, describe_state, fill_module, read_entries
from torch.nn import functional

from mvcseg.errors import ConfigError, ShapeError
from mvcseg.models.backbones.swin import PatchMerging, Swin, from_timm, swin_l, swin_t, to_timm


def small() -> Swin:
    return Swin(24, depths=(2, 2, 4, 2), heads=(2, 4, 4, 8), window=6)


@pytest.mark.golden
@pytest.mark.parametrize("preset", ["minvis", "online", "offline"])
def test_state_dict_is_the_checkpoints_entry_for_entry(golden: GoldenFolders, preset: str) -> None:
    listed = read_entries(golden / f"keys/dvis1_{preset}_swinl.json", prefix="backbone.")
    expected = {name: {key: entry[key] for key in ("shape", "dtype", "kind")} for name, entry in listed.items()}
    with torch.device("meta"):
        net = swin_l()
    assert describe_state(net) == expected
    assert net.channels == (192, 384, 768, 1536)


@pytest.mark.golden
def test_maps_are_the_reference_maps(golden: GoldenFolders) -> None:
    """A window of 6 on maps of 24 x 40 down to 3 x 5: padding, shifts and maps below the window."""
    stored = Golden(golden / "ops/swin_small.npz")
    names = json.loads((golden / "ops/swin_small_keys.json").read_text())
    net = small().eval()
    assert {name: [entry["shape"]] for name, entry in describe_state(net).items()} == names
    fill_module(net, prefix="backbone.")
    with torch.inference_mode():
        for level, feature in enumerate(net(stored.tensor("x")), start=2):
            stored.check(f"res{level}", feature[:, ::2], rtol=2e-6)


def test_an_image_of_odd_size_is_padded_right_and_bottom_with_zeros() -> None:
    net, images = small().eval(), torch.randn(2, 3, 50, 35)
    with torch.inference_mode():
        for feature, padded in zip(net(images), net(functional.pad(images, (0, 1, 0, 2))), strict=True):
            torch.testing.assert_close(feature, padded, rtol=0, atol=0)


def test_values_are_timms_where_nothing_needs_padding() -> None:
    """Maps of 24, 12, 6 and 3 tokens a side, all multiples of the window."""
    from timm.models.swin_transformer import SwinTransformer

    theirs = SwinTransformer(
        img_size=96, window_size=3, embed_dim=24, depths=(2, 2, 2, 2), num_heads=(2, 2, 4, 4), always_partition=True
    ).eval()
    ours = Swin(24, depths=(2, 2, 2, 2), heads=(2, 2, 4, 4), window=3).eval()
    state = {from_timm(name): tensor for name, tensor in theirs.state_dict().items()}
    missing, extra = ours.load_state_dict(state, strict=False)
    assert set(extra) == {"norm.weight", "norm.bias", "head.fc.weight", "head.fc.bias"}
    assert all(name.startswith("norm") or name.endswith("relative_position_index") for name in missing)
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        expected = theirs.forward_intermediates(images, intermediates_only=True)
        for level, (feature, theirs_) in enumerate(zip(ours(images), expected, strict=True)):
            channels = ours.channels[level]
            normed = functional.layer_norm(theirs_.permute(0, 2, 3, 1), (channels,)).permute(0, 3, 1, 2)
            torch.testing.assert_close(feature, normed, rtol=1e-4, atol=1e-4)


def test_names_map_to_timms_one_to_one_and_back() -> None:
    with torch.device("meta"):
        own = list(swin_t().state_dict())
    assert [from_timm(to_timm(name)) for name in own] == own
    assert len({to_timm(name) for name in own}) == len(own)


def test_a_batch_gives_what_its_images_give_alone() -> None:
    net = small().eval()
    images = torch.randn(3, 3, 64, 96)
    with torch.inference_mode():
        together, alone = net(images), [net(image[None]) for image in images]
    for level, feature in enumerate(together):
        torch.testing.assert_close(feature, torch.cat([maps[level] for maps in alone]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 160), (50, 35)])
def test_maps_have_the_stated_strides_and_channels(height: int, width: int) -> None:
    net = swin_t().eval()
    with torch.inference_mode():
        features = net(torch.zeros(2, 3, height, width))
    for feature, channels, stride in zip(features, net.channels, (4, 8, 16, 32), strict=True):
        assert feature.shape == (2, channels, -(-height // stride), -(-width // stride))


def test_merging_reads_a_cell_down_before_right() -> None:
    merge = PatchMerging(1)
    merge.norm = torch.nn.Identity()  # type: ignore[assignment]
    merge.reduction = torch.nn.Identity()  # type: ignore[assignment]
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).view(1, 2, 3, 1)
    assert merge(x).tolist() == [[[[1, 4, 2, 5], [3, 6, 0, 0]]]]


def test_gradients_reach_every_parameter() -> None:
    net = small()
    sum((feature**2).mean() for feature in net(torch.randn(1, 3, 64, 64))).backward()
    silent = [name for name, parameter in net.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert silent == []


def test_compiles_without_a_graph_break_and_exports() -> None:
    net = Swin(8, depths=(1, 2, 1, 1), heads=(1, 1, 2, 2), window=3).eval()
    images = torch.randn(1, 3, 64, 96)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    exported = torch.export.export(net, (images,))
    with torch.inference_mode():
        for ours, other, third in zip(net(images), compiled(images), exported.module()(images), strict=True):
            torch.testing.assert_close(other, ours)
            torch.testing.assert_close(third, ours)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="width: expected an integer of at least 1, got 0"):
        Swin(0, depths=(2, 2, 2, 2), heads=(1, 1, 1, 1), window=7)
    with pytest.raises(ConfigError, match=r"depths: expected four integers of at least 1, one a stage, got \(2, 2\)"):
        Swin(24, depths=(2, 2), heads=(1, 1, 1, 1), window=7)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"heads: expected divisors of \(24, 48, 96, 192\), got \(5, 1, 1, 1\)"):
        Swin(24, depths=(2, 2, 2, 2), heads=(5, 1, 1, 1), window=7)
    with pytest.raises(ShapeError, match=r"images: expected \(n 3 h w\), got \(3, 32, 32\)"):
        small()(torch.zeros(3, 32, 32))
