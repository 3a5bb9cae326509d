"""SSIM against scikit-image, on planes and on one-hot label maps; laws and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch import Tensor

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.ops.ssim import _scores_at_once, label_ssim, ssim


def per_plane(a: Tensor, b: Tensor, *, data_range: float, window: int) -> Tensor:
    """scikit-image's score of each plane."""
    scores = [
        structural_similarity(x.numpy(), y.numpy(), data_range=data_range, win_size=window)
        for x, y in zip(a.cpu().flatten(0, 1), b.cpu().flatten(0, 1), strict=True)
    ]
    return torch.tensor(scores, dtype=torch.float64).view(a.shape[:2])


def per_class(a: Tensor, b: Tensor, *, num_classes: int, counted: Tensor | None = None, window: int = 7) -> Tensor:
    """scikit-image's map of each pair of one-hot maps, averaged over the counted pixels."""
    margin = window // 2
    inner = np.s_[margin : a.shape[1] - margin, margin : a.shape[2] - margin]
    scores = torch.empty(len(a), num_classes, dtype=torch.float64)
    for item in range(len(a)):
        keep = np.ones(a.shape[1:], dtype=bool) if counted is None else counted[item].cpu().numpy()
        for index in range(num_classes):
            one_a, one_b = ((x[item] == index).cpu().double().numpy() for x in (a, b))
            _, full = structural_similarity(one_a, one_b, data_range=1.0, win_size=window, full=True)
            scores[item, index] = 1 - (1 - full[inner])[keep[inner]].mean()
    return scores


def label_pair(
    *, seed: int, items: int = 2, height: int = 31, width: int = 43, classes: int = 5
) -> tuple[Tensor, Tensor]:
    """Blocky label maps, the second one moved by a pixel and disturbed; some labels outside 0..K-1."""
    gen = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, classes + 1, (items, 1, height // 8 + 2, width // 8 + 2), generator=gen).float()
    a = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="nearest")[:, 0, :height, :width]
    b = a.roll(1, dims=2)
    noise = torch.rand(b.shape, generator=gen) < 0.02
    b = torch.where(noise, torch.randint(0, classes, b.shape, generator=gen), b)
    a, b = (torch.where(x == classes, 255, x).to(torch.uint8) for x in (a, b))
    return a, b


@pytest.mark.parametrize("window", [3, 7, 11])
@pytest.mark.parametrize("data_range", [1.0, 255.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ssim_equals_scikit_image(
    device: torch.device, generator: torch.Generator, window: int, data_range: float, dtype: torch.dtype
) -> None:
    a = torch.rand(2, 3, 24, 37, generator=generator, dtype=torch.float64)
    b = (a + 0.2 * torch.randn(a.shape, generator=generator, dtype=torch.float64)).to(device, dtype) * data_range
    a = a.to(device, dtype) * data_range
    got = ssim(a, b, data_range=data_range, window=window)
    assert got.dtype == dtype
    expected = per_plane(a, b, data_range=data_range, window=window).to(device)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ssim_of_a_photograph_equals_scikit_image(dtype: torch.dtype) -> None:
    from skimage.data import astronaut

    image = torch.from_numpy(astronaut()).permute(2, 0, 1)[None, :, 100:260, 80:300]
    a = (image.to(dtype) / 255)[..., :-1]
    b = (image.to(dtype) / 255)[..., 1:]
    expected = per_plane(a, b, data_range=1.0, window=7)
    torch.testing.assert_close(ssim(a, b, data_range=1.0).double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("height", [54, 55, 150])
def test_ssim_of_planes_of_several_bands_equals_scikit_image(generator: torch.Generator, height: int) -> None:
    a, b = torch.rand(2, 2, 1, height, 20, generator=generator, dtype=torch.float64)
    b = (a + b) / 2
    torch.testing.assert_close(
        ssim(a, b, data_range=1.0), per_plane(a, b, data_range=1.0, window=7), rtol=0, atol=1e-12
    )


def test_ssim_does_not_depend_on_the_number_of_threads(generator: torch.Generator) -> None:
    a, b = torch.rand(2, 2, 3, 130, 40, generator=generator)
    threads = torch.get_num_threads()
    scores = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            scores.append(ssim(a, b, data_range=1.0))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*scores)


def test_ssim_of_constants_is_the_luminance_term() -> None:
    a, b = torch.full((1, 1, 9, 8), 0.25), torch.full((1, 1, 9, 8), 0.75)
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert ssim(a, b, data_range=1.0).item() == pytest.approx(expected, abs=1e-7)


@settings(max_examples=30, deadline=None)
@given(st.integers(7, 20), st.integers(7, 20), st.integers(0, 2**20))
def test_ssim_is_symmetric_at_most_one_and_one_on_itself(height: int, width: int, seed: int) -> None:
    gen = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, 2, 3, height, width, generator=gen, dtype=torch.float64)
    torch.testing.assert_close(ssim(a, b, data_range=1.0), ssim(b, a, data_range=1.0), rtol=0, atol=1e-12)
    assert bool((ssim(a, b, data_range=1.0) <= 1).all())
    assert bool((ssim(a, b, data_range=1.0) >= -1).all())
    torch.testing.assert_close(ssim(a, a, data_range=1.0), torch.ones(2, 3, dtype=torch.float64), rtol=0, atol=1e-12)


def test_ssim_is_differentiable() -> None:
    a, b = torch.rand(2, 1, 2, 8, 9, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: ssim(a, b, data_range=1.0), (a.requires_grad_(), b.requires_grad_()))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.int8])
def test_label_ssim_equals_scikit_image_on_one_hot_maps(device: torch.device, dtype: torch.dtype) -> None:
    a, b = label_pair(seed=3)
    counted = torch.rand(a.shape, generator=torch.Generator().manual_seed(4)) < 0.7
    a, b = a.to(device, dtype), b.to(device, dtype)
    got = label_ssim(a, b, num_classes=5, counted=counted.to(device))
    assert got.dtype == torch.float64
    expected = per_class(a, b, num_classes=5, counted=counted)
    assert float(expected.min()) < 0.9
    torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**20),
    st.integers(7, 33),
    st.integers(7, 33),
    st.integers(1, 6),
    st.sampled_from([3, 5, 7]),
    st.booleans(),
)
def test_label_ssim_equals_scikit_image_at_any_size(
    seed: int, height: int, width: int, classes: int, window: int, masked: bool
) -> None:
    a, b = label_pair(seed=seed, items=1, height=height, width=width, classes=classes)
    counted = torch.rand(a.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    counted[:, height // 2, width // 2] = True
    keep = counted if masked else None
    got = label_ssim(a, b, num_classes=classes, counted=keep, window=window)
    expected = per_class(a, b, num_classes=classes, counted=keep, window=window)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_label_ssim_of_wide_windows_equals_scikit_image() -> None:
    """Windows of more than 255 pixels overflow a byte."""
    a, b = label_pair(seed=8, items=1, height=40, width=50, classes=3)
    got = label_ssim(a, b, num_classes=3, window=17)
    torch.testing.assert_close(got, per_class(a, b, num_classes=3, window=17), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("window", "height", "width"), [(15, 41, 30), (25, 60, 33), (51, 53, 130)])
def test_one_disagreement_costs_every_wide_window_around_it(window: int, height: int, width: int) -> None:
    a = torch.zeros(1, height, width, dtype=torch.uint8)
    b = a.clone()
    b[0, height // 2, width // 2] = 1
    got = label_ssim(a, b, num_classes=2, window=window)
    torch.testing.assert_close(got, per_class(a, b, num_classes=2, window=window), rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", [3, 7, 17])
def test_the_accelerators_form_equals_scikit_image(window: int) -> None:
    a, b = label_pair(seed=9)
    margin = window // 2
    keep = torch.ones(2, 31 - 2 * margin, 43 - 2 * margin, dtype=torch.bool)
    got = _scores_at_once(a, b, keep, 5, window)
    torch.testing.assert_close(got, per_class(a, b, num_classes=5, window=window), rtol=0, atol=1e-12)


def test_single_disagreeing_pixel_by_hand() -> None:
    """One window of 3 x 3: nine against eight pixels of class 0, none against one of class 1."""
    a = torch.zeros(1, 3, 3, dtype=torch.int64)
    b = a.clone()
    b[0, 0, 0] = 1
    c1, c2 = 1e-4, 9e-4
    variance = (8 / 9 - (8 / 9) ** 2) * 9 / 8
    zero = (2 * 8 / 9 + c1) / (1 + (8 / 9) ** 2 + c1) * c2 / (variance + c2)
    one = c1 / ((1 / 9) ** 2 + c1) * c2 / (variance + c2)
    got = label_ssim(a, b, num_classes=3, window=3)
    torch.testing.assert_close(got, torch.tensor([[zero, one, 1.0]], dtype=torch.float64), rtol=0, atol=1e-14)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**20))
def test_label_ssim_follows_a_renumbering_of_classes(seed: int) -> None:
    a, b = label_pair(seed=seed, height=17, width=23)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    table = torch.full((256,), 255)
    table[order] = torch.arange(5)
    expected = label_ssim(a, b, num_classes=5)
    got = label_ssim(table[a.long()], table[b.long()], num_classes=5)
    torch.testing.assert_close(got, expected[:, order], rtol=0, atol=1e-14)
    torch.testing.assert_close(label_ssim(b, a, num_classes=5), expected, rtol=0, atol=1e-14)


def test_equal_maps_and_absent_classes_score_exactly_one(device: torch.device) -> None:
    a, b = (x.to(device) for x in label_pair(seed=5))
    assert bool((label_ssim(a, a, num_classes=5) == 1).all())
    assert bool((label_ssim(a, b, num_classes=9)[:, 5:] == 1).all())


def test_labels_outside_the_classes_are_zero_in_every_class() -> None:
    a = torch.full((1, 9, 9), 255)
    b = torch.full((1, 9, 9), -1)
    assert bool((label_ssim(a, b, num_classes=3) == 1).all())
    b[0, 4, 4] = 2
    got = label_ssim(a, b, num_classes=3)[0]
    assert got[:2].tolist() == [1, 1]
    assert got[2] < 1
    for wraps in (256, -256, 2**40):  # a byte of these is class 0
        wrapped = label_ssim(torch.full((1, 9, 9), wraps), torch.zeros(1, 9, 9, dtype=torch.int64), num_classes=3)
        assert wrapped[0, 0] < 0.1


def test_items_do_not_touch_each_other_and_one_without_counted_pixels_is_nan() -> None:
    a, b = label_pair(seed=6, items=3)
    counted = torch.ones(a.shape, dtype=torch.bool)
    counted[1] = False
    counted[1, :3] = True
    got = label_ssim(a, b, num_classes=5, counted=counted)
    assert bool(got[1].isnan().all())
    for item in (0, 2):
        alone = label_ssim(a[item : item + 1], b[item : item + 1], num_classes=5)
        torch.testing.assert_close(got[item : item + 1], alone, rtol=0, atol=1e-14)


def test_disagreement_out_of_sight_of_counted_windows_does_not_matter() -> None:
    a = torch.zeros(1, 12, 30, dtype=torch.uint8)
    b = a.clone()
    b[0, 5, 25] = 1
    counted = torch.zeros(a.shape, dtype=torch.bool)
    counted[..., :22] = True
    assert bool((label_ssim(a, b, num_classes=2, counted=counted) == 1).all())
    counted[..., 22] = True
    assert bool((label_ssim(a, b, num_classes=2, counted=counted) < 1).all())


def test_on_an_accelerator_no_value_is_looked_at() -> None:
    """Tensors without data: whatever asks for a value fails."""
    labels = torch.empty(2, 20, 30, dtype=torch.int64, device="meta")
    got = label_ssim(labels, labels, num_classes=5, counted=labels.bool())
    assert (got.device.type, got.shape) == ("meta", (2, 5))
    planes = torch.empty(2, 3, 20, 30, device="meta")
    assert ssim(planes, planes, data_range=1.0).device.type == "meta"


def test_errors_name_the_argument() -> None:
    a = torch.zeros(2, 3, 9, 8)
    labels = torch.zeros(2, 9, 8, dtype=torch.uint8)
    with pytest.raises(ShapeError, match=r"b: expected .* with w=8 from a"):
        ssim(a, torch.zeros(2, 3, 9, 9), data_range=1.0)
    with pytest.raises(ShapeError, match=r"a: expected sides of at least window=9"):
        ssim(a, a, data_range=1.0, window=9)
    with pytest.raises(DTypeError, match="a: expected a floating-point tensor"):
        ssim(a.byte(), a, data_range=1.0)
    for window in (4, 1, True, 7.0):
        with pytest.raises(ConfigError, match="window: expected an odd integer"):
            ssim(a, a, data_range=1.0, window=window)  # type: ignore[arg-type]
    for data_range in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="data_range"):
            ssim(a, a, data_range=data_range)
    with pytest.raises(ShapeError, match="b: expected"):
        label_ssim(labels, labels[:1], num_classes=2)
    with pytest.raises(ShapeError, match="a: expected sides of at least window=9"):
        label_ssim(labels, labels, num_classes=2, window=9)
    with pytest.raises(DTypeError, match="b: expected an integer"):
        label_ssim(labels, labels.float(), num_classes=2)
    with pytest.raises(DTypeError, match=r"counted: expected torch\.bool, got torch\.uint8"):
        label_ssim(labels, labels, num_classes=2, counted=labels)
    with pytest.raises(ShapeError, match="counted: expected"):
        label_ssim(labels, labels, num_classes=2, counted=labels[0].bool())
    with pytest.raises(ConfigError, match="num_classes"):
        label_ssim(labels, labels, num_classes=0)
