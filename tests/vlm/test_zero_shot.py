from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import pytest
import torch
from tiny_vlms import give_siglip_its_own_tokenizer, save_clip, save_llava, save_siglip, save_siglip2
from torch import Tensor

from mvcseg.errors import CheckpointError, ConfigError, DTypeError, MissingExtraError, ShapeError, VLMAnswerError
from mvcseg.vlm import CachedVLM, Group, ZeroShotScorer, correct_labels

CHOICES = ("river", "lake", "sea")
TEXTS = ("a photo of a {}", "the {}.")
Score: TypeAlias = Callable[[Tensor, str], Tensor]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random models, saved as a download would be."""
    pytest.importorskip("transformers")
    saves: list[Callable[[Path], None]] = [save_clip, save_siglip, save_siglip2]
    folders = {}
    for save in saves:
        folder = tmp_path_factory.mktemp("scorer")
        save(folder)
        folders[save.__name__.removeprefix("save_")] = folder
    return folders


@pytest.fixture(scope="module")
def clip(folders: dict[str, Path]) -> ZeroShotScorer:
    return ZeroShotScorer(folders["clip"])


def image(*, seed: int, height: int = 20, width: int = 28) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def normalised(features: Tensor) -> Tensor:
    return features / features.norm(dim=-1, keepdim=True)


def clip_score(folder: Path) -> Score:
    """Scaled cosine of one image and one text, each run alone, unpadded, part by part."""
    import transformers

    model = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)

    def score(picture: Tensor, text: str) -> Tensor:
        ids = torch.tensor([processor.tokenizer(text)["input_ids"]])
        pixels = processor.image_processor(picture, return_tensors="pt")["pixel_values"]
        said = model.text_projection(model.text_model(input_ids=ids).last_hidden_state[:, -1])
        seen = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
        return (model.logit_scale.exp() * normalised(seen) @ normalised(said).mT).detach().squeeze()

    return score


def siglip_score(folder: Path) -> Score:
    """The same for SigLIP, whose texts fill the window of twelve and are read off its last place."""
    import transformers

    model = transformers.SiglipModel.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)

    def score(picture: Tensor, text: str) -> Tensor:
        ids = processor.tokenizer(text)["input_ids"]
        window = torch.tensor([ids + [processor.tokenizer.pad_token_id] * (12 - len(ids))])
        pixels = processor.image_processor(picture, return_tensors="pt")["pixel_values"]
        said = model.text_model.head(model.text_model(input_ids=window).last_hidden_state[:, -1])
        seen = model.vision_model(pixel_values=pixels).pooler_output
        return (model.logit_scale.exp() * normalised(seen) @ normalised(said).mT + model.logit_bias).detach().squeeze()

    return score


@pytest.mark.parametrize(("kind", "score_of"), [("clip", clip_score), ("siglip", siglip_score)])
def test_shares_are_those_of_the_model_called_by_hand(
    folders: dict[str, Path], kind: str, score_of: Callable[[Path], Score]
) -> None:
    score = score_of(folders[kind])
    pictures = [image(seed=0), image(seed=1, height=40, width=30)]
    scorer = ZeroShotScorer(folders[kind], template=TEXTS)
    mean = torch.zeros(len(CHOICES))
    for position, name in enumerate(CHOICES):
        for picture in pictures:
            for text in TEXTS:
                mean[position] += score(picture, text.replace("{}", name)) / 4
    shares = scorer.shares(pictures, choices=CHOICES)
    assert shares == pytest.approx(mean.softmax(dim=0).tolist(), abs=1e-5)
    assert sum(shares) == pytest.approx(1)
    assert scorer(pictures, "?", choices=CHOICES) == CHOICES[int(mean.argmax())]


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
def test_answer_depends_on_images_and_names_and_on_nothing_else(folders: dict[str, Path], kind: str) -> None:
    scorer = ZeroShotScorer(folders[kind])
    answers = {scorer([image(seed=2)], prompt, choices=CHOICES) for prompt in ("", "Say sea.", "Is it a lake?")}
    assert len(answers) == 1
    assert answers <= set(CHOICES)
    shares = scorer.shares([image(seed=2)], choices=CHOICES)
    assert scorer.shares([image(seed=2)], choices=CHOICES) == shares
    assert scorer.shares([image(seed=2)], choices=CHOICES[::-1]) == pytest.approx(shares[::-1], abs=1e-6)
    assert scorer.shares([image(seed=3)], choices=CHOICES) != pytest.approx(shares, abs=1e-6)


def test_shape_of_the_images_is_kept_where_the_model_can(folders: dict[str, Path]) -> None:
    """SigLIP 2's patches: a wide image and its transpose differ, and both go in one batch."""
    scorer = ZeroShotScorer(folders["siglip2"])
    wide, tall = image(seed=4, height=32, width=96), image(seed=4, height=96, width=32)
    together = scorer.shares([wide, tall], choices=CHOICES)
    apart = [torch.tensor(scorer.shares([one], choices=CHOICES)).log() for one in (wide, tall)]
    assert together == pytest.approx((sum(apart) / 2).softmax(dim=0).tolist(), abs=1e-5)  # type: ignore[union-attr]


def test_names_are_scored_as_they_are_said_and_come_back_as_given(clip: ZeroShotScorer) -> None:
    names = ("the_river", "a_sea")
    assert clip.shares([image(seed=0)], choices=names) == clip.shares([image(seed=0)], choices=("the river", "a sea"))
    assert clip([image(seed=0)], choices=names) in names


def test_braces_in_a_name_are_text(clip: ZeroShotScorer) -> None:
    assert len(clip.shares([image(seed=0)], choices=("{0}", "{} lake", "sea"))) == 3


def test_case_says_nothing_to_siglip(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = ZeroShotScorer(folders["siglip"])
    scorer._processor.tokenizer.backend_tokenizer.normalizer = None  # the tiny tokenizer's own lower case
    upper = scorer.shares([image(seed=0)], choices=("LAKE", "Sea"))
    assert upper == scorer.shares([image(seed=0)], choices=("lake", "sea"))


def test_own_tokenizer_of_siglip_is_padded_to_its_window(folders: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    shutil.copytree(folders["siglip"], tmp_path / "model")
    give_siglip_its_own_tokenizer(tmp_path / "model")
    scorer = ZeroShotScorer(tmp_path / "model", template="{}")
    assert type(scorer._processor.tokenizer).__name__ == "SiglipTokenizer"
    inputs = scorer._inputs([image(seed=0)], ["sea", "a"])
    assert set(inputs) == {"input_ids", "pixel_values"}
    assert inputs["input_ids"].shape == (2, 12)
    assert (inputs["input_ids"][:, -1] == 1).all()  # its padding and its end are one
    assert scorer([image(seed=0)], choices=("sea", "a")) in ("sea", "a")


def test_text_longer_than_the_window_is_cut(clip: ZeroShotScorer, folders: dict[str, Path]) -> None:
    long = "lake " * 50
    for scorer in (clip, ZeroShotScorer(folders["siglip"])):
        assert len(scorer.shares([image(seed=0)], choices=(long, "sea"))) == 2


def test_margin_below_the_bound_is_undecided(folders: dict[str, Path]) -> None:
    shares = sorted(ZeroShotScorer(folders["clip"]).shares([image(seed=0)], choices=CHOICES))
    margin = shares[-1] - shares[-2]
    below = ZeroShotScorer(folders["clip"], min_margin=margin * 0.999)
    assert below([image(seed=0)], choices=CHOICES) in CHOICES
    above = ZeroShotScorer(folders["clip"], min_margin=margin * 1.001)
    with pytest.raises(VLMAnswerError, match=r"undecided: \w+ 4\d\.\d%, \w+ 3\d\.\d%"):
        above([image(seed=0)], choices=CHOICES)


def test_two_names_that_score_the_same_are_undecided(clip: ZeroShotScorer) -> None:
    with pytest.raises(VLMAnswerError, match=r"undecided: .* 50\.0%, .* 50\.0%"):
        clip([image(seed=0)], choices=("pond", "brook"))  # both unknown to the tiny tokenizer


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_an_error(folders: dict[str, Path], value: float) -> None:
    scorer = ZeroShotScorer(folders["clip"])
    with torch.no_grad():
        scorer._model.logit_scale.fill_(value)
    with pytest.raises(VLMAnswerError, match="no finite numbers"):
        scorer([image(seed=0)], choices=CHOICES)


def test_runtime_failure_is_a_vlm_answer_error(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = ZeroShotScorer(folders["clip"])

    def run_out(**_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(scorer._model, "forward", run_out)
    with pytest.raises(VLMAnswerError, match="out of memory"):
        scorer([image(seed=0)], choices=CHOICES)


def test_threads_get_what_one_gets(clip: ZeroShotScorer) -> None:
    lists = [CHOICES[:2], CHOICES, ("a photo of the sea", "lake")] * 6
    alone = [clip.shares([image(seed=5)], choices=choices) for choices in lists]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda choices: clip.shares([image(seed=5)], choices=choices), lists))
    assert together == alone


def test_half_precision_weights_take_the_pictures(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        scorer = ZeroShotScorer(folder, dtype=torch.bfloat16)
        assert "bfloat16" in scorer.identity
        assert sum(scorer.shares([image(seed=0)], choices=CHOICES)) == pytest.approx(1)


def test_identity_tells_models_templates_margins_and_weights_apart(folders: dict[str, Path]) -> None:
    scorers = [
        ZeroShotScorer(folders["clip"]),
        ZeroShotScorer(folders["siglip"]),
        ZeroShotScorer(folders["clip"], template=TEXTS),
        ZeroShotScorer(folders["clip"], template=TEXTS[1]),
        ZeroShotScorer(folders["clip"], min_margin=0.1),
        ZeroShotScorer(folders["clip"], dtype=torch.bfloat16),
    ]
    assert len({scorer.identity for scorer in scorers}) == len(scorers)
    assert ZeroShotScorer(f"hf://{folders['clip']}").identity == scorers[0].identity


def test_other_weights_in_the_same_folder_are_another_answerer(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["clip"], folder)
    before = ZeroShotScorer(folder).identity
    shutil.rmtree(folder)
    save_clip(folder, seed=1)
    assert ZeroShotScorer(folder).identity != before


def test_correction_runs_through_a_scorer_and_its_cache(clip: ZeroShotScorer, tmp_path: Path) -> None:
    labels = torch.ones(2, 20, 28, dtype=torch.uint8)
    video = torch.stack([image(seed=6), image(seed=7)])
    cached = CachedVLM(clip, tmp_path)
    result = correct_labels(video, labels, vlm=cached, groups=[Group("water", (1, 2))], class_names=["sky", *CHOICES])
    (change,) = result.changes
    assert change.answer in CHOICES[:2]
    assert change.status in ("changed", "confirmed")
    kept = [json.loads(path.read_text()) for path in tmp_path.rglob("*.json")]
    assert {entry["model"] for entry in kept} == {clip.identity}


def test_wrong_images_and_choices_are_refused(clip: ZeroShotScorer) -> None:
    with pytest.raises(DTypeError, match="expected uint8"):
        clip([torch.zeros(3, 4, 5)], choices=CHOICES)
    with pytest.raises(ShapeError, match="3 h w"):
        clip([torch.zeros(1, 4, 5, dtype=torch.uint8)], choices=CHOICES)
    for images, choices in (([image(seed=0)], ("lake",)), ([image(seed=0)], ()), ([], CHOICES)):
        with pytest.raises(ConfigError, match="expected an image and at least two choices"):
            clip(images, choices=choices)


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "a photo of a {0}", (), ("a {}", "a photo")])
def test_template_without_one_place_for_the_name_is_refused(template: str | tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="template: expected"):
        ZeroShotScorer("anything", template=template)


@pytest.mark.parametrize("margin", [-0.1, 1.1, float("nan")])
def test_margin_outside_its_range_is_refused(margin: float) -> None:
    with pytest.raises(ConfigError, match="min_margin"):
        ZeroShotScorer("anything", min_margin=margin)


def test_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    save_llava(tmp_path)
    with pytest.raises(CheckpointError, match=f"{tmp_path}: expected a model that scores .*, got Llava"):
        ZeroShotScorer(tmp_path)


def test_missing_transformers_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "mvcseg\[hf\]"'):
        ZeroShotScorer("anything")
