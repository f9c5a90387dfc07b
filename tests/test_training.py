"""Training steps: their parts, their variants, the proof that they train, and what is refused."""

import math

import pandas as pd
import pytest
import torch

from labbench import footprint, zoo
from labbench.analysis import training, training_report
from labbench.cells import Cell, Platform, Workload
from labbench.cli import main
from labbench.config import ConfigError
from labbench.measure import measure
from labbench.measure import training as measured
from labbench.measure.protocol import preset
from labbench.measure.session import CellFailed
from labbench.records import CAUSES, PARTS
from labbench.runtimes.base import Unsupported
from labbench.runtimes.step import TrainingStep
from labbench.store import Store
from labbench.zoo.base import Training

pytestmark = pytest.mark.alone

FAST = preset("quick", min_time_s=0.05, max_time_s=0.3, warmup_max_s=0.2)
VARIANTS = (
    {},
    {"optimizer": "sgd", "clip_norm": 0.5},
    {"optimizer": "adamw_fused"},
    {"optimizer": "adamw_foreach"},
    {"optimizer": "adafactor"},
    {"accumulation": 3},
    {"checkpointing": True},
    {"trained": "head"},
    {"trained": "lora"},
    {"precision": "bf16"},
)
FROZEN = {"head": 36, "lora": 42}


def step_of(model="bert-tiny", platform=None, **variant) -> TrainingStep:
    """A step of a seeded model."""
    work = zoo.resolve(Workload(model=model, mode="training", **{"batch_size": 2, **variant}))
    return TrainingStep(zoo.build(work), Platform(**(platform or {})), work)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_step_of_every_variant_changes_what_it_trains_and_nothing_else(variant):
    if variant.get("trained") == "lora":
        pytest.importorskip("peft")
    step = step_of(**variant)
    trained = {id(parameter) for parameter in step.trained}
    frozen = [(p, p.detach().clone()) for p in step.module.parameters() if id(p) not in trained]
    before = step.checksums()
    metrics = measured.proof(step, step(), before)
    assert metrics["tensors_changed_fraction"] > 0.9
    assert metrics["gradient_norm"] > 0
    assert all(torch.equal(parameter, was) for parameter, was in frozen)
    assert len(frozen) == FROZEN.get(variant.get("trained"), 0)


def test_a_step_is_the_one_that_a_plain_loop_takes():
    step, plain = step_of(clip_norm=0.1), step_of()
    optimizer = torch.optim.AdamW(plain.module.parameters(), lr=1e-4)
    torch.manual_seed(1)
    loss = float(step())
    torch.manual_seed(1)
    batch = zoo.build(zoo.resolve(Workload(model="bert-tiny", mode="training", batch_size=2))).training.batch
    expected = plain.module(**batch).loss
    expected.backward()
    torch.nn.utils.clip_grad_norm_(plain.module.parameters(), 0.1)
    optimizer.step()
    assert loss == pytest.approx(float(expected), rel=1e-6)
    for one, other in zip(step.module.parameters(), plain.module.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-7)


def test_accumulated_gradients_are_those_of_their_mean_loss():
    one, three = step_of(optimizer="sgd"), step_of(optimizer="sgd", accumulation=3)
    for step in (one, three):
        step.module.eval()  # no dropout: three times the same batch
        step()
    for a, b in zip(one.module.parameters(), three.module.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_checkpointing_keeps_fewer_activations_and_a_head_has_fewer_gradients():
    plain, checkpointed, head = (
        step_of(**one).memory_by_cause() for one in ({}, {"checkpointing": True}, {"trained": "head"})
    )
    assert checkpointed["activations"] < plain["activations"]
    assert checkpointed["parameters"] == plain["parameters"] == plain["gradients"]
    assert head["gradients"] < plain["gradients"] / 1.5
    assert plain["optimizer"] == pytest.approx(2 * plain["parameters"], rel=0.01)


def test_the_parts_of_a_step_add_up_to_it():
    step = step_of(accumulation=2, clip_norm=1.0)
    assert set(step.anatomy()) == {"zero_grad", "forward", "loss", "backward", "clip", "optimizer"}
    assert set(step_of(platform={"loader_workers": 0}).anatomy()) >= {"data"}


def test_a_loader_hands_out_new_batches_like_the_given_one():
    from labbench.runtimes.loading import loader

    batch = zoo.build(zoo.resolve(Workload(model="detr-tiny", mode="training", batch_size=3))).training.batch
    for workers in (0, 1):
        made = iter(loader(batch, workers))
        first, second = next(made), next(made)
        assert first["pixel_values"].shape == batch["pixel_values"].shape
        assert not torch.equal(first["pixel_values"], second["pixel_values"])
        assert torch.equal(first["labels"][2]["boxes"], batch["labels"][2]["boxes"])


@pytest.mark.parametrize(
    ("variant", "platform", "reason"),
    [
        ({"precision": "fp16"}, {}, "needs an accelerator"),
        ({"precision": "int8"}, {}, "training in int8 is not offered"),
        ({"model": "resnet-tiny", "checkpointing": True}, {}, "does not support checkpointing"),
        ({}, {"memory_format": "channels_last"}, "no two-dimensional convolution"),
    ],
)
def test_what_cannot_be_is_unsupported_with_its_reason(variant, platform, reason):
    with pytest.raises(Unsupported, match=reason):
        step_of(platform=platform, **variant)


def test_training_fields_are_refused_in_inference_and_defaults_have_no_second_name():
    with pytest.raises(ConfigError, match="optimizer belongs to training"):
        zoo.resolve(Workload(model="bert-tiny", optimizer="sgd"))
    plain = zoo.resolve(Workload(model="bert-tiny", mode="training"))
    named = zoo.resolve(
        Workload(model="bert-tiny", mode="training", optimizer="adamw", accumulation=1, checkpointing=False)
    )
    assert named == plain
    assert plain.variant is None
    with pytest.raises(ConfigError, match="batch_size"):
        Cell.of(model="bert-tiny", mode="training", batch_size=0)


def with_loss(criterion) -> TrainingStep:
    """A step of a linear layer with this loss."""
    module = torch.nn.Linear(4, 1)
    batch = {"x": torch.ones(2, 4)}
    training_ = Training(batch, lambda module, batch: module(batch["x"]), criterion, 2, "samples")
    model = zoo.Model(module, (), training_)
    return TrainingStep(model, Platform(), Workload(model="mine", mode="training", batch_size=2))


@pytest.mark.parametrize(
    ("criterion", "reason"),
    [
        (lambda module, out, batch: out.sum() * math.nan, "loss of the first training step is nan"),
        (lambda module, out, batch: (out * 0).sum() + module.weight.detach().sum(), None),
        (lambda module, out, batch: (out - out).sum().sqrt(), "NaN or infinite"),
    ],
)
def test_a_step_that_does_not_train_is_failed(criterion, reason):
    step = with_loss(criterion)
    step.optimizer.param_groups[0]["weight_decay"] = 0.0
    before = step.checksums()
    with pytest.raises(CellFailed, match=reason or "changed no parameter"):
        measured.proof(step, step(), before)


BAD = """
import torch
from torch import nn
from labbench import zoo

class Two(nn.Module):
    def forward(self, x, mask):
        return x * mask

def rows(batch):
    return torch.randn(batch, 4)

def made():
    return nn.Linear(4, 2)

def nan(output, target):
    return (output - target).sum() * float("nan")

zoo.register_module("two-inputs", Two, rows, loss=nn.functional.mse_loss, targets=rows)
zoo.register_module("nan-loss", made, rows, loss=nan, targets=lambda batch: torch.zeros(batch, 2))
zoo.register_module("no-loss", made, rows)
zoo.register_module("no-targets", made, rows, loss=nn.functional.mse_loss)
zoo.register_module("good", made, rows, loss=nn.functional.mse_loss, targets=lambda batch: torch.zeros(batch, 2))
"""


def test_bad_models_of_users_end_with_reasons_and_leave_the_good_one_alone(tmp_path, capsys):
    plugin = tmp_path / "bad.py"
    plugin.write_text(BAD)
    names = ["two-inputs", "nan-loss", "no-loss", "no-targets", "good"]
    store = tmp_path / "s.h5"
    main(
        [
            "train",
            "--plugin",
            str(plugin),
            "--model",
            *names,
            "--batch-size",
            "3",
            "--protocol",
            "quick",
            "--store",
            str(store),
        ]
    )
    found = {record.cell.workload.model: record for record in Store(store).records()}
    assert {name: record.status for name, record in found.items()} == {
        "two-inputs": "failed", "nan-loss": "failed", "no-loss": "unsupported", "no-targets": "failed", "good": "ok",
    }  # fmt: skip
    assert "Two.forward(x, mask) does not fit" in found["two-inputs"].reason
    assert "'mask'" in found["two-inputs"].reason
    assert "the loss of the first training step is nan" in found["nan-loss"].reason
    assert "declares no training loss; register it with one" in found["no-loss"].reason
    assert "the loss(" in found["no-targets"].reason
    assert "'target'" in found["no-targets"].reason
    assert main(["train", "--model", "bert-tiny", "--batch-size", "0", "--store", str(store)]) == 2
    assert "batch_size" in capsys.readouterr().err


def test_a_model_without_a_loss_is_unsupported():
    model = zoo.Model(torch.nn.Linear(4, 1), (), None)
    with pytest.raises(Unsupported, match="declares no training loss"):
        TrainingStep(model, Platform(), Workload(model="mine", mode="training"))


@pytest.mark.slow
def test_a_measured_step_tells_its_parts_its_memory_and_that_it_trains():
    cell = Cell.of(model="bert-tiny", mode="training", batch_size=4, seq_len=32, threads=1, clip_norm=1.0)
    [record] = measure(cell, protocol=FAST)
    assert record.status == "ok", record
    [series] = record.series
    parts = sum(part.value for part in series.parts.values())
    assert set(series.parts) == set(PARTS) - {"data"}
    assert parts == pytest.approx(
        series.latency_s, rel=0.15
    )  # a shared machine; benchmarks/training_agreement.py is strict
    assert set(record.memory.by_cause) == set(CAUSES)
    assert sum(record.memory.by_cause.values()) >= record.memory.increase_bytes
    assert record.metrics["loss_last"] < record.metrics["loss_first"]
    assert series.footprint.peak_bytes > series.footprint.parameter_bytes * 3


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_variant_can_be_counted(variant):
    if variant.get("trained") == "lora":
        pytest.importorskip("peft")
    work = zoo.resolve(Workload(model="bert-tiny", mode="training", batch_size=2, seq_len=32, **variant))
    counted = footprint.of(work)["step"]
    assert counted.peak_bytes > counted.parameter_bytes


def test_the_counted_peak_holds_weights_gradients_state_and_activations():
    small, large = (
        footprint.of(zoo.resolve(Workload(model="bert-tiny", mode="training", batch_size=size)))["step"]
        for size in (1, 8)
    )
    assert large.peak_by_cause["parameters"] == small.peak_by_cause["parameters"]
    assert large.peak_by_cause["activations"] > 6 * small.peak_by_cause["activations"]
    assert small.peak_bytes == pytest.approx(sum(small.peak_by_cause.values()))


@pytest.fixture(scope="module")
def steps(tmp_path_factory) -> pd.DataFrame:
    """Steps that really ran: plain, a variant, with a loader, and inference beside them."""
    from labbench.campaign import Campaign
    from labbench.cells import Grid
    from labbench.store import Store

    path = tmp_path_factory.mktemp("training") / "s.h5"
    common = {"model": "vit-tiny", "batch_size": 2, "threads": 1, "image_size": 32}
    include = [
        {**common, "mode": "inference"},
        *({**common, "mode": "training", **one} for one in ({}, {"optimizer": "sgd"}, {"loader_workers": 0})),
    ]
    Campaign(Grid(include=include), path, FAST).run(progress=False)
    return Store(path)


@pytest.mark.slow
def test_steps_are_told_in_tables_figures_and_sentences(steps):
    from labbench import plots

    frame = steps.latest()
    table = training.steps(frame, steps.environments())
    assert len(table) == 3
    assert table["parts_s"].notna().all()
    assert (table["data_s"] > 0).sum() == 1
    variants = training.variants(table)
    assert sorted(variants["kind"]) == ["loader with no worker", "plain", "sgd"]
    assert variants.set_index("kind").loc["plain", "time_ratio"] == 1
    both = training.beside_inference(frame)
    assert both["time_ratio"].item() > 1
    assert "the backward pass takes" in training_report.anatomy(table)
    assert "is the fastest" in training_report.variants(variants)
    assert "memory goes to" in training_report.memory(table)
    assert "times** as long as inference" in training_report.beside(both)
    for made in (
        training_report.step_table(table),
        training_report.memory_table(table),
        training_report.proof_table(table),
        training_report.variant_table(variants),
    ):
        assert len(made) == 3, made
    for ax in (plots.plot_anatomy(table), plots.plot_memory_causes(table), plots.plot_variants(variants)):
        assert ax.patches or ax.lines
    assert plots.plot_beside_inference(both).lines


def test_nothing_to_tell_is_said_in_a_sentence():
    from made import made_frame

    from labbench import plots

    frame = made_frame()
    table = training.steps(frame, {})
    both = training.beside_inference(frame)
    variants = training.variants(table)
    assert training_report.anatomy(table) == "No training step told its parts."
    assert "No variant" in training_report.variants(variants)
    assert "No training step" in training_report.memory(table)
    assert "No model was measured in both modes" in training_report.beside(both)
    for ax in (plots.plot_anatomy(table), plots.plot_memory_causes(table), plots.plot_variants(variants)):
        assert ax.texts
    assert plots.plot_beside_inference(both).texts
