"""Structural similarity: `mvcseg.ops.ssim` against scikit-image and kornia, of photographs and of label maps.

scikit-image computes the same quantity (7 x 7 windows of equal weights, sample covariance, mean without the border).
kornia's window is a Gaussian of sigma 1.5 and its covariance that of a population; with ``window_size=7`` and
``padding="valid"`` the taps, the pixels averaged and so the work are the same, while the scores are another
measure's: they only need to lie near ours. Label maps go to both peers as one-hot planes made beforehand, which
spares them the work of making them.
"""

from __future__ import annotations

from collections.abc import Iterator

import kornia.metrics
import torch
from peers_inputs import VIDEO, Size, photograph, regions, with_blobs
from peers_row import Row, largest
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.nn import functional

from mvcseg.ops.ssim import label_ssim, ssim

KORNIA = "kornia.metrics.ssim, 7 x 7 Gaussian window, valid padding"
LOOSE = 0.1
"""Most that two weightings of one window may differ in a plane's mean."""


def rows(*, device: str = "cpu", size: Size = VIDEO, num_classes: int = 8) -> Iterator[Row]:
    yield from of_photographs(device, size)
    yield from of_labels(device, size, num_classes)


def of_photographs(device: str, size: Size) -> Iterator[Row]:
    canvas = photograph((size[0] + 1, size[1] + 2))
    pair = canvas[None, :, : size[0], : size[1]], canvas[None, :, 1:, 2:]
    for dtype in (torch.float32, torch.float64):
        x, y = (picture.to(device, dtype).contiguous() / 255 for picture in pair)
        kind = str(dtype).removeprefix("torch.")
        yield Row(
            f"ssim/rgb/{kind}/scikit-image",
            f"SSIM of an RGB frame, {kind}",
            "scikit-image, plane by plane",
            ours=lambda x=x, y=y: ssim(x, y, data_range=1.0)[0],
            theirs=lambda x=x, y=y: scikit_image(x[0], y[0]),
            difference=largest,
            tolerance=2e-6,
            devices=("cpu",),
        )
    x, y = (picture.to(device).float().contiguous() / 255 for picture in pair)
    yield Row(
        "ssim/rgb/float32/kornia",
        "SSIM of an RGB frame, float32",
        KORNIA,
        ours=lambda: ssim(x, y, data_range=1.0)[0],
        theirs=lambda: kornia_means(x, y),
        difference=largest,
        tolerance=LOOSE,
        measure="largest difference of two weightings",
    )


def of_labels(device: str, size: Size, num_classes: int) -> Iterator[Row]:
    a, b = two_maps(size, num_classes)
    planes = [one_hot(labels, num_classes)[0].double() for labels in (a, b)]
    about = f"SSIM of label maps, {num_classes} classes"
    yield Row(
        "ssim/labels/scikit-image",
        about,
        "scikit-image, class by class, planes made beforehand",
        ours=lambda: label_ssim(a, b, num_classes=num_classes)[0],
        theirs=lambda: scikit_image(*planes),
        difference=largest,
        tolerance=1e-12,
        target=20.0,
        devices=("cpu",),
    )
    x, y = (one_hot(labels, num_classes).float().to(device) for labels in (a, b))
    near, far = a.to(device), b.to(device)
    yield Row(
        "ssim/labels/kornia",
        about,
        f"{KORNIA}, planes made beforehand",
        ours=lambda: label_ssim(near, far, num_classes=num_classes)[0],
        theirs=lambda: kornia_means(x, y),
        difference=largest,
        tolerance=LOOSE,
        measure="largest difference of two weightings",
    )


def two_maps(size: Size, num_classes: int) -> tuple[Tensor, Tensor]:
    """Label maps ``(1, H, W)`` of a scene that moves by two pixels, the second with blobs of wrong classes."""
    shapes = regions((size[0], size[1] + 2), num_classes=num_classes, seed=2)[None]
    moved = with_blobs(shapes, number=20, side=max(2, size[0] // 40), num_classes=num_classes, seed=3)
    return shapes[..., 2:].contiguous(), moved[..., :-2].contiguous()


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """``(1, H, W)`` ids as ``(1, K, H, W)`` planes."""
    return functional.one_hot(labels.long(), num_classes).permute(0, 3, 1, 2).contiguous()


def scikit_image(x: Tensor, y: Tensor) -> list[float]:
    """Planes one by one."""
    pairs = zip(x.numpy(), y.numpy(), strict=True)
    return [float(structural_similarity(one, other, data_range=1.0)) for one, other in pairs]


def kornia_means(x: Tensor, y: Tensor) -> Tensor:
    return kornia.metrics.ssim(x, y, 7, padding="valid", eps=0.0).mean(dim=(2, 3))[0]
