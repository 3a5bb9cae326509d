"""Hide random patches of a clip: one mask per frame, one for all frames, and MIC's stretched cells."""

from __future__ import annotations

import torch

from mvcseg import PatchMask, apply_mask


def main() -> None:
    frames = torch.rand(1, 4, 3, 120, 200)  # (batch, time, RGB, height, width) in [0, 1]
    generator = torch.Generator().manual_seed(0)
    for name, mask in {
        "per frame": PatchMask(patch_size=32, ratio=0.5),
        "tube": PatchMask(patch_size=32, ratio=0.5, tube=True),
        "stretched": PatchMask(patch_size=32, ratio=0.5, grid="stretch"),
    }.items():
        kept = mask(frames, generator=generator)  # (1, 4, 1, 120, 200), True = kept
        hidden = apply_mask(frames, kept)  # filled with ImageNet's mean: zero once normalised
        same = bool((kept[:, :1] == kept).all())
        print(f"{name:10} {1 - kept.float().mean():.2f} hidden, same in all frames: {same}, {tuple(hidden.shape)}")


if __name__ == "__main__":
    main()
