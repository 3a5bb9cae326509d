"""Training runs: what is trained, for how long, and how a run survives being killed."""

from mvcseg.training.config import TrainConfig, read_config
from mvcseg.training.loop import TrainResult, train
from mvcseg.training.published import PUBLISHED
from mvcseg.training.run_folder import read_log

__all__ = ["PUBLISHED", "TrainConfig", "TrainResult", "read_config", "read_log", "train"]
