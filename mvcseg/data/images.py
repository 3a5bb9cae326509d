"""Reading image files: every way they can be broken becomes one error that names the file."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mvcseg.data.files import shown
from mvcseg.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""File name endings of frames, in lower case."""
MAX_PIXELS = 1 << 27
"""Most pixels of one image (134 million); a file that claims more is refused before it is unpacked."""

_ORIENTATION = 0x0112  # EXIF; 5 to 8 swap rows and columns
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")  # Pillow knows formats that start other programs


def read_frame(path: str | os.PathLike[str]) -> Tensor:
    """One frame from an image file, ``(3, H, W)`` uint8 RGB.

    The EXIF orientation is applied. Grey is repeated, palettes are looked up, CMYK is converted, 16-bit
    values keep their upper byte, transparency is dropped.

    Raises:
        DataError: the file is missing, broken, truncated, no such image or larger than ``MAX_PIXELS``.
    """
    from PIL import ImageOps

    with open_image(path) as image:
        # Every copy of a frame costs about as much as its decoding: fresh memory is slow to get.
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):
            grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
            rgb = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
        else:
            rgb = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
        planes = rgb.transpose(2, 0, 1).copy()
    return torch.from_numpy(planes)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width of the upright image in pixels, as `read_frame` gives it, mostly from the header alone.

    Raises:
        DataError: the file is missing, no such image, larger than ``MAX_PIXELS``, or its header is broken.
    """
    with open_image(path) as image:
        lies_down = image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
        return (image.width, image.height) if lies_down else (image.height, image.width)


@contextmanager
def open_image(path: str | os.PathLike[str], *, formats: tuple[str, ...] = _FORMATS) -> Iterator[Image.Image]:
    """An opened image; whatever goes wrong while it is opened or decoded inside the block names the file.

    Raises:
        DataError: the file is missing, broken, truncated, of another format or larger than ``MAX_PIXELS``.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"{shown(path)}: expected at most {MAX_PIXELS} pixels, got {image.width} x {image.height}"
                )
            yield image
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{shown(path)}: no readable {' or '.join(formats)} image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{shown(path)}: expected at most {MAX_PIXELS} pixels: {error}") from error
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be read: {error.strerror or error}") from error
    # Pillow's decoders answer damaged bytes with all of these.
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        SyntaxError,
        TypeError,
        ValueError,
        struct.error,
        zlib.error,
    ) as error:
        raise DataError(f"{shown(path)}: broken image: {error or type(error).__name__}") from error


def list_images(folder: str | os.PathLike[str], *, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    """The image files of a folder by rising name (``2.png`` before ``10.png``), hidden files left out.

    Raises:
        DataError: the folder cannot be read, or two files differ in their ending only.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{shown(folder)}: cannot be read: {error.strerror or error}") from error
    paths = sorted(
        (Path(folder, name) for name in names if name.lower().endswith(suffixes)),
        key=lambda path: (natural_order(path.stem), path.name),
    )
    for before, after in pairwise(paths):
        if before.stem == after.stem:
            raise DataError(f"{shown(after)}: a frame of this name exists twice, also as {shown(before.name)}")
    return paths


def natural_order(name: str) -> tuple[tuple[str | int, ...], str]:
    """Sort key in which runs of digits count as numbers; equal numbers (``1``, ``01``) fall back to the text."""
    parts = re.split(r"([0-9]+)", name)
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts)), name
