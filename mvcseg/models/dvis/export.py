"""The frame-wise segmenter as a graph of one frame size: an exported program, or a file for ONNX runtimes.

What follows the segmenter, tracker, refiner and pooling over the video, has a memory and stays in Python.
"""

from __future__ import annotations

import importlib
import os

import torch
from torch import Tensor, nn

from mvcseg.data.files import shown, write_aside
from mvcseg.errors import ConfigError, MissingExtraError
from mvcseg.models.dvis.model import DVIS
from mvcseg.shapes import check_positive

OPSET = 18
"""Version of the ONNX operators; bilinear sampling needs 16."""
LARGEST_FILE = 2**31 - 2**24
"""Most bytes of weights in one ONNX file: the format ends at 2 GiB, and the graph needs some."""
INPUT, OUTPUTS = "frames", ("class_logits", "mask_logits")
"""Names in an ONNX file."""


class FrameSegmenter(nn.Module):
    """The segmenter of a model alone: frames in, what every query says out. Shares the model's weights.

    Args:
        model: its backbone and head are used.
    """

    def __init__(self, model: DVIS) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Class and mask logits of N frames.

        Args:
            frames: ``(N, 3, H, W)`` RGB in ``[0, 1]``; normalised and padded to multiples of 32 here.

        Returns:
            Class logits ``(N, Q, K + 1)``, classes in the order of training and "no object" last; mask logits
            ``(N, Q, Hp / 4, Wp / 4)`` of the padded frame.
        """
        queries = self.model.segment(frames)
        return queries.class_logits, queries.masks()


def export_program(model: DVIS, *, size: tuple[int, int]) -> torch.export.ExportedProgram:
    """``FrameSegmenter`` of one frame as a graph, for ``torch.export.save`` or a compiler.

    Args:
        model: in eval mode, or it is exported as it trains.
        size: ``(H, W)`` of the frames, any; padding is in the graph.

    Raises:
        ConfigError: a side is below 1.
    """
    check_positive(height=size[0], width=size[1])
    weight = model.sem_seg_head.predictor.query_feat.weight
    frames = torch.zeros(1, 3, *size, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        return torch.export.export(FrameSegmenter(model), (frames,))


def export_onnx(model: DVIS, path: str | os.PathLike[str], *, size: tuple[int, int]) -> None:
    """Write ``FrameSegmenter`` of one frame as an ONNX file, weights included.

    Input ``frames``, outputs ``class_logits`` and ``mask_logits``, as there with N = 1. The file appears under
    its name when it is complete.

    Args:
        model: in eval mode.
        path: of the file.
        size: ``(H, W)`` of the frames, any; padding is in the graph.

    Raises:
        MissingExtraError: the packages of the extra ``export`` are missing.
        ConfigError: a side is below 1, the model trains, or its weights exceed the 2 GiB of an ONNX file.
        DataError: the file cannot be written.

    Example:
        >>> export_onnx(model, "segmenter.onnx", size=(480, 853))  # doctest: +SKIP
    """
    for package in ("onnx", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingExtraError.for_package(package, extra="export") from error
    if model.training:
        raise ConfigError("model: expected eval mode, since dropout and batch norm differ while training; model.eval()")
    parts = (model.backbone, model.sem_seg_head)
    weights = sum(p.numel() * p.element_size() for part in parts for p in part.parameters())
    if weights > LARGEST_FILE:
        raise ConfigError(
            f"{shown(path)}: the segmenter has {weights / 2**30:.1f} GiB of weights, an ONNX file holds 2; "
            "model.half() halves them, and export_program has no limit"
        )
    program = export_program(model, size=size)
    with write_aside(path) as part:
        torch.onnx.export(
            program,
            f=part,
            input_names=[INPUT],
            output_names=OUTPUTS,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
