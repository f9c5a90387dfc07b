"""Made networks: operators in random mixtures, from which a predictor learns what a platform charges for each.

``made-7`` is drawn with seed 7: a convolutional network, a transformer, or one step of a decoder, small, of random widths, depths
and kinds of blocks. Nobody asks how fast they run; but sixteen families tell little about the operators of a seventeenth, and these
mix them anew. Stores hold what was measured of them, so a network that was drawn once must stay what it is. They are not listed
with the zoo's models: ``labbench run --model made-0 made-1 ...`` measures them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from labbench.zoo.base import Family, Model, Size

if TYPE_CHECKING:
    from labbench.cells import Workload

COUNT = 96
CLASSES = 1000


def _made(size: Size, work: Workload) -> Model:
    import random

    import torch

    from labbench.zoo.building import cross_entropy, forward_model
    from labbench.zoo.made_blocks import KINDS

    seed = size.config["seed"]
    module, inputs = KINDS[seed % len(KINDS)](random.Random(seed), work.batch_size, CLASSES)
    labels = torch.randint(0, CLASSES, (work.batch_size,))
    return forward_model(module.eval(), inputs, ("logits",), labels, cross_entropy, work.batch_size)


FAMILY = Family(
    "made",
    "made networks",
    "calibration",
    "made",
    {str(seed): Size({"seed": seed}) for seed in range(COUNT)},
    {},
    _made,
)
