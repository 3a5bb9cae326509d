"""Which options of a command go together, and what they mean together."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mvcseg.errors import UsageError

if TYPE_CHECKING:
    from mvcseg.tta import View


def check_predict(options: argparse.Namespace) -> None:
    """Require options of ``mvcseg predict`` that fit each other.

    Raises:
        UsageError: two of them contradict, or one needs another.
    """
    if (options.video is None) == (options.vspw is None):
        raise UsageError("predict: expected either VIDEO or --vspw ROOT --split S")
    if (options.vspw is None) != (options.split is None):
        raise UsageError("predict: --vspw and --split go together")
    if options.segmenter is not None and (options.preset is not None or options.spill_dir is not None):
        raise UsageError("predict: --preset and --spill-dir go with --checkpoint")
    if options.weights is not None and options.segmenter is None:
        raise UsageError("predict: --weights goes with --segmenter")
    if options.shard is not None and options.video == "-":
        raise UsageError("predict: --shard divides several videos, and a pipe is one")


def views_of(options: argparse.Namespace) -> tuple[View, ...] | None:
    """The views that ``--tta``, ``--scales`` and ``--no-flip`` ask for; None without ``--tta``.

    Raises:
        UsageError: ``--scales`` or ``--no-flip`` without ``--tta``.
        ConfigError: a scale is not a finite number above 0, or given twice.
    """
    from mvcseg.tta import multiscale_flip

    if options.tta:
        return (
            multiscale_flip(flip=options.flip)
            if options.scales is None
            else multiscale_flip(options.scales, flip=options.flip)
        )
    if options.scales is not None or not options.flip:
        raise UsageError("--scales and --no-flip say which views --tta votes over; give --tta too")
    return None
