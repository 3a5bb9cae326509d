"""Draw the pictures of the gallery from the toy set and the two small models of the package.

``python docs/gallery/draw.py`` writes all of them beside this file, ``python docs/gallery/draw.py flow vote`` two.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import mvcseg
from mvcseg import PatchMask, apply_mask
from mvcseg.data.toy import write_toy_set
from mvcseg.data.toy_scene import CLASS_COLOURS, CLASS_NAMES
from mvcseg.data.vspw import VSPW, VSPWVideo
from mvcseg.demo.steps import WATER
from mvcseg.ensemble.flow_ssim import select_model
from mvcseg.flow import FarnebackFlow
from mvcseg.models.compact import CompactSegmenter
from mvcseg.models.compact_checkpoint import load_compact, packaged_checkpoint
from mvcseg.ops.warp import warp_labels
from mvcseg.report import overlay
from mvcseg.report.flicker import flicker
from mvcseg.report.panels import beside
from mvcseg.tta import View, multiscale_flip, vote_labels
from mvcseg.vlm import plan_questions, question_images

COLOURS = torch.tensor(CLASS_COLOURS, dtype=torch.uint8)
K = len(CLASS_NAMES)
CLIP_LENGTH = 8
QUALITY = 85
"""Of the JPEG files."""
RED = torch.tensor([230, 30, 30], dtype=torch.uint8)[:, None, None]


def masking() -> Tensor:
    """Two frames, with cells hidden anew in each and with the same cells hidden in both."""
    frames = video_of("land").frames[8:12:3]
    clip = frames[None].float() / 255
    panels = {"frame": frames}
    for name, tube in (("drawn for every frame", False), ("tube: drawn once", True)):
        mask = PatchMask(patch_size=16, ratio=0.5, tube=tube)
        kept = mask(clip, generator=torch.Generator().manual_seed(0))
        panels[name] = (255 * apply_mask(clip, kept)[0]).round().to(torch.uint8)
    return in_rows({f"{name} ({t + 1})": clip[t] for t in range(2) for name, clip in panels.items()}, columns=3)


def labels() -> Tensor:
    """A frame, its ground truth and what a model says, laid over it; errors in red."""
    truth, said = true_labels("land"), predicted("plain", "land")
    wrong = (said != truth) & (truth != mvcseg.IGNORE_INDEX)
    t = int(wrong.sum(dim=(1, 2)).argmax())
    frame = video_of("land").frames[t : t + 1][0]
    laid_over = {"ground truth": laid(frame, truth[t]), "predicted": laid(frame, said[t])}
    return in_rows({"frame": frame, **laid_over, "errors": marked(frame, wrong[t])}, columns=2)


def flow() -> Tensor:
    """The label map of a frame, brought to the next one along the flow, beside what is predicted there."""
    frames, said, t = video_of("land").frames[:], predicted("plain", "land"), 8
    pair = frames[t : t + 2].float() / 255
    moved = warp_labels(said[None, t], FarnebackFlow()(pair[1:], pair[:1]))[0]
    differ = (moved != said[t + 1]) & (moved != mvcseg.IGNORE_INDEX)
    panels = {
        f"frame {t}": frames[t],
        f"its labels, warped to {t + 1}": laid(frames[t + 1], moved),
        f"labels of frame {t + 1}": laid(frames[t + 1], said[t + 1]),
        "where the two differ": marked(frames[t + 1], differ),
    }
    return in_rows(panels, columns=2)


def vote() -> Tensor:
    """Some of the eight views' labels, and what their majority says."""
    frames, truth = video_of("land").frames[:], true_labels("land")
    shown = (View(scale=1.2), View(scale=1.0), View(scale=0.9, flip=True))
    by_view = {view: vote_labels(model("mvc"), frames, views=(view,), clip_length=CLIP_LENGTH) for view in shown}
    voted = vote_labels(model("mvc"), frames, views=multiscale_flip(), clip_length=CLIP_LENGTH)
    gained = sum((maps != truth).sum(dim=(1, 2)) for maps in by_view.values()) - 3 * (voted != truth).sum(dim=(1, 2))
    t = int(gained.argmax())
    panels = {
        f"view x {view.scale}{', mirrored' if view.flip else ''}": laid(frames[t], maps[t])
        for view, maps in by_view.items()
    }
    ends = {"majority of eight": laid(frames[t], voted[t]), "ground truth": laid(frames[t], truth[t])}
    return in_rows({"frame": frames[t], **panels, **ends}, columns=3)


def selection() -> Tensor:
    """Two predictions of three frames, and the score by which one is chosen."""
    frames, times = video_of("sea").frames[:], (9, 10, 11)
    candidates = {"plain": predicted("plain", "sea"), "MVC": predicted("mvc", "sea")}
    choice = select_model(frames, candidates, num_classes=K, flow=FarnebackFlow())
    chosen = {name: " (chosen)" if name == choice.name else "" for name in candidates}
    panels = {
        f"{name}, frame {t}: {choice.scores[name]:.4f}{chosen[name]}": laid(frames[t], maps[t])
        for name, maps in candidates.items()
        for t in times
    }
    return in_rows(panels, columns=3)


def question() -> Tensor:
    """The pictures that a question about water shows, in the two views of a region and as the whole frame."""
    frames, said = video_of("lake").frames[:], predicted("plain", "lake")
    plan = plan_questions(frames, said, groups=[WATER], class_names=CLASS_NAMES, views=1)
    first = plan.questions[0]
    images = {
        view: question_images(frames, said, first, groups=[WATER], view=view)[0]
        for view in ("outline", "mark", "frame")
    }
    height, width = frames.shape[2:]
    panels = {f'view "{view}"': torch.from_numpy(resized(image, height, width)) for view, image in images.items()}
    return in_rows(panels, columns=3)


def steadiness() -> Tensor:
    """Two neighbouring frames as a model labels them, and the pixels that change without a movement."""
    frames, said = video_of("river").frames[:], predicted("plain", "river")
    changed, unavoidable = (flicker(frames, maps, flow=FarnebackFlow()) for maps in (said, true_labels("river")))
    t = int((changed.sum(dim=(1, 2)) - unavoidable.sum(dim=(1, 2))).argmax())
    panels = {
        f"labels of frame {t - 1}": laid(frames[t - 1], said[t - 1]),
        f"labels of frame {t}": laid(frames[t], said[t]),
        "flicker": marked(frames[t], changed[t]),
    }
    return in_rows(panels, columns=3)


PICTURES: Mapping[str, Callable[[], Tensor]] = {
    function.__name__: function for function in (masking, labels, flow, vote, selection, question, steadiness)
}


def in_rows(panels: Mapping[str, Tensor], *, columns: int) -> Tensor:
    """One picture ``(3, h, w)`` of pictures of one size, each under its name."""
    return beside({name: panel[None] for name, panel in panels.items()}, columns=columns, scale=2)[0]


def laid(frame: Tensor, maps: Tensor) -> Tensor:
    """Labels over a frame."""
    return overlay(frame, maps, colours=COLOURS, opacity=0.65)


def marked(frame: Tensor, where: Tensor) -> Tensor:
    """A pale frame with some pixels in red."""
    return torch.where(where, RED, frame // 2 + 60)


def resized(image: Tensor, height: int, width: int) -> np.ndarray:
    """An image fitted into ``(3, height, width)``, the rest white."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture.thumbnail((width, height))
    sheet = Image.new("RGB", (width, height), (250, 250, 250))
    sheet.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
    return np.array(sheet).transpose(2, 0, 1)


@cache
def video_of(kind: str) -> VSPWVideo:
    """The first validation video of the toy set that shows a river, a lake, a sea or land."""
    root = write_toy_set(Path(tempfile.mkdtemp()) / "toy", videos={"val": 4})
    return next(video for video in VSPW(root, split="val") if video.name.endswith(kind))


@cache
def true_labels(kind: str) -> Tensor:
    """Class ids of its ground truth."""
    maps = video_of(kind).labels
    assert maps is not None
    return maps[:]


@cache
def predicted(name: str, kind: str) -> Tensor:
    """What a model says of it."""
    return mvcseg.predict_labels(model(name), video_of(kind).frames[:], clip_length=CLIP_LENGTH).to(torch.uint8)


@cache
def model(name: str) -> CompactSegmenter:
    """One of the two models of the package, ``plain`` or ``mvc``."""
    return load_compact(packaged_checkpoint("mvc" if name == "mvc" else "plain"))


def main() -> None:
    """Write the pictures named on the command line, or all."""
    for name in sys.argv[1:] or PICTURES:
        file = Path(__file__).with_name(f"{name}.jpg")
        Image.fromarray(PICTURES[name]().permute(1, 2, 0).numpy()).save(file, quality=QUALITY, optimize=True)
        print(f"{file.name}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
