"""Label maps that are a tensor to whoever uses them and stay on disk until they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

_KNOWN_UNREAD = {
    *(vars(torch._C.TensorBase)[name].__get__ for name in ("shape", "dtype", "device", "ndim")),
    *(Tensor.__len__, Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_floating_point, Tensor.is_complex),
}


class LazyLabels(Tensor):
    """The label maps of a video, ``(T, H, W)`` uint8, read when their values are needed.

    Shape, dtype and length are known without reading; a slice reads its frames only; anything else reads the whole
    video once and goes on with a plain tensor, so results are never of this class.

    Args:
        size: ``(T, H, W)``.
        read: gives the label maps of a slice of frames, ``(t, H, W)`` uint8.

    Example:
        >>> labels = LazyLabels((3, 1, 2), read=lambda index: torch.arange(6, dtype=torch.uint8).view(3, 1, 2)[index])
        >>> labels.shape, labels[1:2], int(labels.max())
        (torch.Size([3, 1, 2]), tensor([[[2, 3]]], dtype=torch.uint8), 5)
    """

    _read: Callable[[slice], Tensor]
    _whole: Tensor | None

    @staticmethod
    def __new__(cls, size: Sequence[int], read: Callable[[slice], Tensor]) -> LazyLabels:
        """A tensor without storage: what does not ask through `__torch_function__` fails, never sees zeros."""
        labels: LazyLabels = Tensor._make_wrapper_subclass(cls, size, dtype=torch.uint8)
        labels._read, labels._whole = read, None
        return labels

    def __getitem__(self, index: Any, /) -> Tensor:
        """Frames of a slice, or any other indexing of the whole."""
        if isinstance(index, slice) and self._whole is None:
            return self._read(index)
        return self.read()[index]

    def read(self) -> Tensor:
        """All label maps as a plain tensor."""
        if self._whole is None:
            self._whole = self._read(slice(None))
        return self._whole

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What a function of tensors gives for the label maps."""
        if func in _KNOWN_UNREAD:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        return _call_on_read(func, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, *call: Any) -> Any:
        """The same, where PyTorch asks below the level of its functions."""
        return _call_on_read(*call)


def _call_on_read(func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
    args, kwargs = tree_map_only(LazyLabels, LazyLabels.read, (args, kwargs or {}))
    return func(*args, **(kwargs or {}))
