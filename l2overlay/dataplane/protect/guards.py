"""The guards: DHCP servers, routers and addresses that are not what they say, and EtherTypes that may not pass.

Only frames that can matter are looked into; most are told by two or three comparisons of fixed bytes (`from_tap`,
`from_peer`). The order for the others: tags and LLC/SNAP are taken off, then the EtherType list, then

    ARP                 the sender's two addresses (RFC 826)            arp_spoof_guard
    IPv4, UDP           to port 68, from a DHCP server (RFC 2131)       dhcp_servers; leases are learned
    IPv6, UDP           to port 546, from a DHCPv6 server (RFC 8415)    dhcp_servers
    IPv6, ICMPv6        134 and 137, from a router (RFC 4861)           router_advertisements
                        133 to 136, claims of addresses                 arp_spoof_guard

Whoever wants past a guard hides: behind extension headers (RFC 7113), fragments (RFC 6980), stacked tags or LLC/SNAP
(CERT VU#855201). A frame in which a guard cannot find what it must judge is dropped as UNREADABLE.

All bytes here are a stranger's; nothing raises.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from l2overlay import inet
from l2overlay.addresses import MacAddress, PeerKey, format_mac
from l2overlay.config.types import Party, ProtectConfig
from l2overlay.counters import DropReason
from l2overlay.dataplane.ethernet import DESTINATION, ETHERTYPE, PROBE_GROUP, PROBE_TYPE, SOURCE, is_group
from l2overlay.dataplane.fdb import LOCAL, Port
from l2overlay.dataplane.offload import is_super_frame
from l2overlay.dataplane.protect.snooping import Bindings
from l2overlay.seams import Pieces, TapFrame

IPV4, IPV6 = inet.IPV4.to_bytes(2), inet.IPV6.to_bytes(2)
TCP, UDP = bytes((inet.TCP,)), bytes((inet.UDP,))
NO_OPTIONS = b"\x45"
"""First byte of an IPv4 header of 20 bytes: ports are then where `from_tap` looks for them."""
MAX_HEADERS = 3
"""Tags and SNAP headers that may be stacked. Two tags are QinQ; more is somebody who hides."""
SNAP = b"\xaa\xaa\x03\x00\x00\x00"
MAX_LENGTH = 0x05DC
"""Up to here the field behind the addresses is a length (IEEE 802.3, 3.2.6)."""

CLIENT_V4, CLIENT_V6 = b"\x00\x44", b"\x02\x22"
MAX_EXTENSIONS = 8
ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT, NEIGHBOUR_SOLICITATION = 133, 134, 135
NEIGHBOUR_ADVERTISEMENT, REDIRECT = 136, 137
_OPTIONS_AT = {133: 8, 134: 16, 135: 24, 136: 24, 137: 40}
_LINK_LAYER_OPTION = {133: 1, 134: 1, 135: 1, 136: 2, 137: 1}
"""Source (1) or target (2) link-layer address; the target of a redirect is another station's."""
DHCP_ACK = 5
DHCP_COOKIE = b"\x63\x82\x53\x63"
UNSPECIFIED = bytes(16)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a frame does not pass, and what it was about, for a person."""

    reason: DropReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A frame that was refused: what the overlay counts and may tell."""

    why: Refused
    port: Port
    mac: MacAddress


class Guards:
    """The guards of one node. `own` is its key: as a member of a list it means the TAP."""

    def __init__(self, config: ProtectConfig, own: PeerKey) -> None:
        self._dhcp, self._routers = config.dhcp_servers, config.router_advertisements
        self._own = own
        self._allow, self._deny = config.ethertypes_allow, config.ethertypes_deny
        self.bindings = _bindings(config) if config.arp_spoof_guard else None
        self._ipv4 = self._dhcp is not None
        self._ipv6 = self._ipv4 or self._routers is not None or self.bindings is not None
        self._reads = self._ipv6
        ipv4, ipv6 = (self._refuse_type(kind) is None for kind in (inet.IPV4, inet.IPV6))
        self._at_once = (IPV4 + NO_OPTIONS if ipv4 else b"-", IPV6 if ipv6 else b"-")
        self.refusals: list[Refusal] = []
        """The caller empties it."""

    def inherit(self, old: "Guards", now: float) -> None:
        """Take over what was learned under an earlier configuration."""
        if self.bindings is not None and old.bindings is not None:
            self.bindings.inherit(old.bindings)
            if self._dhcp != old._dhcp:
                self.bindings.end_leases(now)

    def forget(self, port: Port) -> None:
        """The port is no more."""
        if self.bindings is not None:
            self.bindings.forget(port)

    def from_tap(self, frames: Sequence[TapFrame], now: float) -> list[TapFrame]:
        """Those that may pass."""
        ipv4, ipv6 = self._at_once
        # A comprehension with two slices for most frames: 0.1 us each, a call for each would be 0.3 (tests/bench).
        return [
            frame
            for frame in frames
            if (frame[22:25] == ipv4 and frame[46:48] != CLIENT_V4)
            or (
                frame[22:24] == ipv6
                and (frame[30:31] == TCP or (frame[30:31] == UDP and frame[66:68] != CLIENT_V6))
            )
            or self._passes(frame, LOCAL, now)
        ]

    def from_peer(self, frames: list[Pieces], port: Port, now: float) -> list[Pieces]:
        """Those that may pass; each begins with what holds its headers."""
        ipv4, ipv6 = self._at_once
        return [
            frame
            for frame in frames
            if ((head := frame[0])[22:25] == ipv4 and head[46:48] != CLIENT_V4)
            or (
                head[22:24] == ipv6
                and (head[30:31] == TCP or (head[30:31] == UDP and head[66:68] != CLIENT_V6))
            )
            or self._passes(head if len(frame) == 1 or is_super_frame(head) else b"".join(frame), port, now)
        ]

    def _passes(self, frame: bytes, port: Port, now: float) -> bool:
        why = self._examine(frame, port, now)
        if why is not None:
            self.refusals.append(Refusal(why, port, MacAddress(frame[SOURCE])))
        return why is None

    def _examine(self, frame: bytes, port: Port, now: float) -> Refused | None:
        if frame[ETHERTYPE] == PROBE_TYPE and frame[DESTINATION] == PROBE_GROUP:
            return None  # the loop guard's own; it judges for itself
        kind, at, left = inet.past_tags(frame, ETHERTYPE.start, MAX_HEADERS)
        while kind not in inet.TPIDS:
            refused = self._refuse_type(kind)
            if refused is not None:
                return refused
            if kind > MAX_LENGTH or frame[at : at + 6] != SNAP:
                return self._examine_payload(kind, frame, at, port, now) if self._reads else None
            if not left:
                break
            kind, at, left = inet.past_tags(frame, at + 6, left - 1)
        return Refused(DropReason.UNREADABLE, "stacked tags")

    def _refuse_type(self, kind: int) -> Refused | None:
        if self._allow is None and self._deny is None:
            return None
        number = 0 if kind <= MAX_LENGTH else kind
        if (self._allow is None or number in self._allow) and (
            self._deny is None or number not in self._deny
        ):
            return None
        return Refused(DropReason.ETHERTYPE_REFUSED, f"0x{number:04x}" if number else "llc")

    def _examine_payload(self, kind: int, frame: bytes, at: int, port: Port, now: float) -> Refused | None:
        if kind == inet.ARP and self.bindings is not None:
            return self._examine_arp(self.bindings, frame, at, port, now)
        if kind == inet.IPV4 and self._ipv4:
            return self._examine_ipv4(frame, at, port, now)
        if kind == inet.IPV6 and self._ipv6:
            return self._examine_ipv6(frame, at, port, now)
        return None

    # -- ARP and DHCP ------------------------------------------------------------------------------------------

    def _examine_arp(
        self, bindings: Bindings, frame: bytes, at: int, port: Port, now: float
    ) -> Refused | None:
        if frame[at + 2 : at + 6] != b"\x08\x00\x06\x04":
            return (
                None  # not about IPv4 addresses; Linux takes two hardware types, so that field says nothing
            )
        mac, address = frame[at + 8 : at + 14], frame[at + 14 : at + 18]
        if len(frame) < at + 28:
            return Refused(DropReason.UNREADABLE, "ARP cut short")
        if mac != frame[SOURCE]:
            return Refused(DropReason.SPOOFED_ADDRESS, f"ARP in the name of {format_mac(mac)}")
        if not any(address):
            return None  # a probe claims nothing (RFC 5227)
        return self._check_claim(bindings, address, frame, port, now)

    @staticmethod
    def _check_claim(
        bindings: Bindings, address: bytes, frame: bytes, port: Port, now: float
    ) -> Refused | None:
        if bindings.allows(address, MacAddress(frame[SOURCE]), port, now):
            return None
        shown = IPv4Address(address) if len(address) == 4 else IPv6Address(address)
        return Refused(DropReason.SPOOFED_ADDRESS, str(shown))

    def _examine_ipv4(self, frame: bytes, at: int, port: Port, now: float) -> Refused | None:
        if frame[at + 9 : at + 10] != UDP:
            return None
        if int.from_bytes(frame[at + 6 : at + 8], "big") & 0x1FFF:
            return None  # not the first fragment: without that one it comes to nothing
        udp = at + 4 * (frame[at] & 0x0F)
        if len(frame) < udp + 8:
            return Refused(DropReason.UNREADABLE, "UDP header in pieces")
        if frame[udp + 2 : udp + 4] != CLIENT_V4:
            return None
        if not self._is_one_of(self._dhcp, frame, port):
            return Refused(DropReason.ROGUE_DHCP, f"from {IPv4Address(frame[at + 12 : at + 16])}")
        self._learn_lease(frame, udp + 8, port, now)
        return None

    def _learn_lease(self, frame: bytes, bootp: int, port: Port, now: float) -> None:
        """A DHCPACK (RFC 2131) that gives an address binds it."""
        address, mac = frame[bootp + 16 : bootp + 20], frame[bootp + 28 : bootp + 34]
        if self.bindings is None or frame[bootp : bootp + 3] != b"\x02\x01\x06" or len(mac) != 6:
            return
        options = _dhcp_options(frame, bootp + 236)
        if options.get(53) != bytes((DHCP_ACK,)) or not any(address) or is_group(mac):
            return
        lease = int.from_bytes(options.get(51, b""), "big")
        if lease:
            self.bindings.lease(address, MacAddress(mac), port, float(lease), now)

    def _is_one_of(self, party: Party | None, frame: bytes, port: Port) -> bool:
        if party is None:
            return True
        return (self._own if port == LOCAL else port) in party.peers or frame[SOURCE] in party.macs

    # -- IPv6 --------------------------------------------------------------------------------------------------

    def _examine_ipv6(self, frame: bytes, at: int, port: Port, now: float) -> Refused | None:
        if len(frame) < at + inet.IPV6_HEADER_LEN:
            return None  # no whole IPv6 header
        upper = inet.past_extension_headers(frame, at, most=MAX_EXTENSIONS)
        if not upper.first:
            return None  # without the first fragment this one comes to nothing
        if upper.protocol is None:
            # What was to be judged is in a later fragment, or in none (RFC 7112, RFC 7113).
            return Refused(DropReason.UNREADABLE, "IPv6 headers in pieces, or too many of them")
        if upper.protocol == inet.ICMPV6:
            return self._examine_icmpv6(frame, at, upper.at, port, now, fragment=upper.fragment)
        if upper.protocol == inet.UDP:
            return self._examine_udp6(frame, at, upper.at, port)
        return None

    def _examine_udp6(self, frame: bytes, at: int, udp: int, port: Port) -> Refused | None:
        if self._dhcp is None:
            return None
        if inet.ipv6_end(frame, at) < udp + 4:
            return Refused(DropReason.UNREADABLE, "UDP header in pieces")
        if frame[udp + 2 : udp + 4] != CLIENT_V6 or self._is_one_of(self._dhcp, frame, port):
            return None
        return Refused(DropReason.ROGUE_DHCP, f"from {IPv6Address(frame[at + 8 : at + 24])}")

    def _examine_icmpv6(
        self, frame: bytes, at: int, icmp: int, port: Port, now: float, *, fragment: bool
    ) -> Refused | None:
        kind = frame[icmp] if icmp < inet.ipv6_end(frame, at) else None
        if kind is None:
            return Refused(DropReason.UNREADABLE, "ICMPv6 in pieces")
        if kind not in _OPTIONS_AT:
            return None
        if fragment:
            return Refused(DropReason.UNREADABLE, "neighbour discovery in fragments")
        source = frame[at + 8 : at + 24]
        if kind in (ROUTER_ADVERTISEMENT, REDIRECT) and not self._is_one_of(self._routers, frame, port):
            return Refused(DropReason.ROGUE_ROUTER, f"from {IPv6Address(source)}")
        if self.bindings is None:
            return None
        options, end = icmp + _OPTIONS_AT[kind], inet.ipv6_end(frame, at)
        if end < options:
            return Refused(DropReason.UNREADABLE, "neighbour discovery cut short")
        address = frame[icmp + 8 : icmp + 24] if kind == NEIGHBOUR_ADVERTISEMENT else source
        if address == UNSPECIFIED:
            return None  # a station that looks whether an address is free claims nothing (RFC 4862)
        refused = _refuse_options(frame, options, end, _LINK_LAYER_OPTION[kind])
        return refused or self._check_claim(self.bindings, address, frame, port, now)


def guards(config: ProtectConfig | None, own: PeerKey) -> Guards | None:
    """The guards that the configuration asks for; None when it asks for none."""
    if config is None:
        return None
    asked = (
        config.dhcp_servers,
        config.router_advertisements,
        config.ethertypes_allow,
        config.ethertypes_deny,
    )
    if not config.arp_spoof_guard and all(each is None for each in asked):
        return None
    return Guards(config, own)


def _bindings(config: ProtectConfig) -> Bindings:
    return Bindings({mac: [a.packed for a in addresses] for mac, addresses in config.bindings.items()})


def _dhcp_options(frame: bytes, at: int) -> dict[int, bytes]:
    """The options behind the cookie (RFC 2132), as far as they are whole."""
    found: dict[int, bytes] = {}
    if frame[at : at + 4] != DHCP_COOKIE:
        return found
    at += 4
    while at + 1 < len(frame) and frame[at] != 255:
        if frame[at] == 0:
            at += 1
            continue
        length = frame[at + 1]
        found.setdefault(frame[at], frame[at + 2 : at + 2 + length])
        at += 2 + length
    return found


def _refuse_options(frame: bytes, at: int, end: int, wanted: int) -> Refused | None:
    """Every link-layer address that an ND message gives as its sender's must be that of its frame."""
    while at < end:
        length = frame[at + 1] * 8 if at + 1 < end else 0
        if length == 0 or at + length > end:
            return Refused(DropReason.UNREADABLE, "neighbour discovery with broken options")
        if frame[at] == wanted and frame[at + 2 : at + 8] != frame[SOURCE]:
            named = format_mac(frame[at + 2 : at + 8])
            return Refused(DropReason.SPOOFED_ADDRESS, f"ND in the name of {named}")
        at += length
    return None
