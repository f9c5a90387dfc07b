"""How well and how fast workloads are assigned to a fleet: random instances, made-up prices.

Nothing here is measured hardware. Kinds differ in speed, memory, count and price, which is made up, grows with both, scatters
and is a multiple of 0.1. Demands differ in the time and memory of a call (2 GB in the median), in how much of a device they need
(0.05 to 3 of an average one) and in their limits: half have a limit of latency of 15 to 100 calls, a fifth want two replicas.
Each pair scatters by a factor, and a tenth of the pairs are not supported. Seconds are of the wall, and of the processor.

    python benchmarks/fleet.py --instances 100
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from time import process_time

import numpy as np

from labbench.selection.fleet import Assignment, Demand, Fleet, FleetOption, Kind, assign

GB = 1e9
GOAL_S = 10.0
PATIENCE_S = 200.0  # of the wall, for a plan: a machine that does other things, too, still ends by itself


def main() -> None:
    """Print time and gap of each size, and what the fast way loses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exact", type=int, default=30, help="instances of 50 x 10")
    parser.add_argument("--instances", type=int, default=100, help="of 20 x 5, to compare the two ways on")
    parser.add_argument("--large", type=int, default=3, help="instances of 1,000 x 50")
    options = parser.parse_args()
    print("random instances, made-up prices")
    if options.exact:
        assigned("exact, 50 x 10", (random_fleet(seed, 50, 10) for seed in range(options.exact)), "exact")
    if options.instances:
        fleets = [random_fleet(1000 + seed, 20, 5) for seed in range(options.instances)]
        best = assigned("exact, 20 x 5", fleets, "exact")
        good = assigned("fast, 20 x 5", fleets, "fast")
        for what, values in (("exact", [p.value for p in best]), ("the bound", [p.bound for p in best])):
            lost = np.array([plan.value for plan in good]) / np.array(values) - 1
            over = int((lost > 0.03).sum())
            print(f"  fast above {what}: mean {lost.mean():.2%}, largest {lost.max():.2%}, more than 3 % in {over}")
    if options.large:
        assigned("fast, 1,000 x 50", (random_fleet(2000 + seed, 1000, 50) for seed in range(options.large)), "fast")


def assigned(what: str, fleets: Iterable[Fleet], how: str) -> list[Assignment]:
    """Plans; prints their time and gap, and how many devices they use."""
    plans, spent = [], []
    for fleet in fleets:
        begun = process_time()
        plans.append(assign(fleet, how, seconds=PATIENCE_S))
        spent.append(process_time() - begun)
    took, gap, used = (np.array(v) for v in zip(*((p.seconds, p.gap, len(p.devices)) for p in plans), strict=True))
    print(
        f"{what}, {len(plans)} instances, {used.min()} to {used.max()} devices: {np.median(took):.1f} s in the median, "
        f"{took.max():.1f} s at most "
        f"(processor {np.median(spent):.1f} s, {np.max(spent):.1f} s; {sum(s < GOAL_S for s in spent)} under {GOAL_S:g} s); "
        f"gap 0 in {(gap == 0).sum()}, mean {gap.mean():.2%}, largest {gap.max():.2%}",
        flush=True,
    )
    return plans


def random_fleet(seed: int, demands: int, kinds: int) -> Fleet:
    """Made numbers; there are about twice as many devices as are needed."""
    rng = np.random.default_rng(seed)
    speed = rng.lognormal(0, 0.7, kinds)
    memory = rng.choice([16, 24, 32, 40, 48, 80], kinds) * GB
    price = 0.8 * speed**0.8 * (memory / (32 * GB)) ** 0.3 * rng.lognormal(0, 0.2, kinds)
    price = np.ceil(10 * price) / 10
    service = rng.lognormal(np.log(0.01), 1.0, demands)
    needed = rng.lognormal(np.log(0.3), 1.0, demands).clip(0.05, 3)
    count = np.ceil(2 * needed.sum() / 0.8 / kinds * rng.uniform(0.5, 1.5, kinds)).astype(int) + 1
    size = rng.lognormal(np.log(2), 1.0, demands).clip(0.3, 30) * GB
    limit = np.where(rng.random(demands) < 0.5, service * rng.uniform(15, 100, demands), np.inf)
    replicas = np.where(rng.random(demands) < 0.2, 2, 1)
    unsupported = rng.random((demands, kinds)) < 0.1
    scatter = rng.lognormal(0, 0.25, (demands, kinds))
    return Fleet(
        demands=tuple(
            Demand(
                name=f"d{d}", per_second=needed[d] / service[d], replicas=int(replicas[d]),
                max_latency_s=None if np.isinf(limit[d]) else limit[d],
            )
            for d in range(demands)
        ),
        kinds=tuple(
            Kind(name=f"k{k}", count=int(count[k]), memory_bytes=memory[k], per_hour=price[k]) for k in range(kinds)
        ),
        options=tuple(
            FleetOption(
                f"d{d}", f"k{k}", "made", service[d] / speed[k] * scatter[d, k], size[d], scv=0.05,
                reason="made unsupported" if unsupported[d, k] else None,
            )
            for d in range(demands)
            for k in range(kinds)
        ),
        currency="made-up",
    )  # fmt: skip


if __name__ == "__main__":
    main()
