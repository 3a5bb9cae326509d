"""Models of the transformers library from small random configurations."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn

NUM_CLASSES = 5
QUERY_KINDS = ["mask2former", "eomt", "eomt_dinov3", "videomt"]
KINDS = ["segformer", *QUERY_KINDS]


def tiny_net(kind: str, **changes: Any) -> nn.Module:
    """A model of a few thousand parameters, always the same; ``changes`` go to its configuration."""
    torch.manual_seed(7)
    if kind == "segformer":
        sizes = {"hidden_sizes": [8, 16, 24, 32], "depths": [1] * 4, "decoder_hidden_size": 16}
        config = transformers.SegformerConfig(**{"num_labels": NUM_CLASSES, **sizes, **changes})
        return transformers.SegformerForSemanticSegmentation(config).eval()
    if kind == "mask2former":
        return transformers.Mask2FormerForUniversalSegmentation(_mask2former(changes)).eval()
    sizes = {
        "num_labels": NUM_CLASSES,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_blocks": 2,
        "num_queries": 6,
        "num_register_tokens": 2,
        "image_size": 32,
        "patch_size": 8,
        "num_upscale_blocks": 1,
    }
    sizes.update(changes)
    if kind == "eomt":
        return transformers.EomtForUniversalSegmentation(transformers.EomtConfig(mlp_ratio=2, **sizes)).eval()
    if kind == "eomt_dinov3":
        config = transformers.EomtDinov3Config(intermediate_size=64, **sizes)
        return transformers.EomtDinov3ForUniversalSegmentation(config).eval()
    return transformers.VideomtForUniversalSegmentation(transformers.VideomtConfig(mlp_ratio=2, **sizes)).eval()


def _mask2former(changes: dict[str, Any]) -> transformers.Mask2FormerConfig:
    stages = {"depths": [1] * 4, "num_heads": [1, 1, 2, 2], "window_size": 4}
    outputs = ["stage1", "stage2", "stage3", "stage4"]
    backbone = transformers.SwinConfig(embed_dim=8, drop_path_rate=0.0, out_features=outputs, **stages)
    widths = {"feature_size": 64, "mask_feature_size": 32, "hidden_dim": 32, "dim_feedforward": 32}
    depths = {"encoder_layers": 1, "decoder_layers": 4, "encoder_feedforward_dim": 32, "num_attention_heads": 2}
    sizes = {"num_labels": NUM_CLASSES, "num_queries": 6, **widths, **depths, **changes}
    return transformers.Mask2FormerConfig(backbone_config=backbone, **sizes)
