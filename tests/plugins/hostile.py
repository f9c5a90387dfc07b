"""Models and a runtime that misbehave, each in one way; loaded by workers as a plugin."""

import ctypes
import time

import torch

from labbench import runtimes, zoo
from labbench.runtimes.eager import Eager


class Segfaults(torch.nn.Module):
    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls > 3:
            ctypes.string_at(0)
        return x


class Sleeps(torch.nn.Module):
    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls > 3:
            time.sleep(3600)
        return x


class Allocates(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept = []
        while True:
            self.kept.append(torch.ones(2**22))


class Raises(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("this model cannot count to three")


class Lies(Eager):
    """A runtime that gives back zeros, quickly."""

    name = "lies"
    precisions = ("fp32",)

    def transform(self, call):
        return lambda *inputs: torch.zeros_like(call(*inputs))


def inputs(batch: int) -> tuple[torch.Tensor, ...]:
    return (torch.randn(batch, 8),)


for _module in (Segfaults, Sleeps, Allocates, Raises):
    zoo.register_module(_module.__name__.lower(), _module, inputs)
zoo.register_module("honest", lambda: torch.nn.Linear(8, 8), inputs)
runtimes.register(Lies())
