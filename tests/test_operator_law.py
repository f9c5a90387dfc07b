"""Laws of operators: traced networks stand in for architectures, a made price list for hardware."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from made import ENVIRONMENT, ENVIRONMENTS, footprint, made_frame, record
from sklearn.ensemble import GradientBoostingRegressor
from torch import nn

from labbench.autocast import autocast
from labbench.operators import Operator, fused, joins, watch
from labbench.prediction import Graphs, PredictionConfig, PredictionError, Predictor, quantity
from labbench.prediction.card import load, save
from labbench.prediction.drift import drift
from labbench.prediction.evaluate import cross_validate
from labbench.prediction.features import Ceilings, prepare
from labbench.prediction.graphs import by_sample
from labbench.prediction.operator_law import COST, OperatorLaw
from labbench.prediction.profiled import Profiles, class_of
from labbench.prediction.residual import MANY_ROWS, Residual, folds_by_group

BATCHES = (61, 67)
MACHINE = (ENVIRONMENT.machine_id, "cpu")
CEILINGS = {MACHINE: Ceilings({"fp32": 1e11}, 1e10, 5e-6)}


class Block(nn.Module):
    def __init__(self, width, sizes, act):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, stride=2)
        layers = [[nn.Conv2d(width, width, size), nn.BatchNorm2d(width), act()] for size in sizes]
        self.body = nn.Sequential(*(one for three in layers for one in three))
        self.head = nn.Linear(width, 10)

    def forward(self, image):
        return self.head(self.body(self.first(image)).mean((2, 3)))


def network(width, sizes, act):
    with torch.device("meta"):
        return Block(width, sizes, act).eval()


def seen(module, batch, precision=None):
    with torch.no_grad():
        image = torch.empty(batch, 3, 32, 32, device="meta")
        if precision is None:
            return watch(lambda: module(image), module)
        with autocast(precision):
            return watch(lambda: module(image), module)


def graph(name, module):
    parts = []
    for joined in (False, True):
        traced = [seen(module, batch) for batch in BATCHES]
        found = [fused(one, joins(traced[-1])) for one in traced] if joined else traced
        parts.append(by_sample(BATCHES, *found).assign(fused=joined))
    return pd.concat(parts).assign(model=name, precision="fp32")


# Of each family: the windows of its convolutions, and its activation.
FAMILIES = (
    ("a", (3, 1), nn.ReLU),
    ("b", (1, 1, 3), nn.GELU),
    ("c", (3, 3, 3), nn.SiLU),
    ("d", (1,), nn.ReLU),
    ("e", (3, 3, 1), nn.GELU),
)
NETWORKS = {
    f"{family}{width}": network(width, sizes, act) for family, sizes, act in FAMILIES for width in (16, 48, 100, 256)
}
GRAPHS = Graphs(pd.concat([graph(name, module) for name, module in NETWORKS.items()], ignore_index=True))


def price(module, batch):
    """Seconds by a made law: traffic at half the bandwidth, launches twice the nominal ones, products each at its own rate."""
    return price_of(seen(module, batch))


def price_of(operators):
    slower = {"convolution": 3.0, "pointwise": 9.0, "linear": 2.0}
    return sum(slower.get(one.kind, 0.0) * one.flops / 1e11 + 2 * one.bytes / 1e10 + 2 * 5e-6 for one in operators)


def cells(names, batches=(1, 8, 64), runtime="eager"):
    return made_frame(*(
        record(name, runtime, batch_size=batch, seconds=price(NETWORKS[name], batch)) for name in names for batch in batches
    ))  # fmt: skip


# Its operators are not known; of the second one at least the totals are.
STRANGERS = made_frame(record("y16"), record("z16", demand=footprint(1)))


# Mixed precision without a device


def test_autocast_casts_what_cudas_does():
    half, single = torch.empty(4, 4, device="meta", dtype=torch.float16), torch.empty(4, 4, device="meta")
    with autocast(torch.float16):
        assert nn.functional.linear(single, single).dtype == torch.float16
        assert (single @ half).dtype == torch.float16
        assert half.softmax(-1).dtype == torch.float32
        assert nn.functional.layer_norm(half, (4,)).dtype == torch.float32
        assert nn.functional.gelu(half).dtype == torch.float16
        assert (half + single).dtype == torch.float32
    assert nn.functional.linear(single, single).dtype == torch.float32


def test_casts_are_operators_and_products_move_half_the_bytes():
    whole, mixed = seen(NETWORKS["a16"], 8), seen(NETWORKS["a16"], 8, torch.float16)
    assert sum(one.name == "_to_copy" for one in mixed) > 0
    written = [[one.written_bytes for one in found if one.label == "convolution"] for found in (whole, mixed)]
    assert written[1] == [one / 2 for one in written[0]]


def test_a_compiler_joins_casts_with_the_arithmetic_between_them():
    def one(name, label, read, written):
        return Operator(name, label, label, False, 1.0, float(read), 0.0, float(written))

    chain = [one("_to_copy", "copy", 100, 200), one("native_layer_norm", "normalization", 200, 200)]
    chain += [one("_to_copy", "copy", 200, 100), one("mm", "matmul", 100, 100)]
    joined = fused(chain)
    assert [(part.read_bytes, part.written_bytes) for part in joined] == [(100.0, 100.0), (100.0, 100.0)]


# Operators of workloads


def test_operators_at_a_batch_size_are_those_that_run_at_it():
    frame = cells(["b48"], batches=(32,))
    found, told = GRAPHS.at(frame), seen(NETWORKS["b48"], 32)
    count = found["count"].to_numpy()
    for name in ("flops", "read_bytes", "weight_bytes", "written_bytes"):
        assert (found[name] * count).sum() == pytest.approx(sum(getattr(one, name) for one in told))
    assert count.sum() == len(told)


def test_runtimes_that_fuse_have_fewer_operators():
    kernels = [GRAPHS.at(cells(["b48"], (8,), runtime))["count"].sum() for runtime in ("eager", "compile")]
    assert kernels[1] < kernels[0]


def test_unknown_operators_are_named():
    frame = made_frame(record("z16"))
    assert GRAPHS.number(frame).tolist() == [-1]
    with pytest.raises(PredictionError, match="z16"):
        GRAPHS.at(frame)
    with pytest.raises(PredictionError, match="trace them"):
        GRAPHS.named(frame)


def test_a_store_of_other_models_is_refused_with_the_way_out():
    sized = Graphs(GRAPHS.operators.assign(image_size=32))  # which the rows of texts do not have
    with pytest.raises(PredictionError, match=r"\(--graphs\) has none of the 2 models to learn from: trace them"):
        sized.named(STRANGERS)


def test_a_table_without_shapes_is_refused():
    with pytest.raises(PredictionError, match="written_bytes"):
        Graphs(pd.DataFrame({"model": ["a"], "name": ["mm"]}))


def test_models_with_the_same_operators_are_twins():
    again = GRAPHS.operators[GRAPHS.operators["model"] == "b48"].assign(model="tf_b48")
    twins = Graphs(pd.concat([GRAPHS.operators, again])).twins()
    assert twins["tf_b48"] == twins["b48"] == "b48"
    assert twins["b16"] == "b16"


# The law


def fitted(frame, **options):
    frame = frame.assign(framework="torch 2.13")
    law = OperatorLaw.of(frame, GRAPHS, CEILINGS, noise=0.1, **options)
    return law.fit(law.design(frame), frame["latency_s"].to_numpy(float))


def test_a_law_prices_a_network_it_has_not_seen():
    known = [name for name in NETWORKS if not name.startswith("c")]
    law = fitted(cells(known))
    asked = cells(["c48", "c100"]).assign(framework="torch 2.13")
    predicted = law.parts(law.design(asked)).sum(axis=1)
    assert predicted == pytest.approx(asked["latency_s"].to_numpy(float), rel=0.15)


def test_parts_tell_what_the_time_goes_to():
    law = fitted(cells(list(NETWORKS)))
    asked = cells(["e256"], (64,)).assign(framework="torch 2.13")
    parts = law.parts(law.design(asked))[0]
    products = parts[law.kinds.index("convolution") * len(COST) + COST.index("arithmetic")]
    told = sum(3 * one.flops / 1e11 for one in seen(NETWORKS["e256"], 64) if one.kind == "convolution")
    assert products == pytest.approx(told, rel=0.25)
    assert products > parts.sum() / 2


# Profiles


def profiled(frame, slower=1.0):
    """The frame with profiles of its cells, in which everything takes so much longer."""
    parts = [
        {
            f"profile_s_{label}": slower * price_of(one for one in seen(NETWORKS[name], batch) if one.label == label)
            for label in ("convolution", "matmul", "normalization", "activation", "reduction")
        }
        for name, batch in zip(frame["model"].astype(str), frame["batch_size"], strict=True)
    ]
    return frame.assign(**pd.DataFrame(parts), profile_wall_s=slower * frame["latency_s"].to_numpy(float))


def test_profiles_tell_operators_apart_that_totals_do_not():
    known, asked = cells(["a48", "a100", "b48", "d100"]), cells(["c48", "c100", "e48"]).assign(framework="torch 2.13")
    target = asked["latency_s"].to_numpy(float)
    errors = []
    for frame in (known, profiled(known), profiled(known, slower=2.0)):
        law = fitted(frame)
        errors.append(np.abs(np.log(law.parts(law.design(asked)).sum(axis=1) / target)).mean())
    assert errors[1] < 0.7 * errors[0]
    assert errors[2] == pytest.approx(errors[1])


def test_what_a_profiler_does_not_tell_apart_is_one_part():
    taken = {"profile_s_matmul": 3.0, "profile_s_softmax": 1.0, "profile_s_fused": 2.0, "profile_wall_s": 8.0}
    row = {"device": "cpu", "latency_s": 4.0, **taken}
    runtimes = ["eager", "onnxruntime", "openvino", "compile", "eager"]
    frame = pd.DataFrame([row | {"runtime": one} for one in runtimes])
    frame.loc[4, "device"] = "cuda:0"
    found = Profiles.of(frame)
    matmul, softmax, attention = (class_of(kind) for kind in ("linear", "softmax", "attention"))
    seconds = np.take_along_axis(found.seconds, found.part, axis=1)
    assert seconds[:3, matmul].tolist() == [1.5, 2.0, 1.5]  # a profiled call took twice as long
    assert seconds[:3, softmax].tolist() == [0.5, 2.0, 1.5]
    assert seconds[:3, attention].tolist() == [0.0, 2.0, 1.5]
    assert np.isnan(found.seconds[3:]).all()
    assert found.take([3]).none


def test_a_configuration_without_cells_is_priced_by_others_that_execute_alike():
    known = cells(list(NETWORKS))
    versions = pd.concat([known.assign(framework=f"torch 2.{version}") for version in (11, 12, 13)], ignore_index=True)
    law = OperatorLaw.of(versions, GRAPHS, CEILINGS, noise=0.1)
    law = law.fit(law.design(versions), versions["latency_s"].to_numpy(float))
    asked = cells(["b48"]).assign(framework="torch 9.9")
    predicted = law.parts(law.design(asked)).sum(axis=1)
    assert predicted == pytest.approx(asked["latency_s"].to_numpy(float), rel=0.2)


def test_some_cells_of_a_design_are_priced_as_they_are_among_all():
    frame = cells(list(NETWORKS)).assign(framework="torch 2.13")
    law = fitted(frame)
    design = law.design(frame)
    rows = np.array([7, 3, 40])
    assert law.parts(design.take(rows)) == pytest.approx(law.parts(design)[rows])


# The predictor


def test_a_predictor_that_knows_operators_beats_one_that_knows_totals():
    known = cells([name for name in NETWORKS if not name.startswith("c")])
    asked = cells(["c48", "c100", "c256"])
    config = PredictionConfig(residual="none")
    of_operators = Predictor(config).fit(known, ENVIRONMENTS, GRAPHS).predict(GRAPHS.fill(asked))
    of_totals = Predictor(config).fit(GRAPHS.fill(known), ENVIRONMENTS).predict(GRAPHS.fill(asked))
    errors = [
        (found["latency_s"] / asked["latency_s"].to_numpy(float) - 1).abs().mean()
        for found in (of_operators, of_totals)
    ]
    assert errors[0] < min(0.15, errors[1])
    assert of_operators["provenance"].eq("predicted").all()


def test_where_operators_are_not_known_totals_answer_and_without_these_it_is_refused():
    predictor = Predictor(PredictionConfig(residual="none")).fit(cells(list(NETWORKS)), ENVIRONMENTS, GRAPHS)
    stranger = GRAPHS.fill(cells(["b48"], (8,))).assign(model="z48")  # the same totals under a name that nobody traced
    found = predictor.predict(pd.concat([cells(["b48"], (8,)), stranger, STRANGERS], ignore_index=True))
    assert found["latency_s"].notna().tolist() == [True, True, False, True]
    own = "law of operators and fitted roofline + its other batch sizes"
    assert found["method"].tolist()[:2] == [own, "fitted roofline"]
    assert "its operators are not in the table" in found["reason"][2]
    quantity = predictor.quantities["latency_s"]
    totals = replace(quantity, law=quantity.law.totals).law
    alone = totals.parts(totals.design(prepare(stranger))).sum(axis=1)
    assert found["latency_s"][1] == pytest.approx(alone[0])


def test_rows_without_operators_and_totals_are_scored_as_refused():
    measured = pd.concat([cells(NETWORKS, (8,)), STRANGERS], ignore_index=True)
    found = cross_validate(measured, ENVIRONMENTS, PredictionConfig(residual="none"), graphs=GRAPHS)
    ours = found[(found["method"] == "labbench") & (found["quantity"] == "latency_s")].set_index("model")
    assert len(ours) == len(measured)
    assert ours.index[ours["predicted"].isna()].tolist() == ["y16"]


def test_rows_without_operators_are_learnt_from_as_totals():
    known = cells(list(NETWORKS))
    strangers = GRAPHS.fill(cells([name for name in NETWORKS if name.startswith("a")])).assign(
        runtime="other", platform="cpu/other"
    )
    strangers = strangers.assign(model="z" + strangers["model"].astype(str), latency_s=7 * strangers["latency_s"])
    found = Predictor(PredictionConfig(residual="none")).fit(
        pd.concat([known, strangers], ignore_index=True), ENVIRONMENTS, GRAPHS
    )
    again = found.predict(strangers)
    assert again["latency_s"].to_numpy(float) == pytest.approx(strangers["latency_s"].to_numpy(float), rel=0.3)


def test_what_a_predictor_cannot_price_counts_neither_in_its_card_nor_as_drift(tmp_path):
    known = cells(list(NETWORKS))
    frame = pd.concat([known, STRANGERS[:1]], ignore_index=True)
    card = save(Predictor(PredictionConfig(residual="none")).fit(frame, ENVIRONMENTS, GRAPHS), tmp_path / "p", frame)
    assert (card.data.rows, card.data.models) == (len(known), len(NETWORKS))
    assert drift(load(tmp_path / "p"), frame).table.empty


def test_a_family_that_only_another_configuration_has_run_is_a_new_one_here(monkeypatch):
    monkeypatch.setattr(quantity, "MANY_ROWS", 1)
    known = [cells([name for name in NETWORKS if name != "c48"])]
    known += [cells([name for name in NETWORKS if not name.startswith("c") and name != "d48"], runtime="onnxruntime")]
    predictor = Predictor(PredictionConfig(residual="none")).fit(pd.concat(known), ENVIRONMENTS, GRAPHS)
    asked = [
        cells([name], (8,), runtime)
        for name, runtime in (("c48", "eager"), ("c48", "onnxruntime"), ("d48", "onnxruntime"))
    ]
    found = predictor.predict(GRAPHS.fill(pd.concat(asked, ignore_index=True)))
    reach = np.log(found["latency_high_s"] / found["latency_s"]).to_numpy(float)
    latency = predictor.quantities["latency_s"]
    near, far = latency.near.radius(0.9).value, latency.far.radius(0.9).value
    assert near != far
    assert reach == pytest.approx([near, far, near])


# What the law leaves over


def test_many_rows_have_intervals_as_wide_as_their_own_errors():
    rng = np.random.default_rng(0)
    rows = MANY_ROWS + 400
    groups = np.array([f"g{number % 60}" for number in range(rows)])
    loud = rng.random(rows) < 0.5
    error = rng.normal(0, np.where(loud, 0.3, 0.03))
    features = np.column_stack([loud, rng.random(rows)]).astype(float)
    found = Residual.fit(features, error, groups, list(folds_by_group(groups, 3, 0)), PredictionConfig())
    reach = found.radius(0.9).value * found.spread(np.array([[1.0, 0.5], [0.0, 0.5]]))
    assert reach[0] > 4 * reach[1]
    assert reach == pytest.approx([1.645 * 0.3, 1.645 * 0.03], rel=0.3)


def mean_law(y, folds, unseen=()):
    """Of each row the mean of what is neither in its fold nor among the rows ``unseen``."""
    law = np.empty(len(y))
    for train, test in folds:
        law[test] = y[np.setdiff1d(train, unseen)].mean()
    return law


def test_what_the_law_learnt_of_a_fold_held_out_does_not_make_trees_seem_worse():
    """The law is a mean, and what trees can do is told by laws that saw neither the row's fold nor the one held out."""
    config = PredictionConfig(boosting_features=1.0)
    scores = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        groups, known = np.repeat([f"g{number}" for number in range(10)], 10), np.repeat(rng.normal(0, 1, 10), 10)
        y, features = 0.3 * known + rng.normal(0, 0.05, len(known)), known[:, None]
        folds = list(folds_by_group(groups, 4, 0))
        nested = np.empty(len(y))
        for train, test in folds:
            trees = GradientBoostingRegressor(
                n_estimators=config.boosting_iterations,
                learning_rate=config.boosting_rate,
                min_samples_leaf=config.boosting_leaf,
                random_state=config.seed,
            ).fit(features[train], (y - mean_law(y, folds, test))[train])
            nested[test] = np.abs(y[test] - y[train].mean() - trees.predict(features[test]))
        said = np.array([np.full(len(y), y[train].mean()) for train, _ in folds])
        error = y - mean_law(y, folds)
        ways = [Residual.fit(features, error, groups, folds, config, pull=of).scores for of in (said - y.mean(), None)]
        scores.append([nested.mean(), *(one.mean() for one in ways)])
    truth, found, naive = np.mean(scores, axis=0)
    assert found == pytest.approx(truth, rel=0.05)
    assert naive > 1.15 * truth


# New devices

NEW = ("m2", "cpu")
BOTH = CEILINGS | {NEW: Ceilings({"fp32": 3e11}, 3e10, 5e-6 / 3)}


def elsewhere(names, shift, batches=(1, 8, 64)):
    """Cells of a device that is three times as fast by its ceilings, and then slower than they say by a factor."""
    rows = cells(names, batches)
    return rows.assign(machine_id=NEW[0], latency_s=rows["latency_s"] * shift / 3)


@pytest.fixture(scope="module")
def old():
    return cells(NETWORKS)


def errors(old, probes, asked, ceilings=BOTH):
    rows = prepare(GRAPHS.fill(pd.concat([old, *probes], ignore_index=True))).assign(framework="torch 2.4")
    fitted = Predictor(PredictionConfig(residual="none")).fit_rows(rows, ceilings, GRAPHS)
    found = fitted.predict(asked.drop(columns="latency_s"))
    return np.abs(found["latency_s"] / asked["latency_s"] - 1), found


def test_probes_shift_what_other_devices_tell_of_a_new_one_and_narrow_the_interval(old):
    asked = elsewhere(["a48", "c100", "e16"], 1.3)
    none, before = errors(old, [], asked)
    few, after = errors(old, [elsewhere(["b48"], 1.3), elsewhere(["d100"], 1.3, (8,))], asked)
    assert none.max() < 0.4
    assert few.max() < min(0.1, none.min())
    for row in (before, after):
        assert ((row["latency_low_s"] <= asked["latency_s"]) & (asked["latency_s"] <= row["latency_high_s"])).all()
    widths = [(row["latency_high_s"] / row["latency_low_s"]).median() for row in (before, after)]
    assert widths[1] < 0.7 * widths[0]
    assert set(before["method"]) == {"law of operators + Gaussian process, no probes"}
    assert set(after["method"]) == {"law of operators + Gaussian process, 4 probes"}
    assert after["reason"].str.contains("4 cells measured on cpu of machine m2, too few for a law").all()


def test_probes_stand_in_for_ceilings_that_nobody_knows(old):
    asked, probes = elsewhere(["a48", "c100"], 1 / 60), elsewhere(["b48", "d100"], 1 / 60)
    unknown = CEILINGS | {NEW: Ceilings.of(None, "cpu")}
    refused = errors(old, [], asked, unknown)[1]
    assert refused["latency_s"].isna().all()
    assert errors(old, [probes], asked, unknown)[0].max() < 0.25


def test_a_configuration_with_enough_cells_has_a_law_of_its_own(old):
    found = errors(old, [elsewhere(NETWORKS, 1.3)], elsewhere(["a48"], 1.3))[1]
    assert set(found["method"]) == {"law of operators and fitted roofline + its other batch sizes"}
    assert found["reason"].isna().all()


def test_a_configuration_with_hardly_any_cells_leans_on_what_others_of_the_device_tell(old):
    def slower(names):
        rows = cells(names, runtime="eager-nhwc")
        return rows.assign(latency_s=1.5 * rows["latency_s"])

    asked = slower(["a48", "c100", "e16"])
    error, found = errors(old, [slower(["b48", "d100"])], asked, CEILINGS)
    assert set(found["method"]) == {"law of operators + Gaussian process, 6 probes"}
    assert (
        found["reason"].str.contains("6 cells measured on cpu of machine m1, too few for a law: with what else").all()
    )
    assert ((found["latency_low_s"] <= asked["latency_s"]) & (asked["latency_s"] <= found["latency_high_s"])).all()
    assert error.max() < 0.25
    assert not found["out_of_domain"].any()  # though some are larger than the six: the device ran such ones otherwise
    more = errors(old, [slower([name for name in NETWORKS if name[0] in "ab"])], asked, CEILINGS)[1]
    assert more["method"].tolist() == [
        *["law of operators and fitted roofline + its other batch sizes"] * 3,
        *["law of operators and fitted roofline"] * 6,
    ]


def test_a_device_measured_in_another_version_is_priced_with_what_that_says_of_it(old):
    known = prepare(GRAPHS.fill(old)).assign(framework="torch 2.4")
    there = prepare(GRAPHS.fill(elsewhere(NETWORKS, 2.0)))
    form = OperatorLaw.of(known, GRAPHS, BOTH, 0.1)

    def fitted(*parts):
        rows = pd.concat(parts, ignore_index=True)
        return form.fit(form.design(rows), rows["latency_s"].to_numpy(float))

    asked = form.design(there.assign(framework="torch 2.4"))
    alone, both = (
        law.parts(asked).sum(axis=1) for law in (fitted(known), fitted(known, there.assign(framework="torch 2.2")))
    )
    assert np.median(both / alone) > 1.2


def test_where_not_all_can_be_learnt_from_cells_with_the_settings_asked_about_come_first(old, monkeypatch):
    monkeypatch.setattr("labbench.prediction.elsewhere.LEARNT", 20)
    other = cells(NETWORKS, runtime="openvino")
    rows = prepare(GRAPHS.fill(pd.concat([old, other], ignore_index=True))).assign(framework="torch 2.4")
    rows["image_size"], rows["seq_len"] = 32, pd.NA  # a cell lacks the sizes that it has no use for
    fitted = Predictor(PredictionConfig(residual="none")).fit_rows(rows, BOTH, GRAPHS).quantities["latency_s"].elsewhere
    assert len(set(fitted.learnt[0].graph)) == len(NETWORKS)
    (settings,) = {one for one in fitted.learnt[0].levels["settings"] if "openvino" in one}
    model, others = fitted.process("cpu", settings)
    assert (len(model.traits), len(others[0])) == (20, len(rows) - 20)
    assert set(model.traits.levels["settings"]) == {settings}
    assert len(set(model.traits.graph)) == min(20, len(NETWORKS))


def test_devices_that_nothing_is_known_of_are_no_ground_to_answer_for_others(old):
    unknown = {MACHINE: Ceilings.of(None, "cpu"), NEW: BOTH[NEW]}
    found = errors(old, [], elsewhere(["a48"], 1.3), unknown)[1]
    assert found["latency_s"].isna().all()
    assert found["reason"].str.contains("cannot be compared with them: measure a cell there").all()
