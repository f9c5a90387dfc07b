"""Operators of every architecture in a folder of timm's benchmark results, traced on the meta device: nothing is run.

Each architecture is traced at two batch sizes, so that every quantity is known as a fixed part and a part for each sample; and how
many bytes of tensors live at the same time. ``--mode training`` traces steps: forward and backward pass under autocast and SGD with
Nesterov momentum, parameter by parameter, attention in single operators, as timm's results of training (PyTorch 1.12) ran.
Needs timm (``pip install --no-deps timm``); a stand-in takes the place of torchvision, of which timm uses a few helpers that do
not matter here.

    python benchmarks/timm_graphs.py FOLDER GRAPHS.parquet
    python benchmarks/timm_graphs.py FOLDER STEPS.parquet --mode training
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from labbench.autocast import autocast
from labbench.importers import read_foreign
from labbench.live import Live
from labbench.operators import Operator, fused, joins, watch
from labbench.prediction.graphs import BACKWARD, by_sample

BATCHES = (61, 67)  # primes, so that no activation is as large as some weight
SAME_PARAMETERS = 0.05  # timm renames architectures now and then: one of another size is another one


class StandIn(types.ModuleType):
    """A module in which every name is a class that does nothing, or a module of the same sort."""

    __path__ = ()
    __version__ = "0.0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name.islower():
            return importlib.import_module(f"{self.__name__}.{name}")
        if name == "FrozenBatchNorm2d":
            return torch.nn.BatchNorm2d
        modes = {
            mode: mode.lower()
            for mode in ("NEAREST", "BILINEAR", "BICUBIC", "BOX", "HAMMING", "LANCZOS", "NEAREST_EXACT")
        }
        return type(name, (), {"__init__": lambda self, *_, **__: None, **modes})


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``torchvision`` and everything in it."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """A stand-in for any part of torchvision."""
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> StandIn:
        """An empty module."""
        return StandIn(spec.name)

    def exec_module(self, module: Any) -> None:
        """Nothing to run."""


def build(name: str, image_size: int) -> torch.nn.Module:
    """An architecture without weights; its size of image where it takes one."""
    import timm

    with torch.device("meta"):
        try:
            model = timm.create_model(name, img_size=image_size)
        except TypeError:  # takes images of any size
            model = timm.create_model(name)
    return model.eval()


class Traced:
    """Calls of one model at both batch sizes.

    Attributes
    ----------
    operators : list of list of Operator
        At each batch size.
    counted : DataFrame
        One row: ``peak_bytes`` and ``peak_copies_bytes`` of a sample and, with ``_fixed``, besides.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        image_size: int,
        call: Callable[[torch.Tensor], Any],
        again: bool,
        held: Sequence[torch.Tensor] = (),
    ) -> None:
        self.operators: list[list[Operator]] = []
        peaks = []
        # The first call of all makes biases by position and the like.
        for batch in (BATCHES[0], *BATCHES) if again else BATCHES:
            live = Live()
            live.see_module(model)
            for tensor in held:
                live.see(tensor, "held")
            image = torch.empty(batch, 3, image_size, image_size, device="meta")
            self.operators.append(watch(lambda image=image: call(image), model, live))
            peaks.append((live.peak_bytes, live.peak_cpu_bytes))
        self.operators = self.operators[-2:]
        fewer, more = (pd.DataFrame([peak], columns=["peak_bytes", "peak_copies_bytes"]) for peak in peaks[-2:])
        each = (more - fewer) / (BATCHES[1] - BATCHES[0])
        self.counted = each.join((fewer - BATCHES[0] * each).add_suffix("_fixed"))

    def table(self, operators: list[list[Operator]] | None = None) -> pd.DataFrame:
        """Different operators (of what a compiler makes of them, if given) with what was counted of the whole."""
        return by_sample(BATCHES, *(operators or self.operators)).merge(self.counted, how="cross")


def trace(model: torch.nn.Module, image_size: int) -> pd.DataFrame:
    """Operators in single and mixed precision, as they are written and (``fused``) as a compiler runs them."""
    parts = []
    for precision, context in (("fp32", nullcontext()), ("amp", autocast(torch.float16))):

        def call(image: torch.Tensor, context: Any = context) -> Any:
            with torch.no_grad(), context:
                return model(image)

        found = Traced(model, image_size, call, again=precision == "fp32")
        parts.append(found.table().assign(fused=False, precision=precision))
        joined = joins(found.operators[-1])
        compiled = found.table([fused(one, joined) for one in found.operators])
        parts.append(compiled.assign(fused=True, precision=precision))
    return pd.concat(parts, ignore_index=True)


def trace_step(model: torch.nn.Module, image_size: int) -> pd.DataFrame:
    """Operators of a training step in mixed precision."""
    model.train()
    parameters = list(model.parameters())
    for one in parameters:
        one.grad = torch.empty_like(one)  # kept from step to step
    held = [*(one.grad for one in parameters), *(torch.empty_like(one) for one in parameters)]  # the latter: momentum

    def step(image: torch.Tensor) -> None:
        with autocast(torch.float16):
            output = model(image)
            output = output[0] if isinstance(output, tuple) else output
            target = torch.zeros(len(image), dtype=torch.long, device="meta")
            torch.nn.functional.cross_entropy(output, target).backward()

    found = Traced(model, image_size, step, again=True, held=held)
    found.operators = [[*one, *_sgd(parameters)] for one in found.operators]
    table = found.table()
    backwards = table["kind"] + np.where(table["backward"], BACKWARD, "")
    return table.assign(kind=backwards, fused=False, precision="amp", mode="training")


def _sgd(parameters: list[torch.nn.Parameter]) -> Iterator[Operator]:
    """What SGD with Nesterov momentum does to each parameter: zeroes its gradient, decays, adds up, looks ahead, steps."""
    for name, reads in (("zero_", 0), ("mul_", 1), ("add_", 2), ("add", 2), ("add_", 2)):
        for one in parameters:
            size = float(one.nbytes)
            yield Operator(
                name=name,
                label="elementwise",
                kind="optimizer",
                backward=False,
                flops=float(one.numel() * (reads > 0)),
                read_bytes=reads * size,
                weight_bytes=0.0,
                written_bytes=size,
                width=one.numel(),
            )


def architectures(folder: Path, modes: Collection[str]) -> pd.DataFrame:
    """Architectures and image sizes of all results of some modes, with the number of parameters that was published, if any."""
    found = read_foreign(folder, format="timm")
    rows = [
        {
            "model": record.cell.workload.model,
            "image_size": record.cell.workload.image_size,
            "parameters": record.metrics.get("parameters"),
        }
        for record in found.records
        if record.cell.workload.mode in modes
    ]
    return pd.DataFrame(rows).groupby(["model", "image_size"], as_index=False)["parameters"].median()


def traced(
    asked: pd.DataFrame, trace: Callable[[torch.nn.Module, int], pd.DataFrame], why_not: dict[str, str]
) -> Iterator[pd.DataFrame]:
    """Graphs of the architectures that timm can build and that are the published ones; the others' reasons."""
    for row in tqdm(list(asked.itertuples()), "architectures", smoothing=0):
        try:
            model = build(row.model, row.image_size)
            parameters = sum(one.numel() for one in model.parameters())
            if row.parameters == row.parameters and abs(parameters / row.parameters - 1) > SAME_PARAMETERS:
                raise ValueError(
                    f"{parameters / 1e6:.2f} million parameters here, {row.parameters / 1e6:.2f} when it was measured"
                )
            graph = trace(model, row.image_size)
        except Exception as error:  # any of a thousand architectures may refuse in its own way
            why_not[f"{row.model} at {row.image_size}"] = f"{type(error).__name__}: {error}"
            continue
        module = type(model).__module__.rsplit(".", 1)[-1]
        yield graph.assign(model=row.model, image_size=row.image_size, parameters=parameters, module=module)


def main() -> None:
    """Trace all and write one table; tell which could not be traced."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("graphs", type=Path)
    parser.add_argument("--mode", default="inference", choices=("inference", "training"))
    parser.add_argument(
        "--part", nargs=2, type=int, default=(0, 1), metavar=("I", "N"), help="only the I-th of N parts"
    )
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.insert(0, StandIns())
    how, modes = trace, ("inference", "training")
    if options.mode == "training":
        importlib.import_module("timm.layers").set_fused_attn(False)
        how, modes = trace_step, ("training",)
    why_not: dict[str, str] = {}
    first, step = options.part
    graphs = pd.concat(traced(architectures(options.folder, modes)[first::step], how, why_not), ignore_index=True)
    graphs.to_parquet(options.graphs)
    for name, reason in why_not.items():
        print(f"left out: {name}: {reason}")
    print(
        f"{options.graphs}: {graphs.groupby(['model', 'image_size']).ngroups} architectures and sizes, {len(why_not)} left out"
    )


if __name__ == "__main__":
    main()
