"""`mvcseg vlm-compare` on a CamVid clip: a server, two models in folders, recorded answers, and a server that is gone.

The answerers know nothing, they are stand-ins, and what is shown is the tool: a chat
server on loopback that is told the truth and says it with a given probability, a LLaVA and a CLIP with random weights
(a few kilobytes, read the way real ones are), and the log of an earlier run. The label maps are real: the published
ENet's, with the groups that its own confusions on the test clip propose.

    python benchmarks/vlm_compare_camvid.py --out compared
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent / "tests"):  # camvid_segmenters, tiny_vlms
    sys.path.insert(0, str(folder))

from camvid_segmenters import CLASS_NAMES, data_root  # noqa: E402
from tiny_vlms import save_clip, save_llava  # noqa: E402

from mvcseg.data import LabelFolder, open_video  # noqa: E402
from mvcseg.data.vspw import class_ids  # noqa: E402
from mvcseg.vlm import OUTLINE_PROMPT, plan_questions, read_groups  # noqa: E402
from mvcseg.vlm.groups import asked_by  # noqa: E402
from mvcseg.vlm.tube_truth import tube_truths  # noqa: E402

CLIP = "0016E5_07959"
MODELS = """\
- name: stand-in-85
  vlm: {url}/85/v1
  model: stand-in
  price: {{input: 2.5, output: 10}}
- name: stand-in-60
  vlm: {url}/60/v1
  model: stand-in
  price: {{input: 0.15, output: 0.6}}
- name: tiny-llava
  local: tiny-llava
- name: tiny-clip
  zero_shot: tiny-clip
- name: recorded
  answers: recorded.json
- name: switched-off
  vlm: http://127.0.0.1:9/v1
  model: nobody
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for predictions, models, logs")
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    root = data_root() / "camvid"
    for split in ("test", "val"):
        if not (out / split / "classes.json").is_file():
            run("predict", "--vspw", root, "--split", split, "--segmenter", f"{HERE / 'camvid_segmenters.py'}:enet",
                "--clip-length", 1, "--out", out / split)  # fmt: skip
    if not (out / "groups.yaml").exists():
        run("eval", out / "test", "--vspw", root, "--split", "test", "--propose-groups", out / "groups.yaml")
    said = answers_of(root / "data" / CLIP, out)
    for accuracy, shift in ((75, 3), (85, 1), (60, 2)):
        random_answers = simulated(said, accuracy=accuracy / 100, seed=shift)
        (out / f"answers-{accuracy}.json").write_text(json.dumps(random_answers))
    (out / "recorded.json").write_text((out / "answers-75.json").read_text())
    save_llava(out / "tiny-llava")
    save_clip(out / "tiny-clip")
    with ThreadingHTTPServer(("127.0.0.1", 0), answering(out)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (out / "models.yaml").write_text(MODELS.format(url=f"http://127.0.0.1:{server.server_address[1]}"))
        for _ in range(2):  # the second time, what was asked is kept
            run("vlm-compare", root / "data" / CLIP, out / "val", "--models", out / "models.yaml", "--groups",
                out / "groups.yaml", "--labels", root / "data" / CLIP, "--out", out / "compared")  # fmt: skip
        server.shutdown()


def run(*words: object) -> None:
    """One `mvcseg` command, shown and run."""
    print("$ mvcseg", *words, flush=True)
    subprocess.run([sys.executable, "-m", "mvcseg", *map(str, words)], check=True)
    print()


def answers_of(clip: Path, out: Path) -> list[tuple[str, list[str]]]:
    """For every question of the clip, in the order they are asked: the true class, or any, and all choices."""
    video = open_video(clip)
    labels = LabelFolder(out / "val" / CLIP, frame_names=video.frame_names)[:]
    truth = class_ids(LabelFolder(clip, frame_names=video.frame_names)[:])
    groups = read_groups(out / "groups.yaml", class_names=CLASS_NAMES)
    plan = plan_questions(video, labels, groups=groups, class_names=CLASS_NAMES, views=1, prompt=OUTLINE_PROMPT)
    tubes = [question.tube for question in plan.questions]
    truths = tube_truths(labels, truth, tubes, classes=asked_by(groups), num_classes=len(CLASS_NAMES))
    said = []
    for question, found in zip(plan.questions, truths, strict=True):
        choices = list(question.choices.values())
        true = found.class_of(question.choices)
        said.append((choices[0] if true is None else question.choices[true], choices))
    return said


def simulated(said: list[tuple[str, list[str]]], *, accuracy: float, seed: int) -> list[str]:
    """An answer to each question: the right one with this probability, else another of the choices."""
    draw = random.Random(seed)
    return [
        f"It is a {true if draw.random() < accuracy else draw.choice([name for name in choices if name != true])}."
        for true, choices in said
    ]


def answering(out: Path) -> type[BaseHTTPRequestHandler]:
    """A chat server whose paths /85 and /60 give those answers in order, in plain words whatever is asked for."""
    asked: dict[str, int] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            kind = self.path.split("/")[1]
            answers = json.loads((out / f"answers-{kind}.json").read_text())
            text = answers[asked.setdefault(kind, 0)]
            asked[kind] += 1
            message = {"role": "assistant", "content": text}
            answer = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 790, "completion_tokens": 6, "total_tokens": 796},
            }
            raw = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


if __name__ == "__main__":
    main()
