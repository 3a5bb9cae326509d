"""Options that say what is shown, what is asked, and what it may cost, of ``mvcseg correct`` and ``vlm-compare``."""

from __future__ import annotations

import argparse

from mvcseg.argument_types import count, positive, price, share


def add(parser: argparse.ArgumentParser) -> None:
    """Add all of them to the parser of ``mvcseg correct``."""
    add_shown(parser, views=3)
    _add_bill(parser)


def add_shown(parser: argparse.ArgumentParser, *, views: int) -> None:
    """Add those that say what is shown and asked.

    Args:
        parser: a command's.
        views: the default of ``--views``.
    """
    shown = parser.add_argument_group("what is shown and asked")
    shown.add_argument(
        "--views",
        type=positive,
        default=views,
        metavar="N",
        help="most views of a region, which vote (default: %(default)s)",
    )
    shown.add_argument(
        "--view",
        choices=("outline", "mark", "frame"),
        default="outline",
        help="the region outlined or tinted in its surroundings, or the whole frame (default: outline)",
    )
    shown.add_argument(
        "--prompt",
        metavar="P",
        help="the question: report (the report's, about the whole image), outline, mark, or your own text with "
        "{stuff} and {classes} (default: the one that fits --view)",
    )
    shown.add_argument(
        "--agreement",
        type=share,
        default=1.0,
        metavar="A",
        help="share of the views that must name one class before labels change (default: 1, all)",
    )
    _add_areas(shown)
    shown.add_argument(
        "--flow",
        choices=("farneback", "none"),
        default="farneback",
        help="how regions are followed; none compares them in place, which is faster (default: farneback)",
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add those that keep down what is asked, to the parser of ``mvcseg run``, and none of the prices."""
    limits = parser.add_argument_group("what is asked, with --vlm or --answers")
    _add_areas(limits)
    _add_max_questions(limits)
    parser.set_defaults(price_input=None, price_output=None)


def _add_areas(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--min-area",
        type=share,
        default=0.001,
        metavar="A",
        help="leave regions alone that never cover this share of the frame (default: 0.001)",
    )
    group.add_argument(
        "--max-area",
        type=share,
        default=1.0,
        metavar="A",
        help="leave regions alone that ever cover more than this share of the frame (default: 1, none)",
    )


def _add_max_questions(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--max-questions", type=count, metavar="N", help="ask at most N questions, about the largest regions"
    )


def _add_bill(parser: argparse.ArgumentParser) -> None:
    bill = parser.add_argument_group("what it may cost")
    bill.add_argument("--dry-run", action="store_true", help="print what would be asked and the bill, ask nothing")
    _add_max_questions(bill)
    bill.add_argument("--price-input", type=price, metavar="M", help="money a million tokens of questions cost")
    bill.add_argument("--price-output", type=price, metavar="M", help="money a million tokens of answers cost")
    bill.add_argument(
        "--concurrency", type=positive, default=1, metavar="N", help="regions asked about at once (default: 1)"
    )
    bill.add_argument("--cache", metavar="DIR", help="where answers are kept (default: OUT/.answers)")
    bill.add_argument(
        "--device", default="auto", metavar="D", help="for --local and --zero-shot: auto, cpu, cuda ... (default: auto)"
    )
