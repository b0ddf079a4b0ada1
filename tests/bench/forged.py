"""Datagrams whose sources are forged: each from an address of its own in 11.0.0.0/8, put on the wire as whole frames.

All frames are made beforehand and leave by sendmmsg in a process of their own, so that little is spent on sending them.
"""

import ctypes
import os
import random
import signal
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from l2overlay import keys
from l2overlay.addresses import PeerKey
from l2overlay.config.types import Suite
from l2overlay.controlplane.cookie import MACS_LEN
from l2overlay.controlplane.handshake import HandshakeContext, initiate
from l2overlay.testing.namespace import Namespace

from .topology import inside
from .traffic import BATCH, SEND_BUFFER, SOL_PACKET, TICK, exact_timers, internet_checksum

NET = "11.0.0.0/8"
SOURCES = 100_000
"""Five seconds at 20 000 a second, so that no address comes twice within what a node remembers."""
PACKET_QDISC_BYPASS = 20
_MESSAGE_LEN, _IOVEC_LEN = 64, 16
_libc = ctypes.CDLL(None, use_errno=True)


def forged_init(public_key: PeerKey, segment: str, *, mac1: bool = True) -> bytes:
    """An INIT for the node with this key, from one that nobody knows."""
    context = HandshakeContext.create(keys.generate(), Suite.AESGCM, segment, None)
    stamp = int(time.time() * 1e6)
    datagram = initiate(
        context, public_key, sender=7, stamp=stamp, features=0, ephemeral=os.urandom(32)
    ).datagram
    return datagram if mac1 else datagram[:-MACS_LEN] + bytes(MACS_LEN)


def frames(datagram: bytes, macs: tuple[bytes, bytes], target: tuple[str, int], count: int) -> list[bytes]:
    """The datagram from `count` sources to `target`; `macs` are destination and source of the frames."""
    udp_len = 8 + len(datagram)
    destination = socket.inet_aton(target[0])
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + udp_len, 0, 0, 64, 17, 0)
    rest = ~internet_checksum(head + destination) & 0xFFFF
    ether, chance = b"".join(macs) + b"\x08\x00", random.Random(len(datagram))
    made = []
    for _ in range(count):
        low = chance.getrandbits(24)
        source = bytes((11,)) + low.to_bytes(3, "big")
        total = rest + (11 << 8 | low >> 16) + (low & 0xFFFF)
        total = (total & 0xFFFF) + (total >> 16)
        checksum = struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
        ports = struct.pack("!HHHH", 1024 + chance.getrandbits(15), target[1], udp_len, 0)
        made.append(ether + head[:10] + checksum + source + destination + ports + datagram)
    return made


class ManyFrames:
    """What sendmmsg(2) takes, made once."""

    def __init__(self, given: Sequence[bytes]) -> None:
        self._data = ctypes.create_string_buffer(b"".join(given))
        self._count = len(given)
        at, vectors = ctypes.addressof(self._data), []
        for frame in given:
            vectors.append(struct.pack("=QQ", at, len(frame)))
            at += len(frame)
        self._vectors = ctypes.create_string_buffer(b"".join(vectors))
        first = ctypes.addressof(self._vectors)
        messages = (
            struct.pack("=QQQQQQQQ", 0, 0, first + _IOVEC_LEN * n, 1, 0, 0, 0, 0) for n in range(len(given))
        )
        self._messages = ctypes.create_string_buffer(b"".join(messages))
        self._next = 0

    def send(self, number: int, most: int) -> int:
        """Some of them from where the last call ended; how many left."""
        count = min(most, BATCH, self._count - self._next)
        if not count:
            return 0
        at = ctypes.addressof(self._messages) + _MESSAGE_LEN * self._next
        done = int(_libc.sendmmsg(number, ctypes.c_void_p(at), count, socket.MSG_DONTWAIT))
        if done <= 0:
            return 0
        self._next = (self._next + done) % self._count
        return done


class Flood:
    """A process that sends these frames from a link of a namespace at a rate, over and over, for the length of the block."""

    def __init__(self, host: Namespace, link: str, given: Sequence[bytes], rate: float) -> None:
        self._frames = ManyFrames(given)
        self._socket = inside(host, lambda: _packet_socket(link))
        self._rate = rate
        self._process = 0

    def __enter__(self) -> Self:
        self._process = os.fork()
        if not self._process:
            with suppress(OSError):
                self._run()
            os._exit(0)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        self._socket.close()

    def _run(self) -> None:
        """What is late by more than `BATCH` is left out: a burst after a pause would be another flood."""
        exact_timers()
        number, due, last = self._socket.fileno(), 0.0, time.perf_counter()
        while os.getppid() != 1:
            now = time.perf_counter()
            due, last = min(due + (now - last) * self._rate, BATCH), now
            due -= self._frames.send(number, int(due))
            time.sleep(5 * TICK)


def _packet_socket(link: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((link, 0))
    sock.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return sock


def link_mac(host: Namespace, link: str) -> bytes:
    """The address of a link."""
    path = Path("/sys/class/net", link, "address")
    return bytes.fromhex(host.run(["cat", str(path)]).stdout.strip().replace(":", ""))


def let_forged_in(host: Namespace, link: str, gateway: str) -> None:
    """Take datagrams from those sources on this link, and send the answers to `gateway`."""
    for name in ("all", link):
        host.run(["sh", "-c", f"echo 0 > /proc/sys/net/ipv4/conf/{name}/rp_filter"])
    host.ip(f"route add {NET} via {gateway} dev {link}")


class Answers:
    """Bytes of datagrams to those sources that come to a host, and are dropped there."""

    def __init__(self, host: Namespace, link: str) -> None:
        self._host = host
        host.run(
            ["nft", "-f", "-"],
            stdin="table netdev forged {\nchain answers {\n"
            f"type filter hook ingress device {link} priority 0\nip daddr {NET} counter drop\n}}\n}}\n",
        )

    def read(self) -> tuple[int, int]:
        """Packets and bytes so far."""
        said = self._host.run(["nft", "list", "chain", "netdev", "forged", "answers"]).stdout.split()
        return int(said[said.index("packets") + 1]), int(said[said.index("bytes") + 1])
