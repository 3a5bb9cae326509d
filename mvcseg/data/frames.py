"""A folder of images as a video."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from mvcseg.data.files import shown
from mvcseg.data.images import IMAGE_SUFFIXES, image_size, list_images, read_frame
from mvcseg.errors import DataError, DTypeError


class FrameFolder:
    """The images of a folder as a video, read as they are asked for.

    ``len(video)`` is T; a slice, of any step, gives ``(t, 3, H, W)`` uint8 RGB. Frames follow their names, numbers
    in them by value; hidden files and files that are no image (by their ending) do not count.

    Args:
        folder: folder of jpg, jpeg, png, bmp or webp images, or a VSPW video folder (its ``origin/`` is used,
            which may be given itself).

    Attributes:
        name: the folder's name (a VSPW video's own, not ``origin``).
        frame_names: file stems of the frames.
        fps: None, images carry no frame rate.

    Raises:
        DataError: the folder cannot be read, holds no image, or two images of one stem.
    """

    fps: float | None = None

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        path = Path(folder)
        absolute = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow links
        self.name = absolute.parent.name if absolute.name == "origin" else absolute.name
        self.folder = path / "origin" if (path / "origin").is_dir() else path
        self._paths = list_images(self.folder)
        if not self._paths:
            raise DataError(f"{shown(self.folder)}: expected images ({' '.join(IMAGE_SUFFIXES)}), got none")
        self.frame_names = [image.stem for image in self._paths]
        self._size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: slice, /) -> Tensor:
        """The frames of a slice, ``(t, 3, H, W)`` uint8 RGB.

        Raises:
            DTypeError: the index is not a slice.
            DataError: an image is broken or of another size than the first; names it.
        """
        if not isinstance(index, slice):
            raise DTypeError(f"index: expected a slice, got {type(index).__name__}")
        paths = self._paths[index]
        height, width = self.size
        frames = torch.empty(len(paths), 3, height, width, dtype=torch.uint8)
        with ThreadPoolExecutor(max_workers=max(1, min(len(paths), os.cpu_count() or 1, 8))) as pool:
            for row, (path, frame) in enumerate(zip(paths, pool.map(read_frame, paths), strict=True)):
                if frame.shape[1:] != (height, width):
                    raise DataError(
                        f"{shown(path)}: expected {height} x {width} pixels like {shown(self._paths[0].name)}, "
                        f"got {frame.shape[1]} x {frame.shape[2]}"
                    )
                frames[row] = frame
        return frames

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames, in pixels.

        Raises:
            DataError: the first image's header is broken.
        """
        if self._size is None:
            self._size = image_size(self._paths[0])
        return self._size
