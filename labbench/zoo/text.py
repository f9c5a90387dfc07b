"""Text families: BERT, T5, GPT-2, Llama, Qwen2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labbench.zoo.base import Family, Model, Size

if TYPE_CHECKING:
    from labbench.cells import Workload

HUB = "Hugging Face hub, model card and safetensors metadata of "


def _bert(size: Size, work: Workload) -> Model:
    from labbench.zoo.building import configured, cross_entropy, forward_model, tokens

    module = configured("BertConfig", "BertForMaskedLM", size)
    ids = tokens(work, module.config.vocab_size)
    return forward_model(module, {"input_ids": ids}, ("logits",), ids, cross_entropy, work.batch_size)


def _t5(size: Size, work: Workload) -> Model:
    from labbench.zoo.building import configured, encoder_decoder_model, tokens

    module = configured("T5Config", "T5ForConditionalGeneration", size, decoder_start_token_id=0)
    ids = tokens(work, module.config.vocab_size)
    return encoder_decoder_model(module, {"input_ids": ids}, ids, ids.numel(), "tokens")


def _decoder(config: str, model: str, size: Size, work: Workload) -> Model:
    from labbench.zoo.building import configured, decoder_model, tokens

    module = configured(config, model, size)
    ids = tokens(work, module.config.vocab_size)
    return decoder_model(module, {"input_ids": ids}, ids.shape[1], ids)


_T5 = {"vocab_size": 32128, "feed_forward_proj": "relu"}
_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}  # within the tiny vocabularies
_LLAMA = {"vocab_size": 128256, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "tie_word_embeddings": True}

FAMILIES = (
    Family(
        "bert", "BERT", "fill-mask", "text",
        {
            "tiny": Size({
                "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512,
                "vocab_size": 4096,
            }),
            "base": Size({}, 109_514_298, HUB + "google-bert/bert-base-uncased (BertForMaskedLM)"),
            "large": Size(
                {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
                335_174_458, HUB + "google-bert/bert-large-uncased (BertForMaskedLM)",
            ),
        },
        {"seq_len": 128}, _bert,
    ),
    Family(
        "t5", "T5", "text2text-generation", "text",
        {
            "tiny": Size({"d_model": 64, "d_kv": 16, "d_ff": 256, "num_layers": 2, "num_heads": 4, "vocab_size": 4096}),
            "small": Size(
                {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8, **_T5},
                60_506_624, HUB + "google-t5/t5-small",
            ),
            "base": Size(
                {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12, **_T5},
                222_903_552, HUB + "google-t5/t5-base",
            ),
        },
        {"seq_len": 128}, _t5,
    ),
    Family(
        "gpt2", "GPT-2", "text-generation", "text",
        {
            "tiny": Size({"n_embd": 128, "n_layer": 2, "n_head": 4, "vocab_size": 4096, **_SPECIAL}),
            "small": Size({}, 124_439_808, HUB + "openai-community/gpt2"),
            "medium": Size({"n_embd": 1024, "n_layer": 24, "n_head": 16}, 354_823_168, HUB + "openai-community/gpt2-medium"),
        },
        {"seq_len": 128}, lambda size, work: _decoder("GPT2Config", "GPT2LMHeadModel", size, work),
    ),
    Family(
        "llama", "Llama", "text-generation", "text",
        {
            "tiny": Size({
                "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 2, "vocab_size": 4096, **_SPECIAL,
            }),
            "1b": Size(
                {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
                 "num_key_value_heads": 8, "head_dim": 64, **_LLAMA},
                1_235_814_400, HUB + "meta-llama/Llama-3.2-1B",
            ),
            "7b": Size(
                {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
                 "vocab_size": 32000},
                6_738_415_616, HUB + "meta-llama/Llama-2-7b-hf",
            ),
        },
        {"seq_len": 128}, lambda size, work: _decoder("LlamaConfig", "LlamaForCausalLM", size, work),
    ),
    Family(
        "qwen2", "Qwen2", "text-generation", "text",
        {
            "tiny": Size({
                "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 2, "vocab_size": 4096, **_SPECIAL,
            }),
            "0.5b": Size(
                {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
                 "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True},
                494_032_768, HUB + "Qwen/Qwen2-0.5B",
            ),
            "1.5b": Size(
                {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
                 "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True},
                1_543_714_304, HUB + "Qwen/Qwen2-1.5B",
            ),
        },
        {"seq_len": 128}, lambda size, work: _decoder("Qwen2Config", "Qwen2ForCausalLM", size, work),
    ),
)  # fmt: skip
