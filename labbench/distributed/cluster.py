"""What trains: devices in nodes, and the links within and between nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from labbench.config import ConfigError
from labbench.distributed import known
from labbench.machine.datasheet import Datasheet, datasheets

Source = Literal["measured", "datasheet", "nominal"]

# What NCCL gets out of a link: "protocol overhead (~20%)", 370 of NVLink's 450 GB/s (github.com/NVIDIA/nccl-tests/issues/212).
LINK_SHARE = 0.8
# Seconds of one hop; orders of magnitude of NCCL's latencies within a node and over InfiniBand (Hu et al. 2025, arXiv:2507.04786).
NVLINK_ALPHA_S, NETWORK_ALPHA_S = 3e-6, 8e-6
USABLE_MEMORY = 0.92  # of the device's: the rest is the driver's, libraries' and fragments


@dataclass(frozen=True)
class Link:
    """What a message costs: ``alpha_s`` seconds, and one second for each ``bytes_s`` bytes (Hockney 1994).

    Attributes
    ----------
    alpha_s : float
        Seconds of one hop.
    bytes_s : float
        Bytes/s that a rank sends, as collectives reach them.
    source : str
        ``measured``, ``datasheet`` or ``nominal``.
    burst_bytes : float
        That a shaper lets pass at once after a pause; only gloo's rings (:mod:`labbench.distributed.gloo`) mind it.
    """

    alpha_s: float
    bytes_s: float
    source: Source = "nominal"
    burst_bytes: float = 0.0

    def __post_init__(self) -> None:
        if not (self.alpha_s >= 0 and self.bytes_s > 0):
            raise ConfigError(
                f"a link of {self.alpha_s} s and {self.bytes_s} B/s: times are not negative, rates are positive"
            )


@dataclass(frozen=True)
class Accelerator:
    """One device, by the rates that programs reach.

    Attributes
    ----------
    name : str
    matmul_flops : float
        FLOP/s of large matrix products in the training precision.
    peak_flops : float
        FLOP/s by the datasheet: what utilization is told in.
    bytes_s : float
        Bytes/s of memory by the datasheet.
    memory_bytes : float
    multiprocessors : int
    attention_flops : float
        FLOP/s that fused attention reaches.
    source : str
        Where ``matmul_flops`` comes from.
    taken_by_messages : float
        Share of the device that computes nothing while a message is under way.
    """

    name: str
    matmul_flops: float
    peak_flops: float
    bytes_s: float
    memory_bytes: float
    multiprocessors: int
    attention_flops: float
    source: Source = "datasheet"
    taken_by_messages: float = 0.0

    @classmethod
    def of(cls, name: str) -> Accelerator:
        """A device by its name, e.g. ``A100 SXM4 80 GB``, in half precision: measured rates, or a share of the datasheet's.

        Raises
        ------
        ConfigError
            If no datasheet is known, or it lacks a figure.
        """
        sheets = datasheets(name)
        if not sheets:
            raise ConfigError(
                f"no datasheet of {name!r}: write a device's whole name, e.g. 'H100 SXM5 80 GB', 'A100 SXM4 80 GB'"
            )
        return cls.from_sheet(sheets[0])

    @classmethod
    def from_sheet(cls, sheet: Datasheet) -> Accelerator:
        """See :meth:`of`."""
        family = sheet.name.split()[0]
        peak = known.PEAK_FLOPS.get(family) or sheet.peak("bf16")
        if not (peak and sheet.bandwidth_bytes_s and sheet.memory_bytes and sheet.multiprocessors):
            raise ConfigError(
                f"the datasheet of {sheet.name} lacks a rate, bandwidth, memory or multiprocessors: describe the device"
            )
        measured = None if "PCIe" in sheet.name else known.MATMUL_FLOPS.get(family)
        return cls(
            name=sheet.name,
            matmul_flops=measured or known.OTHER_MATMUL_SHARE * peak,
            peak_flops=peak,
            bytes_s=sheet.bandwidth_bytes_s,
            memory_bytes=sheet.memory_bytes,
            multiprocessors=sheet.multiprocessors,
            attention_flops=known.ATTENTION_FLOPS.get(family, known.OTHER_ATTENTION_SHARE * peak),
            source="measured" if measured else "datasheet",
            taken_by_messages=known.NCCL_BLOCKS / sheet.multiprocessors,
        )


@dataclass(frozen=True)
class Group:
    """Ranks that communicate: ``size`` of them, ``stride`` apart; so many of a node's are its members, in so many nodes."""

    size: int
    stride: int
    in_node: int
    nodes: int


@dataclass(frozen=True)
class Cluster:
    """Nodes of equal devices.

    Attributes
    ----------
    device : Accelerator
    nodes, ranks_in_node : int
    intra, inter : Link
        Of a rank to its neighbour within a node, and between nodes (each rank has its own way out).
    scatter : float
        Standard deviation of a rank's compute time over its mean: what makes all wait for the slowest.
    pass_scatter : float
        The same of a single pass of a segment: what counts where ranks wait for each other after every one of them.
    """

    device: Accelerator
    nodes: int
    ranks_in_node: int
    intra: Link
    inter: Link
    scatter: float = 0.0
    pass_scatter: float = 0.0

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.ranks_in_node < 1:
            raise ConfigError(f"{self.nodes} nodes of {self.ranks_in_node} ranks: a cluster has at least one of each")

    @property
    def ranks(self) -> int:
        """Devices in all."""
        return self.nodes * self.ranks_in_node

    def group(self, size: int, stride: int) -> Group:
        """The group of ``size`` ranks ``stride`` apart, counted through the nodes in order.

        Raises
        ------
        ConfigError
            If the cluster has too few ranks.
        """
        if size * stride > self.ranks:
            raise ConfigError(
                f"a group of {size} ranks, {stride} apart, in a cluster of {self.ranks}: add nodes or shrink it"
            )
        in_node = min(max(self.ranks_in_node // stride, 1), size)
        return Group(size, stride, in_node, -(-size // in_node))

    def with_ranks(self, ranks: int) -> Cluster:
        """The same nodes, as many as ``ranks`` need."""
        if ranks < self.ranks_in_node:
            return replace(self, nodes=1, ranks_in_node=ranks)
        if ranks % self.ranks_in_node:
            raise ConfigError(f"{ranks} ranks do not fill nodes of {self.ranks_in_node}: take a multiple")
        return replace(self, nodes=ranks // self.ranks_in_node)


def cluster(device: str | Accelerator, ranks: int, ranks_in_node: int = 8, network_gbit_s: float = 400.0) -> Cluster:
    """A usual cluster of a device: its datasheet's links within a node, one network card a rank.

    Parameters
    ----------
    device : str or Accelerator
        E.g. ``H100 SXM5 80 GB``.
    ranks, ranks_in_node : int
    network_gbit_s : float
        Gbit/s of the card of each rank.
    """
    accelerator = Accelerator.of(device) if isinstance(device, str) else device
    family = accelerator.name.split()[0]
    nvlink = known.PCIE_BYTES_S if "PCIe" in accelerator.name else known.NVLINK_BYTES_S.get(family, known.PCIE_BYTES_S)
    intra = Link(NVLINK_ALPHA_S, LINK_SHARE * nvlink, "datasheet")
    inter = Link(NETWORK_ALPHA_S, LINK_SHARE * network_gbit_s * 1e9 / 8, "datasheet")
    return Cluster(accelerator, 1, ranks_in_node, intra, inter).with_ranks(ranks)
