"""The report's inference on one video: two models, voting over views, choice by flow, correction by a VLM."""

from __future__ import annotations

import torch
from torch import nn

import mvcseg
from mvcseg.flow import FarnebackFlow
from mvcseg.pipeline import run_video
from mvcseg.tta import multiscale_flip
from mvcseg.vlm import Group, ReplayVLM

NAMES = ["sky", "river", "lake"]


def model(seed: int) -> mvcseg.PerFrame:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, len(NAMES), 1))
    return mvcseg.PerFrame(net, num_classes=len(NAMES), logits_of=lambda out: out)


def main() -> None:
    coarse = torch.rand(6, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    video = (nn.functional.interpolate(coarse, size=(64, 96), mode="bilinear") * 255).to(torch.uint8)
    answer = "The water in the image is a lake."
    result = run_video(
        video,
        {"mvc": model(0), "plain": model(1)},
        num_classes=len(NAMES),
        clip_length=4,
        views=multiscale_flip((1.0, 1.1)),
        flow=FarnebackFlow(),
        vlm=ReplayVLM({"Is the water in the image a river, lake? Please give me the only answer.": answer}),
        groups=[Group("water", (1, 2))],
        class_names=NAMES,
    )
    print("labels", tuple(result.labels.shape), "chosen", result.choice.name, result.choice.scores)
    for change in result.changes:
        print(f"{change.status}: {change.pixels} pixels of {change.from_name}, asked {change.question!r}")


if __name__ == "__main__":
    main()
