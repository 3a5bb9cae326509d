"""Train Hugging Face models with masked video consistency and both losses (`pip install "mvcseg[hf]"`)."""

from __future__ import annotations

import tempfile

import torch
from transformers import EomtConfig, EomtForUniversalSegmentation, SegformerConfig, SegformerForSemanticSegmentation

import mvcseg
from mvcseg.adapters import from_transformers, set_objective
from mvcseg.losses import Objective, PixelObjective


def main() -> None:
    torch.manual_seed(0)
    # in practice: SegformerForSemanticSegmentation.from_pretrained("nvidia/mit-b0", num_labels=124)
    segformer = SegformerForSemanticSegmentation(
        SegformerConfig(num_labels=6, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], decoder_hidden_size=16)
    )
    # in practice: EomtForUniversalSegmentation.from_pretrained(
    #     "tue-mps/coco_panoptic_eomt_large_640", num_labels=124, ignore_mismatched_sizes=True)
    widths = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_blocks": 2}
    eomt = EomtForUniversalSegmentation(EomtConfig(num_labels=6, num_queries=10, image_size=64, **widths))

    train(from_transformers(segformer, num_classes=6), PixelObjective())
    segmenter = from_transformers(eomt, num_classes=6)
    train(segmenter, set_objective(segmenter, num_points=256))

    with tempfile.TemporaryDirectory() as folder:  # transformers reads what was trained
        segmenter.save_pretrained(folder)
        again = from_transformers(EomtForUniversalSegmentation.from_pretrained(folder))
    print("logits", tuple(again(torch.rand(1, 4, 3, 50, 70)).shape))  # frames of any size


def train(segmenter: mvcseg.Segmenter, objective: Objective) -> None:
    mvc = mvcseg.MVCWrapper(segmenter, mask=mvcseg.PatchMask(patch_size=32, ratio=0.5), objective=objective)
    optimizer = torch.optim.AdamW(mvc.parameters(), lr=1e-3)
    frames, labels = torch.rand(1, 4, 3, 64, 96), torch.randint(0, 6, (1, 4, 64, 96))
    for step in range(2):
        terms = []
        for term in mvc.train().loss_terms(frames, labels):
            term.backward()
            terms.append(round(term.item(), 3))
        optimizer.step()
        optimizer.zero_grad()
        print(f"{type(segmenter.net).__name__}, step {step}: clean and masked loss {terms}")


if __name__ == "__main__":
    main()
