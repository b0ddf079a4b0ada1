"""`python -m tests.bench.many_flows`: what many TCP flows at the same time carry, and how long an echo beside them takes.

Each flow is an iperf3 client and server of its own, guest a to guest b, so that no sender's single thread is the limit. The
contestants and the numbers of flows take turns, repeat by repeat. Beside the flows guest a pings guest b, or, with `--udp
RATE`, sends so many 64-byte frames a second, which nothing clocks.

    ratio     of what it carries with the first number of flows
    CPU       share of a core that a node took, on average
    frame     bytes that the TAP gave in one read, on average: super-frames shrink when TCP finds the path slow
    lost      frames that the TAP's queue, the one between the guests and the node, had no room for
    retr.     segments that the guests sent again
    UDP       frames a second that arrived, of those that were sent
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

from l2overlay.testing.namespace import LabError

from .contestants import Contestant, KernelVxlan, L2Overlay
from .measures import running
from .topology import GUEST_ADDRESS, Topology, wait_until
from .traffic import FrameCounter, Pinger, cpu_seconds, median, packet_sender, percentile

FLOWS = (1, 5, 20, 50)
SECONDS = 4
FIRST_PORT = 5301
UDP_FRAME = 64
WARM_UP = 1.0
"""Seconds: connecting and slow start are not measured."""
CHOICE: dict[str, type[Contestant]] = {"l2overlay": L2Overlay, "vxlan": KernelVxlan}


@dataclass(frozen=True, slots=True)
class Carried:
    """One run. Times are seconds."""

    bits_per_second: float
    pings: list[float]
    cpu: float
    """Share of a core that the two nodes took, on average; 0 in the kernel."""
    frame_len: float
    tap_lost: int
    retransmits: int
    udp_sent: float
    """Frames a second."""
    udp_arrived: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure in turns and print a line a run, then medians and ratios."""
    arguments = parse(argv)
    if os.geteuid():
        print("the benchmark makes network namespaces: run it as root", file=sys.stderr)
        return 5
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found: dict[tuple[str, int], list[Carried]] = {}
    print(HEADING)
    with tempfile.TemporaryDirectory(prefix="l2flows-") as folder:
        contestants = list(choose(arguments.only, Path(folder)))
        for _ in range(arguments.repeat):
            for contestant in contestants:
                with running(contestant, arguments.underlay) as topology:
                    for flows in arguments.flows:
                        carried = carry(contestant, topology, flows, arguments.seconds, arguments.udp)
                        found.setdefault((contestant.name, flows), []).append(carried)
                        show(contestant.name, flows, [carried])
    print(f"\nmedians of {arguments.repeat}")
    for (name, flows), runs in found.items():
        show(name, flows, runs, found[name, arguments.flows[0]])
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.many_flows")
    parser.add_argument("--only", default=",".join(CHOICE), help="l2overlay, vxlan or both (default)")
    parser.add_argument("--flows", default=",".join(map(str, FLOWS)), help="default: %(default)s")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="a run (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--udp", type=int, default=0, help="frames a second beside the flows, not a ping")
    parser.add_argument("--underlay", choices=("offload", "plain"), default="offload")
    arguments = parser.parse_args(argv)
    arguments.flows = [int(part) for part in arguments.flows.split(",")]
    arguments.only = arguments.only.split(",")
    if unknown := set(arguments.only) - set(CHOICE):
        parser.error(f"no such contestant: {', '.join(sorted(unknown))}")
    return arguments


def choose(names: Sequence[str], folder: Path) -> Iterator[Contestant]:
    """Those that were asked for and can run here."""
    for name in names:
        (folder / name).mkdir()
        contestant = CHOICE[name](folder / name)
        if reason := contestant.missing():
            print(f"without {name}: {reason}")
        else:
            contestant.prepare()
            yield contestant


def carry(contestant: Contestant, topology: Topology, flows: int, seconds: int, udp: int) -> Carried:
    """So many flows for so long; what counts, and the pings or frames beside them, after the warm-up."""
    guest_a, guest_b = topology.guests
    ports = [str(FIRST_PORT + number) for number in range(flows)]
    servers = [guest_b.popen(["iperf3", "-s", "-1", "-p", port], stdout=DEVNULL) for port in ports]
    wait_until(lambda: listening(topology) >= set(ports), 10.0, "iperf3 did not listen")
    clients = [
        guest_a.popen(
            ["iperf3", "-c", GUEST_ADDRESS[1], "-p", port, "-t", str(seconds), "--json"], stdout=PIPE
        )
        for port in ports
    ]
    try:
        time.sleep(WARM_UP)
        before, began = counters(contestant, topology), time.monotonic()
        lasting = seconds - WARM_UP
        sent, arrived = send_beside(topology, udp, lasting) if udp else (0.0, 0.0)
        pings = [] if udp else ping_beside(topology, lasting)
        after, lasted = counters(contestant, topology), time.monotonic() - began
        reports = [json.loads(client.communicate(timeout=seconds + 30)[0]) for client in clients]
    finally:
        end([*clients, *servers])
    ends = [report["end"] for report in reports if "sum_received" in report.get("end", {})]
    if len(ends) < flows:
        raise LabError(f"{flows - len(ends)} of {flows} flows failed: {reports[0].get('error', '')}")
    received, cpu, frames, data, lost = (late - early for late, early in zip(after, before, strict=True))
    return Carried(
        received * 8 / lasted,
        pings,
        cpu / max(1, len(contestant.pids)) / lasted,
        data / max(1, frames),
        int(lost),
        sum(one["sum_sent"].get("retransmits", 0) for one in ends),
        sent,
        arrived,
    )


def ping_beside(topology: Topology, seconds: float) -> list[float]:
    """Round trips while the flows run; one that is lost counts as the time that was waited for it."""
    pinger = Pinger(topology.guests[0])
    until, found = time.monotonic() + seconds, []
    try:
        while time.monotonic() < until:
            answered = pinger.ping(1.0)
            found.append(1.0 if answered is None else answered)
            time.sleep(0.005)
    finally:
        pinger.close()
    return found


def send_beside(topology: Topology, rate: int, seconds: float) -> tuple[float, float]:
    """Send 64-byte frames while the flows run. Returns those that were sent and that arrived, a second."""
    guest_a, guest_b = topology.guests
    counter, sender = FrameCounter(guest_b), packet_sender(guest_a, UDP_FRAME)
    try:
        before, sent = counter.read(), sender.send(rate, seconds)
        return sent.frames / sent.elapsed, (counter.read_settled() - before) / sent.elapsed
    finally:
        sender.close()


def end(processes: Sequence[Popen[str]]) -> None:
    """None stays, whatever happened."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def listening(topology: Topology) -> set[str]:
    """Ports of guest b."""
    lines = topology.guests[1].run(["ss", "-Hltn"]).stdout.splitlines()
    return {line.split()[3].rpartition(":")[2] for line in lines}


def counters(contestant: Contestant, topology: Topology) -> tuple[float, ...]:
    """Bytes that reached guest b; seconds of the nodes; frames, bytes and losses of the TAP of host a.

    The bytes are those of guest b's link: what iperf3 reports as received is what was sent when a flow ends with data on its
    way, and was five times too much for 50 flows.
    """
    received = topology.guests[1].run(["cat", "/sys/class/net/eth0/statistics/rx_bytes"]).stdout
    spent = cpu_seconds(contestant.pids)
    if not topology.has_link(0, TAP):
        return int(received), spent, 0, 0, 0
    said = topology.hosts[0].run(["ip", "-j", "-s", "link", "show", TAP]).stdout
    sent = json.loads(said)[0]["stats64"]["tx"]
    return int(received), spent, sent["packets"], sent["bytes"], sent["dropped"]


TAP = f"tap-{L2Overlay.SEGMENT}"
HEADING = (
    f"{'':14}{'flows':>6}{'Gbit/s':>8}{'ratio':>7}{'ping p50':>10}{'p99':>8}"
    f"{'CPU':>6}{'frame':>8}{'lost':>8}{'retr.':>8}  UDP"
)


def show(name: str, flows: int, runs: Sequence[Carried], first: Sequence[Carried] = ()) -> None:
    """One line: medians of the runs; `ratio` is to the first number of flows."""
    rate = median([run.bits_per_second for run in runs])
    ratio = rate / median([run.bits_per_second for run in first]) if first else float("nan")
    pings = [seconds for run in runs for seconds in run.pings]
    echo = (
        f"{percentile(pings, 0.5) * 1e3:7.1f} ms{percentile(pings, 0.99) * 1e3:5.0f} ms"
        if pings
        else f"{'-':>18}"
    )
    sent, arrived = median([run.udp_sent for run in runs]), median([run.udp_arrived for run in runs])
    udp = f"  {arrived:.0f} of {sent:.0f}" if sent else "  -"
    print(
        f"{name:14}{flows:6}{rate * 1e-9:8.2f}{ratio:7.2f}"
        f"{echo}"
        f"{median([run.cpu for run in runs]):6.2f}{median([run.frame_len for run in runs]):8.0f}"
        f"{median([run.tap_lost for run in runs]):8.0f}{median([run.retransmits for run in runs]):8.0f}{udp}",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
