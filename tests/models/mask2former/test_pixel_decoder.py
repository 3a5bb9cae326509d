from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mvcseg.errors import ShapeError
from mvcseg.models.mask2former.pixel_decoder import PixelDecoder, PixelFeatures

CHANNELS = (8, 16, 24, 40)
Maps = tuple[Tensor, Tensor, Tensor, Tensor]


def decoder(dtype: torch.dtype = torch.float64) -> PixelDecoder:
    torch.manual_seed(0)
    return PixelDecoder(CHANNELS, width=32, heads=4, points=2, hidden=48, layers=1).to(dtype).eval()


def maps(height: int = 64, width: int = 96, dtype: torch.dtype = torch.float64) -> Maps:
    generator = torch.Generator().manual_seed(1)
    finest, fine, middle, coarse = (
        torch.randn(2, channels, height // stride, width // stride, generator=generator, dtype=dtype)
        for channels, stride in zip(CHANNELS, (4, 8, 16, 32), strict=True)
    )
    return finest, fine, middle, coarse


def tensors_of(features: PixelFeatures) -> list[Tensor]:
    return [features.mask_features, *features.scales]


def test_gives_a_quarter_size_map_and_three_scales_coarsest_first() -> None:
    assert [tuple(x.shape) for x in tensors_of(decoder()(maps()))] == [
        (2, 32, 16, 24),
        (2, 32, 2, 3),
        (2, 32, 4, 6),
        (2, 32, 8, 12),
    ]


def test_mask_features_are_the_finest_map_plus_the_finest_scale_enlarged() -> None:
    module, features = decoder(), maps()
    out = module(features)
    norm = lambda x, layer: functional.group_norm(x, 32, layer.weight, layer.bias)  # noqa: E731
    lateral = norm(functional.conv2d(features[0], module.adapter_1.weight), module.adapter_1.norm)
    top = functional.interpolate(out.scales[2], size=(16, 24), mode="bilinear", align_corners=False)
    joined = functional.conv2d(lateral + top, module.layer_1.weight, padding=1)
    expected = module.mask_features(norm(joined, module.layer_1.norm).relu())
    torch.testing.assert_close(out.mask_features, expected)


def test_inference_equals_what_carries_a_gradient_in_either_layout() -> None:
    module, features = decoder(), maps()
    expected = [x.detach() for x in tensors_of(module(features))]
    with torch.no_grad():
        for layout in (torch.contiguous_format, torch.channels_last):
            got = module(tuple(x.contiguous(memory_format=layout) for x in features))
            torch.testing.assert_close(tensors_of(got), expected, rtol=0, atol=1e-11)


def test_frames_do_not_see_each_other() -> None:
    module, features = decoder(), maps()
    with torch.no_grad():
        together = tensors_of(module(features))
        for i in range(2):
            alone = tensors_of(module(tuple(x[i : i + 1] for x in features)))
            torch.testing.assert_close([x[i : i + 1] for x in together], alone, rtol=0, atol=1e-12)


def test_autocast_changes_nothing() -> None:
    module, features = decoder(torch.float32), maps(dtype=torch.float32)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            expected = tensors_of(module(features))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                got = tensors_of(module(features))
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_half_precision_maps_are_decoded_in_the_weights_type() -> None:
    module, features = decoder(torch.float32), maps(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        got = module(tuple(x.bfloat16() for x in features))
    assert {x.dtype for x in tensors_of(got)} == {torch.float32}


def test_features_are_left_as_they_are() -> None:
    module, features = decoder(), maps()
    before = [x.clone() for x in features]
    with torch.no_grad():
        module(features)
    assert all(torch.equal(a, b) for a, b in zip(features, before, strict=True))


def test_gradients_reach_every_weight_and_map() -> None:
    module, features = decoder(), maps()
    for x in features:
        x.requires_grad_()
    out = module(features)
    sum(x.square().sum() for x in tensors_of(out)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    assert all(x.grad is not None and x.grad.any() for x in features)


def test_the_smallest_image_has_maps_of_one_pixel() -> None:
    module, features = decoder(), maps(32, 32)
    expected = tensors_of(module(features))
    with torch.no_grad():
        torch.testing.assert_close(tensors_of(module(features)), [x.detach() for x in expected], rtol=0, atol=1e-11)


def test_another_number_of_maps_is_refused() -> None:
    with pytest.raises(ShapeError, match="features: expected four maps, strides 4 to 32, got 3"):
        decoder()(maps()[:3])  # type: ignore[arg-type]


@torch.no_grad()
def test_maps_of_an_iterator_are_gone_once_used() -> None:
    net, weak, alive = decoder(), [], []

    def drawn() -> Iterator[Tensor]:
        for feature in maps():
            weak.append(weakref.ref(feature))
            yield feature

    for part in (net.transformer, net.layer_1):
        part.register_forward_pre_hook(lambda *_: alive.append(sum(feature() is not None for feature in weak)))
    got = net(tuple_iterator(drawn()))
    assert (len(weak), alive) == (4, [0, 0])
    for ours, expected in zip(tensors_of(got), tensors_of(net(maps())), strict=True):
        assert torch.equal(ours, expected)


def tuple_iterator(features: Iterator[Tensor]) -> Iterator[Tensor]:
    """What ``iter`` makes of a backbone's tuple."""
    return iter(tuple(features))


@torch.no_grad()
def test_maps_of_a_tuple_stay_as_they_are() -> None:
    given = maps()
    copies = [feature.clone() for feature in given]
    decoder()(given)
    assert all(torch.equal(feature, copy) for feature, copy in zip(given, copies, strict=True))
