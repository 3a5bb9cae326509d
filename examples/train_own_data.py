"""Train the compact segmenter on a folder in the VSPW layout, stop, go on, and label a video with the result."""

from __future__ import annotations

import tempfile
from pathlib import Path

import mvcseg
from mvcseg.data.toy import write_toy_set
from mvcseg.data.vspw import VSPW
from mvcseg.models.compact_checkpoint import load_compact
from mvcseg.training import TrainConfig, read_log, train


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    # Your own data: train.txt and val.txt with a video name a line, data/<video>/origin/*.jpg and, for each frame,
    # data/<video>/mask/*.png (0 void, 1..K classes), label_num_dic_final.json {"others": "0", "sky": "1", ...}.
    root = write_toy_set(folder / "toy", videos={"train": 2, "val": 1}, frames=9, size=(48, 64))

    config = TrainConfig(
        steps=24,  # thousands for real data
        width=8,
        clip_length=3,
        crop_size=(32, 48),
        batch_size=2,
        mask=mvcseg.PatchMask(patch_size=8, ratio=0.5),  # None trains plainly
        learning_rate=3e-3,
        checkpoint_every=8,
        eval_every=24,
    )
    out = folder / "run"
    train(config, root=root, out=out)
    result = train(config, root=root, out=out, resume=True)  # nothing left to do; after a kill it goes on

    for line in read_log(out):
        if "loss" in line and line["step"] % 6 == 0:
            print(f"step {line['step']}: clean {line['loss_clean']:.3f}, masked {line['loss_masked']:.3f}")
    print({name: round(value, 3) for name, value in result.scores.items()})

    segmenter = load_compact(result.model)
    video = VSPW(root, split="val")[0]
    labels = mvcseg.predict_labels(segmenter, video.frames, clip_length=8)
    print(labels.shape, [segmenter.class_names[index] for index in labels.unique().tolist()][:3])


if __name__ == "__main__":
    main()
