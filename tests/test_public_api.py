"""The public contract: names that code outside calls, with their parameters. Removing one breaks somebody."""

from __future__ import annotations

import importlib
import inspect

import pytest

import mvcseg
from mvcseg import errors
from mvcseg.cli import build_parser

# module, name, parameters that may be given by position, parameters by keyword only (others may be added)
FUNCTIONS = [
    ("mvcseg", "MVCWrapper", ["segmenter"], ["mask", "objective", "weight", "fill"]),
    ("mvcseg", "PerFrame", ["net"], ["num_classes", "logits_of", "mean", "std"]),
    ("mvcseg", "predict_labels", ["segmenter", "video"], ["clip_length"]),
    ("mvcseg", "iter_labels", ["segmenter", "video"], ["clip_length"]),
    ("mvcseg.masking", "patch_mask", ["frames"], ["patch_size", "ratio", "grid", "tube", "generator"]),
    ("mvcseg.masking", "PatchMask", ["patch_size", "ratio", "grid", "tube"], []),
    ("mvcseg.masking", "apply_mask", ["frames", "mask"], ["fill"]),
    ("mvcseg.losses", "PixelObjective", [], []),
    ("mvcseg.ops.vote", "majority", ["label_maps"], ["num_classes"]),
    ("mvcseg.tta", "multiscale_flip", ["scales"], ["flip"]),
    ("mvcseg.tta", "vote_labels", ["segmenter", "video"], ["views", "clip_length", "tie"]),
    ("mvcseg.tta", "MeanTTA", ["segmenter", "views"], []),
    ("mvcseg.flow", "FarnebackFlow", [], []),
    ("mvcseg.ops.warp", "warp", ["image", "flow"], []),
    ("mvcseg.ops.warp", "warp_labels", ["labels", "flow"], []),
    ("mvcseg.ops.warp", "inside_mask", ["flow"], []),
    ("mvcseg.ops.ssim", "ssim", ["a", "b"], ["data_range", "window"]),
    ("mvcseg.ensemble.flow_ssim", "temporal_score", ["video", "labels"], ["num_classes", "flow"]),
    ("mvcseg.ensemble.flow_ssim", "select_model", ["video", "candidates"], ["num_classes", "flow"]),
    ("mvcseg.vlm", "correct_labels", ["video", "labels"], ["vlm", "groups", "class_names"]),
    ("mvcseg.vlm", "Group", ["noun", "class_ids"], []),
    ("mvcseg.vlm", "ReplayVLM", [], []),
    ("mvcseg.vlm", "OpenAIVLM", [], []),
    ("mvcseg.vlm", "LocalVLM", [], []),
    ("mvcseg.vlm", "ZeroShotScorer", ["folder"], ["template", "min_margin", "device"]),
    ("mvcseg.vlm", "estimate_tokens", ["sizes", "text"], ["max_side"]),
    ("mvcseg.metrics", "MeanIoU", ["num_classes"], []),
    ("mvcseg.metrics", "VideoConsistency", ["clip_length"], []),
    ("mvcseg.metrics", "TemporalConsistency", ["num_classes", "flow"], []),
    ("mvcseg.report", "overlay", ["frames", "labels"], ["colours", "opacity"]),
    ("mvcseg.report", "show", ["video", "labels"], ["class_names", "colours", "max_frames"]),
    ("mvcseg.reporting", "report", ["video", "predictions"], ["out", "labels", "flow"]),
    ("mvcseg.data", "VSPW", ["root"], ["split"]),
    ("mvcseg.data", "open_video", ["path"], []),
    (
        "mvcseg.pipeline",
        "run_video",
        ["video", "segmenters"],
        ["num_classes", "clip_length", "views", "flow", "vlm", "groups", "class_names"],
    ),
    ("mvcseg.models.dvis", "build_dvis", ["preset_or_config"], []),
    ("mvcseg.models.dvis", "load_official", ["path"], ["preset"]),
    ("mvcseg.models.dvis", "official_state_dict", ["model"], []),
    ("mvcseg.evaluation", "evaluate", ["pred_dir"], ["root", "split", "classes"]),
    ("mvcseg.models.dvis", "build_dvis", ["preset_or_config"], []),
    ("mvcseg.models.dvis", "load_official", ["path"], ["preset"]),
    ("mvcseg.models.dvis", "official_state_dict", ["model"], []),
]
METHODS = [
    ("mvcseg", "MVCWrapper", "loss_terms", ["frames", "labels"], ["generator"]),
    ("mvcseg.masking", "PatchMask", "__call__", ["frames"], ["generator"]),
    ("mvcseg.metrics", "MeanIoU", "update", ["pred", "labels"], []),
    ("mvcseg.metrics", "VideoConsistency", "update", ["pred", "raw_labels"], []),
    ("mvcseg.metrics", "TemporalConsistency", "update", ["pred", "video"], []),
    *[
        ("mvcseg.metrics", metric, method, parameters, [])
        for metric in ("MeanIoU", "VideoConsistency", "TemporalConsistency")
        for method, parameters in (("compute", []), ("merge", ["other"]), ("reset", []))
    ],
    ("mvcseg.metrics", "MeanIoU", "per_class", [], []),
    ("mvcseg.models.dvis", "DVIS", "scores", ["frames"], ["output_size"]),
    ("mvcseg.models.dvis", "DVIS", "stream", ["video"], ["clip_length"]),
    ("mvcseg.models.dvis", "DVIS", "stream_causal", ["frames"], ["state"]),
]
DEFAULTS = [
    ("mvcseg.masking", "patch_mask", "grid", "crop"),
    ("mvcseg.masking", "patch_mask", "tube", False),
    ("mvcseg.masking", "apply_mask", "fill", mvcseg.IMAGENET_MEAN),
    ("mvcseg", "MVCWrapper", "weight", 1.0),
    ("mvcseg", "MVCWrapper", "fill", mvcseg.IMAGENET_MEAN),
    ("mvcseg.tta", "multiscale_flip", "scales", (0.9, 1.0, 1.1, 1.2)),
    ("mvcseg.tta", "multiscale_flip", "flip", True),
    ("mvcseg.tta", "vote_labels", "tie", "literal"),
    ("mvcseg.ops.ssim", "ssim", "window", 7),
]


def split_parameters(function: object) -> tuple[list[str], list[str]]:
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]  # type: ignore[arg-type]
    by_keyword = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    return [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY], by_keyword


@pytest.mark.parametrize(("module", "name", "positional", "keyword"), FUNCTIONS, ids=lambda value: str(value)[:40])
def test_a_public_name_takes_its_arguments(module: str, name: str, positional: list[str], keyword: list[str]) -> None:
    by_position, by_keyword = split_parameters(getattr(importlib.import_module(module), name))
    assert by_position[: len(positional)] == positional
    assert set(keyword) <= set(by_keyword)


@pytest.mark.parametrize(
    ("module", "name", "method", "positional", "keyword"), METHODS, ids=lambda value: str(value)[:40]
)
def test_a_public_method_takes_its_arguments(
    module: str, name: str, method: str, positional: list[str], keyword: list[str]
) -> None:
    by_position, by_keyword = split_parameters(getattr(getattr(importlib.import_module(module), name), method))
    assert by_position[: len(positional)] == positional
    assert set(keyword) <= set(by_keyword)


@pytest.mark.parametrize(("module", "name", "parameter", "default"), DEFAULTS)
def test_a_default_is_the_contracts(module: str, name: str, parameter: str, default: object) -> None:
    function = getattr(importlib.import_module(module), name)
    assert inspect.signature(function).parameters[parameter].default == default


def test_presets_are_the_contracts() -> None:
    own = {f"vspw_{kind}_{net}" for kind in ("minvis", "ctvis", "online", "offline") for net in ("r50", "vitl")}
    first = {f"vspw_dvis1_{kind}_swinl" for kind in ("minvis", "online", "offline")}
    assert set(mvcseg.models.dvis.PRESETS) == own | first


def test_constants_are_the_contracts() -> None:
    assert mvcseg.IMAGENET_MEAN == (0.485, 0.456, 0.406)
    assert mvcseg.IMAGENET_STD == (0.229, 0.224, 0.225)
    assert mvcseg.IGNORE_INDEX == 255


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ShapeError", ValueError),
        ("DTypeError", TypeError),
        ("ConfigError", ValueError),
        ("CheckpointError", RuntimeError),
        ("DataError", ValueError),
        ("VLMAnswerError", ValueError),
        ("MissingExtraError", ImportError),
    ],
)
def test_every_error_is_ours_and_a_builtin(name: str, builtin: type[Exception]) -> None:
    error = getattr(errors, name)
    assert issubclass(error, errors.MvcsegError)
    assert issubclass(error, builtin)


def test_submodules_are_reached_from_the_top() -> None:
    for name in ("data", "ensemble", "errors", "evaluation", "flow", "losses", "masking", "metrics", "models", "ops"):
        assert inspect.ismodule(getattr(mvcseg, name))
    for name in ("pipeline", "report", "tta", "vlm"):
        assert inspect.ismodule(getattr(mvcseg, name))


def test_everything_promised_by_the_top_level_is_there() -> None:
    for name in mvcseg.__all__:
        assert hasattr(mvcseg, name)


@pytest.mark.parametrize(
    "arguments",
    [
        "demo --out d",
        "predict v.mp4 --checkpoint f --out d --tta --short-side 720 --clip-length 5 --device cpu",
        "predict v.mp4 --checkpoint f --out d --shard 1/2 --raw-ids",
        "predict v.mp4 --checkpoint f --out d --short-side native",
        "predict --vspw r --split val --segmenter f.py:g --out d",
        "run v.mp4 --checkpoint a --checkpoint b --tta --answers f --out d",
        "run v.mp4 --checkpoint a --vlm http://localhost/v1 --model m --out d",
        "select v.mp4 a b c --out d --json",
        "correct v.mp4 p --vlm http://localhost/v1 --model m --groups g --dry-run --max-questions 3 --out d",
        "correct v.mp4 p --local dir --out d",
        "correct v.mp4 p --answers f --out d",
        "eval p --vspw r --split val --classes f --json",
        "train --vspw r --config run.json --out d --resume",
        "report v.mp4 a b --labels l --changes c --run r --out page.html",
        "inspect f --json",
        "data check d",
    ],
)
def test_a_command_line_of_the_contract_is_understood(arguments: str) -> None:
    assert build_parser().parse_args(arguments.split()).function
