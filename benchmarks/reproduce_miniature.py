"""Runs every command of docs/reproduce.md in miniature: a few frames of CamVid, tiny models, two steps a run.

    python benchmarks/reproduce_miniature.py --root camvid

The commands are those of the page, letter by letter; what shrinks are the files they read: the run configurations
keep their chain of stages, masks and data sets, while sizes and steps become tiny. A loopback server stands in for the
vision-language models. Writes benchmarks/results/reproduce_miniature.json: every command, how it ended, its seconds.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from mvcseg.models.dvis import BACKBONES, PRESETS, DVISConfig, build_dvis, official_state_dict

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "reproduce.md"
CONFIGS = HERE.parent / "examples" / "reproduce"
RESULTS = HERE / "results" / "reproduce_miniature.json"
FRAMES = {"train": 6, "val": 18, "test": 3}
"""Frames kept of each video; val's are enough for VC16."""
VIDEOS = {"train": 2, "val": 1, "test": 1}
"""Videos kept."""
NAMES = ("road", "pavement")
"""Classes of CamVid that stand in for the report's look-alike water."""
SIZES = {
    "steps": 2,
    "clip_length": 2,
    "batch_size": 1,
    "short_sides": [64],
    "crop_range": None,
    "num_points": 32,
    "drops": [1],
    "precision": "no",
    "num_workers": 0,
}
"""What a miniature configuration overrides."""


def commands_of(page: Path = PAGE) -> list[str]:
    """The bash blocks of the page."""
    return re.findall(r"^```bash\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def lines_of(blocks: list[str]) -> list[str]:
    """The lines that call a program of ours, as they stand on the page."""
    return [line.strip() for block in blocks for line in block.splitlines() if re.search(r"\bmvcseg\b", line)]


def miniature_set(root: Path, target: Path) -> None:
    """The first frames of every video, in the layout of the whole."""
    for split, count in FRAMES.items():
        names = (root / f"{split}.txt").read_text().split()[: VIDEOS[split]]
        (target / f"{split}.txt").parent.mkdir(parents=True, exist_ok=True)
        (target / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            for kind in ("origin", "mask"):
                folder = target / "data" / name / kind
                folder.mkdir(parents=True)
                for file in sorted((root / "data" / name / kind).iterdir())[:count]:
                    (folder / file.name).symlink_to(file.resolve())
    shutil.copy(root / "label_num_dic_final.json", target)


def miniature_model(preset: str) -> dict:
    """A preset's stage with few and small parts."""
    whole = PRESETS[preset]
    is_vit = preset.endswith("vitl")
    backbone: dict = {"kind": "vit_adapter", "width": 32, "depth": 4, "heads": 2, "is_gated": False, "grid": 4}
    return {
        "backbone": backbone | {"stem_width": 8} if is_vit else {"kind": "resnet", "depth": 18},
        "num_queries": 8,
        "has_reid": whole.has_reid,
        "has_tracker": whole.has_tracker,
        "has_refiner": whole.has_refiner,
        "tracker_layers": 1,
        "refiner_layers": 1,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "hidden": 32,
        "short_side": 64,
        "long_side": 128,
    }


def miniature_configs(target: Path) -> None:
    """Every file of examples/reproduce with the same keys, its sizes and steps overridden."""
    from mvcseg.training import PUBLISHED

    target.mkdir()
    for file in sorted(CONFIGS.glob("*.json")):
        values = json.loads(file.read_text())
        if file.name == "water.json":
            values = [{"noun": "flat ground", "classes": list(NAMES)}]
        else:
            preset = values["model"]
            whole = PUBLISHED[preset] | values
            values = {**whole, **{key: value for key, value in SIZES.items() if key in whole or key != "crop_range"}}
            values["model"] = miniature_model(preset)
        (target / file.name).write_text(json.dumps(values))


def weights(target: Path) -> None:
    """Files in the layout of those that the page starts from, with random weights."""
    from dataclasses import replace

    from mvcseg.models.dvis.config import from_json

    target.mkdir()
    torch.manual_seed(0)
    for name, preset in (("mask2former_coco_r50", "vspw_minvis_r50"), ("mask2former_coco_vitl", "vspw_minvis_vitl")):
        fields = {**miniature_model(preset), "num_classes": 133, "class_order": None}
        config: DVISConfig = from_json(json.dumps(fields))
        state = official_state_dict(build_dvis(replace(config, class_order=None)))
        if name.endswith("r50"):
            import pickle

            model = {key: tensor.numpy() for key, tensor in state.items()}
            with (target / f"{name}.pkl").open("wb") as file:
                pickle.dump({"model": model, "__author__": "Mask2Former"}, file)
        else:
            torch.save({"model": state}, target / f"{name}.pth")
    for stage in ("online", "offline"):
        state = official_state_dict(build_dvis(f"vspw_{stage}_r50"))
        torch.save({"model": state}, target / f"dvis_plus_{stage}_r50.pth")
    assert BACKBONES  # the published sizes are those of the page's presets


class _Answer(http.server.BaseHTTPRequestHandler):
    """A server of the chat protocol that always gives the same answer."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": f"It is a {NAMES[0]}."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = json.dumps(
            {"id": "1", "object": "chat.completion", "created": 0, "model": "stand-in", "choices": [choice]}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def run(root: Path, work: Path) -> dict:
    """Every block of the page in one shell after another, in ``work``."""
    miniature_set(root, work / "VSPW_480p")
    miniature_configs(work / "configs")
    weights(work / "weights")
    (work / "masks").mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    log = work / "log.txt"
    environment = {
        **os.environ,
        "PATH": f"{_programs(work)}{os.pathsep}{os.environ['PATH']}",
        "VSPW": str(work / "VSPW_480p"),
        "GPUS": "1",
        "GPT_URL": url,
        "GPT_MODEL": "stand-in",
        "LLAVA_URL": url,
        "LLAVA_MODEL": "stand-in",
        "OPENAI_API_KEY": "none",
        "MINIATURE_LOG": str(log),
    }
    for block in commands_of():
        print(block, flush=True)
        subprocess.run(["bash", "-c", f"set -o pipefail\n{block}"], cwd=work, env=environment, check=False)
    server.shutdown()
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    rows = [{**row, "command": row["command"].replace(str(work) + "/", "").replace(url, "URL")} for row in rows]
    return {"torch": torch.__version__, "lines": lines_of(commands_of()), "commands": rows}


def _programs(work: Path) -> Path:
    """Stand-ins for ``mvcseg`` and ``torchrun`` that run them and write down how they ended."""
    folder = work / "programs"
    folder.mkdir()
    recorder = (
        "import json, os, subprocess, sys, time\n"
        "start = time.time()\n"
        "status = subprocess.run([sys.executable, '-m', MODULE, *sys.argv[1:]]).returncode\n"
        "row = {'command': ' '.join([NAME, *sys.argv[1:]]), 'status': status,"
        " 'seconds': round(time.time() - start, 1)}\n"
        "open(os.environ['MINIATURE_LOG'], 'a').write(json.dumps(row) + '\\n')\n"
        "sys.exit(status)\n"
    )
    for name, module in (("mvcseg", "mvcseg"), ("torchrun", "torch.distributed.run")):
        code = recorder.replace("MODULE", repr(module)).replace("NAME", repr(name))
        file = folder / name
        file.write_text(f"#!{sys.executable}\n{code}")
        file.chmod(0o755)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="CamVid in the VSPW layout")
    parser.add_argument("--keep", type=Path, help="new folder to work in, kept; else a temporary one")
    options = parser.parse_args()
    start = time.time()
    with tempfile.TemporaryDirectory() as name:
        work = options.keep or Path(name)
        work.mkdir(exist_ok=True)
        result = run(options.root.resolve(), work.resolve())
    failed = [row for row in result["commands"] if row["status"]]
    result["seconds"] = round(time.time() - start)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{len(result['commands'])} commands, {len(failed)} failed")
    for row in failed:
        print(f"  {row['status']}  {row['command']}")


if __name__ == "__main__":
    main()
