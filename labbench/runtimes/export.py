"""A torch module as a graph with static shapes, for the runtimes that need one."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """No gradients, and no exporter chatter on the console."""
    import torch

    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def to_exported(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.export.ExportedProgram:
    """``torch.export`` of the module; concatenations with nothing are simplified (OpenVINO cannot convert them)."""
    import torch

    with _quietly():
        program = torch.export.export(module, inputs)
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.cat.default:
            parts = [part for part in node.args[0] if part.meta["val"].numel()]
            node.args = (parts or node.args[0], *node.args[1:])
    return program


def to_onnx(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    folder: Path,
    *,
    names: tuple[tuple[str, ...], tuple[str, ...]] | None = None,
    dims: tuple[dict[int, str], ...] | None = None,
) -> Path:
    """An ONNX file in ``folder``, weights beside it where they are large.

    Parameters
    ----------
    names : pair of tuples of str, optional
        What inputs and outputs are called.
    dims : tuple of dict, optional
        For each input, {axis: name} of the dimensions that may change (the module must then take ``*inputs``, and the weights go
        into the file); without it, all are fixed.
    """
    import torch

    path = folder / "model.onnx"
    with _quietly():
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            verbose=False,
            optimize=False,
            input_names=names and names[0],
            output_names=names and names[1],
            dynamic_shapes=dims and (dims,),
        )
        assert program is not None
        weights = list(program.model.graph.initializers.values())
        program.optimize()
        program.save(str(path), external_data=dims is None)
    # The optimizer's rules hold on to the graph for ever: its weights would count as the runtime's memory.
    for value in (*weights, *program.model.graph.initializers.values()):
        value.const_value = None
    return path
