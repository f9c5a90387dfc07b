"""Was the machine quiet while we measured? Evidence per stretch, added up, and a verdict."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from labbench.records import Noise, NoiseVerdict

TICK_S = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01
# (noisy above, unstable above)
IQR_LIMITS = (0.10, 0.25)  # IQR / median: pyperf and torch.utils.benchmark warn at about these
STEAL_LIMITS = (0.02, 0.10)  # share of CPU time the hypervisor took: delays of that share are in every sample
LOAD_LIMITS = (0.30, 0.80)  # cores kept busy by others: at most one full core short of a competitor for ours
SHORTEST_S = 0.2  # of evidence: /proc/stat counts in hundredths of a second, so less says nothing


@dataclass(frozen=True)
class Evidence:
    """What happened in one or more stretches, in seconds of wall time or summed over all CPUs; ``own_s`` is ours."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    busy_s: float = 0.0
    own_s: float = 0.0
    steal_s: float = 0.0
    frequency_hz: tuple[float, ...] = ()

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(
            self.wall_s + other.wall_s,
            self.cpu_s + other.cpu_s,
            self.busy_s + other.busy_s,
            self.own_s + other.own_s,
            self.steal_s + other.steal_s,
            self.frequency_hz + other.frequency_hz,
        )


class NoiseProbe:
    """Looks at the system's counters at :meth:`start` and :meth:`stop`; ``pids`` and this process count as ours."""

    def __init__(self, pids: Sequence[int] = ()) -> None:
        self._pids = (os.getpid(), *pids)
        self._before: Evidence | None = None

    def start(self) -> None:
        """Begin a stretch."""
        self._before = self._look()

    def stop(self) -> Evidence:
        """What happened since :meth:`start`."""
        assert self._before is not None
        before, after = self._before, self._look()
        return Evidence(
            after.wall_s - before.wall_s,
            after.cpu_s - before.cpu_s,
            after.busy_s - before.busy_s,
            after.own_s - before.own_s,
            after.steal_s - before.steal_s,
            after.frequency_hz,
        )

    def _look(self) -> Evidence:
        total, busy, steal = _system_times()
        return Evidence(perf_counter(), total, busy, sum(map(_process_s, self._pids)), steal, _frequency())


def _system_times() -> tuple[float, float, float]:
    """Seconds since boot over all CPUs: total, busy (steal not included), stolen."""
    try:
        fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        import psutil

        times = psutil.cpu_times()
        total = sum(times)
        return total, total - times.idle, getattr(times, "steal", 0.0)
    user, nice, system, idle, iowait, irq, softirq, steal = fields
    busy = user + nice + system + irq + softirq
    return (busy + idle + iowait + steal) * TICK_S, busy * TICK_S, steal * TICK_S


def _process_s(pid: int) -> float:
    """CPU seconds of a process and its finished children; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(int(x) for x in fields[11:15]) * TICK_S


def _frequency() -> tuple[float, ...]:
    """Mean frequency of the CPUs now, if the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ()
    values = [float(line.split(":")[1]) for line in text.splitlines() if line.startswith("cpu MHz")]
    return (sum(values) / len(values) * 1e6,) if values else ()


def verdict(evidence: Evidence, iqr_relative: float) -> Noise:
    """Judge the evidence and the spread of the samples.

    Parameters
    ----------
    evidence : Evidence
        Of all stretches in which samples were taken.
    iqr_relative : float
        Interquartile range / median of the noisiest series.
    """
    import statistics

    enough = evidence.wall_s >= SHORTEST_S and evidence.cpu_s > 0
    steal = evidence.steal_s / evidence.cpu_s if enough else None
    load = max(evidence.busy_s - evidence.own_s, 0.0) / evidence.wall_s if enough else None
    level = 0
    reasons = []
    for value, limits, text in (
        (iqr_relative, IQR_LIMITS, "IQR is {:.0%} of the median"),
        (steal, STEAL_LIMITS, "the hypervisor took {:.1%} of the CPU time"),
        (load, LOAD_LIMITS, "other processes kept {:.2f} cores busy"),
    ):
        if value is not None and value > limits[0]:
            level = max(level, 2 if value > limits[1] else 1)
            reasons.append(text.format(value))
    verdicts: tuple[NoiseVerdict, ...] = ("quiet", "noisy", "unstable")
    return Noise(
        verdict=verdicts[level],
        reasons=reasons,
        iqr_relative=iqr_relative,
        steal_fraction=steal,
        other_load=load,
        frequency_hz=statistics.median(evidence.frequency_hz) if evidence.frequency_hz else None,
    )
