"""Train VidEoMT, which transformers itself cannot, with masked video consistency; then label frames as they come."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import VideomtConfig, VideomtForUniversalSegmentation

import mvcseg
from mvcseg.adapters import VideomtState, from_transformers, set_objective


def main() -> None:
    torch.manual_seed(0)
    # in practice: VideomtForUniversalSegmentation.from_pretrained(
    #     "tue-mps/videomt-dinov2-small-ytvis2019", num_labels=124, ignore_mismatched_sizes=True)
    widths = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_blocks": 2, "mlp_ratio": 2}
    sizes = {"num_queries": 8, "image_size": 64, "patch_size": 8, "num_upscale_blocks": 1}
    net = VideomtForUniversalSegmentation(VideomtConfig(num_labels=3, **widths, **sizes))

    segmenter = from_transformers(net, class_names=["wall", "left", "right"])
    objective = set_objective(segmenter, num_points=256)  # a target keeps the query of its first appearance
    mvc = mvcseg.MVCWrapper(segmenter, mask=mvcseg.PatchMask(patch_size=16, ratio=0.3), objective=objective).train()
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=3e-3)
    video, labels = synthetic_video()
    frames = video.unsqueeze(0).float() / 255
    for step in range(40):
        total = 0.0
        for term in mvc.loss_terms(frames[:, :3], labels[None, :3], generator=torch.Generator().manual_seed(step)):
            term.backward()
            total += term.item()
        torch.nn.utils.clip_grad_norm_(segmenter.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            print(f"step {step}: loss {total:.2f}")

    state = VideomtState()  # what passes from frame to frame, across calls
    seen = torch.stack(list(segmenter.eval().stream_causal(video, state=state)))
    print(f"{state.frames} frames as they came, {(seen == labels).float().mean():.0%} of pixels right")


def synthetic_video() -> tuple[Tensor, Tensor]:
    """A wall, and before it two panels that glide to the right."""
    labels = torch.zeros(6, 64, 80, dtype=torch.long)
    for frame, panels in enumerate(labels):
        panels[16:, 8 + 2 * frame : 28 + 2 * frame], panels[16:, 40 + 2 * frame : 60 + 2 * frame] = 1, 2
    colours = torch.tensor([[90, 90, 90], [200, 60, 40], [40, 80, 200]], dtype=torch.uint8)
    return colours[labels].movedim(-1, 1), labels


if __name__ == "__main__":
    main()
