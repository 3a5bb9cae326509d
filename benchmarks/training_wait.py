"""The share of a training run in which it waits for its next clips, with the loop and the loader of ``mvcseg train``.

Videos of 480 x 853 are drawn by a seed and written in the VSPW layout (JPEG frames, PNG masks), then ``train`` runs on
them; only the loop's ``next`` on its batches is timed, from outside. Plain training is the hard case: an MVC step takes
twice as long and reads as much. Workers share the model's cores. The first steps, in which workers start, do not count.

    python benchmarks/training_wait.py --out benchmarks/results/training_wait.json
    python benchmarks/training_wait.py --runs segmenter --workers 0 --out benchmarks/results/training_wait.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from environment import environment, load_average
from turns import significant

from mvcseg.data.toy import write_toy_set
from mvcseg.training import TrainConfig, loop, train

RUNS: dict[str, dict[str, Any]] = {
    "compact": {"steps": 12},
    "compact, MVC": {"steps": 7, "mask": {"patch_size": 64, "ratio": 0.5}},
    "segmenter": {"model": "vspw_ctvis_r50", "steps": 4, "batch_size": 1, "short_sides": [320], "drops": [3]},
}
"""Configurations; what is not named is the default (compact) or that of the published training, with smaller frames."""
UNCOUNTED = 2
"""Steps at the beginning that do not count."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    stored = json.loads(options.out.read_text())["rows"] if options.out and options.out.exists() else []
    rows = {(row["run"], row["workers"]): row for row in stored}
    with tempfile.TemporaryDirectory() as scratch:
        root = write_toy_set(Path(scratch) / "toy", videos={"train": 4}, frames=12, size=(480, 853))
        for name in options.runs:
            for workers in options.workers:
                rows[name, workers] = {"run": name, **measured(RUNS[name], root=root, workers=workers)}
                print(line_of(rows[name, workers]), flush=True)
                if options.out:
                    options.out.parent.mkdir(parents=True, exist_ok=True)
                    result = {"what": __doc__.partition("\n")[0], "rows": list(rows.values())}
                    options.out.write_text(json.dumps(result, indent=1) + "\n")


def measured(numbers: Mapping[str, Any], *, root: Path, workers: int) -> dict[str, Any]:
    """One row: a training run on the data set ``root``."""
    config = TrainConfig.from_dict({**numbers, "num_workers": workers})
    record = environment()
    with tempfile.TemporaryDirectory() as scratch, timed_batches() as times:
        train(config, root=root, out=Path(scratch) / "run")
    record["load_average_after"] = load_average()
    frames = config.batch_size * config.gradient_accumulation * config.clip_length
    return {
        "config": dict(numbers),
        "workers": workers,
        "frames_a_step": frames,
        **shares(times),
        "environment": record,
    }


@contextmanager
def timed_batches() -> Iterator[list[tuple[float, float]]]:
    """While it lasts, training loops note when they ask for a step's batches and when they have them."""
    times: list[tuple[float, float]] = []
    original = loop.iter_steps

    def timed(*arguments: Any, **choices: Any) -> Iterator[Any]:
        yield from noted(original(*arguments, **choices), times)

    loop.iter_steps = timed
    try:
        yield times
    finally:
        loop.iter_steps = original


def noted(
    batches: Iterator[Any], times: list[tuple[float, float]], *, clock: Callable[[], float] = time.perf_counter
) -> Iterator[Any]:
    """The same batches; ``times`` gets (asked, had) for each."""
    while True:
        asked = clock()
        batch = next(batches, None)
        if batch is None:
            return
        times.append((asked, clock()))
        yield batch


def shares(times: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Figures of the steps after the first ones; a step lasts from asking for its batches to asking for the next's.

    The last step is not counted, since nothing is asked for after it (and a checkpoint is written).
    """
    asked = [begin for begin, _ in times]
    waits = [had - begin for begin, had in times][UNCOUNTED:-1]
    steps = [after - before for before, after in zip(asked[UNCOUNTED:], asked[UNCOUNTED + 1 :], strict=False)]
    return {
        "steps": len(steps),
        "step_seconds_median": significant(statistics.median(steps)),
        "wait_seconds_median": significant(statistics.median(waits)),
        "wait_share": round(sum(waits) / sum(steps), 4),
        "first_wait_seconds": significant(times[0][1] - times[0][0]),
        "seconds": {"step": [significant(one) for one in steps], "wait": [significant(one) for one in waits]},
    }


def line_of(row: Mapping[str, Any]) -> str:
    """One line of the printed table, below 80 columns."""
    return (
        f"{row['run']:<14}{row['workers']} workers  {row['frames_a_step']:>3} frames  "
        f"step {row['step_seconds_median']:.3f} s  waits {row['wait_seconds_median']:.4f} s  "
        f"{100 * row['wait_share']:.1f} %"
    )


if __name__ == "__main__":
    main()
