"""What goes through a contestant, and what it costs: paced frames, echo requests, iperf3, processor time and memory.

The sender wakes every TICK seconds and sends what is due. It is an ordinary process with exact timers: under SCHED_FIFO,
tried too, it preempts the tunnels ten thousand times a second, and every one of them carried less. The receiver is an
nft counter that drops: no socket, no reply.
"""

import ctypes
import errno
import json
import os
import re
import socket
import statistics
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l2overlay.testing.namespace import LabError, Namespace

from .topology import GUEST_ADDRESS, GUEST_MAC, Topology, inside, wait_until

TICK = 100e-6
"""Seconds between two wake-ups of the sender: at 100 000 frames a second ten leave together."""
BATCH = 64
"""Frames that one sendmmsg takes at most."""
DISCARD_PORT = 9
FCS_LEN = 4
HEADERS_LEN = 42
"""Ethernet, IPv4, UDP."""
SEND_BUFFER = 4 << 20
PING_INTERVAL = 0.005
PR_SET_TIMERSLACK = 29
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
ETH_P_IP = 0x0800

_libc = ctypes.CDLL(None, use_errno=True)


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class _Msghdr(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Mmsghdr(ctypes.Structure):
    _fields_ = [("hdr", _Msghdr), ("len", ctypes.c_uint32)]


def internet_checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data)) if len(data) % 2 == 0 else internet_sum_odd(data)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def internet_sum_odd(data: bytes) -> int:
    """The sum of 16-bit words of an odd number of bytes."""
    return sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0"))


def udp_frame(frame_size: int) -> bytes:
    """A UDP frame to guest b's discard port. `frame_size` counts the FCS, as RFC 2544 does; the bytes are without."""
    ip_len = frame_size - FCS_LEN - 14
    payload = bytes(i & 0xFF for i in range(ip_len - 28))
    source, destination = (socket.inet_aton(address) for address in GUEST_ADDRESS)
    udp_len = 8 + len(payload)
    udp = struct.pack("!HHHH", 40000, DISCARD_PORT, udp_len, 0) + payload
    pseudo = source + destination + struct.pack("!BBH", 0, 17, udp_len)
    udp = udp[:6] + struct.pack("!H", internet_checksum(pseudo + udp) or 0xFFFF) + udp[8:]
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, ip_len, 0, 0, 64, 17, 0, source, destination)
    header = header[:10] + struct.pack("!H", internet_checksum(header)) + header[12:]
    ether = bytes.fromhex((GUEST_MAC[1] + GUEST_MAC[0]).replace(":", "")) + struct.pack("!H", ETH_P_IP)
    return ether + header + udp


def exact_timers() -> None:
    """Wake this thread when it asked for, not up to 50 us later."""
    _libc.prctl(PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Sent:
    """What the sender really did."""

    frames: int
    elapsed: float


class FrameSender:
    """One frame, over and over, from guest a at a given rate, through whatever socket takes it."""

    def __init__(self, out: socket.socket, frame: bytes) -> None:
        self._socket = out
        self._frame = ctypes.create_string_buffer(frame, len(frame))
        self._iovec = _Iovec(ctypes.cast(self._frame, ctypes.c_void_p), len(frame))
        self._messages = (_Mmsghdr * BATCH)()
        for message in self._messages:
            message.hdr.iov = ctypes.pointer(self._iovec)
            message.hdr.iovlen = 1

    def close(self) -> None:
        self._socket.close()

    def send(self, rate: float, duration: float) -> Sent:
        """`rate` frames a second for `duration` seconds, or as many as the kernel takes."""
        clock, number, sent = time.perf_counter, self._socket.fileno(), 0
        exact_timers()
        start = now = clock()
        while now - start < duration:
            due = int((now - start) * rate) - sent
            if due > 0:
                sent += self._send_some(number, min(due, BATCH))
            if due <= BATCH:
                time.sleep(TICK)
            now = clock()
        return Sent(sent, now - start)

    def _send_some(self, number: int, count: int) -> int:
        done: int = _libc.sendmmsg(number, self._messages, count, socket.MSG_DONTWAIT)
        if done >= 0:
            return done
        if ctypes.get_errno() in (errno.EAGAIN, errno.ENOBUFS):
            return 0
        raise OSError(ctypes.get_errno(), "sendmmsg")


def packet_sender(guest: Namespace, frame_size: int) -> FrameSender:
    """Whole frames put on the guest's link: the least that a frame can cost its sender."""
    return FrameSender(inside(guest, _open_packet_socket), udp_frame(frame_size))


def _open_packet_socket() -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind(("eth0", 0))
    sock.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return sock


def udp_sender(guest: Namespace, frame_size: int) -> FrameSender:
    """UDP through the guest's own stack, as a program in it sends."""
    return FrameSender(inside(guest, _open_udp_socket), udp_frame(frame_size)[HEADERS_LEN:])


def _open_udp_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    sock.connect((GUEST_ADDRESS[1], DISCARD_PORT))
    return sock


SENDERS = {"packet": packet_sender, "udp": udp_sender}


class FrameCounter:
    """Frames for the discard port that reach guest b, counted and dropped as they leave the wire."""

    CHAIN = ("netdev", "bench", "counted")

    def __init__(self, guest: Namespace) -> None:
        self._guest = guest
        guest.run(
            ["nft", "-f", "-"],
            stdin="table netdev bench {\nchain counted {\ntype filter hook ingress device eth0 priority 0\n"
            f"udp dport {DISCARD_PORT} counter drop\n}}\n}}\n",
        )

    def read(self) -> int:
        """Frames so far."""
        text = self._guest.run(["nft", "list", "chain", *self.CHAIN]).stdout
        found = re.search(r"counter packets (\d+)", text)
        if not found:
            raise LabError(f"nft shows no counter: {text}")
        return int(found[1])

    def read_settled(self) -> int:
        """Frames, once no more arrive."""
        last = self.read()
        for _ in range(25):
            time.sleep(0.02)
            if (now := self.read()) == last:
                return now
            last = now
        return last


@dataclass(frozen=True, slots=True)
class Trial:
    """Frames offered and delivered in `elapsed` seconds."""

    offered: int
    delivered: int
    elapsed: float

    @property
    def loss(self) -> float:
        return 1 - self.delivered / self.offered if self.offered else 1.0

    @property
    def rate(self) -> float:
        """Delivered frames a second."""
        return self.delivered / self.elapsed


def run_trial(sender: FrameSender, counter: FrameCounter, rate: float, duration: float) -> Trial:
    """Offer `rate` frames a second and count what arrives, late ones included."""
    before = counter.read_settled()
    sent = sender.send(rate, duration)
    return Trial(sent.frames, counter.read_settled() - before, sent.elapsed)


class Pinger:
    """ICMP echo from guest a to guest b, timed around the system calls."""

    def __init__(self, guest: Namespace) -> None:
        self._socket = inside(
            guest, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        )
        self._socket.connect((GUEST_ADDRESS[1], 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def ping(self, timeout: float, size: int = 64) -> float | None:
        """Seconds until the reply, or None."""
        self._sequence = (self._sequence + 1) & 0xFFFF
        body = struct.pack("!HH", os.getpid() & 0xFFFF, self._sequence)
        rest = bytes(size - 8)
        request = struct.pack("!BBH", 8, 0, internet_checksum(b"\x08\0\0\0" + body + rest)) + body + rest
        self._socket.settimeout(timeout)
        start = time.perf_counter()
        self._socket.send(request)
        try:
            while True:
                reply = self._socket.recv(65535)
                if reply[20] == 0 and reply[24:28] == body:
                    return time.perf_counter() - start
        except TimeoutError:
            return None

    def answers(self, timeout: float, size: int) -> bool:
        """Whether a request of this size is answered in time."""
        return self.ping(timeout, size) is not None

    def round_trips(self, count: int, interval: float = PING_INTERVAL) -> list[float]:
        """`count` requests, each `interval` seconds after the one before; lost ones are left out.

        After one that was waited for in vain the beat begins anew: catching up would find the way busy, not idle.
        """
        found = []
        for _ in range(count):
            due = time.perf_counter() + interval
            if (seconds := self.ping(0.2)) is not None:
                found.append(seconds)
            time.sleep(max(0.0, due - time.perf_counter()))
        return found


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: list[float]) -> float:
    """NaN when there are none."""
    return statistics.median(values) if values else float("nan")


@dataclass(frozen=True, slots=True)
class TcpResult:
    """One iperf3 run, guest a to guest b."""

    bits_per_second: float
    bytes: int
    retransmits: int


class Iperf:
    """An iperf3 server in guest b and a client in guest a for each run."""

    def __init__(self, topology: Topology) -> None:
        self._client = topology.guests[0]
        self._server = topology.guests[1]
        self._process = self._server.popen(["iperf3", "-s"])
        wait_until(self._listens, 3.0, "iperf3 did not listen")

    def _listens(self) -> bool:
        return ":5201" in self._server.run(["ss", "-ltn"]).stdout

    def run(self, seconds: float, streams: int = 1) -> TcpResult:
        """TCP for whole seconds; a run that iperf3 could not finish is a LabError."""
        argv = [
            "iperf3",
            "-c",
            GUEST_ADDRESS[1],
            "-t",
            f"{max(1, round(seconds))}",
            "-P",
            str(streams),
            "--json",
        ]
        done = self._client.run(argv, check=False, timeout=seconds + 20)
        try:
            report: dict[str, Any] = json.loads(done.stdout)
            received, sent = report["end"]["sum_received"], report["end"]["sum_sent"]
        except (KeyError, ValueError):
            said = json.loads(done.stdout or "{}").get("error", done.stderr.strip())
            raise LabError(f"iperf3: {said}") from None
        return TcpResult(received["bits_per_second"], received["bytes"], sent.get("retransmits", 0))


TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of the processes with all their threads (proc(5), fields 14 and 15)."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_SECOND


def machine_seconds() -> tuple[float, float]:
    """Busy and stolen seconds of all processors since boot: user, nice, system, irq, softirq; steal."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields[:3]) + fields[5] + fields[6]) / TICKS_PER_SECOND, fields[7] / TICKS_PER_SECOND


def resident_bytes(pids: list[int]) -> int:
    """Resident set of all the processes together."""
    return sum(
        int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) << 10 for pid in pids
    )
