"""`python -m tests.bench.cores`: what a second core could give to one node, measured piece by piece.

    processes   the core's work (pack, seal, open, unpack) in one process and in two at once
    threads     the same in one thread and in two of one process; with and without system calls
    gil         which calls let another thread run meanwhile: the AEAD by size, a read, a send
    queues      IFF_MULTI_QUEUE: which queue a flow's frames come out of; draining one queue and two
    reuseport   SO_REUSEPORT: which socket a datagram reaches, by hash and by its lane byte (cBPF), with UDP GRO
    fdb         a look-up in a dict and in shared memory; telling another process of a station
    lanes       a node's whole way, TAP queue to TAP queue through its own UDP sockets and keys, one process and two
    nodes       two pairs of nodes at once against one pair: what lanes could give in the benchmark's own topology

Every case of a piece is measured once a round, every second round backwards, and the table shows medians: this is read as
ratios of one run. `queues`, `reuseport`, `lanes` and `nodes` need root; their traffic stays in namespaces of their own.

docs/performance.md, "Many cores, laid out", says what follows from it.
"""

import argparse
import contextlib
import ctypes
import fcntl
import hashlib
import importlib.util
import json
import multiprocessing
import multiprocessing.connection
import os
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

from l2overlay.addresses import Address, MacAddress
from l2overlay.demo.namespace import LabError, Namespace
from l2overlay.linux.tap import (
    IFF_NO_PI,
    IFF_TAP,
    IFF_VNET_HDR,
    OFFLOAD_BITS,
    TUNSETIFF,
    TUNSETOFFLOAD,
    TUNSETVNETHDRSZ,
    VNET_HEADER_LEN,
    LinuxTap,
    open_tun_device,
)
from l2overlay.linux.udp import SOL_UDP, UDP_GRO, UDP_SEGMENT, LinuxUdp
from l2overlay.seams import Burst, TapFrame

from .frames import PLAIN_VIRTIO, small_frame, super_frame
from .topology import GUEST_MAC, Topology, inside, plain_wire
from .traffic import TICKS_PER_SECOND, Iperf, machine_seconds, udp_frame

Work = Callable[[], object]
Case = Callable[[], float]
TimedWork = Callable[[float, float], float]
"""What a worker runs: from when, and for how many seconds or whatever else it is told."""
Make = Callable[[], Mapping[str, TimedWork]]
"""Makes in a worker what it is to run, by name."""

ROUNDS = 7
IFF_MULTI_QUEUE = 0x0100
SO_REUSEPORT = 15
SO_ATTACH_REUSEPORT_CBPF = 51
PATH_LIMIT = 1472
FULL_PLAINTEXT = 1440
"""Bytes that one datagram of a 1500-byte underlay holds."""
REPEAT = 16
"""Calls from one look at the clock to the next."""
WARM_UP_TURNS = 2500
"""Until a peer has told often enough that nothing is lost, a train of 32 KiB is not sent (`controlplane.reception`)."""
WARM_UP_STEP = 0.004
BATCHES: dict[str, list[TapFrame]] = {"super": [super_frame()], "small": [small_frame(64)] * 64}
"""What one wake-up of a busy node holds: a TCP super-frame of 64 KiB, or 64 frames of 64 bytes."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: a value for each round."""

    name: str
    unit: str
    values: list[float]
    digits: int = 2

    @property
    def median(self) -> float:
        return statistics.median(self.values)


class Quiet:
    """Keeps what else runs on the machine out of the figures: a second core that is busy is none."""

    SAMPLE = 0.1
    BUSY = 0.12
    """Of the machine: an eighth is a quarter of one core of two."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        """Seconds left to wait for a quiet machine."""
        self.disturbed = 0
        """Cases that were measured on a busy machine, because patience had run out."""

    def measure(self, case: Case) -> float:
        """The case's value, once the machine was quiet right before and right after it."""
        while True:
            self._wait()
            start = time.perf_counter()
            value = case()
            if self.patience <= 0 or not self._is_busy():
                return value
            self.patience -= time.perf_counter() - start

    def _wait(self) -> None:
        while self._is_busy():
            if self.patience <= 0:
                self.disturbed += 1
                return
            self.patience -= self.SAMPLE

    def _is_busy(self) -> bool:
        before = machine_seconds()[0]
        time.sleep(self.SAMPLE)
        return (machine_seconds()[0] - before) / self.SAMPLE / (os.cpu_count() or 1) > self.BUSY


@dataclass(frozen=True, slots=True)
class Timing:
    """How long and how often."""

    rounds: int = ROUNDS
    slice: float = 0.4
    """Seconds that one case runs in a round."""
    tcp: float = 3
    frames: int = 20_000
    """That a TAP queue is filled with before it is drained."""
    calls: int = 20_000
    quiet: Quiet = field(default_factory=lambda: Quiet(0))


QUICK = Timing(rounds=1, slice=0.05, tcp=1, frames=500, calls=500)


def interleaved(timing: Timing, cases: Mapping[str, Case]) -> dict[str, list[float]]:
    """Each case once a round, every second round backwards."""
    values: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(timing.rounds):
        for name in list(cases)[:: -1 if number % 2 else 1]:
            values[name].append(timing.quiet.measure(cases[name]))
    return values


def ratios(values: Sequence[float], to: Sequence[float]) -> list[float]:
    """Within each round."""
    return [a / b for a, b in zip(values, to, strict=True)]


# -- the work ------------------------------------------------------------------------------------------------------


def mesh_work(kind: str) -> Work:
    """A turn of two nodes in memory: a batch from the hub's TAP to the spoke's, with all that an overlay does."""
    mesh, batch = warm_mesh(kind), BATCHES[kind]
    hub, spoke, now, source = mesh.hub, mesh.spokes[0], mesh.now, mesh.addresses[0]

    def turn() -> None:
        hub.receive_frames(batch, now)
        spoke.receive_datagrams(redirected(hub.bursts_to_send(), source), now)
        spoke.frames_to_deliver()

    return turn


def warm_mesh(kind: str, frame: TapFrame | None = None) -> Any:
    """A hub that knows where its frames go, and whose trains are as long as after a while of this traffic."""
    from .inmemory import Mesh

    mesh, batch = Mesh(1), BATCHES[kind]
    introduce(mesh, frame or batch[0])
    hub, spoke = mesh.hub, mesh.spokes[0]
    for _ in range(WARM_UP_TURNS):
        mesh.now += WARM_UP_STEP
        hub.receive_frames(batch, mesh.now)
        spoke.receive_datagrams(redirected(hub.bursts_to_send(), mesh.addresses[0]), mesh.now)
        spoke.frames_to_deliver()
        hub.receive_datagrams(redirected(spoke.bursts_to_send(), mesh.addresses[1]), mesh.now)
        hub.frames_to_deliver()
    return mesh


def introduce(mesh: Any, frame: TapFrame) -> None:
    """Let the hub learn that the frame's destination is behind the spoke."""
    answer = TapFrame(PLAIN_VIRTIO + frame[16:22] + frame[10:16] + frame[22:])
    mesh.spokes[0].receive_frames([answer], mesh.now)
    mesh.hub.receive_datagrams(redirected(mesh.spokes[0].bursts_to_send(), mesh.addresses[1]), mesh.now)
    mesh.hub.frames_to_deliver()


def redirected(bursts: Sequence[Burst], address: Address) -> list[Burst]:
    """The same bursts with another address: whom they come from, or where they really go."""
    return [Burst(address, burst.datagram_size, burst.buffers) for burst in bursts]


class _CopyAead:
    """Stands in for an AEAD: a copy and 16 bytes."""

    def __init__(self, key: bytes) -> None: ...

    def encrypt(self, nonce: bytes, data: bytes, associated: bytes | None) -> bytes:
        return bytes(data) + bytes(16)

    def decrypt(self, nonce: bytes, data: bytes, associated: bytes | None) -> bytes:
        return bytes(data[:-16])


class _MadeUpKey:
    """Stands in for both halves of a key pair: both ends of an exchange get the same 32 bytes, and so does anybody."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @classmethod
    def from_bytes(cls, data: bytes) -> "_MadeUpKey":
        return cls(data)

    from_private_bytes = from_public_bytes = from_bytes

    @classmethod
    def generate(cls) -> "_MadeUpKey":
        return cls(os.urandom(32))

    def public_key(self) -> "_MadeUpKey":
        return _MadeUpKey(hashlib.sha256(self._data).digest())

    def exchange(self, other: "_MadeUpKey") -> bytes:
        both = sorted((self.public_key().private_bytes_raw(), other.private_bytes_raw()))
        return hashlib.sha256(b"".join(both)).digest()

    def private_bytes_raw(self) -> bytes:
        return self._data

    public_bytes_raw = private_bytes_raw


def stand_in_for_cryptography() -> bool:
    """Where `cryptography` has no wheel (free-threaded 3.13), something that only copies. Says whether it did.

    Protects nothing; good for seeing how the interpreter's own work scales over threads.
    """
    if importlib.util.find_spec("cryptography"):
        return False
    names = ("", ".exceptions", ".hazmat", ".hazmat.primitives", ".hazmat.primitives.ciphers")
    modules = {f"cryptography{name}": types.ModuleType("stand-in") for name in names}
    for last in ("ciphers.aead", "asymmetric", "asymmetric.x25519"):
        modules[f"cryptography.hazmat.primitives.{last}"] = types.ModuleType("stand-in")
    modules["cryptography.exceptions"].__dict__["InvalidTag"] = type("InvalidTag", (Exception,), {})
    modules["cryptography.hazmat.primitives.ciphers.aead"].__dict__.update(
        AESGCM=_CopyAead, ChaCha20Poly1305=_CopyAead
    )
    modules["cryptography.hazmat.primitives.asymmetric.x25519"].__dict__.update(
        X25519PrivateKey=_MadeUpKey, X25519PublicKey=_MadeUpKey
    )
    sys.modules.update(modules)
    return True


def turns_until(work: Work, end: float) -> int:
    """Turns until the clock is there."""
    clock, turns = time.perf_counter, 0
    while clock() < end:
        work()
        turns += 1
    return turns


# -- processes -----------------------------------------------------------------------------------------------------


class Worker:
    """A forked process, or a thread, that makes its works once and then runs the one that is named.

    What a thread uses is made in it: free-threaded Python counts references to others' objects in a dearer way.
    """

    def __init__(self, make: Make, *, thread: bool = False) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, far_end = context.Pipe()
        self._runs: threading.Thread | multiprocessing.process.BaseProcess
        if thread:
            self._runs = threading.Thread(target=self._serve, args=(make, far_end), daemon=True)
        else:
            self._runs = context.Process(target=self._serve, args=(make, far_end), daemon=True)
        self._runs.start()
        if not thread:
            far_end.close()
        self._pipe.recv()

    @staticmethod
    def _serve(make: Make, pipe: multiprocessing.connection.Connection) -> None:
        works = make()
        pipe.send(None)
        with contextlib.suppress(EOFError, KeyboardInterrupt), pipe:
            while message := pipe.recv():
                name, start, argument = message
                time.sleep(max(0.0, start - time.perf_counter()))
                pipe.send(works[name](start, argument))

    def begin(self, name: str, start: float, argument: float) -> None:
        """Run this work from that moment on."""
        self._pipe.send((name, start, argument))

    def result(self) -> float:
        """What the work said; waits for it."""
        return float(self._pipe.recv())

    def close(self) -> None:
        """End the worker. Told so, because workers forked later hold copies of the pipe's ends."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._runs.join(2)
        self._pipe.close()


@contextlib.contextmanager
def started(makes: Sequence[Make], *, threads: bool = False) -> Iterator[list[Worker]]:
    """Workers, gone after the block."""
    workers: list[Worker] = []
    try:
        workers += [Worker(make, thread=threads) for make in makes]
        yield workers
    finally:
        for worker in workers:
            worker.close()


def together(workers: Sequence[Worker], name: str, argument: float) -> list[float]:
    """All run the same work from the same moment; what each says."""
    start = time.perf_counter() + 0.003
    for worker in workers:
        worker.begin(name, start, argument)
    return [worker.result() for worker in workers]


def for_a_while(work: Work) -> TimedWork:
    """A work as a worker runs it: turns a second. The time is that of all workers, however late this one wakes up."""
    return lambda start, seconds: turns_until(work, start + seconds) / seconds


def measure_processes(timing: Timing) -> list[Row]:
    def make() -> dict[str, TimedWork]:
        return {kind: for_a_while(mesh_work(kind)) for kind in BATCHES}

    rows = []
    with started([make, make]) as workers:
        for kind in BATCHES:
            rows += scaling_rows(workers, kind, "turns", timing)
    return rows


def scaling_rows(workers: list[Worker], kind: str, unit: str, timing: Timing) -> list[Row]:
    """The first worker alone and both at once."""
    values = interleaved(
        timing,
        {
            "1": lambda: sum(together(workers[:1], kind, timing.slice)),
            "2": lambda: sum(together(workers, kind, timing.slice)),
        },
    )
    return [
        Row(f"{kind}: one process", f"{unit}/s", values["1"], 0),
        Row(f"{kind}: two processes together", f"{unit}/s", values["2"], 0),
        Row(f"{kind}: two to one", "x", ratios(values["2"], values["1"])),
    ]


# -- threads -------------------------------------------------------------------------------------------------------


def measure_threads(timing: Timing) -> list[Row]:
    outs = [(LinuxUdp.open(0), LinuxUdp.open(0)) for _ in range(2)]

    def maker(number: int) -> Make:
        def make() -> dict[str, TimedWork]:
            core = {f"{kind}, core": for_a_while(mesh_work(kind)) for kind in BATCHES}
            sends = {
                f"{kind}, core and sends": for_a_while(with_sends(kind, *outs[number])) for kind in BATCHES
            }
            return {**core, **sends}

        return make

    rows = []
    try:
        with started([maker(0), maker(1)], threads=True) as workers:
            for kind in BATCHES:
                for name in (f"{kind}, core", f"{kind}, core and sends"):
                    rows += thread_rows(name, workers, timing)
    finally:
        for pair in outs:
            for udp in pair:
                udp.close()
    return rows


def thread_rows(name: str, workers: list[Worker], timing: Timing) -> list[Row]:
    """One thread, and two with each switch interval (which means nothing without a GIL)."""

    def two(interval: float) -> float:
        before = sys.getswitchinterval()
        sys.setswitchinterval(interval)
        try:
            return sum(together(workers, name, timing.slice))
        finally:
            sys.setswitchinterval(before)

    cases: dict[str, Case] = {"1": lambda: sum(together(workers[:1], name, timing.slice))}
    for milliseconds in (0.5, 5, 50) if has_gil() else (5,):
        cases[f"{milliseconds:g} ms"] = partial(two, milliseconds / 1000)
    values = interleaved(timing, cases)
    one = values.pop("1")
    return [
        Row(f"{name}: one thread", "turns/s", one, 0),
        *(
            Row(f"{name}: two threads, switch interval {key}", "x", ratios(many, one))
            for key, many in values.items()
        ),
    ]


def has_gil() -> bool:
    """False on a free-threaded interpreter."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def with_sends(kind: str, out: LinuxUdp, sink: LinuxUdp) -> Work:
    """The core's turn, and its bursts really sent, over loopback to a socket that nobody reads."""
    mesh, batch = warm_mesh(kind), BATCHES[kind]
    source = mesh.addresses[0]
    target = Address("127.0.0.1", sink.port)

    def turn() -> None:
        mesh.hub.receive_frames(batch, mesh.now)
        bursts = mesh.hub.bursts_to_send()
        out.send_bursts(redirected(bursts, target))
        mesh.spokes[0].receive_datagrams(redirected(bursts, source), mesh.now)
        mesh.spokes[0].frames_to_deliver()

    turn()
    return turn


# -- what releases the GIL -----------------------------------------------------------------------------------------


def measure_gil(timing: Timing) -> list[Row]:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    encrypt, nonce = AESGCM(bytes(32)).encrypt, bytes(12)
    memory = os.memfd_create("cores")
    os.write(memory, bytes(65536))
    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.bind(("127.0.0.1", 0))
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.connect(sink.getsockname())
    burst, cut = (bytes(44 * PATH_LIMIT),), [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", PATH_LIMIT))]
    calls: dict[str, Work] = {
        f"AES-GCM, {size} bytes": partial(encrypt, nonce, bytes(size), None)
        for size in (64, FULL_PLAINTEXT, 2048, 4096, 8192, 16384, 32768, 65536)
    }
    calls["read of 65536 bytes"] = partial(os.pread, memory, 65536, 0)
    calls["send of 44 datagrams"] = partial(out.sendmsg, burst, cut)

    def make() -> dict[str, TimedWork]:
        return {name: for_a_while(partial(repeat, call)) for name, call in calls.items()}

    rows = []
    try:
        with started([make, make], threads=True) as workers:
            for name in calls:
                rows += gil_rows(name, workers, timing)
    finally:
        os.close(memory)
        sink.close()
        out.close()
    return rows


def repeat(call: Work) -> None:
    """Often enough that the clock between does not count."""
    for _ in range(REPEAT):
        call()


def gil_rows(name: str, workers: list[Worker], timing: Timing) -> list[Row]:
    """The call from one thread and from two; two make no more than one where the GIL stays held."""
    values = interleaved(
        timing,
        {
            "1": lambda: sum(together(workers[:1], name, timing.slice)),
            "2": lambda: sum(together(workers, name, timing.slice)),
        },
    )
    return [
        Row(f"{name}: one call", "us", [1e6 / rate / REPEAT for rate in values["1"]]),
        Row(f"{name}: two threads to one", "x", ratios(values["2"], values["1"])),
    ]


# -- TAP queues ----------------------------------------------------------------------------------------------------


def open_queue(name: str, flags: int = IFF_MULTI_QUEUE) -> LinuxTap:
    """A queue of the TAP `name` with virtio header and all offloads; the first one makes the TAP."""
    number = open_tun_device()
    fcntl.ioctl(
        number,
        TUNSETIFF,
        struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | flags),
    )
    fcntl.ioctl(number, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_LEN))
    with contextlib.suppress(OSError):
        fcntl.ioctl(number, TUNSETOFFLOAD, sum(OFFLOAD_BITS.values()))
    return LinuxTap(number, name, tuple(OFFLOAD_BITS))


@contextlib.contextmanager
def namespaces(*names: str) -> Iterator[list[Namespace]]:
    """Made and removed; without IPv6, so that nothing in them speaks by itself."""
    made = [Namespace(f"l2c{os.getpid()}-{name}") for name in names]
    try:
        for namespace in made:
            namespace.create()
            for which in ("all", "default"):
                knob = f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6"
                namespace.run(["sh", "-c", f"test ! -e {knob} || echo 1 > {knob}"])
            namespace.ip("link set lo up")
        yield made
    finally:
        for namespace in made:
            namespace.delete()


def flow_frame(port: int, *, back: bool = False) -> bytes:
    """A 64-byte UDP frame of the flow with this source port, or its answer."""
    frame = bytearray(udp_frame(64))
    ports = struct.pack("!HH", 9, port) if back else struct.pack("!HH", port, 9)
    frame[34:38] = ports
    if back:
        frame[0:12] = frame[6:12] + frame[0:6]
        frame[26:34] = frame[30:34] + frame[26:30]
    frame[40:42] = b"\0\0"
    return bytes(frame)


@dataclass
class TapUnderTest:
    """A TAP with queues, and a packet socket that hands frames to it as a bridge would."""

    queues: list[LinuxTap]
    into: socket.socket
    frames: list[bytes] = field(default_factory=lambda: [flow_frame(20000 + n) for n in range(256)])

    def fill(self, count: int) -> None:
        """`count` frames of 256 flows."""
        send = self.into.send
        for number in range(count):
            send(self.frames[number & 255])

    def drain(self, number: int) -> list[TapFrame]:
        found: list[TapFrame] = []
        while batch := self.queues[number].receive_frames(64):
            found += batch
        return found

    def queue_of(self, frame: bytes) -> list[int]:
        """The queues that it came out of."""
        self.into.send(frame)
        return [number for number in range(len(self.queues)) if self.drain(number)]


@contextlib.contextmanager
def tap_under_test(namespace: Namespace, name: str, queues: int, length: int) -> Iterator[TapUnderTest]:
    opened = [inside(namespace, lambda: open_queue(name)) for _ in range(queues)]
    namespace.ip(f"link set {name} txqueuelen {length} up")

    def packet_socket() -> socket.socket:
        into = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        into.bind((name, 0))
        return into

    into = inside(namespace, packet_socket)
    try:
        yield TapUnderTest(opened, into)
    finally:
        into.close()
        for queue in opened:
            queue.close()


def measure_queues(timing: Timing) -> list[Row]:
    with namespaces("q") as (namespace,), tap_under_test(namespace, "two", 2, timing.frames) as two:
        rows = steering_rows("by the kernel", two) + draining_rows(namespace, two, timing)
        with contextlib.suppress(OSError):  # without bpf(2) the row is missing
            attach_steering(two.queues[0])
            rows += steering_rows("by a program", two)
        return rows


def steering_rows(chosen: str, tap: TapUnderTest) -> list[Row]:
    """Where 256 flows go, whether each keeps to its queue, and whether a write of the answer moves it."""
    ports = range(20000, 20256)
    first = {port: tap.queue_of(flow_frame(port)) for port in ports}
    kept = sum(tap.queue_of(flow_frame(port)) == first[port] for port in ports)
    alike = sum(tap.queue_of(flow_frame(port, back=True)) == first[port] for port in ports)
    for port in ports:
        tap.queues[1 - first[port][0]].deliver_frames([[PLAIN_VIRTIO + flow_frame(port, back=True)]])
    moved = sum(tap.queue_of(flow_frame(port)) == [1 - first[port][0]] for port in ports)
    return [
        Row(
            f"{chosen}, of 256 flows: out of queue 0", "", [sum(queue == [0] for queue in first.values())], 0
        ),
        Row(f"{chosen}, of 256 flows: out of the same queue again", "", [kept], 0),
        Row(f"{chosen}, of 256 flows: the way back out of the same queue", "", [alike], 0),
        Row(f"{chosen}, of 256 flows: moved to the queue that their answer was written to", "", [moved], 0),
    ]


SYS_BPF = 321
BPF_PROG_LOAD, BPF_PROG_TYPE_SOCKET_FILTER = 5, 1
TUNSETSTEERINGEBPF = 0x800454E0
STEERING: tuple[tuple[int, int, int, int, int], ...] = (
    # code, destination, source, offset, immediate; Linux Documentation/bpf/standardization/instruction-set.rst
    (0xBF, 6, 1, 0, 0),  # r6 = the frame
    (0x30, 0, 0, 0, 0),  # r0 = its first byte
    (0x57, 0, 0, 0, 1),
    (0x15, 0, 0, 2, 0),  # not to a group? two further
    (0xB7, 0, 0, 0, 0),
    (0x95, 0, 0, 0, 0),  # a group: queue 0
    (0x20, 0, 0, 0, 26),  # both IPv4 addresses, both ports, xor
    (0xBF, 7, 0, 0, 0),
    (0x20, 0, 0, 0, 30),
    (0xAF, 7, 0, 0, 0),
    (0x28, 0, 0, 0, 34),
    (0xAF, 7, 0, 0, 0),
    (0x28, 0, 0, 0, 36),
    (0xAF, 7, 0, 0, 0),
    (0xBF, 0, 7, 0, 0),
    (0x77, 7, 0, 0, 16),
    (0xAF, 0, 7, 0, 0),
    (0xBF, 7, 0, 0, 0),
    (0x77, 7, 0, 0, 8),
    (0xAF, 0, 7, 0, 0),
    (0x57, 0, 0, 0, 255),
    (0x95, 0, 0, 0, 0),  # the kernel takes it modulo the number of queues
)
"""Groups to queue 0, IPv4 flows by a hash that is the same both ways and on every host. Enough for a trial."""


def attach_steering(queue: LinuxTap) -> None:
    """The program chooses the queue, and writes teach nothing. Raises OSError where there is no bpf(2)."""
    code = b"".join(
        struct.pack("=BBhi", code, to | source << 4, offset, value)
        for code, to, source, offset, value in STEERING
    )
    program, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    attributes = ctypes.create_string_buffer(
        struct.pack(
            "=IIQQ", BPF_PROG_TYPE_SOCKET_FILTER, len(STEERING), *map(ctypes.addressof, (program, licence))
        ).ljust(128, b"\0")
    )
    number = ctypes.CDLL(None, use_errno=True).syscall(SYS_BPF, BPF_PROG_LOAD, attributes, 128)
    if number < 0:
        raise OSError(ctypes.get_errno(), "bpf")
    try:
        fcntl.ioctl(queue.fileno(), TUNSETSTEERINGEBPF, struct.pack("i", number))
    finally:
        os.close(number)


def draining_rows(namespace: Namespace, two: TapUnderTest, timing: Timing) -> list[Row]:
    """Frames a second out of one queue, and out of two by two processes; nothing is sent meanwhile."""

    def drainer(tap: TapUnderTest, number: int) -> Callable[[], Mapping[str, TimedWork]]:
        def drain(_: float, __: float) -> float:
            start = time.perf_counter()
            count = len(tap.drain(number))
            return count / (time.perf_counter() - start)

        return lambda: {"drain": drain}

    with tap_under_test(namespace, "one", 1, timing.frames) as one:
        makes = [drainer(one, 0), drainer(two, 0), drainer(two, 1)]
        with started(makes) as workers:

            def filled(tap: TapUnderTest, chosen: list[Worker]) -> float:
                tap.fill(timing.frames)
                return sum(together(chosen, "drain", 0))

            values = interleaved(
                timing, {"1": lambda: filled(one, workers[:1]), "2": lambda: filled(two, workers[1:])}
            )
    return [
        Row("draining: one queue, one process", "frames/s", values["1"], 0),
        Row("draining: two queues, two processes", "frames/s", values["2"], 0),
        Row("draining: two to one", "x", ratios(values["2"], values["1"])),
    ]


# -- SO_REUSEPORT --------------------------------------------------------------------------------------------------


def lane_filter(sockets: int) -> bytes:
    """Classic BPF: which socket of a group gets a datagram. DATA has its lane in byte 1, a car could in byte 3.

    Handshakes are for the first socket. More lanes than sockets share them.
    """
    instructions = (
        (0x30, 0, 0, 0),  # A = byte 0
        (0x15, 2, 0, 4),  # DATA? two further
        (0x15, 3, 0, 5),  # a car? three further
        (0x06, 0, 0, 0),  # neither: the first socket
        (0x30, 0, 0, 1),  # A = byte 1
        (0x05, 0, 0, 1),  # over the next
        (0x30, 0, 0, 3),  # A = byte 3
        (0x94, 0, 0, sockets),  # A %= sockets
        (0x16, 0, 0, 0),  # A is the socket's number in its group
    )
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def attach_lane_filter(bound: Sequence[socket.socket]) -> None:
    """The group of these sockets is chosen from by the lane."""
    program = ctypes.create_string_buffer(lane_filter(len(bound)))
    bound[0].setsockopt(
        socket.SOL_SOCKET,
        SO_ATTACH_REUSEPORT_CBPF,
        struct.pack("HxxxxxxP", (len(program) - 1) // 8, ctypes.addressof(program)),
    )


def lane_sockets(count: int, port: int = 7470) -> list[socket.socket]:
    """Sockets on one port, with UDP_GRO."""
    made = []
    for _ in range(count):
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.setsockopt(socket.SOL_SOCKET, SO_REUSEPORT, 1)
        bound.setsockopt(SOL_UDP, UDP_GRO, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        bound.bind(("", port))
        bound.setblocking(False)
        made.append(bound)
    return made


def lane_burst(lane: int, count: int = 10) -> bytes:
    """Datagrams that say what lane they are of."""
    return (bytes((4, lane)) + bytes(PATH_LIMIT - 2)) * count


def received(bound: socket.socket) -> list[tuple[int, int]]:
    """What waits: for each datagram its lane, and how many came in one read."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            data, ancillary, _, _ = bound.recvmsg(65536, 64)
        except BlockingIOError:
            return found
        size = struct.unpack("=i", ancillary[0][2])[0] if ancillary else len(data)
        lanes = [data[at + 1] for at in range(0, len(data), size)]
        found += [(lane, len(lanes)) for lane in lanes]


def measure_reuseport(timing: Timing) -> list[Row]:
    with namespaces("ra", "rb") as (a, b):
        a.ip(f"link add dev wire type veth peer name wire netns {b.name}")
        for number, host in enumerate((a, b), 1):
            host.run(plain_wire("wire", gro=True))
            host.ip(f"addr add 192.0.2.{number}/24 dev wire", "link set wire up")
        senders = [inside(a, open_sender) for _ in range(64)]
        rows = []
        try:
            for chosen in ("by hash", "by lane byte"):
                sockets = inside(b, lambda: lane_sockets(2))
                try:
                    if chosen == "by lane byte":
                        attach_lane_filter(sockets)
                    rows += landing_rows(chosen, senders, sockets, timing)
                finally:
                    for bound in sockets:
                        bound.close()
            rows += choosing_cost_rows(a, timing)
        finally:
            for sender in senders:
                sender.close()
    return rows


def open_sender() -> socket.socket:
    """A socket with a port of its own towards host b."""
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.connect(("192.0.2.2", 7470))
    return out


def landing_rows(
    chosen: str, senders: list[socket.socket], sockets: list[socket.socket], timing: Timing
) -> list[Row]:
    """Bursts of lanes 0 and 1: which socket gets them from one port, from one port for each lane, and when they meet."""
    one, pairs = senders[:1] * 2, list(zip(senders[::2], senders[1::2], strict=True))
    by_one = [land(sockets, one) for _ in range(timing.rounds)]
    met = [land(sockets, one, meeting=True) for _ in range(timing.rounds)]
    by_pairs = [land(sockets, pair) for pair in pairs]
    return [
        Row(f"{chosen}, one port: share of the busier socket", "", [found.busier for found in by_one]),
        Row(f"{chosen}, one port: datagrams a read (UDP GRO)", "", [found.joined for found in by_one], 1),
        Row(
            f"{chosen}, one port: share at the other lane's socket", "", [found.wrong for found in by_one], 3
        ),
        Row(
            f"{chosen}, one port, lanes arriving together: share at the other lane's socket",
            "",
            [found.wrong for found in met],
            3,
        ),
        Row(
            f"{chosen}, a port for each lane: pairs of ports that share a socket",
            "",
            [sum(found.busier > 0.99 for found in by_pairs) / len(pairs)],
        ),
    ]


@dataclass(frozen=True, slots=True)
class Landing:
    """What came of bursts for two sockets."""

    busier: float
    wrong: float
    joined: float


def land(sockets: Sequence[socket.socket], out: Sequence[socket.socket], *, meeting: bool = False) -> Landing:
    """Ten datagrams of lane 0 by one sender, then ten of lane 1 by the other; or all in one burst.

    That burst is cut before the wire and joined behind it, as datagrams of two sends are that a network card hands
    over together.
    """
    cut = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", PATH_LIMIT))]
    counts, wrong, joined = [0, 0], 0, 0
    for _ in range(25):
        if meeting:
            out[0].sendmsg((lane_burst(0) + lane_burst(1),), cut)
        else:
            for lane in (0, 1):
                out[lane].sendmsg((lane_burst(lane),), cut)
        time.sleep(0.001)
        for number, bound in enumerate(sockets):
            for lane, together_with in received(bound):
                counts[number] += 1
                wrong += lane != number
                joined += together_with
    total = sum(counts)
    return Landing(max(counts) / total, wrong / total, joined / total)


def choosing_cost_rows(namespace: Namespace, timing: Timing) -> list[Row]:
    """A datagram of 100 bytes sent and received over loopback."""
    opened: list[socket.socket] = []

    def case(count: int, port: int, *, by_lane: bool = False) -> Case:
        sockets = inside(namespace, lambda: lane_sockets(count, port))
        if by_lane:
            attach_lane_filter(sockets)
        out = inside(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        out.connect(("127.0.0.1", port))
        opened.extend([*sockets, out])
        datagram = bytes((4, 0)) + bytes(98)
        out.send(datagram)
        (target,) = [bound for bound in sockets if received(bound)]

        def once() -> float:
            start = time.perf_counter()
            for _ in range(timing.calls):
                out.send(datagram)
                target.recvmsg(65536, 64)
            return (time.perf_counter() - start) / timing.calls * 1e6

        return once

    try:
        values = interleaved(
            timing,
            {
                "a socket alone": case(1, 7471),
                "one of two, by hash": case(2, 7472),
                "one of two, by lane byte": case(2, 7473, by_lane=True),
            },
        )
    finally:
        for sock in opened:
            sock.close()
    return [Row(f"send and receive, {name}", "us", many) for name, many in values.items()]


# -- the filtering database ----------------------------------------------------------------------------------------

STATIONS = 4096
PASSES = 25
SLOTS = 32_768
"""A power of two, and twice the FDB's bound."""
SLOT = struct.Struct("<QHxxI")
"""Station (six bytes of address, two of VLAN id), port, second of expiry."""


class SharedTable:
    """Stations in shared memory, open addressing: the least that a look-up from another process can cost in Python."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory

    def put(self, key: int, port: int, expiry: int) -> None:
        at = self._slot_of(key)
        SLOT.pack_into(self._memory, at * SLOT.size, key, port, expiry)

    def _slot_of(self, key: int) -> int:
        at = (key * 0x9E3779B97F4A7C15 >> 40) & SLOTS - 1
        while SLOT.unpack_from(self._memory, at * SLOT.size)[0] not in (0, key):
            at = at + 1 & SLOTS - 1
        return at

    def lookup(self, station: bytes, now: int) -> int | None:
        key = int.from_bytes(station, "little")
        memory, unpack = self._memory, SLOT.unpack_from
        at = (key * 0x9E3779B97F4A7C15 >> 40) & SLOTS - 1
        while True:
            found, port, expiry = unpack(memory, at * 16)
            if found == key:
                return port if expiry > now else None
            if not found:
                return None
            at = at + 1 & SLOTS - 1


def measure_fdb(timing: Timing) -> list[Row]:
    stations = [MacAddress(b"\x02" + os.urandom(5)) for _ in range(STATIONS)]
    memory = SharedMemory(create=True, size=SLOTS * SLOT.size)
    try:
        view = memory.buf
        assert view is not None
        cases = lookup_cases(stations, SharedTable(view), timing)
        values = interleaved(timing, cases)
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with near, far:
            values |= interleaved(timing, message_cases(near, far, timing))
        cases.clear()
        del view
    finally:
        with contextlib.suppress(BufferError):
            memory.close()
        memory.unlink()
    return [Row(name, "ns", [1e9 * value for value in many], 0) for name, many in values.items()]


def lookup_cases(stations: list[MacAddress], table: SharedTable, timing: Timing) -> dict[str, Case]:
    """Seconds of one look-up, of one that refreshes (learns again), in this order of stations."""
    from l2overlay.dataplane.ethernet import station_key
    from l2overlay.dataplane.fdb import FilteringDatabase, Port

    fdb, port = FilteringDatabase(300.0), Port(bytes(32))
    keys = [station_key(station, 0) for station in stations]
    for number, key in enumerate(keys):
        fdb.learn(key, port, 0.0)
        table.put(int.from_bytes(key, "little"), number & 0xFFFF, 300)
    assert all(table.lookup(key, 1) == number & 0xFFFF for number, key in enumerate(keys))

    def each(call: Callable[[Any], object]) -> Case:
        def once() -> float:
            start = time.perf_counter()
            for _ in range(PASSES):
                for key in keys:
                    call(key)
            return (time.perf_counter() - start) / len(keys) / PASSES

        return once

    return {
        "look-up, FilteringDatabase": each(lambda key: fdb.lookup(key, 1.0)),
        "look-up, shared memory": each(lambda key: table.lookup(key, 1)),
        "learned again, FilteringDatabase": each(lambda key: fdb.learn(key, port, 1.0)),
        "a call that does nothing": each(lambda key: None),
    }


def message_cases(near: socket.socket, far: socket.socket, timing: Timing) -> dict[str, Case]:
    """Seconds of telling another process of a station: one message each, and 64 in one."""
    message = struct.pack("<8sHHI", bytes(8), 1, 0, 300)

    def told(count: int) -> Case:
        data = message * count

        def once() -> float:
            start = time.perf_counter()
            for _ in range(timing.calls // count):
                near.send(data)
                for _ in SLOT.iter_unpack(far.recv(4096)):
                    pass
            return (time.perf_counter() - start) / (timing.calls // count) / count

        return once

    return {"a station told, one a message": told(1), "a station told, 64 a message": told(64)}


# -- lanes in a closed loop ----------------------------------------------------------------------------------------

LANE_UNIT = 1360
"""Of a UDP super-frame: so that one of its units and its template fit a datagram, as slices of TCP do."""
LANE_SEND = LANE_UNIT * 46
SMALL_SENDS = 64


def measure_lanes(timing: Timing) -> list[Row]:
    """Two workers, each with a queue of both TAPs, two UDP sockets, two overlays and a session between them.

    A turn: the guest's UDP super-frame (or 64 small frames) into the TAP, read from the lane's queue, through the hub,
    sent and received over loopback, through the spoke, written to the other TAP's queue. Guest and both nodes of a
    lane are one process, so that nothing waits and nothing is lost: turns a second are the cost of the whole way.
    """
    with namespaces("l") as (namespace,), contextlib.ExitStack() as stack:
        near, far = (
            [
                stack.enter_context(contextlib.closing(inside(namespace, partial(open_queue, name))))
                for _ in "01"
            ]
            for name in ("in", "out")
        )
        namespace.ip(
            "link set in txqueuelen 2000 up",
            "link set out up",
            "addr add 10.98.0.1/24 dev in",
            f"neigh add 10.98.0.2 lladdr {GUEST_MAC[1]} dev in",
        )
        guests = [stack.enter_context(guest_of_queue(namespace, near, number)) for number in range(2)]
        makes = [partial(lane_works, namespace, *lane) for lane in zip(near, far, guests, strict=True)]
        workers = stack.enter_context(started(makes))
        rows = []
        for kind, unit in (("super", "super-frames"), ("small", "batches of 64")):
            rows += scaling_rows(workers, kind, unit, timing)
        return rows


def guest_of_queue(namespace: Namespace, queues: list[LinuxTap], number: int) -> socket.socket:
    """A guest's socket whose flow comes out of this queue."""

    def open_guest() -> socket.socket:
        guest = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        guest.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        guest.connect(("10.98.0.2", 9))
        return guest

    for _ in range(256):
        guest = inside(namespace, open_guest)
        guest.send(b"which queue?")
        found = [bool(queue.receive_frames(64)) for queue in queues]
        if found[number]:
            return guest
        guest.close()
    raise LabError(f"no flow of 256 came out of queue {number}")


def lane_works(
    namespace: Namespace, queue: LinuxTap, other: LinuxTap, guest: socket.socket
) -> dict[str, TimedWork]:
    """In the worker: everything of one lane."""
    cut = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", LANE_UNIT))]
    payload, small = (bytes(LANE_SEND),), bytes(18)
    guest.send(small)
    frame = queue.receive_frames(1)[0]
    carry = {kind: whole_way(namespace, kind, frame, other) for kind in BATCHES}

    def super_turn() -> None:
        guest.sendmsg(payload, cut)
        assert carry["super"](queue.receive_frames(64)), "the lane lost a super-frame"

    def small_turn() -> None:
        for _ in range(SMALL_SENDS):
            guest.send(small)
        count = carry["small"](queue.receive_frames(64))
        assert count == SMALL_SENDS, f"the lane lost {SMALL_SENDS - count} frames"

    return {"super": for_a_while(super_turn), "small": for_a_while(small_turn)}


def whole_way(
    namespace: Namespace, kind: str, frame: TapFrame, tap: LinuxTap
) -> Callable[[list[TapFrame]], int]:
    """From frames in hand to the other TAP, through two overlays and two sockets; how many frames came out."""
    mesh = warm_mesh(kind, frame)
    hub, spoke, now, source = mesh.hub, mesh.spokes[0], mesh.now, mesh.addresses[0]
    out, back = (inside(namespace, lambda: LinuxUdp.open(0)) for _ in range(2))
    target = Address("127.0.0.1", back.port)

    def carry(frames: list[TapFrame]) -> int:
        hub.receive_frames(frames, now)
        out.send_bursts(redirected(hub.bursts_to_send(), target))
        spoke.receive_datagrams(redirected(back.receive_bursts(64), source), now)
        delivered = spoke.frames_to_deliver()
        tap.deliver_frames(delivered)
        return len(delivered)

    return carry


# -- two pairs of nodes --------------------------------------------------------------------------------------------


class NamedTopology(Topology):
    """A topology of its own name, so that two can stand side by side."""

    def __init__(self, tag: str) -> None:
        super().__init__("offload")
        tag = f"l2c{os.getpid()}{tag}"
        self.hosts = (Namespace(f"{tag}-ha"), Namespace(f"{tag}-hb"))
        self.guests = (Namespace(f"{tag}-ga"), Namespace(f"{tag}-gb"))
        self.wire = Namespace(f"{tag}-w")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two nodes and their guests."""

    topology: Topology
    iperf: Iperf
    pids: list[int]


@dataclass(frozen=True, slots=True)
class NodesRun:
    """TCP through one or two pairs of nodes at once."""

    gbits: float
    busy: float
    """Share of the machine."""
    cores: float
    """That the nodes used."""
    kernel: float
    """Share of the nodes' time that was spent in system calls."""


def measure_nodes(timing: Timing) -> list[Row]:
    """One TCP stream through one pair of nodes, two streams through it, and one through each of two pairs at once."""
    runs: dict[str, list[NodesRun]] = {}

    def case(name: str, pairs: Sequence[Pair], streams: int) -> Case:
        def once() -> float:
            run = run_tcp(pairs, streams, timing.tcp)
            runs.setdefault(name, []).append(run)
            return run.gbits

        return once

    with tempfile.TemporaryDirectory(prefix="l2cores-") as folder, contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(pair_of_nodes(Path(folder, tag), tag)) for tag in ("p", "q")]
        values = interleaved(
            timing,
            {
                "one pair, one stream": case("one pair, one stream", pairs[:1], 1),
                "one pair, two streams": case("one pair, two streams", pairs[:1], 2),
                "two pairs, a stream each": case("two pairs, a stream each", pairs, 1),
            },
        )
    rows = []
    for name, many in values.items():
        rows += [
            Row(f"{name}: together", "Gbit/s", many),
            Row(f"{name}: cores that the nodes use", "", [run.cores for run in runs[name]]),
            Row(f"{name}: of that in the kernel", "%", [100 * run.kernel for run in runs[name]], 0),
            Row(f"{name}: of the machine busy", "%", [100 * run.busy for run in runs[name]], 0),
        ]
    one = values["one pair, one stream"]
    return [
        *rows,
        Row("one pair: two streams to one", "x", ratios(values["one pair, two streams"], one)),
        Row("two pairs to one pair", "x", ratios(values["two pairs, a stream each"], one)),
    ]


def run_tcp(pairs: Sequence[Pair], streams: int, seconds: float) -> NodesRun:
    """iperf3 through all pairs at once; what it used is an average over all the time that the clients ran."""
    pids = [pid for pair in pairs for pid in pair.pids]
    start, busy, ticks = time.perf_counter(), machine_seconds()[0], system_ticks(pids)
    results = in_parallel([partial(pair.iperf.run, seconds, streams) for pair in pairs])
    elapsed = time.perf_counter() - start
    kernel, whole = (after - before for after, before in zip(system_ticks(pids), ticks, strict=True))
    return NodesRun(
        sum(result.bits_per_second for result in results) / 1e9,
        (machine_seconds()[0] - busy) / elapsed / (os.cpu_count() or 1),
        whole / TICKS_PER_SECOND / elapsed,
        kernel / max(1, whole),
    )


@contextlib.contextmanager
def pair_of_nodes(folder: Path, tag: str) -> Iterator[Pair]:
    from .contestants import L2Overlay
    from .topology import raise_udp_buffers

    folder.mkdir()
    node = L2Overlay(folder)
    node.prepare()
    with NamedTopology(tag) as topology:
        node.start(topology)
        raise_udp_buffers(node.pids)
        yield Pair(topology, Iperf(topology), node.pids)


def in_parallel(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Each in a thread of its own, which only waits for a process."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(call) for call in calls]]


def system_ticks(pids: Sequence[int]) -> tuple[int, int]:
    """Clock ticks in the kernel, and altogether (proc(5), fields 14 and 15)."""
    kernel = whole = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        kernel += int(fields[12])
        whole += int(fields[11]) + int(fields[12])
    return kernel, whole


# -- the run -------------------------------------------------------------------------------------------------------

PIECES: dict[str, Callable[[Timing], list[Row]]] = {
    "processes": measure_processes,
    "threads": measure_threads,
    "gil": measure_gil,
    "queues": measure_queues,
    "reuseport": measure_reuseport,
    "fdb": measure_fdb,
    "lanes": measure_lanes,
    "nodes": measure_nodes,
}
NEED_ROOT = ("queues", "reuseport", "lanes", "nodes")


def facts() -> dict[str, Any]:
    """What the figures were measured on, and beside what."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "kernel": os.uname().release,
        "cpus": os.cpu_count(),
        "python": sys.version.split()[0],
        "gil": has_gil(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the chosen pieces; a table, or with --json everything."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cores")
    parser.add_argument("--pieces", default=",".join(PIECES), help="of " + ", ".join(PIECES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--patience",
        type=float,
        default=300,
        help="seconds to wait, in all, for a machine that does nothing else",
    )
    parser.add_argument("--quick", action="store_true", help="one short round: whether it runs, no figures")
    parser.add_argument("--json", metavar="FILE", help="every value of every round; - is the standard output")
    arguments = parser.parse_args(argv)
    chosen = arguments.pieces.split(",")
    if unknown := set(chosen) - set(PIECES):
        parser.error(f"no such piece: {', '.join(sorted(unknown))}")
    quiet = Quiet(arguments.patience)
    timing = QUICK if arguments.quick else Timing(arguments.rounds, quiet=quiet)
    known: dict[str, Any] = {**facts(), "encrypted": not stand_in_for_cryptography()}
    results: dict[str, list[Row]] = {}
    for name in chosen:
        if name in NEED_ROOT and os.geteuid():
            print(f"{name}: left out, it needs root", file=sys.stderr)
            continue
        results[name] = PIECES[name](timing)
        if arguments.json != "-":
            show(name, results[name])
    known["disturbed"] = quiet.disturbed
    known["load_after"] = [round(load, 2) for load in os.getloadavg()]
    if arguments.json:
        write_json(arguments.json, known, results)
    if arguments.json != "-":
        print("\n" + ", ".join(f"{key} {value}" for key, value in known.items()))
    return 0


def show(name: str, rows: list[Row]) -> None:
    """Medians, and from where to where the rounds went."""
    print(f"\n{name}")
    for row in rows:
        low, high = min(row.values), max(row.values)
        spread = f"({low:.{row.digits}f} .. {high:.{row.digits}f})" if len(row.values) > 1 else ""
        print(f"  {row.name:82} {row.median:>10.{row.digits}f} {row.unit:9} {spread}", flush=True)


def write_json(path: str, known: dict[str, Any], results: dict[str, list[Row]]) -> None:
    pieces = {
        name: {row.name: {"unit": row.unit, "median": row.median, "values": row.values} for row in rows}
        for name, rows in results.items()
    }
    text = json.dumps({**known, "pieces": pieces}, indent=1) + "\n"
    if path == "-":
        sys.stdout.write(text)
    else:
        Path(path).write_text(text)


if __name__ == "__main__":
    sys.exit(main())
