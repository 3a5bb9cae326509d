from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from tiny_transformers import KINDS, NUM_CLASSES, QUERY_KINDS, tiny_net
from torch import Tensor, nn

import mvcseg
from mvcseg.adapters import QuerySegmenter, VideomtSegmenter, from_transformers
from mvcseg.errors import ConfigError, DTypeError, MissingExtraError, ShapeError

NAMES = ["sky", "road", "tree", "car", "wall"]


def clip(*sizes: int, seed: int = 0) -> Tensor:
    return torch.rand(*sizes, generator=torch.Generator().manual_seed(seed))


def named(net: nn.Module, names: list[str]) -> nn.Module:
    net.config.id2label = dict(enumerate(names))
    return net


def normalised(frames: Tensor) -> Tensor:
    mean, std = (torch.tensor(three).view(3, 1, 1) for three in (mvcseg.IMAGENET_MEAN, mvcseg.IMAGENET_STD))
    return (frames - mean) / std


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(32, 32), (45, 61), (72, 40)])
def test_logits_have_the_size_of_the_frames(kind: str, size: tuple[int, int]) -> None:
    segmenter = from_transformers(tiny_net(kind), num_classes=NUM_CLASSES)
    for length in (1, 3):
        with torch.no_grad():
            logits = segmenter(clip(2, length, 3, *size))
        assert logits.shape == (2, length, NUM_CLASSES, *size)
        assert logits.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_batch_items_are_independent_and_nothing_is_remembered(kind: str) -> None:
    segmenter, frames = from_transformers(tiny_net(kind)), clip(3, 2, 3, 40, 52)
    together = segmenter(frames)
    for index in (2, 0, 1):
        assert torch.allclose(segmenter(frames[index : index + 1]), together[index : index + 1], atol=1e-4)
    assert torch.equal(segmenter(frames), together)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_only_a_video_model_sees_the_frames_before(kind: str) -> None:
    segmenter, frames = from_transformers(tiny_net(kind)), clip(1, 3, 3, 32, 48)
    changed = frames.clone()
    changed[:, 0] = 1 - changed[:, 0]
    same = torch.isclose(segmenter(frames)[:, 1:], segmenter(changed)[:, 1:], atol=1e-5).all()
    assert bool(same) == (kind != "videomt")


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_odd_sizes_are_read_with_the_mean_colour_around(kind: str) -> None:
    segmenter, frames = from_transformers(tiny_net(kind)), clip(1, 2, 3, 45, 61)
    height, width = (64, 64) if kind in ("segformer", "mask2former") else (48, 64)
    padded = torch.tensor(mvcseg.IMAGENET_MEAN).view(3, 1, 1).expand(1, 2, 3, height, width).clone()
    padded[..., :45, :61] = frames
    assert torch.allclose(segmenter(frames), segmenter(padded)[..., :45, :61], atol=1e-4)


@torch.no_grad()
def test_segformer_gives_the_logits_of_the_net() -> None:
    net, frames = tiny_net("segformer"), clip(1, 2, 3, 64, 96)
    expected = nn.functional.interpolate(net(normalised(frames[0])).logits, size=(64, 96), mode="bilinear")
    assert torch.allclose(from_transformers(net)(frames)[0], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["mask2former", "eomt", "eomt_dinov3"])
@torch.no_grad()
def test_an_image_model_gives_the_queries_of_the_net_at_its_own_size(kind: str) -> None:
    net, frames = tiny_net(kind), clip(2, 2, 3, 32, 32)
    output = net(pixel_values=normalised(frames.flatten(0, 1)))
    last = from_transformers(net).predict_queries(frames).layers[-1]
    assert torch.allclose(last.class_logits.flatten(0, 1), output.class_queries_logits, atol=1e-5)
    assert torch.allclose(last.masks.logits.flatten(0, 1), output.masks_queries_logits, atol=1e-4)


@torch.no_grad()
def test_a_video_model_gives_the_queries_of_the_net_at_its_own_size() -> None:
    net, frames = tiny_net("videomt"), clip(2, 3, 3, 32, 32)
    output = net(pixel_values_videos=normalised(frames))
    last = from_transformers(net).predict_queries(frames).layers[-1]
    # transformers puts the videos' first frames together, then their second ones
    assert torch.allclose(last.class_logits.transpose(0, 1).flatten(0, 1), output.class_queries_logits, atol=1e-5)
    assert torch.allclose(last.masks.logits.transpose(0, 1).flatten(0, 1), output.masks_queries_logits, atol=1e-4)


@pytest.mark.parametrize("kind", QUERY_KINDS)
@torch.no_grad()
def test_scores_are_sums_over_queries_of_class_and_mask(kind: str) -> None:
    segmenter, frames = from_transformers(tiny_net(kind)), clip(1, 2, 3, 40, 52)
    last = segmenter.predict_queries(frames).layers[-1]
    masks = last.masks.logits[0]
    padded = (4 * masks.shape[-2], 4 * masks.shape[-1])
    shares = nn.functional.interpolate(masks, size=padded, mode="bilinear")[..., :40, :52].sigmoid()
    scores = torch.einsum("tqk,tqhw->tkhw", last.class_logits[0].softmax(-1)[..., :-1], shares)
    assert torch.allclose(segmenter(frames)[0], scores.log(), atol=1e-4)


@pytest.mark.parametrize("kind", QUERY_KINDS)
def test_queries_are_given_for_every_layer_that_is_trained(kind: str) -> None:
    clip_queries = from_transformers(tiny_net(kind)).predict_queries(clip(2, 3, 3, 45, 61))
    layers = {"mask2former": 4}.get(kind, 3)  # the learned queries' own, then one a layer or block
    assert len(clip_queries.layers) == layers
    height, width = (16, 16) if kind == "mask2former" else (12, 16)  # sides padded to multiples of 32, of 8
    for layer in clip_queries.layers:
        assert layer.class_logits.shape == (2, 3, 6, NUM_CLASSES + 1)
        assert layer.masks.shape == (2, 3, 6, height, width)


@pytest.mark.parametrize(("patch", "upscale"), [(8, 2), (14, 2), (16, 1)])
def test_masks_of_any_stride_cover_the_padded_frames_at_a_quarter(patch: int, upscale: int) -> None:
    net = tiny_net("eomt", patch_size=patch, image_size=2 * patch, num_upscale_blocks=upscale)
    segmenter, frames = from_transformers(net), clip(1, 1, 3, 50, 60)
    multiple = {8: 8, 14: 28, 16: 16}[patch]
    expected = tuple((side + -side % multiple) // 4 for side in (50, 60))
    assert segmenter.predict_queries(frames).layers[-1].masks.shape[-2:] == expected
    assert segmenter(frames).shape[-2:] == (50, 60)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_columns_follow_the_names_of_the_data_set(kind: str) -> None:
    frames, order = clip(1, 2, 3, 32, 32), [3, 0, 4, 1, 2]
    net = named(tiny_net(kind), NAMES)
    plain = from_transformers(net, class_names=NAMES)
    sorted_otherwise = from_transformers(net, class_names=[NAMES[index] for index in order])
    assert sorted_otherwise.class_names == tuple(NAMES[index] for index in order)
    assert torch.allclose(sorted_otherwise(frames), plain(frames)[:, :, order], atol=1e-5)
    if isinstance(plain, QuerySegmenter):
        mine, other = (one.predict_queries(frames).layers[0].class_logits for one in (plain, sorted_otherwise))
        assert torch.equal(other, mine[..., [*order, NUM_CLASSES]])


def test_names_of_a_model_without_any_are_taken_as_given() -> None:
    segmenter = from_transformers(tiny_net("eomt"), class_names=NAMES)
    assert segmenter.class_names == tuple(NAMES)
    assert segmenter.class_order.tolist() == [0, 1, 2, 3, 4, 5]
    assert from_transformers(tiny_net("eomt")).class_names == ()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_saved_and_read_by_transformers(kind: str, tmp_path: object) -> None:
    segmenter, frames = from_transformers(tiny_net(kind)), clip(1, 2, 3, 40, 48)
    with torch.no_grad():
        for parameter in segmenter.parameters():
            parameter.add_(0.01)
    segmenter.save_pretrained(tmp_path)
    again = from_transformers(type(segmenter.net).from_pretrained(tmp_path)).eval()
    with torch.no_grad():
        assert torch.equal(again(frames), segmenter(frames))


@pytest.mark.parametrize("kind", ["segformer", "eomt"])
def test_names_are_saved_with_a_model_that_had_none(kind: str, tmp_path: object) -> None:
    frames, order = clip(1, 1, 3, 32, 32), [4, 3, 2, 1, 0]
    segmenter = from_transformers(tiny_net(kind), class_names=NAMES)
    segmenter.save_pretrained(tmp_path)
    again = from_transformers(type(segmenter.net).from_pretrained(tmp_path).eval(), class_names=NAMES[::-1])
    with torch.no_grad():
        assert torch.allclose(again(frames), segmenter(frames)[:, :, order], atol=1e-5)


@pytest.mark.parametrize("kind", ["segformer", "eomt"])
def test_a_new_head_is_for_as_many_classes_as_asked(kind: str, tmp_path: object) -> None:
    net = named(tiny_net(kind), NAMES)
    net.save_pretrained(tmp_path)
    renewed = type(net).from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    segmenter = from_transformers(renewed, class_names=list("abcdefg"))
    assert segmenter(clip(1, 1, 3, 32, 32)).shape == (1, 1, 7, 32, 32)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_that_is_trained_gets_a_gradient(kind: str) -> None:
    segmenter = from_transformers(tiny_net(kind)).train()
    segmenter(clip(1, 2, 3, 40, 48)).square().mean().backward()
    assert [name for name, one in segmenter.named_parameters() if one.requires_grad and one.grad is None] == []


def test_a_videomt_becomes_a_segmenter_that_streams() -> None:
    assert isinstance(from_transformers(tiny_net("videomt")), VideomtSegmenter)
    assert not isinstance(from_transformers(tiny_net("eomt")), VideomtSegmenter)


@pytest.mark.parametrize("kind", KINDS)
def test_another_number_of_classes_is_named(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"num_classes: expected the model's 5 classes, got 124; .*num_labels=124"):
        from_transformers(tiny_net(kind), num_classes=124)
    with pytest.raises(ConfigError, match=r"class_names: expected the model's 5 classes, got 3"):
        from_transformers(tiny_net(kind), class_names=["a", "b", "c"])


def test_names_that_the_model_lacks_are_listed() -> None:
    net = named(tiny_net("eomt"), NAMES)
    with pytest.raises(ConfigError, match=r"class_names: .* got none for 'sea'"):
        from_transformers(net, class_names=["sky", "road", "tree", "car", "sea"])
    with pytest.raises(ConfigError, match="got a name twice"):
        from_transformers(named(tiny_net("eomt"), ["a", "a", "b", "c", "d"]), class_names=["a", "a", "b", "c", "d"])


def test_a_model_of_another_kind_is_refused() -> None:
    with pytest.raises(DTypeError, match=r"expected one of Segformer.*Videomt.*got Conv2d; mvcseg\.PerFrame"):
        from_transformers(nn.Conv2d(3, 4, 1))
    inner = tiny_net("mask2former").model
    with pytest.raises(DTypeError, match="got Mask2FormerModel"):
        from_transformers(inner)


def test_a_missing_transformers_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r'pip install "mvcseg\[hf\]"'):
        from_transformers(nn.Conv2d(3, 4, 1))


@pytest.mark.slow
def test_importing_the_adapters_does_not_import_transformers() -> None:
    code = "import sys, mvcseg.adapters; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("kind", QUERY_KINDS)
def test_frames_of_another_form_are_refused(kind: str) -> None:
    segmenter = from_transformers(tiny_net(kind))
    with pytest.raises(ShapeError, match="frames: expected"):
        segmenter(torch.rand(2, 3, 40, 40))
    with pytest.raises(ShapeError, match="no empty axis"):
        segmenter(torch.rand(1, 0, 3, 40, 40))
    with pytest.raises(DTypeError, match="divide uint8 frames by 255"):
        segmenter(torch.zeros(1, 1, 3, 40, 40, dtype=torch.uint8))
