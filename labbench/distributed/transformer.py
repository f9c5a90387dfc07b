"""A decoder-only transformer by its sizes: parameters, FLOPs, what its layers keep for the backward pass.

- FLOPs of an iteration with all activations computed twice: Narayanan et al. 2021 (arXiv:2104.04473), equation 3; what the model
  itself needs (MFU): Chowdhery et al. 2022 (PaLM, arXiv:2204.02311), appendix B.
- Bytes that a layer keeps: Korthikanti et al. 2022 (arXiv:2205.05198), equations 1 to 6, here part by part, so that grouped
  queries, gated feed-forward and models without dropout come out as well.
- Recomputation: ``selective`` keeps no scores of attention (Korthikanti et al. 2022, section 5), ``alternate`` keeps every other
  product's result (torchtitan's selective activation checkpointing, option ``op``), ``full`` keeps what goes into a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from labbench.config import ConfigError, unknown_name

if TYPE_CHECKING:
    from labbench.cells import Workload

Recompute = Literal["none", "selective", "alternate", "full"]
RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "alternate", "full")
HALF = 2  # bytes of an activation


@dataclass(frozen=True)
class Transformer:
    """Sizes of a model.

    Attributes
    ----------
    name : str
    layers, hidden, heads, sequence, vocabulary : int
    ffn : int
        Width of the feed-forward part; 0: four times ``hidden``.
    kv_heads : int
        Heads of keys and values; 0: as many as queries.
    gated : bool
        The feed-forward part has a gate (SwiGLU).
    dropout : bool
    flash : bool
        Attention is one kernel that keeps no scores and skips what the mask hides.
    tied : bool
        The output layer has the embedding's weights.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    sequence: int
    vocabulary: int
    ffn: int = 0
    kv_heads: int = 0
    gated: bool = False
    dropout: bool = True
    flash: bool = True
    tied: bool = True

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "heads", "sequence", "vocabulary"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{self.name}: {name} is {getattr(self, name)}; it must be positive")
        if self.hidden % self.heads:
            raise ConfigError(f"{self.name}: {self.heads} heads do not share a width of {self.hidden} evenly")
        object.__setattr__(self, "ffn", self.ffn or 4 * self.hidden)
        object.__setattr__(self, "kv_heads", self.kv_heads or self.heads)

    @property
    def kv_width(self) -> int:
        """Width of keys, and of values."""
        return self.hidden // self.heads * self.kv_heads

    @property
    def products(self) -> int:
        """Multiply-adds of a layer's weights for a token: as many as they are."""
        return self.hidden * (2 * self.hidden + 2 * self.kv_width) + (3 if self.gated else 2) * self.hidden * self.ffn

    @property
    def layer_parameters(self) -> int:
        """With the norms', and biases where there is dropout (GPT's layers have both)."""
        biases = 2 * self.hidden + 2 * self.kv_width + self.ffn + self.hidden if self.dropout else 0
        return self.products + biases + (4 if self.dropout else 2) * self.hidden

    @property
    def embedding_parameters(self) -> int:
        """Of the tokens."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """In all; positions are not learnt, or few."""
        return self.layers * self.layer_parameters + (1 if self.tied else 2) * self.embedding_parameters

    def flops(self, tokens: float, recompute: Recompute = "none") -> float:
        """FLOPs of a training step on so many tokens, attention counted in full whatever the mask hides.

        A forward pass does 2 for each multiply-add, a backward pass twice as many; full recomputation adds a forward pass of the
        layers, selective one of attention's products alone (nothing where attention is one kernel), alternate one half of the
        weights'.
        """
        attention = 2 * self.hidden * self.sequence  # multiply-adds for a token: scores, and values weighted by them
        layers, head = self.layers * (self.products + attention), self.embedding_parameters
        again = {
            "none": 0.0,
            "selective": 0.0 if self.flash else self.layers * attention,
            "alternate": self.layers * (self.products / 2 + (0.0 if self.flash else attention)),
            "full": float(layers),
        }[recompute]
        return 2 * tokens * (3 * (layers + head) + again)

    def kept_bytes(self, micro_batch: Any, tensor: Any, recompute: Recompute, sequence_parallel: bool) -> Any:
        """Bytes that a layer keeps of a micro-batch, of one of ``tensor`` ranks; sizes may be arrays."""
        tokens = micro_batch * self.sequence
        whole = tensor if sequence_parallel else 1
        if recompute == "full":
            return HALF * tokens * self.hidden / whole
        gates = 2 if self.gated else 1
        if recompute == "alternate":  # what comes in, attention's result, every other product's
            results = (3 * self.hidden + 2 * self.kv_width + gates * self.ffn) / 2
            return HALF * tokens * (self.hidden / whole + (self.hidden + results) / tensor)
        masks = 2 * self.hidden if self.dropout else 0  # a byte an element
        unsplit = HALF * 4 * self.hidden + masks  # inputs of norms, of attention and of the feed-forward part
        split = HALF * (2 * self.hidden + 2 * self.kv_width) + HALF * (gates + 1) * self.ffn
        scores = (2 * HALF + 1 if self.dropout else HALF) * self.heads * self.sequence
        if self.flash or recompute == "selective":
            scores = 0
        return tokens * (unsplit / whole + (split + scores) / tensor)


def _gpt(name: str, layers: int, hidden: int, heads: int, **more: Any) -> Transformer:
    return Transformer(name, layers, hidden, heads, **{"sequence": 2048, "vocabulary": 51_200, "flash": False, **more})


def _llama(name: str, layers: int, hidden: int, heads: int, ffn: int) -> Transformer:
    return Transformer(
        name, layers, hidden, heads, 8192, 128_256, ffn=ffn, kv_heads=8, gated=True, dropout=False, tied=False
    )


# GPT: Narayanan et al. 2021, table 1, and Korthikanti et al. 2022, table 3. Llama 3.1: Dubey et al. 2024 (arXiv:2407.21783),
# table 3.
PUBLISHED = {
    one.name: one
    for one in (
        _gpt("gpt-1.7b", 24, 2304, 24), _gpt("gpt-3.6b", 30, 3072, 32), _gpt("gpt-7.5b", 36, 4096, 32),
        _gpt("gpt-18b", 40, 6144, 48), _gpt("gpt-22b", 48, 6144, 64), _gpt("gpt-39b", 48, 8192, 64),
        _gpt("gpt-76b", 60, 10240, 80), _gpt("gpt-145b", 80, 12288, 96), _gpt("gpt3-175b", 96, 12288, 96),
        _gpt("gpt-310b", 96, 16384, 128), _gpt("mt-nlg-530b", 105, 20480, 128), _gpt("gpt-1t", 128, 25600, 160),
        _llama("llama-3.1-8b", 32, 4096, 32, 14336), _llama("llama-3.1-70b", 80, 8192, 64, 28672),
        _llama("llama-3.1-405b", 126, 16384, 128, 53248),
    )
}  # fmt: skip


def published(name: str) -> Transformer:
    """A published model; raises ConfigError, naming the nearest known one."""
    if name not in PUBLISHED:
        raise unknown_name("published model", name, PUBLISHED)
    return PUBLISHED[name]


def from_workload(workload: Workload) -> Transformer:
    """The transformer that a language model of the zoo is, by its configuration.

    Raises
    ------
    ConfigError
        If the model is not one stack of decoder layers with a vocabulary.
    """
    from labbench import zoo
    from labbench.footprint import calls

    workload = zoo.resolve(workload.model_copy(update={"mode": "inference"}))
    way_out = "give its sizes as a Transformer"
    if workload.seq_len is None:
        raise ConfigError(f"{workload.model} is no model of tokens alone: {way_out}")
    with calls(workload) as found:
        parts = next(iter(found.values())).module.modules()
        config: Any = next((part.config for part in parts if hasattr(part, "config")), None)
    needed = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
    lacking = [name for name in needed if getattr(config, name, None) is None]
    if lacking:
        raise ConfigError(f"{workload.model} is not one stack of layers (it lacks {', '.join(lacking)}): {way_out}")
    gated = hasattr(config, "rms_norm_eps")
    return Transformer(
        workload.model,
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        workload.seq_len,
        config.vocab_size,
        ffn=getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 0,
        kv_heads=getattr(config, "num_key_value_heads", None) or 0,
        gated=gated,
        dropout=not gated,
        tied=bool(getattr(config, "tie_word_embeddings", True)),
    )
