"""The tables of docs/results.md, from the figures that ablation.py measured."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ablation_plan import CENTRE, LONG, METHODS, MODELS, VARIATIONS, Mask
from ablation_statistics import Difference, Spread, difference, spread

Results = Mapping[str, Any]
MODEL_NAMES = {"frame": "per frame (ENet)", "compact": "temporal (compact)", "dvis": "small DVIS++"}
METHOD_NAMES = {"plain": "plain", "mvc": "MVC", "plain-twice": "plain, twice the steps"}
SCORES = ("mIoU", "VC8", "VC16")
HIDDEN = "16"
STEPS = ("plain", "mvc", "plain, vote", "mvc, vote", "selection", "vote, selection", "mean of both")


def renewed(page: str, results: Results) -> str:
    """The page with every table between its markers (``<!-- table: main -->`` to ``<!-- end -->``) made anew."""

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- table: {name} -->\n{TABLES[name](results)}\n<!-- end -->"

    return re.sub(r"<!-- table: (?P<name>[\w-]+) -->\n.*?<!-- end -->", table, page, flags=re.DOTALL)


def by_seed(
    results: Results, model: str, method: str, read: Callable[[Results], float], *, mask: Mask | None = None
) -> dict[int, float]:
    """A figure of every seed's run; empty where there is none."""
    mask = CENTRE if method == "mvc" and mask is None else mask
    stored = None if mask is None else dict(vars(mask))
    rows = (job for job in results["jobs"] if (job["model"], job["method"], job["mask"]) == (model, method, stored))
    return {row["seed"]: read(row) for row in rows}


def reader(score: str) -> Callable[[Results], float]:
    """What reads a score of a job: one of ``SCORES``, or "hidden 16" for mIoU with cells of 16 pixels hidden."""
    if score.startswith("hidden "):
        return lambda row: float(row["hidden"][score.removeprefix("hidden ")]["mIoU"])
    return lambda row: float(row["scores"][score])


READ = (*SCORES, f"hidden {HIDDEN}")


def models_of(results: Results) -> list[str]:
    """The models that have a plain and an MVC run."""
    return [
        model for model in MODELS if all(by_seed(results, model, method, reader("mIoU")) for method in ("plain", "mvc"))
    ]


def _main(results: Results) -> str:
    rows = []
    for model in models_of(results):
        for method in METHODS:
            steps = by_seed(results, model, method, lambda row: row["steps"])
            if not steps:
                continue
            seconds = spread(list(by_seed(results, model, method, lambda row: row["training_cpu_seconds"]).values()))
            figures = [_spread(spread(list(by_seed(results, model, method, reader(score)).values()))) for score in READ]
            count = str(next(iter(steps.values())))
            rows.append(
                [MODEL_NAMES[model], METHOD_NAMES[method], str(len(steps)), count, f"{seconds.mean:.0f}", *figures]
            )
    head = ["model", "training", "seeds", "steps", "CPU s", *SCORES, "mIoU, half hidden"]
    return table(head, rows)


def _differences(results: Results) -> str:
    rows = []
    for model in models_of(results):
        for baseline in ("plain", "plain-twice"):
            figures = []
            for score in READ:
                values = by_seed(results, model, "mvc", reader(score))
                base = by_seed(results, model, baseline, reader(score))
                figures.append(_difference(difference(values, base)) if set(values) & set(base) else "")
            rows.append([MODEL_NAMES[model], METHOD_NAMES[baseline], *figures])
    head = ["model", "MVC minus", *SCORES, "mIoU, half hidden"]
    return table(head, rows)


def _variations(results: Results) -> str:
    rows = []
    seeds = varied_seeds(results)
    plain = {score: by_seed(results, "compact", "plain", reader(score)) for score in READ}
    for mask in (CENTRE, *VARIATIONS):
        runs = by_seed(results, "compact", "mvc", reader("mIoU"), mask=mask)
        if not runs:
            continue
        figures = []
        for score in READ:
            values = by_seed(results, "compact", "mvc", reader(score), mask=mask)
            figures.append(_difference(difference({seed: values[seed] for seed in seeds & set(values)}, plain[score])))
        rows.append([str(mask.patch_size), f"{mask.ratio:g}", f"{mask.weight:g}", *figures])
    return table(["cell", "ratio", "lambda", *SCORES, "mIoU, half hidden"], rows)


def varied_seeds(results: Results) -> set[int]:
    """Seeds of the runs with other mask numbers, to which the centre's row keeps too."""
    found = {job["seed"] for job in results["jobs"] if job["mask"] and job["mask"] != vars(CENTRE)}
    return found or set(by_seed(results, "compact", "mvc", reader("mIoU")))


def _lengths(results: Results) -> str:
    rows = []
    for model in (model for model in MODELS if f"{model}{LONG}" in results.get("recipes", {})):
        seeds = set(by_seed(results, model + LONG, "mvc", reader("mIoU")))
        if not seeds:
            continue
        for name in (model, model + LONG):
            recipe = results["recipes"][name]
            figures = [str(recipe["steps"] + recipe["tracker_steps"]), str(len(seeds))]
            plain = {score: by_seed(results, name, "plain", reader(score)) for score in READ}
            figures += [_spread(spread([plain[score][seed] for seed in sorted(seeds)])) for score in ("mIoU", "VC8")]
            for score in READ:
                values = by_seed(results, name, "mvc", reader(score))
                mine = {seed: values[seed] for seed in seeds & set(values)}
                figures.append(_difference(difference(mine, plain[score])) if mine else "")
            rows.append([MODEL_NAMES[model], *figures])
    changes = [f"MVC minus plain: {SCORES[0]}", *SCORES[1:], "mIoU, half hidden"]
    return table(["model", "steps", "seeds", "plain: mIoU", "plain: VC8", *changes], rows)


def _chain(results: Results) -> str:
    rows = []
    for model in MODELS:
        scores = by_seed(results, model, "chain", lambda row: row["scores"])
        for step in STEPS if scores else ():
            figures = []
            for score in SCORES:
                values = {seed: found[step][score] for seed, found in scores.items()}
                base = {seed: found["plain"][score] for seed, found in scores.items()}
                figures += [_spread(spread(list(values.values())))]
                figures += [_difference(difference(values, base)) if step != "plain" else ""]
            rows.append([MODEL_NAMES[model], step.replace("mvc", "MVC"), str(len(scores)), *figures])
    head = ["model", "labels", "seeds"]
    for score in SCORES:
        head += [score, "minus plain"]
    return table(head, rows)


def _choices(results: Results) -> str:
    rows = []
    for model in MODELS:
        found = by_seed(results, model, "chain", lambda row: row["choices"])
        for stage, name in (("single", "single"), ("vote", "after the vote")) if found else ():
            choices = [choice for seed in found.values() for choice in seed[stage].values()]
            better = [max(choice["mIoU"], key=choice["mIoU"].__getitem__) for choice in choices]
            right = sum(choice["chosen"] == best for choice, best in zip(choices, better, strict=True))
            counts = [better.count("mvc"), [choice["chosen"] for choice in choices].count("mvc"), right]
            loss = spread([max(choice["mIoU"].values()) - choice["mIoU"][choice["chosen"]] for choice in choices])
            rows.append([MODEL_NAMES[model], name, str(len(choices)), *map(str, counts), f"{loss.mean:.2f}"])
    head = ["model", "labels", "decisions", "MVC better", "MVC chosen", "right", "mIoU lost to the better, mean"]
    return table(head, rows)


def _times(results: Results) -> str:
    environment = results["environment"]
    rows = [[key, str(value)] for key, value in environment.items()]
    jobs = results["jobs"]
    rows.append(["jobs", str(len(jobs))])
    rows.append(["CPU minutes, all jobs", f"{sum(job['cpu_seconds'] for job in jobs) / 60:.0f}"])
    rows.append(["minutes by the clock, all jobs", f"{sum(job['seconds'] for job in jobs) / 60:.0f}"])
    return table(["", ""], rows)


def _recipes(results: Results) -> str:
    rows = []
    for model, recipe in results["recipes"].items():
        if model.endswith(LONG):
            continue
        steps = str(recipe["steps"]) + (f" + {recipe['tracker_steps']}" if model == "dvis" else "")
        frames = str(recipe["clip_length"]) + (f", then {recipe['tracker_clip_length']}" if model == "dvis" else "")
        rate = f"{recipe['learning_rate']:g}"
        rows.append([MODEL_NAMES[model], steps, str(recipe["batch_size"]), frames, rate, str(recipe["warm_up"])])
    return table(["model", "steps", "clips a step", "frames a clip", "learning rate", "warm-up"], rows)


TABLES: dict[str, Callable[[Results], str]] = {
    "main": _main,
    "differences": _differences,
    "variations": _variations,
    "length": _lengths,
    "chain": _chain,
    "choices": _choices,
    "recipes": _recipes,
    "machine": _times,
}
"""What makes each table."""


def _spread(found: Spread) -> str:
    return f"{found.mean:.2f}" + ("" if math.isnan(found.error) else f" ± {found.error:.2f}")


def _difference(found: Difference) -> str:
    if found.n < 2:
        return f"{found.mean:+.2f}"
    return f"{found.mean:+.2f} ± {found.error:.2f} ({found.above}/{found.n}, p {_p(found.p)})"


def _p(value: float) -> str:
    return f"{value:.2f}" if value >= 0.095 else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
