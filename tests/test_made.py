"""Made networks: what a predictor learns from beside the models that people ask about."""

import pytest
import torch

from labbench import footprint, zoo
from labbench.cells import Workload
from labbench.zoo.made_blocks import KINDS


@pytest.mark.parametrize("seed", range(2 * len(KINDS)))
def test_a_made_network_runs_and_is_the_same_every_time(seed):
    work = zoo.resolve(Workload(model=f"made-{seed}", batch_size=2))
    first, second = zoo.build(work), zoo.build(work)
    with torch.no_grad():
        outputs = [model.programs[0].module(*model.programs[0].inputs)[0] for model in (first, second)]
    assert torch.isfinite(outputs[0]).all()
    assert torch.equal(*outputs)
    counted = footprint.of(work)["forward"]
    assert counted.parameters == sum(p.numel() for p in first.module.parameters())


def test_made_networks_differ_and_are_not_offered():
    demands = {footprint.of(Workload(model=f"made-{seed}"))["forward"].flops for seed in range(15)}
    assert len(demands) == 15
    assert not [name for name in zoo.models() if name.startswith("made")]
    assert "made" not in zoo.families()


def test_networks_that_were_drawn_once_stay_what_they_are():
    """Stores hold what was measured of them under their names: new blocks must not change them."""
    drawn = [footprint.of(Workload(model=f"made-{seed}"))["forward"].parameters for seed in range(5)]
    assert drawn == [1108584, 621800, 234904, 1795176, 388840]
