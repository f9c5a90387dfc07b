"""Load-aware switching, simulated and live on the same traces: every policy, undisturbed, with a backend slowed, with one killed.

Each backend is a process of this machine with the model in its runtime, one thread, on a core of its own if there are enough;
load generator and dispatcher share the cores with them. Before each scenario service times are measured at work (Poisson arrivals
at the same mean rate, in turn); the simulation draws from those. Bursts are four times the rate between them. *Slowed* is a worker
that is stopped for a part of every 6 ms (SIGSTOP), as under a quota of processor time; *killed* is SIGKILL, and a cold start in the
background.

    python benchmarks/switching.py FOLDER [--saved] [--model resnet-tiny] [--batch-size 1] [--runtimes eager onnxruntime]
        [--seconds 20] [--load 0.33] [--scenarios poisson diurnal bursts bursts-slow bursts-kill] [--seeds 0 1 2]

The table has a row for each scenario and policy. The *forecast* knows service times from before the run, so it is off if the
machine changes its speed; *in hindsight* the simulation draws from those that the backends had around each moment of the live
run, so it is off if queues and dispatching are simulated wrongly. ``answered`` is forecast, in hindsight, live; accepted, refused,
retried and lost requests are live. Live, policies run one after the other, so that their p99 also differ because the machine does:
they are compared on one and the same machine too, simulated in hindsight of the run of round-robin.

It takes the seconds of all traces, for each policy, and some for cold starts; with ``--saved``, what the folder holds is told once
more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from labbench.campaign import resolve
from labbench.cells import Cell
from labbench.switching import (
    COMPARED,
    Disturbance,
    calibrate,
    capacity,
    compared,
    make_arrivals,
    named,
    read_run,
    report,
)
from labbench.switching.live import LiveWorld
from labbench.switching.run import Run, hindsight

SLOWER = 3.0


def disturbances(scenario: str, seconds: float, backends: list[str]) -> list[Disturbance]:
    """What is done in a scenario: from two to three fifths of the time, to the backend that is fastest on its own."""
    if scenario.endswith("-slow"):
        return [Disturbance(0.4 * seconds, backends[0], SLOWER), Disturbance(0.6 * seconds, backends[0], 1.0)]
    return [Disturbance(0.4 * seconds, backends[0])] if scenario.endswith("-kill") else []


def rows(scenario: str, runs: list[Run]) -> pd.DataFrame:
    """The lines of a scenario: forecast, in hindsight, live."""
    live = report.summaries(run for run in runs if run.provenance == "measured")
    then = report.agreement(report.retold(runs)).drop(columns=["p99_measured_s", "answered_measured"])
    table = report.agreement(runs).merge(then, on="policy", suffixes=("", "_then"))
    table = table.merge(live[["policy", "accepted", "refused", "retried", "lost"]], on="policy")
    return table.assign(scenario=scenario)


def shown(table: pd.DataFrame) -> str:
    """The table for people."""
    out = pd.DataFrame({"scenario": table["scenario"], "policy": table["policy"]})
    columns = {"forecast": "p99_simulated_s", "hindsight": "p99_simulated_s_then", "live p99 (ms)": "p99_measured_s"}
    for name, column in columns.items():
        out[name] = (table[column] * 1e3).round(1)
    out["live/forecast"] = table["p99_ratio"].round(2)
    out["live/hindsight"] = table["p99_ratio_then"].round(2)
    columns = {"forecast": "answered_simulated", "hindsight": "answered_simulated_then", "live": "answered_measured"}
    out["answered"] = table[list(columns.values())].astype(str).agg(" / ".join, axis=1)
    for name in ("accepted", "refused", "retried", "lost"):
        out[name] = table[name]
    return out.to_string(index=False)


def side_by_side(runs: dict[str, list[Run]]) -> pd.DataFrame:
    """p99 of each policy under bursts, live, and on the machine as it was while one of them ran: scenario and kind to policy.

    That one is round-robin, which uses all backends alike, if it ran.
    """
    found = {}
    for scenario, those in runs.items():
        live = {run.policy: run for run in those if run.provenance == "measured"}
        if scenario.startswith("bursts") and live:
            met = live.get("round-robin") or next(iter(live.values()))
            then = {policy: hindsight(met, policy) for policy in live}
            for kind, each in (("live", live), ("on one and the same machine", then)):
                found[scenario, kind] = {policy: run.summary()["p99_s"] for policy, run in each.items()}
    return (
        pd.DataFrame(found, columns=pd.MultiIndex.from_tuples(found, names=["scenario", "kind"])).T
        if found
        else pd.DataFrame()
    )


def verdict(table: pd.DataFrame, p99: pd.DataFrame) -> str:
    """The goals: agreement, nothing lost in a kill, the lowest p99 under bursts."""
    lines = [
        f"p99 and answered requests live within 20 % of those simulated: {table['agrees'].sum()} of {len(table)} rows by the "
        f"forecast, {table['agrees_then'].sum()} in hindsight"
    ]
    killed = table[table["scenario"].str.contains("-kill")]
    if len(killed):
        lines.append(
            f"killed: of {killed['accepted'].sum():,} accepted requests {killed['lost'].sum()} lost, "
            f"{killed['retried'].sum()} answered after a retry"
        )
    for kind, rows in p99.groupby(level="kind", sort=False) if len(p99) else ():
        rows = rows.droplevel(1)
        for name in rows.columns.drop("expected-finish"):
            ratio = rows["expected-finish"] / rows[name]
            not_below = ", ".join(f"{scenario} ({value:.2f})" for scenario, value in ratio[ratio >= 1].items())
            lines.append(
                f"under bursts, {kind}: p99 of expected-finish below {name}'s in {(ratio < 1).sum()} of {len(ratio)} traces, "
                f"{ratio.median():.2f} of it in the median" + (f"; not below in {not_below}" if not_below else "")
            )
    return "\n".join(lines)


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Run every scenario, simulated and live, and keep the runs."""
    asked = [
        Cell.of(model=options.model, batch_size=options.batch_size, runtime=name, threads=1)
        for name in options.runtimes
    ]
    with LiveWorld(named(resolve(asked))) as world:
        for scenario in options.scenarios:
            for seed in options.seeds if scenario.startswith("bursts") else options.seeds[:1]:
                backends = calibrate(world)
                rate, pattern = options.load * capacity(backends), scenario.partition("-")[0]
                arrivals = make_arrivals(pattern, rate, options.seconds, seed)
                troubles = disturbances(scenario, options.seconds, [one.name for one in backends])
                print(f"{scenario} {seed}: {arrivals}{''.join(f'; {one} at {one.at_s:g} s' for one in troubles)}")
                print(report.option_table(backends).to_string(index=False), flush=True)
                place = folder / f"{scenario} {seed}"
                place.mkdir(parents=True, exist_ok=True)
                for run in compared(world, backends, arrivals, options.policies, troubles, seed=seed):
                    run.save(place / f"{run.policy}-{run.provenance}.json")


def main() -> None:
    """Run every scenario, unless that was done, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where every run is kept (JSON)")
    parser.add_argument("--saved", action="store_true", help="only tell of the runs that are there")
    parser.add_argument("--model", default="resnet-tiny")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--runtimes", nargs="+", default=["eager", "onnxruntime"])
    parser.add_argument("--policies", nargs="+", default=list(COMPARED))
    parser.add_argument(
        "--scenarios", nargs="+", default=["poisson", "diurnal", "bursts", "bursts-slow", "bursts-kill"]
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of each trace")
    parser.add_argument("--load", type=float, default=0.33, help="mean, of what the backends can serve together")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of bursts; the others take the first")
    options = parser.parse_args()
    if not options.saved:
        measure(options, options.folder)
    runs = {
        place.name: [read_run(path) for path in sorted(place.glob("*.json"))]
        for place in sorted(options.folder.iterdir())
    }
    table = pd.concat([rows(name, found) for name, found in runs.items()], ignore_index=True)
    everything = [run for found in runs.values() for run in found]
    print(f"\n{shown(table)}\n\n{verdict(table, side_by_side(runs))}\n{report.overhead_sentence(everything)}")


if __name__ == "__main__":
    main()
