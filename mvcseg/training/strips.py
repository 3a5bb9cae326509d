"""A clip in one picture: its frames, the ground truth and what the model says, one below the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mvcseg.data.files import write_aside
from mvcseg.errors import ConfigError
from mvcseg.report.media import sample_positions
from mvcseg.report.overlay import overlay
from mvcseg.report.panels import INK, PAPER, beside
from mvcseg.report.runs import PICTURES
from mvcseg.shapes import check_integer, check_positive, check_shapes

OPACITY = 0.65
"""Share of the class colour over the frame."""
LEGEND_LINE, LEGEND_GAP = 17, 4
"""Pixels of a line of names, and of the space around it."""


def write_strip(
    path: str | os.PathLike[str],
    frames: Tensor,
    labels: Tensor,
    predictions: Tensor,
    *,
    colours: Tensor | NDArray[np.uint8],
    class_names: Sequence[str] | None = None,
    max_side: int = 240,
    max_frames: int = 6,
) -> None:
    """Write a clip as one picture, time from left to right.

    Args:
        path: the file, its suffix the format (``.png``); its folder is made, and it appears only when complete.
        frames: ``(T, 3, H, W)``, uint8 or floating-point in ``[0, 1]``.
        labels: ground truth ``(T, H, W)``, classes 0..K-1 or 255, any integer dtype; 255 shows the frame.
        predictions: likewise.
        colours: RGB of each class, uint8 ``(K, 3)``, as `mvcseg.data.palette.class_colours` gives them.
        class_names: name of each class; None leaves out the line that says which colour is which.
        max_side: longer side in pixels that a frame is scaled down to.
        max_frames: most frames shown; of a longer clip as many, evenly spaced.

    Raises:
        ShapeError: the shapes do not fit together.
        DTypeError: labels or predictions are not integer.
        ConfigError: a label is neither below K nor 255, there are not K names, or a number is below 1.
        DataError: the file cannot be written.
    """
    from PIL import Image

    picture = strip(
        frames, labels, predictions, colours=colours, class_names=class_names, max_side=max_side, max_frames=max_frames
    )
    with write_aside(path) as part:
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(part)


def strip_path(run: str | os.PathLike[str], *, step: int) -> Path:
    """Where the picture after a step lies in a run's folder, so that `mvcseg report` shows it."""
    return Path(run) / PICTURES / f"step_{step}.png"


def strip(
    frames: Tensor,
    labels: Tensor,
    predictions: Tensor,
    *,
    colours: Tensor | NDArray[np.uint8],
    class_names: Sequence[str] | None = None,
    max_side: int = 240,
    max_frames: int = 6,
) -> Tensor:
    """The picture that ``write_strip`` writes, uint8 RGB ``(3, h, w)`` on the CPU; arguments as there.

    Raises:
        ShapeError: the shapes do not fit together.
        DTypeError: labels or predictions are not integer.
        ConfigError: a label is neither below K nor 255, there are not K names, or a number is below 1.

    Example:
        >>> labels = torch.zeros(2, 20, 30, dtype=torch.uint8)
        >>> strip(torch.rand(2, 3, 20, 30), labels, labels, colours=torch.tensor([[200, 0, 100]]).byte()).shape
        torch.Size([3, 130, 72])
    """
    check_shapes(frames=(frames, "t 3 h w"), labels=(labels, "t h w"), predictions=(predictions, "t h w"))
    check_integer(labels=labels, predictions=predictions)
    check_positive(max_side=max_side, max_frames=max_frames)
    if class_names is not None and len(class_names) != len(colours):
        raise ConfigError(f"class_names: expected {len(colours)}, one a colour, got {len(class_names)}")
    shown = sample_positions(len(frames), max_frames)
    small = _shrunk(_as_bytes(frames[shown].detach().cpu()), max_side=max_side)
    panels = {f"frame {t + 1}": frame for t, frame in zip(shown, small, strict=True)}
    maps = [_sampled(each[shown].detach().cpu(), small) for each in (labels, predictions)]
    for name, of_frames in zip(("ground truth", "prediction"), maps, strict=True):
        tinted = overlay(small, of_frames, colours=colours, opacity=OPACITY)
        panels |= {f"{name} {t + 1}": frame for t, frame in zip(shown, tinted, strict=True)}
    picture = beside({name: panel[None] for name, panel in panels.items()}, columns=len(shown))[0]
    if class_names is None:
        return picture
    counts = torch.stack(maps).flatten().long().bincount(minlength=256)[: len(colours)]
    seen = [int(i) for i in counts.argsort(descending=True, stable=True) if counts[i]]
    legend = _legend([(class_names[i], colours[i].tolist()) for i in seen], width=picture.shape[2])
    return torch.cat([picture, legend], dim=1)


def _legend(entries: Sequence[tuple[str, list[int]]], *, width: int) -> Tensor:
    """Lines ``(3, h, width)`` of coloured squares with their names."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=11)
    places, x, y = [], LEGEND_GAP, 0
    for name, _ in entries:
        length = LEGEND_LINE + round(font.getlength(name)) + 2 * LEGEND_GAP
        if x > LEGEND_GAP and x + length > width:
            x, y = LEGEND_GAP, y + LEGEND_LINE
        places.append((x, y))
        x += length
    image = Image.new("RGB", (width, y + LEGEND_LINE + LEGEND_GAP if entries else 0), (PAPER, PAPER, PAPER))
    draw = ImageDraw.Draw(image)
    for (name, colour), (x, y) in zip(entries, places, strict=True):
        draw.rectangle((x, y + 2, x + 10, y + 12), fill=(colour[0], colour[1], colour[2]))
        draw.text((x + 15, y), name, fill=(INK, INK, INK), font=font)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _as_bytes(frames: Tensor) -> Tensor:
    if frames.dtype == torch.uint8:
        return frames
    return (frames.float().clamp(0, 1) * 255).round().to(torch.uint8)


def _shrunk(frames: Tensor, *, max_side: int) -> Tensor:
    height, width = frames.shape[-2:]
    scale = max_side / max(height, width)
    if scale >= 1:
        return frames
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return functional.interpolate(frames.float(), size, mode="area").round().to(torch.uint8)


def _sampled(labels: Tensor, frames: Tensor) -> Tensor:
    """The class at the centre of each pixel of smaller frames."""
    height, width = labels.shape[-2:]
    small_height, small_width = frames.shape[-2:]
    rows = (torch.arange(small_height) * 2 + 1) * height // (2 * small_height)
    columns = (torch.arange(small_width) * 2 + 1) * width // (2 * small_width)
    return labels[:, rows[:, None], columns]
