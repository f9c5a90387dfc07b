"""What a link between two hosts does, by TCP: round trips of a byte, and the rate at which many bytes arrive.

``python -m labbench.distributed.probe serve BYTES`` on one host, ``ask ADDRESS BYTES`` on the other; :func:`measured` does both.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np

from labbench.distributed.hosts import Host

PORT = 29500
TRIPS = 100
PIECE = 2**20
ENOUGH_S = 120


@dataclass(frozen=True)
class Probed:
    """Round trips in seconds, and bytes/s of payload, its slow beginning included."""

    trips_s: np.ndarray
    bytes_s: float


def measured(of: Host, to: Host, size: int) -> Probed:
    """Send ``size`` bytes from one host to another, after some single bytes there and back."""
    command = [sys.executable, "-m", "labbench.distributed.probe"]
    with subprocess.Popen([*to.prefix, *command, "serve", str(size)], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            asked = [*of.prefix, *command, "ask", to.address, str(size)]
            said = subprocess.run(asked, stdout=subprocess.PIPE, check=True, timeout=ENOUGH_S).stdout
        finally:
            server.kill()
    found = json.loads(said)
    return Probed(np.array(found["trips_s"]), found["bytes_s"])


def serve(size: int) -> None:
    """Answer single bytes, then take ``size`` bytes and say so."""
    with socket.create_server(("", PORT)) as listening:
        print("ready", flush=True)
        link, _ = listening.accept()
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(TRIPS):
            link.sendall(link.recv(1))
        got, buffer = 0, bytearray(PIECE)
        while got < size and (count := link.recv_into(buffer)):
            got += count
        link.sendall(b"x")


def ask(address: str, size: int) -> None:
    """The other side of :func:`serve`; prints what it took."""
    trips = []
    with socket.create_connection((address, PORT)) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(TRIPS):
            began = time.perf_counter()
            link.sendall(b"x")
            link.recv(1)
            trips.append(time.perf_counter() - began)
        piece, began = bytes(PIECE), time.perf_counter()
        for at in range(0, size, PIECE):
            link.sendall(piece[: size - at])
        link.recv(1)
        seconds = time.perf_counter() - began
    print(json.dumps({"trips_s": trips, "bytes_s": size / seconds}))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        ask(sys.argv[2], int(sys.argv[3]))
