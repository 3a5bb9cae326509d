"""Label a video of any length in bounded memory: read, predict and use it clip by clip."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import mvcseg
from mvcseg.data import open_video, write_video


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip.mp4")
        write_video(path, (torch.full((3, 64, 96), 8 * t, dtype=torch.uint8) for t in range(30)), fps=15)

        video = open_video(path)  # reads frames when they are asked for
        print(f"{video.name}: {len(video)} frames of {video.size}, {video.fps} per second")
        net = torch.nn.Conv2d(3, 4, kernel_size=3, padding=1)
        segmenter = mvcseg.PerFrame(net, num_classes=4, logits_of=lambda out: out)
        first = 0
        for labels in mvcseg.iter_labels(segmenter, video, clip_length=8):  # (t, H, W) uint8
            print(f"frames {first} to {first + len(labels) - 1}: classes {labels.unique().tolist()}")
            first += len(labels)


if __name__ == "__main__":
    main()
