from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from golden_files import Golden, GoldenFolders, describe_state, fill_module, read_entries
from torch import Tensor, nn

from mvcseg.models.backbones.resnet import ResNet, to_official
from mvcseg.models.mask2former import FrameQueries, Mask2Former, Mask2FormerHead, PixelDecoder, QueryDecoder

CHANNELS = {"r50": (256, 512, 1024, 2048), "swinl": (192, 384, 768, 1536), "vitl": (1024,) * 4}
HEAD = "sem_seg_head."


@pytest.mark.golden
@pytest.mark.parametrize(
    ("preset", "queries", "has_reid"),
    [
        ("minvis_r50", 100, False),
        ("ctvis_r50", 100, True),
        ("dvis_plus_online_r50", 100, True),
        ("minvis_vitl", 200, False),
        ("ctvis_vitl", 200, True),
        ("dvis1_minvis_swinl", 200, False),
    ],
)
def test_state_dict_is_the_checkpoints_entry_for_entry(
    golden: GoldenFolders, preset: str, queries: int, has_reid: bool
) -> None:
    listed = read_entries(golden / f"keys/{preset}.json", prefix=HEAD)
    with torch.device("meta"):
        head = Mask2FormerHead(
            CHANNELS[preset.rpartition("_")[2]], num_classes=124, num_queries=queries, has_reid=has_reid
        )
    expected = {name: {key: entry[key] for key in ("shape", "dtype", "kind")} for name, entry in listed.items()}
    assert describe_state(head) == expected


@pytest.fixture(scope="module")
def build() -> Iterator[Callable[[torch.dtype], Mask2Former]]:
    """The reference's R50 segmenter, drawn once."""
    made: dict[torch.dtype, Mask2Former] = {}

    def build_once(dtype: torch.dtype) -> Mask2Former:
        if dtype not in made:
            head = Mask2FormerHead(CHANNELS["r50"], num_classes=124, num_queries=100, has_reid=True)
            net = Mask2Former(
                fill_module(ResNet(50).to(dtype), prefix="backbone.", names=to_official),
                fill_module(head.to(dtype), prefix=HEAD),  # type: ignore[arg-type]
            )
            made[dtype] = net.eval().to(memory_format=torch.channels_last)
        return made[dtype]

    yield build_once
    made.clear()


def check_all_stages(net: Mask2Former, stored: Golden, images: Tensor, *, part: float, whole: float) -> None:
    """Every stored tensor of the segmenter, backbone to embeddings, and every attention mask bit for bit."""
    head, seen = net.sem_seg_head, []
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["visible"]), with_kwargs=True)
        for layer in head.predictor.transformer_cross_attention_layers
    ]
    features = net.backbone(images)
    pixels = head.pixel_decoder(features)
    queries = head.predictor(pixels)
    for hook in hooks:
        hook.remove()
    for level, feature in enumerate(features, start=2):
        stored.check(f"backbone.res{level}", feature, rtol=part)
    stored.check("pixel_decoder.mask_features", pixels.mask_features, rtol=part)
    for i, scale in enumerate(pixels.scales):
        stored.check(f"pixel_decoder.ms{i}", scale, rtol=part)
    for i, visible in enumerate(seen):
        expected = ~torch.from_numpy(stored.bits(f"attn_mask_bits.{i}"))
        assert torch.equal(visible, expected | ~expected.any(dim=-1, keepdim=True))
    checked = 0
    for i, prediction in enumerate(head.predictor.layer_predictions(pixels)):
        for name, got in (("logits", prediction.class_logits), ("masks", prediction.masks())):
            if f"segmenter.layer{i}.{name}" in stored:
                stored.check(f"segmenter.layer{i}.{name}", got, rtol=whole)
                checked += 1
    assert checked
    stored.check("segmenter.pred_logits", queries.class_logits, rtol=whole)
    stored.check("segmenter.pred_masks", queries.masks(), rtol=whole)
    stored.check("segmenter.pred_embds", queries.embeds, rtol=whole)
    stored.check("segmenter.pred_embds_without_norm", queries.embeds_unnormed, rtol=whole)
    stored.check("segmenter.pred_reid_embed", queries.embeds[..., 256:], rtol=whole)


@pytest.mark.golden
@pytest.mark.parametrize(("case", "grad"), [("a", False), ("b", False), ("c", False), ("c", True)])
def test_every_stage_is_the_references(
    golden: GoldenFolders, build: Callable[[torch.dtype], Mask2Former], case: str, grad: bool
) -> None:
    stored = Golden(golden / f"forward/r50_online_{case}.npz")
    with torch.set_grad_enabled(grad):
        check_all_stages(build(torch.float32), stored, stored.images(), part=5e-6, whole=1e-5)


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_every_stage_is_the_references_to_nine_digits_in_double_precision(
    golden: GoldenFolders, build: Callable[[torch.dtype], Mask2Former], case: str
) -> None:
    stored = Golden(golden / f"forward/r50_online_{case}_f64.npz")
    with torch.no_grad():
        images = stored.images(torch.float64)
        check_all_stages(build(torch.float64), stored, images, part=1e-10, whole=1e-10)


@pytest.mark.golden
def test_frame_by_frame_is_the_reference_too(
    golden: GoldenFolders, build: Callable[[torch.dtype], Mask2Former]
) -> None:
    stored = Golden(golden / "forward/r50_online_c.npz")
    with torch.inference_mode():
        frames = [build(torch.float32)(image[None]) for image in stored.images()]
    stored.check("segmenter.pred_masks", torch.cat([frame.masks() for frame in frames]), rtol=1e-5)
    stored.check("segmenter.pred_embds", torch.cat([frame.embeds for frame in frames]), rtol=1e-5)


class TinyBackbone(nn.Module):
    """Strides 4 to 32 by strided convolutions."""

    channels = (8, 16, 24, 32)

    def __init__(self) -> None:
        super().__init__()
        widths = (3, *self.channels)
        self.stages = nn.ModuleList(
            nn.Conv2d(before, after, stride, stride=stride)
            for before, after, stride in zip(widths, self.channels, (4, 2, 2, 2), strict=False)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return tuple(maps)


def tiny() -> Mask2Former:
    torch.manual_seed(0)
    backbone = TinyBackbone()
    head = Mask2FormerHead(backbone.channels, num_classes=5, num_queries=7, has_reid=True)
    head.pixel_decoder = PixelDecoder(backbone.channels, width=32, heads=4, hidden=64, layers=2)
    head.predictor = QueryDecoder(5, num_queries=7, has_reid=True, width=32, heads=4, hidden=64, layers=4)
    return Mask2Former(backbone, head).eval()


def assert_same_queries(got: FrameQueries, expected: FrameQueries) -> None:
    for name in ("class_logits", "mask_embeds", "embeds", "embeds_unnormed", "mask_features"):
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), rtol=0, atol=1e-4, msg=name)


def test_state_dict_names_start_with_backbone_and_head() -> None:
    assert {name.partition(".")[0] for name in tiny().state_dict()} == {"backbone", "sem_seg_head"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_compiles_as_one_graph() -> None:
    net, images = tiny(), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        compiled = torch.compile(net, fullgraph=True)
        assert_same_queries(compiled(images), net(images))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_exports_as_one_graph() -> None:
    net, images = tiny(), torch.randn(1, 3, 64, 96)
    program = torch.export.export(net, (images,))
    assert_same_queries(program.module()(images), net(images))


def test_gradients_reach_every_weight() -> None:
    net = tiny()
    images = torch.randn(2, 3, 64, 96)
    pixels = net.sem_seg_head.pixel_decoder(net.backbone(images))
    predictions = net.sem_seg_head.predictor.layer_predictions(pixels)
    sum(p.class_logits.square().sum() + p.masks().square().mean() + p.embeds.sum() for p in predictions).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_half_precision_and_autocast_stay_near_full_precision() -> None:
    net, images = tiny(), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = net(images).mask_features
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = net(images)
        half = net.bfloat16()(images.bfloat16())
    assert cast.mask_features.dtype == torch.float32
    assert half.mask_features.dtype == torch.bfloat16
    for queries in (cast, half):
        assert all(x.isfinite().all() for x in (queries.class_logits, queries.embeds, queries.masks()))
        assert (queries.mask_features - expected).square().mean().sqrt() < 0.05 * expected.std()
