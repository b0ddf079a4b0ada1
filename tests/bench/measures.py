"""What is measured on one running contestant, and for how long. Every figure has one name; `FIGURES` says what it means.

A figure of a contestant on an underlay is a list, one value a repeat. Groups are what `--measures` chooses from.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .contestants import Contestant
from .search import LOSS_LIMIT, highest_passing, twice
from .topology import Topology, raise_udp_buffers
from .traffic import (
    SENDERS,
    FrameCounter,
    Iperf,
    Pinger,
    TcpResult,
    cpu_seconds,
    machine_seconds,
    median,
    percentile,
    resident_bytes,
    run_trial,
)

Figures = dict[str, float]

GROUPS = ("tcp", "frames", "rtt", "jumbo", "loss")
FRAME_SIZES = (64, 512, 1400)
LOSS_FRACTIONS = (0.0, 0.001, 0.01)
OVERLOAD = 1.5
JUMBO_MTU = 9000
FIRST_GUESS = 60_000.0
"""Frames a second of the first trial: between the slowest and the fastest tunnel seen."""
SMALL_FRAME_RATE = 50_000.0
"""At which datagrams are counted: below what every contestant can carry."""
MISLED = 1.15
"""When overload delivers this much more than the rate that was found, the search met a disturbance and is repeated once."""
OFFERED_SHARE = 0.98
"""A trial whose sender did not reach this much of its rate has failed: the sender is the limit."""
TCP_PAYLOAD = 1448
"""Of a full segment at MTU 1500 with timestamps."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds (and requests) for each part of a run."""

    tcp: float = 3
    trial: float = 0.4
    pings: int = 400
    loss: float = 2
    frame_sizes: tuple[int, ...] = FRAME_SIZES
    loss_fractions: tuple[float, ...] = LOSS_FRACTIONS
    sender: str = "packet"


QUICK = Timing(tcp=2, trial=0.25, pings=150, loss=2, frame_sizes=(64, 1400), loss_fractions=(0.0, 0.01))


@dataclass(frozen=True, slots=True)
class Figure:
    """How a figure is named, scaled and printed."""

    title: str
    unit: str
    scale: float = 1.0
    digits: int = 2
    lower_is_better: bool = False


FIGURES: dict[str, Figure] = {
    "tcp1": Figure("TCP, 1 stream", "Gbit/s", 1e-9),
    "tcp1_retransmits": Figure("retransmits of it", "", digits=0, lower_is_better=True),
    "tcp4": Figure("TCP, 4 streams", "Gbit/s", 1e-9),
    "tcp4_retransmits": Figure("retransmits of it", "", digits=0, lower_is_better=True),
    "cpu_per_gb": Figure("CPU of both nodes per GB", "s", lower_is_better=True),
    "machine_cpu_per_gb": Figure("CPU of the machine per GB", "s", lower_is_better=True),
    "resident": Figure("resident memory, both", "MiB", 1 / (1 << 20), 0, lower_is_better=True),
    "bytes_per_datagram": Figure("TCP segments per datagram", "", 1 / TCP_PAYLOAD),
    "small_per_datagram": Figure("64-byte frames per datagram at 50 kpps", ""),
    **{
        f"frames{size}": Figure(f"{size}-byte frames, loss <= 0.1 %", "kpps", 1e-3, 0) for size in FRAME_SIZES
    },
    **{f"overload{size}": Figure(f"{size}-byte frames at 1.5x of that", "of it") for size in FRAME_SIZES},
    "rtt": Figure("idle round trip, median", "us", 1e6, 0, lower_is_better=True),
    "rtt_p99": Figure("idle round trip, p99", "us", 1e6, 0, lower_is_better=True),
    "jumbo_tcp1": Figure("TCP, 1 stream, guests at MTU 9000", "Gbit/s", 1e-9),
    "loss_0": Figure("TCP through the lossy wire, 0 %", "Gbit/s", 1e-9),
    "loss_0.001": Figure("TCP at 0.1 % loss", "Gbit/s", 1e-9),
    "loss_0.01": Figure("TCP at 1 % loss", "Gbit/s", 1e-9),
    "flood100": Figure("one broadcast to 100 peers, sealed and sent", "us", 1e6, 0, lower_is_better=True),
    "flood100_sealed": Figure("of which sealed", "us", 1e6, 0, lower_is_better=True),
    "steal": Figure("time stolen by the hypervisor", "%", 100, 1, lower_is_better=True),
}


@contextmanager
def running(contestant: Contestant, underlay: str, mtu: int = 1500) -> Iterator[Topology]:
    """The contestant up and passing frames, with the buffers that all get."""
    contestant.clear_logs()
    with Topology(underlay, mtu) as topology:
        contestant.start(topology)
        raise_udp_buffers(contestant.pids)
        yield topology


def measure(
    contestant: Contestant,
    underlay: str,
    groups: tuple[str, ...],
    timing: Timing,
    known: Callable[[str], float | None],
) -> Iterator[Figures]:
    """All chosen figures of a contestant on an underlay, as they come.

    `known` gives a figure of earlier repeats: where the search begins.
    """
    if underlay == "lossy":
        yield _measure_loss(contestant, timing)
        return
    with running(contestant, underlay) as topology:
        if "tcp" in groups:
            yield _measure_tcp(contestant, topology, timing)
        if "rtt" in groups and underlay == "offload":
            yield _measure_round_trip(topology, timing)
        if "frames" in groups:
            counter = FrameCounter(topology.guests[1])
            if underlay == "offload":
                for size in timing.frame_sizes:
                    yield _measure_frames(topology, counter, size, timing, known(f"frames{size}"))
            else:
                yield _count_datagrams(topology, counter, timing)
    if "jumbo" in groups and underlay == "offload" and contestant.largest_mtu >= JUMBO_MTU:
        with running(contestant, underlay, JUMBO_MTU) as topology:
            yield {"jumbo_tcp1": Iperf(topology).run(timing.tcp).bits_per_second}


def _measure_tcp(contestant: Contestant, topology: Topology, timing: Timing) -> Figures:
    iperf = Iperf(topology)
    datagrams_before = topology.underlay_datagrams()
    cpu_before, busy_before = cpu_seconds(contestant.pids), machine_seconds()
    one = iperf.run(timing.tcp)
    cpu, busy = cpu_seconds(contestant.pids) - cpu_before, machine_seconds()
    datagrams = topology.underlay_datagrams() - datagrams_before
    four = iperf.run(timing.tcp, streams=4)
    figures = {
        **_tcp_figures("tcp1", one),
        **_tcp_figures("tcp4", four),
        "machine_cpu_per_gb": (busy[0] - busy_before[0]) / (one.bytes / 1e9),
        "steal": (busy[1] - busy_before[1]) / (timing.tcp * (os.cpu_count() or 1)),
    }
    if contestant.userspace:
        figures |= {"cpu_per_gb": cpu / (one.bytes / 1e9), "resident": resident_bytes(contestant.pids)}
    if topology.underlay == "plain":
        figures["bytes_per_datagram"] = one.bytes / max(1, datagrams)
    return figures


def _tcp_figures(name: str, result: TcpResult) -> Figures:
    return {name: result.bits_per_second, f"{name}_retransmits": result.retransmits}


def _measure_round_trip(topology: Topology, timing: Timing) -> Figures:
    pinger = Pinger(topology.guests[0])
    try:
        times = pinger.round_trips(timing.pings)
    finally:
        pinger.close()
    return {"rtt": median(times), "rtt_p99": percentile(times, 0.99)} if times else {}


def _measure_frames(
    topology: Topology, counter: FrameCounter, size: int, timing: Timing, known: float | None
) -> Figures:
    sender = SENDERS[timing.sender](topology.guests[0], size)

    def passes(rate: float) -> bool:
        trial = run_trial(sender, counter, rate, timing.trial)
        return trial.loss <= LOSS_LIMIT and trial.offered >= rate * timing.trial * OFFERED_SHARE

    try:
        best = highest_passing(twice(passes), known or FIRST_GUESS)
        overload = run_trial(sender, counter, best * OVERLOAD, timing.trial)
        if overload.rate > best * MISLED:
            best = max(best, highest_passing(twice(passes), overload.rate))
            overload = run_trial(sender, counter, best * OVERLOAD, timing.trial)
    finally:
        sender.close()
    return {f"frames{size}": best, f"overload{size}": overload.rate / best if best else 0.0}


def _count_datagrams(topology: Topology, counter: FrameCounter, timing: Timing) -> Figures:
    sender = SENDERS[timing.sender](topology.guests[0], FRAME_SIZES[0])
    try:
        before = topology.underlay_datagrams()
        trial = run_trial(sender, counter, SMALL_FRAME_RATE, timing.trial)
    finally:
        sender.close()
    return {"small_per_datagram": trial.delivered / max(1, topology.underlay_datagrams() - before)}


def _measure_loss(contestant: Contestant, timing: Timing) -> Figures:
    figures = {}
    with running(contestant, "lossy") as topology:
        iperf = Iperf(topology)
        for fraction in timing.loss_fractions:
            topology.set_loss(fraction)
            figures[f"loss_{fraction:g}"] = iperf.run(timing.loss).bits_per_second
    return figures
