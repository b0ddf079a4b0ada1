"""The `[protect]` table: its mistakes beyond the shape of the tables, and the `ProtectConfig` that it becomes.

`learn` and `max_macs` of a peer are checked here too. What protection does is in `dataplane/protect/` and
`controlplane/loop_guard.py`.
"""

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from l2overlay.addresses import MacAddress, PeerKey, parse_mac
from l2overlay.config.document import Document, Fault, peer_names, tables, texts
from l2overlay.config.positions import Path
from l2overlay.config.protect_values import parse_ethertype
from l2overlay.config.tables import ProtectTable, StormLimitTable, StormTable, on_off
from l2overlay.config.types import Party, ProtectConfig, StormConfig, StormLimit
from l2overlay.config.values import quote, station_mac
from l2overlay.suggestion import Hints

PARTY_LISTS = ("dhcp_servers", "router_advertisements", "isolation")
_MAC = r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}"
_DEFAULT = ProtectConfig()


def build_protect(table: ProtectTable | None, keys: Mapping[str, PeerKey]) -> ProtectConfig:
    """Build from a table that `protect_faults` found no fault in; `keys` are those of the peers, by name."""
    table = table or ProtectTable.model_validate({})
    return ProtectConfig(
        dhcp_servers=_party(table.dhcp_servers, keys),
        router_advertisements=_party(table.router_advertisements, keys),
        arp_spoof_guard=table.arp_spoof_guard == "on",
        bindings={parse_mac(mac): tuple(map(ip_address, listed)) for mac, listed in table.bindings.items()},
        ethertypes_allow=_ethertypes(table.ethertypes_allow),
        ethertypes_deny=_ethertypes(table.ethertypes_deny),
        bpdu_passes=table.bpdu == "pass",
        reserved_passes=frozenset(table.reserved) | ({"lldp"} if table.lldp == "pass" else set()),
        isolation=_party(table.isolation, keys),
        storm=_storm(table.storm or StormTable.model_validate({})) if table.storm_control == "on" else None,
        loop_guard=table.loop_guard == "on",
    )


def _storm(table: StormTable) -> StormConfig:
    default = StormConfig()
    return StormConfig(
        broadcast=_limit(default.broadcast, table.broadcast),
        multicast=_limit(default.multicast, table.multicast),
        unknown_unicast=_limit(default.unknown_unicast, table.unknown_unicast),
    )


def _limit(default: StormLimit, table: StormLimitTable | None) -> StormLimit:
    if table is None:
        return default
    return StormLimit(
        frame_rate=default.frame_rate if table.frames is None else float(table.frames),
        byte_rate=default.byte_rate if table.bytes is None else float(table.bytes),
        burst_time=default.burst_time if table.burst is None else float(table.burst),
    )


def _party(listed: list[str] | None, keys: Mapping[str, PeerKey]) -> Party | None:
    if listed is None:
        return None
    macs = [text for text in listed if re.fullmatch(_MAC, text)]
    return Party(
        peers=frozenset(keys[text] for text in listed if text not in macs),
        macs=frozenset(MacAddress(parse_mac(text)) for text in macs),
    )


def _ethertypes(listed: list[object] | None) -> frozenset[int] | None:
    return None if listed is None else frozenset(map(parse_ethertype, listed))


# What is wrong


def protect_faults(document: Document) -> list[Fault]:
    """Every mistake about protection that pydantic cannot find."""
    table = document.get("protect")
    faults = list(_port_security_faults(document))
    if isinstance(table, dict):
        faults += [*_party_faults(document, table), *_ethertype_faults(table), *_binding_faults(table)]
    return faults


def _party_faults(document: Document, table: Document) -> Iterator[Fault]:
    names, hints = dict.fromkeys(peer_names(document)), Hints()
    for key in PARTY_LISTS:
        for i, text in texts(table.get(key)):
            path: Path = ("protect", key, i)
            if re.fullmatch(_MAC, text):
                yield from _mac_faults(path, text)
            elif text not in names:
                hint = hints.of(text, names)
                yield Fault(path, f"{quote(text)} is neither a peer nor a station's MAC address{hint}")
    isolated = table.get("isolation")
    if isinstance(isolated, list) and len(isolated) == 1:
        yield Fault(
            ("protect", "isolation"),
            "isolation separates the entries of the list from each other: a single entry has no effect",
        )


def _ethertype_faults(table: Document) -> Iterator[Fault]:
    if "ethertypes_allow" in table and "ethertypes_deny" in table:
        message = "ethertypes_allow already says everything that passes; remove ethertypes_deny"
        yield Fault(("protect", "ethertypes_deny"), message, at_key=True)
    if table.get("ethertypes_allow") == []:
        yield Fault(("protect", "ethertypes_allow"), "an empty list lets nothing pass at all")


def _binding_faults(table: Document) -> Iterator[Fault]:
    bindings = table.get("bindings")
    if not isinstance(bindings, dict):
        return
    first: dict[bytes, str] = {}
    for mac in bindings:
        faults = list(_mac_faults(("protect", "bindings", mac), mac, at_key=True))
        yield from faults
        if not faults and first.setdefault(parse_mac(mac), mac) != mac:
            there: Path = ("protect", "bindings", first[parse_mac(mac)])
            yield Fault(
                ("protect", "bindings", mac), f"{mac!r} is already in this table", at_key=True, first=there
            )
    if bindings and table.get("arp_spoof_guard", on_off(_DEFAULT.arp_spoof_guard)) == "off":
        message = 'bindings do nothing while arp_spoof_guard is off; add arp_spoof_guard = "on"'
        yield Fault(("protect", "bindings"), message, at_key=True)


def _port_security_faults(document: Document) -> Iterator[Fault]:
    for i, peer in tables(document.get("peers")):
        macs, most = peer.get("macs", []), peer.get("max_macs")
        if not isinstance(macs, list):
            continue
        if peer.get("learn") == "off" and not macs:
            yield Fault(
                ("peers", i, "learn"), 'with learn = "off" and no macs, nothing that this peer sends passes'
            )
        if isinstance(most, int) and 1 <= most < len(macs):
            yield Fault(("peers", i, "max_macs"), f"max_macs is {most}, but macs has {len(macs)} entries")


def _mac_faults(path: Path, text: str, *, at_key: bool = False) -> Iterator[Fault]:
    try:
        station_mac(text)
    except ValueError as error:
        yield Fault(path, str(error), at_key=at_key)
