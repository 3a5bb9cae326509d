"""Test-time augmentation: vote over scaled and flipped views (Eq. 8), or average their probabilities."""

from __future__ import annotations

import torch

import mvcseg
from mvcseg.tta import MeanTTA, multiscale_flip, vote_labels


def main() -> None:
    torch.manual_seed(0)
    net = torch.nn.Conv2d(3, 4, kernel_size=9, padding=4)
    segmenter = mvcseg.PerFrame(net, num_classes=4, logits_of=lambda out: out)
    video = torch.randint(0, 256, (6, 3, 72, 128), dtype=torch.uint8)

    views = multiscale_flip(scales=(0.9, 1.0, 1.1, 1.2), flip=True)
    print("views:", ", ".join(f"{view.scale}{' flipped' if view.flip else ''}" for view in views))
    single = mvcseg.predict_labels(segmenter, video, clip_length=4)
    for name, labels in {
        "vote, ties to the finest view": vote_labels(segmenter, video, views=views, clip_length=4),
        "vote, ties among the tied": vote_labels(segmenter, video, views=views, clip_length=4, tie="among-tied"),
        "mean of probabilities": mvcseg.predict_labels(MeanTTA(segmenter, views), video, clip_length=4),
    }.items():
        print(f"{name:30} differs from a single pass on {(labels != single).float().mean():.1%} of pixels")


if __name__ == "__main__":
    main()
