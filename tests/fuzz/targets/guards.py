"""Structured and broken frames through guards, gate and `filter explain`: no reader raises, and no router advertisement or
DHCP answer reaches a host, however it is tagged, extended, padded and cut into fragments.
"""

import contextlib
import itertools
import random
from collections.abc import Callable

from l2overlay import inet
from l2overlay.addresses import PeerKey
from l2overlay.config.read import parse_config
from l2overlay.config.types import Party, ProtectConfig
from l2overlay.dataplane.ethernet import plain
from l2overlay.dataplane.fdb import LOCAL, Port
from l2overlay.dataplane.gate import Gate
from l2overlay.dataplane.protect.guards import Guards
from l2overlay.errors import UsageError
from l2overlay.filter.words import explain_text
from tests.fuzz.corpus import FILTERED
from tests.fuzz.mutation import mutate_bytes

OWN, PEER = PeerKey(b"O" * 32), Port(b"P" * 32)
STATION, GROUP = bytes.fromhex("525400000001"), bytes.fromhex("333300000001")
FAR, ALL_NODES = bytes.fromhex("fe80" + "00" * 13 + "01"), bytes.fromhex("ff02" + "00" * 13 + "01")
HEADERS = (inet.HOP_BY_HOP, inet.ROUTING, inet.DESTINATION_OPTIONS, 135, 139, 140)
ADVERTISEMENT = bytes((134, 0, 0, 0, 64, 0, 7, 8)) + bytes(8)
DHCPV6 = (547).to_bytes(2) + (546).to_bytes(2) + bytes((0, 30, 0, 0, 2)) + bytes(21)
DHCP = (67).to_bytes(2) + (68).to_bytes(2) + bytes((1, 8, 0, 0, 2, 1, 6)) + bytes(240)


def make(chance: random.Random) -> Callable[[], None]:
    """One packet that must not arrive, and one mutated frame for all readers."""
    nobody = ProtectConfig(dhcp_servers=Party(), router_advertisements=Party())
    refusing, asking = Guards(nobody, OWN), Guards(ProtectConfig(arp_spoof_guard=True), OWN)
    config = parse_config(FILTERED, "peers.toml", base_dir=None)
    assert config.filter is not None
    names, gate = tuple(peer.name for peer in config.peers), Gate(lambda: None)
    filtering = config.filter

    def iterate() -> None:
        frames = _hidden(chance)
        port = chance.choice((LOCAL, PEER))
        assert not all(_passes(refusing, frame, port) for frame in frames), [frame.hex() for frame in frames]
        mutated = mutate_bytes(chance, chance.choice(frames), frames)
        for guard in (refusing, asking):
            _passes(guard, mutated, port)
            guard.refusals.clear()
        gate.admit_in(plain(mutated), PEER)
        gate.admit_out(plain(mutated), chance.choice((None, PEER)))
        with contextlib.suppress(UsageError):
            explain_text(filtering, names[0], mutated.hex(), names, lambda _: None)

    return iterate


def _passes(guard: Guards, frame: bytes, port: Port) -> bool:
    if port == LOCAL:
        return bool(guard.from_tap([plain(frame)], 0.0))
    return bool(guard.from_peer([(plain(frame),)], port, 0.0))


def _hidden(chance: random.Random) -> list[bytes]:
    """The frames of one packet that a rogue sends, in any order."""
    kind, packets = _ipv4(chance) if chance.random() < 0.3 else _ipv6(chance)
    head = (
        GROUP
        + STATION
        + b"".join(
            chance.choice(inet.TPIDS).to_bytes(2) + chance.randbytes(2)
            for _ in range(chance.choice((0, 0, 1, 2, 3)))
        )
    )
    if chance.random() < 0.1:
        head += (200).to_bytes(2) + b"\xaa\xaa\x03\0\0\0"
    frames = [head + kind.to_bytes(2) + packet for packet in packets]
    chance.shuffle(frames)
    return [frame + chance.randbytes(chance.choice((0, 0, 6, 40))) for frame in frames]


def _ipv6(chance: random.Random) -> tuple[int, list[bytes]]:
    upper, body = chance.choice(((inet.ICMPV6, ADVERTISEMENT), (inet.UDP, DHCPV6)))
    before, first = _chain(chance, upper, body)
    if chance.random() < 0.4:
        return inet.IPV6, [_with_header(first, before)]
    outer, parts = chance.choice((None, None, inet.HOP_BY_HOP)), _cut(chance, before)
    identifier, packets = chance.randbytes(4), []
    for at, part, more in parts:
        packet = bytes((first, 0)) + (at | more).to_bytes(2) + identifier + part
        if outer is not None:
            packet = bytes((inet.FRAGMENT, 0)) + bytes(6) + packet
        packets.append(_with_header(inet.FRAGMENT if outer is None else outer, packet))
    return inet.IPV6, packets


def _chain(chance: random.Random, upper: int, body: bytes) -> tuple[bytes, int]:
    """Up to four extension headers before `body`; and the number of the first."""
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        units = chance.choice((0, 0, 1, 7))
        kind, header = chance.choice(HEADERS), bytes((upper, units)) + bytes(6 + 8 * units)
        upper, body = kind, header + body
    return body, upper


def _with_header(first: int, payload: bytes) -> bytes:
    return b"\x60" + bytes(3) + len(payload).to_bytes(2) + bytes((first, 255)) + FAR + ALL_NODES + payload


def _ipv4(chance: random.Random) -> tuple[int, list[bytes]]:
    words = chance.choice((5, 5, 6, 15))
    packets = []
    for at, part, more in _cut(chance, DHCP) if chance.random() < 0.5 else [(0, DHCP, 0)]:
        head = bytes((0x40 | words, 0)) + (4 * words + len(part)).to_bytes(2) + b"\0\7"
        head += (
            (at // 8 | more << 13).to_bytes(2)
            + bytes((64, inet.UDP, 0, 0))
            + bytes((10, 9, 0, 1))
            + b"\xff" * 4
        )
        packets.append(head + bytes(4 * (words - 5)) + part)
    return inet.IPV4, packets


def _cut(chance: random.Random, payload: bytes) -> list[tuple[int, bytes, int]]:
    """Fragments: offset, part, and whether more follow."""
    places = sorted(
        {8 * chance.randint(1, max(1, len(payload) // 8 - 1)) for _ in range(chance.randint(1, 3))}
    )
    edges = [0, *(place for place in places if place < len(payload)), len(payload)]
    return [(start, payload[start:end], int(end < len(payload))) for start, end in itertools.pairwise(edges)]
