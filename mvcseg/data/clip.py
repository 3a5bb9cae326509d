"""What a training clip is, where it comes from, and the form in which it travels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from mvcseg.segmenter import IGNORE_INDEX, IMAGENET_MEAN, Video


class LabelledVideo(Protocol):
    """A video of ``VSPW``, or anything alike."""

    @property
    def name(self) -> str:
        """Name, used in messages."""
        ...

    @property
    def frames(self) -> Video:
        """Slices give uint8 ``(t, 3, H, W)``."""
        ...

    @property
    def labels(self) -> Video | None:
        """Slices give integer ``(t, H, W)``, classes and 255; None where the video has no masks."""
        ...


class Clip(NamedTuple):
    """One training sample, or with a leading axis a batch of them.

    Attributes:
        frames: ``(T, 3, H, W)`` float in ``[0, 1]``.
        labels: ``(T, H, W)`` int64 classes, 255 where nothing is known.
        sample: its number, from which ``ClipDataset.source`` names its frames.
    """

    frames: Tensor
    labels: Tensor
    sample: int


class PackedClip(NamedTuple):
    """A clip, or with a leading axis a batch of them, in about a fifth of the memory: how it travels to the model.

    Attributes:
        frames: ``(T, 3, H, W)``, uint8 where the clip's pixels are bytes, else float in ``[0, 1]``.
        labels: ``(T, H, W)`` uint8 classes, 255 where nothing is known.
        size: ``(2,)`` int64 on the host, height and width of the picture; what lies below and right of it is filled up.
        sample: its number.
    """

    frames: Tensor
    labels: Tensor
    size: Tensor
    sample: int

    def unpacked(self, device: torch.device | str | None = None) -> Clip:
        """The clip or batch itself, on a device, what is filled up in the mean colour.

        Args:
            device: where it is wanted; None leaves it where it is.
        """
        frames, labels = (tensor.to(device, non_blocking=True) for tensor in (self.frames, self.labels))
        if not frames.is_floating_point():
            frames = frames.float().div_(255)
        height, width = frames.shape[-2:]
        if bool((self.size < torch.tensor([height, width])).any()):  # sizes are on the host, nothing waits for a GPU
            below = torch.arange(height) >= self.size[..., :1]
            right = torch.arange(width) >= self.size[..., 1:]
            outside = (below[..., :, None] | right[..., None, :])[..., None, None, :, :]
            mean = torch.tensor(IMAGENET_MEAN)[:, None, None]
            frames = torch.where(outside.to(frames.device), mean.to(frames), frames)
        return Clip(frames, labels.long(), self.sample)

    def filled_up(self, height: int, width: int) -> PackedClip:
        """The same picture on a larger ground."""
        add = (0, width - self.labels.shape[-1], 0, height - self.labels.shape[-2])
        if not any(add):
            return self
        labels = functional.pad(self.labels, add, value=IGNORE_INDEX)
        return self._replace(frames=functional.pad(self.frames, add), labels=labels)


@dataclass(frozen=True)
class ClipSource:
    """Where a clip comes from.

    Attributes:
        video: position of the video in the data set.
        name: its name.
        frames: positions of the clip's frames in the video.
    """

    video: int
    name: str
    frames: tuple[int, ...]

    def __str__(self) -> str:
        return f"video {self.name}, frames {', '.join(str(frame) for frame in self.frames)}"
