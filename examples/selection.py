"""Choose between two models for a video: the one whose labels follow the optical flow better (Eq. 5-7)."""

from __future__ import annotations

import torch
from torch.nn import functional

from mvcseg.ensemble.flow_ssim import select_model
from mvcseg.flow import FarnebackFlow


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    scene = functional.interpolate(torch.rand(1, 3, 24, 48, generator=generator), size=(96, 192), mode="bicubic")[0]
    scene = (scene.clamp(0, 1) * 255).to(torch.uint8)
    classes = (scene[0] > 127).long()
    video = torch.stack([scene[:, :, 3 * t : 3 * t + 128] for t in range(8)])  # the camera pans by 3 pixels
    steady = torch.stack([classes[:, 3 * t : 3 * t + 128] for t in range(8)])
    flicker = torch.rand(8, 1, 12, 16, generator=generator) < 0.05
    flickering = torch.where(functional.interpolate(flicker.float(), size=(96, 128))[:, 0] > 0, 1 - steady, steady)

    choice = select_model(video, {"steady": steady, "flickering": flickering}, num_classes=2, flow=FarnebackFlow())
    for name, score in choice.scores.items():
        print(f"{name:12} {score:.4f}")
    print("chosen:", choice.name)


if __name__ == "__main__":
    main()
