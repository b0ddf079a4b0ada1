"""How a single value of `[protect]` is written: EtherTypes, protocols between neighbours, and bound addresses.

As in `config.values`, each function raises ValueError with a message that says what is wrong and how to write it.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from l2overlay import inet
from l2overlay.config.values import quote
from l2overlay.suggestion import suggestion

ETHERTYPES = {
    "llc": 0,  # an IEEE 802.3 length instead of a type: anything below 0x0600
    "ipv4": inet.IPV4,
    "arp": inet.ARP,
    "wake-on-lan": 0x0842,
    "rarp": 0x8035,
    "ipv6": inet.IPV6,
    "mpls": 0x8847,
    "pppoe-discovery": inet.PPPOE_DISCOVERY,
    "pppoe": inet.PPPOE_SESSION,
    "eapol": 0x888E,
    "aoe": 0x88A2,
    "lldp": 0x88CC,
    "macsec": 0x88E5,
    "ptp": 0x88F7,
    "fcoe": 0x8906,
}
RESERVED_NAMES = ("lldp", "eapol", "ptp", "lacp")
"""Protocols to 01:80:c2:00:00:01 .. 0f that may pass; `dataplane/reserved.py` has their addresses and EtherTypes."""


def parse_ethertype(value: object) -> int:
    """A name from `ETHERTYPES`, 0x0600 to 0xffff, or the same as text."""
    if isinstance(value, str):
        if value in ETHERTYPES:
            return ETHERTYPES[value]
        if not re.fullmatch(r"0x[0-9A-Fa-f]{1,8}", value):
            raise ValueError(
                f"{quote(value)} is not an EtherType; write a name or 0x88cc{suggestion(value, ETHERTYPES)}"
            )
        value = int(value, 16)
    if type(value) is not int or not 0x0600 <= value <= 0xFFFF:
        raise ValueError('an EtherType is a name ("ipv4"), or 0x0600 to 0xffff; "llc" means everything below')
    if value in inet.TPIDS:
        raise ValueError("the switch looks behind tags: list the EtherTypes that follow them")
    return value


def reserved_protocol(value: object) -> str:
    """A name from `RESERVED_NAMES`."""
    if not isinstance(value, str) or value not in RESERVED_NAMES:
        hint = suggestion(value, RESERVED_NAMES) if isinstance(value, str) else ""
        known = ", ".join(RESERVED_NAMES)
        raise ValueError(f"{quote(str(value))} is not a known protocol{hint}; the known ones are {known}")
    return value


def bound_address(text: str) -> IPv4Address | IPv6Address:
    """An address that a single station can have."""
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError(f"{quote(text)} is not an IP address; write it without a prefix length") from None
    if address.is_unspecified or address.is_multicast or address.is_loopback or "%" in text:
        raise ValueError(f"{text!r} cannot be a station's address")
    return address
