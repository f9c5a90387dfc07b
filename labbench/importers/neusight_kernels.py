"""NeuSight's single kernels (``ops/*.parquet``) as a table of operators with seconds, to learn kernel models from.

Not records: 230,000 rows that are no cell of a benchmark. Files name an operator; the ``u`` suffix means with a scalar instead
of a second tensor. All are single precision, and ``Latency`` is in milliseconds.

The columns of products mislead: what is called N is the length of the sum, K the output's width, as the grids show
(``linear`` of M 2008, N 1934, K 5433 starts 170 x 16 blocks: 5433 / 32 by 2008 / 128).
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING

from labbench.operators import Operator, table

if TYPE_CHECKING:
    import pandas as pd

FLOAT = 4  # bytes
SIZES = ("m", "n", "k", "groups", "window", "stride", "width")
BINARY = ("add", "div", "mul", "pow")
UNARY = ("addu", "divu", "mulu", "powu", "gelu", "relu", "tanh")
KINDS = {"softmax": ("_softmax", "softmax", 5), "ln": ("native_layer_norm", "layer_norm", 5)}  # ATen name, kind, FLOPs
ACTIVATIONS = ("gelu", "relu", "tanh")


def kernels(folder: Path) -> pd.DataFrame:
    """Columns of :func:`labbench.operators.table` (but ``count``), ``device``, ``operator`` (the file's name) and ``seconds``.

    Parameters
    ----------
    folder : path
        Holds ``add.parquet`` and so on.
    """
    import pandas as pd

    parts = []
    for file in sorted(folder.glob("*.parquet")):
        raw = pd.read_parquet(file)
        shaped = _products(raw, file.stem) if {"M", "Input_Channel"} & set(raw.columns) else _moved(raw, file.stem)
        shaped["device"] = raw["Device"]
        parts.append(shaped.assign(operator=file.stem, seconds=raw["Latency"] * 1e-3))
    blank = table([]).drop(columns="count")
    defaults = {field.name: field.default for field in fields(Operator) if field.default is not MISSING}
    frame = pd.concat(parts, ignore_index=True)
    frame = frame.reindex(columns=[*blank.columns, "device", "operator", "seconds"])
    return frame.assign(backward=False).fillna({"weight_bytes": 0.0, **defaults}).astype(dict.fromkeys(SIZES, int))


def _products(raw: pd.DataFrame, name: str) -> pd.DataFrame:
    """Matrix products, and convolutions as the products they amount to."""
    import pandas as pd

    if name == "conv":
        window = raw["Kernel_Szie"] ** 2
        side = (raw["Input_Size"] + 2 * raw["Padding"] - raw["Kernel_Szie"]) // raw["Stride"] + 1
        m, n, k, groups = raw["B"] * side**2, raw["Output_Channel"], raw["Input_Channel"] * window, 1
        read = raw["B"] * raw["Input_Channel"] * raw["Input_Size"] ** 2
        said = {
            "name": "convolution",
            "label": "convolution",
            "kind": "convolution",
            "window": window,
            "stride": raw["Stride"],
        }
    else:
        m, n, k, groups = raw["M"], raw["K"], raw["N"], raw["B"]
        read = groups * m * k
        said = {"name": "addmm" if name == "linear" else "bmm", "label": "matmul", "kind": name}
    weight = groups * n * k
    constant = name != "bmm"
    columns = {
        **said,
        "flops": 2.0 * groups * m * n * k,
        "read_bytes": FLOAT * (read if constant else read + weight),
        "weight_bytes": FLOAT * weight if constant else 0.0,
        "written_bytes": FLOAT * groups * m * n,
        "m": m,
        "n": n,
        "k": k,
        "groups": groups,
    }
    return pd.DataFrame(columns, index=raw.index)


def _moved(raw: pd.DataFrame, name: str) -> pd.DataFrame:
    """Operators that move data."""
    import pandas as pd

    elements = raw["B"].astype(float) * raw["H"]
    aten, kind, flops = KINDS.get(name, (name.removesuffix("u") if name in UNARY[:4] else name, "elementwise", 1))
    if name in ACTIVATIONS:
        kind = "activation"
    label = {"layer_norm": "normalization"}.get(kind, kind)
    columns = {
        "name": aten,
        "label": label,
        "kind": kind,
        "flops": flops * elements,
        "read_bytes": FLOAT * elements * (2 if name in BINARY else 1),
        "written_bytes": FLOAT * elements,
        "width": raw["H"],
    }
    return pd.DataFrame(columns, index=raw.index)
