"""What a collective costs on a cluster, by algorithm, size and measured fits; and bandwidths as nccl-tests define them.

The size of a collective is that of its whole buffer, as in nccl-tests (PERFORMANCE.md there): what an all-gather ends with, what a
reduce-scatter begins with. With N ranks, S bytes, alpha and beta of a hop:

- *ring*: all-reduce ``2 (N - 1) (alpha + S beta / N)``, all-gather, reduce-scatter and all-to-all half of that (Thakur,
  Rabenseifner & Gropp 2005; Patarasuk & Yuan 2009), broadcast ``(N - 1) alpha + S beta`` (pipelined). Over several nodes, a ring
  leaves a node by all its members' ways at once, and no faster than they pass it on within the node.
- *tree* (all-reduce, broadcast): latency of the logarithm of the ranks, bytes as of the ring (two trees: Sanders, Speck & Träff
  2009).
- *hierarchical* (all-reduce, all-gather, reduce-scatter): within nodes, then between them, each member with its share.
- *gloo* (the same): its rings by segment (:mod:`labbench.distributed.gloo`).

``auto`` is the cheapest of what NCCL has: its all-gather and reduce-scatter are rings. A library need not do as the formulas say
(gloo's reduce-scatter costs more than its all-reduce), so what was measured of an operation comes first: a table within its
sizes, beyond them and for other numbers of ranks its own fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from labbench.config import ConfigError, unknown_name
from labbench.distributed import gloo, known
from labbench.distributed.cluster import Cluster, Group, Link

Operation = Literal["all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all", "p2p"]
OPERATIONS: tuple[Operation, ...] = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all", "p2p")
ALGORITHMS = {
    "ring": OPERATIONS,
    "tree": ("all_reduce", "broadcast"),
    "hierarchical": ("all_reduce", "all_gather", "reduce_scatter"),
    "gloo": ("all_reduce", "all_gather", "reduce_scatter"),
}
NCCL = ("ring", "tree", "hierarchical")
Array = Any  # a float or an array of floats


def bus_factor(operation: Operation, ranks: int) -> float:
    """Bus bandwidth over algorithm bandwidth (nccl-tests, PERFORMANCE.md): bytes that the busiest rank sends over the buffer's."""
    _known(operation)
    if operation == "all_reduce":
        return 2 * (ranks - 1) / ranks
    return 1.0 if operation in ("broadcast", "p2p") else (ranks - 1) / ranks


def bandwidths(operation: Operation, size: Array, seconds: Array, ranks: int) -> tuple[Array, Array]:
    """Algorithm bandwidth ``size / seconds`` and bus bandwidth, in bytes/s."""
    algorithm = size / seconds
    return algorithm, algorithm * bus_factor(operation, ranks)


def hops(operation: Operation, ranks: int) -> int:
    """Messages one after another in a ring."""
    if operation == "p2p":
        return 1
    return (2 if operation == "all_reduce" else 1) * (ranks - 1)


@dataclass(frozen=True)
class Measured:
    """An operation timed at several sizes by some ranks on one kind of link.

    Attributes
    ----------
    operation : str
    ranks : int
    size_bytes, seconds : array
        Ascending sizes, and what each took.
    across : bool
        Between nodes, not within one.
    at_once : int
        So many were started together; ``size_bytes`` is of one, ``seconds`` until all had ended.
    """

    operation: Operation
    ranks: int
    size_bytes: np.ndarray
    seconds: np.ndarray
    across: bool = True
    at_once: int = 1

    def __post_init__(self) -> None:
        _known(self.operation)
        if len(self.size_bytes) < 2 or (np.diff(self.size_bytes) <= 0).any() or (np.asarray(self.seconds) <= 0).any():
            raise ConfigError(
                f"{self.operation} timed at {len(self.size_bytes)} sizes: give two or more, ascending, with positive seconds"
            )

    def fit(self) -> tuple[Link, float]:
        """The link of which a ring would take as long, and the mean absolute error of that in the log.

        Least squares of log seconds, or the large sizes alone would decide; neither alpha nor beta is negative.
        """
        from scipy.optimize import least_squares

        size, wanted = np.asarray(self.size_bytes, float), np.log(self.seconds)
        start = np.log([self.seconds[0], (self.seconds[-1] / size[-1])])

        def error(theta: np.ndarray) -> np.ndarray:
            return np.asarray(np.log(np.exp(theta[0]) + np.exp(theta[1]) * size) - wanted)

        theta = least_squares(error, start).x
        alpha, beta = np.exp(theta)
        link = Link(alpha / hops(self.operation, self.ranks), bus_factor(self.operation, self.ranks) / beta, "measured")
        return link, float(np.abs(error(theta)).mean())

    def at(self, size: Array) -> Array:
        """Seconds by interpolation in the logs of both; NaN outside what was measured."""
        logs = np.log(np.maximum(np.asarray(size, float), 1e-300))
        inside = np.interp(logs, np.log(self.size_bytes), np.log(self.seconds), left=np.nan, right=np.nan)
        return np.exp(inside)


@dataclass(frozen=True)
class Collectives:
    """Prices collectives on a cluster.

    Attributes
    ----------
    cluster : Cluster
    algorithm : str
        One of ``ALGORITHMS`` or ``auto``; where an operation has no such algorithm, the ring.
    measured : tuple of Measured
        Of this cluster, within or between nodes: a group of as many ranks takes the table, any other the fit of the fewest ranks.
    channels : int
        Collectives that the library runs at a time (gloo: two, a thread each), which share the link.
    """

    cluster: Cluster
    algorithm: str = "auto"
    measured: tuple[Measured, ...] = ()
    channels: int = 1
    fits: Mapping[tuple[str, bool, int], Link] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.algorithm not in (*ALGORITHMS, "auto"):
            raise unknown_name("algorithm", self.algorithm, (*ALGORITHMS, "auto"))
        fewest = {
            (one.operation, one.across, one.at_once): one for one in sorted(self.measured, key=lambda one: -one.ranks)
        }
        fits = {key: one.fit()[0] for key, one in fewest.items() if not self._by_segment(one.operation)}
        for across, link in ((False, self.cluster.intra), (True, self.cluster.inter)):
            ringed = {key: one for key, one in fewest.items() if key not in fits and one.across == across}
            if ringed:
                fits |= dict.fromkeys(ringed, gloo.fit(list(ringed.values()), link.burst_bytes)[0])
        object.__setattr__(self, "fits", fits)

    def _by_segment(self, operation: Operation) -> bool:
        return self.algorithm == "gloo" and operation in ALGORITHMS["gloo"]

    @classmethod
    def of(cls, cluster: Cluster, algorithm: str = "auto") -> Collectives:
        """With what is known of the device's NVLink (:mod:`labbench.distributed.known`).

        Where switches do not add up, all-gather and reduce-scatter are taken to have the bus bandwidth of the all-reduce.
        """
        family = cluster.device.name.split()[0]
        bus = known.NVLINK_ALL_REDUCE.get(family)
        if bus is None or "PCIe" in cluster.device.name:
            return cls(cluster, algorithm)
        names: tuple[Operation, ...] = ("all_reduce", "all_gather", "reduce_scatter")
        told = names[:1] if family in known.IN_NETWORK else names
        sizes = known.NVLINK_SIZES
        measured = [
            Measured(name, 8, sizes, sizes * bus_factor(name, 8) / (np.array(bus) * 1e9), False) for name in told
        ]
        return cls(cluster, algorithm, tuple(measured))

    @property
    def source(self) -> str:
        """Where the costs come from, e.g. ``measured within nodes, datasheet between them``."""
        timed = {one.across for one in self.measured}
        within = "measured" if False in timed else self.cluster.intra.source
        between = "measured" if True in timed else self.cluster.inter.source
        return f"{within} within nodes" + (f", {between} between them" if self.cluster.nodes > 1 else "")

    def seconds(self, operation: Operation, size: Array, group: Group, at_once: int = 1) -> Array:
        """Seconds of an operation on ``size`` bytes (a float or an array) by a group of ranks; 0 for a single rank.

        Of several at once, until all have ended. Where that was not measured all of them share the link, and none waits for the
        latency of another: the longer of one alone and all the bytes.
        """
        _known(operation)
        if group.size < 2:
            return np.zeros_like(np.asarray(size, float))
        across = group.nodes > 1
        link = self.fits.get((operation, across, at_once))
        if link is not None:
            computed = self._on(link, operation, size, group, at_once)
            for one in self.measured:
                if (one.operation, one.across, one.ranks, one.at_once) == (operation, across, group.size, at_once):
                    found = one.at(size)
                    computed = np.where(np.isnan(found), computed, found)
            return computed
        if self._by_segment(operation):
            own = self.fits.get((operation, across, 1)) or (self.cluster.inter if across else self.cluster.intra)
            return self._on(own, operation, size, group, at_once)
        if at_once > 1:
            alone = self.seconds(operation, size, group)
            single = self.fits.get((operation, across, 1))
            nothing = hops(operation, group.size) * single.alpha_s if single else self.seconds(operation, 0.0, group)
            return np.maximum(alone, at_once * (alone - np.minimum(nothing, alone)))
        automatic = NCCL if operation == "all_reduce" else ("ring", "tree")
        names = automatic if self.algorithm == "auto" else (self.algorithm,)
        usable = [name for name in names if operation in ALGORITHMS[name]] or ["ring"]
        intra, inter = self.cluster.intra, self.cluster.inter
        costs = [getattr(self, f"_{name}")(operation, size, group, intra, inter) for name in usable]
        return np.minimum.reduce(costs)

    def _on(self, link: Link, operation: Operation, size: Array, group: Group, at_once: int) -> Array:
        """By the algorithm that measured links are taken to be of."""
        if self._by_segment(operation):
            return gloo.seconds(operation, size, group.size, link, at_once)
        return self._ring(operation, size, group, link, link)

    @staticmethod
    def _hop(group: Group, intra: Link, inter: Link) -> tuple[float, float]:
        """Alpha and beta of a hop of a ring."""
        if group.nodes == 1:
            return intra.alpha_s, 1 / intra.bytes_s
        out = inter.bytes_s * group.in_node
        return inter.alpha_s, 1 / (min(out, intra.bytes_s) if group.in_node > 1 else out)

    @classmethod
    def _ring(cls, operation: Operation, size: Array, group: Group, intra: Link, inter: Link) -> Array:
        alpha, beta = cls._hop(group, intra, inter)
        if operation == "p2p" and group.nodes > 1:
            beta = 1 / inter.bytes_s
        if operation == "all_to_all" and group.nodes > 1:
            near, far = group.in_node - 1, group.size - group.in_node
            beta = max(near / intra.bytes_s, far / inter.bytes_s) / (group.size - 1)
        return hops(operation, group.size) * alpha + bus_factor(operation, group.size) * np.asarray(size, float) * beta

    @classmethod
    def _tree(cls, operation: Operation, size: Array, group: Group, intra: Link, inter: Link) -> Array:
        beta = cls._hop(group, intra, inter)[1]
        within = np.ceil(np.log2(group.in_node)) * intra.alpha_s
        between = np.ceil(np.log2(group.nodes)) * inter.alpha_s
        ways = 2 if operation == "all_reduce" else 1
        return ways * (within + between) + bus_factor(operation, group.size) * np.asarray(size, float) * beta

    @classmethod
    def _hierarchical(cls, operation: Operation, size: Array, group: Group, intra: Link, inter: Link) -> Array:
        size = np.asarray(size, float)
        ways = 2 if operation == "all_reduce" else 1
        members, nodes = group.in_node, group.nodes
        within = (members - 1) * (intra.alpha_s + size / members / intra.bytes_s)
        between = (nodes - 1) * (inter.alpha_s + size / members / nodes / inter.bytes_s)
        return ways * (within + between)


def _known(operation: str) -> None:
    if operation not in OPERATIONS:
        raise unknown_name("collective", operation, OPERATIONS)
