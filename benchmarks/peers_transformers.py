"""transformers' Mask2Former with a ResNet-50, and the same weights in it as in ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

NAMES = [
    (r"backbone\.stem\.conv1\.norm\.(.*)", r"model.pixel_level_module.encoder.embedder.embedder.normalization.\1"),
    (r"backbone\.stem\.conv1\.(.*)", r"model.pixel_level_module.encoder.embedder.embedder.convolution.\1"),
    (r"backbone\.(res.*)", r"model.pixel_level_module.encoder.encoder.\1"),
    (r"(.*encoder)\.res2\.(.*)", r"\1.stages.0.layers.\2"),
    (r"(.*encoder)\.res3\.(.*)", r"\1.stages.1.layers.\2"),
    (r"(.*encoder)\.res4\.(.*)", r"\1.stages.2.layers.\2"),
    (r"(.*encoder)\.res5\.(.*)", r"\1.stages.3.layers.\2"),
    (r"(.*layers\.\d+)\.conv1\.(.*)", r"\1.layer.0.\2"),
    (r"(.*layers\.\d+)\.conv2\.(.*)", r"\1.layer.1.\2"),
    (r"(.*layers\.\d+)\.conv3\.(.*)", r"\1.layer.2.\2"),
    (r"(.*stages.*(?:layer\.\d|shortcut))\.norm\.(.*)", r"\1.normalization.\2"),
    (r"(.*stages.*(?:layer\.\d|shortcut))\.weight", r"\1.convolution.weight"),
    (r"sem_seg_head\.pixel_decoder\.(.*)", r"model.pixel_level_module.decoder.\1"),
    (r"(.*decoder)\.input_proj\.(.*)", r"\1.input_projections.\2"),
    (r"(.*decoder)\.transformer\.(level_embed|encoder\..*)", r"\1.\2"),
    (r"(.*decoder\.encoder\.layers\.\d+)\.norm1\.(.*)", r"\1.self_attn_layer_norm.\2"),
    (r"(.*decoder\.encoder\.layers\.\d+)\.norm2\.(.*)", r"\1.final_layer_norm.\2"),
    (r"(.*decoder\.encoder\.layers\.\d+)\.linear([12])\.(.*)", r"\1.fc\2.\3"),
    (r"(.*decoder\.)mask_features\.(.*)", r"\1mask_projection.\2"),
    (r"(.*decoder\.(?:adapter|layer)_1)\.norm\.(.*)", r"\1.1.\2"),
    (r"(.*decoder\.(?:adapter|layer)_1)\.weight", r"\1.0.weight"),
    (r"sem_seg_head\.predictor\.class_embed\.(.*)", r"class_predictor.\1"),
    (r"sem_seg_head\.predictor\.query_feat\.(.*)", r"model.transformer_module.queries_features.\1"),
    (r"sem_seg_head\.predictor\.query_embed\.(.*)", r"model.transformer_module.queries_embedder.\1"),
    (r"sem_seg_head\.predictor\.level_embed\.(.*)", r"model.transformer_module.level_embed.\1"),
    (r"sem_seg_head\.predictor\.(.*)", r"model.transformer_module.decoder.\1"),
    (r"(.*)transformer_self_attention_layers\.(\d+)\.norm\.(.*)", r"\1layers.\2.self_attn_layer_norm.\3"),
    (r"(.*)transformer_self_attention_layers\.(\d+)\.(.*)", r"\1layers.\2.\3"),
    (r"(.*)transformer_cross_attention_layers\.(\d+)\.norm\.(.*)", r"\1layers.\2.cross_attn_layer_norm.\3"),
    (r"(.*)transformer_cross_attention_layers\.(\d+)\.multihead_attn\.(.*)", r"\1layers.\2.cross_attn.\3"),
    (r"(.*)transformer_ffn_layers\.(\d+)\.norm\.(.*)", r"\1layers.\2.final_layer_norm.\3"),
    (r"(.*)transformer_ffn_layers\.(\d+)\.linear([12])\.(.*)", r"\1layers.\2.fc\3.\4"),
    (r"(.*)decoder_norm\.(.*)", r"\1layernorm.\2"),
    (r"(.*)mask_embed\.layers\.(\d)\.(.*)", r"\1mask_predictor.mask_embedder.\2.0.\3"),
]
"""Published names and transformers', applied in turn."""


def transformers_segmenter(weights: Mapping[str, Tensor], *, num_classes: int, num_queries: int) -> nn.Module:
    """A segmenter of transformers that computes what ours of the same weights does.

    Args:
        weights: by the published names (`mvcseg.models.dvis.official_state_dict`) of a frame-wise model.
        num_classes: K.
        num_queries: Q.

    Raises:
        RuntimeError: a parameter of the peer is left without a weight, or a weight without a place.
    """
    backbone = ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"])  # its defaults are ResNet-50
    config = Mask2FormerConfig(backbone_config=backbone, num_queries=num_queries, num_labels=num_classes)
    peer = Mask2FormerForUniversalSegmentation(config).eval().requires_grad_(False)
    own = {name for name, _ in peer.named_parameters()} | {name for name, _ in peer.named_buffers()}
    own -= {name for name in own if name.endswith("num_batches_tracked") or name == "criterion.empty_weight"}
    state = renamed(weights)
    if own != set(state):
        raise RuntimeError(f"without a weight: {sorted(own - set(state))}; without a place: {sorted(set(state) - own)}")
    peer.load_state_dict(state, strict=False)
    return peer


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by transformers' names; joint projections of self-attention are cut in three."""
    state: dict[str, Tensor] = {}
    for published, weight in weights.items():
        if published.startswith("criterion.") or not published.startswith(("backbone.", "sem_seg_head.")):
            continue
        name = published
        for pattern, replacement in NAMES:
            name = re.sub(f"^{pattern}$", replacement, name)
        cut = re.fullmatch(r"(.*\.self_attn)\.in_proj_(weight|bias)", name)
        if cut is None:
            state[name] = weight.detach().clone()
            continue
        for part, letter in zip(weight.detach().chunk(3), "qkv", strict=True):
            state[f"{cut[1]}.{letter}_proj.{cut[2]}"] = part.clone()
    return state


def same_result(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference as a share of the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())
