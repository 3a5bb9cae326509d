r"""Where the time of three kernels goes, before and after: the plain way and ours, operator by operator.

The plain way is that of the peers (``peers_attention.py``, ``peers_segmenter.py``, ``peers_ssim.py``), the kernels are
those with the largest gains. Milliseconds are medians of turns (plain, ours, plain, ours) without a profiler; shares
come from calls under one: PyTorch's for tensors, by operator (what Python takes between them is not seen), Python's for
NumPy, by function, where arithmetic by signs counts for the function that it stands in. About a minute on two cores::

    python benchmarks/kernel_profiles.py --out benchmarks/results/kernel_profiles.json
    python benchmarks/kernel_profiles.py --table benchmarks/results/kernel_profiles.json
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import re
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import cv2
import torch
from environment import cores, environment, load_average
from peers_attention import PIXEL_DECODER, arguments, by_grid_sample
from peers_attention import Shapes as MapShapes
from peers_inputs import VIDEO, Size, smooth_masks
from peers_scores import CLASSES
from peers_segmenter import PADDING, QUERIES, upstream_labels
from peers_ssim import one_hot, scikit_image, two_maps
from torch.profiler import ProfilerActivity, profile
from turns import significant, take_turns

from mvcseg.models.dvis.semantic import class_table, semantic_labels
from mvcseg.ops.deform_attn import deformable_attention
from mvcseg.ops.ssim import label_ssim

Record = dict[str, Any]
LARGEST = 6
"""Operators named of each side; the others are added up."""
REST = "all others"


@dataclass(frozen=True)
class Pair:
    """A piece of work done the plain way and ours; ``looked_at`` says by which profiler."""

    work: str
    plain: str
    before: Callable[[], Any]
    after: Callable[[], Any]
    looked_at: Callable[..., Record]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--threads", type=int, default=cores(), help="of PyTorch and OpenCV (default the cores)")
    parser.add_argument("--table", type=Path, help="print the tables of a JSON file instead of running")
    options = parser.parse_args(arguments)
    if options.table is not None:
        print(tables(json.loads(options.table.read_text())))
        return 0
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    report = run(turns=options.turns)
    print(tables(report))
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


@torch.no_grad()
def run(*, turns: int, size: Size = VIDEO, maps: MapShapes = PIXEL_DECODER["480p"], heads: int = 8) -> Record:
    """Every pair timed in turn, then both sides under a profiler."""
    stamp = environment()
    profiles = []
    for pair in pairs(size, maps, heads):
        times = take_turns(pair.after, pair.before, turns=turns, at_most=12.0).record()
        sides = {
            name: {"ms": times[column], **pair.looked_at(call, calls=min(turns, 5))}
            for name, column, call in (("before", "peer_ms", pair.before), ("after", "ours_ms", pair.after))
        }
        profiles.append({"work": pair.work, "plain": pair.plain, "ratio": times["ratio"], **sides})
    return {"environment": stamp | {"load_average_after": load_average(), "turns": turns}, "profiles": profiles}


def pairs(size: Size, maps: MapShapes, heads: int) -> Iterator[Pair]:
    value, places, weights = arguments(maps, heads=heads, depth=32, device="cpu")
    yield Pair(
        f"deformable attention, {value.shape[1]} tokens",
        "the grid_sample formula",
        lambda: by_grid_sample(value, places, weights, maps),
        lambda: deformable_attention(value, places, weights, spatial_shapes=maps),
        by_operator,
    )
    padded = size[0] + -size[0] % PADDING, size[1] + -size[1] % PADDING
    masks = smooth_masks(QUERIES, size=(padded[0] // 4, padded[1] // 4), seed=0)
    table = class_table(3 * torch.randn(QUERIES, CLASSES + 1, generator=torch.Generator().manual_seed(0)))
    innermost = masks[0].permute(1, 2, 0).contiguous()
    yield Pair(
        f"semantic decoding, {QUERIES} masks, {CLASSES} classes",
        "full-size masks, then einsum",
        lambda: upstream_labels(masks, table, size=size, padded=padded),
        lambda: semantic_labels(innermost, table, size=size, output_size=size)[0],
        by_operator,
    )
    num_classes = 8
    a, b = two_maps(size, num_classes)
    planes = [one_hot(labels, num_classes)[0].double() for labels in (a, b)]
    yield Pair(
        f"SSIM of label maps, {num_classes} classes",
        "scikit-image class by class, planes made beforehand",
        lambda: scikit_image(*planes),
        lambda: label_ssim(a, b, num_classes=num_classes),
        by_function,
    )


def by_operator(call: Callable[[], Any], *, calls: int) -> Record:
    """Shares of the time in PyTorch's operators, each without those it calls, and the most megabytes held at once."""
    call()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(calls):
            call()
    spent = {event.key: float(event.self_cpu_time_total) for event in seen.key_averages()}
    return {"shares": shares_of(spent), "peak_mb": significant(peak_of_tensors(call) / 1e6, 3)}


def peak_of_tensors(call: Callable[[], Any]) -> int:
    """The most bytes of tensors that a call holds at once beside what there was."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        call()
    changes = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate((event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns())), initial=0))


def by_function(call: Callable[[], Any], *, calls: int) -> Record:
    """Shares of the time in functions, each without those it calls, and the most megabytes of NumPy held at once."""
    call()
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(calls):
        call()
    profiler.disable()
    spent: dict[str, float] = {}
    for (file, _, name), (_, _, own, _, _) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        spent[title(file, name)] = spent.get(title(file, name), 0.0) + own
    tracemalloc.start()
    call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"shares": shares_of(spent), "peak_mb": significant(peak / 1e6, 3)}


def title(file: str, name: str) -> str:
    """A function's name with its module's; of compiled ones with its type's or package's."""
    if file != "~":
        return f"{Path(file).stem}.{name}"
    method = re.match(r"<method '(\w+)' of '([\w.]+)' objects>", name)
    if method is not None:
        return f"{method[2].rpartition('.')[2]}.{method[1]}"
    parts = name.strip("<>").removeprefix("built-in method ").split(".")
    return ".".join([parts[0], *parts[1:][-1:]])


def shares_of(spent: Mapping[str, float]) -> dict[str, float]:
    """Shares of the sum: the largest by name, falling, then the rest; they add up to 1."""
    total = sum(spent.values())
    largest = sorted(spent.items(), key=lambda item: -item[1])[:LARGEST]
    shares = {name: value / total for name, value in largest}
    return shares | {REST: max(0.0, 1 - sum(shares.values()))}


def tables(report: Record) -> str:
    return "\n\n".join(table(one) for one in report["profiles"])


def table(one: Record) -> str:
    """Both sides side by side, largest operators first; milliseconds are shares of the time without a profiler."""
    before, after = one["before"], one["after"]
    lines = [
        f"{one['work']}: {one['plain']} {before['ms']:,.3g} ms and {before['peak_mb']:,.3g} MB at most, ours "
        f"{after['ms']:.3g} ms and {after['peak_mb']:,.3g} MB; {one['ratio']:.3g} times as fast.",
        "",
        "| before | ms | share | after | ms | share |",
        "|---|---:|---:|---|---:|---:|",
    ]
    columns = [[*side["shares"].items()] for side in (before, after)]
    for row in range(max(map(len, columns))):
        halves = [
            cells(*column[row], side["ms"]) if row < len(column) else ["", "", ""]
            for column, side in zip(columns, (before, after), strict=True)
        ]
        lines.append(f"| {' | '.join(halves[0] + halves[1])} |")
    return "\n".join(lines)


def cells(name: str, share: float, milliseconds: float) -> list[str]:
    return [name, f"{share * milliseconds:,.3g}", f"{100 * share:.1f}%"]


if __name__ == "__main__":
    raise SystemExit(main())
