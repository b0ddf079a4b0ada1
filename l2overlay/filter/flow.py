"""What the filter reads of a frame: from a line of text, or from the bytes of the frame.

    tcp 10.9.0.1:1234 > 10.9.0.2:80 from beta
    udp [fd09::1]:53 > [fd09::2]:4000 to gamma established
    icmp 10.9.0.1 > 10.9.0.2 echo-request in
    tcp 10.9.0.1:1 > 10.9.0.2:2 mac 52:54:00:00:00:01 > 52:54:00:00:00:02 in
    525400000002 525400000001 0800 4500 ...            a frame in hex; the node knows where its stations are

The words after the frame or the 5-tuple may come in any order.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from l2overlay import inet
from l2overlay.addresses import MacAddress, parse_mac
from l2overlay.errors import FrameError, UsageError
from l2overlay.filter.model import (
    ACCEPTED_STATES,
    ICMP_NUMBER,
    ICMP_TYPES,
    NUMBERS,
    PORT_PROTOCOLS,
    STATES,
    Direction,
)
from l2overlay.suggestion import suggestion

WITH_PORTS = tuple(NUMBERS[name] for name in PORT_PROTOCOLS)
FLOW_STATES = (*STATES, *ACCEPTED_STATES)
"""States of a connection that a line of text may name."""
ETHERNET_HEADER_LEN = 14

NF_TABLES, LEGACY = "nf_tables", "legacy"
"""Variants of iptables, as `iptables --version` names them."""
WALKED_PAST = {NF_TABLES: inet.NF_TABLES_EXTENSION_HEADERS, LEGACY: inet.KERNEL_EXTENSION_HEADERS}
"""The IPv6 extension headers that each variant skips to find the protocol that a rule matches."""

IpAddress = IPv4Address | IPv6Address
Where = Callable[[MacAddress], str | None]
"""Returns the peer behind which a station was learned; None for an unknown station, or one on this host's side."""


@dataclass(frozen=True, slots=True)
class Flow:
    """One frame as the filter sees it. A field is None if it is unknown, or if the protocol has no such field."""

    direction: Direction
    protocol: int
    source: IpAddress
    destination: IpAddress
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    source_mac: MacAddress | None = None
    destination_mac: MacAddress | None = None
    peer: str | None = None
    """The peer at the overlay's end; None if the station there is behind no known peer."""
    state: str = "new"

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.source.version

    def __str__(self) -> str:
        names = {number: name for name, number in (*NUMBERS.items(), ("icmp", 1), ("icmp", 58))}
        protocol = names.get(self.protocol, f"protocol {self.protocol}")
        where = "from" if self.direction is Direction.IN else "to"
        end = f" {where} {self.peer}" if self.peer else f" {self.direction}"
        ends = f"{_end(self.source, self.source_port)} > {_end(self.destination, self.destination_port)}"
        kind = "" if self.icmp_type is None else f" type {self.icmp_type}"
        return f"{protocol} {ends}{kind}{end}"


class NotFilteredError(Exception):
    """Raised for a frame that iptables never sees. The text says why."""


def parse_flows(
    text: str, own: str, peers: tuple[str, ...], where: Where, variant: str = NF_TABLES
) -> list[Flow]:
    """Parse a description of a frame: returns one flow, or one for each direction if the text names none.

    `variant` is the variant of iptables. Raises UsageError, and NotFilteredError for a frame that iptables never sees.
    """
    words = text.replace(",", " ").split()
    hexadecimal = _hex_prefix(words)
    if hexadecimal is not None:
        frame, rest = hexadecimal
        try:
            flow = parse_frame_untrusted(frame, variant)
        except FrameError as error:
            raise UsageError(f"that is not a valid frame: {error}") from None
        return _located(flow, rest, own, peers, where)
    flow, rest = _five_tuple(words)
    return _located(flow, rest, own, peers, where)


def _end(address: IpAddress, port: int | None) -> str:
    if port is None:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


# Words


def _five_tuple(words: list[str]) -> tuple[Flow, list[str]]:
    if len(words) < 4 or words[2] != ">":
        raise UsageError("describe a frame as 'tcp 10.9.0.1:1234 > 10.9.0.2:80 from beta', or give it in hex")
    source, source_port = _address_and_port(words[1])
    destination, port = _address_and_port(words[3])
    if source.version != destination.version:
        raise UsageError(f"{source} and {destination} belong to different address families")
    protocol = _protocol(words[0], source.version)
    if protocol not in WITH_PORTS and (port is not None or source_port is not None):
        raise UsageError(f"{words[0]} has no ports")
    flow = Flow(Direction.IN, protocol, source, destination, source_port, port)
    if protocol not in ICMP_NUMBER.values():
        return flow, words[4:]
    kinds = [word for word in words[4:] if word in ICMP_TYPES]
    kind = ICMP_TYPES[kinds[0] if kinds else "echo-request"][source.version == 6]
    return replace(flow, icmp_type=kind), [word for word in words[4:] if word not in ICMP_TYPES]


def _protocol(word: str, version: int) -> int:
    if word in ("icmp", "icmpv6"):
        return ICMP_NUMBER[version]
    if word in NUMBERS:
        return NUMBERS[word]
    if word.isdigit() and 0 < int(word) < 255:
        return int(word)
    raise UsageError(f"no protocol {word!r}{suggestion(word, [*NUMBERS, 'icmp'])}")


def _address_and_port(word: str) -> tuple[IpAddress, int | None]:
    found = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]+))?|([0-9.]+):([0-9]+)|(.+)", word)
    assert found is not None  # the last alternative takes anything
    host, port = found[1] or found[3] or found[5], found[2] or found[4]
    try:
        address = ip_address(host)
    except ValueError:
        raise UsageError(f"{word!r} is not an address; write 10.9.0.1:80 or [fd09::1]:80") from None
    if port is not None and int(port) > 65535:
        raise UsageError(f"{word!r}: a port is at most 65535")
    return address, None if port is None else int(port)


def _located(flow: Flow, words: list[str], own: str, peers: tuple[str, ...], where: Where) -> list[Flow]:
    """Apply the words after the 5-tuple. If they name no direction, it follows from where the stations are."""
    direction: Direction | None = None
    rest = iter(words)
    for word in rest:
        if word in ("from", "to"):
            peer = _peer(next(rest, ""), own, peers)
            remote = peer != own
            direction = Direction.IN if remote == (word == "from") else Direction.OUT
            flow = replace(flow, peer=peer if remote else flow.peer)
        elif word in ("in", "out"):
            direction = Direction(word)
        elif word in FLOW_STATES:
            flow = replace(flow, state=word)
        elif word == "mac":
            flow = _with_macs(flow, [next(rest, "") for _ in range(3)])
        else:
            raise UsageError(
                f"{word!r} is not understood{suggestion(word, ['from', 'to', 'mac', *FLOW_STATES])}"
            )
    sides = {
        Direction.IN: where(flow.source_mac) if flow.source_mac else None,
        Direction.OUT: where(flow.destination_mac) if flow.destination_mac else None,
    }
    known = [side for side, peer in sides.items() if peer is not None]
    directions = [direction] if direction is not None else known or list(Direction)
    return [replace(flow, direction=side, peer=flow.peer or sides[side]) for side in directions]


def _peer(name: str, own: str, peers: tuple[str, ...]) -> str:
    if name not in peers:
        raise UsageError(f"no peer is named {name!r}{suggestion(name, peers)}; this host is {own}")
    return name


def _with_macs(flow: Flow, words: list[str]) -> Flow:
    if words[1] != ">":
        raise UsageError("write mac SOURCE > DESTINATION")
    try:
        return replace(flow, source_mac=parse_mac(words[0]), destination_mac=parse_mac(words[2]))
    except ValueError as error:
        raise UsageError(str(error)) from None


# Bytes


def _hex_prefix(words: list[str]) -> tuple[bytes, list[str]] | None:
    """The leading words of hex digits as bytes, and the words after them; None if they are shorter than a header."""
    digits = ""
    for position, word in enumerate(words):
        plain = word.removeprefix("0x").replace(":", "").replace("-", "")
        if not re.fullmatch(r"[0-9A-Fa-f]+", plain):
            words = words[position:]
            break
        digits += plain
    else:
        words = []
    if len(digits) < 2 * ETHERNET_HEADER_LEN:
        return None
    if len(digits) % 2:
        raise UsageError("a frame in hex needs two digits per byte, and this one has an odd number of digits")
    return bytes.fromhex(digits), words


def parse_frame_untrusted(frame: bytes, variant: str = NF_TABLES) -> Flow:
    """Parse an Ethernet frame; the direction in the result is a placeholder. Raises FrameError and NotFilteredError."""
    if len(frame) < ETHERNET_HEADER_LEN:
        raise FrameError("shorter than an Ethernet header")
    kind = int.from_bytes(frame[12:14], "big")
    if kind in inet.HIDE_IP:
        raise NotFilteredError("tagged")
    packet = frame[ETHERNET_HEADER_LEN:]
    if kind == inet.IPV4:
        flow = _parse_ipv4(packet)
    elif kind == inet.IPV6:
        flow = _parse_ipv6(packet, WALKED_PAST[variant])
    else:
        raise NotFilteredError(f"EtherType 0x{kind:04x} is not IP")
    return replace(flow, destination_mac=MacAddress(frame[:6]), source_mac=MacAddress(frame[6:12]))


def _parse_ipv4(packet: bytes) -> Flow:
    """RFC 791, section 3.1."""
    header_len = (packet[0] & 15) * 4 if packet else 0
    if len(packet) < 20 or packet[0] >> 4 != 4 or not 20 <= header_len <= len(packet):
        raise FrameError("the IPv4 header is truncated or malformed")
    first = not int.from_bytes(packet[6:8], "big") & 0x1FFF
    flow = Flow(Direction.IN, packet[9], IPv4Address(packet[12:16]), IPv4Address(packet[16:20]))
    return _with_payload(flow, packet[header_len:] if first else b"")


def _parse_ipv6(packet: bytes, walked_past: Collection[int]) -> Flow:
    """RFC 8200, sections 3 and 4."""
    if len(packet) < 40 or packet[0] >> 4 != 6:
        raise FrameError("the IPv6 header is truncated or malformed")
    upper = inet.past_extension_headers(packet, 0, known=walked_past)
    if upper.protocol is None:
        raise FrameError("an IPv6 extension header is truncated")
    flow = Flow(Direction.IN, upper.protocol, IPv6Address(packet[8:24]), IPv6Address(packet[24:40]))
    return _with_payload(flow, packet[upper.at : inet.ipv6_end(packet, 0)] if upper.first else b"")


def _with_payload(flow: Flow, payload: bytes) -> Flow:
    """Add the ports or the ICMP type. A later fragment has neither (conntrack reassembles fragments before the rules)."""
    if flow.protocol in WITH_PORTS and len(payload) >= 4:
        return replace(
            flow,
            source_port=int.from_bytes(payload[:2], "big"),
            destination_port=int.from_bytes(payload[2:4], "big"),
        )
    if flow.protocol == ICMP_NUMBER[flow.version] and payload:
        return replace(flow, icmp_type=payload[0])
    return flow
