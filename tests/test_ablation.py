"""The study of docs/results.md: its page, tables and figure from stored figures, and a miniature of the whole."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from scipy import stats

from mvcseg import PatchMask
from mvcseg.training import read_config
from mvcseg.training.config import differing_keys

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
PAGE = BENCHMARKS.parent / "docs" / "results.md"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    """Imports a module of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    torch.set_flush_denormal(False)


def run_of(model: str, method: str, seed: int, *, miou: float, mask: dict | None = None) -> dict:
    """A stored training run."""
    scores = {"mIoU": miou, "VC8": 90.0 + seed, "VC16": 80.0}
    hidden = {"16": dict.fromkeys(scores, miou / 2)}
    facts = {"steps": 5, "training_cpu_seconds": 2.0, "seconds": 4.0, "cpu_seconds": 3.0}
    return {"model": model, "method": method, "seed": seed, "mask": mask, "scores": scores, "hidden": hidden, **facts}


@pytest.fixture
def stored(benchmark) -> dict:
    """Two seeds of the compact model, one of them with a smaller cell too."""
    centre = dict(vars(benchmark("ablation_plan").CENTRE))
    jobs = [
        run_of("compact", "plain", 0, miou=20.0),
        run_of("compact", "mvc", 0, miou=23.0, mask=centre),
        run_of("compact", "plain", 1, miou=30.0),
        run_of("compact", "mvc", 1, miou=31.0, mask=centre),
        run_of("compact", "mvc", 0, miou=10.0, mask=centre | {"patch_size": 8}),
    ]
    return {"jobs": jobs, "environment": {"machine": "a machine"}}


def test_spread_of_three_values_by_hand(benchmark):
    found = benchmark("ablation_statistics").spread([1.0, 2.0, 6.0])
    assert (found.mean, found.n) == (3.0, 3)
    assert found.error == pytest.approx(math.sqrt(7 / 3))  # squares 4 + 1 + 9, over 2, over 3


def test_spread_of_one_value_has_no_error(benchmark):
    found = benchmark("ablation_statistics").spread([4.0])
    assert found.mean == 4.0
    assert math.isnan(found.error)


def test_difference_agrees_with_scipys_paired_test(benchmark):
    ours = {0: 3.1, 1: 2.0, 2: 5.5, 3: 4.0}
    base = {3: 4.2, 2: 3.9, 1: 1.0, 0: 2.5, 7: 100.0}
    found = benchmark("ablation_statistics").difference(ours, base)
    seeds = sorted(ours)
    expected = stats.ttest_rel([ours[seed] for seed in seeds], [base[seed] for seed in seeds])
    assert found.p == pytest.approx(expected.pvalue)
    assert found.mean / found.error == pytest.approx(expected.statistic)
    assert (found.above, found.n) == (3, 4)


def test_difference_without_spread_is_sure_and_none_is_not(benchmark):
    difference = benchmark("ablation_statistics").difference
    assert difference({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0}).p == 0
    assert difference({0: 2.0, 1: 3.0}, {0: 2.0, 1: 3.0}).p == 1
    assert math.isnan(difference({0: 2.0}, {0: 1.0}).p)


def test_difference_needs_a_common_seed(benchmark):
    with pytest.raises(ValueError, match="expected a seed in common"):
        benchmark("ablation_statistics").difference({0: 1.0}, {1: 1.0})


def test_main_table_shows_mean_and_standard_error(benchmark, stored):
    tables = benchmark("ablation_tables")
    table = tables.TABLES["main"](stored)
    assert "| temporal (compact) | plain | 2 | 5 | 2 | 25.00 ± 5.00 | 90.50 ± 0.50 | 80.00 ± 0.00 |" in table
    assert "| temporal (compact) | MVC | 2 | 5 | 2 | 27.00 ± 4.00 |" in table
    assert "ENet" not in table


def test_differences_are_taken_seed_by_seed(benchmark, stored):
    table = benchmark("ablation_tables").TABLES["differences"](stored)
    assert "| temporal (compact) | plain | +2.00 ± 1.00 (2/2, p 0.30) | +0.00 ± 0.00 (0/2, p 1.00) |" in table


def test_variations_are_held_against_plain_runs_of_their_own_seeds(benchmark, stored):
    lines = benchmark("ablation_tables").TABLES["variations"](stored).splitlines()
    assert lines[2].startswith("| 16 | 0.5 | 1 | +3.00 |")  # seed 0 alone, as the varied run
    assert lines[3].startswith("| 8 | 0.5 | 1 | -10.00 |")
    assert len(lines) == 4


def test_longer_training_is_compared_over_the_seeds_it_has(benchmark, stored):
    centre = dict(vars(benchmark("ablation_plan").CENTRE))
    longer = [
        run_of("compact-long", "plain", 1, miou=40.0),
        run_of("compact-long", "mvc", 1, miou=44.0, mask=centre),
    ]
    recipes = {"compact": {"steps": 5, "tracker_steps": 0}, "compact-long": {"steps": 15, "tracker_steps": 5}}
    table = benchmark("ablation_tables").TABLES["length"](
        {**stored, "jobs": stored["jobs"] + longer, "recipes": recipes}
    )
    assert "| temporal (compact) | 5 | 1 | 30.00 | 91.00 | +1.00 |" in table
    assert "| temporal (compact) | 20 | 1 | 40.00 | 91.00 | +4.00 |" in table


def test_tables_keep_the_text_around_them(benchmark, stored):
    page = "# Head\n\n<!-- table: differences -->\nold\n<!-- end -->\n\ntext\n"
    renewed = benchmark("ablation_tables").renewed(page, stored)
    assert "old" not in renewed
    assert renewed.startswith("# Head\n\n<!-- table: differences -->\n| model |")
    assert renewed.endswith("<!-- end -->\n\ntext\n")
    assert benchmark("ablation_tables").renewed(renewed, stored) == renewed


def test_every_seed_is_compared_before_the_next(benchmark):
    plan = benchmark("ablation_plan")
    jobs = list(plan.jobs(plan.SIZES["small"]))
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    main = [
        job
        for job in jobs
        if job.method != "chain" and job.mask in (None, plan.CENTRE) and not job.model.endswith(plan.LONG)
    ]
    assert {(job.model, job.method, job.seed) for job in main} == {
        (model, method, seed) for model in plan.MODELS for method in plan.METHODS for seed in range(5)
    }
    compared = [job for job in main if job.method != "plain-twice"]
    assert [job.seed for job in compared] == sorted(job.seed for job in compared)


def test_a_run_twice_as_long_begins_with_the_clips_of_the_short_one(benchmark):
    data = benchmark("ablation_data")
    frames, labels = torch.arange(9 * 3 * 40 * 60).remainder(251).view(9, 3, 40, 60), torch.zeros(9, 40, 60)
    video = data.Film("a", frames.to(torch.uint8), labels.to(torch.uint8))
    short, long = (
        data.training_clips([video], clip_length=2, crop_size=(32, 32), seed=3, num_samples=count) for count in (4, 8)
    )
    for sample in range(4):
        assert torch.equal(short[sample].frames, long[sample].frames)


def test_page_and_stored_results_agree(benchmark):
    tables = benchmark("ablation_tables")
    results = json.loads((BENCHMARKS / "results" / "ablation.json").read_text())
    page = PAGE.read_text()
    assert all(f"<!-- table: {name} -->" in page for name in tables.TABLES)
    assert tables.renewed(page, results) == page
    assert PAGE.with_suffix(".png").is_file()


def test_stored_results_hold_every_run_of_the_plan(benchmark):
    plan = benchmark("ablation_plan")
    results = json.loads((BENCHMARKS / "results" / "ablation.json").read_text())
    assert {job["name"] for job in results["jobs"]} == {job.name for job in plan.jobs(plan.SIZES[results["size"]])}


def test_example_configurations_differ_in_the_mask_alone():
    plain, mvc = (read_config(BENCHMARKS.parent / "examples" / f"train_{name}.json") for name in ("plain", "mvc"))
    assert set(differing_keys(mvc, plain)) == {"mask", "mask_weight"}
    assert mvc.mask == PatchMask(patch_size=32, ratio=0.5)


def test_figure_is_drawn_from_stored_results(benchmark, stored, tmp_path):
    pytest.importorskip("matplotlib")
    benchmark("ablation_figure").draw(stored, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_do_is_refused(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark("ablation").main([])
    assert "--out: missing" in capsys.readouterr().err
