"""Sends one TCP stream between two guests: `python -m l2overlay.demo.transfer receive|send HOST PORT ...`.

The stream repeats one block, so that every part of it contains the canary, and so that the receiver can compare all of it at
the cost of a memcmp. Each side prints one line of JSON.
"""

import argparse
import json
import socket
import sys
import time
from typing import Any

BLOCK_LEN = 1 << 18
"""The size of one recv and of one send. So a received part never spans more than two blocks."""
LISTENING = "listening"
PATIENCE = 20.0
"""Seconds without a connection or a byte, after which either side gives up."""


def block_of(canary: bytes) -> bytes:
    """The block that is sent repeatedly: copies of the canary, about BLOCK_LEN long."""
    return canary * (BLOCK_LEN // len(canary))


def receive(host: str, port: int, canary: bytes) -> dict[str, Any]:
    """Receive one connection to its end. `intact` says whether all of it is what `send` sends."""
    with socket.create_server((host, port), family=family_of(host)) as server:
        server.settimeout(PATIENCE)
        say(LISTENING)
        connection, _ = server.accept()
    buffer = memoryview(bytearray(BLOCK_LEN))
    block = block_of(canary)
    expected = block * 2 + canary
    received, intact = 0, True
    with connection:
        connection.settimeout(PATIENCE)
        started_time = time.monotonic()
        while count := connection.recv_into(buffer):
            intact = expected.startswith(buffer[:count], received % len(block)) and intact
            received += count
        return {"bytes": received, "seconds": time.monotonic() - started_time, "intact": intact}


def send(host: str, port: int, canary: bytes, seconds: float, limit: int) -> dict[str, Any]:
    """Send whole blocks until `seconds` have passed or `limit` bytes have left."""
    block = block_of(canary)
    sent = 0
    with socket.create_connection((host, port), timeout=PATIENCE) as connection:
        deadline = time.monotonic() + seconds
        while sent < limit and time.monotonic() < deadline:
            connection.sendall(block)
            sent += len(block)
    return {"bytes": sent}


def family_of(host: str) -> socket.AddressFamily:
    """The address family of a numeric address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def say(line: str) -> None:
    """Print a line, and flush it so that the reader of the pipe gets it at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["receive", "send"])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--canary", type=bytes.fromhex, default=b"l2overlay")
    parser.add_argument("--seconds", type=float, default=PATIENCE)
    parser.add_argument("--limit", type=int, default=1 << 62)
    args = parser.parse_args()
    if args.side == "receive":
        say(json.dumps(receive(args.host, args.port, args.canary)))
    else:
        say(json.dumps(send(args.host, args.port, args.canary, args.seconds, args.limit)))


if __name__ == "__main__":
    main()
