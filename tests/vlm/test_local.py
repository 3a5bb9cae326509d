from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from mvcseg.errors import CheckpointError, ConfigError, DTypeError, MissingExtraError, ShapeError, VLMAnswerError
from mvcseg.vlm import Group, LocalVLM, correct_labels

WORDS = ["is", "the", "water", "in", "image", "a", "river", "lake", "sea", "user", "assistant", ":", "?", ",", "."]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of random weights with a tokenizer of whole words, saved as a download would be."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", "<pad>", "<image>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.normalizer, words.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    small = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**small, image_size=16, patch_size=8),
        text_config=transformers.LlamaConfig(
            **small,
            initializer_range=1.0,
            num_key_value_heads=2,
            vocab_size=len(vocabulary),
            max_position_embeddings=256,
            eos_token_id=2,
        ),
        image_token_index=vocabulary["<image>"],
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("llava")
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vlm(model_folder: Path) -> LocalVLM:
    return LocalVLM(model_folder, max_new_tokens=6)


def image(*, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, 20, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_answers_in_words_of_the_vocabulary_without_the_question(vlm: LocalVLM) -> None:
    answer = vlm([image(seed=0)], "Is the water in the image a river, lake?", choices=("river", "lake"))
    assert answer
    assert set(answer.split()) <= set(WORDS)
    assert "user" not in answer.split()[:1]


def test_same_question_gets_same_answer(vlm: LocalVLM) -> None:
    assert len({vlm([image(seed=0)], "Is the water a lake?") for _ in range(3)}) == 1


def test_generated_tokens_are_those_of_the_model_called_by_hand(vlm: LocalVLM, model_folder: Path) -> None:
    import transformers

    model = transformers.LlavaForConditionalGeneration.from_pretrained(model_folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(model_folder)
    inputs = processor(images=[image(seed=3)], text="USER: <image>\nlake? ASSISTANT:", return_tensors="pt")
    ids = inputs["input_ids"]
    for _ in range(6):  # greedy, one word at a time
        logits = model(**{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}).logits
        ids = torch.cat([ids, logits[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
        if ids[0, -1] == 2:
            break
    new = ids[0, inputs["input_ids"].shape[1] :]
    assert vlm([image(seed=3)], "lake?") == processor.tokenizer.decode(new, skip_special_tokens=True).strip()


def test_chat_template_of_the_processor_is_used(model_folder: Path) -> None:
    vlm = LocalVLM(model_folder, max_new_tokens=1)
    vlm._processor.chat_template = (
        "{% for m in messages %}{% for c in m.content %}[{{ c.type }}]{% endfor %}{% endfor %}"
    )
    assert vlm._text("lake?", 2) == "[image][image][text]"


def test_weights_take_the_dtype_asked_for(model_folder: Path) -> None:
    vlm = LocalVLM(model_folder, dtype=torch.bfloat16, max_new_tokens=2)
    assert "bfloat16" in vlm.identity
    assert isinstance(vlm([image(seed=1)], "river?"), str)


def test_several_images_and_none_are_answered(vlm: LocalVLM) -> None:
    assert isinstance(vlm([image(seed=1), image(seed=2)], "river?"), str)
    assert isinstance(vlm([], "river?"), str)


def test_identity_names_the_model_and_hub_prefix_is_dropped(vlm: LocalVLM, model_folder: Path) -> None:
    assert str(model_folder) in vlm.identity
    assert LocalVLM(f"hf://{model_folder}").name == str(model_folder)


def test_correction_runs_through_a_local_model(vlm: LocalVLM) -> None:
    labels = torch.ones(2, 20, 28, dtype=torch.uint8)
    video = torch.stack([image(seed=4), image(seed=5)])
    names = ["sky", "river", "lake"]
    result = correct_labels(video, labels, vlm=vlm, groups=[Group("water", (1, 2))], class_names=names)
    (change,) = result.changes
    assert change.answer == vlm([_outlined(video, labels)], change.question)
    assert (result.labels == (change.to_class or 1)).all()


def _outlined(video: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    from mvcseg.vlm.view import outlined_crop

    return outlined_crop(video[0], labels[0] > 0)


def test_runtime_failure_is_a_vlm_answer_error(vlm: LocalVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(**_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(vlm._model, "generate", run_out)
    with pytest.raises(VLMAnswerError, match="out of memory"):
        vlm([image(seed=0)], "lake?")


def test_wrong_images_are_refused(vlm: LocalVLM) -> None:
    with pytest.raises(DTypeError, match="expected uint8"):
        vlm([torch.zeros(3, 4, 5)], "lake?")
    with pytest.raises(ShapeError, match="3 h w"):
        vlm([torch.zeros(1, 4, 5, dtype=torch.uint8)], "lake?")


def test_folder_without_a_model_is_named(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(CheckpointError, match="no image-text model can be read"):
        LocalVLM(tmp_path)


def test_bad_bound_is_refused(model_folder: Path) -> None:
    with pytest.raises(ConfigError, match="max_new_tokens"):
        LocalVLM(model_folder, max_new_tokens=0)


def test_missing_transformers_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "mvcseg\[hf\]"'):
        LocalVLM("anything")
