"""What stations do in the tests of this folder, with sockets that the test itself holds in a guest's namespace.

A socket belongs to the namespace that its thread was in when it was made (`linux.conftest.inside`), so a test can send
at one guest and listen at five others without starting a process.

    with Ear(g3) as ear:
        speak(g1, frame)
        assert ear.heard(marker, expected=1) == [frame]
"""

import hashlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from l2overlay.control.client import ask
from l2overlay.testing.lab import Guest, Lab, Namespace, NodeProcess, PingResult
from tests.linux.conftest import inside

ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA, PACKET_STATISTICS = 263, 8, 6
SO_RCVBUFFORCE = 33
SOL_UDP, UDP_SEGMENT = 17, 103
PACKET_OUTGOING = 4
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 0x10, 0x40
AUXDATA = struct.Struct("=IIIHHHH")
"""struct tpacket_auxdata: status, length, captured length, offsets of MAC and network header, VLAN TCI and TPID."""
EXPERIMENTAL = 0x88B5
"""IEEE 802's EtherType for local experiments: no stack answers it."""
BROADCAST = "ff:ff:ff:ff:ff:ff"
PATIENCE = 2.0
QUIET = 0.15
"""Seconds in which a second copy would have come: the way through both nodes takes a thousandth of it."""


def mac_bytes(mac: str) -> bytes:
    """Six bytes of aa:bb:cc:dd:ee:ff."""
    return bytes.fromhex(mac.replace(":", ""))


def frame(
    destination: str,
    source: str,
    payload: bytes,
    *,
    tags: Sequence[bytes] = (),
    ethertype: int = EXPERIMENTAL,
) -> bytes:
    """A frame as it is on the link, without padding of ours."""
    head = mac_bytes(destination) + mac_bytes(source)
    return head + b"".join(tags) + ethertype.to_bytes(2) + payload


def speak(station: Namespace, *frames: bytes, link: str = "eth0") -> None:
    """Send frames as they are."""
    with inside(station):
        mouth = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with mouth:
        mouth.bind((link, 0))
        for one in frames:
            mouth.send(one)


class Ear:
    """Every frame that arrives at a link from the block's beginning on, whole: the tag that the kernel hides is put back."""

    def __init__(self, station: Namespace, link: str = "eth0") -> None:
        with inside(station):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self._socket.bind((link, ETH_P_ALL))

    def __enter__(self) -> "Ear":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    def heard(self, marker: bytes = b"", expected: int = 0) -> list[bytes]:
        """`heard_by` of this ear alone."""
        return heard_by(self, marker=marker, expected=expected)[0]

    def wait(self, marker: bytes, expected: int) -> list[bytes]:
        """Frames with `marker` in them, until there are as many as `expected` or patience ends; then all that are there."""
        found: list[bytes] = []
        deadline = time.monotonic() + PATIENCE
        while True:
            patience = deadline - time.monotonic() if len(found) < expected else 0.0
            if not select.select([self._socket], [], [], max(0.0, patience))[0]:
                break
            one = self._receive()
            if one is not None and marker in one:
                found.append(one)
        assert self._missed() == 0, "the ear missed frames: it proves nothing"
        return found

    def wait_a_moment(self, marker: bytes) -> list[bytes]:
        """Frames with `marker` that are there or come within 50 ms."""
        select.select([self._socket], [], [], 0.05)
        return self.wait(marker, 0)

    def _receive(self) -> bytes | None:
        data, ancillary, _, address = self._socket.recvmsg(1 << 17, socket.CMSG_SPACE(AUXDATA.size))
        if address[2] == PACKET_OUTGOING:
            return None
        status, *_, tci, tpid = AUXDATA.unpack(ancillary[0][2][: AUXDATA.size])
        if not status & TP_STATUS_VLAN_VALID:
            return data
        tpid = tpid if status & TP_STATUS_VLAN_TPID_VALID else 0x8100
        return data[:12] + struct.pack("!HH", tpid, tci) + data[12:]

    def _missed(self) -> int:
        return int(struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1])


def heard_by(*ears: Ear, marker: bytes = b"", expected: int = 0) -> list[list[bytes]]:
    """What each ear heard with `marker` in it: waits for `expected` each, then once for copies that nobody expects."""
    found = [ear.wait(marker, expected) for ear in ears]
    time.sleep(QUIET)
    return [first + ear.wait(marker, 0) for first, ear in zip(found, ears, strict=True)]


def family_of(address: str) -> socket.AddressFamily:
    """Of a numeric address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def udp_socket(station: Namespace, address: str, port: int = 0) -> socket.socket:
    """A bound UDP socket in the namespace, with room for what a test sends at once."""
    with inside(station):
        made = socket.socket(family_of(address), socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    made.bind((address, port))
    return made


def carry_udp(
    sender: Guest, receiver: Guest, payloads: Sequence[bytes], *, family: int = 4, pause: float = 0.0
) -> list[bytes]:
    """Send payloads from one guest to another and return what arrived, in order, until nothing comes any more."""
    source, target = (g.ipv4 if family == 4 else g.ipv6 for g in (sender, receiver))
    with udp_socket(receiver, target, 7000) as receiving, udp_socket(sender, source) as sending:
        arrived = _collector(receiving, len(payloads))
        for payload in payloads:
            sending.sendto(payload, (target, 7000))
            if pause:
                time.sleep(pause)
        return arrived()


def carry_udp_super_frame(sender: Guest, receiver: Guest, payload: bytes, size: int) -> list[bytes]:
    """Hand the kernel one UDP super-frame (UDP_SEGMENT) and return the datagrams that arrived."""
    with udp_socket(receiver, receiver.ipv4, 7000) as receiving, udp_socket(sender, sender.ipv4) as sending:
        arrived = _collector(receiving, -(-len(payload) // size))
        sending.setsockopt(SOL_UDP, UDP_SEGMENT, size)
        sending.sendto(payload, (receiver.ipv4, 7000))
        return arrived()


def _collector(receiving: socket.socket, expected: int) -> Callable[[], list[bytes]]:
    """Start to collect datagrams; the function that it returns waits until nothing comes any more."""
    arrived: list[bytes] = []
    sent_all = threading.Event()

    def collect() -> None:
        while True:
            quiet = QUIET / 3 if len(arrived) >= expected else QUIET * 2
            if select.select([receiving], [], [], quiet)[0]:
                arrived.append(receiving.recv(1 << 16))
            elif sent_all.is_set():
                return

    thread = threading.Thread(target=collect)
    thread.start()

    def finish() -> list[bytes]:
        sent_all.set()
        thread.join()
        return arrived

    return finish


def carry_tcp(
    sender: Guest, receiver: Guest, data: bytes, *, family: int = 4, patience: float = 20.0
) -> float:
    """Send a file over TCP; asserts that it arrived byte for byte and returns the seconds it took."""
    source, target = (g.ipv4 if family == 4 else g.ipv6 for g in (sender, receiver))
    with inside(receiver):
        server = socket.create_server((target, 0), family=family_of(target))
    with inside(sender):
        client = socket.socket(family_of(target), socket.SOCK_STREAM)
    with server, client, ThreadPoolExecutor(1) as thread:
        server.settimeout(patience)
        client.settimeout(patience)
        started = time.monotonic()
        received = thread.submit(receive_all, server, patience)
        client.bind((source, 0))
        client.connect((target, server.getsockname()[1]))
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        digest, length = received.result()
        seconds = time.monotonic() - started
    assert (length, digest) == (len(data), hashlib.sha256(data).hexdigest())
    return seconds


def receive_all(server: socket.socket, patience: float) -> tuple[str, int]:
    """Accept one connection; digest and length of what it brings."""
    connection, _ = server.accept()
    digest, length = hashlib.sha256(), 0
    with connection:
        connection.settimeout(patience)
        while part := connection.recv(1 << 18):
            digest.update(part)
            length += len(part)
    return digest.hexdigest(), length


def random_file(size: int) -> bytes:
    """Bytes that no compression and no pattern match makes smaller."""
    return os.urandom(size)


def checksum_errors(station: Namespace) -> int:
    """What the guest's stack refused for a wrong checksum (IP, TCP, UDP, ICMP, both families)."""
    four = station.run(["cat", "/proc/net/snmp"]).stdout.splitlines()
    count = 0
    for names, values in zip(four[::2], four[1::2], strict=True):
        count += sum(
            int(value)
            for name, value in zip(names.split(), values.split(), strict=True)
            if name in {"InCsumErrors", "InHdrErrors"}
        )
    for line in station.run(["cat", "/proc/net/snmp6"]).stdout.splitlines():
        name, value = line.split()
        count += int(value) if name.endswith("InCsumErrors") or name == "Ip6InHdrErrors" else 0
    return count


def set_offloads(guest: Guest, state: str) -> None:
    """Of both ends of the guest's link, "on" or "off": what it sends, and what the host may hand to it.

    Off, the host's kernel completes each checksum and cuts each super-frame by what the node wrote, and the guest verifies.
    """
    options = ["tx", state, "tso", state, "gso", state, "tx-udp-segmentation", state]
    guest.run(["ethtool", "-K", "eth0", *options])
    guest.host.run(["ethtool", "-K", guest.label, *options])


def eventually(true: Callable[[], bool], seconds: float, pause: float = 0.02) -> float:
    """Wait until `true()`; how long it took. Fails after `seconds`."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, f"not within {seconds} s"
        time.sleep(pause)
    return time.monotonic() - start


class Flow:
    """Numbered unicast frames from one guest to another every `interval` seconds, for as long as the block lasts.

    No ARP, no answers: what is missing was lost in this direction. Both stations are learned before the first number.
    """

    def __init__(self, sender: Guest, receiver: Guest, interval: float = 0.005, size: int = 34) -> None:
        """`size` is that of each frame, 34 bytes at least."""
        self.sent_times: list[float] = []
        self.arrived: dict[int, float] = {}
        """When number N arrived, time.monotonic()."""
        self.repeated: list[int] = []
        self._marker = os.urandom(16)
        self._head = frame(receiver.mac, sender.mac, self._marker)
        self._tail = bytes(size - len(self._head) - 4)
        self._sender, self._interval = sender, interval
        self._stop = threading.Event()
        self._ear = Ear(receiver)
        speak(receiver, frame(BROADCAST, receiver.mac, b""))
        speak(sender, frame(BROADCAST, sender.mac, b""))
        self._threads = [threading.Thread(target=run) for run in (self._speak, self._listen)]

    def __enter__(self) -> "Flow":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._ear.__exit__(None, None, None)

    @property
    def lost(self) -> list[int]:
        """The numbers that did not arrive, after the block."""
        return [n for n in range(len(self.sent_times)) if n not in self.arrived]

    def flows_again(self, seconds: float) -> float:
        """Wait until a frame sent from now on arrives, at most `seconds`; how long it took. Inside the block."""
        first = len(self.sent_times)
        return eventually(lambda: max(self.arrived, default=-1) > first, seconds)

    def outage(self) -> float:
        """The longest time from the sending of a lost frame to that of the next that arrived, after the block."""
        longest = 0.0
        first_lost: float | None = None
        for number, sent_time in enumerate(self.sent_times):
            if number not in self.arrived:
                first_lost = sent_time if first_lost is None else first_lost
            elif first_lost is not None:
                longest, first_lost = max(longest, sent_time - first_lost), None
        return longest if first_lost is None else float("inf")

    def _speak(self) -> None:
        with inside(self._sender):
            mouth = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with mouth:
            mouth.bind(("eth0", 0))
            while not self._stop.is_set():
                number = len(self.sent_times)
                self.sent_times.append(time.monotonic())
                mouth.send(self._head + number.to_bytes(4) + self._tail)
                self._stop.wait(self._interval)

    def _listen(self) -> None:
        end = float("inf")
        while time.monotonic() < end:
            for one in self._ear.wait_a_moment(self._marker):
                number = int.from_bytes(one[30:34])
                if number in self.arrived:
                    self.repeated.append(number)
                self.arrived[number] = time.monotonic()
            if self._stop.is_set():
                end = min(end, time.monotonic() + 2 * QUIET)


@contextmanager
def pinging(lab: Lab, guest: Guest, address: str, count: int, interval: float) -> Iterator[list[PingResult]]:
    """Ping in the background; the result is in the list when the block has ended."""
    results: list[PingResult] = []
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(lab.ping, guest, address, count, interval)
        yield results
        results.append(future.result())


def status(node: NodeProcess) -> dict[str, Any]:
    """The node's status, from its control socket: a hundredth of the time of a verb, and a degraded node is no error."""
    return ask(node.run_dir / "control.sock", "status")


def peer_of(node: NodeProcess, name: str) -> dict[str, Any]:
    """One peer as the node's status shows it."""
    return next(dict(peer) for peer in status(node)["peers"] if peer["name"] == name)


def stations_of(node: NodeProcess, peer: str | None) -> list[str]:
    """The MACs that the node knows behind a peer (None: behind itself)."""
    stations = ask(node.run_dir / "control.sock", "fdb")["stations"]
    return [station["mac"] for station in stations if station["peer"] == peer]


def tell_nodes(lab: Lab) -> None:
    """Print what the nodes have said lately: pytest shows it with a failure."""
    for node in lab.nodes:
        print(f"--- {node.host.label}, exit code {node.process.poll()}\n{node.output()[-4000:]}")
