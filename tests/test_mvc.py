from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from mvcseg import IMAGENET_MEAN, MVCWrapper, PatchMask, PerFrame, apply_mask, predict_labels
from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.losses import PixelObjective


def make_net(*, seed: int = 0) -> PerFrame:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 5, 1))
    return PerFrame(net, num_classes=5, logits_of=lambda out: out)


def example() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = torch.rand(2, 3, 3, 32, 40, generator=generator)
    labels = torch.randint(0, 5, (2, 3, 32, 40), generator=generator)
    labels[:, :, :3] = 255
    return frames, labels


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


MASK = PatchMask(patch_size=8, ratio=0.5)


def gradients(net: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in net.parameters() if parameter.grad is not None]


def test_terms_are_the_clean_loss_and_the_weighted_masked_loss() -> None:
    net, (frames, labels) = make_net(), example()
    mvc = MVCWrapper(net, mask=MASK, weight=0.3)
    clean, masked = mvc.loss_terms(frames, labels, generator=seeded())
    hidden = apply_mask(frames, MASK(frames, generator=seeded()), fill=IMAGENET_MEAN)
    assert torch.equal(clean, PixelObjective()(net, frames, labels))
    assert torch.equal(masked, 0.3 * PixelObjective()(net, hidden, labels))


def test_gradients_added_term_by_term_are_those_of_the_joint_loss() -> None:
    frames, labels = example()
    apart, joint = make_net().double(), make_net().double()
    for term in MVCWrapper(apart, mask=MASK, weight=0.7).loss_terms(frames.double(), labels, generator=seeded()):
        term.backward()
    terms = MVCWrapper(joint, mask=MASK, weight=0.7).loss_terms(frames.double(), labels, generator=seeded())
    torch.stack(list(terms)).sum().backward()
    assert len(gradients(apart)) == 4
    for one, other in zip(gradients(apart), gradients(joint), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-15)


def test_weight_zero_gives_the_gradients_of_plain_training() -> None:
    frames, labels = example()
    net, plain = make_net(), make_net()
    for term in MVCWrapper(net, mask=MASK, weight=0).loss_terms(frames, labels):
        term.backward()
    PixelObjective()(plain, frames, labels).backward()
    for one, other in zip(gradients(net), gradients(plain), strict=True):
        assert torch.equal(one, other)


def test_the_masked_graph_is_built_only_when_asked_for() -> None:
    calls: list[Tensor] = []
    net = make_net()

    class Counting(nn.Module):
        num_classes = 5

        def forward(self, frames: Tensor, /) -> Tensor:
            calls.append(frames)
            return net(frames)

    frames, labels = example()
    terms = MVCWrapper(Counting(), mask=MASK).loss_terms(frames, labels)
    next(terms).backward()
    assert len(calls) == 1
    next(terms).backward()
    assert len(calls) == 2
    assert next(terms, None) is None


def test_the_wrapper_keeps_no_hold_on_the_clean_graph() -> None:
    frames, labels = example()
    terms = MVCWrapper(make_net(), mask=MASK).loss_terms(frames, labels)
    clean = next(terms)
    graph = weakref.ref(clean)
    del clean
    gc.collect()
    assert graph() is None
    next(terms)


@pytest.mark.parametrize("training", [True, False])
def test_as_a_segmenter_it_is_the_one_it_wraps(training: bool) -> None:
    net, (frames, _) = make_net(), example()
    mvc = MVCWrapper(net, mask=MASK).train(training)
    assert net.training is training
    assert mvc.num_classes == 5
    assert torch.equal(mvc(frames), net(frames))
    assert sorted(mvc.state_dict()) == sorted(f"segmenter.{name}" for name in net.state_dict())


def test_it_streams_exactly_when_its_segmenter_does() -> None:
    class Streaming(nn.Module):
        num_classes = 5

        def forward(self, frames: Tensor, /) -> Tensor:
            return frames

        def stream(self, video: Tensor, /, *, clip_length: int) -> Iterator[Tensor]:
            yield video[:clip_length]

    assert not hasattr(MVCWrapper(make_net(), mask=MASK), "stream")
    mvc = MVCWrapper(Streaming(), mask=MASK)
    assert torch.equal(next(mvc.stream(torch.arange(9), clip_length=2)), torch.arange(2))


def test_a_segmenter_that_is_no_module_can_be_wrapped() -> None:
    class Plain:
        num_classes = 5

        def __call__(self, frames: Tensor, /) -> Tensor:
            return frames.new_zeros(*frames.shape[:2], 5, *frames.shape[-2:])

    frames, labels = example()
    mvc = MVCWrapper(Plain(), mask=MASK)
    assert len(list(mvc.loss_terms(frames, labels))) == 2
    assert not hasattr(mvc, "stream")


def test_training_runs_under_autocast_with_gradient_accumulation() -> None:
    frames, labels = example()
    net = make_net()
    before = copy.deepcopy(net.state_dict())
    mvc = MVCWrapper(net, mask=MASK)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for half in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for term in mvc.loss_terms(frames[half : half + 1], labels[half : half + 1], generator=seeded()):
                assert term.dtype == torch.float32
                (term / 2).backward()
    optimizer.step()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(net))
    assert any(not torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_two_accumulated_halves_equal_the_whole_batch() -> None:
    frames, labels = example()
    labels[:, :, :3] = 0  # equal numbers of labelled pixels in both halves
    whole, halves = make_net().double(), make_net().double()
    tube = PatchMask(patch_size=8, ratio=0.5, tube=True)

    class Both:
        def __call__(self, frames: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
            return tube(frames[:1], generator=seeded()).expand(len(frames), -1, -1, -1, -1)

    for term in MVCWrapper(whole, mask=Both()).loss_terms(frames.double(), labels):
        term.backward()
    for half in range(2):
        part = frames[half : half + 1].double(), labels[half : half + 1]
        for term in MVCWrapper(halves, mask=Both()).loss_terms(*part):
            (term / 2).backward()
    for one, other in zip(gradients(whole), gradients(halves), strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)


def test_a_generator_makes_the_masked_loss_reproducible() -> None:
    frames, labels = example()
    mvc = MVCWrapper(make_net(), mask=MASK)
    first, second = (list(mvc.loss_terms(frames, labels, generator=seeded())) for _ in range(2))
    assert torch.equal(first[1], second[1])


def test_bad_arguments_are_refused_at_the_call() -> None:
    net, (frames, labels) = make_net(), example()
    with pytest.raises(ConfigError, match="weight: expected a finite number of at least 0"):
        MVCWrapper(net, mask=MASK, weight=-1)
    mvc = MVCWrapper(net, mask=MASK)
    with pytest.raises(ShapeError, match=r"labels: expected .* with t=3 from frames"):
        mvc.loss_terms(frames, labels[:, :2])
    with pytest.raises(DTypeError, match="divide uint8 frames by 255"):
        mvc.loss_terms(frames.byte(), labels)
    with pytest.raises(DTypeError, match="labels: expected an integer tensor"):
        mvc.loss_terms(frames, labels.float())


def test_a_segmenter_inside_a_parallel_wrapper_keeps_its_number_of_classes() -> None:
    net = PerFrame(nn.Conv2d(3, 4, 1), num_classes=4, logits_of=lambda out: out)
    mvc = MVCWrapper(nn.DataParallel(net), mask=PatchMask(8, 0.5))  # DDP, too, holds its model as `module`
    assert mvc.num_classes == 4
    assert not hasattr(mvc, "stream")
    video = torch.zeros(2, 3, 32, 40, dtype=torch.uint8)
    assert predict_labels(mvc, video, clip_length=2).shape == (2, 32, 40)


def test_a_mask_that_is_a_number_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mask: expected PatchMask.* got 0.5"):
        MVCWrapper(make_net(), mask=0.5)  # type: ignore[arg-type]


def test_bytes_as_floats_and_normalised_frames_are_refused() -> None:
    frames, labels = example()
    mvc = MVCWrapper(make_net(), mask=MASK)
    for wrong in (frames * 255, (frames - 0.45) / 0.22):
        with pytest.raises(DataError, match=r"frames: expected values in \[0, 1\].*divide bytes by 255"):
            mvc.loss_terms(wrong, labels)


def test_with_one_generator_a_clip_a_loss_does_not_depend_on_the_neighbours() -> None:
    frames, labels = example()
    mvc = MVCWrapper(make_net(), mask=MASK)
    keys = [3, 9]
    own = [torch.Generator().manual_seed(key) for key in keys]
    together = [float(term) for term in mvc.loss_terms(frames, labels, generator=own)]
    alone = [
        [
            float(term)
            for term in mvc.loss_terms(
                frames[i : i + 1], labels[i : i + 1], generator=[torch.Generator().manual_seed(keys[i])]
            )
        ]
        for i in range(2)
    ]
    assert together == pytest.approx([(first + second) / 2 for first, second in zip(*alone, strict=True)], rel=1e-6)


def test_the_number_of_generators_is_the_number_of_clips() -> None:
    frames, labels = example()
    with pytest.raises(ConfigError, match="one for each of 2 clips, got 1"):
        MVCWrapper(make_net(), mask=MASK).loss_terms(frames, labels, generator=[torch.Generator()])
