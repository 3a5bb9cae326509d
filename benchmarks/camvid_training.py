"""Two short training runs on CamVid from the command line, plain and with MVC, and their scores."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from camvid_scores import Clip, load, mean_iou, percent

from mvcseg.data import LabelFolder

HERE = Path(__file__).resolve().parent
RUNS = ("plain", "mvc")
SPLITS = ("val", "test")
LAST_STEPS = 50


def measure(root: Path, *, folder: Path | None = None) -> dict:
    """Train, predict and score by the commands of docs/camvid.md.

    Args:
        root: CamVid in the VSPW layout.
        folder: keeps runs and label maps, so that a stopped measurement goes on; None for a temporary one.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="camvid-") as name:
            return measure(root, folder=Path(name))
    rows = []
    for run in RUNS:
        config = HERE / f"camvid_{run}.json"
        _mvcseg("train", "--vspw", root, "--config", config, "--out", folder / run, "--resume")
        log = [json.loads(line) for line in (folder / run / "log.jsonl").read_text().splitlines()]
        steps = [row for row in log if "loss_clean" in row]
        row = {
            "run": run,
            "steps": len(steps),
            "loss_clean": sum(row["loss_clean"] for row in steps[-LAST_STEPS:]) / len(steps[-LAST_STEPS:]),
        }
        for split in SPLITS:
            masks = folder / f"masks-{run}-{split}"
            model = folder / run / "model.safetensors"
            _mvcseg("predict", "--vspw", root, "--split", split, "--checkpoint", model, "--out", masks)
            scores = json.loads(_mvcseg("eval", masks, "--vspw", root, "--split", split, "--json"))
            row[split] = {name: percent(scores[name]) for name in ("mIoU", "VC8", "VC16")}
        rows.append(row)
    choices = [_choose(clip, folder, root) for clip in load(root, split="val")]
    return {"rows": rows, "choices": choices, "config": json.loads((HERE / "camvid_mvc.json").read_text())}


def _choose(clip: Clip, folder: Path, root: Path) -> dict:
    """The choice between the two models for a video by flow and SSIM, beside their mIoU on it."""
    masks = {run: folder / f"masks-{run}-val" for run in RUNS}
    video = root / "data" / clip.name
    choice = json.loads(_mvcseg("select", video, *masks.values(), "--out", folder / "chosen", "--json"))
    labels = {run: LabelFolder(path / clip.name)[:] for run, path in masks.items()}
    return {
        "video": clip.name,
        "scores": {run: choice["scores"][str(path)] for run, path in masks.items()},
        "mIoU": {run: mean_iou([(clip, labels[run])]) for run in RUNS},
    }


def _mvcseg(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "mvcseg", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
