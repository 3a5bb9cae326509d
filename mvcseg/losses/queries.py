"""What a query model tells the set loss: classes and masks of every query, layer by layer.

Masks are rarely needed whole. A matched query's mask is; of all others only values at points. So masks are kept
either as logits or as the product that makes them, and both answer the same two questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

from mvcseg.ops.points import sample_points


class QueryMasks(Protocol):
    """Mask logits of B clips of T frames with Q queries, ``h x w`` pixels each."""

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """``(B, T, Q, h, w)``."""
        ...

    def at(self, video: int, frame: int | None, points: Tensor) -> Tensor:
        """Logits of all queries at points.

        Args:
            video: which clip.
            frame: which frame; None takes the clip's frames stacked along the height, one tall mask.
            points: ``(P, 2)``, (x, y) in ``[0, 1]`` of that mask.

        Returns:
            ``(Q, P)``.
        """
        ...

    def chosen(self, video: int, frame: int | None, queries: Tensor) -> Tensor:
        """Whole masks ``(M, h, w)`` (``(M, T h, w)`` for ``frame=None``) of the queries ``(M,)``."""
        ...

    def chosen_of_frames(self, video: int, queries: Sequence[Tensor]) -> Tensor:
        """``chosen`` for every frame with its own queries, one after another, ``(N, h, w)``.

        The backward pass then walks over the clip once, and not once for every frame.
        """
        ...


@dataclass(frozen=True)
class DenseMasks:
    """Masks given as logits ``(B, T, Q, h, w)``."""

    logits: Tensor

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """``(B, T, Q, h, w)``."""
        b, t, q, h, w = self.logits.shape
        return b, t, q, h, w

    def at(self, video: int, frame: int | None, points: Tensor) -> Tensor:
        """See ``QueryMasks.at``."""
        return sample_points(self._tall(video, frame).unsqueeze(0), points.unsqueeze(0))[0]

    def chosen(self, video: int, frame: int | None, queries: Tensor) -> Tensor:
        """See ``QueryMasks.chosen``."""
        if frame is not None:
            return self.logits[video, frame].index_select(0, queries)
        return rearrange(self.logits[video].index_select(1, queries), "t m h w -> m (t h) w")

    def chosen_of_frames(self, video: int, queries: Sequence[Tensor]) -> Tensor:
        """See ``QueryMasks.chosen_of_frames``."""
        frames = zip(self.logits[video].unbind(), queries, strict=True)
        return torch.cat([logits.index_select(0, own) for logits, own in frames])

    def _tall(self, video: int, frame: int | None) -> Tensor:
        if frame is not None:
            return self.logits[video, frame]
        return rearrange(self.logits[video], "t q h w -> q (t h) w")


@dataclass(frozen=True)
class FactoredMasks:
    """Masks given as ``kernels . features + bias``; only those asked for are made.

    Attributes:
        kernels: ``(B, T, Q, D)``.
        features: ``(B, T, D, h, w)``.
        bias: ``(B, T, Q)``, or None.
    """

    kernels: Tensor
    features: Tensor
    bias: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """``(B, T, Q, h, w)``."""
        b, t, q, _ = self.kernels.shape
        return b, t, q, self.features.shape[-2], self.features.shape[-1]

    def at(self, video: int, frame: int | None, points: Tensor) -> Tensor:
        """See ``QueryMasks.at``; with ``frame=None`` every point reads the kernels of its own frame.

        The product and the sampling commute: whichever makes fewer numbers comes first. Next to the border a sample
        takes zeros from outside, which scales the bias too. For ``frame=None`` the host looks once at where points lie.
        """
        if frame is None:
            return self._at_tall(video, points)
        kernels, maps = self.kernels[video, frame], self.features[video, frame]
        bias = None if self.bias is None else self.bias[video, frame].unsqueeze(1)
        dtype = torch.promote_types(maps.dtype, torch.float32)
        with torch.autocast(maps.device.type, enabled=False):
            if len(kernels) * maps[0].numel() <= maps.shape[0] * len(points):
                masks = kernels.to(dtype) @ maps.to(dtype).flatten(1)
                masks = masks if bias is None else masks + bias
                return sample_points(masks.view(1, -1, *maps.shape[1:]), points.unsqueeze(0))[0]
            logits = kernels.to(dtype) @ sample_points(maps.unsqueeze(0), points.unsqueeze(0))[0]
        if bias is None:
            return logits
        inside = sample_points(logits.new_ones(1, 1, *maps.shape[1:]), points.unsqueeze(0))[0]
        return logits + bias * inside

    def chosen(self, video: int, frame: int | None, queries: Tensor) -> Tensor:
        """See ``QueryMasks.chosen``."""
        frames = slice(None) if frame is None else slice(frame, frame + 1)
        kernels = self.kernels[video, frames].index_select(1, queries)
        masks = torch.einsum("tmd,tdhw->tmhw", kernels, self.features[video, frames])
        if self.bias is not None:
            masks = masks + self.bias[video, frames].index_select(1, queries)[..., None, None]
        return rearrange(masks, "t m h w -> m (t h) w")

    def chosen_of_frames(self, video: int, queries: Sequence[Tensor]) -> Tensor:
        """See ``QueryMasks.chosen_of_frames``."""
        frames = zip(self.kernels[video].unbind(), self.features[video].unbind(), queries, strict=True)
        masks = torch.cat(
            [torch.einsum("md,dhw->mhw", kernels.index_select(0, own), maps) for kernels, maps, own in frames]
        )
        if self.bias is None:
            return masks
        biases = zip(self.bias[video].unbind(), queries, strict=True)
        return masks + torch.cat([bias.index_select(0, own) for bias, own in biases])[:, None, None]

    def _at_tall(self, video: int, points: Tensor) -> Tensor:
        count, height = self.features.shape[1], self.features.shape[3]
        # A frame's features with zeros around them give its share of a sample; the shares of two neighbours add up.
        rows = (points[:, 1] * (count * height) - 0.5).floor().detach().cpu()
        touched = [
            ((rows >= t * height - 1) & (rows < (t + 1) * height)).nonzero()[:, 0].to(points.device)
            for t in range(count)
        ]
        shares = []
        for t, index in enumerate(touched):
            x, y = points.index_select(0, index).unbind(dim=1)
            shares.append(self.at(video, t, torch.stack([x, y * count - t], dim=1)))
        logits = torch.zeros(self.kernels.shape[2], len(points), dtype=shares[0].dtype, device=points.device)
        return logits.index_add(1, torch.cat(touched), torch.cat(shares, dim=1))


@dataclass(frozen=True)
class LayerPrediction:
    """What one layer says of B clips of T frames.

    Attributes:
        class_logits: ``(B, T, Q, K + 1)``, the last class means no object; ``(B, 1, Q, K + 1)`` where a query has
            one class for the whole clip.
        masks: ``(B, T, Q, h, w)``.
    """

    class_logits: Tensor
    masks: QueryMasks


@dataclass(frozen=True)
class QueryClip:
    """What a query model says of B clips while training.

    Attributes:
        layers: every layer's prediction, the last one last.
        guide: another model's prediction, with queries in the same order, that may decide early in training which
            query meets which target; no gradient.
        embeds: ``(B, T, Q, C)``, the vectors that a contrastive loss compares.
        covered: height and width, in pixels of the frames, of the area that masks cover from the top left corner on;
            None for frames padded to the right and bottom up to a multiple of 32.
    """

    layers: tuple[LayerPrediction, ...]
    guide: LayerPrediction | None = None
    embeds: Tensor | None = None
    covered: tuple[int, int] | None = None
