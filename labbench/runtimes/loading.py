"""A data loader whose samples are made, not read: what a data-bound step waits for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

ENDLESS = 2**40  # samples; no benchmark takes as many steps


class Samples(Dataset[dict[str, Any]]):
    """Samples like those of a batch: floating-point inputs are drawn anew, as decoding and augmenting would, the rest is copied."""

    def __init__(self, batch: Mapping[str, Any]) -> None:
        self._batch = batch
        self._size = len(next(iter(batch.values())))

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        return {name: _drawn(value[index % self._size], generator) for name, value in self._batch.items()}


def _drawn(value: Any, generator: torch.Generator) -> Any:
    if not torch.is_tensor(value):
        return value
    if value.is_floating_point() and value.dim():
        return torch.randn(value.shape, generator=generator, dtype=value.dtype)
    return value.clone()


def together(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of samples: tensors are stacked, anything else is a list."""
    first = samples[0]
    return {
        name: torch.stack([one[name] for one in samples])
        if torch.is_tensor(first[name])
        else [one[name] for one in samples]
        for name in first
    }


def loader(batch: Mapping[str, Any], workers: int) -> DataLoader[dict[str, Any]]:
    """Batches like ``batch``, made by so many processes; by this one if there are none."""
    return DataLoader(
        Samples(batch),
        batch_size=len(next(iter(batch.values()))),
        num_workers=workers,
        collate_fn=together,
        worker_init_fn=_use_every_core if workers else None,
        multiprocessing_context="fork" if workers and os.name == "posix" else None,
    )


def _use_every_core(worker: int) -> None:
    """Leave the cores that the training process is pinned to, if there are others."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
