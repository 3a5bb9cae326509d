"""Eight scaled and mirrored views of a frame: `MeanTTA` and `vote_labels` against ttach.

Scales are 1 and above, where both resize alike (a smaller view is antialiased by us alone), and sides are given to
ttach in whole pixels: its own ``Scale`` does not come back to every width. The net is small (a convolution of stride 8
and an enlargement to 124 classes), so that views, not the net, are what is compared; in the last row ours is given the
convolution alone, since `PerFrame` enlarges what a net gives. ttach does not vote: its views are voted on by
`torch.mode`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import ttach
from peers_inputs import VIDEO, Size, photograph
from peers_row import Row, largest
from torch import Tensor, nn
from torch.nn import functional

from mvcseg import PerFrame
from mvcseg.tta import MeanTTA, multiscale_flip, vote_labels

SCALES = (1.0, 1.1, 1.2, 1.3)


class SmallNet(nn.Module):
    """Logits at the frames' size from a map of stride 8."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.classes = nn.Conv2d(3, num_classes, 8, stride=8)
        nn.init.normal_(self.classes.weight, std=0.3, generator=torch.Generator().manual_seed(0))

    def forward(self, images: Tensor) -> Tensor:
        """``(N, K, H, W)`` of images ``(N, 3, H, W)``."""
        size = images.shape[-2:]
        return functional.interpolate(self.classes(images), size=size, mode="bilinear", align_corners=False)


class Probabilities(nn.Module):
    """What ttach averages: softmax of the net's logits, of frames in [0, 1] or of bytes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """``(N, K, H, W)`` of images ``(N, 3, H, W)``."""
        return self.net(images if images.is_floating_point() else images.float() / 255).softmax(dim=1)


def rows(*, device: str = "cpu", size: Size = VIDEO, num_classes: int = 124) -> Iterator[Row]:
    net = SmallNet(num_classes).to(device).eval().requires_grad_(False)
    segmenter = PerFrame(net, num_classes=num_classes, logits_of=lambda out: out)
    views = multiscale_flip(SCALES)
    sizes = [(int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)) for scale in SCALES]
    transforms = ttach.Compose(
        [
            ttach.HorizontalFlip(),
            ttach.Resize(sizes, original_size=size, interpolation="bilinear", align_corners=False),
        ]
    )
    probabilities = Probabilities(net)
    frame = photograph(size)[None].to(device)
    image = frame.float() / 255
    wrapper = ttach.SegmentationTTAWrapper(probabilities, transforms, merge_mode="mean")
    mean = MeanTTA(segmenter, views)
    yield Row(
        "views/mean/ttach",
        f"mean of {len(views)} views of a frame, {num_classes} classes, a small net",
        "ttach.SegmentationTTAWrapper",
        ours=lambda: mean(image[None])[0],
        theirs=lambda: wrapper(image),
        difference=lambda ours, theirs: largest(ours.exp(), theirs),
        tolerance=1e-5,
        measure="largest difference, probability",
        turns=3,
        at_most=8,
    )

    def voted() -> Tensor:
        maps = []
        for transformer in transforms:
            scores = probabilities(transformer.augment_image(frame))
            maps.append(transformer.deaugment_mask(scores).argmax(dim=1).to(torch.uint8))
        return torch.stack(maps)

    coarse = PerFrame(net.classes, num_classes=num_classes, logits_of=lambda out: out)
    for name, work, model in [
        ("views/vote/ttach", "a small net", segmenter),
        ("views/vote/coarse/ttach", "a small net's coarse logits", coarse),
    ]:
        yield Row(
            name,
            f"vote of {len(views)} views of a frame, {num_classes} classes, {work}",
            "ttach's transforms, arg-max, torch.mode",
            ours=lambda model=model: vote_labels(model, frame, views=views, clip_length=1),
            theirs=lambda: torch.mode(voted(), dim=0).values,
            difference=lambda ours, theirs: off_the_vote(ours, theirs, voted()),
            tolerance=1e-3,
            measure="share of pixels off where the mode is unique",
            turns=3,
            at_most=8,
            devices=("cpu",),  # PyTorch resizes bytes on the CPU alone
        )


def off_the_vote(ours: Tensor, theirs: Tensor, maps: Tensor) -> float:
    """Where the mode is unique; elsewhere the peer takes the smallest label and we the first view's."""
    counts = torch.stack([(maps == one).sum(dim=0) for one in maps])
    leads = counts == counts.amax(dim=0)
    is_unique = torch.where(leads, maps, 0).amax(dim=0) == torch.where(leads, maps, 255).amin(dim=0)
    return float((ours != theirs)[is_unique].double().mean())
