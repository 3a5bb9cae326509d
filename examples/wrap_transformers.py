"""Train a Hugging Face SegFormer with masked video consistency (`pip install "mvcseg[hf]"`)."""

from __future__ import annotations

import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation

import mvcseg


def main() -> None:
    torch.manual_seed(0)
    # in practice: SegformerForSemanticSegmentation.from_pretrained("nvidia/mit-b0", num_labels=124)
    net = SegformerForSemanticSegmentation(
        SegformerConfig(num_labels=6, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], decoder_hidden_size=16)
    )
    segmenter = mvcseg.PerFrame(
        net,
        num_classes=6,
        logits_of=lambda out: out.logits,  # a quarter of the frame's size; resized by PerFrame
        mean=mvcseg.IMAGENET_MEAN,
        std=mvcseg.IMAGENET_STD,
    )
    mvc = mvcseg.MVCWrapper(segmenter, mask=mvcseg.PatchMask(patch_size=32, ratio=0.5))
    optimizer = torch.optim.AdamW(mvc.parameters(), lr=1e-3)
    frames, labels = torch.rand(1, 4, 3, 64, 96), torch.randint(0, 6, (1, 4, 64, 96))
    for step in range(2):
        terms = []
        for term in mvc.loss_terms(frames, labels):
            term.backward()
            terms.append(round(term.item(), 3))
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step}: clean and masked loss {terms}")
    print("logits", tuple(mvc(frames).shape))


if __name__ == "__main__":
    main()
