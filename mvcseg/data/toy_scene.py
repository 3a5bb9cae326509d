"""The toy scenes: layers of surfaces and objects from back to front, on a canvas wider than the camera sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mvcseg.data.toy_parts import Bytes, Floats, cut_out, ground, tile, tint

CLASS_NAMES = (*("sky", "grass", "gravel", "wall", "sea", "river", "lake", "person", "cat", "cup", "rocket", "pole"),)
"""Class k of the toy set; the mask holds k + 1, and 0 for void."""
CLASS_COLOURS = (
    *((150, 200, 240), (85, 165, 65), (190, 170, 140), (180, 80, 60), (25, 60, 150), (40, 150, 215)),
    *((125, 95, 205), (245, 140, 40), (250, 215, 70), (215, 30, 60), (230, 230, 240), (70, 70, 80)),
)
"""RGB to show each class in: near what it is, the three waters apart."""
KINDS = ("river", "land", "lake", "sea")
"""Kinds of scene, in the order in which the videos of a split take them."""
SUPERSAMPLING = 2
"""Canvas and rendering are this many times finer than the frames."""

_RAW_ID = {name: index + 1 for index, name in enumerate(CLASS_NAMES)}
_THINGS = (("astronaut", "person", 0.62), ("chelsea", "cat", 0.42), ("coffee", "cup", 0.34), ("rocket", "rocket", 0.55))


@dataclass(frozen=True)
class Layer:
    """A surface on the canvas.

    Attributes:
        texture: colours, ``(h, w, 3)`` uint8.
        opacity: where the surface is, ``(h, w)`` uint8.
        raw_id: value in the mask.
        parallax: how far it moves against the camera; 1 is the ground near by, 0 infinitely far.
        drift: speed of a second copy of the texture, blended in with the first that moves the other way, in
            frame pixels per frame; None for a surface at rest. Makes ripples.
    """

    texture: Bytes
    opacity: Bytes
    raw_id: int
    parallax: float
    drift: tuple[float, float] | None = None


@dataclass(frozen=True)
class Thing:
    """A cut-out that moves.

    Attributes:
        texture: colours, ``(h, w, 3)`` uint8.
        opacity: its outline, ``(h, w)`` uint8.
        raw_id: value in the mask.
        parallax: as for a layer.
        foot: where the middle of its lower edge stands in the first frame, ``(x, y)`` in frame pixels.
        velocity: in frame pixels per frame.
        sway: amplitude (frame pixels) and period (frames) of its bobbing.
    """

    texture: Bytes
    opacity: Bytes
    raw_id: int
    parallax: float
    foot: tuple[float, float]
    velocity: tuple[float, float]
    sway: tuple[float, float]


@dataclass(frozen=True)
class Canvas:
    """Size of the layers: world ``(0, 0)`` is the middle of the view at rest.

    Attributes:
        height: rows of a frame.
        width: columns of a frame.
    """

    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a layer."""
        return SUPERSAMPLING * 2 * self.height, SUPERSAMPLING * 3 * self.width

    @property
    def origin(self) -> tuple[float, float]:
        """Column and row of world ``(0, 0)`` in a layer."""
        return SUPERSAMPLING * 1.5 * self.width, SUPERSAMPLING * 0.8 * self.height

    def row(self, share: float) -> float:
        """Row of a layer for a height given as a share of the frame's, 0 in the middle and downwards."""
        return self.origin[1] + SUPERSAMPLING * share * self.height


def build_scene(kind: str, canvas: Canvas, *, far_half: bool, rng: np.random.Generator) -> list[Layer | Thing]:
    """Layers and things of one video, from back to front.

    Args:
        kind: one of `KINDS`. The three waters draw colour, ripples and shores from the same
            distributions: a sea has no far shore, a river has two that run on, a lake's shores meet at the
            ends of the panorama.
        canvas: size of the layers.
        far_half: which half of each texture photograph is used.
        rng: source of everything drawn.
    """
    horizon, shore = rng.uniform(-0.2, -0.05), rng.uniform(0.24, 0.38)
    items: list[Layer | Thing] = []
    sky, sky_colour = _sky(canvas, horizon, far_half, rng)
    items.append(sky)
    near = "gravel" if rng.random() < 0.5 else "grass"
    if kind == "land":
        items += _land(canvas, horizon, near, far_half, rng)
        shore = horizon + 0.2
    else:
        items += _water(kind, canvas, horizon, shore, sky_colour, far_half, rng)
        edge = canvas.row(shore) + _wave(canvas, rng, amplitude=0.05)
        items.append(_ground_layer(near, canvas, edge, horizon, far_half, rng, parallax=1.0))
    chosen = rng.permutation(len(_THINGS))[: 2 + int(rng.random() < 0.5)]
    for index in sorted(chosen, key=lambda index: -int(index)):  # the rocket stands behind the others
        items.append(_thing(int(index), canvas, horizon, shore, rng))
    if rng.random() < 0.7:
        items.append(_poles(canvas, rng))
    return items


def _colour(rng: np.random.Generator, base: tuple[float, float, float], spread: float) -> Floats:
    """A colour near another: most of the deviation is brightness, a third of it hue."""
    deviation = rng.normal(0, spread) + rng.normal(0, spread / 3, 3)
    return np.asarray(np.clip(np.array(base) + deviation, 0.02, 0.98), dtype=np.float32)


def _wave(canvas: Canvas, rng: np.random.Generator, *, amplitude: float) -> Floats:
    """A smooth line over the columns of the canvas; amplitude as a share of the frame's height."""
    columns = np.linspace(0, 2 * np.pi, canvas.shape[1], dtype=np.float32)
    line = np.zeros_like(columns)
    for frequency in (1, 2, 4, 9):
        line += np.sin(frequency * columns + rng.uniform(0, 2 * np.pi)) * rng.uniform(0.4, 1) / frequency**0.7
    return np.asarray(line / 2 * amplitude * canvas.height * SUPERSAMPLING, dtype=np.float32)


def _below(canvas: Canvas, edge: Floats | float) -> Floats:
    """Opacity of everything below a line (row per column), with a soft edge one canvas pixel wide."""
    rows = np.arange(canvas.shape[0], dtype=np.float32)[:, None]
    edge_row = np.broadcast_to(np.asarray(edge, dtype=np.float32), (canvas.shape[1],))[None]
    return np.asarray(np.clip(rows - edge_row + 0.5, 0, 1), dtype=np.float32)


def _opaque(share: Floats) -> Bytes:
    return np.asarray(np.rint(255 * share), dtype=np.uint8)


def _sky(canvas: Canvas, horizon: float, far_half: bool, rng: np.random.Generator) -> tuple[Layer, Floats]:
    import cv2

    top, bottom = (
        ((0.20, 0.42, 0.75), (0.72, 0.82, 0.92)),  # clear
        ((0.55, 0.58, 0.62), (0.80, 0.80, 0.80)),  # overcast
        ((0.12, 0.17, 0.36), (0.85, 0.60, 0.45)),  # dusk
    )[int(rng.integers(3))]
    high, low = _colour(rng, top, 0.04), _colour(rng, bottom, 0.04)
    rows = np.clip(np.linspace(0, 1, canvas.shape[0], dtype=np.float32) * canvas.shape[0] / canvas.row(horizon), 0, 1)
    gradient = high + (low - high) * rows[:, None, None] ** 1.5
    offset = (rng.uniform(0, 200), rng.uniform(0, 400))
    clouds = tile("gravel", far_half=far_half, shape=canvas.shape, zoom=6.0, offset=offset)
    soft = np.asarray(cv2.GaussianBlur(cv2.GaussianBlur(clouds, (0, 0), 9), (0, 0), sigmaX=14, sigmaY=1))
    cover = np.clip((soft - np.quantile(soft[::4, ::4], 0.55)) * rng.uniform(1, 5), 0, 0.6)[..., None]
    colours = gradient + (np.float32(0.93) - gradient) * cover
    layer = Layer(
        texture=np.rint(255 * np.clip(colours, 0, 1)).astype(np.uint8),
        opacity=np.full(canvas.shape, 255, dtype=np.uint8),
        raw_id=_RAW_ID["sky"],
        parallax=0.15,
    )
    return layer, low


def _ground_layer(
    name: str,
    canvas: Canvas,
    edge: Floats | float,
    horizon: float,
    far_half: bool,
    rng: np.random.Generator,
    *,
    parallax: float,
    haze: float = 0.0,
) -> Layer:
    shape, zoom = canvas.shape, rng.uniform(1.2, 2.2)
    if haze:  # far away and rising towards the camera: no perspective to see
        offset = (rng.uniform(0, 200), rng.uniform(0, 200))
        surface = tile(name, far_half=far_half, shape=shape, zoom=zoom / 3, offset=offset)
    else:
        surface = ground(name, far_half=far_half, shape=shape, horizon=canvas.row(horizon) - 4, zoom=zoom, stretch=1.0)
    if name == "grass":
        dark, light = _colour(rng, (0.12, 0.22, 0.06), 0.03), _colour(rng, (0.50, 0.62, 0.28), 0.06)
    else:
        dark, light = _colour(rng, (0.24, 0.21, 0.18), 0.03), _colour(rng, (0.74, 0.69, 0.61), 0.05)
    fog = np.float32(0.7)
    dark, light = dark + (fog - dark) * np.float32(haze), light + (fog - light) * np.float32(haze)
    texture = tint(surface, dark=dark, light=light)
    return Layer(texture, _opaque(_below(canvas, edge)), _RAW_ID[name], parallax)


def _land(canvas: Canvas, horizon: float, near: str, far_half: bool, rng: np.random.Generator) -> list[Layer | Thing]:
    other = "grass" if near == "gravel" else "gravel"
    foot = horizon + rng.uniform(0.02, 0.1)
    zoom, offset = rng.uniform(0.25, 0.42), (rng.uniform(0, 200), rng.uniform(0, 200))
    # The bricks of the photograph stand on end; a wall's courses lie.
    height, width = canvas.shape
    courses = tile("brick", far_half=far_half, shape=(width, height), zoom=zoom, offset=offset).T
    dark, light = _colour(rng, (0.42, 0.17, 0.12), 0.05), _colour(rng, (0.78, 0.62, 0.52), 0.05)
    top = canvas.row(horizon - rng.uniform(0.15, 0.4)) + np.zeros(width, dtype=np.float32)
    for _ in range(int(rng.integers(1, 4))):  # gaps and steps in the wall
        start = int(rng.integers(width))
        top[start : start + int(rng.uniform(0.1, 0.4) * width)] += SUPERSAMPLING * canvas.height * rng.uniform(0.1, 0.6)
    wall = Layer(tint(courses, dark=dark, light=light), _opaque(_below(canvas, top)), _RAW_ID["wall"], 0.8)
    hill_edge = canvas.row(horizon - 0.04) + _wave(canvas, rng, amplitude=0.06)
    hill = _ground_layer("grass", canvas, hill_edge, horizon, far_half, rng, parallax=0.5, haze=0.35)
    lawn = _ground_layer(near, canvas, canvas.row(foot), horizon, far_half, rng, parallax=1.0)
    path = _ground_layer(other, canvas, canvas.row(foot), horizon, far_half, rng, parallax=1.0)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    depth = np.clip((rows - canvas.row(horizon)) / (height - canvas.row(horizon)), 0, 1)
    middle = width * (0.5 + rng.uniform(-0.12, 0.12)) + rng.uniform(-0.4, 0.4) * width * (depth - 0.3)
    inside = np.clip(rng.uniform(0.08, 0.2) * width * (depth + 0.05) - np.abs(columns - middle) + 0.5, 0, 1)
    share = np.asarray(np.minimum(inside, path.opacity / np.float32(255)), dtype=np.float32)
    return [hill, wall, lawn, Layer(path.texture, _opaque(share), path.raw_id, path.parallax)]


def _water(
    kind: str, canvas: Canvas, horizon: float, shore: float, sky: Floats, far_half: bool, rng: np.random.Generator
) -> list[Layer | Thing]:
    import cv2

    surface = ground(
        "gravel", far_half=far_half, shape=canvas.shape, horizon=canvas.row(horizon) - 6, zoom=1.6, stretch=3.0
    )
    surface = np.asarray(cv2.GaussianBlur(surface, (0, 0), sigmaX=4, sigmaY=0.8), dtype=np.float32)
    blue = _colour(rng, (0.16, 0.34, 0.44), 0.05)
    texture = tint(surface, dark=blue * np.float32(0.6), light=blue + (sky - blue) * np.float32(0.55))
    level = canvas.row(horizon)
    drift = (float(rng.uniform(0.2, 0.6)), float(rng.uniform(-0.08, 0.08)))
    water = Layer(texture, _opaque(_below(canvas, level)), _RAW_ID[kind], 0.85, drift)

    columns = np.abs(np.linspace(-1.5, 1.5, canvas.shape[1], dtype=np.float32))  # frame widths from the middle
    crest = level - SUPERSAMPLING * canvas.height * rng.uniform(0.03, 0.14) + _wave(canvas, rng, amplitude=0.08)
    foot = canvas.row(horizon + rng.uniform(0.04, 0.14)) + _wave(canvas, rng, amplitude=0.03)
    haze = float(rng.uniform(0.1, 0.35))
    bank = _ground_layer("grass", canvas, np.minimum(crest, level), horizon, far_half, rng, parallax=0.85, haze=haze)
    if kind == "lake":
        closing = np.clip((columns - rng.uniform(0.2, 0.6)) / 0.5, 0, None) ** 1.5
        foot = foot + (canvas.row(shore + 0.15) - foot) * np.minimum(closing, 1) + 9 * closing
    if kind == "sea":
        if rng.random() < 0.5:
            return [water]
        # A headland far out at one side: land in view is no proof of a river.
        side = np.linspace(-1.5, 1.5, canvas.shape[1], dtype=np.float32) * rng.choice((-1, 1))
        sinking = np.clip(1 - (side - rng.uniform(0.1, 0.5)) * 4, 0, None) * SUPERSAMPLING * canvas.height * 0.2
        crest, foot = np.minimum(crest + sinking, level + 1), np.full_like(foot, level + 1)
        bank = _ground_layer("grass", canvas, crest, horizon, far_half, rng, parallax=0.85, haze=haze)
    # The bank ends at the foot line: what lies below it is water again.
    share = np.minimum(bank.opacity / np.float32(255), 1 - _below(canvas, foot))
    return [water, Layer(bank.texture, _opaque(share), bank.raw_id, bank.parallax)]


def _thing(index: int, canvas: Canvas, horizon: float, shore: float, rng: np.random.Generator) -> Thing:
    import cv2

    name, class_name, share = _THINGS[index]
    picture, outline = cut_out(name)
    height = max(8, round(SUPERSAMPLING * canvas.height * share * rng.uniform(0.75, 1.2)))
    width = round(height * picture.shape[1] / picture.shape[0] * (1.8 if name == "rocket" else 1.0))
    texture, opacity = (cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA) for part in (picture, outline))
    if rng.random() < 0.5 and name != "rocket":
        texture, opacity = texture[:, ::-1], opacity[:, ::-1]
    gain = rng.uniform(0.8, 1.15) * _colour(rng, (0.96, 0.96, 0.96), 0.04)
    texture = np.clip(texture * gain, 0, 255).astype(np.uint8)
    x = rng.uniform(-0.55, 0.55) * canvas.width
    if name == "rocket":
        speed = (0.0, -rng.uniform(0.0, 0.004) * canvas.height)
        y, parallax = horizon + rng.uniform(0.05, 0.12), 0.8
    else:
        speed = (-np.sign(x) * rng.uniform(0.1, 1.0) * canvas.width / 60, 0.0)
        y, parallax = min(shore, 0.3) + rng.uniform(0.1, 0.35), 1.0
    sway = (rng.uniform(0.3, 1.5), rng.uniform(6, 16))
    return Thing(
        np.ascontiguousarray(texture),
        np.ascontiguousarray(opacity),
        _RAW_ID[class_name],
        parallax,
        (float(x), float(y * canvas.height)),
        (float(speed[0]), float(speed[1])),
        (float(sway[0]), float(sway[1])),
    )


def _poles(canvas: Canvas, rng: np.random.Generator) -> Layer:
    """Bars in front of everything: single posts, or a fence with a rail."""
    height, width = canvas.shape
    share = np.zeros(canvas.shape, dtype=np.float32)
    thickness = SUPERSAMPLING * canvas.width * rng.uniform(0.018, 0.035)
    spacing = SUPERSAMPLING * canvas.width * rng.uniform(0.3, 0.9)
    columns = np.arange(width, dtype=np.float32)
    across = np.abs((columns - rng.uniform(0, spacing)) % spacing - spacing / 2)
    share[:] = np.clip(thickness / 2 - across + 0.5, 0, 1)[None]
    if rng.random() < 0.4:
        rail = np.abs(np.arange(height, dtype=np.float32) - canvas.row(rng.uniform(0.25, 0.45)))
        share = np.maximum(share, np.clip(thickness / 3 - rail + 0.5, 0, 1)[:, None])
        across = np.minimum(across[None], rail[:, None])
    roundness = (1 - np.clip(np.broadcast_to(across, share.shape) / thickness, 0, 1) ** 2)[..., None]
    colour = _colour(rng, ((0.20, 0.20, 0.22), (0.62, 0.60, 0.58), (0.55, 0.40, 0.12))[int(rng.integers(3))], 0.04)
    texture = np.rint(255 * colour * roundness).astype(np.uint8)
    return Layer(texture, _opaque(share), _RAW_ID["pole"], float(rng.uniform(1.3, 1.8)))
