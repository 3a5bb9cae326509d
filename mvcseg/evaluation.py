"""Predictions on disk against ground truth on disk: mIoU, VC8 and VC16 of a split, what ``mvcseg eval`` prints.

Definitions are those of the VSPW scripts (`mvcseg.metrics`). VC compares the masks' own values, mIoU the
class ids. Label maps are decoded by threads that run one video ahead of the scores.
"""

from __future__ import annotations

import math
import os
import sys
import textwrap
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mvcseg.data.class_list import class_names_of
from mvcseg.data.files import read_json, shown
from mvcseg.data.images import list_images
from mvcseg.data.label_maps import CLASSES_FILE, png_size, read_label_map
from mvcseg.data.vspw import VSPW, VSPWVideo, check_raw_values, class_ids, listing_error
from mvcseg.errors import DataError
from mvcseg.metrics import MeanIoU, VideoConsistency, clip_consistency

VIDEOS_AHEAD = 1
"""Videos decoded before they are scored; a video takes two bytes a pixel."""


@dataclass(frozen=True, eq=False)
class Evaluation(Mapping[str, "float | int | None"]):
    """Scores of a split; as a mapping, the flat object that ``mvcseg eval --json`` prints.

    Attributes:
        miou: mean IoU in ``[0, 1]``; None where no pixel is labelled.
        vc8: VC8 in ``[0, 1]``; None where no video has a clip to score.
        vc16: VC16, likewise.
        frames: number of frames compared.
        videos: number of videos compared.
        predicted_outside: labelled pixels whose prediction is no class; each is a miss of its true class.
        per_class: class name -> IoU, in the order of the class ids; NaN for a class absent from the ground truth.
        pixel_share: class name -> share of the labelled pixels.
        confusion: ``(K, K + 1)`` int64 pixel counts as in `MeanIoU.state`, which `mvcseg.vlm.confusion_groups` takes.
        notes: oddities that change no score, one sentence each.

    Example:
        >>> result = evaluate("predictions", root="VSPW_480p", split="val")  # doctest: +SKIP
        >>> result["mIoU"], dict(result), result.per_class["sky"]  # doctest: +SKIP
    """

    miou: float | None
    vc8: float | None
    vc16: float | None
    frames: int
    videos: int
    predicted_outside: int
    per_class: Mapping[str, float]
    pixel_share: Mapping[str, float]
    confusion: Tensor
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.per_class)

    def _flat(self) -> dict[str, float | int | None]:
        return {
            "mIoU": self.miou,
            "VC8": self.vc8,
            "VC16": self.vc16,
            "videos": self.videos,
            "frames": self.frames,
            "num_classes": self.num_classes,
            "predicted_outside": self.predicted_outside,
        }

    def __getitem__(self, key: str) -> float | int | None:
        return self._flat()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._flat())

    def __len__(self) -> int:
        return len(self._flat())

    def table(self) -> str:
        """The scores as text of at most 80 columns, percentages: the three scores, then each class."""
        width = 52
        lines = [f"{'id':>3}  {'class':<{width}} {'IoU %':>8} {'pixels %':>9}"]
        for index, (name, iou) in enumerate(self.per_class.items()):
            title = shown(name) if len(shown(name)) <= width else shown(name)[: width - 3] + "..."
            share = 100 * self.pixel_share[name]
            lines.append(f"{index:>3}  {title:<{width}} {_percent(iou):>8} {share:>9.2f}")
        lines += [
            "",
            f"mIoU {_percent(self.miou)}   VC8 {_percent(self.vc8)}   VC16 {_percent(self.vc16)}   (%)",
            f"videos {self.videos}, frames {self.frames}, classes {self.num_classes}",
            f"{self.predicted_outside} labelled pixels predicted outside 0..{self.num_classes - 1} (counted as misses)",
            *(textwrap.fill(f"note: {note}", width=80) for note in self.notes),
        ]
        return "\n".join(lines)


def evaluate(
    pred_dir: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str],
    split: str,
    classes: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Evaluation:
    """Score the predictions of a split.

    Args:
        pred_dir: folder with ``<video>/<frame stem>.png``: one-channel PNGs of class ids ``0..K-1``. Videos of
            other splits and hidden files may lie there too.
        root: data set in the VSPW layout; masks hold raw values (0 void, 1..K, 255 void).
        split: name of the list of videos, ``"val"`` for ``val.txt``.
        classes: file with the class names (see `mvcseg.data.class_list.read_class_list`); None takes
            ``root/label_num_dic_final.json``, and VSPW's 124 classes where there is no such file.
        progress: show a bar on standard error when scoring takes over two seconds.

    Returns:
        The scores.

    Raises:
        ConfigError: ``split`` is not a plain name.
        DataError: frames are missing, left over or of the wrong size (one error lists them all), a video has
            no masks, a file is broken, a mask holds a value outside the convention, the class list is broken,
            or ``pred_dir`` holds raw ids.
    """
    folder = Path(pred_dir)
    data = VSPW(root, split=split, class_names=class_names_of(root, classes=classes))
    notes = _check_classes_file(folder, num_classes=data.num_classes)
    pairs = _matched_frames(folder, data)
    miou, vc8, vc16 = MeanIoU(data.num_classes), VideoConsistency(8), VideoConsistency(16)
    frames = sum(len(of_video) for of_video in pairs)
    for pred, raw_labels in _shown_progress(_decoded(pairs, data.num_classes), frames=frames, is_shown=progress):
        miou.update(pred, class_ids(raw_labels))
        for metric, scores in zip((vc8, vc16), clip_consistency(pred, raw_labels, clip_lengths=(8, 16)), strict=True):
            metric.add_clips(scores)
    labelled = miou.state.sum(dim=1).to(torch.float64)
    shares = labelled / labelled.sum().clamp(min=1)
    return Evaluation(
        miou=_number(miou.compute()),
        vc8=_number(vc8.compute()),
        vc16=_number(vc16.compute()),
        frames=frames,
        videos=len(pairs),
        predicted_outside=miou.predicted_outside,
        per_class=dict(zip(data.class_names, miou.per_class().tolist(), strict=True)),
        pixel_share=dict(zip(data.class_names, shares.tolist(), strict=True)),
        confusion=miou.state,
        notes=notes,
    )


FramePair = tuple[Path, Path]
"""A prediction's file and its mask's."""


def _matched_frames(folder: Path, data: VSPW) -> list[list[FramePair]]:
    """For each video the files to compare; whatever does not match is one error."""
    if not folder.is_dir():
        raise DataError(f"{shown(folder)}: expected a folder of predictions, got none")
    unlabelled = [video.name for video in data if not video.mask_paths]
    if unlabelled:
        raise listing_error(
            f"{shown(data.root)}: {len(unlabelled)} of {len(data)} videos of {data.split}.txt have no masks",
            unlabelled,
        )
    faults = {"missing": list[str](), "extra": list[str](), "size": list[str](), "broken": list[str]()}
    pairs = [_pairs_of_video(folder / video.name, video, faults) for video in data]
    faults["extra"] += _unknown_frames(folder, data)
    with ThreadPoolExecutor(max_workers=_workers()) as pool:
        for of_video in pool.map(_size_faults, pairs):
            for kind, fault in of_video:
                faults[kind].append(fault)
    if any(faults.values()):
        total = sum(len(video.mask_paths) for video in data)
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in faults.items() if names)
        raise listing_error(
            f"{shown(folder)}: predictions do not match the {total} masks of {data.split}.txt: {counts}",
            [f"{kind} {name}" for kind, names in faults.items() for name in names],
        )
    return pairs


def _pairs_of_video(folder: Path, video: VSPWVideo, faults: Mapping[str, list[str]]) -> list[FramePair]:
    found = {path.stem: path for path in list_images(folder, suffixes=(".png",))} if folder.is_dir() else {}
    masks = {path.stem: path for path in video.mask_paths}
    faults["missing"].extend(f"{video.name}/{stem}.png" for stem in masks if stem not in found)
    faults["extra"].extend(f"{video.name}/{path.name}" for stem, path in found.items() if stem not in masks)
    return [(found[stem], mask) for stem, mask in masks.items() if stem in found]


def _unknown_frames(folder: Path, data: VSPW) -> list[str]:
    """Label maps of videos that the data set does not have; those of its other splits are left alone."""
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{shown(folder)}: cannot be read: {error.strerror or error}") from error
    unknown = [name for name in names if not (data.root / "data" / name).is_dir()]
    return [f"{name}/{path.name}" for name in unknown for path in list_images(folder / name, suffixes=(".png",))]


def _size_faults(pairs: Sequence[FramePair]) -> list[tuple[str, str]]:
    """Kind and description of what is wrong with the files of a video, by their headers."""
    faults = []
    first: tuple[int, int] | None = None
    for pred_path, mask_path in pairs:
        try:
            mask, pred = png_size(mask_path), png_size(pred_path)
        except DataError as error:
            faults.append(("broken", str(error)))
            continue
        first = first or mask
        if mask != first:
            faults.append(("size", f"{shown(mask_path)}: {mask[0]} x {mask[1]} in a video of {first[0]} x {first[1]}"))
        if pred != mask:
            name = f"{pred_path.parent.name}/{pred_path.name}"
            faults.append(("size", f"{name}: expected {mask[0]} x {mask[1]}, got {pred[0]} x {pred[1]}"))
    return faults


def _check_classes_file(folder: Path, *, num_classes: int) -> tuple[str, ...]:
    """Notes on the class list beside the predictions, which is not used.

    Raises:
        DataError: it says that the label maps hold raw ids.
    """
    path = folder / CLASSES_FILE
    if not path.is_file():
        return ()
    try:
        ids = sorted(int(entry["id"]) for entry in read_json(path)["classes"])
    except (DataError, KeyError, TypeError, ValueError):
        return (f"{shown(path)} is no class list; it is not used",)
    if ids == list(range(1, len(ids) + 1)):
        raise DataError(
            f"{shown(path)}: the label maps beside it hold raw ids (1 to {len(ids)}), expected class ids from 0; "
            "predict without --raw-ids"
        )
    if len(ids) != num_classes:
        return (f"{shown(path)} lists {len(ids)} classes, the ground truth has {num_classes}",)
    return ()


def _decoded(pairs: Sequence[Sequence[FramePair]], num_classes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Prediction and raw labels ``(T, H, W)`` uint8 of each video, read ahead by threads."""
    decode = partial(_decode, num_classes=num_classes)
    ahead: deque[list[Future[tuple[Tensor, Tensor]]]] = deque()
    pool = ThreadPoolExecutor(max_workers=_workers())
    try:
        for of_video in pairs:
            ahead.append([pool.submit(decode, pair) for pair in of_video])
            if len(ahead) > VIDEOS_AHEAD:
                yield _gathered(ahead.popleft())
        while ahead:
            yield _gathered(ahead.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _gathered(frames: Iterable[Future[tuple[Tensor, Tensor]]]) -> tuple[Tensor, Tensor]:
    pred, raw_labels = zip(*(frame.result() for frame in frames), strict=True)
    return torch.stack(pred), torch.stack(raw_labels)


def _decode(pair: FramePair, *, num_classes: int) -> tuple[Tensor, Tensor]:
    pred_path, mask_path = pair
    raw_labels = read_label_map(mask_path)
    check_raw_values(raw_labels, num_classes=num_classes, path=mask_path)
    return read_label_map(pred_path), raw_labels


def _shown_progress(
    videos: Iterable[tuple[Tensor, Tensor]], *, frames: int, is_shown: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    from tqdm import tqdm

    with tqdm(total=frames, desc="eval", unit="frame", delay=2, file=sys.stderr, disable=not is_shown) as bar:
        for pred, raw_labels in videos:
            yield pred, raw_labels
            bar.update(len(pred))


def _workers() -> int:
    return min(os.cpu_count() or 1, 16)


def _number(score: float) -> float | None:
    return None if math.isnan(score) else score


def _percent(score: float | None) -> str:
    return "-" if score is None or math.isnan(score) else f"{100 * score:.2f}"
