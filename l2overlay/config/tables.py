"""The tables of peers.toml as pydantic models: which keys there are and what each may hold. The JSON Schema is made
from them too.

To add a table (`[filter]`): its model here and a field for it in `FileTables`, what it must be to other tables in
`config.checks.py`, its frozen counterpart in `config.py`. Import this module lazily: pydantic costs 0.1 s and 10 MB.
"""

import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.fields import FieldInfo

from l2overlay.config.checks import Document, Fault
from l2overlay.config.filter import PROTOCOLS, port_or_list, text_or_list
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
from l2overlay.config.positions import Path
from l2overlay.config.protect import (
    ETHERTYPES,
    RESERVED_NAMES,
    bound_address,
    parse_ethertype,
    reserved_protocol,
)
from l2overlay.config.values import (
    INTERFACE_NAME,
    PEER_NAME,
    SEGMENT_NAME,
    interface_address,
    interface_name,
    peer_name,
    public_key_text,
    quote,
    segment_name,
    split_endpoint,
    split_listen,
    station_mac,
)
from l2overlay.suggestion import suggestion


def checked_by(check: Callable[[str], object]) -> AfterValidator:
    """Let `check` refuse a text with its own ValueError; the text itself stays."""

    def validate(text: str) -> str:
        check(text)
        return text

    return AfterValidator(validate)


def _kept(check: Callable[[object], object]) -> Callable[[object], object]:
    """As `checked_by`, for values of several types."""

    def validate(value: object) -> object:
        check(value)
        return value

    return validate


def pattern(expression: str) -> Any:
    """For the JSON Schema only: `checked_by` says more clearly what is wrong."""
    return Field(json_schema_extra={"pattern": f"^{expression}$"})


SegmentName = Annotated[str, checked_by(segment_name), pattern(SEGMENT_NAME)]
PeerName = Annotated[str, checked_by(peer_name), pattern(PEER_NAME)]
InterfaceName = Annotated[str, checked_by(interface_name), pattern(INTERFACE_NAME)]
PublicKeyText = Annotated[str, checked_by(public_key_text), pattern("[A-Za-z0-9+/]{43}=")]
MacText = Annotated[str, checked_by(station_mac), pattern("([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}")]
EndpointText = Annotated[str, checked_by(split_endpoint), pattern(".+:[0-9]{1,5}")]
AddressText = Annotated[str, checked_by(interface_address), pattern("[0-9A-Fa-f:.]+/[0-9]{1,3}")]


def shaped_by(check: Callable[[object], object], schema: dict[str, Any]) -> Any:
    """For values of several types: pydantic would name each type that it tried. `config.filter` looks at what is in them."""
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
OnOff = Literal["on", "off"]
PassDrop = Literal["pass", "drop"]


class Table(BaseModel):
    """What all tables share: no unknown keys, no conversions (a text is no number)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class SegmentTable(Table):
    """The LAN itself; the same on every host."""

    name: SegmentName = Field(description="Names the segment, its files and its interfaces.")
    bridge: InterfaceName | None = Field(
        None, description="Bridge that the TAP joins; made when missing. Default: br-NAME."
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
        description="Seconds after its last frame until a station is forgotten.",
    )
    listen: Listen = Field(
        DEFAULT_PORT,
        description="UDP port of nodes whose stanza has no endpoint; with an address, all that this node binds.",
    )
    suite: Literal["aes-gcm", "chacha20-poly1305"] = Field(
        "aes-gcm",
        description="Cipher of every session; chacha20-poly1305 is for hosts without AES instructions.",
    )
    psk_file: str | None = Field(
        None, min_length=1, description="File with 32 bytes in base64, mixed into every handshake; mode 0600."
    )
    addresses: dict[str, Annotated[list[AddressText], Field(max_length=MAX_ADDRESSES)]] = Field(
        {}, description="By node name: the addresses that this node puts on its bridge."
    )


class PeerTable(Table):
    """One host."""

    name: PeerName = Field(description="Unique; usually the host's name.")
    public_key: PublicKeyText = Field(description="What 'l2overlay pubkey' prints on that host.")
    endpoint: EndpointText | None = Field(
        None,
        description="host:port or [v6]:port of its underlay address; without it the peer must call first.",
    )
    macs: list[MacText] = Field([], description="Stations that live behind this peer and nowhere else.")
    learn: Literal["on", "off", "locked"] = Field(
        "on", description="off: only macs may send; locked: who was learned here stays here."
    )
    max_macs: int | None = Field(
        None, ge=1, le=MAX_STATIC_MACS, description="Stations behind this peer at most, macs included."
    )
    persistent_keepalive: float = Field(
        DEFAULT_PERSISTENT_KEEPALIVE,
        ge=0,
        le=MAX_PERSISTENT_KEEPALIVE,
        description="Seconds between keepalives of an idle session, to keep NATs open; 0 is off.",
    )


class FilterRuleTable(Table):
    """One rule; the first that matches decides."""

    direction: Literal["in", "out"] = Field(
        description="in: from the overlay to this host's guests; out: the reverse."
    )
    action: Literal["accept", "drop", "reject", "log"] = Field(description="log goes on to the next rule.")
    protocol: Protocol = Field(
        "any", description="tcp, udp, sctp, icmp (of both families), gre, esp, any, or a number."
    )
    source: TextOrList | None = Field(
        None, description="Networks, addresses, stations (MAC), peers or @groups."
    )
    destination: TextOrList | None = Field(None, description="As source.")
    ports: PortOrList | None = Field(None, description='Of the destination: 22, "8000-8010", or a list.')
    source_ports: PortOrList | None = Field(None, description="As ports.")
    icmp_types: TextOrList | None = Field(None, description="By name: echo-request, ...")
    state: TextOrList | None = Field(
        None, description="new or invalid; established and related pass before all rules."
    )
    rate: str | None = Field(None, description="10/s, 100/min, 5/h: matches up to this rate only.")
    burst: int | None = Field(
        None, ge=1, le=10_000, description="Frames that may come at once before rate counts."
    )
    comment: str = Field("", max_length=200, description="For people.")


class SecurityGroupRuleTable(Table):
    """What the stations of a security group may."""

    direction: Literal["in", "out"] = Field("in", description="As in [[filter.rules]].")
    remote: TextOrList | None = Field(
        None, description="The other end: networks, stations, peers or @groups."
    )
    protocol: Protocol = Field("any", description="As in [[filter.rules]].")
    ports: PortOrList | None = Field(None, description="Of the destination.")
    icmp_types: TextOrList | None = Field(None, description="By name: echo-request, ...")
    comment: str = Field("", max_length=200, description="For people.")


class SecurityGroupTable(Table):
    """Stations for whom all is denied that no rule of their groups accepts."""

    name: str = Field(description="Also a group: @NAME are its stations.")
    stations: list[str] = Field(description="MAC addresses, or @groups of them.")
    default_in: Literal["accept", "drop", "reject"] = Field("drop", description="For its stations.")
    default_out: Literal["accept", "drop", "reject"] = Field("accept", description="For its stations.")
    rules: list[SecurityGroupRuleTable] = Field([], max_length=MAX_FILTER_RULES)


class FilterTable(Table):
    """What may cross between the overlay and this host's guests; without this table, everything."""

    backend: Literal["iptables"] = Field("iptables", description="iptables through bridge_nf, stateful.")
    default_in: Literal["accept", "drop", "reject"] = Field(
        "accept", description="What happens to frames from the overlay that no rule decides."
    )
    default_out: Literal["accept", "drop", "reject"] = Field(
        "accept", description="What happens to frames to the overlay that no rule decides."
    )
    tagged: Literal["accept", "drop"] = Field(
        "drop", description="Frames with a VLAN tag, which iptables does not see into."
    )
    groups: dict[str, list[str]] = Field(
        {}, description="Named lists of networks, addresses, stations and peers."
    )
    rules: list[FilterRuleTable] = Field([], description="In order; the first that matches decides.")
    security_groups: list[SecurityGroupTable] = Field([], max_length=MAX_FILTER_RULES)


class StormLimitTable(Table):
    """Of one class of flooded frames from one port."""

    frames: int | None = Field(None, ge=1, le=MAX_STORM_RATE, description="A second.")
    bytes: int | None = Field(None, ge=1500, le=MAX_STORM_RATE, description="A second.")
    burst: float | None = Field(
        None, gt=0, le=60, description="So many seconds' worth may come at once; default 2."
    )


class StormTable(Table):
    """What may be flooded from one port; the rest is dropped and counted."""

    broadcast: StormLimitTable | None = None
    multicast: StormLimitTable | None = None
    unknown_unicast: StormLimitTable | None = None


class ProtectTable(Table):
    """What the switch refuses, so that one site's trouble does not become everybody's."""

    dhcp_servers: Listed | None = Field(
        None, description="Peers and stations (MAC) that may answer as DHCP servers. Default: anybody."
    )
    router_advertisements: Listed | None = Field(
        None, description="Peers and stations that may send IPv6 router advertisements. Default: anybody."
    )
    arp_spoof_guard: OnOff = Field("off", description="A station may claim only the addresses bound to it.")
    bindings: dict[str, Annotated[list[BoundAddress], Field(max_length=MAX_BOUND_ADDRESSES)]] = Field(
        {}, description="By station (MAC): its addresses. Others are bound to who claims them first."
    )
    ethertypes_allow: list[EtherType] | None = Field(
        None, description="All that passes. Default: everything."
    )
    ethertypes_deny: list[EtherType] | None = Field(None, description="What does not pass.")
    bpdu: PassDrop = Field("pass", description="Spanning tree (01:80:c2:00:00:00).")
    reserved: Annotated[list[Reserved], Field(max_length=len(RESERVED_NAMES))] = Field(
        [], description="Protocols between neighbours that pass (to 01:80:c2:00:00:01 .. 0f). Default: none."
    )
    lldp: PassDrop = Field("drop", description='"pass" is the same as reserved = ["lldp"].')
    isolation: Listed | None = Field(None, description="Peers and stations that do not talk to each other.")
    storm_control: OnOff = Field("on", description="Caps what each port may flood.")
    storm: StormTable | None = None
    loop_guard: OnOff = Field("on", description="Finds and cuts a second path between two hosts' bridges.")


class FileTables(Table):
    """peers.toml of l2overlay: one layer-2 segment and the hosts that form it."""

    segment: SegmentTable
    peers: list[PeerTable] = Field(
        [], max_length=MAX_PEERS, description="Every host of the segment, this one too."
    )
    filter: FilterTable | None = None
    protect: ProtectTable | None = None


def check_tables(document: Document) -> tuple[FileTables | None, list[Fault]]:
    """The document as models, or None and what is wrong with its keys and values one by one."""
    try:
        return FileTables.model_validate(document), []
    except ValidationError as error:
        return None, [_fault(dict(details)) for details in error.errors(include_url=False)]


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


def _fault(details: dict[str, Any]) -> Fault:
    path: Path = tuple(part for part in details["loc"] if part != "[key]")
    label = next((part for part in reversed(path) if isinstance(part, str)), "the file")
    match details["type"]:
        case "extra_forbidden":
            return Fault(
                path, f"unknown key {quote(label)}{suggestion(label, _keys_at(path[:-1]))}", at_key=True
            )
        case "missing" if len(path) == 1:
            return Fault(path, f"the table [{label}] is missing")
        case "missing":
            return Fault(path, f"the key {label!r} is missing here", at_key=True)
        case "literal_error":
            return Fault(path, _choice_message(label, path, details["input"]))
        case "value_error":
            return Fault(path, str(details["ctx"]["error"]))
    return Fault(path, _plain_message(label, details))


_TYPES = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "list_type": "a list in [ ]",
    "dict_type": "a table",
    "model_type": "a table",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
}
_LENGTHS = {
    "too_long": ("max_length", "at most"),
    "too_short": ("min_length", "at least"),
    "string_too_long": ("max_length", "at most"),
    "string_too_short": ("min_length", "at least"),
}


def _plain_message(label: str, details: dict[str, Any]) -> str:
    kind = details["type"]
    if kind in _TYPES:
        return f"{label} must be {_TYPES[kind]}, not {_describe(details['input'])}"
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{label} must be {words} {int(details['ctx'][key])}, not {_describe(details['input'])}"
    if kind in _LENGTHS:
        key, words = _LENGTHS[kind]
        unit = "characters" if kind.startswith("string") else "entries"
        return f"{label} must have {words} {details['ctx'][key]} {unit}"
    return f"{label}: {details['msg']}"


def _describe(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return quote(str(value))[1:-1] if abs(value) < 1e18 else "a huge number"
        case str():
            return f"the text {quote(value)}"
        case list():
            return "a list"
        case dict():
            return "a table"
    return f"a {type(value).__name__}"


def _choice_message(label: str, path: Path, value: object) -> str:
    choices = [str(choice) for choice in typing.get_args(_field_at(path).annotation)]
    listed = " or ".join(repr(choice) for choice in choices)
    hint = suggestion(value, choices) if isinstance(value, str) else ""
    return f"{label} must be {listed}, not {_describe(value)}{hint}"


def _keys_at(path: Path) -> list[str]:
    """The keys that the table at `path` may have."""
    return list(_model_at(path).model_fields)


def _field_at(path: Path) -> FieldInfo:
    names = [part for part in path if isinstance(part, str)]
    return _model_at(path[: path.index(names[-1])]).model_fields[names[-1]]


def _model_at(path: Path) -> type[BaseModel]:
    model: type[BaseModel] = FileTables
    for part in path:
        if isinstance(part, str) and (inner := _model_in(model.model_fields[part].annotation)):
            model = inner
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """`PeerTable` of `list[PeerTable] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in typing.get_args(annotation) if (model := _model_in(part))), None)
