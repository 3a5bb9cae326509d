"""What the toy scenes are made of: surfaces and cut-outs of the photographs in the scikit-image wheel.

The seven pictures used (astronaut, coffee, chelsea, rocket, brick, grass, gravel) lie in the wheel itself, so nothing
is downloaded. The objects' outlines were drawn by hand as polygons on the photographs.
"""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

# (x, y) in pixels of the photograph.
OUTLINES = MappingProxyType(
    {
        "astronaut": (
            *((18, 512), (22, 470), (24, 380), (40, 290), (72, 244), (116, 216), (113, 192), (130, 166), (158, 151)),
            *((186, 150), (184, 132), (166, 114), (153, 86), (158, 60), (175, 38), (202, 22), (236, 15), (268, 26)),
            *((291, 48), (302, 80), (293, 112), (272, 128), (262, 152), (257, 176), (286, 192), (303, 220), (304, 236)),
            *(
                (332, 258),
                (352, 290),
                (362, 330),
                (364, 348),
                (400, 343),
                (440, 352),
                (475, 378),
                (494, 418),
                (502, 456),
            ),
            *((511, 480), (511, 512)),
        ),
        "chelsea": (
            *(
                (50, 0),
                (40, 24),
                (34, 60),
                (37, 108),
                (30, 140),
                (34, 178),
                (50, 214),
                (80, 246),
                (122, 270),
                (170, 286),
            ),
            *(
                (224, 296),
                (268, 297),
                (300, 282),
                (317, 258),
                (318, 238),
                (338, 200),
                (357, 164),
                (364, 120),
                (360, 80),
            ),
            *((374, 54), (388, 34), (398, 8), (394, 0), (356, 10), (334, 4), (312, 0), (112, 0), (88, 14), (66, 2)),
        ),
        "coffee": (
            *((396, 72), (410, 66), (424, 72), (422, 90), (414, 108), (440, 132), (464, 168), (479, 214), (478, 250)),
            *(
                (464, 292),
                (436, 328),
                (396, 358),
                (348, 378),
                (296, 387),
                (240, 383),
                (190, 370),
                (144, 344),
                (108, 308),
            ),
            *((86, 266), (77, 222), (80, 184), (94, 146), (120, 110), (150, 86), (174, 76), (190, 54), (216, 34)),
            *((252, 21), (292, 18), (334, 24), (370, 42)),
        ),
        "rocket": (
            *(
                (309, 405),
                (309, 180),
                (312, 148),
                (316, 134),
                (321, 127),
                (327, 134),
                (332, 148),
                (334, 180),
                (334, 405),
            ),
        ),
    }
)


@lru_cache(maxsize=16)
def photograph(name: str) -> Bytes:
    """A picture of the scikit-image wheel, ``(h, w)`` or ``(h, w, 3)`` uint8."""
    from skimage import data

    picture: Bytes = np.ascontiguousarray(getattr(data, name)())
    picture.setflags(write=False)
    return picture


@lru_cache(maxsize=16)
def cut_out(name: str) -> tuple[Bytes, Bytes]:
    """An object of a photograph: its pixels ``(h, w, 3)`` and its outline as opacity ``(h, w)``, cropped to it."""
    import cv2

    picture = photograph(name)
    points = np.asarray(OUTLINES[name], dtype=np.int32)
    opacity = np.zeros(picture.shape[:2], dtype=np.uint8)
    cv2.fillPoly(opacity, [points], 255, lineType=cv2.LINE_AA)
    left, top = np.maximum(points.min(axis=0) - 1, 0)
    right, bottom = points.max(axis=0) + 2
    return picture[top:bottom, left:right], opacity[top:bottom, left:right]


def tile(name: str, *, far_half: bool, shape: tuple[int, int], zoom: float, offset: tuple[float, float]) -> Floats:
    """A grey surface in ``[0, 1]`` of any size out of one half of a photograph, mirrored at its borders.

    Args:
        name: a grey picture of the wheel.
        far_half: the right half of the picture instead of the left: training and validation share no pixel.
        shape: ``(h, w)`` of the result.
        zoom: pixels of the result per pixel of the photograph.
        offset: ``(x, y)`` of the first pixel in the photograph.
    """
    import cv2

    matrix = np.array([[1 / zoom, 0, offset[0]], [0, 1 / zoom, offset[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (shape[1], shape[0])
    surface = cv2.warpAffine(_half(name, far_half), matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(surface / np.float32(255), dtype=np.float32)


def ground(name: str, *, far_half: bool, shape: tuple[int, int], horizon: float, zoom: float, stretch: float) -> Floats:
    """A surface lying flat: `tile` seen in perspective below a horizon.

    Args:
        name: a grey picture of the wheel.
        far_half: as in `tile`.
        shape: ``(h, w)`` of the result.
        horizon: row at which the surface vanishes; rows above it repeat its far end.
        zoom: pixels of the result per pixel of the photograph at the lowest row.
        stretch: how much wider than deep the pattern is drawn.
    """
    import cv2

    height, width = shape
    depth = np.clip((np.arange(height, dtype=np.float32) - horizon) / (height - horizon), 0.08, 1.0)[:, None]
    across = np.arange(width, dtype=np.float32)[None] - width / 2
    map_x = 128 + across / (zoom * stretch * depth)
    map_y = np.broadcast_to(height / (zoom * 1.5) / depth, shape).astype(np.float32)
    # Sampling the far rows of a fine pattern would flicker; a blurred copy stands in for the missing mip level.
    sharp, soft = _half(name, far_half), cv2.GaussianBlur(_half(name, far_half), (0, 0), 3)
    near, far = (
        cv2.remap(picture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
        for picture in (sharp, soft)
    )
    share = np.clip(1.6 * depth - 0.2, 0, 1)
    return np.asarray((near * share + far * (1 - share)) / 255, dtype=np.float32)


def tint(surface: Floats, *, dark: Floats, light: Floats) -> Bytes:
    """A grey surface coloured from ``dark`` to ``light`` (RGB in ``[0, 1]``), ``(h, w, 3)`` uint8."""
    low, high = np.quantile(surface[::4, ::4], (0.03, 0.97))
    share = np.clip((surface - low) / max(float(high - low), 1e-3), 0, 1)[..., None]
    return np.asarray(np.rint(255 * np.clip(dark + (light - dark) * share, 0, 1)), dtype=np.uint8)


@lru_cache(maxsize=8)
def _half(name: str, far_half: bool) -> Bytes:
    picture = photograph(name)
    middle = picture.shape[1] // 2
    return np.ascontiguousarray(picture[:, middle:] if far_half else picture[:, :middle])
