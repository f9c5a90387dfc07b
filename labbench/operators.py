"""Every operator of one call, with its shape: what the footprint adds up and what the predictor prices one by one.

A call runs on *fake* or *meta* tensors, which have shapes but no storage, under a dispatch mode that sees every ATen operator.
Each gets a class, by which footprints are summed, and a kind within it: operators of one kind cost alike, a depthwise
convolution and a pointwise one do not.

- FLOPs: ``torch.utils.flop_counter``'s formulas for matrix products, convolutions and attention (2 FLOP a multiply–add);
  one FLOP an output element for other arithmetic, five for normalization and softmax (about what their passes do).
- Bytes: every input read once and every output written once, as if nothing were cached or fused. Views cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from labbench.live import Live

# Operator class by ATen name (without overload); first hit wins.
CLASSES: dict[str, tuple[str, ...]] = {
    "attention": ("_scaled_dot_product",),
    "matmul": ("mm", "bmm", "addmm", "baddbmm", "addbmm", "linear"),
    "convolution": ("convolution", "conv"),
    "normalization": ("native_layer_norm", "native_batch_norm", "native_group_norm", "_fused_rms_norm", "batch_norm"),
    "softmax": ("_softmax", "_log_softmax", "_safe_softmax"),
    "activation": ("gelu", "relu", "silu", "sigmoid", "tanh", "hardtanh", "leaky_relu", "elu", "glu", "softplus", "erf"),
    "embedding": ("embedding", "index_select", "gather"),
    "reduction": ("sum", "mean", "max", "min", "argmax", "argmin", "var", "norm", "cumsum", "any", "all", "amax", "amin"),
    "pooling": ("max_pool", "avg_pool", "_adaptive_avg", "upsample"),
    "copy": ("clone", "copy_", "_to_copy", "cat", "stack", "constant_pad_nd", "repeat", "index", "scatter", "fill",
             "zeros", "ones", "empty", "full", "new_", "arange", "masked_fill", "roll", "slice_scatter"),
}  # fmt: skip
OTHER = "elementwise"
NAMES = (*CLASSES, OTHER)
EXACT_CLASSES = ("attention", "matmul", "convolution")
FLOPS_PER_ELEMENT = {"normalization": 5, "softmax": 5, "copy": 0, "embedding": 0}
FUSED = {
    OTHER,
    "activation",
    "softmax",
    "normalization",
}  # one pass over the data each, or over rows that fit a multiprocessor
REDUCING = {"linalg_vector_norm": "reduction"}  # costs what a sum does, whatever class footprints add it to
CAST = "_to_copy"  # to another precision, of half or twice the bytes
SECTOR_BYTES = 32  # that a GPU reads at once, of whatever it needs
SAME_SIZE = 0.01  # normalization writes its statistics too
SCALING = ("mul", "div", "add", "sub")  # by a value for each channel: what a frozen batch norm consists of
SMALL = 0.05  # beside an image: what has at most such a share of its bytes
VIEWS = {  # to their kind
    **dict.fromkeys(("permute", "transpose", "t"), "transpose"),
    **dict.fromkeys(("slice", "select", "split", "split_with_sizes", "unbind", "chunk", "narrow"), "slice"),
}
NO_GRAPH_TASK = -1  # what PyTorch calls the backward pass that runs while none does
FREE = ("empty", "detach", "lift_fresh", "_unsafe_view", "alias", "is_same_size", "sym_size", "_local_scalar_dense")


@dataclass(frozen=True)
class Operator:
    """One operator on tensors of one shape.

    Attributes
    ----------
    name : str
        ATen name without overload, e.g. ``addmm``.
    label : str
        Class: one of ``NAMES``.
    kind : str
        Finer: of convolutions ``pointwise``, ``patch`` (kernel as long as the stride), ``depthwise``, ``grouped``,
        ``transposed`` or ``convolution``; of matrix products ``linear`` or ``bmm``; of normalizations ``batch_norm``,
        ``layer_norm`` or ``group_norm``; ``resample`` apart from pooling; elsewhere the class.
    backward : bool
        Whether autograd ran it.
    flops : float
    read_bytes, weight_bytes, written_bytes : float
        Inputs that are no parameters, parameters and buffers, outputs.
    m, n, k, groups : int
        Size of a matrix product ``(m, k) x (k, n)`` and how many there are; of a convolution as the product it amounts to; of
        attention queries, keys and width of a head, and heads in the batch. 0 where there is no product, and ``groups`` 1, but for
        interpolation, where they are images that are gone through one by one.
    window, stride : int
        Positions that a convolution's or pooling's kernel covers, and its stride.
    width : int
        Elements of the first input's last dimension: how long normalized or contiguous runs are.
    apart_bytes, apart_span : float
        Bytes of inputs whose elements do not lie side by side where the output's do, and how many bytes of memory sectors are
        touched until an element next to a first one is read: if a cache holds less, each element costs a sector.
    """

    name: str
    label: str
    kind: str
    backward: bool
    flops: float
    read_bytes: float
    weight_bytes: float
    written_bytes: float
    m: int = 0
    n: int = 0
    k: int = 0
    groups: int = 1
    window: int = 1
    stride: int = 1
    width: int = 1
    apart_bytes: float = 0.0
    apart_span: float = 0.0

    @property
    def bytes(self) -> float:
        """All that it reads and writes."""
        return self.read_bytes + self.weight_bytes + self.written_bytes


def watch(
    call: Callable[[], Any], module: torch.nn.Module | None = None, live: Live | None = None, *, views: bool = False
) -> list[Operator]:
    """Operators of ``call()``, in order.

    Parameters
    ----------
    call : callable
        Runs something on real, fake or meta tensors, e.g. ``lambda: module(x)``.
    module : torch.nn.Module, optional
        Whose parameters and buffers count as weights.
    live : Live, optional
        Follows the tensors.
    views : bool
        Whether transposing and slicing count as operators, too: PyTorch only makes a view, exported programs copy.
    """
    found: list[Operator] = []
    weights = set() if module is None else {_storage(x) for x in (*module.parameters(), *module.buffers())}
    with _watcher(found, weights, live, VIEWS if views else {}) as watcher, _whole_kernels(watcher):
        call()
    return found


def fused(operators: Iterable[Operator], joined: Sequence[bool] | None = None) -> list[Operator]:
    """The same operators as a compiler runs them: each run of arithmetic that follows one another is one kernel.

    Casts are arithmetic, too. Within a run every operator takes its predecessor's output from registers: of all but the first only
    further inputs are read, and only the last's output is written. A run ends where the size of the data changes, at products,
    copies and look-ups.

    Parameters
    ----------
    operators : iterable of Operator
    joined : sequence of bool, optional
        Of each, whether it runs in one kernel with its predecessor; default: :func:`joins`.
    """
    operators = list(operators)
    out: list[Operator] = []
    for one, follows in zip(operators, joins(operators) if joined is None else joined, strict=True):
        if not follows:
            # Interpolation becomes arithmetic on all images at once.
            out.append(replace(one, groups=1) if one.kind == "resample" else one)
            continue
        before = out[-1]
        further = max(one.read_bytes - before.written_bytes, 0.0)
        out[-1] = replace(
            one,
            flops=before.flops + one.flops,
            read_bytes=before.read_bytes + further,
            weight_bytes=before.weight_bytes + one.weight_bytes,
        )
    return out


def joins(operators: Sequence[Operator]) -> list[bool]:
    """Of each operator whether a compiler joins it to the one before; see :func:`fused`."""
    return [bool(number) and _fuses(operators[number - 1], one) for number, one in enumerate(operators)]


def _fuses(before: Operator, after: Operator) -> bool:
    casts = before.name == CAST, after.name == CAST
    if not all(cast or one.label in FUSED for cast, one in zip(casts, (before, after), strict=True)):
        return False
    ratio = before.written_bytes / max(after.written_bytes, 1.0)
    return any(abs(ratio / width - 1) <= SAME_SIZE for width in ((0.5, 1.0, 2.0) if any(casts) else (1.0,)))


def folded(operators: Sequence[Operator]) -> list[bool]:
    """Of each operator whether exporting runtimes make it part of the convolution before it.

    Batch norms and activations, and a product or sum with few values, which is what a frozen batch norm consists of, once these
    values are made.
    """
    found: list[bool] = []
    before: Operator | None = None
    for one in operators:
        alike = before is not None and abs(before.written_bytes / max(one.written_bytes, 1.0) - 1) <= SAME_SIZE
        joins_it = (
            alike and (one.kind == "batch_norm" or one.label == "activation" or _scales(one)) and not one.backward
        )
        found.append(bool(joins_it and before and before.label == "convolution"))
        small = before is not None and one.written_bytes <= SMALL * before.written_bytes
        before = before if found[-1] or small else one
    return found


def _scales(one: Operator) -> bool:
    """Whether it multiplies by, or adds, something far smaller than what it writes."""
    further = one.read_bytes + one.weight_bytes - one.written_bytes
    return one.name.rstrip("_") in SCALING and further <= SMALL * one.written_bytes


def table(operators: Iterable[Operator]) -> pd.DataFrame:
    """A row for each different operator, with the ``count`` of equal ones beside the fields of :class:`Operator`."""
    import pandas as pd

    names = [field.name for field in fields(Operator)]
    frame = pd.DataFrame([asdict(one) for one in operators], columns=names)
    return frame.groupby(names, sort=False, as_index=False).size().rename(columns={"size": "count"})


def classify(name: str) -> str:
    """Class of an ATen operator, e.g. ``addmm`` or ``native_layer_norm_backward``."""
    base = name.removesuffix("_backward")
    for label, prefixes in CLASSES.items():
        if label in ("matmul", "activation", "reduction"):
            if base.rstrip("_") in prefixes:
                return label
        elif base.startswith(prefixes):
            return label
    return OTHER


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _held(tensor: torch.Tensor) -> int:
    """Bytes of a tensor, what is repeated by expanding counted once."""
    once = (size for size, step in zip(tensor.shape, tensor.stride(), strict=True) if step)
    return tensor.element_size() * prod(once) if tensor.numel() else 0


def _watcher(found: list[Operator], weights: set[int], live: Live | None, views: Mapping[str, str]) -> Any:
    """A dispatch mode that notes every operator and shows ``live`` every tensor."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    remembered = _Remembered()

    def tensors(tree: Any) -> list[torch.Tensor]:
        return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]

    class Watcher(TorchDispatchMode):
        muted = False

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = remembered(func, args, kwargs or {})
            inputs, outputs = tensors((args, kwargs)), tensors(result)
            if live:
                for tensor in (*inputs, *outputs):
                    live.see(tensor)
            name = func._schema.name.removeprefix("aten::")
            if func.is_view and name in views and not self.muted and not any(_storage(x) in weights for x in inputs):
                found.append(_viewed(name, views[name], inputs, outputs))
            if self.muted or func.is_view or name.startswith(FREE) or func.namespace != "aten":
                return result
            if live and classify(name) == "convolution":
                live.borrow(_blocked_copies(args, result, backward=name.endswith("_backward")))
            self.note(name, func._overloadpacket, args, kwargs or {}, inputs, outputs, result)
            return result

        def note(
            self,
            name: str,
            packet: Any,
            args: Any,
            kwargs: Any,
            inputs: list[torch.Tensor],
            outputs: list[torch.Tensor],
            result: Any,
        ) -> None:
            label, backward = classify(name), name.endswith("_backward")
            by_autograd = torch._C._current_graph_task_id() != NO_GRAPH_TASK
            constant = sum(_held(x) for x in inputs if _storage(x) in weights)
            found.append(
                Operator(
                    name=name,
                    label=label,
                    backward=backward or by_autograd,
                    flops=_flops(label, packet, args, kwargs, outputs, result, backward=backward),
                    read_bytes=float(sum(_held(x) for x in inputs) - constant),
                    weight_bytes=float(constant),
                    written_bytes=float(sum(x.nbytes for x in outputs)),
                    width=inputs[0].shape[-1] if inputs and inputs[0].dim() else 1,
                    **_shape(label, name, args, result, backward=backward),
                    **_apart(inputs, outputs),
                )
            )

    return Watcher()


def _viewed(name: str, kind: str, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> Operator:
    """What a view would be if it were copied."""
    size = float(sum(_held(x) for x in outputs))
    width = inputs[0].shape[-1] if inputs[0].dim() else 1
    return Operator(name, "copy", kind, False, 0.0, size, 0.0, size, width=width)


class _Remembered:
    """Runs operators, on meta tensors each kind of call once: PyTorch works out most meta results in Python, a millisecond each.

    A network repeats its blocks, so most calls are of shapes that were seen. Views, which share their input's storage, and whatever
    is no plain call on tensors and numbers always run.
    """

    def __init__(self) -> None:
        self._made: dict[Any, tuple[bool, list[tuple[Any, ...] | None]]] = {}

    def __call__(self, func: Any, args: Any, kwargs: Any) -> Any:
        import torch
        from torch.utils._pytree import tree_flatten

        if func.is_view or func._schema.is_mutable:
            return func(*args, **kwargs)
        leaves, form = tree_flatten((args, kwargs))
        inputs = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        if not inputs or not all(one.is_meta for one in inputs):
            return func(*args, **kwargs)
        key = (
            func,
            str(form),
            *(_form(leaf) if isinstance(leaf, torch.Tensor) else (type(leaf), leaf) for leaf in leaves),
        )
        try:
            known = self._made.get(key)
        except TypeError:  # an argument that cannot be told from another by its value
            return func(*args, **kwargs)
        if known is None:
            result = func(*args, **kwargs)
            outputs = [result] if isinstance(result, torch.Tensor) else result
            shared = {_storage(one) for one in inputs}
            if isinstance(outputs, list | tuple) and all(_is_new(one, shared) for one in outputs):
                forms = [None if one is None else _form(one) for one in outputs]
                self._made[key] = (outputs is not result, forms)
            return result
        single, forms = known
        made = [
            None if one is None else torch.empty_strided(one[0], one[1], dtype=one[2], device="meta") for one in forms
        ]
        return made[0] if single else tuple(made)


def _form(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.requires_grad


def _is_new(result: Any, shared: set[int]) -> bool:
    """Whether a result is a meta tensor that shares no storage with an input, or none at all."""
    import torch

    return result is None or (isinstance(result, torch.Tensor) and result.is_meta and _storage(result) not in shared)


def _whole_kernels(watcher: Any) -> Any:
    """On meta tensors, keep what devices run as few kernels from being taken apart; on others it stays whole anyway."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention
    from torch.overrides import TorchFunctionMode

    class WholeKernels(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func is scaled_dot_product_attention and len(args) >= 3 and args[0].is_meta:
                return _attention(watcher, args, kwargs)
            if func is torch.lstm and args[0].is_meta and not torch.is_grad_enabled() and _plain_lstm(args):
                return _lstm(watcher, *args)
            return func(*args, **kwargs)

    return WholeKernels()


def _attention(watcher: Any, args: Any, kwargs: Any) -> torch.Tensor:
    query, key, value = args[:3]
    result = _unseen(watcher, query, (*query.shape[:-1], value.shape[-1]))
    watcher.note("_scaled_dot_product", None, args, kwargs, [query, key, value], [result], result)
    return result


def _plain_lstm(args: Any) -> bool:
    """Whether the arguments of ``torch.lstm`` are of batches of equal length, with biases and without projections."""
    return len(args) == 9 and isinstance(args[1], tuple) and args[3] and len(args[2]) == 4 * args[4] * (1 + args[7])


def _lstm(
    watcher: Any,
    given: torch.Tensor,
    state: tuple[torch.Tensor, torch.Tensor],
    weights: Sequence[torch.Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As cuDNN and oneDNN run it: the input's product for all steps at once, then for each step a product and one kernel.

    Appleyard, Kocisky & Blunsom 2016, arXiv:1604.01946, sections 3.1 and 3.2.
    """
    from torch.nn.functional import linear

    directions = 2 if bidirectional else 1
    for layer in range(layers):
        for direction in range(directions):
            row = layer * directions + direction
            of_input, of_state, *biases = weights[4 * row : 4 * row + 4]
            steps = linear(given, of_input, biases[0])
            of_state, bias, hidden, cell = (
                one.to(steps.dtype) for one in (of_state, biases[1], state[0][row], state[1][row])
            )
            for step in steps.unbind(1 if batch_first else 0):
                reads = [step, linear(hidden, of_state, bias), cell]
                hidden, cell = (_unseen(watcher, cell, cell.shape) for _ in range(2))
                watcher.note("_thnn_fused_lstm_cell", None, reads, {}, reads, [hidden, cell], hidden)
        given = _unseen(watcher, steps, (*steps.shape[:-1], directions * cell.shape[-1]))
    last_hidden, last_cell = (_unseen(watcher, given, one.shape) for one in state)
    return given, last_hidden, last_cell


def _unseen(watcher: Any, like: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A new tensor that is no operator's."""
    watcher.muted = True
    try:
        return like.new_empty(shape)
    finally:
        watcher.muted = False


def _flops(
    label: str, packet: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor], result: Any, *, backward: bool
) -> float:
    from torch.utils.flop_counter import flop_registry

    if label == "attention":
        return _attention_flops(args, backward=backward)
    if label == "convolution":
        return _convolution_flops(args, result, backward=backward)
    if packet in flop_registry:
        return float(flop_registry[packet](*args, **kwargs, out_val=result))
    return float(sum(x.numel() for x in outputs) * FLOPS_PER_ELEMENT.get(label, 1))


def _attention_flops(args: Any, *, backward: bool) -> float:
    """FLOPs of fused attention, which the registry knows for some devices only: two products forward, five backward."""
    query, key, value = args[1:4] if backward else args[:3]
    pairs = 2.0 * query.shape[:-1].numel() * key.shape[-2]
    width, out = query.shape[-1], value.shape[-1]
    return pairs * (3 * width + 2 * out) if backward else pairs * (width + out)


def _convolution_flops(args: Any, result: Any, *, backward: bool) -> float:
    """FLOPs of a convolution of any grouping; backward costs as much again for each gradient that is asked for.

    The registry's formula for the backward pass ignores groups.
    """
    weight = args[2] if backward else args[1]
    transposed = args[7] if backward else args[6]
    source, output = (args[1], args[0]) if backward else (args[0], result)
    positions = source.numel() if transposed else output.numel()
    gradients = sum(args[10][:2]) if backward else 1
    return 2.0 * positions * weight.shape[1:].numel() * gradients


def _blocked_copies(args: Any, result: Any, *, backward: bool) -> float:
    """Bytes beside its tensors that a convolution of a CPU holds at most: copies of images in oneDNN's blocked layout.

    Forwards: the image's copy until the output's is filled, then that until it is written out. Backwards: the image's copy with the
    larger one of its gradient's and the output's gradient's. An image of three channels or fewer, or in channels-last layout, is
    taken as it is. The rule was read off the peaks of single operators (ResNet, DETR, wav2vec 2.0; oneDNN 3, AVX-512).
    """
    import torch

    image = args[1] if backward else args[0]
    if image.dim() == 4 and not image.is_contiguous() and image.is_contiguous(memory_format=torch.channels_last):
        return 0.0
    copy = image.nbytes if image.shape[1] > 3 else 0
    if not backward:
        return float(max(copy, result.nbytes))
    gradient = 0 if result[0] is None else result[0].nbytes
    return float(copy + max(args[0].nbytes, gradient))


def _shape(label: str, name: str, args: Any, result: Any, *, backward: bool) -> dict[str, Any]:
    """Kind and, where there is a product, its size."""
    if label == "convolution":
        return _convolution_shape(args, result, backward=backward)
    if label == "attention":
        query, key = args[1:3] if backward else args[:2]
        m, k = query.shape[-2:]
        return {"kind": label, "m": m, "n": key.shape[-2], "k": k, "groups": query.shape[:-2].numel()}
    if label == "matmul":
        left, right = args[1:3] if name.startswith(("addmm", "baddbmm", "addbmm")) else args[:2]
        batched = name.startswith(("bmm", "baddbmm", "addbmm"))
        n = right.shape[0] if name == "linear" else right.shape[-1]
        m = left.shape[-2] if batched else left.shape[:-1].numel()
        groups = left.shape[0] if batched else 1
        return {"kind": "bmm" if batched else "linear", "m": m, "n": n, "k": left.shape[-1], "groups": groups}
    if label == "pooling":
        sizes = args[2:3] if backward else args[1:2]
        window = sizes[0] if sizes and "pool2d" in name and "adaptive" not in name else ()
        if "upsample" not in name:
            return {"kind": label, "window": prod(window)}
        return {"kind": "resample", "groups": 1 if backward else _images_one_by_one(name, args[0])}
    if label == "normalization":
        norms = ("batch_norm", "group_norm")
        return {"kind": next((norm for norm in norms if norm in name), "layer_norm")}
    return {"kind": REDUCING.get(name, label)}


def _images_one_by_one(name: str, source: Any) -> int:
    """Images times channels that an interpolation on a GPU goes through one after another, in as many threads as one has pixels.

    PyTorch's kernels do so (``UpSampleBilinear2d.cu``, ``UpSampleBicubic2d.cu``), but for channels-last images.
    """
    import torch

    if "nearest" in name or source.dim() != 4:
        return 1
    last = source.is_contiguous(memory_format=torch.channels_last) and not source.is_contiguous()
    return 1 if last else int(source.shape[:2].numel())


def _apart(inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> dict[str, Any]:
    """Of an operator that goes through its inputs in the order of its output: what lies across that order."""
    found = {"apart_bytes": 0.0, "apart_span": 0.0}
    for one in inputs:
        if not outputs or one.dim() != outputs[0].dim():
            continue
        output = outputs[0]
        dims = list(zip(one.shape, one.stride(), output.shape, output.stride(), strict=True))
        if any(size not in (1, whole) for size, _, whole, _ in dims):
            continue
        step = next((there for size, stride, _, there in dims if size > 1 and stride == 1), 0)
        if step > 1:
            found["apart_bytes"] += float(output.numel() * one.element_size())
            found["apart_span"] = max(found["apart_span"], float(step * SECTOR_BYTES))
    return found


def _convolution_shape(args: Any, result: Any, *, backward: bool) -> dict[str, Any]:
    """Of a convolution as a product: positions x output channels x (input channels x window), of each group."""
    if backward:
        output, image, weight, _, stride, _, _, transposed, _, groups = args[:10]
    else:
        image, weight, _, stride, _, _, transposed, _, groups = args[:9]
        output = result
    window = weight.shape[2:]
    at = image if transposed else output
    one, other = weight.shape[0] // groups, weight.shape[1]
    inputs, outputs = (one, other) if transposed else (other, one)
    if transposed:
        kind = "transposed"
    elif groups > 1:
        kind = "depthwise" if inputs == 1 else "grouped"
    elif window.numel() == 1:
        kind = "pointwise"
    else:
        kind = "patch" if list(window) == list(stride) else "convolution"
    return {
        "kind": kind,
        "m": at.shape[0] * at.shape[2:].numel(),
        "n": outputs,
        "k": inputs * window.numel(),
        "groups": groups,
        "window": window.numel(),
        "stride": stride[0],
    }
