"""Released DINOv2 weights as the start of a ``VisionTransformer``.

They were trained with patches of 14 pixels: the kernel that reads a patch is resized to 16, and the rest is taken as
it is.

Source: Oquab et al., DINOv2, arXiv 2304.07193; files at https://github.com/facebookresearch/dinov2 (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from mvcseg.errors import CheckpointError
from mvcseg.models.backbones.vit import PATCH
from mvcseg.shapes import check_float, check_shapes

_KERNEL = "patch_embed.proj.weight"


def from_dinov2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of a ``VisionTransformer`` from that of a released DINOv2 model (S, B, L or g, without registers).

    Args:
        state: the file's entries; not changed.

    Returns:
        The same entries, the patch kernel resized to 16 pixels, to be loaded strictly.

    Raises:
        CheckpointError: there is no patch kernel, or the model has register tokens, which the transformer here lacks.

    Example:
        >>> import torch
        >>> from mvcseg.models.backbones.vit import VisionTransformer
        >>> vit = VisionTransformer(32, depth=1, heads=2, grid=5)
        >>> released = vit.state_dict() | {"patch_embed.proj.weight": torch.zeros(32, 3, 14, 14)}
        >>> vit.load_state_dict(from_dinov2(released))
        <All keys matched successfully>
    """
    if _KERNEL not in state:
        raise CheckpointError(f"state: expected a DINOv2 model's entries with {_KERNEL}, got {len(state)} without it")
    if "register_tokens" in state:
        raise CheckpointError(
            "state: expected a DINOv2 model without registers, got register_tokens; use the plain file"
        )
    return {name: resize_patch_kernel(tensor) if name == _KERNEL else tensor for name, tensor in state.items()}


def resize_patch_kernel(kernel: Tensor, *, side: int = PATCH) -> Tensor:
    """A patch kernel resized bilinearly, corner on corner (``align_corners=True``), values not rescaled.

    Args:
        kernel: ``(C, 3, P, P)``, floating point.
        side: wanted side in pixels.

    Returns:
        ``(C, 3, side, side)``; ``kernel`` itself where it already has that size.

    Raises:
        ShapeError: ``kernel`` is not of that shape.
        DTypeError: it is not floating point.
    """
    check_shapes(kernel=(kernel, "c 3 p p"))
    check_float(kernel=kernel)
    if kernel.shape[-1] == side:
        return kernel
    return functional.interpolate(kernel, size=(side, side), mode="bilinear", align_corners=True)
