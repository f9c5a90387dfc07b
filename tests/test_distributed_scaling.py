"""Scaling, overhead and faults: the arithmetic, on made records and made events; no rank is started."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbench.cells import Cell
from labbench.distributed import measured, overhead, rank_records
from labbench.distributed.blame import Ending
from labbench.distributed.faults import KINDS, allowed_s, fault_table
from labbench.distributed.job import Fault
from labbench.distributed.launcher import Launched
from labbench.distributed.overlap import PASS, in_turn, of_events, overlap, union
from labbench.distributed.ranks_report import spread_sentence
from labbench.distributed.scaling import (
    gustafson,
    karp_flatt,
    scaling_sentences,
    scaling_shown,
    scaling_table,
    stops_paying,
)
from labbench.records import Record


def timed(mode: str, ranks: int, step_s: float, batch: int = 8, **metrics: float) -> Record:
    return Record(
        cell=Cell.of(model="decoder", mode="training", batch_size=batch, seq_len=16, runtime=mode, world_size=ranks),
        status="ok",
        metrics={"update_s": 0.0, "oversubscribed": 0.0, **metrics},
        series=[rank_records.series("step", [step_s] * 11, batch, "samples")],
    )


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(2, 1024))
def test_the_serial_fraction_of_amdahls_law_and_of_gustafsons_is_found_again(serial, ranks) -> None:
    amdahl = 1 / (serial + (1 - serial) / ranks)
    assert karp_flatt(amdahl, ranks) == pytest.approx(serial, abs=1e-9)
    assert gustafson(ranks - serial * (ranks - 1), ranks) == pytest.approx(serial, abs=1e-9)


def test_serial_fractions_by_hand() -> None:
    """E.g. (1/1.95 - 1/2) / (1 - 1/2) = 0.0256."""
    found = [karp_flatt(speedup, ranks) for speedup, ranks in ((1.95, 2), (3.88, 4), (7.53, 8))]
    assert found == pytest.approx([0.0256, 0.0103, 0.0089], abs=5e-5)
    assert math.isnan(karp_flatt(1.0, 1))


def test_strong_scaling_by_hand() -> None:
    records = [timed("one", 1, 8.0), timed("ddp", 2, 5.0), timed("ddp", 4, 4.0), timed("ddp", 4, 1.0, batch=32)]
    table = scaling_table(records)
    assert list(table["ranks"]) == [1, 2, 4]
    assert list(table["speedup"]) == pytest.approx([1, 1.6, 2.0])
    assert list(table["efficiency"]) == pytest.approx([1, 0.8, 0.5])
    assert list(table["added"])[1:] == pytest.approx([0.6, 0.2])
    assert list(table["pays"]) == [True, True, False]
    assert stops_paying(table) == {"ddp": 2}


def test_people_are_shown_one_process_once_and_no_serial_share_above_all() -> None:
    records = [timed("one", 1, 8.0), timed("ddp", 2, 5.0), timed("fsdp", 2, 9.0)]
    shown = scaling_shown(scaling_table(records)).set_index("strategy")
    assert list(shown.index) == ["one process", "ddp", "fsdp"]
    assert list(shown["serial share"]) == ["–", "25 %", "over 100 %"]
    assert list(shown["pays"]) == ["–", "yes", "no"]


def test_how_far_steps_lie_apart_is_told_of_ranks_with_a_core_each() -> None:
    records = [timed("one", 1, 8.0), timed("ddp", 2, 5.0), timed("ddp", 4, 5.0, oversubscribed=1.0)]
    spreads = zip(records, (0.8, 1.0, 5.0), strict=True)
    records = [
        one.model_copy(update={"series": [one.series[0].model_copy(update={"iqr_s": iqr_s})]}) for one, iqr_s in spreads
    ]
    told = spread_sentence(records)
    assert "one process lie 10 % apart" in told
    assert "20 % in the median" in told
    assert spread_sentence(records[:1]).startswith("No steps")


def test_weak_scaling_takes_the_batches_that_grew_with_the_ranks() -> None:
    records = [timed("one", 1, 8.0), timed("ddp", 2, 5.0), timed("ddp", 2, 10.0, batch=16)]
    table = scaling_table(records, "weak")
    assert list(table["batch"]) == [8, 16]
    assert list(table["efficiency"]) == pytest.approx([1, 0.8])
    assert table["serial"].iloc[1] == pytest.approx(gustafson(1.6, 2)) == pytest.approx(0.4)


def test_without_one_process_there_is_nothing_to_compare_with() -> None:
    assert scaling_table([timed("ddp", 2, 5.0)]).empty
    assert scaling_table([timed("one", 1, 5.0)]).empty
    assert scaling_sentences(scaling_table([timed("one", 1, 5.0)])) == [
        "Nothing of this kind was measured beside one process."
    ]


def test_a_step_is_divided_into_what_it_consists_of() -> None:
    records = [
        timed("one", 1, 8.0),
        timed("ddp", 2, 5.0, update_s=1.0, exposed_communication_s=1.5, hook_communication_s=2.0),
        timed("fsdp", 2, 5.0, update_s=1.0, exposed_communication_s=0.1, trace_exposed_s=3.0, trace_pass_s=6.0),
        timed("pipeline-gpipe", 2, 5.0, update_s=1.0, idle=0.25),
        timed("ddp", 4, 6.0, oversubscribed=1.0),
    ]
    table = scaling_table(records).set_index(["strategy", "ranks"])
    assert table.loc[("ddp", 2), "communication_s"] == 1.5
    assert table.loc[("fsdp", 2), "communication_s"] == 2.0  # half of a traced pass is half of a pass
    assert table.loc[("pipeline-gpipe", 2), "waiting_s"] == 1.0
    parts = table[["compute_s", "communication_s", "waiting_s", "update_s"]].sum(axis=1)
    assert list(parts) == pytest.approx(list(table["step_s"]))
    told = " ".join(scaling_sentences(scaling_table(records)))
    assert "ddp: 2 ranks train 1.60 times as fast as one process; added ranks pay as far as was measured" in told
    assert "4 ranks shared cores: their times are the scheduler's" in told
    assert "waiting for other stages: 20 % of a step" in told


def test_ranks_that_shared_cores_do_not_tell_where_ranks_stop_paying() -> None:
    records = [timed("one", 1, 8.0), timed("ddp", 2, 5.0), timed("ddp", 4, 9.0, oversubscribed=1.0)]
    assert stops_paying(scaling_table(records)) == {"ddp": None}
    assert len(scaling_sentences(scaling_table([records[0], records[2]]))) == 1  # nothing but that they shared cores


def test_messages_one_after_another_by_hand() -> None:
    """The second is ready while the first travels, the third after both."""
    assert in_turn([0.0, 1.0, 10.0], [3.0, 5.0, 11.0]) == 3 + 2 + 1
    assert in_turn([4.0], [6.5]) == 2.5


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10)), min_size=1, max_size=20))
def test_messages_take_no_longer_than_the_channel_is_used_and_no_less_than_from_last_to_last(drawn) -> None:
    intervals = sorted(((begin, begin + length) for begin, length in drawn), key=lambda one: one[1])
    covered = union(intervals)
    spent = in_turn([begin for begin, _ in intervals], [end for _, end in intervals])
    assert spent <= sum(end - begin for begin, end in covered) + 1e-9
    assert sum(overlap(one, covered) for one in covered) == pytest.approx(sum(end - begin for begin, end in covered))


def test_a_trace_tells_what_computing_hides() -> None:
    events = [
        (PASS, 0.0, 10.0),
        ("aten::mm", 0.0, 4.9999),
        ("aten::add", 5.0, 5.0),  # so soon after that nothing else can have been at work
        ("aten::mul", 1.0, 2.0),  # within another
        ("gloo:all_reduce", 3.0, 6.0),
        ("gloo:all_reduce", 4.0, 8.0),
        ("gloo:barrier", 8.0, 9.0),
        ("gloo:all_reduce", 11.0, 15.0),  # of no pass
    ]
    assert of_events(events) == {"total_s": [5.0], "exposed_s": [3.0], "pass_s": [10.0]}
    assert of_events(events[:3]) is None


def rank(**own):
    return {
        "step_s": [3.0, 3.0],
        "backward_s": [2.0, 2.0],
        "silent_s": None,
        "busy_s": None,
        "bubble": None,
        "hook": None,
        "trace": None,
        "memory": {"parameters": 10},
    } | own


def test_a_step_is_as_long_as_the_slowest_ranks_and_stragglers_are_told() -> None:
    ranks = [rank(silent_s=[1.0, 1.0]), rank(step_s=[4.0, 2.0], silent_s=[1.0, 1.0]), rank(silent_s=[1.5, 1.5])]
    assert overhead.step_s(ranks) == [4.0, 3.0]
    found = overhead.metrics(ranks)
    assert found["compute_s"] == 1.5
    assert found["exposed_communication_s"] == 0.5
    assert found["straggler"] == 1.5
    assert found["parameters_bytes"] == found["parameters_bytes rank 2"] == 10


def test_what_a_rank_of_a_pipeline_does_not_compute_it_waits() -> None:
    found = overhead.metrics([rank(busy_s=[1.5, 1.5], bubble=0.2), rank(busy_s=[1.0, 1.0], bubble=0.2)])
    assert (found["idle rank 0"], found["idle rank 1"], found["idle"]) == (0.25, 0.5, 0.375)
    assert found["bubble_by_formula"] == 0.2


def test_of_a_message_that_one_rank_waited_in_the_other_ranks_seconds_count() -> None:
    early = {"total_s": [5.0], "exposed_s": [4.0], "pass_s": [9.0], "gradients_s": [5.0], "silent_s": [5.0]}
    late = {"total_s": [2.0], "exposed_s": [1.0], "pass_s": [9.5], "gradients_s": [8.5], "silent_s": [8.0]}
    found = overhead.metrics([rank(hook=early), rank(hook=late)])
    assert found["hook_communication_s"] == 2
    assert found["hook_exposed_s"] == found["hook_difference_s"] - found["hook_slowed_s"] == 1


def test_a_table_of_faults_counts_what_came_as_expected() -> None:
    def one(kind: str, right: float, after_s: float) -> Record:
        cell = Cell.of(model="decoder", task=f"fault-{kind}", mode="training", runtime="ddp", world_size=2)
        metrics = {"as_expected": right, "left_running": 0.0, "reported_after_s": after_s}
        return Record(cell=cell, status="failed", reason="made", metrics=metrics)

    table = fault_table([one("kill", 1, 0.5), one("kill", 0, 1.5), one("hang", 1, 6.0), timed("ddp", 2, 1.0)])
    assert list(table["fault"]) == ["kill", "hang"]
    assert list(table["trials"]) == [2, 1]
    assert list(table["as_expected"]) == [1, 1]
    assert list(table["slowest_s"]) == [1.5, 6.0]
    assert {kind: allowed_s(kind, 5) for kind in KINDS}["hang"] == 7
    assert fault_table([]).empty


def launching(lost: set[str]):
    """A launcher that loses each job with one of these modes in it, and notes what it was asked."""
    asked: list[tuple[list[str], bool]] = []

    def launch(job, ranks, limits):
        modes = job.options["modes"]
        asked.append((modes, job.options["overlap"]))
        if lost & set(modes) and (len(modes) > 1 or "always" in lost):
            return Launched(Ending(status="failed", reason="rank 0 was ended by signal 11", ranks=[0]))
        return Launched(Ending(status="ok"), results=[[rank(mode=mode) for mode in modes] for _ in range(ranks)])

    return launch, asked


def test_a_lost_launch_is_repeated_mode_by_mode_without_hooks_and_traces(monkeypatch) -> None:
    launch, asked = launching({"fsdp"})
    monkeypatch.setattr(measured, "launch", launch)
    done = measured.timings(["ddp", "fsdp"], 2, 5, {})
    assert asked == [(["ddp", "fsdp"], True), (["ddp"], False), (["fsdp"], False)]
    assert {mode: one.ending.status for mode, one in done.items()} == {"ddp": "ok", "fsdp": "ok"}
    assert [each["mode"] for each in done["fsdp"].results] == ["fsdp", "fsdp"]


def test_a_mode_that_is_lost_again_is_lost_alone(monkeypatch) -> None:
    launch, _ = launching({"fsdp", "always"})
    monkeypatch.setattr(measured, "launch", launch)
    done = measured.timings(["ddp", "fsdp"], 2, 5, {})
    assert {mode: one.ending.status for mode, one in done.items()} == {"ddp": "ok", "fsdp": "failed"}


def test_a_fault_that_was_asked_for_is_not_tried_again(monkeypatch) -> None:
    launch, asked = launching({"ddp", "always"})
    monkeypatch.setattr(measured, "launch", launch)
    measured.timings(["ddp"], 2, 5, {}, fault=Fault(kind="kill", rank=1))
    assert len(asked) == 1
