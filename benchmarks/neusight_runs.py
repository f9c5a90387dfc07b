"""The language models of NeuSight's runs, operator by operator, as the transformers library of 2023 computed them.

Today's library computes the same products with other arithmetic around them, so attention is written out here as the runs'
traces show it: scores are scaled and masked one operator at a time, OPT clamps them. Dropout is one kernel, as on GPUs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from transformers.initialization import no_init_weights
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP

from labbench.footprint import any_value, where_they_are
from labbench.operators import Operator, watch

ATTENTION = "scores_2023"


@dataclass(frozen=True)
class Run:
    """One call of a model: its operators in order, and what else the parallel variants need.

    Attributes
    ----------
    operators : list of Operator
    width : int
        Of the residual stream.
    layers : int
    parameter_bytes : float
    """

    operators: list[Operator]
    width: int
    layers: int
    parameter_bytes: float


@cache
def run(config: Path, mode: str, seq: int, batch: int) -> Run:
    """Trace one call.

    Parameters
    ----------
    config : path
        A transformers configuration.
    mode : str
        ``inf``: forward, dropout off; ``train``: forward in training mode, and backward from the logits, no optimizer: what
        the traces show.
    seq, batch : int
    """
    with FakeTensorMode(allow_non_fake_inputs=True), any_value(0.0), where_they_are(), _WholeDropout(), _even_experts():
        with no_init_weights():
            model = _model(config)
            model.tie_weights()
        model.train(mode == "train")
        ids = torch.zeros(batch, seq, dtype=torch.long)
        inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
        if model.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = ids

        def forward() -> Any:
            with torch.set_grad_enabled(mode == "train"):
                return model(**inputs).logits

        def step() -> None:
            logits = forward()
            logits.backward(torch.ones_like(logits))

        operators = watch(forward if mode == "inf" else step, model)
        size = sum(parameter.nbytes for parameter in model.parameters())
        return Run(operators, model.config.hidden_size, model.config.num_hidden_layers, float(size))


def _model(config: Path) -> Any:
    written = json.loads(config.read_text())
    maker = getattr(transformers, written["architectures"][0])
    known = maker.config_class.from_dict({key: value for key, value in written.items() if key != "torch_dtype"})
    known._attn_implementation = ATTENTION
    return maker(known)


class _WholeDropout(TorchFunctionMode):
    """Dropout as one kernel."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.dropout:
            return _dropout(*args, **kwargs)
        return func(*args, **kwargs)


def _dropout(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    return torch.native_dropout(x, p, True)[0] if training and p > 0 else x


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    kind = module.config.model_type
    # constants that the models keep are made of nothing here, so that making them costs nothing
    scores = torch.matmul(query, key.transpose(-1, -2))
    batch, _heads, rows, columns = scores.shape
    lowest = torch.empty(())
    if kind == "gpt2":
        scores = torch.where(torch.empty(1, 1, rows, columns, dtype=torch.bool), scores / 8.0, lowest)
    elif kind == "opt":  # scales the query instead, outside
        scores = torch.max(scores + torch.empty(batch, 1, rows, columns), lowest)
    elif kind == "switch_transformers":
        scores = scores + position_bias  # which has the mask in it
    else:
        scores = scores / 8.0 + torch.empty(batch, 1, 1, columns)
    weights = _dropout(torch.softmax(scores, dim=-1), dropout, module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def _sparse(self: Any, states: torch.Tensor) -> torch.Tensor:
    """A sparse layer whose experts take as many tokens each, at most their capacity of each sequence."""
    batch, seq, width = states.shape
    tokens = batch * min(self.router.expert_capacity, seq // self.router.num_experts)
    weights = self.router(states)[1]
    flat, out = states.view(-1, width), states.clone().view(-1, width)
    for expert in self.experts.values():
        chosen = torch.empty(tokens, dtype=torch.long)
        out[chosen] = expert(flat[chosen])
    return weights * out.view_as(states)


def _even_experts() -> Any:
    """Experts share the tokens evenly: fake tensors do not tell which are chosen."""
    return mock.patch.object(SwitchTransformersSparseMLP, "forward", _sparse)


transformers.AttentionInterface.register(ATTENTION, _attention)
