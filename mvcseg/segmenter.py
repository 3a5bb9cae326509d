"""The protocol every model meets, and the adapter that makes an image model meet it.

A segmenter maps a batch of clips to per-pixel class logits of the same size; everything above the models
(masked consistency, voting, selection, prediction) knows only this.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, overload, runtime_checkable

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.ops.score_windows import best_classes, planes, resizing
from mvcseg.ops.workspace import Workspace
from mvcseg.shapes import check_float, check_integer, check_num_classes, check_positive, check_shapes

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean colour (R, G, B) of ImageNet for frames in ``[0, 1]``."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation (R, G, B) of ImageNet for frames in ``[0, 1]``."""
IGNORE_INDEX = 255
"""Label of pixels that no loss and no score looks at."""


class Segmenter(Protocol):
    """Anything that maps clips to class logits.

    ``segmenter(frames)`` takes ``(B, T, 3, H, W)`` float RGB in ``[0, 1]`` and returns ``(B, T, K, H, W)``
    whose softmax over K is the class distribution. Any T >= 1 and any H, W >= 32; nothing is remembered
    between calls; batch items are independent in eval mode.

    One that can give class ids without full-size logits may have ``clip_labels(frames, *, output_size)`` too:
    ``(B, T, height, width)`` uint8, the arg-max of the logits, or where ``output_size`` is not the frames' size, of
    probabilities resized to it. Everything that wants labels then uses it.
    """

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        ...

    def __call__(self, frames: Tensor, /) -> Tensor:
        """Logits ``(B, T, K, H, W)`` of frames ``(B, T, 3, H, W)``."""
        ...


@runtime_checkable
class Video(Protocol):
    """A stored video: a uint8 ``(T, 3, H, W)`` tensor, or anything with ``len`` and slices that give such tensors."""

    def __len__(self) -> int:
        """T, the number of frames."""
        ...

    def __getitem__(self, index: slice, /) -> Tensor:
        """The frames of a slice, uint8 ``(t, 3, H, W)`` RGB."""
        ...


def own_labels(segmenter: object, name: str) -> Callable[..., Any] | None:
    """A segmenter's ``stream_labels`` or ``clip_labels``; None where it has none, or would pass something over by it.

    That is so where a subclass or the object itself has since changed ``stream``, for clips ``forward``; for clips also
    where the object is hooked or compiled, and where a wrapper such as `torch.compile`'s only hands the method on.
    """
    method: Callable[..., Any] | None = getattr(segmenter, name, None)
    own = getattr(segmenter, "__dict__", {})
    if method is None or name in own:
        return method
    of_streams = name == "stream_labels"
    mro = type(segmenter).__mro__
    index = next((index for index, parent in enumerate(mro) if name in vars(parent)), None)
    if index is None:
        return method if of_streams else None
    changed = {*own, *(other for newer in mro[:index] for other in vars(newer))}
    if of_streams:
        return None if "stream" in changed else method
    is_called_otherwise = any(own.get(way) for way in ("_forward_hooks", "_forward_pre_hooks", "_compiled_call_impl"))
    return None if is_called_otherwise or changed & {"forward", "__call__"} else method


def check_segmenter(segmenter: Segmenter) -> int:
    """Number of classes of a segmenter, 1 to 255.

    Raises:
        DTypeError: it cannot be called or has no ``num_classes``.
        ConfigError: there are more than 255 classes.
    """
    num_classes = getattr(segmenter, "num_classes", None)
    if not callable(segmenter) or num_classes is None:
        raise DTypeError(
            f"segmenter: expected a callable with num_classes, got {type(segmenter).__name__}; "
            "mvcseg.PerFrame(net, num_classes=..., logits_of=...) makes one of an image model"
        )
    return check_num_classes(num_classes)


def check_video(video: Video) -> int:
    """Number of frames of a stored video, at least 1.

    Raises:
        ShapeError: it has no frame, or is a tensor that is not ``(T, 3, H, W)``.
        DTypeError: it is a tensor that is not uint8, or has no ``len`` and slices.
    """
    if isinstance(video, Tensor):
        check_shapes(video=(video, "t 3 h w"))
        if video.dtype != torch.uint8:
            raise DTypeError(f"video: expected uint8 frames, got {video.dtype}")
    elif isinstance(video, (str, bytes, os.PathLike)) or not isinstance(video, Video):
        raise DTypeError(
            "video: expected a uint8 (T, 3, H, W) tensor or an object with len and slices of frames, "
            f"got {type(video).__name__}; mvcseg.data.open_video(path) opens a file or folder"
        )
    if len(video) == 0:
        raise ShapeError("video: expected at least one frame, got none")
    return len(video)


def check_label_video(labels: Video, *, length: int, name: str = "labels") -> None:
    """Require label maps ``(T, H, W)``, a tensor or anything with ``len`` and slices of such, T = ``length``.

    Raises:
        ShapeError: there are more or fewer than ``length``, or a tensor has other axes.
        DTypeError: it has no ``len`` and slices, or a tensor is not of integers.
    """
    if isinstance(labels, Tensor):
        check_shapes(**{name: (labels, "t h w")})
        check_integer(**{name: labels})
    elif isinstance(labels, (str, bytes, os.PathLike)) or not isinstance(labels, Video):
        raise DTypeError(
            f"{name}: expected integers (T, H, W) or an object with len and slices of label maps, "
            f"got {type(labels).__name__}; mvcseg.data.LabelFolder(path) reads a folder of them"
        )
    if len(labels) != length:
        raise ShapeError(f"{name}: expected {length} label maps, one per frame of video, got {len(labels)}")


def read_clip(video: Video, start: int, stop: int) -> Tensor:
    """Frames ``start`` to ``stop`` of a stored video, uint8 ``(t, 3, H, W)``.

    Raises:
        ShapeError: the slice gives something else than ``stop - start`` frames.
        DTypeError: they are not uint8.
    """
    clip = video[start:stop]
    check_shapes(video=(clip, f"{stop - start} 3 h w"))
    if clip.dtype != torch.uint8:
        raise DTypeError(f"video: expected uint8 frames, got {clip.dtype}")
    return clip


def size_of(video: Video) -> tuple[int, int]:
    """``(height, width)`` of a stored video's frames, in pixels, by its first.

    Raises:
        ShapeError, DTypeError: as ``read_clip``.
    """
    height, width = read_clip(video, 0, 1).shape[-2:]
    return height, width


def check_numbers(is_number: Tensor | bool) -> None:
    """Require that logits are numbers.

    Raises:
        DataError: ``is_number`` is False.
    """
    if not is_number:
        raise DataError("segmenter: expected numbers, got NaN in the logits; check its weights and its input")


class VideoSegmenter(Segmenter, Protocol):
    """A segmenter that sees the whole video before it answers (DVIS pools class scores over all frames).

    One that can give class ids without full-size logits may have ``stream_labels(video, *, clip_length,
    output_size)`` too: consecutive ``(t, height, width)`` uint8, which everything that wants labels then uses.
    """

    def stream(self, video: Video, /, *, clip_length: int) -> Iterator[Tensor]:
        """Consecutive logits ``(1, t, K, H, W)`` of the whole video, ``t <= clip_length`` frames at a time."""
        ...


class PerFrame(nn.Module):
    """An image model as a segmenter: every frame on its own, in one batch.

    Args:
        net: takes images ``(N, 3, H, W)``.
        num_classes: K, 1 to 255.
        logits_of: picks the logits ``(N, K, h, w)`` out of what ``net`` returns; logits of another size are
            resized to the frames' (bilinear, ``align_corners=False``).
        mean: per-channel mean subtracted from frames in ``[0, 1]``; None feeds them as they are.
        std: per-channel standard deviation; given together with ``mean``.
        multiple_of: sides are padded right and bottom to a multiple of this (with the mean, or with zeros
            where none is given), and the logits cropped back.

    Raises:
        ConfigError: only one of ``mean`` and ``std`` is given, or they are not three numbers with
            ``std`` above 0.

    Example:
        >>> net = nn.Conv2d(3, 5, kernel_size=1)
        >>> segmenter = PerFrame(net, num_classes=5, logits_of=lambda out: out)
        >>> segmenter(torch.rand(2, 4, 3, 32, 48)).shape
        torch.Size([2, 4, 5, 32, 48])
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        net: Callable[[Tensor], Any],
        *,
        num_classes: int,
        logits_of: Callable[[Any], Tensor],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        multiple_of: int = 1,
    ) -> None:
        super().__init__()
        if (mean is None) != (std is None):
            raise ConfigError("mean, std: expected both or neither, got one of them")
        if mean is not None and std is not None and (len(mean) != 3 or len(std) != 3 or min(std) <= 0):
            raise ConfigError(f"mean, std: expected three numbers each, std above 0, got {mean} and {std}")
        check_positive(multiple_of=multiple_of)
        self.net = net
        self.num_classes = check_num_classes(num_classes)
        self.logits_of = logits_of
        self.multiple_of = multiple_of
        for name, values in (("mean", mean), ("std", std)):
            buffer = None if values is None else torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, frames: Tensor, /) -> Tensor:
        """Logits ``(B, T, K, H, W)`` of frames ``(B, T, 3, H, W)`` in ``[0, 1]``.

        Raises:
            ShapeError: frames are not five-dimensional or empty, or the net's logits have another number of
                images or classes than expected.
            DTypeError: frames are not floating-point, or ``logits_of`` did not give a tensor.
        """
        logits, padded = self._logits_of_net(frames)
        if logits.shape[-2:] != padded:
            logits = functional.interpolate(logits, size=padded, mode="bilinear", align_corners=False)
        logits = logits[..., : frames.shape[-2], : frames.shape[-1]]
        return rearrange(logits, "(b t) k h w -> b t k h w", b=len(frames))

    @torch.no_grad()
    def clip_labels(self, frames: Tensor, /, *, output_size: tuple[int, int]) -> Tensor:
        """Class ids ``(B, T, height, width)`` uint8 of frames ``(B, T, 3, H, W)`` in ``[0, 1]``.

        They are the arg-max of ``forward``'s logits, or of probabilities resized to another size, but the net's logits
        are never enlarged as a whole, and half precision is widened first. Where the best two scores of a pixel lie
        within rounding of each other, either class may win.

        Raises:
            ShapeError, DTypeError: as ``forward``.
            ConfigError: a side of ``output_size`` is below 1.
            DataError: logits are NaN.
        """
        logits, padded = self._logits_of_net(frames)
        memory = Workspace(logits)
        enlarge = resizing((logits.shape[-2], logits.shape[-1]), padded, memory)
        labels, is_number = best_classes(
            [enlarge(planes(one)) for one in logits],
            size=(frames.shape[-2], frames.shape[-1]),
            output_size=output_size,
            num_classes=self.num_classes,
            memory=memory,
        )
        check_numbers(is_number)
        return rearrange(labels, "(b t) h w -> b t h w", b=len(frames))

    def _logits_of_net(self, frames: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """What the net says of each frame, ``(B * T, K, h, w)``, and the size in pixels that it speaks of."""
        sizes = check_shapes(frames=(frames, "b t 3 h w"))
        check_float(frames=frames)
        if 0 in frames.shape:
            raise ShapeError(f"frames: expected (b t 3 h w) with no empty axis, got {tuple(frames.shape)}")
        images = rearrange(frames, "b t c h w -> (b t) c h w")
        if self.mean is not None and self.std is not None:
            images = (images - self.mean.to(images)) / self.std.to(images)
        below, right = -sizes["h"] % self.multiple_of, -sizes["w"] % self.multiple_of
        if below or right:
            images = functional.pad(images, (0, right, 0, below))
        logits = self.logits_of(self.net(images))
        if not isinstance(logits, Tensor):
            raise DTypeError(f"logits_of: expected it to return a tensor, got {type(logits).__name__}")
        if logits.ndim != 4 or logits.shape[:2] != (len(images), self.num_classes):
            raise ShapeError(f"net: expected logits ({len(images)} {self.num_classes} h w), got {tuple(logits.shape)}")
        return logits, (images.shape[-2], images.shape[-1])


@overload
def device_of(segmenter: object, default: torch.device) -> torch.device: ...
@overload
def device_of(segmenter: object, default: None = None) -> torch.device | None: ...
def device_of(segmenter: object, default: torch.device | None = None) -> torch.device | None:
    """Device of a module's first parameter or buffer; ``default`` where it has none or is no module."""
    if isinstance(segmenter, nn.Module):
        for tensor in (*segmenter.parameters(), *segmenter.buffers()):
            return tensor.device
    return default
