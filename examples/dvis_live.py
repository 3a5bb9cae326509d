"""DVIS++ on a stored video and on a live one: labels with the whole video at hand, and as frames come.

With a published checkpoint: python examples/dvis_live.py online_r50.pth
Without one, a small model of random weights shows the calls.
"""

import sys

import torch

import mvcseg
from mvcseg.models.dvis import BACKBONES, DVISConfig, build_dvis, load_official
from mvcseg.models.dvis.causal import CausalState


def main() -> None:
    if len(sys.argv) > 1:
        model = load_official(sys.argv[1], preset="vspw_online_r50")
    else:
        torch.manual_seed(0)
        small = {"num_queries": 10, "tracker_layers": 1, "hidden": 64}
        model = build_dvis(
            DVISConfig(
                BACKBONES["ResNet-50"], num_classes=5, class_order=None, has_reid=True, has_tracker=True, **small
            )
        )
    video = torch.randint(0, 256, (6, 3, 64, 96), dtype=torch.uint8)

    whole = mvcseg.predict_labels(model, video, clip_length=3)

    state = CausalState()  # all that is remembered, of fixed size
    first = list(model.stream_causal(video[:4], state=state))  # any iterable of frames, endless ones too
    rest = list(model.stream_causal(video[4:], state=state))
    live = torch.stack(first + rest)

    print(f"frames seen: {state.frames}")
    print(f"last frame as with the whole video: {torch.equal(live[-1].long(), whole[-1])}")


if __name__ == "__main__":
    main()
