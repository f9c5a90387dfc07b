"""Automatic mixed precision as CUDA has it, on meta tensors, where PyTorch has none: which operators run in which precision.

The lists are those of PyTorch's documentation ("Autocast Op Reference: CUDA Ops"), and of interpolation those of
``aten/src/ATen/autocast_mode.h``, of recurrent layers ``aten/src/ATen/cudnn/AutocastRNN.cpp``. Operators in no list take what they
are given, as they do under autocast.
"""

from __future__ import annotations

from typing import Any

LOW = {
    "__matmul__", "__rmatmul__", "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "chain_matmul", "conv1d",
    "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "einsum", "gru", "gru_cell", "linear",
    "lstm", "lstm_cell", "matmul", "mm", "multi_dot", "mv", "prelu", "rnn_relu", "rnn_relu_cell", "rnn_tanh",
    "rnn_tanh_cell", "scaled_dot_product_attention",
}  # fmt: skip
HIGH = {
    "__pow__", "__rdiv__", "__rpow__", "__rtruediv__", "acos", "asin", "cdist", "cosh", "cosine_similarity", "cumprod",
    "cumsum", "dist", "erfinv", "exp", "expm1", "group_norm", "interpolate", "layer_norm", "log", "log10", "log1p",
    "log2", "log_softmax", "norm", "normalize", "pdist", "pow", "prod", "reciprocal", "renorm", "rsqrt", "sinh",
    "softmax", "softmin", "softplus", "sum", "tan",
}  # fmt: skip


def autocast(dtype: Any) -> Any:
    """A context in which functions of PyTorch are called as CUDA's autocast to ``dtype`` would call them.

    Casts are operators of their own and are seen by :func:`labbench.operators.watch`. Those of parameters that want gradients are
    made once and live until the context ends, as CUDA's do.
    """
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._pytree import tree_map

    made: dict[int, torch.Tensor] = {}

    class Autocast(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = getattr(func, "__name__", "")
            wanted = dtype if name in LOW else torch.float32 if name in HIGH else None

            def cast(value: Any) -> Any:
                if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.dtype == wanted:
                    return value
                if wanted != dtype or not (value.requires_grad and value.is_leaf) or value._is_view():
                    return value.to(wanted)
                if id(value) not in made:
                    made[id(value)] = value.to(wanted)
                return made[id(value)]

            if wanted is not None:
                args, kwargs = tree_map(cast, (args, kwargs or {}))
            return func(*args, **(kwargs or {}))

        def __exit__(self, *raised: Any) -> None:
            super().__exit__(*raised)
            made.clear()

    return Autocast()
