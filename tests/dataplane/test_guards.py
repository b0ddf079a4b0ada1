"""The guards as sentences: who may answer as a server or router, who may claim an address, and how nobody gets past them."""

import struct
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Advertise, DHCP6_Solicit
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    PadN,
)
from scapy.layers.l2 import ARP, LLC, SNAP, Dot1Q, Ether
from scapy.packet import Raw

from l2overlay import inet
from l2overlay.addresses import MacAddress, PeerKey, parse_mac
from l2overlay.config.types import Party, ProtectConfig
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import PROBE_GROUP, plain
from l2overlay.dataplane.fdb import LOCAL, Port
from l2overlay.dataplane.protect.guards import Guards, guards
from l2overlay.dataplane.protect.snooping import BINDING_TIME, Bindings

OWN, TRUSTED = PeerKey(b"O" * 32), PeerKey(b"T" * 32)
PEER, TRUSTED_PORT = Port(b"P" * 32), Port(TRUSTED)
ONE, TWO, THREE = (f"52:54:00:00:00:0{n}" for n in (1, 2, 3))
NOBODY = Party()
SERVER = Party(peers=frozenset({TRUSTED}), macs=frozenset({parse_mac(THREE)}))


def made(**config: Any) -> Guards:
    found = guards(ProtectConfig(**config), OWN)
    assert found is not None
    return found


def verdict(guard: Guards, frame: Any, port: Port = PEER, now: float = 0.0) -> DropReason | None:
    """What happens to one frame; both directions must agree."""
    data = plain(bytes(frame))
    guard.refusals.clear()
    passed = guard.from_tap([data], now) if port == LOCAL else guard.from_peer([(data,)], port, now)
    if passed:
        assert not guard.refusals
        return None
    return guard.refusals[0].why.reason


def offer(mac: str = ONE) -> Any:
    return (
        Ether(src=mac, dst="ff:ff:ff:ff:ff:ff")
        / IP(src="10.9.0.66", dst="255.255.255.255")
        / UDP(sport=67, dport=68)
        / BOOTP(op=2, yiaddr="10.9.0.7", chaddr=bytes.fromhex("525400000001"))
        / DHCP(options=[("message-type", "offer"), ("lease_time", 60), "end"])
    )


def advertise(mac: str = ONE) -> Any:
    return (
        Ether(src=mac, dst=TWO)
        / IPv6(src="fe80::1", dst="fe80::2")
        / UDP(sport=547, dport=546)
        / DHCP6_Advertise()
    )


def router(mac: str = ONE) -> Any:
    return (
        Ether(src=mac, dst="33:33:00:00:00:01") / IPv6(src="fe80::1", dst="ff02::1", hlim=255) / ICMPv6ND_RA()
    )


def says(mac: str, address: str, **fields: Any) -> Any:
    return Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ARP(
        op=2, hwsrc=fields.pop("hwsrc", mac), psrc=address, hwdst=mac, pdst=address, **fields
    )


def neighbour(mac: str, address: str, option: str | None = None) -> Any:
    head = Ether(src=mac, dst="33:33:00:00:00:01") / IPv6(src=address, dst="ff02::1", hlim=255)
    return head / ICMPv6ND_NA(tgt=address) / ICMPv6NDOptDstLLAddr(lladdr=option or mac)


# -- what asks for nothing -------------------------------------------------------------------------------------------


def test_no_guard_is_made_unless_one_is_asked_for() -> None:
    assert guards(None, OWN) is None
    assert guards(ProtectConfig(), OWN) is None


# -- DHCP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [offer, advertise])
def test_a_dhcp_server_that_is_not_listed_is_a_rogue(frame: Any) -> None:
    guard = made(dhcp_servers=SERVER)
    assert verdict(guard, frame()) is DropReason.ROGUE_DHCP
    assert verdict(guard, frame(), LOCAL) is DropReason.ROGUE_DHCP
    assert verdict(guard, frame(), TRUSTED_PORT) is None
    assert verdict(guard, frame(THREE)) is None
    assert verdict(made(dhcp_servers=Party(peers=frozenset({OWN}))), frame(), LOCAL) is None


def test_a_refusal_names_the_station_and_the_servers_address() -> None:
    guard = made(dhcp_servers=NOBODY)
    verdict(guard, offer())
    (refusal,) = guard.refusals
    assert (refusal.mac, refusal.port, refusal.why.detail) == (parse_mac(ONE), PEER, "from 10.9.0.66")


def test_a_server_that_sends_from_another_port_is_a_rogue_too() -> None:
    frame = offer()
    frame[UDP].sport = 1067
    assert verdict(made(dhcp_servers=NOBODY), frame) is DropReason.ROGUE_DHCP


def test_clients_are_never_refused() -> None:
    guard = made(dhcp_servers=NOBODY)
    request = Ether(src=ONE) / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / BOOTP()
    solicit = Ether(src=ONE) / IPv6(dst="ff02::1:2") / UDP(sport=546, dport=547) / DHCP6_Solicit()
    assert verdict(guard, request) is None
    assert verdict(guard, solicit) is None


def test_other_traffic_passes_and_only_super_frames_of_dhcp_are_stopped() -> None:
    guard = made(dhcp_servers=NOBODY, router_advertisements=NOBODY)
    tcp = Ether(src=ONE, dst=TWO) / IP(dst="10.9.0.1") / TCP(sport=67, dport=68) / bytes(100)
    dns = Ether(src=ONE, dst=TWO) / IP(dst="10.9.0.1") / UDP(sport=53, dport=68 + 256) / bytes(100)
    echo = Ether(src=ONE, dst=TWO) / IPv6(dst="fd00::1") / ICMPv6EchoRequest()
    assert [verdict(guard, frame) for frame in (tcp, dns, echo)] == [None, None, None]


# -- routers ---------------------------------------------------------------------------------------------------------


def test_a_router_that_is_not_listed_is_a_rogue() -> None:
    guard = made(router_advertisements=SERVER)
    redirect = Ether(src=ONE, dst=TWO) / IPv6(src="fe80::1", dst="fe80::2") / ICMPv6ND_Redirect()
    assert verdict(guard, router()) is DropReason.ROGUE_ROUTER
    assert verdict(guard, router(), LOCAL) is DropReason.ROGUE_ROUTER
    assert verdict(guard, redirect) is DropReason.ROGUE_ROUTER
    assert verdict(guard, router(), TRUSTED_PORT) is None
    assert verdict(guard, router(THREE)) is None
    solicitation = Ether(src=ONE) / IPv6(src="fe80::1", dst="ff02::2") / ICMPv6ND_RS()
    assert verdict(guard, solicitation) is None


HEAD = Ether(src=ONE, dst="33:33:00:00:00:01")
V6 = IPv6(src="fe80::1", dst="ff02::1", hlim=255)
HIDDEN = {
    "one tag": Ether(src=ONE, dst=TWO) / Dot1Q(vlan=0) / V6 / ICMPv6ND_RA(),
    "two tags": Ether(src=ONE, dst=TWO) / Dot1Q(vlan=0) / Dot1Q(vlan=0) / V6 / ICMPv6ND_RA(),
    "many tags": Ether(src=ONE, dst=TWO) / Dot1Q() / Dot1Q() / Dot1Q() / Dot1Q() / Dot1Q() / V6 / ICMPv6ND_RA(),
    "SNAP": Ether(src=ONE, dst=TWO, type=200) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=0x86DD) / V6 / ICMPv6ND_RA(),
    "SNAP in a tag": Ether(src=ONE, dst=TWO)
    / Dot1Q(type=200)
    / LLC(dsap=0xAA, ssap=0xAA, ctrl=3)
    / SNAP(code=0x86DD)
    / V6
    / ICMPv6ND_RA(),
    "an extension header": HEAD / V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / ICMPv6ND_RA(),
    "many extension headers": HEAD / V6 / b"".join(bytes((60, 0)) + bytes(6) for _ in range(20)),
    "an atomic fragment": HEAD / V6 / IPv6ExtHdrFragment(id=7, m=0, offset=0) / ICMPv6ND_RA(),
    "a fragment that ends before it": HEAD / V6 / IPv6ExtHdrFragment(nh=60, id=7, m=1, offset=0),
    "a fragment of headers only": HEAD
    / V6
    / IPv6ExtHdrFragment(nh=60, id=7, m=1, offset=0)
    / bytes((58, 0, 1, 4, 0, 0, 0, 0)),
}  # fmt: skip
HIDDEN["many extension headers"][IPv6].nh = 60


@pytest.mark.parametrize("how", HIDDEN)
@pytest.mark.parametrize("port", [LOCAL, PEER], ids=["tap", "peer"])
def test_a_router_cannot_hide_behind(how: str, port: Port) -> None:
    guard = made(router_advertisements=NOBODY)
    assert verdict(guard, HIDDEN[how], port) in (DropReason.ROGUE_ROUTER, DropReason.UNREADABLE)


def first_fragments() -> list[bytes]:
    """The first fragment of a packet whose destination options go on in the next one: bare, padded, padded to deceive."""
    options = bytes(IPv6ExtHdrDestOpt(nh=58, options=[PadN(optdata=bytes(60))]))
    packet = IPv6(src="fe80::1", dst="ff02::1", hlim=255) / IPv6ExtHdrFragment(nh=60, id=7, m=1, offset=0)
    first = bytes(packet / Raw(options[:8]))
    return [first, first + bytes(40), first + struct.pack("!HHHH", 53, 53, 8, 0) * 8]


@pytest.mark.parametrize("guard", [{"router_advertisements": NOBODY}, {"dhcp_servers": NOBODY}])
def test_a_first_fragment_whose_headers_go_on_in_the_next_is_unreadable(guard: dict[str, Any]) -> None:
    """RFC 7112, section 5: such a packet should be dropped. What pads the frame belongs to no header."""
    for part in first_fragments():
        frame = Ether(src=ONE, dst="33:33:00:00:00:01", type=0x86DD) / Raw(part)
        assert verdict(made(**guard), frame) is DropReason.UNREADABLE
        assert verdict(made(ethertypes_deny=frozenset([0x0842])), frame) is None


def test_the_padding_of_a_frame_is_no_header() -> None:
    """The packet ends where it says: a DHCPv6 answer must not hide as the fragment of a chain that ends in the padding."""
    ends = IPv6(src="fe80::1", dst="ff02::1", plen=8) / IPv6ExtHdrFragment(nh=17, id=7, m=1, offset=0)
    padded = Ether(src=ONE, dst=TWO) / ends / Raw(struct.pack("!HHHH", 1000, 2000, 8, 0))
    assert verdict(made(dhcp_servers=NOBODY), padded) is DropReason.UNREADABLE


@pytest.mark.parametrize("tpid", inet.TPIDS)
def test_every_tag_is_looked_through(tpid: int) -> None:
    inner = bytes(router())
    frame = inner[:12] + tpid.to_bytes(2) + b"\0\7" + inner[12:]
    assert verdict(made(router_advertisements=NOBODY), frame) is DropReason.ROGUE_ROUTER


def test_honest_fragments_pass() -> None:
    guard = made(router_advertisements=NOBODY, dhcp_servers=NOBODY)
    first = HEAD / V6 / IPv6ExtHdrFragment(nh=17, id=7, m=1, offset=0) / UDP(sport=1, dport=2) / bytes(100)
    later = HEAD / V6 / IPv6ExtHdrFragment(nh=58, id=7, m=0, offset=100) / bytes((134,)) / bytes(60)
    assert verdict(guard, first) is None
    assert verdict(guard, later) is None
    v4 = fragment(IP(dst="10.9.0.1") / UDP(sport=1000, dport=2000) / (b"\x00\x44" * 1000), fragsize=600)
    assert [verdict(guard, Ether(src=ONE, dst=TWO) / part) for part in v4] == [None] * len(v4)


def test_a_dhcp_reply_in_fragments_is_a_rogue_s_all_the_same() -> None:
    guard = made(dhcp_servers=NOBODY)
    parts = fragment(offer()[IP], fragsize=64)
    assert verdict(guard, Ether(src=ONE, dst=TWO) / parts[0]) is DropReason.ROGUE_DHCP


def test_a_frame_that_came_in_pieces_is_looked_at_whole() -> None:
    guard = made(router_advertisements=NOBODY)
    data = plain(bytes(HEAD / V6 / IPv6ExtHdrDestOpt(options=[]) / ICMPv6ND_RA()))
    assert guard.from_peer([(data[:70], data[70:])], PEER, 0.0) == []


# -- ARP and ND ------------------------------------------------------------------------------------------------------


def test_an_address_belongs_to_who_claims_it_first() -> None:
    guard = made(arp_spoof_guard=True)
    assert verdict(guard, says(ONE, "10.9.0.1"), LOCAL) is None
    assert verdict(guard, says(TWO, "10.9.0.1"), PEER) is DropReason.SPOOFED_ADDRESS
    assert guard.refusals[0].why.detail == "10.9.0.1"
    assert verdict(guard, says(TWO, "10.9.0.2"), PEER) is None
    assert verdict(guard, says(ONE, "10.9.0.1"), PEER) is None, "a station that moved keeps its address"


def test_an_address_that_nobody_claims_any_more_is_free_again() -> None:
    guard = made(arp_spoof_guard=True)
    verdict(guard, says(ONE, "10.9.0.1"), now=0.0)
    verdict(guard, says(ONE, "10.9.0.1"), now=100.0)
    assert verdict(guard, says(TWO, "10.9.0.1"), now=99.0 + BINDING_TIME) is DropReason.SPOOFED_ADDRESS
    assert verdict(guard, says(TWO, "10.9.0.1"), now=100.0 + BINDING_TIME) is None


def test_a_static_binding_holds_both_ways() -> None:
    guard = made(
        arp_spoof_guard=True, bindings={parse_mac(ONE): (ip_address("10.9.0.1"), ip_address("fd00::1"))}
    )
    assert verdict(guard, says(ONE, "10.9.0.1")) is None
    assert verdict(guard, neighbour(ONE, "fd00::1")) is None
    assert verdict(guard, neighbour(ONE, "fe80::1")) is None, "link-local addresses need not be listed"
    assert verdict(guard, says(ONE, "10.9.0.2")) is DropReason.SPOOFED_ADDRESS
    assert verdict(guard, says(TWO, "10.9.0.1")) is DropReason.SPOOFED_ADDRESS
    assert verdict(guard, neighbour(TWO, "fd00::1")) is DropReason.SPOOFED_ADDRESS
    assert verdict(guard, says(TWO, "10.9.0.2")) is None


def test_two_stations_may_share_an_address_that_is_bound_to_both() -> None:
    shared = (ip_address("10.9.0.1"),)
    guard = made(arp_spoof_guard=True, bindings={parse_mac(ONE): shared, parse_mac(TWO): shared})
    assert [verdict(guard, says(mac, "10.9.0.1")) for mac in (ONE, TWO)] == [None, None]
    assert verdict(guard, says(THREE, "10.9.0.1")) is DropReason.SPOOFED_ADDRESS


@pytest.mark.parametrize("hardware", [1, 6], ids=["Ethernet", "IEEE 802"])
def test_arp_in_the_name_of_another_station_is_refused(hardware: int) -> None:
    frame = bytearray(bytes(says(ONE, "10.9.0.1", hwsrc=TWO)))
    frame[15] = hardware
    assert verdict(made(arp_spoof_guard=True), frame) is DropReason.SPOOFED_ADDRESS


def test_looking_whether_an_address_is_free_claims_nothing() -> None:
    guard = made(arp_spoof_guard=True)
    probe = Ether(src=ONE) / ARP(op=1, hwsrc=ONE, psrc="0.0.0.0", pdst="10.9.0.1")
    dad = Ether(src=ONE) / IPv6(src="::", dst="ff02::1") / ICMPv6ND_NS(tgt="fd00::1")
    assert [verdict(guard, frame) for frame in (probe, dad)] == [None, None]
    assert verdict(guard, says(TWO, "10.9.0.1")) is None
    assert verdict(guard, neighbour(TWO, "fd00::1")) is None


def test_neighbour_discovery_is_held_to_the_same_claims() -> None:
    guard = made(arp_spoof_guard=True)
    assert verdict(guard, neighbour(ONE, "fd00::1")) is None
    assert verdict(guard, neighbour(TWO, "fd00::1")) is DropReason.SPOOFED_ADDRESS
    assert verdict(guard, neighbour(ONE, "fd00::1", option=TWO)) is DropReason.SPOOFED_ADDRESS
    solicitation = (
        Ether(src=TWO) / IPv6(src="fd00::1") / ICMPv6ND_NS(tgt="fd00::9") / ICMPv6NDOptSrcLLAddr(lladdr=TWO)
    )
    assert verdict(guard, solicitation) is DropReason.SPOOFED_ADDRESS


def test_a_second_option_with_another_address_hides_nothing() -> None:
    frame = neighbour(ONE, "fd00::1") / ICMPv6NDOptDstLLAddr(lladdr=TWO)
    assert verdict(made(arp_spoof_guard=True), frame) is DropReason.SPOOFED_ADDRESS


def test_padding_behind_a_message_is_no_option() -> None:
    frame = bytes(neighbour(ONE, "fd00::1")) + b"\x02\x01" + bytes(6) + bytes(10)
    assert verdict(made(arp_spoof_guard=True), frame) is None


@pytest.mark.parametrize("cut", [1, 10, 27])
def test_claims_that_are_cut_short_are_unreadable(cut: int) -> None:
    guard = made(arp_spoof_guard=True)
    whole = bytes(says(ONE, "10.9.0.1"))
    assert verdict(guard, whole[: 14 + 28 - cut]) in (DropReason.UNREADABLE, None)
    assert verdict(guard, says(TWO, "10.9.0.1")) is None, "what is cut short has bound nothing"


# -- DHCP leases -----------------------------------------------------------------------------------------------------


def acknowledge(address: str, mac: str, lease: int = 3600) -> Any:
    frame = offer()
    frame[BOOTP].yiaddr, frame[BOOTP].chaddr = address, parse_mac(mac)
    frame[DHCP].options = [("message-type", "ack"), ("lease_time", lease), "end"]
    return frame


def test_a_lease_gives_the_address_to_its_station_for_its_time() -> None:
    guard = made(arp_spoof_guard=True, dhcp_servers=SERVER)
    verdict(guard, says(TWO, "10.9.0.7"))
    assert verdict(guard, acknowledge("10.9.0.7", ONE), TRUSTED_PORT) is None
    assert verdict(guard, says(TWO, "10.9.0.7"), now=3599.0) is DropReason.SPOOFED_ADDRESS
    assert verdict(guard, says(ONE, "10.9.0.7"), now=3599.0) is None
    assert verdict(guard, says(TWO, "10.9.0.7"), now=3600.0) is None


def test_a_lease_of_a_rogue_gives_nothing() -> None:
    guard = made(arp_spoof_guard=True, dhcp_servers=SERVER)
    verdict(guard, says(TWO, "10.9.0.7"))
    verdict(guard, acknowledge("10.9.0.7", ONE), PEER)
    assert verdict(guard, says(TWO, "10.9.0.7")) is None


def test_leases_are_believed_only_where_dhcp_servers_are_listed() -> None:
    guard = made(arp_spoof_guard=True)
    verdict(guard, says(TWO, "10.9.0.7"))
    assert verdict(guard, acknowledge("10.9.0.7", ONE), TRUSTED_PORT) is None
    assert verdict(guard, says(ONE, "10.9.0.7")) is DropReason.SPOOFED_ADDRESS


# -- the table of bindings -------------------------------------------------------------------------------------------


def test_the_table_is_bounded_and_who_fills_it_pays_for_it() -> None:
    table = Bindings({}, max_entries=100)
    honest, thief = MacAddress(b"\x02" * 6), MacAddress(b"\x04" * 6)
    assert table.allows(b"\x0a\0\0\1", honest, LOCAL, 0.0)
    for n in range(10_000):
        assert table.allows(b"\x0b" + n.to_bytes(3, "big"), thief, PEER, 0.0)
    assert len(table) == 100
    assert not table.allows(b"\x0a\0\0\1", thief, PEER, 1.0)


def test_a_new_configuration_keeps_what_was_learned() -> None:
    old, mac = Bindings({}), MacAddress(b"\x02" * 6)
    old.allows(b"\x0a\0\0\1", mac, PEER, 0.0)
    old.allows(b"\x0a\0\0\2", mac, PEER, 0.0)
    other = MacAddress(b"\x04" * 6)
    new = Bindings({other: [b"\x0a\0\0\2"]})
    new.inherit(old)
    assert not new.allows(b"\x0a\0\0\1", MacAddress(b"\x06" * 6), PEER, 1.0)
    assert new.allows(b"\x0a\0\0\2", other, PEER, 1.0)


# -- EtherTypes ------------------------------------------------------------------------------------------------------


def test_only_listed_ethertypes_pass_also_behind_tags() -> None:
    guard = made(ethertypes_allow=frozenset({0x0800, 0x0806}))
    ip, v6 = Ether(src=ONE, dst=TWO) / IP(dst="10.9.0.1") / TCP(), Ether(src=ONE, dst=TWO) / IPv6() / TCP()
    assert verdict(guard, ip) is None
    assert verdict(guard, v6) is DropReason.ETHERTYPE_REFUSED
    assert guard.refusals[0].why.detail == "0x86dd"
    assert verdict(guard, Ether(src=ONE, dst=TWO) / Dot1Q(vlan=5) / IP() / TCP()) is None
    assert (
        verdict(guard, Ether(src=ONE, dst=TWO) / Dot1Q(vlan=5) / IPv6() / TCP())
        is DropReason.ETHERTYPE_REFUSED
    )
    assert verdict(guard, Ether(src=ONE, dst=TWO, type=60) / bytes(60)) is DropReason.ETHERTYPE_REFUSED


def test_denied_ethertypes_do_not_pass_and_all_others_do() -> None:
    guard = made(ethertypes_deny=frozenset({0x88CC, 0}))
    assert verdict(guard, Ether(src=ONE, dst=TWO, type=0x88CC) / bytes(60)) is DropReason.ETHERTYPE_REFUSED
    assert verdict(guard, Ether(src=ONE, dst=TWO, type=0x9999) / bytes(60)) is None
    assert (
        verdict(guard, Ether(src=ONE, dst=TWO, type=46) / LLC() / bytes(43)) is DropReason.ETHERTYPE_REFUSED
    )
    assert verdict(guard, router()) is None, "no other guard is on"


def test_the_loop_guards_probe_passes_whatever_is_listed() -> None:
    guard = made(ethertypes_allow=frozenset({0x0800}))
    assert verdict(guard, PROBE_GROUP + b"\x02" + bytes(5) + b"\x88\xb5" + bytes(60), LOCAL) is None
    assert verdict(guard, bytes(6) + b"\x02" + bytes(5) + b"\x88\xb5" + bytes(60), LOCAL) is not None


# -- anything --------------------------------------------------------------------------------------------------------

EVERYTHING = {
    "dhcp_servers": NOBODY,
    "router_advertisements": NOBODY,
    "arp_spoof_guard": True,
    "ethertypes_deny": frozenset({0x1234}),
}
TYPES = [b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00", b"\x88\xa8", b"\x00\x40"]


@given(st.sampled_from(TYPES), st.sampled_from([0, 6, 17, 44, 58, 60, 0x45, 0x4F]), st.binary(max_size=120))
def test_no_bytes_of_a_stranger_raise(kind: bytes, number: int, rest: bytes) -> None:
    guard = made(**EVERYTHING)
    body = bytearray(rest)
    for at in (0, 6, 9, 40):
        if at < len(body):
            body[at] = number
    frame = plain(bytes(12) + kind + bytes(body))
    assert len(guard.from_tap([frame], 0.0)) + len(guard.refusals) == 1
    assert len(guard.from_peer([(frame,)], PEER, 0.0)) <= 1


@given(st.data())
def test_no_cut_and_no_flip_of_a_real_frame_raises(data: st.DataObject) -> None:
    guard = made(**EVERYTHING)
    sample = [
        offer(),
        router(),
        says(ONE, "10.9.0.1"),
        neighbour(ONE, "fd00::1"),
        acknowledge("10.9.0.2", ONE),
    ]
    frame = bytearray(bytes(data.draw(st.sampled_from([*sample, *HIDDEN.values()]))))
    frame[data.draw(st.integers(12, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    guard.from_tap([plain(bytes(frame[: data.draw(st.integers(14, len(frame)))]))], 0.0)
