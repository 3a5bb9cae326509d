"""Train a torchvision image model with masked video consistency, then label a video with it."""

from __future__ import annotations

import torch
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

import mvcseg


def main() -> None:
    torch.manual_seed(0)
    net = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
    segmenter = mvcseg.PerFrame(
        net,
        num_classes=5,
        logits_of=lambda out: out["out"],
        mean=mvcseg.IMAGENET_MEAN,
        std=mvcseg.IMAGENET_STD,
    )
    mvc = mvcseg.MVCWrapper(segmenter, mask=mvcseg.PatchMask(patch_size=32, ratio=0.5))
    optimizer = torch.optim.AdamW(mvc.parameters(), lr=1e-4)

    frames = torch.rand(2, 3, 3, 64, 96)  # a batch of two clips of three frames
    labels = torch.randint(0, 5, (2, 3, 64, 96))
    for step in range(2):
        losses = []
        for term in mvc.loss_terms(frames, labels):  # clean, then masked: one graph alive at a time
            term.backward()
            losses.append(term.item())
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step}: clean {losses[0]:.3f}, masked {losses[1]:.3f}")

    video = torch.randint(0, 256, (7, 3, 64, 96), dtype=torch.uint8)
    print(mvcseg.predict_labels(mvc, video, clip_length=4).shape)


if __name__ == "__main__":
    main()
