"""EtherTypes, tags, IP protocols and IPv6 extension headers: one list of each, for all who read a frame.

Where a room needs another list it makes that from the one here, and says why. Imports nothing.
"""

from collections.abc import Collection
from typing import Final, NamedTuple

# EtherTypes (IEEE registry)
IPV4: Final = 0x0800
ARP: Final = 0x0806
IPV6: Final = 0x86DD
PPPOE_DISCOVERY: Final = 0x8863
PPPOE_SESSION: Final = 0x8864

VLAN_TPIDS: Final = (0x8100, 0x88A8)
"""C-tag and S-tag (802.1Q, table 9-1): their VLAN ids are those of the switch."""
TPIDS: Final = (*VLAN_TPIDS, 0x9100, 0x9200, 0x9300)
"""Also the tags that switches stacked before there was an S-tag. To us they are no VLAN, but IP may be behind them."""
HIDE_IP: Final = (*TPIDS, PPPOE_SESSION)
"""EtherTypes with IP behind them that bridge netfilter does not look into. (PPPoE discovery carries no IP.)"""
TAG_LEN: Final = 4

# IP protocols (IANA registry)
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS = 0, 43, 44, 51, 60
EXTENSION_HEADERS: Final = frozenset(
    {HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS, 135, 139, 140}
)
"""IANA "IPv6 extension header types": also mobility, HIP, Shim6. Not ESP (50), behind which nothing can be read."""
KERNEL_EXTENSION_HEADERS: Final = EXTENSION_HEADERS - {135, 139, 140}
"""Those that Linux walks past (`ipv6_ext_hdr` in net/ipv6/exthdrs_core.c); to it any other is the protocol."""
NF_TABLES_EXTENSION_HEADERS: Final = KERNEL_EXTENSION_HEADERS - {AUTHENTICATION}
"""nf_tables stops at the authentication header (IP6_FH_F_AUTH in nf_tables_ipv6.h), where the legacy ip6tables goes on."""
IPV6_HEADER_LEN: Final = 40


class Upper(NamedTuple):
    """What comes after an IPv6 packet's extension headers."""

    protocol: int | None
    """None: the chain of headers does not end within the packet (RFC 7112 forbids that)."""
    at: int
    """Where its header begins."""
    fragment: bool
    """The packet is a fragment."""
    first: bool
    """The packet is whole, or the first fragment: its upper header is in it."""


def past_tags(frame: bytes, at: int, most: int, known: Collection[int] = TPIDS) -> tuple[int, int, int]:
    """Walk past at most `most` tags. `at` is where an EtherType stands.

    Returns the EtherType behind them, where its payload begins, and how many more tags would have been allowed.
    """
    kind = int.from_bytes(frame[at : at + 2], "big")
    while kind in known and most:
        at, most = at + TAG_LEN, most - 1
        kind = int.from_bytes(frame[at : at + 2], "big")
    return kind, at + 2, most


def past_extension_headers(
    packet: bytes, ip: int, *, most: int = 64, known: Collection[int] = EXTENSION_HEADERS
) -> Upper:
    """Walk past at most `most` extension headers of the IPv6 packet whose header, of 40 bytes, begins at `ip`.

    Looks no further than the packet says that it goes: what is behind that pads the frame.
    """
    end = ipv6_end(packet, ip)
    protocol, at, fragment = packet[ip + 6], ip + IPV6_HEADER_LEN, False
    for _ in range(most + 1):
        if protocol not in known:
            return Upper(protocol if at <= end else None, at, fragment, True)
        if at + 8 > end:
            break
        if protocol == FRAGMENT:
            fragment = True
            if int.from_bytes(packet[at + 2 : at + 4], "big") & 0xFFF8:
                return Upper(packet[at], at + 8, True, False)
        size = _extension_len(protocol, packet[at + 1])
        protocol, at = packet[at], at + size
    return Upper(None, at, fragment, True)


def ipv6_end(packet: bytes, ip: int) -> int:
    """Where the IPv6 packet ends whose header begins at `ip`. A length of 0 says nothing: a jumbogram, a super-frame."""
    length = int.from_bytes(packet[ip + 4 : ip + 6], "big")
    return min(len(packet), ip + IPV6_HEADER_LEN + length) if length else len(packet)


def _extension_len(protocol: int, length: int) -> int:
    """RFC 8200, section 4; RFC 4302, section 2.2."""
    if protocol == FRAGMENT:
        return 8
    return (length + 2) * 4 if protocol == AUTHENTICATION else (length + 1) * 8
