"""What ``mvcseg train`` does with its arguments."""

from __future__ import annotations

import argparse

import torch

from mvcseg import loading
from mvcseg.data.files import shown
from mvcseg.segmenter import Segmenter


def train(options: argparse.Namespace) -> None:
    """``mvcseg train``."""
    from mvcseg.training import read_config
    from mvcseg.training import train as run_training

    config = read_config(options.config)
    segmenter = None if options.segmenter is None else _built(options.segmenter, seed=config.seed)
    result = run_training(
        config,
        root=options.vspw,
        out=options.out,
        split=options.split,
        resume=options.resume,
        segmenter=segmenter,
    )
    scores = "".join(f"  {name} {value:.4f}" for name, value in result.scores.items())
    print(f"{result.steps} steps{scores}: {shown(result.model)}")


def _built(reference: str, *, seed: int) -> Segmenter:
    """What the user's function returns, its weights drawn from the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return loading.load_function(reference).segmenter
