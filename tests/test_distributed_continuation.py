"""Scaling continued by the simulator, and its figures, from made records; no rank is started."""

import json

import matplotlib
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from labbench import notebooks, plots
from labbench.config import ConfigError, read
from labbench.distributed import measured, measured_collectives, rank_records, rank_study, ranks_report
from labbench.distributed.collectives_model import OPERATIONS
from labbench.distributed.config import DistributedConfig
from labbench.distributed.continuation import collectives_of, continuation_sentence, continued, segments_of
from labbench.distributed.decoder import decoder
from labbench.distributed.rank_cells import cell, checked_cell, collective_cell
from labbench.distributed.scaling import scaling_table
from labbench.distributed.sizes import Shape
from labbench.records import Check, Record

SHAPE = {"layers": 4, "width": 16, "heads": 4, "vocabulary": 32, "tokens": 8, "batch": 16}
FREE = 1e-15  # seconds a byte


def one(step_s: float = 1.2) -> Record:
    """A process whose layers take 0.1 s forward and as long backward as makes 1 s, and 0.2 s to update."""
    told = {"compute_s": 1.0, "update_s": 0.2, "oversubscribed": 0.0}
    told |= {f"forward_s {index}": 0.1 if index < 4 else 0.0 for index in range(5)}
    steps = [rank_records.series("step", [step_s] * 11, 16, "samples")]
    return Record(cell=cell("one", 1, SHAPE), status="ok", metrics=told, series=steps)


def messages(beta: float, ranks: int = 2, oversubscribed: float = 0.0) -> list[Record]:
    sizes = [4**power * measured_collectives.KIB for power in range(8)]
    labels = [measured_collectives.size_label(size) for size in sizes]
    rows = [{"size_bytes": size, "seconds": [1e-12 + beta * size] * 5} for size in sizes]
    told = {"oversubscribed": oversubscribed} | {f"p10_s {label}": 1e-12 for label in labels}
    return [
        Record(
            cell=collective_cell(name, ranks),
            status="ok",
            metrics=told | measured_collectives.fitted(name, rows, ranks),
            series=[
                rank_records.series(f"{name} {label}", row["seconds"], row["size_bytes"], "bytes")
                for label, row in zip(labels, rows, strict=True)
            ],
        )
        for name in OPERATIONS
    ]


def timed(mode: str, ranks: int, step_s: float, **metrics: float) -> Record:
    told = {"update_s": 0.1, "oversubscribed": 0.0, "exposed_communication_s": 0.1, **metrics}
    steps = [rank_records.series("step", [step_s] * 11, 16, "samples")]
    return Record(cell=cell(mode, ranks, SHAPE), status="ok", metrics=told, series=steps)


def test_segments_hold_the_model_and_the_step_of_one_process() -> None:
    segments = segments_of(one())
    import torch

    whole = sum(value.numel() for value in decoder(Shape(**SHAPE), torch.float32).parameters())
    assert sum(part.parameters for part in segments) == whole
    assert sum(part.forward_s + part.backward_s for part in segments) == pytest.approx(1.0)
    assert sum(part.update_s for part in segments) == pytest.approx(0.2)


def test_where_messages_are_free_ranks_share_what_they_compute_and_no_more() -> None:
    table = continued([one(), *messages(FREE)], ["ddp", "fsdp", "pipeline-gpipe", "zero-unheard-of"], [2, 4])
    found = table.set_index(["strategy", "ranks"])["step_s"]
    assert found["ddp", 4] == pytest.approx(1.0 / 4 + 0.2, rel=1e-3)  # every rank updates all
    assert found["fsdp", 4] == pytest.approx((1.0 + 0.2) / 4, rel=1e-3)  # its share
    bubble = (4 + 4 - 1) / 4  # four micro-batches through four ranks
    assert found["pipeline-gpipe", 4] == pytest.approx(bubble * 1.0 / 4 + 0.2 / 4, rel=0.05)
    assert set(table["strategy"]) == {"ddp", "fsdp", "pipeline-gpipe"}
    assert set(table["provenance"]) == {"simulated"}


def test_weak_scaling_is_simulated_with_a_batch_that_grows() -> None:
    table = continued([one(), *messages(FREE)], ["ddp"], [2, 8], "weak")
    assert list(table["batch"]) == [32, 128]
    assert list(table["step_s"]) == pytest.approx([1.2, 1.2], rel=1e-3)
    assert list(table["efficiency"]) == pytest.approx([1, 1], rel=1e-3)


def test_dearer_messages_make_every_strategy_slower_and_the_parts_add_up() -> None:
    modes = ["ddp", "fsdp", "tensor", "pipeline-1f1b"]
    free, dear = (continued([one(), *messages(beta)], modes, [2, 4]) for beta in (FREE, 1e-6))
    assert (dear["step_s"] > free["step_s"]).all()
    parts = dear[["compute_s", "communication_s", "waiting_s", "update_s"]].sum(axis=1)
    assert list(parts) == pytest.approx(list(dear["step_s"]))


def test_more_ranks_than_can_share_a_model_are_left_out() -> None:
    table = continued([one(), *messages(FREE)], ["tensor", "pipeline-1f1b", "ddp"], [4, 8, 32])
    assert table.groupby("strategy")["ranks"].max().to_dict() == {"tensor": 4, "pipeline-1f1b": 4, "ddp": 8}


def test_ranks_that_shared_cores_calibrate_nothing() -> None:
    with pytest.raises(ConfigError, match="not timed by ranks with a core each"):
        collectives_of(messages(FREE, oversubscribed=1.0), 4)
    with pytest.raises(ConfigError, match="one process was not timed"):
        continued(messages(FREE), ["ddp"], [2])


def test_how_far_simulation_and_measurement_are_apart_is_told_of_ranks_with_a_core_each() -> None:
    records = [one(), *messages(FREE), timed("ddp", 2, 0.875), timed("ddp", 4, 5.0, oversubscribed=1.0)]
    real, simulated = scaling_table(records), continued(records, ["ddp"], [2, 4])
    assert "ddp -20 %" in continuation_sentence(real, simulated)
    assert "No ranks" in continuation_sentence(real[real["ranks"] != 2], simulated)


def test_figures_show_measured_and_simulated_apart() -> None:
    records = [one(), *messages(1e-8), timed("ddp", 2, 0.8), timed("ddp", 4, 1.0, oversubscribed=1.0)]
    real, simulated = scaling_table(records), continued(records, ["ddp"], [4, 8])
    ax = plots.plot_rank_scaling(real, simulated)
    assert [line.get_linestyle() for line in ax.lines].count("--") == 1
    assert [list(line.get_xdata()) for line in ax.lines if line.get_linestyle() == "--"] == [[4, 8]]
    ax = plots.plot_rank_parts(real, simulated, "ddp")
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels == ["one process", "2 ranks", "4 ranks, share cores", "4 ranks, simulated", "8 ranks, simulated"]
    assert {bar.get_linestyle() for bar in ax.patches} == {"solid", "--"}
    rows = [*real["step_s"], *simulated["step_s"]]
    ends = sorted(sum(bar.get_width() for bar in bars) for bars in zip(*ax.containers, strict=True))
    assert ends == pytest.approx(sorted(1e3 * step for step in rows), rel=0.01)
    assert plots.plot_rank_parts(real, simulated, "unheard-of").texts
    plt.close("all")


def test_tables_of_correctness_say_why_a_strategy_is_not_here() -> None:
    check = Check(passed=True, max_error=1e-16, tolerance=1e-15, reference="one process")
    errors = {"gradient_error": 1e-16, "change_error": 2e-16}
    records = [
        Record(cell=checked_cell("ddp", 2), status="ok", check=check, metrics=errors),
        Record(cell=checked_cell("ddp", 4), status="ok", check=check, metrics=errors),
        Record(cell=checked_cell("context", 2), status="unsupported", reason="no kernel"),
    ]
    table = ranks_report.correctness_shown(records)
    assert list(table["strategy"]) == ["ddp", "context"]
    assert list(table["why"]) == ["", "no kernel"]
    assert "10.0 % of what rounding may do. None is wrong." in ranks_report.correctness_sentence(records)


def made_for(wanted) -> Record:
    """A record of a cell, as if ranks had measured it."""
    task, name, ranks = wanted.workload.task or "", wanted.platform.runtime, wanted.platform.world_size
    if task == "collective":
        return next(record for record in messages(1e-9, ranks) if record.cell.id == wanted.id)
    if task == "correctness":
        check = Check(passed=True, max_error=1e-16, tolerance=1e-15, reference="one process")
        errors = {"gradient_error": 1e-16, "change_error": 2e-16}
        return Record(cell=wanted, status="ok", check=check, metrics=errors)
    if task.startswith("fault-"):
        told = {"as_expected": 1.0, "left_running": 0.0, "reported_after_s": 0.5}
        return Record(cell=wanted, status="failed", reason="rank 1 was ended by signal 9", metrics=told)
    record = one() if name == "one" else timed(name, ranks, 0.75, **OVERHEAD)
    return record.model_copy(update={"cell": wanted, "metrics": record.metrics | MEMORY})


OVERHEAD = {"compute_s": 0.5, "straggler": 1.1, "hook_communication_s": 0.2, "hook_exposed_s": 0.1}
OVERHEAD |= {"hook_difference_s": 0.15, "hook_slowed_s": 0.05, "trace_communication_s": 0.2, "trace_exposed_s": 0.1}
MEMORY = {f"{name}_bytes": 1e6 for name in ("parameters", "gradients", "optimizer", "peak")}


@pytest.mark.slow
def test_the_notebook_reads_what_is_stored_and_starts_no_rank(tmp_path, monkeypatch) -> None:
    config = {
        "strategies": ["ddp", "fsdp"],
        "checked": ["ddp"],
        "ranks": [2],
        "model": Shape(**SHAPE).name,
        "batch": SHAPE["batch"],
        "tokens": SHAPE["tokens"],
        "faults": ["kill"],
        "simulated_ranks": [2, 4],
    }
    (tmp_path / "config.json").write_text(json.dumps({"measured": config}))
    asked = read(DistributedConfig, tmp_path / "config.json").measured
    cells = [wanted for _, wanted, _ in rank_study._parts(asked, ["ddp"]) for wanted in wanted]
    store = tmp_path / "ranks.h5"
    rank_records.stored([made_for(wanted) for wanted in cells], str(store))
    monkeypatch.setattr(measured, "launch", None)  # collecting again must not need it
    monkeypatch.setattr(measured_collectives, "launch", None)
    assert [record.cell.id for record in rank_study.collect(asked, store)] == [wanted.id for wanted in cells]
    parameters = {"config_path": tmp_path / "config.json", "store_path": store}
    notebook = notebooks.folder() / "11_distributed.ipynb"
    notebooks.run(notebook, tmp_path / "out.ipynb", parameters).check()
    told = (tmp_path / "out.ipynb").read_text()
    assert "ddp: 2 ranks train 1.60 times as fast as one process; added ranks pay as far as was measured" in told
    assert "held against one process" not in told  # what collecting says when it measures
