import pandas as pd
import pytest
from made import CEILINGS, record

from labbench import plots
from labbench.analysis import bottleneck_report, bottlenecks, roofline
from labbench.cli import main
from labbench.records import Environment, Footprint, OperatorClass, Profile
from labbench.store import Store
from labbench.store.frame import frame
from labbench.store.table import Contents

CPU = {"l3_bytes": 32_000_000}
ENVIRONMENT = Environment(
    machine_id="m1", hostname="host", machine={"ceilings": {"cpu": CEILINGS | {"threads": 2}}, "cpu": CPU}, software={}
)  # 1e11 FLOP/s, 1e10 bytes/s, 5 µs a dispatch


def cell(seconds, classes, profile=None, weights=0, **fields):
    """A record whose classes of operators are (FLOPs, bytes, kernels), profiled as {class: (seconds, kernels)}."""
    by_class = {
        name: OperatorClass(flops=flops, bytes=size, kernels=kernels)
        for name, (flops, size, kernels) in classes.items()
    }
    demand = Footprint(
        flops=sum(one.flops for one in by_class.values()),
        bytes=sum(one.bytes for one in by_class.values()),
        parameters=weights // 4,
        parameter_bytes=weights,
        activation_bytes=0,
        kernels=sum(one.kernels for one in by_class.values()),
        by_class=by_class,
    )
    made = record(seconds=seconds, demand=demand, **fields)
    update = {"environment_id": ENVIRONMENT.id, "memory": made.memory.model_copy(update={"parameter_bytes": weights})}
    if profile:
        taken = {name: spent for name, (spent, _) in profile.items()}
        found = Profile(
            seconds={"dispatch": 0.0} | taken,
            kernels={name: number for name, (_, number) in profile.items()},
            wall_s=max(seconds, sum(taken.values())),
            method="torch.profiler",
        )
        update["series"] = [made.series[0].model_copy(update={"profile": found})]
    return made.model_copy(update=update)


def found(*records, calls=None):
    table = frame(Contents.of(list(records), {}))
    return bottlenecks.attribute(roofline.place(table, {ENVIRONMENT.id: ENVIRONMENT}), calls)


PRODUCT = {"matmul": (1e9, 1e6, 1)}  # 10 ms at the measured rate
STREAM = {"elementwise": (1e6, 2e8, 1)}  # 20 ms at the measured bandwidth
TINY = {"elementwise": (1e3, 1e3, 1000)}  # 5 ms of dispatch


@pytest.mark.parametrize(
    ("seconds", "classes", "label", "reached"),
    [(12e-3, PRODUCT, "compute", 10 / 12), (25e-3, STREAM, "memory", 0.8), (6e-3, TINY, "dispatch", 5 / 6)],
)
def test_counts_name_the_largest_bound(seconds, classes, label, reached):
    row = found(cell(seconds, classes)).iloc[0]
    assert row["bottleneck"] == label
    assert row["share"] == row["reached"] == pytest.approx(reached)
    assert (row["evidence"], row["confidence"]) == ("counts", "medium")


def test_a_bound_far_below_the_latency_explains_nothing():
    row = found(cell(1.0, PRODUCT)).iloc[0]
    assert (row["bottleneck"], row["confidence"]) == ("unexplained", "low")
    assert row["share"] == pytest.approx(0.01)


def test_what_a_cache_holds_does_not_come_from_memory():
    fits, does_not = {"matmul": (1e7, 2e7, 1)}, {"matmul": (1e7, 4e8, 1)}
    rows = found(cell(1e-3, fits, weights=20_000_000), cell(50e-3, does_not, weights=400_000_000, seq_len=64))
    assert rows["bottleneck"].tolist() == ["compute", "memory"]
    assert rows["memory_s"].tolist() == pytest.approx([0, 0.04])


def test_rows_looked_up_in_an_embedding_table_are_not_the_table():
    row = found(cell(20e-3, PRODUCT | {"embedding": (0, 4e8, 1)}, weights=400_000_000)).iloc[0]
    assert row["bottleneck"] == "compute"


def test_only_runtimes_that_dispatch_each_operator_pay_for_it_by_counts():
    rows = found(cell(6e-3, TINY), cell(6e-3, TINY, runtime="onnxruntime"))
    assert rows["bottleneck"].tolist() == ["dispatch", "unexplained"]


def test_a_profile_decides_and_its_rest_is_dispatch():
    profile = {"matmul": (8e-3, 1), "elementwise": (7e-3, 1000)}  # 5 of the 7 ms are launches
    row = found(cell(20e-3, PRODUCT | TINY, profile)).iloc[0]
    assert row[["compute_s", "memory_s", "dispatch_s"]].tolist() == pytest.approx([10e-3, 0, 10e-3], abs=1e-5)
    assert row["evidence"] == "profile"
    assert row["main_class"] in ("matmul", "")


def test_confidence_is_high_where_profile_and_counts_agree_and_low_where_the_machine_was_unstable():
    profile = {"matmul": (11e-3, 1)}
    rows = found(
        cell(12e-3, PRODUCT, profile),
        cell(12e-3, PRODUCT, {"matmul": (60e-3, 1)}, seq_len=8),
        cell(12e-3, PRODUCT, profile, noise="unstable", seq_len=16),
    )
    assert rows["bottleneck"].tolist() == ["compute"] * 3
    assert rows["confidence"].tolist() == [
        "high",
        "low",
        "low",
    ]  # the second took five times as long under the profiler


def test_fewer_threads_have_a_lower_rate():
    one, two = found(
        cell(30e-3, PRODUCT).model_copy(update={"threads": 1}), cell(12e-3, PRODUCT, seq_len=8)
    ).itertuples()
    assert one.peak_flops == two.peak_flops / 2


def test_starting_outweighs_few_calls():
    made = cell(12e-3, PRODUCT, prepare_s=1.2)
    few, many = found(made, calls=10).iloc[0], found(made, calls=1e5).iloc[0]
    assert (few["bottleneck"], many["bottleneck"]) == ("preparation", "compute")
    assert few["share"] == pytest.approx(1.2 / 1.32)
    assert few["break_even_calls"] == pytest.approx(100)
    assert bottleneck_report.table(found(made, calls=10))["starting takes as long as"].tolist() == ["100 calls"]


def test_without_ceilings_or_footprints_nothing_is_named():
    unknown = cell(12e-3, PRODUCT).model_copy(update={"environment_id": None})
    assert found(unknown)["bottleneck"].tolist() == ["unexplained"]
    assert found(record()).empty
    assert bottleneck_report.overview(found(record())) == "No record has a footprint to place on the roofline."


def test_the_sentence_counts_and_the_figure_is_drawn():
    import matplotlib as mpl

    mpl.use("Agg")
    rows = found(cell(12e-3, PRODUCT, {"matmul": (11e-3, 1)}), cell(6e-3, TINY, model="gpt2-tiny"))
    text = bottleneck_report.overview(rows)
    assert "2 series" in text
    assert "1 for the cores" in text
    assert "1 of them was profiled" in text
    table = bottleneck_report.table(rows)
    assert table["waits for"].tolist() == ["compute", "dispatch"]
    assert table["share"].tolist() == ["92 %", "83 %"]
    assert table["most in"].tolist() == ["matmul", "–"]
    assert bottleneck_report.helps(rows).startswith("- *Compute*: more threads")
    ax = plots.plot_bottlenecks(rows)
    assert "92 %" in {text.get_text() for text in ax.texts}
    many = pd.concat([rows.assign(model=f"m{i}") for i in range(41)], ignore_index=True)
    assert plots.plot_bottlenecks(many).patches
    assert plots.plot_bottlenecks(rows.iloc[:0]).texts


def test_the_command_tells_what_a_model_waits_for(tmp_path, capsys):
    path = str(tmp_path / "s.h5")
    with Store(path, writable=True) as store:
        store.append(cell(12e-3, PRODUCT, {"matmul": (11e-3, 1)}), ENVIRONMENT)
    assert main(["bottlenecks", "--store", path]) == 0
    assert "What 1 series wait" in capsys.readouterr().out
    assert main(["bottlenecks", "--store", path, "--calls", "0"]) == 2
    assert "at least one call" in capsys.readouterr().err
    assert main(["bottlenecks", "--store", path, "--model", "bert-tini"]) == 2
    assert "bert-tiny" in capsys.readouterr().err
    assert main(["bottlenecks", "--store", path, "--model", "bert-tiny", "--json"]) == 0
