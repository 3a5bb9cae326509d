"""The study of docs/vlm.md: its answerers, counts, swaps and tables, and a miniature of the whole."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from mvcseg.errors import VLMAnswerError
from mvcseg.metrics import MeanIoU
from mvcseg.vlm import Group, images_digest, parse_answer

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
PAGE = BENCHMARKS.parent / "docs" / "vlm.md"
ROAD, PAVEMENT, TREE, CAR = 3, 4, 5, 8
GROUND = Group("ground", (ROAD, PAVEMENT))


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    """Imports a module of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    torch.set_flush_denormal(False)


@pytest.fixture
def clip(benchmark, generator):
    """Five frames of 24 x 40: a road on the left, a pavement on the right, trees above, one column void."""
    truth = torch.full((5, 24, 40), TREE)
    truth[:, 12:, :20], truth[:, 12:, 20:] = ROAD, PAVEMENT
    truth[:, :, 39] = 255
    frames = torch.randint(0, 256, (1, 3, 24, 40), generator=generator, dtype=torch.uint8).repeat(5, 1, 1, 1)
    raw = torch.where(truth == 255, 0, truth + 1)
    return benchmark("camvid_scores").Clip("a", "val", 0, frames, truth, raw)


@pytest.fixture
def predicted(clip):
    """Its road whole and right, its pavement called road in two frames, a part of the trees called road."""
    labels = clip.labels.to(torch.uint8)
    labels[:, :, 39] = labels[:, :, 38]
    labels[1:3, 12:, 20:] = ROAD
    labels[:, 2:8, 2:12] = ROAD
    labels[:, 12:, 19:21] = CAR  # parts road and pavement, or both would be one area
    return labels


@pytest.fixture
def case(benchmark, clip, predicted):
    return benchmark("vlm_study_cases").case_of(clip, predicted, groups=[GROUND], flow=None)


def question(benchmark, number: int, *, truth: str | None, tube: str = ""):
    answers = benchmark("vlm_study_answers")
    return answers.Asked(tube or f"tube {number}", f"digest {number}", truth, ("road", "pavement", "grass"))


def test_answers_are_right_as_often_as_asked_for(benchmark):
    answers = benchmark("vlm_study_answers")
    known = [question(benchmark, number, truth="road") for number in range(2000)]
    named = [answers.Answerer(known, accuracy=0.7, seed=1).name(asked) for asked in known]
    assert named.count("road") / 2000 == pytest.approx(0.7, abs=0.03)
    assert named.count("pavement") / 2000 == pytest.approx(0.15, abs=0.03)
    assert set(named) == {"road", "pavement", "grass"}


def test_who_is_right_stays_right_at_a_higher_accuracy(benchmark):
    answers = benchmark("vlm_study_answers")
    known = [question(benchmark, number, truth="grass") for number in range(200)]
    right = [
        {asked.digest for asked in known if answers.Answerer(known, accuracy=accuracy, seed=3).name(asked) == "grass"}
        for accuracy in (0.5, 0.8, 1.0)
    ]
    assert right[0] < right[1] < right[2] == {asked.digest for asked in known}


def test_errors_are_shared_by_the_views_of_a_tube_or_not(benchmark):
    answers = benchmark("vlm_study_answers")
    views = [question(benchmark, number, truth="road", tube="one") for number in range(50)]
    for errors, names in (("shared", 1), ("independent", 3)):
        answerer = answers.Answerer(views, accuracy=0.5, seed=0, errors=errors)
        assert len({answerer.name(asked) for asked in views}) == names


def test_answer_is_found_by_the_picture_and_none_is_unclear(benchmark):
    answers = benchmark("vlm_study_answers")
    image = torch.full((3, 4, 5), 7, dtype=torch.uint8)
    known = answers.Asked("a", images_digest([image]), None, ("road", "pavement"))
    answer = answers.Answerer([known], accuracy=1.0, seed=0)([image], "?", choices=known.choices)
    with pytest.raises(VLMAnswerError, match="names none"):
        parse_answer(answer, choices=known.choices)
    with pytest.raises(KeyError):
        answers.Answerer([known], accuracy=1.0, seed=0)([image + 1], "?", choices=known.choices)


def test_vote_by_hand(benchmark):
    voted = benchmark("vlm_study_answers").voted
    answers = np.array(
        [
            [3, 3, 3],  # all agree
            [3, 4, 3],  # two agree
            [4, 3, 3],  # the first confirms what the tube is
            [3, 3, -1],  # one says nothing
            [3, 4, 4],  # one view only
            [-1, -1, -1],
        ]
    )
    views, whole = np.array([3, 3, 3, 3, 1, 3]), np.array([-1, 4, 4, 4, 4, -1])
    assert voted(answers, views, whole, agreement=1.0).tolist() == [3, -1, -1, -1, 3, -1]
    assert voted(answers, views, whole, agreement=2 / 3).tolist() == [3, 3, -1, 3, 3, -1]


def test_tube_that_is_all_of_the_winning_class_stays(benchmark):
    voted = benchmark("vlm_study_answers").voted
    assert voted(np.array([[4, 3, 3]]), np.array([3]), np.array([3]), agreement=2 / 3).tolist() == [-1]


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([-2.0, -1.0, 3.0], 0.8 + 0.2 / 4),
        ([-2.0, 1.0, 3.0], 0.6 + 0.2 * 2 / 3),
        ([1.0, -1.0, 1.0], 0.9),  # from there on
        ([0.0, 1.0, 2.0], 0.6),
        ([-1.0, -1.0, 0.0], 1.0),
        ([-1.0, 2.0, -0.1], None),
        ([0.0, 0.0, 0.0], None),
    ],
)
def test_break_even_is_interpolated(benchmark, gains, expected):
    assert benchmark("vlm_study_answers").break_even([0.6, 0.8, 1.0], gains) == (
        None if expected is None else pytest.approx(expected)
    )


def test_truth_of_a_tube_is_what_most_of_its_labelled_pixels_are(case):
    found = {question.tube.box: views[0].truth for question, views in zip(case.questions, case.asked, strict=True)}
    assert found == {(0, 12, 19, 24): "road", (21, 12, 40, 24): "pavement", (2, 2, 12, 8): None}
    assert sorted(case.whole.tolist()) == [-1, ROAD, ROAD]
    assert [len(views) for views in case.asked] == [3, 3, 3]


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 1.0])
def test_counts_give_what_the_metric_gives(benchmark, case, accuracy):
    cases = benchmark("vlm_study_cases")
    for seed in range(4):
        lot = cases.draw(case, seed=seed, errors="independent")
        new = cases.new_classes(case, lot, accuracy=accuracy, views=1)
        metric = MeanIoU(11)
        metric.update(cases.painted(case, new), case.clip.labels)
        assert cases.mean_iou_after([case], [new]) == pytest.approx(100 * metric.compute())


def test_right_answers_mend_the_flip_and_leave_what_they_cannot_name(benchmark, case, clip):
    cases = benchmark("vlm_study_cases")
    new = cases.new_classes(case, cases.draw(case, seed=0, errors="shared"), accuracy=1.0, views=3)
    mended = cases.painted(case, new)
    assert (mended[:, 12:, 21:] == PAVEMENT).all()
    assert (mended[:, 2:8, 2:12] == ROAD).all()
    assert torch.equal(mended[:, 12:, :19], clip.labels[:, 12:, :19].to(torch.uint8))


def test_one_that_must_be_named_is_the_best_of_those_offered(case):
    forced = case.without_way_out()
    assert {views[0].truth for views in forced.asked} == {"road", "pavement"}
    assert [views[0].truth for views in case.asked if views[0].truth] == [
        view[0].truth for view, kept in zip(forced.asked, case.asked, strict=True) if kept[0].truth
    ]


def test_only_some_tubes_are_asked_about(benchmark, case):
    cases = benchmark("vlm_study_cases")
    flips = case.only(case.whole == -1)
    assert [question.tube.box for question in flips.questions] == [(21, 12, 40, 24)]
    new = cases.new_classes(flips, cases.draw(flips, seed=0, errors="shared"), accuracy=1.0)
    changed = cases.painted(flips, new) != case.labels
    assert changed[1:3, 12:, 21:].all()
    assert int(changed.sum()) == 2 * 12 * 19
    metric = MeanIoU(11)
    metric.update(cases.painted(flips, new), case.clip.labels)
    assert cases.mean_iou_after([flips], [new]) == pytest.approx(100 * metric.compute())
    assert case.peaks.max() == pytest.approx(12 * 19 / (24 * 40))


def test_library_corrects_as_the_counts_say(benchmark, clip, predicted):
    rows = benchmark("vlm_study_parts").measure_check(
        clip, predicted, groups=[GROUND], flow=None, accuracies=(0.2, 0.5, 1.0)
    )
    assert len(rows) == 12
    assert all(row["equal_pixels"] == 1 for row in rows)
    assert all(row["mIoU"] == pytest.approx(row["mIoU_by_counts"]) for row in rows)
    assert len({row["mIoU"] for row in rows}) > 2


@pytest.mark.parametrize(("kind", "frames"), [("whole", 5), ("flicker", 2)])
def test_swapped_tubes_have_another_class_of_their_group(benchmark, case, kind, frames):
    swapped = benchmark("vlm_study_swaps").swapped
    one = swapped(case, groups=[GROUND], share=0.34, seed=0, kind=kind)
    changed = one != case.labels
    assert int(changed.flatten(1).any(dim=1).sum()) == frames
    assert set(one[changed].tolist()) <= {ROAD, PAVEMENT}
    assert torch.equal(swapped(case, groups=[GROUND], share=0.0, seed=0, kind=kind), case.labels)
    assert torch.equal(one, swapped(case, groups=[GROUND], share=0.34, seed=0, kind=kind))
    assert benchmark("vlm_study_swaps").share_of_pixels(case.labels, one) > 0


def test_pixel_ceiling_mends_confusions_inside_a_group_alone(benchmark, case, clip):
    about = benchmark("vlm_study_curves").about([case], groups=[GROUND])
    mended = torch.where((clip.labels == PAVEMENT) & (case.labels == ROAD), PAVEMENT, case.labels)
    metric = MeanIoU(11)
    metric.update(mended, clip.labels)
    assert about["mIoU"] + about["ceiling_pixels"] == pytest.approx(100 * metric.compute(), abs=1e-3)
    wrong = (case.labels != clip.labels) & (clip.labels != 255)
    inside = wrong & (clip.labels == PAVEMENT) & (case.labels == ROAD)
    assert about["errors_inside"] == pytest.approx(int(inside.sum()) / int(wrong.sum()), abs=1e-4)


def test_break_even_in_words(benchmark):
    even = benchmark("vlm_study_tables").even
    assert even({"of_mean": 91.26, "mean": 88.0, "deviation": 2.04}) == "91.3 (88.0 ± 2.0)"
    assert even({"of_mean": 50.0, "mean": None, "deviation": None}) == "below 50"
    assert even({"of_mean": None, "mean": 60.0, "deviation": 1.0}) == "never"


@pytest.fixture
def stored(benchmark, clip, predicted) -> dict:
    """Every part of the study on the small clip."""
    study = benchmark("vlm_study")
    labels = {split: {net: {"a": predicted} for net in nets} for split, nets in study.NETS_OF.items()}
    flow = benchmark("camvid_scores").StoredFlow(lambda source, target: torch.zeros_like(source[:, :2]))
    size = study.Size(seeds=2, swaps=2, shares=(0.5,))
    material = study.Material({"val": [clip], "test": [clip]}, labels, flow, size)
    return {part: study.measured(part, material) for part in study.PARTS}


@pytest.mark.slow
def test_miniature_of_every_part_fills_tables_and_figure(benchmark, stored, tmp_path):
    tables = benchmark("vlm_study_tables")
    assert set(tables.TABLES) == set(benchmark("vlm_study").PARTS)
    page = "".join(f"<!-- table: {name} -->\nold\n<!-- end -->\n\n" for name in tables.TABLES)
    renewed = tables.renewed(page, json.loads(json.dumps(stored)))
    assert "old" not in renewed
    assert tables.renewed(renewed, stored) == renewed
    pytest.importorskip("matplotlib")
    benchmark("vlm_study_figure").draw(stored, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_study_runs_on_the_first_frames_of_the_real_data(benchmark, shared_data, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- table: check -->\n<!-- end -->\n")
    results = tmp_path / "results.json"
    folders = ["--camvid", str(shared_data / "camvid"), "--weights", str(shared_data / "weights")]
    outputs = ["--results", str(results), "--page", str(page), "--only", "check"]
    code = benchmark("vlm_study").main([*folders, *outputs, "--frames", "3", "--no-figure"])
    assert code == 0
    assert "| 1 view |" in page.read_text()
    assert set(json.loads(results.read_text())) == {"environment", "check"}


def test_data_must_be_named(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark("vlm_study").main([])
    assert "--camvid and --weights" in capsys.readouterr().err


def test_page_and_stored_results_agree(benchmark):
    tables = benchmark("vlm_study_tables")
    results = json.loads((BENCHMARKS / "results" / "vlm_study.json").read_text())
    page = PAGE.read_text()
    assert set(results) == {"environment", *tables.TABLES}
    assert all(f"<!-- table: {name} -->" in page for name in tables.TABLES)
    assert tables.renewed(page, results) == page
    assert (PAGE.parent / "vlm_study.png").is_file()


def test_stored_results_agree_with_the_library_and_with_the_published_scores():
    results = json.loads((BENCHMARKS / "results" / "vlm_study.json").read_text())
    assert all(row["equal_pixels"] == 1 for row in results["check"])
    assert {row["net"]: round(row["mIoU"], 2) for row in results["curves"]} == {"enet": 68.74, "espnet": 71.47}
