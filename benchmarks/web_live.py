"""Live audio for 60 s in Chromium, Firefox and WebKitGTK: are drop-outs counted rightly, and do the parts make up the end to end?

Each browser runs a model as it is, and once more with each hop made to take twice as long as it may (``--slowdown``). Then half
of the hops must be dropped, less those that the ring holds; the page's count of results, drops and what waits must be all the hops
that there were. *Parts* are the hop as asked for, buffering and inference (means), over the end to end, which other threads time by
another clock: within 10 %. *Filled* are the same with the hop as the browser filled it; it differs where the browser brings its
audio late (*late*), as it does on a busy machine.

    python benchmarks/web_live.py [--browsers chromium firefox webkitgtk] [--model kws-tiny] [--hop-ms 100] [--seconds 60]
        [--slowdown 2] [--source signal] [--store FILE]

It takes two times the seconds for each browser. Run it on a machine that is otherwise idle.
"""

from __future__ import annotations

import argparse

from labbench.records import Record
from labbench.web.browsers import NAMES
from labbench.web.live import Live
from labbench.web.live_report import ADDITIVE
from labbench.web.live_run import LiveRuns

ROOM = 3  # hops: one in work, one just begun, one that ends with the run


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--browsers", nargs="+", default=list(NAMES))
    parser.add_argument("--model", default="kws-tiny")
    parser.add_argument("--provider", default="wasm")
    parser.add_argument("--hop-ms", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--slowdown", type=float, default=2.0)
    parser.add_argument("--source", default="signal", choices=["signal", "microphone"])
    parser.add_argument("--store")
    given = parser.parse_args()
    common = {"model": given.model, "provider": given.provider, "hop_s": given.hop_ms / 1e3, "seconds": given.seconds}
    wishes = [
        Live(browser=name, source=given.source, slowdown=slowdown, **common)
        for name in given.browsers
        for slowdown in (None, given.slowdown)
    ]
    names = "browser    run     p50    p95    p99 ms   gap ms  results dropped waiting counted  parts filled   late s"
    print(
        f"{given.model}, {given.provider}, hop {given.hop_ms:g} ms, {given.seconds:g} s, source {given.source}\n{names}"
    )
    records: list[Record] = []

    def keep(record: Record) -> None:
        print(line(wishes[len(records)], record), flush=True)
        records.append(record)

    with LiveRuns(keep=keep, store=given.store) as runs:
        runs.run(wishes)
    judge(wishes, records)


def line(wish: Live, record: Record) -> str:
    """A row of the table."""
    run = f"{wish.browser:<10} {'slowed' if wish.slowdown else 'free':<6}"
    if record.status != "ok":
        return f"{run} {record.status}: {record.reason}"
    m = record.metrics
    p50, p95, p99, gap = (
        1e3 * m[f"{name}_s"] for name in ("end_to_end_p50", "end_to_end_p95", "end_to_end_p99", "longest_gap")
    )
    counted = counts(record)
    return (
        f"{run} {p50:6.1f} {p95:6.1f} {p99:6.1f} {gap:10.0f} {m['hops']:8.0f} {m['dropped_hops']:7.0f} {m['waiting_hops']:7.0f}"
        f" {counted:7.0f} {m['parts_share']:7.3f} {filled(record):6.3f} {m['late_audio_s']:7.2f}"
    )


def counts(record: Record) -> float:
    """Hops that came of the audio, whatever became of them."""
    return sum(record.metrics[name] for name in ("hops", "dropped_hops", "waiting_hops"))


def filled(record: Record) -> float:
    """The parts over the end to end, with the hop as it was filled."""
    m = record.metrics
    return (m["filling_mean_s"] + m["buffering_mean_s"] + m["inference_mean_s"]) / m["end_to_end_mean_s"]


def judge(wishes: list[Live], records: list[Record]) -> None:
    """What is claimed, and whether it holds."""
    ran = [(wish, record) for wish, record in zip(wishes, records, strict=True) if record.status == "ok"]
    whole = [abs(counts(record) - wish.seconds / wish.hop_s) <= 1 for wish, record in ran]
    print(f"every hop is a result, dropped or waiting: {sum(whole)} of {len(ran)} runs")
    free = [record for wish, record in ran if not wish.slowdown]
    dropped = [f"{record.metrics['dropped_hops']:.0f}" for record in free]
    print(f"drop-outs of runs that are not slowed: {', '.join(dropped)}")
    right = []
    for wish, record in ran:
        if wish.slowdown:
            due = wish.seconds / wish.hop_s
            least = due * (1 - 1 / wish.slowdown) - wish.slack_s / wish.hop_s - ROOM
            right.append(least <= record.metrics["dropped_hops"] <= due * (1 - 1 / wish.slowdown) + ROOM + 0.05 * due)
    print(f"drop-outs of slowed runs are what they must be: {sum(right)} of {len(right)}")
    shares = {"as asked": [r.metrics["parts_share"] for _, r in ran], "as filled": [filled(r) for _, r in ran]}
    for name, values in shares.items():
        within = sum(abs(share - 1) <= ADDITIVE for share in values)
        print(
            f"hop ({name}), buffering and inference within {ADDITIVE:.0%} of the end to end: {within} of {len(values)}"
        )


if __name__ == "__main__":
    main()
