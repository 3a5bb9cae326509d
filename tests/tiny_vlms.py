"""Random models a few kilobytes large, built from configurations and saved as a download would be."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch

WORDS = ["is", "the", "water", "in", "image", "a", "river", "lake", "sea", "user", "assistant", ":", "?", ",", "."]
SPECIAL = ["<unk>", "<s>", "<pad>", "</s>", "<image>"]
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2}


def word_tokenizer(
    *, words: list[str] = WORDS, special: list[str] = SPECIAL, begins: bool = False, ends: bool = False, **options: Any
) -> Any:
    """A tokenizer of whole words in lower case, which may begin every text with ``<s>`` or end it with ``</s>``."""
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    if begins or ends:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{'<s> ' * begins}$A{' </s>' * ends}",
            special_tokens=[(name, vocabulary[name]) for name in ("<s>", "</s>")],
        )
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **options)
    wrapped.add_special_tokens({"additional_special_tokens": special[4:]})
    return wrapped


def save_clip(folder: Path, *, seed: int = 0) -> None:
    """A CLIP of 16-pixel images and texts of up to 12 words."""
    import transformers

    tokenizer = word_tokenizer(words=[*WORDS, "photo", "of"], special=SPECIAL[:4], ends=True, model_max_length=12)
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 3}
    config = transformers.CLIPConfig(
        text_config={**SMALL, **text}, vision_config={**SMALL, "image_size": 16, "patch_size": 8}, projection_dim=8
    )
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    torch.manual_seed(seed)
    transformers.CLIPModel(config).save_pretrained(folder)
    transformers.CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)


def save_siglip(folder: Path) -> None:
    """A SigLIP of 16-pixel images and texts of up to 12 words."""
    import transformers

    options = {"model_max_length": 12, "padding_side": "left"}  # transformers 5 pads SigLIP 2 so, left to itself
    tokenizer = word_tokenizer(words=[*WORDS, "photo", "of"], special=SPECIAL[:4], ends=True, **options)
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 12, "projection_size": 16}
    config = transformers.SiglipConfig(
        text_config={**SMALL, **text}, vision_config={**SMALL, "image_size": 16, "patch_size": 8}
    )
    images = transformers.SiglipImageProcessor(size={"height": 16, "width": 16})
    torch.manual_seed(0)
    transformers.SiglipModel(config).save_pretrained(folder)
    transformers.SiglipProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)


def give_siglip_its_own_tokenizer(folder: Path) -> None:
    """Replace the word tokenizer of a saved SigLIP by one of SentencePiece, as the published models have."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a photo of a river", "a photo of a lake", "the sea", "water in the image"] * 20),
        model_writer=model,
        vocab_size=21,  # as many as the word tokenizer has
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    settings = {
        "tokenizer_class": "SiglipTokenizer",
        "processor_class": "SiglipProcessor",
        "model_max_length": 12,
        "model_input_names": ["input_ids"],
        "pad_token": "</s>",
    }
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "spiece.model").write_bytes(model.getvalue())


def save_siglip2(folder: Path) -> None:
    """A SigLIP 2 that takes images of any shape, as up to 256 patches of 16 pixels."""
    import transformers

    tokenizer = word_tokenizer(words=[*WORDS, "photo", "of"], special=SPECIAL[:4], ends=True, model_max_length=12)
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 12, "projection_size": 16}
    config = transformers.Siglip2Config(
        text_config={**SMALL, **text}, vision_config={**SMALL, "num_patches": 256, "patch_size": 16}
    )
    images = transformers.Siglip2ImageProcessor(patch_size=16, max_num_patches=256)
    torch.manual_seed(0)
    transformers.Siglip2Model(config).save_pretrained(folder)
    transformers.Siglip2Processor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)


def save_llava(folder: Path, *, chat_template: str | None = None) -> None:
    """A LLaVA of 16-pixel images."""
    import transformers

    tokenizer = word_tokenizer()
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    text = transformers.LlamaConfig(
        **SMALL,
        initializer_range=1.0,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=3,
    )
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**SMALL, image_size=16, patch_size=8),
        text_config=text,
        image_token_index=SPECIAL.index("<image>"),
    )
    torch.manual_seed(0)
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    transformers.LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    ).save_pretrained(folder)


def save_qwen2_vl(folder: Path) -> None:
    """A Qwen2-VL, which takes images of any shape, with a chat template that begins every text itself."""
    import transformers

    special = [*SPECIAL[:4], "<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"]
    tokenizer = word_tokenizer(special=special, begins=True)
    ids = {name: special.index(f"<|{name}|>") for name in ("image_pad", "vision_start", "vision_end", "video_pad")}
    text = {
        **SMALL,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 256,
        "initializer_range": 1.0,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
        "bos_token_id": 1,
        "eos_token_id": 3,
    }
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    config = transformers.Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    images = transformers.Qwen2VLImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 16 * 28 * 28})
    template = (
        "<s>{% for m in messages %}{{ m.role }}: {% for c in m.content %}{% if c.type == 'image' %}"
        "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %} assistant:{% endif %}"
    )
    torch.manual_seed(0)
    transformers.Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    transformers.Qwen2VLProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(),
        chat_template=template,
    ).save_pretrained(folder)


def save_idefics3(folder: Path) -> None:
    """An Idefics 3, as SmolVLM is, which cuts an image into squares and shows it whole besides."""
    import transformers

    squares = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
    special = [*SPECIAL, "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *squares]
    tokenizer = word_tokenizer(special=special)
    text = transformers.LlamaConfig(
        **SMALL,
        initializer_range=1.0,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=3,
        pad_token_id=2,
    )
    config = transformers.Idefics3Config(
        image_token_id=SPECIAL.index("<image>"),
        pad_token_id=2,
        scale_factor=2,
        text_config=text,
        vision_config={**SMALL, "image_size": 32, "patch_size": 8},
    )
    images = transformers.Idefics3ImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    template = (
        "{% for m in messages %}{{ m.role }}: {% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}"
        "{{ c.text }}{% endif %}{% endfor %}<end_of_utterance>{% endfor %} assistant:"
    )
    torch.manual_seed(0)
    transformers.Idefics3ForConditionalGeneration(config).save_pretrained(folder)
    transformers.Idefics3Processor(
        image_processor=images, tokenizer=tokenizer, image_seq_len=4, chat_template=template
    ).save_pretrained(folder)
