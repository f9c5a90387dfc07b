"""One dispatcher in a simulated world: what must hold of every run, and of each of its parts."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from cells_of import run_cells
from hypothesis import given, settings
from hypothesis import strategies as st
from made import ENVIRONMENT, record
from shell import labbench

from labbench.config import ConfigError
from labbench.store import Store
from labbench.switching import (
    COMPARED,
    PATTERNS,
    POLICIES,
    Arrivals,
    Dispatcher,
    Disturbance,
    Option,
    Settings,
    SwitchingError,
    bursts,
    diurnal,
    hindsight,
    kill,
    make_arrivals,
    make_policy,
    named,
    poisson,
    read_run,
    report,
    simulate,
    slow,
    stored_cells,
    stored_options,
)
from labbench.switching.breaker import LONGEST_WAIT, Breaker

NEVER = 1e6  # seconds: health checks and limits that are not what a test is about


def option(name, *seconds, cold_start_s=1.0):
    return Option(name, np.array(seconds, float), cold_start_s)


def trace(*times_s):
    return Arrivals("made", max(times_s, default=0.0) + 1, np.array(times_s, float), 0)


def dispatcher(policy="expected-finish", service_s=None, **changes):
    changes = {"limit_s": 10.0, "check_s": NEVER, "capacity": 100} | changes
    return Dispatcher(service_s or {"a": 1.0, "b": 2.0}, make_policy(policy), Settings(**changes))


def sent(one):
    return [(attempt.backend, attempt.request and attempt.request.number) for attempt in one.outgoing()]


# --- what must hold of every run --------------------------------------------------------------------------------------

backends = st.lists(
    st.builds(lambda s, c: (s, c), st.lists(st.floats(1e-3, 0.5), min_size=1, max_size=5), st.floats(0.01, 2)),
    min_size=1, max_size=3,
).map(lambda found: [option(f"b{i}", *s, cold_start_s=c) for i, (s, c) in enumerate(found)])  # fmt: skip
times = st.lists(st.floats(0, 5), min_size=1, max_size=60).map(
    lambda found: Arrivals("made", 5.0, np.array(sorted(found)), 0)
)
troubles = st.lists(
    st.builds(Disturbance, st.floats(0, 5), st.just("b0"), st.sampled_from([None, 1.0, 3.0, 10.0])), max_size=4
)
rules = st.builds(Settings, limit_s=st.floats(0.2, 5), capacity=st.integers(1, 50), check_s=st.floats(0.2, 2))


@settings(max_examples=60, deadline=None)
@given(backends, times, st.sampled_from(sorted(POLICIES)), troubles, rules)
def test_every_request_has_one_end_and_no_backend_does_two_things_at_once(options, arrivals, policy, disturbed, rule):
    run = simulate(options, arrivals, policy, disturbed, rule)
    requests, attempts, found = run.requests, run.attempts, run.summary()
    assert len(requests) == len(arrivals)
    assert set(requests["outcome"]) <= {"answered", "expired", "refused"}
    assert found["accepted"] == found["answered"] + found["lost"]
    assert (requests["latency_s"].dropna() <= rule.limit_s + 1e-9).all()
    served = attempts[attempts["ended"] == "answered"]["number"].dropna()
    assert served.is_unique, "served twice"
    assert set(requests.loc[requests["outcome"] == "refused", "attempts"]) <= {0}
    for _, calls in attempts.groupby("backend"):
        begun, ended = calls["begun_s"].to_numpy(), calls["ended_s"].to_numpy()
        assert (begun[1:] >= ended[:-1]).all()


@settings(max_examples=60, deadline=None)
@given(backends, times, st.sampled_from(sorted(POLICIES)))
def test_undisturbed_each_backend_serves_in_order_of_arrival_and_never_rests_while_requests_wait(
    options, arrivals, policy
):
    run = simulate(options, arrivals, policy, settings=Settings(limit_s=NEVER, check_s=NEVER, least_patience_s=NEVER))
    assert (run.requests["outcome"] == "answered").all()
    for _, rows in run.requests.groupby("backend"):
        rows = rows.sort_values("begun_s", kind="stable")
        assert rows["number"].is_monotonic_increasing
        free = np.maximum(rows["arrived_s"].to_numpy()[1:], rows["finished_s"].to_numpy()[:-1])
        assert rows["begun_s"].to_numpy()[1:] == pytest.approx(free)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(COMPARED), st.floats(2, 18), st.sampled_from(["fast", "slow"]))
def test_killing_a_backend_loses_no_accepted_request(seed, policy, at_s, victim):
    options = [option("fast", 0.01, 0.012), option("slow", 0.02, 0.024)]
    run = simulate(options, bursts(30, 20, seed), policy, kill(f"{victim}@{at_s}"), seed=seed)
    assert run.summary()["lost"] == 0
    assert [row.what for row in run.log.itertuples() if row.backend == victim][:2] == ["died", "opened"]


def test_a_single_backend_waits_as_long_as_the_theory_of_queues_says():
    """M/M/1: the mean wait is rho / (mu - lambda); the interval of 12 runs holds it."""
    mu, load = 100.0, 0.6
    random = np.random.default_rng(7)
    calm = Settings(limit_s=NEVER, check_s=NEVER, capacity=10**6, least_patience_s=NEVER)
    waits = []
    for seed in range(12):
        options = [Option("server", random.exponential(1 / mu, 20_000), 1.0)]
        rows = simulate(options, poisson(load * mu, 25, seed), "static", settings=calm, seed=seed).requests
        waits.append((rows["begun_s"] - rows["arrived_s"]).mean())
    error = np.std(waits, ddof=1) / math.sqrt(len(waits))
    assert np.mean(waits) == pytest.approx(load / (mu - load * mu), abs=3.5 * error)
    assert error < 0.2 * np.mean(waits), "a wide interval would hold anything"


def test_the_same_seed_gives_the_same_run_and_another_one_does_not():
    options = [option("fast", 0.01, 0.02), option("slow", 0.02, 0.05)]
    one, again, other = (simulate(options, poisson(50, 5, 0), seed=seed).requests for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    assert not one["finished_s"].equals(other["finished_s"])


def test_a_slowed_backend_takes_longer_from_that_moment_the_running_call_included():
    run = simulate([option("a", 1.0)], trace(0, 0.0), "static", slow("a@0.5-4:3x"), Settings(limit_s=20, patience=50))
    # half of the first call is left at 0.5 s and takes 1.5 s; the second does 2/3 of its work until 4 s
    assert run.requests["finished_s"].tolist() == pytest.approx([2.0, 4 + 1 / 3])


# --- policies ---------------------------------------------------------------------------------------------------------


def placed(policy, count, **service_s):
    one = dispatcher(policy, service_s or None)
    for number in range(count):
        one.arrive(0.0, 0.0)
        assert one.requests[number].outcome is None
    return "".join(sorted(name for name, backend in one.backends.items() for _ in range(backend.load)))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("static", "aaaaaa"),
        ("round-robin", "aaabbb"),
        ("join-shortest-queue", "aaabbb"),
        ("expected-finish", "aaaabb"),  # twice as fast: twice as many
    ],
)
def test_each_policy_places_requests_as_it_says(policy, expected):
    assert placed(policy, 6) == expected


def test_equal_backends_share_alike_by_expected_finish_as_by_the_shortest_queue():
    assert placed("expected-finish", 6, a=1.0, b=1.0) == placed("join-shortest-queue", 6, a=1.0, b=1.0) == "aaabbb"


def test_hysteresis_stays_with_the_last_backend_while_the_other_is_hardly_better():
    one = dispatcher(service_s={"a": 1.00, "b": 1.05})
    one.arrive(0.0, 0.0)
    one.answered(1.06, "a")  # a takes 1.012 by now
    one.backends["a"].smoothed_s = 1.10  # within a tenth of b's
    one.arrive(2.0, 2.0)
    assert one.backends["a"].load == 1
    one.answered(3.1, "a")
    one.backends["a"].smoothed_s = 1.20  # no longer
    one.arrive(4.0, 4.0)
    assert one.backends["b"].load == 1


def test_a_call_that_takes_longer_than_usual_already_counts_against_its_backend():
    one = dispatcher(service_s={"a": 1.0, "b": 3.5})
    one.arrive(0.0, 0.0)
    one.arrive(0.5, 0.5)
    assert one.backends["a"].load == 2
    one.arrive(5.0, 5.0)  # the first has run for 5 s now
    assert one.backends["b"].load == 1


def test_under_bursts_expected_finish_has_a_lower_p99_than_the_others_on_most_traces():
    options = [option("fast", 0.008, 0.012), option("slow", 0.022, 0.028)]
    p99 = {
        name: np.array([simulate(options, bursts(60, 20, seed), name).summary()["p99_s"] for seed in range(5)])
        for name in COMPARED
    }
    own = p99.pop("expected-finish")
    assert {name: int((own < other).sum()) for name, other in p99.items() if (own < other).sum() < 4} == {}


# --- dispatcher and circuit breaker -----------------------------------------------------------------------------------


def test_a_full_queue_refuses_before_it_accepts():
    one = dispatcher(capacity=2)
    assert [one.arrive(0.0, 0.0).outcome for _ in range(3)] == [None, None, "refused"]


def test_by_default_as_many_are_accepted_as_the_slowest_backend_alone_would_answer_in_time():
    run = simulate(
        [option("fast", 0.01), option("slow", 0.1, cold_start_s=NEVER)],
        trace(*np.zeros(100)),
        "round-robin",
        [*kill("fast@0.001")],
        Settings(limit_s=2.0),
    )
    found = run.summary()
    assert found["refused"] == 100 - 10
    assert (found["answered"], found["lost"]) == (10, 0)


def test_what_waits_for_a_backend_that_died_goes_elsewhere_oldest_first():
    one = dispatcher("round-robin")
    for _ in range(4):
        one.arrive(0.0, 0.0)
    assert sent(one) == [("a", 0), ("b", 1)]
    one.died(0.1, "a")
    assert [request.number for request in one.backends["b"].waiting] == [0, 2, 3]
    one.answered(2.0, "b")
    assert sent(one) == [("b", 0)]
    assert one.requests[0].attempts == 2


def test_without_a_healthy_backend_requests_wait_for_one_and_expire_at_their_limit():
    one = dispatcher(service_s={"a": 1.0}, limit_s=5.0)
    one.died(0.0, "a")
    expires, waits = one.arrive(0.9, 0.9), one.arrive(1.0, 1.0)
    one.started(5.0, "a")
    assert sent(one) == [("a", None)], "a probe first"
    one.tick(5.95)
    one.answered(5.99, "a")
    assert sent(one) == [("a", 1)]
    one.answered(5.995, "a")
    assert (waits.outcome, expires.outcome) == ("answered", "expired")


def test_an_attempt_without_answer_is_tried_elsewhere_and_the_first_of_two_answers_counts():
    one = dispatcher(service_s={"a": 1.0, "b": 2.0}, patience=3.0)
    request = one.arrive(0.0, 0.0)
    one.tick(one.next_timer_s())
    assert sent(one) == [("a", 0), ("b", 0)]
    assert one.backends["a"].stuck
    one.answered(4.0, "a")
    assert (request.outcome, request.backend, request.finished_s) == ("answered", "a", 4.0)
    one.answered(5.0, "b")
    assert request.finished_s == 4.0


def test_an_idle_backend_is_asked_now_and_then_so_that_its_speed_stays_known():
    run = simulate([option("a", 0.01), option("b", 0.01)], trace(*range(10)), "static", settings=Settings(check_s=1.0))
    probes = run.attempts[run.attempts["number"].isna() & (run.attempts["backend"] == "b")]
    assert len(probes) >= 8


def test_a_breaker_opens_after_failures_in_a_row_and_closes_after_a_probe():
    breaker = Breaker(failures=3, wait_s=1.0)
    breaker.failed(0.0)
    breaker.succeeded()
    assert [breaker.failed(now) for now in (1.0, 2.0, 3.0)] == [False, False, True]
    assert (breaker.state, breaker.retry_at_s) == ("open", 4.0)
    breaker.half_open()
    assert not breaker.closed
    assert breaker.succeeded()
    assert breaker.closed


def test_each_failed_probe_doubles_the_wait_up_to_a_limit():
    breaker = Breaker(failures=1, wait_s=1.0)
    breaker.failed(0.0)
    waits = []
    for _ in range(7):
        breaker.half_open()
        breaker.failed(0.0)
        waits.append(breaker.retry_at_s)
    assert waits == [2, 4, 8, 16, 16, 16, 16]
    assert max(waits) == LONGEST_WAIT


# --- arrivals and disturbances ----------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(PATTERNS)), st.floats(0.5, 200), st.floats(0.5, 20), st.integers(0, 2**32))
def test_a_trace_is_ascending_within_its_length_and_made_again_by_its_seed(pattern, rate, seconds, seed):
    found = make_arrivals(pattern, rate, seconds, seed)
    assert (np.diff(found.times_s) >= 0).all()
    assert ((found.times_s >= 0) & (found.times_s <= seconds)).all()
    assert found.times_s.tolist() == make_arrivals(pattern, rate, seconds, seed).times_s.tolist()


@pytest.mark.parametrize(("pattern", "spread"), [("poisson", 0.05), ("diurnal", 0.05), ("bursts", 0.25)])
def test_a_pattern_has_the_mean_rate_asked_for(pattern, spread):
    rates = [make_arrivals(pattern, 50, 60, seed).rate for seed in range(20)]
    assert np.mean(rates) == pytest.approx(50, rel=spread)


def test_bursts_are_burstier_than_poisson_and_a_day_has_a_busy_half():
    def dispersion(arrivals):
        counts = np.histogram(arrivals.times_s, bins=400, range=(0, 400))[0]
        return counts.var() / counts.mean()

    assert dispersion(poisson(20, 400)) == pytest.approx(1, abs=0.3)
    assert dispersion(bursts(20, 400)) > 3
    day = diurnal(20, 400)
    assert (day.times_s < 200).mean() > 0.7


def test_a_recorded_trace_is_read_from_a_column_of_seconds(tmp_path):
    path = tmp_path / "trace.csv"
    pd.DataFrame({"seconds": [12.0, 10.0, 11.5], "user": ["x", "y", "z"]}).to_csv(path, index=False)
    found = make_arrivals(str(path), 1, 1)
    assert (found.times_s.tolist(), found.seconds, found.seed) == ([0.0, 1.5, 2.0], 2.0, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a,b\n1,2\n", "name the one with the times"), ("seconds\n1\nx\n", "at least two"), ("", "cannot read arrivals")],
)
def test_a_file_that_is_no_trace_is_refused_with_the_reason(tmp_path, text, reason):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        make_arrivals(str(path), 1, 1)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: make_arrivals("burst", 1, 1), "did you mean 'bursts'"),
        (lambda: make_arrivals("poisson", 0, 1), "rate of arrivals must be above 0"),
        (lambda: make_arrivals("diurnal", 1, math.inf), "length of arrivals must be above 0"),
        (lambda: bursts(1, 1, factor=1), "factor above 1"),
        (lambda: diurnal(1, 1, depth=2), "between 0 and 1"),
        (lambda: slow("eager@10"), "write e.g. eager@10:3x"),
        (lambda: slow("eager@20-10:3x"), "the end after the start"),
        (lambda: kill("eager"), "write e.g. eager@15"),
        (lambda: make_policy("roundrobin"), "did you mean 'round-robin'"),
        (lambda: simulate([option("eager", 1)], trace(0), disturbances=kill("eagle@1")), "did you mean 'eager'"),
        (lambda: simulate([option("eager", 1)], trace(0), disturbances=kill("eager@9")), "the trace ends after 1 s"),
    ],
)
def test_bad_input_is_refused_with_the_reason_and_the_way_out(call, reason):
    with pytest.raises(ConfigError, match=reason):
        call()


# --- from a store, and in words ---------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "s.h5"
    with Store(found, writable=True) as store:
        for runtime, seconds in (("eager", 2e-2), ("onnxruntime", 1e-2)):
            store.append(record("bert-tiny", runtime, seconds, threads=1, task="fill-mask", seq_len=128), ENVIRONMENT)
    return found


def test_options_come_from_a_stores_samples_fastest_first(path):
    store = Store(path)
    cells = stored_cells(store, "bert-tiny")
    options = stored_options(store, cells)
    assert [(one.name, one.usual_s, one.cold_start_s) for one in options] == [
        ("onnxruntime", 1e-2, 1.0),
        ("eager", 2e-2, 1.0),
    ]
    assert set(named(cells)) == {"eager", "onnxruntime"}


def test_where_nothing_can_be_switched_between_the_error_says_what_to_measure(path):
    with pytest.raises(SwitchingError, match=r"no two measurements of vit-tiny .*labbench run --model vit-tiny"):
        stored_cells(Store(path), "vit-tiny")
    with pytest.raises(SwitchingError, match="on eager that"):
        stored_cells(Store(path), runtimes=["eager"])


def test_the_command_prints_every_policy_and_what_became_of_the_requests(path, tmp_path):
    asked = ("switch", "--store", path, "--model", "bert-tiny", "--runtime", "eager", "onnxruntime", "--seconds", "5")
    run = labbench(*asked, "--kill", "eager@2", "--save", tmp_path / "runs")
    assert run.returncode == 0, run.stderr
    assert all(name in run.stdout for name in COMPARED)
    assert "accepted requests were answered within the limit" in run.stdout
    kept = json.loads((tmp_path / "runs" / "static-simulated.json").read_text())
    assert len(kept["arrivals"]["times_s"]) == kept["summary"]["offered"]
    [one] = json.loads(labbench(*asked, "--policy", "static", "--json").stdout)
    assert one["summary"]["provenance"] == "simulated"
    assert one["overhead"] is None
    for kind in ("--simulate", "--live"):
        wrong = labbench(*asked, "--kill", "eagle@2", kind)
        assert (wrong.returncode, "did you mean 'eager'" in wrong.stderr) == (2, True)


def test_agreement_counts_policies_whose_p99_and_answers_are_within_a_fifth():
    from dataclasses import replace

    options = [option("fast", 0.01), option("slow", 0.02)]
    simulated = [simulate(options, poisson(40, 5), name) for name in COMPARED]
    same = [replace(run, provenance="measured") for run in simulated]
    assert report.agreement([*simulated, *same])["agrees"].all()
    slower = same[0].requests.assign(latency_s=1.3 * same[0].requests["latency_s"])
    found = report.agreement([*simulated, replace(same[0], requests=slower), *same[1:]])
    assert found["agrees"].tolist() == [False, True, True, True]
    said = report.agreement_sentences([*simulated, replace(same[0], requests=slower), *same[1:]])
    assert said.startswith("Forecast: ")
    assert "3 of 4 policies; not for static" in said.split("\nIn hindsight: ")[0]


def test_the_notebook_simulates_from_a_store_and_ends_in_words_where_there_is_none(path, tmp_path, capsys):
    shown = run_cells("10_load_switching", store_path=str(path), live=False, seconds=3, slowed=[], killed=["eager@1"])
    printed = capsys.readouterr().out
    assert "Requests are for bert-tiny" in printed
    assert "p99 of expected-finish is" in printed
    assert "Nothing was run both simulated and live" in printed
    assert len(shown["8"]) == len(COMPARED)
    with Store(tmp_path / "empty.h5", writable=True) as store:
        store.append(record("bert-tiny", "eager"), ENVIRONMENT)
    *_, last = run_cells("10_load_switching", store_path=str(tmp_path / "empty.h5")).values()
    assert isinstance(last, SystemExit)


def test_in_hindsight_a_run_meets_the_machine_as_it_was_slowed_calls_and_cold_start_included():
    from dataclasses import replace

    options = [option("a", 0.01, cold_start_s=1.0), option("b", 0.02, cold_start_s=1.0)]
    changed = Option("a", np.repeat([0.01, 0.03], 100), 2.0, np.linspace(0, 20, 200))  # slower from 10 s on
    disturbed = [*slow("b@4-6:3x"), *kill("a@12")]
    live = simulate([changed, options[1]], poisson(30, 20), "round-robin", disturbed)
    live = replace(live, provenance="measured", options=tuple(options))
    then, forecast = hindsight(live), simulate(options, live.arrivals, "round-robin", disturbed)
    assert [one.factor for one in then.disturbances] == [None]
    found = [run.summary()["p99_s"] for run in (live, then, forecast)]
    assert found[1] == pytest.approx(found[0], rel=report.AGREES)
    assert abs(found[2] / found[0] - 1) > report.AGREES
    started = [run.log.loc[run.log["what"] == "started", "at_s"].item() for run in (live, then)]
    assert started[0] == pytest.approx(started[1])
    assert report.agreement(report.retold([live]))["agrees"].all()


def test_a_call_that_follows_another_one_at_once_is_as_much_faster_as_such_calls_were(tmp_path):
    queued = np.arange(40) % 2 == 1
    known = Option("a", np.where(queued, 0.008, 0.010), 1.0, queued=queued)
    assert known.queued_factor == pytest.approx(0.8)
    run = simulate([known], poisson(60, 20), "static")
    run.save(tmp_path / "run.json")
    assert read_run(tmp_path / "run.json").options[0].queued_factor == known.queued_factor
    calls = run.attempts.sort_values("begun_s")
    soon = calls["begun_s"].to_numpy()[1:] - calls["ended_s"].to_numpy()[:-1] < 1e-3
    took = (calls["ended_s"] - calls["begun_s"]).to_numpy()[1:]
    assert soon.any()
    assert not soon.all()
    assert took == pytest.approx(np.where(soon, 0.008, 0.010))
    few = Option("a", known.samples_s[:12], 1.0, queued=queued[:12])
    assert few.queued_factor == 1.0


def test_a_saved_run_is_read_as_it_was_and_another_file_is_refused(tmp_path):
    run = simulate([option("a", 0.01), option("b", 0.02)], poisson(30, 3), disturbances=kill("a@1"))
    run.save(tmp_path / "run.json")
    again = read_run(tmp_path / "run.json")
    assert again.to_dict() == run.to_dict()
    assert hindsight(again).summary() == hindsight(run).summary()
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds no run"):
        read_run(tmp_path / "other.json")


def test_lost_and_refused_requests_are_told_and_so_are_policies_that_are_not_worse():
    slowed = [
        simulate([option("fast", 0.01), option("slow", 0.02)], bursts(60, 5), name, slow("slow@1:8x"))
        for name in COMPARED
    ]
    said = report.loss_sentence(slowed)
    lost = {run.policy: run.summary()["lost"] for run in slowed}
    assert lost["round-robin"] > 0
    assert f"{lost['round-robin']} by round-robin" in said
    same = [simulate([option("only", 0.01)], poisson(40, 5), name) for name in COMPARED]
    assert "not below static's" in report.policy_sentence(same)
    accepted = sum(run.summary()["accepted"] for run in same)
    assert (
        report.loss_sentence(same) == f"Simulated, all {accepted:,} accepted requests were answered within the limit."
    )
