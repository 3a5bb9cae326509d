from __future__ import annotations

import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tiny_vlms import WORDS, save_idefics3, save_llava, save_qwen2_vl

from mvcseg.errors import CheckpointError, ConfigError, DTypeError, MissingExtraError, ShapeError, VLMAnswerError
from mvcseg.vlm import Group, LocalVLM, correct_labels


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of random weights with a tokenizer of whole words, saved as a download would be."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("llava")
    save_llava(folder)
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> LocalVLM:
    """A model of another family, which counts images by their size and has a chat template."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("qwen")
    save_qwen2_vl(folder)
    return LocalVLM(folder, max_new_tokens=6)


@pytest.fixture(scope="module")
def vlm(model_folder: Path) -> LocalVLM:
    return LocalVLM(model_folder, max_new_tokens=6)


def image(*, seed: int, height: int = 20, width: int = 28) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


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
        if ids[0, -1] == 3:
            break
    new = ids[0, inputs["input_ids"].shape[1] :]
    assert vlm([image(seed=3)], "lake?") == processor.tokenizer.decode(new, skip_special_tokens=True).strip()


def test_chat_template_of_the_processor_is_used(model_folder: Path, tmp_path: Path) -> None:
    template = "{% for m in messages %}{% for c in m.content %}[{{ c.type }}]{% endfor %}{% endfor %}"
    save_llava(tmp_path, chat_template=template)
    assert LocalVLM(tmp_path)._text("lake?", 2) == "[image][image][text]"
    assert LocalVLM(model_folder)._text("lake?", 2) == "USER: <image><image>\nlake? ASSISTANT:"


def test_another_family_answers_through_its_chat_template(qwen: LocalVLM) -> None:
    import transformers

    model = transformers.Qwen2VLForConditionalGeneration.from_pretrained(qwen.name).eval()
    processor = transformers.AutoProcessor.from_pretrained(qwen.name)
    wide, tall = image(seed=3, height=60, width=90), image(seed=4, height=100, width=40)
    seen = "<|vision_start|><|image_pad|><|vision_end|>"
    # Written out, the text begins with the token that the tokenizer would put before it.
    text = f" user: {seen}{seen}is the water a lake? assistant:"
    inputs = processor(images=[wide, tall], text=text, return_tensors="pt")
    assert inputs["input_ids"][0, :2].tolist() == processor.tokenizer.convert_tokens_to_ids(["<s>", "user"])
    assert (inputs["input_ids"] == 4).sum() == 2 * 3 + 4 * 1  # one token for every 28 pixels square
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens=6)[0, inputs["input_ids"].shape[1] :]
    answer = qwen([wide, tall], "is the water a lake?")
    assert answer == processor.tokenizer.decode(tokens, skip_special_tokens=True).strip() != ""
    assert answer != qwen([tall, wide], "is the water a lake?")


def test_threads_get_what_one_gets(qwen: LocalVLM) -> None:
    questions = ["is the water a lake?", "river?", "the sea, a lake, a river, the water: a image?"] * 3
    alone = [qwen([image(seed=3)], question) for question in questions]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda question: qwen([image(seed=3)], question), questions)) == alone


def test_class_name_that_is_a_picture_to_the_tokenizer_is_an_answer_error(vlm: LocalVLM) -> None:
    with pytest.raises(VLMAnswerError, match="image"):
        vlm([image(seed=0)], "is it a <image>?")


def test_weights_take_the_dtype_asked_for(model_folder: Path) -> None:
    vlm = LocalVLM(model_folder, dtype=torch.bfloat16, max_new_tokens=2)
    assert "bfloat16" in vlm.identity
    assert isinstance(vlm([image(seed=1)], "river?"), str)


@pytest.mark.parametrize("save", [save_llava, save_qwen2_vl, save_idefics3])
def test_one_image_several_and_none_are_answered_by_every_family(save: Callable[[Path], None], tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    save(tmp_path)
    vlm = LocalVLM(tmp_path, max_new_tokens=4)
    wide, tall = image(seed=1, height=40, width=90), image(seed=2, height=90, width=40)
    for images in ([wide], [wide, tall], [tall, wide, wide], []):
        answer = vlm(images, "is the water a river?")
        assert answer == vlm(images, "is the water a river?")
        assert set(answer.split()) <= set(WORDS)


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
    from mvcseg.vlm.views import outlined_crop

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
