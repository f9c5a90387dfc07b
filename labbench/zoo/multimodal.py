"""Families that see and read: CLIP, X-CLIP, LLaVA, LLaVA-NeXT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labbench.zoo.base import Family, Model, Size

if TYPE_CHECKING:
    import torch

    from labbench.cells import Workload

HUB = "Hugging Face hub, safetensors metadata of "


def _contrastive(config: str, model: str, size: Size, work: Workload, frames: tuple[int, ...], **outputs: Any) -> Model:
    """Text against images or clips; the loss is contrastive, so a batch of one has nothing to learn from."""
    import transformers

    from labbench.zoo.building import contrastive, forward_model, pixels, tokens

    settings = dict(size.config)
    vision = {**settings.pop("vision_config", {}), "image_size": work.image_size}
    if frames:
        vision["num_frames"] = frames[0]
    made = getattr(transformers, config)(**settings, vision_config=vision)
    module = getattr(transformers, model)._from_config(made).eval()
    ids = tokens(work, module.config.text_config.vocab_size)
    ids[:, -1] = module.config.text_config.eos_token_id  # the position whose state stands for the text
    inputs = {"input_ids": ids, "pixel_values": pixels(work, *frames)}
    loss = contrastive("logits_per_text", outputs["outputs"][0])
    return forward_model(module, inputs, outputs["outputs"], None, loss, work.batch_size)


def _clip(size: Size, work: Workload) -> Model:
    outputs = ("logits_per_image", "image_embeds", "text_embeds")
    return _contrastive("CLIPConfig", "CLIPModel", size, work, (), outputs=outputs)


def _xclip(size: Size, work: Workload) -> Model:
    outputs = ("logits_per_video", "video_embeds", "text_embeds")
    return _contrastive("XCLIPConfig", "XCLIPModel", size, work, (work.frames or 1,), outputs=outputs)


def _llava(size: Size, work: Workload) -> Model:
    from labbench.zoo.building import pixels
    from labbench.zoo.vision_language import TextAfterImage

    module, patches = _vision_language("LlavaConfig", "LlavaForConditionalGeneration", size, work)
    return _reader(TextAfterImage(module), work, pixels(work), patches)


def _llava_next(size: Size, work: Workload) -> Model:
    from labbench.zoo.building import pixels
    from labbench.zoo.vision_language import TiledTextAfterImage

    side = work.image_size or 1
    grid = [[side, 2 * side], [2 * side, side], [2 * side, 2 * side]]
    module, patches = _vision_language(
        "LlavaNextConfig", "LlavaNextForConditionalGeneration", size, work, image_grid_pinpoints=grid
    )
    row = round(patches**0.5)  # the base view's patches, then 2 × row rows of the tiles, each with a newline
    return _reader(TiledTextAfterImage(module), work, pixels(work, 5), patches + 2 * row * (2 * row + 1))


def _vision_language(config: str, model: str, size: Size, work: Workload, **further: Any) -> tuple[Any, int]:
    """The model, and how many tokens one view of an image becomes."""
    import transformers

    settings = dict(size.config)
    vision: Any = transformers.CLIPVisionConfig(**settings.pop("vision"), image_size=work.image_size)
    text = transformers.LlamaConfig(**settings.pop("text"))
    made = getattr(transformers, config)(vision_config=vision, text_config=text, **settings, **further)
    return getattr(transformers, model)._from_config(made).eval(), (vision.image_size // vision.patch_size) ** 2


def _reader(module: Any, work: Workload, image: torch.Tensor, image_tokens: int) -> Model:
    """Reads an image, then ``seq_len`` random tokens of text."""
    from labbench.zoo.building import decoder_model, tokens

    ids = tokens(work, min(module.config.text_config.vocab_size, module.config.image_token_id))
    return decoder_model(module, {"input_ids": ids, "pixel_values": image}, image_tokens + ids.shape[1], ids)


_SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
_SMALL_TEXT = {**_SMALL, "vocab_size": 1000, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
_SMALL_LLAMA = {**_SMALL_TEXT, "num_key_value_heads": 2}
_CLIP_L = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
_VICUNA_7B = {"vocab_size": 32064, "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096}

FAMILIES = (
    Family(
        "clip", "CLIP", "zero-shot-image-classification", "multimodal",
        {
            "tiny": Size({
                "projection_dim": 64, "text_config": _SMALL_TEXT, "vision_config": {**_SMALL, "patch_size": 32},
            }),
            "base": Size({}, 151_277_313, HUB + "openai/clip-vit-base-patch32"),
            "large": Size(
                {"projection_dim": 768, "vision_config": _CLIP_L, "text_config": {
                    "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768}},
                427_616_513, HUB + "openai/clip-vit-large-patch14",
            ),
        },
        {"image_size": 224, "seq_len": 16}, _clip,
    ),
    Family(
        "xclip", "X-CLIP", "video-classification", "multimodal",
        {
            "tiny": Size({
                "projection_dim": 64, "prompt_layers": 1, "prompt_num_attention_heads": 4,
                "text_config": _SMALL_TEXT,
                "vision_config": {**_SMALL, "patch_size": 32, "mit_hidden_size": 64, "mit_intermediate_size": 128,
                                  "mit_num_attention_heads": 4},
            }),
            "base": Size({}, 196_585_729, HUB + "microsoft/xclip-base-patch32"),
        },
        {"image_size": 224, "frames": 8, "seq_len": 16}, _xclip,
    ),
    Family(
        "llava", "LLaVA", "image-text-to-text", "multimodal",
        {
            "tiny": Size({"vision": {**_SMALL, "patch_size": 32}, "text": _SMALL_LLAMA, "image_token_id": 999}),
            "1.5-7b": Size(
                {"vision": _CLIP_L, "text": _VICUNA_7B, "image_token_id": 32000},
                7_063_427_072, HUB + "llava-hf/llava-1.5-7b-hf",
            ),
        },
        {"image_size": 224, "seq_len": 32}, _llava,
    ),
    Family(
        "llava_next", "LLaVA-NeXT", "image-text-to-text", "multimodal",
        {
            "tiny": Size({"vision": {**_SMALL, "patch_size": 32}, "text": _SMALL_LLAMA, "image_token_id": 999}),
            "1.6-7b": Size(
                {"vision": _CLIP_L, "text": _VICUNA_7B, "image_token_id": 32000},
                7_063_431_168, HUB + "llava-hf/llava-v1.6-vicuna-7b-hf",
            ),
        },
        {"image_size": 224, "seq_len": 32}, _llava_next,
    ),
)  # fmt: skip
