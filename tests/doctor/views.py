"""A host on which all is well, as the observer would see it; tests break one thing of it at a time."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_interface
from typing import Any

from l2overlay.doctor.nft_rules import parse_nft
from l2overlay.doctor.saved_rules import parse_saved
from l2overlay.doctor.view import (
    HostView,
    NodeView,
    PeerView,
    RouteView,
    SegmentView,
    StationView,
)
from l2overlay.linux.state import BridgeState, LinkState, PortState

NF_ON = {f"net.bridge.bridge-nf-call-{name}": "1" for name in ("iptables", "ip6tables", "arptables")}
LOOSE = {"net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.br-lan.rp_filter": "2"}
BRIDGE = LinkState(
    index=3,
    name="br-lan",
    mac="02:00:00:00:00:03",
    mtu=1500,
    kind="bridge",
    bridge=BridgeState(),
    addresses=(ip_interface("10.9.0.200/24"),),
)
TAP = LinkState(
    index=4,
    name="tap-lan",
    mac="fe:00:00:00:00:04",
    mtu=1500,
    kind="tun",
    master="br-lan",
    port=PortState(mcast_router=2),
    addresses=(ip_interface("fe80::1/64"),),
)
VM = LinkState(
    index=5, name="vm1", mac="fe:54:00:00:00:05", mtu=1500, kind="tun", master="br-lan", port=PortState()
)
UPLINK = LinkState(
    index=2, name="eth0", mac="52:54:00:00:00:02", mtu=1500, addresses=(ip_interface("192.0.2.1/24"),)
)
PEER = PeerView("beta", "192.0.2.2", 7470, up=True)
NODE = NodeView("alpha", stations={"52:54:00:aa:00:01": None, "52:54:00:aa:00:02": "beta"})
HEALTHY = HostView(
    segment=SegmentView("br-lan", "tap-lan", "lan", 1500, 7470, (PEER,), NODE),
    links=(UPLINK, BRIDGE, TAP, VM),
    sysctls={**NF_ON, **LOOSE},
    stations=(StationView("52:54:00:aa:00:01", "vm1"), StationView("52:54:00:aa:00:02", "tap-lan")),
    routes=(RouteView("192.0.2.2", "eth0", 1500),),
    returns=(RouteView("10.9.0.1", "br-lan", 1500),),
    reverse_path_drops=(0,),
)

Break = Callable[[HostView], HostView]


def with_link(name: str, **changes: Any) -> Break:
    """One link is another; `port_...` and `bridge_...` mean its parts."""

    def change(link: LinkState) -> LinkState:
        if link.name != name:
            return link
        plain = {k: v for k, v in changes.items() if not k.startswith(("port_", "bridge_"))}
        port = {k.removeprefix("port_"): v for k, v in changes.items() if k.startswith("port_")}
        bridge = {k.removeprefix("bridge_"): v for k, v in changes.items() if k.startswith("bridge_")}
        if port and link.port is not None:
            plain["port"] = replace(link.port, **port)
        if bridge and link.bridge is not None:
            plain["bridge"] = replace(link.bridge, **bridge)
        return replace(link, **plain)

    return lambda view: replace(view, links=tuple(change(link) for link in view.links))


def without_link(name: str) -> Break:
    return lambda view: replace(view, links=tuple(link for link in view.links if link.name != name))


def with_segment(**changes: Any) -> Break:
    return lambda view: replace(view, segment=replace(view.segment, **changes))


def with_view(**changes: Any) -> Break:
    return lambda view: replace(view, **changes)


def with_sysctls(**changes: str) -> Break:
    """`all_rp_filter="1"` and the like, by the last two parts of the name."""
    names = {
        "rp_filter": "net.ipv4.conf.br-lan.rp_filter",
        "nf_iptables": "net.bridge.bridge-nf-call-iptables",
    }
    return lambda view: replace(view, sysctls={**view.sysctls, **{names[k]: v for k, v in changes.items()}})


def with_saved(tool: str, *lines: str, table: str = "filter", later: tuple[str, ...] = ()) -> Break:
    """Rules as `TOOL-save -c` prints them."""

    def text(body: tuple[str, ...]) -> str:
        return "\n".join([f"*{table}", *body, "COMMIT", ""])

    return lambda view: replace(
        view,
        rulesets=(*view.rulesets, *parse_saved(tool, text(lines))),
        later=tuple(parse_saved(tool, text(later))) if later else (),
    )


def with_nft(text: str) -> Break:
    """Rules as `nft -a list ruleset` prints them."""
    return lambda view: replace(view, rulesets=(*view.rulesets, *parse_nft(text)))


def broken(*breaks: Break) -> HostView:
    view = HEALTHY
    for change in breaks:
        view = change(view)
    return view
