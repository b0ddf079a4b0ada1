"""The segment to look at, and what its peers.toml and its node say about it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from l2overlay.config.types import Config
from l2overlay.doctor.view import NodeView, PeerView, SegmentView

LOSSES = ("tap_overflow", "receive_overflow")
"""Drop reasons of a node that is too slow."""


def segment_of_bridge(bridge: str, tap: str | None) -> SegmentView:
    """A segment of which only names are known."""
    return SegmentView(bridge, tap)


def segment_of_config(config: Config, local_addresses: Iterable[str]) -> SegmentView:
    """The segment as peers.toml has it. The stanza of this host is the one whose endpoint is an address of this host."""
    local = set(local_addresses)
    own = next((p for p in config.peers if p.endpoint is not None and p.endpoint.host in local), None)
    peers = tuple(
        PeerView(p.name, p.endpoint.host if p.endpoint else None, p.endpoint.port if p.endpoint else None)
        for p in config.peers
        if p is not own
    )
    segment = config.segment
    port = segment.listen
    if own is not None and own.endpoint is not None and not segment.listen_address:
        port = own.endpoint.port
    return SegmentView(segment.bridge, segment.tap, segment.name, segment.mtu, port, peers)


def with_node(
    segment: SegmentView | None, status: Mapping[str, Any], stations: Iterable[Mapping[str, Any]]
) -> SegmentView:
    """The segment with what the running node says, which counts more than the file."""
    tap, bridge = status["tap"]["name"], status["bridge"]["name"]
    node = NodeView(
        name=status["node"],
        troubles=tuple(status["degraded"]),
        stations={station["mac"]: station["peer"] for station in stations},
        lost={name: status.get("drops", {}).get(name, 0) for name in LOSSES},
        stamp_lead=status.get("stamp_lead", 0.0),
        refused=tuple((entry["text"], entry["stanza"]) for entry in status.get("refused", ())),
    )
    return replace(
        segment or SegmentView(bridge, tap),
        bridge=bridge,
        tap=tap,
        name=status["segment"],
        mtu=status["mtu"],
        port=status["underlay"]["port"],
        peers=tuple(_peer(peer) for peer in status["peers"]),
        node=node,
        no_node="",
    )


def _peer(peer: Mapping[str, Any]) -> PeerView:
    """An endpoint is `192.0.2.1:7470`, `[2001:db8::1]:7470` or a name with a port."""
    host, _, port = (peer["endpoint"] or "").rpartition(":")
    return PeerView(
        name=peer["name"],
        host=host.strip("[]") or None,
        port=int(port) if port else None,
        up=peer["up"],
        reason=peer["reason"] or "",
        left=peer.get("left") is not None,
    )
