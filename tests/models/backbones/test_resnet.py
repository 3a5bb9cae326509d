from __future__ import annotations

import subprocess
import sys
import weakref

import pytest
import torch
from golden_files import Golden, GoldenFolders, describe_state, fill_module, read_entries
from torch import Tensor
from torch.nn import functional

from mvcseg.errors import ConfigError, ShapeError
from mvcseg.models.backbones.resnet import FrozenBatchNorm, ResNet, from_official, to_official


@pytest.fixture(scope="module")
def net() -> ResNet:
    return fill_module(ResNet(50), prefix="backbone.", names=to_official).eval()  # type: ignore[return-value]


@pytest.mark.golden
@pytest.mark.parametrize("preset", ["minvis_r50", "ctvis_r50", "dvis_plus_online_r50", "dvis_plus_offline_r50"])
def test_state_dict_is_the_checkpoints_entry_for_entry(golden: GoldenFolders, net: ResNet, preset: str) -> None:
    listed = read_entries(golden / f"keys/{preset}.json", prefix="backbone.")
    expected = {name: {key: entry[key] for key in ("shape", "dtype", "kind")} for name, entry in listed.items()}
    assert describe_state(net, names=to_official) == expected
    assert [to_official(from_official(name)) for name in listed] == list(listed)


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_names_map_one_to_one_and_back(depth: int) -> None:
    own = list(ResNet(depth).state_dict())
    official = [to_official(name) for name in own]
    assert len(set(official)) == len(own)
    assert [from_official(name) for name in official] == own
    assert not set(official) & set(own)


def test_a_name_that_is_no_entry_is_kept() -> None:
    assert from_official("fc.weight") == "fc.weight"
    assert to_official("fc.weight") == "fc.weight"


@pytest.mark.golden
@pytest.mark.parametrize("case", ["r50_online_a", "r50_online_b"])
def test_maps_are_the_reference_maps(golden: GoldenFolders, net: ResNet, case: str) -> None:
    stored = Golden(golden / f"forward/{case}.npz")
    images = stored.images()
    with torch.inference_mode():
        for level, feature in enumerate(net(images), start=2):
            stored.check(f"backbone.res{level}", feature, rtol=2e-6)


@pytest.mark.golden
def test_maps_in_double_precision_are_the_reference_maps_to_nine_digits(golden: GoldenFolders) -> None:
    stored = Golden(golden / "forward/r50_online_a_f64.npz")
    net = fill_module(ResNet(50).double(), prefix="backbone.", names=to_official).eval()
    with torch.inference_mode():
        for level, feature in enumerate(net(stored.images(torch.float64)), start=2):
            stored.check(f"backbone.res{level}", feature, rtol=1e-10)


@pytest.mark.golden
def test_channels_last_gives_the_same_maps(golden: GoldenFolders) -> None:
    stored = Golden(golden / "forward/r50_online_a.npz")
    net = fill_module(ResNet(50), prefix="backbone.", names=to_official).eval()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        images = stored.images().contiguous(memory_format=torch.channels_last)
        for level, feature in enumerate(net(images), start=2):
            assert feature.is_contiguous(memory_format=torch.channels_last)
            stored.check(f"backbone.res{level}", feature, rtol=2e-6)


def test_a_batch_gives_what_its_images_give_alone(net: ResNet) -> None:
    images = torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together, alone = net(images), [net(image[None]) for image in images]
    for level, feature in enumerate(together):
        torch.testing.assert_close(feature, torch.cat([features[level] for features in alone]), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 160), (160, 32)])
def test_maps_have_the_stated_strides_and_channels(net: ResNet, height: int, width: int) -> None:
    with torch.inference_mode():
        features = net(torch.zeros(2, 3, height, width))
    for feature, channels, stride in zip(features, net.channels, (4, 8, 16, 32), strict=True):
        assert feature.shape == (2, channels, height // stride, width // stride)


@pytest.mark.parametrize(("depth", "last"), [(18, 512), (34, 512), (50, 2048), (101, 2048)])
def test_a_net_is_torchvisions(depth: int, last: int) -> None:
    torchvision = pytest.importorskip("torchvision")
    net = fill_module(ResNet(depth), prefix="backbone.", names=to_official).eval()
    assert net.channels == (last // 8, last // 4, last // 2, last)
    other = getattr(torchvision.models, f"resnet{depth}")().eval()
    state = other.state_dict() | net.state_dict()
    assert set(state) == set(other.state_dict())
    other.load_state_dict(state)
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        x = other.maxpool(other.relu(other.bn1(other.conv1(images))))
        for feature, layer in zip(net(images), (other.layer1, other.layer2, other.layer3, other.layer4), strict=True):
            x = layer(x)
            torch.testing.assert_close(feature, x, rtol=1e-4, atol=1e-5 * float(x.abs().max()))


@pytest.mark.parametrize("depth", [18, 50])
def test_weights_are_drawn_as_timm_draws_them(depth: int) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(3)
    net = ResNet(depth)
    after = torch.rand(1)
    torch.manual_seed(3)
    other = timm.create_model(f"resnet{depth}", num_classes=0, zero_init_last=False)
    assert torch.equal(torch.rand(1), after)
    assert [name for name, _ in net.named_parameters()] == [n for n, p in other.named_parameters() if p.ndim == 4]
    assert all(torch.equal(parameter, other.get_parameter(name)) for name, parameter in net.named_parameters())


def test_building_one_imports_no_other_package() -> None:
    script = """
import sys; import mvcseg; from mvcseg.models.dvis import build_dvis
before = set(sys.modules); build_dvis("vspw_minvis_r50"); print(*sorted(set(sys.modules) - before))"""
    added = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"timm", "torchvision", "torch._dynamo", "sympy", "scipy", "PIL"} & set(added)


def test_training_leaves_the_norms_as_they_are_and_reaches_every_convolution() -> None:
    net = ResNet(50).train()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    sum(feature.mean() for feature in net(torch.randn(2, 3, 64, 64))).backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in net.parameters())
    assert all(
        name.endswith(("conv1.weight", "conv2.weight", "conv3.weight", "downsample.0.weight"))
        for name, _ in net.named_parameters()
    )


def test_frozen_norm_by_hand() -> None:
    norm = FrozenBatchNorm(2).double()
    norm.load_state_dict(
        {
            "weight": torch.tensor([2.0, 1.0]),
            "bias": torch.tensor([0.5, 0.0]),
            "running_mean": torch.tensor([1.0, -3.0]),
            "running_var": torch.tensor([4.0 - 1e-5, 1.0 - 1e-5], dtype=torch.float64),
        }
    )
    x = torch.tensor([5.0, 6.0], dtype=torch.float64).view(1, 2, 1, 1)
    torch.testing.assert_close(norm(x).flatten(), torch.tensor([4.5, 9.0], dtype=torch.float64))


def test_compiles_without_a_graph_break_and_exports(net: ResNet) -> None:
    images = torch.randn(1, 3, 64, 96)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    exported = torch.export.export(net, (images,))
    with torch.inference_mode():
        for ours, other, third in zip(net(images), compiled(images), exported.module()(images), strict=True):
            rounding = {"rtol": 1e-5, "atol": 1e-5 * float(ours.abs().max())}  # an eager call folds the norms
            torch.testing.assert_close(other, ours, **rounding)
            torch.testing.assert_close(third, ours, **rounding)


def test_another_depth_is_refused() -> None:
    with pytest.raises(ConfigError, match="depth: expected one of 18, 34, 50, 101, got 35"):
        ResNet(35)


def test_a_clip_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"images: expected \(n 3 h w\), got \(1, 2, 3, 32, 32\)"):
        ResNet(50)(torch.zeros(1, 2, 3, 32, 32))


@torch.no_grad()
def test_the_stem_is_gone_before_the_blocks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, weak, alive = functional.max_pool2d, [], []

    def noting(x: Tensor, *args: int, **kwargs: int) -> Tensor:
        weak.append(weakref.ref(x))
        return pool(x, *args, **kwargs)

    small = ResNet(18).eval()
    small.layer1.register_forward_pre_hook(lambda *_: alive.append([ref() is not None for ref in weak]))
    monkeypatch.setattr(functional, "max_pool2d", noting)
    small(torch.zeros(1, 3, 32, 32))
    assert alive == [[False]]
