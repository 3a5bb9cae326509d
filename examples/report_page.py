"""A page to look at: frames beside ground truth and two predictions, with scores and flicker, in one HTML file."""

from __future__ import annotations

from pathlib import Path

import torch

from mvcseg.data import class_colours
from mvcseg.flow import FarnebackFlow
from mvcseg.metrics import MeanIoU, VideoConsistency
from mvcseg.report import PageVideo, overlay, write_page

NAMES = ["sky", "hill", "water"]
T, H, W = 20, 96, 160


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """Frames and true labels of a hill that drifts over water."""
    rows, columns = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    labels = torch.zeros(T, H, W, dtype=torch.uint8)
    for t in range(T):
        ridge = 40 + 14 * torch.sin((columns + 2 * t) / 18)
        labels[t][rows > ridge] = 1
        labels[t][rows > 66] = 2
    paint = torch.tensor([[150, 190, 225], [110, 120, 80], [70, 105, 140]])
    noise = torch.randint(-12, 13, (T, 3, H, W))
    frames = paint[labels.long()].permute(0, 3, 1, 2) + noise
    return frames.clamp(0, 255).to(torch.uint8), labels


def main() -> None:
    frames, truth = scene()
    mixed_up = torch.where((truth == 2) & (torch.rand(T, 1, 1) < 0.5), 1, truth)  # flickers between look-alikes
    predictions = {"flickering": mixed_up, "steady": truth.roll(1, dims=2)}
    scores, class_iou = [], {}
    for name, labels in predictions.items():
        miou, consistency = MeanIoU(len(NAMES)), VideoConsistency(8)
        miou.update(labels, truth)
        consistency.update(labels, truth)
        scores.append({"prediction": name, "mIoU": miou.compute(), "VC8": consistency.compute()})
        class_iou[name] = miou.per_class().tolist()
    path = write_page(
        Path("page.html"),
        title="Which prediction is steadier?",
        videos=[PageVideo("hill", frames, predictions, labels=truth, flow=FarnebackFlow())],
        class_names=NAMES,
        colours=class_colours(NAMES),
        scores=scores,
        class_iou=class_iou,
    )
    picture = overlay(frames[0], truth[0], colours=class_colours(NAMES))
    print(f"open {path} in a browser; overlay() gives the same as arrays: {tuple(picture.shape)} {picture.dtype}")


if __name__ == "__main__":
    main()
