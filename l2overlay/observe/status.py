"""What a node says about itself: the answers of `status`, `peers` and `fdb` as plain data for JSON.

Pure functions of the overlay and of what only the shell knows (`NodeFacts`). Bytes are integers, times are ages in
seconds, a station is lower-case hex with colons, a key base64. The names in here are an interface: a change that is
not an addition makes the schema's number grow.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from l2overlay.addresses import MacAddress, PeerKey, format_key, format_mac
from l2overlay.config.types import Config, Endpoint
from l2overlay.controlplane.overview import FdbEntry, PeerStatus
from l2overlay.controlplane.protection import LoopStatus, StormStatus
from l2overlay.counters import Counters, DropReason
from l2overlay.dataplane.wire import BASE_SIZE

STATUS_SCHEMA = "status/1"
PEERS_SCHEMA = "peers/1"
FDB_SCHEMA = "fdb/1"
KERNEL_LOSSES = {
    "tap_in": "the kernel did not take what the node wrote to the TAP, which was down or whose bridge had no room",
    "bridge_in": "for this host itself, at its bridge: nothing here speaks that protocol, or the host was too slow",
    "bridge_out": "sent by this host itself, at its bridge",
}
"""What the kernel drops in addition to the node's own drop reasons, and what each means."""
NAMED_TROUBLES = 8
"""At most so many peers that are down are named, because a list of a thousand hides what matters."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the shell knows, and the overlay does not."""

    name: str
    """The node's own name in peers.toml."""
    key: PeerKey
    pid: int
    uptime: float
    port: int
    """The UDP port of the node."""
    gso: bool
    gro: bool
    tap: str
    tap_mac: MacAddress
    tap_present: bool
    offload: bool
    """Super-frames on the TAP (checksum and segmentation offload)."""
    bridge: str
    bridge_ports: tuple[str, ...]
    bridge_adopted: bool
    """The bridge existed before the node, and stays when it leaves."""
    lag_p50: float
    lag_p99: float
    """Seconds by which tasks ran later than they had asked for, over the last minute."""
    blocked_count: int
    """How often the UDP socket was full and the TAP had to wait."""
    log_lines_lost: int
    linger: float = 0.0
    """Seconds after a lone frame in which the node stays quick for the next, by rehearsals."""
    rehearsal_count: int = 0
    troubles: tuple[str, ...] = ()
    """What is wrong on this host, one sentence each."""
    filter: Mapping[str, Any] | None = None
    """What the filter does; None if nothing is filtered."""
    unresolved: Mapping[PeerKey, tuple[str, float | None]] = field(default_factory=dict)
    """Why peers are down, as far as the shell knows (no such name, a closed port), and seconds until the next try."""
    loops: tuple[LoopStatus, ...] = ()
    storms: tuple[StormStatus, ...] = ()
    kernel_losses: Mapping[str, int] = field(default_factory=dict)
    """What the kernel lost at the TAP and at the bridge, by a name of `KERNEL_LOSSES`."""
    stamp_lead: float = 0.0
    """Seconds by which the stamps of INITs are ahead of the wall clock."""
    refused: tuple[dict[str, Any], ...] = ()
    """Handshakes that failed lately (`refusals.refused_data`)."""


def status_data(
    config: Config, facts: NodeFacts, counters: Counters, peers: Sequence[PeerStatus]
) -> dict[str, Any]:
    """The answer to `status`."""
    troubles = [
        *facts.troubles,
        *protection_troubles(config, facts),
        *mtu_troubles(config, peers),
        *peer_troubles(config, peers, facts.unresolved),
        *path_troubles(peers),
        *key_troubles(peers),
    ]
    return {
        "segment": config.segment.name,
        "node": facts.name,
        "public_key": format_key(facts.key),
        "state": "degraded" if troubles else "ok",
        "degraded": troubles,
        "pid": facts.pid,
        "uptime": round(facts.uptime, 3),
        "mtu": config.segment.mtu,
        "members": [peer.name for peer in config.peers],
        "addresses": {host: list(map(str, own)) for host, own in config.segment.addresses.items()},
        "suite": config.segment.suite.name.lower(),
        **_host_data(facts),
        "loop_lag": {"p50": round(facts.lag_p50, 6), "p99": round(facts.lag_p99, 6)},
        "linger": {"seconds": facts.linger, "rehearsals": facts.rehearsal_count},
        "log_lines_lost": facts.log_lines_lost,
        "peers_up": sum(p.up for p in peers),
        "peers_total": len(peers),
        "peers_awaited": sum(_is_awaited(config, p) for p in peers),
        "stamp_lead": round(facts.stamp_lead, 3),
        "refused": list(facts.refused),
        "peers": peers_data(config, peers, facts.unresolved),
        "counters": counters_data(counters),
        "drops": drops_data(counters, every=True),
        "kernel_losses": {name: facts.kernel_losses.get(name, 0) for name in KERNEL_LOSSES},
        **_protection_data(config, facts),
    }


def _host_data(facts: NodeFacts) -> dict[str, Any]:
    """What the node has on its host. `filter` is absent if nothing is filtered."""
    data: dict[str, Any] = {
        "tap": {
            "name": facts.tap,
            "mac": format_mac(facts.tap_mac),
            "present": facts.tap_present,
            "offload": facts.offload,
        },
        "bridge": {
            "name": facts.bridge,
            "ports": list(facts.bridge_ports),
            "adopted": facts.bridge_adopted,
        },
        "underlay": {
            "port": facts.port,
            "gso": facts.gso,
            "gro": facts.gro,
            "blocked": facts.blocked_count,
        },
    }
    return data if facts.filter is None else {**data, "filter": dict(facts.filter)}


def _protection_data(config: Config, facts: NodeFacts) -> dict[str, Any]:
    """Second paths that are cut now, and storms that go on."""
    return {
        "loops": [
            {
                "peer": _name_of(config, loop.peer),
                "carrier": _name_of(config, loop.carrier),
                "since": _seconds(loop.seconds),
            }
            for loop in facts.loops
        ],
        "storms": [
            {
                "peer": _name_of(config, storm.peer),
                "kind": storm.kind,
                "dropped": storm.dropped,
                "since": _seconds(storm.seconds),
            }
            for storm in facts.storms
        ],
    }


def peers_data(
    config: Config, peers: Iterable[PeerStatus], unresolved: Mapping[PeerKey, tuple[str, float | None]]
) -> list[dict[str, Any]]:
    """One object per peer, in the order of the file."""
    wanted = {p.public_key: p.endpoint for p in config.peers}
    return [peer_data(p, wanted.get(p.key), unresolved.get(p.key)) for p in peers]


def peer_data(
    peer: PeerStatus, configured: Endpoint | None, unresolved: tuple[str, float | None] | None
) -> dict[str, Any]:
    """One peer. If it is down, `reason` and `next_try` say why, and when it is tried again."""
    reason, next_try = (peer.reason, peer.next_try) if peer.up or unresolved is None else unresolved
    return {
        "name": peer.name,
        "public_key": format_key(peer.key),
        "endpoint": str(peer.endpoint or configured or "") or None,
        "configured_endpoint": str(configured) if configured else None,
        "up": peer.up,
        "state": "up" if peer.up else "down",
        "reason": "waits for its call" if _waits_for_call(peer, configured) else reason,
        "left": _seconds(peer.left),
        "mtu": peer.mtu or None,
        "next_try": _seconds(next_try),
        "rtt": _seconds(peer.rtt, 6),
        "last_heard": _seconds(peer.last_heard),
        "session_age": _seconds(peer.session_age),
        "datagram_size": peer.datagram_size,
        "path_too_small": peer.path_too_small,
        "cars": peer.cars,
        "stations": peer.stations,
        "queued_frames": peer.queued_frames,
        "counters": counters_data(peer.counters),
        "drops": drops_data(peer.counters, every=False),
    }


def stations_data(config: Config, stations: Iterable[FdbEntry]) -> list[dict[str, Any]]:
    """The filtering database: where each station is. `peer` is null on this host's side."""
    names = {p.public_key: p.name for p in config.peers}
    return [
        {
            "mac": format_mac(entry.mac),
            "vlan": entry.vlan,
            "peer": None if entry.peer is None else names.get(entry.peer, format_key(entry.peer)),
            "static": entry.static,
            "age": _seconds(entry.age),
        }
        for entry in stations
    ]


def counters_data(counters: Counters) -> dict[str, int]:
    """What was carried."""
    return {
        name: getattr(counters, name)
        for name in ("rx_frames", "rx_bytes", "rx_datagrams", "tx_frames", "tx_bytes", "tx_datagrams")
    }


def drops_data(counters: Counters, *, every: bool) -> dict[str, int]:
    """What was not delivered, by reason. `every` includes the reasons that have not occurred."""
    found = {reason.value: counters.drops.get(reason, 0) for reason in DropReason}
    return found if every else {reason: count for reason, count in found.items() if count}


def protection_troubles(config: Config, facts: NodeFacts) -> Iterator[str]:
    """Second paths that are cut, and storms that go on."""
    for loop in facts.loops:
        if loop.peer is None:
            yield "loop: the LAN of this host is a ring; nothing is flooded between it and the overlay"
            continue
        mate, carrier = _name_of(config, loop.peer), _name_of(config, loop.carrier)
        yield f"loop: a second path joins the LAN of this host with that of {mate}; {carrier} carries for both"
    for storm in facts.storms:
        where = _name_of(config, storm.peer) or "this host"
        yield f"storm: {storm.kind} from {where}; {storm.dropped} frames dropped in {storm.seconds:.0f} s"


def _name_of(config: Config, key: PeerKey | None) -> str | None:
    """A peer's name; None for the local side."""
    peer = None if key is None else config.peer(key)
    return None if key is None else peer.name if peer is not None else format_key(key)


def key_troubles(peers: Iterable[PeerStatus]) -> Iterator[str]:
    """A sentence for each key that two hosts have."""
    for peer in peers:
        if peer.two_hosts is not None:
            one, other = peer.two_hosts
            yield (
                f"one key on two hosts: {peer.name} answers at {one} and at {other} in turn; "
                "make a new key on one of them (l2overlay keygen)"
            )


def peer_troubles(
    config: Config, peers: Iterable[PeerStatus], unresolved: Mapping[PeerKey, tuple[str, float | None]]
) -> list[str]:
    """Peers that should be up and are not: those with an endpoint, which this node can call itself.

    A peer that said that it leaves is not among them.
    """
    wanted = {p.public_key: p.endpoint for p in config.peers}
    down = [p for p in peers if not p.up and p.left is None and (wanted.get(p.key) or p.endpoint)]
    named = [
        f"peer {p.name} ({p.endpoint or wanted.get(p.key)}) is down: "
        f"{unresolved[p.key][0] if p.key in unresolved else p.reason or 'no session'}"
        for p in down[:NAMED_TROUBLES]
    ]
    rest = len(down) - len(named)
    return [*named, f"{rest} more peers are down"] if rest else named


def path_troubles(peers: Iterable[PeerStatus]) -> list[str]:
    """Paths that carry small frames and lose larger ones."""
    small = [p for p in peers if p.up and p.path_too_small]
    named = [
        f"the path to peer {p.name} ({p.endpoint}) does not carry datagrams of {BASE_SIZE} bytes, so larger frames are "
        "lost: raise the MTU of the underlay (l2overlay doctor names a link of this host that is too small)"
        for p in small[:NAMED_TROUBLES]
    ]
    return (
        [*named, f"{len(small) - len(named)} more paths are too small"] if len(small) > len(named) else named
    )


def mtu_troubles(config: Config, peers: Iterable[PeerStatus]) -> list[str]:
    """Peers that are up, but whose segment has another MTU: the side with the smaller one loses large frames."""
    ours = config.segment.mtu
    odd = [p for p in peers if p.up and p.mtu and p.mtu != ours]
    named = [
        f"mtu: {p.mtu} at peer {p.name}, {ours} here; larger frames than {min(p.mtu, ours)} do not pass: "
        "make mtu in [segment] equal in both peers.toml, and restart the node whose file you changed"
        for p in odd[:NAMED_TROUBLES]
    ]
    rest = len(odd) - len(named)
    return [*named, f"mtu: {rest} more peers have another one"] if rest else named


def _is_awaited(config: Config, peer: PeerStatus) -> bool:
    stanza = config.peer(peer.key)
    return _waits_for_call(peer, stanza.endpoint if stanza is not None else None)


def _waits_for_call(peer: PeerStatus, configured: Endpoint | None) -> bool:
    """Only the peer can begin, because its address is neither configured nor known from before."""
    return not peer.up and peer.left is None and configured is None and peer.endpoint is None


def _seconds(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
