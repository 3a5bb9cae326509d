"""Label maps on disk: single-channel PNGs of class ids with a palette, and the list of classes beside them."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvcseg.data.files import read_json, shown, write_aside, write_json
from mvcseg.data.images import list_images, open_image
from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.shapes import MAX_CLASSES, check_integer, check_shapes

CLASSES_FILE = "classes.json"
"""Name of the class list beside the label maps."""


def read_label_map(path: str | os.PathLike[str]) -> Tensor:
    """A label map, ``(H, W)`` uint8: the numbers stored in the file, not the colours they are shown in.

    Args:
        path: PNG with one channel: 8-bit grey, a palette (its indices are the labels), or 16-bit grey with
            no value above 255.

    Raises:
        DataError: the file is missing, broken, truncated, or another kind of image.
    """
    kind = _png_kind(path)
    with open_image(path, formats=("PNG",)) as image:
        stored = np.array(image)
    if kind == (16, _GREY) and stored.max(initial=0) > 255:
        raise DataError(f"{shown(path)}: expected labels up to 255, got {stored.max()} in a 16-bit image")
    return torch.from_numpy(stored.astype(np.uint8, copy=False))


def png_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width of a PNG in pixels, from its header alone.

    Raises:
        DataError: the file cannot be read or is no PNG.
    """
    width, height, _, _ = _png_header(path)
    return height, width


def write_label_map(path: str | os.PathLike[str], labels: Tensor, *, colours: NDArray[np.uint8]) -> None:
    """Write a label map as a palette PNG; equal labels and colours give equal bytes.

    Args:
        path: the file, written aside and then named.
        labels: ``(H, W)`` integers 0 to 255.
        colours: ``(N, 3)`` uint8 RGB, the palette's first N <= 256 entries; the rest, 255 included, is black.

    Raises:
        ShapeError: labels are not two-dimensional, or empty.
        DTypeError: labels are not integers.
        ConfigError: a label is outside 0 to 255, or colours are not as above.
        DataError: the file cannot be written.
    """
    from PIL import Image

    check_shapes(labels=(labels, "h w"))
    check_integer(labels=labels)
    if not labels.numel():
        raise ShapeError(f"labels: expected at least one pixel, got {tuple(labels.shape)}")
    if labels.dtype != torch.uint8:
        low, high = (int(value) for value in labels.aminmax())
        if low < 0 or high > 255:
            raise ConfigError(f"labels: expected values 0 to 255, got {low} to {high}")
    image = Image.fromarray(labels.to("cpu", torch.uint8).contiguous().numpy(), mode="L")
    image.putpalette(_palette(colours))
    with write_aside(path) as part:
        # Runs of equal bytes are nearly all there is to find in label maps: half the time of zlib's fastest level,
        # and smaller files.
        image.save(part, format="PNG", compress_type=_ZLIB_RUN_LENGTHS)


class LabelFolder:
    """The label maps of one video, read as they are asked for.

    ``len(labels)`` is T; a slice gives ``(t, H, W)`` uint8.

    Args:
        folder: folder of PNGs, or a VSPW video folder (its ``mask/`` is used).
        frame_names: file stems in the order wanted; all PNGs by rising name where None.

    Attributes:
        frame_names: the stems.

    Raises:
        DataError: the folder cannot be read, holds no label map or lacks one of ``frame_names``.
    """

    def __init__(self, folder: str | os.PathLike[str], *, frame_names: Sequence[str] | None = None) -> None:
        path = Path(folder)
        self.folder = path / "mask" if (path / "mask").is_dir() else path
        found = {image.stem: image for image in list_images(self.folder, suffixes=(".png",))}
        self.frame_names = list(found) if frame_names is None else list(frame_names)
        missing = [name for name in self.frame_names if name not in found]
        if missing:
            raise DataError(
                f"{shown(self.folder)}: {len(missing)} of {len(self.frame_names)} label maps are missing, "
                f"first {shown(missing[0])}.png"
            )
        if not self.frame_names:
            raise DataError(f"{shown(self.folder)}: expected label maps (.png), got none")
        self._paths = [found[name] for name in self.frame_names]
        self._size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: slice, /) -> Tensor:
        """Label maps of a slice, ``(t, H, W)`` uint8.

        Raises:
            DTypeError: the index is not a slice.
            DataError: a file is broken or of another size than the first.
        """
        if not isinstance(index, slice):
            raise DTypeError(f"index: expected a slice, got {type(index).__name__}")
        paths = self._paths[index]
        height, width = self.size
        labels = torch.empty(len(paths), height, width, dtype=torch.uint8)
        with ThreadPoolExecutor(max_workers=min(4, max(1, len(paths)))) as pool:
            for row, (path, label_map) in enumerate(zip(paths, pool.map(read_label_map, paths), strict=True)):
                if tuple(label_map.shape) != (height, width):
                    raise DataError(
                        f"{shown(path)}: expected {height} x {width} like {shown(self._paths[0].name)}, "
                        f"got {label_map.shape[0]} x {label_map.shape[1]}"
                    )
                labels[row] = label_map
        return labels

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the first label map, from its header."""
        if self._size is None:
            self._size = png_size(self._paths[0])
        return self._size


def write_classes(
    folder: str | os.PathLike[str], class_names: Sequence[str], colours: NDArray[np.uint8], *, raw_ids: bool = False
) -> None:
    """Write ``classes.json``: id, name and colour of every class.

    Args:
        folder: the label maps' folder.
        class_names: names of the K classes.
        colours: ``(K, 3)`` uint8 RGB.
        raw_ids: the label maps hold raw ids, so the ids listed are 1 to K.

    Raises:
        ConfigError: there are no or more than 255 names, or another number of colours.
        DataError: the file cannot be written.
    """
    write_json(Path(folder, CLASSES_FILE), class_table(class_names, colours, raw_ids=raw_ids))


def write_classes_once(
    folder: str | os.PathLike[str], class_names: Sequence[str], colours: NDArray[np.uint8], *, raw_ids: bool = False
) -> None:
    """``write_classes``, or where ``classes.json`` is there already, make sure that it says the same.

    Raises:
        ConfigError: as ``write_classes``.
        DataError: it lists other classes, or cannot be read or written.
    """
    path = Path(folder, CLASSES_FILE)
    if not path.exists():
        write_classes(folder, class_names, colours, raw_ids=raw_ids)
    elif read_json(path) != class_table(class_names, colours, raw_ids=raw_ids):
        raise DataError(f"{shown(path)}: lists other classes than this run's; choose another output folder")


def class_table(
    class_names: Sequence[str], colours: NDArray[np.uint8], *, raw_ids: bool = False
) -> dict[str, list[dict[str, Any]]]:
    """What ``write_classes`` writes, as a value.

    Raises:
        ConfigError: there are no or more than 255 names, or another number of colours.
    """
    if not 1 <= len(class_names) <= MAX_CLASSES:
        raise ConfigError(f"class_names: expected 1 to {MAX_CLASSES} names, got {len(class_names)}")
    if len(colours) != len(class_names):
        raise ConfigError(f"colours: expected one for each of {len(class_names)} classes, got {len(colours)}")
    classes = [
        {"id": index + int(raw_ids), "name": name, "colour": [int(channel) for channel in colour]}
        for index, (name, colour) in enumerate(zip(class_names, colours, strict=True))
    ]
    return {"classes": classes}


def read_classes(folder_or_file: str | os.PathLike[str]) -> list[str]:
    """Names of the classes 0 to K-1 from a ``classes.json``.

    Raises:
        DataError: the file is missing, no such list, or describes raw ids (1 to K).
    """
    path = Path(folder_or_file)
    path = path / CLASSES_FILE if path.is_dir() else path
    value = read_json(path)
    try:
        by_id = {entry["id"]: entry["name"] for entry in value["classes"]}
        count = len(value["classes"])
    except (KeyError, TypeError) as error:
        raise DataError(f'{shown(path)}: expected {{"classes": [{{"id": 0, "name": ...}}, ...]}}') from error
    if count and sorted(map(str, by_id)) == sorted(map(str, range(1, count + 1))):
        raise DataError(f"{shown(path)}: the label maps beside it hold raw ids (1 to {count}), expected class ids")
    if not count or any(index not in by_id or not isinstance(by_id[index], str) for index in range(count)):
        raise DataError(f"{shown(path)}: expected the ids 0 to K-1, each once and with a name")
    return [by_id[index] for index in range(count)]


_ZLIB_RUN_LENGTHS = 3
_GREY, _PALETTE = 0, 3
_COLOUR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}


def _png_kind(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Bit depth and colour type from the header: decoders widen 1- to 4-bit grey values and so change the labels."""
    _, _, depth, colour_type = _png_header(path)
    if colour_type != _PALETTE and (depth, colour_type) not in ((8, _GREY), (16, _GREY)):
        kind = f"{depth}-bit {_COLOUR_TYPES.get(colour_type, 'unknown')}"
        fix = "; write the numbers of the classes, not their colours" if colour_type in (2, 6) else ""
        raise DataError(f"{shown(path)}: expected one 8-bit channel of class ids (grey or palette), got {kind}{fix}")
    return depth, colour_type


def _png_header(path: str | os.PathLike[str]) -> tuple[int, int, int, int]:
    """Width, height, bit depth and colour type."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(26)
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be read: {error.strerror or error}") from error
    if len(head) < 26 or head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        raise DataError(f"{shown(path)}: expected a PNG label map, got another kind of file")
    width, height, depth, colour_type = struct.unpack_from(">IIBB", head, 16)
    return width, height, depth, colour_type


def _palette(colours: NDArray[np.uint8]) -> bytes:
    table = np.asarray(colours)
    if table.ndim != 2 or table.shape[1] != 3 or len(table) > 256 or table.dtype != np.uint8:
        raise ConfigError(f"colours: expected (N, 3) uint8 with N <= 256, got {table.shape} {table.dtype}")
    return table.tobytes().ljust(768, b"\0")
