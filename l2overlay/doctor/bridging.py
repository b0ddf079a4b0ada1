"""Checks of the bridge: what keeps it from passing frames."""

from collections import defaultdict
from collections.abc import Iterator

from l2overlay.doctor.finding import Command, Finding, Severity
from l2overlay.doctor.view import HostView
from l2overlay.linux.state import LinkState

QEMU_DEFAULT_MAC = "52:54:00:12:34:56"
STP_LONG_DELAY = 4.0
"""Seconds. A port that comes up waits twice as long, and by then a guest's DHCP client has made its first tries."""
FLOODS = (
    ("bcast_flood", "bcast_flood", "broadcast, so no ARP and no DHCP"),
    ("mcast_flood", "mcast_flood", "multicast, so no IPv6 neighbour discovery"),
    ("flood", "flood", "unicast to stations that the bridge has not learned"),
)


def check_links(view: HostView) -> Iterator[Finding]:
    """The bridge and the TAP must exist, be up, and belong together."""
    name, tap_name, bridge, tap = view.segment.bridge, view.segment.tap, view.bridge, view.tap
    running = view.segment.node is not None
    if bridge is None:
        if running:
            yield _simple("no-bridge", f"there is no bridge {name}", f"ip link show {name}: no such link")
    elif bridge.bridge is None:
        yield _simple("no-bridge", f"{name} is not a bridge", f"{name}: kind {bridge.kind or 'none'}")
    elif not bridge.up:
        yield _down(bridge, "the bridge")
    if tap_name is None or (tap is None and not running):
        return
    if tap is None:
        yield _simple("no-tap", f"there is no TAP {tap_name}", f"ip link show {tap_name}: no such link")
        return
    if not tap.up:
        yield _down(tap, "the TAP")
    if bridge is not None and tap.master != name:
        yield Finding(
            cause="tap-outside",
            severity=Severity.ERROR,
            text=f"{tap.name} is not a port of {name}: nothing of the overlay reaches the bridge",
            proof=(f"{tap.name}: master {tap.master or 'none'}",),
            fix=(("ip", "link", "set", tap.name, "master", name),),
            undo=(
                ("ip", "link", "set", tap.name, *(("master", tap.master) if tap.master else ("nomaster",))),
            ),
            is_safe=not tap.master,
        )


def check_port_addresses(view: HostView) -> Iterator[Finding]:
    """An address on a port: the frames of a port go to the bridge, and never to the addresses of the port."""
    links = {link.name: link for link in (*view.ports, *([view.tap] if view.tap else []))}
    for port in links.values():
        own = [str(a) for a in port.addresses if not (a.version == 6 and a.ip.is_link_local)]
        if own:  # every link that is up has an fe80::, and no harm in it
            yield Finding(
                cause="port-address",
                severity=Severity.ERROR,
                text=f"{port.name} is a port of {view.segment.bridge} and has {', '.join(own)}: "
                "what is sent to it there never arrives; an address belongs on the bridge",
                proof=(f"{port.name}: inet {', '.join(own)}, master {port.master or 'none'}",),
                fix=tuple(c for address in own for c in _moved(address, port.name, view.segment.bridge)),
                advice=f"routes by {port.name} go with the address: do it where you are not logged in over it",
            )


def check_spanning_tree(view: HostView) -> Iterator[Finding]:
    """A port that does not forward, and STP, which lets every new port wait."""
    bridge = view.bridge
    if bridge is None or bridge.bridge is None:
        return
    for port in view.ports:
        if port.port is not None and port.up and port.carrier and port.port.state != "forwarding":
            yield _not_forwarding(port, bridge)
    delay = bridge.bridge.forward_delay
    if bridge.bridge.stp and delay > STP_LONG_DELAY:
        yield Finding(
            cause="stp-delay",
            severity=Severity.WARNING,
            text=f"{bridge.name} runs STP: a port that comes up is deaf for {2 * delay:g} s, and DHCP gives up",
            proof=(f"{bridge.name}: stp_state 1 forward_delay {delay:g} s",),
            fix=(
                (
                    "ip",
                    "link",
                    "set",
                    bridge.name,
                    "type",
                    "bridge",
                    "forward_delay",
                    str(int(STP_LONG_DELAY * 100)),
                ),
            ),
            undo=(
                (
                    "ip",
                    "link",
                    "set",
                    bridge.name,
                    "type",
                    "bridge",
                    "forward_delay",
                    str(round(delay * 100)),
                ),
            ),
            advice="the root bridge's delay counts for all; without loops between the sites STP can be off (stp_state 0)",
        )


def check_port_flags(view: HostView) -> Iterator[Finding]:
    """What `bridge link set` has switched off."""
    ports = [(link, link.port) for link in view.ports if link.port is not None]
    for link, port in ports:
        for flag, word, what in FLOODS:
            if not getattr(port, flag):
                yield _switched_off(link, word, f"{link.name} sends no {what}", Severity.ERROR)
        if not port.learning:
            text = f"{link.name} learns no stations: all that is for them floods every port and every peer"
            yield _switched_off(link, "learning", text, Severity.WARNING)
    tap = view.tap
    if tap is None or tap.port is None or not tap.port.isolated:
        return
    apart = [link for link, port in ports if port.isolated and link.name != tap.name]
    if apart:
        yield Finding(
            cause="port-flag",
            severity=Severity.ERROR,
            text=f"{tap.name} and {', '.join(p.name for p in apart)} are isolated ports: they exchange nothing",
            proof=tuple(f"{p.name}: isolated on" for p in (tap, *apart)),
            fix=(_bridge_link(tap, "isolated", "off"),),
            undo=(_bridge_link(tap, "isolated", "on"),),
            is_safe=True,
        )


def check_snooping(view: HostView) -> Iterator[Finding]:
    """With a querier anywhere, a snooping bridge keeps multicast from ports whose reports it has not heard."""
    bridge, tap = view.bridge, view.tap
    if bridge is None or bridge.bridge is None or tap is None or tap.port is None:
        return
    if not bridge.bridge.snooping or tap.port.mcast_router == 2:
        return
    querier = bridge.bridge.querier
    yield Finding(
        cause="snooping",
        severity=Severity.ERROR if querier else Severity.WARNING,
        text=f"{bridge.name} snoops on multicast and {tap.name} is no router port: "
        + ("with its querier on, " if querier else "as soon as a querier is on the LAN, ")
        + "IPv6 neighbour discovery and other multicast stay off the overlay",
        proof=(
            f"{bridge.name}: mcast_snooping 1 mcast_querier {int(querier)}",
            f"{tap.name}: mcast_router {tap.port.mcast_router}",
        ),
        fix=(_router_port(tap, 2),),
        undo=(_router_port(tap, tap.port.mcast_router),),
        is_safe=True,
    )


def check_vlans(view: HostView) -> Iterator[Finding]:
    """A bridge that filters VLANs lets a frame pass only if both ports are members of its VLAN."""
    bridge, tap = view.bridge, view.tap
    if bridge is None or bridge.bridge is None or not bridge.bridge.vlan_filtering:
        return
    if tap is None or tap.port is None:
        return
    wanted = {v for link in view.ports if link.port is not None for v in link.port.vlans}
    missing = sorted(wanted - tap.port.vlans)
    if missing:
        yield Finding(
            cause="vlan-filter",
            severity=Severity.ERROR,
            text=f"{bridge.name} filters VLANs, and {tap.name} is no member of {', '.join(map(str, missing))}: "
            "their frames stay off the overlay",
            proof=(f"{bridge.name}: vlan_filtering 1", f"{tap.name}: vlans {sorted(tap.port.vlans)}"),
            fix=tuple(("bridge", "vlan", "add", "dev", tap.name, "vid", str(v)) for v in missing),
            undo=tuple(("bridge", "vlan", "del", "dev", tap.name, "vid", str(v)) for v in missing),
            advice="only those VLANs that are meant to cross",
        )


def check_mtu(view: HostView) -> Iterator[Finding]:
    """A bridge silently drops frames that are larger than the MTU of the port by which they leave."""
    wanted = view.segment.mtu or max((port.mtu for port in view.ports), default=0)
    links, bridge = list(view.ports), view.bridge
    if bridge is not None and _has_address(bridge) and all(port.mtu >= wanted for port in view.ports):
        links.append(bridge)  # with a small port it is that port's fault: a bridge follows the least
    for link in links:
        if link.mtu != wanted:
            yield _mtu_finding(link, wanted)


def check_macs(view: HostView) -> Iterator[Finding]:
    """A MAC may be in one place only. The bridge may have that of a port, because it takes its own from there."""
    by_mac: dict[str, list[str]] = defaultdict(list)
    for port in view.ports:
        by_mac[port.mac].append(port.name)
    bridge, tap = view.bridge, view.tap
    for mac, names in by_mac.items():
        if len(names) > 1:
            proof = [f"{name}: {mac}" for name in names]
            yield _clash(mac, f"{' and '.join(names)} have the same MAC", proof, link=names[-1])
    if bridge is not None and tap is not None and bridge.mac == tap.mac and _has_address(bridge):
        proof = [f"{link.name}: {link.mac}" for link in (bridge, tap)]
        text = f"{bridge.name} has the MAC of {tap.name}, and gets another one when the TAP goes: its neighbours lose it"
        yield _clash(bridge.mac, text, proof, link=bridge.name, severity=Severity.WARNING)
    yield from _stations_in_two_places(view)


def _stations_in_two_places(view: HostView) -> Iterator[Finding]:
    own = {link.mac: link.name for link in (*view.ports, *([view.bridge] if view.bridge else []))}
    learned = {station.mac: station.link for station in view.stations if station.link != view.segment.tap}
    stations = view.segment.node.stations if view.segment.node is not None else {}
    remote = {mac: peer for mac, peer in stations.items() if peer is not None}
    for mac, peer in sorted(remote.items()):
        here = own.get(mac) or learned.get(mac)
        if here is not None:
            proof = [f"{here}: {mac}" if mac in own else f"bridge fdb: {mac} dev {here}"]
            proof += [f"l2overlay fdb: {mac} {peer}"]
            yield _clash(
                mac, f"{mac} is {here} here and behind {peer}: its frames go to whoever spoke last", proof
            )
    where = learned.get(QEMU_DEFAULT_MAC) or remote.get(QEMU_DEFAULT_MAC)
    if where is not None:
        text = f"a VM behind {where} has QEMU's default MAC, as every VM without mac= has"
        yield _clash(QEMU_DEFAULT_MAC, text, [f"{QEMU_DEFAULT_MAC} {where}"], severity=Severity.WARNING)


def _has_address(link: LinkState) -> bool:
    return any(not address.ip.is_link_local for address in link.addresses)


def _mtu_finding(link: LinkState, wanted: int) -> Finding:
    head = f"{link.name} has MTU {link.mtu}, the segment {wanted}: "
    is_small = link.mtu < wanted
    small = head + "larger frames to it vanish, so ping works and TCP hangs"
    return Finding(
        cause="mtu",
        severity=Severity.ERROR if is_small else Severity.WARNING,
        text=small if is_small else head + "what a guest sends larger than that does not cross",
        proof=(f"{link.name}: mtu {link.mtu}",),
        fix=(_mtu(link, wanted),),
        undo=(_mtu(link, link.mtu),),
        is_safe=is_small,
        advice="and inside the guest: its own MTU counts too"
        if is_small
        else f"inside the guest too, whose own MTU is what counts; or mtu = {link.mtu} in [segment] on every host",
    )


def _simple(cause: str, text: str, proof: str) -> Finding:
    advice = "a running node puts it right within a second; if it cannot, `l2overlay status` tells why"
    return Finding(cause, Severity.ERROR, text, (proof,), advice=advice)


def _down(link: LinkState, what: str) -> Finding:
    return Finding(
        cause="link-down",
        severity=Severity.ERROR,
        text=f"{what} {link.name} is down",
        proof=(f"{link.name}: not UP",),
        fix=(("ip", "link", "set", link.name, "up"),),
        undo=(("ip", "link", "set", link.name, "down"),),
        is_safe=True,
    )


def _not_forwarding(link: LinkState, bridge: LinkState) -> Finding:
    state = link.port.state if link.port is not None else ""
    with_stp = bridge.bridge is not None and bridge.bridge.stp
    if with_stp and state == "blocking":
        advice = "STP blocks it because there is a second path: find the loop before you open it"
    elif with_stp:
        advice = "STP lets it forward when its delay is over, or when its neighbours agree"
    else:
        advice = ""
    return Finding(
        cause="stp-port",
        severity=Severity.ERROR,
        text=f"{link.name} does not forward: {state}{' (STP)' if with_stp else ''}",
        proof=(f"{link.name}: state {state}", f"{bridge.name}: stp_state {int(with_stp)}"),
        fix=() if with_stp else (_bridge_link(link, "state", "forwarding"),),
        undo=() if with_stp else (_bridge_link(link, "state", state),),
        is_safe=not with_stp,
        advice=advice,
    )


def _switched_off(link: LinkState, word: str, text: str, severity: Severity) -> Finding:
    return Finding(
        cause="port-flag",
        severity=severity,
        text=text,
        proof=(f"{link.name}: {word} off",),
        fix=(_bridge_link(link, word, "on"),),
        undo=(_bridge_link(link, word, "off"),),
        is_safe=True,
    )


def _clash(
    mac: str, text: str, proof: list[str], link: str = "", severity: Severity = Severity.ERROR
) -> Finding:
    own = f"{mac[:15]}{(int(mac[15:], 16) + 1) % 256:02x}"
    fix: tuple[Command, ...] = (("ip", "link", "set", link, "address", own),) if link else ()
    undo: tuple[Command, ...] = (("ip", "link", "set", link, "address", mac),) if link else ()
    advice = "give each its own (QEMU: mac=52:54:00:XX:XX:XX on the -device)"
    return Finding("mac-clash", severity, text, tuple(proof), fix, undo, advice="" if link else advice)


def _bridge_link(link: LinkState, word: str, value: str) -> Command:
    states = {"disabled": "0", "listening": "1", "learning": "2", "forwarding": "3", "blocking": "4"}
    return ("bridge", "link", "set", "dev", link.name, word, states[value] if word == "state" else value)


def _router_port(tap: LinkState, value: int) -> Command:
    return ("ip", "link", "set", tap.name, "type", "bridge_slave", "mcast_router", str(value))


def _mtu(link: LinkState, mtu: int) -> Command:
    return ("ip", "link", "set", link.name, "mtu", str(mtu))


def _moved(address: str, link: str, bridge: str) -> tuple[Command, Command]:
    return ("ip", "address", "del", address, "dev", link), ("ip", "address", "add", address, "dev", bridge)
