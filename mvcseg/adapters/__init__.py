"""Other libraries' models as segmenters of this one; none of those libraries is imported before it is needed."""

from mvcseg.adapters.eomt import anneal_attention_masks
from mvcseg.adapters.query_segmenter import QuerySegmenter, predict_queries, set_objective
from mvcseg.adapters.transformers import from_transformers
from mvcseg.adapters.videomt import VideomtSegmenter, VideomtState

__all__ = [
    "QuerySegmenter",
    "VideomtSegmenter",
    "VideomtState",
    "anneal_attention_masks",
    "from_transformers",
    "predict_queries",
    "set_objective",
]
