"""How long the search for a plan takes on 1,024 devices.

python benchmarks/plan_speed.py
"""

from __future__ import annotations

from time import perf_counter, process_time

from labbench.distributed.cluster import cluster
from labbench.distributed.collectives_model import Collectives
from labbench.distributed.compute import Compute
from labbench.distributed.plan import plan
from labbench.distributed.transformer import PUBLISHED

RANKS, BATCH = 1024, 1536
GOAL_S = 10.0
MODELS = ("gpt-22b", "gpt3-175b", "gpt-1t", "llama-3.1-405b")


def main() -> None:
    """Print strategies and seconds by model."""
    nodes = cluster("A100 SXM4 80 GB", RANKS)
    for name in MODELS:
        compute = Compute(PUBLISHED[name], nodes.device)
        wall, cpu = perf_counter(), process_time()
        found = plan(compute, Collectives.of(nodes), BATCH)
        wall, cpu = perf_counter() - wall, process_time() - cpu
        verdict = "within" if wall <= GOAL_S else "over"
        print(
            f"{name}: {len(found.table):,} strategies in {wall:.1f} s ({cpu:.1f} s of a core), {verdict} {GOAL_S:.0f} s"
        )


if __name__ == "__main__":
    main()
