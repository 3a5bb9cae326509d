"""Class correction by vision-language models: ask which of several look-alike classes a region is."""

from mvcseg.vlm.cache import CachedVLM
from mvcseg.vlm.changes import Change, ViewAnswer, read_changes, write_changes
from mvcseg.vlm.client import VLM, ReplayVLM, images_digest, most_views
from mvcseg.vlm.compare import compare_vlms
from mvcseg.vlm.comparison import Compared, Comparison, Price
from mvcseg.vlm.confusion import confusion_groups, confusion_shares
from mvcseg.vlm.correct import Correction, correct_labels
from mvcseg.vlm.group_file import read_groups, write_groups
from mvcseg.vlm.groups import VSPW_GROUPS, Group
from mvcseg.vlm.local import LocalVLM
from mvcseg.vlm.openai import OpenAIVLM
from mvcseg.vlm.prompt import MARK_PROMPT, OUTLINE_PROMPT, PROMPTS, REPORT_PROMPT, parse_answer, question_text
from mvcseg.vlm.questions import Plan, Question, plan_questions, question_images
from mvcseg.vlm.tokens import ANSWER_TOKENS, estimate_tokens
from mvcseg.vlm.usage import Usage
from mvcseg.vlm.zero_shot import ZeroShotScorer

__all__ = [
    "ANSWER_TOKENS",
    "MARK_PROMPT",
    "OUTLINE_PROMPT",
    "PROMPTS",
    "REPORT_PROMPT",
    "VLM",
    "VSPW_GROUPS",
    "CachedVLM",
    "Change",
    "Compared",
    "Comparison",
    "Correction",
    "Group",
    "LocalVLM",
    "OpenAIVLM",
    "Plan",
    "Price",
    "Question",
    "ReplayVLM",
    "Usage",
    "ViewAnswer",
    "ZeroShotScorer",
    "compare_vlms",
    "confusion_groups",
    "confusion_shares",
    "correct_labels",
    "estimate_tokens",
    "images_digest",
    "most_views",
    "parse_answer",
    "plan_questions",
    "question_images",
    "question_text",
    "read_changes",
    "read_groups",
    "write_changes",
    "write_groups",
]
