"""A seeded toy data set in the VSPW layout: a moving camera over photographs, with exact masks.

Every video is a panorama of layers (`toy_scene`) seen by a camera that pans, tilts, zooms and
shakes, while cut-outs of photographs move through it and poles pass in front. Light drifts, the sensor is noisy,
fast pans blur and the focus is lost now and then, so that a net that sees one frame at a time flickers. Sea, river and
lake are drawn alike: only their shores, seldom in view all at once, tell them apart.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mvcseg.data.files import shown, write_json, write_text
from mvcseg.data.toy_parts import Bytes, Floats
from mvcseg.data.toy_scene import CLASS_NAMES, KINDS, SUPERSAMPLING, Canvas, Layer, Thing, build_scene
from mvcseg.errors import ConfigError, DataError

SPLITS = ("train", "val", "test")
"""Splits the toy set can have; each draws from its own seeds."""
DEFAULT_VIDEOS: Mapping[str, int] = MappingProxyType({"train": 48, "val": 8})
"""Videos per split of the set that the shipped checkpoints were trained on and the demo scores."""
VOID = 0
"""Mask value of pixels without a class."""


def write_toy_set(
    root: str | Path,
    *,
    seed: int = 0,
    videos: Mapping[str, int] = DEFAULT_VIDEOS,
    frames: int = 24,
    size: tuple[int, int] = (96, 160),
) -> Path:
    """Write the toy set: ``train.txt``, ``data/<video>/{origin,mask}``, ``label_num_dic_final.json``.

    Frames are JPEGs, masks PNGs of raw ids: 0 void (the one-pixel outline of the moving objects), 1 to 12 the
    classes of `CLASS_NAMES`. The same arguments give the same bytes on one machine. Training videos use the left
    half of each texture photograph, the others the right half; the four objects are the same everywhere, since there is
    one photograph of each.

    Args:
        root: folder to create; written aside and renamed once complete.
        seed: of everything drawn; splits and videos draw from seeds of their own, so that neither their number
            nor their order changes any of them.
        videos: number of videos per split, splits out of train, val and test.
        frames: frames per video.
        size: ``(height, width)`` of the frames in pixels, 32 or more each.

    Returns:
        The root.

    Raises:
        ConfigError: a split's name, or a number, is outside what is allowed.
        DataError: ``root`` exists and is no empty folder, or cannot be written.

    Example:
        >>> import tempfile
        >>> root = write_toy_set(Path(tempfile.mkdtemp()) / "toy", videos={"val": 1}, frames=2, size=(32, 48))
        >>> sorted(path.name for path in root.iterdir())
        ['data', 'label_num_dic_final.json', 'val.txt']
    """
    _check(seed=seed, videos=videos, frames=frames, size=size)
    root = Path(root)
    if root.is_file() or (root.is_dir() and any(root.iterdir())):
        raise DataError(f"{shown(root)}: expected a new or empty folder for the toy set, got one that is in use")
    aside = root.with_name(f".{root.name}.part-{secrets.token_hex(6)}")
    try:
        aside.mkdir(parents=True)
        for split, count in videos.items():
            names = [f"{split}_{index:03d}_{KINDS[index % len(KINDS)]}" for index in range(count)]
            for index, name in enumerate(names):
                rng = np.random.default_rng([seed, SPLITS.index(split), index])
                kind = KINDS[index % len(KINDS)]
                _write_video(aside / "data" / name, kind=kind, split=split, frames=frames, size=size, rng=rng)
            write_text(aside / f"{split}.txt", "".join(f"{name}\n" for name in names))
        numbers = {"others": "0"} | {name: str(index + 1) for index, name in enumerate(CLASS_NAMES)}
        write_json(aside / "label_num_dic_final.json", numbers)
        if root.is_dir():
            root.rmdir()
        aside.rename(root)
    except OSError as error:
        raise DataError(f"{shown(root)}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return root


@dataclass(frozen=True)
class Camera:
    """Where the camera looks and what it does to the light, frame by frame.

    Attributes:
        centre: what the middle of the frame sees, ``(T, 2)`` in frame pixels ``(x, y)``.
        zoom: magnification, ``(T,)``.
        gain: factor on each colour, ``(T, 3)``.
        blur: radius of lost focus in frame pixels, ``(T,)``.
        noise: standard deviation of the sensor's noise in ``[0, 1]``.
    """

    centre: Floats
    zoom: Floats
    gain: Floats
    blur: Floats
    noise: float


def render(
    items: list[Layer | Thing], camera: Camera, *, index: int, size: tuple[int, int], rng: np.random.Generator
) -> tuple[Bytes, Bytes]:
    """One frame and its mask.

    Args:
        items: the scene from back to front.
        camera: its path.
        index: which frame.
        size: ``(height, width)``.
        rng: source of the noise.

    Returns:
        Colours ``(H, W, 3)`` and raw ids ``(H, W)``. A pixel belongs to the frontmost item that covers at least half
        of it; where a thing's cover is between a tenth and nine tenths, to none.
    """
    import cv2

    height, width = size
    canvas = Canvas(height, width)
    fine = (SUPERSAMPLING * width, SUPERSAMPLING * height)
    colours = np.zeros((fine[1], fine[0], 3), dtype=np.float32)
    mask = np.zeros(size, dtype=np.uint8)
    for item in items:
        if isinstance(item, Layer):
            texture, opacity = _view_of_layer(item, camera, index, canvas, fine)
        else:
            texture, opacity = _view_of_thing(item, camera, index, fine)
        share = opacity.astype(np.float32) / 255
        colours += (texture - colours) * share[..., None]
        cover = cv2.resize(share, (width, height), interpolation=cv2.INTER_AREA)
        mask[cover >= 0.5] = item.raw_id
        if isinstance(item, Thing):
            mask[(cover > 0.1) & (cover < 0.9)] = VOID
    return _exposed(colours, camera, index, size, rng), mask


def _view_of_layer(
    layer: Layer, camera: Camera, index: int, canvas: Canvas, fine: tuple[int, int]
) -> tuple[Floats, Bytes]:
    import cv2

    scale = 1 / float(camera.zoom[index])
    start = [
        origin + SUPERSAMPLING * shift - side / 2 * scale
        for origin, shift, side in zip(
            canvas.origin, camera.centre[index] * np.array([layer.parallax, 1]), fine, strict=True
        )
    ]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

    def view(picture: Bytes, shift: tuple[float, float]) -> Bytes:
        matrix = np.array([[scale, 0, start[0] + shift[0]], [0, scale, start[1] + shift[1]]])
        return np.asarray(cv2.warpAffine(picture, matrix, fine, flags=flags, borderMode=cv2.BORDER_REFLECT_101))

    opacity = view(layer.opacity, (0, 0))
    if layer.drift is None:
        return view(layer.texture, (0, 0)).astype(np.float32), opacity
    dx, dy = (SUPERSAMPLING * speed * index for speed in layer.drift)
    ripples = view(layer.texture, (dx, dy)).astype(np.float32) + view(layer.texture, (31 - dx, dy))
    return np.asarray(ripples / 2, dtype=np.float32), opacity


def _view_of_thing(thing: Thing, camera: Camera, index: int, fine: tuple[int, int]) -> tuple[Floats, Bytes]:
    import cv2

    rows, columns = thing.opacity.shape
    bob = thing.sway[0] * np.sin(2 * np.pi * index / thing.sway[1])
    foot = np.array(thing.foot) + np.array(thing.velocity) * index + np.array([0, bob])
    shift = foot - camera.centre[index] * np.array([thing.parallax, 1])
    zoom = float(camera.zoom[index])
    left, top = SUPERSAMPLING * shift * zoom + np.array(fine) / 2 - np.array([columns / 2, rows]) * zoom
    matrix = np.array([[zoom, 0, left], [0, zoom, top]])
    texture = cv2.warpAffine(thing.texture, matrix, fine, borderMode=cv2.BORDER_REPLICATE)
    return texture.astype(np.float32), np.asarray(cv2.warpAffine(thing.opacity, matrix, fine))


def _exposed(colours: Floats, camera: Camera, index: int, size: tuple[int, int], rng: np.random.Generator) -> Bytes:
    import cv2

    before = camera.centre[max(index - 1, 0)]
    path = SUPERSAMPLING * float(camera.centre[index][0] - before[0]) * float(camera.zoom[index])
    length = int(abs(path) * 0.6) // 2 * 2 + 1  # the shutter is open for six tenths of a frame
    if length > 1:
        colours = np.asarray(cv2.blur(colours, (length, 1)), dtype=np.float32)
    if camera.blur[index] > 0:
        radius = SUPERSAMPLING * float(camera.blur[index])
        colours = np.asarray(cv2.GaussianBlur(colours, (0, 0), radius), dtype=np.float32)
    frame = cv2.resize(colours, (size[1], size[0]), interpolation=cv2.INTER_AREA) * camera.gain[index]
    frame += 255 * camera.noise * rng.standard_normal(frame.shape, dtype=np.float32)
    return np.asarray(np.rint(np.clip(frame, 0, 255)), dtype=np.uint8)


def _draw_camera(frames: int, size: tuple[int, int], rng: np.random.Generator) -> Camera:
    height, width = size
    time = np.linspace(0, 1, frames) if frames > 1 else np.zeros(1)
    ease = time * time * (3 - 2 * time)
    pan = rng.uniform(-0.55, 0.0) + rng.uniform(0.15, 0.7) * (
        ease + 0.08 * np.sin(2 * np.pi * time * rng.uniform(1, 3))
    )
    pan *= rng.choice((-1, 1))
    low, high = rng.uniform(0.15, 0.42), rng.uniform(-0.05, 0.1)
    tilt = {0: low + (high - low) * ease, 1: high + (low - high) * ease, 2: high + 0 * ease}[int(rng.integers(3))]
    shake = _smooth(rng.normal(0, 1, (frames, 2))) * rng.uniform(0.2, 1.0) * height / 96
    zoom = 1 + rng.uniform(-0.06, 0.18) * ease + 0.02 * np.sin(2 * np.pi * time)
    light = 1 + 0.14 * _smooth(np.cumsum(rng.normal(0, 0.35, (frames, 1)), axis=0)) + rng.normal(0, 0.025, (frames, 1))
    warmth = _smooth(rng.normal(0, 0.05, (frames, 1))) * np.array([1, 0, -1])
    focus = np.where(rng.random(frames) < 0.12, rng.uniform(0.8, 1.8, frames), 0.0) * height / 96
    return Camera(
        centre=np.stack((pan * width, tilt * height), axis=1).astype(np.float32) + shake.astype(np.float32),
        zoom=zoom.astype(np.float32),
        gain=np.clip(light + warmth, 0.55, 1.5).astype(np.float32),
        blur=focus.astype(np.float32),
        noise=float(rng.uniform(0.015, 0.045)),
    )


def _smooth(series: NDArray[np.float64]) -> NDArray[np.float64]:
    """The series averaged over three neighbours in time, its ends repeated."""
    padded = np.concatenate((series[:1], series, series[-1:]))
    return np.asarray((padded[:-2] + padded[1:-1] + padded[2:]) / 3)


def _write_video(
    folder: Path, *, kind: str, split: str, frames: int, size: tuple[int, int], rng: np.random.Generator
) -> None:
    from PIL import Image

    for name in ("origin", "mask"):
        (folder / name).mkdir(parents=True)
    items = build_scene(kind, Canvas(*size), far_half=split != "train", rng=rng)
    camera = _draw_camera(frames, size, rng)
    for index in range(frames):
        frame, mask = render(items, camera, index=index, size=size, rng=rng)
        Image.fromarray(frame).save(folder / "origin" / f"{index:08d}.jpg", quality=92)
        Image.fromarray(mask).save(folder / "mask" / f"{index:08d}.png")


def _check(*, seed: int, videos: Mapping[str, int], frames: int, size: tuple[int, int]) -> None:
    if seed < 0:
        raise ConfigError(f"seed: expected an integer of at least 0, got {seed!r}")
    for split, count in videos.items():
        if split not in SPLITS:
            raise ConfigError(f"videos: expected splits out of {', '.join(SPLITS)}, got {split!r}")
        if count < 0:
            raise ConfigError(f"videos: expected numbers of at least 0, got {count!r} for {split}")
    if frames < 1:
        raise ConfigError(f"frames: expected an integer of at least 1, got {frames!r}")
    if len(size) != 2 or min(size) < 32:
        raise ConfigError(f"size: expected (height, width) of at least 32 pixels each, got {size!r}")
