"""``mvcseg demo``: every step of the report on a toy set, with what there is to look at."""

from mvcseg.demo.run import DEFAULT_FOLDER, NUM_VIDEOS, demo
from mvcseg.demo.show import DemoResult, folder_name, summary
from mvcseg.demo.steps import STEPS, WATER, Decided, run_steps

__all__ = [
    "DEFAULT_FOLDER",
    "NUM_VIDEOS",
    "STEPS",
    "WATER",
    "Decided",
    "DemoResult",
    "demo",
    "folder_name",
    "run_steps",
    "summary",
]
