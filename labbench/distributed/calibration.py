"""What two ranks measured of a link, and of a model without communication, as what the simulator takes for any number of ranks.

:mod:`labbench.distributed.layered` measures; :class:`Calibration` simulates the same modes. ``benchmarks/simulator_check.py`` holds
both together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from labbench.config import ConfigError
from labbench.distributed.cluster import Accelerator, Cluster, Link
from labbench.distributed.collectives_model import Collectives, Measured
from labbench.distributed.simulate import Simulated, simulate
from labbench.distributed.sizes import ALONE, Layers
from labbench.distributed.step import SINGLE, Segment, Step, Strategy, bucketed

GLOO_CHANNELS = 2  # threads of a process group (ProcessGroupGloo::Options), each of which runs a collective
CPU = Accelerator("CPU", 1.0, 1.0, 1.0, 1.0, 1, 1.0)  # computing is measured, none of its rates is asked for
TAILS = (0.1587, 0.8413)  # one standard deviation of a normal distribution each way


@dataclass(frozen=True)
class Calibration:
    """Of one link and one model.

    Attributes
    ----------
    ranks : int
        That measured.
    step : Step
        A segment for each layer.
    measured : tuple of Measured
        Each operation by itself.
    scatter, pass_scatter : float
        Standard deviation of a rank's computing over its mean, and that of a single layer's pass.
    burst_bytes : float
        Of the shapers of the link.
    overhead_s : mapping of str to float
        What the fastest step of a mode on one rank takes longer than that of the bare layers: hooks, copies into buckets and
        shards. What disturbs steps disturbs the difference of two medians more.
    """

    ranks: int
    step: Step
    measured: tuple[Measured, ...]
    scatter: float
    pass_scatter: float
    burst_bytes: float = 0.0
    overhead_s: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Sequence[dict[str, Any]], sizes: Layers, burst_bytes: float = 0.0) -> Calibration:
        """From what each rank returned (:func:`labbench.distributed.layered.time_layers`).

        A layer's seconds are its mean, scaled so that all of them together are the median step. The scatter is that of ranks
        within a step, half the distance between the lowest and highest sixth, which one disturbed step does not move.
        """
        forward, backward = (np.array([one[name] for one in results]) for name in ("forward_s", "backward_s"))
        update = float(np.mean([np.median(one["update_s"]) for one in results])) / sizes.layers
        whole = (forward + backward).sum(2)
        usual = np.median(whole) / whole.mean()
        layers = zip(usual * forward.mean((0, 1)), usual * backward.mean((0, 1)), strict=True)
        step = Step(
            [Segment(float(f), float(b), sizes.parameters, update_s=update) for f, b in layers],
            states=SINGLE,
            sources={"computing": "measured", "links": "measured"},
        )
        passes = np.concatenate([forward, backward], axis=2)
        links = tables(results[0]["collectives"], len(results))
        found = cls(len(results), step, links, _scatter(whole), _scatter(passes), burst_bytes)
        fastest = np.array([min(whole[index] + np.array(one["update_s"])) for index, one in enumerate(results)])
        overhead = {
            mode.removesuffix(f" {ALONE}"): max(
                float(np.mean([min(one["step_s"][mode]) for one in results] - fastest)), 0.0
            )
            for mode in results[0]["step_s"]
            if mode.endswith(f" {ALONE}")
        }
        return replace(found, overhead_s=overhead)

    def collectives(self, ranks: int, link: Link | None = None) -> Collectives:
        """Of so many ranks, each on a host of its own; with ``link``, on that link, nothing measured."""
        between = link or Link(0.0, 1.0, "measured", self.burst_bytes)
        cluster = Cluster(CPU, ranks, 1, between, between, self.scatter, self.pass_scatter)
        return Collectives(cluster, "gloo", () if link else self.measured, GLOO_CHANNELS)

    def simulated(self, mode: str, ranks: int, *, link: Link | None = None, overlap: bool = True) -> Simulated:
        """A step of a mode of :func:`labbench.distributed.layered.spread`.

        Parameters
        ----------
        mode : str
        ranks : int
        link : Link, optional
            Instead of what was measured.
        overlap : bool
            False: no gradient is sent before the backward pass has ended.
        """
        more = self.overhead_s.get(mode, 0.0) / len(self.step.segments)
        step = replace(
            self.step, segments=[replace(one, backward_s=one.backward_s + more) for one in self.step.segments]
        )
        strategy = Strategy(data=ranks, zero=3, overlap=False)
        if mode.startswith("ddp-"):
            step = replace(step, segments=bucketed(step.segments, float(mode.removeprefix("ddp-")) * 2**20))
            strategy = Strategy(data=ranks, overlap=overlap)
        elif mode != "fsdp":
            raise ConfigError(f"no mode {mode!r}: ddp-<MiB> or fsdp")
        return simulate(step, strategy, self.collectives(ranks, link), 1)

    @property
    def computing_s(self) -> float:
        """Of a step without any communication."""
        return float(sum(one.forward_s + one.backward_s + one.update_s for one in self.step.segments))


def _scatter(seconds: np.ndarray) -> float:
    """Of the first axis, ranks, about their mean; relative, by quantiles."""
    ranks = len(seconds)
    apart = (seconds / seconds.mean(0) - 1) * (ranks / max(ranks - 1, 1)) ** 0.5
    low, high = np.quantile(apart, TAILS)
    return float(high - low) / 2


def tables(rows: Sequence[dict[str, Any]], ranks: int) -> tuple[Measured, ...]:
    """Timed collectives, operation by operation: the median of each size."""
    found = []
    for operation, many in dict.fromkeys((row["operation"], row["at_once"]) for row in rows):
        own = [row for row in rows if (row["operation"], row["at_once"]) == (operation, many)]
        own.sort(key=lambda row: row["size_bytes"])
        sizes = np.array([row["size_bytes"] for row in own], float)
        seconds = np.array([np.median(row["seconds"]) for row in own])
        found.append(Measured(operation, ranks, sizes, seconds, at_once=many))
    return tuple(found)
