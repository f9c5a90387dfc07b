"""A benchmark of training that cannot learn is void: labbench's own step brings the loss of one batch down by nine tenths."""

import pytest
import torch

from labbench import zoo
from labbench.cells import Platform, Workload
from labbench.runtimes.step import TrainingStep

FALL = 0.1  # of the first loss that may be left
MOST_STEPS = 400
RATE = 1e-3  # the step's own is small so that a benchmark of any length stays finite
SMALL = {
    "bert-tiny": {"seq_len": 16},
    "t5-tiny": {"seq_len": 16},
    "llama-tiny": {"seq_len": 16},
    "qwen2-tiny": {"seq_len": 16},
    "vit-tiny": {},
    "whisper-micro": {"audio_s": 2},
    "clip-tiny": {},
    "resnet-tiny": {},
}


@pytest.mark.parametrize("model", SMALL)
def test_the_step_overfits_one_batch(model):
    torch.manual_seed(0)
    workload = zoo.resolve(Workload(model=model, mode="training", batch_size=2, **SMALL[model]))
    step = TrainingStep(zoo.build(workload), Platform(), workload)
    for group in step.optimizer.param_groups:
        group["lr"] = RATE
    first = float(step())
    losses = [first]
    while losses[-1] > FALL * first and len(losses) < MOST_STEPS:
        losses.append(float(step()))
    assert losses[-1] <= FALL * first, f"{model}: from {first:.3g} to {losses[-1]:.3g} in {len(losses)} steps"
