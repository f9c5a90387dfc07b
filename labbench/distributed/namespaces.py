"""Several hosts on one machine: network namespaces, joined by a switch over links of a stated rate and delay (Linux, as root).

::

    host 0: eth0 ── tbf ──┐                      ┌── tbf ── eth0: host 1
                          ├── switch: a bridge, ─┤
    host 2: eth0 ── tbf ──┘   or the relay       └── tbf ── eth0: host 3
                          (the same rate again on the way from the switch to each host)

Rates are the kernel's (``tbf``). It need not be able to delay packets (``netem`` is not in every kernel): with a delay, the
switch is a program that keeps each frame for a while (:mod:`labbench.distributed.relay`). All namespaces carry the process that
made them in their names: what one that was killed left behind goes when the next ones are made.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from labbench.config import ConfigError
from labbench.distributed.hosts import Host
from labbench.process import runs
from labbench.runtimes.base import Unsupported

PREFIX = "labbench"
SWITCH = "switch"
SUBNET = ipaddress.ip_network("10.77.0.0/24")  # seen in the namespaces only
INTERFACE = "eth0"
# Twice what offloading hands down at once (64 kB): with less, a shaper lets nothing whole pass, and the link falls below its rate.
BURST_BYTES = 128 * 1024
QUEUE_S = 0.05  # a shaper holds back so much before it drops
FRAME, PAYLOAD = 1514, 1448  # bytes of a full Ethernet frame, and of them TCP's (IPv4, time stamps)
ENOUGH_S = 30.0  # for any command here
_SERIAL = itertools.count()


@dataclass(frozen=True)
class Wire:
    """Links of all hosts to the switch.

    Attributes
    ----------
    bit_s : float
        Bit/s each way, of whole frames.
    delay_s : float
        Added one way, from any host to any other.
    """

    bit_s: float
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        if self.bit_s <= 0 or self.delay_s < 0:
            raise ConfigError(
                f"a wire of {self.bit_s:g} bit/s and {self.delay_s:g} s: rates are positive, delays not negative"
            )

    @property
    def payload_bytes_s(self) -> float:
        """Bytes/s that TCP can get through by the rate alone."""
        return self.bit_s / 8 * PAYLOAD / FRAME

    def __str__(self) -> str:
        return f"{self.bit_s / 1e6:g} Mbit/s, {self.delay_s * 1e3:g} ms"


@contextlib.contextmanager
def hosts(count: int, wire: Wire) -> Iterator[list[Host]]:
    """So many hosts, for as long as the block lasts.

    Raises
    ------
    Unsupported
        Where the system refuses namespaces, links or shapers, in its own words.
    """
    if count < 1 or count > SUBNET.num_addresses - 2:
        raise ConfigError(f"{count} hosts: give 1 to {SUBNET.num_addresses - 2}")
    sweep()
    own = f"{_owner(psutil.Process())}-{next(_SERIAL)}"
    switch = f"{own}-{SWITCH}"
    relay: subprocess.Popen[bytes] | None = None
    try:
        _ip("netns", "add", switch)
        found = [_host(own, index, switch, wire) for index in range(count)]
        ports = [f"port{index}" for index in range(count)]
        if wire.delay_s:
            relay = _relay(switch, wire.delay_s, ports)
        else:
            _bridge(switch, ports)
        yield found
    finally:
        if relay is not None:
            relay.kill()
            relay.wait()
        for name in _names():
            if name.startswith(f"{own}-"):
                _delete(name)


def why_not() -> str | None:
    """What keeps hosts from being made here; None where they can be."""
    try:
        with hosts(1, Wire(1e9)):
            return None
    except Unsupported as refusal:
        return str(refusal)


def sweep() -> list[str]:
    """Delete the namespaces of processes that are no more; returns their names."""
    left = [name for name in _names() if (owner := _owner_of(name)) is not None and not _alive(*owner)]
    for name in left:
        _delete(name)
    return left


def _host(own: str, index: int, switch: str, wire: Wire) -> Host:
    name, port, address = f"{own}-host{index}", f"port{index}", str(SUBNET[index + 1])
    _ip("netns", "add", name)
    _ip("link", "add", INTERFACE, "netns", name, "type", "veth", "peer", "name", port, "netns", switch)
    _ip("-n", name, "address", "add", f"{address}/{SUBNET.prefixlen}", "dev", INTERFACE)
    for where, device in ((name, "lo"), (name, INTERFACE), (switch, port)):
        _ip("-n", where, "link", "set", device, "up")
    for where, device in ((name, INTERFACE), (switch, port)):
        shape = ["rate", f"{wire.bit_s:.0f}bit", "burst", str(BURST_BYTES), "latency", f"{QUEUE_S * 1e3:g}ms"]
        _run("tc", "-n", where, "qdisc", "replace", "dev", device, "root", "tbf", *shape)
    # TCP's own choice of the system may probe the link by pausing (bbr); this one keeps a queue filled
    _ip("-n", name, "route", "replace", str(SUBNET), "dev", INTERFACE, "src", address, "congctl", "cubic")
    return Host(name, address, ("ip", "netns", "exec", name), {"GLOO_SOCKET_IFNAME": INTERFACE})


def _bridge(switch: str, ports: list[str]) -> None:
    _ip("-n", switch, "link", "add", "bridge0", "type", "bridge")
    for port in ports:
        _ip("-n", switch, "link", "set", port, "master", "bridge0")
    _ip("-n", switch, "link", "set", "bridge0", "up")


def _relay(switch: str, delay_s: float, ports: list[str]) -> subprocess.Popen[bytes]:
    """The program in the bridge's place; it ends with this process."""
    command = [sys.executable, "-m", "labbench.distributed.relay", str(delay_s), *ports]
    relay = subprocess.Popen(["ip", "netns", "exec", switch, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if relay.stdout is not None and relay.stdout.readline().strip() == b"ready":
        return relay
    raise Unsupported(f"no relay: {relay.communicate()[1].decode(errors='replace').strip().splitlines()[-1]}")


def _owner(process: psutil.Process) -> str:
    """By number and time of start: numbers come again."""
    return f"{PREFIX}-{process.pid}-{process.create_time():.2f}"


def _owner_of(name: str) -> tuple[int, str] | None:
    found = re.match(rf"{PREFIX}-(\d+)-[\d.]+-", name)
    return (int(found[1]), found[0].rstrip("-")) if found else None


def _alive(pid: int, owner: str) -> bool:
    try:
        process = psutil.Process(pid)
        return _owner(process) == owner and runs(process)
    except psutil.NoSuchProcess:
        return False


def _names() -> list[str]:
    return [line.split()[0] for line in _ip("netns", "list").splitlines() if line.strip()]


def _delete(name: str) -> None:
    with contextlib.suppress(Unsupported):  # another process sweeps too
        _ip("netns", "delete", name)


def _ip(*words: str) -> str:
    return _run("ip", *words)


def _run(*words: str) -> str:
    if shutil.which(words[0]) is None:
        raise Unsupported(f"there is no {words[0]} here: install iproute2 (Linux only)")
    done = subprocess.run(words, capture_output=True, text=True, timeout=ENOUGH_S)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise Unsupported(f"{' '.join(words)}: {said[0]}")
    return done.stdout
