"""EtherTypes, tags, IP protocols and IPv6 extension headers: one list of each, for all code that reads a frame.

A module that needs another list makes it from the one here, and says why. This module imports nothing of the package.
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
"""Also the tags that switches stacked before the S-tag existed. Our switch ignores them, but IP may be behind them."""
HIDE_IP: Final = (*TPIDS, PPPOE_SESSION)
"""EtherTypes that carry IP and that bridge netfilter does not look into. (PPPoE discovery carries no IP.)"""
TAG_LEN: Final = 4

# IP protocols (IANA registry)
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS = 0, 43, 44, 51, 60
EXTENSION_HEADERS: Final = frozenset(
    {HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS, 135, 139, 140}
)
"""IANA "IPv6 extension header types", with mobility, HIP and Shim6. Without ESP (50): what follows it is encrypted."""
KERNEL_EXTENSION_HEADERS: Final = EXTENSION_HEADERS - {135, 139, 140}
"""Those that Linux walks past (`ipv6_ext_hdr` in net/ipv6/exthdrs_core.c). Linux takes any other one for the protocol."""
NF_TABLES_EXTENSION_HEADERS: Final = KERNEL_EXTENSION_HEADERS - {AUTHENTICATION}
"""nf_tables stops at the authentication header (IP6_FH_F_AUTH in nf_tables_ipv6.h); the legacy ip6tables walks past it."""
IPV6_HEADER_LEN: Final = 40


class Upper(NamedTuple):
    """What follows the extension headers of an IPv6 packet."""

    protocol: int | None
    """None if the chain of headers does not end within the packet (RFC 7112 forbids that)."""
    at: int
    """Where its header begins."""
    fragment: bool
    """Whether the packet is a fragment."""
    first: bool
    """Whether the packet contains the upper header, because it is whole or the first fragment."""


def past_tags(frame: bytes, at: int, most: int, known: Collection[int] = TPIDS) -> tuple[int, int, int]:
    """Walk past at most `most` tags. `at` is the offset of the first EtherType.

    Returns the EtherType behind them, the offset of its payload, and how many more tags would have been allowed.
    """
    kind = int.from_bytes(frame[at : at + 2], "big")
    while kind in known and most:
        at, most = at + TAG_LEN, most - 1
        kind = int.from_bytes(frame[at : at + 2], "big")
    return kind, at + 2, most


def past_extension_headers(
    packet: bytes, ip: int, *, most: int = 64, known: Collection[int] = EXTENSION_HEADERS
) -> Upper:
    """Walk past at most `most` extension headers of the IPv6 packet whose 40-byte header begins at `ip`.

    Does not read past the end of the packet by its own length field, because the rest of the frame is padding.
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
    """The end of the IPv6 packet whose header begins at `ip`. A length of 0 (jumbogram, super-frame) means all bytes."""
    length = int.from_bytes(packet[ip + 4 : ip + 6], "big")
    return min(len(packet), ip + IPV6_HEADER_LEN + length) if length else len(packet)


def _extension_len(protocol: int, length: int) -> int:
    """The length in bytes, from the length field of the header (RFC 8200, section 4; RFC 4302, section 2.2)."""
    if protocol == FRAGMENT:
        return 8
    return (length + 2) * 4 if protocol == AUTHENTICATION else (length + 1) * 8
