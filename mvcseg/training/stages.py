"""The three stages in which DVIS++ is trained: segmenter, then tracker, then refiner.

A stage trains one part and reads the parts before it, which are frozen: always in eval mode, without gradients, and
run frame by frame without a graph. Called on clips, a stage gives what every layer of its part predicts, for
``mvcseg.losses.MaskSetObjective``; ``stage_objective`` makes the one that belongs to it.

Sources: DVIS++, arXiv 2312.13305, and DVIS, arXiv 2306.03413; MinVIS, arXiv 2208.02245, and CTVIS, arXiv 2307.12616,
for the segmenter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from mvcseg.errors import ConfigError, ShapeError
from mvcseg.losses.queries import FactoredMasks, LayerPrediction, QueryClip
from mvcseg.models.backbones.vit_adapter import ViTAdapter
from mvcseg.models.dvis.frame_masks import Tracker
from mvcseg.models.dvis.model import DVIS
from mvcseg.models.dvis.noise import QueryNoise
from mvcseg.models.dvis.refiner import TemporalRefiner
from mvcseg.models.dvis.semantic import logits_in_dataset_order
from mvcseg.models.dvis.tracker import ReferringTracker, Tracked
from mvcseg.ops.matching import take_order
from mvcseg.shapes import check_float, check_shapes
from mvcseg.training.frozen_outputs import PassPair, RefinerInputs, TrackerInputs, read_segmenter, read_tracker
from mvcseg.training.sparing import bytes_to_spare, spared_of_refiner, spared_of_segmenter, spared_of_tracker


class SegmenterStage(nn.Module):
    """Trains backbone and segmenter, frame by frame as in MinVIS; clips of several frames serve the re-id contrast.

    The transformer inside a ViT adapter stays frozen.

    Args:
        model: a model without tracker; trained in place.
        is_contrasted: whether the loss compares re-identification vectors. Without, that head is frozen.
    """

    def __init__(self, model: DVIS, *, is_contrasted: bool = True) -> None:
        super().__init__()
        self.model = model
        reid = model.sem_seg_head.predictor.reid_embed
        self.is_contrasted = is_contrasted and reid is not None
        self.is_partly_masked = False
        _freeze_all_but(model, (model.backbone, model.sem_seg_head))
        if reid is not None:
            reid.requires_grad_(self.is_contrasted)
        self.train()

    def train(self, mode: bool = True) -> SegmenterStage:
        """As ``nn.Module.train``, but frozen parts stay in eval mode."""
        super().train(mode)
        if isinstance(self.model.backbone, ViTAdapter) and self.model.backbone.is_frozen:
            self.model.backbone.vit_module.eval()
        return self

    def forward(
        self,
        frames: Tensor,
        *,
        noise_generators: Sequence[torch.Generator] | None = None,
        pair: PassPair | None = None,
        spares: bool = False,
    ) -> QueryClip:
        """What every layer predicts, the one before the first layer included.

        Args:
            frames: ``(B, T, 3, H, W)`` in ``[0, 1]``.
            noise_generators: not used, since nothing is drawn.
            pair: not used, since nothing is frozen.
            spares: make room for the gradients that are there already: part of the head is computed again in the
                backward pass; see ``training.sparing``.

        Raises:
            ShapeError: frames are not five-dimensional or empty.
            DTypeError: they are not floating-point.
        """
        sizes = _check(frames)
        head = self.model.sem_seg_head
        maps = self.model.backbone(self.model.normalise(frames.flatten(0, 1)))
        again = spared_of_segmenter(head, maps, bytes_to_spare(self.parameters())) if spares else (0, 0)
        pixels = head.pixel_decoder(maps, recomputes=again[0])
        del maps
        predictions = head.predictor.layer_predictions(pixels, recomputes=again[1])

        def by_clip(x: Tensor) -> Tensor:
            return rearrange(x, "(b t) ... -> b t ...", b=sizes["b"])

        features = by_clip(pixels.mask_features)
        layers = tuple(
            LayerPrediction(
                logits_in_dataset_order(by_clip(layer.class_logits), self.model.class_order),
                FactoredMasks(by_clip(layer.mask_embeds), features),
            )
            for layer in predictions
        )
        width = head.predictor.query_feat.embedding_dim
        embeds = by_clip(predictions[-1].embeds[..., width:]) if self.is_contrasted else None
        return QueryClip(layers, embeds=embeds)


class TrackerStage(nn.Module):
    """Trains the referring tracker on the queries of a frozen segmenter.

    Args:
        model: with a tracker and without a refiner; the tracker is trained in place.
        noise: spoils the queries that the tracker starts frames from; None spoils nothing.
        masked_parts: what reads the masked clip in the masked pass of a ``PassPair``: "tracker" (the queries come from
            masked frames), "pixels" (the features on which masks are decoded do), or both.
    """

    def __init__(
        self, model: DVIS, *, noise: QueryNoise | None = None, masked_parts: Iterable[str] | None = None
    ) -> None:
        super().__init__()
        if noise is not None and not isinstance(model.tracker, ReferringTracker):
            raise ConfigError("noise: expected none for the tracker of first-version DVIS, which is trained without")
        self.model = model
        self.noise = noise
        self.masked_parts = TrackerInputs.check_parts(masked_parts)
        self.is_partly_masked = set(self.masked_parts) != set(TrackerInputs.PARTS)
        _freeze_all_but(model, (self.tracker,))
        self.train()

    @property
    def tracker(self) -> Tracker:
        """What is trained."""
        assert self.model.tracker is not None, "build_stage looks"
        return self.model.tracker

    def train(self, mode: bool = True) -> TrackerStage:
        """As ``nn.Module.train``, but frozen parts stay in eval mode."""
        super().train(mode)
        self.model.eval()
        self.tracker.train(mode)
        return self

    def forward(
        self,
        frames: Tensor,
        *,
        noise_generators: Sequence[torch.Generator] | None = None,
        pair: PassPair | None = None,
        spares: bool = False,
    ) -> QueryClip:
        """What every layer of the tracker predicts; guided by the segmenter's predictions in tracked order.

        Args:
            frames: ``(B, T, 3, H, W)`` in ``[0, 1]``, each batch item the beginning of a video.
            noise_generators: of the noise, one for each clip, or one for all; None takes torch's own.
            pair: of the clean and the masked pass over the same clips; None where there is only one.
            spares: make room for the gradients that are there already: frames of the tracker are computed again in
                the backward pass.

        Raises:
            ShapeError, DTypeError: as in ``SegmenterStage``.
        """
        sizes = _check(frames)
        inputs = self._inputs(frames, pair)
        again = spared_of_tracker(self.tracker, inputs.embeds, bytes_to_spare(self.parameters())) if spares else 0
        layers = self._track(inputs, _on_host(noise_generators, count=sizes["b"]), recomputes=again)
        order, last = layers[-1].order, layers[-1]
        guide = LayerPrediction(
            logits_in_dataset_order(take_order(inputs.class_logits, order), self.model.class_order),
            FactoredMasks(take_order(inputs.mask_embeds, order), inputs.mask_features),
        )
        references = last.references if isinstance(self.tracker, ReferringTracker) else None
        return QueryClip(tuple(self._predict(layer, inputs) for layer in layers), guide=guide, embeds=references)

    def _inputs(self, frames: Tensor, pair: PassPair | None) -> TrackerInputs:
        inputs = read_segmenter(self.model, frames)
        return inputs if pair is None else pair.take(inputs, masked_parts=self.masked_parts)

    def _track(
        self, inputs: TrackerInputs, generators: Sequence[torch.Generator] | None, *, recomputes: int
    ) -> list[Tracked]:
        queries = inputs.embeds, inputs.embeds_unnormed
        if not isinstance(self.tracker, ReferringTracker):
            return self.tracker.forward_layers(*queries, recomputes=recomputes)
        return self.tracker.forward_layers(*queries, noise=self.noise, generator=generators, recomputes=recomputes)

    def _predict(self, layer: Tracked, inputs: TrackerInputs) -> LayerPrediction:
        kernels = self.tracker.mask_kernels(layer.embeds)
        return LayerPrediction(
            logits_in_dataset_order(layer.class_logits, self.model.class_order),
            FactoredMasks(kernels.weight, inputs.mask_features, kernels.bias),
        )


class RefinerStage(nn.Module):
    """Trains the temporal refiner on what a frozen tracker and segmenter give.

    Args:
        model: with tracker and refiner; the refiner is trained in place.
        masked_parts: what reads the masked clip in the masked pass of a ``PassPair``: "tracker" (the tracked queries
            that the refiner starts from come from masked frames), "refiner" (its memory does), "pixels" (the features
            on which masks are decoded do), or several of them.
    """

    def __init__(self, model: DVIS, *, masked_parts: Iterable[str] | None = None) -> None:
        super().__init__()
        self.model = model
        self.masked_parts = RefinerInputs.check_parts(masked_parts)
        self.is_partly_masked = set(self.masked_parts) != set(RefinerInputs.PARTS)
        _freeze_all_but(model, (self.refiner,))
        self.train()

    @property
    def refiner(self) -> TemporalRefiner:
        """What is trained."""
        assert self.model.refiner is not None, "build_stage looks"
        return self.model.refiner

    def train(self, mode: bool = True) -> RefinerStage:
        """As ``nn.Module.train``, but frozen parts stay in eval mode."""
        super().train(mode)
        self.model.eval()
        self.refiner.train(mode)
        return self

    def forward(
        self,
        frames: Tensor,
        *,
        noise_generators: Sequence[torch.Generator] | None = None,
        pair: PassPair | None = None,
        spares: bool = False,
    ) -> QueryClip:
        """What every layer of the refiner predicts; guided by the tracker's predictions, their classes averaged.

        Args:
            frames: ``(B, T, 3, H, W)`` in ``[0, 1]``, each batch item a whole video.
            noise_generators: not used, since the frozen tracker tracks without noise.
            pair: of the clean and the masked pass over the same clips; None where there is only one.
            spares: make room for the gradients that are there already: layers of the refiner are computed again in
                the backward pass.

        Raises:
            ShapeError, DTypeError: as in ``SegmenterStage``.
        """
        _check(frames)
        inputs = read_tracker(self.model, frames)
        if pair is not None:
            inputs = pair.take(inputs, masked_parts=self.masked_parts)
        order, features = self.model.class_order, inputs.mask_features
        again = spared_of_refiner(self.refiner, inputs.embeds, bytes_to_spare(self.parameters())) if spares else 0
        layers = self.refiner.forward_layers(inputs.embeds, inputs.memory, recomputes=again)
        predictions = tuple(
            LayerPrediction(
                logits_in_dataset_order(layer.class_logits.unsqueeze(1), order),
                FactoredMasks(layer.mask_embeds, features),
            )
            for layer in layers
        )
        guide = LayerPrediction(
            logits_in_dataset_order(inputs.class_logits, order),
            FactoredMasks(inputs.kernels, features, inputs.kernel_bias),
        )
        return QueryClip(predictions, guide=guide, embeds=layers[-1].embeds)


Stage = SegmenterStage | TrackerStage | RefinerStage


def build_stage(
    model: DVIS,
    *,
    noise: QueryNoise | None = None,
    masked_parts: Iterable[str] | None = None,
    is_contrasted: bool = True,
) -> Stage:
    """The stage that trains the last part of a model: its refiner if it has one, else its tracker, else its segmenter.

    Args:
        model: trained in place: what the stage trains takes gradients afterwards, and nothing else does.
        noise: for a tracker, ``QueryNoise("wa", probability=0.5)`` in the published training.
        masked_parts: which parts read the masked clip in the masked pass; None is all of them, Eq. 3 of arXiv
            2406.04979 to the letter. What is left out reads the clean clip. See the stages for their parts.
        is_contrasted: for a segmenter, whether its re-identification head is trained.

    Returns:
        In train mode; frozen parts are and stay in eval mode.

    Raises:
        ConfigError: a part is unknown or none is masked, or an argument does not belong to the stage.

    Example:
        >>> from mvcseg.models.dvis import BACKBONES, DVISConfig, build_dvis
        >>> small = DVISConfig(BACKBONES["ResNet-18"], num_classes=5, class_order=None, num_queries=8, width=32,
        ...                    encoder_layers=1, decoder_layers=2)
        >>> clip = build_stage(build_dvis(small))(torch.rand(1, 2, 3, 32, 64))
        >>> [tuple(layer.class_logits.shape) for layer in clip.layers]
        [(1, 2, 8, 6), (1, 2, 8, 6), (1, 2, 8, 6)]
    """
    if noise is not None and (model.tracker is None or model.refiner is not None):
        raise ConfigError("noise: expected none, since only a tracker is trained with noise")
    if model.refiner is not None:
        return RefinerStage(model, masked_parts=masked_parts)
    if model.tracker is not None:
        return TrackerStage(model, noise=noise, masked_parts=masked_parts)
    if masked_parts is not None and tuple(masked_parts) != ("segmenter",):
        raise ConfigError(f"masked_parts: a segmenter is one part, expected None, got {tuple(masked_parts)!r}")
    return SegmenterStage(model, is_contrasted=is_contrasted)


def _freeze_all_but(model: DVIS, trained: Iterable[nn.Module]) -> None:
    model.requires_grad_(False)
    for part in trained:
        part.requires_grad_(True)
    if isinstance(model.backbone, ViTAdapter) and model.backbone.is_frozen:
        model.backbone.vit_module.requires_grad_(False)


def _check(frames: Tensor) -> dict[str, int]:
    sizes = check_shapes(frames=(frames, "b t 3 h w"))
    check_float(frames=frames)
    if 0 in frames.shape:
        raise ShapeError(f"frames: expected (b t 3 h w) with no empty axis, got {tuple(frames.shape)}")
    return sizes


def _on_host(generators: Sequence[torch.Generator] | None, *, count: int) -> Sequence[torch.Generator] | None:
    """Generators for the host, where noise is drawn, one for each clip; one of a device seeds one of the host."""
    if generators is None:
        return None
    if len(generators) not in (1, count):
        raise ConfigError(f"noise_generators: expected one for each of {count} clips, or one, got {len(generators)}")
    hosts = [_host(generator) for generator in generators]
    return hosts * count if len(hosts) == 1 else hosts


def _host(generator: torch.Generator) -> torch.Generator:
    if generator.device.type == "cpu":
        return generator
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return torch.Generator().manual_seed(int(seed))
