"""One process, which every other strategy is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labbench.distributed.decoder import loss
from labbench.distributed.strategies.base import Batch, Spread, Strategy, adamw

if TYPE_CHECKING:
    import torch

    from labbench.distributed.decoder import Decoder


class OneSpread(Spread):
    """The whole model and the whole batch."""

    def __init__(self, model: Decoder) -> None:
        self.modules = [model]
        self.optimizer = adamw(self.modules)

    def backward(self, batch: Batch) -> torch.Tensor:
        """As in the base class; no rank talks to another."""
        ids, targets = batch
        value = loss(self.modules[0](ids), targets)
        value.backward()
        return value.detach()


@dataclass(frozen=True)
class One(Strategy):
    """No strategy: all of it in this process; what the speed of the others is measured against."""

    def spread(self, model: Decoder) -> Spread:
        """As in the base class."""
        return OneSpread(model)
