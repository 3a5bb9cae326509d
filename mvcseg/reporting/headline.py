"""What a report says in short: which prediction is steadier, which is more accurate, where each fails.

Plain sentences for a reader who never heard of the scores or the predictions. Numbers that look the same when
they are printed are called equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mvcseg.report.text import where
from mvcseg.reporting.corrections import Correction
from mvcseg.reporting.failures import failures, listed, percent
from mvcseg.reporting.scores import CLIP, VideoScores
from mvcseg.reporting.worst import WorstClip

MOST_NAMED = 4
"""Predictions named beside the best; of more only the range is said."""
FLICKER_FREE = "flicker-free pixels"
"""Score of a clip without ground truth."""
SLIGHT = 0.005
"""Difference of two scores below which one is called slightly better."""
SLIGHT_FLICKER = 0.0005
"""The same for shares of flickering pixels."""


def truth_headline(
    scores: Mapping[str, VideoScores],
    *,
    class_names: Sequence[str],
    worst: Sequence[WorstClip],
    correction: Correction | None = None,
) -> list[str]:
    """Paragraphs on predictions that were compared with ground truth: who is better, where each fails."""
    steady = _rank({name: each.consistency[CLIP] for name, each in scores.items()}, best=max)
    accurate = _rank({name: each.miou.compute() for name, each in scores.items()}, best=max)
    has_clips = any(len(each.clips) for each in scores.values())
    said = [_steadier(steady, has_clips=has_clips), _more_accurate(accurate, steady)]
    failed = [failures(name, each, class_names) for name, each in scores.items()]
    return _paragraphs(_together(said), _corrected(correction, scores), *failed, _worst_places(worst, f"VC{CLIP}"))


def plain_headline(
    flicker: Mapping[str, float],
    *,
    flickering_class: Mapping[str, tuple[str, float]],
    worst: Sequence[WorstClip],
    is_compensated: bool,
) -> list[str]:
    """Paragraphs on predictions without ground truth.

    Args:
        flicker: by prediction, share of pixels that change class from one frame to the next.
        flickering_class: by prediction, the class that flickers most, and the share of its pixels that do.
        worst: clips with the largest share of such pixels; score is the share of the others.
        is_compensated: ``flicker`` leaves out what the motion explains.
    """
    how = "flicker (change class from one frame to the next though nothing moved there)"
    if not is_compensated:
        how = "change class from one frame to the next, be it for motion or not"
    ranking = _rank(flicker, best=min)
    steadier = _compared(
        ranking, "steady", "steadier", slight=SLIGHT_FLICKER, claim=lambda its, share: f"{share} of {its} pixels {how}"
    )
    which = "which of them is right" if len(flicker) > 1 else "whether it is right"
    said = [steadier, f"Nothing here says {which}: there is no ground truth."]
    classes = [f"{n} flickers most on {c}: {percent(s)} of its pixels." for n, (c, s) in flickering_class.items()]
    return _paragraphs(_together(said), _together(classes), _worst_places(worst, FLICKER_FREE))


@dataclass(frozen=True)
class _Ranking:
    """Predictions by a score: the best (several where they look equal), then the others, the better ones first."""

    first: list[str]
    top: float
    rest: dict[str, float]


def _rank(values: Mapping[str, float], *, best: Callable[..., float]) -> _Ranking:
    known = {name: value for name, value in values.items() if math.isfinite(value)}
    if not known:
        return _Ranking([], math.nan, {})
    top = best(known.values())
    first = [name for name, value in known.items() if percent(value) == percent(top)]
    rest = sorted((name for name in known if name not in first), key=lambda name: abs(known[name] - top))
    return _Ranking(first, top, {name: known[name] for name in rest})


def _steadier(ranking: _Ranking, *, has_clips: bool) -> str:
    if not ranking.first and not has_clips:
        return f"The video is too short for a score of steadiness, which takes more than {CLIP} frames."
    if not ranking.first:
        return f"Nowhere does the true class stay the same for {CLIP} frames, so there is no score of steadiness."

    def claim(its: str, share: str) -> str:
        so_does = "so do their predictions" if its == "their" else "so does its prediction"
        return f"where the true class stays the same for {CLIP} frames, {so_does} on {share} of the pixels (VC{CLIP})"

    return _compared(ranking, "steady", "steadier", slight=SLIGHT, claim=claim)


def _more_accurate(ranking: _Ranking, steady: _Ranking) -> str:
    if not ranking.first:
        return "No pixel has a true class, so nothing here says what is right."
    if len(ranking.first) == 1 and not ranking.rest:
        return f"Its mIoU is {percent(ranking.top)}."
    if ranking.rest and ranking.first == steady.first and len(ranking.first) == 1:
        also = f"It is also {_slightly(ranking, SLIGHT)}more accurate"
        return f"{also}: mIoU {percent(ranking.top)}{_against(ranking.rest)}."
    but = "But " if ranking.rest and steady.rest and not set(ranking.first) & set(steady.first) else ""
    return but + _compared(
        ranking, "accurate", "more accurate", slight=SLIGHT, claim=lambda its, share: f"mIoU {share}"
    )


def _compared(
    ranking: _Ranking, adjective: str, comparative: str, *, slight: float, claim: Callable[[str, str], str]
) -> str:
    """One sentence on who is best, and by how much; ``claim`` says it from a possessive and a share."""
    if not ranking.first:
        return ""
    first, rest = ranking.first, ranking.rest
    said = claim("its" if len(first) == 1 else "their", percent(ranking.top)) + _against(rest)
    if not rest:
        who = {1: f"{first[0]}", 2: f"Both are equally {adjective}"}.get(len(first), f"All are equally {adjective}")
    elif len(first) > 1:
        who = f"{listed(first)} are equally {adjective}, and {comparative} than {_others(rest)}"
    else:
        who = f"{first[0]} is {_slightly(ranking, slight)}{comparative} than {_others(rest)}"
    return f"{who}: {said}."


def _others(rest: Mapping[str, float]) -> str:
    return next(iter(rest)) if len(rest) == 1 else f"the other {len(rest)}"


def _against(rest: Mapping[str, float]) -> str:
    if not rest:
        return ""
    shares = [percent(share) for share in rest.values()]
    if len(rest) == 1:
        return f", against {shares[0]}"
    if len(rest) <= MOST_NAMED:
        return f", against {listed([f'{share} for {name}' for name, share in zip(rest, shares, strict=True)])}"
    return f", against {shares[0]} to {shares[-1]}"


def _slightly(ranking: _Ranking, slight: float) -> str:
    return "slightly " if abs(ranking.top - next(iter(ranking.rest.values()))) < slight else ""


def _corrected(correction: Correction | None, scores: Mapping[str, VideoScores]) -> str:
    """Whether a correction helped, where both the labels before and after it are there."""
    if correction is None or not correction.made:
        return ""
    before, after = (scores[name].miou.compute() for name in (correction.of[0], correction.made))
    if not (math.isfinite(before) and math.isfinite(after)):
        return ""
    if percent(before) == percent(after):
        how, score = "as accurate", f"mIoU {percent(after)}, as before"
    else:
        how = f"{'more' if after > before else 'less'} accurate"
        score = f"mIoU {percent(after)}, against {percent(before)} before"
    did = f"{correction.fixed:,} pixels went from wrong to right, {correction.broken:,} from right to wrong"
    return (
        f"{correction.made} is {correction.of[0]} as the vision-language model corrected it, and {how}: {score}; {did}."
    )


def _worst_places(worst: Sequence[WorstClip], measure: str) -> str:
    """The worst clip of each prediction."""
    places: dict[str, str] = {}
    for clip in worst:
        frames = where(*clip.frames)
        place = f"{frames[0].lower()}{frames[1:]} of {clip.prediction} ({measure} {percent(clip.score)})"
        places.setdefault(clip.prediction, place)
    if not places:
        return ""
    return f"Steadiness is worst in {listed(list(places.values())[:MOST_NAMED])}."


def _together(sentences: Sequence[str]) -> str:
    return " ".join(sentence for sentence in sentences if sentence)


def _paragraphs(*texts: str) -> list[str]:
    return [text for text in texts if text]
