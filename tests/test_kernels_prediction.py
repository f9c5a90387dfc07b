"""Kernel models: what one operator takes on a GPU that nobody measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from labbench.importers.neusight_kernels import kernels as read_kernels
from labbench.machine.datasheet import Datasheet, datasheet
from labbench.operators import Operator, fused, table
from labbench.prediction.config import PredictionError
from labbench.prediction.kernel_laws import ProductLaw, alone, roofline_s, shapes_on, traffic
from labbench.prediction.kernels import KernelModel

FLOAT = 4


def sheet(name, flops, bandwidth, units, **more):
    """A board with two issued instructions a cycle that holds its clock."""
    usual = {"tdp_w": flops / 45e9, "lanes": 64 * units, "process_nm": 12.0, "architecture": "Volta"}
    figures = {"memory_bytes": 16e9, **usual, **more}
    return Datasheet(name, bandwidth_bytes_s=bandwidth, flops={"fp32": flops}, multiprocessors=units, **figures)


FAMILY = {
    one.name: one
    for one in (
        sheet("small", 4e12, 200e9, 24),
        sheet("middle", 9e12, 500e9, 52),
        sheet("large", 15e12, 900e9, 84),
        sheet("wide", 11e12, 1500e9, 72),
    )
}
UNSEEN = sheet("unseen", 25e12, 1200e9, 120)
TRUTH = ProductLaw(np.log([0.7, 0.85, 20.0, 0.9, 0.8, 0.7]))
SHARES = {"elementwise": 0.85, "softmax": 0.6}
LAUNCH_S = 20e-6


def product(m, n, k, groups=1):
    moved = FLOAT * groups * np.array([m * k, k * n, m * n], float)
    return Operator(
        "bmm" if groups > 1 else "addmm", "matmul", "bmm" if groups > 1 else "linear", False, 2.0 * m * n * k * groups, *moved,
        m=m, n=n, k=k, groups=groups,
    )  # fmt: skip


def move(elements, kind="elementwise", **more):
    name = {"softmax": "_softmax"}.get(kind, "mul")
    return Operator(
        name, kind, kind, False, float(elements), FLOAT * elements, 0.0, FLOAT * elements, width=512, **more
    )


def made_kernels(sheets, count=250, noise=0.02, seed=0):
    """Kernels timed alone on boards that obey the law exactly, but for noise."""
    draw = np.random.default_rng(seed)
    parts = []
    for name, one in sheets.items():
        sizes = np.exp(draw.uniform(np.log(64), np.log(4096), size=(count, 3))).astype(int)
        groups = draw.integers(2, 200, size=count)
        products = [product(*map(int, size)) for size in sizes]
        products += [product(*map(int, size // 4 + 16), int(group)) for size, group in zip(sizes, groups, strict=True)]
        moves = [
            move(int(n), kind) for kind in SHARES for n in np.exp(draw.uniform(np.log(1e4), np.log(2e8), size=count))
        ]
        frame = pd.DataFrame([vars(op) for op in products + moves])
        shapes = shapes_on(frame, one)
        seconds = TRUTH.seconds(shapes, warm=False)
        moved = frame["m"].eq(0).to_numpy()
        share = frame["kind"].map(SHARES).to_numpy(float)
        seconds[moved] = 3e-6 + (shapes["bytes"] / shapes["bandwidth"] / share)[moved]
        seconds = alone(seconds, LAUNCH_S) * np.exp(draw.normal(0, noise, size=len(frame)))
        parts.append(frame.assign(device=name, seconds=seconds))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def timed():
    return made_kernels(FAMILY)


@pytest.fixture(scope="module")
def model(timed):
    return KernelModel.fit(timed, FAMILY)


def test_kernels_of_a_board_never_seen_are_predicted_from_its_datasheet(model):
    held = made_kernels({"unseen": UNSEEN}, seed=1)
    ratio = model.seconds(held, UNSEEN, timed_alone=True) / held["seconds"]
    off = (ratio - 1).abs().groupby(held["kind"]).median()
    assert off.max() < 0.06, off
    assert (ratio - 1).abs().mean() < 0.10


def test_what_the_boards_obey_is_recovered(model):
    found = np.exp(model.laws["product"].theta)
    assert found[1] == pytest.approx(0.85, rel=0.05)
    for kind, share in SHARES.items():
        assert np.exp(model.laws[kind].share) == pytest.approx(share, rel=0.05)


def test_a_model_of_boards_with_another_utilization_predicts_another_time(model, timed):
    slower = timed.assign(seconds=np.where(timed["m"] > 0, 2 * timed["seconds"], timed["seconds"]))
    other = KernelModel.fit(slower, FAMILY, judge=False)
    big = table([product(4096, 4096, 4096)])
    assert other.seconds(big, UNSEEN)[0] / model.seconds(big, UNSEEN)[0] == pytest.approx(2, rel=0.15)


def test_no_operator_beats_the_roofline(model):
    draw = np.random.default_rng(2)
    sizes = draw.integers(1, 9000, size=(300, 3))
    operators = table([product(*map(int, size)) for size in sizes] + [move(int(size[0]) ** 2) for size in sizes])
    for one in (*FAMILY.values(), UNSEEN, sheet("odd", 400e12, 50e9, 8)):
        seconds = model.seconds(operators, one)
        assert (seconds >= roofline_s(shapes_on(operators, one))).all()
        assert (operators["flops"] / seconds <= one.flops["fp32"] * 1.000001).all()
        assert (traffic(operators) / seconds <= one.bandwidth_bytes_s * 1.000001).all()


@pytest.mark.parametrize(
    "of", [lambda s: product(s, 1024, 1024), lambda s: product(256, 256, s, 16), lambda s: move(s * 4096)]
)
def test_twice_the_size_never_takes_less(model, of):
    seconds = model.seconds(table([of(2**power) for power in range(6, 15)]), UNSEEN)
    assert (np.diff(seconds) > 0).all()


def test_a_better_board_is_faster(model):
    operators = table([product(2048, 2048, 2048), move(10**8)])
    flops, watts = {"fp32": 2 * UNSEEN.flops["fp32"]}, 2 * UNSEEN.tdp_w
    better = replace(UNSEEN, bandwidth_bytes_s=2 * UNSEEN.bandwidth_bytes_s, flops=flops, tdp_w=watts)
    assert (model.seconds(operators, better) < 0.7 * model.seconds(operators, UNSEEN)).all()


def test_a_board_that_promises_too_much_for_its_watts_slows_down_under_products_only(model):
    operators = table([product(4096, 4096, 4096), move(10**8)])
    weak = replace(UNSEEN, tdp_w=UNSEEN.tdp_w / 4)
    usual, slowed = model.seconds(operators, UNSEEN), model.seconds(operators, weak)
    assert slowed[0] > 2 * usual[0]
    assert slowed[1] == pytest.approx(usual[1])


def test_the_strain_that_boards_stand_is_learnt_from_those_which_slow_down():
    weak = sheet("weak", 8e12, 320e9, 40, tdp_w=70.0)
    truth = 1.5
    timed = made_kernels(FAMILY | {"weak": weak})
    large = timed["device"].eq("weak") & (timed["m"] > 0)
    shapes = shapes_on(timed[large], weak)
    slow = ProductLaw(TRUTH.theta, strain=truth, sustained_s=1e-4).seconds(shapes, warm=False)
    timed.loc[large, "seconds"] = alone(slow, LAUNCH_S)
    learnt = KernelModel.fit(timed, FAMILY | {"weak": weak}, judge=False)
    assert learnt.laws["product"].strain == pytest.approx(truth, rel=0.1)


def test_intervals_hold_the_truth_of_a_board_never_seen(model):
    held = made_kernels({"unseen": UNSEEN}, seed=3, noise=0.0)
    shapes = shapes_on(held, UNSEEN)
    truth = np.where(held["m"] > 0, TRUTH.seconds(shapes), held["seconds"])
    rows = held["m"].to_numpy() > 0
    told = model.predict(held[rows], UNSEEN)
    covered = (told["low"] <= truth[rows]) & (truth[rows] <= told["high"])
    single = model.one["product"]
    assert single.level == pytest.approx(0.8)  # four boards support no more
    assert covered.mean() >= single.level
    seconds, low, high = model.total(held[rows].assign(count=1), UNSEEN)
    assert low < truth[rows].sum() < high
    assert seconds == pytest.approx(truth[rows].sum(), rel=0.1)
    assert high / seconds < np.exp(single.value)  # errors of single kernels even out in a sum


def test_a_board_far_from_those_learnt_from_is_told(model):
    assert model.departures(UNSEEN) == []
    starved = replace(UNSEEN, bandwidth_bytes_s=UNSEEN.bandwidth_bytes_s / 10)
    [told] = model.departures(starved)
    assert told.startswith("FLOP/s over bytes/s 208")


def test_two_boards_give_no_interval(timed):
    two = {name: FAMILY[name] for name in ("small", "large")}
    model = KernelModel.fit(timed[timed["device"].isin(two)], two)
    seconds, low, high = model.total(table([product(512, 512, 512)]), UNSEEN)
    assert np.isfinite(seconds)
    assert (low, high) == (0.0, np.inf)


def test_an_unknown_board_is_refused_with_what_is_missing(model, timed):
    bare = Datasheet("Mystery 9000", None, None, {}, None, None)
    with pytest.raises(
        PredictionError, match=r"Mystery 9000.*peak fp32 FLOP/s, memory bandwidth, number of multiprocessors"
    ):
        model.seconds(table([product(8, 8, 8)]), bare)
    with pytest.raises(PredictionError, match="no datasheet of large"):
        KernelModel.fit(timed, {name: one for name, one in FAMILY.items() if name != "large"})


def test_a_model_must_be_fitted_and_from_what_programs_are_made_of(timed):
    with pytest.raises(PredictionError, match="not fitted"):
        KernelModel().seconds(table([product(8, 8, 8)]), UNSEEN)
    with pytest.raises(PredictionError, match="no matrix product"):
        KernelModel.fit(timed[timed["m"] == 0], FAMILY, judge=False)


def test_kinds_that_were_never_timed_are_priced_as_data_moved(model):
    known, unknown = model.seconds(table([move(10**7), move(10**7, "roll")]), UNSEEN)
    assert unknown == pytest.approx(known)


def test_look_ups_move_what_they_find_and_fills_read_nothing():
    found = Operator("embedding", "embedding", "embedding", False, 0, 100.0, 1e9, 4000.0)
    filled = Operator("zeros", "copy", "copy", False, 0, 1e9, 0.0, 4000.0)
    put = Operator("index_put_", "copy", "copy", False, 0, 1500.0, 0.0, 1000.0)
    assert traffic(table([found, filled, put])).tolist() == [8000.0, 4000.0, 1000.0]


def test_fusion_keeps_what_lies_between_in_registers():
    scale, add, soft = move(1000), replace(move(1000), name="add", read_bytes=5000.0), move(1000, "softmax")
    one = fused([scale, add, soft])
    assert [op.name for op in one] == ["_softmax"]
    assert one[0].read_bytes == scale.read_bytes + 1000.0  # add's second operand
    assert one[0].written_bytes == soft.written_bytes
    assert one[0].flops == scale.flops + add.flops + soft.flops


def test_fusion_stops_at_products_and_where_sizes_change():
    parts = [move(1000), product(10, 100, 10), move(1000), move(2000)]
    assert fused(parts) == parts


def test_columns_of_neusights_products_are_taken_for_what_they_are(tmp_path):
    """N is the length of the sum."""
    raw = {"OPName": "linear", "Latency": 2.0, "Device": "Tesla T4", "B": 1, "M": 2008, "N": 1934, "K": 5433}
    pd.DataFrame([raw]).to_parquet(tmp_path / "linear.parquet")
    pd.DataFrame([{"Latency": 0.5, "Device": "Tesla T4", "B": 10, "H": 100}]).to_parquet(tmp_path / "addu.parquet")
    frame = read_kernels(tmp_path).set_index("operator")
    linear = frame.loc["linear"]
    assert (linear["m"], linear["n"], linear["k"]) == (2008, 5433, 1934)
    assert linear["seconds"] == pytest.approx(2e-3)
    assert linear["written_bytes"] == 4 * 2008 * 5433
    assert linear["weight_bytes"] == 4 * 5433 * 1934
    assert frame.loc["addu", "kind"] == "elementwise"
    assert traffic(frame.loc[["addu"]])[0] == 2 * 4 * 1000


@pytest.mark.parametrize(
    ("device", "issue", "strained"),
    [
        ("Tesla P100-PCIE-16GB", 1, False),
        ("Tesla V100-PCIE-32GB", 2, False),
        ("Tesla T4", 2, True),
        ("Tesla P4", 1, True),
        ("NVIDIA A100-PCIE-40GB", 2, False),
        ("NVIDIA H100 80GB HBM3", 1, False),
        ("NVIDIA L4", 1, True),
        ("AMD Instinct MI100", 1, False),
    ],
)
def test_what_follows_from_datasheets(device, issue, strained):
    found = datasheet(device)
    assert found.issue == pytest.approx(issue, abs=0.1)
    assert (found.strain > 2) == strained
    assert (found.strain < 1.2) != strained


def test_nothing_follows_from_an_empty_datasheet():
    bare = Datasheet("bare", None, None, {}, None, None)
    assert bare.issue == 1
    assert bare.strain is None


def test_reading_across_costs_more_where_the_cache_is_too_small(model):
    straight = replace(move(10**7), apart_bytes=0.0)
    across = replace(straight, apart_bytes=straight.read_bytes, apart_span=10e6)
    operators = table([straight, across])
    small, large = (replace(UNSEEN, l2_bytes=size) for size in (4e6, 40e6))
    assert model.seconds(operators, small)[1] > 4 * model.seconds(operators, small)[0]
    assert model.seconds(operators, large)[1] == model.seconds(operators, large)[0]
