"""The tables of docs/camvid.md, from the figures that camvid_study.py measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

PUBLISHED = {
    ("val", "espnet"): (71.47, 96.29, 95.72),
    ("val", "enet"): (68.74, 93.27, 91.00),
    ("val", "average"): (72.39, 97.02, 96.90),
    ("test", "espnet"): (58.87, 84.84, 81.47),
    ("test", "enet"): (54.04, 83.73, 81.51),
    ("test", "average"): (59.68, 86.82, 84.14),
}
"""mIoU, VC8 and VC16 of the original code with these weights on these frames, from the description of the weights."""
NAMES = {"espnet": "ESPNet", "enet": "ENet", "average": "mean of both"}
CHAIN = {"espnet": "ESPNet", "enet": "ENet", "average": "both, mean of probabilities"}
FULL = "0.9 1.0 1.1 1.2 flip"

Results = Mapping[str, Any]


def renewed(page: str, results: Results) -> str:
    """The page with every table between its markers (``<!-- table: nets -->`` to ``<!-- end -->``) made anew."""

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        part = TABLES[name][0]
        if part not in results:
            return match[0]
        return f"<!-- table: {name} -->\n{TABLES[name][1](results[part])}\n<!-- end -->"

    return re.sub(r"<!-- table: (?P<name>[\w-]+) -->\n.*?<!-- end -->", table, page, flags=re.DOTALL)


def _nets(chain: Results) -> str:
    rows = []
    for (split, net), published in PUBLISHED.items():
        found = next(row for row in chain["rows"] if (row["split"], row["step"]) == (split, CHAIN[net]))
        figures = [f"{found[key]:.2f} ({value:.2f})" for key, value in zip(_SCORES, published, strict=True)]
        rows.append([split, NAMES[net], *figures])
    return _table(["split", "net", *_SCORES], rows)


_SCORES = ("mIoU", "VC8", "VC16")


def _tta(tta: Results, *, split: str) -> str:
    rows = []
    for net in ("espnet", "enet"):
        mine = {(row["setting"], row["rule"]): row for row in tta["rows"] if (row["split"], row["net"]) == (split, net)}
        plain = mine["1.0", "literal"]
        rows.append([NAMES[net], "1.0", f"{plain['mIoU']:.2f}", "", "", f"{plain['VC8']:.2f}", ""])
        for setting in dict.fromkeys(setting for setting, _ in mine if setting != "1.0"):
            literal, among, mean = (mine[setting, rule] for rule in ("literal", "among-tied", "mean"))
            rows.append(
                [
                    NAMES[net],
                    setting.replace(" flip", ", flip"),
                    _with_spread(literal, plain),
                    f"{among['mIoU']:.2f}",
                    _with_spread(mean, plain),
                    f"{literal['VC8']:.2f}",
                    f"{mean['VC8']:.2f}",
                ]
            )
    head = ["net", "scales", "vote: mIoU", "among-tied", "mean: mIoU", "vote: VC8", "mean: VC8"]
    return _table(head, rows)


def _with_spread(row: Results, plain: Results) -> str:
    low, high = row["difference"]
    return f"{row['mIoU']:.2f} ({row['mIoU'] - plain['mIoU']:+.2f}, {low:+.1f} to {high:+.1f})"


def _decisions(selection: Results) -> str:
    rows = []
    for row in selection["decisions"]:
        scores = [f"{row['scores'][net]:.5f}" for net in ("espnet", "enet")]
        true = [f"{row['mIoU'][net]:.2f}" for net in ("espnet", "enet")]
        rows.append([row["video"], str(row["frames"]), *scores, NAMES[row["chosen"]], *true, NAMES[row["better"]]])
    head = ["video", "frames", "score ESPNet", "score ENet", "chosen", "mIoU ESPNet", "mIoU ENet", "better"]
    return _table(head, rows)


def _choices(selection: Results) -> str:
    rows = []
    for stage, part in (("plain", selection), ("after the vote", selection["after_vote"])):
        for row in part["summaries"]:
            first, second = list(row["mIoU"])[:2]
            length = str(row["frames"] or "all")
            figures = [f"{row['mIoU'][key]:.2f}" for key in (first, second, "chosen", "best", "average")]
            right = f"{row['right']} of {row['clips']}"
            more = [str(row["first_is_better"]), str(row["first_is_chosen"])]
            rows.append([row["split"], stage, length, right, *more, *figures])
    head = [
        "split",
        "labels",
        "frames",
        "right",
        "ESPNet better",
        "ESPNet chosen",
        "ESPNet",
        "ENet",
        "chosen",
        "best choice",
        "mean of both",
    ]
    return _table(head, rows)


def _reward(selection: Results) -> str:
    names = {
        "truth": "ground truth",
        "espnet": "ESPNet",
        "enet": "ENet",
        "average": "mean of both",
        f"espnet {FULL} literal": "ESPNet, vote",
        f"enet {FULL} literal": "ENet, vote",
        f"espnet {FULL} mean": "ESPNet, mean over views",
        "frozen": "ESPNet's first frame, repeated",
        "road": "road everywhere",
    }
    videos = ("0016E5_07959", "0016E5_08035", "0001TP_008550")
    rows = []
    for row in sorted(selection["reward"], key=lambda row: -row[videos[0]]["farneback"]):
        cells = [names[row["candidate"]]]
        for video in videos:
            found = row[video]
            cells += [f"{found['farneback']:.4f}", f"{found['raft']:.4f}", f"{found['mIoU']:.1f}"]
        rows.append(cells)
    head = ["labels"] + [f"{video[-5:]} {what}" for video in videos for what in ("Farneback", "RAFT", "mIoU")]
    return _table(head, rows)


def _rate(selection: Results) -> str:
    rows = []
    for row in selection["rate"]:
        rate = 15 / row["step"] if row["split"] == "val" else 1.0
        rows.append(
            [
                row["split"],
                f"{rate:.3g}",
                str(row["pairs"]),
                f"{row['motion']:.1f}",
                f"{row['colour']:.1f} -> {row['colour_warped']:.1f}",
                f"{row['same']:.1f} -> {row['same_warped']:.1f}",
                *(f"{row[name]:.4f}" for name in ("truth", "espnet", "enet")),
            ]
        )
    head = [
        "split",
        "frames a second",
        "pairs",
        "motion",
        "colour difference",
        "equal true labels",
        "score truth",
        "score ESPNet",
        "score ENet",
    ]
    return _table(head, rows)


def _chain(chain: Results, *, split: str) -> str:
    mine = [row for row in chain["rows"] if row["split"] == split]
    keys = [key for key in (*_SCORES, "TC farneback", "TC raft") if key in mine[0]]
    rows = [[row["step"], *(f"{row[key]:.2f}" for key in keys)] for row in mine]
    return _table(["labels", *(key.replace("TC f", "TC, F").replace("TC raft", "TC, RAFT") for key in keys)], rows)


def _training(training: Results) -> str:
    rows = []
    for row in training["rows"]:
        scores = [f"{row[split][key]:.2f}" for split in ("val", "test") for key in _SCORES]
        name = {"plain": "plain", "mvc": "MVC"}[row["run"]]
        rows.append([name, str(row["steps"]), f"{row['loss_clean']:.3f}", *scores])
    head = [
        "run",
        "steps",
        "clean loss",
        *(f"{split} {key}" for split in ("val", "test") for key in _SCORES),
    ]
    return _table(head, rows)


def _training_choices(training: Results) -> str:
    rows = []
    for row in training["choices"]:
        scores = [f"{row['scores'][run]:.4f}" for run in ("plain", "mvc")]
        true = [f"{row['mIoU'][run]:.2f}" for run in ("plain", "mvc")]
        rows.append([row["video"], *scores, *true])
    return _table(["video", "score plain", "score MVC", "mIoU plain", "mIoU MVC"], rows)


TABLES: dict[str, tuple[str, Callable[[Results], str]]] = {
    "nets": ("chain", _nets),
    "tta-val": ("tta", lambda part: _tta(part, split="val")),
    "tta-test": ("tta", lambda part: _tta(part, split="test")),
    "decisions": ("selection", _decisions),
    "choices": ("selection", _choices),
    "reward": ("selection", _reward),
    "rate": ("selection", _rate),
    "chain-val": ("chain", lambda part: _chain(part, split="val")),
    "chain-test": ("chain", lambda part: _chain(part, split="test")),
    "training": ("training", _training),
    "training-choices": ("training", _training_choices),
}
"""Each table's part of the results, and what makes it."""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
