"""A switch that keeps each frame for a while: ``python -m labbench.distributed.relay SECONDS PORT...`` (Linux, as root).

Frames come and go through packet sockets, whole offloaded ones of up to 64 kB with the kernel's header for them
(``PACKET_VNET_HDR``), so that a rate of Gbit/s is some thousand frames a second. They leave in the order in which they came, each
at its own time; what a port's shaper has no room for is dropped, as by any switch.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import struct
import sys
import time
from collections import deque

from labbench.process import die_with_parent

SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 1, 15, 23  # <linux/if_packet.h>
PACKET_MR_PROMISC = 1
ETH_P_ALL = 3
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
PR_SET_TIMERSLACK = 29
HEADER = 10  # struct virtio_net_hdr
LARGEST = HEADER + 14 + 4 + 65536
ROOM_BYTES = 64 * 2**20  # that the kernel may hold of a port each way
AT_ONCE = 32  # frames of a port taken before others, and those due, have their turn


def port(name: str) -> socket.socket:
    """A packet socket that sees every frame that comes in at an interface."""
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    for option in (SO_SNDBUFFORCE, SO_RCVBUFFORCE):
        found.setsockopt(socket.SOL_SOCKET, option, ROOM_BYTES)
    for option in (PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING):
        found.setsockopt(SOL_PACKET, option, 1)
    everything = struct.pack("iHH8s", socket.if_nametoindex(name), PACKET_MR_PROMISC, 0, b"")
    found.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, everything)
    found.bind((name, ETH_P_ALL))
    found.setblocking(False)
    return found


def run(delay_s: float, ports: list[socket.socket]) -> None:
    """Forward for ever."""
    waiting: deque[tuple[float, socket.socket, bytes]] = deque()
    known: dict[bytes, socket.socket] = {}
    while True:
        left = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for source in select.select(ports, [], [], left)[0]:
            for _ in range(AT_ONCE):
                try:
                    frame = source.recv(LARGEST)
                except BlockingIOError:
                    break
                due = time.monotonic() + delay_s
                known[frame[HEADER + 6 : HEADER + 12]] = source
                waiting.append((due, source, frame))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, source, frame = waiting.popleft()
            to = known.get(frame[HEADER : HEADER + 6])
            for one in [to] if to else [one for one in ports if one is not source]:
                if one is not source:
                    send(one, frame)


def send(to: socket.socket, frame: bytes) -> None:
    """Hand a frame to a port, or drop it where there is no room."""
    try:
        to.send(frame)
    except (BlockingIOError, OSError):
        return


def main(delay_s: float, names: list[str]) -> None:
    """Open the ports, say so, forward."""
    die_with_parent()
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)  # ns: wake up when it is time
    with contextlib.suppress(OSError):  # a switch does not wait for its turn
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    ports = [port(name) for name in names]
    print("ready", flush=True)
    run(delay_s, ports)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
