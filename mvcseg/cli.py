"""The command line: arguments in, one call of a public function per command, one message on failure."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TypeAlias

from mvcseg import __version__, argument_types, correct_options
from mvcseg.errors import MvcsegError, UsageError

DESCRIPTION = """\
Video semantic segmentation that is right and steady over time.

New here? `mvcseg demo` shows every step on a small made-up data set in under a minute.
"""

EPILOG = """\
Results go to standard output, progress and messages to standard error.
Exit status: 0 done, 1 the command failed (one message says why), 2 wrong usage, 130 interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (argparse itself exits with 2 on wrong usage)."""
    options = build_parser().parse_args(arguments)
    try:
        from mvcseg import commands  # brings every part of the library, which parsing does not need

        command: Callable[[argparse.Namespace], None] = getattr(commands, options.function)
        command(options)
        sys.stdout.flush()
    except UsageError as error:
        print(f"mvcseg: {error}; see --help", file=sys.stderr)
        return 2
    except MvcsegError as error:
        return _failed(options, str(error))
    except KeyboardInterrupt:
        print("mvcseg: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `mvcseg eval ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # no traceback for whoever did not ask for one
        hint = "" if options.debug else " (--debug shows where)"
        return _failed(options, f"unexpected {type(error).__name__}: {' '.join(str(error).split())}{hint}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = argparse.ArgumentParser(
        prog="mvcseg", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"mvcseg {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_demo, _predict, _run, _select, _correct, _vlm_compare, _eval, _train, _report, _inspect, _data):
        add(commands)
    return parser


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _command(commands: Commands, name: str, function: str, summary: str, more: str = "") -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{more}".strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(function=function)
    parser.add_argument("--debug", action="store_true", help="on failure, show the traceback")
    return parser


def _demo(commands: Commands) -> None:
    parser = _command(
        commands,
        "demo",
        "demo",
        "show every step of the method on a small made-up data set, in under a minute",
        "Needs no network and no data. Leaves label maps, an overlay video and report.html in the folder.",
    )
    parser.add_argument("--out", default="mvcseg-demo", metavar="DIR", help="folder to write (default: %(default)s)")


def _predict(commands: Commands) -> None:
    parser = _command(
        commands,
        "predict",
        "predict",
        "write the label map of every frame of one video or of a data set",
        "Label maps are PNGs of class ids: OUT/<video>/<frame>.png, OUT/classes.json.\n"
        "A run that was stopped continues when the same command is given again.\n"
        "From a pipe (-), an online model labels frames as they come, each from it and\n"
        "those before; other models, and --tta, read the pipe to its end first.\n\n"
        "  mvcseg predict clip.mp4 --checkpoint model.safetensors --out masks\n"
        "  mvcseg predict clip.mp4 --checkpoint hf://owner/repo/file.pth --out masks\n"
        "  mvcseg predict --vspw ROOT --split val --segmenter mine.py:build --out masks",
    )
    parser.add_argument("video", nargs="?", metavar="VIDEO|DIR|-", help="video file, folder of frames, or - for a pipe")
    _data_set(parser, required=False)
    _model(parser)
    parser.add_argument(
        "--weights", metavar="F", help="with --segmenter: weights that `mvcseg train` saved, loaded into it"
    )
    _prediction(parser)
    parser.add_argument("--classes", metavar="FILE", help="class names; else the model's, else those of ROOT")
    parser.add_argument(
        "--shard", type=argument_types.shard, metavar="I/N", help="do part I of N of the videos, I from 1 to N"
    )
    parser.add_argument("--raw-ids", action="store_true", help="write raw ids (0 void, 1..K) instead of 0..K-1")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")


def _run(commands: Commands) -> None:
    parser = _command(
        commands,
        "run",
        "run",
        "take one video through the whole method: label maps, overlay video, page",
        "With two checkpoints, the one whose labels follow the motion better is chosen.\n"
        "Label maps are written before a vision-language model is asked anything.\n\n"
        "  mvcseg run clip.mp4 --checkpoint mvc.safetensors --tta --out result",
    )
    parser.add_argument("video", metavar="VIDEO", help="video file or folder of frames")
    parser.add_argument(
        "--checkpoint", action="append", required=True, metavar="F", help=f"{_CHECKPOINT}; again for a second candidate"
    )
    _preset(parser)
    _prediction(parser)
    _vlm(parser, folders=False)
    correct_options.add_limits(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")


def _select(commands: Commands) -> None:
    parser = _command(
        commands,
        "select",
        "select",
        "choose between predictions of a video by optical flow and SSIM, and copy the best",
        "PRED is a folder of label maps, or one that holds <video name>/.\n\n"
        "  mvcseg select clip.mp4 masks-a masks-b --out chosen",
    )
    parser.add_argument("video", metavar="VIDEO", help="video file or folder of frames")
    parser.add_argument("predictions", nargs="+", metavar="PRED", help="two or more folders of label maps")
    parser.add_argument("--classes", metavar="FILE", help=_CLASSES)
    parser.add_argument("--json", action="store_true", help="print one JSON object: name, scores")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the chosen label maps")


def _correct(commands: Commands) -> None:
    parser = _command(
        commands,
        "correct",
        "correct",
        "ask a vision-language model which of several look-alike classes a region is",
        "Sends pictures of the video to the server you name, and nowhere else. The key\n"
        "is read from OPENAI_API_KEY only. --dry-run tells the bill first. Answers are\n"
        "kept in OUT/.answers: the same command again asks none of the answered\n"
        "questions; questions that got no answer are asked again.\n\n"
        "  mvcseg correct clip.mp4 masks --dry-run --out corrected\n"
        "  mvcseg correct clip.mp4 masks --vlm http://localhost:8000/v1 --model llava \\\n"
        "      --out corrected",
    )
    parser.add_argument("video", metavar="VIDEO", help="video file or folder of frames")
    parser.add_argument("prediction", metavar="PRED", help="folder of label maps, or one that holds <video name>/")
    _vlm(parser, folders=True)
    correct_options.add(parser)
    parser.add_argument("--classes", metavar="FILE", help=_CLASSES)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the corrected label maps")


def _vlm_compare(commands: Commands) -> None:
    parser = _command(
        commands,
        "vlm-compare",
        "vlm_compare",
        "ask several vision-language models the same questions and tabulate the answers",
        "Labels are not changed. F lists the models; docs/vlm.md tells its form. With\n"
        "--out, answers are kept: the same command again asks no answered question, but\n"
        "those that got no answer. `mvcseg correct --answers DIR/<name>/changes.json`\n"
        "follows one of the models.\n\n"
        "  mvcseg vlm-compare clip.mp4 masks --models models.yaml --labels truth",
    )
    parser.add_argument("video", metavar="VIDEO", help="video file or folder of frames")
    parser.add_argument("prediction", metavar="PRED", help="folder of label maps, or one that holds <video name>/")
    parser.add_argument("--models", required=True, metavar="F", help="the models to compare (YAML)")
    parser.add_argument("--labels", metavar="DIR", help="ground truth in raw ids; tells which answers are right")
    parser.add_argument("--groups", metavar="F", help="look-alike classes (YAML); VSPW's by default")
    parser.add_argument("--classes", metavar="FILE", help=_CLASSES)
    correct_options.add_shown(parser, views=1)
    parser.add_argument("--max-questions", type=argument_types.count, metavar="N", help="ask each model at most N")
    parser.add_argument(
        "--concurrency", type=argument_types.positive, default=1, metavar="N", help="questions to a model at once"
    )
    parser.add_argument("--device", default="auto", metavar="D", help="for local models: auto, cpu, cuda ...")
    parser.add_argument("--json", action="store_true", help="print one JSON object with every answer")
    parser.add_argument("--out", metavar="DIR", help="folder that keeps answers, a log of each model, comparison.json")


def _eval(commands: Commands) -> None:
    parser = _command(
        commands,
        "eval",
        "evaluate",
        "score predictions on disk as the VSPW scripts do: mIoU, VC8, VC16",
        "Predictions are class ids 0..K-1, ground truth raw ids (0 void, 1..K, 255).\n\n"
        "  mvcseg eval masks --vspw VSPW_480p --split val\n"
        "  mvcseg eval masks --vspw VSPW_480p --split val --propose-groups groups.yaml",
    )
    parser.add_argument("prediction", metavar="PRED", help="folder that holds <video name>/<frame>.png")
    _data_set(parser, required=True)
    parser.add_argument("--classes", metavar="FILE", help="class list; else ROOT's own, else VSPW's 124")
    parser.add_argument("--json", action="store_true", help="print one JSON object, fractions unrounded")
    parser.add_argument(
        "--propose-groups", metavar="F", help="write the classes that are confused to F.yaml, for `mvcseg correct`"
    )


def _train(commands: Commands) -> None:
    parser = _command(
        commands,
        "train",
        "train",
        "train a compact segmenter, a stage of DVIS++ or a model of your own",
        "run.json holds the numbers of the run; docs/training.md lists them. With a mask\n"
        "it trains with masked video consistency, else plainly. A stopped run goes on\n"
        "with --resume.\n\n"
        "  mvcseg train --vspw VSPW_480p --config run.json --out run1\n"
        "  mvcseg train --vspw ROOT --config f.json --segmenter my.py:build --out run2",
    )
    parser.add_argument("--vspw", required=True, metavar="ROOT", help="data set in the VSPW layout")
    parser.add_argument("--split", default="train", metavar="S", help="split to train on (default: %(default)s)")
    parser.add_argument("--config", required=True, metavar="F", help="JSON file with the numbers of the run")
    parser.add_argument(
        "--segmenter",
        metavar="FILE.py:FUNCTION",
        help='your own model, with "model": "own" in F: FUNCTION() returns a Segmenter that is a torch.nn.Module. '
        "Runs FILE.py, so give it only files you trust",
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for checkpoints, log, pictures and the finished model"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in DIR")


def _report(commands: Commands) -> None:
    parser = _command(
        commands,
        "report",
        "report",
        "write one self-contained page to look at: frames, label maps, scores",
        "Without a video, the page shows a training run alone, also while it goes on.\n\n"
        "  mvcseg report clip.mp4 masks-a masks-b --out page.html\n"
        "  mvcseg report --run runs/mvc --out page.html",
    )
    parser.add_argument("video", nargs="?", metavar="VIDEO", help="video file or folder of frames")
    parser.add_argument("predictions", nargs="*", metavar="PRED", help="folders of label maps")
    parser.add_argument("--labels", metavar="DIR", help="ground truth in raw ids; adds the scores")
    parser.add_argument("--changes", metavar="F", help="changes.json of `mvcseg correct`")
    parser.add_argument("--run", metavar="DIR", help="folder of `mvcseg train`; adds its curves and pictures")
    parser.add_argument(
        "--no-flicker",
        dest="flicker",
        action="store_false",
        help="do not look where labels change against the motion (faster)",
    )
    parser.add_argument("--out", required=True, metavar="F", help="page to write, such as page.html")


def _inspect(commands: Commands) -> None:
    parser = _command(
        commands,
        "inspect",
        "inspect",
        "say what a checkpoint is, which preset fits it, and what is missing or extra",
        "Knows models of `mvcseg train`, published DVIS++, DVIS, CTVIS and MinVIS checkpoints, and names others.\n"
        "Nothing in the file is run.\n\n"
        "  mvcseg inspect model_final.pth\n"
        "  mvcseg inspect hf://owner/repo/model_final.pth",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="file, or hf://owner/repo/file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _data(commands: Commands) -> None:
    parser = commands.add_parser("data", help="look after a data set", description="Look after a data set.")
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = _command(
        actions,
        "check",
        "check_data",
        "find every fault of a folder of frames and masks at once",
        "Expects DIR/data/<video>/origin/*.jpg and DIR/data/<video>/mask/*.png; docs/data.md tells the layout.",
    )
    check.add_argument("folder", metavar="DIR", help="data set in the VSPW layout")


_CHECKPOINT = "model of `mvcseg train`, or a published checkpoint (file or hf://owner/repo/file)"
_CLASSES = "class list; else the predictions' classes.json, else VSPW's 124"


def _data_set(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument("--vspw", required=required, metavar="ROOT", help="data set in the VSPW layout")
    parser.add_argument("--split", required=required, metavar="S", help="its split: train, val, test")


def _model(parser: argparse.ArgumentParser) -> None:
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", metavar="F", help=_CHECKPOINT)
    model.add_argument(
        "--segmenter",
        metavar="FILE.py:FUNCTION",
        help="your own: FUNCTION() returns a Segmenter. Runs FILE.py, so give it only files you trust",
    )
    _preset(parser)


def _preset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preset",
        metavar="P",
        help="configuration of a published checkpoint, such as vspw_offline_r50, or a JSON file of one "
        "(default: found from the file; `mvcseg inspect F` tells it)",
    )
    parser.add_argument(
        "--spill-dir", metavar="DIR", help="where such a model keeps what it needs of each frame (default: TMPDIR)"
    )


def _prediction(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tta", action="store_true", help="vote over scales 0.9 to 1.2, each also mirrored")
    parser.add_argument(
        "--scales", type=argument_types.scales, metavar="S,S...", help="scales of --tta (default: 0.9,1.0,1.1,1.2)"
    )
    parser.add_argument("--no-flip", dest="flip", action="store_false", help="no mirrored views in --tta")
    parser.add_argument(
        "--short-side",
        type=argument_types.short_side,
        default="model",
        metavar="N|native",
        help="shorter side in pixels that the model sees (default: the published test size of a preset, 720 and the "
        "longer side at most 1333; else native)",
    )
    parser.add_argument(
        "--clip-length",
        type=argument_types.positive,
        default=8,
        metavar="N",
        help="frames at once (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:1 ... (default: auto)")


def _vlm(parser: argparse.ArgumentParser, *, folders: bool) -> None:
    backend = parser.add_mutually_exclusive_group()
    backend.add_argument("--vlm", metavar="URL", help="OpenAI-compatible server, up to and including /v1")
    if folders:
        backend.add_argument("--local", metavar="DIR", help="folder of an image-text model for transformers")
        backend.add_argument("--zero-shot", metavar="DIR", help="folder of a CLIP or SigLIP model")
    backend.add_argument("--answers", metavar="F", help="recorded answers (JSON), such as an earlier changes.json")
    parser.add_argument("--model", metavar="NAME", help="the server's name for the model, with --vlm")
    parser.add_argument("--groups", metavar="F", help="look-alike classes (YAML); VSPW's by default")
    parser.set_defaults(local=None, zero_shot=None)


def _failed(options: argparse.Namespace, message: str) -> int:
    if options.debug:
        traceback.print_exc()
    print(f"mvcseg: {message}", file=sys.stderr)
    return 1
