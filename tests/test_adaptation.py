import numpy as np
import pytest

from labbench.prediction.adaptation import CLIP, Adaptation, Traits, _clipped, graph_features

GRAPHS, TERMS = 40, 3


def made(devices=("a", "b", "c"), seed=0, correction=0.3, offset=0.2, own=0.01):
    """Cells of every graph on every device: a device shifts everything and each term of the law by its own factors."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(TERMS), GRAPHS)
    statistics = rng.normal(0, 1, (GRAPHS, 4))
    common = 0.1 * np.sin(2 * statistics[:, 0])  # what the law gets wrong of a graph, on every device
    at = np.tile(np.arange(GRAPHS), len(devices))
    device = np.repeat(devices, GRAPHS)
    left_over = common[at] + rng.normal(0, own, len(at))
    for name in devices:
        here = device == name
        left_over[here] += offset * rng.normal() + shares @ rng.normal(0, correction, TERMS)
    levels = {"device": device, "configuration": device}
    return Traits(at.astype(str), graph_features(statistics, shares)[at], shares[at], levels), left_over, device


@pytest.fixture(scope="module")
def adapted():
    traits, left_over, device = made()
    old = device != "c"
    return Adaptation.fit(traits.take(old), left_over[old], ("device",)), traits.take(~old), left_over[~old]


def errors(model, traits, left_over, probes):
    rest = np.setdiff1d(np.arange(len(traits)), probes)
    return np.abs(model.learn(traits.take(probes), left_over[probes]).predict(traits.take(rest)).mean - left_over[rest])


def test_a_new_device_is_predicted_the_better_the_more_cells_of_it_are_measured(adapted):
    model, new, left_over = adapted
    order = model.choose(new, count=12)[0]
    none, few, many = (errors(model, new, left_over, order[:count]).mean() for count in (0, 3, 12))
    assert none > 2 * few > 2 * many
    assert many < 0.05


def test_chosen_probes_are_no_worse_than_random_ones(adapted):
    model, new, left_over = adapted
    order = model.choose(new, count=4)[0]
    random = [
        errors(model, new, left_over, np.random.default_rng(seed).permutation(len(new))[:4]).mean()
        for seed in range(20)
    ]
    assert errors(model, new, left_over, order).mean() <= np.mean(random)


def test_what_was_measured_of_a_graph_tells_of_it_elsewhere_though_the_process_did_not_learn_from_it():
    traits, left_over, device = made()
    own = np.random.default_rng(1).normal(0, 0.2, GRAPHS)  # what nothing known of a graph tells
    left_over = left_over + own[traits.graph.astype(int)]
    learnt = traits.graph.astype(int) < 20
    hidden, siblings = ~learnt & (device == "c"), ~learnt & (device != "c")
    model = Adaptation.fit(traits.take(learnt), left_over[learnt], ("device",))
    without = model.predict(traits.take(hidden))
    told = model.predict(traits.take(hidden), (traits.take(siblings), left_over[siblings]))
    errors = [np.abs(one.mean - left_over[hidden]) for one in (without, told)]
    assert errors[1].mean() < 0.5 * errors[0].mean()
    assert np.median(told.reach(0.9)) < 0.8 * np.median(without.reach(0.9))
    assert (errors[1] <= told.reach(0.9)).mean() >= 0.8
    stranger = model.predict(traits.take(hidden), (traits.take(learnt), left_over[learnt]))
    assert stranger.mean == pytest.approx(without.mean)  # other graphs' cells are not its own


def test_intervals_hold_what_is_measured_on_devices_that_were_never_learnt_from():
    inside, wide = [], []
    for seed in range(12):
        traits, left_over, device = made(seed=seed)
        old = device != "c"
        model = Adaptation.fit(traits.take(old), left_over[old], ("device",))
        new, truth = traits.take(~old), left_over[~old]
        probes = model.choose(new, count=5)[0]
        for count in (0, 5):
            found = model.learn(new.take(probes[:count]), truth[probes[:count]]).predict(new)
            rest = np.setdiff1d(np.arange(len(new)), probes[:count])
            inside.append((np.abs(found.mean - truth) <= found.reach(0.9))[rest].mean())
            wide.append(found.reach(0.9).mean())
    assert np.mean(inside) >= 0.85
    assert np.mean(wide[1::2]) < np.mean(wide[::2]) / 2  # honest because it knows, not because it says nothing


def test_one_odd_probe_does_not_spoil_the_others(adapted):
    model, new, left_over = adapted
    order = model.choose(new, count=10)[0]
    odd = left_over.copy()
    odd[order[4]] += 3.0
    assert errors(model, new, odd, order).mean() < 0.1


def test_another_configuration_of_a_known_graph_is_predicted_from_those_that_were_measured():
    rng = np.random.default_rng(0)
    traits, _, _ = made()
    own = rng.normal(0, 0.3, GRAPHS)  # of a graph, on every device, and nothing tells of it
    left_over = own[traits.graph.astype(int)] + rng.normal(0, 0.01, len(traits))
    hidden = np.arange(len(traits)) % 7 == 0
    found = Adaptation.fit(traits.take(~hidden), left_over[~hidden]).predict(traits.take(hidden))
    assert np.abs(found.mean - left_over[hidden]).mean() < 0.05


def test_nothing_learnt_from_says_nothing_and_is_sure_of_nothing():
    traits, left_over, _ = made()
    few = Adaptation.fit(traits.take(slice(0, 3)), left_over[:3], ("device",))
    far = few.predict(traits.take(slice(2 * GRAPHS, None)))
    near = few.predict(traits.take(slice(0, 3)))
    assert far.sd.mean() > 3 * near.sd.mean()


def test_a_budget_is_kept_and_cheap_cells_come_first_where_they_tell_as_much(adapted):
    model, new, _ = adapted
    costs = np.where(np.arange(len(new)) % 2, 1.0, 10.0)
    chosen, left = model.choose(new, costs=costs, budget=25.0)
    assert costs[chosen].sum() <= 25
    assert costs[chosen[0]] == 1
    assert left == sorted(left, reverse=True)
    assert len(set(chosen)) == len(chosen)


def test_what_is_left_in_doubt_is_what_a_fit_with_those_cells_says(adapted):
    model, new, left_over = adapted
    assert model.choose(new, count=0) == ([], [])
    chosen, left = model.choose(new, count=3)
    after = model.learn(new.take(chosen), left_over[chosen])
    assert left[-1] == pytest.approx(after.mean_variance(new), rel=1e-4)  # but for what keeps factors positive


def test_targets_that_do_not_count_draw_no_measurement(adapted):
    model, new, _ = adapted
    only = np.zeros(len(new))
    only[7] = 1.0
    assert model.choose(new, count=1, weights=only)[0] == [7]
    assert model.explained(new, new)[7].argmax() == 7


def test_more_cells_than_fit_are_thinned_the_same_way_each_time():
    traits, left_over, _ = made()
    one, other = (Adaptation.fit(traits, left_over, max_rows=50, seed=3) for _ in range(2))
    assert len(one.traits) == 50
    assert one.traits.graph.tolist() == other.traits.graph.tolist()


@pytest.mark.parametrize("seed", range(8))
def test_odd_cells_are_drawn_to_the_limit_and_no_others_anywhere(seed):
    """The conditions that hold at the solution, and there alone (Karush-Kuhn-Tucker)."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(0, 1, 120)
    inverse = np.linalg.inv(np.exp(-((place[:, None] - place) ** 2) / 2) + 0.01 * np.eye(120))
    values = np.sin(6 * place) + rng.normal(0, 0.5, 120)
    calm = _clipped(values, lambda one: inverse @ one, np.diag(inverse), CLIP)
    score, drawn = inverse @ calm / np.sqrt(np.diag(inverse)), values - calm
    assert np.abs(score).max() <= 1.02 * CLIP
    assert score[drawn != 0] == pytest.approx(CLIP * np.sign(drawn[drawn != 0]), abs=0.05)
