"""A small real task, to see how long training takes to reach a target loss: handwritten digits, a small convolutional network.

The digits are scikit-learn's (1,797 images of 8 × 8 pixels, UCI "Optical Recognition of Handwritten Digits"); a fifth is held
out, and the loss is the cross entropy of those. Training time is the time of training steps alone: looking at the held-out digits
is not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

TARGET_LOSS = 0.10  # about 97 % of the held-out digits right
LIMIT_S = 20.0  # of training time; a setting that has not reached the target by then does not count as reaching it
CHECK_SAMPLES = 320  # training samples between two looks at the held-out digits
HELD_OUT = 5  # one of so many


@dataclass(frozen=True)
class Setting:
    """What is tuned; the defaults are what people begin with."""

    batch_size: int = 32
    learning_rate: float = 1e-3  # torch's default of Adam and AdamW


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes
    ----------
    reached : bool
        Whether the held-out loss came down to the target.
    seconds : float
        Training time until then, or all that was spent.
    steps : int
    loss : float
        Held-out loss at the end.
    curve : tuple of (float, float)
        Seconds and held-out loss at each look.
    """

    setting: Setting
    seed: int
    reached: bool
    seconds: float
    steps: int
    loss: float
    curve: tuple[tuple[float, float], ...]


@cache
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images (n × 1 × 8 × 8, in 0..1) and labels to train with, and those held out."""
    import torch
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.tensor(found.images / 16.0, dtype=torch.float32)[:, None]
    labels = torch.tensor(found.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    held = order[: len(order) // HELD_OUT]
    rest = order[len(order) // HELD_OUT :]
    return images[rest], labels[rest], images[held], labels[held]


def network() -> torch.nn.Module:
    """Two convolutions and two linear layers, 94,000 parameters."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def train(
    setting: Setting,
    seed: int,
    *,
    target: float = TARGET_LOSS,
    limit_s: float = LIMIT_S,
) -> Run:
    """Train from new weights until the held-out loss is at most ``target``, or ``limit_s`` of training time are spent."""
    import torch

    _, _, held, wanted = data()
    torch.manual_seed(seed)
    module = network()
    optimizer = torch.optim.AdamW(module.parameters(), lr=setting.learning_rate)
    loss_of = torch.nn.functional.cross_entropy
    every = max(1, CHECK_SAMPLES // setting.batch_size)
    seconds, steps, loss = 0.0, 0, math.inf
    curve: list[tuple[float, float]] = []
    while seconds < limit_s:
        start = perf_counter()
        for _ in range(every):
            _step(module, optimizer, setting.batch_size)
        seconds += perf_counter() - start
        steps += every
        with torch.inference_mode():
            loss = float(loss_of(module(held), wanted))
        curve.append((seconds, loss))
        if loss <= target or not math.isfinite(loss):
            break
    return Run(setting, seed, loss <= target, seconds, steps, loss, tuple(curve))


def _step(module: torch.nn.Module, optimizer: torch.optim.Optimizer, batch_size: int) -> torch.Tensor:
    """One step on digits drawn at random; its loss."""
    import torch

    images, labels, _, _ = data()
    picked = torch.randint(len(labels), (batch_size,))
    optimizer.zero_grad(set_to_none=True)
    loss: Any = torch.nn.functional.cross_entropy(module(images[picked]), labels[picked])
    loss.backward()
    optimizer.step()
    detached: torch.Tensor = loss.detach()
    return detached


def range_test(
    batch_size: int, seed: int, *, low: float = 1e-5, high: float = 10.0, steps: int = 150
) -> list[tuple[float, float]]:
    """Learning rate and loss of steps whose learning rate grows from ``low`` to ``high``; it ends when the loss explodes.

    Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, section 3.3.
    """
    import torch

    torch.manual_seed(seed)
    module = network()
    optimizer = torch.optim.AdamW(module.parameters(), lr=low)
    found: list[tuple[float, float]] = []
    for i in range(steps):
        rate = low * (high / low) ** (i / (steps - 1))
        for group in optimizer.param_groups:
            group["lr"] = rate
        found.append((rate, float(_step(module, optimizer, batch_size))))
        if not math.isfinite(found[-1][1]) or found[-1][1] > 4 * found[0][1]:
            break
    return found


def suggested_rate(found: list[tuple[float, float]], smoothing: int = 9) -> float:
    """The learning rate at which the smoothed loss falls most steeply."""
    import numpy as np

    rates, losses = np.array(found).T
    width = min(smoothing, len(losses))
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    middle = rates[width // 2 : width // 2 + len(smooth)]
    best = int(np.argmin(smooth))
    slope = np.gradient(smooth[: best + 1]) if best > 1 else np.array([0.0])
    return float(middle[int(np.argmin(slope))])
