"""The `[protect]` table, and `learn` and `max_macs` of a peer: how the values are written, what they must be to each other,
and what they become.

`protect_faults` works on what tomllib read, as `config.checks` does; `build_protect` makes the frozen `ProtectConfig` of
a document without faults. What it does is in `dataplane/protect/` and `controlplane/loop_guard.py`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from l2overlay import inet
from l2overlay.addresses import MacAddress, PeerKey, parse_mac
from l2overlay.config.checks import Document, Fault
from l2overlay.config.positions import Path
from l2overlay.config.types import Party, ProtectConfig, StormConfig, StormLimit
from l2overlay.config.values import quote, station_mac
from l2overlay.suggestion import Hints, suggestion

ETHERTYPES = {
    "llc": 0,  # IEEE 802.3 length instead of a type; what is below 0x0600
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
PARTY_LISTS = ("dhcp_servers", "router_advertisements", "isolation")
_MAC = r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}"


def parse_ethertype(value: object) -> int:
    """A name of `ETHERTYPES`, 0x0600 to 0xffff, or the same as text. Raises ValueError."""
    if isinstance(value, str):
        if value in ETHERTYPES:
            return ETHERTYPES[value]
        if not re.fullmatch(r"0x[0-9A-Fa-f]{1,8}", value):
            raise ValueError(
                f"{quote(value)} is no EtherType; write a name or 0x88cc{suggestion(value, ETHERTYPES)}"
            )
        value = int(value, 16)
    if type(value) is not int or not 0x0600 <= value <= 0xFFFF:
        raise ValueError('an EtherType is a name ("ipv4"), or 0x0600 to 0xffff; "llc" is all that is below')
    if value in inet.TPIDS:
        raise ValueError("tags are looked through: list what is behind them")
    return value


def reserved_protocol(value: object) -> str:
    """One of `RESERVED_NAMES`. Raises ValueError."""
    if not isinstance(value, str) or value not in RESERVED_NAMES:
        hint = suggestion(value, RESERVED_NAMES) if isinstance(value, str) else ""
        known = ", ".join(RESERVED_NAMES)
        raise ValueError(f"{quote(str(value))} is no protocol between neighbours{hint}; there are {known}")
    return value


def bound_address(text: str) -> IPv4Address | IPv6Address:
    """An address that one station can have. Raises ValueError."""
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError(f"{quote(text)} is not an IP address; write it without a prefix length") from None
    if address.is_unspecified or address.is_multicast or address.is_loopback or "%" in text:
        raise ValueError(f"{text!r} cannot be a station's address")
    return address


def protect_faults(document: Document) -> list[Fault]:
    """Everything that is wrong with protection beyond the shape of the tables."""
    table = document.get("protect")
    faults = list(_security_faults(document))
    if isinstance(table, dict):
        faults += [*_party_faults(document, table), *_ethertype_faults(table), *_binding_faults(table)]
    return faults


def build_protect(table: Document | None, keys: Mapping[str, PeerKey]) -> ProtectConfig:
    """`[protect]` of a document that `protect_faults` had nothing to say about; `keys` of the peers by name."""
    table = table or {}
    return ProtectConfig(
        dhcp_servers=_party(table.get("dhcp_servers"), keys),
        router_advertisements=_party(table.get("router_advertisements"), keys),
        arp_spoof_guard=table.get("arp_spoof_guard", "off") == "on",
        bindings={
            parse_mac(mac): tuple(map(ip_address, listed))
            for mac, listed in table.get("bindings", {}).items()
        },
        ethertypes_allow=_ethertypes(table.get("ethertypes_allow")),
        ethertypes_deny=_ethertypes(table.get("ethertypes_deny")),
        bpdu_passes=table.get("bpdu", "pass") == "pass",
        reserved_passes=frozenset(table.get("reserved", ()))
        | ({"lldp"} if table.get("lldp") == "pass" else set()),
        isolation=_party(table.get("isolation"), keys),
        storm=_storm(table) if table.get("storm_control", "on") == "on" else None,
        loop_guard=table.get("loop_guard", "on") == "on",
    )


def _storm(table: Document) -> StormConfig:
    config, given = StormConfig(), table.get("storm", {})
    return replace(config, **{kind: _limit(getattr(config, kind), given[kind]) for kind in given})


def _limit(default: StormLimit, given: Document) -> StormLimit:
    return StormLimit(
        frame_rate=float(given.get("frames", default.frame_rate)),
        byte_rate=float(given.get("bytes", default.byte_rate)),
        burst_time=float(given.get("burst", default.burst_time)),
    )


def _party(listed: list[str] | None, keys: Mapping[str, PeerKey]) -> Party | None:
    if listed is None:
        return None
    macs = [text for text in listed if re.fullmatch(_MAC, text)]
    return Party(
        peers=frozenset(keys[text] for text in listed if text not in macs),
        macs=frozenset(MacAddress(parse_mac(text)) for text in macs),
    )


def _ethertypes(listed: list[Any] | None) -> frozenset[int] | None:
    return None if listed is None else frozenset(map(parse_ethertype, listed))


# What is wrong


def _party_faults(document: Document, table: Document) -> Iterator[Fault]:
    names = {peer["name"]: None for _, peer in _peers(document) if isinstance(peer.get("name"), str)}
    hints = Hints()
    for key in PARTY_LISTS:
        for i, text in _texts(table.get(key)):
            path: Path = ("protect", key, i)
            if re.fullmatch(_MAC, text):
                yield from _mac_fault(path, text)
            elif text not in names:
                hint = hints.of(text, names)
                yield Fault(path, f"{quote(text)} is neither a peer nor a station's MAC address{hint}")
    isolated = table.get("isolation")
    if isinstance(isolated, list) and len(isolated) == 1:
        yield Fault(
            ("protect", "isolation"),
            "isolation keeps those in the list apart: one alone is apart from nobody",
        )


def _ethertype_faults(table: Document) -> Iterator[Fault]:
    if "ethertypes_allow" in table and "ethertypes_deny" in table:
        message = "ethertypes_allow says all that passes; ethertypes_deny beside it means nothing"
        yield Fault(("protect", "ethertypes_deny"), message, at_key=True)
    if table.get("ethertypes_allow") == []:
        yield Fault(("protect", "ethertypes_allow"), "an empty list lets nothing pass at all")


def _binding_faults(table: Document) -> Iterator[Fault]:
    bindings = table.get("bindings")
    if not isinstance(bindings, dict):
        return
    first: dict[bytes, str] = {}
    for mac in bindings:
        faults = list(_mac_fault(("protect", "bindings", mac), mac, at_key=True))
        yield from faults
        if not faults and first.setdefault(parse_mac(mac), mac) != mac:
            there: Path = ("protect", "bindings", first[parse_mac(mac)])
            yield Fault(
                ("protect", "bindings", mac), f"{mac!r} stands here already", at_key=True, first=there
            )
    if bindings and table.get("arp_spoof_guard", "off") == "off":
        message = 'bindings do nothing while arp_spoof_guard is off; add arp_spoof_guard = "on"'
        yield Fault(("protect", "bindings"), message, at_key=True)


def _security_faults(document: Document) -> Iterator[Fault]:
    for i, peer in _peers(document):
        macs, most = peer.get("macs", []), peer.get("max_macs")
        if not isinstance(macs, list):
            continue
        if peer.get("learn") == "off" and not macs:
            yield Fault(
                ("peers", i, "learn"), "without macs and with learn off nothing that this peer sends passes"
            )
        if isinstance(most, int) and 1 <= most < len(macs):
            yield Fault(("peers", i, "max_macs"), f"max_macs is {most}, and macs has {len(macs)} already")


def _mac_fault(path: Path, text: str, *, at_key: bool = False) -> Iterator[Fault]:
    try:
        station_mac(text)
    except ValueError as error:
        yield Fault(path, str(error), at_key=at_key)


def _peers(document: Document) -> Iterator[tuple[int, Document]]:
    listed = document.get("peers")
    return (
        (i, peer)
        for i, peer in enumerate(listed if isinstance(listed, list) else ())
        if isinstance(peer, dict)
    )


def _texts(listed: object) -> Iterable[tuple[int, str]]:
    return [
        (i, text)
        for i, text in enumerate(listed if isinstance(listed, list) else ())
        if isinstance(text, str)
    ]
