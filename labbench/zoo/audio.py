"""Audio families: Whisper, Wav2Vec2, CLAP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labbench.zoo.base import Family, Model, Size

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from labbench.cells import Workload

HUB = "Hugging Face hub, safetensors metadata of "
SAMPLE_RATE = 16_000  # Hz, Wav2Vec2
FRAMES_PER_S = 100  # Whisper: log-mel frames per second; its encoder halves them
CLAP_FRAMES_PER_S = 100.1  # 1001 frames for 10 s (48 kHz, hop 480)
LABELS = 20  # target length in training


def _whisper(size: Size, work: Workload) -> Model:
    import torch

    from labbench.zoo.building import configured, encoder_decoder_model, tokens

    assert work.audio_s is not None
    frames = 2 * round(work.audio_s * FRAMES_PER_S / 2)
    module = configured("WhisperConfig", "WhisperForConditionalGeneration", size, max_source_positions=frames // 2)
    mel = torch.randn(work.batch_size, module.config.num_mel_bins, frames)
    labels = tokens(work, module.config.vocab_size, LABELS)
    return encoder_decoder_model(module, {"input_features": mel}, labels, work.batch_size * work.audio_s, "audio_s")


def _wav2vec2(size: Size, work: Workload) -> Model:
    import torch

    from labbench.zoo.building import configured, forward_model, tokens

    assert work.audio_s is not None
    module = configured("Wav2Vec2Config", "Wav2Vec2ForCTC", size)
    wave = torch.randn(work.batch_size, round(work.audio_s * SAMPLE_RATE))
    labels = tokens(work, module.config.vocab_size, min(LABELS, max(1, round(work.audio_s * 10))), avoid=1)
    seconds = work.batch_size * work.audio_s
    return forward_model(module, {"input_values": wave}, ("logits",), labels, _ctc, seconds, "audio_s")


def _ctc(module: Any, outputs: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """Connectionist temporal classification: all alignments of the labels with the frames."""
    import torch

    config, labels = module.config, batch["labels"]
    loss: torch.Tensor = module.loss_function(
        logits=outputs.logits,
        labels=labels,
        logit_lengths=torch.full((len(labels),), outputs.logits.shape[1], device=labels.device),
        blank_token_id=config.pad_token_id,
        reduction=config.ctc_loss_reduction,
        zero_infinity=config.ctc_zero_infinity,
    )
    return loss


def _clap(size: Size, work: Workload) -> Model:
    import torch

    from labbench.zoo.building import configured, contrastive, forward_model, tokens

    assert work.audio_s is not None
    module = configured("ClapConfig", "ClapModel", size)
    mel = torch.randn(work.batch_size, 1, round(work.audio_s * CLAP_FRAMES_PER_S), 64)
    ids = tokens(work, module.config.text_config.vocab_size, work.seq_len)
    inputs = {"input_ids": ids, "input_features": mel}
    outputs = ("logits_per_audio", "audio_embeds", "text_embeds")
    loss = contrastive("logits_per_text", "logits_per_audio")
    return forward_model(module, inputs, outputs, None, loss, work.batch_size * work.audio_s, "audio_s")


_WHISPER = {"vocab_size": 51865, "num_mel_bins": 80, "decoder_start_token_id": 50258}
_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}

FAMILIES = (
    Family(
        "whisper", "Whisper", "automatic-speech-recognition", "audio",
        {
            "micro": Size({
                "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
                "decoder_attention_heads": 4, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256, "vocab_size": 4096,
                "num_mel_bins": 80, "suppress_tokens": None, "begin_suppress_tokens": None, **_SPECIAL,
            }),
            "tiny": Size(
                {"d_model": 384, "encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 6,
                 "decoder_attention_heads": 6, "encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536, **_WHISPER},
                37_760_640, HUB + "openai/whisper-tiny",
            ),
            "base": Size(
                {"d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8,
                 "decoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, **_WHISPER},
                72_593_920, HUB + "openai/whisper-base",
            ),
            "small": Size(
                {"d_model": 768, "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 12,
                 "decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072, **_WHISPER},
                241_734_912, HUB + "openai/whisper-small",
            ),
        },
        {"audio_s": 30.0}, _whisper,
    ),
    Family(
        "wav2vec2", "Wav2Vec2", "automatic-speech-recognition", "audio",
        {
            "tiny": Size({
                "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
                "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
            }),
            "base": Size({}, 94_396_320, HUB + "facebook/wav2vec2-base-960h"),
        },
        {"audio_s": 1.0}, _wav2vec2,
    ),
    Family(
        "clap", "CLAP", "zero-shot-audio-classification", "audio",
        {
            "tiny": Size({
                "projection_dim": 64,
                "text_config": {
                    "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128,
                    "vocab_size": 1000, "projection_dim": 64,
                },
                "audio_config": {
                    "patch_embeds_hidden_size": 16, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4],
                    "hidden_size": 128, "projection_dim": 64, "num_hidden_layers": 4, "spec_size": 256,
                },
            }),
            "htsat": Size({}, 153_492_890, HUB + "laion/clap-htsat-unfused"),
        },
        {"audio_s": 10.0, "seq_len": 16}, _clap,
    ),
)  # fmt: skip
