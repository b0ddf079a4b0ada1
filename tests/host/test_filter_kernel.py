"""`explain` and the kernel decide alike, frame by frame.

    remote (eth0) -- tap-lab [ br-lab of the host ] g2 -- (eth0) local

No node runs: frames with any source and destination MAC are written into what the rules take for the TAP (inward) or into
the local guest's port (outward), and captured at the other end. Each frame carries its number.
"""

import random
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from l2overlay import inet
from l2overlay.addresses import MacAddress, parse_mac
from l2overlay.config.read import parse_config
from l2overlay.dataplane.ethernet import plain
from l2overlay.dataplane.fdb import Port
from l2overlay.dataplane.gate import FilterGate
from l2overlay.filter.flow import LEGACY, NF_TABLES, Flow, parse_flows
from l2overlay.filter.model import Action, Direction, FilterConfig
from l2overlay.filter.rules import explain
from l2overlay.filter.words import explain_text
from l2overlay.linux.iptables import FilterSpec, install_text, maps_text, parse_saved, render, render_maps
from l2overlay.testing.lab import Guest, Lab, Namespace
from tests.stanzas import peers_named

OWN, PEERS = "alpha", ("alpha", "beta", "gamma", "delta")
TABLE = """
[filter]
default_in = "drop"
default_out = "accept"
[filter.groups]
mixed = ["10.9.1.0/24", "fd09:1::/64", "52:54:00:00:01:01", "gamma"]
[[filter.rules]]
direction = "in"
action = "log"
protocol = "tcp"
[[filter.rules]]
direction = "in"
action = "drop"
source = ["beta", "10.9.2.0/24"]
protocol = "tcp"
ports = [22, "80-90"]
[[filter.rules]]
direction = "in"
action = "accept"
source = "@mixed"
destination = ["10.9.0.0/24", "fd09::/64", "52:54:00:00:02:02"]
[[filter.rules]]
direction = "in"
action = "drop"
source = "gamma"
[[filter.rules]]
direction = "in"
action = "accept"
protocol = "icmp"
icmp_types = ["echo-request", "packet-too-big"]
[[filter.rules]]
direction = "in"
action = "accept"
protocol = "udp"
source_ports = [53, 67, 1000, 1002, 1004, 1006, 1008, 1010, 1012, 1014, 1016, 1018, 1020, 1022, "1024-1030", 123]
ports = ["1-1023", "5000-6000"]
[[filter.rules]]
direction = "in"
action = "accept"
destination = "beta"
[[filter.rules]]
direction = "in"
action = "accept"
protocol = 88
rate = "100000/s"
burst = 1000
[[filter.rules]]
direction = "out"
action = "drop"
destination = "beta"
protocol = "udp"
[[filter.rules]]
direction = "out"
action = "accept"
source = "alpha"
destination = "@mixed"
[[filter.rules]]
direction = "out"
action = "drop"
source = "52:54:00:00:02:01"
destination = ["delta", "10.9.1.0/24"]
[[filter.security_groups]]
name = "web"
stations = ["52:54:00:00:02:01", "52:54:00:00:02:03"]
default_out = "drop"
[[filter.security_groups.rules]]
protocol = "tcp"
ports = [80, 443]
[[filter.security_groups.rules]]
direction = "out"
remote = ["beta", "@mixed"]
[[filter.security_groups]]
name = "db"
stations = ["52:54:00:00:02:03"]
[[filter.security_groups.rules]]
remote = ["delta", "@web"]
[[filter.security_groups]]
name = "open"
stations = ["52:54:00:00:02:04"]
default_in = "accept"
"""
REMOTE = [parse_mac(f"52:54:00:00:01:{n:02x}") for n in range(1, 7)]
LOCAL = [parse_mac(f"52:54:00:00:02:{n:02x}") for n in range(1, 5)]
STATIONS = {REMOTE[0]: "delta", REMOTE[1]: "beta", REMOTE[2]: "beta", REMOTE[3]: "gamma", REMOTE[4]: "delta"}
"""The sixth is behind a peer that no rule names, or behind none."""

SEND = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
for line in sys.stdin:
    s.send(bytes.fromhex(line))
"""
MARK = b"l2oflow"


def config() -> FilterConfig:
    found = parse_config(peers_named(*PEERS) + TABLE, "p", base_dir=None).filter
    assert found is not None
    return found


def random_flow(chance: random.Random, number: int) -> Flow:
    """No two have the same addresses and ports, or conntrack would take one for the answer to the other."""
    version, direction = chance.choice((4, 6)), chance.choice(list(Direction))
    kind = chance.choice((6, 6, 17, 17, 58 if version == 6 else 1, 88))
    net = chance.choice((1, 2, 3))
    far, near = (
        (f"10.9.{net}.{number % 250 + 1}", f"10.{chance.choice((9, 8))}.0.{number // 250 + 1}")
        if version == 4
        else (f"fd09:{net}::{number:x}", f"fd0{chance.choice((9, 8))}::{number:x}")
    )
    mine, theirs = chance.choice(LOCAL), chance.choice(REMOTE)
    inward = direction is Direction.IN
    source_port = chance.choice((53, 123, 1025, 2000))
    destination_port = chance.choice((22, 80, 85, 443, 5500, 7000))
    return Flow(
        direction,
        kind,
        ip_address(far if inward else near),
        ip_address(near if inward else far),
        source_port if kind in (6, 17) else None,
        destination_port if kind in (6, 17) else None,
        icmp_type={1: chance.choice((8, 13)), 58: chance.choice((128, 140))}.get(kind),
        source_mac=theirs if inward else mine,
        destination_mac=mine if inward else theirs,
        peer=STATIONS.get(theirs),
    )


def frame_of(flow: Flow, number: int) -> bytes:
    ip = IP if flow.version == 4 else IPv6
    next_header = {"proto": flow.protocol} if flow.version == 4 else {"nh": flow.protocol}
    packet = ip(src=str(flow.source), dst=str(flow.destination), **next_header)
    payload = MARK + struct.pack(">I", number)
    match flow.protocol:
        case 6:
            packet /= TCP(sport=flow.source_port, dport=flow.destination_port, flags="S")
        case 17:
            packet /= UDP(sport=flow.source_port, dport=flow.destination_port)
        case 1:
            packet /= ICMP(type=flow.icmp_type, id=number)
        case 58:
            packet /= (ICMPv6EchoRequest if flow.icmp_type == 128 else ICMPv6EchoReply)(id=number)
            packet[ICMPv6EchoRequest if flow.icmp_type == 128 else ICMPv6EchoReply].type = flow.icmp_type
    assert flow.source_mac is not None
    assert flow.destination_mac is not None
    return bytes(Ether(src=flow.source_mac.hex(":"), dst=flow.destination_mac.hex(":")) / packet / payload)


def numbers_in(frames: list[bytes]) -> set[int]:
    found = set()
    for frame in frames:
        at = frame.find(MARK)
        if at >= 0:
            found.add(struct.unpack_from(">I", frame, at + len(MARK))[0])
    return found


def restore(host: Namespace, program: str, text: str) -> None:
    host.run([program, "--noflush"], stdin=text)


def install(host: Namespace, spec: FilterSpec, variant: str) -> None:
    for version, family in ((4, "iptables"), (6, "ip6tables")):
        saved = parse_saved(host.run([f"{family}-{variant}-save", "-c", "-t", "filter"]).stdout, "lab")
        restore(host, f"{family}-{variant}-restore", install_text(render(spec, STATIONS, version), saved))


def send(guest: Guest, frames: list[bytes]) -> None:
    guest.run([sys.executable, "-c", SEND], stdin="".join(f"{frame.hex()}\n" for frame in frames))


@pytest.mark.parametrize("variant", ["nft", "legacy"])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_kernel_passes_exactly_the_frames_that_explain_says_it_passes(
    lab: Callable[..., Lab], variant: str, seed: int
) -> None:
    opened, spec = lab(), FilterSpec("lab", "tap-lab", "br-lab", OWN, config())
    host = opened.add_host()
    remote, local = opened.add_guest(host, "tap-lab"), opened.add_guest(host, "g2")
    install(host, spec, variant)
    chance = random.Random(seed)
    flows = [random_flow(chance, number) for number in range(400)]
    frames = [frame_of(flow, number) for number, flow in enumerate(flows)]
    passed: set[int] = set()
    for direction, sender, receiver in ((Direction.IN, remote, local), (Direction.OUT, local, remote)):
        with opened.capture(receiver, "eth0") as capture:
            send(
                sender,
                [frame for flow, frame in zip(flows, frames, strict=True) if flow.direction is direction],
            )
        assert capture.dropped == 0
        passed |= numbers_in(capture.frames())
    wrong = [
        f"{flow}: kernel {'passed' if number in passed else 'dropped'}, explain says {verdict.action} by {verdict.label}"
        for number, flow in enumerate(flows)
        if (verdict := explain(spec.config, OWN, flow)).accepted != (number in passed)
    ]
    assert not wrong, f"seed {seed}: {len(wrong)} of {len(flows)}:\n" + "\n".join(wrong[:20])
    assert 100 < len(passed) < 320  # the table is one that decides both ways


def test_a_station_that_moved_is_judged_by_its_new_peer(lab: Callable[..., Lab]) -> None:
    opened, spec = lab(), FilterSpec("lab", "tap-lab", "br-lab", OWN, config())
    host = opened.add_host()
    remote, local = opened.add_guest(host, "tap-lab"), opened.add_guest(host, "g2")
    install(host, spec, "nft")
    base = Flow(
        Direction.IN, 6, ip_address("10.9.3.1"), ip_address("10.9.0.9"), 1, 7000,
        source_mac=REMOTE[2], destination_mac=LOCAL[1],
    )  # fmt: skip
    moved: dict[MacAddress, str] = {**STATIONS, REMOTE[2]: "gamma"}
    outcomes = []
    for number, stations in enumerate((STATIONS, moved)):
        for version, family in ((4, "iptables"), (6, "ip6tables")):
            restore(host, f"{family}-restore", maps_text(render_maps(spec, stations, version)))
        flow = replace(base, source_port=number + 1, peer=stations[REMOTE[2]])
        with opened.capture(local, "eth0") as capture:
            send(remote, [frame_of(flow, number)])
        outcomes.append(number in numbers_in(capture.frames()))
        assert outcomes[-1] == explain(spec.config, OWN, flow).accepted
    assert outcomes == [False, True]


# What hides IP, and what comes before it: the lists of `inet` against this kernel.


def behind(kind: int, number: int) -> bytes:
    """A frame of this EtherType with an IPv4 packet behind it that no rule accepts."""
    flow = Flow(
        Direction.IN, 6, ip_address("10.9.2.1"), ip_address("10.9.0.9"), 1, 22,
        source_mac=REMOTE[2], destination_mac=LOCAL[1], peer=STATIONS.get(REMOTE[2]),
    )  # fmt: skip
    whole = frame_of(flow, number)
    between = struct.pack("!HH", 0, 0x0021) if kind == inet.PPPOE_SESSION else struct.pack("!HH", 5, 0x0800)
    return whole[:12] + kind.to_bytes(2) + between + whole[14:]


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_kernel_gate_and_explain_agree_about_every_tag(lab: Callable[..., Lab], variant: str) -> None:
    opened, spec = lab(), FilterSpec("lab", "tap-lab", "br-lab", OWN, config())
    host = opened.add_host()
    remote, local = opened.add_guest(host, "tap-lab"), opened.add_guest(host, "g2")
    install(host, spec, variant)
    kinds = [*inet.HIDE_IP, inet.PPPOE_DISCOVERY]
    with opened.capture(local, "eth0") as capture:
        send(remote, [behind(kind, number) for number, kind in enumerate(kinds)])
    assert numbers_in(capture.frames()) == set(range(len(kinds)))  # the kernel looks into none of them
    for number, kind in enumerate(kinds):
        for tagged in (Action.DROP, Action.ACCEPT):
            gate = FilterGate(lambda: None)
            gate.configure((), {}, out=False, refuse_tagged=tagged is Action.DROP)
            admitted = gate.admit_in(plain(behind(kind, number)), Port(b"P" * 32)) is None
            (said,) = explain_text(
                replace(spec.config, tagged=tagged), OWN, behind(kind, number).hex(), PEERS, lambda _: None
            )
            assert (said["action"] == "accept") is admitted
            assert admitted is (tagged is Action.ACCEPT or kind == inet.PPPOE_DISCOVERY)


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_kernel_and_explain_agree_about_every_extension_header(lab: Callable[..., Lab], variant: str) -> None:
    """UDP from port 53 is accepted and TCP to port 22 dropped, if the kernel sees that it is UDP or TCP."""
    opened, spec = lab(), FilterSpec("lab", "tap-lab", "br-lab", OWN, config())
    host = opened.add_host()
    remote, local = opened.add_guest(host, "tap-lab"), opened.add_guest(host, "g2")
    install(host, spec, variant)
    frames, passes = list[bytes](), list[bool]()
    kernel = NF_TABLES if variant == "nft" else LEGACY
    for kind in sorted(inet.EXTENSION_HEADERS):
        for upper in (UDP(sport=53, dport=1000), TCP(sport=1, dport=22, flags="S")):
            number = len(frames)
            body = bytes([17 if UDP in upper else 6, 1 if kind == inet.AUTHENTICATION else 0, *bytes(6)])
            body += bytes(4) if kind == inet.AUTHENTICATION else b""
            ip = IPv6(src=f"fd09:3::{number + 1:x}", dst="fd09::9", nh=kind)
            payload = MARK + struct.pack(">I", number)
            frame = bytes(
                Ether(src=REMOTE[2].hex(":"), dst=LOCAL[1].hex(":")) / ip / Raw(body) / upper / payload
            )
            (flow,) = parse_flows(frame.hex() + " in", OWN, PEERS, lambda _: None, kernel)
            frames.append(frame)
            passes.append(explain(spec.config, OWN, flow).accepted)
    with opened.capture(local, "eth0") as capture:
        send(remote, frames)
    passed = numbers_in(capture.frames())
    assert [number in passed for number in range(len(frames))] == passes
    assert any(passes)
    assert not all(passes)
