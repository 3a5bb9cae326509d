"""What ``mvcseg vlm-compare`` does with its arguments."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from mvcseg import data, vlm
from mvcseg.data.files import shown, write_json
from mvcseg.data.label_maps import LabelFolder
from mvcseg.errors import VLMUnavailableError
from mvcseg.flow import FarnebackFlow
from mvcseg.label_folders import made_folder, names_of_classes, predicted_labels
from mvcseg.loading import choose_device
from mvcseg.progress import frame_progress, watched_frames
from mvcseg.segmenter import Video
from mvcseg.vlm.backend_file import Backends, read_backends
from mvcseg.vlm.changes import add_changes
from mvcseg.vlm.compare_table import comparison_table, comparison_value
from mvcseg.vlm.model_name import COMPARISON_FILE
from mvcseg.vlm_options import ANSWERS_FOLDER, groups_of, prompt_of

CHANGES_FILE = "changes.json"
"""Log of one model, in the folder of its name."""


def vlm_compare(options: argparse.Namespace) -> None:
    """``mvcseg vlm-compare``."""
    backends = Backends(read_backends(options.models), device=choose_device(options.device))
    video = data.open_video(options.video)
    labels = predicted_labels(options.prediction, video)
    class_names = names_of_classes([options.prediction], classes=options.classes)
    groups = groups_of(options, class_names)
    truth = None if options.labels is None else _truth(options.labels, video, num_classes=len(class_names))
    out = None if options.out is None else made_folder(options.out)
    with watched_frames(video) as watched, frame_progress(unit="questions") as progress:
        comparison = vlm.compare_vlms(
            watched,
            labels,
            vlms=backends,
            groups=groups,
            class_names=class_names,
            truth=truth,
            prices=backends.prices,
            cache=None if out is None else out / ANSWERS_FOLDER,
            flow=FarnebackFlow() if options.flow == "farneback" else None,
            min_area=options.min_area,
            max_area=options.max_area,
            views=options.views,
            agreement=options.agreement,
            view=options.view,
            prompt=prompt_of(options.prompt, view=options.view),
            max_questions=options.max_questions,
            concurrency=options.concurrency,
            progress=progress,
        )
    value = comparison_value(comparison, class_names=class_names, prices=backends.prices)
    # Before any file: what was paid for is seen, whatever becomes of them.
    print(json.dumps(value) if options.json else comparison_table(comparison), flush=True)
    if out is not None:
        for model in comparison.models:
            add_changes(out / model.name / CHANGES_FILE, model.changes, video=video.name)
        write_json(out / COMPARISON_FILE, value)
    if all(model.is_unavailable for model in comparison.models):
        raise VLMUnavailableError(f"{shown(options.models)}: none of the models could be asked")


def _truth(labels: str, video: Any, *, num_classes: int) -> Video:
    from mvcseg.reporting.folders import MappedLabels, folder_of, to_class_ids

    raw = LabelFolder(folder_of(Path(labels), video=video.name), frame_names=video.frame_names)
    return MappedLabels(raw, partial(to_class_ids, num_classes=num_classes, folder=raw.folder))
