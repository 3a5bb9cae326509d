from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mvcseg import PerFrame, predict_labels
from mvcseg.ensemble.flow_ssim import select_model
from mvcseg.errors import ConfigError, DTypeError, ShapeError, VLMAnswerError
from mvcseg.flow import FarnebackFlow
from mvcseg.pipeline import run_video
from mvcseg.tta import multiscale_flip, vote_labels
from mvcseg.vlm import Group, ReplayVLM, correct_labels

NAMES = ["sky", "river", "lake", "grass"]
GROUPS = [Group("water", (1, 2))]
VIEWS = multiscale_flip((1.0, 1.2))


def make_video() -> Tensor:
    coarse = torch.rand(4, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    return (nn.functional.interpolate(coarse, size=(40, 56), mode="bilinear") * 255).to(torch.uint8)


def make_net(seed: int, *, num_classes: int = 4) -> PerFrame:
    torch.manual_seed(seed)
    return PerFrame(nn.Conv2d(3, num_classes, 5, padding=2), num_classes=num_classes, logits_of=lambda out: out)


def test_one_segmenter_alone_is_its_prediction() -> None:
    net, video = make_net(0), make_video()
    result = run_video(video, {"only": net}, num_classes=4, clip_length=3)
    assert result.labels.dtype == torch.int64
    assert torch.equal(result.labels, predict_labels(net, video, clip_length=3))
    assert (result.choice.name, result.choice.scores, result.changes) == ("only", {}, ())


def test_views_make_it_a_vote() -> None:
    net, video = make_net(0), make_video()
    result = run_video(video, {"only": net}, num_classes=4, clip_length=2, views=VIEWS)
    assert torch.equal(result.labels, vote_labels(net, video, views=VIEWS, clip_length=2))


def test_the_chosen_segmenters_labels_win() -> None:
    nets, video = {"a": make_net(0), "b": make_net(1), "c": make_net(2)}, make_video()
    labels = {name: predict_labels(net, video, clip_length=4) for name, net in nets.items()}
    expected = select_model(video, labels, num_classes=4, flow=FarnebackFlow())
    result = run_video(video, nets, num_classes=4, clip_length=4, flow=FarnebackFlow())
    assert result.choice == expected
    assert torch.equal(result.labels, labels[expected.name])


def test_the_vlm_corrects_what_was_chosen() -> None:
    net, video = make_net(0), make_video()
    labels = predict_labels(net, video, clip_length=4)
    assert {1, 2} & set(labels.unique().tolist())
    answers = {"Is the water in the image a river, lake? Please give me the only answer.": "It is a lake."}
    expected = correct_labels(video, labels, vlm=ReplayVLM(answers), groups=GROUPS, class_names=NAMES)
    result = run_video(
        video, {"a": net}, num_classes=4, clip_length=4, vlm=ReplayVLM(answers), groups=GROUPS, class_names=NAMES
    )
    assert torch.equal(result.labels, expected.labels)
    assert result.changes == expected.changes
    assert any(change.status == "changed" for change in result.changes)


def test_a_failing_vlm_leaves_the_labels_and_says_why() -> None:
    def broken(images: object, prompt: str, /, *, choices: object) -> str:
        raise VLMAnswerError("server: expected an answer, got none")

    net, video = make_net(0), make_video()
    result = run_video(video, {"a": net}, num_classes=4, clip_length=4, vlm=broken, groups=GROUPS, class_names=NAMES)
    assert torch.equal(result.labels, predict_labels(net, video, clip_length=4))
    assert result.changes
    assert all(change.status in ("failed", "skipped") and "got none" in change.reason for change in result.changes)


def test_missing_parts_are_named() -> None:
    net, video = make_net(0), make_video()
    with pytest.raises(ConfigError, match="segmenters: expected at least one by name"):
        run_video(video, {}, num_classes=4, clip_length=2)
    with pytest.raises(ConfigError, match=r"segmenters\['b'\]: expected 4 classes, got 5"):
        run_video(video, {"a": net, "b": make_net(0, num_classes=5)}, num_classes=4, clip_length=2)
    with pytest.raises(ConfigError, match="flow: expected one to choose between 2 segmenters"):
        run_video(video, {"a": net, "b": net}, num_classes=4, clip_length=2)
    with pytest.raises(ConfigError, match="groups: expected the classes that look alike"):
        run_video(video, {"a": net}, num_classes=4, clip_length=2, vlm=ReplayVLM([]))
    with pytest.raises(ConfigError, match="class_names: expected 4 names for the VLM, got 0"):
        run_video(video, {"a": net}, num_classes=4, clip_length=2, vlm=ReplayVLM([]), groups=GROUPS)
    with pytest.raises(ConfigError, match="clip_length"):
        run_video(video, {"a": net}, num_classes=4, clip_length=0)
    with pytest.raises(ShapeError, match="at least one frame"):
        run_video(video[:0], {"a": net}, num_classes=4, clip_length=2)
    with pytest.raises(DTypeError, match="uint8"):
        run_video(video.float(), {"a": net}, num_classes=4, clip_length=2)
