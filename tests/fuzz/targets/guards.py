"""Structured and broken frames through guards, storm control, gate and `filter explain`: no reader raises, no router
advertisement or DHCP answer reaches a host, however it is tagged, extended, padded and cut into fragments, and no port
floods more than its buckets hold.
"""

import contextlib
import itertools
import random
from collections.abc import Callable

from l2overlay import inet
from l2overlay.addresses import PeerKey
from l2overlay.config.read import parse_config
from l2overlay.config.types import Party, ProtectConfig, StormConfig, StormLimit
from l2overlay.dataplane.ethernet import VIRTIO_LEN, plain
from l2overlay.dataplane.fdb import LOCAL, Port
from l2overlay.dataplane.gate import FilterGate
from l2overlay.dataplane.protect.guards import Guards
from l2overlay.dataplane.protect.storm import PEER_MARGIN, QUIET_LIMIT, StormControl
from l2overlay.errors import UsageError
from l2overlay.filter.words import explain_text
from tests.fuzz.corpus import FILTERED
from tests.fuzz.mutation import mutate_bytes

OWN, PEER = PeerKey(b"O" * 32), Port(b"P" * 32)
STATION, GROUP = bytes.fromhex("525400000001"), bytes.fromhex("333300000001")
FAR, ALL_NODES = bytes.fromhex("fe80" + "00" * 13 + "01"), bytes.fromhex("ff02" + "00" * 13 + "01")
HEADERS = (inet.HOP_BY_HOP, inet.ROUTING, inet.AUTHENTICATION, inet.DESTINATION_OPTIONS, 135, 139, 140)
ADVERTISEMENT = bytes((134, 0, 0, 0, 64, 0, 7, 8)) + bytes(8)
DHCPV6 = (547).to_bytes(2) + (546).to_bytes(2) + bytes((0, 30, 0, 0, 2)) + bytes(21)
RATE = 20.0
"""Frames a second that one port may flood, in each class."""
LONGEST_FLOOD = 60.0
"""Seconds of its own time; then the next begins."""
DHCP = (67).to_bytes(2) + (68).to_bytes(2) + bytes((1, 8, 0, 0, 2, 1, 6)) + bytes(240)


def make(chance: random.Random) -> Callable[[], None]:
    """One packet that must not arrive, and one mutated frame for all readers."""
    nobody = ProtectConfig(dhcp_servers=Party(), router_advertisements=Party())
    refusing, asking = Guards(nobody, OWN), Guards(ProtectConfig(arp_spoof_guard=True), OWN)
    config = parse_config(FILTERED, "peers.toml", base_dir=None)
    assert config.filter is not None
    names, gate = tuple(peer.name for peer in config.peers), FilterGate(lambda: None)
    filtering, flood = config.filter, _Flood(chance)

    def iterate() -> None:
        frames = _hidden(chance)
        port = chance.choice((LOCAL, PEER))
        assert not all(_passes(refusing, frame, port) for frame in frames), [frame.hex() for frame in frames]
        mutated = mutate_bytes(chance, chance.choice(frames), frames)
        for guard in (refusing, asking):
            _passes(guard, mutated, port)
            guard.refusals.clear()
        flood.send(mutated)
        gate.admit_in(plain(mutated), PEER)
        gate.admit_out(plain(mutated), chance.choice((None, PEER)))
        with contextlib.suppress(UsageError):
            explain_text(filtering, names[0], mutated.hex(), names, lambda _: None)

    return iterate


class _Flood:
    """What two ports send through one storm control, beside the most that its limits allow."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._begin()

    def _begin(self) -> None:
        limit = StormLimit(RATE, RATE * 100, 1.0)
        self._storms, self._now = StormControl(StormConfig(limit, limit, limit)), 0.0
        self._passed: dict[tuple[Port, int], int] = {}

    def send(self, frame: bytes) -> None:
        """Often the same station, as often a new one, with any virtio header; sometimes the storms end."""
        chance = self._chance
        if self._now > LONGEST_FLOOD:
            self._begin()
        self._now += chance.choice((0.0, 0.0, 0.001, 0.1, 5.0))
        frame = frame.ljust(14, b"\0")
        for _ in range(chance.choice((1, 1, 1, 200))):
            source = chance.choice((frame[6:12], b"\2" + chance.randbytes(5)))
            self._offer(_virtio(chance) + frame[:6] + source + frame[12:])
        assert all(storm.dropped for storm in self._storms.storms())
        self._storms.begun.clear()
        self._storms.ended(self._now)

    def _offer(self, frame: bytes) -> None:
        chance, size = self._chance, len(frame) - VIRTIO_LEN
        port = chance.choice((LOCAL, PEER))
        kind = 0 if not frame[10] & 1 else 1 if frame[10:16] == b"\xff" * 6 else 2
        if self._storms.refuse(frame, size, port, self._now) is None:
            self._passed[port, kind] = self._passed.get((port, kind), 0) + 1
        most = RATE * PEER_MARGIN * (self._now + 1) + QUIET_LIMIT * (self._now + 1) + 1
        assert self._passed.get((port, kind), 0) <= most, (frame.hex(), self._now)


def _virtio(chance: random.Random) -> bytes:
    if chance.random() < 0.6:
        return bytes(VIRTIO_LEN)
    return bytes((chance.choice((0, 1, 255)), chance.choice((0, 1, 3, 4, 5, 0x84, 255)))) + chance.randbytes(
        8
    )


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
        if kind == inet.AUTHENTICATION:
            header = header[: 4 * (units + 2)]  # RFC 4302 counts its length in words
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
