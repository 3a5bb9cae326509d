"""The report's claims measured with error bars on CamVid: every figure of docs/results.md.

    python benchmarks/ablation.py --out DIR              # all runs, from scratch; a stopped study goes on
    python benchmarks/ablation.py --redraw               # the page's tables and its figure from the stored results
    python benchmarks/ablation.py --out DIR --size large # at full size, for a CUDA device

The data lies in ``$MVCSEG_SHARED_DATA`` (``camvid/`` and ``weights/``), else in ``shared/data`` beside the repository.
Every finished job is a line of ``DIR/jobs.jsonl`` at once, and jobs already there are not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ablation_data
import ablation_dvis
import ablation_figure
import ablation_scores
import ablation_tables
import torch
from ablation_nets import new_model
from ablation_plan import LONG, MODELS, PARTS, SIZES, Job, Size, jobs
from ablation_training import train
from camvid_scores import Clip, StoredFlow
from camvid_segmenters import data_root
from torch import nn

import mvcseg
from mvcseg.flow import FarnebackFlow

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "ablation.json"
PAGE = HERE.parent / "docs" / "results.md"
FIGURE = HERE.parent / "docs" / "results.png"
HIDDEN_CELLS = (16,)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the jobs' results and of the trained models")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--models", default=",".join(MODELS), help="models to run, of those joined by commas")
    parser.add_argument("--parts", default=",".join(PARTS), help="parts to run, likewise")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no job after this time")
    parser.add_argument("--redraw", action="store_true", help="renew page and figure from the stored results")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args(arguments)
    models, parts = options.models.split(","), options.parts.split(",")
    for name, asked, known in (("models", models, MODELS), ("parts", parts, PARTS)):
        if unknown := set(asked) - set(known):
            parser.error(f"--{name}: expected some of {','.join(known)}, got {','.join(sorted(unknown))}")
    if options.out is None and not options.redraw:
        parser.error("--out: missing; name a folder, or give --redraw")
    if options.out is not None:
        study(options.out, size=options.size, models=models, parts=parts, seconds=60 * options.minutes)
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(gathered(options.out), indent=1) + "\n")
    results = json.loads(options.results.read_text())
    options.page.write_text(ablation_tables.renewed(options.page.read_text(), results))
    ablation_figure.draw(results, options.figure)
    return 0


def study(
    out: Path,
    *,
    size: str,
    models: Sequence[str] = MODELS,
    parts: Sequence[str] = PARTS,
    seconds: float = float("inf"),
) -> None:
    """Do every job whose result is not in ``out`` yet."""
    start = time.perf_counter()
    torch.set_num_threads(1)  # sums, and so all figures, depend on it
    torch.set_flush_denormal(True)  # subnormal activations cost a CPU many times the arithmetic
    out.mkdir(parents=True, exist_ok=True)
    (out / "models").mkdir(exist_ok=True)
    about = {"size": size, **SIZES[size].to_dict(), "environment": environment()}
    (out / "about.json").write_text(json.dumps(about, indent=1) + "\n")
    setting = Setting.load(SIZES[size])
    done = {row["name"] for row in _rows(out)}
    for job in jobs(SIZES[size], models=models, parts=parts):
        if job.name in done:
            continue
        if time.perf_counter() - start > seconds:
            break
        wall, cpu = time.perf_counter(), time.process_time()
        found = chain(job, setting, out) if job.method == "chain" else run(job, setting, out)
        row = {"name": job.name, **asdict(job), **found}
        row |= {"seconds": round(time.perf_counter() - wall, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
        with (out / "jobs.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{job.name}: {row['seconds']} s, {found['scores']}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Setting:
    """The videos of a study and where it computes."""

    size: Size
    train: list[Clip]
    val: list[Clip]
    hidden: dict[int, list[Clip]]
    flow: StoredFlow
    device: torch.device

    @classmethod
    def load(cls, size: Size) -> Setting:
        """Read everything into memory."""
        root = data_root() / "camvid"
        videos = {split: ablation_data.videos_of(root, split=split, shrink=size.shrink) for split in ("train", "val")}
        val = [clip[: size.frames] for clip in videos["val"]]
        hidden = {cells: ablation_data.hidden(val, patch_size=cells) for cells in HIDDEN_CELLS}
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(size, videos["train"], val, hidden, StoredFlow(FarnebackFlow()), device)


def run(job: Job, setting: Setting, out: Path) -> dict[str, Any]:
    """Train a model, keep it and score it."""
    recipe = setting.size.recipes[job.model]
    steps = recipe.steps * (2 if job.method == "plain-twice" else 1)
    start = time.process_time()
    if job.model.removesuffix(LONG) == "dvis":
        model, facts = ablation_dvis.train(
            job, recipe, setting.train, crop_size=setting.size.crop_size, device=setting.device
        )
    else:
        model = new_model(job.model, seed=job.seed).to(setting.device)
        clips = ablation_data.training_clips(
            setting.train,
            clip_length=recipe.clip_length,
            crop_size=setting.size.crop_size,
            seed=job.seed,
            num_samples=steps * recipe.batch_size,
        )
        loss = train(model, clips, steps=steps, recipe=recipe, mask=job.mask, seed=job.seed)
        facts = {"steps": steps, "loss": round(loss, 4)}
    facts["training_cpu_seconds"] = round(time.process_time() - start, 1)
    torch.save(model.state_dict(), _model_file(out, job))
    hidden = {str(cells): ablation_scores.scores_of(model, covered) for cells, covered in setting.hidden.items()}
    return facts | {"scores": ablation_scores.scores_of(model, setting.val), "hidden": hidden}


def chain(job: Job, setting: Setting, out: Path) -> dict[str, Any]:
    """Vote of, and choice between, the plain and the MVC model of a seed."""
    models = {}
    for run_job in jobs(setting.size, models=[job.model], parts=["main"]):
        if run_job.seed == job.seed and run_job.method in ("plain", "mvc") and run_job.method not in models:
            models[run_job.method] = _stored(run_job, setting, out)
    return ablation_scores.scores_of_chain(models["plain"], models["mvc"], setting.val, flow=setting.flow)


def _stored(job: Job, setting: Setting, out: Path) -> nn.Module:
    model = ablation_dvis.new_model(seed=job.seed) if job.model == "dvis" else new_model(job.model, seed=job.seed)
    model.load_state_dict(torch.load(_model_file(out, job), weights_only=True))
    return model.to(setting.device).eval()


def _model_file(out: Path, job: Job) -> Path:
    return out / "models" / f"{job.name.replace('/', '_')}.pt"


def gathered(out: Path) -> dict[str, Any]:
    """What a study's folder holds, as one record."""
    return {**json.loads((out / "about.json").read_text()), "jobs": _rows(out)}


def _rows(out: Path) -> list[dict[str, Any]]:
    file = out / "jobs.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def environment() -> dict[str, Any]:
    """What the figures hang on besides code and data."""
    return {
        "mvcseg": mvcseg.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
