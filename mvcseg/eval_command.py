"""What ``mvcseg eval`` does with its arguments."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from mvcseg.data.files import shown
from mvcseg.errors import DataError
from mvcseg.evaluation import evaluate as score


def evaluate(options: argparse.Namespace) -> None:
    """``mvcseg eval``."""
    if options.propose_groups is not None and os.path.lexists(options.propose_groups):
        # A proposal is edited by its reader, whose work must not be lost to a second run.
        raise DataError(f"{shown(options.propose_groups)}: is there already; remove it or choose another name")
    result = score(options.prediction, root=options.vspw, split=options.split, classes=options.classes)
    print(json.dumps(dict(result)) if options.json else result.table())
    if options.propose_groups is not None:
        _propose_groups(options.propose_groups, result.confusion, class_names=tuple(result.per_class))


def _propose_groups(path: str, matrix: Tensor, *, class_names: Sequence[str]) -> None:
    from mvcseg.vlm import confusion_groups, write_groups
    from mvcseg.vlm.group_file import told_without_truth

    groups = confusion_groups(matrix, class_names=class_names)
    for line in told_without_truth(matrix, class_names=class_names):
        print(line, file=sys.stderr)
    if not groups:
        print("no two classes with ground truth are confused by 10 % or more; no groups are proposed", file=sys.stderr)
        return
    write_groups(Path(path), groups, class_names=class_names, matrix=matrix)
    count = f"{len(groups)} group{'' if len(groups) == 1 else 's'}"
    print(f"{count} of look-alike classes proposed, to be read and edited: {shown(path)}", file=sys.stderr)
