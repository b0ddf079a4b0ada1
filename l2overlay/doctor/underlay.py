"""Checks of the node, its peers, the way of its datagrams, and this host's own way back into the segment."""

from collections.abc import Iterator

from l2overlay.doctor.filtering import check_underlay_firewall
from l2overlay.doctor.finding import Finding, Severity
from l2overlay.doctor.view import HostView, PeerView, RouteView

BASE_DATAGRAM = 1200
"""Bytes of the smallest datagram that a path must carry (docs/protocol.md, Path MTU)."""
UDP_OVERHEAD = {4: 28, 6: 48}
STRICT, LOOSE = "1", "2"

MAX_STAMP_LEAD = 300.0
"""Seconds: the note of a stamp reaches 120 s ahead of it, and a killed node goes on from there."""
DEFAULT_QUEUE, LONG_QUEUE = 2000, 4000
"""Frames that may wait in a TAP: what a node sets (`TAP_QUEUE`), and what a host with memory to spare can afford."""


def check_node(view: HostView) -> Iterator[Finding]:
    """Whether a node runs, and its own troubles."""
    segment = view.segment
    if segment.no_node:
        yield Finding(
            cause="no-node",
            severity=Severity.ERROR,
            text=f"no node of {segment.name or segment.bridge} answers: nothing crosses to other hosts",
            proof=(segment.no_node,),
            fix=(segment.join,) if segment.join else (),
        )
    if segment.node is None:
        return
    for trouble in segment.node.troubles:
        if not trouble.startswith("peer ") and not trouble.endswith("more peers are down"):
            proof = ("l2overlay status: " + trouble,)
            yield Finding("node-degraded", Severity.ERROR, f"the node is degraded: {trouble}", proof)


def check_peers(view: HostView) -> Iterator[Finding]:
    """Peers that are down although the node can call them."""
    shut = [f for f in check_underlay_firewall(view) if f.severity is Severity.ERROR]
    for peer in view.segment.peers:
        if peer.up is False and peer.left:
            text = f"peer {peer.name} has left: its node was stopped there"
            yield Finding("peer-left", Severity.WARNING, text, (f"l2overlay peers: {peer.name} left",))
        elif peer.up is False and peer.host is not None:
            where = f"{peer.host}:{peer.port}" if ":" not in peer.host else f"[{peer.host}]:{peer.port}"
            yield Finding(
                cause="peer-down",
                severity=Severity.ERROR,
                text=f"peer {peer.name} ({where}) is down: {peer.reason or 'no session'}",
                proof=(f"l2overlay peers: {peer.name} down, {peer.reason or 'no session'}",),
                advice=_advice_for_silence(view, peer, where, shut=bool(shut)),
            )


def _advice_for_silence(view: HostView, peer: PeerView, where: str, *, shut: bool) -> str:
    if shut:
        return "this host's own firewall drops the node's datagrams, as said here too: open that first"
    node = view.segment.node
    told = [text for text, _ in node.refused] if node is not None else []
    if any(text.startswith(f"{where} ") or f"({where})" in text for text in told):
        return f"{where} is heard: the cause is what is said of its handshakes here, too"
    return (
        f"on {peer.name}: is its node running, is UDP port {peer.port} open? 'l2overlay status' there "
        "says when it refuses this node: another key, psk, suite, segment name, or a clock that is behind"
    )


def check_refused(view: HostView) -> Iterator[Finding]:
    """Callers that get no session."""
    for text, stanza in view.segment.node.refused if view.segment.node is not None else ():
        yield Finding(
            cause="handshake-refused",
            severity=Severity.WARNING,
            text=text,
            proof=("l2overlay status: refused",),
            advice=f"or paste into peers.toml:\n{stanza.rstrip()}" if stanza else "",
        )


def check_clock(view: HostView) -> Iterator[Finding]:
    """A clock that was set back, or a stamp from a clock that was ahead."""
    lead = view.segment.node.stamp_lead if view.segment.node is not None else 0.0
    if lead > MAX_STAMP_LEAD:
        yield Finding(
            cause="clock-or-stamp",
            severity=Severity.WARNING,
            text=f"clock or stamp: this host's clock is {lead:.0f} s behind the stamp of the node's last handshake",
            proof=(f"l2overlay status: stamp_lead {lead:.0f}",),
            advice="set the clock (timedatectl) and let NTP keep it, and keep the stamp files: the node goes on by them, "
            "but without them its peers refuse it until the clock has passed the stamp",
        )


def check_losses(view: HostView) -> Iterator[Finding]:
    """Full queues in front of the node, which only the kernel's counters show."""
    node, tap = view.segment.node, view.segment.tap or "the TAP"
    lost = node.lost if node is not None else {}
    if count := lost.get("tap_overflow", 0):
        yield Finding(
            cause="tap-overflow",
            severity=Severity.WARNING,
            text=f"the queue of {tap} was full: {count} frames of this host's side were lost since the node started",
            proof=(f"l2overlay status: {count} tap_overflow", f"ip -s link show {tap}: TX dropped"),
            fix=(("ip", "link", "set", tap, "txqueuelen", str(LONG_QUEUE)),),
            undo=(("ip", "link", "set", tap, "txqueuelen", str(DEFAULT_QUEUE)),),
            advice="if that goes on, the node gets too little processor time: see CPUWeight= and nice in operations.md",
        )
    if count := lost.get("receive_overflow", 0):
        yield Finding(
            cause="receive-overflow",
            severity=Severity.WARNING,
            text=f"the node's UDP socket was full: {count} datagrams of peers were lost since it started",
            proof=(f"l2overlay status: {count} receive_overflow",),
            advice="the node gets too little processor time: see CPUWeight= and nice in operations.md",
        )


def check_tunnelled_tunnel(view: HostView) -> Iterator[Finding]:
    """Datagrams to a peer must not enter the TAP that they come from.

    Entering the bridge is no fault: a host with one NIC has its address there, and the next hop is behind the NIC.
    """
    for route in view.routes:
        severity = _comes_back(view, route)
        if severity is None:
            continue
        names = [peer.name for peer in view.segment.peers if peer.host == route.host]
        proof = [f"ip route get {route.host}: dev {route.link}"]
        if route.station:
            proof.append(f"next hop {route.station}: not behind another port of {view.segment.bridge}")
        yield Finding(
            cause="tunnelled-tunnel",
            severity=severity,
            text=f"datagrams to {', '.join(names) or route.host} would leave by {route.link}, "
            "into the segment that they carry",
            proof=tuple(proof),
            advice=f"give {route.host} a route by the underlay (ip route add {route.host} via GATEWAY)",
        )


def _comes_back(view: HostView, route: RouteView) -> Severity | None:
    """How sure it is that the next hop is behind the TAP. If nobody heard it, it may be behind a NIC of the bridge."""
    if route.link == view.segment.tap:
        return Severity.ERROR
    if route.link != view.segment.bridge:
        return None
    heard = [station.link for station in view.stations if station.mac == route.station]
    if heard:
        return Severity.ERROR if view.segment.tap in heard else None
    others = [port for port in view.ports if port.name != view.segment.tap]
    if not others:
        return Severity.ERROR
    return None if any(not port.kind for port in others) else Severity.WARNING


def check_underlay_mtu(view: HostView) -> Iterator[Finding]:
    """The underlay must carry the base datagram."""
    small: dict[str, tuple[int, int]] = {}
    for route in view.routes:
        least = BASE_DATAGRAM + UDP_OVERHEAD[6 if ":" in route.host else 4]
        if route.mtu < least:
            small[route.link] = (route.mtu, max(least, small.get(route.link, (0, 0))[1]))
    for link, (mtu, least) in small.items():
        present = view.link(link)
        by_link = present is None or present.mtu == mtu
        yield Finding(
            cause="underlay-mtu",
            severity=Severity.ERROR,
            text=f"the underlay by {link} carries {mtu} bytes, a node needs {least}: no datagram of full size arrives",
            proof=(f"{link}: mtu {mtu}" if by_link else f"ip route: mtu {mtu} dev {link}",),
            fix=(("ip", "link", "set", link, "mtu", str(least)),) if by_link else (),
            undo=(("ip", "link", "set", link, "mtu", str(mtu)),) if by_link else (),
            advice="if the link behind it cannot carry that, the path cannot be used",
        )


def check_reverse_path(view: HostView) -> Iterator[Finding]:
    """rp_filter = 1 drops what comes in by the bridge if the answer would leave by another link (RFC 3704)."""
    bridge = view.bridge
    if bridge is None or not any(a.version == 4 for a in bridge.addresses):
        return
    own, every = (view.sysctls.get(f"net.ipv4.conf.{name}.rp_filter", "0") for name in (bridge.name, "all"))
    if max(own, every) != STRICT:
        return
    astray = [r for r in view.returns if r.link != bridge.name]
    drops = view.reverse_path_drops
    growing = len(drops) > 1 and drops[-1] > drops[0]
    if not astray and not growing:
        return
    name = "all" if own < every else bridge.name
    yield Finding(
        cause="rp-filter",
        severity=Severity.ERROR if astray else Severity.WARNING,
        text=f"rp_filter is strict on {bridge.name}"
        + (
            f" and the way back to {astray[0].host} is by {astray[0].link}: what stations send to this host is dropped"
            if astray
            else " and the kernel drops datagrams by it just now"
        ),
        proof=(
            f"net.ipv4.conf.{name}.rp_filter = {STRICT}",
            *(f"ip route get {route.host}: dev {route.link}" for route in astray[:3]),
            f"TcpExt IPReversePathFilter {' then '.join(map(str, drops))}",
        ),
        fix=(_rp_filter(bridge.name, LOOSE),),
        undo=(_rp_filter(bridge.name, own),),
        is_safe=True,
        advice="or mend the routes: two links of this host have the same network" if astray else "",
    )


def _rp_filter(link: str, value: str) -> tuple[str, ...]:
    return ("sysctl", "-w", f"net.ipv4.conf.{link}.rp_filter={value}")
