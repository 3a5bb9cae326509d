"""The VSPW scores: mIoU over a data set, and video consistency VC8 and VC16."""

from __future__ import annotations

import torch

from mvcseg.metrics import MeanIoU, VideoConsistency


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    miou = MeanIoU(num_classes=3)
    consistency = {length: VideoConsistency(clip_length=length) for length in (8, 16)}
    for _ in range(2):  # one video at a time
        raw = torch.ones(20, 48, 64, dtype=torch.int64)  # the mask files' own values: 0 void, 1..K
        raw[:, :, 20:40] = 2
        raw[:, 40:] = 0
        labels = torch.where(raw == 0, 255, raw - 1)  # class ids 0..K-1, 255 ignored
        wrong = torch.rand(20, 48, 64, generator=generator) < 0.01
        pred = torch.where(wrong, 2, torch.where(labels == 255, 0, labels))
        miou.update(pred, labels)
        for metric in consistency.values():
            metric.update(pred, raw)
    print(f"mIoU {miou.compute():.4f}, per class {[round(value, 4) for value in miou.per_class().tolist()]}")
    for length, metric in consistency.items():
        print(f"VC{length} {metric.compute():.4f}")


if __name__ == "__main__":
    main()
