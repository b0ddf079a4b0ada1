"""The tables of peers.toml as pydantic models: which keys exist and what each may hold. The JSON Schema is made of them.

Defaults come from what a table becomes (`config.types`, `filter.model`) or from `config.limits`.

To add a table: put its model here and a field for it into `FileTables`, its checks against other tables into a module
like `config.checks`, and its frozen counterpart into `config.types`. Import this module lazily: pydantic costs 0.1 s and
10 MB.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from l2overlay.config.document import Document
from l2overlay.config.filter_values import port_or_list, text_or_list
from l2overlay.config.limits import (
    DEFAULT_AGEING_TIME,
    DEFAULT_MTU,
    DEFAULT_PERSISTENT_KEEPALIVE,
    DEFAULT_PORT,
    MAX_ADDRESSES,
    MAX_AGEING_TIME,
    MAX_BOUND_ADDRESSES,
    MAX_FILTER_RULES,
    MAX_LISTED,
    MAX_MTU,
    MAX_PEERS,
    MAX_PERSISTENT_KEEPALIVE,
    MAX_STATIC_MACS,
    MAX_STORM_RATE,
    MIN_AGEING_TIME,
    MIN_MTU,
)
from l2overlay.config.protect_values import (
    ETHERTYPES,
    RESERVED_NAMES,
    bound_address,
    parse_ethertype,
    reserved_protocol,
)
from l2overlay.config.types import ProtectConfig, StormConfig
from l2overlay.config.values import (
    INTERFACE_NAME,
    PEER_NAME,
    SEGMENT_NAME,
    interface_address,
    interface_name,
    peer_name,
    public_key_text,
    segment_name,
    split_endpoint,
    split_listen,
    station_mac,
)
from l2overlay.filter.model import ANY_PROTOCOL, PROTOCOLS, FilterConfig, SecurityGroup

OnOff = Literal["on", "off"]
PassDrop = Literal["pass", "drop"]

_FILTER: Any = FilterConfig()  # Any, because a Literal accepts no str
_GROUP: Any = SecurityGroup("", ())
_PROTECT, _STORM_LIMIT = ProtectConfig(), StormConfig().broadcast


def on_off(value: bool) -> OnOff:
    """A switch as it is written in the file."""
    return "on" if value else "off"


def _pass_drop(passes: bool) -> PassDrop:
    return "pass" if passes else "drop"


def checked_by(check: Callable[[str], object]) -> AfterValidator:
    """A validator that refuses what `check` raises ValueError for, and leaves the text unchanged."""

    def validate(text: str) -> str:
        check(text)
        return text

    return AfterValidator(validate)


def _kept(check: Callable[[object], object]) -> Callable[[object], object]:
    """Like `checked_by`, for values of several types."""

    def validate(value: object) -> object:
        check(value)
        return value

    return validate


def pattern(expression: str) -> Any:
    """A pattern for the JSON Schema only; `checked_by` gives better messages."""
    return Field(json_schema_extra={"pattern": f"^{expression}$"})


SegmentName = Annotated[str, checked_by(segment_name), pattern(SEGMENT_NAME)]
PeerName = Annotated[str, checked_by(peer_name), pattern(PEER_NAME)]
InterfaceName = Annotated[str, checked_by(interface_name), pattern(INTERFACE_NAME)]
PublicKeyText = Annotated[str, checked_by(public_key_text), pattern("[A-Za-z0-9+/]{43}=")]
MacText = Annotated[str, checked_by(station_mac), pattern("([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}")]
EndpointText = Annotated[str, checked_by(split_endpoint), pattern(".+:[0-9]{1,5}")]
AddressText = Annotated[str, checked_by(interface_address), pattern("[0-9A-Fa-f:.]+/[0-9]{1,3}")]


def shaped_by(check: Callable[[object], object], schema: dict[str, Any]) -> Any:
    """A validator for values of several types; with a union, pydantic would complain about each type that it tried."""
    return (AfterValidator(check), WithJsonSchema(schema))


_TEXTS = {"type": "array", "items": {"type": "string"}}
_PORT = {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^[0-9]+(-[0-9]+)?$"}]}
TextOrList = Annotated[Any, *shaped_by(text_or_list, {"anyOf": [{"type": "string"}, _TEXTS]})]
PortOrList = Annotated[
    Any, *shaped_by(port_or_list, {"anyOf": [*_PORT["anyOf"], {"type": "array", "items": _PORT}]})
]
Protocol = Annotated[
    Any,
    *shaped_by(lambda value: value, {"anyOf": [{"enum": list(PROTOCOLS)}, {"type": "integer"}]}),
]
EtherType = Annotated[
    Any,
    *shaped_by(
        _kept(parse_ethertype),
        {"anyOf": [{"enum": list(ETHERTYPES)}, {"type": "integer"}, {"type": "string", "pattern": "^0x"}]},
    ),
]
Listen = Annotated[
    Any,
    *shaped_by(
        _kept(split_listen),
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 65535},
                {"type": "string", "pattern": "^.+:[0-9]{1,5}$"},
            ]
        },
    ),
]
BoundAddress = Annotated[str, checked_by(bound_address), pattern("[0-9A-Fa-f:.]+")]
Listed = Annotated[list[str], Field(max_length=MAX_LISTED)]
Reserved = Annotated[Any, *shaped_by(_kept(reserved_protocol), {"enum": list(RESERVED_NAMES)})]


class Table(BaseModel):
    """The base of all tables: unknown keys are refused, and nothing is converted (a text is not a number)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class SegmentTable(Table):
    """The LAN itself; the same on every host."""

    name: SegmentName = Field(description="Names the segment, its files and its interfaces.")
    bridge: InterfaceName | None = Field(
        None, description="Bridge that the TAP joins; created if it is missing. Default: br-NAME."
    )
    tap: InterfaceName | None = Field(None, description="TAP interface. Default: tap-NAME.")
    mtu: int = Field(
        DEFAULT_MTU,
        ge=MIN_MTU,
        le=MAX_MTU,
        description="Largest IP datagram of a guest, whatever the underlay carries.",
    )
    ageing_time: float = Field(
        DEFAULT_AGEING_TIME,
        ge=MIN_AGEING_TIME,
        le=MAX_AGEING_TIME,
        description="Seconds from a station's last frame until it is forgotten.",
    )
    listen: Listen = Field(
        DEFAULT_PORT,
        description="UDP port of nodes whose stanza has no endpoint. With an address, the node binds only that.",
    )
    tos: Literal["off", "dscp", "copy"] = Field(
        "off",
        description="Marks of the guests' IP packets that the outer headers get: none, DSCP, or DSCP and ECN (RFC 6040).",
    )
    suite: Literal["aes-gcm", "chacha20-poly1305"] = Field(
        "aes-gcm",
        description="Cipher of every session; chacha20-poly1305 is for hosts without AES instructions.",
    )
    psk_file: str | None = Field(
        None, min_length=1, description="File with 32 bytes in base64, mode 0600; part of every handshake."
    )
    addresses: dict[str, Annotated[list[AddressText], Field(max_length=MAX_ADDRESSES)]] = Field(
        {}, description="The addresses that each node puts on its bridge, by node name."
    )


class UplinkTable(Table):
    """How a node leads its segment out to the world."""

    nat: InterfaceName = Field(
        description="Interface of that host: its address stands for all stations outside (masquerade)."
    )


class PeerTable(Table):
    """One host."""

    name: PeerName = Field(description="Unique; usually the host's name.")
    public_key: PublicKeyText = Field(description="What 'l2overlay pubkey' prints on that host.")
    endpoint: EndpointText | None = Field(
        None,
        description="host:port or [v6]:port of its underlay address; without it the peer must call first.",
    )
    macs: list[MacText] = Field([], description="Stations that are always behind this peer.")
    learn: Literal["on", "off", "locked"] = Field(
        "on", description="off: only macs may send; locked: a station learned here stays here."
    )
    max_macs: int | None = Field(
        None,
        ge=1,
        le=MAX_STATIC_MACS,
        description="The largest number of stations behind this peer, macs included.",
    )
    persistent_keepalive: float = Field(
        DEFAULT_PERSISTENT_KEEPALIVE,
        ge=0,
        le=MAX_PERSISTENT_KEEPALIVE,
        description="Seconds between keepalives of an idle session, which keep NAT mappings alive; 0 turns them off.",
    )
    uplink: UplinkTable | None = Field(
        None, description="Makes this node the gateway of the segment; at most one for IPv4 and one for IPv6."
    )


class FilterRuleTable(Table):
    """One rule; the first that matches decides."""

    direction: Literal["in", "out"] = Field(
        description="in: from the overlay to this host's guests; out: the reverse."
    )
    action: Literal["accept", "drop", "reject", "log"] = Field(
        description="After log, the next rule is tried."
    )
    protocol: Protocol = Field(
        ANY_PROTOCOL, description="tcp, udp, sctp, icmp (of both families), gre, esp, any, or a number."
    )
    source: TextOrList | None = Field(
        None, description="Networks, addresses, stations (MAC), peers or @groups."
    )
    destination: TextOrList | None = Field(None, description="As source.")
    ports: PortOrList | None = Field(None, description='Destination ports: 22, "8000-8010", or a list.')
    source_ports: PortOrList | None = Field(None, description="As ports.")
    icmp_types: TextOrList | None = Field(None, description="By name: echo-request, ...")
    state: TextOrList | None = Field(
        None, description="new or invalid; established and related connections are accepted before all rules."
    )
    rate: str | None = Field(None, description="10/s, 100/min, 5/h: the rule matches only up to this rate.")
    burst: int | None = Field(
        None, ge=1, le=10_000, description="How many frames may come at once before rate applies."
    )
    comment: str = Field("", max_length=200, description="For people.")


class SecurityGroupRuleTable(Table):
    """What the stations of a security group may send or receive."""

    direction: Literal["in", "out"] = Field("in", description="As in [[filter.rules]].")
    remote: TextOrList | None = Field(
        None, description="The other end: networks, stations, peers or @groups."
    )
    protocol: Protocol = Field(ANY_PROTOCOL, description="As in [[filter.rules]].")
    ports: PortOrList | None = Field(None, description="Destination ports.")
    icmp_types: TextOrList | None = Field(None, description="By name: echo-request, ...")
    comment: str = Field("", max_length=200, description="For people.")


class SecurityGroupTable(Table):
    """Stations whose frames are refused unless a rule of their groups accepts them."""

    name: str = Field(description="Also names a group: @NAME means its stations.")
    stations: list[str] = Field(description="MAC addresses, or @groups of them.")
    default_in: Literal["accept", "drop", "reject"] = Field(
        _GROUP.default_in.value, description="For frames to its stations that no rule accepts."
    )
    default_out: Literal["accept", "drop", "reject"] = Field(
        _GROUP.default_out.value, description="For frames from its stations that no rule accepts."
    )
    rules: list[SecurityGroupRuleTable] = Field([], max_length=MAX_FILTER_RULES)


class FilterTable(Table):
    """What may cross between the overlay and this host's guests. Without this table, everything may."""

    backend: Literal["iptables"] = Field("iptables", description="iptables with bridge netfilter, stateful.")
    default_in: Literal["accept", "drop", "reject"] = Field(
        _FILTER.default_in.value, description="For frames from the overlay that no rule decides."
    )
    default_out: Literal["accept", "drop", "reject"] = Field(
        _FILTER.default_out.value, description="For frames to the overlay that no rule decides."
    )
    tagged: Literal["accept", "drop"] = Field(
        _FILTER.tagged.value,
        description="For frames with a VLAN tag or PPPoE, which iptables does not look into.",
    )
    groups: dict[str, list[str]] = Field(
        {}, description="Named lists of networks, addresses, stations and peers."
    )
    rules: list[FilterRuleTable] = Field([], description="In order; the first that matches decides.")
    security_groups: list[SecurityGroupTable] = Field([], max_length=MAX_FILTER_RULES)


class StormLimitTable(Table):
    """The limit for one class of flooded frames from one port."""

    frames: int | None = Field(None, ge=1, le=MAX_STORM_RATE, description="Frames a second.")
    bytes: int | None = Field(None, ge=1500, le=MAX_STORM_RATE, description="Bytes a second.")
    burst: float | None = Field(
        None,
        gt=0,
        le=60,
        description=f"How many seconds' worth may come at once; default {_STORM_LIMIT.burst_time:g}.",
    )


class StormTable(Table):
    """How much one port may flood; the rest is dropped and counted."""

    broadcast: StormLimitTable | None = None
    multicast: StormLimitTable | None = None
    unknown_unicast: StormLimitTable | None = None


class ProtectTable(Table):
    """What the switch refuses, so that trouble at one site does not spread to the others."""

    dhcp_servers: Listed | None = Field(
        None, description="Peers and stations (MAC) that may answer as DHCP servers. Default: anybody."
    )
    router_advertisements: Listed | None = Field(
        None, description="Peers and stations that may send IPv6 router advertisements. Default: anybody."
    )
    arp_spoof_guard: OnOff = Field(
        on_off(_PROTECT.arp_spoof_guard), description="A station may claim only the addresses bound to it."
    )
    bindings: dict[str, Annotated[list[BoundAddress], Field(max_length=MAX_BOUND_ADDRESSES)]] = Field(
        {},
        description="The addresses of a station (MAC). Other addresses belong to the first station that claims them.",
    )
    ethertypes_allow: list[EtherType] | None = Field(
        None, description="The only EtherTypes that pass. Default: all."
    )
    ethertypes_deny: list[EtherType] | None = Field(None, description="EtherTypes that do not pass.")
    bpdu: PassDrop = Field(_pass_drop(_PROTECT.bpdu_passes), description="Spanning tree (01:80:c2:00:00:00).")
    reserved: Annotated[list[Reserved], Field(max_length=len(RESERVED_NAMES))] = Field(
        [], description="Protocols between neighbours that pass (to 01:80:c2:00:00:01 .. 0f). Default: none."
    )
    lldp: PassDrop = Field(
        _pass_drop("lldp" in _PROTECT.reserved_passes),
        description='"pass" is the same as reserved = ["lldp"].',
    )
    isolation: Listed | None = Field(None, description="Peers and stations that do not talk to each other.")
    storm_control: OnOff = Field(
        on_off(_PROTECT.storm is not None), description="Limits what each port may flood."
    )
    storm: StormTable | None = None
    loop_guard: OnOff = Field(
        on_off(_PROTECT.loop_guard), description="Finds and cuts a second path between two hosts' bridges."
    )


class FileTables(Table):
    """peers.toml of l2overlay: one layer-2 segment and the hosts that form it."""

    segment: SegmentTable
    peers: list[PeerTable] = Field(
        [], max_length=MAX_PEERS, description="Every host of the segment, this one too."
    )
    filter: FilterTable | None = None
    protect: ProtectTable | None = None


def json_schema() -> Document:
    """JSON Schema 2020-12 of peers.toml."""
    schema = FileTables.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_without_null(schema),
        "title": "peers.toml",
    }


def _without_null(schema: Any) -> Any:
    """pydantic allows null where None is the default; TOML has no null."""
    if isinstance(schema, list):
        return [_without_null(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {key: _without_null(part) for key, part in schema.items()}
    choices = parts.get("anyOf", [])
    if {"type": "null"} not in choices:
        return parts
    rest = [choice for choice in choices if choice != {"type": "null"}]
    only = rest[0] if len(rest) == 1 else {"anyOf": rest}
    return only | {key: part for key, part in parts.items() if key not in ("anyOf", "default")}
